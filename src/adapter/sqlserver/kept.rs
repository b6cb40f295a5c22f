//! Log backups that are kept for points in time: copies in the volume for logs, with a list of what they are.
//!
//! A copy is whole and on disk before the list names it; a file that the list does not name is of a copy that did not end, and is
//! written over or removed. Equal blocks are stored once, so that a log that a folder on a volume has takes no more room. Must not
//! know which logs are worth keeping.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::Task;
use super::Guid;
use super::backups::SetFacts;
use super::chain::Backup;
use super::files::open_folders;
use crate::base::{Error, Result};

/// Below the volume for logs.
const FOLDER: &str = "backups";
const LIST: &str = "backups/list.json";
const CHUNK_BYTES: usize = 1 << 20;

/// One log that is kept. Its files are below the volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    backup: Backup,
    facts: SetFacts,
}

/// The logs that are kept in a volume, with the paths that they have there.
pub(super) fn all(logs: &Path) -> Result<(Vec<Backup>, BTreeMap<Guid, SetFacts>)> {
    let (mut backups, mut facts) = (Vec::new(), BTreeMap::new());
    for mut kept in list(logs)? {
        for stripe in &mut kept.backup.stripes {
            stripe.file = logs.join(&stripe.file).display().to_string();
        }
        facts.insert(kept.backup.id, kept.facts);
        backups.push(kept.backup);
    }
    Ok((backups, facts))
}

fn list(logs: &Path) -> Result<Vec<Kept>> {
    let path = logs.join(LIST);
    let shown = path.display().to_string();
    match fs::read(&path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map_err(|e| Error::corrupt(format!("{shown} is damaged: {e}")))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(Error::io("read", &shown, e)),
    }
}

fn write_list(logs: &Path, list: &[Kept]) -> Result<()> {
    let path = logs.join(LIST);
    let shown = path.display().to_string();
    let bytes = serde_json::to_vec(list).map_err(|e| Error::invalid(format!("{shown}: {e}")))?;
    let beside = path.with_extension("new");
    fs::write(&beside, bytes)
        .and_then(|()| File::open(&beside)?.sync_all())
        .and_then(|()| fs::rename(&beside, &path))
        .and_then(|()| File::open(logs.join(FOLDER))?.sync_all())
        .map_err(|e| Error::io("write", &shown, e))
}

/// Keeps these logs, those that are kept already left out. Returns how many came.
pub(super) fn keep<'a>(
    logs: &Path,
    wanted: impl Iterator<Item = &'a Backup>,
    facts: &BTreeMap<Guid, SetFacts>,
    task: &mut dyn Task,
) -> Result<usize> {
    let mut list = list(logs)?;
    let mut count = 0;
    for backup in wanted {
        if list.iter().any(|kept| kept.backup.id == backup.id) {
            continue;
        }
        let Some(facts) = facts.get(&backup.id) else { continue };
        task.check()?;
        let mut own = backup.clone();
        for stripe in &mut own.stripes {
            let name = format!("{FOLDER}/{}-{}.trn", backup.id, stripe.family);
            copy(Path::new(&stripe.file), &logs.join(&name), logs, task)?;
            stripe.file = name;
        }
        list.push(Kept { backup: own, facts: facts.clone() });
        write_list(logs, &list)?;
        count += 1;
    }
    Ok(count)
}

/// A copy that the instance can read.
fn copy(from: &Path, to: &Path, logs: &Path, task: &mut dyn Task) -> Result<()> {
    let shown = to.display().to_string();
    let folder = logs.join(FOLDER);
    fs::create_dir_all(&folder)
        .and_then(|()| fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)))
        .map_err(|e| Error::io("create", &folder.display().to_string(), e))?;
    open_folders(logs, &folder)?;
    let mut source = File::open(from).map_err(|e| Error::io("open", &from.display().to_string(), e))?;
    let mut target = File::create(to).map_err(|e| Error::io("create", &shown, e))?;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        task.check()?;
        let count = source.read(&mut chunk).map_err(|e| Error::io("read", &from.display().to_string(), e))?;
        if count == 0 {
            break;
        }
        std::io::Write::write_all(&mut target, &chunk[..count]).map_err(|e| Error::io("write", &shown, e))?;
    }
    target
        .set_permissions(fs::Permissions::from_mode(0o644))
        .and_then(|()| target.sync_all())
        .map_err(|e| Error::io("write", &shown, e))
}

/// Removes the logs that `old` says nobody needs; returns how many.
pub(super) fn prune(logs: &Path, old: impl Fn(&Backup) -> bool) -> Result<usize> {
    let (gone, left): (Vec<Kept>, Vec<Kept>) = list(logs)?.into_iter().partition(|kept| old(&kept.backup));
    if gone.is_empty() {
        return Ok(0);
    }
    write_list(logs, &left)?;
    let paths = gone.iter().flat_map(|kept| &kept.backup.stripes).map(|stripe| logs.join(&stripe.file));
    for path in paths.collect::<Vec<PathBuf>>() {
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &path.display().to_string(), e));
            }
            _ => {}
        }
    }
    Ok(gone.len())
}

#[cfg(test)]
mod tests {
    use super::super::backups::Headers;
    use super::super::tape::writer::{SetSpec, write};
    use super::*;

    struct Silent;

    impl Task for Silent {
        fn step(&mut self, _: &str) -> Result<()> {
            Ok(())
        }
        fn bytes(&mut self, _: u64, _: Option<u64>) {}
        fn log(&mut self, _: &str) {}
        fn warn(&mut self, _: &str) {}
        fn check(&self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn logs_are_kept_once_and_go_when_nobody_needs_them() {
        let folder = tempfile::Builder::new().prefix("sp").tempdir().unwrap();
        let (from, logs) = (folder.path().join("from"), folder.path().join("logs"));
        fs::create_dir_all(&from).unwrap();
        fs::create_dir_all(&logs).unwrap();
        for id in [1, 2] {
            let spec = SetSpec { letter: b'L', id, ..SetSpec::default() };
            fs::write(from.join(format!("{id}.trn")), write(&[spec])).unwrap();
        }
        let read = Headers::default().folder(&from, None, &mut |_| unreachable!()).unwrap();
        let backups = &read.databases["sales"];
        assert_eq!(keep(&logs, backups.iter(), &read.facts, &mut Silent).unwrap(), 2);
        assert_eq!(keep(&logs, backups.iter(), &read.facts, &mut Silent).unwrap(), 0);
        fs::remove_dir_all(&from).unwrap();
        let (kept, facts) = all(&logs).unwrap();
        assert_eq!((kept.len(), facts.len()), (2, 2));
        for backup in &kept {
            assert_eq!(
                super::super::tape::read_file(Path::new(&backup.stripes[0].file)).unwrap().sets.len(),
                1
            );
        }
        let first = kept[0].id;
        assert_eq!(prune(&logs, |log| log.id == first).unwrap(), 1);
        assert_eq!(prune(&logs, |log| log.id == first).unwrap(), 0);
        let left = all(&logs).unwrap().0;
        assert_eq!(left.len(), 1);
        assert!(
            !Path::new(&kept[0].stripes[0].file).exists() && Path::new(&left[0].stripes[0].file).exists()
        );
    }
}
