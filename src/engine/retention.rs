//! What retention keeps of a dataset and why, and the job that removes the rest.
//!
//! The job, `why` and the dry run ask the same `judge`. A timeflow that a refresh or rewind left behind has no newest
//! snapshot to keep: it goes when its snapshots are gone, but for the last one, which an undo goes back to.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Engine;
use super::jobs::{JobHandle, JobTask, NewJob};
use super::locks::Hold;
use crate::adapter::Task;
use crate::base::{ErrorKind, Result};
use crate::catalog::{Dataset, JobKind, Snapshot, Timeflow, TimeflowState};
use crate::schedule::{
    Candidate, Decision, Pin, Reason, RetentionPolicy, evaluate, logs_kept_since, point_in_time_base,
};

/// What becomes of a snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotVerdict {
    pub snapshot: Snapshot,
    /// Why it is kept; empty when nothing keeps it.
    pub reasons: Vec<String>,
}

impl SnapshotVerdict {
    pub fn keeps(&self) -> bool {
        !self.reasons.is_empty()
    }
}

/// What is judged: a dataset's timeflows with their snapshots, and what is pinned to each of these.
pub(super) struct Stock {
    timeflows: Vec<Timeflow>,
    snapshots: Vec<Snapshot>,
    pins: HashMap<u64, Vec<Pin>>,
}

impl Stock {
    /// Decides on every snapshot, oldest first within each timeflow.
    pub(super) fn judge(
        &self,
        policy: &RetentionPolicy,
        zone: &TimeZone,
        now: Timestamp,
    ) -> Vec<SnapshotVerdict> {
        let mut verdicts = Vec::new();
        let periods = self.periods(policy, zone, now);
        for timeflow in &self.timeflows {
            let of_it: Vec<&Snapshot> =
                self.snapshots.iter().filter(|snapshot| snapshot.timeflow == timeflow.id).collect();
            let mut candidates: Vec<Candidate<u64>> =
                of_it.iter().map(|snapshot| self.candidate(snapshot)).collect();
            pin_base(&mut candidates, &of_it, timeflow, policy, zone, now);
            for (verdict, snapshot) in evaluate(&candidates, policy, zone, now).into_iter().zip(of_it) {
                let mut reasons = match verdict.decision {
                    Decision::Keep(reasons) => reasons,
                    Decision::Remove => Vec::new(),
                };
                if timeflow.state == TimeflowState::Retired {
                    reasons.retain(|reason| match reason {
                        Reason::Newest => false,
                        Reason::LastOf(_) => periods.contains(reason),
                        _ => true,
                    });
                }
                let reasons = reasons.iter().map(Reason::to_string).collect();
                verdicts.push(SnapshotVerdict { snapshot: snapshot.clone(), reasons });
            }
        }
        verdicts
    }

    fn candidate(&self, snapshot: &Snapshot) -> Candidate<u64> {
        let pins = self.pins.get(&snapshot.id).cloned().unwrap_or_default();
        Candidate { id: snapshot.id, taken: snapshot.taken, pins }
    }

    /// The periods that are kept of the dataset as a whole. A timeflow of the past takes no more snapshots: by its own
    /// newest periods alone it would keep their last ones for ever.
    fn periods(&self, policy: &RetentionPolicy, zone: &TimeZone, now: Timestamp) -> Vec<Reason> {
        let all: Vec<Candidate<u64>> =
            self.snapshots.iter().map(|snapshot| self.candidate(snapshot)).collect();
        let verdicts = evaluate(&all, policy, zone, now);
        let reasons = verdicts.into_iter().filter_map(|verdict| match verdict.decision {
            Decision::Keep(reasons) => Some(reasons),
            Decision::Remove => None,
        });
        reasons.flatten().filter(|reason| matches!(reason, Reason::LastOf(_))).collect()
    }

    /// Timeflows of the past that hold nothing which is kept.
    pub(super) fn spent(&self, verdicts: &[SnapshotVerdict]) -> Vec<&Timeflow> {
        let mut retired: Vec<&Timeflow> =
            self.timeflows.iter().filter(|timeflow| timeflow.state == TimeflowState::Retired).collect();
        retired.sort_by_key(|timeflow| (timeflow.retired, timeflow.id));
        // An undo goes back to it.
        retired.pop();
        let keeps = |timeflow: &Timeflow| {
            verdicts.iter().any(|verdict| verdict.snapshot.timeflow == timeflow.id && verdict.keeps())
        };
        // One that still holds something on a source goes when that has been let go.
        retired.into_iter().filter(|timeflow| timeflow.held.is_none() && !keeps(timeflow)).collect()
    }

