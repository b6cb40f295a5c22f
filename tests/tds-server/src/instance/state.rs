//! What the instance has in memory: databases, sessions, logins, and what a test has ordered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Config;
use super::catalogue::{Outcome, fail};
use super::control::ReplicaRole;
use super::database::{
    Contents, Database, DatabaseState, FileEntry, FileKind, Filegroup, Fork, RecoveryModel, UserAccess,
};
use super::history::History;
use super::value::{Guid, Lsn};
use crate::reply::Message;

/// A login of the server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Principal {
    pub name: String,
    pub password: String,
    pub disabled: bool,
    /// Server roles, lower case.
    pub roles: BTreeSet<String>,
    /// Server permissions, upper case.
    pub rights: BTreeSet<String>,
}

/// A statement that runs.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub started: i64,
    pub command: String,
    pub sql: String,
    pub database_id: i32,
    pub percent: f32,
    /// Locks on databases besides the session's own shared one: id and mode.
    pub locks: Vec<(i32, &'static str)>,
    pub blocked_by: i16,
}

/// A transaction that is open.
#[derive(Clone, Debug, Default)]
pub(crate) struct OpenTransaction {
    pub depth: u32,
    pub mark: Option<(String, String)>,
    pub rows: Vec<(i32, String)>,
}

/// A session.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub login: String,
    pub database: String,
    pub application: String,
    pub host: String,
    pub opened: i64,
    pub killed: bool,
    pub request: Option<Request>,
    pub transaction: Option<OpenTransaction>,
}

/// What a test has ordered for the next statement that holds a text.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    Fail(Vec<Message>),
    Wait(Duration),
}

/// How long BACKUP and RESTORE take.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    pub ticks: u32,
    pub each: Duration,
}

/// Everything that changes.
pub(crate) struct State {
    pub up: bool,
    pub zone_minutes: i32,
    pub databases: Vec<Database>,
    pub sessions: BTreeMap<i16, Connection>,
    /// Ids of sessions that a stop ended and whose clients have not noticed: not to be given again yet.
    pub ended: BTreeSet<i16>,
    pub principals: Vec<Principal>,
    pub history: History,
    pub history_broken: bool,
    pub orders: Vec<(String, Order)>,
    pub pace: Pace,
    pub longest_freeze: Duration,
    /// Whether a freeze outlives its session.
    pub keeps_freezes: bool,
    pub certificates: BTreeSet<String>,
    pub replica: Option<ReplicaRole>,
    /// The certificate of backups that are taken.
    pub encrypt_with: Option<String>,
    seed: u64,
    guids: u64,
}

impl State {
    pub(crate) fn new(config: &Config) -> Self {
        let mut state = Self {
            up: true,
            zone_minutes: config.zone_minutes,
            databases: Vec::new(),
            sessions: BTreeMap::new(),
            ended: BTreeSet::new(),
            principals: vec![Principal {
                name: "sa".to_owned(),
                password: "sa".to_owned(),
                roles: BTreeSet::from(["sysadmin".to_owned()]),
                ..Principal::default()
            }],
            history: History::default(),
            history_broken: false,
            orders: Vec::new(),
            pace: Pace::default(),
            longest_freeze: Duration::ZERO,
            keeps_freezes: false,
            certificates: BTreeSet::new(),
            replica: None,
            encrypt_with: None,
            seed: config.seed,
            guids: 0,
        };
        for (id, name) in (1..).zip(["master", "tempdb", "model", "msdb"]) {
            let database = state.system_database(config, id, name);
            state.databases.push(database);
        }
        state
    }

    /// A new GUID.
    pub(crate) fn guid(&mut self) -> Guid {
        self.guids += 1;
        Guid::derived(self.seed, self.guids)
    }

    /// The lowest database id that is free.
    pub(crate) fn free_id(&self) -> i32 {
        (5..).find(|id| self.databases.iter().all(|database| database.id != *id)).unwrap_or(i32::MAX)
    }

