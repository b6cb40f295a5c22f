//! The mounting process's hold on a store: the open store, its mounts, and their end.
//!
//! When the last mount is gone, by a request, by a signal or by an administrator, the store is closed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use stillpoint_fuse::MountOptions;

use super::direct::open_store;
use super::holder::Holder;
use super::mounts::Mounts;
use super::operations::{Operations, ProgressSink};
use super::perform::perform;
use super::wire::{Reply, Request};
use crate::base::{Error, Result, StoreLock};
use crate::volume::{Environment, OpenOptions, Store};

/// How often the mounts are looked at, which somebody may have taken off without asking us.
const LOOK: Duration = Duration::from_millis(100);

/// How a store is mounted.
#[derive(Clone, Debug, Default)]
pub struct HostOptions {
    /// Each write is sent to the store before it returns, instead of staying in the kernel's page cache.
    pub writethrough: bool,
    pub read_only: bool,
    /// Read-only, and damage is left out instead of refusing to open.
    pub rescue: bool,
}

/// A mounted store.
pub struct Host {
    path: PathBuf,
    store: Arc<Store>,
    mounts: Mutex<Mounts>,
    /// Where the API listens on TCP.
    api: Mutex<Option<String>>,
    /// How closing the store went, when a request did it.
    ended: (Sender<Result<()>>, Receiver<Result<()>>),
    /// Released last.
    _lock: StoreLock,
}

impl Host {
    /// Opens the store and mounts all volumes at `directory`, or `volume` alone.
    pub fn start(
        path: &Path,
        directory: &Path,
        volume: Option<&str>,
        environment: &Environment,
        options: &HostOptions,
    ) -> Result<Arc<Self>> {
        Self::start_after(path, directory, volume, environment, options, || Ok(()))
    }

    /// The same, with something to be done when the store is held and not yet mounted.
    pub fn start_after(
        path: &Path,
        directory: &Path,
        volume: Option<&str>,
        environment: &Environment,
        options: &HostOptions,
        before_mount: impl FnOnce() -> Result<()>,
    ) -> Result<Arc<Self>> {
        let path = path.canonicalize().map_err(|e| Error::io("open", &path.display().to_string(), e))?;
        let purpose = format!("stillpoint mount at {}", directory.display());
        let read_only = options.read_only || options.rescue;
        let opening = OpenOptions { read_only, rescue: options.rescue, ..OpenOptions::default() };
        let (store, lock) = open_store(&path, environment, &purpose, &opening)?;
        let mount_options = MountOptions {
            source: path.display().to_string(),
            writeback: !options.writethrough,
            read_only,
            ..MountOptions::default()
        };
        let mut mounts = Mounts::new(Arc::clone(&store), Arc::clone(&environment.clock), mount_options);
        if let Err(e) = before_mount().and_then(|()| mounts.mount(directory, volume)) {
            if let Err(second) = store.close() {
                // The first error is the one to report.
                tracing::error!("closing the store: {second}");
            }
            return Err(e);
        }
        Ok(Arc::new(Self {
            path,
            store,
            mounts: Mutex::new(mounts),
            api: Mutex::default(),
            ended: bounded(1),
            _lock: lock,
        }))
    }

    /// Takes one mount off; with the last one the store is closed before this returns.
    fn unmount(&self, directory: &Path) -> Result<Reply> {
        let mut mounts = self.mounts.lock();
        mounts.unmount(directory)?;
        if !mounts.is_empty() {
            return Ok(Reply::Unmounted { ending: false });
        }
        let closed = self.store.close();
        let answer = match &closed {
            Ok(()) => Ok(Reply::Unmounted { ending: true }),
            Err(e) => Err(e.duplicate()),
        };
        // Under the lock and only once, so there is room.
        let _ = self.ended.0.try_send(closed);
        answer
    }

