//! A statement that runs: what it may send, wait for and look at.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use parking_lot::MutexGuard;

use super::Shared;
use super::ast::Expr;
use super::catalogue::{Outcome, Stop, fail, message};
use super::evaluate;
use super::state::{Connection, State};
use super::value::text_of;
use crate::reply::{Part, Value};

/// How long a blocked statement waits before it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// One statement of a session's batch.
pub(crate) struct Run<'a> {
    pub shared: &'a Shared,
    pub session: i16,
    pub sink: &'a mut dyn FnMut(Part) -> bool,
    pub variables: &'a mut BTreeMap<String, Value>,
    pub line: i32,
}

impl Run<'_> {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    pub(crate) fn now(&self) -> i64 {
        self.shared.now()
    }

    /// Sends a part. The lock on the state must not be held.
    pub(crate) fn send(&mut self, part: Part) -> Outcome<()> {
        if (self.sink)(part) { Ok(()) } else { Err(Stop::Cancelled) }
    }

    /// Sends an INFO token.
    pub(crate) fn info(&mut self, number: i32, arguments: &[&dyn Display]) -> Outcome<()> {
        let mut token = message(number, arguments);
        token.line = self.line;
        self.send(Part::Message(token))
    }

    /// Lets time pass; ends when the client cancels or the session is killed.
    pub(crate) fn wait(&mut self, duration: Duration) -> Outcome<()> {
        self.send(Part::Wait(duration))?;
        self.check_killed()
    }

    /// Waits a little for what somebody else holds.
    pub(crate) fn look_again(&mut self) -> Outcome<()> {
        self.wait(LOOK_AGAIN)
    }

    fn check_killed(&self) -> Outcome<()> {
        let state = self.state();
        let killed = state.sessions.get(&self.session).is_none_or(|connection| connection.killed);
        if killed || !state.up { Err(fail(596, &[])) } else { Ok(()) }
    }

    /// Changes this session's connection.
    pub(crate) fn connection<T>(&self, change: impl FnOnce(&mut Connection) -> T) -> Outcome<T> {
        let mut state = self.state();
        state.sessions.get_mut(&self.session).map(change).ok_or_else(|| fail(596, &[]))
    }

    /// The session's database.
    pub(crate) fn database(&self) -> String {
        self.connection(|connection| connection.database.clone()).unwrap_or_default()
    }

    /// The session's login.
    pub(crate) fn login(&self) -> String {
        self.connection(|connection| connection.login.clone()).unwrap_or_default()
    }

    /// Shows what the statement does in `sys.dm_exec_requests`.
    pub(crate) fn show(&self, command: &str, percent: f32) {
        let shown = self.connection(|connection| {
            if let Some(request) = &mut connection.request {
                command.clone_into(&mut request.command);
                request.percent = percent;
            }
        });
        drop(shown);
    }

    /// Shows a lock on a database in `sys.dm_tran_locks`.
    pub(crate) fn lock(&self, database_id: i32, mode: &'static str) {
        let shown = self.connection(|connection| {
            if let Some(request) = &mut connection.request {
                request.locks.push((database_id, mode));
            }
        });
        drop(shown);
    }

    /// Works for as many ticks as the test has set, showing the progress; `stats` is the step of 3211 in percent.
    pub(crate) fn work(&mut self, command: &str, stats: Option<u32>) -> Outcome<()> {
        let pace = self.state().pace;
        let mut told = 0;
        for tick in 0..=pace.ticks {
            let percent = (tick * 100).checked_div(pace.ticks).unwrap_or(100);
            #[allow(clippy::cast_precision_loss, reason = "at most 100")]
            self.show(command, percent as f32);
            while let Some(step) = stats.filter(|step| *step > 0 && told + step <= percent) {
                told += step;
                self.info(3211, &[&told])?;
            }
            if tick < pace.ticks {
                self.wait(pace.each)?;
            }
        }
        Ok(())
    }

    /// An expression without columns, as a text.
    pub(crate) fn text(&mut self, expr: &Expr) -> Outcome<String> {
        let value = self.value(expr)?;
        Ok(text_of(&value).unwrap_or_default())
    }

    /// An expression without columns.
    pub(crate) fn value(&mut self, expr: &Expr) -> Outcome<Value> {
        evaluate::constant(self, expr)
    }
}
