//! The root table in redb: superblock, volumes, snapshots and segments, one transaction a checkpoint.
//!
//! redb verifies its pages when asked to, not at each read; so an open asks it to, every value carries a check of
//! its own, and a panic of a damaged table is an error.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

use crate::base::{Error, ErrorKind, OpenMode, Result, Storage, TableFile, guarded, open_table};
use crate::format::catalog_records::{SnapshotRecord, Superblock, VolumeRecord, open_sealed, seal};
use crate::format::segment::SegmentRecord;

const FILE: &str = "roots.redb";
const COPY: &str = "roots-copy.redb";
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

/// The root table and its copy.
///
/// Every commit goes to the one and then to the other, and only then takes effect. So a damaged one is made anew
/// from the other, also when a crash left the other one commit behind: nothing it needs is gone yet.
pub(crate) struct Roots {
    storage: Arc<dyn Storage>,
    tables: Mutex<Tables>,
}

struct Tables {
    main: Handle,
    copy: Handle,
    /// Number of the last commit.
    commit: u64,
}

enum Handle {
    Open(Database),
    /// After a failed commit: redb refuses more work, the next commit opens the file anew.
    Lost,
    Closed,
}

/// One file that was opened, and what it holds.
struct Opened {
    database: Database,
    content: RootsContent,
}

impl Roots {
    /// Makes the table with its first superblock, durable.
    pub(crate) fn create(storage: &Arc<dyn Storage>, superblock: &Superblock) -> Result<()> {
        let [main, copy] = [FILE, COPY].map(|name| {
            let file =
                storage.open(name, OpenMode::CreateNew).map_err(|error| Error::io("create", name, error))?;
            guarded(name, || database_on(TableFile::new(name, file)).map_err(commit_failed))
        });
        let tables = Tables { main: Handle::Open(main?), copy: Handle::Open(copy?), commit: 0 };
        let roots = Self { storage: storage.clone(), tables: Mutex::new(tables) };
        roots.commit(superblock, &RootsChange::default())
    }

    /// Opens the table, verifies all of it and reads it. A damaged file is made anew from the other one.
    pub(crate) fn open(storage: &Arc<dyn Storage>, read_only: bool) -> Result<(Self, RootsContent)> {
        let [main, copy] = [FILE, COPY].map(|name| open_one(storage, name, read_only));
        let number = |opened: &Opened| opened.content.superblock.commit;
        let (database, content, mended) = match (main, copy) {
            (Ok(main), Ok(copy)) if number(&main) == number(&copy) => {
                let tables = Tables {
                    commit: number(&main),
                    main: Handle::Open(main.database),
                    copy: Handle::Open(copy.database),
                };
                return Ok((Self { storage: storage.clone(), tables: Mutex::new(tables) }, main.content));
            }
            (Ok(main), Ok(copy)) => {
                // A crash between the two commits, or a file from elsewhere: the newer one has all.
                let main_is_newer = number(&main) > number(&copy);
                let (newer, older) = if main_is_newer { (main, COPY) } else { (copy, FILE) };
                (newer.database, newer.content, older)
            }
            (Ok(main), Err(error)) => {
                tracing::warn!("{error}: making {COPY} anew from {FILE}");
                (main.database, main.content, COPY)
            }
            (Err(error), Ok(copy)) => {
                tracing::warn!("{error}: making {FILE} anew from {COPY}");
                (copy.database, copy.content, FILE)
            }
            (Err(error), Err(other)) => {
                return Err(error.context(format!("both root tables are unusable ({other})")));
            }
        };
        let good = if mended == FILE { COPY } else { FILE };
        let other = match read_only {
            true => Handle::Lost,
            false => Handle::Open(remake(storage, good, mended)?),
        };
        let commit = content.superblock.commit;
        let (main, copy) = match mended == FILE {
            true => (other, Handle::Open(database)),
            false => (Handle::Open(database), other),
        };
        Ok((Self { storage: storage.clone(), tables: Mutex::new(Tables { main, copy, commit }) }, content))
    }

