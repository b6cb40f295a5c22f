//! How a file system is mounted. Only what measurement or an administrator has reason to vary is an option.

use std::time::Duration;

/// Options of one mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOptions {
    /// What the kernel's list of mounts shows as the source: the path by which the mounting process is found.
    pub source: String,
    /// Threads that take requests, each with its own descriptor; 1 to 16.
    pub event_loops: usize,
    /// Buffered writes stay in the kernel's page cache until it writes them back, `fsync` or `close`;
    /// otherwise each is a request.
    pub writeback: bool,
    pub read_only: bool,
    /// How far the kernel reads ahead of a sequential reader.
    pub read_ahead_kib: u32,
    /// The part of the host's limit of dirty pages that the mount may take, in percent: what a snapshot may have
    /// to flush. The kernel's default for FUSE is 1, which stops a bulk load every few MiB.
    pub dirty_percent: u8,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            source: "stillpoint".to_owned(),
            event_loops: std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8),
            writeback: true,
            read_only: false,
            read_ahead_kib: 2048,
            dirty_percent: 10,
        }
    }
}

/// The largest read or write request; the kernel takes no more.
pub(crate) const REQUEST_BYTES_MAX: u32 = 1 << 20;

/// Requests that no caller waits for (write-back, read-ahead) in flight at once. The kernel's default, 12 to
/// 16, lets one bulk writer starve the read-ahead of others.
pub(crate) const BACKGROUND_MAX: u16 = 64;

/// Background requests at which the kernel holds back further read-ahead.
pub(crate) const CONGESTION_THRESHOLD: u16 = 48;

/// How long `unmount` waits for the kernel to let go once the mount is off the tree.
pub(crate) const RELEASE_WAIT: Duration = Duration::from_secs(60);