    /// Contents of a new database with no files.
    pub(crate) fn new_contents(&mut self, config: &Config, name: &str) -> Contents {
        let database_guid = self.guid();
        let fork = Fork { guid: self.guid(), start: Lsn::FIRST };
        Contents {
            name: name.to_owned(),
            version: config.database_version(),
            created: config.clock.unix_nanos(),
            database_guid,
            family_guid: database_guid,
            forks: vec![fork],
            next: Lsn::FIRST,
            checkpoint: Lsn::FIRST,
            full_backup: Lsn(0),
            log_backup: None,
            chain_begun: false,
            base: None,
            recovery_model: RecoveryModel::Full,
            read_only: false,
            redo: None,
            files: Vec::new(),
            recorded: BTreeMap::new(),
            groups: vec![Filegroup { id: 1, name: "PRIMARY".to_owned(), kind: "FG".to_owned() }],
            transactions: Vec::new(),
        }
    }

    fn system_database(&mut self, config: &Config, id: i32, name: &str) -> Database {
        let mut contents = self.new_contents(config, name);
        contents.recovery_model = if name == "model" { RecoveryModel::Full } else { RecoveryModel::Simple };
        let mut paths = BTreeMap::new();
        for (file_id, kind, suffix) in [(1, FileKind::Rows, ".mdf"), (2, FileKind::Log, "log.ldf")] {
            let logical = if file_id == 1 { name.to_owned() } else { format!("{name}log") };
            contents.files.push(FileEntry {
                id: file_id,
                guid: self.guid(),
                name: logical,
                kind,
                group: i32::from(file_id == 1),
                pages: 1024,
                created: Lsn(0),
            });
            paths.insert(file_id, config.data_folder.join(format!("{name}{suffix}")).display().to_string());
        }
        new_database(id, name, "sa", contents, paths)
    }

    /// The database of that name, in any case.
    pub(crate) fn find(&self, name: &str) -> Option<&Database> {
        self.databases.iter().find(|database| same_name(&database.name, name))
    }

    /// The same, to change.
    pub(crate) fn find_mut(&mut self, name: &str) -> Option<&mut Database> {
        self.databases.iter_mut().find(|database| same_name(&database.name, name))
    }

    /// The database or error 911.
    pub(crate) fn database(&self, name: &str) -> Outcome<&Database> {
        self.find(name).ok_or_else(|| fail(911, &[&name]))
    }

    /// The same, to change.
    pub(crate) fn database_mut(&mut self, name: &str) -> Outcome<&mut Database> {
        self.find_mut(name).ok_or_else(|| fail(911, &[&name]))
    }

    /// Sessions other than `session` whose current database this is.
    pub(crate) fn users_of(&self, name: &str, session: i16) -> Vec<i16> {
        let others = self
            .sessions
            .iter()
            .filter(|(id, other)| **id != session && !other.killed && same_name(&other.database, name));
        others.map(|(id, _)| *id).collect()
    }

    /// Ends sessions as ROLLBACK IMMEDIATE and KILL do.
    pub(crate) fn kill(&mut self, sessions: &[i16]) {
        for id in sessions {
            if let Some(connection) = self.sessions.get_mut(id) {
                connection.killed = true;
                connection.transaction = None;
                connection.database = "master".to_owned();
            }
        }
    }

    /// Which database has a file at this path.
    pub(crate) fn owner_of_path(&self, path: &str) -> Option<&Database> {
        self.databases.iter().find(|database| database.paths.values().any(|own| own == path))
    }
}

/// An ONLINE database without open files.
pub(crate) fn new_database(
    id: i32,
    name: &str,
    owner: &str,
    contents: Contents,
    paths: BTreeMap<i32, String>,
) -> Database {
    Database {
        id,
        name: name.to_owned(),
        state: DatabaseState::Online,
        contents,
        paths,
        handles: BTreeMap::new(),
        turn: 0,
        owner: owner.to_owned(),
        access: UserAccess::Multi,
        suspended: None,
        busy: None,
        users: BTreeMap::new(),
        replicated: false,
        findings: Vec::new(),
        bitmap_spoiled: false,
    }
}

/// Names are compared as the server's collation does: letter case does not count.
pub(crate) fn same_name(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other) || one.to_lowercase() == other.to_lowercase()
}
