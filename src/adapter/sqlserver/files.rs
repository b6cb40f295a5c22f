//! A database's files and the instance that has them: taken up, let go of, put under a database that was made for them.
//!
//! A restoring database can neither be attached (1824) nor taken offline (5052), and dropping it deletes its files. So its
//! files are put aside before a drop, and put under a new, closed database of the same shape to be taken up. Nothing of it is
//! documented for restoring files: what came of it is compared before it is used.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::super::Task;
use super::client::Sql;
use super::config::{ASIDE_FOLDER, FileKind, FileRecord};
use super::state::{self, DatabaseState};
use super::statements::{self, NewFile};
use crate::base::{Error, ErrorKind, OsUser, Result};

/// What a database's files were when the instance let go of them, below the volume.
const RECORDS: &str = "DATA/files.json";

/// Makes a folder that the instance can write in.
pub(super) fn make_folder(path: &Path, user: &OsUser) -> Result<()> {
    let shown = path.display().to_string();
    fs::create_dir_all(path)
        .and_then(|()| chown(path, Some(user.uid), Some(user.gid)))
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o770)))
        .map_err(|e| Error::io("create", &shown, e))
}

/// Lets the folders above the files be passed by the instance.
pub(super) fn open_folders(volume: &Path, folder: &Path) -> Result<()> {
    let between = folder.ancestors().skip(1).take_while(|path| path.starts_with(volume));
    for path in between {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))
            .map_err(|e| Error::io("open", &path.display().to_string(), e))?;
    }
    Ok(())
}

fn aside(volume: &Path) -> PathBuf {
    volume.join(ASIDE_FOLDER)
}

/// Whether files were put aside by an operation that did not end.
pub(super) fn are_aside(volume: &Path) -> bool {
    fs::read_dir(aside(volume)).is_ok_and(|mut entries| entries.next().is_some())
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|e| Error::io("move", &from.display().to_string(), e))
}

/// Writes down beside a database's files what they are, for when no instance knows it.
pub(super) fn remember(volume: &Path, files: &[FileRecord]) -> Result<()> {
    let path = volume.join(RECORDS);
    let shown = path.display().to_string();
    let bytes = serde_json::to_vec(files).map_err(|e| Error::invalid(format!("{shown}: {e}")))?;
    let beside = path.with_extension("new");
    fs::write(&beside, bytes)
        .and_then(|()| fs::File::open(&beside)?.sync_all())
        .and_then(|()| fs::rename(&beside, &path))
        .map_err(|e| Error::io("write", &shown, e))
}

/// What `remember` wrote; `None` when it never did.
pub(super) fn recall(volume: &Path) -> Result<Option<Vec<FileRecord>>> {
    let path = volume.join(RECORDS);
    let shown = path.display().to_string();
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| Error::corrupt(format!("{shown} is damaged: {e}"))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", &shown, e)),
    }
}

/// Drops a restoring database and keeps its files: a second link to each stays aside until the first one is deleted.
pub(super) fn let_go(sql: &mut Sql, name: &str, files: &[FileRecord], volume: &Path) -> Result<()> {
    let folder = aside(volume);
    fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder.display().to_string(), e))?;
    for file in files {
        let (from, to) = (file.place(volume), folder.join(file.id.to_string()));
        // What lies there is of an attempt that did not end: the database has the files.
        remove(&to)?;
        fs::hard_link(&from, &to).map_err(|e| Error::io("link", &from.display().to_string(), e))?;
    }
    sql.change(&statements::drop(name))?;
    put_back(files, volume)
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", &path.display().to_string(), e))
        }
        _ => Ok(()),
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    let number = |path: &Path| fs::metadata(path).map(|found| found.ino()).ok();
    number(one).is_some_and(|found| number(other) == Some(found))
}

