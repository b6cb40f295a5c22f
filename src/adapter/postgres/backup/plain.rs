//! A backup that is a plain copy of a data directory: a walk over its files that follows the links to
//! tablespaces and to `pg_wal`, and no others.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::facts::{Facts, WAL_FOLDER, is_wal};
use super::label::{TEXT_BYTES_MAX, parse_oid};
use super::place::SPACES;
use super::tarball::unreadable;
use crate::base::{Error, ErrorKind, Result};

/// Folders within folders; a cluster has four.
const DEPTH_MAX: usize = 16;

/// What the walk meets; paths are relative to the data directory, and those in tablespaces begin with
/// `pg_tblspc/OID`.
pub(super) enum Met<'a> {
    Folder,
    /// Its size and where it lies.
    File(u64, &'a Path),
    /// A link to a file beside the cluster's own, as distributions make for certificates; nothing of it is
    /// taken.
    Skipped,
}

type Visit<'v> = &'v mut dyn FnMut(&Path, Met<'_>) -> Result<()>;

pub(super) fn walk(folder: &Path, visit: Visit<'_>) -> Result<()> {
    descend(folder, Path::new(""), 0, visit)
}

fn descend(folder: &Path, relative: &Path, depth: usize, visit: Visit<'_>) -> Result<()> {
    if depth > DEPTH_MAX {
        return Err(Error::invalid(format!("{} is too deep for a data directory", folder.display())));
    }
    for entry in fs::read_dir(folder).map_err(|e| unreadable(folder, e))? {
        let entry = entry.map_err(|e| unreadable(folder, e))?;
        let path = entry.path();
        let relative = relative.join(entry.file_name());
        let metadata = path.symlink_metadata().map_err(|e| unreadable(&path, e))?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            visit(&relative, Met::Folder)?;
            descend(&path, &relative, depth + 1, visit)?;
        } else if kind.is_file() {
            visit(&relative, Met::File(metadata.len(), &path))?;
        } else if kind.is_symlink() {
            if leads_on(&relative) {
                visit(&relative, Met::Folder)?;
                descend(&path, &relative, depth + 1, visit)?;
            } else if depth == 0 && path.metadata().is_ok_and(|target| target.is_file()) {
                visit(&relative, Met::Skipped)?;
            } else {
                return Err(Error::invalid(format!(
                    "the backup has a symbolic link {}; only links to tablespaces and of pg_wal are followed",
                    path.display()
                )));
            }
        } else if !std::os::unix::fs::FileTypeExt::is_socket(&kind) {
            return Err(Error::invalid(format!("the backup has a device or fifo, {}", path.display())));
        }
    }
    Ok(())
}

/// Whether a link of this name is one that PostgreSQL uses for folders.
fn leads_on(relative: &Path) -> bool {
    let below = relative.strip_prefix(SPACES).ok().map(|name| name.as_os_str().as_encoded_bytes());
    relative == Path::new(WAL_FOLDER) || below.is_some_and(|name| parse_oid(name).is_some())
}

pub(super) fn size_bytes(folder: &Path) -> Result<u64> {
    let mut total = 0_u64;
    walk(folder, &mut |_, met| {
        if let Met::File(bytes, _) = met {
            total = total.saturating_add(bytes);
        }
        Ok(())
    })?;
    Ok(total)
}

/// What the small files tell. Refuses the data directory of a running server, and links to the tablespaces that
/// the source itself uses.
pub(super) fn facts(folder: &Path) -> Result<Facts> {
    let mut facts = Facts::default();
    for name in ["PG_VERSION", "global/pg_control", "backup_label", "tablespace_map"] {
        if let Some(content) = small(&folder.join(name))? {
            facts.take(Path::new(name), &content)?;
        }
    }
    refuse_running(folder, facts.label.is_some())?;
    take_links(folder, &mut facts)?;
    let wal = folder.join(WAL_FOLDER);
    for entry in fs::read_dir(&wal).into_iter().flatten().flatten() {
        if facts.wal.is_none() && is_wal(&Path::new(WAL_FOLDER).join(entry.file_name())) {
            let mut start = Vec::new();
            let file = File::open(entry.path()).map_err(|e| unreadable(&entry.path(), e))?;
            file.take(64).read_to_end(&mut start).map_err(|e| unreadable(&entry.path(), e))?;
            facts.wal = super::super::wal::identify(&start);
        }
    }
    Ok(facts)
}

fn small(path: &Path) -> Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unreadable(path, e)),
    };
    let mut content = Vec::new();
    file.take(TEXT_BYTES_MAX).read_to_end(&mut content).map_err(|e| unreadable(path, e))?;
    Ok(Some(content))
}

fn take_links(folder: &Path, facts: &mut Facts) -> Result<()> {
    let spaces = folder.join(SPACES);
    for entry in fs::read_dir(&spaces).into_iter().flatten().flatten() {
        let Some(oid) = parse_oid(entry.file_name().as_encoded_bytes()) else { continue };
        let path = entry.path();
        let to = match fs::read_link(&path) {
            Ok(to) => to,
            // A folder, as `rsync --copy-links` makes of a link.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => PathBuf::new(),
            Err(e) => return Err(unreadable(&path, e)),
        };
        let mapped = facts.map.iter().flatten().find(|space| space.oid == oid);
        if mapped.is_some_and(|space| space.location == to) {
            return Err(Error::invalid(format!(
                "the link {} in the backup leads to {}, which is where the source itself has that tablespace; put a copy \
                 of its files in place of the link",
                path.display(),
                to.display()
            )));
        }
        facts.links.insert(oid, to);
    }
    let unlinked = facts.map.iter().flatten().find(|space| !facts.links.contains_key(&space.oid));
    match unlinked {
        Some(space) => Err(Error::invalid(format!(
            "the backup in {} is not complete: {SPACES}/{}, the tablespace at {}, is missing",
            folder.display(),
            space.oid,
            space.location.display()
        ))),
        None => Ok(()),
    }
}

/// The first line of `postmaster.pid` is a process, the second its data directory.
fn refuse_running(folder: &Path, labelled: bool) -> Result<()> {
    let Some(content) = small(&folder.join("postmaster.pid"))? else { return Ok(()) };
    let text = String::from_utf8_lossy(&content);
    let mut lines = text.lines();
    let pid = lines.next().and_then(|pid| pid.trim().parse::<u32>().ok());
    let mut here =
        || folder.canonicalize().ok() == Path::new(lines.next().unwrap_or_default()).canonicalize().ok();
    let alive = pid.is_some_and(|pid| Path::new("/proc").join(pid.to_string()).exists());
    // A copy taken between pg_backup_start and pg_backup_stop has the file of the server it was taken from.
    if labelled && !(alive && here()) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Precondition,
        format!(
            "{} is the data directory of a server that runs, or was copied while it ran: it has a postmaster.pid; make a \
             base backup with pg_basebackup",
            folder.display()
        ),
    ))
}