    /// What is pinned to a snapshot, in words.
    pub(super) fn pins_of(&self, snapshot: u64) -> Vec<String> {
        self.pins.get(&snapshot).into_iter().flatten().map(Pin::to_string).collect()
    }
}

/// Keeps what the logs of a timeflow are rolled forward from, as long as they reach into what is kept of them.
fn pin_base(
    candidates: &mut [Candidate<u64>],
    snapshots: &[&Snapshot],
    timeflow: &Timeflow,
    policy: &RetentionPolicy,
    zone: &TimeZone,
    now: Timestamp,
) {
    let since = logs_kept_since(policy, zone, now);
    let ends_before = timeflow.retired.is_some_and(|retired| retired <= since);
    if policy.log_days == 0 || timeflow.log_volume.is_none() || ends_before {
        return;
    }
    // As those who remove logs see it.
    let bases: Vec<Candidate<u64>> = candidates
        .iter()
        .zip(snapshots)
        .filter(|(_, snapshot)| snapshot.unprovisionable.is_none())
        .map(|(candidate, _)| candidate.clone())
        .collect();
    let Some(base) = point_in_time_base(&bases, since).copied() else { return };
    for candidate in candidates.iter_mut().filter(|candidate| candidate.id == base) {
        let since = since.to_zoned(zone.clone());
        candidate
            .pins
            .push(Pin::PointInTimeBase(format!("since {}", since.strftime("%Y-%m-%dT%H:%M:%S%:z"))));
    }
}

impl Engine {
    /// What there is of a dataset to judge.
    pub(super) fn stock(&self, dataset: &Dataset) -> Result<Stock> {
        let all: Vec<Timeflow> = self.catalog.list()?;
        let snapshots = self.snapshots_of(dataset.id)?;
        let mut pins: HashMap<u64, Vec<Pin>> = HashMap::new();
        for snapshot in &snapshots {
            let bookmarks = snapshot.bookmarks.iter().cloned().map(Pin::Bookmark);
            pins.entry(snapshot.id).or_default().extend(bookmarks);
        }
        for user in &all {
            let Some(from) = user.from_snapshot else { continue };
            let name = match self.catalog.get::<Dataset>(user.dataset)? {
                Some(other) if user.state == TimeflowState::Current && other.id != dataset.id => other.name,
                Some(other) => format!("{} (timeflow {})", other.name, user.id),
                None => user.volume.clone(),
            };
            pins.entry(from).or_default().push(Pin::LiveVdb(name));
        }
        let timeflows: Vec<Timeflow> = all
            .into_iter()
            .filter(|timeflow| timeflow.dataset == dataset.id)
            .filter(|timeflow| matches!(timeflow.state, TimeflowState::Current | TimeflowState::Retired))
            .collect();
        for timeflow in &timeflows {
            for (name, holds) in self.volumes.holds(&timeflow.volume)? {
                let held = snapshots
                    .iter()
                    .find(|snapshot| snapshot.timeflow == timeflow.id && snapshot.name == name);
                if let Some(snapshot) = held {
                    pins.entry(snapshot.id).or_default().extend(holds.into_iter().map(Pin::Hold));
                }
            }
        }
        Ok(Stock { timeflows, snapshots, pins })
    }

    /// Whether retention would remove anything of a dataset now.
    pub(super) fn has_expired(&self, dataset: &Dataset) -> Result<bool> {
        let Some((policy, zone)) = self.retention_of(dataset)? else { return Ok(false) };
        let stock = self.stock(dataset)?;
        let verdicts = stock.judge(&policy, &zone, self.now());
        Ok(verdicts.iter().any(|verdict| !verdict.keeps()) || !stock.spent(&verdicts).is_empty())
    }

