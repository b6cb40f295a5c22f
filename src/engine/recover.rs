//! What a process that ended left half done, cleared away by the next; and servers started and stopped with the
//! daemon.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Engine;
use crate::adapter::Task;
use crate::base::{Error, ErrorKind, Result};
use crate::catalog::{
    Dataset, DatasetState, Job, JobError, JobKind, JobStatus, Severity, Snapshot, SnapshotState, Timeflow,
    TimeflowState,
};

/// Writes what a clearing away says into the program's log.
pub(super) struct Quiet;

impl Task for Quiet {
    fn step(&mut self, name: &str) -> Result<()> {
        tracing::debug!("{name}");
        Ok(())
    }

    fn bytes(&mut self, _done: u64, _total: Option<u64>) {}

    fn log(&mut self, line: &str) {
        tracing::info!("{line}");
    }

    fn warn(&mut self, line: &str) {
        tracing::warn!("{line}");
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }
}

impl Engine {
    /// Ends what an earlier engine left on a mount that lives on: all but the servers that should run and that no job was at
    /// work on. Before `recover`, which takes files away that they would go on writing.
    pub(super) fn end_interrupted_servers(&self, mount: &Path) -> Result<()> {
        let at_work = self
            .catalog
            .select(|job: &Job| job.status == JobStatus::Running && !job.kind.leaves_server_alone())?;
        let kept = self.catalog.select(|dataset: &Dataset| {
            dataset.state == DatasetState::Active
                && !at_work.iter().any(|job| job.dataset == Some(dataset.id))
        })?;
        let kept: Vec<PathBuf> = kept.iter().map(|dataset| self.instance_state(dataset.id)).collect();
        for adapter in self.adapters.values() {
            for pid in adapter.end_strays(&self.state, mount, &kept)? {
                tracing::warn!("process {pid} of an earlier daemon was ended");
            }
        }
        Ok(())
    }

    /// Clears away what is half done. What cannot be cleared now, such as a slot on a source that is down, is said
    /// and left for the next start; it keeps nobody from working.
    pub(super) fn recover(&self) -> Result<()> {
        self.fail_jobs()?;
        for dataset in self.catalog.list::<Dataset>()? {
            if matches!(dataset.state, DatasetState::Creating | DatasetState::Deleting) {
                self.said(&dataset.name, self.remove_dataset(&dataset, false, &mut Quiet));
            }
        }
        for image in self.unfinished_images()? {
            self.said(&image.volume, self.remove_image(&image));
        }
        for timeflow in self.catalog.list::<Timeflow>()? {
            if timeflow.held.is_some() {
                let ended = self.end_hold(&timeflow.id);
                let failed = ended.is_err();
                self.said(&format!("the former link of {}", timeflow.volume), ended);
                if failed {
                    // Its record says what is held.
                    continue;
                }
            }
            if matches!(timeflow.state, TimeflowState::Building | TimeflowState::Removing) {
                self.said(&timeflow.volume, self.remove_timeflow(&timeflow));
            }
        }
        self.recover_backups()?;
        for snapshot in self.unfinished_snapshots()? {
            let timeflow = self.timeflow(snapshot.timeflow)?;
            if snapshot.state == SnapshotState::Taking {
                self.let_go(&snapshot, &timeflow);
            }
            self.said(&snapshot.name, self.remove_snapshot_record(&timeflow, &snapshot));
        }
        Ok(())
    }

    /// A process that was killed between `quiesce` and `thaw` held what nobody else lets go.
    fn let_go(&self, snapshot: &Snapshot, timeflow: &Timeflow) {
        let thawed = self
            .dataset_by_id(snapshot.dataset)
            .and_then(|dataset| self.adapter(&dataset.adapter)?.thaw(&self.instance(&dataset, timeflow)?));
        if let Err(e) = thawed {
            let text = format!("what the snapshot {} held may still be held: {e}", snapshot.name);
            self.held.lock().insert(snapshot.dataset);
            self.event(Severity::Error, "THAW_FAILED", Some(snapshot.dataset), None, &text);
        }
    }

    pub(super) fn said(&self, what: &str, result: Result<()>) {
        match result {
            Ok(()) => self.event(
                Severity::Warning,
                "CLEARED_AWAY",
                None,
                None,
                &format!("{what} was half done when the daemon ended, and was cleared away"),
            ),
            Err(e) => tracing::error!("{what} is half done and cannot be cleared away now: {e}"),
        }
    }

    /// A job that ran or waited when the process ended has failed; what it made is cleared away after this.
    fn fail_jobs(&self) -> Result<()> {
        let now = self.now();
        for job in self.catalog.select(|job: &Job| !job.status.is_final())? {
            let waited = job.status == JobStatus::Queued;
            let is_check = job.kind == JobKind::DbCheck;
            self.catalog.change(|change| {
                change.update::<Job>(job.id, |job| {
                    job.status = JobStatus::Failed;
                    job.ended = Some(now);
                    let message = match waited {
                        _ if is_check => "the daemon ended before it was done: it is made up for",
                        true => "the daemon ended before it began: start it again",
                        false => {
                            "the daemon ended while it ran; what it had made was cleared away: start it again"
                        }
                    };
                    job.error =
                        Some(JobError { code: "interrupted".into(), message: message.into(), hint: None });
                })
            })?;
            let text = format!("{} was interrupted by the end of the daemon", job.target);
            let severity = if is_check { Severity::Info } else { Severity::Error };
            self.event(severity, job.kind.name(), job.dataset, Some(job.id), &text);
        }
        Ok(())
    }

    /// Starts jobs that start every server that should run and does not.
    pub fn start_servers(self: &Arc<Self>) -> Result<()> {
        for dataset in self.catalog.select(|dataset: &Dataset| dataset.state == DatasetState::Active)? {
            if self.servers_kept && self.runs(&dataset)? {
                tracing::info!("{} runs on", dataset.name);
                continue;
            }
            self.submit_start(&dataset)?;
        }
        self.queue_missing_images()?;
        self.queue_missing_file_checks()
    }

    /// Whether a server does all that a start would give it.
    fn runs(&self, dataset: &Dataset) -> Result<bool> {
        let instance = self.instance(dataset, &self.current_timeflow(dataset)?)?;
        let health = self.adapter(&dataset.adapter)?.monitor(&instance);
        Ok(health.is_ok_and(|health| health.running && !health.needs_restart))
    }

    /// Stops every server, without changing what should run. Jobs have ended by then.
    pub fn stop_servers(&self) -> Result<()> {
        let mut failed = Vec::new();
        for dataset in self.catalog.list::<Dataset>()? {
            if dataset.timeflow.is_some()
                && let Err(e) = self.stop_server(&dataset, &mut Quiet)
            {
                failed.push(format!("{}: {e}", dataset.name));
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Io, format!("servers could not be stopped: {}", failed.join("; "))))
    }
}
