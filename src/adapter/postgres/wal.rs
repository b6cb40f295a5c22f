//! WAL segments: the header of a segment and of its pages, and the check that a file is the segment its name
//! says.
//!
//! A segment is checked as it streams by, so that a copy needs one read. What is found: a file of another size,
//! version, cluster, timeline, place or segment size; pages that are of another place or were never written (a
//! hole, a recycled segment that is still being filled). What is not found: damage within records, which
//! PostgreSQL's own checksum of each record finds when it replays them, and a file of the right form that stops
//! early, since a segment that was switched ends in zeros too; the latter is reported as `ends_in_zeros`.
//!
//! Decoders look before they compute; no bytes make them panic. Knows of bytes and names, no folders.
//!
//! Format: PostgreSQL's `src/include/access/xlog_internal.h` (`XLogPageHeaderData`, `XLogLongPageHeaderData`,
//! `XLOG_PAGE_MAGIC`), rules as in `XLogReaderValidatePageHeader` of `src/backend/access/transam/xlogreader.c`.
//! All numbers are in the byte order of the source's machine; here little-endian, as replay needs the same
//! architecture.

use std::fs::File;
use std::io;
use std::path::Path;

use super::compression::{Compression, read_full};
use super::history::TimelineHistory;
use super::lsn::{Lsn, SegmentName, SegmentSize, Timeline};

mod fault;

pub use fault::{WalFault, WalFaultKind};

/// Bytes of the header of a segment's first page.
pub const LONG_HEADER_BYTES: usize = 40;
/// Bytes of the header of every other page.
pub const SHORT_HEADER_BYTES: usize = 24;
/// Flag of a page with the long header.
const LONG_HEADER_FLAG: u16 = 2;
/// Pages of WAL, unless PostgreSQL was built otherwise.
const BLOCK_BYTES_USUAL: u64 = 8192;
const BLOCK_BYTES_MAX: u32 = 64 << 10;
/// Read and handed on at once.
const CHUNK_BYTES: usize = 256 << 10;

/// The first two bytes of a page, by major version.
const MAGICS: [(u32, u16); 9] = [
    (10, 0xD097),
    (11, 0xD098),
    (12, 0xD101),
    (13, 0xD106),
    (14, 0xD10D),
    (15, 0xD110),
    (16, 0xD113),
    (17, 0xD116),
    (18, 0xD118),
];

/// What a page of this major version begins with; `None` for a version that is not known here.
pub fn magic_of(major: u32) -> Option<u16> {
    MAGICS.iter().find(|(known, _)| *known == major).map(|(_, magic)| *magic)
}

/// The major version that begins its pages so.
pub fn major_of(magic: u16) -> Option<u32> {
    MAGICS.iter().find(|(_, known)| *known == magic).map(|(major, _)| *major)
}

/// The header of a segment's first page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    pub page: PageHeader,
    pub system_id: u64,
    pub segment_bytes: u32,
    pub block_bytes: u32,
}

/// The header of any page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageHeader {
    pub magic: u16,
    pub info: u16,
    /// That of the first record on the page; 0 on a page that was never written.
    pub timeline: u32,
    pub address: Lsn,
}

impl PageHeader {
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < SHORT_HEADER_BYTES {
            return None;
        }
        Some(Self {
            magic: u16::from_le_bytes(field(bytes, 0)?),
            info: u16::from_le_bytes(field(bytes, 2)?),
            timeline: u32::from_le_bytes(field(bytes, 4)?),
            address: Lsn(u64::from_le_bytes(field(bytes, 8)?)),
        })
    }
}

impl SegmentHeader {
    /// Of the first 40 bytes of a file; `None` when there are fewer.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            page: PageHeader::decode(bytes)?,
            system_id: u64::from_le_bytes(field(bytes, 24)?),
            segment_bytes: u32::from_le_bytes(field(bytes, 32)?),
            block_bytes: u32::from_le_bytes(field(bytes, 36)?),
        })
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// What a segment must be.
#[derive(Clone, Copy, Debug)]
pub struct ExpectedSegment<'a> {
    pub name: SegmentName,
    pub system_id: u64,
    pub major: u32,
    pub size: SegmentSize,
    /// The history of the name's timeline, where known: the first segment of a timeline begins with a copy of
    /// its parent's pages, and only the history tells whether these belong there.
    pub history: Option<&'a TimelineHistory>,
}

/// A segment that is what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentContent {
    /// The last page was never written: the segment was switched early, or it is not yet complete.
    pub ends_in_zeros: bool,
}

