//! Places in the WAL and the names of its files: LSN, timeline, segment size, segment names.
//!
//! A name does not depend on the segment size, an LSN of its start does; so a name is kept as its three numbers
//! and converted with the size of the cluster at hand. Knows names and numbers, no files.
//!
//! Formats: PostgreSQL's `src/include/access/xlog_internal.h` (`XLogFileName`, `IsXLogFileName` and their like)
//! and `src/backend/utils/adt/pg_lsn.c`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::base::{Error, Result};

/// A byte position in the WAL of a cluster. Written as two hexadecimal numbers, `16/B374D848`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Lsn(pub u64);

impl Lsn {
    /// PostgreSQL's "no place": nothing is ever written here.
    pub const INVALID: Self = Self(0);

    pub fn is_valid(self) -> bool {
        self != Self::INVALID
    }

    /// The place `bytes` further on; `None` past the end of all WAL.
    pub fn checked_add(self, bytes: u64) -> Option<Self> {
        self.0.checked_add(bytes).map(Self)
    }

    /// The bytes from `earlier` to here; `None` when it is the later one.
    pub fn bytes_since(self, earlier: Self) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let halves = text.split_once('/').and_then(|(high, low)| Some((half(high)?, half(low)?)));
        let (high, low) = halves.ok_or_else(|| {
            Error::invalid(format!("{text:?} is no LSN: give two hexadecimal numbers, as in 16/B374D848"))
        })?;
        Ok(Self(u64::from(high) << 32 | u64::from(low)))
    }
}

/// One to eight hexadecimal digits, and no sign, which `from_str_radix` would take.
fn half(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.len() <= 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

impl TryFrom<String> for Lsn {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> Self {
        lsn.to_string()
    }
}

/// One line of a cluster's history, from 1 on; a promotion or a recovery to a point starts the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Timeline(u32);

impl Timeline {
    pub const FIRST: Self = Self(1);

    /// `None` for 0, which PostgreSQL never uses.
    pub fn new(number: u32) -> Option<Self> {
        (number != 0).then_some(Self(number))
    }

    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<u32> for Timeline {
    type Error = Error;

    fn try_from(number: u32) -> Result<Self> {
        Self::new(number).ok_or_else(|| Error::invalid("there is no timeline 0"))
    }
}

impl From<Timeline> for u32 {
    fn from(timeline: Timeline) -> Self {
        timeline.0
    }
}

/// Bytes of a WAL file: a power of two from 1 MiB to 1 GiB, chosen when a cluster is made (from 11 on).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct SegmentSize(u32);

impl SegmentSize {
    pub const MIN: Self = Self(1 << 20);
    /// What `initdb` chooses when nothing is asked.
    pub const DEFAULT: Self = Self(16 << 20);
    pub const MAX: Self = Self(1 << 30);

    pub fn new(bytes: u64) -> Option<Self> {
        let size = u32::try_from(bytes).ok().filter(|bytes| bytes.is_power_of_two()).map(Self)?;
        (Self::MIN..=Self::MAX).contains(&size).then_some(size)
    }

    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }

    /// How many segments share the first 32 bits of their LSNs.
    fn segments_per_log(self) -> u64 {
        (1 << 32) / self.bytes()
    }
}

impl fmt::Display for SegmentSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0 >> 20)
    }
}

impl TryFrom<u64> for SegmentSize {
    type Error = Error;

    fn try_from(bytes: u64) -> Result<Self> {
        Self::new(bytes).ok_or_else(|| {
            Error::invalid(format!(
                "{bytes} bytes is no size of WAL segments: it is a power of two from 1 MiB to 1 GiB"
            ))
        })
    }
}

impl From<SegmentSize> for u64 {
    fn from(size: SegmentSize) -> Self {
        size.bytes()
    }
}

/// The name of a WAL segment, `TTTTTTTTLLLLLLLLSSSSSSSS`. Names of one timeline sort as their LSNs do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SegmentName {
    pub timeline: Timeline,
    /// The first 32 bits of the LSNs in it.
    pub log: u32,
    /// Its number among the segments that share them.
    pub number: u32,
}

impl SegmentName {
    /// The segment that holds the byte at `lsn`.
    pub fn holding(timeline: Timeline, lsn: Lsn, size: SegmentSize) -> Self {
        let number = (lsn.0 & 0xFFFF_FFFF) / size.bytes();
        // Both halves of a u64 fit.
        Self { timeline, log: (lsn.0 >> 32) as u32, number: number as u32 }
    }

