//! Datasets as a whole: what is shown of them, and their end.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Engine;
use super::jobs::{JobHandle, NewJob};
use super::locks::Hold;
use crate::adapter::{Health, Task};
use crate::base::{Error, ErrorKind, Result};
use crate::catalog::{
    Dataset, DatasetHooks, DatasetState, Fault, JobKind, PolicyBinding, Role, Snapshot, SnapshotState,
    Timeflow, TimeflowState,
};

/// A dataset as it is shown.
#[derive(Clone, Debug)]
pub struct DatasetView {
    pub dataset: Dataset,
    pub timeflow: Option<Timeflow>,
    pub snapshots: usize,
    pub faults: Vec<Fault>,
    /// How to connect, by variable name.
    pub connection: BTreeMap<String, String>,
    /// The source config that it was linked with.
    pub source: Option<String>,
}

/// A dataset and its server's health, asked now.
#[derive(Clone, Debug)]
pub struct Listing {
    pub view: DatasetView,
    pub health: Health,
}

/// Refuses a name or port that another dataset has.
pub(super) fn check_distinct(other: &Dataset, name: &str, port: u16) -> Result<()> {
    if other.name == name {
        return Err(Error::new(ErrorKind::Exists, format!("there is a dataset {name} already")));
    }
    if other.port == port {
        return Err(Error::new(
            ErrorKind::InUse,
            format!("port {port} belongs to {}: each dataset has its own", other.name),
        ));
    }
    Ok(())
}

impl Engine {
    /// The datasets of a role, oldest first.
    pub fn datasets(&self, role: Role) -> Result<Vec<DatasetView>> {
        let found = self.catalog.select(|dataset: &Dataset| dataset.role == role)?;
        found.into_iter().map(|dataset| self.view(dataset)).collect()
    }

    fn view(&self, dataset: Dataset) -> Result<DatasetView> {
        // Gone already when its deletion is under way.
        let timeflow = dataset.timeflow.map(|id| self.catalog.get::<Timeflow>(id)).transpose()?.flatten();
        let connection = match &timeflow {
            Some(timeflow) => self.adapter(&dataset.adapter)?.connection(&self.instance(&dataset, timeflow)?),
            None => BTreeMap::new(),
        };
        Ok(DatasetView {
            snapshots: self.snapshots_of(dataset.id)?.len(),
            faults: self.open_faults(dataset.id)?,
            source: self.source_of(&dataset)?,
            timeflow,
            connection,
            dataset,
        })
    }

    /// One dataset, with what its server answers now.
    pub fn show(&self, name: &str) -> Result<Listing> {
        let view = self.view(self.dataset(name)?)?;
        let health = match &view.timeflow {
            Some(timeflow) => {
                let instance = self.instance(&view.dataset, timeflow)?;
                let adapter = self.adapter(&view.dataset.adapter)?;
                let mut health = adapter.monitor(&instance)?;
                if view.dataset.role == Role::Dsource
                    && health.running
                    && let Ok((facts, _)) = adapter.ask_source(&instance)
                {
                    health.facts.extend(facts);
                }
                health
            }
            None => Health::default(),
        };
        Ok(Listing { view, health })
    }

