//! Restore points: written down before they are made, kept while something needs them, removed with their snapshots.

use super::Engine;
use super::backups::point_kind;
use super::locks::Hold;
use crate::adapter::backups::PlannedBackup;
use crate::base::{Error, ErrorKind, Result};
use crate::catalog::{BackupSet, PointKind, RestorePoint, RestorePointState, VolumeCut};

impl Engine {
    /// All records of a set's restore points, oldest first, those too that are not whole.
    pub(super) fn all_points(&self, set: u64) -> Result<Vec<RestorePoint>> {
        self.catalog.select(|point: &RestorePoint| point.set == set)
    }

    /// A set's restore points, oldest first.
    pub fn points_of(&self, set: u64) -> Result<Vec<RestorePoint>> {
        self.catalog
            .select(|point: &RestorePoint| point.set == set && point.state == RestorePointState::Ready)
    }

    /// One restore point of a set.
    pub fn restore_point(&self, set: &BackupSet, id: u64) -> Result<RestorePoint> {
        let found: Option<RestorePoint> = self.catalog.get(id)?;
        let found = found.filter(|point| point.set == set.id && point.state == RestorePointState::Ready);
        found.ok_or_else(|| {
            Error::not_found(format!(
                "{} has no restore point {id}: see `stillpoint backup list {}`",
                set.name, set.name
            ))
        })
    }

    /// Writes down that a backup is going to be made.
    pub(super) fn new_point(
        &self,
        set: &BackupSet,
        planned: &PlannedBackup,
        asked: PointKind,
        cut_volume: Option<String>,
        job: u64,
    ) -> Result<RestorePoint> {
        let taken = self.now();
        let kind = point_kind(planned.kind);
        let conversions = planned.conversions.iter();
        let conversions = conversions.map(|one| (one.code.clone(), one.text.clone())).collect();
        self.catalog.change(|change| {
            let id = change.next_id()?;
            let snapshot = format!("{}-{}-{id}", taken.strftime("%Y-%m-%dT%H-%M-%SZ"), kind.name());
            let point = RestorePoint {
                id,
                set: set.id,
                database: planned.database.clone(),
                kind,
                asked,
                conversions,
                state: RestorePointState::Taking,
                taken,
                folder: format!("{}-{id}", kind.name()),
                cut: cut_volume.map(|volume| VolumeCut { volume, snapshot: format!("backup-{snapshot}") }),
                snapshot,
                metadata: serde_json::Value::Null,
                files: Vec::new(),
                facts: Vec::new(),
                job,
                verification: None,
            };
            change.put(&point)?;
            Ok(point)
        })
    }

    /// Removes a restore point with its snapshots; it is no error when they are gone already.
    pub(super) fn remove_point(&self, set: &BackupSet, point: &RestorePoint) -> Result<()> {
        self.catalog.change(|change| {
            change.update::<RestorePoint>(point.id, |point| point.state = RestorePointState::Removing)
        })?;
        let gone = |result: Result<()>| match result {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        };
        gone(self.volumes.destroy_snapshot(&set.volume, &point.snapshot))?;
        if let Some(cut) = &point.cut {
            gone(self.volumes.destroy_snapshot(&cut.volume, &cut.snapshot))?;
        }
        // What is left of a backup that was not finished.
        let folder = self.volumes.folder(&set.volume).join(&point.folder);
        match std::fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &folder.display().to_string(), e));
            }
            _ => {}
        }
        self.catalog.change(|change| change.remove::<RestorePoint>(point.id))
    }

    /// Remembers that a full failed, so that no differential goes on from the one before.
    pub(super) fn note_failed(&self, set: &BackupSet, point: &RestorePoint, how: &str) {
        if point.kind != PointKind::Full {
            return;
        }
        let noted = self.catalog.change(|change| {
            change.update::<BackupSet>(set.id, |set| {
                set.failed_fulls.insert(point.database.clone(), how.to_owned());
            })
        });
        if let Err(e) = noted {
            tracing::error!("that the full of {} failed is not recorded: {e}", point.database);
        }
    }

    /// Removes a restore point that nothing needs. `InUse` says what does.
    pub fn destroy_point(&self, set: &str, id: u64) -> Result<()> {
        let set = self.backup_set(set)?;
        let point = self.restore_point(&set, id)?;
        let token = self.catalog.change(|change| change.next_id())?;
        let _held = self.locks.take(token, "removing a restore point", &[(set.id, Hold::Replace)])?;
        let needing = self.needing(&set, &point)?;
        if !needing.is_empty() {
            let names: Vec<String> = needing.iter().map(u64::to_string).collect();
            return Err(Error::new(
                ErrorKind::InUse,
                format!(
                    "restore points {} of {} cannot be restored without {id}",
                    names.join(", "),
                    set.name
                ),
            )
            .with_hint("remove those first, newest first"));
        }
        self.remove_point(&set, &point)
    }

    /// The restore points that would be lost with one.
    fn needing(&self, set: &BackupSet, point: &RestorePoint) -> Result<Vec<u64>> {
        let made = self.made_of(set)?;
        let broken = |made: &[_]| -> Result<Vec<u64>> {
            let verdicts = self.with_target(set, |backups, _| {
                backups.judge(made, &Default::default(), &jiff::tz::TimeZone::UTC, self.now())
            })?;
            Ok(verdicts.into_iter().filter(|verdict| verdict.broken).map(|verdict| verdict.id).collect())
        };
        let before = broken(&made)?;
        let without: Vec<_> = made.into_iter().filter(|one| one.id != point.id).collect();
        Ok(broken(&without)?.into_iter().filter(|id| !before.contains(id)).collect())
    }

    /// The volume that all these files are on, if it is one of this store and they are on one.
    pub(super) fn volume_of(&self, files: &[std::path::PathBuf]) -> Result<Option<String>> {
        let root = self.volumes.folder("");
        let mut volume: Option<String> = None;
        for file in files {
            let Ok(inside) = file.strip_prefix(&root) else { return Ok(None) };
            let Some(first) = inside.components().next() else { return Ok(None) };
            let name = first.as_os_str().to_string_lossy().into_owned();
            if volume.get_or_insert(name.clone()) != &name {
                return Ok(None);
            }
        }
        match volume {
            Some(volume) if self.volumes.exists(&volume)? => Ok(Some(volume)),
            _ => Ok(None),
        }
    }
}
