//! Sync and snapshot of a dataset: SnapSync for a dSource, a snapshot for a VDB.

use std::sync::Arc;

use super::Engine;
use super::jobs::{JobHandle, JobTask, NewJob};
use super::locks::Hold;
use crate::adapter::{Adapter, Described, Instance, Synced, Task};
use crate::base::{Error, ErrorKind, Result};
use crate::catalog::{Change, Dataset, DatasetState, JobKind, Role, Snapshot, SnapshotState, Timeflow};
use crate::hook::HookPoint;

impl Engine {
    /// All snapshots of a dataset that are there, oldest first.
    pub fn snapshots_of(&self, dataset: u64) -> Result<Vec<Snapshot>> {
        let mut found = self.catalog.select(|snapshot: &Snapshot| {
            snapshot.dataset == dataset && snapshot.state == SnapshotState::Ready
        })?;
        found.sort_by_key(|snapshot| (snapshot.taken, snapshot.id));
        Ok(found)
    }

    /// Starts a job that brings a dSource up to its source and snapshots it, or snapshots a VDB.
    pub fn snapshot(self: &Arc<Self>, name: &str) -> Result<JobHandle> {
        let dataset = self.dataset(name)?;
        self.check_operable(&dataset)?;
        self.submit_snapshot(&dataset, JobKind::DbSnapshot)
    }

    /// Queues the sync that goes on where a link ends.
    pub(super) fn queue_first_sync(self: &Arc<Self>, dataset: &Dataset, link: &JobTask) -> Result<JobHandle> {
        let (engine, id) = (Arc::clone(self), dataset.id);
        let new =
            NewJob { kind: JobKind::DbSync, target: &dataset.name, dataset: Some(id), holds: Vec::new() };
        self.submit_after(link, &new, id, move |task| {
            engine.carry_out_snapshot(&engine.dataset_by_id(id)?, task)
        })
    }

    pub(super) fn submit_snapshot(self: &Arc<Self>, dataset: &Dataset, kind: JobKind) -> Result<JobHandle> {
        let (engine, id) = (Arc::clone(self), dataset.id);
        let new = NewJob { kind, target: &dataset.name, dataset: Some(id), holds: vec![(id, Hold::Operate)] };
        self.submit(new, move |task| engine.carry_out_snapshot(&engine.dataset_by_id(id)?, task))
    }

    fn carry_out_snapshot(self: &Arc<Self>, dataset: &Dataset, task: &mut JobTask) -> Result<()> {
        let adapter = self.adapter(&dataset.adapter)?;
        let timeflow = self.current_timeflow(dataset)?;
        let instance = self.instance(dataset, &timeflow)?;
        if dataset.role == Role::Dsource && dataset.state == DatasetState::Active {
            self.hooks_at(HookPoint::PreSync, dataset, &timeflow, task)?;
            self.hooks_at(HookPoint::PreLogSync, dataset, &timeflow, task)?;
            let before =
                self.snapshots_of(dataset.id)?.into_iter().rfind(|found| found.timeflow == timeflow.id);
            let synced = adapter.sync(&instance, before.as_ref().map(|before| &before.metadata), task)?;
            self.hooks_at(HookPoint::PostSync, dataset, &timeflow, task)?;
            if let Synced::Nothing(why) = synced {
                task.warn(&format!("no snapshot is taken: {why}"));
                return Ok(());
            }
        }
        self.hooks_at(HookPoint::PreSnapshot, dataset, &timeflow, task)?;
        let snapshot = self.take_snapshot(dataset, &timeflow, &instance, &**adapter, task)?;
        task.result("snapshot", &format!("{}@{}", dataset.name, snapshot.name));
        if let Some(reason) = &snapshot.unprovisionable {
            task.warn(&format!(
                "nothing can be provisioned from {}@{}: {reason}",
                dataset.name, snapshot.name
            ));
        }
        if let Err(e) = self.catalog.back_up(&*self.storage) {
            task.warn(&format!("the copy of the catalog is not of now: {e}"));
        }
        self.queue_image(dataset, &snapshot);
        self.queue_file_check(dataset, &snapshot);
        self.snapshot_was_taken(dataset.id);
        self.hooks_after(HookPoint::PostSnapshot, dataset, &timeflow, task);
        Ok(())
    }

    /// Quiesces, cuts, thaws. The record is there before the cut, so that a crash leaves no snapshot unknown.
    pub(super) fn take_snapshot(
        &self,
        dataset: &Dataset,
        timeflow: &Timeflow,
        instance: &Instance,
        adapter: &dyn Adapter,
        task: &mut JobTask,
    ) -> Result<Snapshot> {
        let mut record = self.new_snapshot(dataset, timeflow)?;
        let cut = self.cut(timeflow, &record, instance, adapter, task);
        let described = match cut {
            Ok(described) => described,
            Err(error) => {
                task.log(&format!("failed: {error}"));
                task.compensate("take back the snapshot");
                if let Err(e) = self.remove_snapshot_record(timeflow, &record) {
                    task.warn(&format!(
                        "{}@{} stays until the next start: {e}",
                        timeflow.volume, record.name
                    ));
                }
                return Err(error);
            }
        };
        record.metadata = described.metadata;
        record.unprovisionable = described.unprovisionable;
        record.state = SnapshotState::Ready;
        self.catalog.change(|change| change.put(&record))?;
        Ok(record)
    }

