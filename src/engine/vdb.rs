//! Operations on a VDB, and start and stop of any dataset: start, stop, refresh, rewind, undo.
//!
//! Refresh and rewind fill a new timeflow beside the old one. The catalog changes over in one transaction; before it
//! a crash leaves the old one current, after it the new one.

use std::sync::Arc;

use super::Engine;
use super::jobs::{JobHandle, JobTask, NewJob};
use super::locks::Hold;
use super::places::place;
use super::points::Origin;
use super::provision::new_timeflow;
use super::run_hooks::replacing;
use super::snapshot::require_ready;
use crate::adapter::{Target, Task};
use crate::base::{Error, ErrorKind, Result};
use crate::catalog::{Dataset, DatasetState, JobKind, Role, Snapshot, Timeflow, TimeflowState};
use crate::hook::HookPoint;

/// The points around a start and a stop.
pub(super) const STARTING: (HookPoint, HookPoint) = (HookPoint::PreStart, HookPoint::PostStart);
const STOPPING: (HookPoint, HookPoint) = (HookPoint::PreStop, HookPoint::PostStop);

impl Engine {
    pub fn start(self: &Arc<Self>, name: &str) -> Result<JobHandle> {
        let dataset = self.dataset(name)?;
        self.check_operable(&dataset)?;
        self.on_server(&dataset, JobKind::DbStart, |engine, dataset, task| {
            engine.around(&dataset, STARTING, task, |task| engine.start_and_activate(&dataset, task))
        })
    }

    pub fn stop(self: &Arc<Self>, name: &str) -> Result<JobHandle> {
        let dataset = self.dataset(name)?;
        self.check_operable(&dataset)?;
        self.on_server(&dataset, JobKind::DbStop, |engine, dataset, task| {
            engine.around(&dataset, STOPPING, task, |task| {
                // From here on it is not cancelled.
                task.compensate("stop");
                engine.stop_server(&dataset, task)?;
                // Last: after a crash it is started again, as its files may not be those of a stopped server.
                engine.set_state(dataset.id, DatasetState::Stopped)
            })
        })
    }

    pub fn enable(self: &Arc<Self>, name: &str) -> Result<JobHandle> {
        let dataset = self.dataset(name)?;
        if dataset.state != DatasetState::Disabled {
            return Err(Error::new(ErrorKind::Precondition, format!("{name} is not disabled")));
        }
        self.on_server(&dataset, JobKind::DbEnable, |engine, dataset, task| {
            engine.around(&dataset, STARTING, task, |task| engine.start_and_activate(&dataset, task))
        })
    }

    pub fn disable(self: &Arc<Self>, name: &str) -> Result<JobHandle> {
        let dataset = self.dataset(name)?;
        self.check_operable(&dataset)?;
        self.on_server(&dataset, JobKind::DbDisable, |engine, dataset, task| {
            engine.around(&dataset, STOPPING, task, |task| {
                task.compensate("disable");
                engine.stop_server(&dataset, task)?;
                engine.set_state(dataset.id, DatasetState::Disabled)
            })
        })
    }

    fn on_server(
        self: &Arc<Self>,
        dataset: &Dataset,
        kind: JobKind,
        body: impl FnOnce(&Engine, Dataset, &mut JobTask) -> Result<()> + Send + 'static,
    ) -> Result<JobHandle> {
        let (engine, id) = (Arc::clone(self), dataset.id);
        let new = NewJob { kind, target: &dataset.name, dataset: Some(id), holds: vec![(id, Hold::Operate)] };
        self.submit(new, move |task| body(&engine, engine.dataset_by_id(id)?, task))
    }

    /// The state comes first: a server that a crash ends while it starts is started again, since its files are no longer
    /// those of a stopped one.
    fn start_and_activate(&self, dataset: &Dataset, task: &mut JobTask) -> Result<()> {
        self.set_state(dataset.id, DatasetState::Active)?;
        let started = self.start_server(dataset, task);
        if started.is_err() {
            self.set_state(dataset.id, dataset.state)?;
        }
        started
    }

