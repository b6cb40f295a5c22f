//! The end of a restore: recovery with a new branch, standby or neither; messages and msdb.

use super::apply::{opens, remove_undo};
use super::{End, Job};
use crate::instance::backup::shares;
use crate::instance::catalogue::{Outcome, fail, message};
use crate::instance::database::{Database, DatabaseState, FileKind, Fork, RecoveryModel};
use crate::instance::history::RestoreRow;
use crate::instance::options::save;
use crate::instance::run::Run;
use crate::instance::state::{State, same_name};
use crate::instance::storage;
use crate::instance::value::Guid;
use crate::reply::Part;

/// Opens the database if asked, tells the client, writes msdb. `reached` is false where more log is needed first.
pub(super) fn finish(run: &mut Run<'_>, job: &Job, reached: bool) -> Outcome<()> {
    let end = if reached { job.end.clone() } else { End::NoRecovery };
    let history_broken = {
        let durable = run.shared.config.durable;
        let supported = run.shared.config.database_version();
        let now = run.now();
        let user = run.login();
        let mut state = run.state();
        let guid = state.guid();
        let database = state.database_mut(&job.name)?;
        open(database, &end, guid, supported, durable)?;
        let files = database.paths.iter().map(|(id, path)| (*id, path.clone())).collect();
        note(&mut state, job, &end, files, now, &user);
        state.history_broken
    };
    let mut pages = 0;
    for (logical, count) in shares(&job.head) {
        pages += count;
        run.info(4035, &[&count, &job.name, &logical, &job.position])?;
    }
    if history_broken {
        run.send(Part::Message(message(3009, &[])))?;
    }
    run.info(3014, &[&job.statement, &pages, &"0.010", &format!("{}.000", pages * 100 / 128)])
}

/// Recovery begins a new branch; standby leaves an undo file.
fn open(database: &mut Database, end: &End, guid: Guid, supported: i32, durable: bool) -> Outcome<()> {
    remove_undo(database);
    match end {
        End::NoRecovery => database.state = DatabaseState::Restoring,
        End::Standby(path) => {
            std::fs::write(path, b"undo").map_err(|error| storage::cannot_open(path, &error))?;
            if let Some(redo) = &mut database.contents.redo {
                redo.standby = Some(path.clone());
            }
            database.state = DatabaseState::Online;
        }
        End::Recovery => {
            let contents = &mut database.contents;
            let start = contents.next;
            contents.redo = None;
            contents.forks.push(Fork { guid, start });
            contents.next = start.after(4);
            contents.version = supported;
            contents.chain_begun |= contents.log_backup.is_some();
            let has_chain = contents.recovery_model != RecoveryModel::Simple;
            contents.log_backup = has_chain.then_some(start);
            database.state = DatabaseState::Online;
        }
    }
    save(database, durable)
}

fn note(state: &mut State, job: &Job, end: &End, files: Vec<(i32, String)>, now: i64, user: &str) {
    if state.history_broken {
        return;
    }
    let set_id = state.history.add_set(&job.stripes, job.position, &job.head);
    let (stop_at, stop_mark, stop_before) = match &job.stop {
        Some(super::StopPoint::At(at)) => (Some(*at), None, false),
        Some(super::StopPoint::Mark { name, before, .. }) => (None, Some(name.clone()), *before),
        Some(super::StopPoint::Lsn { lsn, before }) => (None, Some(format!("lsn:{lsn}")), *before),
        None => (None, None, false),
    };
    state.history.add_restore(RestoreRow {
        id: 0,
        date: now,
        database: job.name.clone(),
        user: user.to_owned(),
        set_id,
        kind: job.head.kind.shown().1,
        replace: job.replace,
        recovery: *end == End::Recovery,
        stop_at,
        stop_mark,
        stop_before,
        devices: u8::try_from(job.stripes.len()).unwrap_or(u8::MAX),
        files: if job.load_history { Vec::new() } else { files },
    });
}

/// RESTORE … WITH RECOVERY, NORECOVERY or STANDBY without a backup. Errors: 3101, 3102, 3153, 4320, 4333, 911.
pub(super) fn without_backup(run: &mut Run<'_>, name: &str, end: &End, statement: &str) -> Outcome<()> {
    let session = run.session;
    let own = run.database();
    {
        let durable = run.shared.config.durable;
        let supported = run.shared.config.database_version();
        let mut state = run.state();
        let guid = state.guid();
        let database = state.database(name)?;
        if same_name(&own, name) {
            return Err(fail(3102, &[&"RESTORE", &database.name]));
        }
        let in_sequence = database.state == DatabaseState::Restoring || database.in_standby();
        if !in_sequence {
            crate::instance::rights::open_for_use(database)?;
            return Err(fail(3153, &[]));
        }
        let busy = database.busy.is_some_and(|other| other != session);
        if busy || !state.users_of(name, session).is_empty() {
            return Err(fail(3101, &[]));
        }
        if opens(end) {
            complete_enough(database)?;
        }
        open(state.database_mut(name)?, end, guid, supported, durable)?;
    }
    run.info(3014, &[&statement, &0, &"0.010", &"0.000"])
}

/// Errors 4319, 4320 of a restore that was interrupted.
fn complete_enough(database: &Database) -> Outcome<()> {
    let Some(redo) = &database.contents.redo else {
        return Err(fail(4333, &[]));
    };
    let log = database.contents.files.iter().find(|file| file.kind == FileKind::Log);
    let name = log.map_or("", |file| file.name.as_str());
    if redo.incomplete {
        return Err(fail(4320, &[&name]));
    }
    if redo.interrupted.is_some() {
        return Err(fail(4319, &[&name]));
    }
    Ok(())
}
