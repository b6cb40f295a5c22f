//! A dSource's link in its later life: other settings, its end, a new one, a new first copy.
//!
//! What holds something on a source is written down before it is made and until it is gone: in the dataset's
//! configuration, or in the timeflow that a resynchronization began or left.

use std::sync::Arc;

use serde_json::Value;

use super::Engine;
use super::jobs::{JobHandle, JobTask, NewJob};
use super::link::log_notes;
use super::locks::Hold;
use super::places::place;
use super::secrets::{OWN, check_secret_names};
use super::sources::source_after;
use crate::adapter::{Adapter, ChangeKind, Instance, LinkPlan, Secrets, Task};
use crate::base::{Error, ErrorKind, Result};
use crate::catalog::{Dataset, DatasetState, JobKind, Role, Timeflow, TimeflowState};

/// What is asked for with a change of a dataset.
#[derive(Clone, Debug, Default)]
pub struct ChangeRequest {
    pub port: Option<u16>,
    /// Whether an image of the newest snapshot is kept ready.
    pub images: Option<bool>,
    /// A source config, whose address and password are taken.
    pub source: Option<String>,
    /// The adapter's own.
    pub parameters: Value,
    pub secrets: Secrets,
}

impl Engine {
    /// What a change, an attachment or a resynchronization would do; changes nothing.
    pub fn plan_relink(&self, name: &str, kind: JobKind, request: &ChangeRequest) -> Result<LinkPlan> {
        let dataset = self.dataset(name)?;
        self.plan_change(&dataset, kind, &self.change_with_source(&dataset, request)?)
    }

    /// The same with the source's address in the request already.
    fn plan_change(&self, dataset: &Dataset, kind: JobKind, request: &ChangeRequest) -> Result<LinkPlan> {
        check_secret_names(&request.secrets)?;
        let instance = self.changed_instance(dataset, request)?;
        let adapter = self.adapter(&dataset.adapter)?;
        match kind {
            JobKind::DbResync => adapter.plan_resync(&instance, &request.parameters),
            kind => {
                let kind = match kind {
                    JobKind::DbAttach => ChangeKind::Attach,
                    _ if request.secrets.0.is_empty() => ChangeKind::Settings,
                    _ => ChangeKind::Secrets,
                };
                adapter.plan_change(&instance, &request.parameters, kind)
            }
        }
    }

    /// The instance with the secrets it would have.
    fn changed_instance(&self, dataset: &Dataset, request: &ChangeRequest) -> Result<Instance> {
        let mut instance = self.instance(dataset, &self.current_timeflow(dataset)?)?;
        instance.secrets.0.extend(request.secrets.0.clone());
        Ok(instance)
    }

    /// Starts a job that changes settings, port, source address or password, and starts the server with them.
    pub fn configure(self: &Arc<Self>, name: &str, request: ChangeRequest) -> Result<JobHandle> {
        let dataset = self.dataset(name)?;
        if dataset.state != DatasetState::Detached {
            self.check_operable(&dataset)?;
        }
        if let Some(port) = request.port.filter(|port| *port != dataset.port) {
            self.check_port_free(port)?;
        }
        let request = self.change_with_source(&dataset, &request)?;
        let plan = self.plan_change(&dataset, JobKind::DbConfigure, &request)?;
        self.relink(&dataset, JobKind::DbConfigure, move |engine, dataset, task| {
            engine.carry_out_change(dataset, plan.config, &request, task)
        })
    }