    /// Commits a checkpoint: all of it is durable when this returns, or nothing of it. With `NoSpace` it is nothing;
    /// with another error only an open can tell.
    pub(crate) fn commit(&self, superblock: &Superblock, change: &RootsChange) -> Result<()> {
        let mut tables = self.tables.lock();
        let superblock = &Superblock { commit: tables.commit + 1, ..*superblock };
        if matches!(tables.main, Handle::Lost) {
            let file = self
                .storage
                .open(FILE, OpenMode::ReadWrite)
                .map_err(|error| Error::io("open", FILE, error))?;
            tables.main = Handle::Open(guarded(FILE, || {
                database_on(TableFile::new(FILE, file)).map_err(commit_failed)
            })?);
        }
        let Handle::Open(database) = &tables.main else {
            return Err(Error::new(ErrorKind::Precondition, "the store is closed"));
        };
        let result = guarded(FILE, || write(database, superblock, change));
        if let Err(error) = result {
            tables.main = Handle::Lost;
            return Err(match error.kind() {
                // Whether it landed is not known.
                ErrorKind::Corrupt | ErrorKind::Unreadable => Error::new(ErrorKind::Io, error.to_string()),
                _ => error,
            });
        }
        tables.commit += 1;
        // From here on the commit counts. A copy that lacks it must not stay: it would pass for the newest if the
        // table were damaged.
        let copied = match &tables.copy {
            Handle::Open(database) => guarded(COPY, || write(database, superblock, change)),
            _ => remake(&self.storage, FILE, COPY).map(|database| tables.copy = Handle::Open(database)),
        };
        if let Err(error) = copied {
            tables.copy = Handle::Lost;
            tracing::warn!("there is no copy of {FILE} until the next checkpoint: {error}");
            if let Err(error) = self.storage.remove(COPY).and_then(|()| self.storage.sync_dir("")) {
                tracing::warn!("{COPY} is old and cannot be removed: {error}");
            }
        }
        Ok(())
    }

    /// Closes the files, for good. redb writes to them on the way, so nobody else may have opened them yet.
    pub(crate) fn close(&self) {
        let mut tables = self.tables.lock();
        tables.main = Handle::Closed;
        tables.copy = Handle::Closed;
    }

    pub(crate) fn file_bytes(&self) -> u64 {
        let bytes = |name| {
            let file = self.storage.open(name, OpenMode::Read);
            file.and_then(|file| file.allocated_bytes()).unwrap_or(0)
        };
        bytes(FILE) + bytes(COPY)
    }
}

/// Whether a folder has a root table or its copy.
pub(crate) fn exist(storage: &dyn Storage) -> bool {
    [FILE, COPY].iter().any(|name| storage.open(name, OpenMode::Read).is_ok())
}

/// Opens redb on a file, or makes an empty table in an empty one.
fn database_on(backend: impl StorageBackend) -> std::result::Result<Database, redb::DatabaseError> {
    open_table(backend, CACHE_BYTES)
}

fn open_one(storage: &Arc<dyn Storage>, name: &'static str, read_only: bool) -> Result<Opened> {
    let mode = if read_only { OpenMode::Read } else { OpenMode::ReadWrite };
    let file = storage.open(name, mode).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::corrupt(format!("{name} is missing")),
        _ => Error::io("open", name, error),
    })?;
    let length = file.len().map_err(|error| Error::io("stat", name, error))?;
    if length == 0 || length > FILE_BYTES_MAX {
        return Err(Error::corrupt(format!("{name} has an impossible length of {length} bytes")));
    }
    let database = guarded(name, || {
        let mut database = if read_only {
            // Opening may have to repair: do that on a copy in memory.
            let mut bytes = vec![0; length as usize];
            file.read_exact_at(&mut bytes, 0).map_err(|error| Error::io("read", name, error))?;
            let memory = redb::backends::InMemoryBackend::new();
            memory.set_len(length).map_err(|error| Error::io("copy", name, error))?;
            memory.write(0, &bytes).map_err(|error| Error::io("copy", name, error))?;
            database_on(memory).map_err(|error| damaged(name, error))?
        } else {
            database_on(TableFile::new(name, file)).map_err(|error| damaged(name, error))?
        };
        match database.check_integrity() {
            Ok(true) => Ok(database),
            Ok(false) => Err(Error::corrupt(format!("{name} fails its integrity check"))),
            Err(error) => Err(damaged(name, error)),
        }
    })?;
    let content = guarded(name, || load(name, &database))?;
    Ok(Opened { database, content })
}

