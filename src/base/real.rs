//! `Storage` over a directory of the host.
//!
//! Must not know what the files hold. Files are created 0600 and folders 0700: they hold databases.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;

use super::error::{Error, Result};
use super::lock::StoreLock;
use super::map;
use super::storage::{MappedBytes, OpenMode, SpaceInfo, Storage, StorageFile, check_name};

/// Unit of `st_blocks`, whatever the file system's block size.
const STAT_BLOCK_BYTES: u64 = 512;
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// The files below one directory of the host.
#[derive(Clone, Debug)]
pub struct RealStorage {
    root: PathBuf,
}

impl RealStorage {
    /// Opens the existing directory `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let object = path.display().to_string();
        let root = path.canonicalize().map_err(|error| Error::io("open", &object, error))?;
        if !root.is_dir() {
            return Err(Error::new(super::ErrorKind::NotDirectory, format!("{object} is not a directory")));
        }
        Ok(Self { root })
    }

    /// Creates the directory `path`, with its parents, if it is not there, and opens it.
    pub fn create(path: &Path) -> Result<Self> {
        let object = path.display().to_string();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| Error::io("create", &object, error))?;
        let storage = Self::open(path)?;
        if let Some(parent) = storage.root.parent() {
            sync_path(parent).map_err(|error| Error::io("sync", &parent.display().to_string(), error))?;
        }
        Ok(storage)
    }

    /// The directory, absolute and without symbolic links.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Takes the store's lock; see `StoreLock::acquire`.
    pub fn lock(&self, purpose: &str) -> Result<StoreLock> {
        StoreLock::acquire(&self.root, purpose)
    }

    fn file_path(&self, name: &str) -> io::Result<PathBuf> {
        check_name(name)?;
        Ok(self.root.join(name))
    }

    fn dir_path(&self, dir: &str) -> io::Result<PathBuf> {
        if dir.is_empty() { Ok(self.root.clone()) } else { self.file_path(dir) }
    }
}

impl Storage for RealStorage {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let path = self.file_path(name)?;
        let mut options = OpenOptions::new();
        options.read(true).mode(0o600);
        match mode {
            OpenMode::Read => {}
            OpenMode::ReadWrite => {
                options.write(true);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        Ok(Arc::new(RealFile { file: options.open(path)? }))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.dir_path(dir)?)? {
            let entry = entry?;
            if !entry.file_type()?.is_file() {
                continue;
            }
            // The store never makes a name that is not UTF-8: a stranger's file is none of ours.
            if let Ok(name) = entry.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        let path = self.file_path(dir)?;
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            outcome => outcome,
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.file_path(name)?)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.file_path(from)?, self.file_path(to)?)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        sync_path(&self.dir_path(dir)?)
    }

    fn space(&self) -> io::Result<SpaceInfo> {
        let status = rustix::fs::statvfs(&self.root)?;
        Ok(SpaceInfo {
            total_bytes: status.f_blocks.saturating_mul(status.f_frsize),
            available_bytes: status.f_bavail.saturating_mul(status.f_frsize),
        })
    }
}

fn sync_path(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

struct RealFile {
    file: File,
}

impl RealFile {
    /// Takes space without `fallocate`: zeros into the holes of the range and past the end of the file.
    ///
    /// A hole is zeros already, so no reader sees a change; a writer to the same hole at the same time could
    /// lose, so callers allocate before they write.
    fn fill_with_zeros(&self, offset: u64, end: u64) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        let mut position = offset;
        while position < length.min(end) {
            let hole = seek_or_end(&self.file, SeekFrom::Hole(position), length)?;
            if hole >= length.min(end) {
                break;
            }
            let hole_end = seek_or_end(&self.file, SeekFrom::Data(hole), length)?.min(end);
            self.write_zeros(hole, hole_end)?;
            position = hole_end;
        }
        self.write_zeros(offset.max(length), end)
    }

    fn write_zeros(&self, mut position: u64, end: u64) -> io::Result<()> {
        while position < end {
            let count = (end - position).min(ZEROS.len() as u64);
            self.file.write_all_at(&ZEROS[..count as usize], position)?;
            position += count;
        }
        Ok(())
    }
}

/// Where `target` is found, or `length` when there is none before the end.
fn seek_or_end(file: &File, target: SeekFrom, length: u64) -> io::Result<u64> {
    match seek(file, target) {
        Ok(position) => Ok(position.min(length)),
        Err(Errno::NXIO) => Ok(length),
        Err(errno) => Err(errno.into()),
    }
}

fn fallocate_retrying(
    file: &File,
    flags: FallocateFlags,
    offset: u64,
    length: u64,
) -> rustix::io::Result<()> {
    loop {
        match fallocate(file, flags, offset, length) {
            Err(Errno::INTR) => {}
            outcome => return outcome,
        }
    }
}

