//! The backups of one database, and which can be restored onto which.
//!
//! Rules, as documented for RESTORE: a full starts; a differential goes onto its base alone, named by its set id, which is never
//! copy-only; a log goes onto a state whose position it has, `first_lsn <= position < last_lsn`, on the recovery fork that it
//! was written on up to its fork point and on the next one from there. A set with a missing stripe, or a damaged one, goes onto nothing.
//! Positions are half open: `last_lsn` is the first record that a set does not have (measured: it equals the next log's
//! `first_lsn` in the real files). Invariant: a link only leads to a lower place in the order, so ways end. Must not
//! know files' contents, servers or statements.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::guid::Guid;
use super::lsn::Lsn;
use super::tape::{BackupSet, SetKind};

/// What a backup can be used for in a restore of the whole database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupKind {
    Full,
    Differential,
    Log,
}

impl BackupKind {
    pub fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Differential => "differential",
            Self::Log => "log",
        }
    }
}

/// One file of a backup set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stripe {
    /// Media family, from 1.
    pub family: u16,
    /// As the server is to open it.
    pub file: String,
}

/// A marked transaction in a log backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub name: String,
    /// Of its commit.
    pub lsn: Lsn,
    /// Milliseconds since 1970, UTC.
    pub ms: i64,
}

/// A backup set, from a file's header or from msdb. Times are milliseconds since 1970 in UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    pub id: Guid,
    pub kind: BackupKind,
    pub copy_only: bool,
    /// Known not to be readable, or taken of a database that was damaged.
    pub damaged: bool,
    /// A log with bulk-logged operations: all or nothing of it is restored.
    pub bulk_logged: bool,
    pub first_lsn: Lsn,
    pub last_lsn: Lsn,
    /// The full that a differential was made against.
    pub base_id: Option<Guid>,
    /// The database since it was created; `NONE` when unknown.
    pub family_id: Guid,
    pub first_fork: Guid,
    pub last_fork: Guid,
    /// Where the fork changes inside it.
    pub fork_point: Option<Lsn>,
    pub started_ms: i64,
    pub finished_ms: i64,
    /// The last moment that is surely in it, when the server tells (2022 on).
    pub reaches_ms: Option<i64>,
    /// `WITH FILE = n`.
    pub position: u16,
    /// Those there are.
    pub stripes: Vec<Stripe>,
    /// How many there should be.
    pub stripe_count: u16,
    pub marks: Vec<Mark>,
}

/// Why a backup cannot be used at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unusable {
    Damaged,
    /// Media families without a file.
    MissingStripes(Vec<u16>),
    /// Its last LSN is before its first.
    BadLsns,
    /// A log backup of a time in which nothing was logged: its LSNs are equal.
    Empty,
}

impl Backup {
    /// A set that was read from `files`, all of the same set, by media family. Nothing for backups of single files or filegroups,
    /// which are not part of a chain here, and for sets whose time zone is unknown: `utc_ms` gives their times then.
    pub fn of_set(
        set: &BackupSet,
        stripes: Vec<Stripe>,
        stripe_count: u16,
        utc_ms: Option<(i64, i64)>,
    ) -> Option<Self> {
        let kind = match set.kind {
            SetKind::Full => BackupKind::Full,
            SetKind::Differential => BackupKind::Differential,
            SetKind::Log => BackupKind::Log,
            _ => return None,
        };
        let (started_ms, finished_ms) = match utc_ms {
            Some(times) => times,
            None => (set.started_ms()?, set.finished_ms()?),
        };
        let first_fork = set.first_fork().unwrap_or_default();
        let last_fork = set.last_fork.unwrap_or_default();
        Some(Self {
            id: set.id,
            kind,
            copy_only: set.copy_only,
            damaged: !set.complete || set.flags.damaged(),
            bulk_logged: set.flags.bulk_logged(),
            first_lsn: set.first_lsn,
            last_lsn: set.last_lsn,
            base_id: set.differential_base_id,
            family_id: set.family_id.unwrap_or_default(),
            first_fork,
            last_fork,
            fork_point: set.earlier_fork.filter(|_| first_fork != last_fork).map(|earlier| earlier.ends),
            started_ms,
            finished_ms,
            reaches_ms: None,
            position: set.position,
            stripes,
            stripe_count,
            marks: Vec::new(),
        })
    }

    /// The moment up to which a restore of all of it brings a database. Of a log without better knowledge it is when its
    /// backup began: what was written meanwhile may not be in it.
    pub fn until_ms(&self) -> i64 {
        match self.kind {
            BackupKind::Log => self.reaches_ms.unwrap_or(self.started_ms),
            _ => self.finished_ms,
        }
    }

    pub fn unusable(&self) -> Option<Unusable> {
        if self.damaged {
            return Some(Unusable::Damaged);
        }
        let has = |family: &u16| self.stripes.iter().any(|stripe| stripe.family == *family);
        let missing: Vec<u16> = (1..=self.stripe_count.max(1)).filter(|family| !has(family)).collect();
        if !missing.is_empty() {
            return Some(Unusable::MissingStripes(missing));
        }
        match self.last_lsn.cmp(&self.first_lsn) {
            Ordering::Less => Some(Unusable::BadLsns),
            Ordering::Equal if self.kind == BackupKind::Log => Some(Unusable::Empty),
            _ => None,
        }
    }

