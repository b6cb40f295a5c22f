//! RESTORE LOG: whether the log fits, how far it goes, and where it stops.

use super::apply;
use super::data::{rolling, unfinished};
use super::finish;
use super::place;
use super::{Job, StopPoint, is_on_path};
use crate::instance::catalogue::{Outcome, fail};
use crate::instance::database::{Database, Redo, Transaction};
use crate::instance::media::SetKind;
use crate::instance::run::Run;
use crate::instance::value::Lsn;

/// How far a log is applied.
struct Reach {
    rows: Vec<Transaction>,
    start: Lsn,
    time: i64,
    /// 4322 or 4329 where the stop point is not in this log: the database then stays RESTORING.
    beyond: Option<i32>,
}

/// Restores. Errors: 3117, 3118, 3135, 3154, 4305, 4319, 4320, 4326, 4330, 4335, 4341.
pub(super) fn restore(run: &mut Run<'_>, job: &Job) -> Outcome<()> {
    if job.head.kind != SetKind::Log {
        let device = job.stripes.first().map_or("", |(path, _)| path.as_str());
        return Err(fail(3135, &[&device, &"BACKUP DATABASE"]));
    }
    {
        let session = run.session;
        let durable = run.shared.config.durable;
        let mut state = run.state();
        let Some(database) = state.find(&job.name) else {
            return Err(fail(3118, &[&job.name]));
        };
        rolling(&state, job, database, session)?;
        fits(job, database)?;
        reach(job, database)?;
        let database = state.database_mut(&job.name)?;
        database.busy = Some(session);
        apply::begin_roll(database, job, durable)?;
    }
    let id = run.state().find(&job.name).map(|database| database.id);
    if let Some(id) = id {
        run.lock(id, "X");
    }
    run.work(job.statement, job.stats)?;
    let beyond = {
        let durable = run.shared.config.durable;
        let mut state = run.state();
        let paths = place::paths(&state, job, state.find(&job.name))?;
        let database = state.database_mut(&job.name)?;
        let reach = reach(job, database)?;
        let beyond = reach.beyond;
        end(database, job, reach, &paths, durable)?;
        beyond
    };
    if let Some(number) = beyond {
        run.info(number, &[])?;
    }
    finish::finish(run, job, beyond.is_none())
}

/// The chain's rules.
fn fits(job: &Job, database: &Database) -> Outcome<()> {
    let Some(redo) = &database.contents.redo else {
        return Err(fail(3117, &[]));
    };
    if redo.incomplete {
        return Err(fail(4320, &[&unfinished(database)]));
    }
    if redo.interrupted.is_some_and(|guid| guid != job.head.guid) {
        return Err(fail(4319, &[&unfinished(database)]));
    }
    let head = &job.head;
    if head.first > redo.start {
        return Err(fail(4305, &[&head.first, &redo.start]));
    }
    if head.last < redo.start || head.last == redo.start && head.first < redo.start {
        return Err(fail(4326, &[&head.last, &redo.start]));
    }
    if !is_on_path(&head.forks, redo.fork, redo.start) {
        return Err(fail(4330, &[]));
    }
    Ok(())
}

/// Which rows are applied. Errors: 4335, 4341.
fn reach(job: &Job, database: &Database) -> Outcome<Reach> {
    let head = &job.head;
    let Some(redo) = &database.contents.redo else {
        return Err(fail(3117, &[]));
    };
    let rows = job.rows.iter().flatten().filter(|row| row.commit >= redo.start).cloned();
    let rows: Vec<Transaction> = rows.collect();
    let all = |beyond| Reach { rows: rows.clone(), start: head.last, time: head.finished, beyond };
    let last_row = rows.last().map(|row| row.commit);
    let until = match &job.stop {
        None => return Ok(all(None)),
        Some(StopPoint::At(at)) if *at < redo.time => return Err(fail(4335, &[])),
        Some(StopPoint::At(at)) if *at >= head.finished => {
            return Ok(all((*at > head.finished).then_some(4322)));
        }
        Some(StopPoint::At(at)) => {
            let kept = rows.iter().take_while(|row| row.committed <= *at).count();
            return stop(job, redo, &rows[..kept], *at);
        }
        Some(StopPoint::Mark { name, after, before }) => {
            let found = rows.iter().find(|row| {
                let named = row.mark.as_ref().is_some_and(|(mark, _)| mark.eq_ignore_ascii_case(name));
                named && after.is_none_or(|after| row.committed >= after)
            });
            match found {
                None => return Ok(all(Some(4329))),
                Some(row) => (row.commit, *before, row.committed),
            }
        }
        Some(StopPoint::Lsn { lsn, .. }) if *lsn < redo.start => return Err(fail(4335, &[])),
        Some(StopPoint::Lsn { lsn, .. }) if *lsn >= head.last || last_row.is_none() => {
            return Ok(all((*lsn >= head.last).then_some(4329)));
        }
        Some(StopPoint::Lsn { lsn, before }) => (*lsn, *before, redo.time),
    };
    let (lsn, before, time) = until;
    let kept = rows.iter().take_while(|row| row.commit < lsn || !before && row.commit == lsn).count();
    stop(job, redo, &rows[..kept], time)
}

/// A stop inside of the log. Error 4341 where it holds bulk-logged changes.
fn stop(job: &Job, redo: &Redo, rows: &[Transaction], time: i64) -> Outcome<Reach> {
    if job.head.bulk {
        return Err(fail(4341, &[]));
    }
    let start = rows.last().map_or(redo.start, |row| row.commit.after(1));
    Ok(Reach { rows: rows.to_vec(), start, time: time.max(redo.time), beyond: None })
}

fn end(
    database: &mut Database,
    job: &Job,
    reach: Reach,
    paths: &std::collections::BTreeMap<i32, String>,
    durable: bool,
) -> Outcome<()> {
    apply::take_over(database, job, paths, durable)?;
    let contents = &mut database.contents;
    contents.forks.retain(|fork| fork.start < reach.start);
    contents.transactions.extend(reach.rows);
    contents.next = reach.start;
    contents.checkpoint = contents.checkpoint.min(reach.start);
    let fork = contents.fork();
    contents.redo = Some(Redo {
        start: reach.start,
        fork,
        time: reach.time,
        incomplete: false,
        interrupted: None,
        standby: None,
    });
    crate::instance::options::save(database, durable)
}
