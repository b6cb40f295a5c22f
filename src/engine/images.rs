//! Images kept ready: the newest snapshot of each dSource, recovered and shut down in the background, so that a VDB of
//! it starts without recovery.
//!
//! An image is a volume of its own and a copy of what can be made again: losing one only costs time. It never keeps a
//! snapshot, a dataset or an operation from going: a job that makes one gives way.

use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use super::jobs::{JobTask, NewJob};
use super::locks::Hold;
use crate::adapter::{Instance, Target, Task, VdbOptions};
use crate::base::{ErrorKind, Result};
use crate::catalog::{Dataset, Image, ImageState, Job, JobKind, Role, Snapshot, Timeflow};

/// The snapshot of an image's volume that VDBs are clones of.
const READY: &str = "ready";
/// How long a job that gives way may take to end its server.
const GIVE_WAY_TIME_MAX: Duration = Duration::from_secs(60);

impl Engine {
    /// Starts a job that makes an image of a snapshot that was just taken. That none can be made now is no error.
    pub(super) fn queue_image(self: &Arc<Self>, dataset: &Dataset, snapshot: &Snapshot) {
        let able = self.adapter(&dataset.adapter).is_ok_and(|adapter| adapter.abilities().images);
        let wanted = dataset.role == Role::Dsource && dataset.images && able;
        if !wanted || snapshot.unprovisionable.is_some() {
            return;
        }
        // One that is being made is of an older snapshot: it gives way, and takes back what it made.
        if let Err(e) = self.cancel_image_jobs(dataset.id, &[JobKind::DbImage]) {
            tracing::warn!("the image of {} before this one is still made: {e}", dataset.name);
        }
        let (engine, id, snapshot) = (Arc::clone(self), dataset.id, snapshot.clone());
        let new = NewJob {
            kind: JobKind::DbImage,
            target: &dataset.name,
            dataset: Some(id),
            holds: vec![(id, Hold::Use)],
        };
        let submitted = self.submit(new, move |task| {
            let dataset = engine.dataset_by_id(id)?;
            engine.carry_out_image(&dataset, &snapshot, task)
        });
        if let Err(e) = submitted {
            tracing::warn!("no image of {} is made: {e}", dataset.name);
        }
    }

    fn carry_out_image(&self, dataset: &Dataset, snapshot: &Snapshot, task: &mut JobTask) -> Result<()> {
        let newest = self.snapshots_of(dataset.id)?.pop();
        if newest.is_none_or(|newest| newest.id != snapshot.id) {
            task.log("a newer snapshot is there: it gets the image");
            return Ok(());
        }
        let from = self.timeflow(snapshot.timeflow)?;
        let image = self.new_image(dataset, snapshot)?;
        if let Err(error) = self.build_image(dataset, &from, snapshot, &image, task) {
            task.log(&format!("failed: {error}"));
            task.compensate("take back the image");
            if let Err(e) = self.remove_image(&image) {
                task.warn(&format!("volume {} stays until the next start: {e}", image.volume));
            }
            return Err(error);
        }
        task.compensate("take away the image before it");
        for other in self.images_of(dataset.id)? {
            // One that is not ready is another job's to take back.
            if other.id != image.id && other.state == ImageState::Ready {
                self.remove_image(&other)?;
            }
        }
        task.result("volume", &image.volume);
        Ok(())
    }

    pub(super) fn new_image(&self, dataset: &Dataset, snapshot: &Snapshot) -> Result<Image> {
        let created = self.now();
        let volume = self.new_volume_name_for(&dataset.name, "image-")?;
        self.catalog.change(|change| {
            super::snapshot::require_ready(change, snapshot.id)?;
            let image = Image {
                id: change.next_id()?,
                dataset: dataset.id,
                snapshot: snapshot.id,
                volume,
                state: ImageState::Building,
                created,
            };
            change.put(&image)?;
            Ok(image)
        })
    }

    fn build_image(
        &self,
        dataset: &Dataset,
        from: &Timeflow,
        snapshot: &Snapshot,
        image: &Image,
        task: &mut JobTask,
    ) -> Result<()> {
        let adapter = self.adapter(&dataset.adapter)?;
        task.step("clone")?;
        self.volumes.clone_snapshot(&from.volume, &snapshot.name, &image.volume)?;
        let config = adapter.plan_vdb(&dataset.config, &snapshot.metadata, &VdbOptions::default())?;
        let instance = self.image_instance(dataset, image, config)?;
        let made = adapter
            .provision(&instance, &snapshot.metadata, &Target::Snapshot, None, task)
            .and_then(|()| task.step("shut down"));
        // Also after a failure: what was started must not stay.
        adapter.stop(&instance, task)?;
        made?;
        self.volumes.snapshot(&image.volume, READY)?;
        self.catalog.change(|change| {
            change.update::<Image>(image.id, |image| image.state = ImageState::Ready)?;
            // It may have been destroyed meanwhile, and its image with it.
            super::snapshot::require_ready(change, snapshot.id)
        })?;
        self.remove_state(image.id)
    }

