//! What the engine knows: environments, sources, groups, datasets, timeflows, snapshots, policies, hooks, jobs, events
//! and faults, in one redb table.
//!
//! A record is a kind, a number and JSON with a version; `docs/format.md` has the bytes. Every change is one
//! durable transaction. Losing the catalog loses no volume: the store knows nothing of it. Knows no databases:
//! what an adapter keeps is a JSON value to it.

mod backup;
mod backups;
mod environments;
mod images;
mod policies;
mod records;
mod tokens;
mod transaction;

pub use backup::BACKUP_FILE;
pub use backups::*;
pub use environments::{Environment, Group, Repository, SourceConfig};
pub use images::*;
pub use policies::*;
pub use records::*;
pub use tokens::{Token, TokenRole};
pub use transaction::Change;

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::base::{Error, ErrorKind, OpenMode, Result, Storage, StorageFile, TableFile, guarded, open_table};

/// The catalog's file in the store.
pub const CATALOG_FILE: &str = "catalog.redb";
const CACHE_BYTES: usize = 8 << 20;
/// (kind, number) to a record.
const RECORDS: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("records");
/// The next number, and the catalog's own version.
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
const NEXT_ID: &str = "next-id";
const VERSION: &str = "version";
/// The version of the tables; a catalog of a newer one is refused.
const TABLES_VERSION: u64 = 1;

/// Something the catalog keeps.
pub trait Record: Serialize + DeserializeOwned {
    /// The name of its kind in the table: never changed.
    const KIND: &'static str;
    /// The version of what `Serialize` writes; raised when a reader of older code would misread it.
    const VERSION: u32;

    fn id(&self) -> u64;

    /// Makes a value of an older version one of the next. Called for each step on the way.
    fn upgrade(_from: u32, value: Value) -> Result<Value> {
        Ok(value)
    }
}

/// The open catalog. Reads see the last commit; writers take turns.
pub struct Catalog {
    database: Database,
    /// Held by the one writer: redb would wait as well, but not say for whom.
    writer: Mutex<()>,
}

impl Catalog {
    /// Opens the catalog of a store, or makes an empty one.
    pub fn open(storage: &dyn Storage) -> Result<Self> {
        let file = match storage.open(CATALOG_FILE, OpenMode::ReadWrite) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound && backup::is_there(storage) => {
                return Err(Error::new(
                    ErrorKind::Precondition,
                    format!(
                        "{CATALOG_FILE} is gone: bring it back from {BACKUP_FILE} with `stillpoint store restore-catalog`, \
                         or remove {BACKUP_FILE} to begin without datasets"
                    ),
                ));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Self::create(storage, CATALOG_FILE),
            Err(e) => return Err(Error::io("open", CATALOG_FILE, e)),
        };
        Self::of(file)
    }

    /// Makes an empty catalog.
    fn create(storage: &dyn Storage, name: &str) -> Result<Self> {
        let file = storage.open(name, OpenMode::CreateNew).map_err(|e| Error::io("create", name, e))?;
        storage.sync_dir("").map_err(|e| Error::io("sync", "the store's folder", e))?;
        Self::of(file)
    }

    fn of(file: Arc<dyn StorageFile>) -> Result<Self> {
        let database = guarded(CATALOG_FILE, || {
            open_table(TableFile::new(CATALOG_FILE, Arc::clone(&file)), CACHE_BYTES).map_err(failed)
        })?;
        let catalog = Self { database, writer: Mutex::new(()) };
        catalog.check_version()?;
        environments::complete_groups(&catalog)?;
        Ok(catalog)
    }

    fn check_version(&self) -> Result<()> {
        let transaction = self.database.begin_write().map_err(failed)?;
        {
            // Both tables are there from the first transaction on, so that reads need not ask.
            transaction.open_table(RECORDS).map_err(failed)?;
            let mut counters = transaction.open_table(COUNTERS).map_err(failed)?;
            let found = counters.get(VERSION).map_err(failed)?.map(|value| value.value());
            match found {
                Some(TABLES_VERSION) => {}
                None => {
                    counters.insert(VERSION, TABLES_VERSION).map_err(failed)?;
                }
                Some(other) => {
                    return Err(Error::new(
                        ErrorKind::Unsupported,
                        format!(
                            "the catalog is of version {other}, this program knows up to {TABLES_VERSION}"
                        ),
                    ));
                }
            }
        }
        transaction.commit().map_err(failed)
    }

