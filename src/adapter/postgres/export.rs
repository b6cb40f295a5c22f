//! A snapshot's files as a plain folder that PostgreSQL starts from, with nothing of the engine's in it.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{Gid, Uid};

use super::super::Task;
use super::config::{DATA_FOLDER, TABLESPACES_FOLDER};
use super::server::Server;
use crate::base::{Error, ErrorKind, OsUser, Result};

/// Copies the files of a snapshot, which lie below `from`, into a new folder.
pub(super) fn export(server: &Server<'_>, from: &Path, to: &Path, task: &mut dyn Task) -> Result<()> {
    task.step("copy the files")?;
    make(to)?;
    let mut copy = Copy { user: &server.programs.user, done: 0, total: size(from)?, task };
    copy.folder(&from.join(DATA_FOLDER), &to.join(DATA_FOLDER))?;
    let tablespaces = to.join(TABLESPACES_FOLDER);
    if from.join(TABLESPACES_FOLDER).exists() {
        copy.folder(&from.join(TABLESPACES_FOLDER), &tablespaces)?;
    }
    let data = to.join(DATA_FOLDER);
    task.step("settings")?;
    for stale in ["postmaster.pid", "postmaster.opts"] {
        super::files::remove(&data.join(stale))?;
    }
    for entry in read(&data.join("pg_tblspc"))? {
        let link = entry.path();
        fs::remove_file(&link)
            .and_then(|()| symlink(tablespaces.join(entry.file_name()), &link))
            .and_then(|()| own(&link, &server.programs.user))
            .map_err(|e| failed("place", &link, e))?;
    }
    settings(server, &data)?;
    own(to, &server.programs.user).map_err(|e| failed("give away", to, e))?;
    // All of it at once: one file system.
    let folder = fs::File::open(to).map_err(|e| failed("open", to, e))?;
    rustix::fs::syncfs(&folder).map_err(|e| failed("sync", to, e.into()))
}

fn make(to: &Path) -> Result<()> {
    match fs::create_dir(to) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && read(to)?.is_empty() => Ok::<_, Error>(()),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Err(Error::new(
            ErrorKind::Exists,
            format!("{} is there and not empty: name a new folder", to.display()),
        )),
        made => made.map_err(|e| failed("create", to, e)),
    }?;
    // Nobody else's until all is there.
    let ours = rustix::fs::chownat(
        rustix::fs::CWD,
        to,
        Some(Uid::ROOT),
        Some(Gid::ROOT),
        rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
    );
    ours.map_err(std::io::Error::from)
        .and_then(|()| fs::set_permissions(to, fs::Permissions::from_mode(0o700)))
        .map_err(|e| failed("restrict", to, e))
}

/// Settings that stand by themselves: the source's own are not in the cluster, or not for this host.
fn settings(server: &Server<'_>, data: &Path) -> Result<()> {
    let config = &server.config;
    let mut text = String::from("# Written by stillpoint for an exported cluster: edit as you like.\n");
    let _ = writeln!(text, "listen_addresses = '127.0.0.1'\nport = {}", server.instance.port);
    for (name, limit) in &config.limits {
        let _ = writeln!(text, "{name} = {limit}");
    }
    for (name, value) in &config.settings {
        let _ = writeln!(text, "{name} = '{}'", value.replace('\'', "''"));
    }
    let rules = "local all all md5\nhost all all 127.0.0.1/32 md5\nhost all all ::1/128 md5\n";
    for (name, text) in [("postgresql.conf", text.as_str()), ("pg_hba.conf", rules), ("pg_ident.conf", "")] {
        let path = data.join(name);
        fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o600)))
            .and_then(|()| own(&path, &server.programs.user))
            .map_err(|e| failed("write", &path, e))?;
    }
    Ok(())
}

/// A copy under way.
struct Copy<'a> {
    user: &'a OsUser,
    done: u64,
    total: u64,
    task: &'a mut dyn Task,
}

impl Copy<'_> {
    fn folder(&mut self, from: &Path, to: &Path) -> Result<()> {
        fs::create_dir(to)
            .and_then(|()| fs::set_permissions(to, fs::Permissions::from_mode(0o700)))
            .and_then(|()| own(to, self.user))
            .map_err(|e| failed("create", to, e))?;
        for entry in read(from)? {
            let (source, target) = (entry.path(), to.join(entry.file_name()));
            let kind = entry.file_type().map_err(|e| failed("look at", &source, e))?;
            if kind.is_dir() {
                self.folder(&source, &target)?;
            } else if kind.is_symlink() && from.file_name().is_some_and(|name| name == "pg_tblspc") {
                fs::read_link(&source)
                    .and_then(|link| symlink(link, &target))
                    .map_err(|e| failed("copy", &source, e))?;
            } else if kind.is_symlink() {
                // Root would follow it later, wherever a superuser of the database made it lead.
                return Err(Error::new(
                    ErrorKind::Precondition,
                    format!("{} is a link, which no cluster has there: remove it", source.display()),
                ));
            } else if kind.is_file() {
                self.task.check()?;
                self.done += fs::copy(&source, &target)
                    .and_then(|bytes| own(&target, self.user).map(|()| bytes))
                    .map_err(|e| failed("copy", &source, e))?;
                self.task.bytes(self.done, Some(self.total));
            }
        }
        Ok(())
    }
}

/// The bytes of all files below a folder.
fn size(folder: &Path) -> Result<u64> {
    let mut total = 0;
    for entry in read(folder)? {
        let metadata = entry.metadata().map_err(|e| failed("look at", &entry.path(), e))?;
        total += if metadata.is_dir() { size(&entry.path())? } else { metadata.len() };
    }
    Ok(total)
}

fn read(folder: &Path) -> Result<Vec<fs::DirEntry>> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect);
    entries.map_err(|e| failed("read", folder, e))
}

/// Gives a file away, not what a link leads to.
fn own(path: &Path, user: &OsUser) -> std::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    Ok(rustix::fs::chownat(rustix::fs::CWD, path, Some(uid), Some(gid), flags)?)
}

fn failed(what: &str, path: &Path, error: std::io::Error) -> Error {
    Error::io(what, &path.display().to_string(), error)
}
