//! The ring file: creating it, and mapping logical offsets to places in it.
//!
//! Must not know what batches hold. Logical offsets grow for ever; page 0 of the file is its header, so the
//! place of `offset` is one page and `offset` modulo the ring's length.

use std::sync::Arc;

use crate::base::{Error, OpenMode, Result, Storage, StorageFile};
use crate::format::journal::{BatchKey, FileHeader, PAGE_BYTES, RECORD_BYTES_MAX, Seq, Start};

pub(super) const FILE_NAME: &str = "journal";
/// Below this, four records of one page would not fit.
const RING_BYTES_MIN: u64 = 64 << 10;
/// One record takes at most this part of the ring, so that the ring never has to be empty for it.
const RECORDS_PER_RING: u64 = 4;
/// A batch is closed before it grows beyond this, unless one record alone is larger.
const BATCH_BYTES_MAX: u64 = 1 << 20;
/// Unit of bulk reads and writes.
pub(super) const CHUNK_BYTES: u64 = 1 << 20;

/// The open file and its measures.
pub(super) struct Ring {
    pub(super) file: Arc<dyn StorageFile>,
    pub(super) id: [u8; 16],
    pub(super) key: BatchKey,
    pub(super) bytes: u64,
}

impl Ring {
    pub(super) fn open(storage: &dyn Storage, start: &Start, mode: OpenMode) -> Result<Self> {
        start.check()?;
        let file = storage.open(FILE_NAME, mode).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::corrupt("journal is missing"),
            _ => Error::io("open", FILE_NAME, error),
        })?;
        let length = file.len().map_err(|error| Error::io("measure", FILE_NAME, error))?;
        let mut page = vec![0; PAGE_BYTES as usize];
        file.read_exact_at(&mut page, 0)
            .map_err(|error| Error::io("read the header of", FILE_NAME, error))?;
        let header = FileHeader::decode(&page)?;
        if header.file_bytes != length || length < PAGE_BYTES + RING_BYTES_MIN {
            let expected = header.file_bytes;
            return Err(Error::corrupt(format!("journal has {length} bytes, its header says {expected}")));
        }
        if header.id != start.journal {
            return Err(Error::corrupt(
                "journal belongs to another store: its id is not the one in the roots",
            ));
        }
        Ok(Self { file, id: header.id, key: BatchKey::new(&header.id), bytes: length - PAGE_BYTES })
    }

    /// Where `offset` lies in the file.
    pub(super) fn place(&self, offset: u64) -> u64 {
        PAGE_BYTES + offset % self.bytes
    }

    /// Bytes from `offset` to the end of the ring: never 0.
    pub(super) fn room(&self, offset: u64) -> u64 {
        self.bytes - offset % self.bytes
    }

    pub(super) fn record_bytes_max(&self) -> u64 {
        RECORD_BYTES_MAX.min(self.bytes / RECORDS_PER_RING)
    }

    pub(super) fn batch_bytes_max(&self) -> u64 {
        BATCH_BYTES_MAX.min(self.bytes / RECORDS_PER_RING)
    }
}

/// Makes the file `journal` of `size_bytes` (rounded down to whole pages): allocated, written all over, so that
/// later writes change no metadata of the host, and durable. `id` is any number that is the store's own.
pub fn create(storage: &dyn Storage, id: [u8; 16], size_bytes: u64) -> Result<Start> {
    let file_bytes = size_bytes - size_bytes % PAGE_BYTES;
    if file_bytes < PAGE_BYTES + RING_BYTES_MIN {
        let least = PAGE_BYTES + RING_BYTES_MIN;
        return Err(Error::invalid(format!(
            "a journal of {size_bytes} bytes is too small: at least {least}"
        )));
    }
    let file = storage
        .open(FILE_NAME, OpenMode::CreateNew)
        .map_err(|error| Error::io("create", FILE_NAME, error))?;
    fill(file.as_ref(), &FileHeader { id, file_bytes })
        .map_err(|error| Error::io("fill", FILE_NAME, error))?;
    storage.sync_dir("").map_err(|error| Error::io("sync the name of", FILE_NAME, error))?;
    Ok(Start { journal: id, epoch: 1, seq: Seq(1), offset: 0 })
}

fn fill(file: &dyn StorageFile, header: &FileHeader) -> std::io::Result<()> {
    file.allocate(0, header.file_bytes)?;
    let zeros = vec![0; CHUNK_BYTES as usize];
    let mut at = PAGE_BYTES;
    while at < header.file_bytes {
        let length = CHUNK_BYTES.min(header.file_bytes - at);
        file.write_all_at(&zeros[..length as usize], at)?;
        at += length;
    }
    file.write_all_at(&header.encode(), 0)?;
    file.sync_data()
}
