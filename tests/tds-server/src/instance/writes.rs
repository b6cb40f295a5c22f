//! Data: rows of `dbo.transactions`, explicit transactions with marks, DBCC CHECKDB, WAITFOR.

use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::ast::Expr;
use super::catalogue::{Outcome, Stop, fail, message};
use super::database::{Database, FileKind, RecoveryModel, Transaction};
use super::history::Mark;
use super::options::save;
use super::pages::{PAGE_BYTES, checksum};
use super::rights;
use super::run::Run;
use super::state::{OpenTransaction, State, same_name};
use super::value::parse_time;
use crate::reply::Part;

/// INSERT INTO dbo.transactions. Waits while the database is frozen. Errors: 3906 and those of a database not open.
pub(crate) fn insert(run: &mut Run<'_>, database: Option<&str>, names: &[Expr]) -> Outcome<()> {
    let mut texts = Vec::new();
    for name in names {
        texts.push(run.text(name)?);
    }
    let login = run.login();
    let current = match database {
        Some(name) => rights::enter(&run.state(), &login, name, run.session)?,
        None => run.database(),
    };
    let count = texts.len() as u64;
    let id = writable(&run.state(), &current)?;
    let in_transaction = run.connection(|connection| match &mut connection.transaction {
        Some(open) => {
            open.rows.extend(texts.iter().map(|text| (id, text.clone())));
            true
        }
        None => false,
    })?;
    if !in_transaction {
        write(run, id, &texts, None)?;
    }
    run.send(Part::Count(count))
}

/// The database's id. Errors: 208 in a system database, 3906.
fn writable(state: &State, name: &str) -> Outcome<i32> {
    let database = state.database(name)?;
    rights::open_for_use(database)?;
    if database.is_system() {
        return Err(fail(208, &[&"dbo.transactions"]));
    }
    if database.is_read_only() {
        return Err(fail(3906, &[&database.name]));
    }
    Ok(database.id)
}

/// Commits rows, once the database is not frozen.
fn write(run: &mut Run<'_>, id: i32, names: &[String], mark: Option<(String, String)>) -> Outcome<()> {
    loop {
        let blocker = {
            let now = run.now();
            let durable = run.shared.config.durable;
            let user = run.login();
            let mut state = run.state();
            let found = state.databases.iter_mut().find(|database| database.id == id);
            let Some(database) = found else {
                return Err(fail(911, &[&id]));
            };
            match database.suspended.as_ref().map(|suspended| suspended.session) {
                Some(session) => session,
                None => return commit_rows(&mut state, id, names, mark.as_ref(), now, &user, durable),
            }
        };
        run.connection(|connection| {
            if let Some(request) = &mut connection.request {
                request.blocked_by = blocker;
            }
        })?;
        run.look_again()?;
    }
}

/// Writes a committed transaction to log and data. The database must not be frozen.
pub(crate) fn commit_rows(
    state: &mut State,
    id: i32,
    names: &[String],
    mark: Option<&(String, String)>,
    now: i64,
    user: &str,
    durable: bool,
) -> Outcome<()> {
    let Some(database) = state.databases.iter_mut().find(|database| database.id == id) else {
        return Err(fail(911, &[&id]));
    };
    let contents = &mut database.contents;
    let begin = contents.next;
    let commit = begin.after(2 + names.len() as u64);
    contents.next = commit.after(1);
    let bulk = contents.recovery_model == RecoveryModel::BulkLogged;
    for (index, name) in names.iter().enumerate() {
        let mark = mark.filter(|_| index + 1 == names.len()).cloned();
        contents.transactions.push(Transaction {
            name: name.clone(),
            begin,
            commit,
            committed: now,
            mark,
            bulk,
        });
    }
    save(database, durable)?;
    if let Some((name, description)) = mark {
        let (database, mark, description) = (database.name.clone(), name.clone(), description.clone());
        let user = user.to_owned();
        state.history.marks.push(Mark { database, mark, description, user, lsn: commit, time: now });
    }
    Ok(())
}

