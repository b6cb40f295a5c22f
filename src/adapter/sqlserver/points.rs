//! Points in time between snapshots: the snapshot before, and the log backups that lead on from it.
//!
//! Logs come from the volume in which they are kept, and from the folder that a linked dSource follows, as long as they lie there.
//! A VDB at a point is a clone of a RESTORING snapshot into which logs are restored up to it. Marks are not in the headers of
//! backups: a mark is looked for by asking each log to stop at it. Must not know volumes and jobs.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::super::{History, Instance, Parent, Point, Span, Target, Task};
use super::adapter::{At, SqlServer, connect};
use super::backups::{Backups, SetFacts};
use super::chain::{Backup, BackupKind, Chain};
use super::config::{Config, Metadata, read};
use super::plan::{Leave, Position, RestoreTarget, Step, Stop};
use super::plan_text::time;
use super::state::DatabaseState;
use super::{Guid, Lsn, headers, kept, linked, statements};
use crate::base::{Error, ErrorKind, Result};

/// The logs that lead on from a timeflow's snapshots.
struct Logs {
    chain: Chain,
    facts: BTreeMap<Guid, SetFacts>,
}

/// A point as the plans have it.
enum Wanted {
    Time(i64),
    Lsn(Lsn),
    Mark(String),
}

impl Wanted {
    fn of(target: &Target) -> Result<Self> {
        match target {
            Target::Time(text) => {
                let moment: Timestamp = text.parse().map_err(|_| {
                    Error::invalid(format!(
                        "{text:?} is no time with an offset, such as 2026-01-31T12:00:00+01:00"
                    ))
                })?;
                Ok(Self::Time(moment.as_millisecond()))
            }
            Target::Lsn(text) => text.parse().map(Self::Lsn),
            Target::RestorePoint(name) => Ok(Self::Mark(name.clone())),
            Target::Xid(_) => Err(Error::new(
                ErrorKind::Unsupported,
                "SQL Server has no points by transaction number: name a time, an LSN, or a mark as restore point",
            )),
            Target::Snapshot => Err(Error::invalid("a snapshot is no point between snapshots")),
        }
    }

    /// Whether a snapshot lies before it, or at it.
    fn is_behind(&self, position: &Position) -> bool {
        match self {
            Self::Time(ms) => position.ms <= *ms,
            Self::Lsn(lsn) => position.lsn <= *lsn,
            Self::Mark(_) => true,
        }
    }

    fn restore_target(&self) -> RestoreTarget {
        match self {
            Self::Time(ms) => RestoreTarget::Time(*ms),
            Self::Lsn(lsn) => RestoreTarget::Lsn { lsn: *lsn, fork: None },
            Self::Mark(_) => RestoreTarget::Newest,
        }
    }
}

impl Logs {
    /// Steps from a snapshot to a point.
    fn steps(
        &self,
        from: &Position,
        wanted: &Wanted,
    ) -> std::result::Result<Vec<Step>, Box<super::refusal::Refusal>> {
        let plan = self.chain.plan_from(from, &wanted.restore_target(), &Leave::Recovered)?;
        let mut steps = plan.steps;
        if let Wanted::Mark(name) = wanted {
            for step in &mut steps {
                step.stop = Some(Stop::AtMark { name: name.clone(), after_ms: 0 });
            }
        }
        Ok(steps)
    }

    fn zone(&self) -> TimeZone {
        let backups = Backups { facts: self.facts.clone(), ..Backups::default() };
        super::follow::zone_of(&backups, &self.chain)
    }

    /// The last moment that a log surely has.
    fn latest(&self, family: Guid) -> Option<&Backup> {
        let usable =
            self.chain.backups().iter().filter(|log| log.family_id == family && log.unusable().is_none());
        usable.max_by_key(|log| log.until_ms())
    }
}

