//! Restores of restore points, and checks of them: jobs `DB_RESTORE` and `DB_VERIFY`.

use std::path::PathBuf;
use std::sync::Arc;

use super::Engine;
use super::jobs::{JobHandle, JobTask, NewJob};
use super::locks::Hold;
use crate::adapter::Task;
use crate::adapter::backups::{BackupMade, CutCopy, RestoreAsk, RestoreForm, RestorePlanned, RestoreTo};
use crate::base::{Error, ErrorKind, Result};
use crate::catalog::{BackupSet, JobKind, RestorePoint, Verification, VolumeCut};

/// What is asked for with a restore.
#[derive(Clone, Debug)]
pub struct RestoreRequest {
    /// The database that was backed up; it may be left out of a set of one.
    pub database: Option<String>,
    pub to: RestoreTo,
    /// The name it gets.
    pub to_database: Option<String>,
    /// Or the folder for its files.
    pub files: Option<PathBuf>,
    pub standby: bool,
    pub replace: bool,
    /// Where its files are to be.
    pub folder: Option<PathBuf>,
}

impl Engine {
    /// What a restore would do, step by step; nothing is done.
    pub fn plan_restore(&self, name: &str, request: &RestoreRequest) -> Result<(RestorePlanned, RestoreAsk)> {
        let set = self.backup_set(name)?;
        let made = self.made_of(&set)?;
        let ask = ask(&set, &made, request)?;
        let planned = self.with_target(&set, |backups, target| backups.plan_restore(target, &made, &ask))?;
        Ok((planned, ask))
    }

    /// Starts a restore. The plan is made first, so that what cannot be is refused at once.
    pub fn restore(self: &Arc<Self>, name: &str, request: &RestoreRequest) -> Result<JobHandle> {
        let set = self.backup_set(name)?;
        let (planned, _) = self.plan_restore(name, request)?;
        let (engine, id) = (Arc::clone(self), set.id);
        let new = NewJob {
            kind: JobKind::DbRestore,
            target: name,
            dataset: Some(id),
            // Beside backups; what it takes is not removed meanwhile.
            holds: vec![(id, Hold::Use)],
        };
        self.submit(new, move |task| engine.carry_out_restore(&engine.set_by_id(id)?, &planned, task))
    }

    fn carry_out_restore(&self, set: &BackupSet, planned: &RestorePlanned, task: &mut JobTask) -> Result<()> {
        for line in &planned.text {
            task.log(line);
        }
        let made = self.made_of(set)?;
        let copy = planned.copy.map(|_| self.copy_cut(set, planned, task)).transpose()?;
        let folder = copy.as_ref().map(|volume| self.volumes.folder(volume));
        let restored = self.with_target(set, |backups, target| {
            backups.restore(target, &made, planned, folder.as_deref(), task)
        });
        match restored {
            Ok(facts) => {
                for (name, value) in facts {
                    task.result(&name, &value);
                }
                if let Some(volume) = &copy {
                    match planned.copy {
                        Some(CutCopy::Stays) => task.result("volume", volume),
                        // Its files were brought to where they were wanted.
                        _ => self.volumes.destroy(volume)?,
                    }
                }
                Ok(())
            }
            Err(error) => {
                if let Some(volume) = &copy
                    && let Err(e) = self.volumes.destroy(volume)
                {
                    task.warn(&format!("the volume {volume} stays: {e}"));
                }
                Err(error)
            }
        }
    }

    /// A writable copy of the cut that a plan begins with: a volume of its own.
    fn copy_cut(&self, set: &BackupSet, planned: &RestorePlanned, task: &mut JobTask) -> Result<String> {
        task.step("clone the cut")?;
        let first = planned.points.first().copied().unwrap_or_default();
        let cut: Option<VolumeCut> = self.restore_point(set, first)?.cut;
        let cut = cut.ok_or_else(|| Error::corrupt(format!("restore point {first} records no cut")))?;
        let volume = self.new_volume_name_for(&set.name, "restored-")?;
        self.volumes.clone_snapshot(&cut.volume, &cut.snapshot, &volume)?;
        Ok(volume)
    }

    /// Starts a check of a restore point, or of the newest of each database.
    pub fn verify_points(self: &Arc<Self>, name: &str, point: Option<u64>) -> Result<JobHandle> {
        let set = self.backup_set(name)?;
        let points = match point {
            Some(id) => vec![self.restore_point(&set, id)?],
            None => newest_of_each(self.points_of(set.id)?),
        };
        if points.is_empty() {
            return Err(Error::not_found(format!("{name} has no restore point yet")));
        }
        let (engine, id) = (Arc::clone(self), set.id);
        let new =
            NewJob { kind: JobKind::DbVerify, target: name, dataset: Some(id), holds: vec![(id, Hold::Use)] };
        self.submit(new, move |task| {
            let set = engine.set_by_id(id)?;
            let mut problems = Vec::new();
            for point in &points {
                problems.extend(engine.verify_point(&set, point, task)?);
            }
            match problems.is_empty() {
                true => Ok(()),
                false => Err(Error::new(ErrorKind::Corrupt, problems.join("; "))
                    .with_hint("make a full backup now, and look at the storage of the damaged one")),
            }
        })
    }

