//! The list of volumes, `.snapshots`, and one cut across files.

use crate::fixture::{Fixture, errno, in_each_mode};
use rustix::io::Errno;
use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_root_lists_volumes_and_is_changed_by_commands_only() {
    in_each_mode(|fixture, _| {
        let top = fixture.mount_point();
        fixture.store.create_volume("second").unwrap();
        fixture.session().volume_created("second");
        assert_eq!(names(&top), ["second", "v"]);
        assert_eq!(errno(fs::create_dir(top.join("x"))), Errno::PERM);
        assert_eq!(errno(File::create(top.join("x"))), Errno::PERM);
        assert_eq!(errno(fs::remove_dir(top.join("v"))), Errno::PERM);
        assert_eq!(errno(fs::rename(top.join("v"), top.join("w"))), Errno::PERM);
        assert_eq!(errno(fs::metadata(top.join("absent"))), Errno::NOENT);
        fs::write(top.join("v/f"), b"x").unwrap();
        assert_eq!(errno(fs::rename(top.join("v/f"), top.join("second/f"))), Errno::XDEV);
        assert_eq!(errno(fs::hard_link(top.join("v/f"), top.join("second/f"))), Errno::XDEV);
        fixture.store.rename_volume("second", "third").unwrap();
        fixture.session().volume_renamed("second", "third");
        assert_eq!(names(&top), ["third", "v"]);
        assert!(top.join("third").is_dir() && !top.join("second").exists());
        let id = fixture.store.volume("third").unwrap().id();
        fixture.store.destroy_volume("third").unwrap();
        fixture.session().volume_removed("third", id);
        assert!(!top.join("third").exists());
    });
}

#[test]
fn snapshots_are_seen_and_cannot_be_changed() {
    in_each_mode(|fixture, root| {
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/f"), b"old").unwrap();
        assert!(names(&root.join(".snapshots")).is_empty());
        fixture.snapshot("one");
        fs::write(root.join("d/f"), b"changed").unwrap();
        fs::write(root.join("d/new"), b"new").unwrap();
        let snapshots = root.join(".snapshots");
        assert_eq!(names(&snapshots), ["one"]);
        assert_eq!(names(root), ["d"], "it is not listed");
        let old = snapshots.join("one/d/f");
        assert_eq!(fs::read(&old).unwrap(), b"old");
        assert_eq!(names(&snapshots.join("one/d")), ["f"]);
        assert!(!snapshots.join("one/.snapshots").exists());
        assert_eq!(errno(fs::write(&old, b"x")), Errno::ROFS);
        assert_eq!(errno(fs::remove_file(&old)), Errno::ROFS);
        assert_eq!(errno(fs::create_dir(snapshots.join("one/x"))), Errno::ROFS);
        assert_eq!(errno(fs::create_dir(snapshots.join("x"))), Errno::ROFS);
        assert_eq!(errno(fs::create_dir(root.join(".snapshots"))), Errno::EXIST);
        assert_eq!(errno(fs::remove_dir(root.join(".snapshots"))), Errno::PERM);
        assert_ne!(fs::metadata(&old).unwrap().ino(), fs::metadata(root.join("d/f")).unwrap().ino());
        let id = fixture.store.volume("v").unwrap().id();
        let gone = fixture.store.snapshot("v", "one").unwrap().id();
        fixture.store.destroy_snapshot("v", "one").unwrap();
        fixture.session().snapshot_removed(id, "one", gone);
        assert!(!snapshots.join("one").exists());
    });
}

#[test]
fn clones_have_inode_numbers_of_their_own() {
    in_each_mode(|fixture, root| {
        fs::write(root.join("PG_VERSION"), b"15").unwrap();
        fixture.snapshot("s");
        fixture.store.create_clone("v", "s", "c1").unwrap();
        fixture.store.create_clone("v", "s", "c2").unwrap();
        let top = fixture.mount_point();
        let mut seen = HashSet::new();
        for volume in ["v", "c1", "c2"] {
            for name in ["", "PG_VERSION"] {
                let status = fs::metadata(top.join(volume).join(name)).unwrap();
                assert!(seen.insert((status.dev(), status.ino())), "{volume}/{name}");
            }
        }
        fs::write(top.join("c1/PG_VERSION"), b"16").unwrap();
        assert_eq!(fs::read(top.join("c2/PG_VERSION")).unwrap(), b"15");
        assert_eq!(fs::read(root.join("PG_VERSION")).unwrap(), b"15");
    });
}

/// Two files are written in turns by one writer without any fsync. Whatever had returned when the snapshot was
/// asked for has to be in it.
#[test]
fn a_snapshot_holds_every_write_that_returned_before() {
    for writeback in [true, false] {
        let fixture = Fixture::new(writeback);
        let root = fixture.root();
        let open = |name: &str| {
            OpenOptions::new().write(true).create(true).truncate(true).open(root.join(name)).unwrap()
        };
        let (a, b) = (open("a"), open("b"));
        let (returned, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let mut cuts = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for i in 1u64.. {
                    if stop.load(Ordering::Acquire) {
                        break;
                    }
                    let file = if i % 2 == 0 { &a } else { &b };
                    file.write_all_at(&i.to_le_bytes(), (i / 2) * 8).unwrap();
                    returned.store(i, Ordering::Release);
                }
            });
            for cut in 0..10 {
                std::thread::sleep(std::time::Duration::from_millis(20));
                let before = returned.load(Ordering::Acquire);
                fixture.snapshot(&format!("cut{cut}"));
                cuts.push((cut, before));
            }
            stop.store(true, Ordering::Release);
        });
        for (cut, before) in cuts {
            let seen = |name: &str| fs::read(root.join(format!(".snapshots/cut{cut}/{name}"))).unwrap();
            let (a, b) = (seen("a"), seen("b"));
            for i in 1..=before {
                let content = if i % 2 == 0 { &a } else { &b };
                let at = (i / 2 * 8) as usize;
                let found = content.get(at..at + 8);
                assert_eq!(found, Some(&i.to_le_bytes()[..]), "write {i} of {before} in cut {cut}");
            }
        }
    }
}