    /// Starts a job that ends a dSource's link. It is kept and provisions; its snapshots stay. `force` gives up what it
    /// holds on a source that cannot be reached, and tries again at the next start.
    pub fn detach(self: &Arc<Self>, name: &str, force: bool) -> Result<JobHandle> {
        let dataset = self.dsource(name)?;
        self.check_operable(&dataset)?;
        self.relink(&dataset, JobKind::DbDetach, move |engine, dataset, task| {
            let timeflow = engine.current_timeflow(dataset)?;
            let instance = engine.instance(dataset, &timeflow)?;
            let adapter = engine.adapter(&dataset.adapter)?;
            let config = adapter.detached(&instance)?;
            // From here on the link is gone: nobody can cancel that.
            task.compensate("stop the staging server");
            adapter.stop(&instance, task)?;
            engine.catalog.change(|change| {
                change.update::<Timeflow>(timeflow.id, |timeflow| timeflow.held = Some(dataset.config.clone()))?;
                change.update::<Dataset>(dataset.id, |dataset| {
                    dataset.state = DatasetState::Detached;
                    dataset.config = config;
                })
            })?;
            match engine.end_hold(&timeflow.id) {
                Err(e) if force => {
                    task.warn(&format!("given up for the moment: {e}; the next start of the daemon tries again"));
                    Ok(())
                }
                Err(e) => Err(e.context(format!(
                    "{} is detached, but what it holds on its source stays until the next start of the daemon",
                    dataset.name
                ))),
                Ok(()) => Ok(()),
            }
        })
    }

    /// Starts a job that links a detached dSource again: to its source, or to another server of the same cluster.
    pub fn attach(self: &Arc<Self>, name: &str, request: ChangeRequest) -> Result<JobHandle> {
        let dataset = self.dsource(name)?;
        if dataset.state != DatasetState::Detached {
            return Err(Error::new(ErrorKind::Precondition, format!("{name} is not detached")));
        }
        let request = self.change_with_source(&dataset, &request)?;
        let plan = self.plan_change(&dataset, JobKind::DbAttach, &request)?;
        self.relink(&dataset, JobKind::DbAttach, move |engine, dataset, task| {
            engine.carry_out_attach(dataset, plan, &request, task)
        })
    }

    fn dsource(&self, name: &str) -> Result<Dataset> {
        let dataset = self.dataset(name)?;
        if dataset.role == Role::Dsource {
            return Ok(dataset);
        }
        Err(Error::new(ErrorKind::Precondition, format!("{name} is a VDB, not a dSource")))
    }

    fn relink(
        self: &Arc<Self>,
        dataset: &Dataset,
        kind: JobKind,
        body: impl FnOnce(&Arc<Self>, &Dataset, &mut JobTask) -> Result<()> + Send + 'static,
    ) -> Result<JobHandle> {
        let (engine, id) = (Arc::clone(self), dataset.id);
        let new = NewJob { kind, target: &dataset.name, dataset: Some(id), holds: vec![(id, Hold::Operate)] };
        let asked = dataset.state;
        self.submit(new, move |task| {
            let dataset = engine.dataset_by_id(id)?;
            // Asked of another job's doing since: what was planned is not for what it is now.
            if dataset.state != asked {
                return Err(Error::new(
                    ErrorKind::Precondition,
                    format!("{} has changed since this was asked for: ask again", dataset.name),
                ));
            }
            body(&engine, &dataset, task)
        })
    }

    /// Writes the new configuration down and starts the server with it; goes back to the old one when it does not start.
    fn carry_out_change(
        &self,
        old: &Dataset,
        config: Value,
        request: &ChangeRequest,
        task: &mut JobTask,
    ) -> Result<()> {
        // Only these: a hook's may change meanwhile.
        let before = self.secrets.get(old.id)?;
        let running = old.state == DatasetState::Active;
        // With the new ones already, which were tried: the old ones may not be good for anything any more.
        self.take_secrets(old.id, request)?;
        let changed = if running { self.stop_server(old, task) } else { Ok(()) };
        let changed = changed.and_then(|()| self.write_change(old, config, request)).and_then(|new| {
            if running {
                self.start_server(&new, task)?
            }
            self.pass_secrets_on(old, &before)
        });
        let Err(error) = changed else { return Ok(()) };
        task.log(&format!("failed: {error}"));
        task.compensate("go back to the old configuration");
        let back = self
            .catalog
            .change(|change| {
                change.update::<Dataset>(old.id, |dataset| {
                    dataset.config = old.config.clone();
                    (dataset.port, dataset.images, dataset.source) = (old.port, old.images, old.source);
                })
            })
            .and_then(|back| {
                self.give_back_secrets(old.id, request, &before)?;
                if running { self.start_server(&back, task) } else { Ok(()) }
            });
        if let Err(e) = back {
            task.warn(&format!("the server of {} could not be started again: {e}", old.name));
        }
        Err(error)
    }

