//! The records of an `MQCI` stream, and the file list among them.
//!
//! Measured: each record begins with four letters and its length in bytes (u32) and they lie end to end. `SFIN` has page
//! size at 16, file id 20, pages in the backup 24, type 28 (1 data, 2 log), filegroup 36, size in bytes 40, the addresses of logical and
//! physical name at 48 and 52, file GUID 186; `SFGI` has its id at 12 and the address of its name at 16. Invariant: a
//! record never reaches beyond the stream; there are no more files than a database may have. Must not know LSNs.

use serde::{Deserialize, Serialize};

use super::block::Fields;
use crate::adapter::sqlserver::guid::Guid;

/// As many as SQL Server allows a database.
const FILES_MAX: usize = 32_767;
const RECORD_HEADER_BYTES: usize = 8;
/// The shortest `SCIN` that has all that is read of it.
const SET_BYTES_MIN: usize = 288;
const FILE_BYTES_MIN: usize = 202;

/// A file of the database when it was backed up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseFile {
    pub file_id: u32,
    pub kind: FileKind,
    pub logical_name: String,
    /// Its path on the server that was backed up.
    pub physical_name: String,
    pub size_bytes: u64,
    /// 0 for logs.
    pub filegroup: u32,
    pub guid: Option<Guid>,
    /// Pages that the backup has of it; 0 in the record before the data when that is not known yet.
    pub pages_in_backup: u32,
}

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    Data,
    Log,
    /// FILESTREAM, full text or memory-optimised; the number that was found.
    Other(u32),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filegroup {
    pub id: u32,
    pub name: String,
}

/// The records of a stream by what they are.
pub(super) struct Records<'a> {
    pub(super) set: &'a [u8],
    pub(super) files: Vec<DatabaseFile>,
    pub(super) filegroups: Vec<Filegroup>,
}

impl<'a> Records<'a> {
    /// Nothing when the stream is not one of records that are understood.
    pub(super) fn decode(mut rest: &'a [u8]) -> Option<Self> {
        let mut records = Self { set: &[], files: Vec::new(), filegroups: Vec::new() };
        while rest.len() >= RECORD_HEADER_BYTES {
            let length = usize::try_from(Fields(rest).u32(4)).ok()?;
            if length < RECORD_HEADER_BYTES {
                return None;
            }
            let record = rest.get(..length)?;
            match &record[..4] {
                b"SCIN" if record.len() >= SET_BYTES_MIN => records.set = record,
                b"SFIN" if record.len() >= FILE_BYTES_MIN => records.files.push(file(record)),
                b"SFGI" => records.filegroups.push(filegroup(record)),
                _ => {}
            }
            if records.files.len().max(records.filegroups.len()) > FILES_MAX {
                return None;
            }
            rest = &rest[length..];
        }
        (!records.set.is_empty()).then_some(records)
    }
}

fn file(record: &[u8]) -> DatabaseFile {
    let fields = Fields(record);
    DatabaseFile {
        file_id: fields.u32(20),
        kind: match fields.u32(28) {
            1 => FileKind::Data,
            2 => FileKind::Log,
            other => FileKind::Other(other),
        },
        logical_name: fields.wide_text(48),
        physical_name: fields.wide_text(52),
        size_bytes: fields.u64(40),
        filegroup: fields.u32(36),
        guid: Guid(fields.array(186)).known(),
        pages_in_backup: fields.u32(24),
    }
}

fn filegroup(record: &[u8]) -> Filegroup {
    Filegroup { id: Fields(record).u32(12), name: Fields(record).wide_text(16) }
}
