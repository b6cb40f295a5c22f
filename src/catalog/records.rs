//! The catalog's records. A change of one raises its version and adds a step to `upgrade`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Record;

macro_rules! record {
    ($type:ty, $kind:literal, $version:literal) => {
        impl Record for $type {
            const KIND: &'static str = $kind;
            const VERSION: u32 = $version;

            fn id(&self) -> u64 {
                self.id
            }
        }
    };
}

pub(super) use record;

/// A dSource or a VDB.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dataset {
    pub id: u64,
    /// Unique among all datasets.
    pub name: String,
    pub group: String,
    pub role: Role,
    /// The adapter that knows its databases.
    pub adapter: String,
    /// What the adapter needs to run it, without secrets. The adapter's own.
    pub config: Value,
    pub state: DatasetState,
    pub created: Timestamp,
    /// Where its server listens; no two datasets share one.
    pub port: u16,
    pub timeflow: Option<u64>,
    /// Refuses refresh, rewind and delete.
    #[serde(default)]
    pub locked: bool,
    /// Whether an image of its newest snapshot is kept ready.
    #[serde(default = "yes")]
    pub images: bool,
    /// Of a dSource: the source config that it was linked with.
    #[serde(default)]
    pub source: Option<u64>,
    /// The folder below which its volumes are shown, beside the mount.
    #[serde(default)]
    pub mount_base: Option<PathBuf>,
}

fn yes() -> bool {
    true
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Dsource,
    Vdb,
}

/// Where a dataset is in its life. A crash leaves `Creating` or `Deleting`: both end in its removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DatasetState {
    Creating,
    /// Its server should run.
    Active,
    /// Its server should not run.
    Stopped,
    /// Not operated at all, and without a server.
    Disabled,
    /// A dSource without a source: it is kept and provisions, but no longer follows.
    Detached,
    Deleting,
}

/// One line of snapshots of a dataset, on one volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timeflow {
    pub id: u64,
    pub dataset: u64,
    pub volume: String,
    /// Where logs are kept that lead from its snapshots to points in time.
    #[serde(default)]
    pub log_volume: Option<String>,
    /// Where its server finds the volume, when that is not in the mount.
    #[serde(default)]
    pub place: Option<PathBuf>,
    pub state: TimeflowState,
    pub created: Timestamp,
    /// The snapshot it was provisioned, refreshed or rewound from.
    pub from_snapshot: Option<u64>,
    /// How its start is called: `shop@2026-…`, or a point in time of it.
    pub from: Option<String>,
    /// When another one took its place.
    #[serde(default)]
    pub retired: Option<Timestamp>,
    /// The adapter's configuration of a link whose hold on a source is still to be ended: what a resynchronization began
    /// with, or what it left.
    #[serde(default)]
    pub held: Option<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeflowState {
    /// Its volume is being filled; a crash leaves it so, and the next start removes it.
    Building,
    Current,
    /// Left behind by a refresh or rewind, and kept for undo and for its snapshots.
    Retired,
    Removing,
}

/// A snapshot of a dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    pub id: u64,
    pub dataset: u64,
    pub timeflow: u64,
    /// The name of the volume's snapshot; unique in the dataset.
    pub name: String,
    pub taken: Timestamp,
    pub state: SnapshotState,
    /// What the adapter recorded of the database at the cut.
    pub metadata: Value,
    /// Why no VDB can be provisioned from it; absent when one can.
    pub unprovisionable: Option<String>,
    pub bookmarks: Vec<String>,
    /// What its verification found; absent while there was none.
    #[serde(default)]
    pub verification: Option<Verification>,
    /// What the check of its files found, without a server; absent while there was none.
    #[serde(default)]
    pub file_check: Option<Verification>,
}

/// What checks of a snapshot's database found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    pub checked: Timestamp,
    pub sound: bool,
    /// What was run.
    pub checks: Vec<String>,
    /// What is damaged.
    pub problems: Vec<String>,
    /// What could not be checked, and why.
    pub left_out: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotState {
    /// A crash leaves it so; the next start removes it.
    Taking,
    Ready,
    Removing,
}

/// A running or finished operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    pub id: u64,
    pub kind: JobKind,
    /// The name of what it is about.
    pub target: String,
    pub dataset: Option<u64>,
    pub status: JobStatus,
    pub created: Timestamp,
    pub started: Option<Timestamp>,
    pub ended: Option<Timestamp>,
    pub steps: Vec<JobStep>,
    pub bytes_done: u64,
    pub bytes_total: Option<u64>,
    pub warnings: Vec<String>,
    pub error: Option<JobError>,
    /// What it made, by name.
    #[serde(default)]
    pub result: BTreeMap<String, String>,
    #[serde(default)]
    pub cancel_requested: bool,
    /// Who asked and under which key, so that the same request again finds this job.
    #[serde(default)]
    pub idempotency_key: Option<String>,
    /// BLAKE3 of what was asked with that key.
    #[serde(default)]
    pub idempotency_request: Option<String>,
    /// The dataset's group when the job was accepted: the dataset itself may be gone later.
    #[serde(default)]
    pub group: Option<String>,
}

