//! Why a differential is made as a full: the twelve reasons.
//!
//! A pure function of what was recorded with the last full and of what is seen now; the facts are gathered elsewhere.
//! Invariants: each reason has a sentence that names its object; all that hold are given, in a fixed order, the one
//! that a user can do most about first. Must not know how facts are read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::guid::Guid;

/// One database file, by its GUID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSeen {
    pub logical_name: String,
    pub physical_name: String,
    pub size_bytes: u64,
    /// Whether it has a differential base; nothing when it cannot have one, as a log.
    pub has_base: Option<bool>,
    /// Set id of that base.
    pub base_id: Option<Guid>,
}

/// What was recorded with the last full that this engine made, and what came after.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastFull {
    pub id: Option<Guid>,
    pub database: String,
    pub files: BTreeMap<Guid, FileSeen>,
    /// The databases that are backed up together with it.
    pub members: BTreeSet<String>,
    /// What the newest attempt at a full ended with, when that failed.
    pub failed: Option<String>,
}

/// What is seen before a differential.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenNow {
    pub database: String,
    pub files: BTreeMap<Guid, FileSeen>,
    pub members: BTreeSet<String>,
    pub secondary_replica: bool,
    /// How stored data and its records disagree, when they do.
    pub inconsistent: Option<String>,
    /// Why it is not known what has changed: the volume's map of changed pages is lost.
    pub changes_lost: Option<String>,
}

/// A reason to make a full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum FullReason {
    /// There is no full, or the server knows no base for a data file.
    NoFull,
    LastFullFailed {
        how: String,
    },
    FilesChanged {
        added: Vec<String>,
        deleted: Vec<String>,
    },
    FileMoved {
        from: String,
        to: String,
    },
    DatabaseRenamed {
        from: String,
        to: String,
    },
    Inconsistent {
        how: String,
    },
    /// `master` has no differential at all, so its files' names never matter for one.
    Master,
    ChangesUnknown {
        why: String,
    },
    ForeignFull {
        base: Option<Guid>,
    },
    Shrunk {
        file: String,
        from_bytes: u64,
        to_bytes: u64,
    },
    SecondaryReplica,
    MembersChanged {
        added: Vec<String>,
        removed: Vec<String>,
    },
}

impl FullReason {
    /// A stable word for records and the API.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoFull => "no_full",
            Self::LastFullFailed { .. } => "last_full_failed",
            Self::FilesChanged { .. } => "files_changed",
            Self::FileMoved { .. } => "file_moved",
            Self::DatabaseRenamed { .. } => "database_renamed",
            Self::Inconsistent { .. } => "inconsistent",
            Self::Master => "master",
            Self::ChangesUnknown { .. } => "changes_unknown",
            Self::ForeignFull { .. } => "foreign_full",
            Self::Shrunk { .. } => "shrunk",
            Self::SecondaryReplica => "secondary_replica",
            Self::MembersChanged { .. } => "members_changed",
        }
    }
}

impl fmt::Display for FullReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        match self {
            Self::NoFull => f.write_str("no full backup of the database has been completed"),
            Self::LastFullFailed { how } => write!(f, "the last full backup failed: {how}"),
            Self::FilesChanged { added, deleted } => {
                write!(f, "database files came or went since the last full: added {}, deleted {}", list(added), list(deleted))
            }
            Self::FileMoved { from, to } => write!(f, "a database file was renamed or moved: {from} is now {to}"),
            Self::DatabaseRenamed { from, to } => write!(f, "the database was renamed from {from} to {to}"),
            Self::Inconsistent { how } => write!(f, "stored data and its records disagree: {how}"),
            Self::Master => f.write_str("SQL Server makes full backups only of master"),
            Self::ChangesUnknown { why } => write!(f, "it is not known what has changed since the last full: {why}"),
            Self::ForeignFull { base: Some(base) } => {
                write!(f, "another program has made a full backup since ours; the server's base is now {base}")
            }
            Self::ForeignFull { base: None } => f.write_str("another program has made a full backup since ours"),
            Self::Shrunk { file, from_bytes, to_bytes } => {
                write!(f, "file {file} was shrunk from {from_bytes} to {to_bytes} bytes since the last backup")
            }
            Self::SecondaryReplica => f.write_str(
                "the database is a secondary of its availability group, where SQL Server makes no differential",
            ),
            Self::MembersChanged { added, removed } => {
                write!(f, "the backup set's databases changed: added {}, removed {}", list(added), list(removed))
            }
        }
    }
}

