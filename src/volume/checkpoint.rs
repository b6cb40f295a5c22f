//! The checkpoint: frozen layers become trees, one commit of the root table, then what it replaced is let go.
//!
//! Order: freeze under the locks; store pages and nodes; sync the segments; commit; only then publish the roots,
//! release the journal and drop references. A crash before the commit leaves the last checkpoint and a journal
//! that replays on it; after it, this one. No lock but the one that serialises checkpoints is held across I/O.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::catalog::Dirty;
use super::pages::Storing;
use super::roots::RootsChange;
use super::store::{Serial, StoreInner};
use super::types::Completion;
use super::unlogged::Unlogged;
use super::version::{Version, VersionState};
use crate::base::{Error, ErrorKind, Result};
use crate::format::Pointer;
use crate::format::catalog_records::{SnapshotRecord, TreeRoot, VolumeRecord};
use crate::format::journal::Start;

/// What a checkpoint works on, taken at one instant.
struct Frozen {
    start: Start,
    pending: Vec<Arc<Version>>,
    dirty: Dirty,
    volumes: Vec<(VolumeRecord, Arc<Version>, Option<Pointer>)>,
    snapshots: Vec<(SnapshotRecord, Arc<Version>, Option<Pointer>)>,
    next_view: u32,
}

/// Trees of versions that this checkpoint stores, by the version's address.
type Computed = HashMap<*const Version, TreeRoot>;

impl StoreInner {
    /// Runs one checkpoint in the calling thread and tells everybody who waits for one.
    pub(crate) fn run_checkpoint(&self) -> Result<()> {
        let mut serial = self.serial.lock();
        let waiters = {
            let mut requests = self.shared.requests.lock();
            requests.wanted = false;
            std::mem::take(&mut requests.waiters)
        };
        let result = self.checkpoint_with_reserve(&mut serial);
        drop(serial);
        if let Err(error) = &result {
            match error.kind() {
                // Nothing was committed, and nothing is lost: the changes wait in memory and in the journal.
                kind if blocks_only(kind) => self.shared.set_blocked(Some(error)),
                ErrorKind::Poisoned => {}
                _ => self.shared.fail(error),
            }
        }
        self.shared.room.notify_all();
        tell(waiters, &result);
        result
    }

    /// A full host leaves the reserve: with it what frees space can always be committed.
    fn checkpoint_with_reserve(&self, serial: &mut Serial) -> Result<()> {
        let full = |result: &Result<()>| matches!(result, Err(error) if error.kind() == ErrorKind::NoSpace);
        let mut result = self.checkpoint_once(serial);
        if full(&result) && self.spend_reserve() {
            result = self.checkpoint_once(serial);
        }
        // What was destroyed can go before what is new is stored.
        if full(&result) && self.reclaim_destroyed(serial)? {
            result = self.checkpoint_once(serial);
        }
        result
    }

    fn checkpoint_once(&self, serial: &mut Serial) -> Result<()> {
        self.shared.check_failed()?;
        if let Some(error) = self.shared.journal()?.poisoned() {
            // Callers were told that their changes may be lost: no later checkpoint may say otherwise.
            self.shared.fail(&error);
            return Err(error);
        }
        let frozen = self.freeze_all()?;
        let clean = frozen.pending.is_empty() && frozen.dirty.is_empty() && serial.condemned.is_empty();
        if clean {
            let journal = self.shared.journal()?;
            // Nothing has changed: all that the journal holds is in the roots, so nothing needs to be written
            // unless the ring must be freed.
            if journal.used_bytes() == 0 {
                self.shared.set_blocked(None);
                self.refresh_space();
                return Ok(());
            }
        }
        let mut storing = Storing::new(&self.shared, self.pool.as_ref());
        match self.store_and_commit(&frozen, &mut storing, serial) {
            Ok(computed) => {
                self.publish(frozen, &computed, &storing, serial).inspect_err(|error| {
                    // The commit stands, what works in memory may not agree with it.
                    self.shared.fail(error);
                })
            }
            Err(error) => {
                // Unless the host was full, the commit may have landed: its files stay until an open can tell.
                self.give_up(frozen, blocks_only(error.kind()));
                Err(error)
            }
        }
    }

