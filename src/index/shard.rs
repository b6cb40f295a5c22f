//! One shard of the hint table: buckets of eight entries, a cache line each.
//!
//! Must not know ids or places: keys are hash bits, values 44 bits.
//!
//! An entry is a `u64`; zero is empty. From the top: 18 bits tag, 2 bits displacement, 44 bits value.
//!
//! A hash's first bits number its home bucket, the following ones are its tag: up to 17 bits, then a one, then
//! zeros. When the number of buckets doubles, bucket numbers become one bit longer; the bit is the first of the
//! tag, which therefore loses it at the front and gets a zero at the back, so the one marks how many bits are
//! still known. An entry made after the last doubling is compared by 17 bits, one that has seen n doublings by
//! 17 - n; but of those there are only one in 2^n, so all ages together add equally little to false finds.
//!
//! A home bucket that is full overflows into the next three, at the displacement noted; and if all four are full,
//! an entry of them moves on in its own window. So one in a thousand is lost at three quarters full, where buckets
//! of eight alone would lose one in twenty; and none while the shard may still double.

/// Entries of a bucket.
const ENTRIES: usize = 8;
pub(super) const BUCKET_BYTES: usize = 64;
/// The home bucket and those it overflows into.
pub(super) const WINDOW_BUCKETS: usize = 4;

const VALUE_BITS: u32 = 44;
const VALUE_MASK: u64 = (1 << VALUE_BITS) - 1;
const TAG_BITS: u32 = 18;
const TAG_SHIFT: u32 = u64::BITS - TAG_BITS;
const DISPLACEMENT_MASK: u64 = WINDOW_BUCKETS as u64 - 1;

#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Bucket([u64; ENTRIES]);

const _: () = assert!(size_of::<Bucket>() == BUCKET_BYTES);

pub(super) struct Shard {
    /// A power of two of them, at least a window.
    buckets: Vec<Bucket>,
    buckets_max: usize,
    len: u64,
    /// State of the generator that chooses whom to evict.
    lot: u64,
}

