//! Whether a schedule's run is due: after a downtime once, however many runs were missed.

use jiff::Timestamp;

use super::cron::CronSchedule;

/// What a schedule asks for at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The run to start now: when the first one not yet run should have been. `None`: nothing is due.
    pub since: Option<Timestamp>,
    /// The first run later than now.
    pub next: Option<Timestamp>,
}

/// What is due `now`, when the last run began at `last`; before the first run, when the schedule was made.
///
/// A `last` later than now means that the host's clock was set back: it counts as now, so that nothing runs again
/// and nothing waits for the clock to catch up.
pub fn due(schedule: &CronSchedule, last: Timestamp, now: Timestamp) -> Due {
    let since = schedule.next_after(last.min(now)).filter(|first| *first <= now);
    Due { since, next: schedule.next_after(now) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn missed_runs_are_one() {
        let schedule = CronSchedule::parse("0 2 * * *", "UTC").unwrap();
        let (last, now) = (at("2026-11-01T02:00:04Z"), at("2026-11-21T11:00:00Z"));
        let found = due(&schedule, last, now);
        assert_eq!(found.since, Some(at("2026-11-02T02:00:00Z")));
        assert_eq!(found.next, Some(at("2026-11-22T02:00:00Z")));
        assert_eq!(due(&schedule, now, now), Due { since: None, next: found.next });
    }

    #[test]
    fn a_run_is_due_at_its_instant_and_not_before() {
        let schedule = CronSchedule::parse("0 2 * * *", "UTC").unwrap();
        let last = at("2026-11-20T02:00:00Z");
        assert_eq!(due(&schedule, last, at("2026-11-21T01:59:59.999Z")).since, None);
        let found = due(&schedule, last, at("2026-11-21T02:00:00Z"));
        assert_eq!(found.since, Some(at("2026-11-21T02:00:00Z")));
        assert_eq!(found.next, Some(at("2026-11-22T02:00:00Z")));
    }

    #[test]
    fn a_clock_that_was_set_back_stops_nothing() {
        let schedule = CronSchedule::parse("@hourly", "UTC").unwrap();
        let found = due(&schedule, at("2036-01-01T00:00:00Z"), at("2026-11-21T11:30:00Z"));
        assert_eq!(found, Due { since: None, next: Some(at("2026-11-21T12:00:00Z")) });
    }
}
