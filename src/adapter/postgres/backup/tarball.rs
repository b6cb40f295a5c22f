//! Reading a tar archive, compressed or not, from its beginning to its very end.
//!
//! An archive counts only when it is whole: its end mark must be there, nothing but zeros may follow it, and
//! the compressed stream below must end in order. Extensions are read in bounded memory. Knows nothing of
//! PostgreSQL's files, and writes none.
//!
//! Format: POSIX.1-1988 ustar as PostgreSQL's `src/port/tar.c` writes it, and the pax and GNU records for long
//! names, which archives made by hand have.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tar::{EntryType, Header, PaxExtensions};

use super::super::compression::{Compression, read_full};
use crate::base::{Error, ErrorKind, Result};

const BLOCK_BYTES: usize = 512;
const BUFFER_BYTES: usize = 256 << 10;
/// A long name, or a set of pax records.
const EXTENSION_BYTES_MAX: u64 = 64 << 10;
/// Records before one member.
const EXTENSIONS_MAX: usize = 8;
/// Archives are padded to a multiple of 10 KiB, at most of some MiB.
const PADDING_BYTES_MAX: u64 = 64 << 20;

/// One file, folder or link of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// As the archive has it.
    pub path: Vec<u8>,
    pub kind: MemberKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MemberKind {
    /// With its bytes, which come next.
    File(u64),
    Folder,
    /// A symbolic link, to this.
    Link(Vec<u8>),
    /// What no backup holds; the name of the kind.
    Other(&'static str),
}

/// Bytes read of all files of a backup, compressed as they are.
pub(super) type Counter = Rc<Cell<u64>>;

/// An archive that is being read.
pub(super) struct Tarball {
    shown: String,
    source: Source,
    /// The current member's, for messages.
    member: String,
    data_left: u64,
    padding: u64,
    ended: bool,
}

enum Source {
    Plain { file: BufReader<Counted>, length: u64, position: u64 },
    Decoded(Box<dyn Read>),
}

/// A file whose bytes are counted as they are read.
struct Counted {
    file: File,
    counter: Counter,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read(buffer)?;
        self.counter.set(self.counter.get().saturating_add(bytes as u64));
        Ok(bytes)
    }
}

impl io::Seek for Counted {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Tarball {
    /// Opens the file, compressed as its ending says.
    pub(super) fn open(path: &Path, counter: &Counter) -> Result<Self> {
        let shown = path.display().to_string();
        let file = File::open(path).map_err(|e| unreadable(path, e))?;
        let length = file.metadata().map_err(|e| Error::io("read", &shown, e))?.len();
        let (_, compression) = Compression::split(path.to_str().unwrap_or_default());
        let file = BufReader::with_capacity(BUFFER_BYTES, Counted { file, counter: counter.clone() });
        let source = match compression {
            Compression::None => Source::Plain { file, length, position: 0 },
            other => Source::Decoded(other.decode(file).map_err(|e| Error::io("read", &shown, e))?),
        };
        Ok(Self { shown, source, member: String::new(), data_left: 0, padding: 0, ended: false })
    }

    /// An archive of any bytes.
    #[cfg(test)]
    pub(super) fn of(bytes: impl Read + 'static) -> Self {
        let source = Source::Decoded(Box::new(bytes));
        Self {
            shown: "archive".into(),
            source,
            member: String::new(),
            data_left: 0,
            padding: 0,
            ended: false,
        }
    }

    /// The next member; what is left of the one before is passed over. `None` when the archive has ended in
    /// order.
    pub(super) fn next_member(&mut self) -> Result<Option<Member>> {
        let mut path = None;
        let mut link = None;
        for _ in 0..=EXTENSIONS_MAX {
            let Some(header) = self.next_header()? else {
                return match (path, link) {
                    (None, None) => Ok(None),
                    _ => Err(self.damaged("it ends after the long name of a file")),
                };
            };
            let size = header.entry_size().map_err(|_| self.damaged("a file's size is no number"))?;
            let kind = header.entry_type();
            self.set_size(size)?;
            match kind {
                EntryType::GNULongName => path = Some(self.name()?),
                EntryType::GNULongLink => link = Some(self.name()?),
                EntryType::XHeader => self.pax(&mut path, &mut link)?,
                EntryType::XGlobalHeader => {}
                _ => {
                    let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
                    let link = link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
                    return self.member(path, kind, link.unwrap_or_default(), size).map(Some);
                }
            }
        }
        Err(self.damaged("a file has too many extension records"))
    }

