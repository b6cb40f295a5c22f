//! A cron expression and the dates and times of day it names, on a calendar without time zones.
//!
//! Five fields, or six with the second first, or a name such as `@daily`. Besides numbers, names, lists, ranges
//! and steps, a day of month may be `L` (the month's last), a day of week `5L` (the last Friday) or `5#2` (the
//! second). When both days are restricted either will do; when one begins with `*` both must agree: as every
//! cron since Vixie's has it. Must not know zones: what a time means as an instant is `cron`'s business.

use jiff::ToSpan;
use jiff::civil::{Date, DateTime, Time};

use super::field::{DAY, Field, HOUR, MINUTE, MONTH, SECOND, WEEKDAY, is_any};

/// The longest wait there is: 29 February on a given weekday, over a century that is no leap year, is 40 years.
const YEARS_SEARCHED: i32 = 50;
const ALL_HOURS: u64 = (1 << 24) - 1;
const NAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// Sets of values as bits: bit 3 of `hours` is 3 o'clock, bit 0 of `weekdays` Sunday.
#[derive(Clone, Debug)]
pub(super) struct Expression {
    text: String,
    seconds: u64,
    minutes: u64,
    hours: u64,
    months: u64,
    days: u64,
    last_day: bool,
    weekdays: u64,
    last_weekdays: u64,
    /// Bit 7 × (n - 1) + weekday is the nth of that weekday.
    nth_weekdays: u64,
    /// Whether a day need match only one of its two fields.
    either_day: bool,
    /// Whether the minute or second is written as `*` or a step of it.
    steps: bool,
}