    fn create_snapshot(&self, volume: &str, name: &str, request: &Request) -> Result<Reply> {
        // Writes that returned may still lie in the kernel's page cache. The lock keeps the mounts; writers go on.
        self.mounts.lock().flush(volume)?;
        let reply = perform(&self.store, request, &mut |_| {})?;
        self.mounts.lock().snapshot_created(self.store.volume(volume)?.id(), name);
        Ok(reply)
    }

    fn destroy_snapshot(&self, volume: &str, name: &str, request: &Request) -> Result<Reply> {
        let view = self.store.snapshot(volume, name)?.id();
        let mounts = self.mounts.lock();
        mounts.check_unused(&format!("snapshot {volume}@{name}"), view, None)?;
        let reply = perform(&self.store, request, &mut |_| {})?;
        mounts.snapshot_removed(self.store.volume(volume)?.id(), name, view);
        Ok(reply)
    }

    fn destroy_volume(&self, name: &str, request: &Request) -> Result<Reply> {
        let view = self.store.volume(name)?.id();
        let snapshots = self.store.snapshot_names(view)?;
        let mounts = self.mounts.lock();
        mounts.check_unused(&format!("volume {name}"), view, Some(name))?;
        for (snapshot, id) in &snapshots {
            mounts.check_unused(&format!("snapshot {name}@{snapshot}"), *id, None)?;
        }
        let reply = perform(&self.store, request, &mut |_| {})?;
        for (snapshot, id) in &snapshots {
            mounts.snapshot_removed(view, snapshot, *id);
        }
        mounts.volume_removed(name, view);
        Ok(reply)
    }
}

impl Operations for Host {
    fn perform(&self, request: &Request, progress: &mut ProgressSink<'_>) -> Result<Reply> {
        match request {
            Request::VolumeMount { name, directory } => {
                let mut mounts = self.mounts.lock();
                if mounts.is_empty() {
                    return Err(Error::new(
                        crate::base::ErrorKind::Precondition,
                        "the store is being unmounted: mount it again",
                    ));
                }
                Ok(Reply::Mounted(mounts.mount(directory, Some(name))?))
            }
            Request::Unmount { directory } => self.unmount(directory),
            Request::SnapshotCreate { volume, name } => self.create_snapshot(volume, name, request),
            Request::SnapshotDestroy { volume, name } => self.destroy_snapshot(volume, name, request),
            Request::VolumeDestroy { name, .. } => self.destroy_volume(name, request),
            Request::VolumeCreate { name } | Request::CloneCreate { name, .. } => {
                let reply = perform(&self.store, request, progress)?;
                self.mounts.lock().volume_created(name);
                Ok(reply)
            }
            Request::VolumeRename { name, new_name } => {
                let reply = perform(&self.store, request, progress)?;
                self.mounts.lock().volume_renamed(name, new_name);
                Ok(reply)
            }
            Request::Status => {
                let mut reply = perform(&self.store, request, progress)?;
                if let Reply::Status(row) = &mut reply {
                    row.pid = Some(std::process::id());
                    row.api = self.api.lock().clone();
                    let mut mounts = self.mounts.lock();
                    row.mounts = mounts.rows();
                    row.requests = Some(mounts.requests());
                }
                Ok(reply)
            }
            _ => perform(&self.store, request, progress),
        }
    }
}

impl Holder for Host {
    fn path(&self) -> &Path {
        &self.path
    }

    fn set_api(&self, url: Option<&str>) {
        *self.api.lock() = url.map(str::to_owned);
    }

    fn wait(&self) -> Option<Result<()>> {
        if let Ok(result) = self.ended.1.recv_timeout(LOOK) {
            return Some(result);
        }
        let mut mounts = self.mounts.lock();
        if !mounts.is_empty() {
            return None;
        }
        // A request that took the last one off sent its result before it gave the lock back.
        self.ended.1.try_recv().ok().or_else(|| Some(self.store.close()))
    }

    fn end(&self) -> Result<()> {
        self.mounts.lock().unmount_all();
        self.store.close()
    }
}
