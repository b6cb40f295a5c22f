//! What the engine asks of a kind of database, and nothing else: the engine knows databases only as this trait.
//!
//! An adapter's configuration and what it records with a snapshot are JSON values that only it reads. It gets
//! folders, never stores: the data folder lies on a volume, the state folder beside the store.

pub mod backups;
pub mod command;
pub mod postgres;
pub mod sqlserver;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::{Error, ErrorKind, Result};

/// A database installation found on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repository {
    pub adapter: String,
    pub version: String,
    /// Where its programs are.
    pub programs: PathBuf,
    /// The user its servers run as.
    pub user: String,
}

/// What a source answers about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFacts {
    pub version: String,
    /// By which the cluster is known again at another address.
    pub identity: String,
    /// Of all its databases, as far as it tells.
    pub size_bytes: Option<u64>,
    pub warnings: Vec<String>,
}

/// Secrets by name, never stored with anything else: passwords of the source and of owners.
#[derive(Clone, Default)]
pub struct Secrets(pub BTreeMap<String, String>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Secrets {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// What a link is going to do, for a person to review and for `ingest` to carry out.
#[derive(Clone, Debug, Default)]
pub struct LinkPlan {
    /// What the adapter needs from now on.
    pub config: Value,
    /// Facts in the order to show them.
    pub review: Vec<(String, String)>,
    pub warnings: Vec<String>,
    /// Bytes that the first copy will take, as far as the source tells.
    pub estimated_bytes: Option<u64>,
}

/// What there is of an adapter's datasets beside snapshots and clones of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Logs that lead from a snapshot to points in time: they get a volume.
    pub logs: bool,
    /// Whether VDBs have such logs, too.
    pub vdb_logs: bool,
    /// Images kept ready: provisioning takes so long that it is done ahead.
    pub images: bool,
    /// Checks of a snapshot's database.
    pub verifies: bool,
    /// Checks of a snapshot's files, without a server.
    pub checks_files: bool,
}

/// What a sync came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Synced {
    Ready,
    /// There is nothing to snapshot, and why: the snapshot is skipped with a warning.
    Nothing(String),
}

/// What checks of a database found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// What was run.
    pub checks: Vec<String>,
    /// What is damaged; none when all is sound.
    pub problems: Vec<String>,
    /// What could not be checked, and why.
    pub left_out: Vec<String>,
}

/// One server of one dataset: where its files are and how it is run.
#[derive(Clone, Debug)]
pub struct Instance {
    /// The dataset's name.
    pub name: String,
    /// The dataset's volume as a folder; owned by root.
    pub volume: PathBuf,
    /// Outside every volume, so in no snapshot: sockets, settings, logs, password files.
    pub state: PathBuf,
    /// The volume for the logs that are kept of it, when they are; owned by root.
    pub logs: Option<PathBuf>,
    pub port: u16,
    pub config: Value,
    pub secrets: Secrets,
}

/// How far a point in time goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Exactly what the snapshot holds.
    Snapshot,
    /// RFC 3339 with an offset.
    Time(String),
    Lsn(String),
    Xid(String),
    RestorePoint(String),
}

/// One timeflow, as points in time are looked for in it.
#[derive(Clone, Debug)]
pub struct History<'a> {
    /// The server whose files and logs it has. Of a timeflow that is no longer current none runs.
    pub instance: &'a Instance,
    /// What its snapshots recorded, oldest first.
    pub bases: Vec<&'a Value>,
}

/// How a point in time is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// The place of the snapshot to start from among the history's.
    pub base: usize,
    /// Whether its server must be brought up to its source for it.
    pub needs_sync: bool,
}

/// Whose snapshot a clone is of.
#[derive(Clone, Copy, Debug)]
pub struct Parent<'a> {
    pub instance: &'a Instance,
    /// Whether its server may be brought up to its source: nobody else is at work on it.
    pub may_sync: bool,
}

/// From where to where points in time can be reached. Places are in the adapter's own terms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// RFC 3339.
    pub earliest_time: Option<String>,
    pub earliest_place: Option<String>,
    pub latest_time: Option<String>,
    pub latest_place: Option<String>,
    /// Whether a later point is asked of the source first.
    pub can_sync: bool,
    /// What is missing in between, for a person.
    pub gaps: Vec<String>,
}

/// What a snapshot holds of its database.
#[derive(Clone, Debug, Default)]
pub struct Described {
    pub metadata: Value,
    /// Why nothing can be provisioned from it, when that is so.
    pub unprovisionable: Option<String>,
}

/// What is seen of a running or stopped server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// False is put right by a start. What the engine does not start counts as running; that it does not is a problem.
    pub running: bool,
    pub pid: Option<u32>,
    /// One word: `streaming`, `waiting`, `stopped`, `online`, ...
    pub state: String,
    /// Facts in the order to show them: positions, lags, slots.
    pub facts: Vec<(String, String)>,
    pub problems: Vec<Problem>,
    /// Whether it must be started again to go on.
    #[serde(default)]
    pub needs_restart: bool,
    /// Whether there is something new for a sync to bring in.
    #[serde(default)]
    pub needs_sync: bool,
}

