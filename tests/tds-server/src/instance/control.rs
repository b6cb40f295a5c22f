//! What a test may do to an instance besides SQL.

use std::time::Duration;

use super::catalogue::{Stop, message};
use super::database::{DatabaseState, RecoveryModel, Transaction};
use super::state::{Order, Pace, Principal};
use super::value::{Guid, Lsn};
use super::{Instance, online, writes};
use crate::reply::Message;

/// The instance's part in its availability group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ReplicaRole {
    Primary,
    Secondary,
}

impl ReplicaRole {
    /// Its number and name in `sys.dm_hadr_availability_replica_states`.
    pub(crate) fn shown(self) -> (u8, &'static str) {
        match self {
            Self::Primary => (1, "PRIMARY"),
            Self::Secondary => (2, "SECONDARY"),
        }
    }
}

/// How far a database in a restore sequence is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestorePosition {
    /// The next log must hold this.
    pub redo_start: Lsn,
    /// The branch of that LSN.
    pub fork: Guid,
    /// Whether a data restore was interrupted.
    pub incomplete: bool,
}

impl Instance {
    /// Adds a login with server permissions (`VIEW SERVER STATE`, …) and roles (`dbcreator`, `sysadmin`).
    pub fn add_login(&self, name: &str, password: &str, rights: &[&str], roles: &[&str]) {
        let mut state = self.shared.state();
        state.principals.push(Principal {
            name: name.to_owned(),
            password: password.to_owned(),
            disabled: false,
            roles: roles.iter().map(|role| role.to_lowercase()).collect(),
            rights: rights.iter().map(|right| (*right).to_owned()).collect(),
        });
    }

    /// The next statement whose text holds `pattern` (letter case not counting) fails with `errors`, and does nothing.
    pub fn fail_next(&self, pattern: &str, errors: Vec<Message>) {
        self.shared.state().orders.push((pattern.to_owned(), Order::Fail(errors)));
    }

    /// The same with one of the server's own errors, its text as the catalogue has it and no arguments.
    pub fn fail_next_with(&self, pattern: &str, number: i32) {
        self.fail_next(pattern, vec![message(number, &[])]);
    }

    /// The next statement whose text holds `pattern` begins that much later.
    pub fn delay_next(&self, pattern: &str, delay: Duration) {
        self.shared.state().orders.push((pattern.to_owned(), Order::Wait(delay)));
    }

    /// BACKUP, RESTORE and VERIFYONLY take `ticks` steps of `each`.
    pub fn set_pace(&self, ticks: u32, each: Duration) {
        self.shared.state().pace = Pace { ticks, each };
    }

    /// While true, msdb takes no history: backups and restores end with error 3009 and yet are good.
    pub fn break_history(&self, broken: bool) {
        self.shared.state().history_broken = broken;
    }

    /// Forgets all backup and restore history.
    pub fn clear_history(&self) {
        self.shared.state().history = super::history::History::default();
    }

    /// Puts a database into a state without a statement. False where there is none of that name.
    pub fn set_state(&self, database: &str, state: DatabaseState) -> bool {
        let mut all = self.shared.state();
        let Some(database) = all.find_mut(database) else {
            return false;
        };
        database.state = state;
        if matches!(state, DatabaseState::Offline | DatabaseState::RecoveryPending) {
            database.handles.clear();
        }
        true
    }

    /// A database's state.
    pub fn state_of(&self, database: &str) -> Option<DatabaseState> {
        self.shared.state().find(database).map(|database| database.state)
    }

    /// Where a restore sequence is; `None` where there is none.
    pub fn restore_position(&self, database: &str) -> Option<RestorePosition> {
        let state = self.shared.state();
        let redo = state.find(database)?.contents.redo.as_ref()?;
        Some(RestorePosition { redo_start: redo.start, fork: redo.fork, incomplete: redo.incomplete })
    }

    /// All committed transactions, whatever state the database is in.
    pub fn transactions(&self, database: &str) -> Vec<Transaction> {
        let state = self.shared.state();
        state.find(database).map(|database| database.contents.transactions.clone()).unwrap_or_default()
    }

    /// Commits a transaction as the user `sa`, with a mark or none. False where the database takes no writes now.
    pub fn commit(&self, database: &str, name: &str, mark: Option<(&str, &str)>) -> bool {
        let now = self.shared.now();
        let durable = self.shared.config.durable;
        let mut state = self.shared.state();
        let found = state.find(database).filter(|database| {
            let open = database.state == DatabaseState::Online && !database.is_read_only();
            open && database.suspended.is_none() && !database.is_system()
        });
        let Some(id) = found.map(|database| database.id) else {
            return false;
        };
        let mark = mark.map(|(name, description)| (name.to_owned(), description.to_owned()));
        writes::commit_rows(&mut state, id, &[name.to_owned()], mark.as_ref(), now, "sa", durable).is_ok()
    }

