//! What goes over the wire. Times are RFC 3339 in UTC, sizes are bytes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::hooks::NewHook;
use crate::adapter::{Secrets, Span, Target};
use crate::base::Error;
use crate::catalog::{self, Role};
use crate::engine::{self, default_group};

/// A request to link a source.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Link {
    pub name: String,
    #[serde(default = "default_group")]
    pub group: String,
    pub adapter: String,
    /// A source config, whose address and password are taken.
    #[serde(default)]
    pub source: Option<String>,
    /// A free one when absent.
    #[serde(default)]
    pub port: Option<u16>,
    /// What the adapter needs: see its part of the documentation.
    pub parameters: Value,
    /// Passwords by name; kept apart from everything else.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    /// Whether logs are kept for points in time.
    #[serde(default = "yes")]
    pub logs: bool,
    /// Whether an image of the newest snapshot is kept ready, from which a VDB starts at once.
    #[serde(default = "yes")]
    pub images: bool,
    /// The folder of the daemon's host below which its volumes are shown; in the mount alone when absent.
    #[serde(default)]
    pub mount_base: Option<String>,
    /// Names of policies that it has from its beginning.
    #[serde(default)]
    pub policies: Vec<String>,
    #[serde(default)]
    pub hooks: Vec<NewHook>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("name", &self.name)
            .field("adapter", &self.adapter)
            .finish_non_exhaustive()
    }
}

/// What a link will do.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LinkPlan {
    pub review: Vec<(String, String)>,
    pub warnings: Vec<String>,
    pub estimated_bytes: Option<u64>,
}

impl From<crate::adapter::LinkPlan> for LinkPlan {
    fn from(plan: crate::adapter::LinkPlan) -> Self {
        Self { review: plan.review, warnings: plan.warnings, estimated_bytes: plan.estimated_bytes }
    }
}

/// A request to provision a VDB.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Provision {
    pub name: String,
    #[serde(default = "default_group")]
    pub group: String,
    /// `DATASET@SNAPSHOT`, `DATASET@BOOKMARK`, or `DATASET` for its newest snapshot or with a point in time.
    pub from: String,
    #[serde(default)]
    pub at: Point,
    pub port: Option<u16>,
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// Whether logs are kept for points in time of its own.
    #[serde(default = "yes")]
    pub logs: bool,
    /// The role as which it is used: made if it is not there, and the owner of its databases.
    #[serde(default)]
    pub owner: Option<String>,
    /// Databases that get another name, by their old one.
    #[serde(default)]
    pub rename_databases: BTreeMap<String, String>,
    /// The folder of the daemon's host below which its volumes are shown; in the mount alone when absent.
    #[serde(default)]
    pub mount_base: Option<String>,
    /// `owner_password`: that of the owner.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    /// Names of policies that it has from its beginning.
    #[serde(default)]
    pub policies: Vec<String>,
    #[serde(default)]
    pub hooks: Vec<NewHook>,
}

impl std::fmt::Debug for Provision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provision")
            .field("name", &self.name)
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

fn yes() -> bool {
    true
}

/// A point in time: at most one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// RFC 3339 with an offset: all that was committed up to then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// A place in the log, as `16/B374D848`: all that lies before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lsn: Option<String>,
    /// A transaction: up to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xid: Option<String>,
    /// A named restore point of the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore_point: Option<String>,
}

impl TryFrom<Point> for Target {
    type Error = Error;

    fn try_from(point: Point) -> Result<Self, Error> {
        match (point.time, point.lsn, point.xid, point.restore_point) {
            (None, None, None, None) => Ok(Self::Snapshot),
            (Some(time), None, None, None) => Ok(Self::Time(time)),
            (None, Some(lsn), None, None) => Ok(Self::Lsn(lsn)),
            (None, None, Some(xid), None) => Ok(Self::Xid(xid)),
            (None, None, None, Some(name)) => Ok(Self::RestorePoint(name)),
            _ => Err(Error::invalid("name one point: a time, an LSN, a transaction or a restore point")),
        }
    }
}

