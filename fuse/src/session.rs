//! A mount's life: mount, notify, unmount, end.
//!
//! The event loops belong to the transport; this module only starts them and waits for their end. Nothing here
//! may be called from within a file system's call: notifying and unmounting wait for the loops.

use crate::counters::Counters;
use crate::filesystem::FileSystem;
use crate::kernel::{Sender, Transport, start};
use crate::mountpoint;
use crate::options::{MountOptions, RELEASE_WAIT};
use crate::types::NodeId;
use parking_lot::Mutex;
use rustix::io::Errno;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How often waiting looks whether the loops have ended.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Why a session cannot start or end.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("{directory} is not a directory that can be mounted on: {source}")]
    Directory { directory: PathBuf, source: io::Error },
    #[error("a Stillpoint mount lies on {directory} already")]
    AlreadyMounted { directory: PathBuf },
    #[error("cannot mount at {directory}: {source}")]
    Mount { directory: PathBuf, source: io::Error },
    #[error("{directory} is busy: files are open or a process works in it")]
    Busy { directory: PathBuf },
    #[error("cannot unmount {directory}: {source}")]
    Unmount { directory: PathBuf, source: io::Error },
    #[error("{directory} is unmounted but the kernel has not let go of it: it is visible elsewhere")]
    StillInUse { directory: PathBuf },
    #[error("the event loops of {directory} ended with an error: {source}")]
    Loops { directory: PathBuf, source: io::Error },
}

/// A mounted file system. Dropping it unmounts lazily: open files go on working until they are closed, for as
/// long as the process lives.
pub struct Mounted {
    directory: PathBuf,
    /// The mount's device number: tells it from what somebody may mount there later.
    device: u64,
    sender: Sender,
    counters: Arc<Counters>,
    transport: Mutex<Option<Transport>>,
}

/// Tells the kernel to forget what it cached. Never call it from within a request: the kernel may hold the
/// directory's lock until that request is answered.
#[derive(Clone)]
pub struct Notifier(Sender);

/// Mounts `filesystem` at `directory`. A mount left there by a daemon that died is taken off first.
pub fn mount<F: FileSystem>(
    directory: &Path,
    options: &MountOptions,
    filesystem: Arc<F>,
) -> Result<Mounted, SessionError> {
    let unusable = |source| SessionError::Directory { directory: directory.to_path_buf(), source };
    if mountpoint::detach_dead(directory).map_err(unusable)? {
        tracing::info!(directory = %directory.display(), "took off the mount of a daemon that died");
    }
    let canonical = directory.canonicalize().map_err(unusable)?;
    if mountpoint::is_mounted(&canonical).map_err(unusable)? {
        return Err(SessionError::AlreadyMounted { directory: canonical });
    }
    let counters = Arc::new(Counters::default());
    let failed = |source| SessionError::Mount { directory: canonical.clone(), source };
    let device = mountpoint::attach(&canonical, &options.source, options.read_only).map_err(failed)?;
    let transport = start(device, options, filesystem, Arc::clone(&counters)).map_err(|error| {
        if let Err(second) = mountpoint::detach_lazily(&canonical) {
            tracing::warn!(directory = %canonical.display(), error = %second, "cannot unmount");
        }
        failed(error)
    })?;
    mountpoint::tune(&canonical, options.read_ahead_kib, options.dirty_percent);
    let device = mountpoint::device_of(&canonical).ok_or_else(|| failed(Errno::NOTCONN.into()))?;
    Ok(Mounted {
        directory: canonical,
        device,
        sender: transport.sender(),
        counters,
        transport: Mutex::new(Some(transport)),
    })
}

impl Mounted {
    /// The mount's directory, absolute and without symbolic links.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn notifier(&self) -> Notifier {
        Notifier(self.sender.clone())
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether the mount is gone, by `unmount` here or by an administrator.
    pub fn has_ended(&self) -> bool {
        self.transport.lock().as_ref().is_none_or(Transport::has_ended)
    }

    /// Waits until somebody has unmounted it and the loops have ended.
    pub fn wait(&self) -> Result<(), SessionError> {
        while !self.has_ended() {
            std::thread::sleep(POLL_INTERVAL * 25);
        }
        self.join()
    }

    /// Unmounts; when it returns the kernel has written back and let go of everything and the loops have
    /// ended. While files are open it fails with [`SessionError::Busy`] and the mount stays as it was.
    pub fn unmount(&self) -> Result<(), SessionError> {
        if self.is_attached() {
            match mountpoint::detach(&self.directory) {
                Ok(()) => {}
                // Somebody else has just taken it off.
                Err(Errno::INVAL | Errno::NOENT) => {}
                Err(Errno::BUSY) => return Err(SessionError::Busy { directory: self.directory.clone() }),
                Err(errno) => {
                    let source = errno.into();
                    return Err(SessionError::Unmount { directory: self.directory.clone(), source });
                }
            }
        }
        let polls = RELEASE_WAIT.as_millis() / POLL_INTERVAL.as_millis();
        for _ in 0..polls {
            if self.has_ended() {
                return self.join_unmounted();
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Err(SessionError::StillInUse { directory: self.directory.clone() })
    }

    /// Whether the directory still shows this mount.
    fn is_attached(&self) -> bool {
        !self.has_ended() && mountpoint::device_of(&self.directory) == Some(self.device)
    }

    /// The end of loops whose mount was taken off in order. A loop that was about to read may be told of the connection's
    /// end as of its abortion; all was written back before.
    fn join_unmounted(&self) -> Result<(), SessionError> {
        match self.join() {
            Err(SessionError::Loops { source, .. }) if source.kind() == io::ErrorKind::ConnectionAborted => {
                Ok(())
            }
            joined => joined,
        }
    }

    fn join(&self) -> Result<(), SessionError> {
        let Some(transport) = self.transport.lock().take() else { return Ok(()) };
        transport.join().map_err(|source| SessionError::Loops { directory: self.directory.clone(), source })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.is_attached() && mountpoint::detach_lazily(&self.directory).is_err() {
            tracing::warn!(directory = %self.directory.display(), "cannot unmount");
        }
    }
}

impl Notifier {
    /// Drops the cached attributes of a node, and its cached bytes from `offset` for `length` (0: to the end).
    pub fn inval_inode(&self, node: NodeId, offset: i64, length: i64) -> io::Result<()> {
        self.0.inval_inode(node, offset, length)
    }

    /// Drops a cached name, present or absent.
    pub fn inval_entry(&self, parent: NodeId, name: &[u8]) -> io::Result<()> {
        self.0.inval_entry(parent, name)
    }
}
