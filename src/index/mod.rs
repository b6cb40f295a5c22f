//! Content id to place: bounded hints that deduplication starts from.
//!
//! Must not know what segments hold: a candidate may be wrong and an entry may be missing. The caller verifies the
//! full id before it shares a block, and stores the block again where it finds nothing.

use parking_lot::RwLock;

use crate::format::Place;

mod shard;
#[cfg(test)]
mod tests;

use shard::{BUCKET_BYTES, Shard, WINDOW_BUCKETS};

/// The id's first bits choose the shard.
const SHARD_BITS: u32 = 4;
const SHARDS: usize = 1 << SHARD_BITS;
/// Memory of an empty table.
const START_BYTES: usize = 64 << 10;

/// Candidates of one id, at most `Candidates::MAX`.
#[derive(Clone, Copy, Debug)]
pub struct Candidates {
    places: [Place; Self::MAX],
    count: usize,
}

impl Candidates {
    pub const MAX: usize = 8;

    fn none() -> Self {
        Self { places: [Place { segment: 0, slot: 0 }; Self::MAX], count: 0 }
    }

    /// Ignored when there are `MAX` already.
    fn push(&mut self, place: Place) {
        if let Some(free) = self.places.get_mut(self.count) {
            *free = place;
            self.count += 1;
        }
    }
}

impl std::ops::Deref for Candidates {
    type Target = [Place];

    fn deref(&self) -> &[Place] {
        &self.places[..self.count]
    }
}

/// A bounded map from block id to candidate places: 8 bytes an entry, safe for concurrent use.
///
/// Starts with 64 KiB and doubles, each shard for itself, when three quarters full or where buckets overflow. At
/// its bound an insert into full buckets evicts. Of lookups for ids that are not there, fewer than one in a thousand finds a candidate
/// below 1 GiB; a test states it.
pub struct HintTable {
    shards: [RwLock<Shard>; SHARDS],
    buckets_start: usize,
}

impl HintTable {
    /// A table that never takes more than `max_bytes`, rounded down to a power of two, and while a shard doubles
    /// a sixteenth more. The least is 4 KiB.
    pub fn new(max_bytes: usize) -> Self {
        let buckets = |bytes: usize| {
            let buckets = bytes / BUCKET_BYTES / SHARDS;
            buckets.checked_ilog2().map_or(0, |bits| 1 << bits).max(WINDOW_BUCKETS)
        };
        let buckets_max = buckets(max_bytes);
        let buckets_start = buckets(START_BYTES).min(buckets_max);
        let shards = std::array::from_fn(|_| RwLock::new(Shard::new(buckets_start, buckets_max)));
        Self { shards, buckets_start }
    }

    /// Adds a candidate for `id`. Places out of range are ignored; a pair that is there already is kept once.
    pub fn insert(&self, id: &[u8; 32], place: Place) {
        let (shard, hash) = self.shard(id);
        if let Some(place) = place.to_bits() {
            shard.write().insert(hash, place);
        }
    }

    /// Places where the block `id` may be, in no order.
    pub fn candidates(&self, id: &[u8; 32]) -> Candidates {
        let (shard, hash) = self.shard(id);
        let mut found = Candidates::none();
        shard.read().find(hash, |place| found.push(Place::from_bits(place)));
        found
    }

    /// Removes the candidate, if it is there.
    pub fn remove(&self, id: &[u8; 32], place: Place) {
        let (shard, hash) = self.shard(id);
        if let Some(place) = place.to_bits() {
            shard.write().remove(hash, place);
        }
    }

    /// Entries in the table.
    pub fn len(&self) -> u64 {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn memory_bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().buckets() * BUCKET_BYTES).sum()
    }

    /// Removes everything and gives the memory back.
    pub fn clear(&self) {
        for shard in &self.shards {
            shard.write().clear(self.buckets_start);
        }
    }

    /// The shard and the bits of the id that matter in it, from the top.
    fn shard(&self, id: &[u8; 32]) -> (&RwLock<Shard>, u64) {
        let [a, b, c, d, e, f, g, h, ..] = *id;
        let hash = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        (&self.shards[(hash >> (u64::BITS - SHARD_BITS)) as usize], hash << SHARD_BITS)
    }
}
