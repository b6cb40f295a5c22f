//! One page of a data file: its header, and whether its checksum or torn-page bits hold.
//!
//! Measured on real backups: 8,192 bytes; header version at 0 (1), type at 1, flags u16 at 4, page id u32 at 32, file id u16 at 36, LSN at 40,
//! stored value u32 at 60. Checksum: with bytes 60 to 63 zero, for each of the 16 sectors the XOR of its 128
//! little-endian words, rotated left by 15 less the sector's number, and the XOR of all. Torn-page bits as published for
//! SQL Server 2005 on, not measured: the stored value's lowest two bits alternate between 1 and 2, every later sector
//! ends in the same two bits, and the bits they replaced are in the rest of the value. Log files have no pages. Must not know files.

use serde::{Deserialize, Serialize};

use super::lsn::Lsn;

/// Bytes of a page.
pub const PAGE_BYTES: usize = 8192;
const SECTOR_BYTES: usize = 512;
const SECTORS: usize = PAGE_BYTES / SECTOR_BYTES;
const STORED_AT: usize = 60;
const FLAG_TORN: u16 = 0x100;
const FLAG_CHECKSUM: u16 = 0x200;
/// Types run from 1 (data) to 20 (before any other is known).
const TYPE_MAX: u8 = 20;

/// Page types that are asked for by name.
pub const TYPE_PFS: u8 = 11;
pub const TYPE_FILE_HEADER: u8 = 15;

/// What a page says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageHeader {
    pub version: u8,
    pub kind: u8,
    pub flags: u16,
    pub page_id: u32,
    pub file_id: u16,
    pub lsn: Lsn,
    /// Checksum or torn-page bits.
    pub stored: u32,
}

impl PageHeader {
    /// Nothing when there are not `PAGE_BYTES`.
    pub fn decode(page: &[u8]) -> Option<Self> {
        let page: &[u8; PAGE_BYTES] = page.get(..PAGE_BYTES)?.try_into().ok()?;
        let u32_at = |at: usize| u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]);
        let mut lsn = [0; Lsn::BYTES];
        lsn.copy_from_slice(&page[40..50]);
        Some(Self {
            version: page[0],
            kind: page[1],
            flags: u16::from_le_bytes([page[4], page[5]]),
            page_id: u32_at(32),
            file_id: u16::from_le_bytes([page[36], page[37]]),
            lsn: Lsn::from_bytes(lsn),
            stored: u32_at(STORED_AT),
        })
    }

    /// Whether this can be a header at all, and not what an older use of the space left.
    pub fn is_plausible(&self) -> bool {
        self.version == 1 && (1..=TYPE_MAX).contains(&self.kind) && self.file_id > 0
    }
}

/// What a look at one page finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageState {
    /// All zeros: never written.
    Zero,
    /// It has neither checksum nor torn-page bits.
    Unprotected,
    /// Checksum or torn-page bits hold.
    Good,
    /// The checksum is another.
    Checksum { stored: u32, computed: u32 },
    /// Sectors that ended in other bits than the page was written with: bit n for sector n.
    Torn { sectors: u16 },
    /// The checksum holds once the flag is set that says there is one.
    FlagLost,
}

impl PageState {
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Checksum { .. } | Self::Torn { .. } | Self::FlagLost)
    }
}

/// The checksum of a page as SQL Server computes it. Bytes beyond whole sectors do not count.
pub fn checksum(page: &[u8]) -> u32 {
    let mut sum = 0;
    for (sector, bytes) in page.chunks_exact(SECTOR_BYTES).take(SECTORS).enumerate() {
        let mut words = 0;
        for word in bytes.chunks_exact(4) {
            words ^= u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        }
        if sector == 0 {
            words ^= u32::from_le_bytes([
                bytes[STORED_AT],
                bytes[STORED_AT + 1],
                bytes[STORED_AT + 2],
                bytes[STORED_AT + 3],
            ]);
        }
        sum ^= words.rotate_left((SECTORS - 1 - sector) as u32);
    }
    sum
}

