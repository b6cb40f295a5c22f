//! Compaction: what is live of sparse segments is copied into new files, and the old files go.
//!
//! Places are logical, so no tree changes. Order: copy and sync; commit the new records; put them into the table
//! while nobody follows pointers; remove the old files. A crash on either side of the commit leaves files that no
//! record names: the next open removes them.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::roots::RootsChange;
use super::store::{Serial, Store, StoreInner};
use crate::base::{Error, ErrorKind, Result, Throttle};
use crate::block::Rewritten;
use crate::format::catalog_records::Superblock;
use crate::format::segment::{DIRECTORY_HEAD, ENTRY_BYTES};

/// Live bytes that one step copies, at most: it bounds how long a checkpoint waits.
const STEP_BYTES: u64 = 8 << 20;
/// How fast live blocks are copied in the background.
const BACKGROUND_BYTES_PER_SECOND: u64 = 64 << 20;
/// How often references are counted again while some could not be.
const RECOUNT_EVERY: Duration = Duration::from_secs(60);
/// Segments that one step rewrites, at most.
const STEP_SEGMENTS: usize = 64;

/// What one step of compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactStep {
    pub segments: u64,
    pub copied_bytes: u64,
    pub freed_bytes: u64,
}

impl Store {
    /// Ends the segment being appended to when at least `dead_percent` of it is dead: compaction leaves it alone
    /// otherwise.
    pub fn end_sparse_segment(&self, dead_percent: u64) {
        // No checkpoint appends meanwhile.
        let mut serial = self.inner.serial.lock();
        let blocks = &self.inner.shared.trees.blocks;
        let Some(open) = blocks.open_segment() else { return };
        let Some(info) = blocks.segments().into_iter().find(|info| info.id == open) else { return };
        let used = self.inner.shared.trees.refs.lock().segment(open);
        let live = used.live_bytes + u64::from(used.live_slots) * ENTRY_BYTES as u64;
        if info.bytes.saturating_sub(live) * 100 >= info.bytes * dead_percent.max(1) {
            blocks.end_open_segment();
            // If nothing in it is live, a checkpoint that has nothing else to do must drop it all the same.
            serial.condemned = self.inner.dead_segments();
        }
    }

    /// After damage: counts the references again, for what could not be read may be gone. Answers whether space can
    /// be reclaimed.
    pub fn recover_references(&self) -> bool {
        self.inner.recover_references()
    }

    /// Rewrites some segments of which at least `dead_percent` is dead. `None` when there are none.
    /// `bytes_per_second` bounds how fast, `None` does not.
    pub fn compact_step(
        &self,
        dead_percent: u64,
        bytes_per_second: Option<u64>,
    ) -> Result<Option<CompactStep>> {
        self.inner.compact_step(dead_percent, bytes_per_second)
    }

    /// Whether segments without live blocks wait for a checkpoint to drop them.
    pub fn has_dead_segments(&self) -> bool {
        !self.inner.serial.lock().condemned.is_empty()
    }
}

impl StoreInner {
    fn recover_references(&self) -> bool {
        let mut serial = self.serial.lock();
        let trees = &self.shared.trees;
        if trees.is_incomplete() {
            serial.recounted = self.shared.environment.clock.monotonic();
            self.rebuild_refs();
        }
        !trees.is_incomplete()
    }

