//! Bytes of the journal file: its header page, its batches of records, and the `Start` that roots keep.
//!
//! The file is one header page and then the ring. The ring is written in batches; a batch begins on a page,
//! never crosses the end of the ring, and holds whole records, each a `u32` length and its bytes. All numbers
//! are little-endian. What a payload means is not known here.
//!
//! | Batch | Bytes | |
//! |---|---|---|
//! | 0 | 8 | magic |
//! | 8 | 2 | format version |
//! | 10 | 2 | zero |
//! | 12 | 4 | records |
//! | 16 | 8 | epoch |
//! | 24 | 8 | number of the first record |
//! | 32 | 8 | number of the last record that was durable before this batch was written |
//! | 40 | 8 | logical offset of the batch |
//! | 48 | 4 | payload bytes |
//! | 52 | 4 | zero |
//! | 56 | 16 | BLAKE3 of bytes 0..56 and the payload, keyed by the journal's id |
//! | 72 | | payload, then nothing in particular up to the page's end |
//!
//! The key keeps batches of another journal, copied into a payload or left on reused disk space, from being
//! taken for this one's.

use crate::base::{Error, ErrorKind, Result};

#[cfg(test)]
mod tests;

/// Alignment of batches, and size of the header page.
pub const PAGE_BYTES: u64 = 4096;
/// A batch's header; its payload follows.
pub const BATCH_HEADER_BYTES: usize = 72;
/// A record's length prefix.
pub const RECORD_PREFIX_BYTES: usize = 4;
/// The largest payload of one record.
pub const RECORD_BYTES_MAX: u64 = 8 << 20;
/// Above every number in use; sums of a few numbers below it cannot overflow.
pub const NUMBER_MAX: u64 = 1 << 60;

const VERSION: u16 = 1;
const FILE_MAGIC: [u8; 8] = *b"SPJRNL\r\n";
const BATCH_MAGIC: [u8; 8] = *b"SPJBATCH";
const CHECKSUM_BYTES: usize = 16;
const BATCH_CHECKED_BYTES: usize = BATCH_HEADER_BYTES - CHECKSUM_BYTES;
const FILE_CHECKED_BYTES: usize = 40;
const BATCH_KEY_CONTEXT: &str = "stillpoint 2026 journal batch checksum";

/// Number of a record: starts at 1, rises by 1, never repeats in the life of a journal file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

/// Where replay begins. Opaque to whoever keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Identity of the journal file; the one given to `journal::create`.
    pub journal: [u8; 16],
    /// Batches of a lower epoch are not part of what follows.
    pub epoch: u64,
    /// Number of the first record to replay.
    pub seq: Seq,
    /// Logical offset: ring bytes consumed since creation, never taken modulo the ring.
    pub offset: u64,
}

impl Start {
    pub const BYTES: usize = 40;

    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..16].copy_from_slice(&self.journal);
        put_u64(&mut bytes, 16, self.epoch);
        put_u64(&mut bytes, 24, self.seq.0);
        put_u64(&mut bytes, 32, self.offset);
        bytes
    }

    pub fn decode(bytes: &[u8; Self::BYTES]) -> Result<Self> {
        let start = Self {
            journal: id_at(bytes, 0),
            epoch: u64_at(bytes, 16),
            seq: Seq(u64_at(bytes, 24)),
            offset: u64_at(bytes, 32),
        };
        start.check()?;
        Ok(start)
    }

    /// Refuses numbers that no journal can have handed out.
    pub fn check(&self) -> Result<()> {
        let numbers = [self.epoch, self.seq.0, self.offset].iter().all(|number| *number < NUMBER_MAX);
        if numbers && self.epoch > 0 && self.seq.0 > 0 && self.offset.is_multiple_of(PAGE_BYTES) {
            return Ok(());
        }
        Err(Error::corrupt(format!("journal start is impossible: {self:?}")))
    }
}