    /// One instant of the whole store: layers frozen, the catalog's changes taken, the journal's position.
    fn freeze_all(&self) -> Result<Frozen> {
        // Nobody is between finding a pointer to share and putting it into a layer (see `View::copy_range`): the
        // block would be let go by a checkpoint that knows of its source's end, and not of its new user.
        let _gate = self.shared.gate.write();
        let journal = self.shared.journal()?;
        let mut catalog = self.catalog.lock();
        let start = journal.position();
        let ids: Vec<u32> = catalog.volumes.keys().copied().collect();
        for id in ids {
            let Some(entry) = catalog.volumes.get(&id) else { continue };
            let view = entry.view.clone();
            {
                let state = view.state.read();
                if state.live.is_empty() && state.inodes.is_empty() {
                    continue;
                }
            }
            let mut state = view.state.write();
            if view.freeze(&mut state) {
                state.frozen_seq = journal.position().seq;
                let unlogged = std::mem::take(&mut state.unlogged);
                state.frozen_unlogged.merge(unlogged);
                catalog.pending.push(state.base.clone());
                catalog.dirty.volumes.insert(id);
            }
        }
        let dirty = std::mem::take(&mut catalog.dirty);
        let mut volumes = Vec::with_capacity(dirty.volumes.len());
        for id in &dirty.volumes {
            let Some(entry) = catalog.volumes.get(id) else { continue };
            let state = entry.view.state.read();
            let record = VolumeRecord {
                id: *id,
                name: entry.name.clone(),
                origin: entry.origin.clone(),
                created_unix_nanos: entry.created_unix_nanos,
                quota_bytes: entry.quota_bytes,
                reservation_bytes: entry.reservation_bytes,
                applied_seq: state.frozen_seq.0.max(start.seq.0),
                tree: TreeRoot::default(),
            };
            volumes.push((record, state.base.clone(), entry.durable));
        }
        let mut snapshots = Vec::with_capacity(dirty.snapshots.len());
        for id in &dirty.snapshots {
            let Some(entry) = catalog.snapshots.get(id) else { continue };
            let record = SnapshotRecord {
                id: *id,
                volume: entry.volume,
                name: entry.name.clone(),
                created_unix_nanos: entry.created_unix_nanos,
                holds: entry.holds.clone(),
                tree: TreeRoot::default(),
            };
            snapshots.push((record, entry.version.clone(), entry.durable));
        }
        // What nobody refers to any more needs no storing: its volume or snapshot was destroyed. Children first, for
        // they hold their parents.
        for index in (0..catalog.pending.len()).rev() {
            if Arc::strong_count(&catalog.pending[index]) == 1 {
                let version = catalog.pending.remove(index);
                if let VersionState::Pending { layer, .. } = version.state() {
                    self.shared.frozen_cost.fetch_sub(layer.cost, Ordering::Relaxed);
                }
            }
        }
        let pending = catalog.pending.clone();
        Ok(Frozen { start, pending, dirty, volumes, snapshots, next_view: catalog.next_view })
    }

    fn store_and_commit(
        &self,
        frozen: &Frozen,
        storing: &mut Storing<'_>,
        serial: &mut Serial,
    ) -> Result<Computed> {
        let blocks = &self.shared.trees.blocks;
        let mut computed = Computed::new();
        for version in &frozen.pending {
            let VersionState::Pending { parent, layer, next_ino } = version.state() else { continue };
            let parent = tree_of(&parent, &computed)?;
            let tree = storing.layer(&parent, &layer, next_ino);
            let tree = tree.map_err(|error| match error.kind() {
                ErrorKind::Corrupt | ErrorKind::Unreadable => {
                    error.context(format!("{} cannot be stored", self.owner_of(version)))
                }
                _ => error,
            })?;
            computed.insert(Arc::as_ptr(version), tree);
            // The next layer reads this one's nodes.
            blocks.finish()?;
        }
        let mut change = RootsChange::default();
        for (record, version, durable) in &frozen.volumes {
            let tree = tree_of(version, &computed)?;
            self.hold_root(tree.root, *durable);
            change.volumes.push(VolumeRecord { tree, ..record.clone() });
        }
        for (record, version, durable) in &frozen.snapshots {
            let tree = tree_of(version, &computed)?;
            self.hold_root(tree.root, *durable);
            change.snapshots.push(SnapshotRecord { tree, ..record.clone() });
        }
        self.commit_roots(frozen, change, serial)?;
        Ok(computed)
    }

