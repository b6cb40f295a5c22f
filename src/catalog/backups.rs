//! Records of backups of source databases: which databases are backed up together, and what each backup left.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Record;
use super::records::{Verification, record};

/// Databases of one instance that are backed up together, onto a volume of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackupSet {
    pub id: u64,
    /// Unique among backup sets and datasets.
    pub name: String,
    pub group: String,
    pub adapter: String,
    /// What the adapter needs, without secrets. The adapter's own.
    pub config: Value,
    pub volume: String,
    pub state: BackupSetState,
    pub created: Timestamp,
    /// How the newest attempt at a full ended, by database, where it failed.
    #[serde(default)]
    pub failed_fulls: BTreeMap<String, String>,
    /// Why it is not known what has changed since the last full, by database.
    #[serde(default)]
    pub changes_lost: BTreeMap<String, String>,
    /// Databases whose writes may be held, and since when: written before they are.
    #[serde(default)]
    pub held: BTreeMap<String, Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupSetState {
    Active,
    /// A crash leaves it so; the next start removes it.
    Deleting,
}

/// What a backup holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PointKind {
    Full,
    Differential,
    Log,
}

impl PointKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Differential => "differential",
            Self::Log => "log",
        }
    }
}

/// What a full, differential or log backup leaves: a point that a database can be restored to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RestorePoint {
    pub id: u64,
    pub set: u64,
    pub database: String,
    pub kind: PointKind,
    /// What was asked for.
    pub asked: PointKind,
    /// Why it is of another kind than was asked for: a stable word and a sentence each.
    pub conversions: Vec<(String, String)>,
    pub state: RestorePointState,
    pub taken: Timestamp,
    /// The snapshot of the set's volume that holds it, and nothing else.
    pub snapshot: String,
    /// Its folder in there.
    pub folder: String,
    /// The snapshot of the database's own volume that is its data.
    pub cut: Option<VolumeCut>,
    /// What the adapter recorded.
    pub metadata: Value,
    /// Names in the folder and bytes.
    pub files: Vec<(String, u64)>,
    /// Facts in the order to show them.
    pub facts: Vec<(String, String)>,
    pub job: u64,
    #[serde(default)]
    pub verification: Option<Verification>,
}

/// A snapshot of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeCut {
    pub volume: String,
    pub snapshot: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestorePointState {
    /// A crash leaves it so; the next start removes it.
    Taking,
    Ready,
    Removing,
}

record!(BackupSet, "backup_set", 1);
record!(RestorePoint, "restore_point", 1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::SimStorage;
    use crate::catalog::Catalog;

    #[test]
    fn a_set_and_its_points_are_kept_as_they_are() {
        let catalog = Catalog::open(&SimStorage::new()).unwrap();
        let set = BackupSet {
            id: 1,
            name: "erp".into(),
            group: "default".into(),
            adapter: "sqlserver".into(),
            config: serde_json::json!({ "databases": ["sales"] }),
            volume: "erp.backups-1".into(),
            state: BackupSetState::Active,
            created: Timestamp::UNIX_EPOCH,
            failed_fulls: BTreeMap::from([("sales".into(), "disk full".into())]),
            changes_lost: BTreeMap::new(),
            held: BTreeMap::from([("sales".into(), Timestamp::UNIX_EPOCH)]),
        };
        let point = RestorePoint {
            id: 2,
            set: 1,
            database: "sales".into(),
            kind: PointKind::Full,
            asked: PointKind::Differential,
            conversions: vec![("no_full".into(), "none".into())],
            state: RestorePointState::Ready,
            taken: Timestamp::UNIX_EPOCH,
            snapshot: "s".into(),
            folder: "f".into(),
            cut: Some(VolumeCut { volume: "v".into(), snapshot: "c".into() }),
            metadata: Value::Null,
            files: vec![("full.bak".into(), 7)],
            facts: Vec::new(),
            job: 3,
            verification: None,
        };
        catalog
            .change(|change| {
                change.put(&set)?;
                change.put(&point)
            })
            .unwrap();
        assert_eq!(catalog.get::<BackupSet>(1).unwrap(), Some(set));
        assert_eq!(catalog.get::<RestorePoint>(2).unwrap(), Some(point));
    }
}
