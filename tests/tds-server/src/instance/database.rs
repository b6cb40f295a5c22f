//! A database: what is written with its files, and what only the instance knows of it.
//!
//! `Contents` is what a file carries from one instance or path to another; `Database` adds name, paths, state and the
//! open files. A database's data is an ordered list of transactions, so that a test sees exactly how far a copy goes.

use std::collections::BTreeMap;
use std::fs::File;

use serde::{Deserialize, Serialize};

use super::value::{Guid, Lsn};

/// A committed transaction: one row of `dbo.transactions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// What the test inserted.
    pub name: String,
    /// Where its log begins.
    pub begin: Lsn,
    /// Its commit record.
    pub commit: Lsn,
    /// When it was committed, in nanoseconds since 1970 (UTC).
    pub committed: i64,
    /// The name and description of `BEGIN TRAN … WITH MARK`.
    pub mark: Option<(String, String)>,
    /// Whether it was minimally logged.
    pub bulk: bool,
}

/// A recovery branch: from `start` on, the log is of this GUID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fork {
    /// The branch.
    pub guid: Guid,
    /// Its fork point.
    pub start: Lsn,
}

/// What a differential backup is taken against.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Base {
    /// First LSN of the full backup.
    pub lsn: Lsn,
    /// The full's `backup_set_uuid`.
    pub guid: Guid,
    /// When, in nanoseconds since 1970.
    pub time: i64,
}

/// `recovery_model`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum RecoveryModel {
    Full,
    BulkLogged,
    Simple,
}

impl RecoveryModel {
    /// Its number and name in `sys.databases`.
    pub(crate) fn shown(self) -> (u8, &'static str) {
        match self {
            Self::Full => (1, "FULL"),
            Self::BulkLogged => (2, "BULK_LOGGED"),
            Self::Simple => (3, "SIMPLE"),
        }
    }
}

/// What kind of data a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum FileKind {
    Rows,
    Log,
    Filestream,
}

impl FileKind {
    /// Its number and name in `sys.master_files`.
    pub(crate) fn shown(self) -> (u8, &'static str) {
        match self {
            Self::Rows => (0, "ROWS"),
            Self::Log => (1, "LOG"),
            Self::Filestream => (2, "FILESTREAM"),
        }
    }
}

/// A filegroup; the log is in none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Filegroup {
    /// `data_space_id`.
    pub id: i32,
    /// Its name.
    pub name: String,
    /// `FG`, `FD` (FILESTREAM) or `FX` (memory-optimized).
    pub kind: String,
}

/// A file as the database itself knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileEntry {
    /// `file_id`: 1 is the primary file, 2 the first log file.
    pub id: i32,
    /// Identity, kept by every copy.
    pub guid: Guid,
    /// Logical name.
    pub name: String,
    /// What it holds.
    pub kind: FileKind,
    /// Filegroup's id, 0 for logs.
    pub group: i32,
    /// In pages of 8 KiB; 0 for FILESTREAM.
    pub pages: u64,
    /// Where it was made in the log.
    pub created: Lsn,
}

/// How far a restore sequence has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Redo {
    /// The next log must hold this.
    pub start: Lsn,
    /// The branch that `start` is on.
    pub fork: Guid,
    /// Rolled forward up to here, in nanoseconds since 1970.
    pub time: i64,
    /// A file that the last data restore did not finish.
    pub incomplete: bool,
    /// The backup set whose log was being applied when it was interrupted.
    pub interrupted: Option<Guid>,
    /// The undo file of a standby.
    pub standby: Option<String>,
}

/// What the files say of a database, whatever it is called and wherever they lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contents {
    /// Name when last written.
    pub name: String,
    /// Internal version: 957 is SQL Server 2022.
    pub version: i32,
    /// Nanoseconds since 1970.
    pub created: i64,
    /// `database_guid`, new with each restore.
    pub database_guid: Guid,
    /// `family_guid`, the same for every copy.
    pub family_guid: Guid,
    /// All branches that led here; the last one is current.
    pub forks: Vec<Fork>,
    /// Where the next record goes.
    pub next: Lsn,
    /// Last checkpoint.
    pub checkpoint: Lsn,
    /// First LSN of the last full backup that was not copy-only.
    pub full_backup: Lsn,
    /// Where the next log backup begins; `None` while there is no chain.
    pub log_backup: Option<Lsn>,
    /// Whether a log backup was taken of this chain.
    pub chain_begun: bool,
    /// What a differential needs, per database.
    pub base: Option<Base>,
    /// Recovery model.
    pub recovery_model: RecoveryModel,
    /// READ_ONLY.
    pub read_only: bool,
    /// Set while RESTORING or in standby: such files cannot be attached.
    pub redo: Option<Redo>,
    /// Files.
    pub files: Vec<FileEntry>,
    /// Physical names when last written, by file id.
    pub recorded: std::collections::BTreeMap<i32, String>,
    /// Filegroups.
    pub groups: Vec<Filegroup>,
    /// The data.
    pub transactions: Vec<Transaction>,
}

