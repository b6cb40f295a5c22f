//! PostgreSQL: staging servers that follow a source by streaming, and clones of their files as databases.
//!
//! Every server runs in a mount namespace of its own, with its settings outside its volume. SQL goes over
//! tokio-postgres, the rest over the programs of the cluster's own major version.

pub mod backup;
mod change;
mod clone;
pub mod compression;
mod conf;
mod config;
pub mod control;
mod controldata;
mod export;
mod external;
mod files;
pub mod history;
mod installation;
mod link;
mod logs;
pub mod lsn;
mod owner;
mod point;
mod program;
mod recovery;
mod replica;
pub mod restore;
mod restore_points;
mod server;
mod snapshot;
mod source;
mod sql;
mod tls;
mod trouble;
mod verify;
pub mod wal;
mod wal_folder;

pub use installation::{Installation, Installations, POSTGRES_VARIABLE};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use serde_json::Value;

use super::{
    Abilities, Adapter, ChangeKind, Described, Health, History, HookAccess, HookSource, Instance, LinkPlan,
    Parent, Point, Repository, Secrets, SourceFacts, Span, Synced, Target, Task, Told, VdbOptions, Verified,
};
use crate::base::{Clock, OsUser, Random, Result};
use config::{Config, Metadata, SourceAddress, keep, read};
use server::Server;

/// The database to connect to when none is asked for.
const DATABASE: &str = "postgres";

/// The adapter.
pub struct Postgres {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    /// Changed while operations run: each one takes what there is when it begins.
    installations: RwLock<Installations>,
}

impl Postgres {
    pub fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>, installations: Installations) -> Self {
        Self { clock, random, installations: RwLock::new(installations) }
    }

    fn installations(&self) -> Installations {
        self.installations.read().clone()
    }

    fn repository(&self, found: Installation) -> Result<Repository> {
        Ok(Repository {
            adapter: self.kind().into(),
            version: found.version().unwrap_or_else(|| found.major.to_string()),
            programs: found.programs,
            user: OsUser::for_servers("postgres")?.name,
        })
    }

    fn server<'a>(&'a self, instance: &'a Instance) -> Result<Server<'a>> {
        let config: Config = read(&format!("the configuration of {}", instance.name), &instance.config)?;
        Server::new(instance, config, &*self.clock)
    }
}

fn bases(history: &History<'_>) -> Result<Vec<Option<point::Base>>> {
    let base = |metadata: &&Value| Ok(point::Base::of(&read("the snapshot's records", metadata)?));
    history.bases.iter().map(base).collect()
}

impl Adapter for Postgres {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    fn abilities(&self) -> Abilities {
        Abilities { logs: true, vdb_logs: true, images: true, verifies: true, checks_files: false }
    }

    fn discover(&self) -> Result<Vec<Repository>> {
        self.installations().found().into_iter().map(|found| self.repository(found)).collect()
    }

    fn discover_in(&self, folder: &Path) -> Result<Vec<Repository>> {
        Installations::in_folder(folder).into_iter().map(|found| self.repository(found)).collect()
    }

    fn use_repositories(&self, added: Vec<PathBuf>, disabled: Vec<PathBuf>) {
        self.installations.write().choose(added, disabled);
    }

    fn programs(&self, config: &Value) -> Option<PathBuf> {
        read::<Config>("the configuration", config).ok().map(|config| config.programs)
    }

    fn ask_address(&self, address: &Value, secrets: &Secrets) -> Result<SourceFacts> {
        let address: SourceAddress = read("the source's address", address)?;
        let user = OsUser::for_servers("postgres")?;
        let found = link::ask_source(&address, &user, secrets, self)?;
        Ok(SourceFacts {
            version: found.version,
            identity: found.system_id,
            size_bytes: found.bytes,
            warnings: found.warnings,
        })
    }

    fn plan_link(&self, request: &Value, secrets: &Secrets) -> Result<LinkPlan> {
        link::plan(request, secrets, self)
    }

