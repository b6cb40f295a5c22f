//! Base backups made outside of the engine: what one is, and putting it where staging starts from it.
//!
//! A backup is a folder with `base.tar`, one `OID.tar` for each tablespace, `pg_wal.tar` (from 10 on, with `-X
//! stream`) and `backup_manifest` (from 13 on), each compressed or not, as `pg_basebackup -Ft` makes it; or a
//! plain copy of a data directory. Nothing in a backup is trusted: members of archives may come from anywhere,
//! and no link of theirs is followed or made. Nothing is ever written to the backup.
//!
//! Knows nothing of servers and volumes; it is given two folders to fill.

use std::path::{Path, PathBuf};

use super::lsn::SegmentSize;
use crate::base::Result;

mod facts;
mod ingest;
mod label;
mod layout;
mod manifest;
mod place;
mod plain;
mod tarball;
mod target;
#[cfg(test)]
mod tests;

pub use ingest::{Ingested, Progress, ingest};
pub use label::{BackupLabel, Tablespace};

/// How a backup lies there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupKind {
    /// Archives.
    Tar,
    /// A data directory.
    Plain,
}

/// What a backup is, from its own files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupDescription {
    /// The folder.
    pub path: PathBuf,
    pub kind: BackupKind,
    /// Any part of it.
    pub compressed: bool,
    /// Of its files, as they lie there.
    pub size_bytes: u64,
    pub major: u32,
    pub system_id: u64,
    pub segment_size: SegmentSize,
    /// Where replay starts; `None` for a copy of a database that had been shut down.
    pub label: Option<BackupLabel>,
    pub tablespaces: Vec<Tablespace>,
    /// Whether it brings WAL, as that which makes it consistent.
    pub includes_wal: bool,
    pub manifest: bool,
}

/// User and group that the files are to belong to: those that PostgreSQL runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileOwner {
    pub uid: u32,
    pub gid: u32,
}

/// Looks at the backup at `path`, a folder or the `base.tar` in it.
///
/// Reads as little as tells it all: of compressed archives the first members, as `pg_basebackup` orders them;
/// of others made by hand it may have to decompress the whole.
///
/// Errors: `NotFound`, `NotAllowed` (not readable by this user), `Invalid` (no backup, several, or not all of
/// one), `Corrupt` (cut off or damaged), `Unsupported` (version, compression, incremental), `Precondition` (a
/// data directory in use, or copied while it was).
pub fn inspect(path: &Path) -> Result<BackupDescription> {
    let layout = layout::Layout::find(path)?;
    facts::Facts::of(&layout)?.describe(&layout)
}
