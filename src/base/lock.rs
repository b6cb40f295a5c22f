//! The lock that lets one process at a time open a store.
//!
//! The kernel drops the lock with its holder, so a crash leaves none behind; the text in the file only tells
//! others whom to ask. Must not know what is stored.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::error::{Error, ErrorKind, Result};

const LOCK_FILE: &str = "lock";
/// Held by the daemon of a store, which another process may have mounted for it.
const DAEMON_LOCK_FILE: &str = "daemon.lock";
/// More of the holder's text than this is not shown.
const HOLDER_BYTES_MAX: u64 = 256;

/// The exclusive right to open a store; given back on drop.
#[derive(Debug)]
pub struct StoreLock {
    file: File,
}

impl StoreLock {
    /// Takes the lock of the store in the folder `path`. `purpose` is what others are told this process does.
    ///
    /// Does not wait: `ErrorKind::Locked`, naming process and purpose, when another holds it.
    pub fn acquire(path: &Path, purpose: &str) -> Result<Self> {
        Self::acquire_file(path, LOCK_FILE, purpose)
    }

    /// The same for the right to be the daemon of the store, whoever has it open.
    pub fn acquire_daemon(path: &Path, purpose: &str) -> Result<Self> {
        Self::acquire_file(path, DAEMON_LOCK_FILE, purpose)
    }

    fn acquire_file(path: &Path, name: &str, purpose: &str) -> Result<Self> {
        let lock_path = path.join(name);
        let object = lock_path.display().to_string();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|error| Error::io("open", &object, error))?;
        match retry(|| flock(&file, FlockOperation::NonBlockingLockExclusive)) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(locked(path, &holder(&file))),
            Err(errno) => return Err(Error::io("lock", &object, errno.into())),
        }
        let lock = Self { file };
        lock.announce(purpose).map_err(|error| Error::io("write", &object, error))?;
        Ok(lock)
    }

    fn announce(&self, purpose: &str) -> io::Result<()> {
        let purpose = purpose.replace(char::is_control, " ");
        self.file.set_len(0)?;
        self.file.write_all_at(format!("{} {purpose}\n", std::process::id()).as_bytes(), 0)
    }
}

impl Drop for StoreLock {
    fn drop(&mut self) {
        // So that nobody reads of a holder that left; if it fails the next holder overwrites it.
        let _ = self.file.set_len(0);
        // Explicit, because a duplicate of the descriptor in another process would keep the lock.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// What the holder wrote, or a placeholder when it has not written yet.
fn holder(mut file: &File) -> String {
    let mut bytes = Vec::new();
    let text = match file.by_ref().take(HOLDER_BYTES_MAX).read_to_end(&mut bytes) {
        Ok(_) => String::from_utf8_lossy(&bytes).trim().to_owned(),
        Err(_) => String::new(),
    };
    match text.split_once(' ') {
        Some((pid, purpose)) => format!("process {pid} ({purpose})"),
        None => "another process".to_owned(),
    }
}

fn locked(path: &Path, holder: &str) -> Error {
    let message = format!(
        "the store {} is in use by {holder}: wait until it ends, or stop it, and try again",
        path.display()
    );
    Error::new(ErrorKind::Locked, message)
}

fn retry(mut call: impl FnMut() -> rustix::io::Result<()>) -> rustix::io::Result<()> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_holder_is_told_who_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = StoreLock::acquire(folder.path(), "mount\nof /mnt").unwrap();
        let error = StoreLock::acquire(folder.path(), "gc").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        let expected = format!("process {} (mount of /mnt)", std::process::id());
        assert!(error.message().contains(&expected), "{error}");
        assert!(error.message().contains("try again"), "{error}");
        drop(first);
        let _second = StoreLock::acquire(folder.path(), "gc").unwrap();
    }

    #[test]
    fn a_shorter_purpose_leaves_nothing_of_a_longer_one() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(LOCK_FILE), "1 a long purpose of a holder that crashed\n").unwrap();
        let _lock = StoreLock::acquire(folder.path(), "gc").unwrap();
        let text = std::fs::read_to_string(folder.path().join(LOCK_FILE)).unwrap();
        assert_eq!(text, format!("{} gc\n", std::process::id()));
    }

    #[test]
    fn holder_without_text_is_another_process() {
        let folder = tempfile::tempdir().unwrap();
        let lock = StoreLock::acquire(folder.path(), "gc").unwrap();
        lock.file.set_len(0).unwrap();
        let error = StoreLock::acquire(folder.path(), "gc").unwrap_err();
        assert!(error.message().contains("another process"), "{error}");
    }

    #[test]
    fn missing_folder_is_not_found() {
        let folder = tempfile::tempdir().unwrap();
        let error = StoreLock::acquire(&folder.path().join("none"), "gc").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
