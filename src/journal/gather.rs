//! Batches being gathered in memory, with their offsets in the ring already fixed.
//!
//! Must not know of files, locks or who waits. Offsets are fixed when a batch is opened, so that a position
//! taken while records are still in memory is the one they will be found behind.

use crate::format::journal::{
    BATCH_HEADER_BYTES, BatchHeader, BatchKey, PAGE_BYTES, RECORD_PREFIX_BYTES, Seq,
};

use super::ring::Ring;

/// What a record may cost beyond its payload: prefix, header and padding of a batch of its own.
pub(super) const RECORD_OVERHEAD_BYTES: u64 =
    RECORD_PREFIX_BYTES as u64 + BATCH_HEADER_BYTES as u64 + PAGE_BYTES - 1;
/// A buffer that grew beyond this is not kept for the next flush.
const SPARE_BYTES_MAX: usize = 8 << 20;

/// A batch complete but for what only the flush knows.
struct Closed {
    at: usize,
    end: usize,
    offset: u64,
    first: Seq,
    records: u32,
}

/// The batch that records are added to.
struct Open {
    at: usize,
    offset: u64,
    /// Header and payload may grow to this.
    bytes_max: u64,
    first: Seq,
    records: u32,
}

/// The batches of the next flush, as one image of whole pages.
#[derive(Default)]
pub(super) struct Gather {
    image: Vec<u8>,
    closed: Vec<Closed>,
    open: Option<Open>,
}

impl Gather {
    /// Adds a record of `length` bytes. `head` is the end of the last closed batch; it moves when a batch is
    /// closed or the end of the ring is skipped.
    pub(super) fn add(&mut self, ring: &Ring, head: &mut u64, seq: Seq, parts: &[&[u8]], length: u32) {
        let framed = RECORD_PREFIX_BYTES as u64 + u64::from(length);
        if let Some(open) = &self.open
            && (self.image.len() - open.at) as u64 + framed > open.bytes_max
        {
            self.close(head);
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin(ring, head, seq, framed),
        };
        self.image.extend_from_slice(&length.to_le_bytes());
        for part in parts {
            self.image.extend_from_slice(part);
        }
        open.records += 1;
        self.open = Some(open);
    }

    fn begin(&mut self, ring: &Ring, head: &mut u64, first: Seq, framed: u64) -> Open {
        let least = BATCH_HEADER_BYTES as u64 + framed;
        if least.next_multiple_of(PAGE_BYTES) > ring.room(*head) {
            *head += ring.room(*head);
        }
        let at = self.image.len();
        self.image.resize(at + BATCH_HEADER_BYTES, 0);
        let bytes_max = ring.batch_bytes_max().max(least).min(ring.room(*head));
        Open { at, offset: *head, bytes_max, first, records: 0 }
    }

    /// Ends the open batch, so that the next record begins one.
    pub(super) fn close(&mut self, head: &mut u64) {
        let Some(open) = self.open.take() else { return };
        let end = self.image.len();
        self.image.resize(end.next_multiple_of(PAGE_BYTES as usize), 0);
        *head = open.offset + (self.image.len() - open.at) as u64;
        let Open { at, offset, first, records, .. } = open;
        self.closed.push(Closed { at, end, offset, first, records });
    }

    /// Where the ring would be at if the open batch were closed now.
    pub(super) fn head_end(&self, head: u64) -> u64 {
        let end =
            |open: &Open| open.offset + ((self.image.len() - open.at) as u64).next_multiple_of(PAGE_BYTES);
        self.open.as_ref().map_or(head, end)
    }

    pub(super) fn bytes(&self) -> usize {
        self.image.len()
    }

    pub(super) fn batches(&self) -> u64 {
        self.closed.len() as u64
    }

    /// Writes headers and checksums; all batches must be closed.
    pub(super) fn seal(&mut self, key: &BatchKey, epoch: u64, durable: Seq) {
        for closed in &self.closed {
            let payload_bytes = (closed.end - closed.at - BATCH_HEADER_BYTES) as u32;
            let Closed { offset, first, records, .. } = *closed;
            let header = BatchHeader { records, epoch, first, durable, offset, payload_bytes };
            header.seal(key, &mut self.image[closed.at..closed.end]);
        }
    }

    /// The image in runs that are contiguous in the file: (place, bytes).
    pub(super) fn runs(&self, ring: &Ring) -> impl Iterator<Item = (u64, &[u8])> {
        let mut rest = &self.closed[..];
        std::iter::from_fn(move || {
            let first = rest.first()?;
            let place = ring.place(first.offset);
            let follows = |batch: &Closed| {
                let distance = (batch.at - first.at) as u64;
                batch.offset == first.offset + distance && ring.place(batch.offset) == place + distance
            };
            let count = rest.iter().take_while(|batch| follows(batch)).count();
            let image_end = rest.get(count).map_or(self.image.len(), |next| next.at);
            rest = &rest[count..];
            Some((place, &self.image[first.at..image_end]))
        })
    }

    /// Empties it for the next flush and keeps its buffers.
    pub(super) fn reset(&mut self) {
        self.image.clear();
        self.image.shrink_to(SPARE_BYTES_MAX);
        self.closed.clear();
        self.open = None;
    }
}
