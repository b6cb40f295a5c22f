//! The root table in redb: superblock, volumes, snapshots and segments, one transaction a checkpoint.
//!
//! redb verifies its pages when asked to, not at each read; so an open asks it to, every value carries a check of
//! its own, and a panic of a damaged table is an error.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::Mutex;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

use crate::base::{Error, ErrorKind, OpenMode, Result, Storage, StorageFile};
use crate::format::catalog_records::{SnapshotRecord, Superblock, VolumeRecord, open_sealed, seal};
use crate::format::segment::SegmentRecord;

pub(crate) const FILE: &str = "roots.redb";
/// A store of a petabyte has a root table below this.
const FILE_BYTES_MAX: u64 = 4 << 30;
const CACHE_BYTES: usize = 8 << 20;

const SUPERBLOCK: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("superblock");
const VOLUMES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("volumes");
const SNAPSHOTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("snapshots");
const SEGMENTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("segments");

/// All that the table holds.
pub(crate) struct RootsContent {
    pub(crate) superblock: Superblock,
    pub(crate) volumes: Vec<VolumeRecord>,
    pub(crate) snapshots: Vec<SnapshotRecord>,
    pub(crate) segments: Vec<SegmentRecord>,
}

/// One checkpoint's changes.
#[derive(Default)]
pub(crate) struct RootsChange {
    pub(crate) volumes: Vec<VolumeRecord>,
    pub(crate) removed_volumes: Vec<u32>,
    pub(crate) snapshots: Vec<SnapshotRecord>,
    pub(crate) removed_snapshots: Vec<u32>,
    pub(crate) segments: Vec<SegmentRecord>,
    pub(crate) removed_segments: Vec<u32>,
}

pub(crate) struct Roots {
    storage: Arc<dyn Storage>,
    database: Mutex<Handle>,
}

enum Handle {
    Open(Database),
    /// After a failed commit: redb refuses more work, the next commit opens the file anew.
    Lost,
    Closed,
}

/// redb's file on our storage.
struct Backend(Arc<dyn StorageFile>);

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FILE)
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let now = self.0.len()?;
        if len > now {
            // Growing takes the space at once: a full host is met here, not in the middle of a commit.
            return self.0.allocate(now, len - now);
        }
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}

impl Roots {
    /// Makes the table with its first superblock, durable.
    pub(crate) fn create(storage: &Arc<dyn Storage>, superblock: &Superblock) -> Result<()> {
        let file =
            storage.open(FILE, OpenMode::CreateNew).map_err(|error| Error::io("create", FILE, error))?;
        let database = guarded(|| Database::builder().create_with_backend(Backend(file)).map_err(damaged))?;
        let roots = Self { storage: storage.clone(), database: Mutex::new(Handle::Open(database)) };
        roots.commit(superblock, &RootsChange::default())
    }

    /// Opens the table, verifies all of it and reads it.
    pub(crate) fn open(storage: &Arc<dyn Storage>, read_only: bool) -> Result<(Self, RootsContent)> {
        let mode = if read_only { OpenMode::Read } else { OpenMode::ReadWrite };
        let file = storage.open(FILE, mode).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                Error::corrupt(format!("{FILE} is missing: the store cannot be opened"))
            }
            _ => Error::io("open", FILE, error),
        })?;
        let length = file.len().map_err(|error| Error::io("stat", FILE, error))?;
        if length == 0 || length > FILE_BYTES_MAX {
            return Err(Error::corrupt(format!("{FILE} has an impossible length of {length} bytes")));
        }
        let database = guarded(|| {
            let mut builder = Database::builder();
            builder.set_cache_size(CACHE_BYTES);
            let mut database = if read_only {
                // Opening may have to repair: do that on a copy in memory.
                let mut bytes = vec![0; length as usize];
                file.read_exact_at(&mut bytes, 0).map_err(|error| Error::io("read", FILE, error))?;
                let memory = redb::backends::InMemoryBackend::new();
                memory.set_len(length).map_err(|error| Error::io("copy", FILE, error))?;
                memory.write(0, &bytes).map_err(|error| Error::io("copy", FILE, error))?;
                builder.create_with_backend(memory).map_err(damaged)?
            } else {
                builder.create_with_backend(Backend(file)).map_err(damaged)?
            };
            match database.check_integrity() {
                Ok(true) => Ok(database),
                Ok(false) => Err(Error::corrupt(format!("{FILE} fails its integrity check"))),
                Err(error) => Err(damaged(error)),
            }
        })?;
        let content = guarded(|| load(&database))?;
        Ok((Self { storage: storage.clone(), database: Mutex::new(Handle::Open(database)) }, content))
    }

    /// Commits a checkpoint: all of it is durable when this returns, or nothing of it.
    pub(crate) fn commit(&self, superblock: &Superblock, change: &RootsChange) -> Result<()> {
        let mut handle = self.database.lock();
        if matches!(*handle, Handle::Lost) {
            let file = self
                .storage
                .open(FILE, OpenMode::ReadWrite)
                .map_err(|error| Error::io("open", FILE, error))?;
            let mut builder = Database::builder();
            builder.set_cache_size(CACHE_BYTES);
            let database = guarded(|| builder.create_with_backend(Backend(file)).map_err(commit_failed))?;
            *handle = Handle::Open(database);
        }
        let Handle::Open(database) = &*handle else {
            return Err(Error::new(ErrorKind::Precondition, "the store is closed"));
        };
        let result = guarded(|| write(database, superblock, change));
        if result.is_err() {
            *handle = Handle::Lost;
        }
        result
    }

    /// Closes the file, for good. redb writes to it on the way, so nobody else may have opened it yet.
    pub(crate) fn close(&self) {
        *self.database.lock() = Handle::Closed;
    }

    pub(crate) fn file_bytes(&self) -> u64 {
        let file = self.storage.open(FILE, OpenMode::Read);
        file.and_then(|file| file.allocated_bytes()).unwrap_or(0)
    }
}