/// From where to where points in time of one timeflow can be reached.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Points {
    pub timeflow: u64,
    pub current: bool,
    pub earliest_time: Option<String>,
    pub earliest_place: Option<String>,
    pub latest_time: Option<String>,
    pub latest_place: Option<String>,
    /// Whether a later point is asked of the source first.
    pub can_sync: bool,
    pub gaps: Vec<String>,
}

impl Points {
    /// Of one timeflow.
    pub fn of(timeflow: &catalog::Timeflow, span: Span) -> Self {
        Self {
            timeflow: timeflow.id,
            current: timeflow.state == catalog::TimeflowState::Current,
            earliest_time: span.earliest_time,
            earliest_place: span.earliest_place,
            latest_time: span.latest_time,
            latest_place: span.latest_place,
            can_sync: span.can_sync,
            gaps: span.gaps,
        }
    }
}

/// A request to refresh or rewind.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Replace {
    /// For a refresh `DATASET[@SNAPSHOT]`, or nothing for the parent; for a rewind the VDB's own snapshot.
    pub from: Option<String>,
    #[serde(default)]
    pub at: Point,
}

/// A change of a dataset: of its settings, its link, or with a new first copy.
#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Change {
    #[serde(default)]
    pub port: Option<u16>,
    /// Whether an image of the newest snapshot is kept ready.
    #[serde(default)]
    pub images: Option<bool>,
    /// A source config, whose address and password are taken.
    #[serde(default)]
    pub source: Option<String>,
    /// What the adapter understands: see its part of the documentation.
    #[serde(default = "no_parameters")]
    pub parameters: Value,
    /// Passwords by name, in the place of the old ones.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
}

fn no_parameters() -> Value {
    Value::Object(serde_json::Map::new())
}

impl std::fmt::Debug for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Change").field("port", &self.port).finish_non_exhaustive()
    }
}

impl From<Change> for engine::ChangeRequest {
    fn from(change: Change) -> Self {
        Self {
            port: change.port,
            images: change.images,
            source: change.source,
            parameters: change.parameters,
            secrets: Secrets(change.secrets),
        }
    }
}

/// A request to export a VDB.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// A new folder on the daemon's host, from the root on.
    pub to: String,
}

/// A request to name a snapshot.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bookmark {
    /// `DATASET@SNAPSHOT`, or `DATASET` for its newest.
    pub snapshot: String,
    pub name: String,
}

/// A dSource or VDB.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Dataset {
    pub name: String,
    pub role: String,
    pub group: String,
    pub adapter: String,
    /// The source config that a dSource was linked with.
    pub source: Option<String>,
    pub state: String,
    pub created: String,
    pub port: u16,
    pub locked: bool,
    pub volume: Option<String>,
    /// Where its server finds the volume, when that is not in the mount.
    pub place: Option<String>,
    /// Where the logs of its current timeflow are kept.
    pub log_volume: Option<String>,
    /// What its current timeflow was made from.
    pub from: Option<String>,
    pub snapshots: u64,
    pub faults: Vec<Fault>,
    /// How to connect, by variable name; passwords are the database's own.
    pub connection: BTreeMap<String, String>,
    /// What its server answered just now; only for one dataset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    pub running: bool,
    pub pid: Option<u32>,
    pub state: String,
    pub facts: Vec<(String, String)>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Fault {
    pub code: String,
    pub message: String,
    pub action: String,
    pub raised: String,
}

/// A snapshot of a dataset.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Snapshot {
    /// `DATASET@NAME`.
    pub snapshot: String,
    pub timeflow: u64,
    pub taken: String,
    pub provisionable: bool,
    pub reason: Option<String>,
    pub bookmarks: Vec<String>,
    /// What checks of its database found; absent while there were none.
    #[serde(default)]
    pub verification: Option<Verification>,
    /// What the check of its files found, without a server; absent while there was none, and where there is no such check.
    #[serde(default)]
    pub file_check: Option<Verification>,
    pub metadata: Value,
}

