//! One field of a cron expression: text to the set of its values.
//!
//! Knows ranges, steps, lists and names; knows nothing of calendars.

/// What a field is called and may hold.
pub(super) struct Field {
    pub name: &'static str,
    min: u8,
    max: u8,
    /// The last value that `*` and an open step reach: 6 for weekdays, where 7 is Sunday again.
    last: u8,
    /// Three-letter names of the values from `min` on.
    names: &'static [&'static str],
}

pub(super) const SECOND: Field = Field { name: "second", min: 0, max: 59, last: 59, names: &[] };
pub(super) const MINUTE: Field = Field { name: "minute", min: 0, max: 59, last: 59, names: &[] };
pub(super) const HOUR: Field = Field { name: "hour", min: 0, max: 23, last: 23, names: &[] };
pub(super) const DAY: Field = Field { name: "day of month", min: 1, max: 31, last: 31, names: &[] };
pub(super) const MONTH: Field = Field {
    name: "month",
    min: 1,
    max: 12,
    last: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
pub(super) const WEEKDAY: Field = Field {
    name: "day of week",
    min: 0,
    max: 7,
    last: 6,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

const SUNDAY: u8 = 0;
const SUNDAY_AGAIN: u8 = 7;

impl Field {
    /// The values of a list as bits. `special` is shown each item first and says whether it has taken it.
    pub(super) fn values(
        &self,
        text: &str,
        mut special: impl FnMut(&str) -> Result<bool, String>,
    ) -> Result<u64, String> {
        let mut bits = 0;
        for item in text.split(',') {
            if item.is_empty() {
                return Err("an item of the list is empty".into());
            }
            if !special(item)? {
                bits |= self.item(item)?;
            }
        }
        Ok(bits)
    }

    /// One number or name.
    pub(super) fn value(&self, text: &str) -> Result<u8, String> {
        let lower = text.to_ascii_lowercase();
        if let Some(at) = self.names.iter().position(|name| *name == lower) {
            return Ok(self.min + u8::try_from(at).unwrap_or(0));
        }
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse::<u8>() {
            Ok(value) if digits && (self.min..=self.max).contains(&value) => Ok(value),
            _ if digits => Err(format!("{text} is not in {} to {}", self.min, self.max)),
            _ if self.names.is_empty() => Err(format!("{text:?} is not a number")),
            _ => Err(format!("{text:?} is neither a number nor a name like {:?}", self.names[0])),
        }
    }

    /// `*`, `a`, `a-b`, and each with `/step`.
    fn item(&self, item: &str) -> Result<u64, String> {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(self.step(step)?)),
            None => (item, None),
        };
        let (first, last) = if is_any(range) {
            (self.min, self.last)
        } else if let Some((first, last)) = range.split_once('-') {
            self.range(first, last)?
        } else {
            let value = self.value(range)?;
            (value, if step.is_some() { self.last.max(value) } else { value })
        };
        let values = (first..=last).step_by(usize::from(step.unwrap_or(1)));
        Ok(values.fold(0, |bits, value| bits | self.bit(value)))
    }

    fn range(&self, first: &str, last: &str) -> Result<(u8, u8), String> {
        let (from, mut to) = (self.value(first)?, self.value(last)?);
        if self.max == SUNDAY_AGAIN && to == SUNDAY && from > to {
            to = SUNDAY_AGAIN;
        }
        if from > to {
            return Err(format!(
                "the range {first}-{last} runs backwards: write it as two, separated by a comma"
            ));
        }
        Ok((from, to))
    }

    fn step(&self, text: &str) -> Result<u8, String> {
        match text.parse() {
            Ok(step) if (1..=self.last).contains(&step) => Ok(step),
            _ => Err(format!("the step {text:?} is not in 1 to {}", self.last)),
        }
    }

    fn bit(&self, value: u8) -> u64 {
        let value = if self.max == SUNDAY_AGAIN && value == SUNDAY_AGAIN { SUNDAY } else { value };
        1 << value
    }
}

/// Whether the text stands for every value.
pub(super) fn is_any(text: &str) -> bool {
    text == "*" || text == "?"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(field: &Field, text: &str) -> Result<Vec<u8>, String> {
        let bits = field.values(text, |_| Ok(false))?;
        Ok((0..64).filter(|value| bits & (1 << value) != 0).collect())
    }

    #[test]
    fn lists_ranges_steps_and_names() {
        assert_eq!(values(&MINUTE, "5").unwrap(), [5]);
        assert_eq!(values(&MINUTE, "*/20,7").unwrap(), [0, 7, 20, 40]);
        assert_eq!(values(&HOUR, "20/2").unwrap(), [20, 22]);
        assert_eq!(values(&HOUR, "9-17/4").unwrap(), [9, 13, 17]);
        assert_eq!(values(&MONTH, "JAN,oct-Dec").unwrap(), [1, 10, 11, 12]);
        assert_eq!(values(&WEEKDAY, "sat-sun").unwrap(), [0, 6]);
        assert_eq!(values(&WEEKDAY, "5-7").unwrap(), [0, 5, 6]);
        assert_eq!(values(&WEEKDAY, "*/7").unwrap_err(), "the step \"7\" is not in 1 to 6");
        assert_eq!(values(&WEEKDAY, "?").unwrap(), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(values(&WEEKDAY, "7/2").unwrap(), [0]);
        assert_eq!(values(&DAY, "*/10").unwrap(), [1, 11, 21, 31]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (field, text, expected) in [
            (&MINUTE, "60", "60 is not in 0 to 59"),
            (&MINUTE, "999", "999 is not in 0 to 59"),
            (&MINUTE, "-5", "\"\" is not a number"),
            (&MINUTE, "+5", "\"+5\" is not a number"),
            (&HOUR, "1,,2", "an item of the list is empty"),
            (&HOUR, "", "an item of the list is empty"),
            (&HOUR, "*/0", "the step \"0\" is not in 1 to 23"),
            (&HOUR, "22-2", "the range 22-2 runs backwards: write it as two, separated by a comma"),
            (&DAY, "0", "0 is not in 1 to 31"),
            (&MONTH, "janu", "\"janu\" is neither a number nor a name like \"jan\""),
            (&WEEKDAY, "8", "8 is not in 0 to 7"),
        ] {
            assert_eq!(values(field, text).unwrap_err(), expected);
        }
    }
}
