//! Sessions: the login, the batch, the end of the connection.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Shared;
use super::ast::Statement;
use super::catalogue::{Outcome, Stop, batch_goes_on, fail, message};
use super::parse::{self, Placed};
use super::run::Run;
use super::state::{Connection, Order, Request, same_name};
use super::{backup, create, drop, evaluate, options, query, restore, rights, suspend, writes};
use crate::reply::{Login, Message, Parameter, Part, Session, Value};

/// Session ids below belong to the server.
const FIRST_SESSION: i16 = 51;

/// A logged-in session.
pub(crate) struct InstanceSession {
    shared: Arc<Shared>,
    id: i16,
}

/// Logs in. Errors: 17187 while the server is down, 18456, 4060.
pub(crate) fn open(shared: &Arc<Shared>, login: &Login) -> Result<InstanceSession, Message> {
    let now = shared.now();
    let mut state = shared.state();
    if !state.up {
        return Err(message(17187, &[]));
    }
    let principal = state.principals.iter().find(|principal| same_name(&principal.name, &login.user));
    let Some(principal) = principal.filter(|found| !found.disabled && found.password == login.password)
    else {
        return Err(message(18456, &[&login.user]));
    };
    let name = principal.name.clone();
    let wanted = if login.database.is_empty() { "master" } else { &login.database };
    let database = match rights::enter(&state, &name, wanted, 0) {
        Ok(database) => database,
        Err(_) => return Err(message(4060, &[&wanted])),
    };
    let is_free = |id: &i16| !state.sessions.contains_key(id) && !state.ended.contains(id);
    let id = (FIRST_SESSION..i16::MAX).find(is_free).unwrap_or(i16::MAX);
    let connection = Connection {
        login: name,
        database,
        application: login.application.clone(),
        host: login.host.clone(),
        opened: now,
        killed: false,
        request: None,
        transaction: None,
    };
    state.sessions.insert(id, connection);
    Ok(InstanceSession { shared: Arc::clone(shared), id })
}

impl Session for InstanceSession {
    fn batch(&mut self, sql: &str, parameters: &[Parameter], sink: &mut dyn FnMut(Part) -> bool) {
        let mut variables: BTreeMap<String, Value> = BTreeMap::new();
        for parameter in parameters {
            variables.insert(parameter.name.to_lowercase(), parameter.value.clone());
        }
        let statements = match self.ready().and_then(|()| parse::batch(sql)) {
            Ok(statements) => statements,
            Err(stop) => return tell(stop, None, sink),
        };
        for placed in statements {
            let outcome = self.statement(&placed, &mut variables, sink);
            self.finish();
            let Err(stop) = outcome else {
                continue;
            };
            let goes_on = match &stop {
                Stop::Errors(messages) => messages.iter().all(|message| batch_goes_on(message.number)),
                Stop::Cancelled => false,
            };
            tell(stop, Some(placed.line), sink);
            if !goes_on {
                return;
            }
        }
    }

    fn version(&self) -> (u8, u8, u16) {
        self.shared.config.version
    }

    fn database(&self) -> String {
        let state = self.shared.state();
        state
            .sessions
            .get(&self.id)
            .map_or_else(|| "master".to_owned(), |connection| connection.database.clone())
    }
}

/// Sends the errors; a cancelled statement has nothing more to say.
fn tell(stop: Stop, line: Option<i32>, sink: &mut dyn FnMut(Part) -> bool) {
    let Stop::Errors(messages) = stop else {
        return;
    };
    for mut message in messages {
        message.line = line.unwrap_or(message.line);
        if !sink(Part::Message(message)) {
            return;
        }
    }
}

impl InstanceSession {
    /// Error 596 once the session was killed or the server is down.
    fn ready(&self) -> Outcome<()> {
        let state = self.shared.state();
        let alive = state.sessions.get(&self.id).is_some_and(|connection| !connection.killed);
        if alive && state.up { Ok(()) } else { Err(fail(596, &[])) }
    }

    fn statement(
        &self,
        placed: &Placed,
        variables: &mut BTreeMap<String, Value>,
        sink: &mut dyn FnMut(Part) -> bool,
    ) -> Outcome<()> {
        self.ready()?;
        let order = self.begin(placed);
        let mut run = Run { shared: &self.shared, session: self.id, sink, variables, line: placed.line };
        match order {
            Some(Order::Fail(messages)) => return Err(Stop::Errors(messages)),
            Some(Order::Wait(duration)) => run.wait(duration)?,
            None => {}
        }
        execute(&mut run, &placed.statement)
    }

