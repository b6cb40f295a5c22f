//! The media label: what a backup file says of itself and of the other files of its media set.
//!
//! Source: Microsoft Tape Format 1.00a, MTF_TAPE (family, sequence, names, date); the `RAID` stream after it is SQL Server's
//! own: media set GUID at 0, measured on the real files. The three numbers at 20 to 25 are all 1 in them, as they are
//! backups onto one file; that they are families, this family and mirrors is not measured, so
//! `families` and `family` are given only when they make sense together. Must not know backup sets.

use serde::{Deserialize, Serialize};

use super::block::{Block, Fields};
use super::date::LocalTime;
use crate::adapter::sqlserver::guid::Guid;

/// Bytes of the `RAID` stream that are looked at; the measured ones have 32.
pub(super) const RAID_BYTES_MAX: u64 = 64;
/// A backup has 64 stripes at most.
const FAMILIES_MAX: u16 = 64;

/// The label of one file of a media set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Media {
    /// Random number of this media family (stripe).
    pub family_id: u32,
    /// Place among the volumes of one family, from 1.
    pub sequence: u16,
    pub name: Option<String>,
    pub description: Option<String>,
    /// The program that wrote it: `Microsoft SQL Server`.
    pub software: String,
    /// Bytes of MTF's logical blocks, the unit of addresses inside it.
    pub logical_block_bytes: u16,
    /// Bytes of a soft filemark.
    pub(super) filemark_bytes: u64,
    pub written: Option<LocalTime>,
    /// Common to all stripes of a backup.
    pub set_id: Option<Guid>,
    /// How many stripes the media set has; not measured with more than one.
    pub families: Option<u16>,
    /// Which of them this file is, from 1.
    pub family: Option<u16>,
}

impl Media {
    pub(super) fn decode(block: &Block) -> Self {
        let fields = block.fields();
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            family_id: fields.u32(52),
            sequence: fields.u16(60),
            filemark_bytes: u64::from(fields.u16(64).max(1)) * 512,
            name: some(block.text(68)),
            description: some(block.text(72)),
            software: block.text(80),
            logical_block_bytes: fields.u16(84),
            written: LocalTime::decode(fields.array(88)),
            set_id: None,
            families: None,
            family: None,
        }
    }

    /// Adds what the `RAID` stream says.
    pub(super) fn add_raid(&mut self, data: &[u8]) {
        let fields = Fields(data);
        self.set_id = Guid(fields.array(0)).known();
        let (families, family) = (fields.u16(20), fields.u16(22));
        if (1..=FAMILIES_MAX).contains(&families) && (1..=families).contains(&family) {
            (self.families, self.family) = (Some(families), Some(family));
        }
    }
}