/// BEGIN TRANSACTION.
pub(crate) fn begin(run: &mut Run<'_>, mark: Option<&(String, String)>) -> Outcome<()> {
    run.connection(|connection| {
        let open = connection.transaction.get_or_insert_with(OpenTransaction::default);
        open.depth += 1;
        open.mark = open.mark.take().or_else(|| mark.cloned());
    })
}

/// COMMIT. Error 3902.
pub(crate) fn commit(run: &mut Run<'_>) -> Outcome<()> {
    let open = run.connection(|connection| {
        let open = connection.transaction.as_mut()?;
        open.depth -= 1;
        if open.depth > 0 { Some(OpenTransaction::default()) } else { connection.transaction.take() }
    })?;
    let Some(open) = open else {
        return Err(fail(3902, &[]));
    };
    let mut ids: Vec<i32> = open.rows.iter().map(|(id, _)| *id).collect();
    ids.dedup();
    for id in ids {
        let names: Vec<String> =
            open.rows.iter().filter(|(of, _)| *of == id).map(|(_, name)| name.clone()).collect();
        write(run, id, &names, open.mark.clone())?;
    }
    Ok(())
}

/// ROLLBACK. Error 3903.
pub(crate) fn rollback(run: &mut Run<'_>) -> Outcome<()> {
    let open = run.connection(|connection| connection.transaction.take())?;
    if open.is_some() { Ok(()) } else { Err(fail(3903, &[])) }
}

/// DBCC CHECKDB: what a test has put there, and pages whose checksum is wrong.
pub(crate) fn check(run: &mut Run<'_>, name: &str, no_infomsgs: bool) -> Outcome<()> {
    let (own, findings, damaged) = {
        let login = run.login();
        let state = run.state();
        let database = state.database(name)?;
        rights::open_for_use(database)?;
        if !rights::in_database_role(&state, &login, database, "db_owner") {
            return Err(fail(7983, &[&login]));
        }
        (database.name.clone(), database.findings.clone(), damaged_pages(database))
    };
    if !no_infomsgs {
        run.info(2536, &[&own])?;
    }
    let mut errors = findings;
    errors.extend(damaged.iter().map(|page| message(8928, &[&0, &-1, &0, &0, &"Unknown", page])));
    if !errors.is_empty() {
        for error in errors {
            run.send(Part::Message(crate::reply::Message { line: run.line, ..error }))?;
        }
        run.info(8989, &[&0, &damaged.len().max(1), &own])?;
    }
    if no_infomsgs { Ok(()) } else { run.info(2528, &[]) }
}

/// Pages of the data files that are written and whose checksum is wrong, as `(file:page)`.
fn damaged_pages(database: &Database) -> Vec<String> {
    let mut damaged = Vec::new();
    let mut page = vec![0; PAGE_BYTES];
    for file in database.contents.files.iter().filter(|file| file.kind == FileKind::Rows) {
        let Some(handle) = database.handles.get(&file.id) else {
            continue;
        };
        for number in 0..file.pages {
            let read = handle.read_exact_at(&mut page, number * PAGE_BYTES as u64);
            let written = page.iter().any(|byte| *byte != 0);
            if read.is_err() || written && page[60..64] != checksum(&page).to_le_bytes() {
                damaged.push(format!("({}:{number})", file.id));
            }
        }
    }
    damaged
}

/// WAITFOR DELAY. Error 148.
pub(crate) fn wait_for(run: &mut Run<'_>, delay: &Expr) -> Outcome<()> {
    let text = run.text(delay)?;
    let Some(millis) = parse_time(&text).and_then(|millis| u64::try_from(millis).ok()) else {
        return Err(fail(148, &[&text]));
    };
    run.wait(Duration::from_millis(millis))
}

/// The rows of a database by name, for the view `dbo.transactions`.
pub(crate) fn rows_of(state: &State, name: &str) -> Result<Vec<Transaction>, Stop> {
    let found =
        state.databases.iter().find(|database| same_name(&database.name, name) && !database.is_system());
    let database = found.ok_or_else(|| fail(208, &[&"dbo.transactions"]))?;
    rights::open_for_use(database)?;
    Ok(database.contents.transactions.clone())
}
