//! The mounts of one store in one process.
//!
//! A FUSE session shows all volumes, or one. A volume that a session shows already is mounted at a further place
//! by binding its folder, which shares the kernel's caches; two sessions over the same files would not see each
//! other's writes. Every change of the list of volumes and snapshots is told to the kernel of each session.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use stillpoint_fuse::{MountOptions, is_mounted, unbind};

use super::rows::{MountRow, RequestsRow};
use crate::base::{Clock, Error, ErrorKind, Result};
use crate::vfs::{Mount, MountTarget};
use crate::volume::{Store, ViewId};

/// How long, and how often, open files are given to turn out to be closed.
const CLOSE_LOOK: Duration = Duration::from_millis(5);
const CLOSE_LOOKS: u32 = 40;

/// Sessions and the bind mounts on them.
pub(super) struct Mounts {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    options: MountOptions,
    sessions: Vec<Session>,
}

struct Session {
    mount: Mount,
    /// The one volume it shows, or all.
    volume: Option<String>,
    binds: Vec<MountRow>,
}

impl Mounts {
    pub(super) fn new(store: Arc<Store>, clock: Arc<dyn Clock>, options: MountOptions) -> Self {
        Self { store, clock, options, sessions: Vec::new() }
    }

    /// Shows all volumes at `directory`, or one.
    pub(super) fn mount(&mut self, directory: &Path, volume: Option<&str>) -> Result<MountRow> {
        if let Some(volume) = volume {
            // Names the volume in the error before anything is mounted.
            self.store.volume(volume)?;
            let shown = |session: &&mut Session| session.mount.volume_directory(volume).is_some();
            if let Some(session) = self.sessions.iter_mut().find(shown) {
                session.mount.bind_volume(volume, directory)?;
                let row = row(directory, Some(volume), &self.options);
                session.binds.push(row.clone());
                return Ok(row);
            }
        }
        let target = volume.map_or(MountTarget::Store, |name| MountTarget::Volume(name.to_owned()));
        let mount = Mount::start(
            Arc::clone(&self.store),
            Arc::clone(&self.clock),
            &target,
            directory,
            &self.options,
        )?;
        let row = row(mount.directory(), volume, &self.options);
        self.sessions.push(Session { mount, volume: volume.map(str::to_owned), binds: Vec::new() });
        Ok(row)
    }

    /// Takes off the mount at `directory`. `InUse` while files are open there: it stays.
    pub(super) fn unmount(&mut self, directory: &Path) -> Result<()> {
        self.forget_ended();
        for session in &mut self.sessions {
            if let Some(index) = session.binds.iter().position(|bind| bind.directory == directory) {
                unbind(directory).map_err(|e| unbind_error(directory, e))?;
                session.binds.remove(index);
                return Ok(());
            }
        }
        let found = self.sessions.iter().position(|session| session.mount.directory() == directory);
        let index = found.ok_or_else(|| {
            Error::not_found(format!("this store is not mounted at {}", directory.display()))
        })?;
        let binds = &self.sessions[index].binds;
        if !binds.is_empty() {
            let places: Vec<String> = binds.iter().map(|bind| bind.directory.display().to_string()).collect();
            return Err(Error::new(
                ErrorKind::InUse,
                format!("{} is also seen at {}: unmount that first", directory.display(), places.join(", ")),
            ));
        }
        // The kernel takes a mount off that is in use in other mount namespaces alone, where servers run.
        let open = self.open_after_a_moment(|| self.sessions[index].mount.all_open_files());
        if open > 0 {
            return Err(Error::new(
                ErrorKind::InUse,
                format!("{} is busy: {open} of its files are open", directory.display()),
            ));
        }
        self.sessions[index].mount.unmount()?;
        self.sessions.remove(index);
        Ok(())
    }

    /// Takes off everything that nobody uses; the rest goes when this value is dropped, open files and all.
    pub(super) fn unmount_all(&mut self) {
        for session in &mut self.sessions {
            for bind in session.binds.drain(..) {
                if let Err(e) = unbind(&bind.directory) {
                    tracing::warn!("unmounting {}: {e}", bind.directory.display());
                }
            }
        }
        self.sessions.retain(|session| match session.mount.unmount() {
            Ok(()) => false,
            Err(e) => {
                tracing::warn!("{e}; what is written there from now on is lost");
                true
            }
        });
        // What the kernel holds for files that are still open.
        for (name, volume) in self.store.volume_names() {
            for session in &self.sessions {
                if let Err(e) = session.mount.flush(volume) {
                    tracing::error!("flushing {name}: {e}");
                }
            }
        }
    }

    /// Whether no mount is left, also because an administrator took them off.
    pub(super) fn is_empty(&mut self) -> bool {
        self.forget_ended();
        self.sessions.is_empty()
    }

