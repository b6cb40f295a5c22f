//! Block identity, places and pointers.
//!
//! A pointer is 24 bytes: one word of segment (26 bits), slot (18 bits) and stored length (20 bits), then the
//! first 16 bytes of the content's BLAKE3. The holder of a pointer can tell right content from wrong without
//! trusting the place it was read from.

use super::cursor::{Put, Reader};
use crate::base::Result;

/// Bytes of a file page: PostgreSQL's and SQL Server's own page size.
pub const PAGE_SIZE: usize = 8192;

/// Segments are numbered below this.
pub const SEGMENTS_MAX: u32 = 1 << 26;
/// Slots of a segment are numbered below this.
pub const SLOTS_MAX: u32 = 1 << 18;
/// A stored block is shorter than this, in bytes.
pub const STORED_BYTES_MAX: u32 = 1 << 20;

/// BLAKE3 of a block's content before compression.
pub type BlockId = [u8; 32];

/// The identity of `content`.
pub fn block_id(content: &[u8]) -> BlockId {
    *blake3::hash(content).as_bytes()
}

/// The part of an identity that a pointer keeps.
pub fn check_of(id: &BlockId) -> [u8; 16] {
    let mut check = [0; 16];
    check.copy_from_slice(&id[..16]);
    check
}

/// Where a block lies: logical, so that compaction moves bytes without touching pointers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub segment: u32,
    pub slot: u32,
}

/// A reference to a stored block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pointer {
    pub place: Place,
    /// Bytes the block takes in its segment.
    pub stored_bytes: u32,
    pub check: [u8; 16],
}

impl Pointer {
    pub const ENCODED: usize = 24;

    pub fn encode(&self, out: &mut Vec<u8>) {
        debug_assert!(self.place.segment < SEGMENTS_MAX && self.place.slot < SLOTS_MAX);
        debug_assert!(self.stored_bytes < STORED_BYTES_MAX);
        let word = (u64::from(self.place.segment) << 38)
            | (u64::from(self.place.slot) << 20)
            | u64::from(self.stored_bytes);
        out.put_u64(word);
        out.extend_from_slice(&self.check);
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let word = reader.u64()?;
        let place = Place { segment: (word >> 38) as u32, slot: ((word >> 20) & 0x3_FFFF) as u32 };
        Ok(Self { place, stored_bytes: (word & 0xF_FFFF) as u32, check: reader.array()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointer_layout_is_pinned() {
        let pointer =
            Pointer { place: Place { segment: 1, slot: 2 }, stored_bytes: 3, check: *b"0123456789abcdef" };
        let mut bytes = Vec::new();
        pointer.encode(&mut bytes);
        assert_eq!(&bytes[..8], &((1u64 << 38) | (2 << 20) | 3).to_le_bytes());
        assert_eq!(bytes.len(), Pointer::ENCODED);
        let mut reader = Reader::new(&bytes, "pointer");
        assert_eq!(Pointer::decode(&mut reader).unwrap(), pointer);
    }

    #[test]
    fn largest_fields_survive() {
        let place = Place { segment: SEGMENTS_MAX - 1, slot: SLOTS_MAX - 1 };
        let pointer = Pointer { place, stored_bytes: STORED_BYTES_MAX - 1, check: [255; 16] };
        let mut bytes = Vec::new();
        pointer.encode(&mut bytes);
        assert_eq!(Pointer::decode(&mut Reader::new(&bytes, "pointer")).unwrap(), pointer);
    }
}
