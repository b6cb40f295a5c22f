//! Block identity, places and pointers.
//!
//! A pointer is 24 bytes: one word of segment (26 bits), slot (18 bits) and stored length (20 bits), then the
//! first 16 bytes of the content's BLAKE3. The holder of a pointer can tell right content from wrong without
//! trusting the place it was read from.

use super::cursor::{Put, Reader};
use super::place::Place;
use crate::base::Result;

/// Bytes of a file page: PostgreSQL's and SQL Server's own page size.
pub const PAGE_SIZE: usize = 8192;

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

    /// Leads to the same place and to no content: whoever reads it is told of damage. For a page that was written
    /// in part over a block that cannot be read.
    pub fn lost(&self) -> Self {
        Self { check: [0; 16], ..*self }
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        debug_assert!(self.stored_bytes < STORED_BYTES_MAX);
        // Places come from the segment writer, which stops below both limits.
        let place = self.place.to_bits().unwrap_or_default();
        let word = (place << 20) | u64::from(self.stored_bytes);
        out.put_u64(word);
        out.extend_from_slice(&self.check);
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let word = reader.u64()?;
        Ok(Self {
            place: Place::from_bits(word >> 20),
            stored_bytes: (word & 0xF_FFFF) as u32,
            check: reader.array()?,
        })
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
        let place = Place { segment: Place::SEGMENTS_MAX - 1, slot: Place::SLOTS_MAX - 1 };
        let pointer = Pointer { place, stored_bytes: STORED_BYTES_MAX - 1, check: [255; 16] };
        let mut bytes = Vec::new();
        pointer.encode(&mut bytes);
        assert_eq!(Pointer::decode(&mut Reader::new(&bytes, "pointer")).unwrap(), pointer);
    }
}
