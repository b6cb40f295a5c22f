//! What the PostgreSQL adapter is asked for, what it keeps, and what it records with a snapshot.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::tls::TlsMode;
use crate::base::{Error, Result};

/// The name of the source's replication password among the secrets.
pub(super) const SOURCE_PASSWORD: &str = "source_password";
/// That of a VDB's owner.
pub(super) const OWNER_PASSWORD: &str = "owner_password";
/// The folder of the cluster inside a volume.
pub(super) const DATA_FOLDER: &str = "data";
/// Where tablespaces are, each in a folder named by its number.
pub(super) const TABLESPACES_FOLDER: &str = "tablespaces";

/// A request to link a cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LinkRequest {
    /// Makes the base backup itself and follows by streaming.
    #[serde(default)]
    pub initiated_backup: bool,
    /// A folder with a base backup that somebody else took.
    pub external_backup: Option<PathBuf>,
    /// Where WAL files come.
    pub wal_directory: Option<PathBuf>,
    /// The cluster's bootstrap superuser; asked of the source where there is one.
    pub superuser: Option<String>,
    pub source: Option<SourceAddress>,
    pub port: u16,
    /// The dataset's name, for the slot.
    pub name: String,
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// The user that runs the staging server.
    pub user: Option<String>,
}

/// The configuration of a clone of a snapshot: a database that follows nothing.
pub(super) fn of_clone(parent: Config, metadata: Metadata) -> Config {
    let (limits, tablespaces) = (parent.limits, parent.tablespaces);
    let mut config = Config {
        limits: metadata.limits,
        // Their folders are its own. The parent may have more by now, which the way to a point in time may lead past.
        tablespaces: metadata.tablespaces,
        source: None,
        slot: None,
        external_backup: None,
        wal_directory: None,
        detached: false,
        ..parent
    };
    config.raise_limits(limits);
    config.add_tablespaces(tablespaces);
    config
}

/// What a user changes of a dSource or VDB.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    /// Settings to add or replace.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// Settings to take away.
    #[serde(default)]
    pub unset: Vec<String>,
    pub source: Option<SourceChange>,
    pub wal_directory: Option<PathBuf>,
    /// For a resynchronization: another backup to begin with.
    pub external_backup: Option<PathBuf>,
}

/// What changes of a source's address; the rest stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SourceChange {
    pub host: Option<String>,
    pub port: Option<u16>,
    pub user: Option<String>,
    pub tls: Option<TlsMode>,
    pub ca: Option<PathBuf>,
    pub database: Option<String>,
}

impl SourceChange {
    /// The address with the change.
    pub(super) fn of(self, old: Option<SourceAddress>) -> Result<SourceAddress> {
        let database = self.database.or_else(|| Some(old.as_ref()?.database.clone()));
        let (host, port, user, tls, ca) = match old {
            Some(old) => (Some(old.host), Some(old.port), Some(old.user), old.tls, old.ca),
            None => Default::default(),
        };
        let tls = self.tls.unwrap_or(tls);
        // An authority is nothing to who does not ask for proof.
        let ca = self.ca.or(ca.filter(|_| tls == TlsMode::VerifyFull));
        let lacks = |what: &str| Error::invalid(format!("the source's {what} is not known: name it"));
        Ok(SourceAddress {
            host: self.host.or(host).ok_or_else(|| lacks("host"))?,
            port: self.port.or(port).unwrap_or(5432),
            user: self.user.or(user).ok_or_else(|| lacks("user"))?,
            tls,
            ca,
            database: database.unwrap_or_else(default_database),
        })
    }
}

/// How the source is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SourceAddress {
    pub host: String,
    pub port: u16,
    /// A role that may replicate.
    pub user: String,
    #[serde(default)]
    pub tls: TlsMode,
    /// The certificates of the authorities that vouch for it, in PEM.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// The database that the engine connects to with SQL.
    #[serde(default = "default_database")]
    pub database: String,
}

fn default_database() -> String {
    super::DATABASE.to_owned()
}