    fn member(&mut self, path: Vec<u8>, kind: EntryType, link: Vec<u8>, size: u64) -> Result<Member> {
        self.member = String::from_utf8_lossy(&path).into_owned();
        // Before there was a mark for folders, a slash at the end was one.
        let folder = kind == EntryType::Directory || (kind == EntryType::Regular && path.ends_with(b"/"));
        let kind = match kind {
            _ if folder => MemberKind::Folder,
            EntryType::Regular | EntryType::Continuous => MemberKind::File(size),
            EntryType::Symlink => MemberKind::Link(link),
            EntryType::Link => MemberKind::Other("hard link"),
            EntryType::Char | EntryType::Block => MemberKind::Other("device"),
            EntryType::Fifo => MemberKind::Other("fifo"),
            EntryType::GNUSparse => MemberKind::Other("sparse file"),
            _ => MemberKind::Other("member of an unknown kind"),
        };
        if size > 0 && !matches!(kind, MemberKind::File(_) | MemberKind::Other(_)) {
            return Err(self.damaged("it has a folder or a link with content"));
        }
        Ok(Member { path, kind })
    }

    /// Fills the buffer from the current member; fewer bytes only at its end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let wanted = usize::try_from(self.data_left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.fill(&mut buffer[..wanted])?;
        if read < wanted {
            return Err(self.cut_off());
        }
        self.data_left -= read as u64;
        Ok(read)
    }

    /// The whole content of the current member, which must be small.
    pub(super) fn read_small(&mut self, bytes_max: u64) -> Result<Vec<u8>> {
        if self.data_left > bytes_max {
            return Err(self.damaged("it is larger than such a file can be"));
        }
        let mut content = vec![0; usize::try_from(self.data_left).unwrap_or(0)];
        self.read(&mut content)?;
        Ok(content)
    }

