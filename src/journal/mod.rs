//! The ring file that makes acknowledged changes durable. Knows no volumes.

use std::sync::Arc;

use crate::base::{Error, ErrorKind, Result, Storage};

pub use crate::format::journal::{Seq, Start};

/// How a journal works.
#[derive(Clone, Copy, Debug)]
pub struct JournalOptions {
    /// Run a committer thread. Without it every flush happens inline in the caller, and a full ring is
    /// `ErrorKind::NoSpace` instead of a wait.
    pub threaded: bool,
}

/// What was done since the journal was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub batches: u64,
    pub records: u64,
    pub bytes: u64,
    pub fsyncs: u64,
}

/// Called once when a record is durable or never will be.
pub type Done = Box<dyn FnOnce(Result<()>) + Send>;

/// Room in the ring, taken before the locks under which records are appended. What is not used is given back
/// on drop.
pub struct Reservation {}

/// An open journal.
pub struct Journal {}

fn missing() -> Error {
    Error::new(ErrorKind::Unsupported, "journal: not built yet")
}

/// Makes the file `journal` of `size_bytes`, allocated, written and durable. `id` is any number that is the
/// store's own.
pub fn create(_storage: &dyn Storage, _id: [u8; 16], _size_bytes: u64) -> Result<Start> {
    Err(missing())
}

/// Replays without writing anything, for rescue. Returns where the tail is.
pub fn read_only_replay(
    _storage: &dyn Storage,
    _start: Start,
    _replay: &mut dyn FnMut(Seq, &[u8]) -> Result<()>,
) -> Result<Start> {
    Err(missing())
}

impl Journal {
    /// Replays from `start`, in order, then is ready to append.
    pub fn open(
        _storage: &Arc<dyn Storage>,
        _start: Start,
        _options: JournalOptions,
        _replay: &mut dyn FnMut(Seq, &[u8]) -> Result<()>,
    ) -> Result<Arc<Self>> {
        Err(missing())
    }

    /// Called, without locks, whenever `reserve` finds the ring too full: ask for a checkpoint there, do not run it.
    pub fn on_pressure(&self, _callback: Arc<dyn Fn() + Send + Sync>) {}

    /// Takes room for `records` records of `payload_bytes` in all. Blocks while the ring is too full, until
    /// `release` frees room; call it without locks that a checkpoint needs. Non-threaded: `NoSpace`.
    pub fn reserve(&self, _payload_bytes: u64, _records: u32) -> Result<Reservation> {
        Err(missing())
    }

    /// Copies a record (the concatenated parts) into memory: no I/O, never blocks on the disk. The order of
    /// appends is the order of replay.
    pub fn append(&self, _reservation: &mut Reservation, _payload: &[&[u8]]) -> Seq {
        Seq(0)
    }

    /// Blocks until the record and all before it are durable.
    pub fn commit(&self, _seq: Seq) -> Result<()> {
        Err(missing())
    }

    /// As `commit`, telling `done` from the committer thread; inline when already durable or non-threaded.
    pub fn on_durable(&self, _seq: Seq, done: Done) {
        done(Err(missing()));
    }

    /// Where the next record will start: what a checkpoint that covers all appended so far keeps as its `Start`.
    pub fn position(&self) -> Start {
        Start { journal: [0; 16], epoch: 0, seq: Seq(1), offset: 0 }
    }

    /// Everything before `start` is no longer needed: call it once `start` is durable in the roots.
    pub fn release(&self, _start: &Start) {}

    pub fn used_bytes(&self) -> u64 {
        0
    }

    pub fn capacity_bytes(&self) -> u64 {
        0
    }

    /// The largest payload one record may have: 8 MiB, or a quarter of a small ring.
    pub fn record_bytes_max(&self) -> u64 {
        8 << 20
    }

    /// The last record known durable; `Seq(0)` is before the first.
    pub fn last_durable(&self) -> Seq {
        Seq(0)
    }

    pub fn counters(&self) -> Counters {
        Counters::default()
    }

    pub fn poisoned(&self) -> Option<Error> {
        None
    }

    /// Flushes what was appended and stops the committer thread. Idempotent.
    pub fn shut_down(&self) -> Result<()> {
        Ok(())
    }
}
