//! Provisioning: a VDB from a snapshot of a dSource or of a VDB.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use super::Engine;
use super::groups::ensure_group;
use super::hooks::Attachments;
use super::jobs::{JobHandle, JobTask, NewJob};
use super::locks::Hold;
use super::names::check_name;
use super::places::place;
use super::points::Origin;
use super::secrets::check_secret_names;
use super::snapshot::require_ready;
use crate::adapter::{Parent, Secrets, Target, Task, VdbOptions};
use crate::base::{Error, ErrorKind, Result};
use crate::catalog::{Dataset, DatasetState, JobKind, Role, Snapshot, Timeflow, TimeflowState};
use crate::hook::HookPoint;

/// Another program may take a free port between our look and the server's start.
const PORT_ATTEMPTS_MAX: usize = 100;

/// What is asked for with a new VDB.
#[derive(Clone, Debug)]
pub struct ProvisionRequest {
    pub name: String,
    pub group: String,
    /// `DATASET@SNAPSHOT`, or `DATASET` for its newest, or for a point in time.
    pub from: String,
    pub target: Target,
    /// A free one when absent.
    pub port: Option<u16>,
    pub settings: BTreeMap<String, String>,
    /// Whether logs are kept for points in time.
    pub logs: bool,
    /// The role as which it is used, and databases that get another name.
    pub owner: Option<String>,
    pub renames: BTreeMap<String, String>,
    /// The owner's password.
    pub secrets: Secrets,
    pub attachments: Attachments,
    /// The folder below which its volumes are shown; in the mount alone when absent.
    pub mount_base: Option<PathBuf>,
}

impl Engine {
    /// Starts a job that makes a VDB.
    pub fn provision(self: &Arc<Self>, request: &ProvisionRequest) -> Result<JobHandle> {
        check_name("VDB", &request.name)?;
        check_secret_names(&request.secrets)?;
        self.check_new_name(&request.name)?;
        let origin = self.find_origin(&request.from, &request.target)?;
        self.check_attachments(Role::Vdb, &request.attachments)?;
        if let Some(base) = &request.mount_base {
            self.check_mount_base(base)?;
        }
        let options = VdbOptions {
            settings: request.settings.clone(),
            owner: request.owner.clone(),
            renames: request.renames.clone(),
        };
        let parent = &origin.parent;
        let adapter = self.adapter(&parent.adapter)?;
        let config = adapter.plan_vdb(&parent.config, &origin.snapshot.metadata, &options)?;
        let port = match request.port {
            Some(port) => port,
            None => self.free_port()?,
        };
        let (dataset, timeflow) = self.new_vdb(request, &origin, config, port)?;
        let mut secrets = self.inherited_secrets(&origin.parent)?;
        secrets.0.extend(request.secrets.0.clone());
        let kept = self.secrets.put(dataset.id, &secrets);
        if let Err(e) = kept.and_then(|()| self.attach_all(&dataset, &request.attachments)) {
            self.forget(dataset.id)?;
            return Err(e);
        }
        let new = NewJob {
            kind: JobKind::DbProvision,
            target: &request.name,
            dataset: Some(dataset.id),
            holds: vec![(dataset.id, Hold::Replace), (parent.id, origin.hold)],
        };
        let (engine, id) = (Arc::clone(self), dataset.id);
        let accepted =
            self.submit(new, move |task| engine.carry_out_provision(&dataset, &timeflow, &origin, task));
        if accepted.is_err() {
            self.forget(id)?;
        }
        accepted
    }

    fn new_vdb(
        &self,
        request: &ProvisionRequest,
        origin: &Origin,
        config: serde_json::Value,
        port: u16,
    ) -> Result<(Dataset, Timeflow)> {
        let created = self.now();
        let logs = request.logs && self.adapter(&origin.parent.adapter)?.abilities().vdb_logs;
        let volumes = self.timeflow_volumes(&request.name, logs)?;
        let (dataset, timeflow, new_group) = self.catalog.change(|change| {
            require_ready(change, origin.snapshot.id)?;
            for other in change.list::<Dataset>()? {
                super::dataset::check_distinct(&other, &request.name, port)?;
            }
            let new_group = ensure_group(change, &request.group, created)?;
            let id = change.next_id()?;
            let timeflow = Timeflow {
                place: place(request.mount_base.as_deref(), &volumes.0),
                ..new_timeflow(change.next_id()?, id, volumes, created, origin)
            };
            let dataset = Dataset {
                id,
                name: request.name.clone(),
                group: request.group.clone(),
                role: Role::Vdb,
                adapter: origin.parent.adapter.clone(),
                config,
                state: DatasetState::Creating,
                created,
                port,
                timeflow: Some(timeflow.id),
                locked: false,
                images: false,
                source: None,
                mount_base: request.mount_base.clone(),
            };
            change.put(&timeflow)?;
            change.put(&dataset)?;
            Ok((dataset, timeflow, new_group))
        })?;
        self.group_made(new_group, &dataset.group);
        Ok((dataset, timeflow))
    }

