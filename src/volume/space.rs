//! Space: what volumes and snapshots take, what the host has left, and the reserve for a full host.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use super::store::{Store, StoreInner};
use super::trees::{Child, Trees, for_each_child};
use super::types::{SnapshotInfo, StoreStats, ViewId, VolumeInfo};
use crate::base::{Error, OpenMode, Result, SpaceInfo};
use crate::format::catalog_records::TreeRoot;
use crate::format::segment::ENTRY_BYTES;
use crate::format::{PAGE_SIZE, Place, Pointer};

/// Space taken at creation and let go when the host is full, so that a destroy can be committed.
pub(crate) const RESERVE_FILE: &str = "reserve";
/// At most this many bytes, and at most 1/32 of the host's file system.
const RESERVE_BYTES: u64 = 16 << 20;
/// Bytes a checkpoint may take for directories and the root table beyond its blocks.
const SLACK_BYTES: u64 = 2 << 20;

/// Bytes that dropping one reference to `root` would free.
pub(crate) fn freed_by_release(trees: &Trees, root: &Pointer) -> Result<u64> {
    let mut dropped: HashMap<Place, u64> = HashMap::new();
    let mut freed = 0;
    let mut stack = vec![*root];
    let mut last = |pointer: &Pointer| -> bool {
        let count = trees.refs.lock().count(pointer.place);
        if count > 1 {
            let gone = dropped.entry(pointer.place).or_insert(0);
            *gone += 1;
            if *gone < count {
                return false;
            }
        }
        freed += u64::from(pointer.stored_bytes) + ENTRY_BYTES as u64;
        true
    };
    while let Some(pointer) = stack.pop() {
        if !last(&pointer) {
            continue;
        }
        // What cannot be read frees nothing that is known.
        let Ok(node) = trees.node(&pointer) else { continue };
        for_each_child(&node, &mut |child, kind| match kind {
            Child::Node => stack.push(*child),
            Child::Page => {
                last(child);
            }
        })?;
    }
    Ok(freed)
}

/// How large the reserve is on a host of this size.
fn reserve_bytes(space: &SpaceInfo) -> u64 {
    RESERVE_BYTES.min(space.total_bytes / 32) / 4096 * 4096
}

impl StoreInner {
    /// What destroying the holder of `root` frees, remembered until the next checkpoint.
    fn unique_bytes(&self, root: Option<Pointer>) -> Result<u64> {
        let Some(root) = root else { return Ok(0) };
        let checkpoint = self.checkpoints.load(Ordering::Relaxed);
        if let Some((at, bytes)) = self.unique.lock().get(&root.place).copied()
            && at == checkpoint
        {
            return Ok(bytes);
        }
        let bytes = freed_by_release(&self.shared.trees, &root)?;
        let mut unique = self.unique.lock();
        unique.retain(|_, (at, _)| *at == checkpoint);
        unique.insert(root.place, (checkpoint, bytes));
        Ok(bytes)
    }

    /// Takes the host's figure anew.
    pub(crate) fn refresh_space(&self) {
        let Ok(space) = self.shared.storage.space() else { return };
        // A reserve that was spent comes before what writers may take.
        let missing = reserve_bytes(&space).saturating_sub(self.reserve_bytes.load(Ordering::Relaxed));
        let free = space.available_bytes.saturating_sub(SLACK_BYTES + missing);
        self.shared.free_bytes.store(free, Ordering::Relaxed);
        let catalog = self.catalog.lock();
        let unused = catalog.volumes.iter().filter_map(|(id, entry)| {
            let used = entry.view.stored_pages.load(Ordering::Relaxed) * PAGE_SIZE as u64;
            let left = entry.reservation_bytes?.saturating_sub(used);
            Some((ViewId(*id), left))
        });
        *self.shared.reserved.lock() = unused.collect();
    }