/// Looks at one page of `PAGE_BYTES`; a shorter one counts as unprotected.
pub fn check(page: &[u8]) -> PageState {
    let Some(header) = PageHeader::decode(page) else { return PageState::Unprotected };
    if header.flags & FLAG_CHECKSUM != 0 {
        let computed = checksum(page);
        return if computed == header.stored {
            PageState::Good
        } else {
            PageState::Checksum { stored: header.stored, computed }
        };
    }
    if header.flags & FLAG_TORN != 0 {
        return check_torn(page, header.stored);
    }
    if page.iter().all(|byte| *byte == 0) {
        return PageState::Zero;
    }
    // Flags are the low half of the second word of the first sector, so they stand rotated in the sum. What differs there
    // alone, in the byte of the flag, is a page whose flag was lost.
    let difference = (checksum(page) ^ header.stored).rotate_right(SECTORS as u32 - 1);
    let flag = u32::from(FLAG_CHECKSUM);
    if header.stored != 0 && difference & flag != 0 && difference & !0xff00 == 0 {
        return PageState::FlagLost;
    }
    PageState::Unprotected
}

fn check_torn(page: &[u8], stored: u32) -> PageState {
    let pattern = stored & 3;
    let mut sectors = 0;
    for sector in 1..SECTORS {
        let last = page[(sector + 1) * SECTOR_BYTES - 1];
        if u32::from(last & 3) != pattern {
            sectors |= 1 << sector;
        }
    }
    if pattern == 0 || pattern == 3 {
        sectors |= 1;
    }
    if sectors == 0 { PageState::Good } else { PageState::Torn { sectors } }
}

/// Writes the flag and the checksum that the page has then.
#[cfg(test)]
pub(crate) fn protect(page: &mut [u8]) {
    page[5] |= 2;
    let sum = checksum(page);
    page[STORED_AT..STORED_AT + 4].copy_from_slice(&sum.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A page with a checksum, of bytes that depend on `seed`.
    fn page(seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let mut page: Vec<u8> = (0..PAGE_BYTES)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect();
        page[..2].copy_from_slice(&[1, 1]);
        page[4..6].copy_from_slice(&[0, 0]);
        protect(&mut page);
        page
    }

    #[test]
    fn every_flipped_byte_of_a_page_is_found() {
        let good = page(7);
        assert_eq!(check(&good), PageState::Good);
        let mut flipped = good.clone();
        for at in 0..PAGE_BYTES {
            for mask in [1, 2, 0x80, 0x82, 0xff] {
                flipped[at] ^= mask;
                assert!(check(&flipped).is_bad(), "byte {at} by {mask:#x}");
                flipped[at] = good[at];
            }
        }
    }

    #[test]
    fn a_lost_flag_is_no_page_without_checksum() {
        let mut page = page(3);
        page[5] &= !2;
        assert_eq!(check(&page), PageState::FlagLost);
        assert_eq!(check(&vec![0; PAGE_BYTES]), PageState::Zero);
        assert_eq!(check(&page[1..]), PageState::Unprotected);
    }

    #[test]
    fn torn_sectors_are_named() {
        let mut page = page(9);
        page[5] = 1;
        let pattern = 2;
        for sector in 1..SECTORS {
            let last = &mut page[(sector + 1) * SECTOR_BYTES - 1];
            *last = *last & !3 | pattern;
        }
        page[STORED_AT] = page[STORED_AT] & !3 | pattern;
        assert_eq!(check(&page), PageState::Good);
        page[4 * SECTOR_BYTES - 1] ^= 3;
        assert_eq!(check(&page), PageState::Torn { sectors: 1 << 3 });
    }

    proptest! {
        #[test]
        fn a_flip_of_any_bits_of_one_byte_is_found(seed: u64, at in 0..PAGE_BYTES, mask in 1..=255u8) {
            let mut page = page(seed);
            prop_assert_eq!(check(&page), PageState::Good);
            page[at] ^= mask;
            prop_assert!(check(&page).is_bad());
        }

        #[test]
        fn any_bytes_are_looked_at(bytes in proptest::collection::vec(any::<u8>(), 0..PAGE_BYTES + 9)) {
            let _ = (check(&bytes), PageHeader::decode(&bytes), checksum(&bytes));
        }
    }
}
