//! Putting a backup where staging starts from it.
//!
//! It is streamed: no more is held than a chunk of a file. When it fails, what was written so far stays for the
//! caller to remove. Nothing is forced to disk: a snapshot taken after it holds all of it, and PostgreSQL syncs
//! the directory itself before it replays.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::super::compression::read_full;
use super::super::lsn::SegmentSize;
use super::super::wal::{LONG_HEADER_BYTES, identify};
use super::facts::{Facts, WAL_FOLDER, is_wal};
use super::label::{BackupLabel, TEXT_BYTES_MAX, format_map};
use super::layout::{Layout, TarFiles, file_bytes};
use super::place::{MAP, Place, SPACES, place};
use super::plain::{Met, walk};
use super::tarball::{Counter, Member, MemberKind, Tarball, relative_path, unreadable};
use super::target::Target;
use super::{FileOwner, manifest, plain};
use crate::base::{Error, Result};

/// Bytes read of the backup's files, and of how many; an error, as of a cancelled job, ends the work.
pub type Progress<'p> = &'p mut dyn FnMut(u64, u64) -> Result<()>;

/// Folders that PostgreSQL needs and that a copy made by hand may leave out when they are empty.
const FOLDERS: [&str; 14] = [
    "pg_wal",
    "pg_wal/archive_status",
    SPACES,
    "pg_replslot",
    "pg_notify",
    "pg_serial",
    "pg_snapshots",
    "pg_stat",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_dynshmem",
    "pg_twophase",
    "pg_commit_ts",
    "pg_logical",
];

/// What was put there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingested {
    pub major: u32,
    pub system_id: u64,
    pub segment_size: SegmentSize,
    /// `None` for a database that had been shut down: it starts as it is.
    pub label: Option<BackupLabel>,
    pub tablespaces: Vec<IngestedTablespace>,
    /// Whether there is WAL in `pg_wal`.
    pub includes_wal: bool,
    /// Whether `backup_manifest` is in the data directory, for `pg_verifybackup`; of it, `tablespace_map` and
    /// `postgresql.auto.conf` are not what the source had.
    pub manifest: bool,
    pub files: u64,
    /// Of the files written.
    pub bytes: u64,
    /// Links to files beside the cluster's, as to certificates, that were left out.
    pub skipped: Vec<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngestedTablespace {
    pub oid: u32,
    /// On the source.
    pub location: PathBuf,
    /// Where it lies now, to which the link in `pg_tblspc` leads.
    pub path: PathBuf,
}

/// Unpacks or copies the backup at `path` into the folder `data`, and its tablespaces into folders
/// `tablespaces/OID`; both are empty or absent. `progress` is called for each chunk, thousands of times a
/// second.
///
/// Files get mode 0600, folders 0700 and all the owner. `backup_label` stays, `tablespace_map` and the links
/// name the new folders; files of the server that ran, its slots, orders to recover and the content of
/// `postgresql.auto.conf` do not come along.
///
/// Errors as of `inspect`, `NoSpace`, and those of `progress`.
pub fn ingest(
    path: &Path,
    data: &Path,
    tablespaces: &Path,
    owner: FileOwner,
    progress: Progress<'_>,
) -> Result<Ingested> {
    let layout = Layout::find(path)?;
    if let Layout::Plain(folder) = &layout {
        // Refused before anything is written.
        plain::facts(folder)?.check_state(folder)?;
    }
    let total = layout.size_bytes()?;
    let mut work = Work {
        target: Target::new(data, tablespaces, owner)?,
        facts: Facts::default(),
        counter: Counter::default(),
        skipped: Vec::new(),
        total,
        progress,
    };
    match &layout {
        Layout::Tar(files) => work.archives(files)?,
        Layout::Plain(folder) => work.copy(folder)?,
    }
    work.finish(&layout)
}

struct Work<'p> {
    target: Target,
    facts: Facts,
    counter: Counter,
    skipped: Vec<PathBuf>,
    total: u64,
    progress: Progress<'p>,
}

