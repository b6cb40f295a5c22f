//! From a set of backups and a target to the steps of a restore, or to why there is none.
//!
//! A plan starts from the newest full, or the newest differential with its full, from which logs lead to the target without
//! a gap and on the right recovery fork. When several forks hold a time, the one that was alive then is taken: the log that ends
//! soonest after it. Otherwise the newest. Inside a log with bulk-logged operations there is no target. A time is in a log when the
//! log reaches beyond it; each log of such a plan has the stop clause, as Microsoft's own example does, so that none goes
//! too far. Invariants: the steps of a plan can be carried out in their order by the rules of `chain`; a plan ends exactly at its target.
//! Must not know statements, paths of data files, or servers.

use serde::{Deserialize, Serialize};

use super::chain::{Backup, BackupKind, Chain, Link, Mark, Stripe};
use super::guid::Guid;
use super::lsn::Lsn;
use super::refusal::Refusal;

/// Where a restore is to end. Times are milliseconds since 1970 in UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoreTarget {
    Newest,
    /// The end of one backup.
    Backup(Guid),
    Time(i64),
    /// All before this LSN, and nothing from it on; on the newest fork that has it, or on the one named.
    Lsn {
        lsn: Lsn,
        fork: Option<Guid>,
    },
    /// With the marked transaction, or without it. Of several marks of a name the first at or after a time, or the newest.
    Mark {
        name: String,
        after_ms: Option<i64>,
        before: bool,
    },
}

/// In what state the database is left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leave {
    Recovered,
    NoRecovery,
    /// Readable, and able to take more logs; the path of the undo file.
    Standby(String),
}

/// Where a log is stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    At(i64),
    AtMark {
        name: String,
        after_ms: i64,
    },
    BeforeMark {
        name: String,
        after_ms: i64,
    },
    /// `STOPBEFOREMARK = 'lsn:…'`.
    BeforeLsn(Lsn),
}

/// One RESTORE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub backup: Guid,
    pub kind: BackupKind,
    /// By media family: all of them go into one statement.
    pub files: Vec<Stripe>,
    pub position: u16,
    pub stop: Option<Stop>,
    pub leave: Leave,
    pub first_lsn: Lsn,
    pub last_lsn: Lsn,
    pub until_ms: i64,
}

/// Where the database is after a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub fork: Guid,
    pub lsn: EndLsn,
    /// As far as it is known: the moment asked for, or the one to which the last backup reaches.
    pub ms: i64,
}

/// How far the log is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndLsn {
    /// All before it.
    Before(Lsn),
    /// All up to and with it.
    Through(Lsn),
    /// Somewhere in the last log: at a time, whose LSN only the server knows.
    Within { from: Lsn, to: Lsn },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorePlan {
    pub steps: Vec<Step>,
    pub end: End,
}

/// Where a database that is restoring is: of `sys.master_files` redo_start_lsn and redo_start_fork_guid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub lsn: Lsn,
    pub fork: Guid,
    pub family_id: Guid,
    /// The moment it has reached, in milliseconds since 1970 in UTC.
    pub ms: i64,
}

impl Position {
    /// Stands for what was restored so far.
    fn as_full(&self) -> Backup {
        Backup {
            id: Guid::NONE,
            kind: BackupKind::Full,
            copy_only: true,
            damaged: false,
            bulk_logged: false,
            first_lsn: self.lsn,
            last_lsn: self.lsn,
            base_id: None,
            family_id: self.family_id,
            first_fork: self.fork,
            last_fork: self.fork,
            fork_point: None,
            started_ms: self.ms,
            finished_ms: self.ms,
            reaches_ms: None,
            position: 1,
            stripes: vec![Stripe { family: 1, file: String::new() }],
            stripe_count: 1,
            marks: Vec::new(),
        }
    }
}

/// Where a way ends: after a whole backup, or inside a log.
struct Terminal {
    at: usize,
    link: Link,
    stop: Option<Stop>,
    end: End,
}

