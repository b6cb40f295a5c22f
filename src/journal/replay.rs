//! Reading the ring after a start: which batches are the journal, where its tail is, and whether it is whole.
//!
//! Must not write, and must not know what payloads mean.
//!
//! A batch follows if it lies at the expected offset, or, when the writer had no room there, at the next
//! beginning of the ring; if its first record has the expected number; and if its epoch is not lower than the
//! one before. Every open takes an epoch above all that valid batches in the ring carry and above that of its
//! start. So a batch that an earlier life left beyond its torn tail, and whose offset and number happen to fit
//! behind a batch of this life, has a lower epoch and is refused; while opens without a checkpoint between
//! leave a chain of rising epochs, which replays as one.
//!
//! The first place where no batch follows is the tail. It is torn by a crash, or never written, as long as no
//! valid batch says that the missing record was durable before it was written: flushes do not overlap, so
//! whatever landed of the last one says so only of records before its own. Such a batch elsewhere in the ring
//! means that acknowledged records are gone, which is corruption.

use crate::base::{Error, Result};
use crate::format::journal::{BATCH_HEADER_BYTES, Batch, BatchHeader, PAGE_BYTES, Seq, Start, decode_batch};

use super::ring::{CHUNK_BYTES, Ring};

/// What replay found.
pub(super) struct Tail {
    /// Offset and number of the next record; its epoch is above every one in use.
    pub(super) next: Start,
    /// Places and lengths of the last flush that landed, which a crash may have left in memory only.
    pub(super) last_flush: Vec<(u64, u64)>,
}

/// Hands every record from `start` on to `replay`, then looks through the rest of the ring.
pub(super) fn replay(
    ring: &Ring,
    start: &Start,
    replay: &mut dyn FnMut(Seq, &[u8]) -> Result<()>,
) -> Result<Tail> {
    let mut reader = Reader { ring, window: Vec::new(), window_place: 0 };
    let mut tail = Tail { next: *start, last_flush: Vec::new() };
    let mut last_flush_id = None;
    while let Some(header) = reader.follower(&tail.next)? {
        let place = ring.place(header.offset);
        let batch = Batch::accepted(header, reader.bytes(place, header.batch_bytes())?);
        let mut seq = header.first;
        for record in batch.records() {
            replay(seq, record)?;
            seq.0 += 1;
        }
        if last_flush_id.replace((header.epoch, header.durable)) != Some((header.epoch, header.durable)) {
            tail.last_flush.clear();
        }
        tail.last_flush.push((place, header.ring_bytes()));
        let offset = header.offset + header.ring_bytes();
        tail.next = Start { journal: start.journal, epoch: header.epoch, seq, offset };
    }
    let epoch = reader.survey(start, &tail.next)?;
    tail.next.epoch = epoch + 1;
    Ok(tail)
}

/// Reads the file through a window, so that small batches do not cost a read each.
struct Reader<'a> {
    ring: &'a Ring,
    window: Vec<u8>,
    window_place: u64,
}

impl Reader<'_> {
    /// `length` bytes of the file from `place`; both lie within the ring.
    fn bytes(&mut self, place: u64, length: u64) -> Result<&[u8]> {
        let window_end = self.window_place + self.window.len() as u64;
        if place < self.window_place || place + length > window_end {
            let end = PAGE_BYTES + self.ring.bytes;
            let window = length.max(CHUNK_BYTES.min(end.saturating_sub(place)));
            self.window.resize(window as usize, 0);
            self.window_place = place;
            if let Err(error) = self.ring.file.read_exact_at(&mut self.window, place) {
                self.window.clear();
                return Err(Error::io("read", &format!("journal at offset {place}"), error));
            }
        }
        let at = (place - self.window_place) as usize;
        Ok(&self.window[at..at + length as usize])
    }

    /// The valid batch at `offset`, if there is one.
    fn batch_at(&mut self, offset: u64) -> Result<Option<BatchHeader>> {
        let place = self.ring.place(offset);
        let Ok(header) = BatchHeader::peek(self.bytes(place, BATCH_HEADER_BYTES as u64)?) else {
            return Ok(None);
        };
        if self.ring.place(header.offset) != place || header.ring_bytes() > self.ring.room(offset) {
            return Ok(None);
        }
        let key = self.ring.key;
        let valid = decode_batch(&key, self.bytes(place, header.batch_bytes())?).is_ok();
        Ok(valid.then_some(header))
    }

    /// The batch that goes on at `next`, left in the window.
    fn follower(&mut self, next: &Start) -> Result<Option<BatchHeader>> {
        let around = next.offset.next_multiple_of(self.ring.bytes);
        for offset in [next.offset, around] {
            if let Some(header) = self.batch_at(offset)?
                && header.offset == offset
                && header.first == next.seq
                && header.epoch >= next.epoch
            {
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// Looks at every page from the tail `next` around to `start` for valid batches, refuses those that prove a
    /// loss, and returns the highest epoch in use.
    fn survey(&mut self, start: &Start, next: &Start) -> Result<u64> {
        let mut epoch = next.epoch;
        let mut offset = next.offset;
        while offset < start.offset + self.ring.bytes {
            let Some(header) = self.batch_at(offset)? else {
                offset += PAGE_BYTES;
                continue;
            };
            epoch = epoch.max(header.epoch);
            if header.durable >= next.seq {
                return Err(self.loss(next, &header));
            }
            offset += header.ring_bytes();
        }
        Ok(epoch)
    }

    fn loss(&self, next: &Start, later: &BatchHeader) -> Error {
        let place = self.ring.place(next.offset);
        let later_place = self.ring.place(later.offset);
        Error::corrupt(format!(
            "journal at offset {place}: no valid batch for record {}, which was durable before the one at offset \
             {later_place} (records from {}) was written",
            next.seq.0, later.first.0
        ))
    }
}