    pub(super) fn submit_retention(self: &Arc<Self>, dataset: &Dataset) -> Result<JobHandle> {
        let (engine, id) = (Arc::clone(self), dataset.id);
        let new = NewJob {
            kind: JobKind::DbRetention,
            target: &dataset.name,
            dataset: Some(id),
            holds: vec![(id, Hold::Operate)],
        };
        self.submit(new, move |task| engine.carry_out_retention(&engine.dataset_by_id(id)?, task))
    }

    /// Removes what is no longer kept, judged anew. Each removal is whole by itself: a cancelled job leaves the rest for
    /// the next one.
    fn carry_out_retention(&self, dataset: &Dataset, task: &mut JobTask) -> Result<()> {
        let Some((policy, zone)) = self.retention_of(dataset)? else { return Ok(()) };
        let stock = self.stock(dataset)?;
        let verdicts = stock.judge(&policy, &zone, self.now());
        let gone: Vec<&SnapshotVerdict> = verdicts.iter().filter(|verdict| !verdict.keeps()).collect();
        task.step("remove snapshots")?;
        let mut removed = 0_u64;
        for verdict in gone {
            task.check()?;
            let name = format!("{}@{}", dataset.name, verdict.snapshot.name);
            let timeflow = self.timeflow(verdict.snapshot.timeflow)?;
            match self.destroy_unused(dataset, &timeflow, &verdict.snapshot) {
                Ok(()) => {
                    removed += 1;
                    task.log(&format!("{name} is removed: nothing keeps it"));
                }
                // Something was made of it since it was judged, or its files are open.
                Err(e) if e.kind() == ErrorKind::InUse => task.warn(&format!("{name} stays: {e}")),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        task.result("snapshots_removed", &removed.to_string());
        for timeflow in stock.spent(&verdicts) {
            task.check()?;
            let left = self.catalog.select(|snapshot: &Snapshot| snapshot.timeflow == timeflow.id)?;
            if !left.is_empty() {
                continue;
            }
            task.log(&format!("timeflow {} is removed: it has no snapshot", timeflow.id));
            if let Err(e) = self.remove_timeflow(timeflow) {
                task.warn(&format!("volume {} stays until the next start: {e}", timeflow.volume));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;
    use proptest::prelude::*;

    use super::*;
    use crate::catalog::SnapshotState;

    fn at(day: i64) -> Timestamp {
        "2026-01-01T02:00:00Z".parse::<Timestamp>().unwrap() + (24 * day).hours()
    }

    fn timeflow(id: u64, state: TimeflowState, retired: Option<Timestamp>) -> Timeflow {
        serde_json::from_value(serde_json::json!({
            "id": id,
            "dataset": 1,
            "volume": format!("qa.{id}"),
            "state": state,
            "created": at(0),
            "from_snapshot": null,
            "from": null,
            "retired": retired,
            "log_volume": format!("qa.{id}.logs"),
        }))
        .unwrap()
    }

    fn snapshot(id: u64, timeflow: u64, taken: Timestamp) -> Snapshot {
        Snapshot {
            id,
            dataset: 1,
            timeflow,
            name: format!("s{id}"),
            taken,
            state: SnapshotState::Ready,
            metadata: serde_json::Value::Null,
            unprovisionable: None,
            bookmarks: Vec::new(),
            verification: None,
            file_check: None,
        }
    }

    fn policy(json: &str) -> RetentionPolicy {
        serde_json::from_str(json).unwrap()
    }

    fn kept(stock: &Stock, policy: &RetentionPolicy, now: Timestamp) -> Vec<u64> {
        let verdicts = stock.judge(policy, &TimeZone::UTC, now);
        verdicts.iter().filter(|verdict| verdict.keeps()).map(|verdict| verdict.snapshot.id).collect()
    }

    #[test]
    fn timeflows_are_judged_by_themselves_and_old_ones_end() {
        let stock = Stock {
            timeflows: vec![
                timeflow(1, TimeflowState::Retired, Some(at(10))),
                timeflow(2, TimeflowState::Retired, Some(at(20))),
                timeflow(3, TimeflowState::Current, None),
            ],
            snapshots: (0..30).map(|day| snapshot(100 + day, 1 + day / 10, at(day.cast_signed()))).collect(),
            pins: HashMap::from([(115, vec![Pin::Bookmark("kept".into())])]),
        };
        let policy = policy(r#"{"keep_all_days": 3}"#);
        assert_eq!(kept(&stock, &policy, at(29)), [115, 126, 127, 128, 129]);
        // Of the current timeflow the newest stays, of earlier ones nothing for being that.
        assert_eq!(kept(&stock, &policy, at(100)), [115, 129]);
        let verdicts = stock.judge(&policy, &TimeZone::UTC, at(100));
        // The last one is kept for an undo, whatever it holds.
        assert_eq!(stock.spent(&verdicts).iter().map(|timeflow| timeflow.id).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn periods_of_the_past_end_when_newer_ones_come() {
        let mut stock = Stock {
            timeflows: vec![
                timeflow(1, TimeflowState::Retired, Some(at(3))),
                timeflow(2, TimeflowState::Current, None),
            ],
            snapshots: (0..3).map(|day| snapshot(100 + day, 1, at(day.cast_signed()))).collect(),
            pins: HashMap::new(),
        };
        let policy = policy(r#"{"daily": 2}"#);
        assert_eq!(kept(&stock, &policy, at(9)), [101, 102]);
        stock.snapshots.push(snapshot(200, 2, at(5)));
        assert_eq!(kept(&stock, &policy, at(9)), [102, 200]);
        stock.snapshots.push(snapshot(201, 2, at(6)));
        assert_eq!(kept(&stock, &policy, at(9)), [200, 201]);
    }

    #[test]
    fn logs_keep_what_they_are_rolled_forward_from() {
        let mut stock = Stock {
            timeflows: vec![timeflow(1, TimeflowState::Current, None)],
            snapshots: (0..10).map(|day| snapshot(100 + day, 1, at(day.cast_signed()))).collect(),
            pins: HashMap::new(),
        };
        let with_logs = policy(r#"{"daily": 1, "log_days": 4}"#);
        // At 02:00 on day 9 the logs of four days begin with the snapshot of day 5.
        assert_eq!(kept(&stock, &with_logs, at(9)), [105, 109]);
        assert_eq!(kept(&stock, &policy(r#"{"daily": 1}"#), at(9)), [109]);
        stock.timeflows[0] = timeflow(1, TimeflowState::Retired, Some(at(7)));
        assert_eq!(kept(&stock, &with_logs, at(9)), [105, 109]);
        // Its logs end before those that are kept begin.
        assert_eq!(kept(&stock, &with_logs, at(11)), [109]);
    }

    proptest! {
        /// Whatever is done by verdicts, doing it again removes nothing, and what is pinned stays.
        #[test]
        fn what_was_kept_is_kept_again(
            hours in proptest::collection::vec((0_u64..30_000, 1_u64..4), 1..60),
            pinned in 0_u64..60,
            counts in (0_u32..3, 0_u32..5, 0_u32..4, 0_u32..6, 0_u32..3, 0_u32..9),
            later in 0_i64..1000,
        ) {
            let snapshots: Vec<Snapshot> = (1..).zip(&hours)
                .map(|(id, (hour, timeflow))| snapshot(id, *timeflow, at(0) + hour.cast_signed().hours()))
                .collect();
            let mut stock = Stock {
                timeflows: vec![
                    timeflow(1, TimeflowState::Retired, Some(at(400))),
                    timeflow(2, TimeflowState::Retired, Some(at(900))),
                    timeflow(3, TimeflowState::Current, None),
                ],
                snapshots,
                pins: HashMap::from([(pinned, vec![Pin::LiveVdb("qa".into())])]),
            };
            let (keep_all_days, daily, weekly, monthly, yearly, log_days) = counts;
            let policy = RetentionPolicy {
                keep_all_days, daily, weekly, monthly, yearly, log_days, first_weekday: Default::default(),
            };
            let now = at(1250 + later);
            let first = kept(&stock, &policy, now);
            if stock.snapshots.iter().any(|snapshot| snapshot.id == pinned) {
                prop_assert!(first.contains(&pinned));
            }
            let current = stock.snapshots.iter().filter(|snapshot| snapshot.timeflow == 3);
            if let Some(newest) = current.max_by_key(|snapshot| (snapshot.taken, snapshot.id)) {
                prop_assert!(first.contains(&newest.id));
            }
            stock.snapshots.retain(|snapshot| first.contains(&snapshot.id));
            prop_assert_eq!(kept(&stock, &policy, now), first);
        }
    }
}
