//! Where a dataset's volumes are shown beside the mount: below a folder of its own, if it was made with one.
//!
//! A timeflow's record names its place before anything is mounted there, so that whatever is left of it is found again.

use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use super::{Engine, make_folder};
use crate::base::{Error, ErrorKind, Result};
use crate::catalog::Timeflow;

/// Search permission for everybody: servers do not run as root.
const SEARCH: u32 = 0o001;

/// Where a volume is shown of a dataset with this mount base.
pub(super) fn place(base: Option<&Path>, volume: &str) -> Option<PathBuf> {
    base.map(|base| base.join(volume))
}

impl Engine {
    /// Refuses a folder that volumes cannot be shown below.
    pub(super) fn check_mount_base(&self, base: &Path) -> Result<()> {
        let shown = base.display();
        if !base.is_absolute() || base.components().any(|part| part == Component::ParentDir) {
            return Err(Error::invalid(format!(
                "{shown} cannot be a mount base: name it from the root on, without .."
            )));
        }
        let mount = self.volumes.folder("");
        for (taken, what) in
            [(mount.as_path(), "the mount"), (&self.store, "the store"), (&self.state, "the state folder")]
        {
            if base.starts_with(taken) {
                return Err(Error::invalid(format!(
                    "{shown} cannot be a mount base: {what} is {}",
                    taken.display()
                )));
            }
        }
        for folder in base.ancestors() {
            let Ok(found) = std::fs::metadata(folder) else { continue };
            if !found.is_dir() {
                return Err(Error::invalid(format!("{} is no folder", folder.display())));
            }
            if found.permissions().mode() & SEARCH == 0 {
                return Err(Error::new(
                    ErrorKind::Precondition,
                    format!(
                        "servers cannot reach files below {}: only some users may pass through it",
                        folder.display()
                    ),
                )
                .with_hint(format!("chmod o+x {}, or name another mount base", folder.display())));
            }
        }
        Ok(())
    }

    /// Shows a timeflow's volume at its place, if it has one; no error when it is there already.
    pub(super) fn show_volume(&self, timeflow: &Timeflow) -> Result<()> {
        let Some(place) = &timeflow.place else { return Ok(()) };
        if let Some(base) = place.parent()
            && !base.exists()
        {
            make_folder(base, 0o755)?;
        }
        self.volumes.show_at(&timeflow.volume, place)
    }

    /// Takes it away from there; no error when it is not there.
    pub(super) fn hide_volume(&self, timeflow: &Timeflow) -> Result<()> {
        timeflow.place.as_ref().map_or(Ok(()), |place| self.volumes.hide_at(place))
    }

    /// Shows again what the end of a mounting process took away.
    pub(super) fn show_volumes(&self) -> Result<()> {
        for timeflow in self.catalog.select(|timeflow: &Timeflow| timeflow.place.is_some())? {
            match self.show_volume(&timeflow) {
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    tracing::debug!("{} was not made, or is gone: {e}", timeflow.volume);
                }
                Err(e) => tracing::error!("{} is not at its place: {e}", timeflow.volume),
                Ok(()) => {}
            }
        }
        Ok(())
    }
}
