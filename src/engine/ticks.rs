//! Policies as time passes: what is due becomes a job, and what cannot run now is skipped and said.
//!
//! A run whose dataset is busy waits a little, at most until the next one; it is never queued behind more of its kind.
//! Runs missed while the daemon was down are one.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Engine;
use super::jobs::JobHandle;
use crate::adapter::Target;
use crate::base::{Error, ErrorKind, Result};
use crate::catalog::{BackupSet, Dataset, DatasetState, Policy, PolicyBinding, PolicyKind, Severity};
use crate::schedule::due;

/// How long a run waits for a busy dataset: servers start again after a daemon's start, and two policies of a dataset may
/// be due at one time.
const BUSY_WAIT_MAX: Duration = Duration::from_secs(300);
/// How often retention looks at a dataset of which no snapshot was taken.
const RETENTION_INTERVAL: SignedDuration = SignedDuration::from_hours(1);

/// What is remembered between two looks; nothing of it outlives the process.
#[derive(Default)]
pub(super) struct Ticks {
    /// Runs that found their dataset busy, by binding.
    waiting: HashMap<u64, Waiting>,
    /// Datasets of which a snapshot was taken since retention looked at them.
    snapshotted: BTreeSet<u64>,
}

struct Waiting {
    until: Duration,
    /// When the next run takes its place.
    next: Option<Timestamp>,
}

impl Engine {
    /// Tells retention that there is a new snapshot.
    pub(super) fn snapshot_was_taken(&self, dataset: u64) {
        self.ticks.lock().snapshotted.insert(dataset);
    }

    /// Whether there is a new one since this was asked last.
    pub(super) fn was_snapshotted(&self, dataset: u64) -> bool {
        self.ticks.lock().snapshotted.remove(&dataset)
    }

    /// Looks at every policy that a dataset has, once, and starts what is due.
    pub fn run_policies(self: &Arc<Self>) -> Result<()> {
        self.look_after_backups()?;
        for binding in self.catalog.list::<PolicyBinding>()? {
            let dataset = self.catalog.get::<Dataset>(binding.dataset)?;
            let policy = self.catalog.get::<Policy>(binding.policy)?;
            if let (Some(policy), Some(set)) = (&policy, self.catalog.get::<BackupSet>(binding.dataset)?) {
                if let Err(e) = self.run_set_policy(policy, &binding, &set) {
                    tracing::warn!("policy {} of {}: {e}", policy.name, set.name);
                }
                continue;
            }
            let (Some(dataset), Some(policy)) = (dataset, policy) else { continue };
            let run = match policy.kind {
                PolicyKind::SnapSync | PolicyKind::Snapshot | PolicyKind::Refresh => {
                    self.run_scheduled(&policy, &binding, &dataset)
                }
                PolicyKind::Retention => self.run_retention(&binding, &dataset),
                PolicyKind::Quota
                | PolicyKind::FullBackup
                | PolicyKind::DifferentialBackup
                | PolicyKind::LogBackup => Ok(()),
            };
            if let Err(e) = run {
                tracing::warn!("policy {} of {}: {e}", policy.name, dataset.name);
            }
        }
        Ok(())
    }

    fn run_scheduled(
        self: &Arc<Self>,
        policy: &Policy,
        binding: &PolicyBinding,
        dataset: &Dataset,
    ) -> Result<()> {
        let Some(schedule) = &policy.schedule else { return Ok(()) };
        let now = self.now();
        let found = due(schedule, binding.looked(), now);
        if found.since.is_none() || matches!(dataset.state, DatasetState::Creating | DatasetState::Deleting) {
            return Ok(());
        }
        match self.start_run(policy, dataset) {
            Ok(handle) => self.ran(binding, now, Some(handle.id)),
            Err(e) if e.kind() == ErrorKind::InUse && self.waits(binding.id, found.next, now) => Ok(()),
            Err(e) => {
                let message = format!("policy {} of {} was skipped: {e}", policy.name, dataset.name);
                self.event(Severity::Warning, "POLICY_SKIPPED", Some(dataset.id), None, &message);
                self.ran(binding, now, None)
            }
        }
    }

    fn start_run(self: &Arc<Self>, policy: &Policy, dataset: &Dataset) -> Result<JobHandle> {
        let why = match dataset.state {
            DatasetState::Active => {
                return match policy.kind {
                    PolicyKind::Refresh => self.refresh(&dataset.name, None, &Target::Snapshot),
                    _ => self.snapshot(&dataset.name),
                };
            }
            // Its snapshots would all hold the same, and a refresh would start it.
            DatasetState::Stopped => "is stopped",
            DatasetState::Disabled => "is disabled",
            DatasetState::Detached => "is detached from its source",
            DatasetState::Creating | DatasetState::Deleting => "is not whole",
        };
        Err(Error::new(ErrorKind::Precondition, format!("{} {why}", dataset.name)))
    }

    /// Whether a run that found its dataset busy is tried again at the next look.
    pub(super) fn waits(&self, binding: u64, next: Option<Timestamp>, now: Timestamp) -> bool {
        let time = self.clock.monotonic();
        let mut ticks = self.ticks.lock();
        let waiting = ticks.waiting.entry(binding).or_insert(Waiting { until: time + BUSY_WAIT_MAX, next });
        time < waiting.until && waiting.next.is_none_or(|next| now < next)
    }

    pub(super) fn ran(&self, binding: &PolicyBinding, now: Timestamp, job: Option<u64>) -> Result<()> {
        self.ticks.lock().waiting.remove(&binding.id);
        let written = self.catalog.change(|change| {
            change.update::<PolicyBinding>(binding.id, |binding| {
                binding.last_run = Some(now);
                binding.last_job = job.or(binding.last_job);
            })
        });
        match written {
            // Taken from the dataset meanwhile.
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Starts a job when there is something that is no longer kept.
    fn run_retention(self: &Arc<Self>, binding: &PolicyBinding, dataset: &Dataset) -> Result<()> {
        let whole =
            matches!(dataset.state, DatasetState::Active | DatasetState::Stopped | DatasetState::Detached);
        let now = self.now();
        let looked = |last: Timestamp| last <= now && now.duration_since(last) < RETENTION_INTERVAL;
        let rests = binding.last_run.is_some_and(looked);
        // Before it is looked at, so that a snapshot taken meanwhile counts.
        let taken = whole && self.ticks.lock().snapshotted.remove(&dataset.id);
        if !whole || (rests && !taken) {
            return Ok(());
        }
        if !self.has_expired(dataset)? {
            return self.ran(binding, now, None);
        }
        match self.submit_retention(dataset) {
            Ok(handle) => self.ran(binding, now, Some(handle.id)),
            Err(e) => {
                self.ticks.lock().snapshotted.insert(dataset.id);
                if e.kind() == ErrorKind::InUse { Ok(()) } else { Err(e) }
            }
        }
    }
}