    /// Shows the statement as running, and takes the order that a test has for it.
    fn begin(&self, placed: &Placed) -> Option<Order> {
        let started = self.shared.now();
        let mut state = self.shared.state();
        let database = state.sessions.get(&self.id).map(|connection| connection.database.clone());
        let database_id =
            database.and_then(|name| state.find(&name).map(|database| database.id)).unwrap_or(1);
        if let Some(connection) = state.sessions.get_mut(&self.id) {
            connection.request = Some(Request {
                started,
                command: command_of(&placed.statement).to_owned(),
                sql: placed.text.clone(),
                database_id,
                percent: 0.0,
                locks: Vec::new(),
                blocked_by: 0,
            });
        }
        let text = placed.text.to_lowercase();
        let at = state.orders.iter().position(|(pattern, _)| text.contains(&pattern.to_lowercase()))?;
        Some(state.orders.remove(at).1)
    }

    fn finish(&self) {
        let mut state = self.shared.state();
        if let Some(connection) = state.sessions.get_mut(&self.id) {
            connection.request = None;
        }
        let id = self.id;
        for database in state.databases.iter_mut().filter(|database| database.busy == Some(id)) {
            database.busy = None;
        }
    }
}

impl Drop for InstanceSession {
    fn drop(&mut self) {
        if self.shared.state().ended.remove(&self.id) {
            return;
        }
        suspend::session_ends(&self.shared, self.id);
        self.finish();
        self.shared.state().sessions.remove(&self.id);
    }
}

/// `command` of `sys.dm_exec_requests`.
fn command_of(statement: &Statement) -> &'static str {
    match statement {
        Statement::If { then, .. } => command_of(then),
        Statement::Select(_) => "SELECT",
        Statement::CreateDatabase { .. } => "CREATE DATABASE",
        Statement::AlterDatabase { .. } => "ALTER DATABASE",
        Statement::DropDatabase { .. } => "DROP DATABASE",
        Statement::CheckDb { .. } => "DBCC CHECKDB",
        Statement::Kill(_) => "KILL",
        Statement::WaitFor { .. } => "WAITFOR",
        Statement::Backup { log: true, .. } => "BACKUP LOG",
        Statement::Backup { .. } => "BACKUP DATABASE",
        Statement::Restore { what, .. } => match what {
            super::ast::RestoreWhat::Database => "RESTORE DATABASE",
            super::ast::RestoreWhat::Log => "RESTORE LOG",
            super::ast::RestoreWhat::HeaderOnly => "RESTORE HEADERONLY",
            super::ast::RestoreWhat::VerifyOnly => "RESTORE VERIFYONLY",
            super::ast::RestoreWhat::FileListOnly => "RESTORE FILELISTONLY",
            super::ast::RestoreWhat::LabelOnly => "RESTORE LABELONLY",
        },
        Statement::Insert { .. } => "INSERT",
        _ => "EXECUTE",
    }
}

fn execute(run: &mut Run<'_>, statement: &Statement) -> Outcome<()> {
    match statement {
        Statement::Nothing => Ok(()),
        Statement::Print(text) => query::print(run, text),
        Statement::If { condition, then, otherwise } => {
            if evaluate::condition(run, condition, None)? == Some(true) {
                return execute(run, then);
            }
            otherwise.as_ref().map_or(Ok(()), |otherwise| execute(run, otherwise))
        }
        Statement::Select(select) => query::run(run, select),
        Statement::Use(name) => rights::use_database(run, name),
        Statement::Declare { variable, kind, value } => query::declare(run, variable, kind, value.as_ref()),
        Statement::Assign { variable, value } => query::assign(run, variable, value),
        Statement::CreateDatabase { name, files, groups, logs, attach } => {
            if *attach {
                create::attach(run, name, files, logs)
            } else {
                create::create(run, name, files, groups, logs)
            }
        }
        Statement::AlterDatabase { name, change, termination } => {
            options::alter(run, name, change, *termination)
        }
        Statement::SuspendServer { on, copy_only, group } => {
            suspend::server(run, *on, *copy_only, group.as_deref())
        }
        Statement::DropDatabase { names, if_exists } => drop::drop_databases(run, names, *if_exists),
        Statement::Detach { name } => drop::detach(run, name),
        Statement::CheckDb { name, no_infomsgs } => writes::check(run, name, *no_infomsgs),
        Statement::Kill(session) => rights::kill(run, session),
        Statement::WaitFor { delay } => writes::wait_for(run, delay),
        Statement::Backup { log, group, databases, options } => {
            backup::backup(run, *log, *group, databases.as_deref(), options)
        }
        Statement::Restore { what, name, options } => restore::restore(run, *what, name.as_ref(), options),
        Statement::Insert { database, names } => writes::insert(run, database.as_deref(), names),
        Statement::Begin { mark } => writes::begin(run, mark.as_ref()),
        Statement::Commit => writes::commit(run),
        Statement::Rollback => writes::rollback(run),
        Statement::Security(change) => rights::change(run, change),
    }
}
