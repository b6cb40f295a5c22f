//! Backup sets: databases of an instance that are backed up together, made, changed and removed.
//!
//! Each set has a volume; a backup is written there, cut by a snapshot and taken out again, so that each snapshot holds one
//! restore point, which nobody can change and whose room comes back with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::Engine;
use super::groups::ensure_group;
use super::jobs::{JobHandle, NewJob};
use super::locks::Hold;
use super::names::check_name;
use super::recover::Quiet;
use super::secrets::check_secret_names;
use crate::adapter::backups::{BackupHistory, BackupKind, BackupMade, BackupTarget, Backups};
use crate::adapter::{LinkPlan, Secrets, Task};
use crate::base::{Error, ErrorKind, Result};
use crate::catalog::{
    BackupSet, BackupSetState, JobKind, PointKind, PolicyBinding, RestorePoint, RestorePointState, Severity,
};

/// What is asked for with a new backup set.
#[derive(Clone, Debug)]
pub struct ProtectRequest {
    pub name: String,
    pub group: String,
    pub adapter: String,
    /// The adapter's own: instance and databases.
    pub parameters: Value,
    pub secrets: Secrets,
    /// Names of policies that it has from its beginning.
    pub policies: Vec<String>,
}

pub(super) fn kind_of(kind: PointKind) -> BackupKind {
    match kind {
        PointKind::Full => BackupKind::Full,
        PointKind::Differential => BackupKind::Differential,
        PointKind::Log => BackupKind::Log,
    }
}

pub(super) fn point_kind(kind: BackupKind) -> PointKind {
    match kind {
        BackupKind::Full => PointKind::Full,
        BackupKind::Differential => PointKind::Differential,
        BackupKind::Log => PointKind::Log,
    }
}

impl Engine {
    /// The backup set of this name.
    pub fn backup_set(&self, name: &str) -> Result<BackupSet> {
        self.find_set(name)?.ok_or_else(|| {
            Error::not_found(format!("there is no backup set {name}: see `stillpoint backup list`"))
        })
    }

    pub(super) fn find_set(&self, name: &str) -> Result<Option<BackupSet>> {
        Ok(self.catalog.select(|set: &BackupSet| set.name == name)?.pop())
    }

    pub(super) fn set_by_id(&self, id: u64) -> Result<BackupSet> {
        self.catalog.get(id)?.ok_or_else(|| Error::not_found(format!("backup set {id} is gone")))
    }

    pub(super) fn check_no_set(&self, name: &str) -> Result<()> {
        match self.find_set(name)? {
            Some(_) => Err(Error::new(ErrorKind::Exists, format!("there is a backup set {name} already"))),
            None => Ok(()),
        }
    }