/// What a source says: facts in the order to show them, and problems to come.
pub type Told = (Vec<(String, String)>, Vec<Problem>);

/// Something that keeps a dataset from being as it should; it becomes a fault, and ends when it is no longer seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A stable word.
    pub code: String,
    pub message: String,
    pub action: String,
}

/// What to change in a VDB beside its place.
#[derive(Clone, Debug, Default)]
pub struct VdbOptions {
    pub settings: BTreeMap<String, String>,
    /// The role as which it is used; its password is among the secrets.
    pub owner: Option<String>,
    /// Databases that get another name, by their old one.
    pub renames: BTreeMap<String, String>,
}

/// What a change of a dataset is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Settings,
    /// There are new secrets, to be tried before they replace the old ones.
    Secrets,
    /// A detached dSource gets its link back.
    Attach,
}

/// What a hook is told of a server, and how it reaches it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HookAccess {
    /// The OS user that hooks run as which name none.
    pub user: Option<String>,
    /// The Unix socket at which the server takes this process for its administrator.
    pub socket: Option<PathBuf>,
    pub host: String,
    pub database: String,
    pub source: Option<HookSource>,
    /// Variables of the database's own programs, and `CONNECT_STRING`: by them a hook is the administrator.
    pub variables: BTreeMap<String, String>,
}

/// What a dSource follows, as hooks are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookSource {
    pub host: String,
    pub port: u16,
    pub database: String,
}

/// Takes what an operation says of itself.
pub trait Task: Send {
    /// Begins a step of a long operation.
    fn step(&mut self, name: &str) -> Result<()>;
    fn bytes(&mut self, done: u64, total: Option<u64>);
    /// A line for the job's log.
    fn log(&mut self, line: &str);
    /// A warning; the operation ends as completed with warnings.
    fn warn(&mut self, line: &str);
    /// Fails when the operation is to end: called at points where it may.
    fn check(&self) -> Result<()>;
}

/// One kind of database.
pub trait Adapter: Send + Sync {
    /// Its name in commands and records.
    fn kind(&self) -> &'static str;

    fn abilities(&self) -> Abilities;

    /// Backups of its source databases, when it makes any.
    fn backups(&self) -> Option<&dyn backups::Backups> {
        None
    }

