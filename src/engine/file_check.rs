//! The files of each snapshot, checked in the background after it was taken, and the verdict kept with it.
//!
//! For adapters that can check files without a server. Checks run one at a time, on a thread of their own at the lowest
//! priority, and hold nothing: no snapshot, no other job waits for one. Who removes what one reads ends it first. Invariant: a
//! snapshot has its verdict once; what has none is checked after the next start. Knows no kinds of files.

use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use super::jobs::{JobHandle, JobTask, NewJob};
use crate::adapter::{Problem, Task, Verified};
use crate::base::{Error, ErrorKind, Result};
use crate::catalog::{
    Dataset, DatasetState, Job, JobKind, JobStatus, Severity, Snapshot, SnapshotState, Verification,
};

/// The fault of a dataset whose newest checked snapshot is damaged.
const PAGES_DAMAGED: &str = "PAGES_DAMAGED";
/// The event of one.
const FILES_DAMAGED: &str = "FILES_DAMAGED";
/// How long a check may take to end that was asked to.
const END_TIME_MAX: Duration = Duration::from_secs(60);
/// Of the problems, those that a fault or an event names.
const SHOWN_MAX: usize = 3;

impl Engine {
    fn checks_files(&self, adapter: &str) -> bool {
        self.adapter(adapter).is_ok_and(|adapter| adapter.abilities().checks_files)
    }

    /// Starts a job that checks a snapshot's files again. `Precondition` when its kind of database has no such check.
    pub fn check_files(self: &Arc<Self>, spec: &str) -> Result<JobHandle> {
        let (dataset, _, snapshot) = self.find_snapshot(spec)?;
        if !self.checks_files(&dataset.adapter) {
            return Err(Error::new(
                ErrorKind::Precondition,
                format!(
                    "{} is of the kind {}, whose files are not checked without a server",
                    dataset.name, dataset.adapter
                ),
            )
            .with_hint(format!("check its database: stillpoint timeflow verify {spec}")));
        }
        self.submit_check(&dataset, &snapshot, false)
    }

    /// Starts the job for a snapshot that was just taken. That it cannot be started is no error: it is after the next start.
    pub(super) fn queue_file_check(self: &Arc<Self>, dataset: &Dataset, snapshot: &Snapshot) {
        if !self.checks_files(&dataset.adapter) {
            return;
        }
        if let Err(e) = self.submit_check(dataset, snapshot, true) {
            tracing::warn!("the files of {}@{} are not checked now: {e}", dataset.name, snapshot.name);
        }
    }

    /// Starts jobs for the snapshots that have no verdict, because the process ended before it came: the newest first.
    pub(super) fn queue_missing_file_checks(self: &Arc<Self>) -> Result<()> {
        for dataset in self.catalog.list::<Dataset>()? {
            if !self.checks_files(&dataset.adapter) {
                continue;
            }
            for snapshot in self.snapshots_of(dataset.id)?.iter().rev() {
                if snapshot.file_check.is_none() {
                    self.queue_file_check(&dataset, snapshot);
                }
            }
        }
        Ok(())
    }

    fn submit_check(
        self: &Arc<Self>,
        dataset: &Dataset,
        snapshot: &Snapshot,
        once: bool,
    ) -> Result<JobHandle> {
        let (engine, id) = (Arc::clone(self), snapshot.id);
        let new = NewJob {
            kind: JobKind::DbCheck,
            target: &format!("{}@{}", dataset.name, snapshot.name),
            dataset: Some(dataset.id),
            holds: Vec::new(),
        };
        self.submit(new, move |task| engine.carry_out_check(id, once, task))
    }

    fn carry_out_check(&self, snapshot: u64, once: bool, task: &mut JobTask) -> Result<()> {
        let found = self.catalog.get::<Snapshot>(snapshot)?;
        let Some(found) = found.filter(|found| found.state == SnapshotState::Ready) else {
            task.log("the snapshot was destroyed meanwhile");
            return Ok(());
        };
        if once && found.file_check.is_some() {
            task.log("it was checked meanwhile");
            return Ok(());
        }
        let dataset = self.dataset_by_id(found.dataset)?;
        let folder = self.volumes.snapshot_folder(&self.timeflow(found.timeflow)?.volume, &found.name);
        let verified = self.adapter(&dataset.adapter)?.check_files(&folder, &found.metadata, task)?;
        // What was asked to end may have read files of a snapshot that goes.
        task.check()?;
        let Verified { checks, problems, left_out } = verified;
        for line in &left_out {
            task.log(&format!("not checked: {line}"));
        }
        problems.iter().for_each(|problem| task.warn(problem));
        let verdict =
            Verification { checked: self.now(), sound: problems.is_empty(), checks, problems, left_out };
        task.result("sound", if verdict.sound { "yes" } else { "no" });
        self.catalog.change(|change| {
            super::snapshot::require_ready(change, snapshot)?;
            change.update::<Snapshot>(snapshot, |found| found.file_check = Some(verdict.clone()))
        })?;
        if !verdict.sound {
            let text = damage(&dataset, &found, &verdict);
            self.event(Severity::Error, FILES_DAMAGED, Some(dataset.id), Some(task.id()), &text);
        }
        Ok(())
    }

    /// The problem of a dataset whose newest checked snapshot of its timeflow is damaged: an older one has had its event.
    pub(super) fn damaged_files(&self, dataset: &Dataset) -> Result<Option<Problem>> {
        if !self.checks_files(&dataset.adapter) || dataset.state != DatasetState::Active {
            return Ok(None);
        }
        let checked = |snapshot: &Snapshot| {
            Some(snapshot.timeflow) == dataset.timeflow && snapshot.file_check.is_some()
        };
        let newest = self.snapshots_of(dataset.id)?.into_iter().rfind(checked);
        let Some(newest) = newest else { return Ok(None) };
        Ok(newest.file_check.as_ref().filter(|verdict| !verdict.sound).map(|verdict| Problem {
            code: PAGES_DAMAGED.into(),
            message: damage(dataset, &newest, verdict),
            action: format!(
                "provision from an older snapshot (stillpoint timeflow list {}); check the database that it was taken of, and restore it",
                dataset.name
            ),
        }))
    }

    /// Ends the checks of these snapshots, so that nobody has their files open.
    pub(super) fn end_checks(&self, dataset: u64, names: &[String]) -> Result<()> {
        let of_them = |job: &Job| {
            job.kind == JobKind::DbCheck
                && job.dataset == Some(dataset)
                && !job.status.is_final()
                && job.target.split_once('@').is_some_and(|(_, name)| names.iter().any(|known| known == name))
        };
        let jobs = self.catalog.select(of_them)?;
        for job in &jobs {
            match self.cancel(job.id) {
                Err(e) if e.kind() != ErrorKind::Precondition => return Err(e),
                _ => {}
            }
        }
        // One that waits has no file open, and ends where it would begin.
        for job in
            jobs.iter().filter(|job| self.job(job.id).is_ok_and(|job| job.status == JobStatus::Running))
        {
            self.wait_for_job(job.id, END_TIME_MAX)?;
        }
        Ok(())
    }
}

fn damage(dataset: &Dataset, snapshot: &Snapshot, verdict: &Verification) -> String {
    let shown: Vec<&str> = verdict.problems.iter().take(SHOWN_MAX).map(String::as_str).collect();
    let more = verdict.problems.len().saturating_sub(SHOWN_MAX);
    let more = if more > 0 { format!("; {more} more") } else { String::new() };
    format!("{}@{} is damaged: {}{more}", dataset.name, snapshot.name, shown.join("; "))
}
