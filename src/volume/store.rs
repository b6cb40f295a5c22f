//! The store: opening and closing, and the catalog's operations.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::catalog::{Catalog, SnapshotEntry};
use super::roots::Roots;
use super::shared::Shared;
use super::types::{OpenOptions, SnapshotInfo, ViewId};
use super::view::View;
use crate::base::{Error, ErrorKind, Result, SpaceInfo};
use crate::format::catalog_records::Superblock;
use crate::format::log::CatalogChange;

/// Longest name of a volume or snapshot, in bytes.
pub const OBJECT_NAME_MAX: usize = 200;

/// Versions a reader may have to look through before a checkpoint is asked for.
const PENDING_MAX: usize = 64;

/// What checkpoints and reclaim do one at a time.
pub(crate) struct Serial {
    /// What the root table has.
    pub(crate) superblock: Superblock,
    /// Segments that were dead at the last commit.
    pub(crate) condemned: Vec<u32>,
    /// Segments that compaction could not read.
    pub(crate) damaged: HashSet<u32>,
    /// When references were last counted again because some could not be.
    pub(crate) recounted: Duration,
}

pub(crate) struct StoreInner {
    pub(crate) shared: Arc<Shared>,
    pub(crate) catalog: Mutex<Catalog>,
    pub(crate) roots: Roots,
    pub(crate) serial: Mutex<Serial>,
    pub(crate) pool: Option<rayon::ThreadPool>,
    pub(crate) store_id: [u8; 16],
    pub(crate) checkpoints: AtomicU64,
    pub(crate) reserve_bytes: AtomicU64,
    pub(crate) closed: AtomicBool,
    pub(crate) threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
    pub(crate) unique: Mutex<std::collections::HashMap<crate::format::Place, (u64, u64)>>,
}

/// An open store. One process holds it at a time; the caller sees to that with `base::StoreLock`.
pub struct Store {
    pub(crate) inner: Arc<StoreInner>,
}

/// Whether `name` can name a volume or a snapshot.
pub fn check_object_name(name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'+');
    let ok = !name.is_empty()
        && name.len() <= OBJECT_NAME_MAX
        && name.bytes().all(plain)
        && !name.starts_with(['.', '-']);
    if ok {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{name:?} cannot be a name: use 1 to {OBJECT_NAME_MAX} letters, digits and . _ - : +, not beginning with . or -"
    )))
}

impl Store {
    pub fn options(&self) -> &OpenOptions {
        &self.inner.shared.options
    }

    /// The store's own number.
    pub fn id(&self) -> [u8; 16] {
        self.inner.store_id
    }

    /// Creates an empty volume. Durable when it returns, as all operations on volumes and snapshots are.
    pub fn create_volume(&self, name: &str) -> Result<Arc<View>> {
        check_object_name(name)?;
        let created_unix_nanos = self.inner.shared.environment.clock.unix_nanos();
        self.inner.change(|catalog| {
            catalog.check_free(name)?;
            let id = catalog.next_id()?;
            Ok(CatalogChange::CreateVolume { id, name: name.to_owned(), created_unix_nanos })
        })?;
        self.volume(name)
    }

    pub fn volume(&self, name: &str) -> Result<Arc<View>> {
        let view = self.inner.catalog.lock().volume(name)?.view.clone();
        self.inner.ready(view)
    }

    /// A volume's head or a snapshot by number.
    pub fn view(&self, id: ViewId) -> Result<Arc<View>> {
        let mut catalog = self.inner.catalog.lock();
        if let Some(entry) = catalog.volumes.get(&id.0) {
            let view = entry.view.clone();
            drop(catalog);
            return self.inner.ready(view);
        }
        self.inner.snapshot_view(&mut catalog, id.0)
    }

    /// A snapshot, to read.
    pub fn snapshot(&self, volume: &str, name: &str) -> Result<Arc<View>> {
        let mut catalog = self.inner.catalog.lock();
        let id = catalog.snapshot_id(volume, name)?;
        self.inner.snapshot_view(&mut catalog, id)
    }

    /// Names and numbers of all volumes, by name: cheap, without figures.
    pub fn volume_names(&self) -> Vec<(String, ViewId)> {
        let catalog = self.inner.catalog.lock();
        let mut names: Vec<_> = catalog.names.iter().map(|(name, id)| (name.clone(), ViewId(*id))).collect();
        names.sort();
        names
    }

    /// Names and numbers of a volume's snapshots, by name: cheap, without figures.
    pub fn snapshot_names(&self, volume: ViewId) -> Result<Vec<(String, ViewId)>> {
        let catalog = self.inner.catalog.lock();
        let entry = catalog.volumes.get(&volume.0);
        let entry = entry.ok_or_else(|| Error::not_found(format!("no volume {}", volume.0)))?;
        Ok(entry.snapshots.iter().map(|(name, id)| (name.clone(), ViewId(*id))).collect())
    }

