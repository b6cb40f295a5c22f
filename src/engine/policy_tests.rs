//! Policies of an engine whose clock is a test's: what is due, what waits, what retention leaves over the years.
//!
//! The datasets are records alone: what is looked at here asks no server. Seeds are printed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use tempfile::TempDir;

use super::volumes::testing::Names;
use super::{Engine, NewPolicy, Parts, Volumes};
use crate::adapter::postgres::{Installations, Postgres};
use crate::base::{Clock, Random, SeededRandom, SimClock, SimStorage, SystemRandom};
use crate::catalog::{
    Catalog, Dataset, DatasetState, Event, Job, JobKind, JobStatus, PolicyBinding, PolicyKind, Retention,
    Snapshot, SnapshotState, Timeflow, TimeflowState,
};
use crate::schedule::{CronSchedule, RetentionPolicy};

pub(super) struct Bench {
    pub(super) engine: Arc<Engine>,
    clock: Arc<SimClock>,
    volumes: Arc<Names>,
    pub(super) dataset: Dataset,
    timeflow: Timeflow,
    _state: TempDir,
}

impl Bench {
    /// An engine with one dSource of no snapshots, at this time.
    pub(super) fn at(time: &str) -> Self {
        let state = tempfile::tempdir().unwrap();
        let start = time.parse::<Timestamp>().unwrap().as_nanosecond();
        let start = Duration::from_nanos(u64::try_from(start).unwrap());
        let clock = Arc::new(SimClock::new(start, Duration::ZERO));
        let random: Arc<dyn Random> = Arc::new(SystemRandom);
        let volumes = Arc::new(Names::default());
        let storage = Arc::new(SimStorage::new());
        let engine = Engine::open(Parts {
            catalog: Catalog::open(&*storage).unwrap(),
            storage,
            adapters: vec![Arc::new(Postgres::new(
                clock.clone(),
                Arc::clone(&random),
                Installations::default(),
            ))],
            volumes: volumes.clone(),
            store: "/store".into(),
            state: state.path().join("state"),
            clock: clock.clone(),
            random,
            jobs_max: 1,
            kept_mount: None,
        })
        .unwrap();
        let (dataset, timeflow) = records(&engine);
        volumes.create(&timeflow.volume).unwrap();
        Self { engine, clock, volumes, dataset, timeflow, _state: state }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_nanosecond(i128::from(self.clock.unix_nanos())).unwrap()
    }

    /// Keeps a policy and gives it to the dataset.
    fn apply(
        &self,
        kind: PolicyKind,
        cron: Option<&str>,
        retention: Option<Retention>,
        quota_bytes: Option<u64>,
    ) {
        let schedule = cron.map(|cron| CronSchedule::parse(cron, "UTC").unwrap());
        let name = kind.name().to_owned();
        self.engine.create_policy(NewPolicy { name, kind, schedule, retention, quota_bytes }).unwrap();
        self.engine.apply_policy(kind.name(), "shop").unwrap();
    }

    fn take_snapshot(&self, number: u64) -> Snapshot {
        let snapshot = Snapshot { taken: self.now(), ..self.record(number) };
        self.volumes.snapshot(&self.timeflow.volume, &snapshot.name).unwrap();
        self.engine.catalog.change(|change| change.put(&snapshot)).unwrap();
        self.engine.snapshot_was_taken(self.dataset.id);
        snapshot
    }

    fn record(&self, number: u64) -> Snapshot {
        let id = self.engine.catalog.change(|change| change.next_id()).unwrap();
        Snapshot {
            id,
            dataset: self.dataset.id,
            timeflow: self.timeflow.id,
            name: format!("s{number}"),
            taken: self.now(),
            state: SnapshotState::Ready,
            metadata: serde_json::Value::Null,
            unprovisionable: None,
            bookmarks: if number % 50 == 7 { vec![format!("b{number}")] } else { Vec::new() },
            verification: None,
            file_check: None,
        }
    }

    fn jobs(&self, kind: JobKind) -> Vec<Job> {
        self.engine.catalog.select(|job: &Job| job.kind == kind).unwrap()
    }

    fn skipped(&self) -> Vec<String> {
        let found = self.engine.catalog.select(|event: &Event| event.kind == "POLICY_SKIPPED").unwrap();
        found.into_iter().map(|event| event.message).collect()
    }

    fn tick_after(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        self.engine.run_policies().unwrap();
    }

    fn binding(&self) -> PolicyBinding {
        self.engine.catalog.list::<PolicyBinding>().unwrap().pop().unwrap()
    }

    fn set_state(&self, state: DatasetState) {
        self.engine.set_state(self.dataset.id, state).unwrap();
    }
}