    fn cut(
        &self,
        timeflow: &Timeflow,
        record: &Snapshot,
        instance: &Instance,
        adapter: &dyn Adapter,
        task: &mut JobTask,
    ) -> Result<Described> {
        let described = adapter.quiesce(instance, task);
        let cut = described.and_then(|mut described| {
            task.step("snapshot")?;
            self.volumes.snapshot(&timeflow.volume, &record.name)?;
            match adapter.describe_end(instance, &mut described.metadata) {
                Err(e) if e.kind() == ErrorKind::InUse => return Err(e),
                Err(e) => task.warn(&format!("no point in time can be reached from this snapshot: {e}")),
                Ok(()) => {}
            }
            Ok(described)
        });
        // On every path: a staging server must never stay paused.
        let thawed = adapter.thaw(instance);
        match (cut, thawed) {
            (Ok(described), Ok(())) => Ok(described),
            (Ok(described), Err(e)) => {
                // The cut is good. What stays held is tried again with each look, and said.
                self.held.lock().insert(timeflow.dataset);
                task.warn(&format!("the server of {} could not be let go on: {e}", instance.name));
                Ok(described)
            }
            (Err(error), Ok(())) => Err(error),
            (Err(error), Err(e)) => {
                self.held.lock().insert(timeflow.dataset);
                Err(error.context(format!("{} could not be let go on either ({e})", instance.name)))
            }
        }
    }

    /// A record with a name of its own: the moment, in UTC.
    fn new_snapshot(&self, dataset: &Dataset, timeflow: &Timeflow) -> Result<Snapshot> {
        let taken = self.now();
        let base = taken.strftime("%Y-%m-%dT%H-%M-%SZ").to_string();
        self.catalog.change(|change| {
            let names: Vec<String> = change
                .list::<Snapshot>()?
                .into_iter()
                .filter(|other| other.dataset == dataset.id)
                .map(|other| other.name)
                .collect();
            let mut name = base.clone();
            let mut number = 1;
            while names.contains(&name) {
                number += 1;
                name = format!("{base}-{number}");
            }
            let record = Snapshot {
                id: change.next_id()?,
                dataset: dataset.id,
                timeflow: timeflow.id,
                name,
                taken,
                state: SnapshotState::Taking,
                metadata: serde_json::Value::Null,
                unprovisionable: None,
                bookmarks: Vec::new(),
                verification: None,
                file_check: None,
            };
            change.put(&record)?;
            Ok(record)
        })
    }

    /// Removes a snapshot with its record; no error when the volume's is gone already.
    pub(super) fn remove_snapshot_record(&self, timeflow: &Timeflow, record: &Snapshot) -> Result<()> {
        match self.volumes.destroy_snapshot(&timeflow.volume, &record.name) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        self.catalog.change(|change| change.remove::<Snapshot>(record.id))
    }

    /// Removes a snapshot that nothing depends on.
    pub fn destroy_snapshot(&self, spec: &str) -> Result<()> {
        let (dataset, timeflow, snapshot) = self.find_snapshot(spec)?;
        self.end_image_job_of(&snapshot)?;
        let id = self.catalog.change(|change| change.next_id())?;
        let _held = self.locks.take(id, "destroying a snapshot", &[(dataset.id, Hold::Operate)])?;
        self.destroy_unused(&dataset, &timeflow, &snapshot)
    }

    /// Removes a snapshot if nothing depends on it. `InUse` says what does. Who calls holds the dataset.
    pub(super) fn destroy_unused(
        &self,
        dataset: &Dataset,
        timeflow: &Timeflow,
        snapshot: &Snapshot,
    ) -> Result<()> {
        // Checked and marked in one transaction: what is made of it checks in one, too.
        self.catalog.change(|change| {
            let users = change.list::<Timeflow>()?;
            if let Some(user) = users.iter().find(|timeflow| timeflow.from_snapshot == Some(snapshot.id)) {
                let name = change
                    .get::<Dataset>(user.dataset)?
                    .map_or_else(|| user.volume.clone(), |found| found.name);
                return Err(Error::new(
                    ErrorKind::InUse,
                    format!("{name} lives on {}@{}", dataset.name, snapshot.name),
                ));
            }
            let current: Snapshot = require_ready(change, snapshot.id)?;
            if !current.bookmarks.is_empty() {
                let bookmarks = current.bookmarks.join(", ");
                return Err(Error::new(
                    ErrorKind::InUse,
                    format!("{}@{} is kept by bookmark {bookmarks}", dataset.name, snapshot.name),
                ));
            }
            change.put(&Snapshot { state: SnapshotState::Removing, ..current })
        })?;
        let removed = self
            .end_checks(dataset.id, std::slice::from_ref(&snapshot.name))
            .and_then(|()| self.remove_images(dataset.id, Some(snapshot.id)))
            .and_then(|()| self.remove_snapshot_record(timeflow, snapshot));
        removed.inspect_err(|_| {
            // Refused by the store, because it is held or open: it stays.
            let back = self.catalog.change(|change| {
                change.update::<Snapshot>(snapshot.id, |snapshot| snapshot.state = SnapshotState::Ready)
            });
            if let Err(e) = back {
                tracing::error!("{}@{} will go at the next start: {e}", dataset.name, snapshot.name);
            }
        })
    }

    pub(super) fn check_operable(&self, dataset: &Dataset) -> Result<()> {
        let advice = match dataset.state {
            DatasetState::Active | DatasetState::Stopped => return Ok(()),
            DatasetState::Disabled => "is disabled: enable it first",
            DatasetState::Detached => "is detached from its source: attach it first",
            DatasetState::Creating => "is being made: wait for its job",
            DatasetState::Deleting => "is being deleted",
        };
        Err(Error::new(ErrorKind::Precondition, format!("{} {advice}", dataset.name)))
    }
}

/// A snapshot that something may still be made of.
pub(super) fn require_ready(change: &Change<'_>, id: u64) -> Result<Snapshot> {
    change
        .get::<Snapshot>(id)?
        .filter(|snapshot| snapshot.state == SnapshotState::Ready)
        .ok_or_else(|| Error::not_found("the snapshot has just been destroyed"))
}
