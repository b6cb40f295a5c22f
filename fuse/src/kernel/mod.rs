//! The transport: `fuser`, reading and writing `/dev/fuse`. The only module that names it.
//!
//! [`start`] spawns the event loops; what comes back is all the session needs of a transport:
//! notify the kernel, see whether the loops still run, wait for their end.

mod convert;
mod replies;
mod requests;
mod run;

use crate::counters::Counters;
use crate::filesystem::FileSystem;
use crate::options::MountOptions;
use crate::types::NodeId;
use fuser::{BackgroundSession, Config, INodeNo, Session, SessionACL};
use run::Requests;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// A mounted transport.
pub(crate) struct Transport {
    session: BackgroundSession,
}

/// Sends notifications to the kernel.
#[derive(Clone)]
pub(crate) struct Sender(fuser::Notifier);

/// Starts the event loops on the descriptor of a fresh mount; the kernel has accepted the protocol when this
/// returns.
pub(crate) fn start<F: FileSystem>(
    device: OwnedFd,
    options: &MountOptions,
    filesystem: Arc<F>,
    counters: Arc<Counters>,
) -> io::Result<Transport> {
    let mut config = Config::default();
    config.n_threads = Some(options.event_loops);
    config.clone_fd = true;
    let requests = Requests::new(filesystem, counters, options.writeback);
    let notifier = requests.notifier_slot();
    let session = Session::from_fd(requests, device, SessionACL::All, config)?.spawn()?;
    // Nobody else sets it.
    let _ = notifier.set(session.notifier());
    Ok(Transport { session })
}

impl Transport {
    pub(crate) fn sender(&self) -> Sender {
        Sender(self.session.notifier())
    }

    /// Whether the kernel has let go and all loops have ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.session.guard.is_finished()
    }

    /// Waits for the loops' end.
    pub(crate) fn join(self) -> io::Result<()> {
        self.session.join()
    }
}

impl Sender {
    pub(crate) fn inval_inode(&self, node: NodeId, offset: i64, length: i64) -> io::Result<()> {
        self.0.inval_inode(INodeNo(node), offset, length)
    }

    pub(crate) fn inval_entry(&self, parent: NodeId, name: &[u8]) -> io::Result<()> {
        self.0.inval_entry(INodeNo(parent), OsStr::from_bytes(name))
    }
}
