//! ALTER DATABASE on files and filegroups.

use super::ast::{Alteration, FileSpec};
use super::catalogue::{Outcome, fail, system_error_text};
use super::create;
use super::database::{Database, DatabaseState, FileEntry, FileKind, Filegroup};
use super::options::save;
use super::pages;
use super::run::Run;
use super::state::same_name;

/// What the client is told when it is done.
enum Told {
    Nothing,
    PathChanged(String),
    NameSet(String),
    Removed(&'static str, String),
}

/// Does one change. Errors: 1828, 3023, 5020, 5035, 5039, 5041, 5123, 5133, 5149, 5170.
pub(crate) fn change(run: &mut Run<'_>, name: &str, change: &Alteration) -> Outcome<()> {
    let told = {
        let durable = run.shared.config.durable;
        let model_pages = run.shared.config.model_pages;
        let mut state = run.state();
        let guid = state.guid();
        let database = state.database_mut(name)?;
        if database.suspended.is_some() {
            return Err(fail(3023, &[]));
        }
        match change {
            Alteration::ModifyFile(spec) => modify(database, spec, durable)?,
            Alteration::AddFile { file, log, group } => {
                let entry = new_entry(database, file, *log, group.as_deref(), model_pages, guid)?;
                add(database, file, entry, durable)?
            }
            Alteration::RemoveFile(logical) => remove(database, logical, durable)?,
            Alteration::AddGroup((group, kind)) => add_group(database, group, kind, durable)?,
            Alteration::RemoveGroup(group) => remove_group(database, group, durable)?,
            _ => Told::Nothing,
        }
    };
    match told {
        Told::Nothing => Ok(()),
        Told::PathChanged(file) => run.info(5018, &[&file]),
        Told::NameSet(file) => run.info(5021, &[&"file", &file]),
        Told::Removed(what, file) => run.info(5044, &[&what, &file]),
    }
}

fn modify(database: &mut Database, spec: &FileSpec, durable: bool) -> Outcome<Told> {
    let logical = spec.name.clone().unwrap_or_default();
    let taken = |name: &String| database.contents.files.iter().any(|file| same_name(&file.name, name));
    if let Some(new) = spec.new_name.as_ref().filter(|new| !same_name(new, &logical) && taken(new)) {
        return Err(fail(1828, &[new]));
    }
    let Some(at) = database.contents.files.iter().position(|file| same_name(&file.name, &logical)) else {
        return Err(fail(5041, &[&logical]));
    };
    let id = database.contents.files[at].id;
    if let Some(path) = &spec.path {
        // Only the catalog changes: the files are looked for there at the next start.
        database.paths.insert(id, path.clone());
        return Ok(Told::PathChanged(logical));
    }
    super::rights::open_for_use(database)?;
    if let Some(new) = &spec.new_name {
        database.contents.files[at].name.clone_from(new);
        save(database, durable)?;
        return Ok(Told::NameSet(new.clone()));
    }
    let Some(wanted) = spec.pages else {
        return Ok(Told::Nothing);
    };
    if wanted <= database.contents.files[at].pages {
        return Err(fail(5039, &[]));
    }
    if let Some(handle) = database.handles.get(&id) {
        pages::grow(handle, wanted)
            .map_err(|error| fail(5149, &[&system_error_text(&error), &database.path(id)]))?;
    }
    database.contents.files[at].pages = wanted;
    database.contents.next = database.contents.next.after(2);
    save(database, durable)?;
    Ok(Told::Nothing)
}

fn new_entry(
    database: &Database,
    spec: &FileSpec,
    log: bool,
    group: Option<&str>,
    model_pages: u64,
    guid: super::value::Guid,
) -> Outcome<FileEntry> {
    let contents = &database.contents;
    let name = spec.name.clone().unwrap_or_default();
    if contents.files.iter().any(|file| same_name(&file.name, &name)) {
        return Err(fail(1828, &[&name]));
    }
    let group = group.unwrap_or("PRIMARY");
    let Some(group) = contents.groups.iter().find(|found| same_name(&found.name, group)) else {
        return Err(fail(5041, &[&group]));
    };
    let kind = match (log, group.kind.as_str()) {
        (true, _) => FileKind::Log,
        (false, "FG") => FileKind::Rows,
        (false, _) => FileKind::Filestream,
    };
    let id = (3..).find(|id| contents.files.iter().all(|file| file.id != *id)).unwrap_or(i32::MAX);
    let pages = if kind == FileKind::Filestream { 0 } else { spec.pages.unwrap_or(model_pages) };
    let group = if log { 0 } else { group.id };
    Ok(FileEntry { id, guid, name, kind, group, pages, created: contents.next })
}

fn add(database: &mut Database, spec: &FileSpec, entry: FileEntry, durable: bool) -> Outcome<Told> {
    let path = spec.path.clone().unwrap_or_default();
    if std::path::Path::new(&path).exists() {
        return Err(fail(5170, &[&path]));
    }
    if let Some(file) = create::make_file(&database.contents, &entry, &path, durable)? {
        database.handles.insert(entry.id, file);
    }
    database.paths.insert(entry.id, path);
    database.contents.files.push(entry);
    database.contents.next = database.contents.next.after(4);
    save(database, durable)?;
    Ok(Told::Nothing)
}

fn remove(database: &mut Database, logical: &str, durable: bool) -> Outcome<Told> {
    let Some(at) = database.contents.files.iter().position(|file| same_name(&file.name, logical)) else {
        return Err(fail(5041, &[&logical]));
    };
    if database.contents.files[at].id <= 2 {
        return Err(fail(5020, &[]));
    }
    let entry = database.contents.files.remove(at);
    database.handles.remove(&entry.id);
    if let Some(path) = database.paths.remove(&entry.id) {
        let _gone = match entry.kind {
            FileKind::Filestream => std::fs::remove_dir_all(path),
            _ => std::fs::remove_file(path),
        };
    }
    database.contents.next = database.contents.next.after(4);
    save(database, durable)?;
    Ok(Told::Removed("file", entry.name))
}

fn add_group(database: &mut Database, group: &str, kind: &str, durable: bool) -> Outcome<Told> {
    if database.contents.groups.iter().any(|found| same_name(&found.name, group)) {
        return Err(fail(5035, &[&group]));
    }
    let id = database.contents.groups.iter().map(|found| found.id).max().unwrap_or(0) + 1;
    database.contents.groups.push(Filegroup { id, name: group.to_owned(), kind: kind.to_owned() });
    if database.state == DatabaseState::Online {
        save(database, durable)?;
    }
    Ok(Told::Nothing)
}

fn remove_group(database: &mut Database, group: &str, durable: bool) -> Outcome<Told> {
    let contents = &mut database.contents;
    let Some(at) = contents.groups.iter().position(|found| same_name(&found.name, group) && found.id != 1)
    else {
        return Err(fail(5041, &[&group]));
    };
    if contents.files.iter().any(|file| file.group == contents.groups[at].id) {
        return Err(fail(50_002, &[&"removing a filegroup that has files"]));
    }
    contents.groups.remove(at);
    save(database, durable)?;
    Ok(Told::Removed("filegroup", group.to_owned()))
}
