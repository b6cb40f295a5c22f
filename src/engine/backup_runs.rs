//! Runs of backups: wait for the instance, see what is to be done, make each database's backup, and leave a restore point.
//!
//! In this order on the volume: the backup's files, the agent's metadata, the backup document, the writer's metadata, the
//! sentinel. What has no sentinel was not finished. A restore point is there when the snapshot with all of it is.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::Engine;
use super::backups::{kind_of, point_kind};
use super::jobs::{JobHandle, JobTask, NewJob};
use super::locks::Hold;
use crate::adapter::Task;
use crate::adapter::backups::{BackupDone, BackupPlan, Cut, PlannedBackup};
use crate::base::{Error, ErrorKind, Result};
use crate::catalog::{BackupSet, JobKind, PointKind, RestorePoint, RestorePointState, Severity};

/// How often an instance is asked that does not answer.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// A cancelled wait ends this soon.
const WAIT_STEP: Duration = Duration::from_millis(100);
/// The document without which a backup was not finished.
const SENTINEL: &str = "sentinel.json";

/// What is asked for with a run.
#[derive(Clone, Debug, Default)]
pub struct BackupRequest {
    /// Absent: differential, or full where there is none.
    pub kind: Option<PointKind>,
    /// All of the set when none is named.
    pub databases: BTreeSet<String>,
}

impl Engine {
    /// Starts a backup of a set's databases: job `DB_BACKUP`. It waits while the instance does not answer.
    pub fn back_up(self: &Arc<Self>, name: &str, request: BackupRequest) -> Result<JobHandle> {
        let set = self.backup_set(name)?;
        let (engine, id) = (Arc::clone(self), set.id);
        let new = NewJob {
            kind: JobKind::DbBackup,
            target: name,
            dataset: Some(id),
            holds: vec![(id, Hold::Operate)],
        };
        self.submit_apart(new, move |task| engine.carry_out_backup(&engine.set_by_id(id)?, &request, task))
    }

    fn carry_out_backup(
        self: &Arc<Self>,
        set: &BackupSet,
        request: &BackupRequest,
        task: &mut JobTask,
    ) -> Result<()> {
        self.await_instance(set, task)?;
        let asked = request.kind.unwrap_or(PointKind::Differential);
        task.step("estimate")?;
        let history = self.history_of(set)?;
        let mut plan =
            self.with_target(set, |backups, target| backups.estimate(target, kind_of(asked), &history))?;
        narrow(&mut plan, &request.databases, set)?;
        tell(&plan, asked, task);
        let order = filesets(&plan, task)?;
        let mut failed = Vec::new();
        for at in order {
            let planned = &plan.backups[at];
            if let Err(e) = self.back_up_one(set, planned, asked, task) {
                task.check().map_err(|_| e.duplicate())?;
                task.log(&format!("{} failed: {e}", planned.database));
                failed.push((planned.database.clone(), e));
            }
        }
        if let Err(e) = self.catalog.back_up(&*self.storage) {
            task.warn(&format!("the copy of the catalog is not of now: {e}"));
        }
        self.snapshot_was_taken(set.id);
        match &failed[..] {
            [] => Ok(()),
            [(database, error)] => Err(error.duplicate().context(format!("backup of {database}"))),
            several => {
                let names: Vec<&str> = several.iter().map(|(name, _)| name.as_str()).collect();
                let first = several[0].1.duplicate();
                Err(first.context(format!("backups of {} failed; of the first", names.join(", "))))
            }
        }
    }

    /// Returns when the instance answers; says that the request waits while it does not.
    fn await_instance(&self, set: &BackupSet, task: &mut JobTask) -> Result<()> {
        task.step("check the instance")?;
        let mut waits = false;
        loop {
            match self.with_target(set, |backups, target| backups.check(target)) {
                Ok(found) => {
                    task.log(&format!("{found} answers"));
                    return Ok(());
                }
                Err(e) if e.kind() == ErrorKind::Io => {
                    if !waits {
                        task.step("wait for the instance")?;
                        let text =
                            format!("the backup of {} waits until its instance answers: {e}", set.name);
                        task.log(&text);
                        self.event(Severity::Warning, "BACKUP_WAITS", Some(set.id), Some(task.id()), &text);
                        waits = true;
                    }
                }
                Err(e) => return Err(e),
            }
            let until = self.clock.monotonic() + ASK_AGAIN;
            while self.clock.monotonic() < until {
                task.check()?;
                self.clock.sleep(WAIT_STEP);
            }
        }
    }

