//! Mounting and unmounting.

use crate::fixture::Fixture;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use stillpoint::base::{ErrorKind, SystemClock};
use stillpoint::vfs::{Mount, MountTarget};
use stillpoint_fuse::MountOptions;

#[test]
fn a_busy_mount_stays_until_its_files_are_closed() {
    let mut fixture = Fixture::new(true);
    let file = File::create(fixture.root().join("open")).unwrap();
    let refused = fixture.session().unmount().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InUse);
    fs::write(fixture.root().join("still"), b"works").unwrap();
    drop(file);
    fixture.unmount();
    assert!(!fixture.root().exists());
    fixture.mount(&MountTarget::Store, true);
    assert_eq!(fs::read(fixture.root().join("still")).unwrap(), b"works");
}

#[test]
fn a_second_mount_on_one_directory_is_refused() {
    let fixture = Fixture::new(true);
    let store = Arc::clone(&fixture.store);
    let options = MountOptions::default();
    let refused =
        Mount::start(store, Arc::new(SystemClock), &MountTarget::Store, &fixture.mount_point(), &options);
    assert_eq!(refused.err().unwrap().kind(), ErrorKind::InUse);
}

#[test]
fn a_volume_can_be_mounted_alone() {
    let mut fixture = Fixture::new(true);
    fs::write(fixture.root().join("f"), b"x").unwrap();
    fixture.snapshot("s");
    fixture.unmount();
    fixture.mount(&MountTarget::Volume("v".to_owned()), true);
    let top = fixture.mount_point();
    assert_eq!(fs::read(top.join("f")).unwrap(), b"x");
    assert_eq!(fs::read(top.join(".snapshots/s/f")).unwrap(), b"x");
    fs::write(top.join("g"), b"y").unwrap();
    assert_eq!(fs::read_dir(&top).unwrap().count(), 2);
    let volume = fixture.store.volume("v").unwrap().id();
    fixture.session().flush(volume).unwrap();
    assert_eq!(fixture.session().open_files(volume), 0);
}

#[test]
fn a_bound_volume_shares_the_mounts_caches() {
    let mut fixture = Fixture::new(true);
    let target = tempfile::tempdir().unwrap();
    fixture.session().bind_volume("v", target.path()).unwrap();
    fs::write(target.path().join("f"), b"through the bind").unwrap();
    assert_eq!(fs::read(fixture.root().join("f")).unwrap(), b"through the bind");
    let (here, there) =
        (fs::metadata(target.path().join("f")).unwrap(), fs::metadata(fixture.root().join("f")).unwrap());
    assert_eq!((here.dev(), here.ino()), (there.dev(), there.ino()));
    stillpoint_fuse::unbind(target.path()).unwrap();
    fixture.unmount();
}

#[test]
fn requests_are_counted_and_writes_cause_no_chatter() {
    let fixture = Fixture::new(true);
    let path = fixture.root().join("f");
    let before = fixture.session().counters().requests(stillpoint_fuse::Opcode::GetXattr);
    let file = File::create(&path).unwrap();
    for i in 0..50 {
        file.write_all_at(&vec![i; 10_000], u64::from(i) * 20_000).unwrap();
        file.sync_data().unwrap();
    }
    drop(file);
    let counters = fixture.session().counters();
    assert!(counters.requests(stillpoint_fuse::Opcode::Write) >= 50);
    // The first write to an inode after a change of its attributes asks; the kernel then remembers.
    assert!(counters.requests(stillpoint_fuse::Opcode::GetXattr) <= before + 1, "no xattr per write");
    assert_eq!(counters.requests(stillpoint_fuse::Opcode::Flush), 1, "one ENOSYS ends it");
    assert_eq!(counters.panics(), 0);
    assert!(counters.bytes_written() >= 500_000);
}
