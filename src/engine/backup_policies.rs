//! Policies of backup sets: a schedule for each kind of backup, and how long restore points are kept.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::Engine;
use super::backup_runs::BackupRequest;
use super::jobs::{JobHandle, NewJob};
use super::locks::Hold;
use super::policies::{BoundPolicy, zone};
use crate::adapter::Task;
use crate::adapter::backups::PointVerdict;
use crate::base::{Error, ErrorKind, Result};
use crate::catalog::{
    BackupSet, BackupSetState, JobKind, PointKind, Policy, PolicyBinding, PolicyKind, RestorePoint, Severity,
};
use crate::schedule::due;

/// How often retention looks at a set of which no backup was made.
const RETENTION_INTERVAL: SignedDuration = SignedDuration::from_hours(1);

/// The kind of backup that a policy makes.
fn makes(kind: PolicyKind) -> Option<PointKind> {
    match kind {
        PolicyKind::FullBackup => Some(PointKind::Full),
        PolicyKind::DifferentialBackup => Some(PointKind::Differential),
        PolicyKind::LogBackup => Some(PointKind::Log),
        _ => None,
    }
}

fn check_fits_set(policy: &Policy) -> Result<()> {
    if makes(policy.kind).is_some() || policy.kind == PolicyKind::Retention {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "policy {} is of kind {}: a backup set has full_backup, differential_backup, log_backup and retention policies",
        policy.name,
        policy.kind.name()
    )))
}

impl Engine {
    pub(super) fn check_set_policies(&self, names: &[String]) -> Result<()> {
        names.iter().try_for_each(|name| check_fits_set(&self.policy_named(name)?))
    }

    /// Gives a set a policy; no error when it has it already. It has one of each kind at most.
    pub fn apply_set_policy(&self, policy: &str, set: &str) -> Result<()> {
        self.bind_set_policy(&self.backup_set(set)?, policy)
    }

    pub(super) fn bind_set_policy(&self, set: &BackupSet, name: &str) -> Result<()> {
        let policy = self.policy_named(name)?;
        check_fits_set(&policy)?;
        let bound = self.bindings_of(set.id)?;
        if let Some((other, _)) = bound.iter().find(|(other, _)| other.kind == policy.kind) {
            if other.id == policy.id {
                return Ok(());
            }
            return Err(Error::new(
                ErrorKind::Exists,
                format!(
                    "{0} has the {1} policy {2} already: `stillpoint policy remove {2} {0}` first",
                    set.name,
                    policy.kind.name(),
                    other.name
                ),
            ));
        }
        let since = self.now();
        self.catalog.change(|change| {
            if change.get::<BackupSet>(set.id)?.is_none() || change.get::<Policy>(policy.id)?.is_none() {
                return Err(Error::not_found(format!("{} or {name} has just been deleted", set.name)));
            }
            let id = change.next_id()?;
            let (policy, dataset) = (policy.id, set.id);
            change.put(&PolicyBinding { id, policy, dataset, since, last_run: None, last_job: None })
        })
    }

    /// Takes a policy from a set.
    pub fn unapply_set_policy(&self, policy: &str, set: &str) -> Result<()> {
        let (policy, set) = (self.policy_named(policy)?, self.backup_set(set)?);
        let found = self.bindings_of(set.id)?.into_iter().find(|(found, _)| found.id == policy.id);
        let (_, binding) = found
            .ok_or_else(|| Error::not_found(format!("{} does not have policy {}", set.name, policy.name)))?;
        self.catalog.change(|change| change.remove::<PolicyBinding>(binding.id))
    }

    /// The policies of a set.
    pub fn set_policies(&self, set: &str) -> Result<Vec<BoundPolicy>> {
        let set = self.backup_set(set)?;
        let bindings = self.bindings_of(set.id)?;
        bindings.into_iter().map(|(policy, binding)| self.bound(&policy, binding)).collect()
    }

    /// Starts what is due of a set's policy.
    pub(super) fn run_set_policy(
        self: &Arc<Self>,
        policy: &Policy,
        binding: &PolicyBinding,
        set: &BackupSet,
    ) -> Result<()> {
        if set.state != BackupSetState::Active {
            return Ok(());
        }
        let Some(kind) = makes(policy.kind) else { return self.run_set_retention(binding, set) };
        let Some(schedule) = &policy.schedule else { return Ok(()) };
        let now = self.now();
        let found = due(schedule, binding.looked(), now);
        if found.since.is_none() {
            return Ok(());
        }
        let request = BackupRequest { kind: Some(kind), ..BackupRequest::default() };
        match self.back_up(&set.name, request) {
            Ok(handle) => self.ran(binding, now, Some(handle.id)),
            Err(e) if e.kind() == ErrorKind::InUse && self.waits(binding.id, found.next, now) => Ok(()),
            Err(e) => {
                let message = format!("policy {} of {} was skipped: {e}", policy.name, set.name);
                self.event(Severity::Warning, "POLICY_SKIPPED", Some(set.id), None, &message);
                self.ran(binding, now, None)
            }
        }
    }

