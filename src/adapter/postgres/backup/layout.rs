//! Which files make up a backup, by their names.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::super::compression::Compression;
use super::label::parse_oid;
use super::tarball::unreadable;
use super::{BackupKind, plain};
use crate::base::{Error, ErrorKind, Result};

const BASE: &str = "base.tar";
const WAL: &str = "pg_wal.tar";
/// Folders that a message lists.
const LISTED_MAX: usize = 5;

#[derive(Debug)]
pub(super) enum Layout {
    Tar(TarFiles),
    /// The data directory.
    Plain(PathBuf),
}

#[derive(Debug)]
pub(super) struct TarFiles {
    pub folder: PathBuf,
    pub base: PathBuf,
    pub tablespaces: BTreeMap<u32, PathBuf>,
    pub wal: Option<PathBuf>,
    pub manifest: Option<PathBuf>,
}

impl Layout {
    pub(super) fn find(path: &Path) -> Result<Self> {
        let metadata = path.metadata().map_err(|e| unreadable(path, e))?;
        let folder = match path.file_name().and_then(|name| name.to_str()) {
            Some(name) if metadata.is_file() && Compression::split(name).0 == BASE => {
                path.parent().unwrap_or(Path::new("/"))
            }
            _ if metadata.is_file() => {
                return Err(Error::invalid(format!(
                    "{} is a file that is not named base.tar: give the folder that pg_basebackup wrote to",
                    path.display()
                )));
            }
            _ => path,
        };
        let mut parts: BTreeMap<String, PathBuf> = BTreeMap::new();
        let mut has_version = false;
        let mut manifest = None;
        for entry in fs::read_dir(folder).map_err(|e| unreadable(folder, e))? {
            let entry = entry.map_err(|e| unreadable(folder, e))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            has_version |= name == "PG_VERSION";
            if name == "backup_manifest" {
                manifest = Some(entry.path());
            }
            refuse_unsupported(folder, name)?;
            let stem = Compression::split(name).0;
            if is_part(stem)
                && let Some(other) = parts.insert(stem.to_owned(), entry.path())
            {
                return Err(several(folder, &[&other, &entry.path()]));
            }
        }
        let base = parts.remove(BASE);
        match base {
            Some(base) if has_version => Err(several(folder, &[&base, &folder.join("PG_VERSION")])),
            Some(base) => {
                let wal = parts.remove(WAL);
                let oid = |stem: &str| parse_oid(stem.strip_suffix(".tar")?.as_bytes());
                let tablespaces = parts.iter().filter_map(|(stem, path)| Some((oid(stem)?, path.clone())));
                let tablespaces = tablespaces.collect();
                Ok(Self::Tar(TarFiles { folder: folder.to_owned(), base, tablespaces, wal, manifest }))
            }
            None if has_version => Ok(Self::Plain(folder.to_owned())),
            None => Err(neither(folder)),
        }
    }

    pub(super) fn folder(&self) -> &Path {
        match self {
            Self::Tar(files) => &files.folder,
            Self::Plain(folder) => folder,
        }
    }

    pub(super) fn kind(&self) -> BackupKind {
        match self {
            Self::Tar(_) => BackupKind::Tar,
            Self::Plain(_) => BackupKind::Plain,
        }
    }

    pub(super) fn compressed(&self) -> bool {
        let Self::Tar(files) = self else { return false };
        files.archives().any(|path| !is_plain(path))
    }

    /// Bytes of all files that are read.
    pub(super) fn size_bytes(&self) -> Result<u64> {
        match self {
            Self::Tar(files) => files.archives().map(file_bytes).sum(),
            Self::Plain(folder) => plain::size_bytes(folder),
        }
    }
}

impl TarFiles {
    /// In the order in which they are unpacked.
    pub(super) fn archives(&self) -> impl Iterator<Item = &Path> {
        let spaces = self.tablespaces.values();
        std::iter::once(&self.base).chain(spaces).chain(&self.wal).map(PathBuf::as_path)
    }
}

pub(super) fn file_bytes(path: &Path) -> Result<u64> {
    Ok(path.metadata().map_err(|e| unreadable(path, e))?.len())
}

/// Whether a file is as it is, not compressed.
pub(super) fn is_plain(path: &Path) -> bool {
    Compression::split(path.to_str().unwrap_or_default()).1 == Compression::None
}

/// Whether an archive of this name is one of a backup's.
fn is_part(stem: &str) -> bool {
    let oid = || stem.strip_suffix(".tar").is_some_and(|oid| parse_oid(oid.as_bytes()).is_some());
    stem == BASE || stem == WAL || oid()
}

fn refuse_unsupported(folder: &Path, name: &str) -> Result<()> {
    let ending = Compression::UNSUPPORTED.into_iter().find(|ending| name.ends_with(ending));
    match ending {
        Some(ending) if is_part(name.strip_suffix(ending).unwrap_or_default()) => Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "the backup file {} is compressed in a way that is not read: make it plain, .gz, .zst or .lz4",
                folder.join(name).display()
            ),
        )),
        _ => Ok(()),
    }
}

fn several(folder: &Path, paths: &[&Path]) -> Error {
    let names: Vec<String> =
        paths.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect();
    Error::invalid(format!(
        "there is more than one backup in {}: {}; leave one of them there",
        folder.display(),
        names.join(" and ")
    ))
}

fn neither(folder: &Path) -> Error {
    let mut below: Vec<String> = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let endings = Compression::ALL.map(|kind| format!("{BASE}{}", kind.ending()));
        let backup = endings.iter().map(String::as_str).chain(["PG_VERSION"]);
        if backup.map(|name| path.join(name)).any(|file| file.exists()) {
            below.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    below.sort();
    let hint = match below.len() {
        0 => "give the folder that pg_basebackup wrote to".to_owned(),
        found => {
            let dots = if found > LISTED_MAX { ", …" } else { "" };
            below.truncate(LISTED_MAX);
            format!("give one of the folders in it: {}{dots}", below.join(", "))
        }
    };
    Error::invalid(format!(
        "{} is no backup: it has neither base.tar (or .gz, .zst, .lz4) nor PG_VERSION; {hint}",
        folder.display()
    ))
}