    pub(crate) fn compact_step(
        &self,
        dead_percent: u64,
        bytes_per_second: Option<u64>,
    ) -> Result<Option<CompactStep>> {
        self.shared.check_failed()?;
        let mut serial = self.serial.lock();
        let trees = &self.shared.trees;
        let (victims, old_bytes) = self.victims(dead_percent, &serial.damaged);
        if victims.is_empty() {
            return Ok(None);
        }
        let mut new_files = Vec::with_capacity(victims.len());
        let mut change = RootsChange::default();
        let mut copied_bytes = 0;
        let mut throttle = Throttle::new(&self.shared.environment.clock, bytes_per_second);
        for victim in &victims {
            match self.rewrite(*victim, &mut throttle) {
                Ok(rewritten) => {
                    new_files.push(rewritten.record.file);
                    copied_bytes += rewritten.bytes;
                    change.segments.push(rewritten.record);
                }
                // It stays as it is, for a scrub to name; the others are rewritten.
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unreadable) => {
                    tracing::warn!("compaction leaves a damaged segment alone: {error}");
                    serial.damaged.insert(*victim);
                }
                Err(error) => {
                    trees.blocks.remove_files(&new_files)?;
                    return Err(error);
                }
            }
        }
        if let Err(error) = self.commit_between(&mut serial, &change) {
            if error.kind() == ErrorKind::NoSpace {
                trees.blocks.remove_files(&new_files)?;
            } else {
                // Whether the commit landed is not known: only an open can tell.
                self.shared.fail(&error);
            }
            return Err(error);
        }
        let files = {
            let _gate = self.shared.gate.write();
            trees.blocks.install(change.segments)
        };
        trees.blocks.remove_files(&files)?;
        self.refresh_space();
        self.shared.room.notify_all();
        Ok(Some(CompactStep {
            segments: victims.len() as u64,
            copied_bytes,
            freed_bytes: old_bytes.saturating_sub(copied_bytes),
        }))
    }

    /// A commit between two checkpoints: the journal's start stays where it is.
    pub(crate) fn commit_between(&self, serial: &mut Serial, change: &RootsChange) -> Result<()> {
        let (_, next_segment, next_file) = self.shared.trees.blocks.changes();
        let superblock = Superblock { next_segment, next_file, ..serial.superblock };
        self.roots.commit(&superblock, change)?;
        serial.superblock = superblock;
        Ok(())
    }

    /// Copies what is live of a segment into a file of its own. In a file of several segments, what dies of one
    /// would keep its space until the others go.
    fn rewrite(&self, segment: u32, throttle: &mut Throttle) -> Result<Rewritten> {
        let trees = &self.shared.trees;
        let live = |place| trees.refs.lock().count(place) > 0;
        let mut pace = |bytes| throttle.spend(bytes);
        match trees.blocks.rewrite(segment, &live, &mut pace) {
            Err(error) if error.kind() == ErrorKind::NoSpace && self.spend_reserve() => {
                trees.blocks.rewrite(segment, &live, &mut pace)
            }
            result => result,
        }
    }

    /// The sparsest segments first, as many as one step takes. On a full host that is few: a step gives nothing back
    /// before all of it is copied.
    fn victims(&self, dead_percent: u64, damaged: &HashSet<u32>) -> (Vec<u32>, u64) {
        if self.shared.trees.is_incomplete() {
            return (Vec::new(), 0);
        }
        let available = self.shared.storage.space().map_or(0, |space| space.available_bytes);
        let most = STEP_BYTES.min(available / 2);
        let open = self.shared.trees.blocks.open_segment();
        let infos = self.shared.trees.blocks.segments();
        let refs = self.shared.trees.refs.lock();
        let mut sparse: Vec<(u64, u64, u32)> = infos
            .iter()
            .filter(|info| Some(info.id) != open && info.bytes > 0 && !damaged.contains(&info.id))
            .filter_map(|info| {
                let used = refs.segment(info.id);
                let directories = u64::from(used.live_slots) * ENTRY_BYTES as u64 + DIRECTORY_HEAD as u64;
                let live = used.live_bytes + directories;
                let dead = info.bytes.saturating_sub(live);
                // Those with nothing live go by themselves with the next checkpoints.
                (used.live_slots > 0 && dead * 100 >= info.bytes * dead_percent.max(1))
                    .then_some((live, info.bytes, info.id))
            })
            .collect();
        sparse.sort_by_key(|(live, bytes, _)| live * 1000 / bytes);
        let (mut total, mut old) = (0, 0);
        let mut victims = Vec::new();
        for (live, bytes, id) in sparse.into_iter().take(STEP_SEGMENTS) {
            if !victims.is_empty() && total + live > most {
                break;
            }
            total += live;
            old += bytes;
            victims.push(id);
        }
        (victims, old)
    }

    /// Bytes of segments, and how many of them are dead.
    pub(crate) fn dead_bytes(&self) -> (u64, u64) {
        let bytes: u64 = self.shared.trees.blocks.segments().iter().map(|info| info.bytes).sum();
        let refs = self.shared.trees.refs.lock();
        let live = refs.live_bytes() + refs.live_blocks() * ENTRY_BYTES as u64;
        (bytes, bytes.saturating_sub(live))
    }

    /// In the background: some work when a quarter of the store is dead, or when space is short.
    pub(crate) fn reclaim_some(&self) {
        if self.shared.trees.is_incomplete() {
            // What the host could not read once it may read later.
            let now = self.shared.environment.clock.monotonic();
            let due = now.saturating_sub(self.serial.lock().recounted) > RECOUNT_EVERY;
            if due {
                self.recover_references();
            }
        }
        let (bytes, dead) = self.dead_bytes();
        let free = self.shared.free_bytes.load(Ordering::Relaxed);
        let short = free < bytes / 8 && dead > bytes / 20;
        if !short && (dead < (64 << 20) || dead * 4 < bytes) {
            return;
        }
        for round in 0..4 {
            // Writers that meet a full host ask for checkpoints without end; only compaction gives them room.
            let wanted = self.shared.requests.lock().wanted && !(short && round == 0);
            if wanted || self.closed.load(Ordering::Relaxed) {
                return;
            }
            match self
                .compact_step(if short { 10 } else { 40 }, (!short).then_some(BACKGROUND_BYTES_PER_SECOND))
            {
                Ok(Some(step)) => tracing::debug!("compaction: {step:?}"),
                Ok(None) => return,
                Err(error) => return report(&error),
            }
        }
    }
}

fn report(error: &Error) {
    tracing::warn!("compaction: {error}");
}
