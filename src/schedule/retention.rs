//! What retention keeps of a timeflow's snapshots, and why.
//!
//! A snapshot is kept when any rule keeps it: it is younger than `keep_all_days`; it is the last of one of the
//! newest days, weeks, months or years that have snapshots; something is pinned to it; it is the newest. Periods are
//! counted by those that have snapshots, so nothing goes away only because a dataset was off for a while.
//! Invariants: the newest is always kept; more retention never keeps less; what was kept is kept again. In doubt
//! keep: a snapshot from the future stays and does not count. Must not know what a pin stands for beyond its name.

use std::collections::BTreeMap;
use std::fmt;

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde::{Deserialize, Serialize};

use super::period::Period;
use crate::base::{Error, Result};

/// How long snapshots and logs are kept. Counts of 0 switch a rule off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionPolicy {
    /// Every snapshot of this many days.
    #[serde(default)]
    pub keep_all_days: u32,
    /// The last snapshot of each of this many days.
    #[serde(default)]
    pub daily: u32,
    #[serde(default)]
    pub weekly: u32,
    #[serde(default)]
    pub monthly: u32,
    #[serde(default)]
    pub yearly: u32,
    #[serde(default)]
    pub first_weekday: FirstWeekday,
    /// Logs for point-in-time of this many days.
    #[serde(default)]
    pub log_days: u32,
}

/// The weekday that weeks begin with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirstWeekday {
    #[default]
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

/// A snapshot as retention sees it. `I` identifies it, and orders snapshots of one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate<I> {
    pub id: I,
    pub taken: Timestamp,
    pub pins: Vec<Pin>,
}

/// What keeps a snapshot whatever the policy says. Each has the name of what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    Bookmark(String),
    Hold(String),
    /// A VDB that was provisioned from it.
    LiveVdb(String),
    /// Kept logs that only this snapshot can be rolled forward with.
    PointInTimeBase(String),
}

/// One reason to keep a snapshot; its text is what users are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    Newest,
    Pinned(Pin),
    /// It was taken after now: the host's clock was set back.
    Future,
    WithinDays(u32),
    /// The name of the period, as in `week 2026-W46`.
    LastOf(String),
}

/// What becomes of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Never without a reason.
    Keep(Vec<Reason>),
    Remove,
}

/// The decision on one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict<I> {
    pub id: I,
    pub decision: Decision,
}

impl RetentionPolicy {
    /// `Invalid` when no rule is on: that would leave a dataset with its newest snapshot alone.
    pub fn check(&self) -> Result<()> {
        if [self.keep_all_days, self.daily, self.weekly, self.monthly, self.yearly]
            .iter()
            .all(|count| *count == 0)
        {
            return Err(Error::invalid(
                "the retention policy keeps no snapshot but the newest: give keep_all_days, daily, weekly, monthly \
                 or yearly",
            ));
        }
        Ok(())
    }

    fn periods(&self) -> [(Period, u32); 4] {
        [
            (Period::Day, self.daily),
            (Period::Week(self.first_weekday.into()), self.weekly),
            (Period::Month, self.monthly),
            (Period::Year, self.yearly),
        ]
    }
}