/// What checks of a snapshot's database found.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Verification {
    pub checked: String,
    pub sound: bool,
    /// What was run.
    pub checks: Vec<String>,
    /// What is damaged.
    pub problems: Vec<String>,
    /// What could not be checked, and why.
    pub left_out: Vec<String>,
}

/// A job.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Job {
    pub id: u64,
    pub kind: String,
    pub target: String,
    pub status: String,
    pub created: String,
    pub started: Option<String>,
    pub ended: Option<String>,
    pub steps: Vec<Step>,
    pub bytes_done: u64,
    pub bytes_total: Option<u64>,
    /// How much of the current step's bytes is done, rounded down.
    #[serde(default)]
    pub percent: Option<u8>,
    /// Seconds until the current step ends, if it goes on as it went.
    #[serde(default)]
    pub eta_seconds: Option<u64>,
    pub warnings: Vec<String>,
    pub error: Option<JobError>,
    pub result: BTreeMap<String, String>,
    /// Whether somebody asked it to end; it does at its next safe point.
    #[serde(default)]
    pub cancel_requested: bool,
}

impl Job {
    /// Whether nothing more will happen.
    pub fn has_ended(&self) -> bool {
        !matches!(self.status.as_str(), "queued" | "running")
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    pub name: String,
    pub started: String,
    pub ended: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct JobError {
    pub code: String,
    pub message: String,
    /// What to do, when that is known.
    #[serde(default)]
    pub hint: Option<String>,
}

/// A piece of a job's log.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct JobLog {
    pub text: String,
    /// Where to read on.
    pub next: u64,
}

/// A job that was accepted.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Accepted {
    pub job: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    pub id: u64,
    pub time: String,
    pub severity: String,
    pub kind: String,
    pub job: Option<u64>,
    pub message: String,
}

/// A word of a catalog enumeration, as it is stored.
pub(super) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        _ => String::new(),
    }
}

impl From<engine::DatasetView> for Dataset {
    fn from(view: engine::DatasetView) -> Self {
        let record = view.dataset;
        Self {
            role: match record.role {
                Role::Dsource => "dsource".into(),
                Role::Vdb => "vdb".into(),
            },
            name: record.name,
            group: record.group,
            adapter: record.adapter,
            source: view.source,
            state: word(&record.state),
            created: record.created.to_string(),
            port: record.port,
            locked: record.locked,
            from: view.timeflow.as_ref().and_then(|timeflow| timeflow.from.clone()),
            log_volume: view.timeflow.as_ref().and_then(|timeflow| timeflow.log_volume.clone()),
            place: view
                .timeflow
                .as_ref()
                .and_then(|timeflow| Some(timeflow.place.as_ref()?.display().to_string())),
            volume: view.timeflow.map(|timeflow| timeflow.volume),
            snapshots: view.snapshots as u64,
            faults: view.faults.into_iter().map(Fault::from).collect(),
            connection: view.connection,
            health: None,
        }
    }
}

impl From<engine::Listing> for Dataset {
    fn from(listing: engine::Listing) -> Self {
        let health = listing.health;
        Self {
            health: Some(Health {
                running: health.running,
                pid: health.pid,
                state: health.state,
                facts: health.facts,
            }),
            ..listing.view.into()
        }
    }
}

impl From<catalog::Fault> for Fault {
    fn from(fault: catalog::Fault) -> Self {
        Self {
            code: fault.code,
            message: fault.message,
            action: fault.action,
            raised: fault.raised.to_string(),
        }
    }
}

impl From<catalog::Verification> for Verification {
    fn from(found: catalog::Verification) -> Self {
        let catalog::Verification { checked, sound, checks, problems, left_out } = found;
        Self { checked: checked.to_string(), sound, checks, problems, left_out }
    }
}

