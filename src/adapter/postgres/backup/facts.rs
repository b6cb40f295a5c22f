//! What the small files of a backup tell, collected while it is looked at or unpacked, and whether it all fits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::control::{CONTROL_BYTES_MAX, ControlFile};
use super::super::lsn::{SegmentName, SegmentSize};
use super::super::wal::{LONG_HEADER_BYTES, SegmentHeader, identify, magic_of, major_of};
use super::label::{BackupLabel, TEXT_BYTES_MAX, Tablespace, parse_map};
use super::layout::{Layout, TarFiles, is_plain};
use super::place::{MAP, Place, place};
use super::tarball::{Counter, MemberKind, Tarball, relative_path};
use super::{BackupDescription, manifest, plain};
use crate::base::{Error, ErrorKind, Result};

const LABEL: &str = "backup_label";
const CONTROL: &str = "global/pg_control";
const VERSION: &str = "PG_VERSION";
pub(super) const WAL_FOLDER: &str = "pg_wal";

#[derive(Debug, Default)]
pub(super) struct Facts {
    pub version: Option<String>,
    pub control: Option<ControlFile>,
    pub label: Option<BackupLabel>,
    pub map: Option<Vec<Tablespace>>,
    /// Where the links in `pg_tblspc` lead; a folder there has an empty path.
    pub links: BTreeMap<u32, PathBuf>,
    /// Of a segment in the backup.
    pub wal: Option<SegmentHeader>,
}

impl Facts {
    pub(super) fn of(layout: &Layout) -> Result<Self> {
        match layout {
            Layout::Plain(folder) => plain::facts(folder),
            Layout::Tar(files) => {
                let early = !is_plain(&files.base);
                let facts = Self::of_archives(files, early)?;
                if early && !facts.suffice(files) { Self::of_archives(files, false) } else { Ok(facts) }
            }
        }
    }

    /// `early` stops when the label is known and the map that follows it is read.
    fn of_archives(files: &TarFiles, early: bool) -> Result<Self> {
        let mut facts = Self::default();
        let mut base = Tarball::open(&files.base, &Counter::default())?;
        while let Some(member) = base.next_member()? {
            let relative = relative_path(&member.path)?;
            match member.kind {
                MemberKind::File(_) if Self::wants(&relative) => facts.take_member(&mut base, &relative)?,
                MemberKind::File(_) if early && facts.label.is_some() => break,
                MemberKind::File(bytes) if is_wal(&relative) && bytes >= LONG_HEADER_BYTES as u64 => {
                    facts.take_wal(&mut base)?;
                }
                MemberKind::Link(to) => facts.take_link(&relative, &to)?,
                _ => {}
            }
        }
        if let Some(path) = &files.wal {
            let mut wal = Tarball::open(path, &Counter::default())?;
            while facts.wal.is_none()
                && let Some(member) = wal.next_member()?
            {
                if is_wal(&Path::new(WAL_FOLDER).join(relative_path(&member.path)?)) {
                    facts.take_wal(&mut wal)?;
                }
            }
        }
        Ok(facts)
    }

    fn suffice(&self, files: &TarFiles) -> bool {
        let identified = self.control.is_some() || self.wal.is_some();
        identified && self.label.is_some() && (files.tablespaces.is_empty() || self.map.is_some())
    }

    /// Whether this file of the data directory tells something.
    pub(super) fn wants(relative: &Path) -> bool {
        [LABEL, MAP, CONTROL, VERSION].iter().any(|name| Path::new(name) == relative)
    }

    fn take_member(&mut self, archive: &mut Tarball, relative: &Path) -> Result<()> {
        let content = archive.read_small(TEXT_BYTES_MAX)?;
        self.take(relative, &content)
    }