impl Chain {
    /// Plans a restore, the database left as `leave` says after the last step.
    pub fn plan(&self, target: &RestoreTarget, leave: &Leave) -> Result<RestorePlan, Box<Refusal>> {
        let (links, found) = match target {
            RestoreTarget::Newest => {
                let links = self.links(|_| true);
                let found = self.best_whole(&links, |_| true);
                (links, found)
            }
            RestoreTarget::Backup(id) => {
                let links = self.links(|_| true);
                let found = self.best_whole(&links, |backup| backup.id == *id);
                (links, found)
            }
            RestoreTarget::Time(ms) => {
                let links = self.links(|backup| backup.until_ms() <= *ms);
                let found = self.at_time(*ms, &links);
                (links, found)
            }
            RestoreTarget::Lsn { lsn, fork } => {
                let links = self.links(|backup| backup.last_lsn <= *lsn);
                let found = self.at_lsn(*lsn, *fork, &links);
                (links, found)
            }
            RestoreTarget::Mark { name, after_ms, before } => {
                let links = self.links(|_| true);
                let found = self.at_mark(name, *after_ms, *before, &links);
                (links, found)
            }
        };
        match found {
            Some(terminal) => Ok(self.steps(terminal, &links, leave)),
            None => Err(Box::new(self.refuse(target))),
        }
    }

    /// Plans how a database that is restoring goes on: with logs alone, from where it is. No steps when it is there
    /// already, or when no log follows and the newest is asked for.
    pub fn plan_from(
        &self,
        at: &Position,
        target: &RestoreTarget,
        leave: &Leave,
    ) -> Result<RestorePlan, Box<Refusal>> {
        let mut plan = self.going_on_from(at).plan(target, leave)?;
        plan.steps.remove(0);
        Ok(plan)
    }

    /// The logs alone, and what a database has that is restoring, in place of a full without an id.
    pub(super) fn going_on_from(&self, at: &Position) -> Self {
        let logs = self.backups().iter().filter(|backup| backup.kind == BackupKind::Log);
        Self::new(logs.cloned().chain([at.as_full()]).collect())
    }

    /// The backups that must be kept for one to stay restorable, itself included, in the order of restore.
    pub fn needs(&self, backup: Guid) -> Option<Vec<Guid>> {
        let links = self.links(|_| true);
        let terminal = self.best_whole(&links, |known| known.id == backup)?;
        let way = self.way(terminal.at, terminal.link, &links);
        Some(way.into_iter().map(|at| self.backups()[at].id).collect())
    }

    fn whole(&self, at: usize, link: Link) -> Terminal {
        let backup = &self.backups()[at];
        let end = End { fork: backup.last_fork, lsn: EndLsn::Before(backup.last_lsn), ms: backup.until_ms() };
        Terminal { at, link, stop: None, end }
    }

    /// The newest of the whole backups that are reached.
    fn best_whole(&self, links: &[Option<Link>], wanted: impl Fn(&Backup) -> bool) -> Option<Terminal> {
        let reached = links.iter().enumerate().filter_map(|(at, link)| Some((at, (*link)?)));
        let wanted = reached.filter(|(at, _)| wanted(&self.backups()[*at]));
        let (at, link) =
            wanted.max_by_key(|(at, _)| (self.backups()[*at].until_ms(), self.backups()[*at].last_lsn))?;
        Some(self.whole(at, link))
    }

    /// Logs in which a stop is possible.
    fn stoppable(&self) -> impl Iterator<Item = (usize, &Backup)> {
        let logs = self.backups().iter().enumerate();
        logs.filter(|(at, log)| log.kind == BackupKind::Log && self.is_usable(*at) && !log.bulk_logged)
    }

    fn at_time(&self, ms: i64, links: &[Option<Link>]) -> Option<Terminal> {
        if let Some(whole) = self.best_whole(links, |backup| backup.until_ms() == ms) {
            return Some(whole);
        }
        let later = self.stoppable().filter(|(_, log)| log.until_ms() > ms);
        let inside = later.filter_map(|(at, log)| Some((at, log, self.before(log, links, |_| true)?)));
        let (at, log, link) =
            inside.min_by_key(|(_, log, _)| (log.until_ms(), std::cmp::Reverse(log.last_lsn)))?;
        let from = link.from.map_or(log.first_lsn, |from| self.backups()[from].last_lsn);
        let lsn = EndLsn::Within { from, to: log.last_lsn };
        // A fork inside the log leaves open which side of it the time is on; it is on the later one for all that is known.
        let end = End { fork: log.last_fork, lsn, ms };
        Some(Terminal { at, link, stop: Some(Stop::At(ms)), end })
    }