impl Contents {
    /// The branch that the log is on now.
    pub(crate) fn fork(&self) -> Guid {
        self.forks.last().map_or_else(Guid::default, |fork| fork.guid)
    }

    /// Whether the log needs backups: not SIMPLE, and a full has begun a chain.
    pub(crate) fn has_chain(&self) -> bool {
        self.recovery_model != RecoveryModel::Simple && self.log_backup.is_some()
    }

    /// Pages of the data files.
    pub(crate) fn data_pages(&self) -> u64 {
        self.files.iter().filter(|file| file.kind == FileKind::Rows).map(|file| file.pages).sum()
    }
}

/// `state` of `sys.databases`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum DatabaseState {
    Online,
    Restoring,
    Recovering,
    RecoveryPending,
    Suspect,
    Emergency,
    Offline,
}

impl DatabaseState {
    /// Its number and name.
    pub(crate) fn shown(self) -> (u8, &'static str) {
        match self {
            Self::Online => (0, "ONLINE"),
            Self::Restoring => (1, "RESTORING"),
            Self::Recovering => (2, "RECOVERING"),
            Self::RecoveryPending => (3, "RECOVERY_PENDING"),
            Self::Suspect => (4, "SUSPECT"),
            Self::Emergency => (5, "EMERGENCY"),
            Self::Offline => (6, "OFFLINE"),
        }
    }
}

/// `user_access`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum UserAccess {
    Multi,
    Single,
    Restricted,
}

impl UserAccess {
    /// Its number and name.
    pub(crate) fn shown(self) -> (u8, &'static str) {
        match self {
            Self::Multi => (0, "MULTI_USER"),
            Self::Single => (1, "SINGLE_USER"),
            Self::Restricted => (2, "RESTRICTED_USER"),
        }
    }
}

/// A frozen database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Suspended {
    pub session: i16,
    /// Nanoseconds since 1970.
    pub since: i64,
    pub copy_only: bool,
    /// `Database`, `Server` or `Group` froze it, as the texts have it.
    pub scope: &'static str,
}

/// A database of the instance.
#[derive(Debug)]
pub(crate) struct Database {
    pub id: i32,
    pub name: String,
    pub state: DatabaseState,
    pub contents: Contents,
    /// Physical name by file id.
    pub paths: BTreeMap<i32, String>,
    /// Open while the database has its files.
    pub handles: BTreeMap<i32, File>,
    /// How often the state was written.
    pub turn: u64,
    pub owner: String,
    pub access: UserAccess,
    pub suspended: Option<Suspended>,
    /// The session that restores or alters it.
    pub busy: Option<i16>,
    /// Users by name, with their roles.
    pub users: BTreeMap<String, Vec<String>>,
    /// In an availability group.
    pub replicated: bool,
    /// What DBCC CHECKDB reports.
    pub findings: Vec<crate::reply::Message>,
    /// Since 2016: what a thaw without a backup spoils.
    pub bitmap_spoiled: bool,
}

impl Database {
    /// In the middle of a restore sequence in standby.
    pub(crate) fn in_standby(&self) -> bool {
        self.contents.redo.as_ref().is_some_and(|redo| redo.standby.is_some())
    }

    /// Nobody may write to it by its own options.
    pub(crate) fn is_read_only(&self) -> bool {
        self.contents.read_only || self.in_standby()
    }

    /// master, tempdb, model and msdb.
    pub(crate) fn is_system(&self) -> bool {
        self.id <= 4
    }

    /// The physical name of a file.
    pub(crate) fn path(&self, file_id: i32) -> &str {
        self.paths.get(&file_id).map_or("", String::as_str)
    }
}
