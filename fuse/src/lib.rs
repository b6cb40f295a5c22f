//! The kernel side of a Stillpoint mount: protocol, session and threads.
//!
//! It defines the traits a file system implements ([`FileSystem`]) and runs one at a directory ([`mount`]).
//! It must know nothing of stores, volumes or databases. Only the `kernel` module names the transport (today
//! read and write on `/dev/fuse`, by the `fuser` crate): another one is added beside it.

mod counters;
mod filesystem;
mod kernel;
mod mountpoint;
mod options;
mod session;
mod types;

pub use counters::{Counters, Opcode};
pub use filesystem::{Answer, DirectorySink, Done, FileSystem, Files, Metadata, Namespace};
pub use mountpoint::{bind, detach_dead, is_mounted, unbind};
pub use options::MountOptions;
pub use rustix::io::Errno;
pub use session::{Mounted, Notifier, SessionError, mount};
pub use types::{
    Attributes, Caching, Caller, Change, Copy, Durability, Entry, Listed, NewNode, NodeId, NodeKind,
    OpenRequest, Opened, RenameMode, Seek, SpaceMode, Statistics, Time, TimeChange, Timed, Write, XattrMode,
};