impl Shard {
    pub(super) fn new(buckets: usize, buckets_max: usize) -> Self {
        Self { buckets: vec![Bucket::default(); buckets], buckets_max, len: 0, lot: 1 }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn buckets(&self) -> usize {
        self.buckets.len()
    }

    pub(super) fn clear(&mut self, buckets: usize) {
        *self = Self::new(buckets, self.buckets_max);
    }

    pub(super) fn insert(&mut self, hash: u64, value: u64) {
        self.remove(hash, value);
        let quarter = (self.buckets.len() * ENTRIES / 4) as u64;
        // An overflow below a quarter is many places of one id, which more buckets would not help.
        let crowded =
            self.len >= 3 * quarter || self.len >= quarter && self.room(self.split(hash).0).is_none();
        if crowded && self.buckets.len() < self.buckets_max {
            self.double();
        }
        let (home, tag) = self.split(hash);
        self.put(home, tag, value);
    }

    pub(super) fn find(&self, hash: u64, mut found: impl FnMut(u64)) {
        let (home, tag) = self.split(hash);
        for displacement in 0..WINDOW_BUCKETS {
            for entry in self.buckets[self.at(home, displacement)].0 {
                if is_of(entry, tag, displacement) {
                    found(entry & VALUE_MASK);
                }
            }
        }
    }

    pub(super) fn remove(&mut self, hash: u64, value: u64) {
        let (home, tag) = self.split(hash);
        for displacement in 0..WINDOW_BUCKETS {
            let at = self.at(home, displacement);
            for entry in &mut self.buckets[at].0 {
                if *entry & VALUE_MASK == value && is_of(*entry, tag, displacement) {
                    *entry = 0;
                    self.len -= 1;
                }
            }
        }
    }

    /// Home bucket and full tag of a hash.
    fn split(&self, hash: u64) -> (usize, u64) {
        let bits = self.buckets.len().trailing_zeros();
        let home = hash >> (u64::BITS - bits);
        (home as usize, (hash << bits) >> TAG_SHIFT | 1)
    }

    fn at(&self, home: usize, displacement: usize) -> usize {
        (home + displacement) & (self.buckets.len() - 1)
    }

    /// Takes room, or the place of an entry drawn by lot.
    fn put(&mut self, home: usize, tag: u64, value: u64) {
        let room = self.room(home);
        self.len += u64::from(room.is_some());
        let (displacement, slot) = room.unwrap_or_else(|| self.draw());
        let at = self.at(home, displacement);
        self.buckets[at].0[slot] = entry(tag, displacement, value);
    }

    /// A free entry of the window; if there is none, another moves on in its own window.
    fn room(&mut self, home: usize) -> Option<(usize, usize)> {
        let free = (0..WINDOW_BUCKETS).find_map(|displacement| {
            let slot = self.free_slot(self.at(home, displacement))?;
            Some((displacement, slot))
        });
        free.or_else(|| self.make_room(home))
    }

    fn free_slot(&self, at: usize) -> Option<usize> {
        self.buckets[at].0.iter().position(|entry| *entry == 0)
    }

    fn make_room(&mut self, home: usize) -> Option<(usize, usize)> {
        for (displacement, slot) in (0..WINDOW_BUCKETS * ENTRIES).map(|at| (at / ENTRIES, at % ENTRIES)) {
            let at = self.at(home, displacement);
            let moved = self.buckets[at].0[slot];
            let moved_home = self.home_of(moved, at);
            for elsewhere in 0..WINDOW_BUCKETS {
                let target = self.at(moved_home, elsewhere);
                if let Some(free) = self.free_slot(target) {
                    self.buckets[target].0[free] = entry(moved >> TAG_SHIFT, elsewhere, moved);
                    self.buckets[at].0[slot] = 0;
                    return Some((displacement, slot));
                }
            }
        }
        None
    }

    fn draw(&mut self) -> (usize, usize) {
        // xorshift64: any cheap sequence will do, the ids are random themselves.
        self.lot ^= self.lot << 13;
        self.lot ^= self.lot >> 7;
        self.lot ^= self.lot << 17;
        let drawn = (self.lot >> 32) as usize % (WINDOW_BUCKETS * ENTRIES);
        (drawn / ENTRIES, drawn % ENTRIES)
    }

    /// The home of an entry found in bucket `at`.
    fn home_of(&self, entry: u64, at: usize) -> usize {
        let displacement = (entry >> VALUE_BITS & DISPLACEMENT_MASK) as usize;
        at.wrapping_sub(displacement) & (self.buckets.len() - 1)
    }

    fn double(&mut self) {
        let old_buckets = std::mem::take(&mut self.buckets);
        let old = Self { buckets: old_buckets, ..*self };
        self.buckets = vec![Bucket::default(); old.buckets.len() * 2];
        self.len = 0;
        for (at, bucket) in old.buckets.iter().enumerate() {
            for entry in bucket.0.into_iter().filter(|entry| *entry != 0) {
                let tag = entry >> TAG_SHIFT;
                let first = tag >> (TAG_BITS - 1);
                let rest = tag << 1 & ((1 << TAG_BITS) - 1);
                // A tag whose mark is at the front has no bit left that says where it belongs.
                if rest != 0 {
                    self.put(old.home_of(entry, at) * 2 + first as usize, rest, entry & VALUE_MASK);
                }
            }
        }
    }
}

fn entry(tag: u64, displacement: usize, value: u64) -> u64 {
    tag << TAG_SHIFT | (displacement as u64) << VALUE_BITS | value & VALUE_MASK
}

/// Whether an entry at this displacement from its home may be the one of the full tag `tag`.
fn is_of(entry: u64, tag: u64, displacement: usize) -> bool {
    let known = entry >> TAG_SHIFT;
    let unknown_bits = known.trailing_zeros() + 1;
    known != 0
        && entry >> VALUE_BITS & DISPLACEMENT_MASK == displacement as u64
        && (known ^ tag) >> unknown_bits == 0
}
