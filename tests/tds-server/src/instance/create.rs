//! CREATE DATABASE, with new files or FOR ATTACH.

use std::collections::BTreeMap;
use std::path::Path;

use super::ast::{FileSpec, GroupSpec};
use super::catalogue::{Outcome, fail, system_error_text};
use super::database::{Contents, Database, FileEntry, FileKind, Filegroup};
use super::pages;
use super::rights;
use super::run::Run;
use super::state::{State, new_database, same_name};
use super::storage;

/// Error 262 or 1801 before a database of this name is made.
fn may_create(run: &Run<'_>, name: &str) -> Outcome<()> {
    let login = run.login();
    if run.connection(|connection| connection.transaction.is_some())? {
        return Err(fail(50_002, &[&"CREATE DATABASE in a transaction"]));
    }
    let state = run.state();
    if !rights::has(&state, &login, "CREATE ANY DATABASE") {
        return Err(fail(262, &[&"CREATE DATABASE", &"master"]));
    }
    if state.find(name).is_some() {
        return Err(fail(1801, &[&name]));
    }
    if name.is_empty() || name.len() > 128 {
        return Err(fail(102, &[&name]));
    }
    Ok(())
}

/// CREATE DATABASE with new files. Errors: 262, 1801, 1803, 1828, and 5123, 5133, 5170 followed by 1802.
pub(crate) fn create(
    run: &mut Run<'_>,
    name: &str,
    files: &[FileSpec],
    groups: &[GroupSpec],
    logs: &[FileSpec],
) -> Outcome<()> {
    let login = run.login();
    may_create(run, name)?;
    let config = &run.shared.config;
    let mut state = run.state();
    let mut contents = state.new_contents(config, name);
    for (id, (group, kind)) in (2..).zip(groups) {
        contents.groups.push(Filegroup { id, name: group.clone(), kind: (*kind).to_owned() });
    }
    let specs = placed(config, name, files, logs);
    let mut paths = BTreeMap::new();
    for (id, (spec, is_log)) in (1..).zip(&specs) {
        let entry = entry_of(&mut state, config, &contents, id, spec, *is_log)?;
        if id == 1 && entry.pages < config.model_pages {
            return Err(fail(1803, &[&(config.model_pages / 128).max(1)]));
        }
        paths.insert(id, spec.path.clone().unwrap_or_default());
        contents.files.push(entry);
    }
    contents.recovery_model =
        state.find("model").map_or(contents.recovery_model, |model| model.contents.recovery_model);
    let mut database = new_database(state.free_id(), name, &login, contents, paths);
    let made = make_files(&mut database, config.durable).and_then(|()| {
        storage::write(&mut database, config.durable)
            .map_err(|error| storage::write_failed(database.path(1), &error))
    });
    if let Err(stop) = made {
        storage::delete(&mut database);
        return Err(stop.then(1802, &[]));
    }
    state.databases.push(database);
    Ok(())
}

/// All files with names and paths, in the order of their ids: the first data file, the first log, the others.
fn placed(
    config: &super::Config,
    name: &str,
    files: &[FileSpec],
    logs: &[FileSpec],
) -> Vec<(FileSpec, bool)> {
    let named = |spec: Option<&FileSpec>, logical: String, folder: &Path, ending: &str| {
        let mut spec = spec.cloned().unwrap_or_default();
        let logical = spec.name.get_or_insert(logical).clone();
        spec.path.get_or_insert_with(|| folder.join(format!("{logical}{ending}")).display().to_string());
        spec
    };
    let data = &config.data_folder;
    let mut specs = vec![
        (named(files.first(), name.to_owned(), data, ".mdf"), false),
        (named(logs.first(), format!("{name}_log"), &config.log_folder, ".ldf"), true),
    ];
    for (count, spec) in (2..).zip(files.iter().skip(1)) {
        specs.push((named(Some(spec), format!("{name}{count}"), data, ".ndf"), false));
    }
    for (count, spec) in (2..).zip(logs.iter().skip(1)) {
        specs.push((named(Some(spec), format!("{name}_log{count}"), &config.log_folder, ".ldf"), true));
    }
    specs
}

/// A file as the database will know it. Error 1828 where the logical name is taken.
fn entry_of(
    state: &mut State,
    config: &super::Config,
    contents: &Contents,
    id: i32,
    spec: &FileSpec,
    is_log: bool,
) -> Outcome<FileEntry> {
    let name = spec.name.clone().unwrap_or_default();
    if contents.files.iter().any(|file| same_name(&file.name, &name)) {
        return Err(fail(1828, &[&name]));
    }
    let group = spec.group.map_or(1, |index| i32::try_from(index).unwrap_or(0) + 2);
    let is_container = contents.groups.iter().any(|found| found.id == group && found.kind != "FG");
    let kind = match (is_log, is_container) {
        (true, _) => FileKind::Log,
        (false, true) => FileKind::Filestream,
        (false, false) => FileKind::Rows,
    };
    let pages = if kind == FileKind::Filestream { 0 } else { spec.pages.unwrap_or(config.model_pages) };
    let group = if is_log { 0 } else { group };
    Ok(FileEntry { id, guid: state.guid(), name, kind, group, pages, created: contents.next })
}

