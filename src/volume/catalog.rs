//! Volumes and snapshots in memory, and what of them the root table does not have yet.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::shared::Shared;
use super::types::ViewId;
use super::version::{Version, VersionState};
use super::view::{View, ViewState};
use crate::base::{Error, ErrorKind, Result};
use crate::format::Pointer;
use crate::format::catalog_records::{SnapshotRecord, TreeRoot, VolumeRecord};
use crate::format::key::Ino;
use crate::format::log::CatalogChange;

pub(crate) struct VolumeEntry {
    pub(crate) view: Arc<View>,
    pub(crate) name: String,
    pub(crate) origin: Option<String>,
    pub(crate) created_unix_nanos: i64,
    pub(crate) quota_bytes: Option<u64>,
    pub(crate) reservation_bytes: Option<u64>,
    pub(crate) snapshots: BTreeMap<String, u32>,
    /// The root the root table has, which holds a reference.
    pub(crate) durable: Option<Pointer>,
    /// Journal records below this are in the root table's tree.
    pub(crate) applied_seq: u64,
    /// The root table has it.
    pub(crate) stored: bool,
}

pub(crate) struct SnapshotEntry {
    pub(crate) volume: u32,
    pub(crate) name: String,
    pub(crate) created_unix_nanos: i64,
    pub(crate) holds: Vec<String>,
    pub(crate) version: Arc<Version>,
    /// Made when first asked for.
    pub(crate) view: Option<Arc<View>>,
    pub(crate) durable: Option<Pointer>,
}

#[derive(Default)]
pub(crate) struct Catalog {
    pub(crate) volumes: BTreeMap<u32, VolumeEntry>,
    pub(crate) names: HashMap<String, u32>,
    pub(crate) snapshots: BTreeMap<u32, SnapshotEntry>,
    pub(crate) next_view: u32,
    pub(crate) dirty: Dirty,
    /// Frozen versions that no checkpoint has stored, parents first.
    pub(crate) pending: Vec<Arc<Version>>,
}

/// What the next checkpoint writes into the root table.
#[derive(Default)]
pub(crate) struct Dirty {
    pub(crate) volumes: BTreeSet<u32>,
    pub(crate) snapshots: BTreeSet<u32>,
    /// With the root to let go once they are gone from the root table.
    pub(crate) removed_volumes: Vec<(u32, Option<Pointer>)>,
    pub(crate) removed_snapshots: Vec<(u32, Option<Pointer>)>,
}

impl Dirty {
    pub(crate) fn is_empty(&self) -> bool {
        self.volumes.is_empty()
            && self.snapshots.is_empty()
            && self.removed_volumes.is_empty()
            && self.removed_snapshots.is_empty()
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.volumes.extend(other.volumes);
        self.snapshots.extend(other.snapshots);
        self.removed_volumes.extend(other.removed_volumes);
        self.removed_snapshots.extend(other.removed_snapshots);
    }
}

pub(crate) fn next_ino(version: &Version) -> Ino {
    match version.state() {
        VersionState::Pending { next_ino, .. } => next_ino,
        VersionState::Stored(root) => root.next_ino,
    }
}

impl Catalog {
    pub(crate) fn volume_id(&self, name: &str) -> Result<u32> {
        self.names.get(name).copied().ok_or_else(|| Error::not_found(format!("no volume {name:?}")))
    }

    pub(crate) fn volume(&self, name: &str) -> Result<&VolumeEntry> {
        let id = self.volume_id(name)?;
        self.volumes.get(&id).ok_or_else(|| Error::not_found(format!("no volume {name:?}")))
    }

    pub(crate) fn snapshot_id(&self, volume: &str, name: &str) -> Result<u32> {
        let found = self.volume(volume)?.snapshots.get(name).copied();
        found.ok_or_else(|| Error::not_found(format!("no snapshot {volume}@{name}")))
    }

    pub(crate) fn check_free(&self, name: &str) -> Result<()> {
        if self.names.contains_key(name) {
            return Err(Error::new(ErrorKind::Exists, format!("volume {name:?} exists")));
        }
        Ok(())
    }

