//! The OS user a hook runs as: ids, home and groups, from this host's own lists.
//!
//! Reads `/etc/passwd` and `/etc/group`; users that only a directory service knows are not found.

use std::fs;

use crate::base::{Error, ErrorKind, Result};

/// A user, and whether this process must change to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: String,
    /// Groups besides `gid`.
    pub groups: Vec<u32>,
    pub change: bool,
}

impl Account {
    /// The user of this name, or the one this process is. `NotFound` when the host has none of that name,
    /// `NotAllowed` when this process may not become it.
    pub(super) fn find(name: Option<&str>) -> Result<Self> {
        let own = rustix::process::geteuid().as_raw();
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let groups = fs::read_to_string("/etc/group").unwrap_or_default();
        let Some(name) = name else { return Ok(own_account(own, &users)) };
        let mut found = users
            .lines()
            .filter_map(parse_user)
            .find(|account| account.name == name)
            .ok_or_else(|| Error::not_found(format!("there is no user {name:?} on this host")))?;
        found.change = found.uid != own;
        if found.change && own != 0 {
            return Err(Error::new(
                ErrorKind::NotAllowed,
                format!("only root may run hooks as another user, here as {name}"),
            ));
        }
        found.groups = groups_of(&found, &groups);
        Ok(found)
    }
}

fn own_account(uid: u32, users: &str) -> Account {
    let named = users.lines().filter_map(parse_user).find(|account| account.uid == uid);
    named.unwrap_or_else(|| Account {
        name: uid.to_string(),
        uid,
        gid: rustix::process::getegid().as_raw(),
        home: "/".into(),
        groups: Vec::new(),
        change: false,
    })
}

/// `name:x:uid:gid:comment:home:shell`
fn parse_user(line: &str) -> Option<Account> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, ..] = fields[..] else { return None };
    let home = if home.is_empty() { "/" } else { home };
    Some(Account {
        name: name.to_owned(),
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        home: home.to_owned(),
        groups: Vec::new(),
        change: false,
    })
}

/// `name:x:gid:member,member`
fn groups_of(account: &Account, groups: &str) -> Vec<u32> {
    let mut found: Vec<u32> = groups
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [_, _, gid, members] = fields[..] else { return None };
            let gid = gid.parse().ok()?;
            (gid != account.gid && members.split(',').any(|member| member == account.name)).then_some(gid)
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
    fn users_and_groups_are_read_from_the_lists() {
        let user = parse_user("postgres:x:101:104:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash")
            .unwrap();
        assert_eq!((user.uid, user.gid, user.home.as_str()), (101, 104, "/var/lib/postgresql"));
        let groups = "root:x:0:\nssl-cert:x:110:postgres\npostgres:x:104:postgres\nbackup:x:34:a,postgres\nx";
        assert_eq!(groups_of(&user, groups), [34, 110]);
        assert_eq!(parse_user("broken:x:one:2::/:"), None);
        assert_eq!(parse_user(""), None);
    }

    #[test]
    fn an_unknown_user_is_named() {
        let error = Account::find(Some("no such user")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.message().contains("\"no such user\""));
        assert!(!Account::find(None).unwrap().change);
    }
}