    fn next_header(&mut self) -> Result<Option<Header>> {
        if self.ended {
            return Ok(None);
        }
        self.skip(self.data_left)?;
        self.skip(self.padding)?;
        (self.data_left, self.padding) = (0, 0);
        let mut header = Header::new_old();
        let read = self.fill(header.as_mut_bytes())?;
        if read < BLOCK_BYTES {
            return Err(self.cut_off());
        }
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            self.end()?;
            return Ok(None);
        }
        let bytes = header.as_bytes();
        // The checksum's own eight bytes count as spaces.
        let plain: u32 = bytes[..148].iter().chain(&bytes[156..]).map(|byte| u32::from(*byte)).sum();
        if header.cksum().ok() != Some(plain + 8 * u32::from(b' ')) {
            return Err(self.damaged("it is no tar archive here"));
        }
        Ok(Some(header))
    }

    /// Reads the zeros to the end of the file, so that a checksum behind them is checked too.
    fn end(&mut self) -> Result<()> {
        self.ended = true;
        let mut buffer = vec![0; 64 << 10];
        let mut padding = 0_u64;
        loop {
            let read = self.fill(&mut buffer)?;
            padding += read as u64;
            if buffer[..read].iter().any(|byte| *byte != 0) || padding > PADDING_BYTES_MAX {
                return Err(self.damaged("more follows behind its end mark"));
            }
            if read < buffer.len() {
                return Ok(());
            }
        }
    }

    fn set_size(&mut self, size: u64) -> Result<()> {
        let block = BLOCK_BYTES as u64;
        self.padding = (block - size % block) % block;
        self.data_left = size;
        if let Source::Plain { length, position, .. } = &self.source
            && size > length.saturating_sub(*position)
        {
            return Err(self.cut_off());
        }
        Ok(())
    }

    fn name(&mut self) -> Result<Vec<u8>> {
        let mut name = self.read_small(EXTENSION_BYTES_MAX)?;
        if name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    fn pax(&mut self, path: &mut Option<Vec<u8>>, link: &mut Option<Vec<u8>>) -> Result<()> {
        let records = self.read_small(EXTENSION_BYTES_MAX)?;
        for record in PaxExtensions::new(&records) {
            let record = record.map_err(|_| self.damaged("it has a damaged extension record"))?;
            match record.key_bytes() {
                b"path" => *path = Some(record.value_bytes().to_vec()),
                b"linkpath" => *link = Some(record.value_bytes().to_vec()),
                // Files of a cluster are far smaller than what the plain header can say.
                b"size" => return Err(self.damaged("it has a file of 8 GiB or more")),
                key if key.starts_with(b"GNU.sparse") => {
                    return Err(self.damaged("it has sparse files: make it without the option --sparse"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn skip(&mut self, bytes: u64) -> Result<()> {
        if let Source::Plain { file, length, position } = &mut self.source {
            let left = length.saturating_sub(*position);
            let step = i64::try_from(bytes.min(left)).unwrap_or(i64::MAX);
            file.seek_relative(step).map_err(|e| Error::io("read", &self.shown, e))?;
            *position += step.unsigned_abs();
            return if bytes > left { Err(self.cut_off()) } else { Ok(()) };
        }
        let mut left = bytes;
        let mut buffer = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX).min(BUFFER_BYTES)];
        while left > 0 {
            let step = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            if self.fill(&mut buffer[..step])? < step {
                return Err(self.cut_off());
            }
            left -= step as u64;
        }
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = match &mut self.source {
            Source::Plain { file, position, .. } => read_full(file, buffer).inspect(|read| {
                *position += *read as u64;
            }),
            Source::Decoded(stream) => read_full(stream, buffer),
        };
        read.map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => self.cut_off(),
            _ if e.raw_os_error().is_none() => self.damaged(&format!("it cannot be decompressed: {e}")),
            _ => Error::io("read", &self.shown, e),
        })
    }

    fn place(&self) -> String {
        match self.member.as_str() {
            "" => format!("the backup file {}", self.shown),
            member => format!("the backup file {}, at or after its member {member},", self.shown),
        }
    }

    pub(super) fn damaged(&self, what: &str) -> Error {
        Error::corrupt(format!("{} is damaged: {what}", self.place()))
    }

    fn cut_off(&self) -> Error {
        Error::corrupt(format!(
            "{} ends too early: it was cut off or is still being written; copy it again",
            self.place()
        ))
    }
}

/// An error of opening a part of a backup, saying what to do about it.
pub(super) fn unreadable(path: &Path, error: io::Error) -> Error {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => Error::not_found(format!("there is no backup at {shown}")),
        io::ErrorKind::PermissionDenied => Error::with_source(
            ErrorKind::NotAllowed,
            format!(
                "the backup at {shown} may not be read by this user: let it read the files and enter the folders"
            ),
            error,
        ),
        _ => Error::io("read the backup", &shown.to_string(), error),
    }
}

/// The path of a member, relative, of plain names only; empty for the archive's own folder.
///
/// Refuses what could leave the folder that it is put in: absolute paths and `..`.
pub(super) fn relative_path(bytes: &[u8]) -> Result<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    use std::path::Component;

    let path = Path::new(std::ffi::OsStr::from_bytes(bytes));
    let refuse = |why: &str| {
        Err(Error::invalid(format!("the backup has a member {} {why}; it is refused", path.display())))
    };
    if bytes.is_empty() || bytes.contains(&0) {
        return refuse("with no proper name");
    }
    let mut relative = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => relative.push(name),
            Component::CurDir => {}
            Component::ParentDir => return refuse("that leaves its folder by .."),
            Component::RootDir | Component::Prefix(_) => return refuse("with an absolute path"),
        }
    }
    Ok(relative)
}