    /// Roots that the root table has or is about to remove: each holds a reference.
    pub(crate) fn durable_roots(&self) -> Vec<Pointer> {
        let volumes = self.volumes.values().filter_map(|entry| entry.durable);
        let snapshots = self.snapshots.values().filter_map(|entry| entry.durable);
        let removed = self.dirty.removed_volumes.iter().chain(&self.dirty.removed_snapshots);
        volumes.chain(snapshots).chain(removed.filter_map(|(_, root)| *root)).collect()
    }

    /// Freezes a view's live layer and remembers the version for the next checkpoint.
    pub(crate) fn cut(&mut self, view: &View, state: &mut ViewState) {
        if view.freeze(state) {
            self.pending.push(state.base.clone());
            self.dirty.volumes.insert(view.id.0);
        }
    }

    /// Carries out a change that is journaled, or replayed. The checks were made before. `cut` is the version of a
    /// snapshot that was cut already.
    pub(crate) fn apply(
        &mut self,
        shared: &Arc<Shared>,
        change: &CatalogChange,
        cut: Option<Arc<Version>>,
    ) -> Result<()> {
        match change {
            CatalogChange::CreateVolume { id, name, created_unix_nanos } => {
                let base = Version::stored(TreeRoot::default());
                let view = View::new(ViewId(*id), shared.clone(), name, base, 0, shared.options.read_only);
                view.make_root(*created_unix_nanos)?;
                self.add_volume(*id, name, None, *created_unix_nanos, view);
            }
            CatalogChange::CreateClone { id, name, snapshot, created_unix_nanos } => {
                let entry = self.snapshots.get(snapshot).ok_or_else(|| unknown("snapshot", *snapshot))?;
                let volume = self.volumes.get(&entry.volume);
                let volume = volume.map_or("?", |volume| volume.name.as_str());
                let origin = format!("{volume}@{}", entry.name);
                let base = entry.version.clone();
                let next_ino = next_ino(&base);
                let view =
                    View::new(ViewId(*id), shared.clone(), name, base, next_ino, shared.options.read_only);
                self.add_volume(*id, name, Some(origin), *created_unix_nanos, view);
            }
            CatalogChange::RenameVolume { id, name } => {
                let entry = self.volumes.get_mut(id).ok_or_else(|| unknown("volume", *id))?;
                self.names.remove(&entry.name);
                self.names.insert(name.clone(), *id);
                let old = std::mem::replace(&mut entry.name, name.clone());
                (*entry.view.name.lock()).clone_from(name);
                self.dirty.volumes.insert(*id);
                let snapshots = entry.snapshots.clone();
                self.rename_in_snapshots(&snapshots, &old, name);
            }
            CatalogChange::DestroyVolume { id } => {
                let entry = self.volumes.remove(id).ok_or_else(|| unknown("volume", *id))?;
                self.names.remove(&entry.name);
                entry.view.destroyed.store(true, Ordering::Release);
                let mut state = entry.view.state.write();
                entry.view.account(state.live.cost, 0);
                state.live = super::layer::Layer::default();
                state.base = Version::stored(TreeRoot::default());
                self.dirty.volumes.remove(id);
                self.dirty.removed_volumes.push((*id, entry.durable));
            }
            CatalogChange::CreateSnapshot { id, volume, name, created_unix_nanos } => {
                let view = self.volumes.get(volume).map(|entry| entry.view.clone());
                let view = view.ok_or_else(|| unknown("volume", *volume))?;
                let version = match cut {
                    Some(version) => version,
                    None => {
                        let mut state = view.state.write();
                        self.cut(&view, &mut state);
                        state.base.clone()
                    }
                };
                let entry = self.volumes.get_mut(volume).ok_or_else(|| unknown("volume", *volume))?;
                entry.snapshots.insert(name.clone(), *id);
                let snapshot = SnapshotEntry {
                    volume: *volume,
                    name: name.clone(),
                    created_unix_nanos: *created_unix_nanos,
                    holds: Vec::new(),
                    version,
                    view: None,
                    durable: None,
                };
                self.snapshots.insert(*id, snapshot);
                self.dirty.snapshots.insert(*id);
                self.next_view = self.next_view.max(id + 1);
            }
            CatalogChange::DestroySnapshot { id } => {
                let entry = self.snapshots.remove(id).ok_or_else(|| unknown("snapshot", *id))?;
                if let Some(volume) = self.volumes.get_mut(&entry.volume) {
                    volume.snapshots.remove(&entry.name);
                }
                if let Some(view) = &entry.view {
                    view.destroyed.store(true, Ordering::Release);
                }
                self.dirty.snapshots.remove(id);
                self.dirty.removed_snapshots.push((*id, entry.durable));
            }
            CatalogChange::SetHolds { id, holds } => {
                let entry = self.snapshots.get_mut(id).ok_or_else(|| unknown("snapshot", *id))?;
                entry.holds.clone_from(holds);
                self.dirty.snapshots.insert(*id);
            }
            CatalogChange::SetLimits { id, quota_bytes, reservation_bytes } => {
                let entry = self.volumes.get_mut(id).ok_or_else(|| unknown("volume", *id))?;
                entry.quota_bytes = *quota_bytes;
                entry.reservation_bytes = *reservation_bytes;
                entry.view.quota_bytes.store(quota_bytes.unwrap_or(0), Ordering::Relaxed);
                self.dirty.volumes.insert(*id);
            }
        }
        Ok(())
    }