    fn write_change(&self, old: &Dataset, config: Value, request: &ChangeRequest) -> Result<Dataset> {
        self.catalog.change(|change| {
            let port = request.port.unwrap_or(old.port);
            for other in change.list::<Dataset>()? {
                if other.id != old.id {
                    super::dataset::check_distinct(&other, &old.name, port)?;
                }
            }
            let source = source_after(change, old, request)?;
            change.update::<Dataset>(old.id, |dataset| {
                dataset.config = config;
                dataset.source = source;
                dataset.port = port;
                dataset.images = request.images.unwrap_or(dataset.images);
            })
        })
    }

    fn carry_out_attach(
        &self,
        old: &Dataset,
        plan: LinkPlan,
        request: &ChangeRequest,
        task: &mut JobTask,
    ) -> Result<()> {
        log_notes(&plan.warnings, task);
        let timeflow = self.current_timeflow(old)?;
        let adapter = Arc::clone(self.adapter(&old.adapter)?);
        // What an earlier link may have left. A source that is gone for good must not keep it from another.
        if let Err(e) = self.end_hold(&timeflow.id) {
            task.warn(&format!("given up: {e}; take it away there"));
        }
        let before = self.secrets.get(old.id)?;
        self.take_secrets(old.id, request)?;
        // Written first, so that a crash leaves nothing on the source that nobody knows.
        self.catalog.change(|change| {
            change.update::<Timeflow>(timeflow.id, |timeflow| timeflow.held = Some(plan.config.clone()))
        })?;
        let mut instance = self.instance(old, &timeflow)?;
        instance.config = plan.config;
        let attached = adapter.reconfigure(&instance).and_then(|config| {
            instance.config = config;
            adapter.attach(&instance, task)
        });
        let attached = attached.and_then(|()| {
            self.catalog.change(|change| {
                let source = source_after(change, old, request)?;
                change.update::<Timeflow>(timeflow.id, |timeflow| timeflow.held = None)?;
                change.update::<Dataset>(old.id, |dataset| {
                    dataset.config = instance.config.clone();
                    dataset.source = source;
                    dataset.state = DatasetState::Active;
                })
            })
        });
        let Err(error) = attached else { return Ok(()) };
        task.log(&format!("failed: {error}"));
        task.compensate("detach again");
        let undone = adapter.stop(&instance, task).and_then(|()| self.end_hold(&timeflow.id));
        let undone = self.give_back_secrets(old.id, request, &before).and(undone);
        if let Err(e) = undone {
            task.warn(&format!("not all could be taken back: {e}; the next start of the daemon tries again"));
        }
        Err(error)
    }

    /// Keeps the secrets that a request replaces for the end of the link that a timeflow leaves.
    fn keep_old_secrets(&self, timeflow: &Timeflow, request: &ChangeRequest) -> Result<()> {
        let kept = held_secrets(timeflow.id);
        self.secrets.update(timeflow.dataset, |secrets| {
            let old: Vec<_> = secrets
                .iter()
                .filter(|(name, value)| request.secrets.get(name).is_some_and(|new| new != *value))
                .map(|(name, value)| (format!("{kept}{name}"), value.clone()))
                .collect();
            secrets.extend(old);
        })
    }

    fn take_secrets(&self, dataset: u64, request: &ChangeRequest) -> Result<()> {
        self.secrets.update(dataset, |secrets| secrets.extend(request.secrets.0.clone()))
    }

