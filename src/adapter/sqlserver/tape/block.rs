//! The two frames of Microsoft Tape Format: descriptor blocks and stream headers, with their checksums.
//!
//! Source: Microsoft Tape Format 1.00a, structures MTF_DB_HDR (52 bytes), MTF_STREAM_HDR (22 bytes), MTF_TAPE_ADDRESS and
//! MTF_DATE_TIME. Measured on the real files: blocks begin at multiples of 512 bytes, streams at multiples of 4, and both
//! checksums are the XOR of the 16-bit words before them. Invariant: nothing is used before its checksum and its place
//! in the file were checked. Must not know what a block is about.

use std::io::{Read, Seek, SeekFrom};

use super::error::{Fault, TapeError};

/// Blocks begin at multiples of this.
pub(super) const BLOCK_ALIGN: u64 = 512;
/// Bytes of a block's common header.
pub(super) const BLOCK_HEADER_BYTES: usize = 52;
/// Bytes of a stream's header.
pub(super) const STREAM_HEADER_BYTES: u64 = 22;
/// What is read of a block besides its header: the longest measured is 596 bytes.
pub(super) const BLOCK_BYTES_MAX: usize = 4096;
/// Media format attributes of a stream, MTF 1.00a.
const STREAM_ENCRYPTED: u16 = 0x8;
const STREAM_COMPRESSED: u16 = 0x10;
/// Types of blocks that a SQL Server backup has, or that may stand beside it on shared media.
const BLOCK_TYPES: [&[u8; 4]; 16] = [
    b"TAPE", b"SSET", b"VOLB", b"DIRB", b"FILE", b"CFIL", b"ESPB", b"ESET", b"EOTM", b"SFMB", b"MSCI",
    b"MSDA", b"MSTL", b"MSLS", b"MSFS", b"MSFT",
];

/// A file of known length that is read at places which are checked first.
pub(super) struct Input<R> {
    inner: R,
    length: u64,
}

impl<R: Read + Seek> Input<R> {
    pub(super) fn new(mut inner: R) -> Result<Self, TapeError> {
        let length = inner.seek(SeekFrom::End(0)).map_err(|source| TapeError::io(0, source))?;
        Ok(Self { inner, length })
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Bytes that lie from `at` on.
    pub(super) fn left(&self, at: u64) -> u64 {
        self.length.saturating_sub(at)
    }

    /// Exactly `count` bytes; `Truncated` when the file ends before.
    pub(super) fn bytes(&mut self, at: u64, count: usize) -> Result<Vec<u8>, TapeError> {
        if self.left(at) < count as u64 {
            return Err(TapeError::truncated(self.length, "the file ends here, in the middle of a backup"));
        }
        let mut bytes = vec![0; count];
        self.inner.seek(SeekFrom::Start(at)).map_err(|source| TapeError::io(at, source))?;
        self.inner.read_exact(&mut bytes).map_err(|source| TapeError::io(at, source))?;
        Ok(bytes)
    }

    /// A block of which as much is read as a block can take, or as there is.
    pub(super) fn block(&mut self, at: u64) -> Result<Block, TapeError> {
        let count = usize::try_from(self.left(at)).unwrap_or(usize::MAX).min(BLOCK_BYTES_MAX);
        Block::decode(at, self.bytes(at, count)?)
    }

    pub(super) fn stream(&mut self, at: u64) -> Result<Stream, TapeError> {
        let bytes = self.bytes(at, STREAM_HEADER_BYTES as usize)?;
        let stream = Stream::decode(at, &bytes)?;
        if self.left(stream.data_at()) < stream.length {
            let what = format!(
                "stream {} of {} bytes goes beyond the end of the file",
                stream.name(),
                stream.length
            );
            return Err(TapeError::truncated(self.length, what));
        }
        Ok(stream)
    }
}

/// A descriptor block, its checksum found right.
pub(super) struct Block {
    pub(super) at: u64,
    pub(super) kind: [u8; 4],
    /// MTF's common block attributes.
    pub(super) attributes: u32,
    /// Bytes from the block's start to its first stream.
    pub(super) first_stream: u16,
    /// 0 none, 1 ANSI, 2 UTF-16.
    string_type: u8,
    bytes: Vec<u8>,
}

impl Block {
    fn decode(at: u64, bytes: Vec<u8>) -> Result<Self, TapeError> {
        let damaged = |what: &str| TapeError::new(Fault::Damaged, at, what.to_owned());
        if bytes.len() < BLOCK_HEADER_BYTES {
            return Err(TapeError::truncated(at, "the file ends within a descriptor block"));
        }
        let fields = Fields(&bytes);
        let kind = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if checksum(&bytes[..50]) != fields.u16(50) {
            return Err(damaged("a descriptor block's checksum is wrong"));
        }
        if !BLOCK_TYPES.contains(&&kind) {
            return Err(damaged(&format!("a descriptor block of unknown type {}", printable(kind))));
        }
        let first_stream = fields.u16(8);
        if usize::from(first_stream) < BLOCK_HEADER_BYTES {
            return Err(damaged("a descriptor block's streams begin inside its header"));
        }
        Ok(Self { at, kind, attributes: fields.u32(4), first_stream, string_type: bytes[48], bytes })
    }

