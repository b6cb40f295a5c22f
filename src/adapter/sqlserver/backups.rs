//! The backups in a folder: which there are, of which databases, and what each needs to be restored.
//!
//! Files are read by our own reader; what it cannot read, since it is compressed or encrypted, an instance is asked for. A
//! file that did not change since is not read again. Files that are no backups are passed over. Invariant: each backup
//! file that is not used is told, with why. Must not know datasets and volumes.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::Guid;
use super::chain::Backup;
use super::gather::gather;
use super::tape::{self, BackupFile, BackupSet, DataStreams, DatabaseFile, Fault, FileKind};
use crate::base::{Error, ErrorKind, Result};

/// How deep below a folder backups are looked for: server, database, kind of backup, and some more.
const DEPTH_MAX: usize = 6;
/// Files that are looked at, at most.
const FILES_MAX: usize = 100_000;

/// What a restore needs to know of a backup besides its place in the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SetFacts {
    pub database: String,
    pub server: String,
    /// The database's files at the end of the backup.
    pub files: Vec<DatabaseFile>,
    /// The zone of the server that was backed up, in quarter hours east of UTC.
    pub zone_quarters: Option<i8>,
    pub bytes: u64,
}

/// The backups of some files.
#[derive(Clone, Debug, Default)]
pub(super) struct Backups {
    /// By database as the backups name it.
    pub databases: BTreeMap<String, Vec<Backup>>,
    pub facts: BTreeMap<Guid, SetFacts>,
    /// File and what keeps it, or a set of it, from being used.
    pub problems: Vec<(String, String)>,
}

impl Backups {
    /// All that are of one database since it was created, whatever it was called.
    pub(super) fn of_family(&self, family: Guid) -> Vec<Backup> {
        let all = self.databases.values().flatten();
        all.filter(|backup| backup.family_id == family).cloned().collect()
    }

    /// The files of a backup, by their last names.
    pub(super) fn shown(backup: &Backup) -> String {
        let name = |path: &str| Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned());
        let names: Vec<String> = backup.stripes.iter().filter_map(|stripe| name(&stripe.file)).collect();
        match backup.position {
            0 | 1 => names.join(" + "),
            position => format!("{} (set {position})", names.join(" + ")),
        }
    }
}

impl SetFacts {
    fn of(set: &BackupSet) -> Self {
        Self {
            database: set.database.clone(),
            server: set.server.clone(),
            files: set.files.clone(),
            zone_quarters: set.zone_quarters,
            bytes: set.size_bytes,
        }
    }

    /// The file that keeps its database from being staged, and what it holds.
    pub(super) fn unsupported(&self) -> Option<String> {
        let file = self.files.iter().find(|file| matches!(file.kind, FileKind::Other(_)))?;
        Some(format!(
            "file {} of {} holds FILESTREAM, memory-optimized or full-text data, which cannot be staged",
            file.logical_name, self.database
        ))
    }
}

/// How a file was when it was read.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    changed: Option<SystemTime>,
}

/// What was read of files, kept while they stay as they are.
#[derive(Default)]
pub(super) struct Headers {
    known: Mutex<HashMap<PathBuf, (Stamp, Arc<BackupFile>)>>,
}

impl Headers {
    /// The backups in a folder and those below it. `ask` reads what is compressed or encrypted. `zone_quarters` stands in for
    /// sets that do not know their time zone.
    pub(super) fn folder(
        &self,
        folder: &Path,
        zone_quarters: Option<i8>,
        ask: &mut dyn FnMut(&Path) -> Result<BackupFile>,
    ) -> Result<Backups> {
        let mut paths = Vec::new();
        list(folder, 0, &mut paths)?;
        paths.sort();
        let read = self.files(&paths, zone_quarters, ask);
        let mut known = self.known.lock();
        known.retain(|path, _| !path.starts_with(folder) || paths.binary_search(path).is_ok());
        Ok(read)
    }

    /// The backups of these files.
    pub(super) fn files(
        &self,
        paths: &[PathBuf],
        zone_quarters: Option<i8>,
        ask: &mut dyn FnMut(&Path) -> Result<BackupFile>,
    ) -> Backups {
        let (mut files, mut problems) = (Vec::new(), Vec::new());
        for path in paths {
            let name = path.display().to_string();
            match self.file(path, ask) {
                Ok(Some(file)) => files.push((name, file)),
                Ok(None) => {}
                Err(e) => problems.push((name, e.message().to_owned())),
            }
        }
        let mut facts = BTreeMap::new();
        for set in files.iter().flat_map(|(_, file)| &file.sets) {
            if set.complete || !facts.contains_key(&set.id) {
                facts.insert(set.id, SetFacts::of(set));
            }
        }
        let gathered = gather(&files, zone_quarters);
        problems.extend(gathered.problems);
        Backups { databases: gathered.databases, facts, problems }
    }