    /// The secrets of a dataset that VDBs of it need, too, by name.
    fn inherited_secrets(&self) -> &'static [&'static str] {
        &[]
    }

    /// The installations of this host.
    fn discover(&self) -> Result<Vec<Repository>>;

    /// The installations in a folder that a user names; none when it has none.
    fn discover_in(&self, _folder: &Path) -> Result<Vec<Repository>> {
        Ok(Vec::new())
    }

    /// From now on looks for installations in these folders of programs, too, and chooses none of the disabled ones for
    /// what is new. What runs with one goes on.
    fn use_repositories(&self, _added: Vec<PathBuf>, _disabled: Vec<PathBuf>) {}

    /// The folder of programs that a dataset of this configuration is run with.
    fn programs(&self, _config: &Value) -> Option<PathBuf> {
        None
    }

    /// Asks a source what it is, and refuses one that cannot be linked. `address` has `host`, `port`, `user` and
    /// `database`, as the `source` of a request to link has.
    fn ask_address(&self, _address: &Value, _secrets: &Secrets) -> Result<SourceFacts> {
        Err(Error::invalid(format!("adapter {} follows no sources: name another one", self.kind())))
    }

    /// Asks source and host whether a link can be, and refuses early what cannot. `request` is the adapter's own.
    fn plan_link(&self, request: &Value, secrets: &Secrets) -> Result<LinkPlan>;

    /// Makes the first copy in an empty volume. What it made elsewhere, such as a slot on the source, `unlink` takes
    /// away again, also after a failure.
    fn ingest(&self, instance: &Instance, task: &mut dyn Task) -> Result<()>;

    /// Ends what a link holds on the source. Called again after a failure; finding nothing is no error.
    fn unlink(&self, instance: &Instance, task: &mut dyn Task) -> Result<()>;

    /// The configuration after what a user asks to change: settings, and for a dSource its source's address or password.
    /// `change` is the adapter's own; the instance has the secrets that are to be used. Asks the source, refuses
    /// what cannot be, and changes nothing.
    fn plan_change(&self, instance: &Instance, change: &Value, kind: ChangeKind) -> Result<LinkPlan>;

    /// The configuration for a new first copy from the same source, or from what `change` names.
    fn plan_resync(&self, instance: &Instance, change: &Value) -> Result<LinkPlan>;

    /// The configuration of a dSource without its source.
    fn detached(&self, instance: &Instance) -> Result<Value>;

    /// Takes up a link again: holds what it needs on the source, starts the staging server, and returns when it follows.
    /// `Precondition` when the source no longer has what came since. What it made elsewhere `unlink` takes away.
    fn attach(&self, instance: &Instance, task: &mut dyn Task) -> Result<()>;

    /// The configuration with what has changed at the source since: new folders, raised limits. Called before each start
    /// of a staging server; an error leaves the old one in use.
    fn reconfigure(&self, instance: &Instance) -> Result<Value>;

    /// Starts a staging server that follows its source, if it has one, and returns when it answers.
    fn start_staging(&self, instance: &Instance, task: &mut dyn Task) -> Result<()>;

    /// Brings a running staging server up to what the source has now. `before` is what the newest snapshot of the timeflow
    /// recorded.
    fn sync(&self, instance: &Instance, before: Option<&Value>, task: &mut dyn Task) -> Result<Synced>;

    fn monitor(&self, instance: &Instance) -> Result<Health>;

    /// What the source says of a staging server: facts, and problems to come. Asked less often.
    fn ask_source(&self, _instance: &Instance) -> Result<Told> {
        Ok(Told::default())
    }

    /// Holds a server's files at one exact point and says which. `thaw` follows, whatever happens.
    fn quiesce(&self, instance: &Instance, task: &mut dyn Task) -> Result<Described>;

    /// Lets go; also of what a killed process left held, and of what a failed `quiesce` may hold in part. No error when
    /// nothing is.
    fn thaw(&self, instance: &Instance) -> Result<()>;

    /// Adds to a snapshot's records what is known only after the cut. Called before `thaw`. `InUse` when somebody changed the
    /// database during the cut: there is no snapshot then.
    fn describe_end(&self, instance: &Instance, metadata: &mut Value) -> Result<()>;

    /// How a point in time is reached. `Range` when it is too early,
    /// `NotFound` when there is none of that name: an older timeflow may have it. `Precondition` when it is not there yet.
    fn find_point(&self, history: &History<'_>, _target: &Target) -> Result<Point> {
        Err(no_points(&history.instance.name))
    }

    /// From where to where there are points.
    fn span(&self, _history: &History<'_>) -> Result<Span> {
        Ok(Span::default())
    }

    /// Removes kept logs that nobody needs who starts from a snapshot with these records, or a later one; says how many.
    fn prune_logs(&self, _instance: &Instance, _oldest: &Value) -> Result<usize> {
        Ok(0)
    }

    /// The configuration of a VDB made of a snapshot with these records.
    fn plan_vdb(&self, parent: &Value, metadata: &Value, options: &VdbOptions) -> Result<Value>;

    /// The configuration of a VDB that gets the data of another snapshot; what was asked for with it stays.
    fn plan_refresh(&self, vdb: &Value, parent: &Value, metadata: &Value) -> Result<Value>;

    /// Makes the files of a clone a database of its own, that knows no source; returns when it answers. A point in time
    /// is reached by the logs of `parent`, whose snapshot it is. `InUse` when it must be brought up to its source first
    /// and may not.
    fn provision(
        &self,
        instance: &Instance,
        metadata: &Value,
        target: &Target,
        parent: Option<Parent<'_>>,
        task: &mut dyn Task,
    ) -> Result<()>;

    /// Starts a database on a clone of files that `provision` made and `stop` left; returns when it answers.
    fn adopt(&self, instance: &Instance, task: &mut dyn Task) -> Result<()>;

    /// Starts a VDB's server and returns when it answers.
    fn start(&self, instance: &Instance, task: &mut dyn Task) -> Result<()>;

    /// Checks a database that `provision` made of a clone nobody else uses; it may be shut down for that. Called only when
    /// `abilities` say that there are checks.
    fn verify(&self, instance: &Instance, task: &mut dyn Task) -> Result<Verified>;

    /// Checks a snapshot's files, which are below `folder`, without a server. Called only when `abilities` say that there is such
    /// a check, on a thread of low priority; what is damaged is no error. `Cancelled` when the task is to end.
    fn check_files(&self, _folder: &Path, _metadata: &Value, _task: &mut dyn Task) -> Result<Verified> {
        Err(Error::new(ErrorKind::Unsupported, format!("adapter {} checks no files", self.kind())))
    }

    /// Copies a snapshot's files, which are below `from`, to a new folder where its database starts without the engine.
    fn export(&self, instance: &Instance, from: &Path, to: &Path, task: &mut dyn Task) -> Result<()>;

    /// Stops a server in order; no error when none runs.
    fn stop(&self, instance: &Instance, task: &mut dyn Task) -> Result<()>;

    /// Ends what an earlier engine started with files below `state` and on the mount at `mount` when that is dead, at once.
    /// Servers whose own state folder is among `kept` go on; what else works there does not.
    fn end_strays(&self, state: &Path, mount: &Path, kept: &[PathBuf]) -> Result<Vec<u32>>;

    /// How to connect, by variable name, without passwords.
    fn connection(&self, instance: &Instance) -> BTreeMap<String, String>;

    /// What hooks are told. `door` is the folder in which they find a socket of the name of the server's own, that
    /// leads to it.
    fn hook_access(&self, instance: &Instance, _door: &Path) -> Result<HookAccess> {
        Ok(HookAccess { variables: self.connection(instance), ..HookAccess::default() })
    }
}

/// Refuses a point in time of what keeps no logs.
fn no_points(name: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "{name} keeps no logs, so it has no points in time, only its snapshots: see `stillpoint timeflow list {name}`"
        ),
    )
}