    /// Names that have the volume's name in them follow it: those of its snapshots, and the origins of their clones.
    fn rename_in_snapshots(&mut self, snapshots: &BTreeMap<String, u32>, old: &str, new: &str) {
        for (name, id) in snapshots {
            if let Some(view) = self.snapshots.get(id).and_then(|snapshot| snapshot.view.as_ref()) {
                *view.name.lock() = format!("{new}@{name}");
            }
        }
        for (id, entry) in &mut self.volumes {
            let origin = entry.origin.as_deref().and_then(|origin| origin.split_once('@'));
            if let Some((_, name)) =
                origin.filter(|(volume, name)| *volume == old && snapshots.contains_key(*name))
            {
                entry.origin = Some(format!("{new}@{name}"));
                self.dirty.volumes.insert(*id);
            }
        }
    }

    fn add_volume(&mut self, id: u32, name: &str, origin: Option<String>, created: i64, view: Arc<View>) {
        let entry = VolumeEntry {
            view,
            name: name.to_owned(),
            origin,
            created_unix_nanos: created,
            quota_bytes: None,
            reservation_bytes: None,
            snapshots: BTreeMap::new(),
            durable: None,
            applied_seq: 0,
            stored: false,
        };
        self.volumes.insert(id, entry);
        self.names.insert(name.to_owned(), id);
        self.dirty.volumes.insert(id);
        self.next_view = self.next_view.max(id + 1);
    }

    /// The catalog as the root table has it.
    pub(crate) fn load(
        shared: &Arc<Shared>,
        volumes: Vec<VolumeRecord>,
        snapshots: Vec<SnapshotRecord>,
        next_view: u32,
    ) -> Result<Self> {
        let mut catalog = Self { next_view, ..Self::default() };
        let read_only = shared.options.read_only;
        for record in volumes {
            let base = Version::stored(record.tree);
            let next_ino = record.tree.next_ino;
            let view = View::new(ViewId(record.id), shared.clone(), &record.name, base, next_ino, read_only);
            view.quota_bytes.store(record.quota_bytes.unwrap_or(0), Ordering::Relaxed);
            catalog.add_volume(record.id, &record.name, record.origin, record.created_unix_nanos, view);
            if let Some(entry) = catalog.volumes.get_mut(&record.id) {
                entry.quota_bytes = record.quota_bytes;
                entry.reservation_bytes = record.reservation_bytes;
                entry.durable = record.tree.root;
                entry.applied_seq = record.applied_seq;
                entry.stored = true;
            }
        }
        for record in snapshots {
            let volume = catalog.volumes.get_mut(&record.volume).ok_or_else(|| {
                Error::corrupt(format!("roots.redb: snapshot {:?} has no volume", record.name))
            })?;
            volume.snapshots.insert(record.name.clone(), record.id);
            let entry = SnapshotEntry {
                volume: record.volume,
                name: record.name,
                created_unix_nanos: record.created_unix_nanos,
                holds: record.holds,
                version: Version::stored(record.tree),
                view: None,
                durable: record.tree.root,
            };
            catalog.snapshots.insert(record.id, entry);
        }
        catalog.dirty = Dirty::default();
        Ok(catalog)
    }
}

fn unknown(what: &str, id: u32) -> Error {
    Error::corrupt(format!("the journal names {what} {id}, which does not exist"))
}