impl Work<'_> {
    fn archives(&mut self, files: &TarFiles) -> Result<()> {
        self.archive(&files.base, Path::new(""))?;
        self.facts.check_archives(files)?;
        let major = self.facts.major()?;
        for (oid, path) in &files.tablespaces {
            self.archive(path, &Path::new(SPACES).join(oid.to_string()))?;
            self.check_version_folder(*oid, major)?;
        }
        if let Some(path) = &files.wal {
            self.archive(path, Path::new(WAL_FOLDER))?;
        }
        if let Some(path) = &files.manifest {
            let mut list = File::open(path).map_err(|e| unreadable(path, e))?;
            let place = Place::Data(manifest::NAME.into());
            self.target.file(&place, 0, &mut |buffer| {
                read_full(&mut list, buffer).map_err(|e| unreadable(path, e))
            })?;
        }
        Ok(())
    }

    /// Unpacks an archive whose members are relative to a folder of the data directory.
    fn archive(&mut self, path: &Path, inside: &Path) -> Result<()> {
        let before = self.counter.get();
        let mut archive = Tarball::open(path, &self.counter)?;
        while let Some(member) = archive.next_member()? {
            let relative = inside.join(relative_path(&member.path)?);
            self.member(&mut archive, &member, &relative).map_err(|e| within(path, e))?;
            (self.progress)(self.counter.get().min(self.total), self.total)?;
        }
        // What was passed over counts as well.
        self.counter.set(before.saturating_add(file_bytes(path)?));
        (self.progress)(self.counter.get().min(self.total), self.total)
    }

    fn member(&mut self, archive: &mut Tarball, member: &Member, relative: &Path) -> Result<()> {
        match &member.kind {
            MemberKind::Folder => self.target.folder(&place(relative)?),
            MemberKind::File(_) => {
                let (counter, total, progress) = (&self.counter, self.total, &mut self.progress);
                let mut fill = |buffer: &mut [u8]| {
                    progress(counter.get().min(total), total)?;
                    archive.read(buffer)
                };
                put(&mut self.target, &mut self.facts, relative, &mut fill)
            }
            MemberKind::Link(to) => self.facts.take_link(relative, to),
            MemberKind::Other(kind) => Err(Error::invalid(format!(
                "the backup has a {kind}, {}; only files, folders and links to tablespaces are taken",
                relative.display()
            ))),
        }
    }

    /// A tablespace has one folder for each catalog version, `PG_15_202209061`.
    fn check_version_folder(&self, oid: u32, major: u32) -> Result<()> {
        let path = self.target.tablespace(oid);
        let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
        let names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
        let wanted = format!("PG_{major}_");
        if names.is_empty() || names.iter().any(|name| name.as_encoded_bytes().starts_with(wanted.as_bytes()))
        {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{oid}.tar is no tablespace of PostgreSQL {major}: it has no folder {wanted}*; it is of another backup"
        )))
    }

    fn copy(&mut self, folder: &Path) -> Result<()> {
        self.facts = plain::facts(folder)?;
        walk(folder, &mut |relative, met| match met {
            Met::Folder => self.target.folder(&place(relative)?),
            Met::Skipped => {
                self.skipped.push(relative.to_owned());
                Ok(())
            }
            Met::File(bytes, path) => {
                let before = self.counter.get();
                let mut file = File::open(path).map_err(|e| unreadable(path, e))?;
                let (counter, total, progress) = (&self.counter, self.total, &mut self.progress);
                let mut fill = |buffer: &mut [u8]| {
                    let read = read_full(&mut file, buffer).map_err(|e| unreadable(path, e))?;
                    counter.set(counter.get().saturating_add(read as u64));
                    progress(counter.get().min(total), total)?;
                    Ok(read)
                };
                put(&mut self.target, &mut self.facts, relative, &mut fill)?;
                // What was left out counts as well.
                counter.set(before.saturating_add(bytes).max(counter.get()));
                progress(counter.get().min(total), total)
            }
        })
    }

    fn finish(mut self, layout: &Layout) -> Result<Ingested> {
        let major = self.facts.major()?;
        self.facts.check_state(layout.folder())?;
        if self.facts.control.is_none() {
            return Err(Error::corrupt("the backup has no global/pg_control: it is damaged or not complete"));
        }
        let (system_id, segment_size) = self.facts.identity()?;
        for folder in FOLDERS {
            self.target.folder(&Place::Data(folder.into()))?;
        }
        let mut tablespaces = Vec::new();
        for space in self.facts.tablespaces() {
            self.target.link(space.oid)?;
            let path = self.target.tablespace(space.oid);
            tablespaces.push(IngestedTablespace { oid: space.oid, location: space.location, path });
        }
        // PostgreSQL makes the links anew from the map, when there is one.
        if self.facts.map.is_some() {
            let entries = tablespaces.iter().map(|space| (space.oid, space.path.as_path()));
            self.target.text(MAP, &format_map(entries)?)?;
        }
        let manifest = self.target.data().join(manifest::NAME).exists();
        if manifest {
            manifest::check(self.target.data())?;
        }
        Ok(Ingested {
            major,
            system_id,
            segment_size,
            tablespaces,
            label: self.facts.label,
            includes_wal: self.facts.wal.is_some(),
            manifest,
            files: self.target.files,
            bytes: self.target.bytes,
            skipped: self.skipped,
        })
    }
}

/// Puts one file in its place and learns what it tells.
fn put(
    target: &mut Target,
    facts: &mut Facts,
    relative: &Path,
    fill: &mut dyn FnMut(&mut [u8]) -> Result<usize>,
) -> Result<()> {
    let place = place(relative)?;
    if place == Place::Map {
        let mut text = vec![0; usize::try_from(TEXT_BYTES_MAX).unwrap_or(0)];
        let read = fill(&mut text)?;
        return facts.take(relative, &text[..read]);
    }
    let wanted = Facts::wants(relative);
    let segment = facts.wal.is_none() && is_wal(relative);
    let kept = match (wanted, segment) {
        (true, _) => usize::try_from(TEXT_BYTES_MAX).unwrap_or(0),
        (false, true) => LONG_HEADER_BYTES,
        (false, false) => 0,
    };
    let start = target.file(&place, kept, fill)?;
    if segment {
        facts.wal = identify(&start);
    }
    if wanted { facts.take(relative, &start) } else { Ok(()) }
}

fn within(path: &Path, error: Error) -> Error {
    if error.message().contains(&path.display().to_string()) { error } else { error.context(path.display()) }
}
