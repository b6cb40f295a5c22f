//! A volume with one writer, whose progress others can see: what each snapshot must have at least and at most.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use stillpoint::base::{Random, SeededRandom};
use stillpoint::volume::*;

use super::page::{PAGE, Stamp, make, read};
use super::places::{new_file, sync_file};

const PAIRS: usize = 4;
const DATA_PAGES: usize = 300;

/// One page that is written again and again: numbers of the last write begun and of the last that returned.
struct Spot {
    ino: Ino,
    page: u64,
    begun: AtomicU64,
    returned: AtomicU64,
}

impl Spot {
    fn new(ino: Ino, page: u64) -> Self {
        Self { ino, page, begun: AtomicU64::new(0), returned: AtomicU64::new(0) }
    }

    fn write(&self, view: &View, writer: u64, number: u64) {
        self.begun.store(number, Ordering::SeqCst);
        let bytes = make(self.ino, self.page, Stamp { writer, number });
        view.write(self.ino, self.page * PAGE as u64, &bytes).unwrap();
        self.returned.store(number, Ordering::SeqCst);
    }
}

pub(crate) struct Volume {
    pub(crate) name: String,
    view: Arc<View>,
    writer: u64,
    /// The first of a pair is written before the second, with the same number.
    pairs: Vec<(Spot, Spot)>,
    data: Vec<Spot>,
}

/// What had returned at some instant, spot by spot.
pub(crate) struct Returned(Vec<u64>);

impl Volume {
    pub(crate) fn new(store: &Store, name: &str, writer: u64) -> Self {
        let view = store.create_volume(name).unwrap();
        let spot = |file: String| Spot::new(new_file(&view, &file), 0);
        let pairs = (0..PAIRS).map(|n| (spot(format!("a{n}")), spot(format!("b{n}")))).collect();
        let ino = new_file(&view, "data");
        let data = (0..DATA_PAGES as u64).map(|page| Spot::new(ino, page)).collect();
        Self { name: name.to_owned(), view, writer, pairs, data }
    }

    fn spots(&self) -> impl Iterator<Item = &Spot> {
        self.pairs.iter().flat_map(|(a, b)| [a, b]).chain(&self.data)
    }

    /// Writes these numbers, each to a pair and to a page of the data, with a sync and a read now and then.
    pub(crate) fn write_all(&self, numbers: Range<u64>, seed: u64) {
        let random = SeededRandom::new(seed);
        for number in numbers {
            let pair = &self.pairs[random.next_u64() as usize % PAIRS];
            pair.0.write(&self.view, self.writer, number);
            pair.1.write(&self.view, self.writer, number);
            let spot = &self.data[random.next_u64() as usize % DATA_PAGES];
            spot.write(&self.view, self.writer, number);
            match random.next_u64() % 100 {
                0 => sync_file(&self.view, spot.ino).unwrap(),
                1 => sync_file(&self.view, pair.0.ino).unwrap(),
                2..=20 => self.verify_spot(&self.data[random.next_u64() as usize % DATA_PAGES]),
                _ => {}
            }
        }
    }

    fn verify_spot(&self, spot: &Spot) {
        let found = read(&self.view, spot.ino, spot.page);
        assert_eq!(found.number, spot.returned.load(Ordering::SeqCst), "{} inode {}", self.name, spot.ino);
    }

    /// Everything is as it was last written; only while nobody writes.
    pub(crate) fn verify(&self, store: &Store) {
        let view = store.volume(&self.name).unwrap();
        for spot in self.spots() {
            let found = read(&view, spot.ino, spot.page);
            assert_eq!(found.number, spot.returned.load(Ordering::SeqCst), "{} {}", self.name, spot.ino);
        }
    }

    pub(crate) fn returned(&self) -> Returned {
        Returned(self.spots().map(|spot| spot.returned.load(Ordering::SeqCst)).collect())
    }

    /// A snapshot is one cut, has what had returned before it was asked for, and nothing from after it.
    pub(crate) fn verify_cut(&self, snapshot: &View, before: &Returned) {
        let begun: Vec<u64> = self.spots().map(|spot| spot.begun.load(Ordering::SeqCst)).collect();
        let number = |spot: &Spot| {
            let stamp = read(snapshot, spot.ino, spot.page);
            assert!(stamp == Stamp::default() || stamp.writer == self.writer, "{}", snapshot.name());
            stamp.number
        };
        for ((spot, from), to) in self.spots().zip(&before.0).zip(begun) {
            let found = number(spot);
            let name = snapshot.name();
            assert!((*from..=to).contains(&found), "{name}: inode {} has {found}, {from}..={to}", spot.ino);
        }
        // One writer writes pair by pair: at most one pair is between its two writes, and no write that follows
        // the second of a pair is there without it.
        let pairs: Vec<(u64, u64)> = self.pairs.iter().map(|(a, b)| (number(a), number(b))).collect();
        let last = pairs.iter().map(|pair| pair.0).chain(self.data.iter().map(number)).max().unwrap_or(0);
        for (a, b) in pairs {
            assert!(a == b || (a > b && a == last), "{}: pair {a}, {b}, last {last}", snapshot.name());
        }
    }
}
