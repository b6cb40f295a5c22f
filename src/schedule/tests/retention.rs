//! Retention over generated calendars of several years.

use std::collections::BTreeSet;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use proptest::prelude::*;

use super::super::{
    Candidate, Decision, FirstWeekday, Pin, Reason, RetentionPolicy, evaluate, logs_kept_since,
    point_in_time_base,
};
use super::{ZONES, at, shown, zone};

const NONE: RetentionPolicy = RetentionPolicy {
    keep_all_days: 0,
    daily: 0,
    weekly: 0,
    monthly: 0,
    yearly: 0,
    first_weekday: FirstWeekday::Monday,
    log_days: 0,
};

fn candidate(id: u32, taken: Timestamp) -> Candidate<u32> {
    Candidate { id, taken, pins: Vec::new() }
}

/// A snapshot a night, at 02:00 UTC.
fn nightly(first: &str, nights: u32) -> Vec<Candidate<u32>> {
    (0..nights).map(|night| candidate(night, at(first) + (24 * i64::from(night)).hours())).collect()
}

fn texts(snapshots: &[Candidate<u32>], policy: &RetentionPolicy, zone: &TimeZone, now: &str) -> Vec<String> {
    evaluate(snapshots, policy, zone, at(now))
        .into_iter()
        .filter_map(|verdict| match verdict.decision {
            Decision::Keep(reasons) => {
                let reasons: Vec<String> = reasons.iter().map(Reason::to_string).collect();
                Some(format!("{}: {}", verdict.id, reasons.join("; ")))
            }
            Decision::Remove => None,
        })
        .collect()
}

#[test]
fn each_kept_snapshot_says_why() {
    let mut snapshots = nightly("2026-10-01T02:00:00Z", 52);
    snapshots[3].pins = vec![Pin::Bookmark("before-release".into()), Pin::LiveVdb("shop-qa".into())];
    snapshots[5].pins = vec![Pin::Hold("audit".into())];
    snapshots[6].pins = vec![Pin::PointInTimeBase("since 2026-10-07T02:00:00Z".into())];
    let policy = RetentionPolicy { keep_all_days: 2, daily: 3, weekly: 2, monthly: 2, yearly: 1, ..NONE };
    assert_eq!(
        texts(&snapshots, &policy, &TimeZone::UTC, "2026-11-21T12:00:00Z"),
        [
            "3: bookmark before-release; VDB shop-qa lives on it",
            "5: hold audit",
            "6: point-in-time base for logs since 2026-10-07T02:00:00Z",
            "30: last of month 2026-10",
            "45: last of week 2026-W46",
            "49: last of day 2026-11-19",
            "50: within 2 days; last of day 2026-11-20",
            "51: newest snapshot; within 2 days; last of day 2026-11-21; last of week 2026-W47; last of month \
             2026-11; last of year 2026",
        ]
    );
}

#[test]
fn days_are_those_of_the_zone() {
    // 02:00 UTC is the evening before in New York: 1 November begins at 04:00 UTC.
    let snapshots = nightly("2026-10-30T02:00:00Z", 4);
    let policy = RetentionPolicy { monthly: 2, ..NONE };
    let kept = texts(&snapshots, &policy, &zone("America/New_York"), "2026-11-02T12:00:00Z");
    assert_eq!(kept, ["2: last of month 2026-10", "3: newest snapshot; last of month 2026-11"]);
}

#[test]
fn a_dataset_that_was_off_keeps_its_last_days() {
    let snapshots = nightly("2026-01-01T02:00:00Z", 10);
    let policy = RetentionPolicy { daily: 3, ..NONE };
    let kept = texts(&snapshots, &policy, &TimeZone::UTC, "2026-11-21T12:00:00Z");
    assert_eq!(kept.len(), 3);
}

#[test]
fn a_snapshot_from_the_future_stays_and_does_not_count() {
    let mut snapshots = nightly("2026-11-01T02:00:00Z", 3);
    snapshots.push(candidate(9, at("2036-01-01T00:00:00Z")));
    let policy = RetentionPolicy { daily: 1, ..NONE };
    assert_eq!(
        texts(&snapshots, &policy, &TimeZone::UTC, "2026-11-21T12:00:00Z"),
        [
            "2: newest snapshot; last of day 2026-11-03",
            "9: taken later than now: the host's clock was set back"
        ]
    );
}

