//! Group commit: one write and one sync of all that was gathered, by whoever needs it first.
//!
//! A caller of `commit` that finds no flush under way flushes itself: handing over to a thread would cost two
//! context switches. Those who find one under way wait for its end, and then one of them flushes for all. The
//! committer thread `sp-journal` does the same for callbacks, and is the only one that calls them back, so that
//! a caller of `commit` never runs others' code under its locks. A failed write or sync is never retried: what
//! the kernel did with the pages is unknown, so the journal is poisoned.

use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::MutexGuard;

use crate::base::{Error, Result};
use crate::format::journal::Seq;

use super::Done;
use super::gather::Gather;
use super::state::{GATHER_BYTES_MAX, Shared, State};

const THREAD_NAME: &str = "sp-journal";

impl Shared {
    pub(super) fn commit(&self, seq: Seq) -> Result<()> {
        let mut state = self.state.lock();
        while !state.is_durable(seq)? {
            if state.flushing {
                self.flushed.wait(&mut state);
            } else {
                state = self.flush(state);
            }
        }
        Ok(())
    }

    pub(super) fn commit_if_idle(&self, seq: Seq) -> Result<bool> {
        let mut state = self.state.lock();
        if state.is_durable(seq)? {
            return Ok(true);
        }
        if state.flushing {
            return Ok(false);
        }
        state = self.flush(state);
        state.is_durable(seq)
    }

    pub(super) fn on_durable(&self, seq: Seq, done: Done) {
        let mut state = self.state.lock();
        match state.is_durable(seq) {
            Ok(false) if self.threaded && !state.stopping => {
                state.waiting.push((seq, done));
                self.work.notify_one();
            }
            Ok(false) => {
                drop(state);
                done(self.commit(seq));
            }
            settled => {
                drop(state);
                done(settled.map(|_| ()));
            }
        }
    }

    /// Makes everything appended so far durable, or poisons. No flush may be under way.
    fn flush<'a>(&'a self, mut guard: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let state = &mut *guard;
        state.gather.close(&mut state.head);
        let spare = state.spare.take().unwrap_or_default();
        let mut gather = std::mem::replace(&mut state.gather, spare);
        let upto = state.next - 1;
        let durable = Seq(state.durable);
        state.flushing = true;
        let written = MutexGuard::unlocked(&mut guard, || self.write(&mut gather, durable));
        let state = &mut *guard;
        state.flushing = false;
        match written {
            Ok(()) => {
                state.durable = upto;
                state.counters.batches += gather.batches();
                state.counters.bytes += gather.bytes() as u64;
                state.counters.fsyncs += 1;
            }
            Err(error) => self.poison(state, error.message().to_owned()),
        }
        gather.reset();
        state.spare = Some(gather);
        self.flushed.notify_all();
        if !state.waiting.is_empty() || state.gather.bytes() >= GATHER_BYTES_MAX {
            self.work.notify_one();
        }
        guard
    }

    fn write(&self, gather: &mut Gather, durable: Seq) -> Result<()> {
        gather.seal(&self.ring.key, self.epoch, durable);
        for (place, bytes) in gather.runs(&self.ring) {
            self.ring
                .file
                .write_all_at(bytes, place)
                .map_err(|error| Error::io("write", &format!("journal at offset {place}"), error))?;
        }
        self.ring.file.sync_data().map_err(|error| Error::io("sync", "journal", error))
    }

    /// The committer thread, until it is told to stop and nobody waits.
    fn serve(&self) {
        let _departure = Departure(self);
        let mut state = self.state.lock();
        loop {
            let poisoned = state.poison.is_some();
            let durable = Seq(state.durable);
            let settled: Vec<_> =
                state.waiting.extract_if(.., |(seq, _)| poisoned || *seq <= durable).collect();
            if !settled.is_empty() {
                let outcome = state.check();
                MutexGuard::unlocked(&mut state, || tell(settled, &outcome));
            } else if !state.flushing && (!state.waiting.is_empty() || Self::is_overdue(&state)) {
                state = self.flush(state);
            } else if state.stopping && state.waiting.is_empty() {
                return;
            } else {
                self.work.wait(&mut state);
            }
        }
    }

    fn is_overdue(state: &State) -> bool {
        state.poison.is_none() && state.gather.bytes() >= GATHER_BYTES_MAX
    }

    pub(super) fn start_thread(self: &Arc<Self>) -> Result<JoinHandle<()>> {
        let shared = Arc::clone(self);
        std::thread::Builder::new()
            .name(THREAD_NAME.to_owned())
            .spawn(move || shared.serve())
            .map_err(|error| Error::io("start thread", THREAD_NAME, error))
    }

    /// Stops the thread once all who wait are served. From a callback it does not wait for itself.
    pub(super) fn stop(&self, thread: Option<JoinHandle<()>>) {
        self.state.lock().stopping = true;
        self.work.notify_all();
        self.room.notify_all();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            self.poison(&mut self.state.lock(), "its committer thread panicked".to_owned());
        }
    }
}

fn tell(settled: Vec<(Seq, Done)>, outcome: &Result<()>) {
    for (_, done) in settled {
        done(outcome.as_ref().map_err(Error::duplicate).copied());
    }
}

/// A callback that panics must not leave others waiting for a thread that is gone.
struct Departure<'a>(&'a Shared);

impl Drop for Departure<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut state = self.0.state.lock();
            self.0.poison(&mut state, "a callback panicked in its committer thread".to_owned());
            let waiting = std::mem::take(&mut state.waiting);
            let outcome = state.check();
            drop(state);
            tell(waiting, &outcome);
        }
    }
}
