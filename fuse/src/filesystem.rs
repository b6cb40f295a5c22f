//! What a file system implements to be mounted.
//!
//! All calls come from the session's event loops, several at once. All answer inline except [`Files::sync`]
//! and [`Namespace::sync_directory`], whose callback may come from any thread: a loop never waits for a disk
//! flush. Access is checked by the kernel (`default_permissions`) before a call arrives. Names are any bytes
//! but `/` and NUL, and at most 255 of them. A call that panics is answered with `EIO`.

use crate::types::{
    Caller, Change, Copy, Durability, Entry, Listed, NewNode, NodeId, OpenRequest, Opened, RenameMode, Seek,
    SpaceMode, Statistics, Timed, Write, XattrMode,
};
use rustix::io::Errno;

/// A result whose error is what the system call returns.
pub type Answer<T> = Result<T, Errno>;

/// Called once with the outcome; dropped uncalled it means `EIO`.
pub type Done = Box<dyn FnOnce(Answer<()>) + Send>;

/// Takes the entries of a listing until its buffer is full.
pub trait DirectorySink {
    /// Whether entries want their attributes (`READDIRPLUS`).
    fn wants_attributes(&self) -> bool;
    /// Adds an entry, with attributes when they are wanted and known. False when it did not fit: the listing
    /// ends and the kernel asks again from the last entry that did.
    #[must_use]
    fn add(&mut self, entry: Listed<'_>, attributes: Option<&Timed>) -> bool;
}

/// Attributes, links' targets, extended attributes.
pub trait Metadata {
    fn attributes(&self, node: NodeId) -> Answer<Timed>;
    fn set_attributes(&self, caller: Caller, node: NodeId, change: &Change) -> Answer<Timed>;
    fn read_link(&self, node: NodeId) -> Answer<Vec<u8>>;
    fn statistics(&self, node: NodeId) -> Answer<Statistics>;
    fn xattr(&self, node: NodeId, name: &[u8]) -> Answer<Vec<u8>>;
    fn set_xattr(&self, node: NodeId, name: &[u8], value: &[u8], mode: XattrMode) -> Answer<()>;
    /// The names that the caller may see, without terminators.
    fn list_xattrs(&self, caller: Caller, node: NodeId) -> Answer<Vec<Vec<u8>>>;
    fn remove_xattr(&self, node: NodeId, name: &[u8]) -> Answer<()>;
}

/// Names and directories.
pub trait Namespace {
    fn lookup(&self, caller: Caller, parent: NodeId, name: &[u8]) -> Answer<Entry>;
    fn make(&self, caller: Caller, parent: NodeId, name: &[u8], new: NewNode<'_>, mode: u32)
    -> Answer<Entry>;
    fn link(&self, node: NodeId, parent: NodeId, name: &[u8]) -> Answer<Entry>;
    fn unlink(&self, parent: NodeId, name: &[u8]) -> Answer<()>;
    fn remove_directory(&self, parent: NodeId, name: &[u8]) -> Answer<()>;
    fn rename(&self, from: (NodeId, &[u8]), to: (NodeId, &[u8]), mode: RenameMode) -> Answer<()>;
    /// Lists from `position` (0: the start) into `sink`; nothing added means the end.
    fn list_directory(&self, node: NodeId, position: u64, sink: &mut dyn DirectorySink) -> Answer<()>;
    /// Makes the directory's entries durable, then calls `done`.
    fn sync_directory(&self, node: NodeId, done: Done);
}

/// Open files.
pub trait Files {
    fn open(&self, caller: Caller, node: NodeId, request: OpenRequest) -> Answer<Opened>;
    fn create(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &[u8],
        mode: u32,
        request: OpenRequest,
    ) -> Answer<(Entry, Opened)>;
    /// The last descriptor of the handle is closed.
    fn release(&self, node: NodeId, handle: u64);
    /// At most `length` bytes from `offset`; fewer only at the end of the file.
    fn read(&self, node: NodeId, handle: u64, offset: u64, length: usize) -> Answer<Vec<u8>>;
    /// Writes all of the data; when the answer is [`Durability::Required`], `sync` is called before the
    /// writer gets its answer.
    fn write(&self, caller: Caller, write: &Write<'_>) -> Answer<Durability>;
    /// Makes the file durable, then calls `done`.
    fn sync(&self, node: NodeId, handle: u64, done: Done);
    fn space(
        &self,
        caller: Caller,
        node: NodeId,
        handle: u64,
        mode: SpaceMode,
        range: (u64, u64),
    ) -> Answer<()>;
    fn seek(&self, node: NodeId, handle: u64, offset: u64, target: Seek) -> Answer<u64>;
    /// Whether some handle of the node is open for writing, so that the kernel may hold dirty pages of it.
    fn has_writers(&self, node: NodeId) -> bool;
    /// Bytes copied.
    fn copy(&self, caller: Caller, copy: &Copy) -> Answer<u64>;
}

/// A file system that can be mounted.
pub trait FileSystem: Metadata + Namespace + Files + Send + Sync + 'static {
    /// The kernel has let go of the mount: no call follows.
    fn ended(&self) {}
}