/// Ends what an operation left that did not end: then each file has its own place and no other, and a database that was only
/// made for them is gone. Says whether the instance still has the database.
pub(super) fn settle(
    sql: &mut Sql,
    name: &str,
    found: Option<&DatabaseState>,
    files: &[FileRecord],
    volume: &Path,
) -> Result<bool> {
    let folder = aside(volume);
    if !are_aside(volume) {
        return Ok(found.is_some());
    }
    let Some(found) = found else {
        put_back(files, volume)?;
        return Ok(false);
    };
    let records = found.records();
    let kept = |file: &FileRecord| folder.join(file.id.to_string());
    let linked = |file: &FileRecord| !kept(file).exists() || is_same(&kept(file), &file.place(volume));
    // One that was made for what lies aside is new: it restores nothing, and has GUIDs of its own.
    let known = |file: &FileRecord| files.iter().any(|other| other.guid.is_some() && other.guid == file.guid);
    if found.redo_start_lsn.is_some()
        || found.standby
        || records.iter().all(linked)
        || records.iter().all(known)
    {
        // It was to be let go of, and was not yet, or was restored into since.
        fs::remove_dir_all(&folder).map_err(|e| Error::io("remove", &folder.display().to_string(), e))?;
        return Ok(true);
    }
    // It was made for the files that lie aside. Closed, its own stay for them to replace.
    sql.change(&statements::offline(name))?;
    sql.change(&statements::drop(name))?;
    put_back(&records, volume)?;
    Ok(false)
}

/// Moves files that are aside back to their places.
pub(super) fn put_back(files: &[FileRecord], volume: &Path) -> Result<()> {
    let folder = aside(volume);
    for file in files {
        let from = folder.join(file.id.to_string());
        if is_same(&from, &file.place(volume)) {
            // The other link to it was not deleted; renaming one to the other would do nothing.
            remove(&from)?;
        } else if from.exists() {
            rename(&from, &file.place(volume))?;
        }
    }
    match fs::remove_dir(&folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", &folder.display().to_string(), e))
        }
        _ => Ok(()),
    }
}

/// Why files of these kinds and numbers cannot be taken up, if that is so.
pub(super) fn cannot_be_taken(files: &[FileRecord]) -> Option<String> {
    if let Some(file) = files.iter().find(|file| matches!(file.kind, FileKind::Stream | FileKind::FullText)) {
        return Some(format!(
            "file {} is FILESTREAM, memory-optimized or full-text data, whose folders cannot be put under another database",
            file.name
        ));
    }
    let logs: Vec<i64> = files.iter().filter(|file| file.kind == FileKind::Log).map(|file| file.id).collect();
    let wanted = expected_numbers(files.len() - logs.len(), logs.len());
    let numbers: Vec<i64> = files.iter().map(|file| file.id).collect();
    let data: Vec<i64> = numbers.iter().copied().filter(|id| !logs.contains(id)).collect();
    let (data_wanted, logs_wanted) = wanted;
    (data != data_wanted || logs != logs_wanted).then(|| {
        format!("its files have the numbers {numbers:?}, which a new database does not get: files were removed or logs added")
    })
}

/// The numbers that `CREATE DATABASE` gives: the primary file 1, the first log 2, then the other data files, then logs.
fn expected_numbers(data: usize, logs: usize) -> (Vec<i64>, Vec<i64>) {
    let at = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let mut data_ids = vec![1];
    data_ids.extend((1..data).map(|index| at(index) + 2));
    let mut log_ids = vec![2];
    log_ids.extend((1..logs).map(|index| at(data) + at(index) + 1));
    (data_ids, log_ids)
}

/// Puts files of any state under a new database of their shape, and opens it. Returns what it is then.
pub(super) fn take_up(
    sql: &mut Sql,
    name: &str,
    files: &[FileRecord],
    volume: &Path,
) -> Result<DatabaseState> {
    if let Some(why) = cannot_be_taken(files) {
        return Err(Error::new(ErrorKind::Unsupported, format!("{name}: {why}")));
    }
    let folder = aside(volume);
    fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder.display().to_string(), e))?;
    for file in files {
        let from = file.place(volume);
        rename(&from, &folder.join(file.id.to_string()))?;
    }
    let taken = under_new(sql, name, files, volume, &folder);
    if taken.is_err() {
        let there = state::database(sql, name, volume)?;
        let ours = there.is_some_and(|there| there.outside(volume).is_none());
        match (ours, are_aside(volume)) {
            // The new database goes, with the empty files it has.
            (true, true) => {
                sql.change(&statements::drop(name))?;
                put_back(files, volume)?;
            }
            // It has the files already.
            (true, false) => let_go(sql, name, files, volume)?,
            (false, _) => put_back(files, volume)?,
        }
    }
    taken
}