/// Makes every file of a new database. Errors: 5123, 5133, 5170.
pub(crate) fn make_files(database: &mut Database, durable: bool) -> Outcome<()> {
    // What is there already is somebody else's, so that a failure must not delete it.
    for path in database.paths.values() {
        if Path::new(path).exists() {
            let stop = fail(5170, &[path]);
            database.paths.clear();
            return Err(stop);
        }
    }
    for entry in database.contents.files.clone() {
        let path = database.path(entry.id).to_owned();
        if let Some(file) = make_file(&database.contents, &entry, &path, durable)? {
            database.handles.insert(entry.id, file);
        }
    }
    Ok(())
}

/// Makes one file, or a container's folder. Errors: 5121 for the latter, 5123, 5133.
pub(crate) fn make_file(
    contents: &Contents,
    entry: &FileEntry,
    path: &str,
    durable: bool,
) -> Outcome<Option<std::fs::File>> {
    match check_folder(path) {
        Err(_) if entry.kind == FileKind::Filestream => return Err(fail(5121, &[&path])),
        checked => checked?,
    }
    storage::create_file(contents, entry, path, durable)
        .map_err(|error| fail(5123, &[&system_error_text(&error), &path]))
}

/// Error 5133 where the folder of a path is not there.
pub(crate) fn check_folder(path: &str) -> Outcome<()> {
    let folder = Path::new(path).parent().unwrap_or_else(|| Path::new("/"));
    match std::fs::metadata(folder) {
        Ok(found) if found.is_dir() && path.starts_with('/') => Ok(()),
        Err(error) if error.raw_os_error() == Some(13) => {
            Err(fail(5133, &[&path, &system_error_text(&error)]))
        }
        _ => Err(fail(5133, &[&path, &"2(The system cannot find the file specified.)"])),
    }
}

/// CREATE DATABASE … FOR ATTACH. Errors: 262, 1801, 1824, 1829, and 948, 5120, 5171, 5172, 5173, 9003 followed by 1813.
pub(crate) fn attach(run: &mut Run<'_>, name: &str, files: &[FileSpec], logs: &[FileSpec]) -> Outcome<()> {
    let login = run.login();
    may_create(run, name)?;
    let config = &run.shared.config;
    let mut state = run.state();
    let listed: Vec<String> = files.iter().chain(logs).filter_map(|spec| spec.path.clone()).collect();
    let Some(primary) = listed.first() else {
        return Err(fail(1829, &[]));
    };
    for path in &listed {
        if state.owner_of_path(path).is_some_and(|owner| !owner.handles.is_empty()) {
            let reason = "The process cannot access the file because it is being used by another process.";
            return Err(fail(5120, &[path, &32, &reason]).then(1802, &[]));
        }
    }
    let not_opened = |stop: super::catalogue::Stop| stop.then(1813, &[&name]);
    let (_, _, contents) = storage::read_primary(primary).map_err(not_opened)?;
    let supported = config.database_version();
    if contents.version > supported {
        return Err(not_opened(fail(948, &[&name, &contents.version, &supported])));
    }
    if contents.redo.is_some() {
        return Err(fail(1824, &[]));
    }
    let paths = paths_of(&contents, &listed);
    let found = storage::open(primary, |entry| paths.get(&entry.id).cloned().unwrap_or_default());
    let found = found.map_err(not_opened)?;
    let mut database = new_database(state.free_id(), name, &login, found.contents, paths);
    (database.handles, database.turn) = (found.handles, found.turn);
    database.contents.version = supported;
    storage::write(&mut database, config.durable)
        .map_err(|error| not_opened(storage::write_failed(primary, &error)))?;
    state.databases.push(database);
    Ok(())
}

/// Which listed path is which file, by the files' own heads; what is not listed is where it was.
fn paths_of(contents: &Contents, listed: &[String]) -> BTreeMap<i32, String> {
    let mut paths = contents.recorded.clone();
    for path in listed {
        let head = pages::open(Path::new(path)).and_then(|file| pages::read_head(&file)).ok().flatten();
        let by_head = head.map(|head| head.file_id);
        let by_name = || {
            let file_name = Path::new(path).file_name();
            contents
                .recorded
                .iter()
                .find(|(_, old)| Path::new(old).file_name() == file_name)
                .map(|(id, _)| *id)
        };
        if let Some(id) = by_head.or_else(by_name) {
            paths.insert(id, path.clone());
        }
    }
    paths.retain(|id, _| contents.files.iter().any(|file| file.id == *id));
    paths
}
