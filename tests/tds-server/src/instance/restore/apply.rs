//! What a restore does to a database's files, before it starts to copy and when it has.

use std::collections::BTreeMap;

use super::{End, Job};
use crate::instance::Config;
use crate::instance::catalogue::{Outcome, fail};
use crate::instance::create::make_file;
use crate::instance::database::{Database, FileKind, Redo, Transaction};
use crate::instance::options::save;
use crate::instance::state::same_name;
use crate::instance::storage;
use crate::instance::value::Guid;

/// Makes the files of a full restore, marked as not complete; or takes those of a snapshot as they are.
pub(super) fn begin_full(
    database: &mut Database,
    job: &Job,
    paths: BTreeMap<i32, String>,
    guid: Guid,
    config: &Config,
) -> Outcome<()> {
    if job.head.metadata_only {
        return take_snapshot(database, job, paths, guid, config);
    }
    // Files that the new database has none of would stay behind.
    let stale: Vec<String> =
        database.paths.values().filter(|path| !paths.values().any(|new| new == *path)).cloned().collect();
    let is_new = database.turn == 0;
    database.handles.clear();
    remove_undo(database);
    let known_guid = database.contents.database_guid;
    database.contents = job.head.contents.clone();
    database.contents.database_guid = if is_new { guid } else { known_guid };
    database.contents.redo = Some(Redo {
        start: job.head.last,
        fork: job.head.last_fork(),
        time: job.head.finished,
        incomplete: true,
        interrupted: Some(job.head.guid),
        standby: None,
    });
    database.paths = paths;
    if !is_new {
        for path in stale {
            let _gone = std::fs::remove_file(path);
        }
    }
    for entry in database.contents.files.clone() {
        let path = database.path(entry.id).to_owned();
        if entry.kind == FileKind::Filestream && std::path::Path::new(&path).is_dir() {
            let _gone = std::fs::remove_dir_all(&path);
        }
        if let Some(handle) = make_file(&database.contents, &entry, &path, config.durable)? {
            database.handles.insert(entry.id, handle);
        }
    }
    database.contents.next = job.head.last;
    save(database, config.durable)
}

/// Files of a storage snapshot: they must be of the moment of the freeze. Errors: 5120, 5173 and the like.
fn take_snapshot(
    database: &mut Database,
    job: &Job,
    paths: BTreeMap<i32, String>,
    guid: Guid,
    config: &Config,
) -> Outcome<()> {
    let is_new = database.turn == 0;
    let primary = paths.get(&1).cloned().unwrap_or_default();
    database.handles.clear();
    let found = storage::open(&primary, |entry| paths.get(&entry.id).cloned().unwrap_or_default())?;
    let head = &job.head;
    if found.contents.family_guid != head.contents.family_guid || found.contents.next != head.last {
        return Err(fail(5173, &[]));
    }
    let transactions = found.contents.transactions;
    let known_guid = database.contents.database_guid;
    database.contents = head.contents.clone();
    database.contents.transactions = transactions;
    database.contents.database_guid = if is_new { guid } else { known_guid };
    database.contents.redo = Some(Redo {
        start: head.last,
        fork: head.last_fork(),
        time: head.finished,
        incomplete: true,
        interrupted: Some(head.guid),
        standby: None,
    });
    (database.handles, database.turn, database.paths) = (found.handles, found.turn, paths);
    save(database, config.durable)
}

/// The copy is done: the rows are there and logs may follow.
pub(super) fn end_full(database: &mut Database, job: &Job, durable: bool) -> Outcome<()> {
    if !job.head.metadata_only {
        database.contents.transactions = job.rows.clone().unwrap_or_default();
    }
    complete(database);
    save(database, durable)
}

fn complete(database: &mut Database) {
    if let Some(redo) = &mut database.contents.redo {
        redo.incomplete = false;
        redo.interrupted = None;
    }
}

/// Marks a differential or a log as begun, and leaves standby.
pub(super) fn begin_roll(database: &mut Database, job: &Job, durable: bool) -> Outcome<()> {
    remove_undo(database);
    let is_log = job.statement == "RESTORE LOG";
    if let Some(redo) = &mut database.contents.redo {
        redo.standby = None;
        redo.interrupted = Some(job.head.guid);
        redo.incomplete |= !is_log;
    }
    database.state = crate::instance::database::DatabaseState::Restoring;
    save(database, durable)
}

/// Takes over what the differential says of the database and its rows since the base.
pub(super) fn end_differential(
    database: &mut Database,
    job: &Job,
    paths: &BTreeMap<i32, String>,
    durable: bool,
) -> Outcome<()> {
    let base = job.head.base.map(|(lsn, _)| lsn).unwrap_or_default();
    let kept = database.contents.transactions.iter().filter(|row| row.commit < base);
    let mut rows: Vec<Transaction> = kept.cloned().collect();
    rows.extend(job.rows.clone().unwrap_or_default());
    take_over(database, job, paths, durable)?;
    let contents = &mut database.contents;
    contents.transactions = rows;
    contents.next = job.head.last;
    contents.redo = Some(Redo {
        start: job.head.last,
        fork: job.head.last_fork(),
        time: job.head.finished,
        incomplete: false,
        interrupted: None,
        standby: None,
    });
    save(database, durable)
}

/// Files that came or went since the base, and all else but the rows, the redo and the identity.
pub(super) fn take_over(
    database: &mut Database,
    job: &Job,
    paths: &BTreeMap<i32, String>,
    durable: bool,
) -> Outcome<()> {
    let old = database.contents.clone();
    let new = &job.head.contents;
    for entry in new.files.iter().filter(|file| !old.files.iter().any(|own| own.guid == file.guid)) {
        let path = paths.get(&entry.id).cloned().unwrap_or_default();
        if let Some(handle) = make_file(new, entry, &path, durable)? {
            database.handles.insert(entry.id, handle);
        }
        database.paths.insert(entry.id, path);
    }
    for entry in old.files.iter().filter(|file| !new.files.iter().any(|other| other.guid == file.guid)) {
        database.handles.remove(&entry.id);
        if let Some(path) = database.paths.remove(&entry.id) {
            let _gone = std::fs::remove_file(path);
        }
    }
    for (logical, to) in &job.moves {
        let entry = new.files.iter().find(|file| same_name(&file.name, logical));
        if let Some(entry) = entry
            && database.path(entry.id) != to
        {
            return Err(fail(
                50_002,
                &[&"MOVE of a file that is there already, with a differential or a log"],
            ));
        }
    }
    let contents = &mut database.contents;
    *contents = new.clone();
    contents.database_guid = old.database_guid;
    contents.transactions = old.transactions;
    contents.redo = old.redo;
    contents.next = old.next;
    contents.base = old.base;
    Ok(())
}

/// Deletes a standby's undo file.
pub(super) fn remove_undo(database: &mut Database) {
    let undo = database.contents.redo.as_mut().and_then(|redo| redo.standby.take());
    if let Some(undo) = undo {
        let _gone = std::fs::remove_file(undo);
    }
}

/// Whether the end asked for leaves the database readable.
pub(super) fn opens(end: &End) -> bool {
    *end != End::NoRecovery
}
