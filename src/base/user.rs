//! Users of this host, and programs that run as one of them.
//!
//! Reads `/etc/passwd` and `/etc/group`; users that only a directory service knows are not found.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::error::{Error, ErrorKind, Result};

/// A user of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OsUser {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// `/` when the list has none.
    pub home: String,
}

impl OsUser {
    /// The user of this name. `NotFound` when the host has none.
    pub fn named(name: &str) -> Result<Self> {
        let found = list().lines().find_map(|line| parse(line).filter(|user| user.name == name));
        found.ok_or_else(|| Error::not_found(format!("there is no user {name} on this host")))
    }

    /// The user this process is.
    pub fn current() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let found = list().lines().find_map(|line| parse(line).filter(|user| user.uid == uid));
        let (name, home) = found.map_or_else(|| (uid.to_string(), "/".into()), |user| (user.name, user.home));
        Self { name, uid, gid, home }
    }

    /// `name` when this process is root, otherwise the user it already is: what runs a server that refuses root.
    pub fn for_servers(name: &str) -> Result<Self> {
        let current = Self::current();
        if current.uid != 0 {
            return Ok(current);
        }
        Self::named(name).map_err(|_| {
            Error::new(
                ErrorKind::Precondition,
                format!(
                    "there is no user {name}, and PostgreSQL never runs as root: apt-get install postgresql"
                ),
            )
        })
    }

    /// A command that runs as this user, away from any folder it may not enter and without settings of the
    /// caller's that PostgreSQL's programs would heed.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if self.is_another() {
            // The caller's other groups are dropped with it.
            command.uid(self.uid).gid(self.gid);
        }
        for (name, _) in std::env::vars_os() {
            let heeded = ["PG", "LC_", "STILLPOINT_"];
            if name.to_str().is_some_and(|name| heeded.iter().any(|prefix| name.starts_with(prefix))) {
                command.env_remove(name);
            }
        }
        command.env("LC_ALL", "C").env("HOME", "/").current_dir("/");
        command
    }

    /// The groups it is in besides its own.
    pub fn groups(&self) -> Vec<u32> {
        groups_of(self, &std::fs::read_to_string("/etc/group").unwrap_or_default())
    }

    /// Whether this process is another user.
    pub fn is_another(&self) -> bool {
        rustix::process::geteuid().as_raw() != self.uid
    }

    /// Gives a file or folder to this user.
    pub fn own(&self, path: &Path) -> Result<()> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
            .map_err(|e| Error::io("change the owner of", &path.display().to_string(), e))
    }
}

fn list() -> String {
    std::fs::read_to_string("/etc/passwd").unwrap_or_default()
}

fn parse(line: &str) -> Option<OsUser> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = fields.nth(1).filter(|home| !home.is_empty()).unwrap_or("/").to_owned();
    Some(OsUser { name, uid, gid, home })
}

/// `name:x:gid:member,member`
fn groups_of(user: &OsUser, groups: &str) -> Vec<u32> {
    let mut found: Vec<u32> = groups
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [_, _, gid, members] = fields[..] else { return None };
            let gid = gid.parse().ok()?;
            (gid != user.gid && members.split(',').any(|member| member == user.name)).then_some(gid)
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_list_are_read() {
        let user = parse("postgres:x:101:104:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash");
        let home = "/var/lib/postgresql".to_owned();
        assert_eq!(user, Some(OsUser { name: "postgres".into(), uid: 101, gid: 104, home }));
        assert_eq!(parse("nobody:x:65534:65534::").unwrap().home, "/");
        let groups = "root:x:0:\nssl-cert:x:110:postgres\npostgres:x:104:postgres\nbackup:x:34:a,postgres\nx";
        assert_eq!(groups_of(&user.unwrap(), groups), [34, 110]);
        assert_eq!(parse(""), None);
        assert_eq!(parse("name:x:noise:1"), None);
    }

    #[test]
    fn a_user_who_is_not_there_is_named() {
        let error = OsUser::named("no such user").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.message().contains("no such user"));
        assert_eq!(OsUser::named("root").unwrap().uid, 0);
    }
}
