//! Log sequence numbers: where in a database's log something is.
//!
//! Three numbers: the virtual log file, the block in it, the slot in the block. SQL Server shows them as
//! `numeric(25,0)` in msdb and RESTORE HEADERONLY (VLF · 10^15 + block · 10^5 + slot), as hexadecimal
//! `00000027:000001e8:0047` in the log's own functions, and as decimal `39:488:71` in messages of DBCC. Invariant: order
//! is that of the log. Must not know: forks; LSNs of different recovery forks of a database compare, but mean
//! different records.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::base::{Error, Result};

const BLOCK_UNIT: u128 = 100_000;
const VLF_UNIT: u128 = 1_000_000_000_000_000;

/// A log sequence number. As text, in JSON and in `Display` it is the number that msdb shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn {
    /// Number of the virtual log file.
    pub vlf: u32,
    /// Block in the virtual log file, in units of 512 bytes.
    pub block: u32,
    /// Record in the block, from 1.
    pub slot: u16,
}

impl Lsn {
    /// Before every record.
    pub const ZERO: Self = Self { vlf: 0, block: 0, slot: 0 };
    /// Bytes it takes in pages and backup files.
    pub const BYTES: usize = 10;

    pub const fn new(vlf: u32, block: u32, slot: u16) -> Self {
        Self { vlf, block, slot }
    }

    /// As pages and backup files store it: u32, u32, u16, least byte first.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j] = bytes;
        Self {
            vlf: u32::from_le_bytes([a, b, c, d]),
            block: u32::from_le_bytes([e, f, g, h]),
            slot: u16::from_le_bytes([i, j]),
        }
    }

    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&self.vlf.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.block.to_le_bytes());
        bytes[8..].copy_from_slice(&self.slot.to_le_bytes());
        bytes
    }

    /// The `numeric(25,0)` of msdb.
    pub fn numeric(self) -> u128 {
        u128::from(self.vlf) * VLF_UNIT + u128::from(self.block) * BLOCK_UNIT + u128::from(self.slot)
    }

    /// `Invalid` when a part is larger than SQL Server has it.
    pub fn from_numeric(number: u128) -> Result<Self> {
        let vlf = u32::try_from(number / VLF_UNIT);
        let block = u32::try_from(number % VLF_UNIT / BLOCK_UNIT);
        let slot = u16::try_from(number % BLOCK_UNIT);
        match (vlf, block, slot) {
            (Ok(vlf), Ok(block), Ok(slot)) => Ok(Self { vlf, block, slot }),
            _ => Err(bad(&number.to_string())),
        }
    }

    /// As `sys.fn_dblog` writes it: `00000027:000001e8:0047`.
    pub fn hex(self) -> String {
        format!("{:08x}:{:08x}:{:04x}", self.vlf, self.block, self.slot)
    }

    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }
}

fn bad(text: &str) -> Error {
    Error::invalid(format!("'{text}' is no LSN")).with_hint(
        "write it as msdb does (39000000048800071), as sys.fn_dblog does (00000027:000001e8:0047) or as 39:488:71",
    )
}

/// Three hexadecimal parts of 8, 8 and 4 digits, as `sys.fn_dblog` writes them; any other three parts are decimal.
fn parse_parts(text: &str) -> Option<Lsn> {
    let parts: Vec<&str> = text.split(':').collect();
    let [vlf, block, slot] = parts[..] else { return None };
    let digits = |radix: u32| parts.iter().all(|part| part.chars().all(|c| c.is_digit(radix)));
    let radix = if (vlf.len(), block.len(), slot.len()) == (8, 8, 4) { 16 } else { 10 };
    if !digits(radix) {
        return None;
    }
    Some(Lsn {
        vlf: u32::from_str_radix(vlf, radix).ok()?,
        block: u32::from_str_radix(block, radix).ok()?,
        slot: u16::from_str_radix(slot, radix).ok()?,
    })
}

impl FromStr for Lsn {
    type Err = Error;

    /// Any of the three forms; a leading `0x` or `lsn:` is dropped.
    fn from_str(text: &str) -> Result<Self> {
        let bare = text.trim();
        let bare = bare.strip_prefix("lsn:").unwrap_or(bare);
        let bare = bare.strip_prefix("0x").unwrap_or(bare);
        if bare.contains(':') {
            return parse_parts(bare).ok_or_else(|| bad(text));
        }
        let all_digits = !bare.is_empty() && bare.chars().all(|c| c.is_ascii_digit());
        let number: Option<u128> = if all_digits { bare.parse().ok() } else { None };
        Self::from_numeric(number.ok_or_else(|| bad(text))?).map_err(|_| bad(text))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.numeric())
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
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
    fn the_three_forms_are_one_number() {
        let lsn = Lsn::new(39, 488, 71);
        for text in ["39000000048800071", "00000027:000001e8:0047", "39:488:71", " lsn:39:488:71"] {
            assert_eq!(text.parse::<Lsn>().unwrap(), lsn, "{text}");
        }
        assert_eq!(lsn.to_string(), "39000000048800071");
        assert_eq!(serde_json::to_string(&lsn).unwrap(), "\"39000000048800071\"");
    }

    #[test]
    fn what_is_no_lsn_is_refused_with_the_forms() {
        for text in [
            "",
            ":",
            "1:2",
            "1:2:3:4",
            "x",
            "-1",
            "+1",
            "1:70000:70000",
            "99999999999999999999999999",
            "1:+2:3",
        ] {
            let error = text.parse::<Lsn>().unwrap_err();
            assert!(error.hint().unwrap().contains("msdb"), "{text}");
        }
        assert!(Lsn::from_numeric(u128::MAX).is_err());
    }

    proptest! {
        #[test]
        fn every_form_goes_there_and_back(vlf: u32, block: u32, slot: u16) {
            let lsn = Lsn::new(vlf, block, slot);
            prop_assert_eq!(Lsn::from_bytes(lsn.to_bytes()), lsn);
            prop_assert_eq!(Lsn::from_numeric(lsn.numeric()).unwrap(), lsn);
            prop_assert_eq!(lsn.hex().parse::<Lsn>().unwrap(), lsn);
            prop_assert_eq!(lsn.to_string().parse::<Lsn>().unwrap(), lsn);
        }

        #[test]
        fn the_number_keeps_the_order(a: (u32, u32, u16), b: (u32, u32, u16)) {
            let (a, b) = (Lsn::new(a.0, a.1, a.2), Lsn::new(b.0, b.1, b.2));
            prop_assert_eq!(a.cmp(&b), a.numeric().cmp(&b.numeric()));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9a-f:x]{0,30}") {
            let _ = text.parse::<Lsn>();
        }
    }
}
