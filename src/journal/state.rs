//! What an open journal keeps in memory: the room in the ring, the records being gathered, who waits.
//!
//! Must not do I/O; `flush` does.
//!
//! Room: `used` (from the released offset to the end of what was appended) and `reserved` (the worst that
//! outstanding reservations may still take) never exceed the ring less one page together. A wrap wastes less
//! than the largest batch, and `reserve` always leaves that much over. Once is enough: between two wraps goes
//! more than reservations can hold together, so a later `reserve` has looked at the room again.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::base::{Error, ErrorKind, Result};
use crate::format::journal::{PAGE_BYTES, Seq, Start};

use super::gather::{Gather, RECORD_OVERHEAD_BYTES};
use super::ring::Ring;
use super::{Counters, Done};

/// Gathered bytes that the committer thread writes without being asked, to bound memory.
pub(super) const GATHER_BYTES_MAX: usize = 4 << 20;
/// At most so much is kept for urgent reservations.
const URGENT_BYTES: u64 = 512 << 10;

pub(super) struct State {
    /// Number of the next record.
    pub(super) next: u64,
    /// End of the last closed batch.
    pub(super) head: u64,
    pub(super) released: u64,
    pub(super) reserved: u64,
    pub(super) gather: Gather,
    /// Buffers of the last flush, for the next.
    pub(super) spare: Option<Gather>,
    /// A flush is under way: at most one is, see `replay`.
    pub(super) flushing: bool,
    pub(super) durable: u64,
    pub(super) waiting: Vec<(Seq, Done)>,
    /// Reservations are served in the order they came: the next ticket, and the one being served.
    pub(super) ticket_next: u64,
    pub(super) ticket_served: u64,
    pub(super) poison: Option<String>,
    pub(super) stopping: bool,
    /// Why nothing can be released until further notice.
    pub(super) stuck: Option<Error>,
    pub(super) counters: Counters,
}

impl State {
    pub(super) fn used(&self) -> u64 {
        self.gather.head_end(self.head) - self.released
    }

    pub(super) fn check(&self) -> Result<()> {
        let poisoned = |cause: &String| {
            Err(Error::new(ErrorKind::Poisoned, format!("journal is unusable until reopened: {cause}")))
        };
        self.poison.as_ref().map_or(Ok(()), poisoned)
    }

    fn check_open(&self) -> Result<()> {
        self.check()?;
        let stopped = || Error::new(ErrorKind::Precondition, "journal is shut down");
        if self.stopping { Err(stopped()) } else { Ok(()) }
    }

    /// Whether `seq` is durable; an error when it never will be.
    pub(super) fn is_durable(&self, seq: Seq) -> Result<bool> {
        self.check()?;
        if seq.0 >= self.next {
            return Err(Error::invalid(format!("journal record {} was never appended", seq.0)));
        }
        Ok(seq.0 <= self.durable)
    }
}

/// Shared by the journal, its reservations and its committer thread.
pub(super) struct Shared {
    pub(super) ring: Ring,
    pub(super) epoch: u64,
    pub(super) threaded: bool,
    pub(super) state: Mutex<State>,
    /// A flush ended.
    pub(super) flushed: Condvar,
    /// The committer has something to do.
    pub(super) work: Condvar,
    /// Room was freed, or the next reservation may try.
    pub(super) room: Condvar,
    pub(super) pressure: Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
}

impl Shared {
    pub(super) fn new(ring: Ring, next: &Start, released: u64, threaded: bool) -> Self {
        let state = State {
            next: next.seq.0,
            head: next.offset,
            released,
            reserved: 0,
            gather: Gather::default(),
            spare: None,
            flushing: false,
            durable: next.seq.0 - 1,
            waiting: Vec::new(),
            ticket_next: 0,
            ticket_served: 0,
            poison: None,
            stopping: false,
            stuck: None,
            counters: Counters::default(),
        };
        Self {
            ring,
            epoch: next.epoch,
            threaded,
            state: Mutex::new(state),
            flushed: Condvar::new(),
            work: Condvar::new(),
            room: Condvar::new(),
            pressure: Mutex::new(None),
        }
    }

    /// One page stays free, so that a full ring and an empty one differ.
    fn room_max(&self) -> u64 {
        self.ring.bytes - PAGE_BYTES
    }

    /// What is used and reserved when a reservation is granted, at most.
    pub(super) fn capacity(&self) -> u64 {
        self.urgent_capacity() - URGENT_BYTES.min(self.urgent_capacity() / 8)
    }

    /// The same for an urgent one.
    fn urgent_capacity(&self) -> u64 {
        let wrap_waste = self.ring.record_bytes_max() + RECORD_OVERHEAD_BYTES;
        self.room_max() - wrap_waste
    }