fn under_new(
    sql: &mut Sql,
    name: &str,
    files: &[FileRecord],
    volume: &Path,
    folder: &Path,
) -> Result<DatabaseState> {
    let places: Vec<(&FileRecord, PathBuf)> = files.iter().map(|file| (file, file.place(volume))).collect();
    let new = |kind: FileKind| -> Vec<NewFile<'_>> {
        let of_kind = places.iter().filter(|(file, _)| file.kind == kind);
        of_kind.map(|(file, path)| NewFile { logical: &file.name, path }).collect()
    };
    sql.change(&statements::create(name, &new(FileKind::Rows), &new(FileKind::Log)))?;
    sql.change(&statements::offline(name))?;
    for (file, path) in &places {
        rename(&folder.join(file.id.to_string()), path)?;
    }
    fs::remove_dir(folder).map_err(|e| Error::io("remove", &folder.display().to_string(), e))?;
    sql.change(&statements::online(name))?;
    let found = state::database(sql, name, volume)?;
    let found =
        found.ok_or_else(|| Error::new(ErrorKind::Failed, format!("{name} is gone after SET ONLINE")))?;
    let same = |one: &FileRecord, other: &FileRecord| {
        (one.id, one.guid, one.kind, &one.path) == (other.id, other.guid, other.kind, &other.path)
    };
    let records = found.records();
    if records.len() != files.len() || !records.iter().zip(files).all(|(one, other)| same(one, other)) {
        return Err(Error::new(
            ErrorKind::Failed,
            format!(
                "{name} has other files than the snapshot: SQL Server did not take what was put under it"
            ),
        ));
    }
    Ok(found)
}

/// Attaches files that make a whole database.
pub(super) fn attach(sql: &mut Sql, name: &str, files: &[FileRecord], volume: &Path) -> Result<()> {
    let places: Vec<PathBuf> = files.iter().map(|file| file.place(volume)).collect();
    sql.change(&statements::attach(name, places.iter().map(PathBuf::as_path)))?;
    Ok(())
}

/// Copies a database's files to a new folder, durably; one that is there must be empty.
pub(super) fn export(from: &Path, to: &Path, task: &dyn Task) -> Result<()> {
    let shown = to.display().to_string();
    let is_empty = || fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_none());
    match fs::create_dir(to) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && is_empty() => {}
        Err(e) => return Err(Error::io("create", &shown, e)),
        Ok(()) => {}
    }
    for entry in fs::read_dir(from).map_err(|e| Error::io("read", &from.display().to_string(), e))? {
        let entry = entry.map_err(|e| Error::io("read", &from.display().to_string(), e))?;
        task.check()?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            export(&source, &target, task)?;
        } else {
            fs::copy(&source, &target)
                .and_then(|_| fs::File::open(&target)?.sync_all())
                .map_err(|e| Error::io("copy", &source.display().to_string(), e))?;
        }
    }
    fs::File::open(to).and_then(|folder| folder.sync_all()).map_err(|e| Error::io("sync", &shown, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(id: i64, kind: FileKind) -> FileRecord {
        FileRecord {
            id,
            guid: None,
            kind,
            name: format!("f{id}"),
            path: format!("f{id}").into(),
            pages: 1,
            group: 1,
        }
    }

    #[test]
    fn numbers_are_those_that_a_new_database_gets() {
        let of = |kinds: &[(i64, FileKind)]| {
            cannot_be_taken(&kinds.iter().map(|(id, kind)| file(*id, *kind)).collect::<Vec<_>>())
        };
        use FileKind::{Log, Rows, Stream};
        assert_eq!(of(&[(1, Rows), (2, Log)]), None);
        assert_eq!(of(&[(1, Rows), (2, Log), (3, Rows), (4, Rows)]), None);
        assert!(of(&[(1, Rows), (2, Log), (4, Rows)]).unwrap().contains("[1, 2, 4]"));
        assert!(of(&[(1, Rows), (2, Log), (3, Stream)]).unwrap().contains("FILESTREAM"));
    }
}
