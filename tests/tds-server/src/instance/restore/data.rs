//! RESTORE DATABASE from a full or a differential backup.

use super::apply;
use super::finish;
use super::place;
use super::{End, Job, StopPoint, is_on_path};
use crate::instance::catalogue::{Outcome, Stop, fail, message};
use crate::instance::database::{Database, DatabaseState, FileKind, RecoveryModel};
use crate::instance::media::SetKind;
use crate::instance::run::Run;
use crate::instance::state::{State, new_database, same_name};
use crate::instance::storage;

/// Restores; the errors are those that SQL Server gives before it touches anything, then those of the files.
pub(super) fn restore(run: &mut Run<'_>, job: &Job) -> Outcome<()> {
    if job.head.kind == SetKind::Log {
        let device = job.stripes.first().map_or("", |(path, _)| path.as_str());
        return Err(fail(3135, &[&device, &"BACKUP LOG"]));
    }
    check_stop(job)?;
    let recovered = match job.head.kind {
        SetKind::Full => full(run, job)?,
        _ => differential(run, job)?,
    };
    finish::finish(run, job, recovered)
}

/// Errors: 3145, 4338, 4340.
fn check_stop(job: &Job) -> Outcome<()> {
    match &job.stop {
        None => Ok(()),
        Some(_) if job.head.contents.recovery_model == RecoveryModel::Simple => Err(fail(3145, &[])),
        Some(StopPoint::At(at)) if *at < job.head.finished => Err(fail(4338, &[])),
        Some(StopPoint::Mark { after: None, .. } | StopPoint::Lsn { .. }) => Err(fail(4340, &[])),
        _ => Ok(()),
    }
}

/// Errors 3101, 3102, 3104: nobody else may be in the database.
pub(super) fn exclusive(state: &State, job: &Job, database: &Database, session: i16) -> Outcome<()> {
    let own = state.sessions.get(&session).is_some_and(|own| same_name(&own.database, &database.name));
    if own {
        return Err(fail(3102, &[&"RESTORE", &database.name]));
    }
    if database.replicated {
        return Err(fail(3104, &[&database.name]));
    }
    let busy = database.busy.is_some_and(|other| other != session) || database.suspended.is_some();
    if busy || !state.users_of(&job.name, session).is_empty() {
        return Err(fail(3101, &[]));
    }
    Ok(())
}

fn full(run: &mut Run<'_>, job: &Job) -> Outcome<bool> {
    {
        let session = run.session;
        let login = run.login();
        let config = run.shared.config.clone();
        let mut state = run.state();
        if let Some(database) = state.find(&job.name) {
            exclusive(&state, job, database, session)?;
            may_overwrite(job, database)?;
        }
        let paths = place::paths(&state, job, state.find(&job.name))?;
        let guid = state.guid();
        let mut database = match state.databases.iter().position(|own| same_name(&own.name, &job.name)) {
            Some(at) => state.databases.remove(at),
            None => {
                new_database(state.free_id(), &job.name, &login, job.head.contents.clone(), paths.clone())
            }
        };
        let is_new = database.turn == 0;
        let made = apply::begin_full(&mut database, job, paths, guid, &config);
        database.state = DatabaseState::Restoring;
        database.busy = Some(session);
        // A restore that could not make its files leaves no database behind that was not there before.
        if made.is_ok() || !is_new {
            state.databases.push(database);
        } else if !job.head.metadata_only {
            storage::delete(&mut database);
        }
        made?;
    }
    lock(run, &job.name);
    run.work(job.statement, job.stats)?;
    let durable = run.shared.config.durable;
    let mut state = run.state();
    apply::end_full(state.database_mut(&job.name)?, job, durable)?;
    Ok(true)
}

fn lock(run: &Run<'_>, name: &str) {
    let id = run.state().find(name).map(|database| database.id);
    if let Some(id) = id {
        run.lock(id, "X");
    }
}

/// Errors 3141, 3154, 3159: what REPLACE switches off.
fn may_overwrite(job: &Job, database: &Database) -> Outcome<()> {
    if job.replace {
        return Ok(());
    }
    if database.contents.family_guid != job.head.contents.family_guid {
        let unknown = matches!(database.state, DatabaseState::Suspect | DatabaseState::RecoveryPending);
        if unknown && !same_name(&database.name, &job.head.database) {
            return Err(fail(3141, &[&job.head.database, &database.name]));
        }
        return Err(fail(3154, &[&database.name]));
    }
    let has_tail = database.state == DatabaseState::Online
        && !database.in_standby()
        && database.contents.has_chain()
        && job.stop.is_none();
    if has_tail { Err(fail(3159, &[&database.name])) } else { Ok(()) }
}

fn differential(run: &mut Run<'_>, job: &Job) -> Outcome<bool> {
    {
        let session = run.session;
        let durable = run.shared.config.durable;
        let mut state = run.state();
        let Some(database) = state.find(&job.name) else {
            return Err(fail(3118, &[&job.name]));
        };
        rolling(&state, job, database, session)?;
        fits(job, database)?;
        let database = state.database_mut(&job.name)?;
        database.busy = Some(session);
        apply::begin_roll(database, job, durable)?;
    }
    lock(run, &job.name);
    run.work(job.statement, job.stats)?;
    let durable = run.shared.config.durable;
    let mut state = run.state();
    let paths = place::paths(&state, job, state.find(&job.name))?;
    apply::end_differential(state.database_mut(&job.name)?, job, &paths, durable)?;
    Ok(true)
}

/// Errors 3101, 3102, 3117, 3154, 3185: the database must be in a restore sequence, of this backup's family.
pub(super) fn rolling(state: &State, job: &Job, database: &Database, session: i16) -> Outcome<()> {
    let in_sequence = database.state == DatabaseState::Restoring || database.in_standby();
    if database.state == DatabaseState::Suspect {
        return Err(fail(3185, &[]));
    }
    if !in_sequence {
        return Err(fail(3117, &[]));
    }
    exclusive(state, job, database, session)?;
    if database.contents.family_guid != job.head.contents.family_guid {
        return Err(fail(3154, &[&database.name]));
    }
    Ok(())
}

/// Errors 3120, 3121, 3136, 4320.
fn fits(job: &Job, database: &Database) -> Outcome<()> {
    let contents = &database.contents;
    let Some(redo) = &contents.redo else {
        return Err(fail(3117, &[]));
    };
    let own = contents.base.as_ref().map(|base| base.guid);
    if own.is_none() || own != job.head.base.map(|(_, guid)| guid) {
        return Err(fail(3136, &[]));
    }
    if redo.incomplete && redo.interrupted != Some(job.head.guid) {
        return Err(fail(4320, &[&unfinished(database)]));
    }
    if redo.start > job.head.last {
        return Err(fail(3120, &[]));
    }
    if !is_on_path(&job.head.forks, redo.fork, redo.start) {
        let data = contents.files.iter().filter(|file| file.kind == FileKind::Rows);
        let mut errors: Vec<_> = data.map(|file| message(3121, &[&file.name])).collect();
        errors.push(message(3119, &[]));
        return Err(Stop::Errors(errors));
    }
    if matches!(job.end, End::Standby(_)) && contents.version < job.head.contents.version {
        return Err(fail(3180, &[]));
    }
    Ok(())
}

/// The file that an interrupted restore is said to have left behind.
pub(super) fn unfinished(database: &Database) -> String {
    let log = database.contents.files.iter().find(|file| file.kind == FileKind::Log);
    log.map_or_else(String::new, |file| file.name.clone())
}