    fn at_lsn(&self, lsn: Lsn, fork: Option<Guid>, links: &[Option<Link>]) -> Option<Terminal> {
        let on_fork = |found: Guid| fork.is_none_or(|fork| fork == found);
        let whole = self.best_whole(links, |backup| backup.last_lsn == lsn && on_fork(backup.last_fork));
        let logs = self.stoppable().filter(|(_, log)| log.first_lsn < lsn && lsn < log.last_lsn);
        let logs = logs.filter(|(_, log)| on_fork(log.fork_at(lsn)));
        let inside =
            logs.filter_map(|(at, log)| Some((at, log, self.before(log, links, |state| state < lsn)?)));
        let inside =
            inside.max_by_key(|(_, log, _)| (log.until_ms(), log.last_lsn)).map(|(at, log, link)| {
                let end = End { fork: log.fork_at(lsn), lsn: EndLsn::Before(lsn), ms: log.until_ms() };
                Terminal { at, link, stop: Some(Stop::BeforeLsn(lsn)), end }
            });
        match (whole, inside) {
            (Some(whole), Some(inside)) if inside.end.ms > whole.end.ms => Some(inside),
            (Some(whole), _) => Some(whole),
            (None, inside) => inside,
        }
    }

    fn at_mark(
        &self,
        name: &str,
        after_ms: Option<i64>,
        before: bool,
        links: &[Option<Link>],
    ) -> Option<Terminal> {
        let marks = self.stoppable().flat_map(|(at, log)| log.marks.iter().map(move |mark| (at, log, mark)));
        let marks = marks.filter(|(_, log, mark)| {
            mark.name == name
                && after_ms.is_none_or(|after| mark.ms >= after)
                && (log.first_lsn..log.last_lsn).contains(&mark.lsn)
        });
        let reached = marks.filter_map(|(at, log, mark)| {
            Some((at, log, mark, self.before(log, links, |state| state <= mark.lsn)?))
        });
        let order = |mark: &Mark, log: &Backup| (mark.ms, mark.lsn, log.until_ms(), log.last_lsn);
        let (at, log, mark, link) = match after_ms {
            Some(_) => reached.min_by_key(|(_, log, mark, _)| order(mark, log)),
            None => reached.max_by_key(|(_, log, mark, _)| order(mark, log)),
        }?;
        let (name, after_ms) = (name.to_owned(), mark.ms);
        let (stop, lsn, fork) = if before {
            (Stop::BeforeMark { name, after_ms }, EndLsn::Before(mark.lsn), log.fork_at(mark.lsn))
        } else {
            (Stop::AtMark { name, after_ms }, EndLsn::Through(mark.lsn), log.fork_of(mark.lsn))
        };
        let end = End { fork, lsn, ms: mark.ms };
        Some(Terminal { at, link, stop: Some(stop), end })
    }

    fn steps(&self, terminal: Terminal, links: &[Option<Link>], leave: &Leave) -> RestorePlan {
        let way = self.way(terminal.at, terminal.link, links);
        let last = way.len() - 1;
        let steps = way.into_iter().enumerate().map(|(number, at)| {
            let backup = &self.backups()[at];
            // A bulk-logged log takes no stop clause, not even one that it does not reach.
            let everywhere = backup.kind == BackupKind::Log
                && !backup.bulk_logged
                && matches!(terminal.stop, Some(Stop::At(_)));
            Step {
                backup: backup.id,
                kind: backup.kind,
                files: backup.stripes.clone(),
                position: backup.position,
                stop: terminal.stop.clone().filter(|_| number == last || everywhere),
                leave: if number == last { leave.clone() } else { Leave::NoRecovery },
                first_lsn: backup.first_lsn,
                last_lsn: backup.last_lsn,
                until_ms: backup.until_ms(),
            }
        });
        RestorePlan { steps: steps.collect(), end: terminal.end }
    }
}
