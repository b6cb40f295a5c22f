//! Backup files: a format of this double's own, real files that a test can copy, cut and damage.
//!
//! A file is records of length, hash and JSON: the media header, and for each backup set its header and the part of its rows
//! that is in this stripe. A set's header is in every stripe. An uncompressed file has them in the frame of a real one; a
//! compressed one has them after the magic of a real one, which nobody else reads. Nothing here knows of statements.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::catalogue::{Outcome, fail, system_error_text};
use super::database::{Contents, Fork, Transaction};
use super::pages::hash;
use super::tape;
use super::value::{Guid, Lsn};

const COMPRESSED: &[u8; 8] = b"MSSQLBAK";
const RECORD_BYTES_MAX: usize = 64 << 20;

/// A stripe's place in its media set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MediaHead {
    pub media_set: Guid,
    pub families: u8,
    /// From 1 on.
    pub family: u8,
    pub family_guid: Guid,
    pub compressed: bool,
    pub written: i64,
}

/// What a backup set is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SetKind {
    Full,
    Differential,
    Log,
}

impl SetKind {
    /// `BackupType`, `backupset.type`, `BackupTypeDescription`.
    pub(crate) fn shown(self) -> (i16, &'static str, &'static str) {
        match self {
            Self::Full => (1, "D", "DATABASE"),
            Self::Differential => (5, "I", "DATABASE DIFFERENTIAL"),
            Self::Log => (2, "L", "TRANSACTION LOG"),
        }
    }
}

/// A backup set's header. Times are nanoseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SetHead {
    pub kind: SetKind,
    pub guid: Guid,
    pub name: Option<String>,
    pub description: Option<String>,
    pub database: String,
    pub user: String,
    pub server: String,
    pub machine: String,
    pub software: (u8, u8, u16),
    /// Quarter hours east of UTC.
    pub zone: i16,
    pub first: Lsn,
    pub last: Lsn,
    pub checkpoint: Lsn,
    pub full_backup: Lsn,
    pub base: Option<(Lsn, Guid)>,
    /// Branches that led to `last`, oldest first.
    pub forks: Vec<Fork>,
    pub started: i64,
    pub finished: i64,
    pub copy_only: bool,
    pub checksums: bool,
    pub compressed: bool,
    pub begins_chain: bool,
    pub force_offline: bool,
    pub bulk: bool,
    pub metadata_only: bool,
    pub read_only: bool,
    pub single_user: bool,
    pub damaged: bool,
    /// A certificate that the restoring server must have.
    pub certificate: Option<String>,
    pub pages: u64,
    /// The database without its transactions, and where its files were.
    pub contents: Contents,
    pub paths: Vec<(i32, String)>,
}

impl SetHead {
    /// The branch at `first`.
    pub(crate) fn first_fork(&self) -> Guid {
        let at = if self.kind == SetKind::Log { self.first } else { self.last };
        let fork = self.forks.iter().rev().find(|fork| fork.start <= at).or(self.forks.first());
        fork.map_or_else(Guid::default, |fork| fork.guid)
    }

    /// The branch at `last`.
    pub(crate) fn last_fork(&self) -> Guid {
        self.forks.last().map_or_else(Guid::default, |fork| fork.guid)
    }

    /// Where the branches part, if they do within the set.
    pub(crate) fn fork_point(&self) -> Option<Lsn> {
        let differ = self.first_fork() != self.last_fork();
        self.forks.last().filter(|_| differ).map(|fork| fork.start)
    }

    /// Bytes, as `backup_size` has them.
    pub(crate) fn bytes(&self) -> u64 {
        self.pages * 8192 + 6 * 1024
    }
}

/// One database of a set, and whether its rows could be read.
#[derive(Clone, Debug)]
pub(crate) struct BackupSet {
    /// More than one in a group's snapshot.
    pub heads: Vec<SetHead>,
    /// `None` where the rows are damaged.
    pub rows: Option<Vec<Transaction>>,
}

/// A stripe, read.
#[derive(Debug)]
pub(crate) struct Media {
    pub head: MediaHead,
    pub sets: Vec<BackupSet>,
}

