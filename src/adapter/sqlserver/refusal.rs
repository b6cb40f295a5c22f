//! Why a point cannot be restored to, and which points nearby can.
//!
//! Invariant: what is offered can be restored (tested with the plans). Must not know how plans are found beyond the links
//! between backups.

use serde::{Deserialize, Serialize};

use super::chain::{Backup, BackupKind, Chain, Link, Unusable};
use super::guid::Guid;
use super::lsn::Lsn;
use super::plan::RestoreTarget;
use super::spans::Gap;

/// A point that can be reached instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    pub ms: i64,
    pub lsn: Lsn,
    pub backup: Guid,
}

/// Why a target cannot be reached, and what can.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub reason: String,
    pub before: Option<Offer>,
    pub after: Option<Offer>,
    pub gaps: Vec<Gap>,
    pub unusable: Vec<(Guid, Unusable)>,
}

impl Chain {
    fn offer(&self, at: usize) -> Offer {
        let backup = &self.backups()[at];
        Offer { ms: backup.until_ms(), lsn: backup.last_lsn, backup: backup.id }
    }

    pub(super) fn refuse(&self, target: &RestoreTarget) -> Refusal {
        let links = self.links(|_| true);
        let reached: Vec<usize> = (0..links.len()).filter(|&at| links[at].is_some()).collect();
        let key = |at: usize| match target {
            RestoreTarget::Lsn { .. } => (0, self.backups()[at].last_lsn),
            _ => (self.backups()[at].until_ms(), self.backups()[at].last_lsn),
        };
        let wanted = match target {
            RestoreTarget::Time(ms) => Some((*ms, Lsn::ZERO)),
            RestoreTarget::Lsn { lsn, .. } => Some((0, *lsn)),
            RestoreTarget::Backup(id) => {
                (0..self.backups().len()).find(|&at| self.backups()[at].id == *id).map(key)
            }
            _ => None,
        };
        let before = reached
            .iter()
            .copied()
            .filter(|&at| wanted.is_none_or(|wanted| key(at) <= wanted))
            .max_by_key(|&at| key(at));
        let after = reached
            .iter()
            .copied()
            .filter(|&at| wanted.is_some_and(|wanted| key(at) > wanted))
            .min_by_key(|&at| key(at));
        let unusable = self.backups().iter().filter_map(|backup| Some((backup.id, backup.unusable()?)));
        Refusal {
            reason: self.reason(target, &links, before.is_some()),
            before: before.map(|at| self.offer(at)),
            after: after.map(|at| self.offer(at)),
            gaps: self.gaps(),
            unusable: unusable.collect(),
        }
    }

    /// The cause in one sentence.
    fn reason(&self, target: &RestoreTarget, links: &[Option<Link>], any_before: bool) -> String {
        if links.iter().all(Option::is_none) {
            return "there is no full backup that can be restored".to_owned();
        }
        let in_bulk = |inside: &dyn Fn(&Backup) -> bool| {
            let log = self
                .backups()
                .iter()
                .zip(links)
                .find(|(log, link)| log.bulk_logged && link.is_some() && inside(log));
            log.map(|(log, _)| format!("it lies in log backup {}, which has bulk-logged operations and can only be restored whole", log.id))
        };
        match target {
            RestoreTarget::Newest => "no backup can be restored".to_owned(),
            RestoreTarget::Backup(id) => match self.backups().iter().find(|backup| backup.id == *id) {
                None => format!("there is no backup {id} of this database"),
                Some(backup) => self.why_not(backup),
            },
            RestoreTarget::Time(ms) if any_before => in_bulk(&|log| log.started_ms >= *ms)
                .unwrap_or_else(|| "no unbroken line of log backups leads to that time".to_owned()),
            RestoreTarget::Time(_) => "that time is before the end of the first full backup".to_owned(),
            RestoreTarget::Lsn { lsn, .. } if any_before => {
                in_bulk(&|log| log.first_lsn < *lsn && *lsn < log.last_lsn)
                    .unwrap_or_else(|| format!("no unbroken line of log backups leads to LSN {lsn}"))
            }
            RestoreTarget::Lsn { lsn, .. } => format!("LSN {lsn} is before the end of the first full backup"),
            RestoreTarget::Mark { name, .. } => self.no_mark(name),
        }
    }

    fn why_not(&self, backup: &Backup) -> String {
        let id = backup.id;
        match (backup.unusable(), backup.kind) {
            (Some(unusable), _) => format!("backup {id} {}", unusable.describe()),
            (None, BackupKind::Differential) => {
                let base = backup.base_id.map_or("unknown".to_owned(), |base| base.to_string());
                format!("the full that differential {id} is based on, {base}, cannot be restored")
            }
            (None, _) => format!(
                "log backup {id} begins at LSN {}, and no line of backups leads there on its recovery fork",
                backup.first_lsn
            ),
        }
    }

    fn no_mark(&self, name: &str) -> String {
        let mut known: Vec<&str> =
            self.backups().iter().flat_map(|log| &log.marks).map(|mark| mark.name.as_str()).collect();
        known.sort_unstable();
        known.dedup();
        if known.contains(&name) {
            return format!("no unbroken line of log backups leads to the mark {name}");
        }
        known.truncate(5);
        match known.is_empty() {
            true => format!(
                "there is no mark {name}, nor any other: marks are not in log backups from a secondary"
            ),
            false => format!("there is no mark {name}; there are {}", known.join(", ")),
        }
    }
}
