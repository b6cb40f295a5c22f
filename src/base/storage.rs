//! The `Storage` seam: a flat-ish tree of named files under one directory.
//!
//! Names are relative paths with `/`; `..`, empty and absolute ones are refused. A file's bytes are durable
//! after `sync_data`; a file's name (create, rename, remove) is durable after `sync_dir` of its directory.
//! Implementations: the host's directory (`real`), and a simulated one (`sim`) that keeps what a crash could
//! leave behind and injects faults.

use std::io;
use std::ops::Deref;
use std::sync::Arc;

/// How `Storage::open` treats an existing or missing file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// The file must exist; it is only read.
    Read,
    /// The file must exist; it is read and written.
    ReadWrite,
    /// The file must not exist.
    CreateNew,
}

/// Space of the host file system that holds the store, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceInfo {
    pub total_bytes: u64,
    /// What an unprivileged writer may still take.
    pub available_bytes: u64,
}

/// Bytes of a file mapped for reading.
pub type MappedBytes = Box<dyn Deref<Target = [u8]> + Send + Sync>;

/// A directory of files.
pub trait Storage: Send + Sync {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>>;
    /// Names of the plain files directly in `dir` ("" is the root), sorted.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Creates a directory; it is no error if it exists.
    fn create_dir(&self, dir: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Replaces `to` if it exists.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Makes creates, renames and removes in `dir` durable.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    fn space(&self) -> io::Result<SpaceInfo>;
}

/// An open file. Positions and lengths are in bytes. Safe for concurrent use.
pub trait StorageFile: Send + Sync {
    /// Fills `buffer` from `offset`; `UnexpectedEof` when the file ends before.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `data` at `offset`, extending the file if needed. Not durable before `sync_data`.
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
    /// fdatasync: data and length are durable when it returns. After an error nothing may be assumed.
    fn sync_data(&self) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Takes host space for `offset..offset + length` now, so that later writes there cannot meet ENOSPC;
    /// extends the length when needed.
    fn allocate(&self, offset: u64, length: u64) -> io::Result<()>;
    /// Gives the host space of the range back; it reads as zeros after.
    fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()>;
    /// Host bytes the file takes (blocks, not length).
    fn allocated_bytes(&self) -> io::Result<u64>;
    /// Maps `offset..offset + length` for reading, with the pages read in before it returns: a bad sector is
    /// an error here and not a signal later.
    fn map(&self, offset: u64, length: usize) -> io::Result<MappedBytes>;
}

/// Refuses a name that is not a relative path of plain components, so that no name leads out of the store.
pub fn check_name(name: &str) -> io::Result<()> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    if name.split('/').all(plain) {
        return Ok(());
    }
    let message = format!("{name:?} is not a name inside the store");
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}
