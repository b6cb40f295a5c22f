//! From a backup file to its landed form.
//!
//! One pass: the way through the file hands on each run of pages where it meets it, and what lies before goes into the frame. Crash
//! cases: before the rename there is a folder of another name, which the next attempt clears away; between rename and removal there are
//! both, and the next attempt compares them and removes the file. The file goes only after its landed form was made
//! durable, read back from where it lies, and found to have the hash of what was read. Must not know what pages hold.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use super::frame::{FrameWriter, Piece, Whole};
use super::join::{Gone, read_all};
use super::{CHUNK_BYTES, FRAME_FILE, Landed, Landing, PAGES_FILE, look, place};
use crate::adapter::Task;
use crate::adapter::sqlserver::page::PAGE_BYTES;
use crate::adapter::sqlserver::tape::{Fault, PageRun, read_runs};
use crate::base::{Error, ErrorKind, Result};

/// What is done with the backup file when its landed form is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Original {
    Keep,
    Remove,
}

/// Lands the backup file `from` as the new folder `to`, which is to lie on a volume. Blocking; reads the file once and its landed form
/// twice. `InUse` when the file changes meanwhile; `Exists` when there is a folder that is not this file landed.
pub fn land(from: &Path, to: &Path, original: Original, task: &mut dyn Task) -> Result<Landing> {
    let source = Source::open(from)?;
    let landed = match fs::symlink_metadata(to) {
        Ok(_) => Landing::Landed(source.resume(to, task)?),
        Err(_) => source.land_new(to, task)?,
    };
    if let (Landing::Landed(_), Original::Remove) = (&landed, original) {
        source.check_unchanged()?;
        fs::remove_file(from).map_err(|e| Error::io("remove", &source.name, e))?;
        place::sync_folder(place::parent(from))?;
        task.log(&format!("{} was removed: {} has it", source.name, to.display()));
    }
    Ok(landed)
}

/// The file that is landed, as it was when it was opened.
struct Source<'a> {
    path: &'a Path,
    name: String,
    file: File,
    before: Metadata,
}

impl<'a> Source<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let name = format!("backup file {}", path.display());
        let named = fs::symlink_metadata(path).map_err(|e| Error::io("open", &name, e))?;
        if !named.is_file() {
            return Err(Error::invalid(format!("{} is no file", path.display()))
                .with_hint("name the backup file itself, no link to it and no folder"));
        }
        let file = File::open(path).map_err(|e| Error::io("open", &name, e))?;
        let before = file.metadata().map_err(|e| Error::io("look at", &name, e))?;
        Ok(Self { path, name, file, before })
    }

    /// Whether the name still stands for what was read.
    fn check_unchanged(&self) -> Result<()> {
        let now = fs::symlink_metadata(self.path).map_err(|e| Error::io("look at", &self.name, e))?;
        let facts = |of: &Metadata| (of.dev(), of.ino(), of.len(), of.mtime(), of.mtime_nsec());
        match facts(&now) == facts(&self.before) {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::InUse,
                format!("{} changed while it was landed, so it stays", self.name),
            )
            .with_hint("wait until the backup has ended, and land it again")),
        }
    }

    fn land_new(&self, to: &Path, task: &mut dyn Task) -> Result<Landing> {
        let partial = place::partial(to)?;
        place::clear(&partial)?;
        let landed = self.land_at(&partial, to, task);
        if !matches!(landed, Ok(Landing::Landed(_)))
            && let Err(e) = place::clear(&partial)
        {
            task.warn(&format!("{} is left: {e}", partial.display()));
        }
        landed
    }

    fn land_at(&self, partial: &Path, to: &Path, task: &mut dyn Task) -> Result<Landing> {
        task.step("split the backup file")?;
        fs::create_dir(partial).map_err(|e| Error::io("create", &partial.display().to_string(), e))?;
        let (whole, frame_bytes) = match self.split(partial, task)? {
            Ok(split) => split,
            Err(why) => return Ok(Landing::Kept(why)),
        };
        place::sync_folder(partial)?;
        task.step("read it back")?;
        self.compare(partial, whole.hash, task)?;
        self.check_unchanged()?;
        place::commit(partial, to)?;
        Ok(Landing::Landed(Landed::new(to, whole, frame_bytes)))
    }

    /// Finds `to` to be this file, as an attempt left it that did not come to the removal.
    fn resume(&self, to: &Path, task: &mut dyn Task) -> Result<Landed> {
        let other = || {
            Error::new(ErrorKind::Exists, format!("{} exists, and is not {} landed", to.display(), self.name))
                .with_hint("name another folder, or remove it")
        };
        let landed = look(to).map_err(|e| if e.kind() == ErrorKind::NotFound { other() } else { e })?;
        if landed.length != self.before.len() {
            return Err(other());
        }
        task.step("compare with what is there")?;
        let hash = self.hash(task)?;
        if hash.to_hex().as_str() != landed.hash {
            return Err(other());
        }
        self.compare(to, hash, task)?;
        Ok(landed)
    }

    /// Reads a landed form as a whole, and finds it to be what was read of the file.
    fn compare(&self, folder: &Path, hash: blake3::Hash, task: &mut dyn Task) -> Result<()> {
        let whole = read_all(folder, Gone::FromCaches, task, &mut |_| Ok(()))?;
        match whole.hash == hash && whole.length == self.before.len() {
            true => Ok(()),
            false => Err(Error::corrupt(format!("what was landed of {} is not what was read", self.name))
                .with_hint("the file is untouched; check memory and disks of this host")),
        }
    }

    fn hash(&self, task: &mut dyn Task) -> Result<blake3::Hash> {
        let mut hash = blake3::Hasher::new();
        self.copy(0, self.before.len(), task, &mut |bytes| {
            hash.update(bytes);
            Ok(())
        })?;
        Ok(hash.finalize())
    }

    /// Hands on the bytes of a part of the file.
    fn copy(
        &self,
        from: u64,
        count: u64,
        task: &mut dyn Task,
        out: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut buffer = vec![0; CHUNK_BYTES.min(count as usize)];
        let mut at = from;
        while at < from + count {
            task.check()?;
            let some = (from + count - at).min(CHUNK_BYTES as u64) as usize;
            self.file
                .read_exact_at(&mut buffer[..some], at)
                .map_err(|e| Error::read(&format!("{} at byte {at}", self.name), e))?;
            out(&buffer[..some])?;
            at += some as u64;
            task.bytes(at, Some(self.before.len()));
        }
        Ok(())
    }

    /// Writes pages and frame, both durable. The reason when the file stays as it is.
    fn split(&self, folder: &Path, task: &mut dyn Task) -> Result<std::result::Result<(Whole, u64), String>> {
        let mut parts = Parts::create(self, folder, task)?;
        let mut failure = None;
        let read = read_runs(&self.file, &mut |run| parts.run(run).map_err(|e| failure = Some(e)).is_ok());
        if let Some(failure) = failure {
            return Err(failure);
        }
        let problem = match read {
            Ok(file) => file.problem,
            Err(problem) => Some(problem),
        };
        if let Some(problem) = problem {
            let shown = problem.to_string();
            return match problem.fault {
                Fault::Io => Err(problem.about(&self.path.display().to_string())),
                _ => Ok(Err(shown)),
            };
        }
        if parts.pages == 0 {
            return Ok(Err("it holds no pages of a database".to_owned()));
        }
        parts.end().map(Ok)
    }
}