    pub(super) fn take(&mut self, relative: &Path, content: &[u8]) -> Result<()> {
        let text = || String::from_utf8_lossy(content);
        match relative.to_str().unwrap_or_default() {
            LABEL => self.label = Some(BackupLabel::parse(&text())?),
            MAP => self.map = Some(parse_map(content)?),
            CONTROL => {
                let start = &content[..content.len().min(CONTROL_BYTES_MAX)];
                self.control = Some(ControlFile::decode(start)?);
            }
            VERSION => self.version = Some(text().trim().to_owned()),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn take_wal(&mut self, archive: &mut Tarball) -> Result<()> {
        if self.wal.is_none() {
            let mut start = [0; LONG_HEADER_BYTES];
            let read = archive.read(&mut start)?;
            self.wal = identify(&start[..read]);
        }
        Ok(())
    }

    /// Notes a link to a tablespace; every other link of an archive is refused.
    pub(super) fn take_link(&mut self, relative: &Path, to: &[u8]) -> Result<()> {
        use std::os::unix::ffi::OsStrExt;

        match place(relative)? {
            Place::Tablespace(oid, rest) if rest.as_os_str().is_empty() => {
                self.links.insert(oid, std::ffi::OsStr::from_bytes(to).into());
                Ok(())
            }
            _ => Err(Error::invalid(format!(
                "the backup has a symbolic link {} to {}; only links to tablespaces are taken",
                relative.display(),
                String::from_utf8_lossy(to)
            ))),
        }
    }

    /// By the map, which counts for PostgreSQL, or else by the links.
    pub(super) fn tablespaces(&self) -> Vec<Tablespace> {
        let links = || self.links.iter().map(|(oid, to)| Tablespace { oid: *oid, location: to.clone() });
        self.map.clone().unwrap_or_else(|| links().collect())
    }

    /// Each tablespace must have its archive, and each archive its tablespace.
    pub(super) fn check_archives(&self, files: &TarFiles) -> Result<()> {
        let tablespaces = self.tablespaces();
        let folder = files.folder.display();
        for Tablespace { oid, location } in &tablespaces {
            if !files.tablespaces.contains_key(oid) {
                return Err(Error::invalid(format!(
                    "the backup in {folder} is not complete: {oid}.tar, the tablespace at {}, is missing",
                    location.display()
                )));
            }
        }
        for (oid, path) in &files.tablespaces {
            if !tablespaces.iter().any(|space| space.oid == *oid) {
                return Err(Error::invalid(format!(
                    "{} is of a tablespace that the backup beside it does not have: they are of different backups",
                    path.display()
                )));
            }
        }
        Ok(())
    }

    /// The major version; other than 10 to 18 are refused.
    pub(super) fn major(&self) -> Result<u32> {
        let of_wal = || self.wal.and_then(|header| major_of(header.page.magic));
        let number = |text: &String| text.split('.').next().and_then(|number| number.parse().ok());
        let of_file = self.version.as_ref().map(|text| (text.clone(), number(text)));
        let (text, major) = match of_file.or_else(|| of_wal().map(|major| (major.to_string(), Some(major)))) {
            Some((text, Some(major))) => (text, major),
            Some((text, None)) => {
                return Err(Error::corrupt(format!("the backup's PG_VERSION has no version but {text:?}")));
            }
            None => {
                return Err(Error::corrupt("the backup has no PG_VERSION: it is damaged or not complete"));
            }
        };
        if magic_of(major).is_none() {
            let message = format!("the backup is of PostgreSQL {text}; 10 to 18 can be linked");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        Ok(major)
    }

    /// The system identifier and the segment size, on which all parts must agree.
    pub(super) fn identity(&self) -> Result<(u64, SegmentSize)> {
        let of_control = self.control.map(|control| (control.system_id, control.segment_size));
        let of_wal = self
            .wal
            .and_then(|header| Some((header.system_id, SegmentSize::new(u64::from(header.segment_bytes))?)));
        match (of_control, of_wal) {
            (Some(control), Some(wal)) if control != wal => Err(Error::invalid(format!(
                "the WAL in the backup is of another cluster, {}, than its files, {}: they are of different backups",
                wal.0, control.0
            ))),
            (Some(identity), _) | (None, Some(identity)) => Ok(identity),
            (None, None) => {
                Err(Error::corrupt("the backup has no global/pg_control: it is damaged or not complete"))
            }
        }
    }

    /// A copy without a label is whole only when the database had been shut down.
    pub(super) fn check_state(&self, folder: &Path) -> Result<()> {
        let shut_down = self.control.is_some_and(|control| control.state.is_shut_down());
        if self.label.is_some() || shut_down {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Precondition,
            format!(
                "{} is no base backup: it has no backup_label, and the database was not shut down when it was copied; \
                 make one with pg_basebackup",
                folder.display()
            ),
        ))
    }

    pub(super) fn describe(self, layout: &Layout) -> Result<BackupDescription> {
        let major = self.major()?;
        self.check_state(layout.folder())?;
        let (system_id, segment_size) = self.identity()?;
        let manifest = match layout {
            Layout::Tar(files) => {
                self.check_archives(files)?;
                files.manifest.is_some()
            }
            Layout::Plain(folder) => folder.join(manifest::NAME).exists(),
        };
        Ok(BackupDescription {
            path: layout.folder().to_owned(),
            kind: layout.kind(),
            compressed: layout.compressed(),
            size_bytes: layout.size_bytes()?,
            major,
            system_id,
            segment_size,
            tablespaces: self.tablespaces(),
            label: self.label,
            includes_wal: self.wal.is_some(),
            manifest,
        })
    }
}

/// Whether this is a WAL segment of the data directory.
pub(super) fn is_wal(relative: &Path) -> bool {
    let name = relative.strip_prefix(WAL_FOLDER).ok().and_then(Path::to_str);
    name.is_some_and(|name| name.parse::<SegmentName>().is_ok())
}
