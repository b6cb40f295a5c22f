//! Identities and values: log sequence numbers, GUIDs, dates, and what one kind of value is as another.

use serde::{Deserialize, Serialize};

use super::catalogue::{Outcome, fail};
use crate::reply::Value;

/// A log sequence number as `numeric(25,0)` shows it: VLF times 10^15, block times 10^5, slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lsn(pub u64);

const VLF: u64 = 1_000_000_000_000_000;
const BLOCK: u64 = 100_000;
/// Blocks of 512 bytes that a virtual log file of the model has.
const VLF_BLOCKS: u64 = 16_384;

impl Lsn {
    /// The first record of a new log.
    pub(crate) const FIRST: Self = Self(34 * VLF + 64 * BLOCK + 37);

    /// The record that is `blocks` log blocks further.
    pub(crate) fn after(self, blocks: u64) -> Self {
        let (vlf, block) = (self.0 / VLF, self.0 % VLF / BLOCK + blocks);
        if block < VLF_BLOCKS {
            return Self(vlf * VLF + block * BLOCK + 1);
        }
        Self((vlf + 1) * VLF + 16 * BLOCK + 1)
    }

    /// The VLF's sequence number, the block in it, the slot.
    pub(crate) fn parts(self) -> (u32, u32, u16) {
        let vlf = u32::try_from(self.0 / VLF).unwrap_or(u32::MAX);
        let block = u32::try_from(self.0 % VLF / BLOCK).unwrap_or(u32::MAX);
        (vlf, block, u16::try_from(self.0 % BLOCK).unwrap_or(u16::MAX))
    }

    /// As error texts have it: `34:64:37`.
    pub(crate) fn in_parts(self) -> String {
        let (vlf, block, slot) = self.parts();
        format!("{vlf}:{block}:{slot}")
    }

    /// As a `numeric(25,0)`.
    pub(crate) fn value(self) -> Value {
        Value::Numeric { digits: i128::from(self.0), precision: 25, scale: 0 }
    }
}

impl std::fmt::Display for Lsn {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(out)
    }
}

/// A GUID in the order in which it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// A GUID of version 4 in form that depends on `seed` and `count` only.
    pub(crate) fn derived(seed: u64, count: u64) -> Self {
        let high = mix(seed ^ mix(count.wrapping_add(0x9e37_79b9_7f4a_7c15)));
        let low = mix(high ^ count);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&high.to_be_bytes());
        bytes[8..].copy_from_slice(&low.to_be_bytes());
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }

    /// Reads `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`, in braces or not.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim().trim_start_matches('{').trim_end_matches('}');
        let digits: Vec<u32> =
            text.chars().filter(|c| *c != '-').map(|c| c.to_digit(16)).collect::<Option<_>>()?;
        if digits.len() != 32 || text.len() != 36 {
            return None;
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            *byte = u8::try_from(pair[0] * 16 + pair[1]).ok()?;
        }
        Some(Self(bytes))
    }

    /// As a `uniqueidentifier`.
    pub(crate) fn value(self) -> Value {
        Value::Guid(self.0)
    }
}

impl std::fmt::Display for Guid {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if [4, 6, 8, 10].contains(&index) {
                out.write_str("-")?;
            }
            write!(out, "{byte:02X}")?;
        }
        Ok(())
    }
}

fn mix(mut word: u64) -> u64 {
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

/// Milliseconds from 1900-01-01 to 1970-01-01.
const EPOCH_MILLIS: i64 = 25_567 * 86_400_000;

/// A moment on the wall of a place `offset_minutes` east of UTC, as a `datetime`.
pub(crate) fn local(unix_nanos: i64, offset_minutes: i32) -> Value {
    Value::DateTime(local_millis(unix_nanos, offset_minutes))
}

/// The same in milliseconds since 1900, in steps of a third of a hundredth as `datetime` has them.
pub(crate) fn local_millis(unix_nanos: i64, offset_minutes: i32) -> i64 {
    let millis = unix_nanos.div_euclid(1_000_000) + EPOCH_MILLIS + i64::from(offset_minutes) * 60_000;
    let last = match millis.rem_euclid(10) {
        0 | 1 => 0,
        2..=4 => 3,
        5..=8 => 7,
        _ => 10,
    };
    millis - millis.rem_euclid(10) + last
}

/// Back from what a clock on the wall shows.
pub(crate) fn unix_nanos_of(local_millis: i64, offset_minutes: i32) -> i64 {
    (local_millis - EPOCH_MILLIS - i64::from(offset_minutes) * 60_000).saturating_mul(1_000_000)
}

/// Year, month and day of a day since 1970-01-01.
pub(crate) fn civil_of(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * month_index + 2) / 5 + 1)
}

fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// `2026-11-21 17:55:00.000`, `separator` between date and time.
pub(crate) fn date_text(millis: i64, separator: char) -> String {
    let unix = millis - EPOCH_MILLIS;
    let (year, month, day) = civil_of(unix.div_euclid(86_400_000));
    let rest = unix.rem_euclid(86_400_000);
    let (hour, minute, second) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1_000 % 60);
    format!("{year:04}-{month:02}-{day:02}{separator}{hour:02}:{minute:02}:{second:02}.{:03}", rest % 1_000)
}

/// Reads a date as ISO 8601 or ODBC write it, in milliseconds since 1900.
pub(crate) fn parse_date(text: &str) -> Option<i64> {
    let text = text.trim();
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00:00"));
    let mut parts = date.split('-');
    let (year, month, day) = if date.len() == 8 && date.bytes().all(|b| b.is_ascii_digit()) {
        (&date[..4], &date[4..6], &date[6..])
    } else {
        (parts.next()?, parts.next()?, parts.next()?)
    };
    let (year, month, day): (i64, i64, i64) = (year.parse().ok()?, month.parse().ok()?, day.parse().ok()?);
    if parts.next().is_some() || !(1753..=9999).contains(&year) || !(1..=12).contains(&month) {
        return None;
    }
    let days = days_of(year, month, day);
    if day < 1 || civil_of(days) != (year, month, day) {
        return None;
    }
    Some(days * 86_400_000 + EPOCH_MILLIS + parse_time(time)?)
}

/// Reads `hh:mm[:ss[.fff…]]` in milliseconds.
pub(crate) fn parse_time(text: &str) -> Option<i64> {
    let (clock, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), "0"));
    let parts: Vec<i64> = clock.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let (hour, minute, second) = match parts[..] {
        [hour, minute] => (hour, minute, 0),
        [hour, minute, second] => (hour, minute, second),
        _ => return None,
    };
    let in_range = (0..24).contains(&hour) && (0..60).contains(&minute) && (0..60).contains(&second);
    if !in_range || fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let millis: i64 = format!("{fraction:0<3}")[..3].parse().ok()?;
    Some(hour * 3_600_000 + minute * 60_000 + second * 1_000 + millis)
}

/// What a value is as a text, `None` for NULL.
pub(crate) fn text_of(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::Bit(bit) => u8::from(*bit).to_string(),
        Value::TinyInt(number) => number.to_string(),
        Value::SmallInt(number) => number.to_string(),
        Value::Int(number) => number.to_string(),
        Value::BigInt(number) => number.to_string(),
        Value::Numeric { digits, scale, .. } => decimal_text(*digits, *scale),
        Value::NVarChar(text) => text.clone(),
        Value::VarBinary(bytes) => bytes.iter().map(|byte| char::from(*byte)).collect(),
        Value::Guid(bytes) => Guid(*bytes).to_string(),
        Value::DateTime(millis) => date_text(*millis, ' '),
        Value::Real(number) => number.to_string(),
    })
}

fn decimal_text(digits: i128, scale: u8) -> String {
    let sign = if digits < 0 { "-" } else { "" };
    let width = usize::from(scale) + 1;
    let text = format!("{:0>width$}", digits.unsigned_abs());
    let (whole, fraction) = text.split_at(text.len() - usize::from(scale));
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

/// The whole number in a value of a numeric kind.
pub(crate) fn whole(value: &Value) -> Option<i128> {
    Some(match value {
        Value::Bit(bit) => i128::from(*bit),
        Value::TinyInt(number) => i128::from(*number),
        Value::SmallInt(number) => i128::from(*number),
        Value::Int(number) => i128::from(*number),
        Value::BigInt(number) => i128::from(*number),
        Value::Numeric { digits, scale, .. } => digits / 10_i128.checked_pow(u32::from(*scale))?,
        _ => return None,
    })
}

/// The whole number that a text holds, or error 245.
pub(crate) fn whole_of_text(text: &str) -> Outcome<i128> {
    text.trim().parse().map_err(|_| fail(245, &[&"nvarchar", &text, &"int"]))
}
