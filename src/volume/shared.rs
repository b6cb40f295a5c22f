//! What all views of a store share: trees, journal, hints, and the bounds on memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};

use super::trees::Trees;
use super::types::{Completion, Environment, OpenOptions, Timestamp, ViewId};
use crate::base::{Error, ErrorKind, Result, Storage};
use crate::index::HintTable;
use crate::journal::Journal;

/// A checkpoint begins when the journal's ring is this full, in percent.
const JOURNAL_FULL_PERCENT: u64 = 50;

/// Asked of the checkpoint thread.
#[derive(Default)]
pub(crate) struct Requests {
    /// Told when a checkpoint that begins after the request is durable.
    pub(crate) waiters: Vec<Completion>,
    pub(crate) wanted: bool,
    pub(crate) stop: bool,
}

pub(crate) struct Shared {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) environment: Environment,
    pub(crate) options: OpenOptions,
    pub(crate) trees: Trees,
    pub(crate) hints: HintTable,
    pub(crate) journal: OnceLock<Arc<Journal>>,
    /// Held for reading while pointers of a tree are followed; for writing while segments leave the table.
    pub(crate) gate: RwLock<()>,
    /// Bytes of changes in live layers.
    pub(crate) live_cost: AtomicU64,
    /// Bytes of changes in frozen layers.
    pub(crate) frozen_cost: AtomicU64,
    pub(crate) requests: Mutex<Requests>,
    pub(crate) request_arrived: Condvar,
    /// Signalled whenever memory or space may have come free.
    pub(crate) room: Condvar,
    pub(crate) room_lock: Mutex<()>,
    /// Host bytes that writers may still promise away; kept by checkpoints and by writers themselves.
    pub(crate) free_bytes: AtomicU64,
    /// Why the last checkpoint could not store anything, such as a full host: until one succeeds, what needs memory
    /// or room in the journal is refused.
    pub(crate) blocked: Mutex<Option<Error>>,
    /// The last journal record that shares a stored block by its place.
    pub(crate) last_share: AtomicU64,
    pub(crate) failed: OnceLock<String>,
    /// Runs a checkpoint in the calling thread, where there is no thread for it.
    pub(crate) inline_checkpoint: OnceLock<Box<dyn Fn() -> Result<()> + Send + Sync>>,
    /// Reservations of other volumes that they have not used yet, in bytes, by view.
    pub(crate) reserved: Mutex<HashMap<ViewId, u64>>,
}

impl Shared {
    pub(crate) fn journal(&self) -> Result<&Arc<Journal>> {
        self.journal.get().ok_or_else(|| Error::new(ErrorKind::ReadOnly, "the store is open read-only"))
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_unix_nanos(self.environment.clock.unix_nanos())
    }

    pub(crate) fn dirty_bytes(&self) -> u64 {
        self.live_cost.load(Ordering::Relaxed) + self.frozen_cost.load(Ordering::Relaxed)
    }

    /// An earlier failure that leaves what is on disk unknown.
    pub(crate) fn check_failed(&self) -> Result<()> {
        match self.failed.get() {
            Some(message) => Err(Error::new(ErrorKind::Poisoned, message.clone())),
            None => Ok(()),
        }
    }

    pub(crate) fn fail(&self, error: &Error) {
        let message = format!(
            "the store stopped after a failed write or sync, reopen it to go on from what is durable: {error}"
        );
        tracing::error!("{message}");
        let _ = self.failed.set(message);
        self.room.notify_all();
    }

    /// What keeps checkpoints from succeeding.
    pub(crate) fn blocked(&self) -> Option<Error> {
        self.blocked.lock().as_ref().map(Error::duplicate)
    }

    /// The last checkpoint could not store anything for this reason, or none.
    pub(crate) fn set_blocked(&self, reason: Option<&Error>) {
        *self.blocked.lock() = reason.map(Error::duplicate);
        if let Ok(journal) = self.journal() {
            journal.set_stuck(reason.map(Error::duplicate));
        }
        self.room.notify_all();
    }

    /// Asks for a checkpoint that begins after now.
    pub(crate) fn request_checkpoint(&self, waiter: Option<Completion>) {
        let mut requests = self.requests.lock();
        if requests.stop {
            drop(requests);
            if let Some(waiter) = waiter {
                waiter(Err(Error::new(ErrorKind::Poisoned, "the store is closed")));
            }
            return;
        }
        requests.wanted = true;
        requests.waiters.extend(waiter);
        self.request_arrived.notify_one();
    }

    /// Asks for a checkpoint when the journal's ring is half full.
    pub(crate) fn pace(&self, journal: &Journal) {
        let full = journal.used_bytes() * 100 > journal.capacity_bytes() * JOURNAL_FULL_PERCENT;
        if full && self.options.background && !self.requests.lock().wanted {
            self.request_checkpoint(None);
        }
    }

    /// Waits until changed pages leave room for `bytes` more. Call it without locks.
    pub(crate) fn wait_for_room(&self, bytes: u64) -> Result<()> {
        self.check_failed()?;
        let soft = self.options.dirty_bytes_soft;
        let dirty = self.dirty_bytes() + bytes;
        if dirty <= soft {
            return Ok(());
        }
        if self.options.background {
            self.request_checkpoint(None);
        }
        if dirty <= self.options.dirty_bytes_max {
            return Ok(());
        }
        if !self.options.background {
            return self.checkpoint_now();
        }
        let mut guard = self.room_lock.lock();
        loop {
            self.check_failed()?;
            if self.dirty_bytes() + bytes <= self.options.dirty_bytes_max {
                return Ok(());
            }
            if let Some(error) = self.blocked() {
                return Err(error);
            }
            self.room.wait_for(&mut guard, Duration::from_millis(100));
        }
    }

    /// Runs a checkpoint that begins after now, and waits for it. Call it without locks.
    pub(crate) fn checkpoint_now(&self) -> Result<()> {
        if !self.options.background {
            return self.inline_checkpoint.get().map_or(Ok(()), |run| run());
        }
        let (sender, receiver) = crossbeam::channel::bounded(1);
        self.request_checkpoint(Some(Box::new(move |result| {
            let _ = sender.send(result);
        })));
        receiver.recv().unwrap_or_else(|_| Err(Error::new(ErrorKind::Poisoned, "the store is closed")))
    }

    /// Host bytes that dirty pages may take before `view` meets a full store.
    pub(crate) fn free_for(&self, view: ViewId) -> u64 {
        let reserved = self.reserved.lock();
        let others: u64 = reserved.iter().filter(|(id, _)| **id != view).map(|(_, bytes)| *bytes).sum();
        self.free_bytes.load(Ordering::Relaxed).saturating_sub(others)
    }

    /// Whether the host has space for what is dirty and `bytes` more, counted with what a checkpoint adds. Room for
    /// one segment is left: without it compaction could not give back what is destroyed later.
    pub(crate) fn has_space(&self, view: ViewId, bytes: u64) -> bool {
        let promised = self.dirty_bytes() + bytes;
        promised + promised / 2 + self.options.segment_bytes <= self.free_for(view)
    }

    /// Whether so little is left that what is dead must be given back at once.
    pub(crate) fn is_short_of_space(&self) -> bool {
        self.dirty_bytes() + self.options.segment_bytes > self.free_bytes.load(Ordering::Relaxed)
    }
}

pub(crate) fn no_space() -> Error {
    Error::new(
        ErrorKind::NoSpace,
        "the store's file system is full: destroy snapshots or volumes, or give it more space",
    )
}
