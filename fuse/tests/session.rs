//! A session over a file system of one file: panics, deferred answers, dead mounts. Needs root and /dev/fuse.

#![allow(clippy::unwrap_used)] // Failing here is a failing test.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use stillpoint_fuse::{
    Answer, Attributes, Caching, Caller, Change, Copy, DirectorySink, Done, Durability, Entry, Errno,
    FileSystem, Files, Metadata, MountOptions, Namespace, NewNode, NodeId, NodeKind, OpenRequest, Opened,
    RenameMode, Seek, SessionError, SpaceMode, Statistics, Time, Timed, Write, XattrMode, mount,
};

const ROOT: NodeId = 1;
const FILE: NodeId = 2;

/// One file, `file`; reading it from offset 4096 panics.
struct OneFile;

fn timed(node: NodeId) -> Timed {
    let (kind, mode, size) = match node {
        ROOT => (NodeKind::Directory, 0o755, 0),
        _ => (NodeKind::File, 0o644, 8192),
    };
    let at = Time::default();
    let attributes = Attributes {
        ino: node,
        kind,
        mode,
        links: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        size,
        blocks: 0,
        block_size: 4096,
        accessed: at,
        modified: at,
        changed: at,
    };
    Timed { attributes, valid: Duration::from_secs(3600) }
}

impl Metadata for OneFile {
    fn attributes(&self, node: NodeId) -> Answer<Timed> {
        Ok(timed(node))
    }

    fn set_attributes(&self, _: Caller, node: NodeId, _: &Change) -> Answer<Timed> {
        Ok(timed(node))
    }

    fn read_link(&self, _: NodeId) -> Answer<Vec<u8>> {
        Err(Errno::INVAL)
    }

    fn statistics(&self, _: NodeId) -> Answer<Statistics> {
        Ok(Statistics::default())
    }

    fn xattr(&self, _: NodeId, _: &[u8]) -> Answer<Vec<u8>> {
        Err(Errno::NODATA)
    }

    fn set_xattr(&self, _: NodeId, _: &[u8], _: &[u8], _: XattrMode) -> Answer<()> {
        Err(Errno::OPNOTSUPP)
    }

    fn list_xattrs(&self, _: Caller, _: NodeId) -> Answer<Vec<Vec<u8>>> {
        Ok(Vec::new())
    }

    fn remove_xattr(&self, _: NodeId, _: &[u8]) -> Answer<()> {
        Err(Errno::NODATA)
    }
}

impl Namespace for OneFile {
    fn lookup(&self, _: Caller, _: NodeId, name: &[u8]) -> Answer<Entry> {
        let found = (name == b"file").then(|| timed(FILE));
        Ok(Entry { found, valid: Duration::from_secs(3600) })
    }

    fn make(&self, _: Caller, _: NodeId, _: &[u8], _: NewNode<'_>, _: u32) -> Answer<Entry> {
        Err(Errno::ROFS)
    }

    fn link(&self, _: NodeId, _: NodeId, _: &[u8]) -> Answer<Entry> {
        Err(Errno::ROFS)
    }

    fn unlink(&self, _: NodeId, _: &[u8]) -> Answer<()> {
        Err(Errno::ROFS)
    }

    fn remove_directory(&self, _: NodeId, _: &[u8]) -> Answer<()> {
        Err(Errno::ROFS)
    }

    fn rename(&self, _: (NodeId, &[u8]), _: (NodeId, &[u8]), _: RenameMode) -> Answer<()> {
        Err(Errno::ROFS)
    }

    fn list_directory(&self, _: NodeId, _: u64, _: &mut dyn DirectorySink) -> Answer<()> {
        Ok(())
    }

    fn sync_directory(&self, _: NodeId, done: Done) {
        done(Ok(()));
    }
}

impl Files for OneFile {
    fn open(&self, _: Caller, _: NodeId, _: OpenRequest) -> Answer<Opened> {
        Ok(Opened { handle: 1, caching: Caching::Direct })
    }

    fn create(&self, _: Caller, _: NodeId, _: &[u8], _: u32, _: OpenRequest) -> Answer<(Entry, Opened)> {
        Err(Errno::ROFS)
    }

    fn release(&self, _: NodeId, _: u64) {}

    fn read(&self, _: NodeId, _: u64, offset: u64, length: usize) -> Answer<Vec<u8>> {
        assert!(offset < 4096, "the test's own panic");
        Ok(vec![7; length.min(4096)])
    }

