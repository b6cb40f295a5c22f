//! The mounted store as the engine sees it.

use std::path::PathBuf;
use std::sync::Arc;

use super::holder::Holder;
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

    fn folder(&self, volume: &str) -> PathBuf {
        self.directory.join(volume)
    }
}