    /// The fork of the record at an LSN of this log.
    pub(super) fn fork_of(&self, lsn: Lsn) -> Guid {
        match self.fork_point {
            Some(point) if lsn < point => self.first_fork,
            _ => self.last_fork,
        }
    }

    /// The fork on which a database is that has all before an LSN of this log.
    pub(super) fn fork_at(&self, lsn: Lsn) -> Guid {
        match self.fork_point {
            Some(point) if lsn <= point => self.first_fork,
            _ => self.last_fork,
        }
    }

    /// Whether this log goes onto a database at that position of that fork.
    pub(super) fn goes_onto(&self, lsn: Lsn, fork: Guid) -> bool {
        let on_path = match self.fork_point {
            Some(point) if lsn < point => fork == self.first_fork,
            Some(point) if lsn == point => fork == self.first_fork || fork == self.last_fork,
            _ => fork == self.last_fork,
        };
        self.kind == BackupKind::Log && on_path && self.first_lsn <= lsn && lsn < self.last_lsn
    }
}

/// How a backup is reached at best: from the newest data backup, then with the fewest logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// The backup before it.
    pub(super) from: Option<usize>,
    /// Last LSN of the newest full or differential on the way.
    pub(super) data_lsn: Lsn,
    pub(super) steps: usize,
}

impl Link {
    fn better_than(self, other: Self) -> bool {
        (self.data_lsn, other.steps) > (other.data_lsn, self.steps)
    }
}

/// The backups of one database in an order in which each comes after what it goes onto.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    backups: Vec<Backup>,
    usable: Vec<bool>,
}

impl Chain {
    /// Backups of other databases may be among them: they have other families and link to nothing here.
    pub fn new(mut backups: Vec<Backup>) -> Self {
        for backup in &mut backups {
            backup.stripes.sort();
        }
        backups.sort_by_key(|backup| {
            (backup.last_lsn, backup.kind, backup.first_lsn, backup.started_ms, backup.id)
        });
        let usable = backups.iter().map(|backup| backup.unusable().is_none()).collect();
        Self { backups, usable }
    }

    /// In the order in which they build on each other.
    pub fn backups(&self) -> &[Backup] {
        &self.backups
    }

    pub(super) fn is_usable(&self, at: usize) -> bool {
        self.usable[at]
    }

    /// The best way to each backup, restored whole, with only those that `allowed` lets through.
    pub(super) fn links(&self, allowed: impl Fn(&Backup) -> bool) -> Vec<Option<Link>> {
        let mut links: Vec<Option<Link>> = vec![None; self.backups.len()];
        for (at, backup) in self.backups.iter().enumerate() {
            if !self.usable[at] || !allowed(backup) {
                continue;
            }
            links[at] = match backup.kind {
                BackupKind::Full => Some(Link { from: None, data_lsn: backup.last_lsn, steps: 1 }),
                BackupKind::Differential => self.base_of(backup, &links).map(|from| Link {
                    from: Some(from),
                    data_lsn: backup.last_lsn,
                    steps: 2,
                }),
                BackupKind::Log => self.before(backup, &links, |_| true),
            };
        }
        links
    }

    fn base_of(&self, differential: &Backup, links: &[Option<Link>]) -> Option<usize> {
        let base_id = differential.base_id?;
        let fits = |base: &Backup| {
            base.id == base_id
                && base.kind == BackupKind::Full
                && !base.copy_only
                && base.family_id == differential.family_id
                && base.last_lsn <= differential.last_lsn
        };
        (0..self.backups.len()).find(|&at| links[at].is_some() && fits(&self.backups[at]))
    }

    /// The best state that a log goes onto, at a position that `wanted` accepts.
    pub(super) fn before(
        &self,
        log: &Backup,
        links: &[Option<Link>],
        wanted: impl Fn(Lsn) -> bool,
    ) -> Option<Link> {
        let mut best: Option<Link> = None;
        for at in self.range(log.first_lsn, log.last_lsn) {
            let before = &self.backups[at];
            let fits = before.family_id == log.family_id && log.goes_onto(before.last_lsn, before.last_fork);
            let Some(link) = links[at].filter(|_| fits && wanted(before.last_lsn)) else { continue };
            let next = Link { from: Some(at), data_lsn: link.data_lsn, steps: link.steps + 1 };
            if best.is_none_or(|best| next.better_than(best)) {
                best = Some(next);
            }
        }
        best
    }

    /// The places of backups with `from <= last_lsn < end`.
    pub(super) fn range(&self, from: Lsn, end: Lsn) -> std::ops::Range<usize> {
        let start = self.backups.partition_point(|backup| backup.last_lsn < from);
        start..self.backups.partition_point(|backup| backup.last_lsn < end).max(start)
    }

    /// The places on the way to one backup, in the order of restore.
    pub(super) fn way(&self, last: usize, link: Link, links: &[Option<Link>]) -> Vec<usize> {
        let mut way = vec![last];
        let mut from = link.from;
        while let Some(at) = from {
            way.push(at);
            from = links[at].and_then(|link| link.from);
        }
        way.reverse();
        way
    }
}