    fn verify_point(&self, set: &BackupSet, point: &RestorePoint, task: &mut JobTask) -> Result<Vec<String>> {
        task.log(&format!("restore point {}: {} of {}", point.id, point.kind.name(), point.database));
        let made = self.made(set, point);
        let found = self.with_target(set, |backups, target| backups.verify(target, &made, task))?;
        let checked = self.now();
        for left_out in &found.left_out {
            task.log(&format!("not checked: {left_out}"));
        }
        let problems = found.problems.clone();
        self.catalog.change(|change| {
            change.update::<RestorePoint>(point.id, |point| {
                point.verification = Some(Verification {
                    checked,
                    sound: found.problems.is_empty(),
                    checks: found.checks,
                    problems: found.problems,
                    left_out: found.left_out,
                });
            })
        })?;
        Ok(problems.into_iter().map(|problem| format!("restore point {}: {problem}", point.id)).collect())
    }
}

fn newest_of_each(points: Vec<RestorePoint>) -> Vec<RestorePoint> {
    let mut newest: Vec<RestorePoint> = Vec::new();
    for point in points {
        newest.retain(|one| one.database != point.database);
        newest.push(point);
    }
    newest
}

fn ask(set: &BackupSet, made: &[BackupMade], request: &RestoreRequest) -> Result<RestoreAsk> {
    let mut names: Vec<&str> = made.iter().map(|one| one.database.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let of_point = match &request.to {
        RestoreTo::Point(id) => made.iter().find(|one| one.id == *id).map(|one| one.database.clone()),
        _ => None,
    };
    let database = match (request.database.clone().or(of_point), &names[..]) {
        (Some(name), _) => name,
        (None, []) => return Err(Error::not_found(format!("{} has no restore point yet", set.name))),
        (None, [only]) => (*only).to_owned(),
        (None, _) => {
            return Err(Error::invalid(format!("say which database: {} has {}", set.name, names.join(", "))));
        }
    };
    let form = match (&request.to_database, &request.files) {
        (Some(name), None) => RestoreForm::Database { name: name.clone(), standby: request.standby },
        (None, Some(folder)) if !request.standby => RestoreForm::Files(folder.clone()),
        (None, Some(_)) => return Err(Error::invalid("files cannot be left in STANDBY: a database can")),
        _ => return Err(Error::invalid("name the database to restore to, or the folder for its files")),
    };
    Ok(RestoreAsk {
        database,
        to: request.to.clone(),
        form,
        replace: request.replace,
        folder: request.folder.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::backups::BackupKind;

    fn made(id: u64, database: &str) -> BackupMade {
        BackupMade {
            id,
            database: database.into(),
            kind: BackupKind::Full,
            metadata: serde_json::Value::Null,
            folder: PathBuf::new(),
            cut: None,
        }
    }

    fn set() -> BackupSet {
        BackupSet {
            id: 1,
            name: "erp".into(),
            group: "default".into(),
            adapter: "sqlserver".into(),
            config: serde_json::Value::Null,
            volume: "v".into(),
            state: crate::catalog::BackupSetState::Active,
            created: jiff::Timestamp::UNIX_EPOCH,
            failed_fulls: Default::default(),
            changes_lost: Default::default(),
            held: Default::default(),
        }
    }

    fn request() -> RestoreRequest {
        RestoreRequest {
            database: None,
            to: RestoreTo::Newest,
            to_database: Some("copy".into()),
            files: None,
            standby: false,
            replace: false,
            folder: None,
        }
    }

    #[test]
    fn a_restore_says_of_what_and_as_what() {
        let (set, both) = (set(), [made(7, "a"), made(8, "b")]);
        assert_eq!(ask(&set, &both[..1], &request()).unwrap().database, "a");
        assert!(ask(&set, &both, &request()).unwrap_err().message().contains("a, b"));
        let of_point = RestoreRequest { to: RestoreTo::Point(8), ..request() };
        assert_eq!(ask(&set, &both, &of_point).unwrap().database, "b");
        assert_eq!(ask(&set, &[], &request()).unwrap_err().kind(), ErrorKind::NotFound);
        for wrong in [
            RestoreRequest { to_database: None, ..request() },
            RestoreRequest { files: Some("/f".into()), ..request() },
            RestoreRequest { to_database: None, files: Some("/f".into()), standby: true, ..request() },
        ] {
            assert_eq!(ask(&set, &both[..1], &wrong).unwrap_err().kind(), ErrorKind::Invalid);
        }
    }
}
