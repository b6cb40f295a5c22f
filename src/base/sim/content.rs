//! Bytes of one simulated file: sparse, copy-on-write, cheap to clone.
//!
//! A block that was never written or allocated is a hole and takes no space. Must not know of durability, names
//! or faults.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

pub(super) const BLOCK_BYTES: usize = 4096;
const BLOCK: u64 = BLOCK_BYTES as u64;
const GROUP_BLOCKS: u64 = 64;

type Block = [u8; BLOCK_BYTES];

/// Shared by all blocks that are allocated and not written.
static ZERO_BLOCK: LazyLock<Arc<Block>> = LazyLock::new(|| Arc::new([0; BLOCK_BYTES]));

#[derive(Clone)]
struct Group([Option<Arc<Block>>; GROUP_BLOCKS as usize]);

/// Two levels, so that a write after a clone copies one block and 64 pointers, not the file.
#[derive(Clone, Default)]
pub(super) struct Content {
    length: u64,
    groups: BTreeMap<u64, Arc<Group>>,
    allocated_blocks: u64,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.length
    }

    pub(super) fn allocated_bytes(&self) -> u64 {
        self.allocated_blocks * BLOCK
    }

    /// Fills `buffer` from `offset`; holes, and what lies past the end, read as zeros.
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) {
        for (block, within, range) in pieces(offset, buffer.len()) {
            let piece = &mut buffer[range];
            match self.block(block) {
                Some(bytes) => piece.copy_from_slice(&bytes[within..within + piece.len()]),
                None => piece.fill(0),
            }
        }
    }

    pub(super) fn write(&mut self, data: &[u8], offset: u64) {
        for (block, within, range) in pieces(offset, data.len()) {
            let piece = &data[range];
            let slot = self.slot(block);
            Arc::make_mut(slot)[within..within + piece.len()].copy_from_slice(piece);
        }
        if !data.is_empty() {
            self.length = self.length.max(offset + data.len() as u64);
        }
    }

    pub(super) fn set_len(&mut self, length: u64) {
        if length < self.length {
            self.punch(length, self.length.next_multiple_of(BLOCK) - length);
            self.drop_blocks(length.div_ceil(BLOCK), u64::MAX);
        }
        self.length = length;
    }

    pub(super) fn allocate(&mut self, offset: u64, length: u64) {
        if length == 0 {
            return;
        }
        for block in offset / BLOCK..(offset + length).div_ceil(BLOCK) {
            self.slot(block);
        }
        self.length = self.length.max(offset + length);
    }

    /// Makes the range read as zeros; whole blocks in it become holes. The length stays.
    pub(super) fn punch(&mut self, offset: u64, length: u64) {
        let end = offset.saturating_add(length);
        let first_whole = offset.div_ceil(BLOCK);
        let end_whole = end / BLOCK;
        if first_whole > end_whole {
            // Inside one block.
            self.zero(offset, end);
            return;
        }
        self.zero(offset, first_whole * BLOCK);
        self.drop_blocks(first_whole, end_whole);
        self.zero(end_whole * BLOCK, end);
    }

    /// How many holes a write to the range would have to fill.
    pub(super) fn missing_blocks(&self, offset: u64, length: u64) -> u64 {
        if length == 0 {
            return 0;
        }
        let blocks = offset / BLOCK..(offset + length).div_ceil(BLOCK);
        blocks.filter(|&block| self.block(block).is_none()).count() as u64
    }

    /// The longest start of the range whose holes are no more than `blocks`, in bytes.
    pub(super) fn fitting_bytes(&self, offset: u64, length: usize, mut blocks: u64) -> usize {
        for (block, _, range) in pieces(offset, length) {
            if self.block(block).is_none() {
                if blocks == 0 {
                    return range.start;
                }
                blocks -= 1;
            }
        }
        length
    }

    fn zero(&mut self, offset: u64, end: u64) {
        for (block, within, range) in pieces(offset, (end - offset) as usize) {
            if self.block(block).is_some() {
                Arc::make_mut(self.slot(block))[within..within + range.len()].fill(0);
            }
        }
    }

    fn block(&self, block: u64) -> Option<&Arc<Block>> {
        self.groups.get(&(block / GROUP_BLOCKS))?.0[(block % GROUP_BLOCKS) as usize].as_ref()
    }

    /// The block to write to, allocated if it was a hole.
    fn slot(&mut self, block: u64) -> &mut Arc<Block> {
        let group = self
            .groups
            .entry(block / GROUP_BLOCKS)
            .or_insert_with(|| Arc::new(Group([const { None }; GROUP_BLOCKS as usize])));
        let slot = &mut Arc::make_mut(group).0[(block % GROUP_BLOCKS) as usize];
        if slot.is_none() {
            self.allocated_blocks += 1;
        }
        slot.get_or_insert_with(|| Arc::clone(&ZERO_BLOCK))
    }

    fn drop_blocks(&mut self, first: u64, end: u64) {
        if first >= end {
            return;
        }
        let groups = first / GROUP_BLOCKS..end.div_ceil(GROUP_BLOCKS);
        let mut dropped = 0;
        for (&number, group) in self.groups.range_mut(groups) {
            for (index, slot) in Arc::make_mut(group).0.iter_mut().enumerate() {
                let block = number * GROUP_BLOCKS + index as u64;
                if (first..end).contains(&block) && slot.take().is_some() {
                    dropped += 1;
                }
            }
        }
        self.allocated_blocks -= dropped;
    }
}

