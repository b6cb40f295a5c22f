//! A dSource that is linked to a folder of backups: which of them come next, and what is missing.
//!
//! Logs lead on from where the staging database is. Where they do not, a newer differential of the same full is taken, or a newer full.
//! While logs do come, a newer full alone changes nothing: the next log says what came since, at a fraction of the work.
//! Decisions are made of values alone. Must not know connections.

use std::path::PathBuf;

use jiff::tz::{Offset, TimeZone};
use serde::{Deserialize, Serialize};

use super::backups::Backups;
use super::chain::{Backup, BackupKind, Chain};
use super::plan::{Leave, Position, RestoreTarget, Step};
use super::plan_text::time;
use super::{Guid, Lsn};
use crate::base::{Error, ErrorKind, Result};

/// A full this much newer than the last log is taken for the end of logs: the source stopped backing them up.
const LOGS_CEASED_MS: i64 = 24 * 3_600_000;

/// What a linked dSource follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Follow {
    pub folder: PathBuf,
    /// As the backups name it.
    pub database: String,
    /// The database since it was created, whatever it is called later.
    pub family: Guid,
    /// The volume of an earlier copy under the same staging database name: the instance lets go of it first.
    #[serde(default)]
    pub replaces: Option<PathBuf>,
}

/// Where a staging database is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub lsn: Lsn,
    pub fork: Guid,
    /// The full that a differential must be based on.
    pub base: Option<Guid>,
}

/// How a staging database goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Way {
    pub steps: Vec<Step>,
    /// Log that is missing, and between which backups.
    pub gap: Option<String>,
}

impl Way {
    /// Whether it begins anew.
    pub(super) fn begins_with_full(&self) -> bool {
        self.steps.first().is_some_and(|step| step.kind == BackupKind::Full)
    }
}

/// The one database of the backups, or the one named, with the family of its newest restorable backup.
pub(super) fn choose(backups: &Backups, wanted: Option<&str>, folder: &str) -> Result<(String, Guid)> {
    let names: Vec<&str> = backups.databases.keys().map(String::as_str).collect();
    let name = match (wanted, &names[..]) {
        (Some(wanted), _) if backups.databases.contains_key(wanted) => wanted,
        (None, [only]) => only,
        (_, []) => return Err(no_backups(backups, folder)),
        (Some(wanted), names) => {
            return Err(Error::not_found(format!("there is no backup of database {wanted} in {folder}"))
                .with_hint(format!("there are backups of {}", names.join(", "))));
        }
        (None, names) => {
            return Err(Error::invalid(format!(
                "{folder} has backups of several databases: say which one with --source-database"
            ))
            .with_hint(format!("they are {}", names.join(", "))));
        }
    };
    let chain = Chain::new(backups.databases[name].clone());
    let plan = chain
        .plan(&RestoreTarget::Newest, &Leave::NoRecovery)
        .map_err(|refusal| refusal.about(name, &zone_of(backups, &chain)))?;
    let last = plan.steps.last().map(|step| step.backup);
    let family = chain.backups().iter().find(|backup| Some(backup.id) == last).map(|backup| backup.family_id);
    Ok((name.to_owned(), family.unwrap_or_default()))
}

fn no_backups(backups: &Backups, folder: &str) -> Error {
    let error = Error::not_found(format!("there are no backups of SQL Server in {folder}"));
    match backups.problems.first() {
        Some((file, why)) => error.with_hint(format!("{file}: {why}")),
        None => error.with_hint("name the folder that BACKUP writes to, as this host has it"),
    }
}

/// The zone of the server that was backed up, as its newest backup says.
pub(super) fn zone_of(backups: &Backups, chain: &Chain) -> TimeZone {
    let newest = chain.backups().iter().rev().find_map(|backup| backups.facts.get(&backup.id)?.zone_quarters);
    newest
        .and_then(|quarters| Offset::from_seconds(i32::from(quarters) * 900).ok())
        .map_or(TimeZone::UTC, TimeZone::fixed)
}

/// Where a chain's newest point is reached from its newest full or differential.
pub(super) fn anew(chain: &Chain, database: &str, zone: &TimeZone) -> Result<Way> {
    let plan = chain
        .plan(&RestoreTarget::Newest, &Leave::NoRecovery)
        .map_err(|refusal| refusal.about(database, zone))?;
    Ok(Way { steps: plan.steps, gap: None })
}

