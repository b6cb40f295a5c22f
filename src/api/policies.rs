//! Policies over the wire: made, given to datasets, taken away, tried; and why a snapshot is kept.

use std::sync::Arc;

use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::access::Principal;
use super::problem::Problem;
use super::routes::{Answer, Body, Shared, blocking};
use crate::base::{Error, Result};
use crate::catalog::{self, PolicyKind};
use crate::engine::{self, BoundPolicy, Engine, PolicyView, SimulationRequest, SnapshotVerdict};
use crate::schedule::{CronSchedule, FirstWeekday, RetentionPolicy};

/// Runs of a schedule that are told when no number is asked for.
const RUNS: usize = 5;

/// When a policy runs.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Five fields, or six with the second first, or `@hourly` and its like.
    pub cron: String,
    #[serde(default = "utc")]
    pub time_zone: String,
}

fn utc() -> String {
    "UTC".into()
}

/// How long snapshots and logs are kept. A count of 0 switches a rule off.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Every snapshot of this many days.
    #[serde(default)]
    pub keep_all_days: u32,
    /// The last snapshot of each of this many days, and so on.
    #[serde(default)]
    pub daily: u32,
    #[serde(default)]
    pub weekly: u32,
    #[serde(default)]
    pub monthly: u32,
    #[serde(default)]
    pub yearly: u32,
    /// The weekday that weeks begin with; Monday if not told.
    pub first_weekday: Option<String>,
    /// Logs for point-in-time of this many days.
    #[serde(default)]
    pub log_days: u32,
    #[serde(default = "utc")]
    pub time_zone: String,
}

/// A request to make a policy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPolicy {
    pub name: String,
    /// `snap_sync`, `snapshot`, `refresh`, `retention`, `quota`, `full_backup`, `differential_backup` or `log_backup`.
    pub kind: String,
    /// Of all kinds but retention and quota.
    pub schedule: Option<Schedule>,
    pub retention: Option<Retention>,
    pub quota_bytes: Option<u64>,
}

/// A policy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Policy {
    pub name: String,
    pub kind: String,
    pub schedule: Option<Schedule>,
    pub retention: Option<Retention>,
    pub quota_bytes: Option<u64>,
    pub created: String,
    /// The datasets that have it.
    pub datasets: Vec<Binding>,
}

/// That a dataset has a policy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Binding {
    pub dataset: String,
    pub policy: String,
    pub kind: String,
    pub since: String,
    /// When it last ran or was skipped.
    pub last_run: Option<String>,
    pub last_job: Option<u64>,
    pub next_run: Option<String>,
}

/// A request for a dry run: of a dataset, of a policy, or of a dataset as if it had that policy.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SimulateRequest {
    pub dataset: Option<String>,
    pub policy: Option<String>,
    /// RFC 3339; now if not told.
    pub at: Option<String>,
    pub runs: Option<usize>,
}

/// What policies would do at a moment.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Simulation {
    pub at: String,
    /// The retention policy that judges; without one all is kept.
    pub retention: Option<String>,
    pub snapshots: Vec<Verdict>,
    /// Timeflows of the past that would go with their last snapshot.
    pub timeflows_removed: Vec<u64>,
    pub runs: Vec<Runs>,
}

/// What becomes of a snapshot.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// `DATASET@NAME`.
    pub snapshot: String,
    pub timeflow: u64,
    pub taken: String,
    pub kept: bool,
    pub reasons: Vec<String>,
}

/// Why a snapshot is kept.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Why {
    /// The retention policy of its dataset.
    pub retention: Option<String>,
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// The next runs of a policy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Runs {
    pub policy: String,
    pub kind: String,
    pub schedule: Schedule,
    /// In the schedule's zone.
    pub times: Vec<String>,
}

pub(super) fn routes() -> Router<Arc<Engine>> {
    Router::new()
        .route("/v1/policies", get(list).post(create))
        .route("/v1/policies/simulate", post(simulate))
        .route("/v1/policies/{name}", get(show).put(update).delete(delete))
        .route("/v1/datasets/{name}/policies", get(list_bound))
        .route("/v1/datasets/{name}/policies/{policy}", put(apply).delete(remove))
        .route("/v1/datasets/{name}/snapshots/{snapshot}/why", get(why))
}

