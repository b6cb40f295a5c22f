//! The file of a running hook: its script, and the sign by which a later process finds what a killed one left.
//!
//! Invariants: only the hook's user can read it; it goes with the run. A file that is there when no hook runs is of a
//! run whose process was killed.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use crate::base::{Error, OsUser, Result};

const PREFIX: &str = "hook-";

/// Removed when dropped.
pub(super) struct RunFile(PathBuf);

impl RunFile {
    /// The file of a run that begins, for the user that it runs as.
    pub(super) fn create(scratch: &Path, run: &str, text: &str, user: &OsUser) -> Result<Self> {
        let path = scratch.join(format!("{PREFIX}{run}"));
        let shown = path.display().to_string();
        let failed = |e| Error::io("write the hook's script", &shown, e);
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        // From here on the file goes, whatever fails.
        let created = Self(path.clone());
        file.write_all(text.as_bytes()).map_err(failed)?;
        if user.is_another() {
            fchown(&file, Some(user.uid), Some(user.gid)).map_err(failed)?;
        }
        file.set_permissions(Permissions::from_mode(0o400)).map_err(failed)?;
        Ok(created)
    }

    /// The runs that were not ended, each with its file.
    pub(super) fn left_in(scratch: &Path) -> Vec<(String, Self)> {
        let Ok(entries) = fs::read_dir(scratch) else { return Vec::new() };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        names
            .filter_map(|name| {
                let run = name.strip_prefix(PREFIX)?.to_owned();
                Some((run, Self(scratch.join(name))))
            })
            .collect()
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for RunFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
