//! The logical place of a block. Says nothing of where the segment file lies or how the block is stored.

/// Where a block is: a slot of a segment. Logical, so that compaction can rewrite a segment and keep places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Below `Place::SEGMENTS_MAX`.
    pub segment: u32,
    /// Below `Place::SLOTS_MAX`.
    pub slot: u32,
}

impl Place {
    /// Segment numbers are 26 bits.
    pub const SEGMENTS_MAX: u32 = 1 << 26;
    /// Slot numbers are 18 bits.
    pub const SLOTS_MAX: u32 = 1 << 18;

    /// The place as 44 bits, segment first; `None` when a number is out of range.
    pub fn to_bits(self) -> Option<u64> {
        let fits = self.segment < Self::SEGMENTS_MAX && self.slot < Self::SLOTS_MAX;
        fits.then(|| u64::from(self.segment) << 18 | u64::from(self.slot))
    }

    /// The place of the low 44 bits; the rest is ignored.
    pub fn from_bits(bits: u64) -> Self {
        let segment = (bits >> 18) as u32 & (Self::SEGMENTS_MAX - 1);
        let slot = bits as u32 & (Self::SLOTS_MAX - 1);
        Self { segment, slot }
    }
}