/// How a database goes on from where it is. Nothing to do and no gap: it has what there is.
pub(super) fn on_from(chain: &Chain, at: &Standing, family: Guid, zone: &TimeZone) -> Way {
    let position = Position { lsn: at.lsn, fork: at.fork, family_id: family, ms: 0 };
    let logs = chain.plan_from(&position, &RestoreTarget::Newest, &Leave::NoRecovery);
    let logs = logs.map(|plan| plan.steps).unwrap_or_default();
    let reached = logs.last().map_or(at.lsn, |step| step.last_lsn);
    let jump = chain.plan(&RestoreTarget::Newest, &Leave::NoRecovery).ok().map(|plan| plan.steps);
    if let Some(jump) = jump.filter(|jump| is_worth(chain, at, &logs, jump)) {
        let base = |step: &Step| {
            chain.backups().iter().find(|known| known.id == step.backup).and_then(|of| of.base_id)
        };
        let on_same_full = jump.get(1).is_some_and(|second| {
            second.kind == BackupKind::Differential && base(second) == at.base && second.last_lsn > at.lsn
        });
        return Way { steps: jump[usize::from(on_same_full)..].to_vec(), gap: None };
    }
    let fork = logs.last().and_then(|step| chain.backups().iter().find(|known| known.id == step.backup));
    let end = Position { lsn: reached, fork: fork.map_or(at.fork, |log| log.last_fork), ..position };
    Way { steps: logs, gap: gap(chain, &end, zone) }
}

/// Whether another full or differential leads further than logs do.
fn is_worth(chain: &Chain, at: &Standing, logs: &[Step], jump: &[Step]) -> bool {
    let Some(end) = jump.last() else { return false };
    let of = |id: Guid| chain.backups().iter().find(|backup| backup.id == id);
    // What the logs end with; without logs, the backup that the database is at the end of.
    let here = logs.last().and_then(|step| of(step.backup)).or_else(|| {
        chain.backups().iter().rev().find(|backup| backup.last_lsn == at.lsn && backup.last_fork == at.fork)
    });
    // Times are whole seconds: what is of the same one is told apart by its place in the log.
    let reaches = |here: &Backup| (here.until_ms(), here.last_lsn) >= (end.until_ms, end.last_lsn);
    if here.is_some_and(|here| here.id == end.backup || reaches(here)) {
        return false;
    }
    if here.is_none() && end.last_lsn <= at.lsn && of(end.backup).is_some_and(|end| end.last_fork == at.fork)
    {
        return false;
    }
    if end.kind == BackupKind::Log {
        return true;
    }
    // A full or differential is the newest there is. While logs come, the next one says what is new.
    let newest_log =
        chain.backups().iter().rev().find(|log| log.kind == BackupKind::Log && log.last_lsn >= at.lsn);
    newest_log.is_none_or(|log| end.until_ms - log.until_ms() > LOGS_CEASED_MS)
}

/// What is missing behind a position, when there is log again further on.
fn gap(chain: &Chain, at: &Position, zone: &TimeZone) -> Option<String> {
    let going_on = chain.going_on_from(at);
    let gap = going_on.gaps().into_iter().find(|gap| gap.from == at.lsn)?;
    let named = |id: Guid| chain.backups().iter().find(|backup| backup.id == id).map(Backups::shown);
    let behind = named(gap.before).unwrap_or_else(|| gap.before.to_string());
    let mut text = format!(
        "log from LSN {} to {} is missing: the next log backup that is there, {behind} of {}, begins behind it",
        gap.from,
        gap.to,
        time(gap.before_ms, zone)
    );
    for (id, why) in &gap.unusable {
        let name = named(*id).unwrap_or_else(|| id.to_string());
        text.push_str(&format!("; {name} would fill it but {}", why.describe()));
    }
    Some(text)
}

/// A gap as what keeps a sync from going on.
pub(super) fn gap_error(name: &str, gap: &str) -> Error {
    Error::new(ErrorKind::Precondition, format!("{name} cannot be brought up to its source: {gap}"))
        .with_hint("put the missing log backup into the folder, or take a new full or differential backup")
}

/// Logs that may lead to a point behind a snapshot.
pub(super) fn logs_behind(chain: &Chain, lsn: Lsn, ms: i64) -> impl Iterator<Item = &Backup> {
    chain.backups().iter().filter(move |log| {
        log.kind == BackupKind::Log
            && log.unusable().is_none()
            && (log.last_lsn > lsn || log.finished_ms > ms)
    })
}

#[cfg(test)]
mod tests {
    use super::super::chain::Stripe;
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn guid(number: u8) -> Guid {
        Guid([number; 16])
    }

    fn lsn(block: u32) -> Lsn {
        Lsn::new(1, block, 1)
    }

