//! A version of a tree: durable, or a layer of changes over its parent that a checkpoint has yet to store.
//!
//! Versions never change what they say, only how: a checkpoint turns layer and parent into a durable root.
//! Views, snapshots and clones share them.

use std::sync::Arc;

use parking_lot::RwLock;

use super::layer::{Layer, LayerPage, Page, PageEntry};
use super::trees::Trees;
use super::{btree, radix};
use crate::base::Result;
use crate::format::Pointer;
use crate::format::catalog_records::TreeRoot;
use crate::format::inode::MapRoot;
use crate::format::key::{self, Ino};
use crate::format::node::{Key, Value};

#[derive(Clone)]
pub(crate) enum VersionState {
    Pending { parent: Arc<Version>, layer: Arc<Layer>, next_ino: Ino },
    Stored(TreeRoot),
}

/// See the module.
pub(crate) struct Version {
    state: RwLock<VersionState>,
}

/// Where a page's bytes are.
#[derive(Clone)]
pub(crate) enum PageSource {
    Zero,
    Data(Arc<Page>),
    Stored(Pointer),
}

impl From<&PageEntry> for PageSource {
    fn from(entry: &PageEntry) -> Self {
        match entry {
            PageEntry::Data(page) => Self::Data(page.clone()),
            PageEntry::Stored(pointer) => Self::Stored(*pointer),
        }
    }
}

impl Version {
    pub(crate) fn stored(root: TreeRoot) -> Arc<Self> {
        Arc::new(Self { state: RwLock::new(VersionState::Stored(root)) })
    }

    pub(crate) fn pending(parent: Arc<Self>, layer: Arc<Layer>, next_ino: Ino) -> Arc<Self> {
        Arc::new(Self { state: RwLock::new(VersionState::Pending { parent, layer, next_ino }) })
    }

    pub(crate) fn state(&self) -> VersionState {
        self.state.read().clone()
    }

    /// The durable root, once there is one.
    pub(crate) fn root(&self) -> Option<TreeRoot> {
        match &*self.state.read() {
            VersionState::Stored(root) => Some(*root),
            VersionState::Pending { .. } => None,
        }
    }

    /// A checkpoint has stored this version.
    pub(crate) fn set_root(&self, root: TreeRoot) {
        // The old state is dropped after the lock: it may free many pages.
        let old = std::mem::replace(&mut *self.state.write(), VersionState::Stored(root));
        drop(old);
    }

    pub(crate) fn get(self: &Arc<Self>, trees: &Trees, key: &[u8]) -> Result<Option<Value>> {
        let mut version = self.clone();
        loop {
            match version.state() {
                VersionState::Stored(root) => return btree::get(trees, root.root, key),
                VersionState::Pending { parent, layer, .. } => {
                    if let Some(value) = layer.metadata.get(key) {
                        return Ok(value.clone());
                    }
                    version = parent;
                }
            }
        }
    }

    /// Sources of `pages`, in their order.
    pub(crate) fn pages(self: &Arc<Self>, trees: &Trees, ino: Ino, pages: &[u64]) -> Result<Vec<PageSource>> {
        let mut out: Vec<Option<PageSource>> = vec![None; pages.len()];
        let mut version = self.clone();
        loop {
            match version.state() {
                VersionState::Stored(root) => {
                    let map = map_root(trees, &root, ino)?;
                    for (slot, page) in out.iter_mut().zip(pages) {
                        if slot.is_none() {
                            let found = radix::get(trees, &map, *page)?;
                            *slot = Some(found.map_or(PageSource::Zero, PageSource::Stored));
                        }
                    }
                    return Ok(out.into_iter().flatten().collect());
                }
                VersionState::Pending { parent, layer, .. } => {
                    for (slot, page) in out.iter_mut().zip(pages) {
                        if slot.is_none() {
                            *slot = match layer.page(ino, *page) {
                                LayerPage::Entry(entry) => Some(entry.into()),
                                LayerPage::Cleared => Some(PageSource::Zero),
                                LayerPage::Unknown => None,
                            };
                        }
                    }
                    if out.iter().all(Option::is_some) {
                        return Ok(out.into_iter().flatten().collect());
                    }
                    version = parent;
                }
            }
        }
    }

    pub(crate) fn page(self: &Arc<Self>, trees: &Trees, ino: Ino, page: u64) -> Result<PageSource> {
        Ok(self.pages(trees, ino, &[page])?.pop().unwrap_or(PageSource::Zero))
    }

    /// The layers above the durable root, newest first, and the root.
    pub(crate) fn chain(self: &Arc<Self>) -> (Vec<Arc<Layer>>, TreeRoot) {
        let mut layers = Vec::new();
        let mut version = self.clone();
        loop {
            match version.state() {
                VersionState::Stored(root) => return (layers, root),
                VersionState::Pending { parent, layer, .. } => {
                    layers.push(layer);
                    version = parent;
                }
            }
        }
    }

    /// Up to `limit` items from key `from` on while `within` holds, the layers merged, newest first; `top` lies
    /// over this version.
    pub(crate) fn scan(
        self: &Arc<Self>,
        trees: &Trees,
        top: Option<&Layer>,
        from: &[u8],
        limit: usize,
        within: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Vec<(Key, Value)>> {
        let (layers, root) = self.chain();
        let mut start = from.to_vec();
        let mut out = Vec::new();
        loop {
            let want = (limit - out.len()).max(16);
            let mut items: Vec<(Key, Value)> = Vec::with_capacity(want.min(1024));
            let mut more = false;
            btree::scan(trees, root.root, &start, &mut |key, value| {
                more = items.len() >= want && within(key);
                if more || !within(key) {
                    return false;
                }
                items.push((key.clone(), value.clone()));
                true
            })?;
            // Beyond the last item read, the base is not known: merge only up to there.
            let end = if more { items.last().map(|(key, _)| key.clone()) } else { None };
            let mut merged: std::collections::BTreeMap<Key, Option<Value>> =
                items.into_iter().map(|(key, value)| (key, Some(value))).collect();
            for layer in layers.iter().map(AsRef::as_ref).rev().chain(top) {
                let changes = layer.metadata.range(start.clone()..);
                let inside = |key: &[u8]| within(key) && end.as_deref().is_none_or(|end| key <= end);
                for (key, value) in changes.take_while(|(key, _)| inside(key)) {
                    merged.insert(key.clone(), value.clone());
                }
            }
            let found = merged.into_iter().filter_map(|(key, value)| value.map(|value| (key, value)));
            out.extend(found.take(limit - out.len()));
            match end {
                Some(mut end) if out.len() < limit => {
                    end.push(0);
                    start = end;
                }
                _ => return Ok(out),
            }
        }
    }
}

/// The mapping of a file in a durable tree.
pub(crate) fn map_root(trees: &Trees, root: &TreeRoot, ino: Ino) -> Result<MapRoot> {
    match btree::get(trees, root.root, &key::map(ino))? {
        Some(value) => MapRoot::decode(&value),
        None => Ok(MapRoot::default()),
    }
}
