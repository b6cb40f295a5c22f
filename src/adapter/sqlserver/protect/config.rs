//! What backups of an instance are asked for with, what is kept of that, and what is recorded of each backup.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::Guid;
use super::super::chain::Backup;
use super::super::client::Address;
use super::super::convert::FileSeen;

/// The longest that writes are held, when nothing else was said. Clients wait meanwhile.
const HOLD_SECONDS: u32 = 20;

/// A request to back up databases of an instance.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProtectRequest {
    pub instance: Address,
    /// All of the instance when none is named.
    #[serde(default)]
    pub databases: BTreeSet<String>,
    #[serde(default)]
    pub excluded: BTreeSet<String>,
    /// The user of this host that the instance runs as.
    #[serde(default = "mssql")]
    pub user: String,
    /// The longest that a database's writes may be held for a cut.
    #[serde(default = "hold_seconds")]
    pub hold_seconds: u32,
}

fn hold_seconds() -> u32 {
    HOLD_SECONDS
}

fn mssql() -> String {
    "mssql".into()
}

/// What is kept of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BackupConfig {
    pub instance: Address,
    pub databases: BTreeSet<String>,
    pub excluded: BTreeSet<String>,
    pub user: String,
    /// Where the instance puts data and logs of new databases.
    pub data_folder: PathBuf,
    pub log_folder: PathBuf,
    pub hold_seconds: u32,
}

/// A file of the database that a backup is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RecordedFile {
    pub logical: String,
    pub physical: String,
    /// `D` data, `L` log, `S` a folder of FILESTREAM or memory-optimized data.
    pub kind: String,
    pub bytes: u64,
    pub id: i64,
    /// Below the root of the volume that was cut with the backup, if one was.
    pub in_cut: Option<PathBuf>,
}

/// What is recorded of a backup. The names of its stripes are those of files in its folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Recorded {
    pub backup: Backup,
    pub database: String,
    pub server: String,
    /// Of the server.
    pub version: String,
    pub bytes: u64,
    pub files: Vec<RecordedFile>,
    /// Quarter hours east of UTC that the server's clock had.
    pub zone_quarters: Option<i64>,
    pub recovery_model: String,
    /// The database's own files are a cut of their volume; the backup's file only records it.
    pub of_cut: bool,
    pub checksums: bool,
    /// Of a secondary replica, whose log backups have no marks.
    pub secondary: bool,
    /// Who read the header: the server, and our own reader where it can read the file.
    pub read_by: Vec<String>,
    /// What the next backup is compared with.
    pub seen: BTreeMap<Guid, FileSeen>,
    pub members: BTreeSet<String>,
}

impl Recorded {
    /// A moment of the server's own clock, in milliseconds since 1970, as Transact-SQL reads it.
    pub(super) fn local_time(&self, utc_ms: i64) -> String {
        let minutes = self.zone_quarters.unwrap_or_default() * 15;
        local_text(utc_ms + minutes * 60_000)
    }
}

/// A wall-clock time as a literal that no date format changes.
fn local_text(local_ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(local_ms) {
        Ok(time) => time.strftime("%Y-%m-%dT%H:%M:%S.%3f").to_string(),
        Err(_) => local_ms.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_time_is_one_that_no_language_turns_round() {
        assert_eq!(local_text(1_767_600_000_047), "2026-01-05T08:00:00.047");
    }
}