fn range_end(offset: u64, length: u64) -> io::Result<u64> {
    offset.checked_add(length).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}

impl StorageFile for RealFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = range_end(offset, length)?;
        if length == 0 {
            return Ok(());
        }
        match fallocate_retrying(&self.file, FallocateFlags::empty(), offset, length) {
            Err(Errno::OPNOTSUPP) => self.fill_with_zeros(offset, end),
            outcome => Ok(outcome?),
        }
    }

    fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = range_end(offset, length)?;
        if length == 0 {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate_retrying(&self.file, flags, offset, length) {
            // Space stays taken, but the range reads as promised.
            Err(Errno::OPNOTSUPP) => self.write_zeros(offset, end.min(self.file.metadata()?.len())),
            outcome => Ok(outcome?),
        }
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.blocks().saturating_mul(STAT_BLOCK_BYTES))
    }

    fn map(&self, offset: u64, length: usize) -> io::Result<MappedBytes> {
        map::map(&self.file, offset, length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage() -> (tempfile::TempDir, RealStorage) {
        let folder = tempfile::tempdir().unwrap();
        let storage = RealStorage::open(folder.path()).unwrap();
        (folder, storage)
    }

    #[test]
    fn names_outside_the_directory_are_refused() {
        let (_folder, storage) = storage();
        for name in ["", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a/", "a\0b"] {
            let error = Storage::open(&storage, name, OpenMode::CreateNew).map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
    }

    #[test]
    fn files_come_and_go() {
        let (_folder, storage) = storage();
        storage.create_dir("segments").unwrap();
        storage.create_dir("segments").unwrap();
        let file = Storage::open(&storage, "segments/1", OpenMode::CreateNew).unwrap();
        file.write_all_at(b"abc", 5).unwrap();
        file.sync_data().unwrap();
        storage.sync_dir("segments").unwrap();
        storage.sync_dir("").unwrap();
        let again = Storage::open(&storage, "segments/1", OpenMode::CreateNew).map(|_| ()).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        storage.rename("segments/1", "segments/0").unwrap();
        assert_eq!(storage.list("segments").unwrap(), ["0"]);
        assert!(storage.list("").unwrap().is_empty());
        let file = Storage::open(&storage, "segments/0", OpenMode::Read).unwrap();
        assert_eq!(&file.map(0, 8).unwrap()[..], b"\0\0\0\0\0abc");
        let mut short = [0; 4];
        assert_eq!(file.read_exact_at(&mut short, 5).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        storage.remove("segments/0").unwrap();
        let gone = Storage::open(&storage, "segments/0", OpenMode::ReadWrite).map(|_| ()).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn allocation_takes_space_and_a_hole_gives_it_back() {
        let (_folder, storage) = storage();
        let file = Storage::open(&storage, "f", OpenMode::CreateNew).unwrap();
        file.allocate(0, 1 << 20).unwrap();
        assert_eq!(file.len().unwrap(), 1 << 20);
        assert!(file.allocated_bytes().unwrap() >= 1 << 20);
        file.write_all_at(&[7; 8192], 0).unwrap();
        file.punch_hole(4096, 1 << 20).unwrap();
        assert_eq!(file.len().unwrap(), 1 << 20);
        assert!(file.allocated_bytes().unwrap() < 1 << 20);
        let mut bytes = [1; 8192];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes[..4096].iter().all(|&b| b == 7) && bytes[4096..].iter().all(|&b| b == 0));
    }

    #[test]
    fn allocation_by_zeros_keeps_data() {
        let file = RealFile { file: tempfile::tempfile().unwrap() };
        file.set_len(200_000).unwrap();
        file.write_all_at(b"data", 100_000).unwrap();
        file.fill_with_zeros(50_000, 300_000).unwrap();
        assert_eq!(file.len().unwrap(), 300_000);
        assert!(file.allocated_bytes().unwrap() >= 250_000);
        let bytes = file.map(0, 300_000).unwrap();
        assert_eq!(&bytes[100_000..100_004], b"data");
        assert_eq!(bytes.iter().filter(|&&b| b != 0).count(), 4);
    }

    #[test]
    fn space_is_the_hosts() {
        let (_folder, storage) = storage();
        let space = storage.space().unwrap();
        assert!(space.total_bytes > 0 && space.available_bytes <= space.total_bytes);
    }

    #[test]
    fn create_makes_private_folders() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let storage = RealStorage::create(&path).unwrap();
        assert_eq!(std::fs::metadata(storage.path()).unwrap().mode() & 0o777, 0o700);
        let _lock = storage.lock("test").unwrap();
        assert!(RealStorage::open(&folder.path().join("c")).is_err());
    }
}