    fn back_up_one(
        &self,
        set: &BackupSet,
        planned: &PlannedBackup,
        asked: PointKind,
        task: &mut JobTask,
    ) -> Result<()> {
        task.step(&format!("{} backup of {}", planned.kind.name(), planned.database))?;
        let cut_volume = match planned.suspends {
            true => self.volume_of(&planned.files)?,
            false => None,
        };
        let point = self.new_point(set, planned, asked, cut_volume, task.id())?;
        let made = self.make(set, planned, &point, task);
        match made {
            Ok(()) => {
                task.result(
                    &format!("{} of {}", point.kind.name(), point.database),
                    &format!("restore point {}", point.id),
                );
                Ok(())
            }
            Err(error) => {
                self.note_failed(set, &point, error.message());
                if let Err(e) = self.remove_point(set, &point) {
                    task.warn(&format!("what was made stays until the next start: {e}"));
                }
                Err(error)
            }
        }
    }

    fn make(
        &self,
        set: &BackupSet,
        planned: &PlannedBackup,
        point: &RestorePoint,
        task: &mut JobTask,
    ) -> Result<()> {
        let folder = self.volumes.folder(&set.volume).join(&point.folder);
        let done = match &point.cut {
            None => {
                self.with_target(set, |backups, target| backups.back_up(target, planned, &folder, None, task))
            }
            Some(cut) => {
                let root = self.volumes.folder(&cut.volume);
                let mut make = || self.volumes.snapshot(&cut.volume, &cut.snapshot);
                let cut = Cut { root: &root, make: &mut make };
                self.holding(set, planned, |set| {
                    self.with_target(set, |backups, target| {
                        backups.back_up(target, planned, &folder, Some(cut), task)
                    })
                })
            }
        }?;
        self.seal(set, planned, point, &folder, &done, task)?;
        self.volumes.snapshot(&set.volume, &point.snapshot)?;
        fs::remove_dir_all(&folder).map_err(|e| Error::io("remove", &folder.display().to_string(), e))?;
        self.catalog.change(|change| {
            change.update::<RestorePoint>(point.id, |point| {
                point.state = RestorePointState::Ready;
                point.metadata = done.metadata;
                point.facts = done.facts;
                point.files = done.files;
            })?;
            if point.kind == PointKind::Full {
                change.update::<BackupSet>(set.id, |set| {
                    set.failed_fulls.remove(&point.database);
                    set.changes_lost.remove(&point.database);
                })?;
            }
            Ok(())
        })
    }

    /// Writes down that a database's writes may be held, before they are; and that they are not, after.
    fn holding<R>(
        &self,
        set: &BackupSet,
        planned: &PlannedBackup,
        body: impl FnOnce(&BackupSet) -> Result<R>,
    ) -> Result<R> {
        let (since, database) = (self.now(), planned.database.clone());
        self.catalog.change(|change| {
            change.update::<BackupSet>(set.id, |set| {
                set.held.insert(database.clone(), since);
            })
        })?;
        let result = body(set);
        let lost =
            result.as_ref().err().map(|e| format!("a full that held its writes failed: {}", e.message()));
        // What cannot be let go of stays written down, for the next look to try again.
        let left = lost.is_some()
            && self.with_target(set, |backups, target| backups.let_go(target, &database)).is_err();
        self.catalog.change(|change| {
            change.update::<BackupSet>(set.id, |set| {
                if !left {
                    set.held.remove(&database);
                }
                set.changes_lost.extend(lost.map(|lost| (database.clone(), lost)));
            })
        })?;
        result
    }

    /// Writes the documents beside a backup's files, in their order, each durable before the next.
    fn seal(
        &self,
        set: &BackupSet,
        planned: &PlannedBackup,
        point: &RestorePoint,
        folder: &Path,
        done: &BackupDone,
        task: &mut JobTask,
    ) -> Result<()> {
        for (name, _) in &done.files {
            sync(&folder.join(name))?;
        }
        let conversions: Vec<Value> =
            planned.conversions.iter().map(|one| json!({ "code": one.code, "text": one.text })).collect();
        let agent = json!({
            "program": "stillpoint",
            "version": env!("CARGO_PKG_VERSION"),
            "backup_set": set.name,
            "restore_point": point.id,
            "job": point.job,
            "database": point.database,
            "kind": point.kind,
            "asked": point.asked,
            "conversions": conversions,
            "taken": point.taken.to_string(),
            "cut": point.cut,
        });
        let writer = json!({ "filesets": planned.filesets, "files": planned.files, "seen": planned.plan });
        let documents = [("agent.json", &agent), ("document.json", &done.metadata), ("writer.json", &writer)];
        let mut sealed = Vec::new();
        for (name, document) in documents {
            task.step(&format!("write {name} of {}", point.database))?;
            let bytes = write(&folder.join(name), document)?;
            sealed.push(json!({ "name": name, "blake3": blake3::hash(&bytes).to_hex().to_string() }));
        }
        task.step(&format!("write the sentinel of {}", point.database))?;
        let files: Vec<Value> =
            done.files.iter().map(|(name, bytes)| json!({ "name": name, "bytes": bytes })).collect();
        write(&folder.join(SENTINEL), &json!({ "files": files, "documents": sealed })).map(drop)
    }
}

