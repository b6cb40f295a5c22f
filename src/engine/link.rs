//! Linking a source: a new dSource with its staging server, and its first snapshot.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::Engine;
use super::groups::ensure_group;
use super::hooks::Attachments;
use super::jobs::{JobHandle, JobTask, NewJob};
use super::locks::Hold;
use super::places::place;
use super::sources::number_of;
use crate::adapter::{Secrets, Task};
use crate::base::{ErrorKind, Result};
use crate::catalog::{Dataset, DatasetState, JobKind, Role, Timeflow, TimeflowState};

/// What is asked for with a link.
#[derive(Clone, Debug)]
pub struct LinkRequest {
    pub name: String,
    pub group: String,
    pub adapter: String,
    /// A source config, whose address and password are taken.
    pub source: Option<String>,
    /// A free one when absent.
    pub port: Option<u16>,
    /// The adapter's own: source, mode, settings.
    pub parameters: Value,
    pub secrets: Secrets,
    /// Whether logs are kept for points in time.
    pub logs: bool,
    /// Whether an image of the newest snapshot is kept ready.
    pub images: bool,
    pub attachments: Attachments,
    /// The folder below which its volumes are shown; in the mount alone when absent.
    pub mount_base: Option<PathBuf>,
}

impl LinkRequest {
    /// The parameters with what every link has.
    pub(super) fn adapter_request(&self, port: u16) -> Value {
        let mut request = self.parameters.clone();
        if let Value::Object(fields) = &mut request {
            fields.insert("name".into(), self.name.clone().into());
            fields.insert("port".into(), port.into());
        }
        request
    }
}

impl Engine {
    /// Starts a link: job `DB_LINK`, and after it `DB_SYNC`. Asks the source first, and refuses at once what cannot be.
    pub fn link(self: &Arc<Self>, request: LinkRequest) -> Result<JobHandle> {
        let request = self.link_with_source(&request)?;
        let (plan, port) = self.plan_link_at(&request)?;
        let (dataset, timeflow) = self.new_dataset(&request, port, plan.config)?;
        let kept = self.secrets.put(dataset.id, &request.secrets);
        if let Err(e) = kept.and_then(|()| self.attach_all(&dataset, &request.attachments)) {
            self.forget(dataset.id)?;
            return Err(e);
        }
        let new = NewJob {
            kind: JobKind::DbLink,
            target: &dataset.name.clone(),
            dataset: Some(dataset.id),
            holds: vec![(dataset.id, Hold::Replace)],
        };
        let engine = Arc::clone(self);
        let id = dataset.id;
        let warnings = plan.warnings;
        let accepted = self.submit(new, move |task| {
            log_notes(&warnings, task);
            engine.carry_out_link(dataset, &timeflow, task)
        });
        if accepted.is_err() {
            self.forget(id)?;
        }
        accepted
    }

    fn new_dataset(&self, request: &LinkRequest, port: u16, config: Value) -> Result<(Dataset, Timeflow)> {
        let abilities = self.adapter(&request.adapter)?.abilities();
        let created = self.now();
        let volume = self.new_volume_name(&request.name)?;
        let log_volume =
            Some(self.new_volume_name_for(&request.name, "log-")?).filter(|_| request.logs && abilities.logs);
        let (dataset, timeflow, new_group) = self.catalog.change(|change| {
            // Looked at again where nobody else can add one meanwhile.
            for other in change.list::<Dataset>()? {
                super::dataset::check_distinct(&other, &request.name, port)?;
            }
            let source = number_of(change, request.source.as_deref())?;
            let new_group = ensure_group(change, &request.group, created)?;
            let id = change.next_id()?;
            let timeflow = Timeflow {
                id: change.next_id()?,
                dataset: id,
                place: place(request.mount_base.as_deref(), &volume),
                volume,
                log_volume,
                state: TimeflowState::Building,
                created,
                from_snapshot: None,
                from: None,
                retired: None,
                held: None,
            };
            let dataset = Dataset {
                id,
                name: request.name.clone(),
                group: request.group.clone(),
                role: Role::Dsource,
                adapter: request.adapter.clone(),
                config,
                state: DatasetState::Creating,
                created,
                port,
                timeflow: Some(timeflow.id),
                locked: false,
                images: request.images && abilities.images,
                source,
                mount_base: request.mount_base.clone(),
            };
            change.put(&timeflow)?;
            change.put(&dataset)?;
            Ok((dataset, timeflow, new_group))
        })?;
        self.group_made(new_group, &dataset.group);
        Ok((dataset, timeflow))
    }

    fn carry_out_link(
        self: &Arc<Self>,
        dataset: Dataset,
        timeflow: &Timeflow,
        task: &mut JobTask,
    ) -> Result<()> {
        let result = self.build(&dataset, timeflow, task);
        if let Err(error) = result {
            task.log(&format!("failed: {error}"));
            task.compensate("take back what was made");
            self.take_back(&dataset, task);
            return Err(error);
        }
        task.result("dataset", &dataset.name);
        // Queued before the link is told as done, so that who waits for it finds the next job.
        match self.queue_first_sync(&dataset, task) {
            Ok(sync) => task.result("next_job", &sync.id.to_string()),
            Err(e) => task.warn(&format!("the first snapshot is not under way: {e}; take it by hand")),
        }
        Ok(())
    }

    fn build(&self, dataset: &Dataset, timeflow: &Timeflow, task: &mut JobTask) -> Result<()> {
        let adapter = Arc::clone(self.adapter(&dataset.adapter)?);
        task.step("create the volume")?;
        self.make_volume(timeflow, |volume| self.volumes.create(volume))?;
        self.make_log_volume(timeflow)?;
        let instance = self.instance(dataset, timeflow)?;
        adapter.ingest(&instance, task)?;
        task.step("start the staging server")?;
        adapter.start_staging(&instance, task)?;
        self.catalog.change(|change| {
            change.update::<Timeflow>(timeflow.id, |timeflow| timeflow.state = TimeflowState::Current)?;
            change.update::<Dataset>(dataset.id, |dataset| dataset.state = DatasetState::Active)?;
            Ok(())
        })
    }

    /// Makes a timeflow's volume. One of that name that is there already is somebody else's: the record lets go of it.
    pub(super) fn make_volume(
        &self,
        timeflow: &Timeflow,
        make: impl FnOnce(&str) -> Result<()>,
    ) -> Result<()> {
        let made = make(&timeflow.volume);
        if made.as_ref().is_err_and(|e| e.kind() == ErrorKind::Exists) {
            self.catalog.change(|change| change.remove::<Timeflow>(timeflow.id))?;
        }
        made?;
        self.limit_volume(timeflow)?;
        self.show_volume(timeflow)
    }

    /// Undoes a link or a provision that failed. What cannot be undone is a warning that says what is left where; the
    /// next start tries again.
    pub(super) fn take_back(&self, dataset: &Dataset, task: &mut JobTask) {
        if let Err(e) = self.remove_dataset(dataset, false, task) {
            task.warn(&format!("not all could be taken back: {e}; the next start of the daemon tries again"));
        }
    }
}

/// What a plan has to say, for the job's log.
pub(super) fn log_notes(warnings: &[String], task: &mut JobTask) {
    for warning in warnings {
        task.log(&format!("note: {warning}"));
    }
}