fn records(engine: &Engine) -> (Dataset, Timeflow) {
    let made = engine.catalog.change(|change| {
        let (dataset, timeflow) = (change.next_id()?, change.next_id()?);
        let timeflow: Timeflow = serde_json::from_value(serde_json::json!({
            "id": timeflow, "dataset": dataset, "volume": "shop.1", "state": TimeflowState::Current,
            "created": engine.now(), "from_snapshot": null, "from": null,
        }))
        .unwrap();
        let dataset: Dataset = serde_json::from_value(serde_json::json!({
            "id": dataset, "name": "shop", "group": "default", "role": "dsource", "adapter": "postgres",
            "config": null, "state": "active", "created": engine.now(), "port": 1, "timeflow": timeflow.id,
        }))
        .unwrap();
        change.put(&timeflow)?;
        change.put(&dataset)?;
        Ok((dataset, timeflow))
    });
    made.unwrap()
}

#[test]
fn missed_runs_are_one_and_a_busy_dataset_is_waited_for() {
    // Nothing runs the jobs: each keeps the dataset busy.
    let bench = Bench::at("2026-11-20T12:00:00Z");
    bench.apply(PolicyKind::SnapSync, Some("0 2 * * *"), None, None);
    bench.engine.run_policies().unwrap();
    assert!(bench.jobs(JobKind::DbSnapshot).is_empty(), "what was due before it was applied is nobody's");
    bench.tick_after(30 * 86_400);
    assert_eq!(bench.jobs(JobKind::DbSnapshot).len(), 1);
    bench.tick_after(1);
    assert_eq!((bench.jobs(JobKind::DbSnapshot).len(), bench.skipped().len()), (1, 0));
    let before = bench.binding();
    assert_eq!(before.last_job, Some(bench.jobs(JobKind::DbSnapshot)[0].id));

    // Due again, and the job is still there.
    bench.tick_after(86_400);
    bench.tick_after(299);
    assert_eq!((bench.skipped().len(), bench.binding()), (0, before.clone()));
    bench.tick_after(2);
    assert_eq!(bench.skipped().len(), 1);
    assert!(bench.skipped()[0].contains("policy snap_sync of shop was skipped"), "{:?}", bench.skipped());
    assert!(bench.skipped()[0].contains("is at work on it"), "{:?}", bench.skipped());
    assert_eq!(bench.binding().last_job, before.last_job);
    // Not queued: the next time is the next day's.
    bench.tick_after(3600);
    assert_eq!((bench.skipped().len(), bench.jobs(JobKind::DbSnapshot).len()), (1, 1));
}

#[test]
fn the_next_run_takes_the_place_of_one_that_waits() {
    let bench = Bench::at("2026-11-20T12:00:00Z");
    bench.apply(PolicyKind::SnapSync, Some("* * * * *"), None, None);
    bench.tick_after(61);
    bench.tick_after(60);
    assert_eq!((bench.jobs(JobKind::DbSnapshot).len(), bench.skipped().len()), (1, 0));
    bench.tick_after(60);
    assert_eq!((bench.jobs(JobKind::DbSnapshot).len(), bench.skipped().len()), (1, 1));
}

#[test]
fn a_dataset_that_is_not_active_is_skipped_at_once() {
    let bench = Bench::at("2026-11-20T12:00:00Z");
    bench.apply(PolicyKind::SnapSync, Some("@hourly"), None, None);
    for (state, words) in [
        (DatasetState::Stopped, "shop is stopped"),
        (DatasetState::Disabled, "shop is disabled"),
        (DatasetState::Detached, "shop is detached"),
    ] {
        bench.set_state(state);
        bench.tick_after(3600);
        let skipped = bench.skipped();
        assert!(skipped.last().unwrap().contains(words), "{skipped:?}");
    }
    // What is being made is left alone, and nothing is missed by that.
    bench.set_state(DatasetState::Creating);
    bench.tick_after(3600);
    assert_eq!((bench.skipped().len(), bench.jobs(JobKind::DbSnapshot).len()), (3, 0));
    bench.set_state(DatasetState::Active);
    bench.tick_after(1);
    assert_eq!(bench.jobs(JobKind::DbSnapshot).len(), 1);
}

#[test]
fn a_quota_is_set_and_lifted() {
    let bench = Bench::at("2026-11-20T12:00:00Z");
    bench.apply(PolicyKind::Quota, None, None, Some(7));
    assert_eq!(bench.volumes.quotas.lock().get("shop.1"), Some(&7));
    bench.engine.limit_volume(&Timeflow { volume: "shop.2".into(), ..bench.timeflow.clone() }).unwrap();
    assert_eq!(bench.volumes.quotas.lock().get("shop.2"), Some(&7));
    let larger = NewPolicy {
        name: "quota".into(),
        kind: PolicyKind::Quota,
        schedule: None,
        retention: None,
        quota_bytes: Some(9),
    };
    bench.engine.update_policy(larger.clone()).unwrap();
    assert_eq!(bench.volumes.quotas.lock().get("shop.1"), Some(&9));
    let other = NewPolicy { kind: PolicyKind::Retention, quota_bytes: None, ..larger };
    assert!(bench.engine.update_policy(other).is_err());
    bench.engine.unapply_policy("quota", "shop").unwrap();
    assert_eq!(bench.volumes.quotas.lock().get("shop.1"), None);
}