/// All reasons to make a full instead of a differential; none when a differential will do.
pub fn full_reasons(last: &LastFull, now: &SeenNow) -> Vec<FullReason> {
    let mut reasons = Vec::new();
    if now.database.eq_ignore_ascii_case("master") {
        reasons.push(FullReason::Master);
    }
    if now.secondary_replica {
        reasons.push(FullReason::SecondaryReplica);
    }
    if let Some(how) = &last.failed {
        reasons.push(FullReason::LastFullFailed { how: how.clone() });
    }
    // A file that came since the full has no base of its own: that is told as such.
    let was_there = |id: &Guid| last.id.is_none() || last.files.contains_key(id);
    let no_base = now.files.iter().any(|(id, file)| file.has_base == Some(false) && was_there(id));
    let Some(id) = last.id.filter(|_| !no_base) else {
        reasons.push(FullReason::NoFull);
        return reasons;
    };
    let bases = now.files.values().filter(|file| file.has_base == Some(true)).map(|file| file.base_id);
    if let Some(base) = bases.into_iter().find(|base| *base != Some(id)) {
        reasons.push(FullReason::ForeignFull { base });
    }
    if last.database != now.database {
        reasons.push(FullReason::DatabaseRenamed { from: last.database.clone(), to: now.database.clone() });
    }
    reasons.extend(file_reasons(&last.files, &now.files));
    if last.members != now.members {
        reasons.push(FullReason::MembersChanged {
            added: now.members.difference(&last.members).cloned().collect(),
            removed: last.members.difference(&now.members).cloned().collect(),
        });
    }
    reasons.extend(now.inconsistent.iter().map(|how| FullReason::Inconsistent { how: how.clone() }));
    reasons.extend(now.changes_lost.iter().map(|why| FullReason::ChangesUnknown { why: why.clone() }));
    reasons
}

