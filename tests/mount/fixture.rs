//! A mounted store in a temporary directory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use std::os::unix::process::CommandExt;
use stillpoint::base::{RealStorage, SystemClock};
use stillpoint::vfs::{Mount, MountTarget};
use stillpoint::volume::{CreateOptions, Environment, OpenOptions, Store};
use stillpoint_fuse::MountOptions;
use tempfile::TempDir;

/// Somebody who is not root.
pub(crate) const NOBODY: u32 = 65_534;

/// A store with one volume `v`, mounted.
pub(crate) struct Fixture {
    pub(crate) store: Arc<Store>,
    mount: Option<Mount>,
    directory: TempDir,
}

impl Fixture {
    pub(crate) fn new(writeback: bool) -> Self {
        let directory = tempfile::Builder::new().prefix("fuse-mount-").tempdir().unwrap();
        std::fs::create_dir(directory.path().join("store")).unwrap();
        std::fs::create_dir(directory.path().join("mnt")).unwrap();
        let storage = Arc::new(RealStorage::open(&directory.path().join("store")).unwrap());
        let environment = Environment::system();
        let create = CreateOptions { journal_bytes: 16 << 20 };
        Store::create(storage.clone(), &environment, &create).unwrap();
        let store = Store::open(storage, &environment, &OpenOptions::default()).unwrap();
        store.create_volume("v").unwrap();
        let mut fixture = Self { store, mount: None, directory };
        fixture.mount(&MountTarget::Store, writeback);
        fixture
    }

    pub(crate) fn mount(&mut self, target: &MountTarget, writeback: bool) {
        let options = MountOptions { writeback, event_loops: 2, ..MountOptions::default() };
        let store = Arc::clone(&self.store);
        let mount = Mount::start(store, Arc::new(SystemClock), target, &self.mount_point(), &options);
        self.mount = Some(mount.unwrap());
    }

    pub(crate) fn unmount(&mut self) {
        self.mount.take().unwrap().unmount().unwrap();
    }

    pub(crate) fn session(&self) -> &Mount {
        self.mount.as_ref().unwrap()
    }

    pub(crate) fn mount_point(&self) -> PathBuf {
        self.directory.path().join("mnt")
    }

    /// The volume's directory.
    pub(crate) fn root(&self) -> PathBuf {
        self.mount_point().join("v")
    }

    /// Flushes and takes a snapshot, as the snapshot command does.
    pub(crate) fn snapshot(&self, name: &str) {
        let volume = self.store.volume("v").unwrap().id();
        self.session().flush(volume).unwrap();
        self.store.create_snapshot("v", name).unwrap();
        self.session().snapshot_created(volume, name);
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if let Some(mount) = self.mount.take() {
            let _ = mount.unmount();
        }
        let _ = self.store.close();
    }
}

/// Runs a test in both cache modes, in a fresh volume each.
pub(crate) fn in_each_mode(test: impl Fn(&Fixture, &Path)) {
    for writeback in [true, false] {
        eprintln!("writeback: {writeback}");
        let fixture = Fixture::new(writeback);
        test(&fixture, &fixture.root());
    }
}

/// Runs a shell command as somebody who is not root; whether it succeeded.
pub(crate) fn as_nobody(command: &str) -> bool {
    Command::new("sh").args(["-c", command]).uid(NOBODY).gid(NOBODY).status().unwrap().success()
}

/// The error number of a failed call.
pub(crate) fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> rustix::io::Errno {
    let error = result.unwrap_err();
    rustix::io::Errno::from_io_error(&error).unwrap()
}
