//! What the control socket says about volumes, snapshots, stores and mounts. Sizes are bytes, times are
//! nanoseconds since 1970-01-01T00:00:00Z. Knows no terminal: how a person sees them is the command line's.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A volume. Logical: its files' data as readers see it; referenced: the same as stored, each reference counted;
/// unique: what destroying it frees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRow {
    pub name: String,
    pub origin: Option<String>,
    pub created_unix_nanos: i64,
    pub logical_bytes: u64,
    pub referenced_bytes: u64,
    pub unique_bytes: u64,
    pub quota_bytes: Option<u64>,
    pub reservation_bytes: Option<u64>,
    pub snapshots: u64,
}

/// A snapshot; the figures are those of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRow {
    pub volume: String,
    pub name: String,
    pub created_unix_nanos: i64,
    pub logical_bytes: u64,
    pub referenced_bytes: u64,
    pub unique_bytes: u64,
    pub holds: Vec<String>,
    pub clones: Vec<String>,
}

/// The store as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatsRow {
    pub logical_bytes: u64,
    /// Distinct pages, before compression.
    pub stored_bytes: u64,
    /// What segments, roots and journal take on the host.
    pub physical_bytes: u64,
    pub dedup_ratio: f64,
    pub compression_ratio: f64,
    pub journal_bytes: u64,
    pub segments: u64,
    /// Bytes of the segments that something refers to.
    pub live_bytes: u64,
    /// Bytes of the segments that wait for a collection.
    pub dead_bytes: u64,
    pub free_bytes: u64,
}

/// What a collection did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcRow {
    pub segments_rewritten: u64,
    pub copied_bytes: u64,
    pub physical_bytes_before: u64,
    pub physical_bytes_after: u64,
    pub freed_bytes: u64,
}

/// What a scrub found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubRow {
    pub segments: u64,
    pub bytes: u64,
    /// Damaged blocks and directories of blocks.
    pub damaged: u64,
    pub findings: Vec<FindingRow>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingRow {
    /// `volume`, `volume@snapshot`, a file in one of them, or a segment.
    pub object: String,
    pub message: String,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRow {
    /// Volumes and snapshots.
    pub views: u64,
    pub nodes: u64,
    pub blocks: u64,
    pub findings: Vec<FindingRow>,
}

/// One mount of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRow {
    pub directory: PathBuf,
    /// The one volume it shows; all of them when absent.
    pub volume: Option<String>,
    pub read_only: bool,
}

/// What the kernel has asked of all mounts since they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestsRow {
    /// Requests by kind, as the kernel names them.
    pub counts: std::collections::BTreeMap<String, u64>,
    pub bytes_read: u64,
    pub bytes_written: u64,
}

/// The store and the process that has it open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusRow {
    pub version: String,
    /// The mounting process; absent when the store was opened for this one answer.
    pub pid: Option<u32>,
    /// Where the daemon's API listens on TCP.
    #[serde(default)]
    pub api: Option<String>,
    pub mounts: Vec<MountRow>,
    /// Absent without a mount.
    pub requests: Option<RequestsRow>,
    pub volumes: u64,
    pub snapshots: u64,
    pub stats: StatsRow,
}
