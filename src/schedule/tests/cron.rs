//! Runs of schedules around changes of clocks.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::{Date, DateTime};
use jiff::{Timestamp, ToSpan, Unit};
use proptest::prelude::*;

use super::super::{CronSchedule, Due, due};
use super::{ZONES, at, shown, zone};

fn runs(expression: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let schedule = CronSchedule::parse(expression, zone).unwrap();
    let mut last = at(after);
    (0..count)
        .map(|_| {
            last = schedule.next_after(last).unwrap();
            last.to_zoned(schedule.zone().clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
        })
        .collect()
}

#[test]
fn a_skipped_time_runs_once_right_after_the_gap() {
    assert_eq!(
        runs("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2),
        ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]
    );
    // Four skipped, one run; and a run of its own at the end of the gap is the same one.
    assert_eq!(
        runs("*/15 2,3 * * *", "America/New_York", "2026-03-08T06:59:59Z", 3),
        ["2026-03-08T03:00:00-04:00", "2026-03-08T03:15:00-04:00", "2026-03-08T03:30:00-04:00"]
    );
    assert_eq!(
        runs("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", 2),
        ["2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"]
    );
    // 30 December 2011 never was.
    assert_eq!(
        runs("0 18 * * *", "Pacific/Apia", "2011-12-29T12:00:00-10:00", 3),
        ["2011-12-29T18:00:00-10:00", "2011-12-31T00:00:00+14:00", "2011-12-31T18:00:00+14:00"]
    );
}

#[test]
fn a_repeated_time_runs_once() {
    assert_eq!(
        runs("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
        ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]
    );
    assert_eq!(
        runs("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00:00Z", 2),
        ["2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30"]
    );
    // Asked between the two: the second is not a run.
    assert_eq!(runs("30 2 * * *", "Europe/Berlin", "2026-10-25T01:00:00Z", 1), ["2026-10-26T02:30:00+01:00"]);
}

#[test]
fn intervals_keep_to_real_time() {
    assert_eq!(
        runs("*/30 * * * *", "Europe/Berlin", "2026-10-24T23:59:00Z", 5),
        [
            "2026-10-25T02:00:00+02:00",
            "2026-10-25T02:30:00+02:00",
            "2026-10-25T02:00:00+01:00",
            "2026-10-25T02:30:00+01:00",
            "2026-10-25T03:00:00+01:00"
        ]
    );
    assert_eq!(
        runs("7,37 * * * *", "America/New_York", "2026-03-08T06:30:00Z", 3),
        ["2026-03-08T01:37:00-05:00", "2026-03-08T03:07:00-04:00", "2026-03-08T03:37:00-04:00"]
    );
    assert_eq!(
        runs("@hourly", "Pacific/Apia", "2011-12-29T22:30:00-10:00", 3),
        ["2011-12-29T23:00:00-10:00", "2011-12-31T00:00:00+14:00", "2011-12-31T01:00:00+14:00"]
    );
}

#[test]
fn steps_through_named_hours_leave_no_hour_out() {
    assert_eq!(
        runs("*/30 1-2 * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", 4),
        [
            "2026-10-25T02:30:00+02:00",
            "2026-10-25T02:00:00+01:00",
            "2026-10-25T02:30:00+01:00",
            "2026-10-26T01:00:00+01:00"
        ]
    );
    assert_eq!(
        runs("*/30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2),
        ["2026-03-29T03:00:00+02:00", "2026-03-30T02:00:00+02:00"]
    );
}

#[test]
fn schedules_are_stored_as_text_and_zone() {
    let schedule = CronSchedule::parse(" 30  2 * * MON-FRI", "Europe/Berlin").unwrap();
    let stored = serde_json::to_string(&schedule).unwrap();
    assert_eq!(stored, r#"{"expression":"30 2 * * MON-FRI","time_zone":"Europe/Berlin"}"#);
    assert_eq!(serde_json::from_str::<CronSchedule>(&stored).unwrap(), schedule);
    assert_eq!(schedule.to_string(), "30 2 * * MON-FRI Europe/Berlin");
    let wrong = r#"{"expression":"30 25 * * *","time_zone":"UTC"}"#;
    let error = serde_json::from_str::<CronSchedule>(wrong).unwrap_err().to_string();
    assert!(error.contains("schedule \"30 25 * * *\": hour: 25 is not in 0 to 23"), "{error}");
    let error = CronSchedule::parse("@daily", "Europe/Berlino").unwrap_err();
    assert!(error.message().contains("time zone \"Europe/Berlino\" is not known"), "{error}");
}

/// A field as generated: text for the parser, and values for the model.
#[derive(Clone, Debug)]
struct Field {
    text: String,
    values: BTreeSet<i8>,
}

fn field(min: i8, max: i8) -> impl Strategy<Value = Field> {
    let all = move || (min..=max).collect::<BTreeSet<i8>>();
    prop_oneof![
        3 => Just(Field { text: "*".into(), values: all() }),
        2 => (2..=(max - min) / 2).prop_map(move |step| Field {
            text: format!("*/{step}"),
            values: (min..=max).filter(|value| (value - min) % step == 0).collect(),
        }),
        3 => prop::collection::btree_set(min..=max, 1..4).prop_map(|values| Field {
            text: values.iter().map(i8::to_string).collect::<Vec<_>>().join(","),
            values,
        }),
        1 => (min..=max, min..=max).prop_map(|(a, b)| Field {
            text: format!("{}-{}", a.min(b), a.max(b)),
            values: (a.min(b)..=a.max(b)).collect(),
        }),
    ]
}

#[derive(Clone, Debug)]
struct Fields {
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
}

fn fields() -> impl Strategy<Value = Fields> {
    let month =
        prop_oneof![4 => Just(Field { text: "*".into(), values: (1..=12).collect() }), 1 => field(1, 12)];
    (field(0, 59), field(0, 23), field(1, 28), month, field(0, 6)).prop_map(
        |(minute, hour, day, month, weekday)| Fields { minute, hour, day: whole(day), month, weekday },
    )
}

/// `*` and its steps reach to the 31st.
fn whole(mut day: Field) -> Field {
    if let Some(step) = day.text.strip_prefix('*') {
        let step: i8 = step.strip_prefix('/').map_or(1, |step| step.parse().unwrap());
        day.values = (1..=31).filter(|value| (value - 1) % step == 0).collect();
    }
    day
}

impl Fields {
    fn text(&self) -> String {
        [&self.minute, &self.hour, &self.day, &self.month, &self.weekday]
            .map(|field| field.text.clone())
            .join(" ")
    }

    fn names(&self, local: DateTime) -> bool {
        // Days since a Sunday, without the library's calendar of weekdays.
        let days = Date::constant(2006, 1, 1).until(local.date()).unwrap().get_days();
        let weekday = i8::try_from(days.rem_euclid(7)).unwrap();
        let (by_day, by_weekday) =
            (self.day.values.contains(&local.day()), self.weekday.values.contains(&weekday));
        let open = self.day.text.starts_with('*') || self.weekday.text.starts_with('*');
        self.minute.values.contains(&local.minute())
            && self.hour.values.contains(&local.hour())
            && self.month.values.contains(&local.month())
            && if open { by_day && by_weekday } else { by_day || by_weekday }
    }

    /// Every run between two instants, by going through them minute by minute.
    fn runs(&self, zone_name: &str, from: Timestamp, to: Timestamp) -> Vec<Timestamp> {
        let zone = zone(zone_name);
        let mut walked = Vec::new();
        let mut at = from;
        while at <= to {
            walked.push((at, shown(&zone, at)));
            at += 1.minute();
        }
        let named = walked.iter().filter(|(_, local)| self.names(*local)).map(|(at, _)| *at);
        if self.hour.values.len() == 24 {
            return named.collect();
        }
        let mut runs = BTreeSet::new();
        if self.minute.text.starts_with('*') {
            runs.extend(named);
        }
        let mut first_shown = BTreeMap::new();
        for (at, local) in &walked {
            first_shown.entry(*local).or_insert(*at);
        }
        let mut local = walked[0].1;
        let last = walked.iter().map(|(_, local)| *local).max().unwrap();
        while local <= last {
            if self.names(local) {
                // The first instant that shows it or, where none does, a later time.
                runs.insert(*first_shown.range(local..).next().unwrap().1);
            }
            local = local.checked_add(1.minute()).unwrap();
        }
        runs.into_iter().collect()
    }
}

/// Four days, mostly around a change of clocks.
fn stretch() -> impl Strategy<Value = (&'static str, Timestamp)> {
    (prop::sample::select(&ZONES[..]), 2007..2031_i16, 0..365_i32, prop::bool::weighted(0.8), 0..2880_i32)
        .prop_map(|(name, year, day, near, before)| {
            let start = Date::constant(year, 1, 1).at(0, 0, 0, 0).in_tz("UTC").unwrap().timestamp();
            let some = start + (24 * day).hours();
            let change = zone(name).following(some).next().filter(|_| near).map(|change| change.timestamp());
            // On a whole minute, which the last change of the database is not.
            let near = change.unwrap_or(some).round(Unit::Minute).unwrap();
            (name, near - (1440 + before).minutes())
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn runs_are_those_of_the_model((name, from) in stretch(), fields in fields()) {
        let to = from + 96.hours();
        // A day of lead, so that the model has seen the first of a repeated hour.
        let expected = fields.runs(name, from - 24.hours(), to);
        let Ok(schedule) = CronSchedule::parse(&fields.text(), name) else {
            prop_assert!(expected.is_empty());
            return Ok(());
        };
        let mut found = Vec::new();
        let mut last = from - 1.second();
        while let Some(next) = schedule.next_after(last).filter(|next| *next <= to) {
            prop_assert!(next > last);
            found.push(next);
            last = next;
        }
        let expected: Vec<Timestamp> = expected.into_iter().filter(|at| *at >= from).collect();
        prop_assert_eq!(found, expected, "{} {}", fields.text(), name);
    }

    #[test]
    fn downtime_is_one_run((name, from) in stretch(), fields in fields(), worked in 0..2880_i32, down in 1..2880_i32) {
        let Ok(schedule) = CronSchedule::parse(&fields.text(), name) else { return Ok(()) };
        let last = from + worked.minutes();
        let now = last + down.minutes();
        let missed = fields.runs(name, from - 24.hours(), now).into_iter().find(|at| *at > last);
        let Due { since, next } = due(&schedule, last, now);
        prop_assert_eq!(since, missed);
        prop_assert!(next.is_none_or(|next| next > now));
        prop_assert_eq!(due(&schedule, now, now).since, None);
    }

    #[test]
    fn any_text_is_a_schedule_or_an_error_at_any_time(
        text in prop_oneof![".{0,30}", "@[a-z]{0,9}", "([0-9*?/,#a-zL-]{1,6} ){4,5}[0-9*/,#L-]{1,4}"],
        seconds in -60_000_000_000..250_000_000_000_i64,
    ) {
        let Ok(schedule) = CronSchedule::parse(&text, "America/New_York") else { return Ok(()) };
        let some = Timestamp::from_second(seconds).unwrap();
        for after in [Timestamp::MIN, some, Timestamp::MAX] {
            prop_assert!(schedule.next_after(after).is_none_or(|next| next > after));
        }
    }
}
