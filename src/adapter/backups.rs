//! What the engine asks of an adapter whose source databases it backs up: full, differential and log backups onto a
//! volume, restored to any point.
//!
//! What an adapter records of a backup is a JSON value that only it reads. It gets folders, never stores; the cut of a
//! volume is a call that the engine passes in. Must not know volumes, jobs and policies.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{LinkPlan, Secrets, Task, Verified};
use crate::base::Result;
use crate::schedule::RetentionPolicy;

/// What a backup holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupKind {
    Full,
    Differential,
    Log,
}

impl BackupKind {
    pub const ALL: [Self; 3] = [Self::Full, Self::Differential, Self::Log];

    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Differential => "differential",
            Self::Log => "log",
        }
    }
}

/// The databases that are backed up together, as their adapter knows them.
#[derive(Clone, Copy, Debug)]
pub struct BackupTarget<'a> {
    pub name: &'a str,
    pub config: &'a Value,
    pub secrets: &'a Secrets,
}

/// A backup that was made.
#[derive(Clone, Debug)]
pub struct BackupMade {
    /// Its restore point's number.
    pub id: u64,
    pub database: String,
    pub kind: BackupKind,
    /// What `back_up` recorded.
    pub metadata: Value,
    /// Where its files are now.
    pub folder: PathBuf,
    /// Where the database's own files are that were cut with it.
    pub cut: Option<PathBuf>,
}

/// What came before the next backup of a set, by database where it is of one.
#[derive(Clone, Debug, Default)]
pub struct BackupHistory {
    /// Oldest first.
    pub made: Vec<BackupMade>,
    /// How the newest attempt at a full ended, where it failed.
    pub failed_fulls: BTreeMap<String, String>,
    /// Why it is not known what has changed since the last full.
    pub changes_lost: BTreeMap<String, String>,
}

/// Why another kind of backup is made than was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conversion {
    /// A stable word.
    pub code: String,
    pub text: String,
}

/// One database's backup that is going to be made.
#[derive(Clone, Debug)]
pub struct PlannedBackup {
    pub database: String,
    pub kind: BackupKind,
    pub conversions: Vec<Conversion>,
    /// The distinct folders of its files.
    pub filesets: Vec<PathBuf>,
    /// All its files. When they can be cut as they are, the backup needs not copy them.
    pub files: Vec<PathBuf>,
    /// Whether its writes can be held for such a cut.
    pub suspends: bool,
    pub estimated_bytes: u64,
    /// The adapter's own, for `back_up`.
    pub plan: Value,
}

/// What a run is going to make.
#[derive(Clone, Debug, Default)]
pub struct BackupPlan {
    pub backups: Vec<PlannedBackup>,
    /// Databases of which none is made although there should be one, and why; for people.
    pub left_out: Vec<String>,
    /// All databases of the set.
    pub members: BTreeSet<String>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// A volume that a database's files are on, and how it is cut.
pub struct Cut<'a> {
    /// The volume's folder.
    pub root: &'a Path,
    /// Cuts it. Called while the database's writes are held.
    pub make: &'a mut dyn FnMut() -> Result<()>,
}

/// What became of a backup.
#[derive(Clone, Debug)]
pub struct BackupDone {
    pub metadata: Value,
    /// The names of its files in their folder, with their sizes in bytes.
    pub files: Vec<(String, u64)>,
    /// Facts in the order to show them.
    pub facts: Vec<(String, String)>,
}

/// Where a restore goes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoreTo {
    /// The end of the newest backup.
    Newest,
    /// The end of one restore point.
    Point(u64),
    /// RFC 3339 with an offset.
    Time(String),
    /// All before a place in the log.
    Lsn(String),
    /// The marked transaction, with it or without; of several of a name the first after a time, or the newest.
    Mark { name: String, before: bool, after: Option<String> },
}