    fn run_set_retention(self: &Arc<Self>, binding: &PolicyBinding, set: &BackupSet) -> Result<()> {
        let now = self.now();
        let looked = |last: Timestamp| last <= now && now.duration_since(last) < RETENTION_INTERVAL;
        let rests = binding.last_run.is_some_and(looked);
        let taken = self.was_snapshotted(set.id);
        if rests && !taken {
            return Ok(());
        }
        if self.expired_points(set)?.is_empty() {
            return self.ran(binding, now, None);
        }
        match self.submit_set_retention(set) {
            Ok(handle) => self.ran(binding, now, Some(handle.id)),
            Err(e) => {
                self.snapshot_was_taken(set.id);
                if e.kind() == ErrorKind::InUse { Ok(()) } else { Err(e) }
            }
        }
    }

    fn submit_set_retention(self: &Arc<Self>, set: &BackupSet) -> Result<JobHandle> {
        let (engine, id) = (Arc::clone(self), set.id);
        let new = NewJob {
            kind: JobKind::DbRetention,
            target: &set.name,
            dataset: Some(id),
            holds: vec![(id, Hold::Replace)],
        };
        self.submit(new, move |task| {
            let set = engine.set_by_id(id)?;
            task.step("remove what is no longer kept")?;
            // The newest first: what is left can be restored at each moment.
            let mut expired = engine.expired_points(&set)?;
            expired.sort_by_key(|(point, _)| std::cmp::Reverse(point.id));
            for (point, verdict) in expired {
                task.check()?;
                let why = verdict.reasons.join("; ");
                task.log(&format!(
                    "restore point {} ({} of {}): {why}",
                    point.id,
                    point.kind.name(),
                    point.database
                ));
                engine.remove_point(&set, &point)?;
            }
            Ok(())
        })
    }

    /// What retention removes now. What cannot be restored goes when nothing older is kept.
    fn expired_points(&self, set: &BackupSet) -> Result<Vec<(RestorePoint, PointVerdict)>> {
        let Some((verdicts, _)) = self.judge_points(set)? else { return Ok(Vec::new()) };
        let points = self.points_of(set.id)?;
        let oldest = verdicts.iter().filter(|verdict| verdict.kept).map(|verdict| verdict.id).min();
        let goes = |verdict: &PointVerdict| {
            !verdict.kept && (!verdict.broken || oldest.is_some_and(|oldest| verdict.id < oldest))
        };
        let expired = verdicts.into_iter().filter(goes);
        Ok(expired
            .filter_map(|verdict| {
                Some((points.iter().find(|point| point.id == verdict.id)?.clone(), verdict))
            })
            .collect())
    }

    /// What a set's retention policy says of its points, and its name; nothing without one.
    fn judge_points(&self, set: &BackupSet) -> Result<Option<(Vec<PointVerdict>, String)>> {
        let bound = self.bindings_of(set.id)?;
        let Some((name, retention)) =
            bound.into_iter().find_map(|(policy, _)| Some((policy.name, policy.retention?)))
        else {
            return Ok(None);
        };
        let made = self.made_of(set)?;
        let verdicts = self.backups_of(&set.adapter)?.judge(
            &made,
            &retention.policy,
            &zone(&retention.time_zone)?,
            self.now(),
        )?;
        Ok(Some((verdicts, name)))
    }

    /// Why a restore point is kept, or that the next retention removes it; and the policy that says so.
    pub fn why_point(&self, set: &str, id: u64) -> Result<(PointVerdict, Option<String>)> {
        let set = self.backup_set(set)?;
        let point = self.restore_point(&set, id)?;
        let Some((verdicts, policy)) = self.judge_points(&set)? else {
            let reasons = vec![format!("{} has no retention policy", set.name)];
            return Ok((PointVerdict { id: point.id, kept: true, reasons, broken: false }, None));
        };
        let found = verdicts.into_iter().find(|verdict| verdict.id == id);
        let verdict =
            found.ok_or_else(|| Error::not_found(format!("restore point {id} has just been removed")))?;
        Ok((verdict, Some(policy)))
    }
}
