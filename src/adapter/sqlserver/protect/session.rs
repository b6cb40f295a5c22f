//! A connection for backups: statements that take long, with their progress from a second connection, and errors in the
//! words of a DBA.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::super::super::backups::BackupTarget;
use super::super::super::{Secrets, Task};
use super::super::client::{Address, Asked, Refusal, Row, Sql};
use super::super::config::{PASSWORD, read};
use super::super::errors::{ErrorContext, explain};
use super::super::{state, statements};
use super::config::BackupConfig;
use crate::base::{Error, ErrorKind, Result};

/// How often the second connection asks.
const LOOK_INTERVAL: Duration = Duration::from_millis(300);
/// The backup or restore is good, and only its history was not written.
const NO_HISTORY: u32 = 3009;

/// The server starts, is paused or goes down: 17142, 17187, 17188, 17189, 18401, 6005.
const COMES_UP: [u32; 6] = [17142, 17187, 17188, 17189, 18401, 6005];

/// A set's configuration and a connection to its instance.
pub(super) struct Session {
    pub sql: Sql,
    pub config: BackupConfig,
    pub password: String,
}

pub(super) fn config(target: &BackupTarget<'_>) -> Result<BackupConfig> {
    read(&format!("the configuration of {}", target.name), target.config)
}

/// The password of a login.
pub(super) fn password<'a>(address: &Address, secrets: &'a Secrets) -> Result<&'a str> {
    secrets.get(PASSWORD).ok_or_else(|| {
        Error::new(ErrorKind::NotAllowed, format!("no password of {} is known", address.user))
            .with_hint("name its file with --password-file, or set STILLPOINT_SOURCE_PASSWORD")
    })
}

pub(super) fn connect(address: &Address, secrets: &Secrets) -> Result<Sql> {
    Sql::connect(address, password(address, secrets)?).map_err(|mut refusal| {
        if refusal.number.is_some_and(|number| COMES_UP.contains(&number)) {
            // It is there in a while, as one that does not answer yet.
            refusal.kind = ErrorKind::Io;
        }
        let hint = match refusal.number {
            Some(18456) => "check login and password",
            Some(_) => "see the server's error log",
            None => "check host, port or instance name, that TCP is enabled there, and --encryption",
        };
        Error::from(refusal).context(format!("cannot ask {}", address.connect_string())).with_hint(hint)
    })
}

/// A statement's error in the words of a DBA.
pub(super) fn explained(refusal: Refusal, context: &ErrorContext) -> Error {
    match refusal.number {
        Some(number) => Error::from(explain(number, &refusal.text, context)),
        None => Error::from(refusal),
    }
}

impl Session {
    pub(super) fn open(target: &BackupTarget<'_>) -> Result<Self> {
        let config = config(target)?;
        let sql = connect(&config.instance, target.secrets)?;
        let password = password(&config.instance, target.secrets)?.to_owned();
        Ok(Self { sql, config, password })
    }

    /// Runs a BACKUP, RESTORE or VERIFYONLY for as long as its job goes on; its progress is told as of `bytes`.
    /// Giving it up closes the connection, and the server takes it back.
    pub(super) fn long(&mut self, sql: &str, bytes: u64, task: &mut dyn Task) -> Asked<()> {
        let session =
            self.sql.rows(statements::backup::SESSION)?.first().and_then(|row| number(row, "session_id"));
        let percent = AtomicU32::new(0);
        let (ended, ends) = channel::<()>();
        let (address, password) = (&self.config.instance, self.password.as_str());
        let own = &mut self.sql;
        std::thread::scope(|scope| {
            let percent = &percent;
            scope.spawn(move || watch(address, password, session, percent, &ends));
            let run = own.watched(sql, &mut || {
                let done = u64::from(percent.load(Ordering::Relaxed)) * bytes / 100;
                task.bytes(done, Some(bytes));
                task.check()
            });
            drop(ended);
            match run {
                Err(Refusal { number: Some(NO_HISTORY), text, .. }) => {
                    task.warn(&format!("it is good, but msdb could not record it: Msg {NO_HISTORY}: {text}"));
                    Ok(())
                }
                run => run.map(drop),
            }
        })
    }

    /// The sessions that hold a database, for people.
    pub(super) fn holders(&mut self, database: &str) -> Vec<String> {
        let id = state::database(&mut self.sql, database, "/".as_ref()).ok().flatten().map(|found| found.id);
        let rows = id.and_then(|id| self.sql.rows(&statements::holders(id)).ok()).unwrap_or_default();
        let ids = rows.iter().filter_map(|row| row.integer("request_session_id").ok().flatten());
        ids.map(|id| format!("session {id}")).collect()
    }
}

fn number(row: &Row, name: &str) -> Option<i64> {
    row.integer(name).ok().flatten()
}

/// Asks how far a session is, until that has ended. What cannot be asked is not told: the statement itself goes on.
fn watch(address: &Address, password: &str, session: Option<i64>, percent: &AtomicU32, ends: &Receiver<()>) {
    let Some(session) = session else { return };
    let mut second: Option<Sql> = None;
    // The end of the sender is the end of the statement.
    while ends.recv_timeout(LOOK_INTERVAL) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
        if second.is_none() {
            second = Sql::connect(address, password).ok();
        }
        let Some(sql) = &mut second else { return };
        let Ok(rows) = sql.rows(&statements::backup::progress(session)) else { return };
        let found = rows.first().and_then(|row| row.real("percent_complete").ok().flatten());
        if let Some(found) = found {
            // Between 0 and 100.
            percent.store(found.clamp(0.0, 100.0) as u32, Ordering::Relaxed);
        }
    }
}
