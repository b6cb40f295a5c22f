//! Dates as Microsoft Tape Format packs them.
//!
//! Source: MTF_DATE_TIME of MTF 1.00a: 40 bits, greatest first: year 14, month 4, day 5, hour 5, minute 6, second 6. The
//! time zone of a set is in quarter hours, 127 when unknown. Measured: in the real files these are the times of the backups to
//! the second; the zone is 0 in those of December and 4 in those of May, so it is counted east of UTC and has summer
//! time in it. Must not know the host's zone.

use jiff::civil::DateTime;
use jiff::tz::Offset;
use serde::{Deserialize, Serialize};

/// A time of the server's own clock and zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LocalTime(pub DateTime);

impl LocalTime {
    /// `None` when all bits are zero, or when there is no such time.
    pub(super) fn decode(bytes: [u8; 5]) -> Option<Self> {
        let packed = bytes.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        let part = |shift: u32, bits: u32| i16::try_from(packed >> shift & ((1 << bits) - 1)).ok();
        let small = |shift: u32, bits: u32| i8::try_from(packed >> shift & ((1 << bits) - 1)).ok();
        let time = DateTime::new(
            part(26, 14)?,
            small(22, 4)?,
            small(17, 5)?,
            small(12, 5)?,
            small(6, 6)?,
            small(0, 6)?,
            0,
        );
        (packed != 0).then_some(())?;
        time.ok().map(Self)
    }

    /// Milliseconds since 1970 in UTC, for a zone in quarter hours east of UTC; `None` when that is unknown.
    pub fn utc_ms(self, zone_quarters: Option<i8>) -> Option<i64> {
        let offset = Offset::from_seconds(i32::from(zone_quarters?) * 15 * 60).ok()?;
        offset.to_timestamp(self.0).ok().map(|time| time.as_millisecond())
    }
}

/// The zone of a set: nothing for 127 and for what no clock on earth shows.
pub(super) fn zone_quarters(byte: u8) -> Option<i8> {
    let quarters = i8::from_le_bytes([byte]);
    (-56..=56).contains(&quarters).then_some(quarters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measured_date() {
        let time = LocalTime::decode([0x1f, 0x8b, 0x2a, 0xb6, 0x9f]).unwrap();
        assert_eq!(time.0.to_string(), "2018-12-21T11:26:31");
        assert_eq!(time.utc_ms(Some(0)), Some(1_545_391_591_000));
        assert_eq!(time.utc_ms(Some(-20)), Some(1_545_391_591_000 + 5 * 3_600_000));
        assert_eq!(time.utc_ms(None), None);
    }

    #[test]
    fn no_date_and_no_such_date() {
        assert_eq!(LocalTime::decode([0; 5]), None);
        assert_eq!(LocalTime::decode([0xff; 5]), None);
        assert_eq!((zone_quarters(127), zone_quarters(0xec)), (None, Some(-20)));
    }
}
