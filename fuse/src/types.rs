//! What requests carry and answers hold, in our own terms: no type of the transport appears here.

use std::time::Duration;

/// A node as the kernel knows it. 1 is the root of the mount; 0 in an [`Entry`] means "there is none".
pub type NodeId = u64;

/// Who asks. For writeback of cached pages it is whoever triggered it, so it must not decide about access.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    /// The thread's id, not the process's.
    pub thread: u32,
}

/// A point in time; `seconds` may be negative, `nanos` always counts forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    pub seconds: i64,
    pub nanos: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

/// What `stat` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    pub ino: u64,
    pub kind: NodeKind,
    /// Permission and set-id bits (07777).
    pub mode: u32,
    pub links: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub size: u64,
    /// Units of 512 bytes.
    pub blocks: u64,
    /// Preferred I/O size in bytes.
    pub block_size: u32,
    pub accessed: Time,
    pub modified: Time,
    pub changed: Time,
}

/// Attributes and how long the kernel may keep them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timed {
    pub attributes: Attributes,
    pub valid: Duration,
}

/// The answer to a lookup or a create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The node, or none: the kernel then remembers for `valid` that the name is absent.
    pub found: Option<Timed>,
    /// How long the kernel may keep the name.
    pub valid: Duration,
}

/// One time of a set-attributes request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeChange {
    Now,
    At(Time),
}

/// What to change; `None` leaves it as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub accessed: Option<TimeChange>,
    pub modified: Option<TimeChange>,
    pub changed: Option<Time>,
    /// The open handle the caller went through, if any.
    pub handle: Option<u64>,
}

/// What to create besides a regular file opened at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewNode<'a> {
    File,
    Directory,
    Fifo,
    Socket,
    CharDevice(u32),
    BlockDevice(u32),
    Symlink(&'a [u8]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    Replace,
    NoReplace,
    Exchange,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrMode {
    Set,
    Create,
    Replace,
}

/// How a file is opened, from the open flags. `O_TRUNC` is not among them: the kernel truncates by a request of its
/// own, after it has refused to truncate a program that is running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenRequest {
    pub write: bool,
    pub exclusive: bool,
    pub direct: bool,
    /// `O_SYNC` or `O_DSYNC`.
    pub sync: bool,
}

/// How the kernel caches an open file's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// Pages stay in the kernel's cache, across opens too.
    Keep,
    /// Each read and write is a request; writers of different ranges run in parallel.
    Direct,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    pub handle: u64,
    pub caching: Caching,
}

#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    pub node: NodeId,
    pub handle: u64,
    pub offset: u64,
    pub data: &'a [u8],
    /// The writer has no right to keep set-id bits and file capabilities.
    pub clear_privileges: bool,
    /// The open flags have `O_SYNC` or `O_DSYNC` now (`fcntl` may have changed them since open).
    pub sync: bool,
}

/// Whether a write must be made durable before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    Deferred,
    Required,
}

/// Modes of `fallocate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpaceMode {
    Allocate,
    AllocateKeepSize,
    PunchHole,
    ZeroRange,
    ZeroRangeKeepSize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    Data,
    Hole,
}

/// A copy between two open files, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    pub from_node: NodeId,
    pub from_handle: u64,
    pub from_offset: u64,
    pub to_node: NodeId,
    pub to_handle: u64,
    pub to_offset: u64,
    pub length: u64,
}

/// What `statfs` shows; blocks of `block_size` bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    pub block_size: u32,
    pub blocks: u64,
    pub blocks_free: u64,
    pub blocks_available: u64,
    pub files: u64,
    pub files_free: u64,
    pub name_bytes_max: u32,
}

/// One entry of a directory listing.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    pub ino: u64,
    pub kind: NodeKind,
    pub name: &'a [u8],
    /// Where the listing goes on after this entry.
    pub next: u64,
}