    /// Names a volume or snapshot that shows a version, for a message.
    fn owner_of(&self, version: &Arc<Version>) -> String {
        let catalog = self.catalog.lock();
        let shows = |base: &Arc<Version>| {
            let mut at = base.clone();
            loop {
                if Arc::ptr_eq(&at, version) {
                    return true;
                }
                match at.state() {
                    VersionState::Pending { parent, .. } => at = parent,
                    VersionState::Stored(_) => return false,
                }
            }
        };
        let mut volumes = catalog.volumes.values();
        let volume = volumes.find(|entry| shows(&entry.view.state.read().base));
        let name = volume.map(|entry| format!("volume {} (destroy it, or see `mount --rescue`)", entry.name));
        let snapshot = || {
            let mut snapshots = catalog.snapshots.values();
            snapshots.find(|entry| shows(&entry.version)).map(|entry| format!("snapshot {}", entry.name))
        };
        name.or_else(snapshot).unwrap_or_else(|| "what was destroyed".into())
    }

    fn commit_roots(&self, frozen: &Frozen, mut change: RootsChange, serial: &mut Serial) -> Result<()> {
        let blocks = &self.shared.trees.blocks;
        blocks.finish()?;
        blocks.sync()?;
        let (segments, next_segment, next_file) = blocks.changes();
        change.segments = segments.iter().map(|record| (**record).clone()).collect();
        change.removed_volumes = frozen.dirty.removed_volumes.iter().map(|(id, _)| *id).collect();
        change.removed_snapshots = frozen.dirty.removed_snapshots.iter().map(|(id, _)| *id).collect();
        change.removed_segments = self.still_dead(serial);
        let superblock = crate::format::catalog_records::Superblock {
            store_id: self.store_id,
            commit: 0,
            checkpoint: self.checkpoints.load(Ordering::Relaxed) + 1,
            journal: frozen.start,
            next_view: frozen.next_view,
            next_segment,
            next_file,
        };
        self.roots.commit(&superblock, &change)?;
        serial.superblock = superblock;
        Ok(())
    }

    /// Segments found dead by the last checkpoint that nothing has revived since.
    fn still_dead(&self, serial: &Serial) -> Vec<u32> {
        if self.shared.trees.is_incomplete() {
            return Vec::new();
        }
        let refs = self.shared.trees.refs.lock();
        serial.condemned.iter().copied().filter(|id| refs.segment(*id).live_slots == 0).collect()
    }

    fn hold_root(&self, root: Option<Pointer>, durable: Option<Pointer>) {
        if root != durable
            && let Some(root) = root
        {
            self.shared.trees.refs.lock().add(&root);
        }
    }