/// The first page of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader {
    pub id: [u8; 16],
    /// Length of the whole file.
    pub file_bytes: u64,
}

impl FileHeader {
    /// The page, padded with zeros.
    pub fn encode(&self) -> Vec<u8> {
        let mut page = vec![0; PAGE_BYTES as usize];
        page[..8].copy_from_slice(&FILE_MAGIC);
        page[8..10].copy_from_slice(&VERSION.to_le_bytes());
        page[16..32].copy_from_slice(&self.id);
        put_u64(&mut page, 32, self.file_bytes);
        let sum = blake3::hash(&page[..FILE_CHECKED_BYTES]);
        page[FILE_CHECKED_BYTES..FILE_CHECKED_BYTES + CHECKSUM_BYTES]
            .copy_from_slice(&sum.as_bytes()[..CHECKSUM_BYTES]);
        page
    }

    /// Later versions keep magic, version and checksum where they are, so that they are refused by name.
    pub fn decode(page: &[u8]) -> Result<Self> {
        let bad = |what| Err(Error::corrupt(format!("journal at offset 0: header page has a bad {what}")));
        if page.len() < FILE_CHECKED_BYTES + CHECKSUM_BYTES {
            return bad("length");
        }
        if page[..8] != FILE_MAGIC {
            return bad("magic");
        }
        let sum = blake3::hash(&page[..FILE_CHECKED_BYTES]);
        if page[FILE_CHECKED_BYTES..FILE_CHECKED_BYTES + CHECKSUM_BYTES] != sum.as_bytes()[..CHECKSUM_BYTES] {
            return bad("checksum");
        }
        let version = u16::from_le_bytes([page[8], page[9]]);
        if version != VERSION {
            let message = format!("journal has format version {version}, this program reads {VERSION}");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let header = Self { id: id_at(page, 16), file_bytes: u64_at(page, 32) };
        if header.file_bytes >= NUMBER_MAX || !header.file_bytes.is_multiple_of(PAGE_BYTES) {
            return bad("file length");
        }
        Ok(header)
    }
}

/// Key of the batches' checksums.
#[derive(Clone, Copy)]
pub struct BatchKey([u8; 32]);

impl BatchKey {
    pub fn new(journal: &[u8; 16]) -> Self {
        Self(blake3::derive_key(BATCH_KEY_CONTEXT, journal))
    }

    fn checksum(&self, header: &[u8], payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(header).update(payload);
        let mut sum = [0; CHECKSUM_BYTES];
        sum.copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM_BYTES]);
        sum
    }
}

/// What a batch says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    pub records: u32,
    pub epoch: u64,
    pub first: Seq,
    /// The last record known durable before this batch was written; `Seq(0)` is none.
    pub durable: Seq,
    pub offset: u64,
    pub payload_bytes: u32,
}

impl BatchHeader {
    /// Writes header and checksum into `batch`, which is room for the header and then the payload.
    pub fn seal(&self, key: &BatchKey, batch: &mut [u8]) {
        let (header, payload) = batch.split_at_mut(BATCH_HEADER_BYTES);
        header.fill(0);
        header[..8].copy_from_slice(&BATCH_MAGIC);
        header[8..10].copy_from_slice(&VERSION.to_le_bytes());
        header[12..16].copy_from_slice(&self.records.to_le_bytes());
        put_u64(header, 16, self.epoch);
        put_u64(header, 24, self.first.0);
        put_u64(header, 32, self.durable.0);
        put_u64(header, 40, self.offset);
        header[48..52].copy_from_slice(&self.payload_bytes.to_le_bytes());
        let sum = key.checksum(&header[..BATCH_CHECKED_BYTES], payload);
        header[BATCH_CHECKED_BYTES..].copy_from_slice(&sum);
    }

