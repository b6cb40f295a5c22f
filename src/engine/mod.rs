//! The operations on datasets: link, sync, snapshot, provision, refresh, delete; and the jobs that carry them out.
//!
//! Every operation first writes to the catalog what it is about to make, in a state that says so; a process that ends
//! in between leaves a record that the next start removes together with all it names (`recover`). Knows databases
//! only as adapters, storage only as `Volumes`, and nothing of HTTP or arguments.

mod backup_points;
mod backup_policies;
mod backup_restore;
mod backup_runs;
mod backup_views;
mod backups;
mod dataset;
mod door;
mod environments;
mod export;
mod faults;
mod file_check;
mod groups;
mod hooks;
mod images;
mod jobs;
mod link;
mod locks;
mod logs;
mod names;
mod past;
mod places;
mod points;
mod policies;
#[cfg(test)]
mod policy_tests;
mod provision;
#[cfg(test)]
mod record_tests;
mod recover;
mod relink;
mod retention;
mod run_hooks;
mod secrets;
mod simulate;
mod snapshot;
mod sources;
mod state;
mod ticks;
mod tokens;
mod vdb;
mod verify;
mod volumes;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;

pub use backup_restore::RestoreRequest;
pub use backup_runs::BackupRequest;
pub use backup_views::{BackedUpDatabase, BackupSetView, ConversionView, RestorePlanView, RestorePointView};
pub use backups::ProtectRequest;
pub use dataset::{DatasetView, Listing};
pub use environments::{EnvironmentView, RepositoryView};
pub use groups::{GroupView, default_group};
pub use hooks::{Attachments, HookSource, NewHook};
pub use jobs::{JobHandle, JobLog};
pub use link::LinkRequest;
pub use policies::{BoundPolicy, NewPolicy, PolicyView};
pub use provision::ProvisionRequest;
pub use relink::ChangeRequest;
pub use retention::SnapshotVerdict;
pub use simulate::{ScheduledRuns, Simulation, SimulationRequest};
pub use sources::{NewSource, SourceChange, SourceView};
pub use tokens::{Shown, TokenRequest};
pub use volumes::Volumes;
#[cfg(test)]
pub(crate) use volumes::testing::Names;

use crate::adapter::{Adapter, Instance, LinkPlan, Problem};
use crate::base::{Clock, Error, ErrorKind, Random, Result, Storage};
use crate::catalog::{BackupSet, Catalog, Dataset, Event, Job, Severity, Timeflow};
use jobs::Runner;
use locks::Locks;
use secrets::SecretStore;

/// What an engine is made of.
pub struct Parts {
    pub catalog: Catalog,
    /// Where the catalog lies, for its copy.
    pub storage: Arc<dyn Storage>,
    pub adapters: Vec<Arc<dyn Adapter>>,
    pub volumes: Arc<dyn Volumes>,
    /// The store's directory, absolute: whose the state folder is.
    pub store: PathBuf,
    /// Outside every volume: sockets, settings, secrets, logs. Only root can list it.
    pub state: PathBuf,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    /// Jobs that run at a time.
    pub jobs_max: usize,
    /// The mount, when it is that of an earlier engine, whose servers may go on there.
    pub kept_mount: Option<PathBuf>,
}

/// The engine. Cheap to share: jobs hold it, too.
pub struct Engine {
    catalog: Catalog,
    storage: Arc<dyn Storage>,
    adapters: BTreeMap<&'static str, Arc<dyn Adapter>>,
    volumes: Arc<dyn Volumes>,
    state: PathBuf,
    store: PathBuf,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    secrets: SecretStore,
    locks: Locks,
    /// How often servers were started again, and when the next time is.
    restarts: Mutex<HashMap<u64, (u32, Duration)>>,
    /// How often syncs of what a look saw were asked for, and when the next may be.
    syncs: Mutex<HashMap<u64, (u32, Duration)>>,
    /// What each source said last of its staging server, and when it is asked again.
    sources: Mutex<HashMap<u64, (Duration, Vec<Problem>)>>,
    /// Datasets whose servers could not be let go on after a snapshot.
    held: Mutex<HashSet<u64>>,
    /// What policies wait for.
    ticks: Mutex<ticks::Ticks>,
    hooks: crate::hook::Runner,
    runner: Runner,
    /// Whether servers of an earlier engine may run.
    servers_kept: bool,
}

