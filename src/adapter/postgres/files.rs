//! The files of a cluster and of its state folder.
//!
//! A cluster's folder belongs to the server's user, and whoever is superuser in it can put links there: all work inside
//! is done as that user, by a script. The state folder belongs to root, so that names in it are what they are.

use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;

use rustix::fs::{Gid, OFlags, Uid};

use super::server::Server;
use crate::base::{Error, ErrorKind, OsUser, Result};

const SCRIPT: &str = include_str!("files.sh");
/// More of a small file is not read.
const SMALL_BYTES_MAX: u64 = 64 << 10;

/// Does one of the script's words in a cluster's folder; returns what it prints.
pub(super) fn prepare(server: &Server<'_>, word: &str, arguments: &[&str], input: &str) -> Result<String> {
    let data = server.data();
    let mut child = server
        .programs
        .user
        .command(Path::new("/bin/sh"))
        .arg("-c")
        .arg(SCRIPT)
        .arg("stillpoint-files")
        .arg(&data)
        .arg(word)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| Error::io("start", "/bin/sh", e))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A script that failed reads nothing; its status says so.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|e| Error::io("wait for", "/bin/sh", e))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::new(
        ErrorKind::Io,
        format!(
            "cannot prepare {} ({word}): {}",
            data.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        ),
    ))
}

/// Who may read a file of the state folder beside root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readers {
    /// The server's group: settings.
    Group,
    /// The server's user alone, as libpq demands of a password file.
    User,
}

/// Writes a file of a folder that belongs to root. A crash leaves the old one or the new one.
pub(super) fn write_state(path: &Path, text: &str, user: &OsUser, readers: Readers) -> Result<()> {
    let shown = path.display().to_string();
    let beside = path.with_extension("new");
    remove(&beside)?;
    let (mode, owner) = match readers {
        Readers::Group => (0o640, 0),
        Readers::User => (0o600, user.uid),
    };
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)
        .map_err(|e| Error::io("create", &shown, e))?;
    own(&file, owner, user.gid, &shown)?;
    std::io::Write::write_all(&mut &file, text.as_bytes())
        .and_then(|()| file.sync_data())
        .and_then(|()| std::fs::rename(&beside, path))
        .map_err(|e| Error::io("write", &shown, e))
}

/// Gives an open file away, when this process may.
fn own(file: &std::fs::File, uid: u32, gid: u32, shown: &str) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
        .map_err(|e| Error::io("change the owner of", shown, e.into()))
}

/// Makes a folder in one that belongs to root, for a user or, readable by its group, for root.
pub(super) fn make_folder(path: &Path, user: &OsUser, readers: Readers) -> Result<()> {
    let shown = path.display().to_string();
    let (mode, owner) = match readers {
        Readers::Group => (0o750, 0),
        Readers::User => (0o700, user.uid),
    };
    match std::fs::DirBuilder::new().mode(mode).create(path) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(Error::io("create", &shown, e));
        }
        _ => {}
    }
    let folder = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::DIRECTORY | OFlags::NOFOLLOW).bits().cast_signed())
        .open(path)
        .map_err(|e| Error::io("open", &shown, e))?;
    own(&folder, owner, user.gid, &shown)?;
    folder
        .set_permissions(std::fs::Permissions::from_mode(mode))
        .map_err(|e| Error::io("restrict", &shown, e))
}

/// The beginning of a plain file that somebody else may have put there: no link is followed, nothing is waited for.
pub(super) fn read_small(path: &Path) -> Option<String> {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path)
        .ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    file.take(SMALL_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Removes a file of a folder that belongs to root; it is no error when it is not there.
pub(super) fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", &path.display().to_string(), e))
        }
        _ => Ok(()),
    }
}