    /// The fields of the block itself, without its streams.
    pub(super) fn fields(&self) -> Fields<'_> {
        let end = usize::from(self.first_stream).min(self.bytes.len());
        Fields(&self.bytes[..end])
    }

    /// The text that the MTF_TAPE_ADDRESS at `field` points to.
    pub(super) fn text(&self, field: usize) -> String {
        match self.string_type {
            2 => self.fields().wide_text(field),
            _ => self
                .fields()
                .pointed(field)
                .iter()
                .map(|byte| char::from(*byte))
                .filter(|c| *c != '\0')
                .collect(),
        }
    }

    /// Where its first stream begins.
    pub(super) fn streams_at(&self) -> u64 {
        self.at + u64::from(self.first_stream)
    }
}

/// A stream's header, its checksum found right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    pub(super) at: u64,
    pub(super) kind: [u8; 4],
    media_attributes: u16,
    /// Bytes of data, without the header.
    pub(super) length: u64,
    encryption: u16,
    compression: u16,
}

impl Stream {
    fn decode(at: u64, bytes: &[u8]) -> Result<Self, TapeError> {
        let fields = Fields(bytes);
        if checksum(&bytes[..20]) != fields.u16(20) {
            return Err(TapeError::new(Fault::Damaged, at, "a stream header's checksum is wrong".to_owned()));
        }
        Ok(Self {
            at,
            kind: [bytes[0], bytes[1], bytes[2], bytes[3]],
            media_attributes: fields.u16(6),
            length: fields.u64(8),
            encryption: fields.u16(16),
            compression: fields.u16(18),
        })
    }

    pub(super) fn name(&self) -> String {
        printable(self.kind)
    }

    pub(super) fn data_at(&self) -> u64 {
        self.at + STREAM_HEADER_BYTES
    }

    /// Where the next stream begins; `None` beyond what a file can be long.
    pub(super) fn next_at(&self) -> Option<u64> {
        self.data_at().checked_add(self.length)?.checked_next_multiple_of(4)
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.encryption != 0 || self.media_attributes & STREAM_ENCRYPTED != 0
    }

    pub(super) fn is_compressed(&self) -> bool {
        self.compression != 0 || self.media_attributes & STREAM_COMPRESSED != 0
    }
}

/// Little-endian fields at fixed places. A place outside reads as zero: such a field is not there.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn array<const N: usize>(self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        if let Some(found) = at.checked_add(N).and_then(|end| self.0.get(at..end)) {
            bytes.copy_from_slice(found);
        }
        bytes
    }

    pub(super) fn u8(self, at: usize) -> u8 {
        self.array::<1>(at)[0]
    }

    pub(super) fn u16(self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    pub(super) fn u32(self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    pub(super) fn u64(self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }

    /// What the MTF_TAPE_ADDRESS (u16 size, u16 place) at `field` points to; empty when that lies outside.
    pub(super) fn pointed(self, field: usize) -> &'a [u8] {
        let size = usize::from(self.u16(field));
        let place = usize::from(self.u16(field + 2));
        self.0.get(place..place + size).unwrap_or(&[])
    }

    /// The UTF-16 text that the MTF_TAPE_ADDRESS at `field` points to.
    pub(super) fn wide_text(self, field: usize) -> String {
        let units = self.pointed(field).chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
        char::decode_utf16(units.take_while(|unit| *unit != 0))
            .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect()
    }
}

/// XOR of the 16-bit words.
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    bytes.chunks_exact(2).fold(0, |sum, pair| sum ^ u16::from_le_bytes([pair[0], pair[1]]))
}

/// Whether a block may begin with this.
pub(super) fn is_block_type(kind: &[u8]) -> bool {
    BLOCK_TYPES.iter().any(|known| known.as_slice() == kind)
}

/// A type's four letters, or its bytes in hexadecimal.
pub(super) fn printable(kind: [u8; 4]) -> String {
    if kind.iter().all(u8::is_ascii_alphanumeric) {
        kind.iter().map(|byte| char::from(*byte)).collect()
    } else {
        kind.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