impl Expression {
    /// The error says which field is wrong and why.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let text = words.join(" ");
        if let [name] = words[..]
            && name.starts_with('@')
        {
            let (_, meaning) =
                NAMES.iter().find(|(known, _)| *known == name.to_ascii_lowercase()).ok_or_else(|| {
                    let known: Vec<&str> = NAMES.iter().map(|(known, _)| *known).collect();
                    format!("{name} is none of {}", known.join(", "))
                })?;
            return Ok(Self { text, ..Self::parse(meaning)? });
        }
        let (second, rest) = match words[..] {
            [second, _, _, _, _, _] => (second, &words[1..]),
            [_, _, _, _, _] => ("0", &words[..]),
            _ => {
                return Err(format!(
                    "it has {} fields, and must have five: minute, hour, day of month, month, day of week \
                     (or six, with the second first)",
                    words.len()
                ));
            }
        };
        let [minute, hour, day, month, weekday] = rest else { return Err("it must have five fields".into()) };
        let expression = Self::of_fields(text, [second, minute, hour, day, month, weekday])?;
        let from = Date::constant(2000, 1, 1).at(0, 0, 0, 0);
        if expression.first_from(from).is_none() {
            return Err(format!("month: there is no day {day} in month {month}"));
        }
        Ok(expression)
    }

    fn of_fields(text: String, words: [&str; 6]) -> Result<Self, String> {
        let [second, minute, hour, day, month, weekday] = words;
        let (mut last_day, mut last_weekdays, mut nth_weekdays) = (false, 0, 0);
        let days = in_field(&DAY, day, |item| {
            let taken = item.eq_ignore_ascii_case("L");
            last_day |= taken;
            Ok(taken)
        })?;
        let weekdays = in_field(&WEEKDAY, weekday, |item| {
            if let Some((name, nth)) = item.split_once('#') {
                nth_weekdays |= nth_weekday(name, nth)?;
                return Ok(true);
            }
            let Some(name) = item.strip_suffix(['L', 'l']).filter(|name| !name.is_empty()) else {
                return Ok(false);
            };
            last_weekdays |= 1 << (WEEKDAY.value(name)? % 7);
            Ok(true)
        })?;
        let open = |text: &str| text.starts_with('*') || is_any(text);
        Ok(Self {
            seconds: in_field(&SECOND, second, nothing_special)?,
            minutes: in_field(&MINUTE, minute, nothing_special)?,
            hours: in_field(&HOUR, hour, nothing_special)?,
            months: in_field(&MONTH, month, nothing_special)?,
            either_day: !open(day) && !open(weekday),
            steps: open(minute) || open(second),
            text,
            days,
            last_day,
            weekdays,
            last_weekdays,
            nth_weekdays,
        })
    }

    /// As it was given, with single spaces.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether it runs in each hour of its days.
    pub(super) fn every_hour(&self) -> bool {
        self.hours == ALL_HOURS
    }

    /// Whether it goes through its hours in steps, as `*/15` does, rather than at given minutes.
    pub(super) fn steps(&self) -> bool {
        self.steps
    }

    /// The first time it names at `from` or later. `None` at the end of the calendar.
    pub(super) fn first_from(&self, from: DateTime) -> Option<DateTime> {
        let from = whole_second_from(from)?;
        let end = from.date().saturating_add(YEARS_SEARCHED.years());
        let mut date = from.date();
        while date <= end {
            if !has(self.months, date.month()) {
                date = date.last_of_month().tomorrow().ok()?;
                continue;
            }
            if self.has_day(date) {
                let earliest = if date == from.date() { from.time() } else { Time::midnight() };
                if let Some(time) = self.time_from(earliest) {
                    return Some(date.to_datetime(time));
                }
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    /// The first time it names that is later than `after`.
    pub(super) fn first_after(&self, after: DateTime) -> Option<DateTime> {
        let whole = after.date().to_datetime(whole_second(after.time()));
        self.first_from(whole.checked_add(1.second()).ok()?)
    }

    fn has_day(&self, date: Date) -> bool {
        let last = date.days_in_month();
        let by_day = has(self.days, date.day()) || (self.last_day && date.day() == last);
        let weekday = date.weekday().to_sunday_zero_offset();
        let nth = (date.day() - 1) / 7;
        let by_weekday = has(self.weekdays, weekday)
            || (has(self.last_weekdays, weekday) && date.day() + 7 > last)
            || has(self.nth_weekdays, 7 * nth + weekday);
        if self.either_day { by_day || by_weekday } else { by_day && by_weekday }
    }

    /// The first time of day at `from` or later.
    fn time_from(&self, from: Time) -> Option<Time> {
        let (hour, minute, second) = (from.hour(), from.minute(), from.second());
        if has(self.hours, hour) {
            if has(self.minutes, minute)
                && let Some(second) = first_at(self.seconds, second)
            {
                return Time::new(hour, minute, second, 0).ok();
            }
            if let Some(minute) = first_at(self.minutes, minute + 1) {
                return Time::new(hour, minute, first_at(self.seconds, 0)?, 0).ok();
            }
        }
        let hour = first_at(self.hours, hour + 1)?;
        Time::new(hour, first_at(self.minutes, 0)?, first_at(self.seconds, 0)?, 0).ok()
    }
}

fn in_field(
    field: &Field,
    text: &str,
    special: impl FnMut(&str) -> Result<bool, String>,
) -> Result<u64, String> {
    field.values(text, special).map_err(|problem| format!("{}: {problem}", field.name))
}

fn nothing_special(_: &str) -> Result<bool, String> {
    Ok(false)
}

fn nth_weekday(name: &str, nth: &str) -> Result<u64, String> {
    let weekday = WEEKDAY.value(name)? % 7;
    match nth.parse::<u8>() {
        Ok(nth) if (1..=5).contains(&nth) => Ok(1 << (7 * (nth - 1) + weekday)),
        _ => Err(format!("{name}#{nth}: a month has the 1st to 5th of a weekday")),
    }
}

fn has(bits: u64, value: i8) -> bool {
    first_at(bits, value) == Some(value)
}

/// The smallest value of the set at `value` or above.
fn first_at(bits: u64, value: i8) -> Option<i8> {
    let shift = u32::try_from(value).ok().filter(|shift| *shift < u64::BITS)?;
    let rest = bits >> shift << shift;
    (rest != 0).then(|| i8::try_from(rest.trailing_zeros()).ok()).flatten()
}

fn whole_second(time: Time) -> Time {
    Time::constant(time.hour(), time.minute(), time.second(), 0)
}

fn whole_second_from(from: DateTime) -> Option<DateTime> {
    let whole = from.date().to_datetime(whole_second(from.time()));
    if whole == from { Some(whole) } else { whole.checked_add(1.second()).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(text: &str, from: &str, count: usize) -> Vec<String> {
        let expression = Expression::parse(text).unwrap();
        let mut at: DateTime = from.parse().unwrap();
        (0..count)
            .map(|_| {
                at = expression.first_after(at).unwrap();
                at.strftime("%Y-%m-%d %H:%M:%S").to_string()
            })
            .collect()
    }

    #[test]
    fn times_and_days_are_found() {
        assert_eq!(
            runs("30 2 * * *", "2026-11-21T02:29:59.5", 2),
            ["2026-11-21 02:30:00", "2026-11-22 02:30:00"]
        );
        assert_eq!(
            runs("*/30 * * * * *", "2026-12-31T23:59:10", 2),
            ["2026-12-31 23:59:30", "2027-01-01 00:00:00"]
        );
        assert_eq!(
            runs("0 4 L * *", "2026-11-21T00:00", 3),
            ["2026-11-30 04:00:00", "2026-12-31 04:00:00", "2027-01-31 04:00:00"]
        );
        assert_eq!(
            runs("0 4 * * monL", "2024-11-01T00:00", 3),
            ["2024-11-25 04:00:00", "2024-12-30 04:00:00", "2025-01-27 04:00:00"]
        );
        assert_eq!(
            runs("0 4 * * 0#1,fri#5", "2026-11-01T05:00", 3),
            ["2026-12-06 04:00:00", "2027-01-03 04:00:00", "2027-01-29 04:00:00"]
        );
        assert_eq!(runs("0 0 29 2 *", "2096-03-01T00:00", 2), ["2104-02-29 00:00:00", "2108-02-29 00:00:00"]);
        assert_eq!(runs("@weekly", "2026-11-21T00:00", 1), ["2026-11-22 00:00:00"]);
    }

    #[test]
    fn restricted_days_are_either_and_open_ones_both() {
        assert_eq!(
            runs("0 12 13 * 5", "2026-11-01T00:00", 3),
            ["2026-11-06 12:00:00", "2026-11-13 12:00:00", "2026-11-20 12:00:00"]
        );
        assert_eq!(
            runs("0 12 */2 * 0,6", "2024-09-24T13:06", 3),
            ["2024-09-29 12:00:00", "2024-10-05 12:00:00", "2024-10-13 12:00:00"]
        );
    }

    #[test]
    fn last_and_nth_days_are_those_of_a_count() {
        let dates: Vec<Date> = Date::constant(2019, 12, 1).series(1.day()).take(366 * 12).collect();
        let (mut number_in_month, mut counted) = ([0; 7], Vec::new());
        for date in &dates {
            if date.day() == 1 {
                number_in_month = [0; 7];
            }
            let weekday = date.weekday().to_sunday_zero_offset();
            number_in_month[usize::try_from(weekday).unwrap()] += 1;
            counted.push((weekday, number_in_month[usize::try_from(weekday).unwrap()]));
        }
        for (at, date) in dates.iter().enumerate().take(dates.len() - 7) {
            let (weekday, number) = counted[at];
            let has = |text: &str| Expression::parse(text).unwrap().has_day(*date);
            for other in 1..=5 {
                assert_eq!(has(&format!("0 0 * * {weekday}#{other}")), other == number, "{date}");
            }
            let is_last = dates[at + 7].month() != date.month();
            assert_eq!(has(&format!("0 0 * * {weekday}L")), is_last, "{date}");
            assert_eq!(has("0 0 L * *"), dates[at + 1].month() != date.month(), "{date}");
        }
    }

    #[test]
    fn errors_name_the_field() {
        for (text, expected) in [
            ("61 * * * *", "minute: 61 is not in 0 to 59"),
            ("* 24 * * *", "hour: 24 is not in 0 to 23"),
            ("* * 32 * *", "day of month: 32 is not in 1 to 31"),
            ("* * * foo *", "month: \"foo\" is neither a number nor a name like \"jan\""),
            ("* * * * mon#6", "day of week: mon#6: a month has the 1st to 5th of a weekday"),
            ("x * * * * *", "second: \"x\" is not a number"),
            ("0 0 30 2 *", "month: there is no day 30 in month 2"),
        ] {
            assert_eq!(Expression::parse(text).unwrap_err(), expected);
        }
        assert!(Expression::parse("* * *").unwrap_err().starts_with("it has 3 fields"));
        assert!(Expression::parse("").unwrap_err().starts_with("it has 0 fields"));
        assert!(Expression::parse("@reboot").unwrap_err().starts_with("@reboot is none of @yearly"));
    }
}
