//! Backup sets and restore points as they are shown.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Engine;
use crate::base::Result;
use crate::catalog::{BackupSet, RestorePoint};

/// A backup set.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BackupSetView {
    pub name: String,
    pub group: String,
    pub adapter: String,
    pub volume: String,
    pub created: String,
    /// The databases that have restore points.
    pub databases: Vec<BackedUpDatabase>,
    pub policies: Vec<String>,
    /// Databases whose writes are or may be held now.
    pub held: Vec<String>,
}

/// A database of a backup set.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BackedUpDatabase {
    pub name: String,
    pub restore_points: usize,
    /// From where to where points in time can be reached.
    pub earliest: Option<String>,
    pub latest: Option<String>,
    pub gaps: Vec<String>,
    /// How the newest attempt at a full ended, where it failed.
    pub failed_full: Option<String>,
}

/// Why a backup is of another kind than was asked for.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ConversionView {
    /// A stable word.
    pub code: String,
    pub text: String,
}

/// A restore point.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RestorePointView {
    pub id: u64,
    pub backup_set: String,
    pub database: String,
    /// `full`, `differential` or `log`.
    pub kind: String,
    /// The kind that was asked for.
    pub asked: String,
    pub conversions: Vec<ConversionView>,
    pub taken: String,
    /// Where it lies: `VOLUME@SNAPSHOT`.
    pub snapshot: String,
    /// The snapshot of the database's own volume that is its data.
    pub cut: Option<String>,
    pub folder: String,
    pub files: Vec<(String, u64)>,
    pub bytes: u64,
    /// Facts in the order to show them.
    pub facts: Vec<(String, String)>,
    pub job: u64,
    /// What its last check found: `sound`, `damaged`, or nothing.
    pub verdict: Option<String>,
    pub checked: Option<String>,
    pub problems: Vec<String>,
}

/// What a restore would do.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RestorePlanView {
    /// The restore points it takes, in their order.
    pub restore_points: Vec<u64>,
    /// The steps and the end, one line each.
    pub steps: Vec<String>,
}

impl Engine {
    /// All backup sets, oldest first.
    pub fn backup_sets(&self) -> Result<Vec<BackupSetView>> {
        self.catalog.list::<BackupSet>()?.iter().map(|set| self.view_set(set)).collect()
    }

    /// One backup set.
    pub fn show_set(&self, name: &str) -> Result<BackupSetView> {
        self.view_set(&self.backup_set(name)?)
    }

    fn view_set(&self, set: &BackupSet) -> Result<BackupSetView> {
        let made = self.made_of(set)?;
        let mut names: Vec<String> = made.iter().map(|one| one.database.clone()).collect();
        names.extend(set.failed_fulls.keys().cloned());
        names.sort_unstable();
        names.dedup();
        let mut databases = Vec::new();
        for name in names {
            let span = self.backups_of(&set.adapter)?.spans(&made, &name)?;
            databases.push(BackedUpDatabase {
                restore_points: made.iter().filter(|one| one.database == name).count(),
                earliest: span.earliest_time,
                latest: span.latest_time,
                gaps: span.gaps,
                failed_full: set.failed_fulls.get(&name).cloned(),
                name,
            });
        }
        Ok(BackupSetView {
            name: set.name.clone(),
            group: set.group.clone(),
            adapter: set.adapter.clone(),
            volume: set.volume.clone(),
            created: set.created.to_string(),
            databases,
            policies: self.bindings_of(set.id)?.into_iter().map(|(policy, _)| policy.name).collect(),
            held: set.held.keys().cloned().collect(),
        })
    }

    /// A set's restore points, oldest first.
    pub fn restore_points(&self, name: &str) -> Result<Vec<RestorePointView>> {
        let set = self.backup_set(name)?;
        Ok(self.points_of(set.id)?.into_iter().map(|point| view(&set, point)).collect())
    }

    pub fn show_point(&self, name: &str, id: u64) -> Result<RestorePointView> {
        let set = self.backup_set(name)?;
        Ok(view(&set, self.restore_point(&set, id)?))
    }
}

fn view(set: &BackupSet, point: RestorePoint) -> RestorePointView {
    let verification = point.verification;
    let verdict = |sound: bool| if sound { "sound" } else { "damaged" }.to_owned();
    RestorePointView {
        id: point.id,
        backup_set: set.name.clone(),
        database: point.database,
        kind: point.kind.name().to_owned(),
        asked: point.asked.name().to_owned(),
        conversions: point
            .conversions
            .into_iter()
            .map(|(code, text)| ConversionView { code, text })
            .collect(),
        taken: point.taken.to_string(),
        snapshot: format!("{}@{}", set.volume, point.snapshot),
        cut: point.cut.map(|cut| format!("{}@{}", cut.volume, cut.snapshot)),
        folder: point.folder,
        bytes: point.files.iter().map(|(_, bytes)| bytes).sum(),
        files: point.files,
        facts: point.facts,
        job: point.job,
        verdict: verification.as_ref().map(|found| verdict(found.sound)),
        checked: verification.as_ref().map(|found| found.checked.to_string()),
        problems: verification.map(|found| found.problems).unwrap_or_default(),
    }
}