    fn carry_out_provision(
        &self,
        dataset: &Dataset,
        timeflow: &Timeflow,
        origin: &Origin,
        task: &mut JobTask,
    ) -> Result<()> {
        let made = self.fill_timeflow(dataset, timeflow, origin, task);
        let made = made.and_then(|()| self.hooks_at(HookPoint::ConfigureClone, dataset, timeflow, task));
        let made = made.and_then(|()| {
            self.catalog.change(|change| {
                change.update::<Timeflow>(timeflow.id, |timeflow| timeflow.state = TimeflowState::Current)?;
                change.update::<Dataset>(dataset.id, |dataset| dataset.state = DatasetState::Active)
            })
        });
        if let Err(error) = made {
            task.log(&format!("failed: {error}"));
            task.compensate("take back what was made");
            self.take_back(dataset, task);
            return Err(error);
        }
        task.result("dataset", &dataset.name);
        Ok(())
    }

    /// What a VDB of a dataset, and any other clone of it, gets of its secrets.
    pub(super) fn inherited_secrets(&self, parent: &Dataset) -> Result<Secrets> {
        let names = self.adapter(&parent.adapter)?.inherited_secrets();
        let mut secrets = self.secrets.get(parent.id)?;
        secrets.0.retain(|name, _| names.contains(&name.as_str()));
        Ok(secrets)
    }

    /// Clones a snapshot into a timeflow's volume and makes it a running database.
    pub(super) fn fill_timeflow(
        &self,
        dataset: &Dataset,
        timeflow: &Timeflow,
        origin: &Origin,
        task: &mut JobTask,
    ) -> Result<()> {
        let Origin { parent, timeflow: from, snapshot, target, .. } = origin;
        task.step("clone")?;
        let mut recovered = false;
        self.make_volume(timeflow, |volume| {
            recovered = *target == Target::Snapshot && self.clone_image(snapshot, volume)?;
            if recovered {
                return Ok(());
            }
            self.volumes.clone_snapshot(&from.volume, &snapshot.name, volume)
        })?;
        self.make_log_volume(timeflow)?;
        let instance = self.instance(dataset, timeflow)?;
        if recovered {
            task.step("start the server")?;
            return self.adapter(&dataset.adapter)?.adopt(&instance, task);
        }
        let of = self.instance(parent, from)?;
        let parent = Parent { instance: &of, may_sync: origin.hold != Hold::Use };
        self.adapter(&dataset.adapter)?.provision(&instance, &snapshot.metadata, target, Some(parent), task)
    }

    /// Names for a new timeflow's volume and for that of its logs.
    pub(super) fn timeflow_volumes(&self, name: &str, logs: bool) -> Result<(String, Option<String>)> {
        let logs = logs.then(|| self.new_volume_name_for(name, "log-")).transpose()?;
        Ok((self.new_volume_name(name)?, logs))
    }

    /// A port that nobody listens at now and no dataset has.
    pub(super) fn free_port(&self) -> Result<u16> {
        let taken: Vec<u16> =
            self.catalog.list::<Dataset>()?.into_iter().map(|dataset| dataset.port).collect();
        for _ in 0..PORT_ATTEMPTS_MAX {
            let found = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
            let port = found.map_err(|e| Error::io("find", "a free port", e))?.port();
            if !taken.contains(&port) {
                return Ok(port);
            }
        }
        Err(Error::new(ErrorKind::InUse, "no free port was found: name one with --port"))
    }
}

/// A timeflow whose volume will be a clone of a snapshot.
pub(super) fn new_timeflow(
    id: u64,
    dataset: u64,
    (volume, log_volume): (String, Option<String>),
    created: jiff::Timestamp,
    origin: &Origin,
) -> Timeflow {
    Timeflow {
        id,
        dataset,
        volume,
        log_volume,
        place: None,
        state: TimeflowState::Building,
        created,
        from_snapshot: Some(origin.snapshot.id),
        from: Some(origin.shown()),
        retired: None,
        held: None,
    }
}

pub(super) fn check_provisionable(parent: &Dataset, snapshot: &Snapshot) -> Result<()> {
    match &snapshot.unprovisionable {
        Some(reason) => Err(Error::new(
            ErrorKind::Precondition,
            format!("nothing can be provisioned from {}@{}: {reason}", parent.name, snapshot.name),
        )),
        None => Ok(()),
    }
}