    pub fn rename_volume(&self, old: &str, new: &str) -> Result<()> {
        check_object_name(new)?;
        self.inner.change(|catalog| {
            let id = catalog.volume_id(old)?;
            catalog.check_free(new)?;
            Ok(CatalogChange::RenameVolume { id, name: new.to_owned() })
        })
    }

    /// Destroys a volume that has no snapshots.
    pub fn destroy_volume(&self, name: &str) -> Result<()> {
        self.inner.destroy(|catalog| {
            let entry = catalog.volume(name)?;
            if !entry.snapshots.is_empty() {
                let names: Vec<_> = entry.snapshots.keys().take(10).map(|s| format!("{name}@{s}")).collect();
                let count = entry.snapshots.len();
                let message =
                    format!("{name} has {count} snapshots ({}): destroy them first", names.join(", "));
                return Err(Error::new(ErrorKind::InUse, message));
            }
            Ok(CatalogChange::DestroyVolume { id: entry.view.id.0 })
        })
    }

    /// Destroys a volume and its snapshots; refused when one is held.
    pub fn destroy_volume_with_snapshots(&self, name: &str) -> Result<()> {
        let snapshots: Vec<String> = {
            let catalog = self.inner.catalog.lock();
            let entry = catalog.volume(name)?;
            for id in entry.snapshots.values() {
                if let Some(snapshot) = catalog.snapshots.get(id) {
                    check_not_held(name, snapshot)?;
                }
            }
            entry.snapshots.keys().cloned().collect()
        };
        for snapshot in snapshots {
            self.destroy_snapshot(name, &snapshot)?;
        }
        self.destroy_volume(name)
    }

    /// Cuts a snapshot: every write that returned before is in it. The cost does not depend on the volume's size
    /// or on the number of snapshots; what the volume has unsynced is made durable on the way.
    pub fn create_snapshot(&self, volume: &str, name: &str) -> Result<SnapshotInfo> {
        check_object_name(name)?;
        let view = self.volume(volume)?;
        view.check_writable()?;
        self.inner.settle_large(&view)?;
        let created_unix_nanos = self.inner.shared.environment.clock.unix_nanos();
        let mut id = 0;
        self.inner.change_logging(Some(&view), |catalog| {
            let entry = catalog.volume(volume)?;
            if entry.snapshots.contains_key(name) {
                return Err(Error::new(ErrorKind::Exists, format!("snapshot {volume}@{name} exists")));
            }
            let number = entry.view.id.0;
            id = catalog.next_id()?;
            Ok(CatalogChange::CreateSnapshot {
                id,
                volume: number,
                name: name.to_owned(),
                created_unix_nanos,
            })
        })?;
        Ok(SnapshotInfo {
            id: ViewId(id),
            volume: volume.to_owned(),
            name: name.to_owned(),
            created_unix_nanos,
            logical_bytes: 0,
            referenced_bytes: 0,
            unique_bytes: 0,
            holds: Vec::new(),
            clones: Vec::new(),
        })
    }

    /// Destroys a snapshot that nothing holds. Clones made from it live on.
    pub fn destroy_snapshot(&self, volume: &str, name: &str) -> Result<()> {
        self.inner.destroy(|catalog| {
            let id = catalog.snapshot_id(volume, name)?;
            if let Some(snapshot) = catalog.snapshots.get(&id) {
                check_not_held(volume, snapshot)?;
            }
            Ok(CatalogChange::DestroySnapshot { id })
        })
    }

    /// Keeps a snapshot from being destroyed until `tag` is released.
    pub fn hold(&self, volume: &str, name: &str, tag: &str) -> Result<()> {
        check_object_name(tag)?;
        self.inner.change(|catalog| {
            let id = catalog.snapshot_id(volume, name)?;
            let mut holds = catalog.snapshots.get(&id).map(|entry| entry.holds.clone()).unwrap_or_default();
            if holds.iter().any(|held| held == tag) {
                return Err(Error::new(
                    ErrorKind::Exists,
                    format!("{volume}@{name} is held by {tag:?} already"),
                ));
            }
            holds.push(tag.to_owned());
            Ok(CatalogChange::SetHolds { id, holds })
        })
    }

    /// The snapshots of a volume that are held, by name, with who holds them: cheap, without figures.
    pub fn holds(&self, volume: &str) -> Result<Vec<(String, Vec<String>)>> {
        let catalog = self.inner.catalog.lock();
        let entry = catalog.volume(volume)?;
        let held = entry.snapshots.iter().filter_map(|(name, id)| {
            let holds = &catalog.snapshots.get(id)?.holds;
            (!holds.is_empty()).then(|| (name.clone(), holds.clone()))
        });
        Ok(held.collect())
    }

