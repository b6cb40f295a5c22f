//! Where the files of a restore go: MOVE, the place they have, the place they had; and who else has it.

use std::collections::BTreeMap;
use std::path::Path;

use super::Job;
use crate::instance::catalogue::{Outcome, Stop, fail, message};
use crate::instance::create::check_folder;
use crate::instance::database::{Database, FileEntry};
use crate::instance::state::{State, same_name};

/// Paths by file id.
///
/// Errors: 3234 for a MOVE of what is not there; 1834, 3142, 5133 each with 3156, and 3176, all followed by 3119.
pub(super) fn paths(state: &State, job: &Job, existing: Option<&Database>) -> Outcome<BTreeMap<i32, String>> {
    let files = &job.head.contents.files;
    for (logical, _) in &job.moves {
        if !files.iter().any(|file| same_name(&file.name, logical)) {
            return Err(fail(3234, &[logical, &job.head.database]));
        }
    }
    let mut paths: BTreeMap<i32, String> = BTreeMap::new();
    let mut errors = Vec::new();
    for file in files {
        let path = path_of(job, existing, file);
        if let Some((other, _)) = paths.iter().find(|(_, other)| **other == path) {
            let name = files.iter().find(|file| file.id == *other).map_or("", |file| file.name.as_str());
            errors.push(message(3176, &[&path, &file.name, &file.id, &name, other]));
        }
        if let Err(stop) = usable(state, job, existing, file, &path) {
            if let Stop::Errors(found) = stop {
                errors.extend(found);
            }
            errors.push(message(3156, &[&file.name, &path]));
        }
        paths.insert(file.id, path);
    }
    if errors.is_empty() {
        return Ok(paths);
    }
    errors.push(message(3119, &[]));
    Err(Stop::Errors(errors))
}

fn path_of(job: &Job, existing: Option<&Database>, file: &FileEntry) -> String {
    if let Some((_, to)) = job.moves.iter().find(|(logical, _)| same_name(logical, &file.name)) {
        return to.clone();
    }
    let known = existing.filter(|database| {
        database.contents.files.iter().any(|own| own.id == file.id && own.guid == file.guid)
    });
    let had = || job.head.paths.iter().find(|(id, _)| *id == file.id).map(|(_, path)| path.clone());
    known.and_then(|database| database.paths.get(&file.id).cloned()).or_else(had).unwrap_or_default()
}

/// Errors: 1834, 3142, 5133.
fn usable(
    state: &State,
    job: &Job,
    existing: Option<&Database>,
    file: &FileEntry,
    path: &str,
) -> Outcome<()> {
    if let Some(owner) = state.owner_of_path(path) {
        let own = existing.is_some_and(|database| database.id == owner.id);
        return if own { Ok(()) } else { Err(fail(1834, &[&path, &owner.name])) };
    }
    check_folder(path)?;
    if Path::new(path).exists() && !job.replace && !job.head.metadata_only {
        return Err(fail(3142, &[&file.name, &path]));
    }
    Ok(())
}
