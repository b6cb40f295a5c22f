//! Space when there is none: what was destroyed goes from the root table before anything new is stored.
//!
//! A checkpoint on a full host cannot store the changes that wait, and so cannot let go of what was destroyed either.
//! This commits the removals alone. The journal keeps all its records, and replays them over a root table that lacks
//! what they destroy later: `Replayed` knows what may be missing. What waits must not need the blocks that go:
//! where a clone is not in the root table yet, or a record shares a stored block, nothing is done.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use super::catalog::Catalog;
use super::layer::{Layer, PageEntry};
use super::roots::RootsChange;
use super::store::{Serial, StoreInner};
use super::version::VersionState;
use crate::base::{Error, ErrorKind, Result};
use crate::format::Pointer;
use crate::format::log::CatalogChange;

impl StoreInner {
    /// Lets go of destroyed volumes and snapshots, and of segments in which nothing is left. Answers whether there was
    /// something.
    pub(crate) fn reclaim_destroyed(&self, serial: &mut Serial) -> Result<bool> {
        let (volumes, snapshots) = {
            let catalog = self.catalog.lock();
            if !self.may_reclaim(&catalog, serial) {
                return Ok(false);
            }
            let in_table = |removed: &[(u32, Option<Pointer>)]| -> Vec<(u32, Pointer)> {
                removed.iter().filter_map(|(id, root)| root.map(|root| (*id, root))).collect()
            };
            (in_table(&catalog.dirty.removed_volumes), in_table(&catalog.dirty.removed_snapshots))
        };
        if !(volumes.is_empty() && snapshots.is_empty()) {
            let ids = |removed: &[(u32, Pointer)]| removed.iter().map(|(id, _)| *id).collect();
            let change = RootsChange {
                removed_volumes: ids(&volumes),
                removed_snapshots: ids(&snapshots),
                ..RootsChange::default()
            };
            if !self.commit_removal(serial, &change)? {
                return Ok(false);
            }
            {
                let mut catalog = self.catalog.lock();
                let gone =
                    |removed: &[(u32, Pointer)], id: &u32| removed.iter().any(|(other, _)| other == id);
                catalog.dirty.removed_volumes.retain(|(id, _)| !gone(&volumes, id));
                catalog.dirty.removed_snapshots.retain(|(id, _)| !gone(&snapshots, id));
            }
            for (_, root) in volumes.iter().chain(&snapshots) {
                self.shared.trees.release_node(root)?;
            }
        }
        let dead = self.dead_segments();
        if dead.is_empty() {
            return Ok(false);
        }
        let change = RootsChange { removed_segments: dead.clone(), ..RootsChange::default() };
        if !self.commit_removal(serial, &change)? {
            return Ok(false);
        }
        self.drop_dead_segments(&dead)?;
        serial.condemned = Vec::new();
        self.refresh_space();
        Ok(true)
    }

    /// Whether nothing that waits needs blocks of what was destroyed.
    fn may_reclaim(&self, catalog: &Catalog, serial: &Serial) -> bool {
        let shares = |layer: &Layer| {
            let mut pages = layer.files.values().flat_map(|file| file.pages.values());
            pages.any(|entry| matches!(entry, PageEntry::Stored(_)))
        };
        let new_clone = catalog.volumes.values().any(|entry| !entry.stored && entry.origin.is_some());
        let logged = self.shared.last_share.load(Ordering::Relaxed) >= serial.superblock.journal.seq.0;
        let live = || catalog.volumes.values().any(|entry| shares(&entry.view.state.read().live));
        let pending = || {
            catalog.pending.iter().any(|version| match version.state() {
                VersionState::Pending { layer, .. } => shares(&layer),
                VersionState::Stored(_) => false,
            })
        };
        !(new_clone || logged || live() || pending())
    }

    /// Commits removals to the root table. False when even that finds no space.
    fn commit_removal(&self, serial: &mut Serial, change: &RootsChange) -> Result<bool> {
        match self.commit_between(serial, change) {
            Err(error) if error.kind() == ErrorKind::NoSpace => Ok(false),
            result => result.map(|()| true),
        }
    }
}

/// Catalog changes while the journal is replayed.
#[derive(Default)]
pub(crate) struct Replayed {
    /// Made from what is gone already, and not destroyed yet.
    orphaned: HashSet<u32>,
}

impl Replayed {
    /// Whether `change` is to be applied: not if it is about something that a later record destroys, and that the root
    /// table has let go of already.
    pub(crate) fn applies(&mut self, catalog: &mut Catalog, change: &CatalogChange) -> bool {
        let volume = |id: &u32| catalog.volumes.contains_key(id);
        let snapshot = |id: &u32| catalog.snapshots.contains_key(id);
        let (known, made) = match change {
            CatalogChange::CreateVolume { .. } => (true, None),
            CatalogChange::CreateSnapshot { id, volume: of, .. } => (volume(of), Some(*id)),
            CatalogChange::CreateClone { id, snapshot: of, .. } => (snapshot(of), Some(*id)),
            CatalogChange::RenameVolume { id, .. } | CatalogChange::SetLimits { id, .. } => {
                (volume(id), None)
            }
            CatalogChange::SetHolds { id, .. } => (snapshot(id), None),
            CatalogChange::DestroyVolume { id } => {
                self.orphaned.remove(id);
                (volume(id), None)
            }
            CatalogChange::DestroySnapshot { id } => {
                self.orphaned.remove(id);
                (snapshot(id), None)
            }
        };
        if let (false, Some(id)) = (known, made) {
            self.orphaned.insert(id);
            catalog.next_view = catalog.next_view.max(id + 1);
        }
        known
    }

    /// All that was left out was destroyed in the end.
    pub(crate) fn finish(&self) -> Result<()> {
        match self.orphaned.iter().min() {
            None => Ok(()),
            Some(id) => Err(Error::corrupt(format!(
                "the journal makes {id} from a volume or snapshot that does not exist"
            ))),
        }
    }
}
