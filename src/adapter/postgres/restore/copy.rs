//! Handing a file to PostgreSQL: whole, under the name it asked for, or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::base::{Error, Result};

pub(super) fn put(destination: &Path, bytes: &[u8]) -> Result<()> {
    let mut copy = Copy::create(destination)?;
    copy.file.write_all(bytes).map_err(|e| copy.failed(e))?;
    copy.finish(bytes.len() as u64)
}

/// A file that gets its name when it is complete, and goes when it does not become so. It is not forced to
/// disk: PostgreSQL asks again after a crash.
pub(super) struct Copy<'a> {
    pub file: File,
    temporary: PathBuf,
    destination: &'a Path,
}

impl<'a> Copy<'a> {
    pub(super) fn create(destination: &'a Path) -> Result<Self> {
        let mut name = destination.file_name().unwrap_or_default().to_owned();
        name.push(".stillpoint");
        let temporary = destination.with_file_name(name);
        let shown = temporary.display().to_string();
        // Of a call that was killed.
        match fs::remove_file(&temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io("remove", &shown, e)),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary);
        let file = file.map_err(|e| Error::io("create", &shown, e))?;
        Ok(Self { file, temporary, destination })
    }

    pub(super) fn failed(&self, error: io::Error) -> Error {
        Error::io("write", &self.temporary.display().to_string(), error)
    }

    pub(super) fn finish(self, bytes: u64) -> Result<()> {
        let written = self.file.metadata().map_err(|e| self.failed(e))?.len();
        if written != bytes {
            let shown = self.temporary.display();
            return Err(Error::corrupt(format!("{shown} has {written} bytes where {bytes} were written")));
        }
        let shown = self.destination.display().to_string();
        fs::rename(&self.temporary, self.destination).map_err(|e| Error::io("create", &shown, e))
    }
}

impl Drop for Copy<'_> {
    fn drop(&mut self) {
        // Renamed away after a success.
        let _ = fs::remove_file(&self.temporary);
    }
}