/// Checks the file at `path`, compressed as its ending says, to its end.
pub fn check_segment(path: &Path, expected: &ExpectedSegment<'_>) -> Result<SegmentContent, WalFault> {
    let (_, compression) = Compression::split(path.to_str().unwrap_or_default());
    match copy_segment(path, compression, expected, &mut |_| Ok(())) {
        Ok(content) => Ok(content),
        Err(CopyError::Fault(kind)) => Err(WalFault { path: path.to_owned(), kind }),
        Err(CopyError::Sink(e)) => {
            Err(WalFault { path: path.to_owned(), kind: WalFaultKind::unreadable(&e) })
        }
    }
}

/// Why a segment was not copied.
#[derive(Debug)]
pub(super) enum CopyError {
    Fault(WalFaultKind),
    /// The taker of the bytes failed.
    Sink(io::Error),
}

impl From<WalFaultKind> for CopyError {
    fn from(kind: WalFaultKind) -> Self {
        Self::Fault(kind)
    }
}

/// Checks a segment and hands its decoded bytes to `sink` on the way; what was handed on before a fault is to
/// be thrown away.
pub(super) fn copy_segment(
    path: &Path,
    compression: Compression,
    expected: &ExpectedSegment<'_>,
    sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<SegmentContent, CopyError> {
    let file = open(path)?;
    let size = expected.size.bytes();
    if compression == Compression::None {
        let found = file.metadata().map_err(|e| WalFaultKind::unreadable(&e))?.len();
        check_length(found, size)?;
    }
    let mut source = compression.decode(file).map_err(|e| WalFaultKind::unreadable(&e))?;
    let mut check = SegmentCheck::new(*expected);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = read_full(&mut source, &mut chunk).map_err(|e| WalFaultKind::unreadable(&e))?;
        if read == 0 {
            return Ok(check.finish()?);
        }
        check.feed(&chunk[..read])?;
        sink(&chunk[..read]).map_err(CopyError::Sink)?;
    }
}

/// Opens a regular file; anything else, as a fifo that would hang, is refused.
pub(super) fn open(path: &Path) -> Result<File, WalFaultKind> {
    let metadata = path.metadata().map_err(|e| WalFaultKind::unreadable(&e))?;
    if !metadata.is_file() {
        return Err(WalFaultKind::NotAFile);
    }
    File::open(path).map_err(|e| WalFaultKind::unreadable(&e))
}

fn check_length(found: u64, expected: u64) -> Result<(), WalFaultKind> {
    match found {
        found if found < expected => Err(WalFaultKind::TooShort { found, expected }),
        found if found > expected => Err(WalFaultKind::TooLong { found, expected }),
        _ => Ok(()),
    }
}

/// The check of a segment whose bytes come in pieces of any length.
#[derive(Debug)]
pub struct SegmentCheck<'a> {
    expected: ExpectedSegment<'a>,
    position: u64,
    block_bytes: u64,
    /// The header of the page at hand, as far as it has come.
    header: [u8; LONG_HEADER_BYTES],
    header_filled: usize,
    /// Of the page before; pages of a segment never go back to an older one.
    timeline: u32,
    /// The first page that was never written.
    zeros_from: Option<u64>,
}

