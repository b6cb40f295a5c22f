//! Reads native backup files of SQL Server without a server.
//!
//! For uncompressed backups: Microsoft Tape Format with SQL Server's own blocks in it. Gives the media label, the backup sets with what
//! RESTORE HEADERONLY and FILELISTONLY would tell, and where the pages lie. Invariants: every size and offset is checked against the file before it
//! is used; no input makes it panic, or hold more than the file has bytes; memory does not grow with the data. What is
//! wrong with a file is told apart: compressed, encrypted, foreign, truncated, damaged. Must not know chains, servers or volumes.

mod block;
mod date;
mod error;
mod files;
mod media;
mod pages;
mod set;
#[cfg(test)]
mod tests;
mod walk;
#[cfg(test)]
pub(crate) mod writer;

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use crate::base::{Error, Result};

pub use date::LocalTime;
pub use error::{Fault, TapeError};
pub use files::{DatabaseFile, FileKind, Filegroup};
pub use media::Media;
pub use pages::{DataStreams, EXTENT_BYTES, EXTENT_PAGES, ExtentPlace, PageRun, RUNS_MAX, place_extent};
pub use set::{BackupSet, ForkEnd, SetFlags, SetKind};

/// What one file holds.
#[derive(Debug)]
pub struct BackupFile {
    pub media: Media,
    /// In the order of the file. The last one is not complete when the file ends or is damaged inside it.
    pub sets: Vec<BackupSet>,
    /// Bytes.
    pub length: u64,
    /// What stopped the reading after the last set. The complete sets before it are good.
    pub problem: Option<TapeError>,
}

impl BackupFile {
    /// The first thing that is wrong with the file, which goes by `name`.
    pub fn check(self, name: &str) -> Result<Self> {
        match self.problem {
            Some(problem) => Err(problem.about(name)),
            None => Ok(self),
        }
    }
}

/// Reads the file at `path`. An error when there is no label to be read; what is wrong further on is in `problem`.
pub fn read_file(path: &Path) -> Result<BackupFile> {
    let name = path.display().to_string();
    let file =
        File::open(path).map_err(|source| Error::io("open", &format!("backup file {name}"), source))?;
    // Without a buffer: each step seeks on, so what a buffer reads ahead would be read for nothing.
    read(file).map_err(|error| error.about(&name))
}

/// As `read_file`, for anything that can be read at a place.
pub fn read(input: impl Read + Seek) -> std::result::Result<BackupFile, TapeError> {
    walk::walk(input, &mut |_| true)
}

/// As `read`, and hands on each run of pages where it is met, in the order of the file; there may be more of them than a set
/// remembers. The reading ends when `on_run` answers false.
pub fn read_runs(
    input: impl Read + Seek,
    on_run: &mut dyn FnMut(PageRun) -> bool,
) -> std::result::Result<BackupFile, TapeError> {
    walk::walk(input, on_run)
}