async fn list(State(engine): Shared, Extension(principal): Extension<Principal>) -> Answer<Vec<Policy>> {
    let found = blocking(engine, move |engine| {
        let mut found = engine.policies()?;
        found.iter_mut().for_each(|view| hide(engine, &principal, view));
        Ok(found)
    });
    Ok(Json(found.await?.into_iter().map(Policy::from).collect()))
}

/// Leaves out the datasets that the caller may not see.
fn hide(engine: &Engine, principal: &Principal, view: &mut PolicyView) {
    view.bound.retain(|bound| {
        let dataset = engine.dataset(&bound.dataset).ok().map(|dataset| dataset.group);
        let group = dataset.or_else(|| engine.backup_set(&bound.dataset).ok().map(|set| set.group));
        principal.sees(group.as_deref())
    });
}

async fn create(State(engine): Shared, Body(body): Body<NewPolicy>) -> Answer<Policy> {
    let made = blocking(engine, move |engine| {
        let policy = engine.create_policy(new_policy(body)?)?;
        Ok(PolicyView { policy, bound: Vec::new() })
    });
    Ok(Json(made.await?.into()))
}

/// The name is that of the address; the body's must be the same.
async fn update(
    State(engine): Shared,
    Path(name): Path<String>,
    Body(body): Body<NewPolicy>,
) -> Answer<Policy> {
    let changed = blocking(engine, move |engine| {
        if body.name != name {
            return Err(Error::invalid(format!("policy {name} cannot be renamed to {}", body.name)));
        }
        engine.update_policy(new_policy(body)?)
    });
    Ok(Json(changed.await?.into()))
}

async fn show(
    State(engine): Shared,
    Extension(principal): Extension<Principal>,
    Path(name): Path<String>,
) -> Answer<Policy> {
    let found = blocking(engine, move |engine| {
        let mut view = engine.policy(&name)?;
        hide(engine, &principal, &mut view);
        Ok(view)
    });
    Ok(Json(found.await?.into()))
}