    /// The record of this number, if it is there.
    pub fn get<T: Record>(&self, id: u64) -> Result<Option<T>> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let table = transaction.open_table(RECORDS).map_err(failed)?;
        let found = table.get((T::KIND, id)).map_err(failed)?;
        found.map(|value| decode(id, value.value())).transpose()
    }

    /// All records of a kind, oldest first.
    pub fn list<T: Record>(&self) -> Result<Vec<T>> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let table = transaction.open_table(RECORDS).map_err(failed)?;
        list(&table)
    }

    /// The records of a kind that `wanted` says yes to, oldest first.
    pub fn select<T: Record>(&self, wanted: impl Fn(&T) -> bool) -> Result<Vec<T>> {
        Ok(self.list()?.into_iter().filter(|record| wanted(record)).collect())
    }

    /// The records of a kind whose numbers are above `after`, oldest first, until `take` says no.
    pub fn walk_up<T: Record>(&self, after: u64, take: impl FnMut(T) -> bool) -> Result<()> {
        let Some(first) = after.checked_add(1) else { return Ok(()) };
        let transaction = self.database.begin_read().map_err(failed)?;
        let table = transaction.open_table(RECORDS).map_err(failed)?;
        walk(table.range((T::KIND, first)..=(T::KIND, u64::MAX)).map_err(failed)?, take)
    }

    /// The records of a kind whose numbers are below `before`, newest first, until `take` says no.
    pub fn walk_down<T: Record>(&self, before: u64, take: impl FnMut(T) -> bool) -> Result<()> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let table = transaction.open_table(RECORDS).map_err(failed)?;
        walk(table.range((T::KIND, 0)..(T::KIND, before)).map_err(failed)?.rev(), take)
    }

    /// Changes the catalog in one transaction: all of it is durable when this returns, or none.
    pub fn change<R>(&self, body: impl FnOnce(&mut Change<'_>) -> Result<R>) -> Result<R> {
        let _turn = self.writer.lock();
        let transaction = self.database.begin_write().map_err(failed)?;
        let result = {
            let mut change = Change::new(&transaction)?;
            body(&mut change)
        };
        match result {
            Ok(value) => {
                transaction.commit().map_err(failed)?;
                Ok(value)
            }
            Err(error) => {
                transaction.abort().map_err(failed)?;
                Err(error)
            }
        }
    }
}

/// The stored form of a record.
#[derive(Serialize, serde::Deserialize)]
struct Envelope<T> {
    version: u32,
    record: T,
}

fn encode<T: Record>(record: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(&Envelope { version: T::VERSION, record })
        .map_err(|e| Error::invalid(format!("cannot encode {} {}: {e}", T::KIND, record.id())))
}

fn decode<T: Record>(id: u64, bytes: &[u8]) -> Result<T> {
    let damaged = |e: serde_json::Error| {
        Error::corrupt(format!("{CATALOG_FILE}: {} {id} cannot be read: {e}", T::KIND))
    };
    let mut envelope: Envelope<Value> = serde_json::from_slice(bytes).map_err(damaged)?;
    if envelope.version > T::VERSION {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "{CATALOG_FILE}: {} {id} is of version {}, this program knows up to {}",
                T::KIND,
                envelope.version,
                T::VERSION
            ),
        ));
    }
    while envelope.version < T::VERSION {
        envelope.record = T::upgrade(envelope.version, envelope.record)?;
        envelope.version += 1;
    }
    serde_json::from_value(envelope.record).map_err(damaged)
}

fn list<T: Record>(table: &impl ReadableTable<(&'static str, u64), &'static [u8]>) -> Result<Vec<T>> {
    let mut records = Vec::new();
    for row in table.range((T::KIND, 0)..=(T::KIND, u64::MAX)).map_err(failed)? {
        let (key, value) = row.map_err(failed)?;
        records.push(decode(key.value().1, value.value())?);
    }
    Ok(records)
}

type Row<'a> = (redb::AccessGuard<'a, (&'static str, u64)>, redb::AccessGuard<'a, &'static [u8]>);

fn walk<'a, T: Record>(
    rows: impl Iterator<Item = std::result::Result<Row<'a>, redb::StorageError>>,
    mut take: impl FnMut(T) -> bool,
) -> Result<()> {
    for row in rows {
        let (key, value) = row.map_err(failed)?;
        if !take(decode(key.value().1, value.value())?) {
            break;
        }
    }
    Ok(())
}

fn failed(error: impl Into<redb::Error>) -> Error {
    match error.into() {
        redb::Error::Io(error) => Error::io("use", CATALOG_FILE, error),
        error => Error::corrupt(format!("{CATALOG_FILE}: {error}")),
    }
}

#[cfg(test)]
mod tests;
