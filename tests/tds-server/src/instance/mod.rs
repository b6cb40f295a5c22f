//! The state machine of a SQL Server instance: databases with real files, backups with LSN chains, msdb, the freeze.
//!
//! It answers batches as Microsoft documents SQL Server, with its error numbers and texts, and refuses with an error from
//! 50,000 on every statement that it does not model, so that a test never passes on a guess. It is a double: a
//! database's data is a list of transactions, a backup file has rows of its own in the frame of a real one, and only what
//! Stillpoint's adapter looks at is here. It knows nothing of bytes on the wire.
//!
//! Invariants: the lock on the state is never held while a part is sent; a database's state is on disk before a statement
//! that changes it answers; LSNs only grow within a recovery branch.
//!
//! Behaviour that no documentation settles, and that was not checked against SQL Server:
//! - The states of errors, save those in Microsoft's examples. Internal version 998 of SQL Server 2025.
//! - 596, 1803's limit of the model database, 3142 for a file that no database owns, 3701, 8928, 8989, 15010, 15023,
//!   15025, 15151, 15247, 17187, 33111: the texts are from memory or have their kind of object filled in.
//! - Which error comes first where several apply (3201 before 3101 before 3154 before 3159; 4305 and 4326 before 4330).
//! - That BACKUP LOG after a copy-only full as the only one gives 4214, and that a differential that is older than the
//!   database's roll-forward point gives 3120.
//! - Attaching a file in use gives 5120 with system error 32, detaching a RESTORING database 927, DROP and SET OFFLINE
//!   of a frozen one 3702 and 5061, a data restore that was cut off 4320 also for WITH RECOVERY.
//! - 4327 is never raised: a stop within a log with bulk-logged changes always gives 4341.
//! - SET ONLINE of files of another state of the same family takes that state, RESTORING included: the demand on which
//!   provisioning from a staging database rests. SQL Server documents neither that nor its contrary.
//! - The values of `redo_start_lsn` right after a full restore (here `last_lsn`), and which LSNs an idle log repeats.
//! - The end of the freezing session thaws: seen in public reports of SQL Server 2022, not in its documentation.

mod aggregate;
mod ast;
mod backup;
mod catalogue;
mod clock;
mod control;
mod convert;
mod create;
mod database;
mod dates;
mod drop;
mod evaluate;
mod files;
mod functions;
mod history;
mod lex;
mod media;
mod online;
mod options;
mod pages;
mod parse;
mod properties;
mod query;
mod restore;
mod rights;
mod run;
mod session;
mod state;
mod storage;
mod suspend;
mod tape;
mod value;
mod views;
mod writes;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

pub use clock::{Clock, ManualClock};
pub use control::{ReplicaRole, RestorePosition};
pub use database::{DatabaseState, FileKind, RecoveryModel, Transaction, UserAccess};
pub use pages::PAGE_BYTES;
pub use value::{Guid, Lsn};

use crate::reply::{Login, Message, Server, Session};
use state::State;

/// What an instance is; all of it is seen by clients.
#[derive(Clone)]
pub struct Config {
    /// `MSSQLSERVER` is the default instance.
    pub name: String,
    /// The host's name.
    pub machine: String,
    /// Major version 13 (2016) to 17 (2025), minor, build.
    pub version: (u8, u8, u16),
    /// As `SERVERPROPERTY('Edition')` has it.
    pub edition: String,
    /// East of UTC.
    pub zone_minutes: i32,
    /// `InstanceDefaultDataPath`.
    pub data_folder: PathBuf,
    /// `InstanceDefaultLogPath`.
    pub log_folder: PathBuf,
    /// `InstanceDefaultBackupPath`.
    pub backup_folder: PathBuf,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Pages of a primary file at least, and of each file by default; 1,024 in a real server.
    pub model_pages: u64,
    /// Whether files are fsynced. Only tests that make thousands of databases say no.
    pub durable: bool,
    /// GUIDs follow from it; two instances of a test need two.
    pub seed: u64,
}

impl Config {
    /// SQL Server 2022 as the default instance, with all its folders below `folder` (which is created).
    pub fn new(folder: &std::path::Path, clock: Arc<dyn Clock>) -> Self {
        let sub = |name: &str| folder.join(name);
        for name in ["data", "log", "backup"] {
            let _there = std::fs::create_dir_all(sub(name));
        }
        Self {
            name: "MSSQLSERVER".to_owned(),
            machine: "sqlhost".to_owned(),
            version: (16, 0, 4125),
            edition: "Developer Edition (64-bit)".to_owned(),
            zone_minutes: 0,
            data_folder: sub("data"),
            log_folder: sub("log"),
            backup_folder: sub("backup"),
            clock,
            model_pages: 1024,
            durable: true,
            seed: 1,
        }
    }

    /// `@@SERVERNAME`.
    pub(crate) fn server_name(&self) -> String {
        if self.name == "MSSQLSERVER" {
            self.machine.clone()
        } else {
            format!("{}\\{}", self.machine, self.name)
        }
    }

    /// The internal version of databases of this server.
    pub(crate) fn database_version(&self) -> i32 {
        match self.version.0 {
            ..=13 => 852,
            14 => 869,
            15 => 904,
            16 => 957,
            _ => 998,
        }
    }

    /// Its own compatibility level.
    pub(crate) fn compatibility_level(&self) -> u8 {
        self.version.0.saturating_mul(10)
    }
}

/// What all sessions share.
pub(crate) struct Shared {
    pub config: Config,
    state: Mutex<State>,
}

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(crate) fn now(&self) -> i64 {
        self.config.clock.unix_nanos()
    }
}

/// An instance. Clones are the same one.
#[derive(Clone)]
pub struct Instance {
    shared: Arc<Shared>,
}

impl Instance {
    /// A running instance with its system databases and the login `sa`, password `sa`, of role sysadmin.
    pub fn new(config: Config) -> Self {
        let state = State::new(&config);
        Self { shared: Arc::new(Shared { config, state: Mutex::new(state) }) }
    }
}

impl Server for Instance {
    fn login(&self, login: &Login) -> Result<Box<dyn Session>, Message> {
        session::open(&self.shared, login).map(|session| Box::new(session) as Box<dyn Session>)
    }
}
