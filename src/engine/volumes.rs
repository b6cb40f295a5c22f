//! What the engine asks of the store.

use std::path::PathBuf;

use crate::base::Result;

/// The mounted store, as far as datasets need it. Each call is atomic and durable when it returns.
pub trait Volumes: Send + Sync {
    fn exists(&self, volume: &str) -> Result<bool>;
    fn create(&self, volume: &str) -> Result<()>;
    /// Destroys a volume with its snapshots. `InUse` while files of it are open or a clone lives on one of them.
    fn destroy(&self, volume: &str) -> Result<()>;
    /// Snapshots a volume: every write that returned before is in it.
    fn snapshot(&self, volume: &str, name: &str) -> Result<()>;
    fn destroy_snapshot(&self, volume: &str, name: &str) -> Result<()>;
    fn clone_snapshot(&self, volume: &str, snapshot: &str, name: &str) -> Result<()>;
    /// Where a snapshot's files are, read-only.
    fn snapshot_folder(&self, volume: &str, snapshot: &str) -> PathBuf;
    /// Limits what a volume may hold, in bytes of data before compression; `None` lifts the limit.
    fn set_quota(&self, volume: &str, bytes: Option<u64>) -> Result<()>;
    /// The snapshots of a volume that somebody holds, by whose names.
    fn holds(&self, volume: &str) -> Result<Vec<(String, Vec<String>)>>;
    /// Where a volume's files are.
    fn folder(&self, volume: &str) -> PathBuf;
}
