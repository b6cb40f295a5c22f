//! Requests carried out on an open store, for whoever holds it. Knows no socket and no mount.

use super::operations::ProgressSink;
use super::rows::{SnapshotRow, StatsRow, StatusRow, VolumeRow};
use super::upkeep;
use super::wire::{Reply, Request};
use crate::base::{Error, ErrorKind, Result};
use crate::volume::{SnapshotInfo, Store, StoreStats, VolumeInfo};

/// Carries out a request on the store. What needs a mount is refused. An error names the request's object.
pub(super) fn perform(store: &Store, request: &Request, progress: &mut ProgressSink<'_>) -> Result<Reply> {
    dispatch(store, request, progress).map_err(|e| {
        let (action, object) = request.describe();
        if e.message().contains(&object) { e } else { e.context(format!("cannot {action} {object}")) }
    })
}

fn dispatch(store: &Store, request: &Request, progress: &mut ProgressSink<'_>) -> Result<Reply> {
    match request {
        Request::Status => status(store),
        Request::VolumeCreate { .. }
        | Request::VolumeList
        | Request::VolumeShow { .. }
        | Request::VolumeRename { .. }
        | Request::VolumeDestroy { .. }
        | Request::VolumeQuota { .. }
        | Request::CloneCreate { .. } => volume(store, request),
        Request::SnapshotCreate { .. }
        | Request::SnapshotList { .. }
        | Request::SnapshotShow { .. }
        | Request::SnapshotDestroy { .. }
        | Request::SnapshotHold { .. }
        | Request::SnapshotRelease { .. }
        | Request::SnapshotHolds { .. } => snapshot(store, request),
        Request::StoreStats => Ok(Reply::Stats(stats_row(store.stats()?))),
        Request::StoreGc { rate } => upkeep::collect(store, *rate, progress),
        Request::StoreScrub { rate } => upkeep::scrub(store, *rate, progress),
        Request::StoreCheck => upkeep::check(store, progress),
        Request::VolumeMount { .. } | Request::Unmount { .. } => Err(not_mounted()),
    }
}

fn not_mounted() -> Error {
    Error::new(ErrorKind::Precondition, "the store is not mounted: mount it with `stillpoint mount`")
}

fn volume(store: &Store, request: &Request) -> Result<Reply> {
    match request {
        Request::VolumeCreate { name } => {
            store.create_volume(name)?;
            Ok(Reply::Done)
        }
        Request::VolumeList => {
            Ok(Reply::Volumes(store.volumes()?.into_iter().map(VolumeRow::from).collect()))
        }
        Request::VolumeShow { name } => show_volume(store, name),
        Request::VolumeRename { name, new_name } => {
            store.rename_volume(name, new_name)?;
            Ok(Reply::Done)
        }
        Request::VolumeDestroy { name, with_snapshots: false } => {
            store.destroy_volume(name)?;
            Ok(Reply::Done)
        }
        Request::VolumeDestroy { name, with_snapshots: true } => {
            store.destroy_volume_with_snapshots(name)?;
            Ok(Reply::Done)
        }
        Request::VolumeQuota { name, quota, reservation } => {
            store.set_quota(
                name,
                quota.map(|limit| limit.bytes()),
                reservation.map(|limit| limit.bytes()),
            )?;
            show_volume(store, name)
        }
        Request::CloneCreate { volume, snapshot, name } => {
            store.create_clone(volume, snapshot, name)?;
            Ok(Reply::Done)
        }
        _ => Err(misdirected()),
    }
}

fn snapshot(store: &Store, request: &Request) -> Result<Reply> {
    match request {
        Request::SnapshotCreate { volume, name } => {
            Ok(Reply::Snapshot(store.create_snapshot(volume, name)?.into()))
        }
        Request::SnapshotList { volume } => {
            let snapshots = store.snapshots(volume.as_deref())?;
            Ok(Reply::Snapshots(snapshots.into_iter().map(SnapshotRow::from).collect()))
        }
        Request::SnapshotShow { volume, name } => show_snapshot(store, volume, name),
        Request::SnapshotDestroy { volume, name } => {
            store.destroy_snapshot(volume, name)?;
            Ok(Reply::Done)
        }
        Request::SnapshotHold { volume, name, tag } => {
            store.hold(volume, name, tag)?;
            show_snapshot(store, volume, name)
        }
        Request::SnapshotRelease { volume, name, tag } => {
            store.release(volume, name, tag)?;
            show_snapshot(store, volume, name)
        }
        Request::SnapshotHolds { volume } => Ok(Reply::Holds(store.holds(volume)?)),
        _ => Err(misdirected()),
    }
}

/// `perform` sent a request to the wrong part of this file.
fn misdirected() -> Error {
    Error::new(ErrorKind::Unsupported, "this request has no meaning here")
}

fn show_volume(store: &Store, name: &str) -> Result<Reply> {
    Ok(Reply::Volume(store.volume_info(name)?.into()))
}

fn show_snapshot(store: &Store, volume: &str, name: &str) -> Result<Reply> {
    Ok(Reply::Snapshot(store.snapshot_info(volume, name)?.into()))
}

/// The status of a store that no process mounts; the mounting one adds itself.
fn status(store: &Store) -> Result<Reply> {
    let stats = store.stats()?;
    Ok(Reply::Status(StatusRow {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: None,
        api: None,
        mounts: Vec::new(),
        requests: None,
        volumes: stats.volumes,
        snapshots: stats.snapshots,
        stats: stats_row(stats),
    }))
}

impl From<VolumeInfo> for VolumeRow {
    fn from(info: VolumeInfo) -> Self {
        Self {
            name: info.name,
            origin: info.origin,
            created_unix_nanos: info.created_unix_nanos,
            logical_bytes: info.logical_bytes,
            referenced_bytes: info.referenced_bytes,
            unique_bytes: info.unique_bytes,
            quota_bytes: info.quota_bytes,
            reservation_bytes: info.reservation_bytes,
            snapshots: info.snapshots,
        }
    }
}

impl From<SnapshotInfo> for SnapshotRow {
    fn from(info: SnapshotInfo) -> Self {
        Self {
            volume: info.volume,
            name: info.name,
            created_unix_nanos: info.created_unix_nanos,
            logical_bytes: info.logical_bytes,
            referenced_bytes: info.referenced_bytes,
            unique_bytes: info.unique_bytes,
            holds: info.holds,
            clones: info.clones,
        }
    }
}

fn stats_row(stats: StoreStats) -> StatsRow {
    StatsRow {
        logical_bytes: stats.logical_bytes,
        stored_bytes: stats.stored_bytes,
        physical_bytes: stats.physical_bytes,
        dedup_ratio: stats.dedup_ratio,
        compression_ratio: stats.compression_ratio,
        journal_bytes: stats.journal_bytes,
        segments: stats.segments,
        live_bytes: stats.live_bytes,
        dead_bytes: stats.dead_bytes,
        free_bytes: stats.free_bytes,
    }
}