    /// Gives the secrets that VDBs inherit to those that were made of a dataset and have what it had.
    fn pass_secrets_on(&self, parent: &Dataset, before: &Secrets) -> Result<()> {
        let names = self.adapter(&parent.adapter)?.inherited_secrets();
        let now = self.secrets.get(parent.id)?;
        let changed: Vec<(&str, &str, &str)> = names
            .iter()
            .filter_map(|name| Some((*name, before.get(name)?, now.get(name)?)))
            .filter(|(_, old, new)| old != new)
            .collect();
        let (mut open, mut known) = (vec![parent.id], vec![parent.id]);
        while let Some(dataset) = open.pop().filter(|_| !changed.is_empty()) {
            let snapshots: Vec<u64> =
                self.snapshots_of(dataset)?.iter().map(|snapshot| snapshot.id).collect();
            let made = self.catalog.select(|timeflow: &Timeflow| {
                timeflow.from_snapshot.is_some_and(|from| snapshots.contains(&from))
            })?;
            for child in made.iter().map(|timeflow| timeflow.dataset) {
                if known.contains(&child) {
                    continue;
                }
                known.push(child);
                open.push(child);
                self.secrets.update(child, |secrets| {
                    for (name, old, new) in &changed {
                        if let Some(value) = secrets.get_mut(*name).filter(|value| value == old) {
                            *value = (*new).to_owned();
                        }
                    }
                })?;
            }
        }
        Ok(())
    }

    /// Those that a request replaced become what they were.
    fn give_back_secrets(&self, dataset: u64, request: &ChangeRequest, before: &Secrets) -> Result<()> {
        self.secrets.update(dataset, |secrets| {
            secrets.retain(|name, _| !request.secrets.0.contains_key(name));
            let known = before.0.iter().filter(|(name, _)| request.secrets.0.contains_key(*name));
            secrets.extend(known.map(|(name, value)| (name.clone(), value.clone())));
        })
    }