#[test]
fn a_new_schedule_makes_up_for_nothing() {
    let bench = Bench::at("2026-11-20T12:00:00Z");
    bench.apply(PolicyKind::SnapSync, Some("0 2 * * *"), None, None);
    // Another hour, which has passed today already.
    let morning = NewPolicy {
        name: "snap_sync".into(),
        kind: PolicyKind::SnapSync,
        schedule: Some(CronSchedule::parse("0 9 * * *", "UTC").unwrap()),
        retention: None,
        quota_bytes: None,
    };
    let next = bench.engine.update_policy(morning.clone()).unwrap().bound[0].next;
    assert_eq!(next, Some("2026-11-21T09:00:00Z".parse().unwrap()));
    bench.tick_after(60);
    assert!(bench.jobs(JobKind::DbSnapshot).is_empty());
    bench.tick_after(21 * 3600);
    assert_eq!(bench.jobs(JobKind::DbSnapshot).len(), 1);
    // The same again loses nothing of what is known.
    let before = bench.binding();
    bench.engine.update_policy(morning).unwrap();
    assert_eq!(bench.binding(), before);
}

/// Names of the snapshots that a person with a calendar would expect, by the rules for days, months and years.
fn expected(
    taken: &[Snapshot],
    policy: &RetentionPolicy,
    zone: &TimeZone,
    now: Timestamp,
) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = BTreeSet::new();
    let date = |snapshot: &Snapshot| zone.to_datetime(snapshot.taken).date();
    for (count, key) in [(policy.daily, "%F"), (policy.monthly, "%Y-%m"), (policy.yearly, "%Y")] {
        let mut lasts: BTreeMap<String, &Snapshot> = BTreeMap::new();
        for snapshot in taken {
            lasts.insert(date(snapshot).strftime(key).to_string(), snapshot);
        }
        names.extend(lasts.values().rev().take(count as usize).map(|snapshot| snapshot.name.clone()));
    }
    let all_since = now.to_zoned(zone.clone()).checked_sub(i64::from(policy.keep_all_days).days()).unwrap();
    for snapshot in taken {
        let young = policy.keep_all_days > 0 && snapshot.taken >= all_since.timestamp();
        if young || !snapshot.bookmarks.is_empty() {
            names.insert(snapshot.name.clone());
        }
    }
    names.extend(taken.last().map(|snapshot| snapshot.name.clone()));
    names
}

#[test]
fn retention_over_years_leaves_what_a_calendar_says() {
    for zone_name in ["America/St_Johns", "Pacific/Apia", "UTC"] {
        let seed = SystemRandom.next_u64();
        println!("{zone_name}: seed {seed}");
        let dice = SeededRandom::new(seed);
        let bench = Bench::at("2024-02-27T12:00:00Z");
        let count = |max: u64| u32::try_from(dice.next_u64() % max).unwrap();
        let policy = RetentionPolicy {
            keep_all_days: count(4),
            daily: 1 + count(5),
            monthly: count(7),
            yearly: count(3),
            ..RetentionPolicy::default()
        };
        let zone = TimeZone::get(zone_name).unwrap();
        let threads = bench.engine.start_jobs().unwrap();
        let retention = Retention { policy, time_zone: zone_name.into() };
        bench.apply(PolicyKind::Retention, None, Some(retention), None);
        let mut taken = Vec::new();
        for number in 0..250 {
            // Between a quarter of an hour and nine days: three years in all.
            bench.clock.advance(Duration::from_secs(900 + dice.next_u64() % 777_600));
            taken.push(bench.take_snapshot(number));
            bench.engine.run_policies().unwrap();
            for job in bench.jobs(JobKind::DbRetention).iter().filter(|job| !job.status.is_final()) {
                bench.engine.wait_for_job(job.id, Duration::from_secs(60)).unwrap();
            }
            let left = bench.engine.snapshots_of(bench.dataset.id).unwrap();
            let names: BTreeSet<String> = left.iter().map(|snapshot| snapshot.name.clone()).collect();
            assert_eq!(bench.volumes.snapshots.lock()["shop.1"], names);
            // What was removed once was not needed: a calendar over all of them asks for none of it.
            let wanted = expected(&taken, &policy, &zone, bench.now());
            assert_eq!(names, wanted, "{zone_name}, seed {seed}, after {number} with {policy:?}");
        }
        for job in bench.jobs(JobKind::DbRetention) {
            assert_eq!(job.status, JobStatus::Completed);
            assert_ne!(job.result["snapshots_removed"], "0", "a job that had nothing to do");
        }
        bench.engine.end_jobs();
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
