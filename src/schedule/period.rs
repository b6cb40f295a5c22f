//! Calendar periods in a time zone: which one a date falls in, and what it is called.

use jiff::ToSpan;
use jiff::civil::{Date, Weekday};

/// What retention keeps the last snapshot of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Period {
    Day,
    /// Seven days from this weekday on.
    Week(Weekday),
    Month,
    Year,
}

impl Period {
    /// The first date of the period that holds `date`.
    pub(super) fn start(self, date: Date) -> Date {
        match self {
            Self::Day => date,
            Self::Week(first) => date.saturating_sub(i32::from(date.weekday().since(first)).days()),
            Self::Month => date.first_of_month(),
            Self::Year => date.first_of_year(),
        }
    }

    /// The period that begins at `start`: `day 2026-11-21`, `week 2026-W46` (a week from another day than Monday has
    /// no such number: `week from 2026-11-15`), `month 2026-11`, `year 2026`.
    pub(super) fn name(self, start: Date) -> String {
        match self {
            Self::Day => format!("day {start}"),
            Self::Week(Weekday::Monday) => {
                let week = start.iso_week_date();
                format!("week {}-W{:02}", week.year(), week.week())
            }
            Self::Week(_) => format!("week from {start}"),
            Self::Month => format!("month {}", start.strftime("%Y-%m")),
            Self::Year => format!("year {}", start.year()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_begin_and_are_named() {
        let named = |period: Period, date: &str| period.name(period.start(date.parse().unwrap()));
        assert_eq!(named(Period::Day, "2026-11-21"), "day 2026-11-21");
        assert_eq!(named(Period::Week(Weekday::Monday), "2026-11-15"), "week 2026-W46");
        assert_eq!(named(Period::Week(Weekday::Monday), "2027-01-03"), "week 2026-W53");
        assert_eq!(named(Period::Week(Weekday::Sunday), "2026-11-21"), "week from 2026-11-15");
        assert_eq!(named(Period::Week(Weekday::Saturday), "2026-11-21"), "week from 2026-11-21");
        assert_eq!(named(Period::Month, "2026-11-21"), "month 2026-11");
        assert_eq!(named(Period::Year, "2026-11-21"), "year 2026");
    }
}
