//! From where to where points in time can be reached, and where the line is broken.
//!
//! A span begins at the end of a full or differential and goes on as long as logs follow each other on a fork. Inside a
//! bulk-logged log there are no points. A gap is named by the backups on both sides and the log positions between them. Invariant:
//! each time in a span outside its holes has a plan (tested). Must not know targets.

use serde::{Deserialize, Serialize};

use super::chain::{BackupKind, Chain, Unusable};
use super::guid::Guid;
use super::lsn::Lsn;

/// An end of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpanPoint {
    /// Milliseconds since 1970, UTC.
    pub ms: i64,
    pub lsn: Lsn,
    pub backup: Guid,
}

/// Points without a gap. One point alone when no log follows a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreSpan {
    pub from: SpanPoint,
    pub to: SpanPoint,
    /// The recovery fork at its end.
    pub fork: Guid,
    /// Times between which there is no point, for the log there is bulk-logged.
    pub holes: Vec<(i64, i64)>,
}

/// Log that is missing between two backups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The first position that is missing, and the first that is there again.
    pub from: Lsn,
    pub to: Lsn,
    /// The backup that ends before the gap, and when.
    pub after: Guid,
    pub after_ms: i64,
    /// The log that begins behind it, and when it was taken.
    pub before: Guid,
    pub before_ms: i64,
    /// Backups that would fill it, and what is wrong with them.
    pub unusable: Vec<(Guid, Unusable)>,
}

impl Chain {
    /// By their beginnings. Forks of one database give spans that overlap.
    pub fn spans(&self) -> Vec<RestoreSpan> {
        let backups = self.backups();
        let links = self.links(|_| true);
        // The oldest backup from which logs alone lead to each, and the backup before it on that way.
        let mut origin: Vec<usize> = (0..backups.len()).collect();
        let mut previous: Vec<Option<usize>> = vec![None; backups.len()];
        let mut followed = vec![false; backups.len()];
        for (at, log) in backups.iter().enumerate() {
            if links[at].is_none() || log.kind != BackupKind::Log {
                continue;
            }
            for state in self.range(log.first_lsn, log.last_lsn) {
                let known = &backups[state];
                let fits = known.family_id == log.family_id && log.goes_onto(known.last_lsn, known.last_fork);
                if links[state].is_none() || !fits {
                    continue;
                }
                followed[state] = true;
                let older = |a: usize, b: usize| backups[a].until_ms() < backups[b].until_ms();
                if previous[at].is_none() || older(origin[state], origin[at]) {
                    (origin[at], previous[at]) = (origin[state], Some(state));
                }
            }
        }
        let ends = (0..backups.len()).filter(|&at| links[at].is_some() && !followed[at]);
        let mut spans: Vec<RestoreSpan> = ends.map(|at| self.span(origin[at], at, &previous)).collect();
        spans.sort_by_key(|span| (span.from.ms, span.to.ms, span.from.lsn, span.to.lsn));
        spans
    }

    fn span(&self, from: usize, to: usize, previous: &[Option<usize>]) -> RestoreSpan {
        let point = |at: usize| {
            let backup = &self.backups()[at];
            SpanPoint { ms: backup.until_ms(), lsn: backup.last_lsn, backup: backup.id }
        };
        let mut holes = Vec::new();
        let mut at = to;
        while let Some(before) = previous[at] {
            if self.backups()[at].bulk_logged {
                holes.push((self.backups()[before].until_ms(), self.backups()[at].until_ms()));
            }
            at = before;
        }
        holes.reverse();
        RestoreSpan { from: point(from), to: point(to), fork: self.backups()[to].last_fork, holes }
    }

    /// Where a line ends although there are later logs of its fork.
    pub fn gaps(&self) -> Vec<Gap> {
        let backups = self.backups();
        let links = self.links(|_| true);
        let reached = |at: &usize| links[*at].is_some();
        let mut gaps: Vec<Gap> = Vec::new();
        for end in (0..backups.len()).filter(reached) {
            let state = &backups[end];
            let same =
                |log: &super::chain::Backup| log.kind == BackupKind::Log && log.family_id == state.family_id;
            let goes_on = (0..backups.len()).any(|at| {
                links[at].is_some()
                    && same(&backups[at])
                    && backups[at].goes_onto(state.last_lsn, state.last_fork)
            });
            let later = backups.iter().enumerate().filter(|(at, log)| {
                self.is_usable(*at)
                    && same(log)
                    && log.first_lsn > state.last_lsn
                    && log.first_fork == state.last_fork
            });
            let Some((_, next)) = later.min_by_key(|(_, log)| (log.first_lsn, log.started_ms)) else {
                continue;
            };
            if goes_on {
                continue;
            }
            let would =
                backups.iter().filter(|log| same(log) && log.goes_onto(state.last_lsn, state.last_fork));
            let unusable = would.filter_map(|log| Some((log.id, log.unusable()?))).collect();
            let gap = Gap {
                from: state.last_lsn,
                to: next.first_lsn,
                after: state.id,
                after_ms: state.until_ms(),
                before: next.id,
                before_ms: next.started_ms,
                unusable,
            };
            match gaps.iter_mut().find(|known| known.before == gap.before) {
                Some(known) if known.from < gap.from => *known = gap,
                Some(_) => {}
                None => gaps.push(gap),
            }
        }
        gaps
    }
}