    pub(super) fn start_server(&self, dataset: &Dataset, task: &mut dyn Task) -> Result<()> {
        let timeflow = self.current_timeflow(dataset)?;
        // An application would start on an empty folder as well.
        self.show_volume(&timeflow)?;
        let mut instance = self.instance(dataset, &timeflow)?;
        let adapter = self.adapter(&dataset.adapter)?;
        task.step("start the server")?;
        if dataset.role == Role::Vdb {
            return adapter.start(&instance, task);
        }
        match adapter.reconfigure(&instance) {
            Ok(config) if config != dataset.config => {
                self.catalog.change(|change| {
                    change.update::<Dataset>(dataset.id, |dataset| dataset.config = config.clone())
                })?;
                instance.config = config;
            }
            Ok(_) => {}
            // A source that is down keeps nobody from reading the staging server.
            Err(e) => task.log(&format!("what has changed at the source is not known: {e}")),
        }
        adapter.start_staging(&instance, task)
    }

    pub(super) fn stop_server(&self, dataset: &Dataset, task: &mut dyn Task) -> Result<()> {
        let instance = self.instance(dataset, &self.current_timeflow(dataset)?)?;
        task.step("stop the server")?;
        self.adapter(&dataset.adapter)?.stop(&instance, task)
    }

    pub(super) fn set_state(&self, id: u64, state: DatasetState) -> Result<()> {
        self.catalog.change(|change| change.update::<Dataset>(id, |dataset| dataset.state = state))?;
        Ok(())
    }

    /// Starts a job that gives a VDB the data of a snapshot: its parent's newest when none is named. Name, port and
    /// credentials stay.
    pub fn refresh(self: &Arc<Self>, name: &str, from: Option<&str>, target: &Target) -> Result<JobHandle> {
        let dataset = self.replaceable(name)?;
        let spec = match from {
            Some(from) => from.to_owned(),
            None => self.parent_of(&dataset)?.name,
        };
        let found = self.find_origin(&spec, target)?;
        if found.parent.id == dataset.id {
            return Err(Error::invalid(format!("{spec} is a snapshot of {name} itself: that is a rewind")));
        }
        if self.descends_from(&found.parent, dataset.id)? {
            return Err(Error::invalid(format!(
                "{spec} was made of {name}: neither could ever be deleted; provision a VDB from it instead"
            )));
        }
        self.submit_replace(JobKind::DbRefresh, dataset, found)
    }

    /// Whether any timeflow of a dataset goes back to one of `ancestor`'s snapshots.
    fn descends_from(&self, dataset: &Dataset, ancestor: u64) -> Result<bool> {
        let timeflows: Vec<Timeflow> = self.catalog.list()?;
        let snapshots: Vec<Snapshot> = self.catalog.list()?;
        let parent = |timeflow: &Timeflow| {
            let id = timeflow.from_snapshot?;
            snapshots.iter().find(|snapshot| snapshot.id == id).map(|snapshot| snapshot.dataset)
        };
        let mut known = vec![dataset.id];
        let mut at = 0;
        while let Some(id) = known.get(at).copied() {
            for found in timeflows.iter().filter(|timeflow| timeflow.dataset == id).filter_map(parent) {
                if !known.contains(&found) {
                    known.push(found);
                }
            }
            at += 1;
        }
        Ok(known.contains(&ancestor))
    }

    /// Starts a job that takes a VDB back to one of its own snapshots, or to a point in its own time.
    pub fn rewind(
        self: &Arc<Self>,
        name: &str,
        snapshot: Option<&str>,
        target: &Target,
    ) -> Result<JobHandle> {
        let dataset = self.replaceable(name)?;
        let spec = snapshot.map_or_else(|| name.to_owned(), |snapshot| format!("{name}@{snapshot}"));
        let found = self.find_origin(&spec, target)?;
        self.submit_replace(JobKind::DbRewind, dataset, found)
    }