impl SqlServer {
    /// Logs of a dataset; none that are read from a folder when no instance answers for what only it can read.
    fn logs_of(&self, instance: &Instance) -> Result<Logs> {
        let config: Config = Self::config(instance)?;
        let (mut backups, mut facts) = match &instance.logs {
            Some(logs) => kept::all(logs)?,
            None => Default::default(),
        };
        if let Some(follow) = &config.follow {
            let mut sql = connect(&config, &instance.secrets);
            let mut ask = |path: &Path| match &mut sql {
                Ok(sql) => headers::ask(sql, path),
                Err(e) => Err(Error::new(e.kind(), e.message())),
            };
            // A folder that is gone leaves what is kept.
            if let Ok(found) = self.headers.folder(&follow.folder, None, &mut ask) {
                let of_folder = found.of_family(follow.family).into_iter();
                let known: Vec<Guid> = backups.iter().map(|log| log.id).collect();
                backups.extend(of_folder.filter(|log| !known.contains(&log.id)));
                for (id, of_set) in found.facts {
                    facts.entry(id).or_insert(of_set);
                }
            }
        }
        backups.retain(|backup| backup.kind == BackupKind::Log);
        Ok(Logs { chain: Chain::new(backups), facts })
    }

    pub(super) fn point(&self, history: &History<'_>, target: &Target) -> Result<Point> {
        let (name, wanted) = (&history.instance.name, Wanted::of(target)?);
        let bases = positions(history)?;
        let logs = self.logs_of(history.instance)?;
        let zone = logs.zone();
        let mut before: Vec<&(usize, Position)> =
            bases.iter().filter(|(_, at)| wanted.is_behind(at)).collect();
        let Some((_, first)) = bases.first() else {
            return Err(Error::not_found(format!("{name} has no snapshot from which log backups lead on")));
        };
        if before.is_empty() {
            return Err(Error::new(
                ErrorKind::Range,
                format!(
                    "that is before the oldest snapshot of {name}, which is of {} (LSN {})",
                    time(first.ms, &zone),
                    first.lsn
                ),
            ));
        }
        // The first mark of its name is meant, so what is before all of them is where to start.
        if !matches!(wanted, Wanted::Mark(_)) {
            before.reverse();
        }
        let mut refused = None;
        for (base, position) in before {
            match logs.steps(position, &wanted) {
                Ok(steps) if steps.is_empty() && matches!(wanted, Wanted::Mark(_)) => {}
                Ok(_) => return Ok(Point { base: *base, needs_sync: false }),
                Err(refusal) => drop(refused.get_or_insert((refusal, *position))),
            }
        }
        let Some((refusal, position)) = refused else {
            return Err(Error::not_found(format!(
                "no log backup of {name} is kept in which that mark could be"
            )));
        };
        Err(match (&wanted, logs.latest(position.family_id)) {
            (Wanted::Time(ms), latest) if latest.is_none_or(|latest| latest.until_ms() < *ms) => {
                too_late(name, latest.map_or(position.ms, Backup::until_ms), &zone)
            }
            _ => refusal.about(name, &zone),
        })
    }

    pub(super) fn points_span(&self, history: &History<'_>) -> Result<Span> {
        let bases = positions(history)?;
        let (Some((_, first)), Some((_, last))) = (bases.first(), bases.last()) else {
            return Ok(Span::default());
        };
        let logs = self.logs_of(history.instance)?;
        let zone = logs.zone();
        let (mut latest, mut gaps) = ((last.ms, last.lsn), Vec::new());
        for (_, base) in &bases {
            let going_on = logs.chain.going_on_from(base);
            let reached = going_on.plan(&RestoreTarget::Newest, &Leave::Recovered);
            if let Some(step) = reached.ok().and_then(|plan| plan.steps.last().cloned()) {
                latest = latest.max((step.until_ms, step.last_lsn));
            }
            for gap in going_on.gaps() {
                // One that a later snapshot lies behind is none for what comes after it.
                let text = format!(
                    "log from LSN {} to {} is missing, until {}",
                    gap.from,
                    gap.to,
                    time(gap.before_ms, &zone)
                );
                if !gaps.contains(&text) {
                    gaps.push(text);
                }
            }
        }
        let shown = |ms: i64| Timestamp::from_millisecond(ms).ok().map(|moment| moment.to_string());
        Ok(Span {
            earliest_time: shown(first.ms),
            earliest_place: Some(first.lsn.to_string()),
            latest_time: shown(latest.0),
            latest_place: Some(latest.1.to_string()),
            can_sync: false,
            gaps,
        })
    }