    pub(super) fn image_instance(
        &self,
        dataset: &Dataset,
        image: &Image,
        config: serde_json::Value,
    ) -> Result<Instance> {
        Ok(Instance {
            name: format!("the image of {}", dataset.name),
            volume: self.volumes.folder(&image.volume),
            state: self.instance_state(image.id),
            logs: None,
            port: self.free_port()?,
            config,
            secrets: self.inherited_secrets(dataset)?,
        })
    }

    fn images_of(&self, dataset: u64) -> Result<Vec<Image>> {
        self.catalog.select(|image: &Image| image.dataset == dataset)
    }

    /// Clones the image of a snapshot into a new volume. False when there is none, or it has just gone.
    pub(super) fn clone_image(&self, snapshot: &Snapshot, volume: &str) -> Result<bool> {
        let images = self
            .catalog
            .select(|image: &Image| image.snapshot == snapshot.id && image.state == ImageState::Ready)?;
        let Some(image) = images.first() else { return Ok(false) };
        match self.volumes.clone_snapshot(&image.volume, READY, volume) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Removes an image; no error when its volume is gone already, or was never made.
    pub(super) fn remove_image(&self, image: &Image) -> Result<()> {
        // First, so that nobody clones what goes.
        let marked = self
            .catalog
            .change(|change| change.update::<Image>(image.id, |image| image.state = ImageState::Building));
        // Another one may have removed the record already; the volume may be younger than that.
        if let Err(e) = marked
            && e.kind() != ErrorKind::NotFound
        {
            return Err(e);
        }
        match self.volumes.destroy(&image.volume) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        self.remove_state(image.id)?;
        self.catalog.change(|change| change.remove::<Image>(image.id))
    }

    /// Removes the images of a dataset, or of one of its snapshots.
    pub(super) fn remove_images(&self, dataset: u64, snapshot: Option<u64>) -> Result<()> {
        for image in self.images_of(dataset)? {
            if snapshot.is_none_or(|snapshot| snapshot == image.snapshot) {
                self.remove_image(&image)?;
            }
        }
        Ok(())
    }

    /// Ends the jobs that make an image of a dataset or verify a snapshot, so that what a person asked for need not wait for it.
    pub(super) fn end_image_jobs(&self, dataset: u64) -> Result<()> {
        for job in self.cancel_image_jobs(dataset, &[JobKind::DbImage, JobKind::DbVerify])? {
            self.wait_for_job(job, GIVE_WAY_TIME_MAX)?;
        }
        Ok(())
    }

    /// Asks the jobs of these kinds that work on clones of a dataset of their own to end; says which.
    fn cancel_image_jobs(&self, dataset: u64, kinds: &[JobKind]) -> Result<Vec<u64>> {
        let running = self.catalog.select(|job: &Job| {
            kinds.contains(&job.kind) && job.dataset == Some(dataset) && !job.status.is_final()
        })?;
        for job in &running {
            match self.cancel(job.id) {
                Err(e) if e.kind() != ErrorKind::Precondition => return Err(e),
                _ => {}
            }
        }
        Ok(running.into_iter().map(|job| job.id).collect())
    }

    /// The same when one works on this snapshot, which is to go.
    pub(super) fn end_image_job_of(&self, snapshot: &Snapshot) -> Result<()> {
        let images = self.images_of(snapshot.dataset)?;
        let building = |image: &Image| image.snapshot == snapshot.id && image.state == ImageState::Building;
        if images.iter().any(building) { self.end_image_jobs(snapshot.dataset) } else { Ok(()) }
    }

    /// Starts jobs for the images that are missing, because the process ended before they were made.
    pub(super) fn queue_missing_images(self: &Arc<Self>) -> Result<()> {
        for dataset in self.catalog.list::<Dataset>()? {
            let newest = self.snapshots_of(dataset.id)?.pop();
            if let Some(newest) = newest
                && self.images_of(dataset.id)?.iter().all(|image| image.snapshot != newest.id)
            {
                self.queue_image(&dataset, &newest);
            }
        }
        Ok(())
    }

    /// Images that a crash left half made, or half removed.
    pub(super) fn unfinished_images(&self) -> Result<Vec<Image>> {
        self.catalog.select(|image: &Image| image.state != ImageState::Ready)
    }
}
