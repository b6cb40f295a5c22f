//! A chunk's directory in memory: 8 bytes a slot, 12 where slots are missing.

use crate::format::segment::{BlockKind, Codec, Entry};

/// Where a body lies and how it is encoded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Location {
    pub(super) offset: u32,
    pub(super) stored_bytes: u32,
    pub(super) codec: Codec,
    pub(super) kind: BlockKind,
    /// Position of the entry in its directory.
    pub(super) index: usize,
}

#[derive(Debug)]
pub(super) struct CompactDirectory {
    first_slot: u32,
    /// Slots in order; empty when they are consecutive.
    slots: Vec<u32>,
    entries: Vec<(u32, u32)>,
}

impl CompactDirectory {
    pub(super) fn new(entries: &[Entry]) -> Self {
        let first_slot = entries.first().map_or(0, |entry| entry.slot);
        let dense = entries.last().is_none_or(|last| (last.slot - first_slot) as usize + 1 == entries.len());
        let slots = if dense { Vec::new() } else { entries.iter().map(|entry| entry.slot).collect() };
        let entries = entries
            .iter()
            .map(|entry| {
                let codec = u32::from(entry.codec == Codec::Zstd);
                let kind = u32::from(entry.kind == BlockKind::Node);
                (entry.offset, entry.stored_bytes | (codec << 24) | (kind << 25))
            })
            .collect();
        Self { first_slot, slots, entries }
    }

    pub(super) fn find(&self, slot: u32) -> Option<Location> {
        let index = if self.slots.is_empty() {
            slot.checked_sub(self.first_slot)? as usize
        } else {
            self.slots.binary_search(&slot).ok()?
        };
        let (offset, word) = *self.entries.get(index)?;
        let codec = if word & (1 << 24) == 0 { Codec::Raw } else { Codec::Zstd };
        let kind = if word & (1 << 25) == 0 { BlockKind::Page } else { BlockKind::Node };
        Some(Location { offset, stored_bytes: word & 0xFF_FFFF, codec, kind, index })
    }

    pub(super) fn memory_bytes(&self) -> usize {
        64 + self.slots.len() * 4 + self.entries.len() * 8
    }
}
