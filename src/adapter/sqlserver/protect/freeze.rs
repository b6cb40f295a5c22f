//! Holding a database's writes for a cut of its files, and letting go whatever happens.
//!
//! Three things let go: the record of the cut, which is the good end; this process, on every error; and a watching process
//! with a connection of its own, which lets go when its input ends, as it does when this process is killed, or when the
//! time is over. That the end of the holding session lets go, too, is seen but not documented, so nothing rests on it.
//! Writes are never held without the watching process. Must not know volumes.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::super::Task;
use super::super::super::backups::Cut;
use super::super::client::{Address, Refusal, Sql};
use super::super::errors::ErrorContext;
use super::super::statements;
use super::session::{Session, explained};
use crate::base::{Error, ErrorKind, Result};

/// What letting go may take.
const LET_GO_TIME_MAX: Duration = Duration::from_secs(20);
/// How often, and how far apart, letting go is tried.
const TRIES: u32 = 20;
const RETRY: Duration = Duration::from_millis(250);
const READY: &str = "ready";
const DONE: &str = "done";

/// What the watching process is told.
#[derive(Serialize, Deserialize)]
struct Order {
    address: Address,
    password: String,
    database: String,
    limit_ms: u64,
}

/// The watching process.
struct Watch {
    child: Child,
}

impl Watch {
    /// Starts it, and returns when it is connected.
    fn start(session: &Session, database: &str) -> Result<Self> {
        let failed = |e| Error::io("start", "the process that watches over held writes", e);
        let program = std::env::current_exe().map_err(failed)?;
        let mut child = Command::new(program)
            .arg("freeze-watch")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A key that ends the daemon does not end it.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let order = Order {
            address: session.config.instance.clone(),
            password: session.password.clone(),
            database: database.to_owned(),
            limit_ms: u64::from(session.config.hold_seconds) * 1000,
        };
        let told = serde_json::to_string(&order).map_err(|e| Error::invalid(e.to_string()))?;
        let mut line = String::new();
        let said = child.stdin.as_mut().map(|input| writeln!(input, "{told}"));
        let heard = child.stdout.as_mut().map(|output| BufReader::new(output).read_line(&mut line));
        let good = matches!(said, Some(Ok(()))) && matches!(heard, Some(Ok(_))) && line.trim() == READY;
        let mut watch = Self { child };
        if good {
            return Ok(watch);
        }
        watch.end();
        Err(Error::new(
            ErrorKind::Failed,
            format!(
                "writes of {database} are not held: the process that would watch over that is not ready: {line}"
            ),
        ))
    }

    /// Tells it that there is nothing left to watch, and waits for its end.
    fn end(&mut self) {
        if let Some(mut input) = self.child.stdin.take() {
            // One that has ended has let go already.
            let _ = writeln!(input, "{DONE}");
        }
        if let Err(e) = self.child.wait() {
            tracing::warn!("the process that watched over held writes: {e}");
        }
    }
}

/// Holds writes, cuts, records the cut with `metadata`, which lets them go on. Says how long they were held, as the
/// server tells.
pub(super) fn cut(
    session: &mut Session,
    database: &str,
    metadata: &str,
    cut: Cut<'_>,
    task: &mut dyn Task,
) -> Result<String> {
    task.step(&format!("hold the writes of {database} and cut its volume"))?;
    let mut watch = Watch::start(session, database)?;
    let held = hold(session, database, metadata, cut);
    let result = match held {
        Ok(shown) => Ok(shown),
        Err(e) => match let_go(session, database) {
            Ok(_) => Err(e),
            Err(also) => Err(e.context(format!("{database} could not be let go on either ({also})"))),
        },
    };
    // Whoever watches may let go only of what is still held.
    watch.end();
    result
}