    /// Where it starts; `None` when no segment of this size has this name.
    pub fn start(self, size: SegmentSize) -> Option<Lsn> {
        let number = u64::from(self.number);
        (number < size.segments_per_log()).then(|| Lsn(u64::from(self.log) << 32 | (number * size.bytes())))
    }

    /// Where it ends; `None` at the end of all WAL, or for no name of this size.
    pub fn end(self, size: SegmentSize) -> Option<Lsn> {
        self.start(size)?.checked_add(size.bytes())
    }

    /// The segment after it on its timeline; `None` at the end of all WAL, or for no name of this size.
    pub fn next(self, size: SegmentSize) -> Option<Self> {
        Some(Self::holding(self.timeline, self.end(size)?, size))
    }

    /// Whether it lies further on in the WAL, whatever the timelines.
    pub fn is_beyond(self, other: Self) -> bool {
        (self.log, self.number) > (other.log, other.number)
    }

    /// The same place on another timeline.
    #[must_use]
    pub fn on(self, timeline: Timeline) -> Self {
        Self { timeline, ..self }
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline.0, self.log, self.number)
    }
}

impl FromStr for SegmentName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.parse()? {
            WalFileName::Segment(name) => Ok(name),
            _ => Err(Error::invalid(format!("{text:?} is no name of a WAL segment"))),
        }
    }
}

impl TryFrom<String> for SegmentName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<SegmentName> for String {
    fn from(name: SegmentName) -> Self {
        name.to_string()
    }
}

/// What an archive of WAL holds, by the names of its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WalFileName {
    Segment(SegmentName),
    /// The last, incomplete segment of a timeline that a promotion ended, or of a running `pg_receivewal`.
    Partial(SegmentName),
    /// Where a base backup started: the segment, and the offset in it.
    Backup(SegmentName, u32),
    /// From which timelines this one came.
    History(Timeline),
}

impl WalFileName {
    /// The kind of file by its name; `None` for a name that is none of WAL's.
    pub fn parse(text: &str) -> Option<Self> {
        let (stem, ending) = text.split_once('.').map_or((text, None), |(stem, end)| (stem, Some(end)));
        match ending {
            None => segment(stem).map(Self::Segment),
            Some("partial") => segment(stem).map(Self::Partial),
            Some("history") => Timeline::new(digits(stem)?).map(Self::History),
            Some(ending) => {
                let offset = digits(ending.strip_suffix(".backup")?)?;
                Some(Self::Backup(segment(stem)?, offset))
            }
        }
    }
}

/// Exactly eight upper-case hexadecimal digits, as PostgreSQL writes and takes them.
fn digits(text: &str) -> Option<u32> {
    let upper = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
    (upper && text.len() == 8).then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

fn segment(stem: &str) -> Option<SegmentName> {
    let timeline = Timeline::new(digits(stem.get(..8)?)?)?;
    Some(SegmentName { timeline, log: digits(stem.get(8..16)?)?, number: digits(stem.get(16..)?)? })
}

impl fmt::Display for WalFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(name) => write!(f, "{name}"),
            Self::Partial(name) => write!(f, "{name}.partial"),
            Self::Backup(name, offset) => write!(f, "{name}.{offset:08X}.backup"),
            Self::History(timeline) => write!(f, "{:08X}.history", timeline.0),
        }
    }
}