    /// Starts a job that makes the timeflow before the last refresh or rewind current again.
    pub fn undo(self: &Arc<Self>, name: &str) -> Result<JobHandle> {
        let dataset = self.replaceable(name)?;
        let (engine, id) = (Arc::clone(self), dataset.id);
        self.previous_timeflow(&dataset)?;
        let new = NewJob {
            kind: JobKind::DbUndo,
            target: name,
            dataset: Some(id),
            holds: vec![(id, Hold::Replace)],
        };
        self.submit(new, move |task| {
            let dataset = engine.dataset_by_id(id)?;
            let (now, before) = (engine.current_timeflow(&dataset)?, engine.previous_timeflow(&dataset)?);
            // Half of it would leave a server down that nobody stopped.
            task.compensate("undo");
            engine.stop_server(&dataset, task)?;
            engine.change_over(&dataset, &now, &before)?;
            engine.start_server(&engine.dataset_by_id(id)?, task)
        })
    }

    fn replaceable(&self, name: &str) -> Result<Dataset> {
        let dataset = self.dataset(name)?;
        if dataset.role != Role::Vdb {
            return Err(Error::new(ErrorKind::Precondition, format!("{name} is a dSource, not a VDB")));
        }
        self.check_operable(&dataset)?;
        self.check_unlocked(&dataset)?;
        Ok(dataset)
    }

    pub(super) fn check_unlocked(&self, dataset: &Dataset) -> Result<()> {
        if dataset.locked {
            return Err(Error::new(
                ErrorKind::NotAllowed,
                format!("{} is locked against refresh, rewind and deletion", dataset.name),
            )
            .with_hint(format!("unlock it with `stillpoint vdb unlock {}`", dataset.name)));
        }
        Ok(())
    }

    /// What a VDB was last provisioned or refreshed from.
    fn parent_of(&self, dataset: &Dataset) -> Result<Dataset> {
        let mut timeflow = self.current_timeflow(dataset)?;
        // A rewound timeflow comes from the VDB itself.
        for _ in 0..self.catalog.list::<Timeflow>()?.len() {
            let snapshot =
                timeflow.from_snapshot.map(|id| self.catalog.get::<Snapshot>(id)).transpose()?.flatten();
            let Some(snapshot) = snapshot else { break };
            if snapshot.dataset != dataset.id {
                return self.dataset_by_id(snapshot.dataset);
            }
            timeflow = self.timeflow(snapshot.timeflow)?;
        }
        Err(Error::new(
            ErrorKind::Precondition,
            format!("the parent of {} is gone: name a snapshot to refresh from", dataset.name),
        ))
    }

    /// The timeflow that was current before this one.
    fn previous_timeflow(&self, dataset: &Dataset) -> Result<Timeflow> {
        let mut retired = self.catalog.select(|timeflow: &Timeflow| {
            timeflow.dataset == dataset.id && timeflow.state == TimeflowState::Retired
        })?;
        retired.sort_by_key(|timeflow| (timeflow.retired, timeflow.id));
        retired.pop().ok_or_else(|| {
            Error::new(
                ErrorKind::Precondition,
                format!("{} was never refreshed or rewound: nothing to undo", dataset.name),
            )
        })
    }

    fn submit_replace(
        self: &Arc<Self>,
        kind: JobKind,
        dataset: Dataset,
        origin: Origin,
    ) -> Result<JobHandle> {
        let mut holds = vec![(dataset.id, Hold::Replace)];
        if origin.parent.id != dataset.id {
            holds.push((origin.parent.id, origin.hold));
        }
        let name = dataset.name.clone();
        let new = NewJob { kind, target: &name, dataset: Some(dataset.id), holds };
        let engine = Arc::clone(self);
        self.submit(new, move |task| {
            // As they are now that nobody else is at work on them.
            let dataset = engine.dataset_by_id(dataset.id)?;
            let origin = Origin { parent: engine.dataset_by_id(origin.parent.id)?, ..origin };
            engine.replace(&dataset, &origin, task)
        })
    }