    /// What lives on a dataset's snapshots.
    pub fn dependents(&self, dataset: &Dataset) -> Result<Vec<String>> {
        let own: Vec<u64> = self
            .catalog
            .select(|snapshot: &Snapshot| snapshot.dataset == dataset.id)?
            .into_iter()
            .map(|snapshot| snapshot.id)
            .collect();
        let on_it = self.catalog.select(|timeflow: &Timeflow| {
            timeflow.dataset != dataset.id && timeflow.from_snapshot.is_some_and(|id| own.contains(&id))
        })?;
        let mut names = Vec::new();
        for timeflow in on_it {
            let name = self.dataset_by_id(timeflow.dataset)?.name;
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Starts a job that deletes a dataset with all its timeflows and snapshots. `force` gives up what it holds on a
    /// source that cannot be reached.
    pub fn delete(self: &Arc<Self>, name: &str, force: bool) -> Result<JobHandle> {
        let dataset = self.dataset(name)?;
        self.check_unlocked(&dataset)?;
        let dependents = self.dependents(&dataset)?;
        if !dependents.is_empty() && !force {
            return Err(Error::new(
                ErrorKind::InUse,
                format!(
                    "{name} has VDBs that live on it: {}; delete them first, or keep them and their data with \
                     `delete --force`: they can then no longer be refreshed from it",
                    dependents.join(", ")
                ),
            ));
        }
        let (engine, id) = (Arc::clone(self), dataset.id);
        self.end_image_jobs(id)?;
        let new = NewJob {
            kind: JobKind::DbDelete,
            target: name,
            dataset: Some(id),
            holds: vec![(id, Hold::Replace)],
        };
        self.submit(new, move |task| {
            let dataset = engine.dataset_by_id(id)?;
            // A VDB may have been provisioned after the question above.
            if let Some(dependent) = engine.dependents(&dataset)?.first().filter(|_| !force) {
                return Err(Error::new(ErrorKind::InUse, format!("{dependent} lives on {}", dataset.name)));
            }
            // From here on it is gone: a crash ends in its removal, and nobody can cancel that.
            task.compensate("delete");
            engine.set_state(id, DatasetState::Deleting)?;
            engine.let_go_of_dependents(&dataset, task)?;
            engine.remove_dataset(&dataset, force, task)
        })
    }

    /// Makes what lives on a dataset's snapshots live by itself: a clone's blocks are its own.
    fn let_go_of_dependents(&self, dataset: &Dataset, task: &mut dyn Task) -> Result<()> {
        for name in self.dependents(dataset)? {
            task.log(&format!("{name} keeps its data, and can no longer be refreshed from {}", dataset.name));
        }
        self.catalog.change(|change| {
            let snapshots = change.list::<Snapshot>()?;
            let own = |id: u64| snapshots.iter().any(|found| found.id == id && found.dataset == dataset.id);
            for timeflow in change.list::<Timeflow>()? {
                if timeflow.dataset != dataset.id && timeflow.from_snapshot.is_some_and(own) {
                    change.update::<Timeflow>(timeflow.id, |timeflow| timeflow.from_snapshot = None)?;
                }
            }
            Ok(())
        })
    }

    /// Removes all that there is of a dataset. Called again after a failure or a crash; what is gone already is no
    /// error. The record goes last: as long as something is held on the source, it says so and the next start tries
    /// again.
    pub(super) fn remove_dataset(&self, dataset: &Dataset, force: bool, task: &mut dyn Task) -> Result<()> {
        let adapter = self.adapter(&dataset.adapter)?;
        let mut timeflows = self.catalog.select(|timeflow: &Timeflow| timeflow.dataset == dataset.id)?;
        // Later ones may be clones of earlier ones' snapshots.
        timeflows.sort_by_key(|timeflow| std::cmp::Reverse(timeflow.id));
        for timeflow in &timeflows {
            adapter.stop(&self.instance(dataset, timeflow)?, task)?;
        }
        let advice =
            "the deletion goes on at the next start, or now with `delete --force`, which gives it up";
        for timeflow in &timeflows {
            match self.end_hold(&timeflow.id) {
                Err(e) if force => task.warn(&format!("given up: {e}; take it away there")),
                Err(e) => return Err(e.context(format!("{} is not deleted yet: {advice}", dataset.name))),
                Ok(()) => {}
            }
        }
        self.remove_images(dataset.id, None)?;
        for timeflow in &timeflows {
            self.remove_timeflow(timeflow)?;
        }
        let unlinked = adapter.unlink(&self.instance_of(dataset, "", None)?, task);
        match unlinked {
            Err(e) if force => task.warn(&format!("given up: {e}; take it away there")),
            Err(e) => {
                self.set_state(dataset.id, DatasetState::Deleting)?;
                return Err(e.context(format!("the files of {} are gone; {advice}", dataset.name)));
            }
            Ok(()) => {}
        }
        self.forget(dataset.id)
    }

    /// Destroys a timeflow's volume with its snapshots, then forgets them.
    pub(super) fn remove_timeflow(&self, timeflow: &Timeflow) -> Result<()> {
        self.catalog.change(|change| {
            change.update::<Timeflow>(timeflow.id, |timeflow| timeflow.state = TimeflowState::Removing)
        })?;
        let of_it = self.catalog.select(|snapshot: &Snapshot| snapshot.timeflow == timeflow.id)?;
        let names: Vec<String> = of_it.into_iter().map(|snapshot| snapshot.name).collect();
        self.end_checks(timeflow.dataset, &names)?;
        self.hide_volume(timeflow)?;
        for volume in [Some(&timeflow.volume), timeflow.log_volume.as_ref()].into_iter().flatten() {
            match self.volumes.destroy(volume) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        self.catalog.change(|change| {
            for snapshot in change.list::<Snapshot>()? {
                if snapshot.timeflow == timeflow.id {
                    change.remove::<Snapshot>(snapshot.id)?;
                }
            }
            change.remove::<Timeflow>(timeflow.id)
        })
    }

    /// Removes a dataset's state folder, secrets and records. Its volumes are gone already, or were never made.
    pub(super) fn forget(&self, id: u64) -> Result<()> {
        self.remove_state(id)?;
        self.secrets.remove(id)?;
        self.catalog.change(|change| {
            for timeflow in change.list::<Timeflow>()? {
                if timeflow.dataset == id {
                    change.remove::<Timeflow>(timeflow.id)?;
                }
            }
            for snapshot in change.list::<Snapshot>()? {
                if snapshot.dataset == id {
                    change.remove::<Snapshot>(snapshot.id)?;
                }
            }
            for fault in change.list::<Fault>()? {
                if fault.dataset == id {
                    change.remove::<Fault>(fault.id)?;
                }
            }
            for binding in change.list::<PolicyBinding>()? {
                if binding.dataset == id {
                    change.remove::<PolicyBinding>(binding.id)?;
                }
            }
            change.remove::<DatasetHooks>(id)?;
            change.remove::<Dataset>(id)
        })
    }

    /// Records of snapshots that a crash left between two states.
    pub(super) fn unfinished_snapshots(&self) -> Result<Vec<Snapshot>> {
        self.catalog.select(|snapshot: &Snapshot| snapshot.state != SnapshotState::Ready)
    }
}