/// Leaves only the databases that were asked for.
fn narrow(plan: &mut BackupPlan, wanted: &BTreeSet<String>, set: &BackupSet) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    if let Some(name) = wanted.iter().find(|name| !plan.members.contains(*name)) {
        return Err(Error::not_found(format!("{} has no database {name}", set.name)));
    }
    plan.backups.retain(|planned| wanted.contains(&planned.database));
    if plan.backups.is_empty() {
        let whys: Vec<&str> = plan.left_out.iter().chain(&plan.notes).map(String::as_str).collect();
        return Err(Error::new(
            ErrorKind::Precondition,
            format!("nothing can be backed up: {}", whys.join("; ")),
        ));
    }
    Ok(())
}

/// What is going to be made, for the job's log.
fn tell(plan: &BackupPlan, asked: PointKind, task: &mut JobTask) {
    for planned in &plan.backups {
        let bytes = planned.estimated_bytes;
        let kind = planned.kind.name();
        task.log(&format!("{}: {kind}, at most {bytes} bytes", planned.database));
        if point_kind(planned.kind) != asked {
            for one in &planned.conversions {
                task.log(&format!("{}: full instead of {}: {}", planned.database, asked.name(), one.text));
            }
        }
    }
    for note in &plan.notes {
        task.log(note);
    }
    for left_out in &plan.left_out {
        task.warn(left_out);
    }
}

/// The order of the backups: those whose files share folders after each other.
fn filesets(plan: &BackupPlan, task: &mut JobTask) -> Result<Vec<usize>> {
    let mut folders: Vec<PathBuf> = Vec::new();
    for folder in plan.backups.iter().flat_map(|planned| &planned.filesets) {
        if !folders.contains(folder) {
            folders.push(folder.clone());
        }
    }
    task.step(&format!("filesets: {}", folders.len()))?;
    for folder in &folders {
        let users = plan.backups.iter().filter(|planned| planned.filesets.contains(folder));
        let names: Vec<&str> = users.map(|planned| planned.database.as_str()).collect();
        task.log(&format!("fileset {}: {}", folder.display(), names.join(", ")));
    }
    let place = |planned: &PlannedBackup| {
        let first = planned.filesets.first();
        folders.iter().position(|folder| Some(folder) == first)
    };
    let mut order: Vec<usize> = (0..plan.backups.len()).collect();
    order.sort_by_key(|at| (place(&plan.backups[*at]), *at));
    Ok(order)
}

fn sync(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|e| Error::io("sync", &path.display().to_string(), e))
}

/// Writes a document, durably, and returns its bytes.
fn write(path: &Path, document: &Value) -> Result<Vec<u8>> {
    let shown = path.display().to_string();
    let bytes = serde_json::to_vec_pretty(document).map_err(|e| Error::invalid(format!("{shown}: {e}")))?;
    File::create(path)
        .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
        .and_then(|()| match path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        })
        .map_err(|e| Error::io("write", &shown, e))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::backups::BackupKind;

    fn planned(database: &str) -> PlannedBackup {
        PlannedBackup {
            database: database.into(),
            kind: BackupKind::Full,
            conversions: Vec::new(),
            filesets: Vec::new(),
            files: Vec::new(),
            suspends: false,
            estimated_bytes: 0,
            plan: Value::Null,
        }
    }

    #[test]
    fn only_what_was_asked_for_is_left() {
        let set = BackupSet {
            id: 1,
            name: "erp".into(),
            group: "default".into(),
            adapter: "sqlserver".into(),
            config: Value::Null,
            volume: "v".into(),
            state: crate::catalog::BackupSetState::Active,
            created: jiff::Timestamp::UNIX_EPOCH,
            failed_fulls: Default::default(),
            changes_lost: Default::default(),
            held: Default::default(),
        };
        let plan = || BackupPlan {
            backups: vec![planned("a"), planned("b")],
            left_out: vec!["c: it is OFFLINE".into()],
            members: ["a", "b", "c"].map(String::from).into(),
            notes: Vec::new(),
        };
        let wanted = |name: &str| BTreeSet::from([name.to_owned()]);
        let mut one = plan();
        narrow(&mut one, &wanted("b"), &set).unwrap();
        assert_eq!(one.backups.len(), 1);
        let error = narrow(&mut plan(), &wanted("c"), &set).unwrap_err();
        assert!(error.message().contains("OFFLINE"), "{error}");
        assert_eq!(narrow(&mut plan(), &wanted("d"), &set).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