    fn ingest(&self, instance: &Instance, task: &mut dyn Task) -> Result<()> {
        let server = self.server(instance)?;
        match &server.config.external_backup {
            Some(backup) => external::ingest(&server, backup, task),
            None => link::ingest(&server, task),
        }
    }

    fn unlink(&self, instance: &Instance, task: &mut dyn Task) -> Result<()> {
        link::unlink(&self.server(instance)?, &*self.clock, task)
    }

    fn plan_change(&self, instance: &Instance, change: &Value, kind: ChangeKind) -> Result<LinkPlan> {
        change::plan(&self.server(instance)?, change, kind, self)
    }

    fn plan_resync(&self, instance: &Instance, change: &Value) -> Result<LinkPlan> {
        change::plan_resync(&self.server(instance)?, change, self)
    }

    fn detached(&self, instance: &Instance) -> Result<Value> {
        change::detached(&self.server(instance)?)
    }

    fn attach(&self, instance: &Instance, task: &mut dyn Task) -> Result<()> {
        change::attach(&mut self.server(instance)?, &*self.clock, task)
    }

    fn reconfigure(&self, instance: &Instance) -> Result<Value> {
        replica::reconfigure(&self.server(instance)?)
    }

    fn start_staging(&self, instance: &Instance, task: &mut dyn Task) -> Result<()> {
        replica::start(&mut self.server(instance)?, task)
    }

    fn sync(&self, instance: &Instance, _before: Option<&Value>, task: &mut dyn Task) -> Result<Synced> {
        replica::sync(&self.server(instance)?, &*self.clock, task)?;
        Ok(Synced::Ready)
    }

    fn monitor(&self, instance: &Instance) -> Result<Health> {
        replica::monitor(&self.server(instance)?, &*self.clock)
    }

    fn ask_source(&self, instance: &Instance) -> Result<Told> {
        trouble::of_source(&self.server(instance)?)
    }

    fn quiesce(&self, instance: &Instance, task: &mut dyn Task) -> Result<Described> {
        snapshot::quiesce(&self.server(instance)?, &*self.clock, task)
    }

    fn thaw(&self, instance: &Instance) -> Result<()> {
        snapshot::thaw(&self.server(instance)?)
    }

    fn describe_end(&self, instance: &Instance, metadata: &mut Value) -> Result<()> {
        let mut records: Metadata = read("the snapshot's records", metadata)?;
        snapshot::describe_end(&self.server(instance)?, &mut records)?;
        *metadata = keep("the snapshot's records", &records)?;
        Ok(())
    }

    fn find_point(&self, history: &History<'_>, target: &Target) -> Result<Point> {
        let server = self.server(history.instance)?;
        let way = point::find(&server, &bases(history)?, target, &*self.clock, None)?;
        Ok(Point { base: way.base, needs_sync: way.needs_sync })
    }

    fn span(&self, history: &History<'_>) -> Result<Span> {
        point::span(&self.server(history.instance)?, &bases(history)?, &*self.clock)
    }

    fn prune_logs(&self, instance: &Instance, oldest: &Value) -> Result<usize> {
        let records: Metadata = read("the snapshot's records", oldest)?;
        let size = lsn::SegmentSize::try_from(records.segment_bytes)?;
        logs::prune(&self.server(instance)?, records.redo_lsn.parse()?, size)
    }

    fn plan_vdb(&self, parent: &Value, metadata: &Value, options: &VdbOptions) -> Result<Value> {
        conf::check_settings(&options.settings)?;
        owner::check(options)?;
        let parent: Config = read("the configuration of the parent", parent)?;
        let config = Config {
            settings: options.settings.clone(),
            owner: options.owner.clone(),
            renames: options.renames.clone(),
            programs: self.installations().instead_of(parent.major, &parent.programs)?,
            ..config::of_clone(parent, read("the snapshot's records", metadata)?)
        };
        keep("the configuration", &config)
    }