    fn write(&self, _: Caller, _: &Write<'_>) -> Answer<Durability> {
        Ok(Durability::Deferred)
    }

    /// Answers late, from another thread.
    fn sync(&self, _: NodeId, _: u64, done: Done) {
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            done(Err(Errno::NOSPC));
        });
    }

    fn space(&self, _: Caller, _: NodeId, _: u64, _: SpaceMode, _: (u64, u64)) -> Answer<()> {
        Err(Errno::OPNOTSUPP)
    }

    fn seek(&self, _: NodeId, _: u64, offset: u64, _: Seek) -> Answer<u64> {
        Ok(offset)
    }

    fn has_writers(&self, _: NodeId) -> bool {
        false
    }

    fn copy(&self, _: Caller, _: &Copy) -> Answer<u64> {
        Err(Errno::OPNOTSUPP)
    }
}

impl FileSystem for OneFile {}

fn options() -> MountOptions {
    MountOptions { event_loops: 1, ..MountOptions::default() }
}

fn read_at(path: &Path, offset: u64) -> std::io::Result<usize> {
    use std::os::unix::fs::FileExt;
    File::open(path)?.read_at(&mut [0; 10], offset)
}

#[test]
fn a_panic_is_eio_and_the_loop_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let mounted = mount(directory.path(), &options(), Arc::new(OneFile)).unwrap();
    let file = directory.path().join("file");
    for _ in 0..3 {
        let error = read_at(&file, 5000).unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::IO));
        assert_eq!(read_at(&file, 0).unwrap(), 10);
    }
    assert_eq!(mounted.counters().panics(), 3);
    mounted.unmount().unwrap();
    assert!(mounted.has_ended() && !file.exists());
}

#[test]
fn a_late_fsync_answer_holds_up_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let mounted = mount(directory.path(), &options(), Arc::new(OneFile)).unwrap();
    let path = directory.path().join("file");
    let syncing = File::open(&path).unwrap();
    std::thread::scope(|scope| {
        let sync = scope.spawn(|| syncing.sync_all().unwrap_err());
        // The one loop serves these while the fsync waits.
        for _ in 0..20 {
            assert_eq!(read_at(&path, 0).unwrap(), 10);
        }
        assert_eq!(Errno::from_io_error(&sync.join().unwrap()), Some(Errno::NOSPC));
    });
    drop(syncing);
    mounted.unmount().unwrap();
}

#[test]
fn an_administrator_may_unmount_and_mount_again() {
    let directory = tempfile::tempdir().unwrap();
    let mounted = mount(directory.path(), &options(), Arc::new(OneFile)).unwrap();
    let second = mount(directory.path(), &options(), Arc::new(OneFile));
    assert!(matches!(second, Err(SessionError::AlreadyMounted { .. })));
    assert!(Command::new("umount").arg(directory.path()).status().unwrap().success());
    let again = mount(directory.path(), &options(), Arc::new(OneFile)).unwrap();
    mounted.unmount().unwrap();
    mounted.wait().unwrap();
    drop(mounted);
    assert!(directory.path().join("file").exists(), "the first took the second off");
    drop(again);
    assert!(!directory.path().join("file").exists(), "dropping unmounts");
}

/// The environment variable that makes this test's process mount and wait to be killed.
const MOUNT_HERE: &str = "STILLPOINT_TEST_MOUNT_HERE";

#[test]
fn a_dead_daemons_mount_is_taken_off() {
    if let Some(directory) = std::env::var_os(MOUNT_HERE) {
        let mounted = mount(Path::new(&directory), &options(), Arc::new(OneFile)).unwrap();
        fs::write(Path::new(&directory).with_extension("up"), b"").unwrap();
        return mounted.wait().unwrap();
    }
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("mnt");
    fs::create_dir(&directory).unwrap();
    let mut daemon = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_dead_daemons_mount_is_taken_off"])
        .env(MOUNT_HERE, &directory)
        .spawn()
        .unwrap();
    while !directory.with_extension("up").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let dead = fs::metadata(&directory).unwrap_err();
    assert_eq!(Errno::from_io_error(&dead), Some(Errno::NOTCONN));
    let mounted = mount(&directory, &options(), Arc::new(OneFile)).unwrap();
    assert!(directory.join("file").exists());
    mounted.unmount().unwrap();
    assert!(fs::metadata(&directory).unwrap().is_dir());
}
