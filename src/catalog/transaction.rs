//! One transaction on the catalog: reads see its own writes.

use redb::{ReadableTable, Table, WriteTransaction};

use super::{COUNTERS, NEXT_ID, RECORDS, Record, decode, encode, failed, list};
use crate::base::{Error, Result};

/// The changes of one transaction.
pub struct Change<'a> {
    records: Table<'a, (&'static str, u64), &'static [u8]>,
    counters: Table<'a, &'static str, u64>,
}

impl<'a> Change<'a> {
    pub(super) fn new(transaction: &'a WriteTransaction) -> Result<Self> {
        Ok(Self {
            records: transaction.open_table(RECORDS).map_err(failed)?,
            counters: transaction.open_table(COUNTERS).map_err(failed)?,
        })
    }

    /// A number no record had yet, of any kind.
    pub fn next_id(&mut self) -> Result<u64> {
        let next = self.counters.get(NEXT_ID).map_err(failed)?.map_or(1, |value| value.value());
        let after = next.checked_add(1).ok_or_else(|| Error::corrupt("the catalog ran out of numbers"))?;
        self.counters.insert(NEXT_ID, after).map_err(failed)?;
        Ok(next)
    }

    /// Adds a record or replaces the one of its number.
    pub fn put<T: Record>(&mut self, record: &T) -> Result<()> {
        let bytes = encode(record)?;
        self.records.insert((T::KIND, record.id()), bytes.as_slice()).map_err(failed)?;
        Ok(())
    }

    pub fn get<T: Record>(&self, id: u64) -> Result<Option<T>> {
        let found = self.records.get((T::KIND, id)).map_err(failed)?;
        found.map(|value| decode(id, value.value())).transpose()
    }

    /// Changes one record in place. `NotFound` when it is gone.
    pub fn update<T: Record>(&mut self, id: u64, body: impl FnOnce(&mut T)) -> Result<T> {
        let mut record: T =
            self.get(id)?.ok_or_else(|| Error::not_found(format!("{} {id} is gone", T::KIND)))?;
        body(&mut record);
        self.put(&record)?;
        Ok(record)
    }

    /// Removes a record; it is no error when it is not there.
    pub fn remove<T: Record>(&mut self, id: u64) -> Result<()> {
        self.records.remove((T::KIND, id)).map_err(failed)?;
        Ok(())
    }

    pub fn list<T: Record>(&self) -> Result<Vec<T>> {
        list(&self.records)
    }
}
