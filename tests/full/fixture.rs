//! A store on a simulated disk of a few megabytes.

use std::sync::Arc;
use std::time::Duration;

use stillpoint::base::sim::{Landing, SimStorage};
use stillpoint::base::{ErrorKind, Result, SeededRandom, SimClock, Storage};
use stillpoint::maintain::{CollectOptions, check, collect};
use stillpoint::volume::*;

use super::ledger::Ledger;

const JOURNAL_BYTES: u64 = 1 << 20;
/// Writers that were refused once try so often again before a test gives up.
const ATTEMPTS: u32 = 200;

fn environment() -> Environment {
    let start = Duration::from_secs(1_700_000_000);
    Environment {
        clock: Arc::new(SimClock::new(start, Duration::from_micros(10))),
        random: Arc::new(SeededRandom::new(1)),
    }
}

/// Small sizes, so that a few thousand pages reach every limit.
pub(crate) fn options(background: bool) -> OpenOptions {
    OpenOptions {
        background,
        dirty_bytes_soft: 1 << 20,
        dirty_bytes_max: 2 << 20,
        segment_bytes: 1 << 20,
        content_cache_bytes: 1 << 20,
        ..OpenOptions::default()
    }
}

pub(crate) struct Fixture {
    pub(crate) sim: SimStorage,
    pub(crate) store: Arc<Store>,
    options: OpenOptions,
}

impl Fixture {
    pub(crate) fn new(total_bytes: u64, options: OpenOptions) -> Self {
        let sim = SimStorage::new();
        sim.set_total_bytes(Some(total_bytes));
        let storage: Arc<dyn Storage> = Arc::new(sim.clone());
        let create = CreateOptions { journal_bytes: JOURNAL_BYTES };
        Store::create(storage.clone(), &environment(), &create).unwrap();
        let store = Store::open(storage, &environment(), &options).unwrap();
        Self { sim, store, options }
    }

    /// Bytes of the disk that are taken.
    pub(crate) fn used_bytes(&self) -> u64 {
        let space = self.sim.space().unwrap();
        space.total_bytes - space.available_bytes
    }

    /// Somebody else takes all that is left of the disk.
    pub(crate) fn leave_nothing(&self) {
        self.sim.set_total_bytes(Some(self.used_bytes()));
        assert_eq!(self.sim.space().unwrap().available_bytes, 0);
    }

    /// Gives back what is dead, as the background threads of a mounted store do by themselves.
    pub(crate) fn reclaim(&self) {
        if !self.options.background {
            collect(&self.store, &CollectOptions::default(), &mut ()).unwrap();
        }
    }

    /// Repeats what the host had no space for, until it has: after something was removed.
    pub(crate) fn until_resumed(&self, mut step: impl FnMut() -> Result<()>) {
        for _ in 0..ATTEMPTS {
            match step() {
                Err(error) if self.options.background && error.kind() == ErrorKind::NoSpace => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                result => return result.unwrap(),
            }
        }
        panic!("writing does not resume: {:?} {:?}", self.store.stats(), self.sim.files());
    }

    pub(crate) fn assert_clean(&self) {
        assert_eq!(check(&self.store, &mut |_| {}).unwrap().findings, Vec::new());
    }

    /// Opens what crashes at this instant would leave on a disk of the same size, and looks at all of it.
    pub(crate) fn verify_crashes(&self, seed: u64, ledgers: &[&Ledger]) {
        for landing in [Landing::None, Landing::Random(seed), Landing::All] {
            let crashed = self.sim.after_crash(landing);
            let options = OpenOptions { background: false, ..self.options };
            let store = Store::open(Arc::new(crashed), &environment(), &options).unwrap();
            ledgers.iter().for_each(|ledger| ledger.verify_crashed(&store));
            assert_eq!(check(&store, &mut |_| {}).unwrap().findings, Vec::new(), "{landing:?}");
        }
    }

    /// Closes and opens the store, twice the same to its readers.
    pub(crate) fn reopen(&mut self) {
        self.store.close().unwrap();
        self.store = Store::open(Arc::new(self.sim.clone()), &environment(), &self.options).unwrap();
    }
}

/// Whether a write was refused because something is full. Any other error fails the test.
#[track_caller]
pub(crate) fn is_full(result: Result<()>) -> bool {
    match result {
        Ok(()) => false,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
            true
        }
    }
}