    fn backup(id: u8, kind: BackupKind, first: u32, last: u32, ms: i64) -> Backup {
        Backup {
            id: guid(id),
            kind,
            copy_only: false,
            damaged: false,
            bulk_logged: false,
            first_lsn: lsn(first),
            last_lsn: lsn(last),
            base_id: (kind == BackupKind::Differential).then(|| guid(1)),
            family_id: guid(99),
            first_fork: guid(7),
            last_fork: guid(7),
            fork_point: None,
            started_ms: ms,
            finished_ms: ms,
            reaches_ms: None,
            position: 1,
            stripes: vec![Stripe { family: 1, file: format!("/b/{id}.bak") }],
            stripe_count: 1,
            marks: Vec::new(),
        }
    }

    fn way(backups: &[Backup], at: u32) -> Way {
        let standing = Standing { lsn: lsn(at), fork: guid(7), base: Some(guid(1)) };
        on_from(&Chain::new(backups.to_vec()), &standing, guid(99), &TimeZone::UTC)
    }

    fn ids(way: &Way) -> Vec<u8> {
        way.steps.iter().map(|step| step.backup.0[0]).collect()
    }

    use BackupKind::{Differential, Full, Log};

    #[test]
    fn logs_lead_on_and_a_new_full_changes_nothing_while_they_come() {
        let mut all =
            vec![backup(1, Full, 1, 10, 0), backup(2, Log, 1, 20, HOUR), backup(3, Log, 20, 30, 2 * HOUR)];
        assert_eq!(ids(&way(&all, 10)), [2, 3]);
        assert_eq!(ids(&way(&all, 20)), [3]);
        assert_eq!(way(&all, 30), Way::default());
        all.push(backup(4, Full, 40, 45, 3 * HOUR));
        assert_eq!(way(&all, 30), Way::default());
        // A day without logs: they have ceased.
        all[3] = backup(4, Full, 40, 45, 27 * HOUR);
        assert_eq!(ids(&way(&all, 30)), [4]);
        // Without any log a full is all there is to follow.
        let fulls = [backup(1, Full, 1, 10, 0), backup(4, Full, 40, 45, HOUR)];
        assert_eq!(ids(&way(&fulls, 10)), [4]);
    }

    #[test]
    fn missing_log_is_a_gap_until_a_differential_or_full_leads_over_it() {
        let mut all = vec![backup(1, Full, 1, 10, 0), backup(3, Log, 20, 30, 2 * HOUR)];
        let found = way(&all, 10);
        assert!(found.steps.is_empty());
        let gap = found.gap.unwrap();
        assert!(gap.contains(&format!("log from LSN {} to {} is missing", lsn(10), lsn(20))), "{gap}");
        assert!(gap.contains("3.bak"), "{gap}");
        // One that would fill it and is damaged is named.
        all.push(Backup { damaged: true, ..backup(2, Log, 10, 20, HOUR) });
        assert!(way(&all, 10).gap.unwrap().contains("2.bak would fill it but is damaged"));
        all.push(backup(5, Differential, 22, 25, 2 * HOUR - 1));
        let found = way(&all, 10);
        assert_eq!((ids(&found), found.gap), (vec![5, 3], None));
        // Of another full than the one restored it is no help alone.
        let of_other = Backup { base_id: Some(guid(6)), ..backup(5, Differential, 22, 25, 2 * HOUR - 1) };
        let all = [all[0].clone(), all[1].clone(), of_other, backup(6, Full, 12, 14, HOUR)];
        assert_eq!(ids(&way(&all, 10)), [6, 5, 3]);
        assert!(way(&all, 10).begins_with_full());
    }

    #[test]
    fn one_database_is_chosen_by_name_or_by_being_the_only_one() {
        let mut backups = Backups::default();
        assert_eq!(choose(&backups, None, "/b").unwrap_err().kind(), ErrorKind::NotFound);
        backups.databases.insert("a".into(), vec![backup(1, Full, 1, 10, 0)]);
        assert_eq!(choose(&backups, None, "/b").unwrap(), ("a".to_owned(), guid(99)));
        backups.databases.insert("b".into(), vec![backup(3, Log, 20, 30, 0)]);
        assert_eq!(choose(&backups, None, "/b").unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(choose(&backups, Some("a"), "/b").unwrap().0, "a");
        let error = choose(&backups, Some("b"), "/b").unwrap_err();
        assert!(error.message().contains("no full backup"), "{error}");
        assert!(choose(&backups, Some("c"), "/b").unwrap_err().hint().unwrap().contains("a, b"));
    }
}
