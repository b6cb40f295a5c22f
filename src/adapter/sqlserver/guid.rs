//! The identifiers that SQL Server gives to backup sets, databases and recovery forks.
//!
//! Sixteen bytes; as text the first three groups are turned round, as everywhere at Microsoft. Invariant: the text is
//! what `SELECT` prints of a uniqueidentifier. Must not know what an identifier stands for.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::base::{Error, Result};

/// Where each byte of the text lies among the sixteen.
const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];

/// A uniqueidentifier, in the order of its bytes in files.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// What SQL Server writes where there is none.
    pub const NONE: Self = Self([0; 16]);

    /// Nothing for the identifier that means none.
    pub fn known(self) -> Option<Self> {
        (self != Self::NONE).then_some(self)
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, place) in ORDER.into_iter().enumerate() {
            if [4, 6, 8, 10].contains(&at) {
                f.write_str("-")?;
            }
            write!(f, "{:02X}", self.0[place])?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Guid {
    type Err = Error;

    /// With or without braces, in either case.
    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::invalid(format!("'{text}' is no uniqueidentifier"));
        let bare = text.trim().trim_start_matches('{').trim_end_matches('}');
        let lengths: Vec<usize> = bare.split('-').map(str::len).collect();
        let digits: Vec<u8> = bare.bytes().filter(|byte| *byte != b'-').collect();
        if lengths != [8, 4, 4, 4, 12] || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(bad());
        }
        let mut bytes = [0; 16];
        for (pair, place) in digits.chunks_exact(2).zip(ORDER) {
            let text = std::str::from_utf8(pair).map_err(|_| bad())?;
            bytes[place] = u8::from_str_radix(text, 16).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Guid {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Guid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_groups_are_turned_round() {
        let bytes =
            [0xc4, 0x3d, 0x4e, 0xf2, 0x3c, 0xfb, 0xaa, 0x48, 0x93, 0x60, 0xfc, 0x9e, 0xe2, 0x6d, 0x14, 0x64];
        assert_eq!(Guid(bytes).to_string(), "F24E3DC4-FB3C-48AA-9360-FC9EE26D1464");
        assert_eq!("{f24e3dc4-fb3c-48aa-9360-fc9ee26d1464}".parse::<Guid>().unwrap(), Guid(bytes));
        assert_eq!(Guid::NONE.known(), None);
    }

    proptest! {
        #[test]
        fn text_goes_there_and_back(bytes: [u8; 16]) {
            prop_assert_eq!(Guid(bytes).to_string().parse::<Guid>().unwrap(), Guid(bytes));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            let _ = text.parse::<Guid>();
        }
    }
}
