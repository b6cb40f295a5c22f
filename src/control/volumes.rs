//! The mounted store as the engine sees it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use stillpoint_fuse::detach_dead;

use super::holder::Holder;
use super::rows::MountRow;
use super::wire::{Limit, Reply, Request};
use crate::base::{Error, ErrorKind, Result};
use crate::engine::Volumes;

/// Volumes of a store that is mounted.
pub struct HostVolumes {
    host: Arc<dyn Holder>,
    /// Where all volumes are mounted.
    directory: PathBuf,
}

impl HostVolumes {
    pub fn new(host: Arc<dyn Holder>, directory: PathBuf) -> Self {
        Self { host, directory }
    }

    fn mounts(&self) -> Result<Vec<MountRow>> {
        match self.host.perform(&Request::Status, &mut |_| {})? {
            Reply::Status(row) => Ok(row.mounts),
            _ => Err(Error::new(ErrorKind::Failed, "no mounts were told")),
        }
    }

    fn ask(&self, request: &Request) -> Result<()> {
        self.host.perform(request, &mut |_| {}).map(drop)
    }
}

impl Volumes for HostVolumes {
    fn exists(&self, volume: &str) -> Result<bool> {
        match self.ask(&Request::VolumeShow { name: volume.into() }) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn create(&self, volume: &str) -> Result<()> {
        self.ask(&Request::VolumeCreate { name: volume.into() })
    }

    fn destroy(&self, volume: &str) -> Result<()> {
        self.ask(&Request::VolumeDestroy { name: volume.into(), with_snapshots: true })
    }

    fn snapshot(&self, volume: &str, name: &str) -> Result<()> {
        self.ask(&Request::SnapshotCreate { volume: volume.into(), name: name.into() })
    }

    fn destroy_snapshot(&self, volume: &str, name: &str) -> Result<()> {
        self.ask(&Request::SnapshotDestroy { volume: volume.into(), name: name.into() })
    }

    fn clone_snapshot(&self, volume: &str, snapshot: &str, name: &str) -> Result<()> {
        self.ask(&Request::CloneCreate {
            volume: volume.into(),
            snapshot: snapshot.into(),
            name: name.into(),
        })
    }

    fn snapshot_folder(&self, volume: &str, snapshot: &str) -> PathBuf {
        self.folder(volume).join(".snapshots").join(snapshot)
    }

    fn set_quota(&self, volume: &str, bytes: Option<u64>) -> Result<()> {
        let quota = Some(bytes.map_or(Limit::None, Limit::Bytes));
        self.ask(&Request::VolumeQuota { name: volume.into(), quota, reservation: None })
    }

    fn holds(&self, volume: &str) -> Result<Vec<(String, Vec<String>)>> {
        match self.host.perform(&Request::SnapshotHolds { volume: volume.into() }, &mut |_| {})? {
            Reply::Holds(holds) => Ok(holds),
            _ => Err(Error::new(ErrorKind::Failed, format!("no holds of {volume} were told"))),
        }
    }

    fn show_at(&self, volume: &str, folder: &Path) -> Result<()> {
        let shown = folder.display().to_string();
        if let Some(row) = self.mounts()?.into_iter().find(|row| row.directory == folder) {
            return match row.volume.as_deref() == Some(volume) {
                true => Ok(()),
                false => Err(Error::new(ErrorKind::InUse, format!("{shown} shows another volume already"))),
            };
        }
        detach_dead(folder).map_err(|e| Error::io("take a dead mount off", &shown, e))?;
        std::fs::create_dir_all(folder).map_err(|e| Error::io("create", &shown, e))?;
        let mut entries = std::fs::read_dir(folder).map_err(|e| Error::io("read", &shown, e))?;
        if entries.next().is_some() {
            return Err(Error::new(
                ErrorKind::NotEmpty,
                format!("{shown} is not empty: {volume} cannot be shown there"),
            ));
        }
        let asked = self.ask(&Request::VolumeMount { name: volume.into(), directory: folder.into() });
        if asked.is_err() {
            // Nothing is there but the folder, which would be left for good.
            let _ = std::fs::remove_dir(folder);
        }
        asked
    }

    fn hide_at(&self, folder: &Path) -> Result<()> {
        let shown = folder.display().to_string();
        if self.mounts()?.iter().any(|row| row.directory == folder) {
            self.ask(&Request::Unmount { directory: folder.into() })?;
        }
        detach_dead(folder).map_err(|e| Error::io("take a dead mount off", &shown, e))?;
        match std::fs::remove_dir(folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &shown, e)),
            _ => Ok(()),
        }
    }

    fn folder(&self, volume: &str) -> PathBuf {
        self.directory.join(volume)
    }
}