fn hold(session: &mut Session, database: &str, metadata: &str, cut: Cut<'_>) -> Result<String> {
    let context = ErrorContext { database: database.to_owned(), ..ErrorContext::default() };
    let told = |refusal| explained(refusal, &context);
    let suspend = statements::backup::suspend_for_full(database);
    let limit = Duration::from_secs(session.config.hold_seconds.into());
    session.sql.within(&suspend, limit).map_err(told)?;
    (cut.make)()?;
    let held_ms = held_ms(&mut session.sql, database, limit)?;
    session.sql.within(metadata, limit).map_err(told)?;
    match held_ms {
        Some(ms) => Ok(format!("{ms} ms at the cut")),
        None => Err(Error::new(
            ErrorKind::InUse,
            format!("somebody let the writes of {database} go on before its files were cut"),
        )
        .with_hint("run the backup again")),
    }
}

/// How long a database's writes are held by now; nothing when they are not.
fn held_ms(sql: &mut Sql, database: &str, limit: Duration) -> Result<Option<i64>> {
    for row in sql.within(statements::backup::SUSPENDED, limit)? {
        if row.text("db_name")?.is_some_and(|name| name.eq_ignore_ascii_case(database)) {
            return row.integer("suspend_time_ms").map(|ms| Some(ms.unwrap_or_default()));
        }
    }
    Ok(None)
}

/// Lets writes go on, over this connection or a new one.
fn let_go(session: &mut Session, database: &str) -> Result<bool> {
    match resume(&mut session.sql, database) {
        Ok(were) => Ok(were),
        Err(_) => let_go_for_sure(&session.config.instance, &session.password, database),
    }
}

fn resume(sql: &mut Sql, database: &str) -> std::result::Result<bool, Refusal> {
    match sql.within(&statements::resume(database), LET_GO_TIME_MAX) {
        Ok(_) => Ok(true),
        // Not held, or the database is gone.
        Err(Refusal { number: Some(_), .. }) => Ok(false),
        Err(refusal) => Err(refusal),
    }
}

/// Lets writes go on that any session holds, over a connection of its own; says whether they were held. One try.
pub(super) fn let_go_at(
    address: &Address,
    password: &str,
    database: &str,
) -> std::result::Result<bool, Refusal> {
    Sql::connect(address, password).and_then(|mut sql| resume(&mut sql, database))
}

/// The same, tried for a while.
fn let_go_for_sure(address: &Address, password: &str, database: &str) -> Result<bool> {
    let mut tries = 0;
    loop {
        tries += 1;
        match let_go_at(address, password, database) {
            Ok(were) => return Ok(were),
            Err(refusal) if tries >= TRIES || refusal.number.is_some() => return Err(refusal.into()),
            Err(_) => std::thread::sleep(RETRY),
        }
    }
}

/// The watching process: reads an order, connects, says that it is ready, and lets the database go on when its input ends
/// without a good word, or when the time is over. Returns what it did then, for the log.
pub fn watch_freeze(input: impl Read + Send + 'static, output: &mut impl Write) -> Result<Option<String>> {
    let mut input = BufReader::new(input);
    let mut line = String::new();
    input.read_line(&mut line).map_err(|e| Error::io("read", "the order", e))?;
    // Without the error's text, which may repeat the password.
    let order: Order = serde_json::from_str(&line).map_err(|_| Error::invalid("the order cannot be read"))?;
    let mut sql = Sql::connect(&order.address, &order.password)?;
    writeln!(output, "{READY}")
        .and_then(|()| output.flush())
        .map_err(|e| Error::io("write", "its answer", e))?;
    let (said, hears) = channel();
    std::thread::spawn(move || {
        let mut word = String::new();
        let read = input.read_line(&mut word);
        // Nobody hears it after the time is over.
        let _ = said.send(read.is_ok() && word.trim() == DONE);
    });
    let why = match hears.recv_timeout(Duration::from_millis(order.limit_ms)) {
        Ok(true) => return Ok(None),
        Ok(false) | Err(RecvTimeoutError::Disconnected) => "who held them ended",
        Err(RecvTimeoutError::Timeout) => "they were held for too long",
    };
    let were = match resume(&mut sql, &order.database) {
        Ok(were) => were,
        Err(_) => let_go_for_sure(&order.address, &order.password, &order.database)?,
    };
    let did = if were { "were let go on" } else { "were not held any more" };
    Ok(Some(format!("the writes of {} {did}, for {why}", order.database)))
}