    /// Ends what a timeflow's former link holds on a source, with the secrets that it had; no error when it holds
    /// nothing.
    pub(super) fn end_hold(&self, timeflow: &u64) -> Result<()> {
        let timeflow = self.timeflow(*timeflow)?;
        let Some(held) = timeflow.held.clone() else { return Ok(()) };
        let dataset = self.dataset_by_id(timeflow.dataset)?;
        let adapter: &Arc<dyn Adapter> = self.adapter(&dataset.adapter)?;
        let mut instance = self.instance(&dataset, &timeflow)?;
        let kept = held_secrets(timeflow.id);
        let old: Vec<_> = instance
            .secrets
            .0
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix(&kept)?.to_owned(), value.clone())))
            .collect();
        instance.secrets.0.extend(old);
        instance.config = held;
        adapter.unlink(&instance, &mut super::recover::Quiet)?;
        self.catalog
            .change(|change| change.update::<Timeflow>(timeflow.id, |timeflow| timeflow.held = None))?;
        self.forget_old_secrets(&timeflow)
    }

    fn forget_old_secrets(&self, timeflow: &Timeflow) -> Result<()> {
        let kept = held_secrets(timeflow.id);
        self.secrets.update(timeflow.dataset, |secrets| secrets.retain(|name, _| !name.starts_with(&kept)))
    }

    /// Starts a job that takes a new first copy into a new timeflow, with the old one readable meanwhile. Snapshots of the
    /// old one stay; equal blocks are stored once.
    pub fn resync(self: &Arc<Self>, name: &str, request: ChangeRequest) -> Result<JobHandle> {
        let dataset = self.dsource(name)?;
        if dataset.state != DatasetState::Detached {
            self.check_operable(&dataset)?;
        }
        let request = self.change_with_source(&dataset, &request)?;
        let plan = self.plan_change(&dataset, JobKind::DbResync, &request)?;
        self.relink(&dataset, JobKind::DbResync, move |engine, dataset, task| {
            engine.carry_out_resync(dataset, plan, &request, task)
        })
    }

    fn carry_out_resync(
        self: &Arc<Self>,
        dataset: &Dataset,
        plan: LinkPlan,
        request: &ChangeRequest,
        task: &mut JobTask,
    ) -> Result<()> {
        log_notes(&plan.warnings, task);
        let old = self.current_timeflow(dataset)?;
        let before = self.secrets.get(dataset.id)?;
        self.keep_old_secrets(&old, request)?;
        self.take_secrets(dataset.id, request)?;
        let new = self.new_resync_timeflow(dataset, &old, plan.config.clone())?;
        let mut instance = self.instance(dataset, &new)?;
        instance.config = plan.config;
        if let Err(error) = self.build_resync(dataset, (&old, &new), request, &mut instance, task) {
            task.log(&format!("failed: {error}"));
            task.compensate("go back to the old copy");
            self.abandon_resync(dataset, &new, &instance, (request, &before), task);
            if let Err(e) = self.forget_old_secrets(&old) {
                task.warn(&format!("the secrets of the old link are kept twice: {e}"));
            }
            return Err(error);
        }
        task.compensate("end the old link");
        if let Err(e) = self.end_hold(&old.id) {
            task.warn(&format!("the old link: {e}; the next start of the daemon tries again"));
        }
        task.result("timeflow", &new.volume);
        match self.queue_first_sync(&self.dataset_by_id(dataset.id)?, task) {
            Ok(sync) => task.result("next_job", &sync.id.to_string()),
            Err(e) => task.warn(&format!("the first snapshot is not under way: {e}; take it by hand")),
        }
        Ok(())
    }

    fn new_resync_timeflow(&self, dataset: &Dataset, old: &Timeflow, config: Value) -> Result<Timeflow> {
        let (volume, log_volume) = self.timeflow_volumes(&dataset.name, old.log_volume.is_some())?;
        let created = self.now();
        self.catalog.change(|change| {
            let timeflow = Timeflow {
                id: change.next_id()?,
                dataset: dataset.id,
                place: place(dataset.mount_base.as_deref(), &volume),
                volume,
                log_volume,
                state: TimeflowState::Building,
                created,
                from_snapshot: None,
                from: None,
                retired: None,
                held: Some(config),
            };
            change.put(&timeflow)?;
            Ok(timeflow)
        })
    }

    fn build_resync(
        &self,
        dataset: &Dataset,
        (old, new): (&Timeflow, &Timeflow),
        request: &ChangeRequest,
        instance: &mut Instance,
        task: &mut JobTask,
    ) -> Result<()> {
        let adapter = Arc::clone(self.adapter(&dataset.adapter)?);
        task.step("create the volume")?;
        self.make_volume(new, |volume| self.volumes.create(volume))?;
        self.make_log_volume(new)?;
        adapter.ingest(instance, task)?;
        // Both have the same port and settings' folder.
        self.stop_server(dataset, task)?;
        task.step("start the staging server")?;
        adapter.start_staging(instance, task)?;
        let (now, left) = (self.now(), dataset.config.clone());
        let was_attached = dataset.state != DatasetState::Detached;
        self.catalog.change(|change| {
            let source = source_after(change, dataset, request)?;
            change.update::<Timeflow>(old.id, |timeflow| {
                timeflow.state = TimeflowState::Retired;
                timeflow.retired = Some(now);
                if was_attached {
                    timeflow.held = Some(left);
                }
            })?;
            change.update::<Timeflow>(new.id, |timeflow| {
                timeflow.state = TimeflowState::Current;
                timeflow.held = None;
            })?;
            change.update::<Dataset>(dataset.id, |dataset| {
                dataset.timeflow = Some(new.id);
                dataset.state = DatasetState::Active;
                dataset.config = instance.config.clone();
                dataset.source = source;
            })
        })?;
        Ok(())
    }

    fn abandon_resync(
        &self,
        dataset: &Dataset,
        new: &Timeflow,
        instance: &Instance,
        (request, before): (&ChangeRequest, &Secrets),
        task: &mut JobTask,
    ) {
        let undone = self.adapter(&dataset.adapter).and_then(|adapter| {
            adapter.stop(instance, task)?;
            self.end_hold(&new.id)?;
            self.remove_timeflow(new)
        });
        let undone = self.give_back_secrets(dataset.id, request, before).and(undone);
        if let Err(e) = undone {
            task.warn(&format!("not all could be taken back: {e}; the next start of the daemon tries again"));
        }
        if dataset.state == DatasetState::Active
            && let Err(e) = self.start_server(dataset, task)
        {
            task.warn(&format!("the server of {} could not be started again: {e}", dataset.name));
        }
    }
}

/// How the names of the secrets begin that a timeflow's former link had.
fn held_secrets(timeflow: u64) -> String {
    format!("held{OWN}{timeflow}{OWN}")
}