/// Decides on each snapshot of one timeflow, in the order given. Days are those of `zone`, its nights included in
/// which clocks change.
pub fn evaluate<I: Ord + Clone>(
    snapshots: &[Candidate<I>],
    policy: &RetentionPolicy,
    zone: &TimeZone,
    now: Timestamp,
) -> Vec<Verdict<I>> {
    let mut reasons: Vec<Vec<Reason>> = vec![Vec::new(); snapshots.len()];
    let mut past: Vec<usize> = (0..snapshots.len()).filter(|&at| snapshots[at].taken <= now).collect();
    past.sort_by_key(|&at| snapshots[at].order());
    if let Some(&newest) = past.last() {
        reasons[newest].push(Reason::Newest);
    }
    let young = days_before(policy.keep_all_days, zone, now);
    for (reasons, snapshot) in reasons.iter_mut().zip(snapshots) {
        reasons.extend(snapshot.pins.iter().cloned().map(Reason::Pinned));
        if snapshot.taken > now {
            reasons.push(Reason::Future);
        } else if policy.keep_all_days > 0 && snapshot.taken >= young {
            reasons.push(Reason::WithinDays(policy.keep_all_days));
        }
    }
    let dates: Vec<Date> = past.iter().map(|&at| zone.to_datetime(snapshots[at].taken).date()).collect();
    for (period, count) in policy.periods() {
        // Oldest first, so the last of a period stays. A map, because a clock set back over midnight shows a day
        // again after the next one has begun.
        let starts = dates.iter().map(|date| period.start(*date));
        let lasts: BTreeMap<Date, usize> = starts.zip(past.iter().copied()).collect();
        for (start, at) in lasts.into_iter().rev().take(usize::try_from(count).unwrap_or(usize::MAX)) {
            reasons[at].push(Reason::LastOf(period.name(start)));
        }
    }
    let decide = |reasons: Vec<Reason>| {
        if reasons.is_empty() { Decision::Remove } else { Decision::Keep(reasons) }
    };
    let verdict = |(snapshot, reasons): (&Candidate<I>, _)| Verdict {
        id: snapshot.id.clone(),
        decision: decide(reasons),
    };
    snapshots.iter().zip(reasons).map(verdict).collect()
}

/// Logs that end earlier than this may go.
pub fn logs_kept_since(policy: &RetentionPolicy, zone: &TimeZone, now: Timestamp) -> Timestamp {
    days_before(policy.log_days, zone, now)
}

/// The snapshot that kept logs are rolled forward from: the last one taken at `since` or earlier, or the oldest
/// one when all are later. Without it the earliest of the logs would be of no use.
pub fn point_in_time_base<I: Ord>(snapshots: &[Candidate<I>], since: Timestamp) -> Option<&I> {
    let before = snapshots.iter().filter(|snapshot| snapshot.taken <= since).map(Candidate::order).max();
    before.or_else(|| snapshots.iter().map(Candidate::order).min()).map(|(_, id)| id)
}

impl<I> Candidate<I> {
    fn order(&self) -> (Timestamp, &I) {
        (self.taken, &self.id)
    }
}

/// The same time of day so many days ago; the beginning of time when there is no such day.
fn days_before(days: u32, zone: &TimeZone, now: Timestamp) -> Timestamp {
    let span = Span::new().try_days(i64::from(days));
    let then = span.and_then(|span| now.to_zoned(zone.clone()).checked_sub(span));
    then.map_or(Timestamp::MIN, |then| then.timestamp())
}

impl From<FirstWeekday> for Weekday {
    fn from(day: FirstWeekday) -> Self {
        match day {
            FirstWeekday::Monday => Self::Monday,
            FirstWeekday::Tuesday => Self::Tuesday,
            FirstWeekday::Wednesday => Self::Wednesday,
            FirstWeekday::Thursday => Self::Thursday,
            FirstWeekday::Friday => Self::Friday,
            FirstWeekday::Saturday => Self::Saturday,
            FirstWeekday::Sunday => Self::Sunday,
        }
    }
}

impl<I> Verdict<I> {
    /// Whether the snapshot stays.
    pub fn keeps(&self) -> bool {
        matches!(self.decision, Decision::Keep(_))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bookmark(name) => write!(f, "bookmark {name}"),
            Self::Hold(name) => write!(f, "hold {name}"),
            Self::LiveVdb(name) => write!(f, "VDB {name} lives on it"),
            Self::PointInTimeBase(name) => write!(f, "point-in-time base for logs {name}"),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newest => f.write_str("newest snapshot"),
            Self::Pinned(pin) => pin.fmt(f),
            Self::Future => f.write_str("taken later than now: the host's clock was set back"),
            Self::WithinDays(1) => f.write_str("within 1 day"),
            Self::WithinDays(days) => write!(f, "within {days} days"),
            Self::LastOf(period) => write!(f, "last of {period}"),
        }
    }
}