impl FromStr for WalFileName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text).ok_or_else(|| {
            Error::invalid(format!(
                "{text:?} is no name of a WAL file: they look like 000000010000000000000001 or 00000002.history"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sizes() -> impl Strategy<Value = SegmentSize> {
        (20_u32..=30).prop_map(|bits| SegmentSize::new(1 << bits).unwrap())
    }

    fn names() -> impl Strategy<Value = SegmentName> {
        (1..=u32::MAX, any::<u32>(), any::<u32>()).prop_map(|(timeline, log, number)| SegmentName {
            timeline: Timeline::new(timeline).unwrap(),
            log,
            number,
        })
    }

    #[test]
    fn lsns_are_written_as_postgresql_does() {
        assert_eq!("16/B374D848".parse::<Lsn>().unwrap(), Lsn(0x16_B374_D848));
        assert_eq!("0/0".parse::<Lsn>().unwrap(), Lsn::INVALID);
        assert_eq!("0/00000028".parse::<Lsn>().unwrap().to_string(), "0/28");
        assert_eq!("ffffffff/ffffffff".parse::<Lsn>().unwrap(), Lsn(u64::MAX));
        for wrong in ["", "/", "1", "1/", "/1", "1/2/3", "+1/2", "1/-2", "1/ 2", "000000001/0", "g/0", "１/0"]
        {
            assert!(wrong.parse::<Lsn>().is_err(), "{wrong}");
        }
        assert_eq!(Lsn(u64::MAX).checked_add(1), None);
        assert_eq!(Lsn(5).bytes_since(Lsn(7)), None);
        assert_eq!(Lsn(7).bytes_since(Lsn(5)), Some(2));
        assert_eq!(serde_json::to_string(&Lsn(0x1_0000_0028)).unwrap(), "\"1/28\"");
        assert!(serde_json::from_str::<Lsn>("\"1\"").is_err());
    }

    #[test]
    fn names_of_each_kind_are_told_apart() {
        let name: SegmentName = "0000000100000016000000B3".parse().unwrap();
        assert_eq!((name.timeline, name.log, name.number), (Timeline::FIRST, 0x16, 0xB3));
        assert_eq!(name.start(SegmentSize::DEFAULT), Some(Lsn(0x16_B300_0000)));
        let kinds = [
            ("0000000100000016000000B3", WalFileName::Segment(name)),
            ("0000000100000016000000B3.partial", WalFileName::Partial(name)),
            ("0000000100000016000000B3.00000028.backup", WalFileName::Backup(name, 0x28)),
            ("00000002.history", WalFileName::History(Timeline::new(2).unwrap())),
        ];
        for (text, kind) in kinds {
            assert_eq!(WalFileName::parse(text), Some(kind));
            assert_eq!(kind.to_string(), text);
        }
        for wrong in [
            "",
            "000000010000000000000001 ",
            "00000001000000000000000",
            "0000000100000000000000010",
            "00000001000000000000000g",
            "0000000100000000000000ab",
            "000000000000000000000001",
            "00000000.history",
            "2.history",
            "00000002.history.gz",
            "000000010000000000000001.backup",
            "000000010000000000000001.28.backup",
            "000000010000000000000001.00000028.backup.gz",
            "000000010000000000000001.partial.gz",
            "0000000é0000000000000000",
            "+0000001+0000000+0000001",
        ] {
            assert_eq!(WalFileName::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn names_exist_only_up_to_the_number_that_a_size_allows() {
        let last: SegmentName = "0000000100000000000000FF".parse().unwrap();
        let next: SegmentName = "000000010000000100000000".parse().unwrap();
        assert_eq!(last.next(SegmentSize::DEFAULT), Some(next));
        assert_eq!(
            "000000010000000000000100".parse::<SegmentName>().unwrap().start(SegmentSize::DEFAULT),
            None
        );
        assert_eq!("0000000100000000000000FF".parse::<SegmentName>().unwrap().start(SegmentSize::MAX), None);
        let end: SegmentName = "00000001FFFFFFFF000000FF".parse().unwrap();
        assert_eq!(end.next(SegmentSize::DEFAULT), None);
        for wrong in [0, 1 << 19, 3 << 20, 1 << 31, 1 << 40, u64::MAX] {
            assert_eq!(SegmentSize::new(wrong), None);
        }
        assert!(serde_json::from_str::<SegmentSize>("17").is_err());
        assert_eq!(serde_json::to_string(&SegmentSize::DEFAULT).unwrap(), "16777216");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

        #[test]
        fn an_lsn_comes_back(lsn in any::<u64>()) {
            prop_assert_eq!(Lsn(lsn).to_string().parse::<Lsn>().unwrap(), Lsn(lsn));
        }

        #[test]
        fn a_name_comes_back(name in names(), offset in any::<u32>()) {
            for kind in [
                WalFileName::Segment(name),
                WalFileName::Partial(name),
                WalFileName::Backup(name, offset),
                WalFileName::History(name.timeline),
            ] {
                prop_assert_eq!(WalFileName::parse(&kind.to_string()), Some(kind));
            }
        }

        #[test]
        fn any_text_is_a_name_or_none(text in "[0-9A-Fa-f.a-z+ é]{0,50}") {
            if let Some(name) = WalFileName::parse(&text) {
                prop_assert_eq!(name.to_string(), text);
            }
        }

        #[test]
        fn the_segment_of_an_lsn_holds_it(lsn in any::<u64>(), size in sizes()) {
            let name = SegmentName::holding(Timeline::FIRST, Lsn(lsn), size);
            let start = name.start(size).unwrap();
            prop_assert!(start.0 <= lsn && lsn - start.0 < size.bytes());
            prop_assert_eq!(start.0 % size.bytes(), 0);
            if let Some(next) = name.next(size) {
                prop_assert_eq!(next.start(size).unwrap().bytes_since(start), Some(size.bytes()));
                prop_assert!(next > name && next.is_beyond(name) && next.to_string() > name.to_string());
            }
        }
    }
}