#[test]
fn logs_need_the_snapshot_before_them() {
    let policy = RetentionPolicy { log_days: 7, ..NONE };
    let now = at("2026-03-31T12:00:00Z");
    // Clocks changed in between: the same time of day, an hour less.
    let since = logs_kept_since(&policy, &zone("Europe/Berlin"), now);
    assert_eq!(since, at("2026-03-24T13:00:00Z"));
    let snapshots = nightly("2026-03-20T02:00:00Z", 10);
    assert_eq!(point_in_time_base(&snapshots, since), Some(&4));
    assert_eq!(point_in_time_base(&snapshots[6..], since), Some(&6));
    assert_eq!(point_in_time_base::<u32>(&[], since), None);
    assert_eq!(
        logs_kept_since(&RetentionPolicy { log_days: u32::MAX, ..NONE }, &TimeZone::UTC, now),
        Timestamp::MIN
    );
}

#[test]
fn a_policy_that_keeps_nothing_is_refused() {
    assert!(RetentionPolicy { log_days: 7, ..NONE }.check().is_err());
    assert!(RetentionPolicy { yearly: 1, ..NONE }.check().is_ok());
    let stored = r#"{"daily":7,"weekly":4,"first_weekday":"sunday"}"#;
    let policy: RetentionPolicy = serde_json::from_str(stored).unwrap();
    assert_eq!(policy, RetentionPolicy { daily: 7, weekly: 4, first_weekday: FirstWeekday::Sunday, ..NONE });
    assert!(serde_json::from_str::<RetentionPolicy>(r#"{"dayly":7}"#).is_err());
}

/// Days since 1 January 1970 of what the wall clock shows, by seconds and the offset alone.
fn day_number(zone: &TimeZone, at: Timestamp) -> i64 {
    (at.as_second() + i64::from(zone.to_offset(at).seconds())).div_euclid(86_400)
}

/// Year and month of a day number, by counting years and months.
fn year_and_month(mut day: i64) -> (i64, i64) {
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut year = 1970;
    while day >= 365 + i64::from(leap(year)) {
        day -= 365 + i64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + i64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    (year, i64::try_from(month).unwrap())
}

/// A number that is the same for two instants of one period and higher in a later one. 1 January 1970 was a Thursday.
fn period_number(kind: usize, first_weekday: i64, day: i64) -> i64 {
    let (year, month) = year_and_month(day);
    match kind {
        0 => day,
        1 => (day + 3 - first_weekday).div_euclid(7),
        2 => 12 * year + month,
        _ => year,
    }
}

/// The first instant at which the wall clock showed, or passed, the time it shows now on an earlier day.
fn model_days_before(days: u32, zone: &TimeZone, now: Timestamp) -> Timestamp {
    let local = shown(zone, now).checked_sub(i64::from(days).days()).unwrap();
    let utc = jiff::tz::Offset::UTC.to_timestamp(local).unwrap();
    let (before, after) = (zone.to_offset(utc - 26.hours()), zone.to_offset(utc + 26.hours()));
    let readings = [before, after].map(|offset| offset.to_timestamp(local).unwrap());
    let valid = readings.into_iter().filter(|at| shown(zone, *at) == local).min();
    valid.unwrap_or(readings[0])
}

fn model(
    snapshots: &[Candidate<u32>],
    policy: &RetentionPolicy,
    zone: &TimeZone,
    now: Timestamp,
) -> BTreeSet<u32> {
    let first_weekday = policy.first_weekday as i64;
    let counts = [policy.daily, policy.weekly, policy.monthly, policy.yearly];
    let past: Vec<&Candidate<u32>> = snapshots.iter().filter(|snapshot| snapshot.taken <= now).collect();
    let later = |a: &Candidate<u32>, b: &Candidate<u32>| (a.taken, a.id) > (b.taken, b.id);
    let keeps = |one: &Candidate<u32>| {
        if one.taken > now || !one.pins.is_empty() || !past.iter().any(|other| later(other, one)) {
            return true;
        }
        if policy.keep_all_days > 0 && one.taken >= model_days_before(policy.keep_all_days, zone, now) {
            return true;
        }
        (0..4).any(|kind| {
            let number = |snapshot: &Candidate<u32>| {
                period_number(kind, first_weekday, day_number(zone, snapshot.taken))
            };
            let own = number(one);
            let is_last = !past.iter().any(|other| number(other) == own && later(other, one));
            let newer: BTreeSet<i64> =
                past.iter().map(|other| number(other)).filter(|it| *it > own).collect();
            is_last && newer.len() < usize::try_from(counts[kind]).unwrap()
        })
    };
    snapshots.iter().filter(|snapshot| keeps(snapshot)).map(|snapshot| snapshot.id).collect()
}

fn kept(
    snapshots: &[Candidate<u32>],
    policy: &RetentionPolicy,
    zone: &TimeZone,
    now: Timestamp,
) -> BTreeSet<u32> {
    evaluate(snapshots, policy, zone, now)
        .into_iter()
        .filter(|verdict| verdict.keeps())
        .map(|v| v.id)
        .collect()
}

fn policies() -> impl Strategy<Value = RetentionPolicy> {
    let first =
        prop::sample::select(&[FirstWeekday::Monday, FirstWeekday::Sunday, FirstWeekday::Saturday][..]);
    (0..40_u32, 0..20_u32, 0..10_u32, 0..15_u32, 0..4_u32, first).prop_map(
        |(keep_all_days, daily, weekly, monthly, yearly, first_weekday)| RetentionPolicy {
            keep_all_days,
            daily,
            weekly,
            monthly,
            yearly,
            first_weekday,
            log_days: 0,
        },
    )
}

/// Some years of snapshots at uneven intervals of minutes to weeks, most of them a few hours, not in order; now is
/// about the time of the last one.
fn calendars() -> impl Strategy<Value = (Vec<Candidate<u32>>, Timestamp)> {
    let gap = prop_oneof![6 => 1..1500_i64, 2 => Just(1440_i64), 2 => 1500..20_000_i64, 1 => Just(0_i64)];
    let start = 1_100_000_000..1_700_000_000_i64;
    let snapshots = prop::collection::vec((gap, prop::bool::weighted(0.05)), 1..250);
    (start, snapshots, -4000..40_000_i64, any::<u64>()).prop_map(|(start, gaps, minutes, seed)| {
        let mut taken = Timestamp::from_second(start).unwrap();
        let mut snapshots: Vec<Candidate<u32>> = Vec::new();
        for (id, (gap, pinned)) in (0..).zip(gaps) {
            taken += gap.minutes();
            let pins = if pinned { vec![Pin::Hold("audit".into())] } else { Vec::new() };
            snapshots.push(Candidate { id, taken, pins });
        }
        let turns = usize::try_from(seed % 1000).unwrap() % snapshots.len();
        snapshots.rotate_left(turns);
        (snapshots, taken + minutes.minutes())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_kept_is_what_the_model_keeps(
        (snapshots, now) in calendars(), policy in policies(), name in prop::sample::select(&ZONES[..]),
    ) {
        let zone = zone(name);
        prop_assert_eq!(kept(&snapshots, &policy, &zone, now), model(&snapshots, &policy, &zone, now));
    }

    #[test]
    fn more_retention_never_keeps_less(
        (snapshots, now) in calendars(), policy in policies(), more in policies(),
        name in prop::sample::select(&ZONES[..]),
    ) {
        let zone = zone(name);
        let larger = RetentionPolicy {
            keep_all_days: policy.keep_all_days + more.keep_all_days,
            daily: policy.daily + more.daily,
            weekly: policy.weekly + more.weekly,
            monthly: policy.monthly + more.monthly,
            yearly: policy.yearly + more.yearly,
            ..policy
        };
        prop_assert!(kept(&snapshots, &policy, &zone, now).is_subset(&kept(&snapshots, &larger, &zone, now)));
    }

    #[test]
    fn what_was_kept_is_kept_again_and_the_newest_always(
        (mut snapshots, now) in calendars(), policy in policies(), name in prop::sample::select(&ZONES[..]),
    ) {
        let zone = zone(name);
        let newest = snapshots.iter().filter(|s| s.taken <= now).max_by_key(|s| (s.taken, s.id)).map(|s| s.id);
        let first = kept(&snapshots, &policy, &zone, now);
        prop_assert!(newest.is_none_or(|newest| first.contains(&newest)));
        snapshots.retain(|snapshot| first.contains(&snapshot.id));
        prop_assert_eq!(kept(&snapshots, &policy, &zone, now), first);
    }

    #[test]
    fn more_than_a_century_of_any_policy_is_no_panic(days in any::<u32>(), counts in any::<[u32; 4]>()) {
        let [daily, weekly, monthly, yearly] = counts;
        let policy = RetentionPolicy { keep_all_days: days, daily, weekly, monthly, yearly, ..NONE };
        let snapshots = [candidate(1, Timestamp::MIN), candidate(2, Timestamp::MAX)];
        for instant in [Timestamp::MIN, at("2026-11-21T00:00:00Z"), Timestamp::MAX] {
            prop_assert_eq!(evaluate(&snapshots, &policy, &zone("Europe/Berlin"), instant).len(), 2);
        }
    }
}