    /// Reads a header and checks its own sense; whether the batch landed whole is for `decode_batch`.
    pub fn peek(bytes: &[u8]) -> std::result::Result<Self, &'static str> {
        if bytes.len() < BATCH_HEADER_BYTES {
            return Err("length");
        }
        if bytes[..8] != BATCH_MAGIC {
            return Err("magic");
        }
        if bytes[8..10] != VERSION.to_le_bytes() || bytes[10..12] != [0; 2] || bytes[52..56] != [0; 4] {
            return Err("version");
        }
        let header = Self {
            records: u32_at(bytes, 12),
            epoch: u64_at(bytes, 16),
            first: Seq(u64_at(bytes, 24)),
            durable: Seq(u64_at(bytes, 32)),
            offset: u64_at(bytes, 40),
            payload_bytes: u32_at(bytes, 48),
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> std::result::Result<(), &'static str> {
        let numbers = [self.epoch, self.first.0, self.offset];
        if numbers.iter().any(|number| *number >= NUMBER_MAX) || self.epoch == 0 {
            return Err("number");
        }
        if self.durable >= self.first || !self.offset.is_multiple_of(PAGE_BYTES) {
            return Err("number");
        }
        let payload = u64::from(self.payload_bytes);
        let prefixes = u64::from(self.records) * RECORD_PREFIX_BYTES as u64;
        if self.records == 0 || payload < prefixes || payload > RECORD_BYTES_MAX + RECORD_PREFIX_BYTES as u64
        {
            return Err("payload length");
        }
        Ok(())
    }

    /// Header and payload.
    pub fn batch_bytes(&self) -> u64 {
        BATCH_HEADER_BYTES as u64 + u64::from(self.payload_bytes)
    }

    /// Ring bytes taken: whole pages.
    pub fn ring_bytes(&self) -> u64 {
        self.batch_bytes().next_multiple_of(PAGE_BYTES)
    }
}

/// A batch that landed whole.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    pub header: BatchHeader,
    payload: &'a [u8],
}

/// Checks the batch at the start of `bytes`, which may go on beyond it. The error names what is bad.
pub fn decode_batch<'a>(key: &BatchKey, bytes: &'a [u8]) -> std::result::Result<Batch<'a>, &'static str> {
    let header = BatchHeader::peek(bytes)?;
    let end = BATCH_HEADER_BYTES + header.payload_bytes as usize;
    let payload = bytes.get(BATCH_HEADER_BYTES..end).ok_or("length")?;
    let sum = key.checksum(&bytes[..BATCH_CHECKED_BYTES], payload);
    if bytes[BATCH_CHECKED_BYTES..BATCH_HEADER_BYTES] != sum {
        return Err("checksum");
    }
    let batch = Batch { header, payload };
    let mut framed = 0;
    let mut count = 0_u64;
    for record in batch.records() {
        framed += RECORD_PREFIX_BYTES + record.len();
        count += 1;
    }
    if framed != payload.len() || count != u64::from(header.records) {
        return Err("record length");
    }
    Ok(batch)
}

impl<'a> Batch<'a> {
    /// The batch of `header` at the start of `bytes`, both accepted by `decode_batch` before.
    pub fn accepted(header: BatchHeader, bytes: &'a [u8]) -> Self {
        Self { header, payload: bytes.get(BATCH_HEADER_BYTES..).unwrap_or(&[]) }
    }

    /// The payloads in order.
    pub fn records(&self) -> Records<'a> {
        Records { rest: self.payload }
    }
}

/// Iterator over a batch's payloads; ends at the first that does not fit.
pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (prefix, rest) = self.rest.split_first_chunk()?;
        let length = usize::try_from(u32::from_le_bytes(*prefix)).ok()?;
        let (record, rest) = rest.split_at_checked(length)?;
        self.rest = rest;
        Some(record)
    }
}

fn put_u64(bytes: &mut [u8], at: usize, number: u64) {
    bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
}

/// Callers have checked that `at` and what follows lie within.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn id_at(bytes: &[u8], at: usize) -> [u8; 16] {
    let mut id = [0; 16];
    id.copy_from_slice(&bytes[at..at + 16]);
    id
}
