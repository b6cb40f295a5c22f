//! Appending blocks to the open segment.
//!
//! Bodies gather in a buffer and go out in large writes; a chunk ends with its directory. Nothing written here
//! counts before the segment table names the chunk, so a crash or an abandoned checkpoint leaves only bytes that
//! the next writer overwrites or the next open removes.

use std::sync::Arc;

use crate::base::{Error, OpenMode, Result, Storage, StorageFile};
use crate::format::segment::{BlockKind, Chunk, Codec, Entry, SegmentRecord, encode_directory};
use crate::format::{BlockId, Place, Pointer, check_of};

/// A segment is closed when its file grows over this many bytes.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// A chunk is closed at this many blocks, which bounds the directory read for one lookup.
const CHUNK_ENTRIES_MAX: usize = 4096;
/// Bodies gather up to this many bytes before they are written.
const BUFFER_BYTES: usize = 1 << 20;
const SLOTS_CLOSE: u32 = Place::SLOTS_MAX - CHUNK_ENTRIES_MAX as u32 - 1;

pub(super) fn file_name(file: u64) -> String {
    format!("segments/{file:010}")
}

/// A body with what its directory entry says of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Body<'a> {
    pub(super) id: &'a BlockId,
    pub(super) kind: BlockKind,
    pub(super) codec: Codec,
    pub(super) content_bytes: u32,
    pub(super) bytes: &'a [u8],
}

/// The segment that is being appended to.
pub(super) struct OpenSegment {
    pub(super) record: SegmentRecord,
    pub(super) file: Arc<dyn StorageFile>,
    /// Offset of the next byte to be written, without the buffer.
    written: u64,
    allocated: u64,
    buffer: Vec<u8>,
    entries: Vec<Entry>,
    bodies_offset: u64,
    allocate_step: u64,
}

impl OpenSegment {
    /// Goes on with `record`, whose file is at hand, after its last chunk.
    pub(super) fn resume(record: SegmentRecord, file: Arc<dyn StorageFile>, allocate_step: u64) -> Self {
        let end = record.chunks.last().map_or(0, Chunk::end_offset);
        Self {
            record,
            file,
            written: end,
            allocated: end,
            buffer: Vec::new(),
            entries: Vec::new(),
            bodies_offset: end,
            allocate_step,
        }
    }

    /// Creates segment `id` in a new file.
    pub(super) fn create(storage: &dyn Storage, id: u32, file: u64, allocate_step: u64) -> Result<Self> {
        let name = file_name(file);
        let handle =
            storage.open(&name, OpenMode::CreateNew).map_err(|error| Error::io("create", &name, error))?;
        let record = SegmentRecord { id, file, slots: 0, chunks: Vec::new() };
        Ok(Self::resume(record, handle, allocate_step))
    }

    pub(super) fn is_full(&self, segment_bytes: u64) -> bool {
        self.end() >= segment_bytes || self.record.slots >= SLOTS_CLOSE
    }

    /// Bytes of the file with what is still in the buffer.
    pub(super) fn end(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    pub(super) fn chunk_is_full(&self) -> bool {
        self.entries.len() >= CHUNK_ENTRIES_MAX
    }

    /// Appends a body under `slot`, or under the next free one.
    pub(super) fn append(&mut self, body: &Body<'_>, slot: Option<u32>) -> Result<Pointer> {
        let stored_bytes = body.bytes.len() as u32;
        if stored_bytes >= crate::format::block_ids::STORED_BYTES_MAX {
            return Err(Error::invalid(format!("a block of {stored_bytes} bytes is too large")));
        }
        let slot = slot.unwrap_or(self.record.slots);
        let entry = Entry {
            id: *body.id,
            slot,
            offset: self.end() as u32,
            stored_bytes,
            content_bytes: body.content_bytes,
            codec: body.codec,
            kind: body.kind,
        };
        self.buffer.extend_from_slice(body.bytes);
        self.entries.push(entry);
        self.record.slots = self.record.slots.max(slot + 1);
        if self.buffer.len() >= BUFFER_BYTES {
            self.write_buffer()?;
        }
        let place = Place { segment: self.record.id, slot };
        Ok(Pointer { place, stored_bytes, check: check_of(body.id) })
    }

    fn write_buffer(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let name = file_name(self.record.file);
        let end = self.end();
        if end > self.allocated {
            // Taking the space before writing turns a full host into an error here, before anything counts.
            let target = end.next_multiple_of(self.allocate_step);
            self.allocated = match self.file.allocate(self.allocated, target - self.allocated) {
                Ok(()) => target,
                Err(_) => {
                    let least = self.file.allocate(self.allocated, end - self.allocated);
                    least.map_err(|error| Error::io("allocate space in", &name, error))?;
                    end
                }
            };
        }
        self.file
            .write_all_at(&self.buffer, self.written)
            .map_err(|error| Error::io("write", &name, error))?;
        self.written = end;
        self.buffer.clear();
        Ok(())
    }

    /// Ends the chunk: its directory is written and the record lists it.
    pub(super) fn finish_chunk(&mut self) -> Result<()> {
        if self.entries.is_empty() {
            return Ok(());
        }
        self.write_buffer()?;
        let (directory, directory_check) = encode_directory(self.record.id, &self.entries);
        let chunk = Chunk {
            directory_offset: self.written,
            bodies_offset: self.bodies_offset,
            first_slot: self.entries[0].slot,
            entries: self.entries.len() as u32,
            directory_check,
        };
        self.buffer.extend_from_slice(&directory);
        self.write_buffer()?;
        self.record.chunks.push(chunk);
        self.entries.clear();
        self.bodies_offset = self.written;
        Ok(())
    }

    /// Gives back the space taken ahead: the file ends with its last chunk.
    pub(super) fn trim(&mut self) -> Result<()> {
        self.file
            .set_len(self.written)
            .map_err(|error| Error::io("set the length of", &file_name(self.record.file), error))?;
        self.allocated = self.written;
        Ok(())
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|error| Error::io("sync", &file_name(self.record.file), error))
    }
}