fn write(database: &Database, superblock: &Superblock, change: &RootsChange) -> Result<()> {
    let mut transaction = database.begin_write().map_err(commit_failed)?;
    transaction.set_durability(Durability::Immediate).map_err(commit_failed)?;
    {
        let mut table = transaction.open_table(SUPERBLOCK).map_err(commit_failed)?;
        let value = seal("superblock", 0, superblock.encode());
        table.insert(0, value.as_slice()).map_err(commit_failed)?;
        let mut table = transaction.open_table(VOLUMES).map_err(commit_failed)?;
        for record in &change.volumes {
            let key = u64::from(record.id);
            table.insert(key, seal("volumes", key, record.encode()).as_slice()).map_err(commit_failed)?;
        }
        for id in &change.removed_volumes {
            table.remove(u64::from(*id)).map_err(commit_failed)?;
        }
        let mut table = transaction.open_table(SNAPSHOTS).map_err(commit_failed)?;
        for record in &change.snapshots {
            let key = u64::from(record.id);
            table.insert(key, seal("snapshots", key, record.encode()).as_slice()).map_err(commit_failed)?;
        }
        for id in &change.removed_snapshots {
            table.remove(u64::from(*id)).map_err(commit_failed)?;
        }
        let mut table = transaction.open_table(SEGMENTS).map_err(commit_failed)?;
        for record in &change.segments {
            let key = u64::from(record.id);
            table.insert(key, seal("segments", key, record.encode()).as_slice()).map_err(commit_failed)?;
        }
        for id in &change.removed_segments {
            table.remove(u64::from(*id)).map_err(commit_failed)?;
        }
    }
    transaction.commit().map_err(commit_failed)
}

fn load(database: &Database) -> Result<RootsContent> {
    let transaction = database.begin_read().map_err(damaged)?;
    let superblock = {
        let table = transaction.open_table(SUPERBLOCK).map_err(damaged)?;
        let value = table.get(0).map_err(damaged)?;
        let value = value.ok_or_else(|| Error::corrupt(format!("{FILE} has no superblock")))?;
        Superblock::decode(open_sealed("superblock", 0, value.value())?)?
    };
    let table = |definition| transaction.open_table(definition).map_err(damaged);
    Ok(RootsContent {
        superblock,
        volumes: rows(&table(VOLUMES)?, "volumes", VolumeRecord::decode)?,
        snapshots: rows(&table(SNAPSHOTS)?, "snapshots", SnapshotRecord::decode)?,
        segments: rows(&table(SEGMENTS)?, "segments", SegmentRecord::decode)?,
    })
}

fn rows<T>(
    table: &impl ReadableTable<u64, &'static [u8]>,
    name: &str,
    decode: impl Fn(&[u8]) -> Result<T>,
) -> Result<Vec<T>> {
    let mut out = Vec::new();
    for row in table.iter().map_err(damaged)? {
        let (key, value) = row.map_err(damaged)?;
        out.push(decode(open_sealed(name, key.value(), value.value())?)?);
    }
    Ok(out)
}

/// Turns a panic over damaged pages into an error.
fn guarded<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        Err(Error::corrupt(format!("{FILE} is damaged: its pages contradict each other")))
    })
}

/// An error while reading the table.
fn damaged(error: impl Into<redb::Error>) -> Error {
    match error.into() {
        redb::Error::Io(error) => Error::io("read", FILE, error),
        error => Error::corrupt(format!("{FILE} is damaged: {error}")),
    }
}

/// An error while committing.
fn commit_failed(error: impl Into<redb::Error>) -> Error {
    match error.into() {
        redb::Error::Io(error) => Error::io("commit to", FILE, error),
        error => Error::with_source(ErrorKind::Io, format!("cannot commit to {FILE}: {error}"), error),
    }
}