/// The two files while they are written.
struct Parts<'a> {
    source: &'a Source<'a>,
    task: &'a mut dyn Task,
    frame: FrameWriter<File>,
    frame_name: String,
    pages_file: File,
    pages_name: String,
    hash: blake3::Hasher,
    /// What of the file is in one of them.
    at: u64,
    pages: u64,
}

impl<'a> Parts<'a> {
    fn create(source: &'a Source<'a>, folder: &Path, task: &'a mut dyn Task) -> Result<Self> {
        let (frame, pages) = (folder.join(FRAME_FILE), folder.join(PAGES_FILE));
        let frame_name = frame.display().to_string();
        Ok(Self {
            frame: FrameWriter::new(place::create(&frame)?)
                .map_err(|e| Error::io("write", &frame_name, e))?,
            pages_file: place::create(&pages)?,
            pages_name: pages.display().to_string(),
            hash: blake3::Hasher::new(),
            at: 0,
            pages: 0,
            source,
            task,
            frame_name,
        })
    }

    /// What lies before a run, and the run.
    fn run(&mut self, run: PageRun) -> Result<()> {
        self.rest(run.at)?;
        let count = run.pages * PAGE_BYTES as u64;
        self.frame.piece(Piece::Pages(run.pages)).map_err(|e| Error::io("write", &self.frame_name, e))?;
        let Self { source, task, pages_file, pages_name, hash, pages, .. } = self;
        let mut place = *pages * PAGE_BYTES as u64;
        source.copy(run.at, count, &mut **task, &mut |bytes| {
            hash.update(bytes);
            pages_file.write_all_at(bytes, place).map_err(|e| Error::io("write", pages_name, e))?;
            place += bytes.len() as u64;
            Ok(())
        })?;
        self.pages += run.pages;
        self.at = run.at + count;
        Ok(())
    }

    /// What lies between the last run and `end`.
    fn rest(&mut self, end: u64) -> Result<()> {
        let Self { source, task, frame, frame_name, hash, at, .. } = self;
        let io = |e| Error::io("write", frame_name, e);
        frame.piece(Piece::Bytes(end - *at)).map_err(io)?;
        source.copy(*at, end - *at, &mut **task, &mut |bytes| {
            hash.update(bytes);
            frame.bytes(bytes).map_err(io)
        })?;
        *at = end;
        Ok(())
    }

    fn end(mut self) -> Result<(Whole, u64)> {
        let before = &self.source.before;
        self.rest(before.len())?;
        let ended = self.frame.end(self.hash.finalize());
        let (frame, whole, frame_bytes) = ended.map_err(|e| Error::io("write", &self.frame_name, e))?;
        place::finish(&self.pages_file, before, &self.pages_name)?;
        place::finish(&frame, before, &self.frame_name)?;
        Ok((whole, frame_bytes))
    }
}