impl Engine {
    /// Makes the engine, and clears away what an ended process left half done. Servers are not started yet.
    pub fn open(parts: Parts) -> Result<Arc<Self>> {
        state::claim(&parts.state, &parts.store)?;
        make_folder(&parts.state.join("instances"), 0o711)?;
        make_folder(&parts.state.join("jobs"), 0o700)?;
        let secrets = SecretStore::open(parts.state.join("secrets"), Arc::clone(&parts.random))?;
        let hooks = run_hooks::runner(&parts)?;
        let engine = Arc::new(Self {
            catalog: parts.catalog,
            storage: parts.storage,
            adapters: parts.adapters.into_iter().map(|adapter| (adapter.kind(), adapter)).collect(),
            volumes: parts.volumes,
            state: parts.state,
            store: parts.store,
            clock: parts.clock,
            random: parts.random,
            secrets,
            locks: Locks::default(),
            restarts: Mutex::default(),
            syncs: Mutex::default(),
            sources: Mutex::default(),
            held: Mutex::default(),
            ticks: Mutex::default(),
            hooks,
            runner: Runner::new(parts.jobs_max),
            servers_kept: parts.kept_mount.is_some(),
        });
        engine.open_environment()?;
        engine.show_volumes()?;
        if let Some(mount) = &parts.kept_mount {
            engine.end_interrupted_servers(mount)?;
        }
        engine.recover()?;
        Ok(engine)
    }

    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Asks the source what a link would do; changes nothing.
    pub fn plan_link(&self, request: &LinkRequest) -> Result<LinkPlan> {
        self.plan_link_at(&self.link_with_source(request)?).map(|(plan, _)| plan)
    }

    /// The same, with the port it would have.
    fn plan_link_at(&self, request: &LinkRequest) -> Result<(LinkPlan, u16)> {
        self.check_new_name(&request.name)?;
        secrets::check_secret_names(&request.secrets)?;
        self.check_group(&request.group)?;
        self.check_attachments(crate::catalog::Role::Dsource, &request.attachments)?;
        let adapter = self.adapter(&request.adapter)?;
        if let Some(base) = &request.mount_base {
            self.check_mount_base(base)?;
        }
        let port = request.port.map_or_else(|| self.free_port(), Ok)?;
        self.check_port_free(port)?;
        let mut plan = adapter.plan_link(&request.adapter_request(port), &request.secrets)?;
        if let Some(source) = &request.source {
            plan.review.insert(0, ("source config".into(), source.clone()));
        }
        Ok((plan, port))
    }

    fn adapter(&self, kind: &str) -> Result<&Arc<dyn Adapter>> {
        self.adapters.get(kind).ok_or_else(|| {
            let known: Vec<&str> = self.adapters.keys().copied().collect();
            Error::invalid(format!("there is no adapter {kind}: there are {}", known.join(", ")))
        })
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::from_nanosecond(i128::from(self.clock.unix_nanos())).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// A dataset's server on one of its timeflows.
    fn instance(&self, dataset: &Dataset, timeflow: &Timeflow) -> Result<Instance> {
        let instance = self.instance_of(dataset, &timeflow.volume, timeflow.log_volume.as_deref())?;
        Ok(match &timeflow.place {
            Some(place) => Instance { volume: place.clone(), ..instance },
            None => instance,
        })
    }

    fn instance_of(&self, dataset: &Dataset, volume: &str, logs: Option<&str>) -> Result<Instance> {
        Ok(Instance {
            name: dataset.name.clone(),
            volume: self.volumes.folder(volume),
            state: self.instance_state(dataset.id),
            logs: logs.map(|volume| self.volumes.folder(volume)),
            port: dataset.port,
            config: dataset.config.clone(),
            secrets: self.secrets.get(dataset.id)?,
        })
    }

    fn instance_state(&self, dataset: u64) -> PathBuf {
        self.state.join("instances").join(dataset.to_string())
    }

    /// Removes the state folder of a dataset's or image's server; it is no error when it is not there.
    fn remove_state(&self, id: u64) -> Result<()> {
        let state = self.instance_state(id);
        match std::fs::remove_dir_all(&state) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", &state.display().to_string(), e))
            }
            _ => Ok(()),
        }
    }

    fn current_timeflow(&self, dataset: &Dataset) -> Result<Timeflow> {
        let id = dataset.timeflow.ok_or_else(|| {
            Error::new(ErrorKind::Precondition, format!("{} has no timeflow yet", dataset.name))
        })?;
        self.timeflow(id)
    }

    fn timeflow(&self, id: u64) -> Result<Timeflow> {
        self.catalog.get(id)?.ok_or_else(|| Error::corrupt(format!("the catalog lacks timeflow {id}")))
    }

    /// Writes down that something happened.
    fn event(&self, severity: Severity, kind: &str, dataset: Option<u64>, job: Option<u64>, message: &str) {
        let time = self.now();
        let written = self.catalog.change(|change| {
            let id = change.next_id()?;
            let of_dataset = dataset.map(|id| change.get::<Dataset>(id)).transpose()?.flatten();
            let of_set = dataset.map(|id| change.get::<BackupSet>(id)).transpose()?.flatten();
            // A deletion's own event comes when the dataset is gone.
            let of_job = job.map(|id| change.get::<Job>(id)).transpose()?.flatten();
            change.put(&Event {
                id,
                group: of_dataset
                    .map(|found| found.group)
                    .or(of_set.map(|found| found.group))
                    .or_else(|| of_job?.group),
                time,
                severity,
                kind: kind.to_owned(),
                dataset,
                job,
                message: message.to_owned(),
            })
        });
        if let Err(e) = written {
            // What happened, happened; its record is no reason to fail it.
            tracing::error!("event {kind} ({message}) is not recorded: {e}");
        }
        self.runner.changed();
    }
}

fn make_folder(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let shown = path.display().to_string();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)))
        .map_err(|e| Error::io("create", &shown, e))
}