async fn delete(State(engine): Shared, Path(name): Path<String>) -> std::result::Result<StatusCode, Problem> {
    blocking(engine, move |engine| engine.delete_policy(&name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn list_bound(State(engine): Shared, Path(name): Path<String>) -> Answer<Vec<Binding>> {
    let found = blocking(engine, move |engine| engine.policies_of(&name)).await?;
    Ok(Json(found.into_iter().map(Binding::from).collect()))
}

async fn apply(
    State(engine): Shared,
    Path((name, policy)): Path<(String, String)>,
) -> std::result::Result<StatusCode, Problem> {
    blocking(engine, move |engine| engine.apply_policy(&policy, &name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove(
    State(engine): Shared,
    Path((name, policy)): Path<(String, String)>,
) -> std::result::Result<StatusCode, Problem> {
    blocking(engine, move |engine| engine.unapply_policy(&policy, &name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn simulate(State(engine): Shared, Body(body): Body<SimulateRequest>) -> Answer<Simulation> {
    let simulated = blocking(engine, move |engine| {
        let parse = |text: String| {
            text.parse::<Timestamp>().map_err(|e| Error::invalid(format!("{text:?} is no time: {e}")))
        };
        let request = SimulationRequest {
            dataset: body.dataset.clone(),
            policy: body.policy,
            at: body.at.map(parse).transpose()?,
            runs: body.runs.unwrap_or(RUNS),
        };
        let dataset = body.dataset.unwrap_or_default();
        engine.simulate(&request).map(|found| Simulation::of(&dataset, found))
    });
    Ok(Json(simulated.await?))
}

async fn why(State(engine): Shared, Path((name, snapshot)): Path<(String, String)>) -> Answer<Why> {
    let found = blocking(engine, move |engine| {
        let (verdict, retention) = engine.why(&format!("{name}@{snapshot}"))?;
        Ok(Why { retention, verdict: Verdict::of(&name, verdict) })
    });
    Ok(Json(found.await?))
}

fn new_policy(body: NewPolicy) -> Result<engine::NewPolicy> {
    let kind = PolicyKind::ALL.into_iter().find(|kind| kind.name() == body.kind).ok_or_else(|| {
        let known: Vec<&str> = PolicyKind::ALL.iter().map(|kind| kind.name()).collect();
        Error::invalid(format!("there is no policy kind {:?}: there are {}", body.kind, known.join(", ")))
    })?;
    let schedule = body.schedule.map(|schedule| CronSchedule::parse(&schedule.cron, &schedule.time_zone));
    Ok(engine::NewPolicy {
        name: body.name,
        kind,
        schedule: schedule.transpose()?,
        retention: body.retention.map(Retention::record).transpose()?,
        quota_bytes: body.quota_bytes,
    })
}

impl Retention {
    fn record(self) -> Result<catalog::Retention> {
        let first_weekday: FirstWeekday = match self.first_weekday {
            Some(day) => serde_json::from_value(day.to_ascii_lowercase().into())
                .map_err(|_| Error::invalid(format!("{day:?} is no weekday: they are like monday")))?,
            None => FirstWeekday::default(),
        };
        let policy = RetentionPolicy {
            keep_all_days: self.keep_all_days,
            daily: self.daily,
            weekly: self.weekly,
            monthly: self.monthly,
            yearly: self.yearly,
            first_weekday,
            log_days: self.log_days,
        };
        Ok(catalog::Retention { policy, time_zone: self.time_zone })
    }
}

impl From<catalog::Retention> for Retention {
    fn from(record: catalog::Retention) -> Self {
        let policy = record.policy;
        let day = serde_json::to_value(policy.first_weekday).ok();
        Self {
            keep_all_days: policy.keep_all_days,
            daily: policy.daily,
            weekly: policy.weekly,
            monthly: policy.monthly,
            yearly: policy.yearly,
            first_weekday: day.and_then(|day| day.as_str().map(str::to_owned)),
            log_days: policy.log_days,
            time_zone: record.time_zone,
        }
    }
}

impl From<&CronSchedule> for Schedule {
    fn from(schedule: &CronSchedule) -> Self {
        Self { cron: schedule.expression().into(), time_zone: schedule.zone_name().into() }
    }
}

impl From<PolicyView> for Policy {
    fn from(view: PolicyView) -> Self {
        let record = view.policy;
        Self {
            name: record.name,
            kind: record.kind.name().into(),
            schedule: record.schedule.as_ref().map(Schedule::from),
            retention: record.retention.map(Retention::from),
            quota_bytes: record.quota_bytes,
            created: record.created.to_string(),
            datasets: view.bound.into_iter().map(Binding::from).collect(),
        }
    }
}

impl From<BoundPolicy> for Binding {
    fn from(bound: BoundPolicy) -> Self {
        Self {
            dataset: bound.dataset,
            policy: bound.policy.name,
            kind: bound.policy.kind.name().into(),
            since: bound.binding.since.to_string(),
            last_run: bound.binding.last_run.map(|time| time.to_string()),
            last_job: bound.binding.last_job,
            next_run: bound.next.map(|time| time.to_string()),
        }
    }
}

impl Verdict {
    fn of(dataset: &str, verdict: SnapshotVerdict) -> Self {
        Self {
            snapshot: format!("{dataset}@{}", verdict.snapshot.name),
            timeflow: verdict.snapshot.timeflow,
            taken: verdict.snapshot.taken.to_string(),
            kept: verdict.keeps(),
            reasons: verdict.reasons,
        }
    }
}

impl Simulation {
    fn of(dataset: &str, found: engine::Simulation) -> Self {
        let runs = |found: engine::ScheduledRuns| {
            let schedule = Schedule::from(found.policy.schedule.as_ref()?);
            let kind = found.policy.kind.name().into();
            Some(Runs { policy: found.policy.name, kind, schedule, times: found.times })
        };
        Self {
            at: found.at.to_string(),
            retention: found.retention,
            snapshots: found.verdicts.into_iter().map(|verdict| Verdict::of(dataset, verdict)).collect(),
            timeflows_removed: found.timeflows,
            runs: found.runs.into_iter().filter_map(runs).collect(),
        }
    }
}
