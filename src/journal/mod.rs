//! The ring file that makes opaque payloads durable, in order, before anything else of a change is.
//!
//! Knows no volumes: payloads are bytes. A writer reserves room, appends under whatever lock orders its changes
//! (memory only), and after leaving the lock waits for durability. A checkpoint takes `position` under the same
//! lock, makes everything before it durable elsewhere, keeps the `Start` in its roots, and then calls `release`.

use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;

use crate::base::{Error, OpenMode, Result, Storage};

mod flush;
mod gather;
mod replay;
mod ring;
mod state;
#[cfg(test)]
mod tests;

pub use crate::format::journal::{Seq, Start};
pub use ring::create;
pub use state::Reservation;

use ring::{CHUNK_BYTES, Ring};
use state::Shared;

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
    /// Bytes written, with headers and padding.
    pub bytes: u64,
    pub fsyncs: u64,
}

/// Called once when a record is durable or never will be.
pub type Done = Box<dyn FnOnce(Result<()>) + Send>;

/// An open journal. Dropping it stops its thread; records nobody waited for are then lost, unless `shut_down`
/// was called.
pub struct Journal {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Replays without writing anything, for rescue. Returns where the tail is.
pub fn read_only_replay(
    storage: &dyn Storage,
    start: Start,
    replay: &mut dyn FnMut(Seq, &[u8]) -> Result<()>,
) -> Result<Start> {
    let ring = Ring::open(storage, &start, OpenMode::Read)?;
    Ok(replay::replay(&ring, &start, replay)?.next)
}

impl Journal {
    /// Replays from `start`, in order, then is ready to append. An error of `replay` is returned; `Corrupt` may
    /// come after records were replayed, which then are not to be used.
    pub fn open(
        storage: &Arc<dyn Storage>,
        start: Start,
        options: JournalOptions,
        replay: &mut dyn FnMut(Seq, &[u8]) -> Result<()>,
    ) -> Result<Arc<Self>> {
        let ring = Ring::open(storage.as_ref(), &start, OpenMode::ReadWrite)?;
        let tail = replay::replay(&ring, &start, replay)?;
        settle(&ring, &tail.last_flush)?;
        let shared = Arc::new(Shared::new(ring, &tail.next, start.offset, options.threaded));
        let thread = if options.threaded { Some(shared.start_thread()?) } else { None };
        Ok(Arc::new(Self { shared, thread: Mutex::new(thread) }))
    }

    /// Called, without locks, when `reserve` finds the ring too full, and again while it waits and there is more
    /// to release: ask for a checkpoint there, do not run it.
    pub fn on_pressure(&self, callback: Arc<dyn Fn() + Send + Sync>) {
        *self.shared.pressure.lock() = Some(callback);
    }

    /// Takes room for `records` records of `payload_bytes` in all. Blocks while the ring is too full, until
    /// `release` frees room; call it without locks that a checkpoint needs. Non-threaded: `NoSpace`. More than
    /// the whole ring could hold: `Invalid`.
    pub fn reserve(&self, payload_bytes: u64, records: u32) -> Result<Reservation> {
        self.shared.reserve(payload_bytes, records, false)
    }

    /// As `reserve`, from the part of the ring that is kept for what frees space: it waits for nobody, and has room
    /// when `reserve` has none.
    pub fn reserve_urgent(&self, payload_bytes: u64, records: u32) -> Result<Reservation> {
        self.shared.reserve(payload_bytes, records, true)
    }

    /// Until further notice nothing can be released, for this reason: who waits for room is told, and `reserve` fails
    /// where it would wait. `None` ends it.
    pub fn set_stuck(&self, reason: Option<Error>) {
        self.shared.set_stuck(reason);
    }

    /// Copies a record (the concatenated parts) into memory: no I/O, never blocks on the disk. The order of
    /// appends is the order of replay. A record larger than its reservation or `record_bytes_max` poisons.
    pub fn append(&self, reservation: &mut Reservation, payload: &[&[u8]]) -> Seq {
        self.shared.append(reservation, payload)
    }

    /// Blocks until the record and all before it are durable.
    pub fn commit(&self, seq: Seq) -> Result<()> {
        self.shared.commit(seq)
    }

    /// Makes the record durable if no flush is under way; false when one is: then `on_durable` waits without
    /// blocking. It saves the two context switches of handing over.
    pub fn commit_if_idle(&self, seq: Seq) -> Result<bool> {
        self.shared.commit_if_idle(seq)
    }

    /// As `commit`, telling `done` from the committer thread; inline when already durable or non-threaded.
    pub fn on_durable(&self, seq: Seq, done: Done) {
        self.shared.on_durable(seq, done);
    }

    /// Where the next record will start: what a checkpoint that covers all appended so far keeps as its `Start`.
    pub fn position(&self) -> Start {
        self.shared.position()
    }

    /// Everything before `start` is no longer needed: call it once `start` is durable in the roots.
    pub fn release(&self, start: &Start) {
        self.shared.release(start);
    }

    /// Ring bytes that replay would still need, appended ones in memory included.
    pub fn used_bytes(&self) -> u64 {
        self.shared.state.lock().used()
    }

    /// `used_bytes` at which `reserve` blocks; less than the ring by what a wrap may waste.
    pub fn capacity_bytes(&self) -> u64 {
        self.shared.capacity()
    }

    /// The largest payload one record may have: 8 MiB, or a quarter of a small ring.
    pub fn record_bytes_max(&self) -> u64 {
        self.shared.ring.record_bytes_max()
    }

    /// The last record known durable; `Seq(0)` is before the first.
    pub fn last_durable(&self) -> Seq {
        Seq(self.shared.state.lock().durable)
    }

    pub fn counters(&self) -> Counters {
        self.shared.state.lock().counters
    }

    /// The error that every call now returns, after a failed write or sync.
    pub fn poisoned(&self) -> Option<Error> {
        self.shared.state.lock().check().err()
    }

    /// Flushes what was appended and stops the committer thread. Idempotent; `reserve` then fails.
    pub fn shut_down(&self) -> Result<()> {
        let thread = self.thread.lock().take();
        self.shared.stop(thread);
        let last = Seq(self.shared.state.lock().next - 1);
        self.shared.commit(last)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let thread = self.thread.lock().take();
        self.shared.stop(thread);
    }
}

/// Writes the last flush once more and syncs. A process that died before its sync leaves it in the page cache
/// only, and one whose sync failed leaves it there marked clean: what was replayed must not vanish later.
fn settle(ring: &Ring, last_flush: &[(u64, u64)]) -> Result<()> {
    let failed = |action, place: u64, error| Error::io(action, &format!("journal at offset {place}"), error);
    let mut chunk = Vec::new();
    for (place, length) in last_flush {
        let mut at = *place;
        while at < place + length {
            chunk.resize(CHUNK_BYTES.min(place + length - at) as usize, 0);
            ring.file.read_exact_at(&mut chunk, at).map_err(|error| failed("read", at, error))?;
            ring.file.write_all_at(&chunk, at).map_err(|error| failed("write", at, error))?;
            at += chunk.len() as u64;
        }
    }
    if last_flush.is_empty() {
        return Ok(());
    }
    ring.file.sync_data().map_err(|error| Error::io("sync", ring::FILE_NAME, error))
}