    fn forget_ended(&mut self) {
        self.sessions.retain(|session| !session.mount.has_ended());
        for session in &mut self.sessions {
            // A list that cannot be read says nothing against a mount.
            session.binds.retain(|bind| is_mounted(&bind.directory).unwrap_or(true));
        }
    }

    /// What is mounted where.
    pub(super) fn rows(&mut self) -> Vec<MountRow> {
        self.forget_ended();
        let mut rows = Vec::new();
        for session in &self.sessions {
            rows.push(row(session.mount.directory(), session.volume.as_deref(), &self.options));
            rows.extend(session.binds.iter().cloned());
        }
        rows
    }

    /// What the kernel has asked of them.
    pub(super) fn requests(&self) -> RequestsRow {
        let mut total = RequestsRow::default();
        for session in &self.sessions {
            let counters = session.mount.counters();
            for (name, count) in counters.snapshot() {
                *total.counts.entry(name.to_owned()).or_default() += count;
            }
            total.bytes_read += counters.bytes_read();
            total.bytes_written += counters.bytes_written();
        }
        total
    }

    /// Brings every write to a volume that returned before this call from the kernel to the store.
    pub(super) fn flush(&self, volume: &str) -> Result<()> {
        let id = self.store.volume(volume)?.id();
        for session in &self.sessions {
            if session.mount.volume_directory(volume).is_some() {
                session.mount.flush(id)?;
            }
        }
        Ok(())
    }

    /// How many files are open; none when those that are were just being closed.
    fn open_after_a_moment(&self, count: impl Fn() -> u64) -> u64 {
        let mut open = count();
        // The kernel tells of a file's last close a moment after close(2) has returned.
        for _ in 0..CLOSE_LOOKS {
            if open == 0 {
                break;
            }
            self.clock.sleep(CLOSE_LOOK);
            open = count();
        }
        open
    }

    /// Refuses what would pull a view from under its users.
    pub(super) fn check_unused(&self, what: &str, view: ViewId, volume: Option<&str>) -> Result<()> {
        let open = self.open_after_a_moment(|| {
            self.sessions.iter().map(|session| session.mount.open_files(view)).sum::<u64>()
        });
        if open > 0 {
            return Err(Error::new(
                ErrorKind::InUse,
                format!("{what} is in use: {open} of its files are open; close them first"),
            ));
        }
        let alone = self.sessions.iter().find_map(|session| {
            let bind = session.binds.iter().find(|bind| bind.volume.as_deref() == volume);
            let own = session.volume.as_deref() == volume;
            volume?;
            bind.map(|bind| bind.directory.as_path()).or_else(|| own.then(|| session.mount.directory()))
        });
        match alone {
            Some(directory) => Err(Error::new(
                ErrorKind::InUse,
                format!("{what} is mounted alone at {}; unmount it first", directory.display()),
            )),
            None => Ok(()),
        }
    }

    pub(super) fn volume_created(&self, name: &str) {
        self.sessions.iter().for_each(|session| session.mount.volume_created(name));
    }

    pub(super) fn volume_renamed(&mut self, old: &str, new: &str) {
        for session in &mut self.sessions {
            session.mount.volume_renamed(old, new);
            let rows = session.binds.iter_mut().map(|bind| &mut bind.volume);
            for volume in rows.chain([&mut session.volume]) {
                if volume.as_deref() == Some(old) {
                    *volume = Some(new.to_owned());
                }
            }
        }
    }

    pub(super) fn volume_removed(&self, name: &str, id: ViewId) {
        self.sessions.iter().for_each(|session| session.mount.volume_removed(name, id));
    }

    pub(super) fn snapshot_created(&self, volume: ViewId, name: &str) {
        self.sessions.iter().for_each(|session| session.mount.snapshot_created(volume, name));
    }

    pub(super) fn snapshot_removed(&self, volume: ViewId, name: &str, id: ViewId) {
        self.sessions.iter().for_each(|session| session.mount.snapshot_removed(volume, name, id));
    }
}

fn row(directory: &Path, volume: Option<&str>, options: &MountOptions) -> MountRow {
    MountRow {
        directory: directory.to_owned(),
        volume: volume.map(str::to_owned),
        read_only: options.read_only,
    }
}

fn unbind_error(directory: &Path, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::ResourceBusy => ErrorKind::InUse,
        std::io::ErrorKind::PermissionDenied => ErrorKind::NotAllowed,
        _ => ErrorKind::Io,
    };
    let failed = Error::with_source(kind, format!("cannot unmount {}: {error}", directory.display()), error);
    if kind == ErrorKind::NotAllowed {
        failed.with_hint("only root can unmount: run as root")
    } else {
        failed
    }
}