    pub fn release(&self, volume: &str, name: &str, tag: &str) -> Result<()> {
        self.inner.change(|catalog| {
            let id = catalog.snapshot_id(volume, name)?;
            let mut holds = catalog.snapshots.get(&id).map(|entry| entry.holds.clone()).unwrap_or_default();
            let before = holds.len();
            holds.retain(|held| held != tag);
            if holds.len() == before {
                return Err(Error::not_found(format!("{volume}@{name} is not held by {tag:?}")));
            }
            Ok(CatalogChange::SetHolds { id, holds })
        })
    }

    /// Creates a volume from a snapshot; they share all blocks.
    pub fn create_clone(&self, volume: &str, snapshot: &str, new: &str) -> Result<Arc<View>> {
        check_object_name(new)?;
        let created_unix_nanos = self.inner.shared.environment.clock.unix_nanos();
        self.inner.change(|catalog| {
            let source = catalog.snapshot_id(volume, snapshot)?;
            catalog.check_free(new)?;
            let id = catalog.next_id()?;
            Ok(CatalogChange::CreateClone { id, name: new.to_owned(), snapshot: source, created_unix_nanos })
        })?;
        self.volume(new)
    }

    /// Sets or clears (`Some(None)`) a volume's quota and reservation, in bytes of data before compression.
    pub fn set_quota(
        &self,
        volume: &str,
        quota_bytes: Option<Option<u64>>,
        reservation_bytes: Option<Option<u64>>,
    ) -> Result<()> {
        self.inner.change(|catalog| {
            let entry = catalog.volume(volume)?;
            let quota_bytes = quota_bytes.unwrap_or(entry.quota_bytes);
            let reservation_bytes = reservation_bytes.unwrap_or(entry.reservation_bytes);
            if let (Some(quota), Some(reservation)) = (quota_bytes, reservation_bytes)
                && reservation > quota
            {
                return Err(Error::invalid("a reservation cannot be larger than the quota"));
            }
            Ok(CatalogChange::SetLimits { id: entry.view.id.0, quota_bytes, reservation_bytes })
        })?;
        self.inner.refresh_space();
        Ok(())
    }

    /// The host's space, as `statfs` should tell it.
    pub fn space(&self) -> SpaceInfo {
        let space = self.inner.shared.storage.space().unwrap_or_default();
        let shared = &self.inner.shared;
        let taken = shared.dirty_bytes() + shared.options.segment_bytes;
        let free = shared.free_bytes.load(Ordering::Relaxed).saturating_sub(taken);
        SpaceInfo { total_bytes: space.total_bytes, available_bytes: free.min(space.available_bytes) }
    }

    /// Stores all changes in segments and trees now.
    pub fn checkpoint(&self) -> Result<()> {
        self.inner.checkpoint_now()
    }
}

fn check_not_held(volume: &str, snapshot: &SnapshotEntry) -> Result<()> {
    if snapshot.holds.is_empty() {
        return Ok(());
    }
    let message = format!(
        "snapshot {volume}@{} is held by {}: release it first",
        snapshot.name,
        snapshot.holds.join(", ")
    );
    Err(Error::new(ErrorKind::InUse, message))
}

impl Catalog {
    fn next_id(&self) -> Result<u32> {
        // Node numbers of the mount have 24 bits for views.
        if self.next_view >= 1 << 24 {
            return Err(Error::new(ErrorKind::NoSpace, "all numbers for volumes and snapshots are used up"));
        }
        Ok(self.next_view)
    }
}

impl StoreInner {
    /// Checks, journals and carries out a change of the catalog; durable when it returns.
    fn change(&self, decide: impl FnOnce(&Catalog) -> Result<CatalogChange>) -> Result<()> {
        self.change_logging(None, decide)
    }

    /// As `change`, for what frees space: it must work when neither the host nor the journal has room.
    fn destroy(&self, decide: impl FnOnce(&Catalog) -> Result<CatalogChange>) -> Result<()> {
        const ROOM: u64 = 256;
        self.shared.check_failed()?;
        let journal = self.shared.journal()?.clone();
        let mut reservation = match journal.reserve_urgent(ROOM, 1) {
            Err(error) if error.kind() == ErrorKind::NoSpace && !self.shared.options.background => {
                self.checkpoint_now()?;
                journal.reserve_urgent(ROOM, 1)?
            }
            result => result?,
        };
        let seq = {
            let _gate = self.shared.gate.read_recursive();
            let mut catalog = self.catalog.lock();
            let change = decide(&catalog)?;
            let seq = journal.append(&mut reservation, &[&change.encode()]);
            catalog.apply(&self.shared, &change, None)?;
            seq
        };
        drop(reservation);
        if self.shared.blocked().is_some() && self.shared.options.background {
            self.shared.request_checkpoint(None);
        }
        journal.commit(seq)
    }

