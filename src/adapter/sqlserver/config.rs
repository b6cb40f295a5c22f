//! What the SQL Server adapter is asked for, what it keeps, and what it records with a snapshot.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::client::Address;
use super::follow::Follow;
use super::state::LastRestore;
use super::{Guid, Lsn};
use crate::base::{Error, Result};

/// The name of the login's password among the secrets.
pub(super) const PASSWORD: &str = "source_password";
/// Where a database's files are inside a volume, as the seed has it: the volume is the mount base.
pub(super) const FILES_FOLDER: &str = "DATA/db";
/// Where files are kept while a database is made under their paths. Never in a snapshot that can be provisioned from.
pub(super) const ASIDE_FOLDER: &str = "DATA/aside";

/// A request to link: by staging push, or to a folder of backups.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LinkRequest {
    #[serde(default)]
    pub staging_push: bool,
    /// The folder whose backups are restored.
    #[serde(default)]
    pub backup_path: Option<PathBuf>,
    /// Which database's, when there are those of several.
    #[serde(default)]
    pub source_database: Option<String>,
    pub instance: Address,
    /// The staging database, which is made on the instance.
    #[serde(default)]
    pub database: Option<String>,
    /// The user of this host that the instance runs as.
    #[serde(default = "mssql")]
    pub user: String,
    #[allow(dead_code, reason = "every link has it")]
    pub port: u16,
    pub name: String,
}

fn mssql() -> String {
    "mssql".into()
}

/// What a dataset of this adapter is run with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Config {
    pub instance: Address,
    /// The user of the host that owns the files.
    pub user: String,
    /// The staging database; a VDB's has the VDB's name when this is absent.
    pub database: Option<String>,
    pub vdb: bool,
    /// Its files, as they were when the instance last had it: by them a database is taken up again.
    #[serde(default)]
    pub files: Vec<FileRecord>,
    /// The folder whose backups it is kept in sync by; absent when its user restores into it, and for a VDB.
    #[serde(default)]
    pub follow: Option<Follow>,
}

/// What changes of a link.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Change {
    #[serde(alias = "source")]
    pub instance: Option<AddressChange>,
    /// Another name of the staging database.
    pub database: Option<String>,
    /// From now on its user keeps it in sync.
    pub staging_push: bool,
    /// From now on the backups of this folder do.
    pub backup_path: Option<PathBuf>,
    pub source_database: Option<String>,
    /// A database has none; every change has the field.
    pub settings: BTreeMap<String, String>,
    pub unset: Vec<String>,
}

/// What changes of an instance's address; the rest stays.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AddressChange {
    pub host: Option<String>,
    pub port: Option<u16>,
    pub user: Option<String>,
    /// In the words of another kind of source: refused.
    pub tls: Option<String>,
    pub ca: Option<PathBuf>,
}

impl AddressChange {
    pub(super) fn apply(self, address: &mut Address) -> Result<()> {
        if self.tls.is_some() {
            return Err(Error::invalid("how a SQL Server is connected to is said at the link: --encryption"));
        }
        address.ca = self.ca.or_else(|| address.ca.clone());
        address.host = self.host.unwrap_or_else(|| address.host.clone());
        address.user = self.user.unwrap_or_else(|| address.user.clone());
        if self.port.is_some() {
            (address.port, address.instance) = (self.port, None);
        }
        Ok(())
    }
}

/// One file of a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileRecord {
    pub id: i64,
    pub guid: Option<Guid>,
    pub kind: FileKind,
    /// The logical name.
    pub name: String,
    /// Below the volume.
    pub path: PathBuf,
    /// In pages of 8 KiB.
    pub pages: i64,
    /// The filegroup's number; 0 for a log.
    pub group: i64,
}

/// `sys.master_files.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FileKind {
    Rows,
    Log,
    /// FILESTREAM and memory-optimized data: folders.
    Stream,
    FullText,
}

impl FileKind {
    pub(super) fn of(number: i64) -> Result<Self> {
        match number {
            0 => Ok(Self::Rows),
            1 => Ok(Self::Log),
            2 => Ok(Self::Stream),
            4 => Ok(Self::FullText),
            other => Err(Error::invalid(format!("SQL Server has files of type {other}, which is not known"))),
        }
    }
}

/// What a snapshot holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Metadata {
    /// `RESTORING` or `ONLINE`.
    pub state: String,
    /// Whether writes were held for the cut; otherwise it is what a power cut leaves.
    pub frozen: bool,
    pub files: Vec<FileRecord>,
    /// Where a restore sequence stands.
    pub redo_start_lsn: Option<Lsn>,
    pub redo_start_fork_guid: Option<Guid>,
    /// The last backup that was restored; absent for a VDB, and while none was.
    pub backup: Option<LastRestore>,
    /// The staging host's zone at that moment, in minutes east of UTC.
    pub zone_minutes: i64,
    pub server: String,
    pub version: String,
}

impl Config {
    pub(super) fn database<'a>(&'a self, dataset: &'a str) -> &'a str {
        self.database.as_deref().unwrap_or(dataset)
    }
}

impl FileRecord {
    pub(super) fn place(&self, volume: &Path) -> PathBuf {
        volume.join(&self.path)
    }
}

pub(super) fn read<T: DeserializeOwned>(what: &str, value: &Value) -> Result<T> {
    T::deserialize(value).map_err(|e| Error::invalid(format!("{what}: {e}")))
}

pub(super) fn keep(what: &str, value: &impl Serialize) -> Result<Value> {
    serde_json::to_value(value).map_err(|e| Error::invalid(format!("{what} cannot be kept: {e}")))
}
