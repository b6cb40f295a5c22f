//! What of a view has changed since it was last in the journal or in a checkpoint.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::ranges::RangeSet;
use crate::format::PAGE_SIZE;
use crate::format::key::Ino;
use crate::format::log::Batch;

/// Unlogged changes of one file's data.
#[derive(Default)]
pub(crate) struct FileUnlogged {
    /// Changed bytes `from..to` within each page.
    pub(crate) pages: BTreeMap<u64, (u16, u16)>,
    /// Pages cleared; logged before the pages.
    pub(crate) cleared: RangeSet,
    pub(crate) bytes: u64,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Unlogged {
    /// Namespace changes, in order.
    pub(crate) batches: Vec<Batch>,
    pub(crate) batch_bytes: u64,
    /// Inodes with attributes changed outside of a batch.
    pub(crate) inodes: HashSet<Ino>,
    pub(crate) files: HashMap<Ino, FileUnlogged>,
}

/// Bytes a journal record adds to each change, at most.
const CHANGE_OVERHEAD: u64 = 64;

impl Unlogged {
    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.inodes.is_empty() && self.files.is_empty()
    }

    pub(crate) fn push_batch(&mut self, batch: Batch) {
        let bytes: u64 = batch
            .iter()
            .map(|(key, value)| 16 + key.len() as u64 + value.as_ref().map_or(0, |value| value.len() as u64))
            .sum();
        self.batch_bytes += bytes + CHANGE_OVERHEAD;
        self.batches.push(batch);
    }

    pub(crate) fn note(&mut self, ino: Ino, page: u64, from: usize, to: usize) {
        let file = self.files.entry(ino).or_default();
        let new = (from as u16, to as u16);
        match file.pages.entry(page) {
            std::collections::btree_map::Entry::Vacant(slot) => {
                slot.insert(new);
                file.bytes += (to - from) as u64 + CHANGE_OVERHEAD;
            }
            std::collections::btree_map::Entry::Occupied(mut slot) => {
                let old = *slot.get();
                let hull = (old.0.min(new.0), old.1.max(new.1));
                file.bytes += u64::from(hull.1 - hull.0) - u64::from(old.1 - old.0);
                slot.insert(hull);
            }
        }
    }

    pub(crate) fn note_clear(&mut self, ino: Ino, from: u64, to: u64) {
        let file = self.files.entry(ino).or_default();
        let gone: Vec<u64> = file.pages.range(from..to).map(|(page, _)| *page).collect();
        for page in gone {
            if let Some((start, end)) = file.pages.remove(&page) {
                file.bytes = file.bytes.saturating_sub(u64::from(end - start) + CHANGE_OVERHEAD);
            }
        }
        file.cleared.insert(from, to);
        file.bytes += CHANGE_OVERHEAD;
    }

    pub(crate) fn forget(&mut self, ino: Ino) {
        self.files.remove(&ino);
        self.inodes.remove(&ino);
    }

    /// Journal bytes that logging `ino` (or all, for `None`) takes, at most.
    pub(crate) fn bytes(&self, ino: Option<Ino>) -> u64 {
        const INODE_BYTES: u64 = 192;
        match ino {
            Some(ino) => self.batch_bytes + self.files.get(&ino).map_or(0, |file| file.bytes) + INODE_BYTES,
            None => {
                self.batch_bytes
                    + self.files.values().map(|file| file.bytes).sum::<u64>()
                    + self.inodes.len() as u64 * INODE_BYTES
            }
        }
    }

    /// Adds `newer` behind this.
    pub(crate) fn merge(&mut self, newer: Self) {
        self.batch_bytes += newer.batch_bytes;
        self.batches.extend(newer.batches);
        self.inodes.extend(newer.inodes);
        for (ino, file) in newer.files {
            for (from, to) in file.cleared.iter() {
                self.note_clear(ino, from, to);
            }
            for (page, (from, to)) in file.pages {
                self.note(ino, page, usize::from(from), usize::from(to).min(PAGE_SIZE));
            }
        }
    }
}
