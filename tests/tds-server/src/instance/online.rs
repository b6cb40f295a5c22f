//! ALTER DATABASE … SET ONLINE and OFFLINE: letting go of the files, and taking what lies there.

use super::catalogue::{Outcome, Stop, fail, message};
use super::database::{Database, DatabaseState, FileEntry};
use super::storage;

/// Writes what is to be written and closes the files.
pub(crate) fn offline(database: &mut Database, durable: bool) -> Outcome<()> {
    if database.state == DatabaseState::Online && !database.in_standby() {
        storage::write(database, durable).map_err(|error| storage::write_failed(database.path(1), &error))?;
    }
    database.handles.clear();
    database.state = DatabaseState::Offline;
    Ok(())
}

/// Opens the files that lie under the database's paths, whatever they are now.
///
/// Files of a restore sequence make a RESTORING database. Errors: 948, 5120, 5171 to 5173, 9003, each followed by 5181;
/// the database is then RECOVERY_PENDING.
pub(crate) fn online(database: &mut Database, supported: i32, durable: bool) -> Outcome<()> {
    database.handles.clear();
    match take_files(database, supported, durable) {
        Ok(()) => Ok(()),
        Err(stop) => {
            database.handles.clear();
            database.state = DatabaseState::RecoveryPending;
            Err(stop.then(5181, &[&database.name]))
        }
    }
}

fn take_files(database: &mut Database, supported: i32, durable: bool) -> Outcome<()> {
    missing(database)?;
    let paths = database.paths.clone();
    let place = |entry: &FileEntry| paths.get(&entry.id).cloned().unwrap_or_default();
    let found = storage::open(database.path(1), place)?;
    let known = found.contents.files.iter().all(|file| paths.contains_key(&file.id));
    if !known {
        return Err(fail(5173, &[]));
    }
    if found.contents.version > supported {
        return Err(fail(948, &[&database.name, &found.contents.version, &supported]));
    }
    database.contents = found.contents;
    database.turn = found.turn;
    database.handles = found.handles;
    let contents = &database.contents;
    database.paths.retain(|id, _| contents.files.iter().any(|file| file.id == *id));
    let standby = contents.redo.as_ref().and_then(|redo| redo.standby.clone());
    database.state = if contents.redo.is_none() || standby.is_some() {
        DatabaseState::Online
    } else {
        DatabaseState::Restoring
    };
    if let Some(undo) = standby {
        std::fs::metadata(&undo).map_err(|error| storage::cannot_open(&undo, &error))?;
    }
    if database.contents.redo.is_none() {
        database.contents.version = supported;
        storage::write(database, durable).map_err(|error| storage::write_failed(database.path(1), &error))?;
    }
    Ok(())
}

/// Error 5120 for each file that cannot be opened, all at once as the server does.
fn missing(database: &Database) -> Outcome<()> {
    let mut errors = Vec::new();
    for path in database.paths.values() {
        if let Err(error) = std::fs::metadata(path) {
            let (number, text) = super::catalogue::system_error(&error);
            errors.push(message(5120, &[path, &number, &text]));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Stop::Errors(errors)) }
}
