//! A mounted store or volume: start, flush before snapshots, keep the kernel informed, end.
//!
//! Nothing here may be called from within a request: all of it waits for the event loops.

use super::guard::Guard;
use super::node::{Node, TOP_NODE};
use super::tree::Vfs;
use crate::base::{Clock, Error, ErrorKind, Result};
use crate::volume::{Store, ViewId};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stillpoint_fuse::{Counters, MountOptions, Mounted, NodeId, SessionError};

/// What a mount shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountTarget {
    /// Every volume as a directory.
    Store,
    /// One volume, its root at the mount's root.
    Volume(String),
}

/// A mount and the kernel's session behind it. Dropping it unmounts lazily.
pub struct Mount {
    vfs: Arc<Vfs>,
    mounted: Mounted,
    writeback: bool,
    _guard: Guard,
}

impl Mount {
    /// Mounts at `directory`, which must exist. A mount left there by a daemon that died is taken off.
    pub fn start(
        store: Arc<Store>,
        clock: Arc<dyn Clock>,
        target: &MountTarget,
        directory: &Path,
        options: &MountOptions,
    ) -> Result<Self> {
        let vfs = Arc::new(match target {
            MountTarget::Store => Vfs::of_store(store, clock),
            MountTarget::Volume(name) => Vfs::of_volume(store, clock, name)?,
        });
        let mounted = stillpoint_fuse::mount(directory, options, Arc::clone(&vfs)).map_err(session_error)?;
        let guard = Guard::start(mounted.directory());
        Ok(Self { vfs, mounted, writeback: options.writeback, _guard: guard })
    }

    /// The mount's directory, absolute.
    pub fn directory(&self) -> &Path {
        self.mounted.directory()
    }

    /// Where a volume is seen; `None` when this mount shows another volume alone.
    pub fn volume_directory(&self, volume: &str) -> Option<PathBuf> {
        match self.vfs.numbering.root() {
            Node::Object(alone, _) => {
                let id = self.vfs.store.volume(volume).ok()?.id();
                (id == alone).then(|| self.directory().to_path_buf())
            }
            _ => Some(self.directory().join(volume)),
        }
    }

    /// Shows a volume at a second place, sharing the kernel's caches with this mount. Undone by
    /// `stillpoint_fuse::unbind`, which must come before [`Self::unmount`].
    pub fn bind_volume(&self, volume: &str, target: &Path) -> Result<()> {
        let source = self
            .volume_directory(volume)
            .ok_or_else(|| Error::not_found(format!("volume {volume} is not shown by this mount")))?;
        stillpoint_fuse::bind(&source, target)
            .map_err(|error| Error::io("show the volume at", &target.display().to_string(), error))
    }

    /// Brings every write to the volume that returned before this call from the kernel to the store: a snapshot
    /// taken after it holds them all. Writes of meanwhile may be in it too, in any order that their own fsyncs
    /// allow.
    pub fn flush(&self, volume: ViewId) -> Result<()> {
        if !self.writeback || self.mounted.has_ended() {
            return Ok(());
        }
        self.vfs.flush_view(self.mounted.directory(), volume)
    }

    /// How many files of a volume or snapshot are open.
    pub fn open_files(&self, view: ViewId) -> u64 {
        self.vfs.open_files(view)
    }

    /// How many files are open in all, also by who sees them in a mount namespace of its own.
    pub fn all_open_files(&self) -> u64 {
        self.vfs.all_open_files()
    }

    /// A volume of this name was created, so the kernel must not remember that there is none.
    pub fn volume_created(&self, name: &str) {
        self.inval_entry(TOP_NODE, name);
    }

    /// A volume was destroyed, with the views it had.
    pub fn volume_removed(&self, name: &str, volume: ViewId) {
        self.inval_entry(TOP_NODE, name);
        self.vfs.forget_view(volume);
    }

    pub fn volume_renamed(&self, old: &str, new: &str) {
        self.inval_entry(TOP_NODE, old);
        self.inval_entry(TOP_NODE, new);
    }

    pub fn snapshot_created(&self, volume: ViewId, name: &str) {
        if let Some(node) = self.vfs.numbering.number(Node::Snapshots(volume)) {
            self.inval_entry(node, name);
        }
    }

    pub fn snapshot_removed(&self, volume: ViewId, name: &str, snapshot: ViewId) {
        self.snapshot_created(volume, name);
        self.vfs.forget_view(snapshot);
    }

    /// Requests since the mount, by kind.
    pub fn counters(&self) -> &Counters {
        self.mounted.counters()
    }

    /// Whether the mount is gone, taken off here or by an administrator.
    pub fn has_ended(&self) -> bool {
        self.mounted.has_ended()
    }

    /// Waits until somebody has unmounted it.
    pub fn wait(&self) -> Result<()> {
        self.mounted.wait().map_err(session_error)
    }

    /// Unmounts. When it returns, all the kernel held is in the store, though not yet durable. `InUse` while
    /// files are open: the mount then stays.
    pub fn unmount(&self) -> Result<()> {
        self.mounted.unmount().map_err(session_error)
    }

    fn inval_entry(&self, parent: NodeId, name: &str) {
        // The kernel not knowing the directory is as good: it cached nothing. Otherwise what it caches of these
        // lists ends within a second anyway.
        if let Err(error) = self.mounted.notifier().inval_entry(parent, name.as_bytes()) {
            tracing::debug!(parent, name, %error, "the kernel did not take an invalidation");
        }
    }
}

fn session_error(error: SessionError) -> Error {
    let kind = match &error {
        SessionError::AlreadyMounted { .. } | SessionError::Busy { .. } | SessionError::StillInUse { .. } => {
            ErrorKind::InUse
        }
        SessionError::Directory { source, .. } => match source.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::PermissionDenied => ErrorKind::NotAllowed,
            _ => ErrorKind::Invalid,
        },
        SessionError::Mount { source, .. } | SessionError::Unmount { source, .. } => match source.kind() {
            std::io::ErrorKind::PermissionDenied => ErrorKind::NotAllowed,
            _ => ErrorKind::Io,
        },
        SessionError::Loops { .. } => ErrorKind::Io,
    };
    let failed = Error::new(kind, error.to_string());
    if kind == ErrorKind::NotAllowed { failed.with_hint("only root can mount: run as root") } else { failed }
}
