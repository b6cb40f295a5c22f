//! Export: what a VDB is now, as plain files outside the store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Engine;
use super::jobs::{JobHandle, NewJob};
use super::locks::Hold;
use crate::adapter::Task;
use crate::base::{Error, ErrorKind, Result};
use crate::catalog::{JobKind, Role};

impl Engine {
    /// Starts a job that snapshots a VDB and copies the snapshot's files to a new folder, where its database starts
    /// without the store. A folder that was begun and not ended is removed.
    pub fn export(self: &Arc<Self>, name: &str, to: &Path) -> Result<JobHandle> {
        let dataset = self.dataset(name)?;
        if dataset.role != Role::Vdb {
            return Err(Error::new(
                ErrorKind::Precondition,
                format!("{name} is a dSource, which is a standby: provision a VDB of it and export that"),
            ));
        }
        self.check_operable(&dataset)?;
        let to = self.check_outside(to)?;
        let (engine, id) = (Arc::clone(self), dataset.id);
        let new = NewJob {
            kind: JobKind::DbExport,
            target: name,
            dataset: Some(id),
            holds: vec![(id, Hold::Operate)],
        };
        self.submit(new, move |task| {
            let dataset = engine.dataset_by_id(id)?;
            let timeflow = engine.current_timeflow(&dataset)?;
            let instance = engine.instance(&dataset, &timeflow)?;
            let adapter = Arc::clone(engine.adapter(&dataset.adapter)?);
            let snapshot = engine.take_snapshot(&dataset, &timeflow, &instance, &*adapter, task)?;
            engine.queue_file_check(&dataset, &snapshot);
            let was_there = to.exists();
            let from = engine.volumes.snapshot_folder(&timeflow.volume, &snapshot.name);
            if let Err(error) = adapter.export(&instance, &from, &to, task) {
                task.compensate("remove what was copied");
                // One that was there before and not empty was refused, and is not ours.
                if error.kind() != ErrorKind::Exists
                    && !was_there
                    && let Err(e) = std::fs::remove_dir_all(&to)
                {
                    task.log(&format!("{} stays: {e}", to.display()));
                }
                return Err(error);
            }
            task.result("folder", &to.display().to_string());
            task.result("snapshot", &format!("{}@{}", dataset.name, snapshot.name));
            Ok(())
        })
    }

    /// Refuses a folder on the mount: that is not plain files.
    fn check_outside(&self, to: &Path) -> Result<PathBuf> {
        let shown = to.display().to_string();
        if !to.is_absolute() {
            return Err(Error::invalid(format!("{shown}: name the folder from the root on")));
        }
        let parent = to.parent().unwrap_or(Path::new("/"));
        let parent =
            parent.canonicalize().map_err(|e| Error::io("open", &parent.display().to_string(), e))?;
        let mount = self.volumes.folder("");
        if parent.starts_with(&mount) {
            return Err(Error::invalid(format!(
                "{shown} is on the mount of this store: name a folder elsewhere"
            )));
        }
        let name = to.file_name().ok_or_else(|| Error::invalid(format!("{shown} names no new folder")))?;
        Ok(parent.join(name))
    }
}
