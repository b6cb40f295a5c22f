//! Files and folders that get their final name only when they are whole and durable.
//!
//! Until then they have a name of their own beside it, by which the next attempt clears them away. Must not know what they hold.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use crate::base::{Error, Result};

const PARTIAL_ENDING: &str = ".partial";

/// The name beside `path` until it is whole.
pub(super) fn partial(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| {
        Error::invalid(format!("{} names no file or folder that could be made", path.display()))
    })?;
    let mut partial = std::ffi::OsString::from(".");
    partial.push(name);
    partial.push(PARTIAL_ENDING);
    Ok(path.with_file_name(partial))
}

/// Removes what an ended attempt left; no error when there is nothing.
pub(super) fn clear(partial: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(partial) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(partial),
        Ok(_) => fs::remove_file(partial),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", &partial.display().to_string(), e))
        }
        _ => Ok(()),
    }
}

/// A new file that nobody else can read yet.
pub(super) fn create(path: &Path) -> Result<File> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.map_err(|e| Error::io("create", &path.display().to_string(), e))
}

/// Mode, owner and time of `like`, and durable. The owner as far as this process may give files away.
pub(super) fn finish(file: &File, like: &fs::Metadata, shown: &str) -> Result<()> {
    let own = file.metadata().map_err(|e| Error::io("look at", shown, e))?;
    if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
        match fchown(file, Some(like.uid()), Some(like.gid())) {
            Err(e) if e.kind() != io::ErrorKind::PermissionDenied => {
                return Err(Error::io("set the owner of", shown, e));
            }
            _ => {}
        }
    }
    let times = fs::FileTimes::new();
    let times = like.modified().map_or(times, |time| times.set_modified(time));
    file.set_permissions(like.permissions())
        .and_then(|()| file.set_times(times))
        .and_then(|()| file.sync_all())
        .map_err(|e| Error::io("write", shown, e))
}

/// Gives what is whole its name, for good. Both names are in one folder.
pub(super) fn commit(partial: &Path, path: &Path) -> Result<()> {
    fs::rename(partial, path).map_err(|e| Error::io("make", &path.display().to_string(), e))?;
    sync_folder(parent(path))
}

/// Makes the names of a folder durable.
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|e| Error::io("make durable", &folder.display().to_string(), e))
}

/// The folder that holds `path`.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