    /// An adapter's part for backups, with what holds it.
    pub(super) fn backups_of(&self, kind: &str) -> Result<&dyn Backups> {
        self.adapter(kind)?.backups().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, format!("adapter {kind} makes no backups of source databases"))
        })
    }

    /// Asks an instance what backing it up so would mean; changes nothing.
    pub fn plan_protect(&self, request: &ProtectRequest) -> Result<LinkPlan> {
        check_name("backup set", &request.name)?;
        check_secret_names(&request.secrets)?;
        self.check_no_set(&request.name)?;
        if self.find_dataset(&request.name)?.is_some() {
            return Err(Error::new(
                ErrorKind::Exists,
                format!("there is a dataset {} already: choose another name", request.name),
            ));
        }
        self.check_group(&request.group)?;
        self.check_set_policies(&request.policies)?;
        self.backups_of(&request.adapter)?.plan_protect(&request.parameters, &request.secrets)
    }

    /// Makes a backup set with its volume, after asking the instance. No backup is made yet.
    pub fn protect(&self, request: &ProtectRequest) -> Result<BackupSet> {
        let plan = self.plan_protect(request)?;
        let (created, volume) = (self.now(), self.new_volume_name_for(&request.name, "backups-")?);
        let (set, new_group) = self.catalog.change(|change| {
            if change.list::<BackupSet>()?.iter().any(|other| other.name == request.name) {
                let message = format!("there is a backup set {} already", request.name);
                return Err(Error::new(ErrorKind::Exists, message));
            }
            let new_group = ensure_group(change, &request.group, created)?;
            let set = BackupSet {
                id: change.next_id()?,
                name: request.name.clone(),
                group: request.group.clone(),
                adapter: request.adapter.clone(),
                config: plan.config,
                volume,
                state: BackupSetState::Active,
                created,
                failed_fulls: BTreeMap::new(),
                changes_lost: BTreeMap::new(),
                held: BTreeMap::new(),
            };
            change.put(&set)?;
            Ok((set, new_group))
        })?;
        self.group_made(new_group, &set.group);
        let made = self
            .volumes
            .create(&set.volume)
            .and_then(|()| self.secrets.put(set.id, &request.secrets))
            .and_then(|()| request.policies.iter().try_for_each(|policy| self.bind_set_policy(&set, policy)));
        if let Err(e) = made {
            self.remove_set(&set, &mut Quiet)?;
            return Err(e);
        }
        let text = format!("backup set {} was made, on volume {}", set.name, set.volume);
        self.event(Severity::Info, "BACKUP_SET_CREATED", Some(set.id), None, &text);
        Ok(set)
    }

    /// Says anew what a set is of: instance, login and databases. Its group, policies and restore points stay; without a
    /// password the kept one is used.
    pub fn reprotect(
        &self,
        name: &str,
        adapter: &str,
        parameters: &Value,
        new: Secrets,
    ) -> Result<BackupSet> {
        let set = self.backup_set(name)?;
        check_secret_names(&new)?;
        if adapter != set.adapter {
            return Err(Error::invalid(format!("{name} stays with its adapter {}", set.adapter)));
        }
        let token = self.catalog.change(|change| change.next_id())?;
        let _held = self.locks.take(token, "a change of the backup set", &[(set.id, Hold::Replace)])?;
        let mut secrets = self.secrets.get(set.id)?;
        secrets.0.extend(new.0);
        let plan = self.backups_of(&set.adapter)?.plan_protect(parameters, &secrets)?;
        self.secrets.put(set.id, &secrets)?;
        self.catalog.change(|change| change.update::<BackupSet>(set.id, |set| set.config = plan.config))
    }

    /// Starts a job that removes a set with all its restore points.
    pub fn unprotect(self: &Arc<Self>, name: &str) -> Result<JobHandle> {
        let set = self.backup_set(name)?;
        let (engine, id) = (Arc::clone(self), set.id);
        let new = NewJob {
            kind: JobKind::DbDelete,
            target: name,
            dataset: Some(id),
            holds: vec![(id, Hold::Replace)],
        };
        self.submit(new, move |task| {
            let set = engine.set_by_id(id)?;
            task.compensate("delete");
            engine.remove_set(&set, task)
        })
    }

    /// Removes a set with all it has. Called again after a failure; what is gone is no error.
    pub(super) fn remove_set(&self, set: &BackupSet, task: &mut dyn Task) -> Result<()> {
        self.catalog.change(|change| {
            change.update::<BackupSet>(set.id, |set| set.state = BackupSetState::Deleting)
        })?;
        for point in self.all_points(set.id)? {
            task.log(&format!("restore point {} of {} goes", point.id, point.database));
            self.remove_point(set, &point)?;
        }
        if self.volumes.exists(&set.volume)? {
            self.volumes.destroy(&set.volume)?;
        }
        self.secrets.remove(set.id)?;
        self.catalog.change(|change| {
            for binding in change.list::<PolicyBinding>()? {
                if binding.dataset == set.id {
                    change.remove::<PolicyBinding>(binding.id)?;
                }
            }
            change.remove::<BackupSet>(set.id)
        })
    }

    /// What a process that ended left of backups: writes that are held, backups that were not finished, sets that go.
    pub(super) fn recover_backups(&self) -> Result<()> {
        for set in self.catalog.list::<BackupSet>()? {
            if set.state == BackupSetState::Deleting {
                self.said(&set.name, self.remove_set(&set, &mut Quiet));
                continue;
            }
            self.let_go_of_held(&set);
            for point in self.all_points(set.id)? {
                if point.state != RestorePointState::Ready {
                    let what = format!("the {} backup of {}", point.kind.name(), point.database);
                    self.note_failed(&set, &point, "the daemon ended while it ran");
                    self.said(&what, self.remove_point(&set, &point));
                }
            }
        }
        Ok(())
    }

    /// Lets databases go on whose writes an ended process held. What cannot be now is tried again with each look.
    pub(super) fn let_go_of_held(&self, set: &BackupSet) {
        for (database, since) in &set.held {
            let done = self.with_target(set, |backups, target| backups.let_go(target, database));
            match done {
                Ok(were) => {
                    let how = if were { "were let go on" } else { "had been let go on already" };
                    let text = format!("the writes of {database}, held since {since}, {how}");
                    self.event(Severity::Warning, "WRITES_LET_GO", Some(set.id), None, &text);
                    let lost = format!("its writes were held from {since} on, and the full was not finished");
                    let changed = self.catalog.change(|change| {
                        change.update::<BackupSet>(set.id, |set| {
                            set.held.remove(database);
                            set.changes_lost.insert(database.clone(), lost);
                        })
                    });
                    if let Err(e) = changed {
                        tracing::error!("that {database} is not held any more is not recorded: {e}");
                    }
                }
                Err(e) => {
                    let text = format!("the writes of {database} may be held since {since}: {e}");
                    tracing::error!("{text}");
                    self.event(Severity::Error, "THAW_FAILED", Some(set.id), None, &text);
                }
            }
        }
    }

    /// Tries again what could not be let go of. A set that a job is at work on is the job's.
    pub fn look_after_backups(&self) -> Result<()> {
        for set in self.catalog.select(|set: &BackupSet| !set.held.is_empty())? {
            let token = self.catalog.change(|change| change.next_id())?;
            if let Ok(_held) = self.locks.take(token, super::locks::LOOKING, &[(set.id, Hold::Operate)]) {
                self.let_go_of_held(&self.set_by_id(set.id)?);
            }
        }
        Ok(())
    }

    /// Runs something with a set's adapter, configuration and secrets.
    pub(super) fn with_target<R>(
        &self,
        set: &BackupSet,
        body: impl FnOnce(&dyn Backups, &BackupTarget<'_>) -> Result<R>,
    ) -> Result<R> {
        let secrets = self.secrets.get(set.id)?;
        let target = BackupTarget { name: &set.name, config: &set.config, secrets: &secrets };
        body(self.backups_of(&set.adapter)?, &target)
    }

    /// What is known of a set's earlier backups.
    pub(super) fn history_of(&self, set: &BackupSet) -> Result<BackupHistory> {
        let set = self.set_by_id(set.id)?;
        Ok(BackupHistory {
            made: self.made_of(&set)?,
            failed_fulls: set.failed_fulls,
            changes_lost: set.changes_lost,
        })
    }

    /// A set's restore points as its adapter knows them, oldest first.
    pub(super) fn made_of(&self, set: &BackupSet) -> Result<Vec<BackupMade>> {
        Ok(self.points_of(set.id)?.iter().map(|point| self.made(set, point)).collect())
    }

    pub(super) fn made(&self, set: &BackupSet, point: &RestorePoint) -> BackupMade {
        let folder = self.volumes.snapshot_folder(&set.volume, &point.snapshot).join(&point.folder);
        let cut = point.cut.as_ref();
        BackupMade {
            id: point.id,
            database: point.database.clone(),
            kind: kind_of(point.kind),
            metadata: point.metadata.clone(),
            folder,
            cut: cut.map(|cut| self.volumes.snapshot_folder(&cut.volume, &cut.snapshot)),
        }
    }
}
