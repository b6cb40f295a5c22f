//! Verified snapshots: a throw-away clone is started and checked, and the verdict is kept with the snapshot.
//!
//! The clone is recorded as an image that is never ready, so that a crash leaves nothing.

use std::sync::Arc;

use super::Engine;
use super::jobs::{JobHandle, JobTask, NewJob};
use super::locks::Hold;
use crate::adapter::{Target, Task, VdbOptions, Verified};
use crate::base::{Error, ErrorKind, Result};
use crate::catalog::{Dataset, Image, JobKind, Severity, Snapshot, Timeflow, Verification};

impl Engine {
    /// Starts a job that checks a snapshot's database. `Precondition` when its kind of database has no checks, or nothing can
    /// be provisioned from it.
    pub fn verify(self: &Arc<Self>, spec: &str) -> Result<JobHandle> {
        let (dataset, timeflow, snapshot) = self.find_snapshot(spec)?;
        super::provision::check_provisionable(&dataset, &snapshot)?;
        if !self.adapter(&dataset.adapter)?.abilities().verifies {
            return Err(Error::new(
                ErrorKind::Precondition,
                format!(
                    "{} is of the kind {}, which has no checks of its own",
                    dataset.name, dataset.adapter
                ),
            ));
        }
        let (engine, id) = (Arc::clone(self), dataset.id);
        let new = NewJob {
            kind: JobKind::DbVerify,
            target: &format!("{}@{}", dataset.name, snapshot.name),
            dataset: Some(id),
            holds: vec![(id, Hold::Use)],
        };
        self.submit(new, move |task| {
            engine.carry_out_verify(&engine.dataset_by_id(id)?, &timeflow, &snapshot, task)
        })
    }

    fn carry_out_verify(
        &self,
        dataset: &Dataset,
        timeflow: &Timeflow,
        snapshot: &Snapshot,
        task: &mut JobTask,
    ) -> Result<()> {
        let clone = self.new_image(dataset, snapshot)?;
        let verified = self.verify_clone(dataset, timeflow, snapshot, &clone, task);
        task.compensate("remove the clone");
        if let Err(e) = self.remove_image(&clone) {
            task.warn(&format!("volume {} stays until the next start: {e}", clone.volume));
        }
        let Verified { checks, problems, left_out } = verified?;
        for line in &left_out {
            task.log(&format!("not checked: {line}"));
        }
        let spec = format!("{}@{}", dataset.name, snapshot.name);
        for problem in &problems {
            task.warn(problem);
        }
        if !problems.is_empty() {
            let text = format!("{spec} is damaged: {}", problems[0]);
            self.event(Severity::Error, "VERIFY_FAILED", Some(dataset.id), Some(task.id()), &text);
        }
        let verification =
            Verification { checked: self.now(), sound: problems.is_empty(), checks, problems, left_out };
        task.result("sound", if verification.sound { "yes" } else { "no" });
        self.catalog.change(|change| {
            super::snapshot::require_ready(change, snapshot.id)?;
            change.update::<Snapshot>(snapshot.id, |snapshot| snapshot.verification = Some(verification))
        })?;
        Ok(())
    }

    fn verify_clone(
        &self,
        dataset: &Dataset,
        timeflow: &Timeflow,
        snapshot: &Snapshot,
        clone: &Image,
        task: &mut JobTask,
    ) -> Result<Verified> {
        let adapter = self.adapter(&dataset.adapter)?;
        task.step("clone")?;
        self.volumes.clone_snapshot(&timeflow.volume, &snapshot.name, &clone.volume)?;
        let config = adapter.plan_vdb(&dataset.config, &snapshot.metadata, &VdbOptions::default())?;
        let instance = self.image_instance(dataset, clone, config)?;
        let verified = adapter
            .provision(&instance, &snapshot.metadata, &Target::Snapshot, None, task)
            .and_then(|()| adapter.verify(&instance, task));
        // Also after a failure: what was started must not stay.
        adapter.stop(&instance, task)?;
        verified
    }
}
