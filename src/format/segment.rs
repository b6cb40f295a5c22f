//! Segment files: chunks of block bodies, each followed by its directory.
//!
//! A directory is a 16-byte head (magic, segment, entry count, reserved) and 48-byte entries sorted by slot. Its
//! BLAKE3 (16 bytes) is kept in the segment table, so a directory is either the one that was committed or an
//! error.

use super::block_ids::BlockId;
use super::cursor::{Put, Reader};
use super::place::Place;
use crate::base::{Error, Result};

pub const DIRECTORY_HEAD: usize = 16;
pub const ENTRY_BYTES: usize = 48;
const DIRECTORY_MAGIC: u32 = 0x5250_5344;

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    Raw,
    Zstd,
}

/// What a block holds; it decides how a walk goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    Page,
    Node,
}

/// One block in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: BlockId,
    pub slot: u32,
    /// Byte offset of the body in the segment's file.
    pub offset: u32,
    pub stored_bytes: u32,
    /// Bytes of the content before compression.
    pub content_bytes: u32,
    pub codec: Codec,
    pub kind: BlockKind,
}

impl Entry {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id);
        out.put_u32(self.slot);
        out.put_u32(self.offset);
        let codec = u32::from(self.codec == Codec::Zstd);
        let kind = u32::from(self.kind == BlockKind::Node);
        out.put_u32(self.stored_bytes | (codec << 24) | (kind << 25));
        out.put_u32(self.content_bytes);
    }

    /// Decodes one 48-byte entry.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, "segment directory entry");
        let id = reader.array()?;
        let slot = reader.u32()?;
        let offset = reader.u32()?;
        let word = reader.u32()?;
        let content_bytes = reader.u32()?;
        if word >> 26 != 0 {
            return Err(reader.corrupt("has unknown flags"));
        }
        let codec = if word & (1 << 24) == 0 { Codec::Raw } else { Codec::Zstd };
        let kind = if word & (1 << 25) == 0 { BlockKind::Page } else { BlockKind::Node };
        reader.finish()?;
        Ok(Self { id, slot, offset, stored_bytes: word & 0xFF_FFFF, content_bytes, codec, kind })
    }
}

/// A chunk of a segment, as the segment table knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Byte offset of the directory in the file.
    pub directory_offset: u64,
    /// Byte offset of the first body.
    pub bodies_offset: u64,
    pub first_slot: u32,
    pub entries: u32,
    pub directory_check: [u8; 16],
}

impl Chunk {
    /// Bytes of the directory on disk.
    pub fn directory_bytes(&self) -> usize {
        DIRECTORY_HEAD + self.entries as usize * ENTRY_BYTES
    }

    pub fn end_offset(&self) -> u64 {
        self.directory_offset + self.directory_bytes() as u64
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.directory_offset);
        out.put_u64(self.bodies_offset);
        out.put_u32(self.first_slot);
        out.put_u32(self.entries);
        out.extend_from_slice(&self.directory_check);
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            directory_offset: reader.u64()?,
            bodies_offset: reader.u64()?,
            first_slot: reader.u32()?,
            entries: reader.u32()?,
            directory_check: reader.array()?,
        })
    }
}

/// Bytes of the directory of `segment`, and their check.
pub fn encode_directory(segment: u32, entries: &[Entry]) -> (Vec<u8>, [u8; 16]) {
    let mut out = Vec::with_capacity(DIRECTORY_HEAD + entries.len() * ENTRY_BYTES);
    out.put_u32(DIRECTORY_MAGIC);
    out.put_u32(segment);
    out.put_u32(u32::try_from(entries.len()).unwrap_or(u32::MAX));
    out.put_u32(0);
    for entry in entries {
        entry.encode(&mut out);
    }
    let check = super::check_of(&super::block_id(&out));
    (out, check)
}

/// Decodes and verifies a directory.
pub fn decode_directory(bytes: &[u8], segment: u32, check: &[u8; 16]) -> Result<Vec<Entry>> {
    if super::check_of(&super::block_id(bytes)) != *check {
        return Err(Error::corrupt(format!("directory of segment {segment} does not match its checksum")));
    }
    let mut reader = Reader::new(bytes, "segment directory");
    if reader.u32()? != DIRECTORY_MAGIC || reader.u32()? != segment {
        return Err(reader.corrupt("belongs to something else"));
    }
    let count = reader.u32()? as usize;
    reader.u32()?;
    if reader.remaining() != count.saturating_mul(ENTRY_BYTES) {
        return Err(reader.corrupt("has a wrong length"));
    }
    let mut entries: Vec<Entry> = Vec::with_capacity(count);
    for _ in 0..count {
        let entry = Entry::decode(reader.take(ENTRY_BYTES)?)?;
        if entries.last().is_some_and(|last| last.slot >= entry.slot) {
            return Err(reader.corrupt("is not sorted"));
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// A segment as the segment table keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentRecord {
    pub id: u32,
    /// Number of the file that holds it; several small segments may share one.
    pub file: u64,
    /// Slots handed out so far.
    pub slots: u32,
    pub chunks: Vec<Chunk>,
}

impl SegmentRecord {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u32(self.id);
        out.put_u64(self.file);
        out.put_u32(self.slots);
        out.put_u32(u32::try_from(self.chunks.len()).unwrap_or(u32::MAX));
        for chunk in &self.chunks {
            chunk.encode(&mut out);
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, "segment record");
        let id = reader.u32()?;
        let file = reader.u64()?;
        let slots = reader.u32()?;
        let count = reader.u32()? as usize;
        if count > reader.remaining() / 40 {
            return Err(reader.corrupt("has more chunks than bytes"));
        }
        let chunks = (0..count).map(|_| Chunk::decode(&mut reader)).collect::<Result<Vec<_>>>()?;
        for chunk in &chunks {
            let bodies = chunk.directory_offset.checked_sub(chunk.bodies_offset);
            let end = chunk.directory_offset.checked_add(chunk.directory_bytes() as u64);
            if bodies.is_none() || end.is_none_or(|end| end > u64::from(u32::MAX)) {
                return Err(reader.corrupt("has a chunk outside of a file"));
            }
        }
        reader.finish()?;
        Ok(Self { id, file, slots, chunks })
    }

    /// The chunk that may hold `place`.
    pub fn chunk_of(&self, place: Place) -> Option<&Chunk> {
        let after = self.chunks.partition_point(|chunk| chunk.first_slot <= place.slot);
        after.checked_sub(1).map(|index| &self.chunks[index])
    }
}
