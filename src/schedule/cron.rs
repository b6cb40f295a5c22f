//! A schedule: a cron expression in a time zone.
//!
//! Clocks that change: a schedule that names its hours follows the wall clock. A time that is skipped runs at
//! the first instant after the gap, once however many were skipped; a time that comes twice runs the first time.
//! A schedule that runs in every hour follows real time instead: it runs at every instant whose local time it
//! names, so its intervals are neither doubled nor left out. One that steps through named hours (`*/15 0-6`) runs in
//! a repeated hour both times, and once for a skipped one. No library does all of it: `docs/decisions.md`.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use serde::{Deserialize, Serialize};

use super::expression::Expression;
use crate::base::{Error, Result};

/// A cron expression of five or six fields, or `@hourly` and its like, in an IANA time zone.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(into = "Stored", try_from = "Stored")]
pub struct CronSchedule {
    expression: Expression,
    zone: TimeZone,
    zone_name: String,
}

/// How a schedule is written down.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    expression: String,
    time_zone: String,
}

impl CronSchedule {
    /// `Invalid` says which field is wrong, or that the zone is not known.
    pub fn parse(expression: &str, zone: &str) -> Result<Self> {
        let parsed = Expression::parse(expression)
            .map_err(|problem| Error::invalid(format!("schedule {expression:?}: {problem}")))?;
        let (zone, zone_name) = zone_named(zone)?;
        Ok(Self { expression: parsed, zone, zone_name })
    }

    /// The expression as it was given.
    pub fn expression(&self) -> &str {
        self.expression.text()
    }

    /// The zone its times are in.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The zone's IANA name.
    pub fn zone_name(&self) -> &str {
        &self.zone_name
    }

    /// The first run strictly later than `after`. `None` only at the end of the calendar.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        match (self.expression.every_hour(), self.expression.steps()) {
            (true, _) => self.next_in_real_time(after),
            (false, false) => self.next_by_wall_clock(after),
            // The wall clock adds the end of a gap to the times that are shown.
            (false, true) => {
                let next = [self.next_in_real_time(after), self.next_by_wall_clock(after)];
                next.into_iter().flatten().min()
            }
        }
    }

    /// Goes through the times the expression names, in the order of the wall clock. Their instants never fall
    /// back, so the first that is later is the next. Ends: only times of one repeated stretch can lie before
    /// `after`.
    fn next_by_wall_clock(&self, after: Timestamp) -> Option<Timestamp> {
        let mut local = self.zone.to_datetime(after);
        loop {
            local = self.expression.first_after(local)?;
            let at = self.instant(local)?;
            if at > after {
                return Some(at);
            }
        }
    }

    /// Goes through the stretches of one offset each. Ends: each stretch begins where the last one ended.
    fn next_in_real_time(&self, after: Timestamp) -> Option<Timestamp> {
        let mut from = after;
        loop {
            let offset = self.zone.to_offset(from);
            let end = self.zone.following(from).next().map(|transition| transition.timestamp());
            let local = offset.to_datetime(from);
            let local = if from == after {
                self.expression.first_after(local)?
            } else {
                self.expression.first_from(local)?
            };
            let at = offset.to_timestamp(local).ok()?;
            match end {
                Some(end) if at >= end => from = end,
                _ => return Some(at),
            }
        }
    }

    /// When the wall clock first shows `local`, or first passes it.
    fn instant(&self, local: DateTime) -> Option<Timestamp> {
        match self.zone.to_ambiguous_timestamp(local).offset() {
            AmbiguousOffset::Unambiguous { offset } | AmbiguousOffset::Fold { before: offset, .. } => {
                offset.to_timestamp(local).ok()
            }
            AmbiguousOffset::Gap { before, after } => {
                // Read with the later offset the skipped time lies before the gap, with the earlier one behind it.
                let (early, late) = (after.to_timestamp(local).ok()?, before.to_timestamp(local).ok()?);
                let transitions = self.zone.following(early).map(|transition| transition.timestamp());
                let gap =
                    transitions.take_while(|at| *at <= late).find(|at| self.zone.to_offset(*at) == after);
                Some(gap.unwrap_or(late))
            }
        }
    }
}

/// The zone of an IANA name, and the name as the database spells it.
fn zone_named(name: &str) -> Result<(TimeZone, String)> {
    let unknown = |source: Option<jiff::Error>| {
        let message = format!(
            "time zone {name:?} is not known to this host: names are like Europe/Berlin or UTC, and come with the \
             package tzdata"
        );
        match source {
            Some(source) => Error::with_source(crate::base::ErrorKind::Invalid, message, source),
            None => Error::invalid(message),
        }
    };
    let zone = TimeZone::get(name).map_err(|source| unknown(Some(source)))?;
    let spelled = zone.iana_name().ok_or_else(|| unknown(None))?.to_owned();
    Ok((zone, spelled))
}

impl fmt::Display for CronSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.expression(), self.zone_name)
    }
}

impl PartialEq for CronSchedule {
    fn eq(&self, other: &Self) -> bool {
        self.expression() == other.expression() && self.zone_name == other.zone_name
    }
}

impl Eq for CronSchedule {}

impl From<CronSchedule> for Stored {
    fn from(schedule: CronSchedule) -> Self {
        Self { expression: schedule.expression().to_owned(), time_zone: schedule.zone_name }
    }
}

impl TryFrom<Stored> for CronSchedule {
    type Error = Error;

    fn try_from(stored: Stored) -> Result<Self> {
        Self::parse(&stored.expression, &stored.time_zone)
    }
}
