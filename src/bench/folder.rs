//! The folder a measurement works in: its files, filled once, its caches, and its removal.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::pages::PageGenerator;
use crate::base::{Error, Result};

/// Bytes written at once while filling.
const FILL_BYTES: usize = 1 << 20;
const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

/// A folder of our own, removed with all it holds when dropped.
pub struct WorkFolder {
    path: PathBuf,
}

impl WorkFolder {
    /// Makes `parent`/`name`, which must not exist.
    pub fn create(parent: &Path, name: &str) -> Result<Self> {
        let path = parent.join(name);
        fs::create_dir(&path).map_err(|error| io("create folder", &path, error))?;
        Ok(Self { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens `name` for reading and writing, creating it when missing.
    pub fn open(&self, name: &str) -> Result<File> {
        let path = self.path.join(name);
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| io("open", &path, error))
    }

    /// A file of at least `bytes` filled by `pages`, durable; filled only when it is not there yet.
    pub fn filled(&self, name: &str, bytes: u64, pages: &mut PageGenerator) -> Result<File> {
        let file = self.open(name)?;
        let path = self.path.join(name);
        let length = file.metadata().map_err(|error| io("stat", &path, error))?.len();
        if length < bytes {
            fill(&file, bytes, pages).map_err(|error| io("fill", &path, error))?;
        }
        Ok(file)
    }

    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.path.join(name);
        fs::remove_file(&path).map_err(|error| io("remove", &path, error))
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

fn fill(file: &File, bytes: u64, pages: &mut PageGenerator) -> std::io::Result<()> {
    let mut buffer = vec![0; FILL_BYTES];
    let mut offset = 0;
    while offset < bytes {
        let length = (bytes - offset).min(FILL_BYTES as u64) as usize;
        pages.fill(&mut buffer[..length]);
        file.write_all_at(&buffer[..length], offset)?;
        offset += length as u64;
    }
    file.sync_all()
}

/// Forgets what the kernel caches of `file`, and with `whole_host` of everything else too, so that the file
/// beneath a mount is cold as well. What the mounting process caches itself stays.
pub fn drop_caches(file: &File, whole_host: bool) -> Result<()> {
    file.sync_all().map_err(|error| Error::io("flush", "the measured file", error))?;
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)
        .map_err(|error| Error::io("drop the cache of", "the measured file", error.into()))?;
    if whole_host {
        rustix::fs::sync();
        fs::write(DROP_CACHES, "1").map_err(|error| Error::io("write", DROP_CACHES, error))?;
    }
    Ok(())
}

/// Whether this process may drop the whole host's page cache.
pub fn may_drop_host_caches() -> bool {
    rustix::process::geteuid().is_root() && OpenOptions::new().write(true).open(DROP_CACHES).is_ok()
}

/// An error of the host on `path`.
pub(super) fn io(action: &str, path: &Path, error: std::io::Error) -> Error {
    Error::io(action, &path.display().to_string(), error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::pages::Fill;

    #[test]
    fn files_are_filled_once_and_go_with_the_folder() {
        let parent = tempfile::tempdir().unwrap();
        let folder = WorkFolder::create(parent.path(), "work").unwrap();
        let mut pages = PageGenerator::new(Fill::Database, 1);
        let file = folder.filled("data", 3 << 20, &mut pages).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 3 << 20);
        let mut before = [0; 16];
        file.read_exact_at(&mut before, 0).unwrap();
        let again = folder.filled("data", 3 << 20, &mut pages).unwrap();
        let mut after = [0; 16];
        again.read_exact_at(&mut after, 0).unwrap();
        assert_eq!(before, after);
        drop_caches(&file, false).unwrap();
        drop(folder);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