    fn plan_refresh(&self, vdb: &Value, parent: &Value, metadata: &Value) -> Result<Value> {
        let vdb: Config = read("the configuration of the VDB", vdb)?;
        let parent: Config = read("the configuration of the parent", parent)?;
        let mut config = config::of_clone(parent, read("the snapshot's records", metadata)?);
        // What it runs with already is no new choice.
        if config.programs != vdb.programs {
            config.programs = self.installations().instead_of(config.major, &config.programs)?;
        }
        // An undo goes back to what had the old ones.
        config.raise_limits(vdb.limits);
        config.add_tablespaces(vdb.tablespaces);
        (config.settings, config.owner, config.renames) = (vdb.settings, vdb.owner, vdb.renames);
        keep("the configuration", &config)
    }

    fn provision(
        &self,
        instance: &Instance,
        metadata: &Value,
        target: &Target,
        parent: Option<Parent<'_>>,
        task: &mut dyn Task,
    ) -> Result<()> {
        let metadata: Metadata = read("the snapshot's records", metadata)?;
        let may_sync = parent.is_some_and(|parent| parent.may_sync);
        let parent = parent.map(|parent| self.server(parent.instance)).transpose()?;
        let way = clone::Way { target, parent: parent.as_ref(), may_sync };
        clone::provision(&self.server(instance)?, &metadata, way, &*self.clock, task)
    }

    fn adopt(&self, instance: &Instance, task: &mut dyn Task) -> Result<()> {
        clone::adopt(&self.server(instance)?, task)
    }

    fn start(&self, instance: &Instance, task: &mut dyn Task) -> Result<()> {
        clone::start(&self.server(instance)?, task)
    }

    fn verify(&self, instance: &Instance, task: &mut dyn Task) -> Result<Verified> {
        verify::verify(&self.server(instance)?, task)
    }

    fn export(&self, instance: &Instance, from: &Path, to: &Path, task: &mut dyn Task) -> Result<()> {
        export::export(&self.server(instance)?, from, to, task)
    }

    fn stop(&self, instance: &Instance, task: &mut dyn Task) -> Result<()> {
        self.server(instance)?.stop(task)
    }

    fn end_strays(&self, state: &Path, mount: &Path, kept: &[PathBuf]) -> Result<Vec<u32>> {
        server::end_strays(state, mount, kept)
    }

    fn connection(&self, instance: &Instance) -> BTreeMap<String, String> {
        let config = read::<Config>("the configuration", &instance.config).ok();
        let user = config.as_ref().map_or_else(
            || "postgres".to_owned(),
            |config| config.owner.clone().unwrap_or_else(|| config.superuser.clone()),
        );
        let renamed = config.and_then(|config| config.renames.get(DATABASE).cloned());
        let database = renamed.unwrap_or_else(|| DATABASE.to_owned());
        let port = instance.port.to_string();
        BTreeMap::from([
            ("PGHOST".to_owned(), "127.0.0.1".to_owned()),
            ("PGPORT".to_owned(), port.clone()),
            ("PGUSER".to_owned(), user.clone()),
            ("DATABASE_URL".to_owned(), format!("postgresql://{user}@127.0.0.1:{port}/{database}")),
            ("PGDATABASE".to_owned(), database),
        ])
    }

    fn hook_access(&self, instance: &Instance, door: &Path) -> Result<HookAccess> {
        let server = self.server(instance)?;
        let (user, folder) = (server.config.superuser.clone(), door.display().to_string());
        let mut variables = self.connection(instance);
        let database = variables.get("PGDATABASE").map_or(DATABASE, String::as_str).to_owned();
        let url = format!(
            "postgresql://{}@/{}?host={}&port={}",
            escape(&user),
            escape(&database),
            escape(&folder),
            instance.port
        );
        variables.extend([("PGHOST".to_owned(), folder), ("PGUSER".to_owned(), user)]);
        variables.extend(["DATABASE_URL", "CONNECT_STRING"].map(|name| (name.to_owned(), url.clone())));
        let source = server.config.source.as_ref().map(|source| HookSource {
            host: source.host.clone(),
            port: source.port,
            database: source.database.clone(),
        });
        Ok(HookAccess {
            user: Some(server.programs.user.name.clone()),
            socket: Some(server.socket()),
            host: "127.0.0.1".into(),
            database,
            source,
            variables,
        })
    }
}

/// A value as part of a URL.
fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}