/// What a dataset of this adapter is run with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Config {
    pub major: u32,
    pub programs: PathBuf,
    /// The user of the host that its server runs as.
    pub os_user: String,
    /// The cluster's bootstrap superuser, as which the engine connects over its own socket.
    pub superuser: String,
    pub system_id: String,
    pub segment_bytes: u64,
    /// The user's settings.
    pub settings: BTreeMap<String, String>,
    /// Settings that a standby must not have below its primary's.
    pub limits: BTreeMap<String, u64>,
    pub tablespaces: Vec<Tablespace>,
    /// Where it streams from; absent for a VDB, and for what follows by WAL files alone.
    pub source: Option<SourceAddress>,
    pub slot: Option<String>,
    /// The backup it was made of, when that was not taken by the engine.
    #[serde(default)]
    pub external_backup: Option<PathBuf>,
    #[serde(default)]
    pub wal_directory: Option<PathBuf>,
    /// Whether it followed a source and no longer does.
    #[serde(default)]
    pub detached: bool,
    /// Of a VDB: the role as which it is used.
    #[serde(default)]
    pub owner: Option<String>,
    /// Of a VDB: databases that have another name than in its parent, by the name there.
    #[serde(default)]
    pub renames: BTreeMap<String, String>,
}

impl Config {
    /// Adds those that are not known yet.
    pub(super) fn add_tablespaces(&mut self, others: Vec<Tablespace>) {
        for other in others {
            if self.tablespaces.iter().all(|known| known.oid != other.oid) {
                self.tablespaces.push(other);
            }
        }
    }

    /// Makes no limit less than these.
    pub(super) fn raise_limits(&mut self, others: BTreeMap<String, u64>) {
        for (name, limit) in others {
            let known = self.limits.entry(name).or_insert(limit);
            *known = limit.max(*known);
        }
    }

    /// Whether it follows a source, in whatever way.
    pub(super) fn is_staging(&self) -> bool {
        !self.detached && (self.source.is_some() || self.wal_directory.is_some())
    }
}

/// A tablespace of the source: its folder there becomes one of the volume's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tablespace {
    pub oid: u32,
    pub location: PathBuf,
}

/// What a snapshot records of its cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Metadata {
    pub system_id: String,
    pub version: String,
    pub major: u32,
    pub catalog_version: String,
    pub cluster_state: String,
    pub timeline: u32,
    /// Where replay stood at the cut; for a running primary the insert position.
    pub replay_lsn: String,
    pub receive_lsn: Option<String>,
    pub redo_lsn: String,
    pub redo_wal_file: String,
    pub minimum_recovery_lsn: String,
    pub checkpoint_time: String,
    /// RFC 3339; absent before the first replayed commit.
    pub last_commit_time: Option<String>,
    pub data_checksum_version: u32,
    pub segment_bytes: u64,
    pub wal_level: String,
    pub limits: BTreeMap<String, u64>,
    pub tablespaces: Vec<Tablespace>,
    /// Library versions that sort text.
    pub collation_versions: BTreeMap<String, String>,
    pub mode: Mode,
    /// Nothing in the snapshot lies behind this place; known once it is cut.
    #[serde(default)]
    pub end_lsn: Option<String>,
    /// Nothing in it was committed later, by the clock of the database. RFC 3339.
    #[serde(default)]
    pub end_time: Option<String>,
    /// The transactions that had ended, as `txid_current_snapshot()` prints them.
    #[serde(default)]
    pub transactions: Option<String>,
}

/// How the snapshot was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mode {
    /// Of a standby whose replay was paused.
    PausedStandby,
    /// Of a running primary: recovery to its last record.
    RunningPrimary,
    /// Of a cluster that was shut down.
    Stopped,
}

/// Settings whose value on a standby must not be below the primary's.
pub(super) const LIMITS: [&str; 5] = [
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
];

/// Reads one of the types above out of the value the engine kept.
pub(super) fn read<T: DeserializeOwned>(what: &str, value: &Value) -> Result<T> {
    serde_json::from_value(value.clone()).map_err(|e| Error::invalid(format!("{what}: {e}")))
}

/// The value the engine keeps.
pub(super) fn keep<T: Serialize>(what: &str, value: &T) -> Result<Value> {
    serde_json::to_value(value).map_err(|e| Error::invalid(format!("{what}: {e}")))
}