/// Cuts `offset..offset + length` at block borders: block, offset in the block, range in the buffer.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == length {
            return None;
        }
        let position = offset + done as u64;
        let within = (position % BLOCK) as usize;
        let start = done;
        done += (BLOCK_BYTES - within).min(length - start);
        Some((position / BLOCK, within, start..done))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(content: &Content) -> Vec<u8> {
        let mut bytes = vec![0; content.len() as usize];
        content.read(&mut bytes, 0);
        bytes
    }

    #[test]
    fn clones_do_not_see_later_writes() {
        let mut content = Content::default();
        content.write(&[1; 10_000], 3_000);
        let copy = content.clone();
        content.write(&[2; 100], 4_000);
        assert!(bytes(&copy)[3_000..].iter().all(|&b| b == 1));
        assert_eq!(bytes(&content)[4_050], 2);
    }

    #[test]
    fn truncated_bytes_do_not_come_back() {
        let mut content = Content::default();
        content.write(&[1; 10_000], 0);
        content.set_len(5_000);
        content.set_len(10_000);
        assert!(bytes(&content)[5_000..].iter().all(|&b| b == 0));
        assert_eq!(content.allocated_bytes(), 2 * BLOCK);
    }

    #[test]
    fn only_whole_blocks_of_a_hole_are_given_back() {
        let mut content = Content::default();
        content.allocate(0, 10 * BLOCK);
        content.write(&[1; 3 * BLOCK_BYTES], 0);
        content.punch(100, 2 * BLOCK);
        assert_eq!(content.allocated_bytes(), 9 * BLOCK);
        let zeros = bytes(&content).iter().take(3 * BLOCK_BYTES).filter(|&&b| b == 0).count();
        assert_eq!(zeros, 2 * BLOCK_BYTES);
        content.punch(10, 20);
        assert_eq!(content.allocated_bytes(), 9 * BLOCK);
    }

    #[test]
    fn holes_are_counted_before_they_are_filled() {
        let mut content = Content::default();
        content.write(&[1], BLOCK);
        assert_eq!(content.missing_blocks(10, 3 * BLOCK), 3);
        assert_eq!(content.fitting_bytes(10, 3 * BLOCK_BYTES, 1), 2 * BLOCK_BYTES - 10);
        assert_eq!(content.fitting_bytes(10, 3 * BLOCK_BYTES, 3), 3 * BLOCK_BYTES);
    }
}
