//! PostgreSQL installations of this host, and the user their servers run as.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::exit::{Failure, Result};
use crate::base::ErrorKind;

/// Where Debian's packages put each major version.
const ROOT: &str = "/usr/lib/postgresql";
/// The user Debian's packages make.
const USER: &str = "postgres";

/// The programs of one major version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Installation {
    pub major: u32,
    pub programs: PathBuf,
}

/// Every installation, oldest first.
pub(super) fn installations() -> Vec<Installation> {
    let Ok(entries) = std::fs::read_dir(ROOT) else { return Vec::new() };
    let mut found: Vec<Installation> = entries
        .flatten()
        .filter_map(|entry| {
            let major = entry.file_name().to_str()?.parse().ok()?;
            let programs = entry.path().join("bin");
            programs.join("postgres").exists().then_some(Installation { major, programs })
        })
        .collect();
    found.sort_by_key(|installation| installation.major);
    found
}

/// The user that runs PostgreSQL, which refuses to run as root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerUser {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// Whether this process is another user, root, and must change to it.
    change: bool,
}

impl ServerUser {
    /// `postgres` when this process is root, otherwise the user it already is.
    pub(super) fn find() -> Result<Self> {
        let uid = rustix::process::geteuid().as_raw();
        if uid != 0 {
            let gid = rustix::process::getegid().as_raw();
            return Ok(Self { name: name_of(uid), uid, gid, change: false });
        }
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        users.lines().find_map(parse_user).ok_or_else(|| {
            Failure::new(
                ErrorKind::Precondition,
                "there is no user postgres, and PostgreSQL never runs as root",
            )
            .hint("apt-get install postgresql")
        })
    }

    /// A command that runs as this user, away from any folder it may not enter and without settings of the
    /// caller's that PostgreSQL's programs would heed.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if self.change {
            // The caller's other groups are dropped with it.
            command.uid(self.uid).gid(self.gid);
        }
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("PG") || name.starts_with("LC_")) {
                command.env_remove(name);
            }
        }
        command.env("LC_ALL", "C").env("HOME", "/").current_dir("/");
        command
    }
}

fn parse_user(line: &str) -> Option<ServerUser> {
    let mut fields = line.split(':');
    if fields.next()? != USER {
        return None;
    }
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some(ServerUser { name: USER.into(), uid, gid, change: true })
}

fn name_of(uid: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let id = uid.to_string();
    users
        .lines()
        .find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            (fields.get(2) == Some(&id.as_str())).then(|| fields[0].to_owned())
        })
        .unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_user_is_read_from_the_list() {
        let user = parse_user("postgres:x:101:104:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash");
        assert_eq!(user, Some(ServerUser { name: "postgres".into(), uid: 101, gid: 104, change: true }));
        assert_eq!(parse_user("root:x:0:0:root:/root:/bin/bash"), None);
        assert_eq!(parse_user(""), None);
    }
}
