//! Records of policies and hooks, and which dataset has which. They stand apart from the dataset's own record, so that
//! neither changes with the other.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Record;
use super::records::record;
use crate::hook::{Hook, HookTemplate};
use crate::schedule::{CronSchedule, RetentionPolicy};

/// Something done to datasets by itself: at set times, or whenever there is reason to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    pub id: u64,
    /// Unique among all policies.
    pub name: String,
    pub kind: PolicyKind,
    /// When it runs: always there for what runs at set times, never otherwise.
    #[serde(default)]
    pub schedule: Option<CronSchedule>,
    #[serde(default)]
    pub retention: Option<Retention>,
    #[serde(default)]
    pub quota_bytes: Option<u64>,
    pub created: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyKind {
    /// Sync and snapshot of a dSource.
    SnapSync,
    /// Snapshot of a VDB.
    Snapshot,
    /// A VDB gets its parent's newest data.
    Refresh,
    /// Old snapshots and logs go.
    Retention,
    /// A bound of the data a dataset may hold.
    Quota,
    /// Backups of a set's source databases.
    FullBackup,
    DifferentialBackup,
    LogBackup,
}

impl PolicyKind {
    pub const ALL: [Self; 8] = [
        Self::SnapSync,
        Self::Snapshot,
        Self::Refresh,
        Self::Retention,
        Self::Quota,
        Self::FullBackup,
        Self::DifferentialBackup,
        Self::LogBackup,
    ];

    /// Its name in commands and on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::SnapSync => "snap_sync",
            Self::Snapshot => "snapshot",
            Self::Refresh => "refresh",
            Self::Retention => "retention",
            Self::Quota => "quota",
            Self::FullBackup => "full_backup",
            Self::DifferentialBackup => "differential_backup",
            Self::LogBackup => "log_backup",
        }
    }
}

/// How long snapshots and logs are kept, in days of which place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    pub policy: RetentionPolicy,
    /// An IANA name.
    pub time_zone: String,
}

/// A policy that a dataset has. A dataset has at most one of each kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyBinding {
    pub id: u64,
    pub policy: u64,
    pub dataset: u64,
    /// Times before this are nobody's: it had no policy, or another schedule.
    pub since: Timestamp,
    /// When it last ran, or was skipped.
    #[serde(default)]
    pub last_run: Option<Timestamp>,
    /// The job it last started.
    #[serde(default)]
    pub last_job: Option<u64>,
}

impl PolicyBinding {
    /// What the next run is after.
    pub fn looked(&self) -> Timestamp {
        self.last_run.map_or(self.since, |run| run.max(self.since))
    }
}

/// The hooks of one dataset, in the order in which those of one point run. Its number is the dataset's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetHooks {
    pub id: u64,
    /// No two have one name.
    pub hooks: Vec<Hook>,
}

/// A template that hooks are made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredTemplate {
    pub id: u64,
    /// Its name is unique among all templates.
    pub template: HookTemplate,
}

record!(Policy, "policy", 1);
record!(PolicyBinding, "policy_binding", 1);
record!(DatasetHooks, "hooks", 1);
record!(StoredTemplate, "hook_template", 1);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::base::SimStorage;
    use crate::catalog::Catalog;
    use crate::hook::{HookPoint, Program};

    #[test]
    fn policies_and_hooks_are_kept_as_they_are() {
        let catalog = Catalog::open(&SimStorage::new()).unwrap();
        let retention = RetentionPolicy {
            keep_all_days: 2,
            daily: 7,
            weekly: 4,
            monthly: 12,
            yearly: 3,
            first_weekday: Default::default(),
            log_days: 2,
        };
        let policy = Policy {
            id: 1,
            name: "keep".into(),
            kind: PolicyKind::Retention,
            schedule: Some(CronSchedule::parse("0 2 * * *", "Europe/Berlin").unwrap()),
            retention: Some(Retention { policy: retention, time_zone: "Europe/Berlin".into() }),
            quota_bytes: Some(7),
            created: Timestamp::UNIX_EPOCH,
        };
        let hook = Hook {
            name: "mask".into(),
            point: HookPoint::ConfigureClone,
            program: Program::Script("true".into()),
            run_as: None,
            time_limit_seconds: 60,
            environment: BTreeMap::new(),
        };
        let hooks = DatasetHooks { id: 7, hooks: vec![hook] };
        catalog
            .change(|change| {
                change.put(&policy)?;
                change.put(&hooks)
            })
            .unwrap();
        assert_eq!(catalog.get::<Policy>(1).unwrap(), Some(policy));
        assert_eq!(catalog.get::<DatasetHooks>(7).unwrap(), Some(hooks));
    }
}