    /// No record after this is made durable.
    pub(super) fn poison(&self, state: &mut State, cause: String) {
        state.poison.get_or_insert(cause);
        self.flushed.notify_all();
        self.work.notify_all();
        self.room.notify_all();
    }

    pub(super) fn set_stuck(&self, reason: Option<Error>) {
        self.state.lock().stuck = reason;
        self.room.notify_all();
    }

    pub(super) fn reserve(
        self: &Arc<Self>,
        payload_bytes: u64,
        records: u32,
        urgent: bool,
    ) -> Result<Reservation> {
        let bytes = self.cost(payload_bytes, records)?;
        let mut state = self.state.lock();
        let most = if urgent { self.urgent_capacity() } else { self.capacity() };
        let fits = |state: &State| state.used() + state.reserved + bytes <= most;
        let idle = state.ticket_next == state.ticket_served;
        state.check_open()?;
        // What is urgent does not queue behind what waits for room.
        if !((idle || urgent) && fits(&state)) {
            if !self.threaded {
                let used = state.used();
                let message =
                    format!("journal has {used} of {} bytes in use, {bytes} more asked", self.ring.bytes);
                return Err(Error::new(ErrorKind::NoSpace, message));
            }
            state = self.wait_for_room(state, fits)?;
        }
        state.reserved += bytes;
        Ok(Reservation { shared: Arc::clone(self), bytes })
    }

    fn wait_for_room<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        fits: impl Fn(&State) -> bool,
    ) -> Result<MutexGuard<'a, State>> {
        let ticket = state.ticket_next;
        state.ticket_next += 1;
        let mut pressed_at = None;
        loop {
            let served = state.ticket_served == ticket;
            let open = state.check_open();
            let open = match &state.stuck {
                Some(reason) if !fits(&state) => open.and(Err(reason.duplicate())),
                _ => open,
            };
            if served && (open.is_err() || fits(&state)) {
                state.ticket_served += 1;
                self.room.notify_all();
                return open.map(|()| state);
            }
            // Asked again whenever there is something new to release: what outstanding reservations append after
            // a checkpoint would otherwise never be released.
            let extent = Some((state.released, state.used()));
            if served && state.used() > 0 && pressed_at != extent {
                pressed_at = extent;
                self.press(&mut state);
            } else {
                self.room.wait(&mut state);
            }
        }
    }

    fn press(&self, state: &mut MutexGuard<'_, State>) {
        let pressure = self.pressure.lock().clone();
        if let Some(pressure) = pressure {
            MutexGuard::unlocked(state, || pressure());
        }
    }

    /// The most that the records can take, each in a batch of its own.
    fn cost(&self, payload_bytes: u64, records: u32) -> Result<u64> {
        let bytes = payload_bytes.checked_add(u64::from(records) * RECORD_OVERHEAD_BYTES);
        bytes.filter(|bytes| *bytes <= self.capacity()).ok_or_else(|| {
            let ring = self.ring.bytes;
            Error::invalid(format!(
                "{payload_bytes} bytes in {records} records do not fit a ring of {ring} bytes"
            ))
        })
    }

    pub(super) fn append(&self, reservation: &mut Reservation, parts: &[&[u8]]) -> Seq {
        let length: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let seq = Seq(state.next);
        state.next += 1;
        if state.poison.is_some() {
            return seq;
        }
        let used_before = state.used();
        let fits_record = length <= self.ring.record_bytes_max();
        if let (true, Ok(length)) = (fits_record, u32::try_from(length)) {
            state.gather.add(&self.ring, &mut state.head, seq, parts, length);
            state.counters.records += 1;
        }
        let spent = (state.used() - used_before).min(reservation.bytes);
        reservation.bytes -= spent;
        state.reserved -= spent;
        if !fits_record || state.used() + state.reserved > self.room_max() {
            let cause = format!("record {} of {length} bytes is larger than what was reserved", seq.0);
            self.poison(state, cause);
        }
        if self.threaded && state.gather.bytes() >= GATHER_BYTES_MAX {
            self.work.notify_one();
        }
        seq
    }

    pub(super) fn position(&self) -> Start {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.gather.close(&mut state.head);
        Start { journal: self.ring.id, epoch: self.epoch, seq: Seq(state.next), offset: state.head }
    }

    pub(super) fn release(&self, start: &Start) {
        let mut state = self.state.lock();
        if start.journal == self.ring.id && start.offset <= state.head {
            state.released = state.released.max(start.offset);
        }
        self.room.notify_all();
    }
}

/// Room in the ring, taken before the locks under which records are appended. What is not used is given back
/// on drop.
pub struct Reservation {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shared.state.lock().reserved -= self.bytes;
        self.shared.room.notify_all();
    }
}