    /// Lets the reserve go. Answers whether there was one.
    pub(crate) fn spend_reserve(&self) -> bool {
        let bytes = self.reserve_bytes.swap(0, Ordering::Relaxed);
        bytes > 0 && self.shared.storage.remove(RESERVE_FILE).is_ok()
    }

    /// Takes the reserve again once the host has plenty.
    pub(crate) fn restore_reserve(&self) {
        if self.reserve_bytes.load(Ordering::Relaxed) > 0 || self.shared.options.read_only {
            return;
        }
        let Ok(space) = self.shared.storage.space() else { return };
        let bytes = reserve_bytes(&space);
        if bytes == 0 || space.available_bytes < bytes + SLACK_BYTES {
            return;
        }
        let _ = self.shared.storage.remove(RESERVE_FILE);
        let file = self.shared.storage.open(RESERVE_FILE, OpenMode::CreateNew);
        if file.and_then(|file| file.allocate(0, bytes)).is_ok() {
            self.reserve_bytes.store(bytes, Ordering::Relaxed);
        }
    }
}

impl Store {
    /// All volumes with their figures, by name. Changes in memory are stored first, so that the figures are exact.
    pub fn volumes(&self) -> Result<Vec<VolumeInfo>> {
        self.settle()?;
        // No checkpoint between looking at the roots and walking them.
        let _serial = self.inner.serial.lock();
        let rows: Vec<(VolumeInfo, TreeRoot)> = {
            let catalog = self.inner.catalog.lock();
            catalog
                .volumes
                .values()
                .map(|entry| {
                    let tree = entry.view.state.read().base.chain().1;
                    let info = VolumeInfo {
                        id: entry.view.id(),
                        name: entry.name.clone(),
                        origin: entry.origin.clone(),
                        created_unix_nanos: entry.created_unix_nanos,
                        logical_bytes: tree.pages * PAGE_SIZE as u64,
                        referenced_bytes: tree.stored_bytes,
                        unique_bytes: 0,
                        quota_bytes: entry.quota_bytes,
                        reservation_bytes: entry.reservation_bytes,
                        snapshots: entry.snapshots.len() as u64,
                    };
                    (info, tree)
                })
                .collect()
        };
        let mut out = Vec::with_capacity(rows.len());
        for (mut info, tree) in rows {
            info.unique_bytes = self.inner.unique_bytes(tree.root)?;
            out.push(info);
        }
        out.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(out)
    }

    /// Snapshots with their figures, of one volume or of all, oldest first.
    pub fn snapshots(&self, volume: Option<&str>) -> Result<Vec<SnapshotInfo>> {
        self.settle()?;
        let _serial = self.inner.serial.lock();
        let rows: Vec<(SnapshotInfo, TreeRoot)> = {
            let catalog = self.inner.catalog.lock();
            let only = volume.map(|name| catalog.volume_id(name)).transpose()?;
            let mut clones: HashMap<&str, Vec<String>> = HashMap::new();
            for entry in catalog.volumes.values() {
                if let Some(origin) = &entry.origin {
                    clones.entry(origin).or_default().push(entry.name.clone());
                }
            }
            catalog
                .snapshots
                .iter()
                .filter(|(_, entry)| only.is_none_or(|id| id == entry.volume))
                .map(|(id, entry)| {
                    let tree = entry.version.chain().1;
                    let volume = catalog.volumes.get(&entry.volume);
                    let volume = volume.map_or_else(|| "?".to_owned(), |volume| volume.name.clone());
                    let full = format!("{volume}@{}", entry.name);
                    let info = SnapshotInfo {
                        id: ViewId(*id),
                        volume,
                        name: entry.name.clone(),
                        created_unix_nanos: entry.created_unix_nanos,
                        logical_bytes: tree.pages * PAGE_SIZE as u64,
                        referenced_bytes: tree.stored_bytes,
                        unique_bytes: 0,
                        holds: entry.holds.clone(),
                        clones: clones.get(full.as_str()).cloned().unwrap_or_default(),
                    };
                    (info, tree)
                })
                .collect()
        };
        let mut out = Vec::with_capacity(rows.len());
        for (mut info, tree) in rows {
            info.unique_bytes = self.inner.unique_bytes(tree.root)?;
            out.push(info);
        }
        Ok(out)
    }