    pub(super) fn prune_kept(&self, instance: &Instance, oldest: &Value) -> Result<usize> {
        let oldest: Metadata = read("the snapshot's records", oldest)?;
        let (Some(logs), Some(position)) = (&instance.logs, oldest.position()) else { return Ok(0) };
        kept::prune(logs, |log| log.last_lsn <= position.lsn && log.finished_ms <= position.ms)
    }

    /// Brings a clone, which is RESTORING, to a point, and recovers it there.
    pub(super) fn go_to(
        &self,
        at: &mut At<'_>,
        records: &Metadata,
        found: &DatabaseState,
        target: &Target,
        parent: &Parent<'_>,
        task: &mut dyn Task,
    ) -> Result<()> {
        let wanted = Wanted::of(target)?;
        let (name, of) = (at.name().to_owned(), &parent.instance.name);
        let position = records.position().ok_or_else(|| {
            Error::new(ErrorKind::Precondition, format!("no log backups lead on from that snapshot of {of}"))
        })?;
        let logs = self.logs_of(parent.instance)?;
        let steps = logs.steps(&position, &wanted).map_err(|refusal| refusal.about(of, &logs.zone()))?;
        let backups = Backups { facts: logs.facts, ..Backups::default() };
        let online =
            at.restore(&steps, &backups, Some(found), true, task).map_err(|stopped| stopped.error)?;
        if online {
            return Ok(());
        }
        if let Wanted::Mark(mark) = &wanted {
            return Err(Error::not_found(format!("no log backup of {of} that is kept has the mark {mark}")));
        }
        task.step("recover")?;
        at.sql.long(&statements::recover(&name), task)?;
        Ok(())
    }

    /// Restores a clone's database from the parent's folder, when SQL Server does not take the files as they are.
    pub(super) fn restore_clone(
        &self,
        at: &mut At<'_>,
        records: &Metadata,
        parent: &Parent<'_>,
        refused: Error,
        task: &mut dyn Task,
    ) -> Result<DatabaseState> {
        let config: Config = Self::config(parent.instance)?;
        let way = linked::target_of(records).zip(config.follow);
        let Some(((target, family), follow)) = way else {
            return Err(refused.with_hint(
                "there is no folder of backups to restore it from: link the dSource with --backup-path",
            ));
        };
        let backups = self.backups_in(&mut at.sql, &follow.folder)?;
        let chain = Chain::new(backups.of_family(family));
        let plan = chain.plan(&target, &Leave::NoRecovery).map_err(|_| {
            Error::new(refused.kind(), refused.message()).with_hint(format!(
                "the backups that the snapshot was made of are no longer in {}",
                follow.folder.display()
            ))
        })?;
        task.warn(&format!(
            "{refused}; it is restored from backups instead, which takes their time and room"
        ));
        at.restore(&plan.steps, &backups, None, false, task).map_err(|stopped| stopped.error)?;
        at.own()?
            .ok_or_else(|| Error::new(ErrorKind::Failed, format!("{} is gone after its restore", at.name())))
    }
}

fn too_late(name: &str, latest: i64, zone: &TimeZone) -> Error {
    Error::new(
        ErrorKind::Precondition,
        format!("that is later than {}, up to which the log backups of {name} reach", time(latest, zone)),
    )
    .with_hint("back up the source's log, or wait for its next log backup")
}

/// The snapshots that logs can be restored onto, oldest first, by their places in the history.
fn positions(history: &History<'_>) -> Result<Vec<(usize, Position)>> {
    let mut found = Vec::new();
    for (base, metadata) in history.bases.iter().enumerate() {
        let metadata: Metadata = read("the snapshot's records", metadata)?;
        found.extend(metadata.position().map(|position| (base, position)));
    }
    Ok(found)
}

impl Metadata {
    /// Where a restore goes on from these files; nothing when none does.
    pub(super) fn position(&self) -> Option<Position> {
        let backup = self.backup.as_ref().filter(|_| self.state == super::staging::RESTORING)?;
        Some(Position {
            lsn: self.redo_start_lsn?,
            fork: self.redo_start_fork_guid?,
            family_id: backup.family_guid?,
            ms: backup.reached_ms(self.zone_minutes)?,
        })
    }
}