impl Job {
    /// One that was accepted and waits.
    pub fn queued(id: u64, kind: JobKind, target: &str, created: Timestamp) -> Self {
        Self {
            id,
            kind,
            target: target.to_owned(),
            dataset: None,
            status: JobStatus::Queued,
            created,
            started: None,
            ended: None,
            steps: Vec::new(),
            bytes_done: 0,
            bytes_total: None,
            warnings: Vec::new(),
            error: None,
            result: BTreeMap::new(),
            cancel_requested: false,
            idempotency_key: None,
            idempotency_request: None,
            group: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum JobKind {
    DbLink,
    DbSync,
    DbSnapshot,
    DbProvision,
    DbStart,
    DbStop,
    DbRefresh,
    DbRewind,
    DbUndo,
    DbEnable,
    DbDisable,
    DbDelete,
    DbImage,
    DbDetach,
    DbAttach,
    DbResync,
    DbConfigure,
    DbExport,
    /// Removes what a retention policy no longer keeps.
    DbRetention,
    DbVerify,
    /// Checks the files of a snapshot in the background.
    DbCheck,
    /// A backup of source databases.
    DbBackup,
    /// A restore of one.
    DbRestore,
}

impl JobKind {
    /// Whether the dataset was made when the job was accepted, and goes with its failure.
    pub fn makes_its_dataset(self) -> bool {
        matches!(self, Self::DbLink | Self::DbProvision)
    }

    /// Whether the dataset's server is the same before, during and after it, wherever it ends.
    pub fn leaves_server_alone(self) -> bool {
        matches!(
            self,
            Self::DbSync
                | Self::DbSnapshot
                | Self::DbImage
                | Self::DbExport
                | Self::DbRetention
                | Self::DbVerify
                | Self::DbCheck
        )
    }

    /// Its name as people see it, which also is the kind of its events.
    pub fn name(self) -> &'static str {
        match self {
            Self::DbLink => "DB_LINK",
            Self::DbSync => "DB_SYNC",
            Self::DbSnapshot => "DB_SNAPSHOT",
            Self::DbProvision => "DB_PROVISION",
            Self::DbStart => "DB_START",
            Self::DbStop => "DB_STOP",
            Self::DbRefresh => "DB_REFRESH",
            Self::DbRewind => "DB_REWIND",
            Self::DbUndo => "DB_UNDO",
            Self::DbEnable => "DB_ENABLE",
            Self::DbDisable => "DB_DISABLE",
            Self::DbDelete => "DB_DELETE",
            Self::DbImage => "DB_IMAGE",
            Self::DbDetach => "DB_DETACH",
            Self::DbAttach => "DB_ATTACH",
            Self::DbResync => "DB_RESYNC",
            Self::DbConfigure => "DB_CONFIGURE",
            Self::DbExport => "DB_EXPORT",
            Self::DbRetention => "DB_RETENTION",
            Self::DbVerify => "DB_VERIFY",
            Self::DbCheck => "DB_CHECK",
            Self::DbBackup => "DB_BACKUP",
            Self::DbRestore => "DB_RESTORE",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    Queued,
    Running,
    Completed,
    CompletedWithWarnings,
    Failed,
    Cancelled,
}

impl JobStatus {
    /// Whether nothing more will happen.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// One step of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStep {
    pub name: String,
    pub started: Timestamp,
    pub ended: Option<Timestamp>,
}

/// Why a job failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    /// The kind of the error, by its name on the wire.
    pub code: String,
    pub message: String,
    /// What to do, when that is known.
    #[serde(default)]
    pub hint: Option<String>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub id: u64,
    pub time: Timestamp,
    pub severity: Severity,
    /// A stable word, such as `DB_LINK` or `FAULT_RAISED`.
    pub kind: String,
    pub dataset: Option<u64>,
    pub job: Option<u64>,
    pub message: String,
    /// The group of the dataset or job that it is about.
    #[serde(default)]
    pub group: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Info,
    Warning,
    Error,
}

/// An open problem that stays until it is resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub id: u64,
    pub dataset: u64,
    /// A stable word; a dataset has at most one open fault of each.
    pub code: String,
    pub message: String,
    /// What to do.
    pub action: String,
    pub raised: Timestamp,
    pub resolved: Option<Timestamp>,
}

record!(Dataset, "dataset", 1);
record!(Timeflow, "timeflow", 1);
record!(Snapshot, "snapshot", 1);
record!(Job, "job", 1);
record!(Event, "event", 1);
record!(Fault, "fault", 1);
