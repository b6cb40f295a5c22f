//! Reference counts of blocks, in memory: derived from the trees, never trusted from disk alone.
//!
//! Two bytes a slot; counts that do not fit move to a map. A count of 0 says that no tree and no pin leads to
//! the block.

use std::collections::HashMap;

use crate::format::{Place, Pointer};

const SPILLED: u16 = u16::MAX;

/// What of a segment is referenced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentUse {
    pub live_slots: u32,
    pub live_bytes: u64,
}

#[derive(Debug, Default)]
struct SegmentCounts {
    counts: Vec<u16>,
    used: SegmentUse,
}

/// Counts of references to blocks.
#[derive(Debug, Default)]
pub struct RefTable {
    segments: HashMap<u32, SegmentCounts>,
    spilled: HashMap<Place, u64>,
    live_bytes: u64,
    live_blocks: u64,
}

impl RefTable {
    /// Adds a reference and answers the new count.
    pub fn add(&mut self, pointer: &Pointer) -> u64 {
        let segment = self.segments.entry(pointer.place.segment).or_default();
        let slot = pointer.place.slot as usize;
        if segment.counts.len() <= slot {
            segment.counts.resize(slot + 1, 0);
        }
        let count = &mut segment.counts[slot];
        match *count {
            0 => {
                *count = 1;
                segment.used.live_slots += 1;
                segment.used.live_bytes += u64::from(pointer.stored_bytes);
                self.live_bytes += u64::from(pointer.stored_bytes);
                self.live_blocks += 1;
                1
            }
            SPILLED => {
                let wide = self.spilled.entry(pointer.place).or_insert(u64::from(SPILLED));
                *wide += 1;
                *wide
            }
            n if n + 1 == SPILLED => {
                *count = SPILLED;
                self.spilled.insert(pointer.place, u64::from(SPILLED));
                u64::from(SPILLED)
            }
            n => {
                *count = n + 1;
                u64::from(n) + 1
            }
        }
    }

    /// Drops a reference; `Some(new count)`, or `None` when there was none to drop, which is a defect of the
    /// caller's accounting and must stop reclaim.
    pub fn drop_one(&mut self, pointer: &Pointer) -> Option<u64> {
        let segment = self.segments.get_mut(&pointer.place.segment)?;
        let count = segment.counts.get_mut(pointer.place.slot as usize)?;
        match *count {
            0 => None,
            1 => {
                *count = 0;
                segment.used.live_slots -= 1;
                segment.used.live_bytes -= u64::from(pointer.stored_bytes);
                self.live_bytes -= u64::from(pointer.stored_bytes);
                self.live_blocks -= 1;
                Some(0)
            }
            SPILLED => {
                let wide = self.spilled.get_mut(&pointer.place)?;
                *wide -= 1;
                let left = *wide;
                if left < u64::from(SPILLED) {
                    self.spilled.remove(&pointer.place);
                    *count = left as u16;
                }
                Some(left)
            }
            n => {
                *count = n - 1;
                Some(u64::from(n) - 1)
            }
        }
    }

    pub fn count(&self, place: Place) -> u64 {
        let count = self
            .segments
            .get(&place.segment)
            .and_then(|segment| segment.counts.get(place.slot as usize))
            .copied()
            .unwrap_or(0);
        if count == SPILLED {
            self.spilled.get(&place).copied().unwrap_or(u64::from(SPILLED))
        } else {
            u64::from(count)
        }
    }

    pub fn segment(&self, id: u32) -> SegmentUse {
        self.segments.get(&id).map(|segment| segment.used).unwrap_or_default()
    }

    /// Forgets a segment that has no live slot.
    pub fn forget_segment(&mut self, id: u32) {
        if self.segment(id).live_slots == 0 {
            self.segments.remove(&id);
        }
    }

    /// Stored bytes of all referenced blocks.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    pub fn live_blocks(&self) -> u64 {
        self.live_blocks
    }

    pub fn memory_bytes(&self) -> usize {
        self.segments.values().map(|segment| 64 + segment.counts.capacity() * 2).sum::<usize>()
            + self.spilled.len() * 48
    }

    /// Whether both hold the same counts; the first difference otherwise.
    pub fn difference(&self, other: &Self) -> Option<(Place, u64, u64)> {
        let ids = self.segments.keys().chain(other.segments.keys());
        for id in ids {
            let slots = |table: &Self| table.segments.get(id).map_or(0, |segment| segment.counts.len());
            for slot in 0..slots(self).max(slots(other)) {
                let place = Place { segment: *id, slot: slot as u32 };
                let (ours, theirs) = (self.count(place), other.count(place));
                if ours != theirs {
                    return Some((place, ours, theirs));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_spill_and_return() {
        let place = Place { segment: 3, slot: 9 };
        let pointer = Pointer { place, stored_bytes: 100, check: [0; 16] };
        let mut table = RefTable::default();
        for n in 1..=70_000u64 {
            assert_eq!(table.add(&pointer), n);
            assert_eq!(table.count(place), n);
        }
        assert_eq!(table.live_bytes(), 100);
        for n in (0..70_000u64).rev() {
            assert_eq!(table.drop_one(&pointer), Some(n));
            assert_eq!(table.count(place), n);
        }
        assert_eq!(table.segment(3), SegmentUse::default());
        assert_eq!(table.drop_one(&pointer), None);
    }
}
