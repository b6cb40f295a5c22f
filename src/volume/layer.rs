//! Changes of a tree that are in memory only: metadata keys and file pages over whatever lies beneath.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::ranges::RangeSet;
use crate::format::key::Ino;
use crate::format::node::{Key, Value};
use crate::format::{PAGE_SIZE, Pointer};

/// A page of a file in memory: always `PAGE_SIZE` bytes.
pub(crate) type Page = [u8];

/// What a layer says of a page.
#[derive(Clone)]
pub(crate) enum PageEntry {
    Data(Arc<Page>),
    /// Shares a stored block.
    Stored(Pointer),
}

/// Changed pages of one file. A page with no entry that lies in `cleared` reads as zeros, whatever is beneath.
#[derive(Clone, Default)]
pub(crate) struct FileLayer {
    pub(crate) pages: BTreeMap<u64, PageEntry>,
    pub(crate) cleared: RangeSet,
}

/// What a layer knows of a page.
pub(crate) enum LayerPage<'a> {
    Entry(&'a PageEntry),
    Cleared,
    Unknown,
}

/// Bytes a page in memory costs, with its bookkeeping.
pub(crate) const PAGE_COST: u64 = PAGE_SIZE as u64 + 128;
/// Bytes an entry that shares a stored block costs.
pub(crate) const SHARE_COST: u64 = 96;

/// Changes over a base.
#[derive(Clone, Default)]
pub(crate) struct Layer {
    pub(crate) metadata: BTreeMap<Key, Option<Value>>,
    pub(crate) files: HashMap<Ino, FileLayer>,
    /// Memory taken, roughly, in bytes.
    pub(crate) cost: u64,
}

impl Layer {
    pub(crate) fn is_empty(&self) -> bool {
        self.metadata.is_empty() && self.files.is_empty()
    }

    pub(crate) fn put(&mut self, key: Key, value: Option<Value>) {
        self.cost += 128 + key.len() as u64 + value.as_ref().map_or(0, |value| value.len() as u64);
        self.metadata.insert(key, value);
    }

    pub(crate) fn page(&self, ino: Ino, page: u64) -> LayerPage<'_> {
        let Some(file) = self.files.get(&ino) else { return LayerPage::Unknown };
        match file.pages.get(&page) {
            Some(entry) => LayerPage::Entry(entry),
            None if file.cleared.end_of(page).is_some() => LayerPage::Cleared,
            None => LayerPage::Unknown,
        }
    }

    /// Sets a page; answers the bytes of memory added.
    pub(crate) fn set_page(&mut self, ino: Ino, page: u64, entry: PageEntry) -> u64 {
        let cost = |entry: &PageEntry| match entry {
            PageEntry::Data(_) => PAGE_COST,
            PageEntry::Stored(_) => SHARE_COST,
        };
        let new = cost(&entry);
        let old = self.files.entry(ino).or_default().pages.insert(page, entry).map_or(0, |old| cost(&old));
        self.cost = self.cost + new - old.min(self.cost + new);
        new.saturating_sub(old)
    }

    /// Makes `from..to` read as zeros.
    pub(crate) fn clear_pages(&mut self, ino: Ino, from: u64, to: u64) {
        let file = self.files.entry(ino).or_default();
        let gone: Vec<u64> = file.pages.range(from..to).map(|(page, _)| *page).collect();
        for page in gone {
            if let Some(entry) = file.pages.remove(&page) {
                let cost = if matches!(entry, PageEntry::Data(_)) { PAGE_COST } else { SHARE_COST };
                self.cost = self.cost.saturating_sub(cost);
            }
        }
        file.cleared.insert(from, to);
    }

    pub(crate) fn forget_file(&mut self, ino: Ino) {
        if let Some(file) = self.files.remove(&ino) {
            let cost: u64 = file
                .pages
                .values()
                .map(|entry| if matches!(entry, PageEntry::Data(_)) { PAGE_COST } else { SHARE_COST })
                .sum();
            self.cost = self.cost.saturating_sub(cost);
        }
    }
}