    /// As `change`; what `view` has unlogged goes into the journal before it, in the same instant.
    fn change_logging(
        &self,
        view: Option<&Arc<View>>,
        decide: impl FnOnce(&Catalog) -> Result<CatalogChange>,
    ) -> Result<()> {
        self.shared.check_failed()?;
        let journal = self.shared.journal()?.clone();
        let mut decide = Some(decide);
        let mut room = 64 << 10;
        loop {
            let mut reservation = match journal.reserve(room, 3) {
                Ok(reservation) => reservation,
                Err(error) if self.shared.options.background || error.kind() != ErrorKind::NoSpace => {
                    return Err(error);
                }
                Err(_) => {
                    self.checkpoint_now()?;
                    journal.reserve(room, 3)?
                }
            };
            let seq = {
                let _gate = self.shared.gate.read_recursive();
                let mut catalog = self.catalog.lock();
                if let Some(view) = view {
                    view.check_alive()?;
                    let mut state = view.state.write();
                    let bytes = state.unlogged.bytes(None) + state.frozen_unlogged.bytes(None);
                    if bytes + 4096 > room {
                        room = bytes * 2 + (64 << 10);
                        if room > journal.record_bytes_max() {
                            drop(state);
                            drop(catalog);
                            drop(reservation);
                            drop(_gate);
                            self.checkpoint_now()?;
                            room = view.journal_bytes_max()?;
                        }
                        continue;
                    }
                    let Some(decide) = decide.take() else { return Ok(()) };
                    let change = decide(&catalog)?;
                    view.log(&mut state, None, &mut reservation)?;
                    let seq = journal.append(&mut reservation, &[&change.encode()]);
                    // Under the view's lock no write comes between the log and the cut.
                    catalog.cut(view, &mut state);
                    let version = state.base.clone();
                    drop(state);
                    catalog.apply(&self.shared, &change, Some(version))?;
                    if catalog.pending.len() > PENDING_MAX && self.shared.options.background {
                        self.shared.request_checkpoint(None);
                    }
                    seq
                } else {
                    let Some(decide) = decide.take() else { return Ok(()) };
                    let change = decide(&catalog)?;
                    let seq = journal.append(&mut reservation, &[&change.encode()]);
                    catalog.apply(&self.shared, &change, None)?;
                    seq
                }
            };
            return journal.commit(seq);
        }
    }

    /// A volume with much unsynced data is checkpointed before its snapshot, while writers go on; what they add
    /// meanwhile is little and goes into the journal.
    fn settle_large(&self, view: &View) -> Result<()> {
        const ROUNDS_MAX: u32 = 3;
        let most = view.journal_bytes_max()?;
        for _ in 0..ROUNDS_MAX {
            let state = view.state.read();
            let bytes = state.unlogged.bytes(None) + state.frozen_unlogged.bytes(None);
            drop(state);
            if bytes <= most {
                break;
            }
            self.checkpoint_now()?;
        }
        Ok(())
    }

    pub(crate) fn checkpoint_now(&self) -> Result<()> {
        if self.shared.options.background { self.shared.checkpoint_now() } else { self.run_checkpoint() }
    }

    /// Frees a volume's orphans before anybody can hold one open.
    fn ready(&self, view: Arc<View>) -> Result<Arc<View>> {
        if !view.orphans_checked.swap(true, Ordering::AcqRel) {
            view.forget_all_orphans()?;
        }
        Ok(view)
    }

    fn snapshot_view(&self, catalog: &mut Catalog, id: u32) -> Result<Arc<View>> {
        let volume = catalog.snapshots.get(&id).and_then(|entry| catalog.volumes.get(&entry.volume));
        let volume = volume.map_or_else(|| "?".to_owned(), |volume| volume.name.clone());
        let entry = catalog.snapshots.get_mut(&id);
        let entry = entry.ok_or_else(|| Error::not_found(format!("no volume or snapshot {id}")))?;
        if entry.view.is_none() {
            let name = format!("{volume}@{}", entry.name);
            let base = entry.version.clone();
            let next_ino = super::catalog::next_ino(&base);
            entry.view = Some(View::new(ViewId(id), self.shared.clone(), &name, base, next_ino, true));
        }
        entry.view.clone().ok_or_else(|| Error::not_found(format!("no snapshot {id}")))
    }
}
