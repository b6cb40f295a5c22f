//! Which backups of a database are kept, and why.
//!
//! Fulls and differentials: all of some days, then the last of each week, month and year, by the rules that snapshots have.
//! Logs: of the same days alone. Whatever a kept one needs to be restored is kept with it, so a full stays as long as a
//! differential or log of it does. Invariants: each kept backup can be restored from kept ones alone (tested over generated calendars);
//! what cannot be restored takes no other's place as the last of a period, and is told apart instead of counted as kept. Must not
//! know who deletes, nor where files lie.

use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::chain::{Backup, BackupKind, Chain};
use super::guid::Guid;
use super::plan::{Leave, RestoreTarget};
use crate::schedule::{Candidate, Decision, Reason, RetentionPolicy, evaluate, logs_kept_since};

/// One reason to keep a backup; its text is what users are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeepReason {
    /// A rule of the policy.
    Policy(Reason),
    /// A log of this many days.
    LogDays(u32),
    /// A kept backup that cannot be restored without it; of several the last.
    NeededBy { id: Guid, kind: BackupKind },
}

/// What becomes of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupDecision {
    /// Never without a reason.
    Keep(Vec<KeepReason>),
    Remove,
    /// It is no restore point, whatever the policy says: why it cannot be restored.
    Broken(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupVerdict {
    pub id: Guid,
    pub decision: BackupDecision,
}

impl BackupVerdict {
    /// Whether it stays as something to restore.
    pub fn keeps(&self) -> bool {
        matches!(self.decision, BackupDecision::Keep(_))
    }
}

/// Decides on each backup of one database, in the order of the chain. Days, weeks, months and years are those of
/// `zone`; `policy.log_days` and `policy.daily` are not used, as logs follow `keep_all_days`.
pub fn keep(chain: &Chain, policy: &RetentionPolicy, zone: &TimeZone, now: Timestamp) -> Vec<BackupVerdict> {
    let backups = chain.backups();
    let links = chain.links(|_| true);
    let mut reasons =
        by_policy(backups, &links.iter().map(Option::is_some).collect::<Vec<_>>(), policy, zone, now);
    // Links lead to lower places, so from the top down each need is known before its own needs are looked at.
    let mut needed_by: Vec<Option<usize>> = vec![None; backups.len()];
    for at in (0..backups.len()).rev() {
        let needs = if reasons[at].is_empty() { needed_by[at] } else { Some(at) };
        let (Some(needs), Some(from)) = (needs, links[at].and_then(|link| link.from)) else { continue };
        needed_by[from] = needed_by[from].or(Some(needs));
    }
    for (at, needed_by) in needed_by.iter().enumerate() {
        let by = needed_by.map(|by| KeepReason::NeededBy { id: backups[by].id, kind: backups[by].kind });
        reasons[at].extend(by);
    }
    let verdicts = backups.iter().zip(reasons).zip(links).map(|((backup, reasons), link)| BackupVerdict {
        id: backup.id,
        decision: match (link.is_some(), reasons.is_empty()) {
            (false, _) => BackupDecision::Broken(why_broken(chain, backup.id)),
            (true, true) => BackupDecision::Remove,
            (true, false) => BackupDecision::Keep(reasons),
        },
    });
    verdicts.collect()
}

fn why_broken(chain: &Chain, id: Guid) -> String {
    match chain.plan(&RestoreTarget::Backup(id), &Leave::Recovered) {
        Ok(_) => String::new(),
        Err(refusal) => refusal.reason,
    }
}

fn by_policy(
    backups: &[Backup],
    restorable: &[bool],
    policy: &RetentionPolicy,
    zone: &TimeZone,
    now: Timestamp,
) -> Vec<Vec<KeepReason>> {
    let taken = |backup: &Backup| Timestamp::from_millisecond(backup.finished_ms).unwrap_or(Timestamp::MIN);
    let days = policy.keep_all_days;
    let logs_since = logs_kept_since(&RetentionPolicy { log_days: days, ..*policy }, zone, now);
    let points =
        backups.iter().enumerate().filter(|(at, backup)| restorable[*at] && backup.kind != BackupKind::Log);
    let candidates: Vec<Candidate<usize>> =
        points.map(|(id, backup)| Candidate { id, taken: taken(backup), pins: Vec::new() }).collect();
    let mut reasons: Vec<Vec<KeepReason>> = vec![Vec::new(); backups.len()];
    // Backups have no rule for the last of each day: all of the days that count are kept.
    let rules = RetentionPolicy { daily: 0, ..*policy };
    for verdict in evaluate(&candidates, &rules, zone, now) {
        if let Decision::Keep(found) = verdict.decision {
            reasons[verdict.id].extend(found.into_iter().map(KeepReason::Policy));
        }
    }
    for (at, log) in backups.iter().enumerate().filter(|(_, backup)| backup.kind == BackupKind::Log) {
        if restorable[at] && days > 0 && taken(log) >= logs_since {
            reasons[at].push(KeepReason::LogDays(days));
        }
    }
    reasons
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(Reason::Newest) => f.write_str("newest full or differential backup"),
            Self::Policy(reason) => reason.fmt(f),
            Self::LogDays(1) => f.write_str("log within 1 day"),
            Self::LogDays(days) => write!(f, "log within {days} days"),
            Self::NeededBy { id, kind } => write!(f, "{} backup {id} needs it", kind.word()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::chain::Stripe;
    use super::super::lsn::Lsn;
    use super::*;

    const HOUR: i64 = 3_600_000;
    const DAY: i64 = 24 * HOUR;
    /// 2024-01-01T00:00:00Z, a Monday.
    const START: i64 = 1_704_067_200_000;

    /// A backup that ended at that time; LSNs are hours since the start.
    fn backup(id: u32, kind: BackupKind, ms: i64, from_ms: i64, base: Option<Guid>) -> Backup {
        let lsn = |ms: i64| Lsn::new(1, ((ms - START) / HOUR + 100) as u32, 1);
        Backup {
            id: guid(id),
            kind,
            copy_only: false,
            damaged: false,
            bulk_logged: false,
            first_lsn: lsn(from_ms),
            last_lsn: lsn(ms),
            base_id: base,
            family_id: Guid([3; 16]),
            first_fork: Guid([4; 16]),
            last_fork: Guid([4; 16]),
            fork_point: None,
            started_ms: ms,
            finished_ms: ms,
            reaches_ms: None,
            position: 1,
            stripes: vec![Stripe { family: 1, file: format!("{id}") }],
            stripe_count: 1,
            marks: Vec::new(),
        }
    }

    fn guid(id: u32) -> Guid {
        let mut bytes = [0xaa; 16];
        bytes[..4].copy_from_slice(&id.to_le_bytes());
        Guid(bytes)
    }

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).unwrap()
    }

    fn why(verdicts: &[BackupVerdict], id: Guid) -> Vec<String> {
        match &verdicts.iter().find(|verdict| verdict.id == id).unwrap().decision {
            BackupDecision::Keep(reasons) => reasons.iter().map(KeepReason::to_string).collect(),
            other => vec![format!("{other:?}")],
        }
    }

    #[test]
    fn a_full_stays_for_its_differential_and_a_log_for_its_days_alone() {
        let full = backup(1, BackupKind::Full, START, START, None);
        let log = backup(2, BackupKind::Log, START + DAY, START, None);
        let differential =
            backup(3, BackupKind::Differential, START + 5 * DAY, START + 5 * DAY, Some(full.id));
        let late = backup(4, BackupKind::Log, START + 9 * DAY, START + 5 * DAY, None);
        let ids = [full.id, log.id, differential.id, late.id];
        let chain = Chain::new(vec![full, log, differential, late]);
        let policy = RetentionPolicy { keep_all_days: 3, ..RetentionPolicy::default() };
        let verdicts = keep(&chain, &policy, &TimeZone::UTC, at(START + 10 * DAY));
        assert_eq!(why(&verdicts, ids[0]), [format!("differential backup {} needs it", ids[2])]);
        assert_eq!(why(&verdicts, ids[1]), ["Remove"]);
        let expected =
            ["newest full or differential backup".to_owned(), format!("log backup {} needs it", ids[3])];
        assert_eq!(why(&verdicts, ids[2]), expected);
        assert_eq!(why(&verdicts, ids[3]), ["log within 3 days"]);
    }

    #[test]
    fn what_cannot_be_restored_takes_no_place() {
        let full = backup(1, BackupKind::Full, START, START, None);
        let orphan = backup(2, BackupKind::Differential, START + 6 * DAY, START + 6 * DAY, Some(guid(77)));
        let ids = [full.id, orphan.id];
        let chain = Chain::new(vec![full, orphan]);
        let policy = RetentionPolicy { weekly: 4, ..RetentionPolicy::default() };
        let verdicts = keep(&chain, &policy, &TimeZone::UTC, at(START + 30 * DAY));
        assert_eq!(why(&verdicts, ids[0]).len(), 2);
        assert!(matches!(verdicts[1].decision, BackupDecision::Broken(_)));
        assert!(why(&verdicts, ids[1])[0].contains("is based on"));
    }

    /// The seed's own example: fulls every Wednesday in February 2017, kept ten days, then weekly.
    #[test]
    fn the_example_of_the_specification() {
        let zone = TimeZone::get("America/Los_Angeles").unwrap();
        let time = |text: &str| {
            let time: jiff::civil::DateTime = text.parse().unwrap();
            time.to_zoned(zone.clone()).unwrap().timestamp().as_millisecond()
        };
        let mut first = backup(1, BackupKind::Full, START, START, None);
        let mut second = backup(2, BackupKind::Full, START + 7 * DAY, START + 7 * DAY, None);
        let mut differential = backup(3, BackupKind::Differential, START + DAY, START + DAY, Some(first.id));
        (first.finished_ms, second.finished_ms) = (time("2017-02-01T16:00"), time("2017-02-08T15:00"));
        differential.finished_ms = time("2017-02-03T21:00");
        let ids = [first.id, second.id, differential.id];
        let chain = Chain::new(vec![first, second, differential]);
        let policy = RetentionPolicy { keep_all_days: 10, ..RetentionPolicy::default() };
        let now = at(time("2017-02-13T11:00"));
        let verdicts = keep(&chain, &policy, &zone, now);
        assert_eq!(why(&verdicts, ids[0]), [format!("differential backup {} needs it", ids[2])]);
        let weekly = RetentionPolicy { weekly: 2, ..policy };
        let later = keep(&chain, &weekly, &zone, at(time("2017-03-20T11:00")));
        assert_eq!(why(&later, ids[2]), ["last of week 2017-W05"]);
        assert!(why(&later, ids[0])[0].contains("needs it"));
    }

    /// How a calendar goes.
    #[derive(Clone, Debug)]
    struct Calendar {
        full_every: i64,
        differential_every: i64,
        log_every_hours: i64,
        days: i64,
        lost_percent: u64,
        policy: RetentionPolicy,
        zone: &'static str,
        seed: u64,
    }

    fn calendars() -> impl Strategy<Value = Calendar> {
        let policy =
            (0..20u32, 0..6u32, 0..14u32, 0..4u32).prop_map(|(keep_all_days, weekly, monthly, yearly)| {
                RetentionPolicy { keep_all_days, weekly, monthly, yearly, ..RetentionPolicy::default() }
            });
        let zones =
            prop::sample::select(vec!["UTC", "Europe/Berlin", "America/Los_Angeles", "Pacific/Auckland"]);
        (1..40i64, 1..5i64, 3..30i64, 200..1100i64, 0..12u64, policy, zones, any::<u64>()).prop_map(
            |(full_every, differential_every, log_every_hours, days, lost_percent, policy, zone, seed)| {
                Calendar {
                    full_every,
                    differential_every,
                    log_every_hours,
                    days,
                    lost_percent,
                    policy,
                    zone,
                    seed,
                }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Backups come day by day, some are lost; what is not kept goes. Every kept one can be restored from kept ones.
        #[test]
        fn every_kept_point_can_be_restored(calendar in calendars()) {
            let zone = TimeZone::get(calendar.zone).unwrap();
            let mut state = calendar.seed | 1;
            let mut dice = |bound: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) % bound
            };
            let (mut kept, mut next, mut base, mut log_from) = (Vec::<Backup>::new(), 1, None, START);
            for day in 0..calendar.days {
                let mut new = Vec::new();
                let mut hour = calendar.log_every_hours.min(23);
                if day % calendar.full_every == 0 {
                    base = Some(guid(next));
                    new.push(backup(next, BackupKind::Full, START + day * DAY, START + day * DAY, None));
                } else if day % calendar.differential_every == 0 {
                    new.push(backup(next, BackupKind::Differential, START + day * DAY, START + day * DAY, base));
                }
                next += 1;
                while hour < 24 {
                    let ms = START + day * DAY + hour * HOUR;
                    new.push(backup(next, BackupKind::Log, ms, log_from, None));
                    (log_from, next, hour) = (ms, next + 1, hour + calendar.log_every_hours);
                }
                new.retain(|_| dice(100) >= calendar.lost_percent);
                kept.extend(new);
                if day % 3 != 0 && day + 1 != calendar.days {
                    continue;
                }
                let chain = Chain::new(std::mem::take(&mut kept));
                let verdicts = keep(&chain, &calendar.policy, &zone, at(START + (day + 1) * DAY));
                let keeps = verdicts.iter().filter(|verdict| verdict.keeps());
                let ids: BTreeSet<Guid> = keeps.map(|verdict| verdict.id).collect();
                kept = chain.backups().iter().filter(|backup| ids.contains(&backup.id)).cloned().collect();
                let left = Chain::new(kept.clone());
                let links = left.links(|_| true);
                prop_assert!(links.iter().all(Option::is_some), "day {}: a kept backup cannot be restored", day);
                let again = keep(&left, &calendar.policy, &zone, at(START + (day + 1) * DAY));
                prop_assert!(again.iter().all(BackupVerdict::keeps), "day {}", day);
            }
        }
    }
}