fn record(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(value).map_err(io::Error::other)?;
    let mut bytes = u32::try_from(body.len()).map_err(io::Error::other)?.to_le_bytes().to_vec();
    bytes.extend_from_slice(&hash(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// The next record: `None` at the end, `Err` where it is cut off or its hash is wrong.
fn next_record<T: DeserializeOwned>(rest: &mut &[u8]) -> Result<Option<T>, ()> {
    if rest.is_empty() {
        return Ok(None);
    }
    let (frame, after) = rest.split_at_checked(12).ok_or(())?;
    let length = frame.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let length = usize::try_from(length).map_err(|_| ())?;
    if length > RECORD_BYTES_MAX {
        return Err(());
    }
    let (body, after) = after.split_at_checked(length).ok_or(())?;
    *rest = after;
    if frame[4..] != hash(body).to_le_bytes() {
        return Err(());
    }
    serde_json::from_slice(body).map(Some).map_err(|_| ())
}

/// Error 3201 with the operating system's reason.
pub(crate) fn cannot_open(path: &str, error: &io::Error) -> super::catalogue::Stop {
    fail(3201, &[&path, &system_error_text(error)])
}

/// Reads a stripe. Errors: 3201, 3203, 3241.
pub(crate) fn read(path: &str) -> Outcome<Media> {
    let mut file = File::open(path).map_err(|error| cannot_open(path, &error))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|error| fail(3203, &[&path, &system_error_text(&error)]))?;
    let malformed = || fail(3241, &[&path]);
    if let Some(rest) = bytes.strip_prefix(COMPRESSED) {
        return read_compressed(rest).ok_or_else(malformed);
    }
    let found = tape::find(&bytes).ok_or_else(malformed)?;
    let head = next_record(&mut { found.media }).ok().flatten().ok_or_else(malformed)?;
    let mut sets = Vec::new();
    for set in found.sets {
        let heads = next_record(&mut { set.heads }).ok().flatten().ok_or_else(malformed)?;
        let rows = set.rows.and_then(|mut rows| next_record(&mut rows).ok().flatten());
        sets.push(BackupSet { heads, rows });
    }
    Ok(Media { head, sets })
}

fn read_compressed(mut rest: &[u8]) -> Option<Media> {
    let head = next_record(&mut rest).ok().flatten()?;
    let mut sets = Vec::new();
    while let Some(heads) = next_record(&mut rest).ok()? {
        let rows = next_record(&mut rest).ok().flatten();
        let is_cut = rows.is_none() && rest.is_empty();
        sets.push(BackupSet { heads, rows });
        if is_cut {
            break;
        }
    }
    Some(Media { head, sets })
}

/// Writes one stripe of a set: appended, or into a new file where `fresh` is a head.
pub(crate) fn write(
    path: &str,
    fresh: Option<&MediaHead>,
    heads: &[SetHead],
    rows: &[Transaction],
    durable: bool,
) -> io::Result<()> {
    let (heads_record, rows_record) = (record(&heads)?, record(&rows)?);
    let first = heads.first().ok_or_else(|| io::Error::other("a backup set of nothing"))?;
    let mut bytes = Vec::new();
    if first.compressed {
        if let Some(head) = fresh {
            bytes.extend_from_slice(COMPRESSED);
            bytes.extend_from_slice(&record(head)?);
        }
        bytes.extend_from_slice(&heads_record);
        bytes.extend_from_slice(&rows_record);
    } else {
        let mut before = 0;
        match fresh {
            Some(head) => bytes.extend_from_slice(&tape::label(head, &record(head)?)),
            None => before = tape::find(&std::fs::read(path)?).map_or(0, |found| found.sets.len()),
        }
        bytes.extend_from_slice(&tape::set(first, before + 1, &heads_record, &rows_record));
    }
    let mut options = OpenOptions::new();
    let options =
        if fresh.is_some() { options.write(true).create(true).truncate(true) } else { options.append(true) };
    let mut file = options.open(Path::new(path))?;
    file.write_all(&bytes)?;
    if durable {
        file.sync_all()?;
    }
    Ok(())
}

/// All stripes of a set, in any order, put together.
pub(crate) struct Gathered {
    pub media: MediaHead,
    /// Each stripe's path and head.
    pub stripes: Vec<(String, MediaHead)>,
    pub sets: Vec<BackupSet>,
}

/// Reads the stripes given. `whole` asks for all of them: errors 3132, 3227, 3258 besides those of [`read`].
pub(crate) fn gather(paths: &[String], whole: bool) -> Outcome<Gathered> {
    let mut stripes: Vec<(String, MediaHead)> = Vec::new();
    let mut sets: Vec<BackupSet> = Vec::new();
    for path in paths {
        let media = read(path)?;
        if let Some((first, _)) = stripes.iter().find(|(_, head)| head.family == media.head.family) {
            return Err(fail(3227, &[path, &media.head.family, first]));
        }
        if stripes.iter().any(|(_, head)| head.media_set != media.head.media_set) {
            return Err(fail(3258, &[path]));
        }
        stripes.push((path.clone(), media.head));
        if sets.is_empty() {
            sets = media.sets;
            continue;
        }
        for (all, part) in sets.iter_mut().zip(media.sets) {
            all.rows = match (all.rows.take(), part.rows) {
                (Some(mut rows), Some(more)) => {
                    rows.extend(more);
                    Some(rows)
                }
                _ => None,
            };
        }
    }
    let Some((_, media)) = stripes.first().cloned() else {
        return Err(fail(102, &[&"FROM"]));
    };
    if whole && stripes.len() < usize::from(media.families) {
        return Err(fail(3132, &[&media.families, &stripes.len()]));
    }
    for set in &mut sets {
        if let Some(rows) = &mut set.rows {
            rows.sort_by_key(|row| row.commit);
        }
    }
    Ok(Gathered { media, stripes, sets })
}