/// What the files say: sets, names, sizes.
fn file_reasons(last: &BTreeMap<Guid, FileSeen>, now: &BTreeMap<Guid, FileSeen>) -> Vec<FullReason> {
    let mut reasons = Vec::new();
    let missing = |from: &BTreeMap<Guid, FileSeen>, than: &BTreeMap<Guid, FileSeen>| -> Vec<String> {
        let gone = from.iter().filter(|(id, _)| !than.contains_key(id));
        gone.map(|(_, file)| file.logical_name.clone()).collect()
    };
    let (added, deleted) = (missing(now, last), missing(last, now));
    if !added.is_empty() || !deleted.is_empty() {
        reasons.push(FullReason::FilesChanged { added, deleted });
    }
    for (id, before) in last {
        let Some(after) = now.get(id) else { continue };
        let names = |file: &FileSeen| format!("{} ({})", file.logical_name, file.physical_name);
        if names(before) != names(after) {
            reasons.push(FullReason::FileMoved { from: names(before), to: names(after) });
        }
        if after.size_bytes < before.size_bytes {
            reasons.push(FullReason::Shrunk {
                file: after.logical_name.clone(),
                from_bytes: before.size_bytes,
                to_bytes: after.size_bytes,
            });
        }
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: Guid = Guid([1; 16]);

    fn files() -> BTreeMap<Guid, FileSeen> {
        let file = |name: &str, has_base: Option<bool>| FileSeen {
            logical_name: name.to_owned(),
            physical_name: format!("/d/{name}"),
            size_bytes: 1000,
            has_base,
            base_id: has_base.map(|_| FULL),
        };
        BTreeMap::from([(Guid([8; 16]), file("data", Some(true))), (Guid([9; 16]), file("log", None))])
    }

    fn members() -> BTreeSet<String> {
        BTreeSet::from(["crm".to_owned(), "sales".to_owned()])
    }

    fn seen() -> (LastFull, SeenNow) {
        let database = "sales".to_owned();
        let last = LastFull {
            id: Some(FULL),
            database: database.clone(),
            files: files(),
            members: members(),
            failed: None,
        };
        (last, SeenNow { database, files: files(), members: members(), ..SeenNow::default() })
    }

    fn data(files: &mut BTreeMap<Guid, FileSeen>) -> &mut FileSeen {
        files.get_mut(&Guid([8; 16])).unwrap()
    }

    #[test]
    fn nothing_changed_is_a_differential() {
        let (last, now) = seen();
        assert_eq!(full_reasons(&last, &now), []);
        let (last, mut now) = seen();
        data(&mut now.files).size_bytes = 5000;
        assert_eq!(full_reasons(&last, &now), [], "a file that grew");
    }

    #[test]
    fn each_of_the_twelve_is_provoked_and_named() {
        type Change = fn(&mut LastFull, &mut SeenNow);
        let cases: [(&str, &str, Change); 12] = [
            ("no_full", "no full backup", |last, _| last.id = None),
            ("files_changed", "deleted data", |_, now| now.files.retain(|id, _| *id != Guid([8; 16]))),
            ("file_moved", "/d/data) is now data (/e/x)", |_, now| {
                data(&mut now.files).physical_name = "/e/x".to_owned()
            }),
            ("database_renamed", "from sales to shop", |_, now| now.database = "shop".to_owned()),
            ("inconsistent", "hash of data", |_, now| now.inconsistent = Some("hash of data".to_owned())),
            ("master", "only of master", |last, now| {
                (last.database, now.database) = ("master".to_owned(), "master".to_owned());
            }),
            ("changes_unknown", "map is lost", |_, now| {
                now.changes_lost = Some("the map is lost".to_owned())
            }),
            ("last_full_failed", "disk full", |last, _| last.failed = Some("disk full".to_owned())),
            ("foreign_full", "02020202", |_, now| data(&mut now.files).base_id = Some(Guid([2; 16]))),
            ("shrunk", "from 1000 to 999", |_, now| data(&mut now.files).size_bytes = 999),
            ("secondary_replica", "availability group", |_, now| now.secondary_replica = true),
            ("members_changed", "removed crm", |_, now| now.members.retain(|name| name != "crm")),
        ];
        let mut codes = BTreeSet::new();
        for (code, text, change) in cases {
            let (mut last, mut now) = seen();
            change(&mut last, &mut now);
            let reasons = full_reasons(&last, &now);
            assert_eq!(reasons.iter().map(FullReason::code).collect::<Vec<_>>(), [code]);
            assert!(reasons[0].to_string().contains(text), "{}", reasons[0]);
            codes.insert(code);
        }
        assert_eq!(codes.len(), 12);
    }

    #[test]
    fn a_renamed_or_added_file_and_a_base_the_server_lost() {
        let (last, mut now) = seen();
        data(&mut now.files).logical_name = "other".to_owned();
        assert_eq!(full_reasons(&last, &now)[0].code(), "file_moved");
        let (mut last, now) = seen();
        last.files.remove(&Guid([9; 16]));
        assert_eq!(
            full_reasons(&last, &now),
            [FullReason::FilesChanged { added: vec!["log".to_owned()], deleted: vec![] }]
        );
        let (last, mut now) = seen();
        data(&mut now.files).has_base = Some(false);
        assert_eq!(full_reasons(&last, &now), [FullReason::NoFull]);
    }
}
