//! What callers of volumes see: attributes, entries, infos.

use std::sync::Arc;

use crate::base::{Clock, Random, Result};
pub use crate::format::inode::{FileKind, Timestamp};
pub use crate::format::key::Ino;

/// A volume's head or a snapshot. The numbers share one space and are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViewId(pub u32);

/// The root directory of every view.
pub const ROOT_INO: Ino = 1;
/// Inode numbers start here; lower ones are the root's and the mount's own.
pub const FIRST_INO: Ino = 16;
/// Inode numbers stay below this.
pub const INO_MAX: Ino = 1 << 40;
/// Longest name of a directory entry, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest target of a symbolic link, in bytes.
pub const TARGET_BYTES_MAX: usize = 4095;
/// Longest value of an extended attribute, in bytes.
pub const XATTR_BYTES_MAX: usize = 65_536;
/// Names one inode may have.
pub const LINKS_MAX: u32 = 65_000;
/// Longest file, in bytes: 16 TiB.
pub const FILE_BYTES_MAX: u64 = 16 << 40;

/// Attributes of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    pub ino: Ino,
    pub kind: FileKind,
    /// Permission, set-id and sticky bits: 07777.
    pub mode: u32,
    pub links: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub size: u64,
    /// In units of 512 bytes. Holes take none; until a checkpoint it may count overwritten pages twice.
    pub blocks: u64,
    pub accessed: Timestamp,
    pub modified: Timestamp,
    pub changed: Timestamp,
    pub created: Timestamp,
}

/// Who owns a new inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// What to change of an inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttributes {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub accessed: Option<Timestamp>,
    pub modified: Option<Timestamp>,
    /// `None` is now.
    pub changed: Option<Timestamp>,
}

/// What to create.
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

/// An entry of a directory listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Passing it to the next listing goes on behind this entry. 16 or more.
    pub cookie: u64,
    pub ino: Ino,
    pub kind: FileKind,
    pub name: Vec<u8>,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeekTarget {
    Data,
    Hole,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllocateMode {
    Allocate,
    KeepSize,
    PunchHole,
    ZeroRange,
    ZeroRangeKeepSize,
}

/// Told once how an operation that takes its time has ended.
pub type Completion = Box<dyn FnOnce(Result<()>) + Send>;

/// Time and random numbers for a store.
#[derive(Clone)]
pub struct Environment {
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
}

impl Environment {
    /// The host's own.
    pub fn system() -> Self {
        Self { clock: Arc::new(crate::base::SystemClock), random: Arc::new(crate::base::SystemRandom) }
    }
}

/// How a store is made.
#[derive(Clone, Copy, Debug)]
pub struct CreateOptions {
    pub journal_bytes: u64,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self { journal_bytes: 128 << 20 }
    }
}

/// How a store is opened.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// Nothing is written: what the journal holds is replayed in memory.
    pub read_only: bool,
    /// Read-only, and what is damaged is left out and named in the log instead of refusing to open: the journal's
    /// part of recent changes may be missing.
    pub rescue: bool,
    /// Run the committer, checkpoint and reclaim threads. Without them all happens inline in the caller.
    pub background: bool,
    /// A checkpoint begins when changed pages in memory take this many bytes.
    pub dirty_bytes_soft: u64,
    /// Writers wait when they take this many.
    pub dirty_bytes_max: u64,
    /// Memory for decompressed pages.
    pub content_cache_bytes: u64,
    /// Memory for tree nodes.
    pub node_cache_bytes: u64,
    /// Memory for deduplication hints.
    pub hint_bytes_max: usize,
    /// Segments are closed at this size.
    pub segment_bytes: u64,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            rescue: false,
            background: true,
            dirty_bytes_soft: 48 << 20,
            dirty_bytes_max: 128 << 20,
            content_cache_bytes: 24 << 20,
            node_cache_bytes: 32 << 20,
            hint_bytes_max: 64 << 20,
            segment_bytes: crate::block::SEGMENT_BYTES,
        }
    }
}

/// Segments are not made smaller than this for a small host.
const SEGMENT_BYTES_LEAST: u64 = 1 << 20;

impl OpenOptions {
    /// The same for a host of `total_bytes`: its segments are a small part of it, as one is what compaction must
    /// have room for.
    #[must_use]
    pub fn fitted_to(self, total_bytes: u64) -> Self {
        let most = (total_bytes / 64).max(SEGMENT_BYTES_LEAST);
        Self { segment_bytes: self.segment_bytes.min(most), ..self }
    }
}

/// A volume and its figures, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeInfo {
    pub id: ViewId,
    pub name: String,
    /// `volume@snapshot` it was cloned from.
    pub origin: Option<String>,
    pub created_unix_nanos: i64,
    /// Data of its files, holes left out.
    pub logical_bytes: u64,
    /// The same as stored: compressed, each reference counted.
    pub referenced_bytes: u64,
    /// What destroying it would free.
    pub unique_bytes: u64,
    pub quota_bytes: Option<u64>,
    pub reservation_bytes: Option<u64>,
    pub snapshots: u64,
}

/// A snapshot and its figures, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    pub id: ViewId,
    pub volume: String,
    pub name: String,
    pub created_unix_nanos: i64,
    pub logical_bytes: u64,
    pub referenced_bytes: u64,
    pub unique_bytes: u64,
    pub holds: Vec<String>,
    pub clones: Vec<String>,
}

/// Figures of the whole store.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StoreStats {
    /// Data of all volumes and snapshots as their readers see it.
    pub logical_bytes: u64,
    /// Unique data before compression.
    pub stored_bytes: u64,
    /// Host bytes of segments, roots and journal.
    pub physical_bytes: u64,
    pub dedup_ratio: f64,
    pub compression_ratio: f64,
    pub journal_bytes: u64,
    pub journal_used_bytes: u64,
    pub segments: u64,
    pub free_bytes: u64,
    /// Stored bytes that something refers to.
    pub live_bytes: u64,
    /// Stored bytes that wait for compaction.
    pub dead_bytes: u64,
    pub dirty_bytes: u64,
    pub checkpoints: u64,
    pub volumes: u64,
    pub snapshots: u64,
}