    /// Nothing for what is no backup at all, or gone since.
    fn file(
        &self,
        path: &Path,
        ask: &mut dyn FnMut(&Path) -> Result<BackupFile>,
    ) -> Result<Option<Arc<BackupFile>>> {
        let Ok(found) = std::fs::metadata(path) else { return Ok(None) };
        let stamp = Stamp { bytes: found.len(), changed: found.modified().ok() };
        if let Some((of, file)) = self.known.lock().get(path)
            && *of == stamp
        {
            return Ok(Some(Arc::clone(file)));
        }
        let Some(mut file) = read(path, ask)? else { return Ok(None) };
        // Where the pages lie is of no use here, and much.
        file.sets.iter_mut().for_each(|set| set.data = DataStreams::default());
        let file = Arc::new(file);
        self.known.lock().insert(path.to_owned(), (stamp, Arc::clone(&file)));
        Ok(Some(file))
    }
}

fn read(path: &Path, ask: &mut dyn FnMut(&Path) -> Result<BackupFile>) -> Result<Option<BackupFile>> {
    let shown = path.display().to_string();
    let opened = std::fs::File::open(path).map_err(|e| Error::io("open", &shown, e))?;
    let needs_server = |fault| matches!(fault, Fault::Compressed | Fault::Encrypted);
    match tape::read(opened) {
        Ok(file) if file.problem.as_ref().is_some_and(|problem| needs_server(problem.fault)) => {
            ask(path).map(Some)
        }
        Ok(file) => Ok(Some(file)),
        Err(problem) if needs_server(problem.fault) => ask(path).map(Some),
        Err(problem) if problem.fault == Fault::Foreign => Ok(None),
        Err(problem) => Err(Error::new(ErrorKind::Corrupt, problem.to_string())),
    }
}

fn list(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    let shown = folder.display().to_string();
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io("read", &shown, e))?;
    for entry in entries {
        let entry = entry.map_err(|e| Error::io("read", &shown, e))?;
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        let Ok(kind) = std::fs::metadata(&path) else { continue };
        if kind.is_dir() && !hidden && depth < DEPTH_MAX {
            list(&path, depth + 1, found)?;
        } else if kind.is_file() && !hidden {
            found.push(path);
        }
        if found.len() > FILES_MAX {
            return Err(Error::invalid(format!(
                "{shown} and the folders below it have more than {FILES_MAX} files"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tape::writer::{SetSpec, guid, write};
    use super::*;

    fn nobody(path: &Path) -> Result<BackupFile> {
        Err(Error::invalid(format!("asked for {}", path.display())))
    }

    #[test]
    fn a_folder_is_read_once_and_what_is_no_backup_is_passed_over() {
        let folder = tempfile::Builder::new().prefix("sp").tempdir().unwrap();
        let below = folder.path().join("sales/FULL");
        std::fs::create_dir_all(&below).unwrap();
        std::fs::write(below.join("a.bak"), write(&[SetSpec::default()])).unwrap();
        std::fs::write(folder.path().join("notes.txt"), "nothing").unwrap();
        std::fs::write(folder.path().join("packed.bak"), "MSSQLBAK and more").unwrap();
        std::fs::write(folder.path().join(".hidden"), write(&[SetSpec::default()])).unwrap();
        let headers = Headers::default();
        let found = headers.folder(folder.path(), None, &mut nobody).unwrap();
        assert_eq!(found.databases["sales"].len(), 1);
        assert_eq!(found.facts[&guid(1)].files.len(), 2);
        assert_eq!(found.problems.len(), 1, "{:?}", found.problems);
        assert!(found.problems[0].1.contains("asked for"), "{:?}", found.problems);
        assert_eq!(headers.known.lock().len(), 1);
        // One that is replaced is read again, and one that is gone is forgotten.
        let two = [SetSpec::default(), SetSpec { id: 2, ..SetSpec::default() }];
        std::fs::write(below.join("a.bak"), write(&two)).unwrap();
        assert_eq!(headers.folder(folder.path(), None, &mut nobody).unwrap().databases["sales"].len(), 2);
        std::fs::remove_file(below.join("a.bak")).unwrap();
        assert!(headers.folder(folder.path(), None, &mut nobody).unwrap().databases.is_empty());
        assert!(headers.known.lock().is_empty());
        assert!(headers.folder(&below.join("none"), None, &mut nobody).is_err());
    }
}
