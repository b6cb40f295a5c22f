//! Storing a version: pages are hashed, deduplicated and compressed, then the trees over them are made.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use rayon::prelude::*;

use super::layer::{FileLayer, Layer, Page, PageEntry};
use super::shared::Shared;
use super::version::map_root;
use super::{btree, radix};
use crate::base::Result;
use crate::block::{Encoded, encode_content};
use crate::format::catalog_records::TreeRoot;
use crate::format::inode::MapRoot;
use crate::format::key::{self, Ino};
use crate::format::node::{Key, Value};
use crate::format::segment::BlockKind;
use crate::format::{BlockId, PAGE_SIZE, Pointer, block_id};

/// Pages hashed and compressed at a time.
const BATCH_PAGES: usize = 512;

/// What one checkpoint stores.
pub(crate) struct Storing<'a> {
    shared: &'a Shared,
    pool: Option<&'a rayon::ThreadPool>,
    /// Blocks of this checkpoint, and blocks it found to share. Each is held until the trees refer to it.
    pins: Mutex<Vec<Pointer>>,
    fresh: HashMap<BlockId, Pointer>,
}

enum Prepared {
    Zero,
    Found(BlockId, Pointer),
    New(BlockId, Encoded),
}

impl<'a> Storing<'a> {
    pub(crate) fn new(shared: &'a Shared, pool: Option<&'a rayon::ThreadPool>) -> Self {
        Self { shared, pool, pins: Mutex::new(Vec::new()), fresh: HashMap::new() }
    }

    /// Lets go of the blocks; those that no tree refers to are dead.
    pub(crate) fn unpin(&self) -> Result<()> {
        for pointer in std::mem::take(&mut *self.pins.lock()) {
            self.shared.trees.drop_reference(&pointer)?;
        }
        Ok(())
    }

    /// Applies a layer to a durable tree.
    pub(crate) fn layer(&mut self, parent: &TreeRoot, layer: &Layer, next_ino: Ino) -> Result<TreeRoot> {
        let trees = &self.shared.trees;
        let mut tree = TreeRoot { next_ino, ..*parent };
        let mut updates: BTreeMap<Key, Option<Value>> = layer.metadata.clone();
        for (item, value) in &layer.metadata {
            let (ino, kind, _) = key::split(item)?;
            if kind == key::kind::MAP && value.is_none() {
                let gone = map_root(trees, parent, ino)?;
                tree.pages = tree.pages.saturating_sub(gone.pages);
                tree.stored_bytes = tree.stored_bytes.saturating_sub(gone.stored_bytes);
            }
        }
        let mut inos: Vec<Ino> = layer.files.keys().copied().collect();
        inos.sort_unstable();
        for ino in inos {
            let exists = match layer.metadata.get(&key::inode(ino)) {
                Some(value) => value.is_some(),
                None => btree::get(trees, parent.root, &key::inode(ino))?.is_some(),
            };
            if !exists {
                continue;
            }
            let before = map_root(trees, parent, ino)?;
            let after = self.file(&before, &layer.files[&ino])?;
            tree.pages = (tree.pages + after.pages).saturating_sub(before.pages);
            tree.stored_bytes = (tree.stored_bytes + after.stored_bytes).saturating_sub(before.stored_bytes);
            if after != before {
                let value = after.root.map(|_| Value::from(after.encode()));
                updates.insert(key::map(ino), value);
            }
        }
        let updates: Vec<_> = updates.into_iter().collect();
        tree.root = btree::apply(trees, parent.root, &updates)?;
        Ok(tree)
    }

    fn file(&mut self, before: &MapRoot, file: &FileLayer) -> Result<MapRoot> {
        let mut updates: Vec<(u64, Option<Pointer>)> = Vec::with_capacity(file.pages.len());
        let mut waiting: Vec<(u64, Arc<Page>)> = Vec::new();
        for (page, entry) in &file.pages {
            match entry {
                PageEntry::Stored(pointer) => updates.push((*page, Some(*pointer))),
                PageEntry::Data(data) => waiting.push((*page, data.clone())),
            }
        }
        for batch in waiting.chunks(BATCH_PAGES) {
            let pointers = self.pages(batch)?;
            updates.extend(batch.iter().map(|(page, _)| *page).zip(pointers));
        }
        updates.sort_unstable_by_key(|(page, _)| *page);
        radix::apply(&self.shared.trees, before, &file.cleared, &updates)
    }

    fn pages(&mut self, batch: &[(u64, Arc<Page>)]) -> Result<Vec<Option<Pointer>>> {
        let prepare = |(_, page): &(u64, Arc<Page>)| self.prepare(page);
        let prepared: Vec<Prepared> = match self.pool {
            Some(pool) if batch.len() >= 16 => {
                pool.install(|| batch.par_iter().with_min_len(8).map(prepare).collect())
            }
            _ => batch.iter().map(prepare).collect(),
        };
        let mut out = Vec::with_capacity(batch.len());
        for ((_, page), prepared) in batch.iter().zip(prepared) {
            let pointer = match prepared {
                Prepared::Zero => None,
                Prepared::Found(id, pointer) => Some(match self.pin_live(&pointer) {
                    true => pointer,
                    // It died since its last reference went: it may be on its way out.
                    false => self.append(&id, &encode_content(page))?,
                }),
                Prepared::New(id, encoded) => Some(self.append(&id, &encoded)?),
            };
            out.push(pointer);
        }
        Ok(out)
    }

    fn prepare(&self, page: &Page) -> Prepared {
        if page.iter().all(|byte| *byte == 0) {
            return Prepared::Zero;
        }
        let id = block_id(page);
        if let Some(pointer) = self.fresh.get(&id) {
            return Prepared::Found(id, *pointer);
        }
        for place in self.shared.hints.candidates(&id).iter() {
            if let Some(pointer) = self.shared.trees.blocks.pointer_if(*place, &id) {
                return Prepared::Found(id, pointer);
            }
        }
        Prepared::New(id, encode_content(page))
    }

    fn pin_live(&self, pointer: &Pointer) -> bool {
        let mut refs = self.shared.trees.refs.lock();
        if refs.count(pointer.place) == 0 {
            return false;
        }
        refs.add(pointer);
        drop(refs);
        self.pins.lock().push(*pointer);
        true
    }

    fn append(&mut self, id: &BlockId, encoded: &Encoded) -> Result<Pointer> {
        // The same page may come twice in one batch.
        if let Some(pointer) = self.fresh.get(id).copied()
            && self.pin_live(&pointer)
        {
            return Ok(pointer);
        }
        let pointer = self.shared.trees.blocks.append(BlockKind::Page, id, encoded, PAGE_SIZE)?;
        self.shared.trees.refs.lock().add(&pointer);
        self.pins.lock().push(pointer);
        self.fresh.insert(*id, pointer);
        self.shared.hints.insert(id, pointer.place);
        Ok(pointer)
    }
}