/// What is asked for with a restore.
#[derive(Clone, Debug)]
pub struct RestoreAsk {
    /// The database that was backed up.
    pub database: String,
    pub to: RestoreTo,
    pub form: RestoreForm,
    /// Whether a database of the name may be replaced.
    pub replace: bool,
    /// Where its files are to be; the instance's own folder when absent.
    pub folder: Option<PathBuf>,
}

/// As what a backup is restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreForm {
    /// A database of this name, left open for use, or readable and able to take more logs.
    Database { name: String, standby: bool },
    /// Its files, closed in order, in a folder.
    Files(PathBuf),
}

/// A restore that can be carried out.
#[derive(Clone, Debug)]
pub struct RestorePlanned {
    /// The restore points it takes, in their order.
    pub points: Vec<u64>,
    /// Whether a writable copy is needed of the cut that the first one is.
    pub copy: Option<CutCopy>,
    /// The steps and the end, one line each, for people.
    pub text: Vec<String>,
    /// The adapter's own.
    pub plan: Value,
}

/// A writable copy of a cut, as a restore needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutCopy {
    /// While it restores.
    Meanwhile,
    /// The restored database goes on in it.
    Stays,
}

/// What retention makes of a restore point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointVerdict {
    pub id: u64,
    pub kept: bool,
    /// Why it is kept; or, when it is not, what it lacks.
    pub reasons: Vec<String>,
    /// It cannot be restored, whatever is kept.
    pub broken: bool,
}

/// An adapter that backs up source databases.
pub trait Backups: Send + Sync {
    /// Asks the instance whether its databases can be backed up so; `config` of the plan is what to keep. `request` is the
    /// adapter's own.
    fn plan_protect(&self, request: &Value, secrets: &Secrets) -> Result<LinkPlan>;

    /// Whether the instance answers. `Io` when it does not, which may pass.
    fn check(&self, target: &BackupTarget<'_>) -> Result<String>;

    /// What a backup of this kind would make now: for each database which kind, why, and how much.
    fn estimate(
        &self,
        target: &BackupTarget<'_>,
        kind: BackupKind,
        history: &BackupHistory,
    ) -> Result<BackupPlan>;

    /// Makes a backup into a folder that is there and empty. With `cut` the database's writes are held, the cut is made
    /// and they go on: on every path, also when this process ends in between.
    fn back_up(
        &self,
        target: &BackupTarget<'_>,
        planned: &PlannedBackup,
        folder: &Path,
        cut: Option<Cut<'_>>,
        task: &mut dyn Task,
    ) -> Result<BackupDone>;

    /// Lets a database's writes go on, if they are held by what an ended process left. Says whether they were.
    fn let_go(&self, target: &BackupTarget<'_>, database: &str) -> Result<bool>;

    /// Checks a backup: by the instance, and by what can be read of its files without one.
    fn verify(&self, target: &BackupTarget<'_>, made: &BackupMade, task: &mut dyn Task) -> Result<Verified>;

    /// Finds the way to a point. `Precondition` with the gaps and the nearest points when there is none.
    fn plan_restore(
        &self,
        target: &BackupTarget<'_>,
        made: &[BackupMade],
        ask: &RestoreAsk,
    ) -> Result<RestorePlanned>;

    /// Restores. `copy` is the folder of a writable copy of the cut, when the plan asks for one. Returns facts of what is
    /// there now.
    fn restore(
        &self,
        target: &BackupTarget<'_>,
        made: &[BackupMade],
        planned: &RestorePlanned,
        copy: Option<&Path>,
        task: &mut dyn Task,
    ) -> Result<Vec<(String, String)>>;

    /// What retention keeps of these backups, and why.
    fn judge(
        &self,
        made: &[BackupMade],
        policy: &RetentionPolicy,
        zone: &TimeZone,
        now: Timestamp,
    ) -> Result<Vec<PointVerdict>>;

    /// From where to where points in time of a database can be reached, for people, and what is missing in between.
    fn spans(&self, made: &[BackupMade], database: &str) -> Result<super::Span>;
}