    pub fn snapshot_info(&self, volume: &str, name: &str) -> Result<SnapshotInfo> {
        let found = self.snapshots(Some(volume))?.into_iter().find(|info| info.name == name);
        found.ok_or_else(|| Error::not_found(format!("no snapshot {volume}@{name}")))
    }

    pub fn volume_info(&self, name: &str) -> Result<VolumeInfo> {
        let found = self.volumes()?.into_iter().find(|info| info.name == name);
        found.ok_or_else(|| Error::not_found(format!("no volume {name:?}")))
    }

    /// Stores what is in memory, and lets go of what was destroyed: until then its references count.
    fn settle(&self) -> Result<()> {
        if self.inner.shared.options.read_only {
            return Ok(());
        }
        let settled = {
            let catalog = self.inner.catalog.lock();
            catalog.dirty.is_empty() && catalog.pending.is_empty()
        };
        if settled && self.inner.shared.dirty_bytes() == 0 {
            return Ok(());
        }
        match self.checkpoint() {
            // Then the figures are those of the last checkpoint.
            Err(error) if super::checkpoint::blocks_only(error.kind()) => Ok(()),
            result => result,
        }
    }

    /// Figures of the whole store.
    pub fn stats(&self) -> Result<StoreStats> {
        self.settle()?;
        let trees = &self.inner.shared.trees;
        let (logical_pages, volumes, snapshots) = {
            let catalog = self.inner.catalog.lock();
            let heads = catalog.volumes.values().map(|entry| entry.view.state.read().base.chain().1.pages);
            let images = catalog.snapshots.values().map(|entry| entry.version.chain().1.pages);
            let pages: u64 = heads.sum::<u64>() + images.sum::<u64>();
            (pages, catalog.volumes.len() as u64, catalog.snapshots.len() as u64)
        };
        let (live_blocks, live_bytes) = {
            let refs = trees.refs.lock();
            (refs.live_blocks(), refs.live_bytes())
        };
        let nodes = trees.figures.blocks.load(Ordering::Relaxed);
        let node_bytes = trees.figures.bytes.load(Ordering::Relaxed);
        let segments = trees.blocks.segments();
        let segment_bytes: u64 = segments.iter().map(|info| info.bytes).sum();
        let entries: u64 = segments.iter().map(|info| info.entries).sum();
        let journal = self.inner.shared.journal.get();
        let journal_bytes = journal.map_or(0, |journal| journal.capacity_bytes());
        let stored_bytes = live_blocks.saturating_sub(nodes) * PAGE_SIZE as u64;
        let page_bytes = live_bytes.saturating_sub(node_bytes);
        let logical_bytes = logical_pages * PAGE_SIZE as u64;
        let ratio = |over: u64, under: u64| if under == 0 { 1.0 } else { over as f64 / under as f64 };
        let live_total = live_bytes + live_blocks * ENTRY_BYTES as u64;
        Ok(StoreStats {
            logical_bytes,
            stored_bytes,
            physical_bytes: trees.blocks.physical_bytes()? + self.inner.roots.file_bytes() + journal_bytes,
            dedup_ratio: ratio(logical_bytes, stored_bytes),
            compression_ratio: ratio(stored_bytes, page_bytes),
            journal_bytes,
            journal_used_bytes: journal.map_or(0, |journal| journal.used_bytes()),
            segments: segments.len() as u64,
            free_bytes: self.space().available_bytes,
            live_bytes: live_total,
            dead_bytes: segment_bytes.saturating_sub(live_total) * u64::from(entries > 0),
            dirty_bytes: self.inner.shared.dirty_bytes(),
            checkpoints: self.inner.checkpoints.load(Ordering::Relaxed),
            volumes,
            snapshots,
        })
    }
}
