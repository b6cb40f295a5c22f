//! Databases and their files: writing the state, reading it back, opening and letting go.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use super::catalogue::{Outcome, Stop, fail, message, system_error};
use super::database::{Contents, Database, FileEntry, FileKind};
use super::pages::{self, FileHead};

/// A page behind the state that each data file gets with each write.
const DATA_PAGE: u64 = 8;

/// The files of a database, as they were found on disk.
pub(crate) struct Found {
    pub contents: Contents,
    pub turn: u64,
    pub handles: BTreeMap<i32, File>,
}

fn head_of(contents: &Contents, file: &FileEntry, state_pages: u64) -> FileHead {
    FileHead {
        file_id: file.id,
        file_guid: file.guid,
        family_guid: contents.family_guid,
        primary: file.id == 1,
        state_pages: if file.id == 1 { state_pages } else { 0 },
        lsn: contents.next,
    }
}

/// Makes one file, or a FILESTREAM folder.
pub(crate) fn create_file(
    contents: &Contents,
    file: &FileEntry,
    path: &str,
    durable: bool,
) -> io::Result<Option<File>> {
    if file.kind == FileKind::Filestream {
        std::fs::create_dir_all(path)?;
        let head = serde_json::to_vec(&head_of(contents, file, 0)).map_err(io::Error::other)?;
        std::fs::write(Path::new(path).join("filestream.hdr"), head)?;
        return Ok(None);
    }
    let head = head_of(contents, file, pages::state_pages_of(file.pages));
    let made = pages::create(Path::new(path), file.pages, &head, durable)?;
    if file.kind == FileKind::Rows {
        pages::write_allocation(&made, &head, file.pages)?;
    }
    Ok(Some(made))
}

/// Writes what the database is: the log first, then data files, then the state.
pub(crate) fn write(database: &mut Database, durable: bool) -> io::Result<()> {
    database.contents.name.clone_from(&database.name);
    database.contents.recorded.clone_from(&database.paths);
    let state = serde_json::to_vec(&database.contents).map_err(io::Error::other)?;
    let contents = &database.contents;
    let mut files: Vec<&FileEntry> = contents.files.iter().collect();
    files.sort_by_key(|file| (file.kind != FileKind::Log, file.id == 1));
    let note = format!("{} {}", contents.next, contents.transactions.len());
    for file in files {
        let Some(handle) = database.handles.get(&file.id) else {
            continue;
        };
        let known = pages::read_head(handle)?.map_or(0, |head| head.state_pages);
        let head = head_of(contents, file, known);
        if file.id == 1 {
            pages::write_state(handle, &head, database.turn + 1, &state)?;
        } else {
            pages::write_data_page(handle, &head, DATA_PAGE, &note)?;
        }
        pages::write_head(handle, &head)?;
        if durable {
            handle.sync_data()?;
        }
    }
    database.turn += 1;
    Ok(())
}

/// Error 5120 with the operating system's reason.
pub(crate) fn cannot_open(path: &str, error: &io::Error) -> Stop {
    let (number, text) = system_error(error);
    fail(5120, &[&path, &number, &text])
}

/// Reads a primary file.
///
/// Errors: 5120 where it cannot be opened, 5171 or 5172 where it is no primary file.
pub(crate) fn read_primary(path: &str) -> Outcome<(File, u64, Contents)> {
    let file = pages::open(Path::new(path)).map_err(|error| cannot_open(path, &error))?;
    let unreadable = |error: io::Error| cannot_open(path, &error);
    let Some(head) = pages::read_head(&file).map_err(unreadable)? else {
        return Err(fail(5172, &[&path, &"FileType"]));
    };
    if !head.primary {
        return Err(fail(5171, &[&path]));
    }
    let state = pages::read_state(&file, &head).map_err(unreadable)?;
    let Some((turn, contents)) =
        state.and_then(|(turn, body)| Some((turn, serde_json::from_slice(&body).ok()?)))
    else {
        return Err(fail(5172, &[&path, &"PageAudit"]));
    };
    Ok((file, turn, contents))
}

/// Opens all files of a database and checks that they belong together.
///
/// `place` gives the path of each file that the primary file names. Errors: 5120, 5171, 5172, 5173, 9003.
pub(crate) fn open(primary: &str, place: impl Fn(&FileEntry) -> String) -> Outcome<Found> {
    let (file, turn, contents) = read_primary(primary)?;
    let mut handles = BTreeMap::from([(1, file)]);
    for entry in contents.files.iter().filter(|entry| entry.id != 1) {
        let path = place(entry);
        if entry.kind == FileKind::Filestream {
            check_container(&contents, entry, &path)?;
            continue;
        }
        let file = pages::open(Path::new(&path)).map_err(|error| cannot_open(&path, &error))?;
        let head = pages::read_head(&file).map_err(|error| cannot_open(&path, &error))?;
        let Some(head) = head else {
            return Err(fail(5172, &[&path, &"FileType"]));
        };
        if head.file_guid != entry.guid || head.family_guid != contents.family_guid {
            return Err(fail(5173, &[]));
        }
        if entry.kind == FileKind::Log && head.lsn < contents.next {
            return Err(fail(9003, &[&contents.next.in_parts(), &contents.name]));
        }
        handles.insert(entry.id, file);
    }
    Ok(Found { contents, turn, handles })
}

fn check_container(contents: &Contents, entry: &FileEntry, path: &str) -> Outcome<()> {
    let header = Path::new(path).join("filestream.hdr");
    let body = std::fs::read(&header).map_err(|error| cannot_open(path, &error))?;
    let head: Option<FileHead> = serde_json::from_slice(&body).ok();
    let ours =
        head.is_some_and(|head| head.file_guid == entry.guid && head.family_guid == contents.family_guid);
    if ours { Ok(()) } else { Err(fail(5173, &[])) }
}

/// Deletes what DROP DATABASE deletes; files that are gone already are no error.
pub(crate) fn delete(database: &mut Database) {
    database.handles.clear();
    for (id, path) in &database.paths {
        let is_folder =
            database.contents.files.iter().any(|file| file.id == *id && file.kind == FileKind::Filestream);
        let _gone = if is_folder { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    }
    let undo = database.contents.redo.as_ref().and_then(|redo| redo.standby.as_ref());
    if let Some(undo) = undo {
        let _gone = std::fs::remove_file(undo);
    }
}

/// The error of a write that failed underneath: 3634 with the operating system's reason.
pub(crate) fn write_failed(path: &str, error: &io::Error) -> Stop {
    let reason = super::catalogue::system_error_text(error);
    Stop::Errors(vec![message(3634, &[&reason, &"WriteFile", &path])])
}