impl Snapshot {
    /// A dataset's snapshot.
    pub fn of(dataset: &str, record: catalog::Snapshot) -> Self {
        Self {
            snapshot: format!("{dataset}@{}", record.name),
            timeflow: record.timeflow,
            taken: record.taken.to_string(),
            provisionable: record.unprovisionable.is_none(),
            reason: record.unprovisionable,
            bookmarks: record.bookmarks,
            verification: record.verification.map(Verification::from),
            file_check: record.file_check.map(Verification::from),
            metadata: record.metadata,
        }
    }
}

impl Job {
    /// A job's record as it is shown at a moment.
    pub fn of(job: catalog::Job, now: Timestamp) -> Self {
        let (percent, eta_seconds) = progress(&job, now);
        let step = |step: catalog::JobStep| Step {
            name: step.name,
            started: step.started.to_string(),
            ended: step.ended.map(|time| time.to_string()),
        };
        Self {
            id: job.id,
            kind: word(&job.kind),
            target: job.target,
            status: word(&job.status),
            created: job.created.to_string(),
            started: job.started.map(|time| time.to_string()),
            ended: job.ended.map(|time| time.to_string()),
            steps: job.steps.into_iter().map(step).collect(),
            bytes_done: job.bytes_done,
            bytes_total: job.bytes_total,
            percent,
            eta_seconds,
            warnings: job.warnings,
            error: job.error.map(|error| JobError {
                code: error.code,
                message: error.message,
                hint: error.hint,
            }),
            result: job.result,
            cancel_requested: job.cancel_requested,
        }
    }
}

/// How much of the current step is done, and the seconds that are left at its pace so far.
fn progress(job: &catalog::Job, now: Timestamp) -> (Option<u8>, Option<u64>) {
    let Some(total) = job.bytes_total.filter(|total| *total > 0) else { return (None, None) };
    // More than was estimated is no more than all.
    let done = job.bytes_done.min(total);
    let percent = u8::try_from(u128::from(done) * 100 / u128::from(total)).ok();
    let step = job.steps.last().filter(|step| step.ended.is_none() && !job.status.is_final());
    let passed = step.and_then(|step| u128::try_from(now.duration_since(step.started).as_millis()).ok());
    let left = passed.filter(|_| done > 0).map(|millis| millis * u128::from(total - done) / u128::from(done));
    (percent, left.and_then(|millis| u64::try_from(millis.div_ceil(1000)).ok()))
}

impl From<catalog::Event> for Event {
    fn from(event: catalog::Event) -> Self {
        Self {
            id: event.id,
            time: event.time.to_string(),
            severity: word(&event.severity),
            kind: event.kind,
            job: event.job,
            message: event.message,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{JobKind, JobStatus, JobStep};

    #[test]
    fn progress_is_that_of_the_step() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let step = JobStep { name: "copy".into(), started: at(100), ended: None };
        let mut job = catalog::Job {
            status: JobStatus::Running,
            started: Some(at(2)),
            steps: vec![step],
            bytes_done: 25,
            bytes_total: Some(100),
            ..catalog::Job::queued(1, JobKind::DbLink, "shop", at(1))
        };
        assert_eq!(progress(&job, at(110)), (Some(25), Some(30)));
        job.bytes_done = 0;
        assert_eq!(progress(&job, at(110)), (Some(0), None));
        job.bytes_done = 300;
        assert_eq!(progress(&job, at(110)), (Some(100), Some(0)));
        job.bytes_done = u64::MAX;
        job.bytes_total = Some(u64::MAX);
        // A clock that was set back.
        assert_eq!(progress(&job, at(50)), (Some(100), None));
        job.status = JobStatus::Failed;
        assert_eq!(progress(&job, at(110)), (Some(100), None));
        job.bytes_total = None;
        assert_eq!(progress(&job, at(110)), (None, None));
    }
}