    /// The commit is durable: readers get the new roots, and what only the old ones held is let go.
    fn publish(
        &self,
        frozen: Frozen,
        computed: &Computed,
        storing: &Storing<'_>,
        serial: &mut Serial,
    ) -> Result<()> {
        let trees = &self.shared.trees;
        let removed = self.still_dead(serial);
        trees.blocks.committed();
        // What it took is counted before what it stored stops being dirty: in between nobody may have both.
        self.refresh_space();
        let mut released = Vec::new();
        {
            let mut catalog = self.catalog.lock();
            for (record, version, durable) in &frozen.volumes {
                let tree = tree_of(version, computed)?;
                if tree.root != *durable {
                    released.extend(*durable);
                }
                // Destroyed meanwhile: its removal lets go of what is durable now.
                if let Some(entry) = catalog.volumes.get_mut(&record.id) {
                    entry.durable = tree.root;
                    entry.applied_seq = record.applied_seq;
                    entry.stored = true;
                    entry.view.stored_pages.store(tree.pages, Ordering::Relaxed);
                    entry.view.state.write().frozen_unlogged = Unlogged::default();
                } else if let Some(gone) =
                    catalog.dirty.removed_volumes.iter_mut().find(|(id, _)| *id == record.id)
                {
                    gone.1 = tree.root;
                }
            }
            for (record, version, durable) in &frozen.snapshots {
                let tree = tree_of(version, computed)?;
                if tree.root != *durable {
                    released.extend(*durable);
                }
                if let Some(entry) = catalog.snapshots.get_mut(&record.id) {
                    entry.durable = tree.root;
                } else if let Some(gone) =
                    catalog.dirty.removed_snapshots.iter_mut().find(|(id, _)| *id == record.id)
                {
                    gone.1 = tree.root;
                }
            }
            catalog.pending.drain(..frozen.pending.len());
        }
        let destroyed =
            !frozen.dirty.removed_volumes.is_empty() || !frozen.dirty.removed_snapshots.is_empty();
        released.extend(frozen.dirty.removed_volumes.iter().filter_map(|(_, root)| *root));
        released.extend(frozen.dirty.removed_snapshots.iter().filter_map(|(_, root)| *root));
        for version in &frozen.pending {
            let VersionState::Pending { layer, .. } = version.state() else { continue };
            version.set_root(tree_of(version, computed)?);
            self.shared.frozen_cost.fetch_sub(layer.cost, Ordering::Relaxed);
        }
        self.shared.journal()?.release(&frozen.start);
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
        trees.forget_unused()?;
        storing.unpin()?;
        for root in released {
            trees.release_node(&root)?;
        }
        self.drop_dead_segments(&removed)?;
        if trees.is_incomplete() && destroyed {
            // Perhaps what could not be read was in there.
            self.rebuild_refs();
        }
        serial.condemned = self.dead_segments();
        self.shared.set_blocked(None);
        self.restore_reserve();
        self.refresh_space();
        if self.shared.options.background && !serial.condemned.is_empty() && self.shared.is_short_of_space() {
            // The next checkpoint gives these segments back.
            self.shared.request_checkpoint(None);
        }
        Ok(())
    }

    pub(crate) fn drop_dead_segments(&self, removed: &[u32]) -> Result<()> {
        if removed.is_empty() {
            return Ok(());
        }
        let files = {
            let _gate = self.shared.gate.write();
            self.shared.trees.blocks.drop_segments(removed)
        };
        let mut refs = self.shared.trees.refs.lock();
        for id in removed {
            refs.forget_segment(*id);
        }
        drop(refs);
        self.shared.trees.blocks.remove_files(&files)
    }

    /// Committed segments that nothing refers to; the next checkpoint drops them.
    pub(crate) fn dead_segments(&self) -> Vec<u32> {
        if self.shared.trees.is_incomplete() {
            return Vec::new();
        }
        let open = self.shared.trees.blocks.open_segment();
        let infos = self.shared.trees.blocks.segments();
        let refs = self.shared.trees.refs.lock();
        let dead = infos.iter().filter(|info| refs.segment(info.id).live_slots == 0);
        dead.map(|info| info.id).filter(|id| Some(*id) != open).collect()
    }

    /// The checkpoint did not happen: its changes wait for the next one. Reference counts are made anew from
    /// what is durable, which no half-done work has touched.
    fn give_up(&self, frozen: Frozen, remove_files: bool) {
        self.shared.trees.blocks.abandon(remove_files);
        self.catalog.lock().dirty.merge(frozen.dirty);
        self.rebuild_refs();
    }
}

/// Whether an error that ended a checkpoint came before its commit: nothing was lost, a later one may succeed.
pub(crate) fn blocks_only(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NoSpace | ErrorKind::Corrupt | ErrorKind::Unreadable)
}

fn tree_of(version: &Arc<Version>, computed: &Computed) -> Result<TreeRoot> {
    if let Some(tree) = computed.get(&Arc::as_ptr(version)) {
        return Ok(*tree);
    }
    version.root().ok_or_else(|| Error::new(ErrorKind::Io, "a version was not stored before its children"))
}

fn tell(waiters: Vec<Completion>, result: &Result<()>) {
    for waiter in waiters {
        waiter(match result {
            Ok(()) => Ok(()),
            Err(error) => Err(error.duplicate()),
        });
    }
}
