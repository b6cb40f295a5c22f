//! The folders that a backup is put into: makes files and folders there, of one owner, for nobody else to read.
//!
//! Whatever a backup holds, nothing is made outside of the two folders: paths come from `place`, no link is
//! made while files are, and no file is written twice.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::process::{getegid, geteuid};

use super::FileOwner;
use super::place::Place;
use crate::base::{Error, Result};

/// Written at once; a multiple of every page size, so that the store sees whole pages.
pub(super) const CHUNK_BYTES: usize = 256 << 10;

/// Fills the buffer; fewer bytes at the end only.
pub(super) type Fill<'f> = &'f mut dyn FnMut(&mut [u8]) -> Result<usize>;

pub(super) struct Target {
    data: PathBuf,
    tablespaces: PathBuf,
    /// `None` when new files have it already.
    owner: Option<FileOwner>,
    made: HashSet<PathBuf>,
    buffer: Vec<u8>,
    pub files: u64,
    pub bytes: u64,
}

impl Target {
    /// Both must be empty or absent, their parents be there.
    pub(super) fn new(data: &Path, tablespaces: &Path, owner: FileOwner) -> Result<Self> {
        let absolute = |path: &Path| {
            std::path::absolute(path).map_err(|e| Error::io("resolve", &path.display().to_string(), e))
        };
        let ours = FileOwner { uid: geteuid().as_raw(), gid: getegid().as_raw() };
        let mut target = Self {
            data: absolute(data)?,
            tablespaces: absolute(tablespaces)?,
            owner: Some(owner).filter(|owner| *owner != ours),
            made: HashSet::new(),
            buffer: vec![0; CHUNK_BYTES],
            files: 0,
            bytes: 0,
        };
        let data = target.data.clone();
        target.adopt(&data)?;
        for folder in [&data, &target.tablespaces] {
            refuse_used(folder)?;
        }
        Ok(target)
    }

    /// Makes a folder, or takes one that is there, and gives it owner and mode.
    fn adopt(&mut self, path: &Path) -> Result<()> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed("create", path, e)),
            _ => {}
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(|e| failed("set the mode of", path, e))?;
        if let Some(FileOwner { uid, gid }) = self.owner {
            lchown(path, Some(uid), Some(gid)).map_err(|e| failed("change the owner of", path, e))?;
        }
        self.made.insert(path.to_owned());
        Ok(())
    }

    /// The path of a place below the two folders; `None` for one that is not written.
    fn path_of(&self, place: &Place) -> Option<PathBuf> {
        match place {
            Place::Made | Place::Dropped | Place::Map => None,
            Place::Data(relative) | Place::Emptied(relative) => Some(self.data.join(relative)),
            Place::Tablespace(oid, relative) if relative.as_os_str().is_empty() => {
                Some(self.tablespace(*oid))
            }
            Place::Tablespace(oid, relative) => Some(self.tablespace(*oid).join(relative)),
        }
    }

    pub(super) fn tablespace(&self, oid: u32) -> PathBuf {
        self.tablespaces.join(oid.to_string())
    }

    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    /// Makes a folder and those above it.
    pub(super) fn folder(&mut self, place: &Place) -> Result<()> {
        self.path_of(place).map_or(Ok(()), |path| self.folders_to(&path))
    }

    fn folders_to(&mut self, path: &Path) -> Result<()> {
        let missing: Vec<PathBuf> = path
            .ancestors()
            .take_while(|above| !self.made.contains(*above) && **above != self.data)
            .take_while(|above| above.starts_with(&self.data) || above.starts_with(&self.tablespaces))
            .map(Path::to_owned)
            .collect();
        missing.iter().rev().try_for_each(|folder| self.adopt(folder))
    }

    /// Writes a file from `content`, to its end, and returns its first bytes, up to `kept`.
    pub(super) fn file(&mut self, place: &Place, kept: usize, content: Fill<'_>) -> Result<Vec<u8>> {
        let Some(path) = self.path_of(place) else { return Ok(Vec::new()) };
        let emptied = matches!(place, Place::Emptied(_));
        let mut file = self.create(&path)?;
        let mut start = Vec::new();
        loop {
            let read = content(&mut self.buffer)?;
            let chunk = &self.buffer[..read];
            start.extend_from_slice(&chunk[..read.min(kept.saturating_sub(start.len()))]);
            if !emptied {
                file.write_all(chunk).map_err(|e| failed("write", &path, e))?;
                self.bytes += read as u64;
            }
            if read < self.buffer.len() {
                return Ok(start);
            }
        }
    }

    pub(super) fn text(&mut self, relative: &str, content: &[u8]) -> Result<()> {
        let path = self.data.join(relative);
        let mut file = self.create(&path)?;
        file.write_all(content).map_err(|e| failed("write", &path, e))
    }

    fn create(&mut self, path: &Path) -> Result<File> {
        if let Some(parent) = path.parent() {
            self.folders_to(parent)?;
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => {
                Error::invalid(format!("the backup has {} twice; it is refused", path.display()))
            }
            _ => failed("create", path, e),
        })?;
        if let Some(FileOwner { uid, gid }) = self.owner {
            fchown(&file, Some(uid), Some(gid)).map_err(|e| failed("change the owner of", path, e))?;
        }
        self.files += 1;
        Ok(file)
    }

    /// Makes the link of a tablespace; to be called when all files are there.
    pub(super) fn link(&mut self, oid: u32) -> Result<()> {
        let to = self.tablespace(oid);
        self.folders_to(&to)?;
        let path = self.data.join(super::place::SPACES).join(oid.to_string());
        symlink(&to, &path).map_err(|e| failed("create", &path, e))?;
        match self.owner {
            Some(FileOwner { uid, gid }) => {
                lchown(&path, Some(uid), Some(gid)).map_err(|e| failed("change the owner of", &path, e))
            }
            None => Ok(()),
        }
    }
}

fn refuse_used(folder: &Path) -> Result<()> {
    match fs::read_dir(folder).map(|mut entries| entries.next()) {
        Ok(Some(_)) => {
            Err(Error::invalid(format!("the folder {} for the backup is not empty", folder.display())))
        }
        Ok(None) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failed("list", folder, e)),
    }
}

fn failed(action: &str, path: &Path, error: io::Error) -> Error {
    Error::io(action, &path.display().to_string(), error)
}