    fn replace(&self, dataset: &Dataset, origin: &Origin, task: &mut JobTask) -> Result<()> {
        let old = self.current_timeflow(dataset)?;
        let points = replacing(task.kind());
        if let Some((before, _)) = points {
            self.hooks_at(before, dataset, &old, task)?;
        }
        let created = self.now();
        let volumes = self.timeflow_volumes(&dataset.name, old.log_volume.is_some())?;
        let new = self.catalog.change(|change| {
            require_ready(change, origin.snapshot.id)?;
            let timeflow = Timeflow {
                place: place(dataset.mount_base.as_deref(), &volumes.0),
                ..new_timeflow(change.next_id()?, dataset.id, volumes, created, origin)
            };
            change.put(&timeflow)?;
            Ok(timeflow)
        })?;
        let config = self.adapter(&dataset.adapter)?.plan_refresh(
            &dataset.config,
            &origin.parent.config,
            &origin.snapshot.metadata,
        );
        let renewed = config.map(|config| Dataset { config, ..dataset.clone() });
        // Both have the same port.
        let was_active = dataset.state == DatasetState::Active;
        let filled = self
            .stop_server(dataset, task)
            .and(renewed)
            .and_then(|renewed| self.fill_timeflow(&renewed, &new, origin, task).map(|()| renewed))
            .and_then(|renewed| {
                self.hooks_at(HookPoint::ConfigureClone, &renewed, &new, task).map(|()| renewed)
            })
            .and_then(|renewed| self.change_over(&renewed, &old, &new));
        if let Err(error) = filled {
            task.log(&format!("failed: {error}"));
            task.compensate("go back to the old timeflow");
            self.abandon(dataset, &new, was_active, task);
            return Err(error);
        }
        task.result("timeflow", &new.volume);
        if let Some((_, after)) = points {
            self.hooks_after(after, dataset, &new, task);
        }
        Ok(())
    }

    /// Takes a half made timeflow away and starts the one that stays.
    fn abandon(&self, dataset: &Dataset, new: &Timeflow, start: bool, task: &mut JobTask) {
        if let Err(e) = self.instance(dataset, new).and_then(|instance| {
            self.adapter(&dataset.adapter)?.stop(&instance, task)?;
            self.remove_timeflow(new)
        }) {
            task.warn(&format!("volume {} stays until the next start of the daemon: {e}", new.volume));
        }
        if start && let Err(e) = self.start_server(dataset, task) {
            task.warn(&format!("the server of {} could not be started again: {e}", dataset.name));
        }
    }

    /// Makes another timeflow the current one, in one transaction.
    fn change_over(&self, dataset: &Dataset, old: &Timeflow, new: &Timeflow) -> Result<()> {
        let now = self.now();
        self.catalog.change(|change| {
            change.update::<Timeflow>(old.id, |timeflow| {
                timeflow.state = TimeflowState::Retired;
                timeflow.retired = Some(now);
            })?;
            change.update::<Timeflow>(new.id, |timeflow| {
                timeflow.state = TimeflowState::Current;
                timeflow.retired = None;
            })?;
            change.update::<Dataset>(dataset.id, |record| {
                record.timeflow = Some(new.id);
                record.state = DatasetState::Active;
                record.config = dataset.config.clone();
            })
        })?;
        Ok(())
    }

    /// Locks a VDB against refresh, rewind and deletion, or unlocks it.
    pub fn set_locked(&self, name: &str, locked: bool) -> Result<Dataset> {
        let dataset = self.dataset(name)?;
        self.catalog.change(|change| change.update::<Dataset>(dataset.id, |dataset| dataset.locked = locked))
    }

    /// Names a snapshot so that nothing removes it.
    pub fn bookmark(&self, spec: &str, bookmark: &str) -> Result<Snapshot> {
        super::names::check_name("bookmark", bookmark)?;
        let (dataset, _, snapshot) = self.find_snapshot(spec)?;
        let others = self.snapshots_of(dataset.id)?;
        if let Some(other) = others.iter().find(|other| other.bookmarks.iter().any(|found| found == bookmark))
        {
            return Err(Error::new(
                ErrorKind::Exists,
                format!("bookmark {bookmark} of {} is at {} already", dataset.name, other.name),
            ));
        }
        self.catalog.change(|change| {
            require_ready(change, snapshot.id)?;
            change.update::<Snapshot>(snapshot.id, |snapshot| snapshot.bookmarks.push(bookmark.to_owned()))
        })
    }
}