impl<'a> SegmentCheck<'a> {
    pub fn new(expected: ExpectedSegment<'a>) -> Self {
        Self {
            expected,
            position: 0,
            block_bytes: BLOCK_BYTES_USUAL,
            header: [0; LONG_HEADER_BYTES],
            header_filled: 0,
            timeline: 0,
            zeros_from: None,
        }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), WalFaultKind> {
        while !bytes.is_empty() {
            if self.position >= self.expected.size.bytes() {
                let found = self.position + bytes.len() as u64;
                return Err(WalFaultKind::TooLong { found, expected: self.expected.size.bytes() });
            }
            let header_bytes = if self.page_start() == 0 { LONG_HEADER_BYTES } else { SHORT_HEADER_BYTES };
            let inside = self.position - self.page_start();
            let missing = (header_bytes as u64).saturating_sub(inside);
            let (wanted, in_header) =
                if missing > 0 { (missing, true) } else { (self.block_bytes - inside, false) };
            let taken = usize::try_from(wanted).unwrap_or(usize::MAX).min(bytes.len());
            let (head, rest) = bytes.split_at(taken);
            if in_header {
                self.header[self.header_filled..][..taken].copy_from_slice(head);
                self.header_filled += taken;
                if self.header_filled == header_bytes {
                    self.check_page()?;
                    self.header_filled = 0;
                }
            }
            self.position += taken as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// The verdict at the end of the bytes.
    pub fn finish(self) -> Result<SegmentContent, WalFaultKind> {
        check_length(self.position, self.expected.size.bytes())?;
        Ok(SegmentContent { ends_in_zeros: self.zeros_from.is_some() })
    }

    fn page_start(&self) -> u64 {
        self.position - self.position % self.block_bytes
    }

    fn check_page(&mut self) -> Result<(), WalFaultKind> {
        let offset = self.page_start();
        let header = &self.header[..self.header_filled];
        if header.iter().all(|byte| *byte == 0) {
            self.zeros_from.get_or_insert(offset);
            return if offset == 0 { Err(WalFaultKind::Hole { offset }) } else { Ok(()) };
        }
        if let Some(offset) = self.zeros_from {
            return Err(WalFaultKind::Hole { offset });
        }
        if offset == 0 {
            let header = SegmentHeader::decode(header).ok_or(WalFaultKind::NoSegmentStart)?;
            self.check_segment_header(&header)?;
            self.block_bytes = u64::from(header.block_bytes);
            return self.check_timeline(header.page, offset);
        }
        let page = PageHeader::decode(header).ok_or(WalFaultKind::NoSegmentStart)?;
        if Some(page.magic) != magic_of(self.expected.major) {
            return Err(WalFaultKind::BadPage { offset, found: page.magic });
        }
        let expected = self.start()?.checked_add(offset).unwrap_or(Lsn::INVALID);
        if page.address != expected {
            return Err(WalFaultKind::WrongPage { offset, found: page.address, expected });
        }
        self.check_timeline(page, offset)
    }

    fn start(&self) -> Result<Lsn, WalFaultKind> {
        let ExpectedSegment { name, size, .. } = self.expected;
        name.start(size).ok_or(WalFaultKind::NoSuchName { size })
    }

    /// In the order in which a mistake is best understood: kind of file, cluster, size, then place.
    fn check_segment_header(&self, header: &SegmentHeader) -> Result<(), WalFaultKind> {
        let ExpectedSegment { system_id, major, size, .. } = self.expected;
        if Some(header.page.magic) != magic_of(major) {
            return Err(WalFaultKind::BadMagic { found: header.page.magic, major });
        }
        if header.page.info & LONG_HEADER_FLAG == 0 {
            return Err(WalFaultKind::NoSegmentStart);
        }
        if header.system_id != system_id {
            return Err(WalFaultKind::ForeignSystem { found: header.system_id, expected: system_id });
        }
        if u64::from(header.segment_bytes) != size.bytes() {
            return Err(WalFaultKind::WrongSegmentSize { found: header.segment_bytes, expected: size });
        }
        if !header.block_bytes.is_power_of_two() || !(1024..=BLOCK_BYTES_MAX).contains(&header.block_bytes) {
            return Err(WalFaultKind::BadBlockSize { found: header.block_bytes });
        }
        let expected = self.start()?;
        if header.page.address != expected {
            return Err(WalFaultKind::WrongSegment { found: header.page.address, expected });
        }
        Ok(())
    }

    /// A page is of the name's timeline, or of an ancestor that had not been left before the page.
    fn check_timeline(&mut self, page: PageHeader, offset: u64) -> Result<(), WalFaultKind> {
        let ExpectedSegment { name, history, .. } = self.expected;
        let fault = WalFaultKind::WrongTimeline { offset, found: page.timeline, expected: name.timeline };
        let Some(timeline) = Timeline::new(page.timeline) else { return Err(fault) };
        if timeline > name.timeline || page.timeline < self.timeline {
            return Err(fault);
        }
        if timeline < name.timeline
            && let Some(history) = history
        {
            let left = history.fork_from(timeline).unwrap_or(Lsn::INVALID);
            if left <= page.address {
                return Err(fault);
            }
        }
        self.timeline = page.timeline;
        Ok(())
    }
}

/// The header of a segment whose first bytes these are, if they are of any known version; the WAL of a backup
/// tells of which cluster it is.
pub fn identify(bytes: &[u8]) -> Option<SegmentHeader> {
    let header = SegmentHeader::decode(bytes)?;
    let known = header.page.info & LONG_HEADER_FLAG != 0 && major_of(header.page.magic).is_some();
    known.then_some(header)
}

#[cfg(test)]
pub(super) mod tests;