    /// Makes the last transaction a minimally logged one.
    pub fn make_last_bulk(&self, database: &str) {
        let mut state = self.shared.state();
        if let Some(last) = state.find_mut(database).and_then(|found| found.contents.transactions.last_mut())
        {
            last.bulk = true;
        }
    }

    /// What DBCC CHECKDB reports of a database from here on.
    pub fn set_findings(&self, database: &str, findings: Vec<Message>) {
        if let Some(database) = self.shared.state().find_mut(database) {
            database.findings = findings;
        }
    }

    /// Marks a restore sequence as cut off in the middle of a data restore, as a storage that failed leaves it.
    pub fn interrupt_restore(&self, database: &str) {
        let durable = self.shared.config.durable;
        let mut state = self.shared.state();
        if let Some(database) = state.find_mut(database) {
            if let Some(redo) = &mut database.contents.redo {
                redo.incomplete = true;
                redo.interrupted = None;
            }
            let _unwritten = super::options::save(database, durable);
        }
    }

    /// The instance's part in an availability group, and which databases are in it.
    pub fn set_replica(&self, role: Option<ReplicaRole>, databases: &[&str]) {
        let mut state = self.shared.state();
        state.replica = role;
        for database in &mut state.databases {
            database.replicated = role.is_some() && databases.iter().any(|name| *name == database.name);
        }
    }

    /// From here on backups need the certificate of this thumbprint to be restored; `None` ends it.
    pub fn encrypt_backups(&self, thumbprint: Option<&str>) {
        self.shared.state().encrypt_with = thumbprint.map(str::to_owned);
    }

    /// Adds a certificate, so that encrypted backups can be restored.
    pub fn add_certificate(&self, thumbprint: &str) {
        self.shared.state().certificates.insert(thumbprint.to_owned());
    }

    /// The host's clock is moved to another zone.
    pub fn set_zone(&self, minutes: i32) {
        self.shared.state().zone_minutes = minutes;
    }

    /// The longest freeze that ended, since the instance was made.
    pub fn longest_freeze(&self) -> Duration {
        self.shared.state().longest_freeze
    }

    /// From here on the end of a session does not end its freeze, as no documentation says that it does.
    pub fn keep_freezes(&self, keep: bool) {
        self.shared.state().keeps_freezes = keep;
    }

    /// Makes a file smaller, as DBCC SHRINKFILE does. False where there is none of that name, or it is no larger.
    pub fn shrink(&self, database: &str, logical: &str, pages: u64) -> bool {
        let durable = self.shared.config.durable;
        let mut state = self.shared.state();
        let Some(database) = state.find_mut(database) else {
            return false;
        };
        let file = database.contents.files.iter_mut().find(|file| file.name == logical && file.pages > pages);
        let Some(file) = file else {
            return false;
        };
        file.pages = pages;
        super::options::save(database, durable).is_ok()
    }

    /// Databases that are frozen.
    pub fn frozen(&self) -> Vec<String> {
        let state = self.shared.state();
        let frozen = state.databases.iter().filter(|database| database.suspended.is_some());
        frozen.map(|database| database.name.clone()).collect()
    }

    /// Recovery model, for a test that changes it behind the adapter's back.
    pub fn recovery_model(&self, database: &str) -> Option<RecoveryModel> {
        self.shared.state().find(database).map(|database| database.contents.recovery_model)
    }

    /// Whether clients may log in.
    pub fn is_up(&self) -> bool {
        self.shared.state().up
    }

    /// Stops the service: sessions end, files are closed, nobody logs in.
    pub fn stop(&self) {
        let mut state = self.shared.state();
        state.up = false;
        let now = self.shared.now();
        let frozen: Vec<String> = state.databases.iter().map(|database| database.name.clone()).collect();
        for name in frozen {
            super::suspend::release(&mut state, &name, now, true);
        }
        let ended: Vec<i16> = state.sessions.keys().copied().collect();
        state.sessions.clear();
        state.ended.extend(ended);
        for database in &mut state.databases {
            database.handles.clear();
            database.busy = None;
        }
    }

    /// Starts the service again: every database is what its files say now.
    pub fn start(&self) {
        let config = &self.shared.config;
        let mut state = self.shared.state();
        state.up = true;
        for database in &mut state.databases {
            if database.is_system() || database.state == DatabaseState::Offline {
                continue;
            }
            match online::online(database, config.database_version(), config.durable) {
                Ok(()) | Err(Stop::Errors(_) | Stop::Cancelled) => {}
            }
        }
    }

    /// Power loss: what is in memory only is gone, the files stay, the instance starts again.
    pub fn crash(&self) {
        self.stop();
        self.start();
    }
}
