//! redb on a store's file: the one way a module keeps tables in the store.
//!
//! redb panics over pages that contradict each other; here that is an error. Knows no table's content.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use redb::{Database, StorageBackend};

use super::error::{Error, Result};
use super::storage::StorageFile;

/// redb's file on our storage.
pub struct TableFile {
    name: &'static str,
    file: Arc<dyn StorageFile>,
}

impl TableFile {
    /// `name` is for messages.
    pub fn new(name: &'static str, file: Arc<dyn StorageFile>) -> Self {
        Self { name, file }
    }
}

impl fmt::Debug for TableFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl StorageBackend for TableFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let now = self.file.len()?;
        if len > now {
            // Growing takes the space at once: a full host is met here, not in the middle of a commit.
            return self.file.allocate(now, len - now);
        }
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }
}

/// Opens redb on a file, or makes an empty table in an empty one.
pub fn open_table(
    backend: impl StorageBackend,
    cache_bytes: usize,
) -> std::result::Result<Database, redb::DatabaseError> {
    let mut builder = Database::builder();
    builder.set_cache_size(cache_bytes);
    builder.create_with_backend(backend)
}

/// Turns a panic over damaged pages into an error.
pub fn guarded<T>(file: &str, body: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        Err(Error::corrupt(format!("{file} is damaged: its pages contradict each other")))
    })
}