/// Makes the file `to` what `from` is, durably, and opens it. No transaction may be open in `from`.
fn remake(storage: &Arc<dyn Storage>, from: &str, to: &'static str) -> Result<Database> {
    const STEP_BYTES: u64 = 1 << 20;
    match storage.remove(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io("remove", to, error)),
        _ => {}
    }
    let source = storage.open(from, OpenMode::Read).map_err(|error| Error::io("open", from, error))?;
    let length = source.len().map_err(|error| Error::io("stat", from, error))?;
    let file = storage.open(to, OpenMode::CreateNew).map_err(|error| Error::io("create", to, error))?;
    file.allocate(0, length).map_err(|error| Error::io("allocate space in", to, error))?;
    let mut at = 0;
    while at < length {
        let mut bytes = vec![0; STEP_BYTES.min(length - at) as usize];
        source.read_exact_at(&mut bytes, at).map_err(|error| Error::io("read", from, error))?;
        file.write_all_at(&bytes, at).map_err(|error| Error::io("write", to, error))?;
        at += bytes.len() as u64;
    }
    file.sync_data().map_err(|error| Error::io("sync", to, error))?;
    storage.sync_dir("").map_err(|error| Error::io("sync", "the store's folder", error))?;
    guarded(to, || database_on(TableFile::new(to, file)).map_err(|error| damaged(to, error)))
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

fn load(name: &str, database: &Database) -> Result<RootsContent> {
    let transaction = database.begin_read().map_err(|error| damaged(name, error))?;
    let superblock = {
        let table = transaction.open_table(SUPERBLOCK).map_err(|error| damaged(name, error))?;
        let value = table.get(0).map_err(|error| damaged(name, error))?;
        let value = value.ok_or_else(|| Error::corrupt(format!("{name} has no superblock")))?;
        Superblock::decode(open_sealed("superblock", 0, value.value())?)?
    };
    let table = |definition| transaction.open_table(definition).map_err(|error| damaged(name, error));
    Ok(RootsContent {
        superblock,
        volumes: rows(name, &table(VOLUMES)?, "volumes", VolumeRecord::decode)?,
        snapshots: rows(name, &table(SNAPSHOTS)?, "snapshots", SnapshotRecord::decode)?,
        segments: rows(name, &table(SEGMENTS)?, "segments", SegmentRecord::decode)?,
    })
}

fn rows<T>(
    file: &str,
    table: &impl ReadableTable<u64, &'static [u8]>,
    name: &str,
    decode: impl Fn(&[u8]) -> Result<T>,
) -> Result<Vec<T>> {
    let mut out = Vec::new();
    for row in table.iter().map_err(|error| damaged(file, error))? {
        let (key, value) = row.map_err(|error| damaged(file, error))?;
        out.push(decode(open_sealed(name, key.value(), value.value())?)?);
    }
    Ok(out)
}

/// An error while reading the table.
fn damaged(file: &str, error: impl Into<redb::Error>) -> Error {
    match error.into() {
        redb::Error::Io(error) => Error::io("read", file, error),
        error => Error::corrupt(format!("{file} is damaged: {error}")),
    }
}

/// An error while committing.
fn commit_failed(error: impl Into<redb::Error>) -> Error {
    match error.into() {
        redb::Error::Io(error) => Error::io("commit to", FILE, error),
        error => Error::with_source(ErrorKind::Io, format!("cannot commit to {FILE}: {error}"), error),
    }
}
