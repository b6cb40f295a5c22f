//! Carrying out the steps of a plan: one RESTORE after the other, watched from a second connection.
//!
//! Between steps a job may be cancelled; inside one only where its database is thrown away then, since SQL Server wants the
//! same restore again after one that was cut off. Files of the database go below the volume, each to the place that it has, or to one
//! of its own name. Must not know how plans are made.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::Offset;

use super::super::{Secrets, Task};
use super::Guid;
use super::adapter::connect;
use super::backups::SetFacts;
use super::chain::{BackupKind, Stripe};
use super::client::{Refusal, Sql};
use super::config::{Config, FILES_FOLDER, FileRecord};
use super::plan::{Step, Stop};
use super::state;
use super::statements::{self, Restore};
use super::tape::DatabaseFile;
use crate::base::{Error, ErrorKind, Result};

/// How often the progress of a restore is asked for.
const LOOK: Duration = Duration::from_millis(500);
/// How often, at most, it is asked whether a restore that was given up has ended.
const ENDING_LOOKS_MAX: u32 = 120;
/// A log that was applied before.
const APPLIED_ALREADY: u32 = 4326;
/// The restore was good, its history could not be written.
const HISTORY_UNWRITTEN: u32 = 3009;

/// A restore that ended early.
#[derive(Debug)]
pub(super) struct Stopped {
    /// The server's number, when it was the server's doing.
    pub number: Option<u32>,
    pub error: Error,
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self { number: None, error }
    }
}

/// A database that is restored into.
pub(super) struct Restoring<'a> {
    pub sql: &'a mut Sql,
    pub name: &'a str,
    pub volume: &'a Path,
    pub config: &'a Config,
    pub secrets: &'a Secrets,
    pub facts: &'a BTreeMap<Guid, SetFacts>,
    /// The files that it has; none before its first full.
    pub known: Vec<FileRecord>,
    /// Whether a full may be put over what is there.
    pub replace: bool,
    /// Whether a cancelled job ends in the middle of a statement: what is there then is of no use.
    pub interruptible: bool,
}

impl Restoring<'_> {
    /// Restores one after the other and leaves the database RESTORING. With a stop point in a time or at a mark each log is asked
    /// to recover, and it is ONLINE as soon as one reaches that point; says whether it is.
    pub(super) fn run(&mut self, steps: &[Step], task: &mut dyn Task) -> std::result::Result<bool, Stopped> {
        for step in steps {
            task.check()?;
            let names: Vec<&str> = step.files.iter().map(|stripe| file_name(&stripe.file)).collect();
            task.step(&format!("restore {} {}", step.kind.word(), names.join(" + ")))?;
            let stop = step.stop.as_ref().map(|stop| self.stop_clause(step, stop)).transpose()?;
            let stops = stop.is_some();
            self.one(step, stop, task)?;
            if stops && self.is_online()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_online(&mut self) -> Result<bool> {
        let found = state::database(self.sql, self.name, self.volume)?;
        Ok(found.is_some_and(|found| found.state == "ONLINE" && !found.standby))
    }

    fn stop_clause(&self, step: &Step, stop: &Stop) -> Result<String> {
        Ok(match stop {
            // Times in a log are those of the clock of the server that wrote it.
            Stop::At(ms) => {
                let facts = self.facts.get(&step.backup);
                let quarters = facts.and_then(|facts| facts.zone_quarters).or(self.zone_quarters());
                statements::stop_at(&local(quarters.unwrap_or_default(), *ms)?)
            }
            Stop::BeforeLsn(lsn) => statements::stop_before_lsn(*lsn),
            Stop::AtMark { name, .. } => statements::stop_at_mark(name),
            Stop::BeforeMark { name, .. } => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("before mark {name} is no point of a VDB"),
                ));
            }
        })
    }

    /// What stands in for a backup that does not know its zone: that of one that does.
    fn zone_quarters(&self) -> Option<i8> {
        self.facts.values().find_map(|facts| facts.zone_quarters)
    }

    fn one(
        &mut self,
        step: &Step,
        stop: Option<String>,
        task: &mut dyn Task,
    ) -> std::result::Result<(), Stopped> {
        let facts = self.facts.get(&step.backup);
        let moves = self.moves(step.kind, facts.map_or(&[][..], |facts| &facts.files));
        let text = statements::restore(&Restore {
            of: self.name,
            is_log: step.kind == BackupKind::Log,
            files: &step.files,
            position: step.position,
            recover: stop.is_some(),
            stop,
            moves: &moves,
            replace: step.kind == BackupKind::Full && self.replace,
        });
        let bytes = facts.map_or(0, |facts| facts.bytes);
        self.sql.about.files = step.files.iter().map(|stripe: &Stripe| stripe.file.clone()).collect();
        let asked = self.watched(&text, bytes, task);
        self.sql.about.files.clear();
        match asked {
            Ok(()) => {}
            Err(Refusal { number: Some(APPLIED_ALREADY), .. }) if step.kind == BackupKind::Log => {
                task.log("it was applied before");
            }
            Err(refusal @ Refusal { number: Some(HISTORY_UNWRITTEN), .. }) => {
                task.warn(Error::from(refusal).message());
            }
            Err(refusal) => {
                return Err(Stopped { number: refusal.number, error: refusal.into() });
            }
        }
        for file in facts.map_or(&[][..], |facts| &facts.files) {
            if let Some((_, to)) = moves.iter().find(|(logical, _)| *logical == file.logical_name) {
                self.known.retain(|known| known.id != i64::from(file.file_id));
                self.known.push(record(file, to.strip_prefix(self.volume).unwrap_or(to)));
            }
        }
        Ok(())
    }

    /// Where files go that the database does not have yet; of a full all of them, to where they are.
    fn moves(&self, kind: BackupKind, files: &[DatabaseFile]) -> Vec<(String, PathBuf)> {
        let known = |file: &DatabaseFile| {
            self.known.iter().find(|known| known.guid.is_some() && known.guid == file.guid)
        };
        let mut taken: BTreeSet<PathBuf> = self.known.iter().map(|known| known.place(self.volume)).collect();
        let mut moves = Vec::new();
        for file in files {
            match known(file) {
                Some(known) if kind == BackupKind::Full => {
                    moves.push((file.logical_name.clone(), known.place(self.volume)));
                }
                Some(_) => {}
                None => {
                    let place = free_place(&self.volume.join(FILES_FOLDER), file, &taken);
                    taken.insert(place.clone());
                    moves.push((file.logical_name.clone(), place));
                }
            }
        }
        moves
    }

    /// Runs a restore, and tells the job how far it is.
    fn watched(&mut self, text: &str, bytes: u64, task: &mut dyn Task) -> std::result::Result<(), Refusal> {
        let session =
            self.sql.rows(statements::SESSION)?.first().and_then(|row| row.integer("session_id").ok());
        let session = session.flatten().unwrap_or_default();
        let (config, secrets, interruptible) = (self.config, self.secrets, self.interruptible);
        let percent = AtomicU32::new(0);
        let (ended, end) = mpsc::channel::<()>();
        let asked = std::thread::scope(|scope| {
            scope.spawn({
                let percent = &percent;
                move || look(config, secrets, session, percent, &end)
            });
            let asked = self.sql.watched(text, &mut || {
                let percent = percent.load(Ordering::Relaxed).min(100);
                task.bytes(bytes / 100 * u64::from(percent), Some(bytes).filter(|bytes| *bytes > 0));
                if interruptible { task.check() } else { Ok(()) }
            });
            drop(ended);
            asked
        });
        if let Err(Refusal { number: None, .. }) = &asked {
            wait_for_end(config, secrets, session);
        }
        asked.map(drop)
    }
}

/// A moment as the clock of a zone shows it.
fn local(quarters: i8, ms: i64) -> Result<String> {
    let offset = Offset::from_seconds(i32::from(quarters) * 900).ok();
    let moment = offset.zip(Timestamp::from_millisecond(ms).ok());
    let (offset, moment) = moment.ok_or_else(|| Error::invalid(format!("{ms} ms is no time")))?;
    Ok(offset.to_datetime(moment).strftime("%Y-%m-%dT%H:%M:%S%.3f").to_string())
}

/// Asks for the progress of a session until the other end of the channel is gone. A server that does not answer is no
/// failure of the restore.
fn look(config: &Config, secrets: &Secrets, session: i64, percent: &AtomicU32, end: &mpsc::Receiver<()>) {
    let mut sql = None;
    while let Err(mpsc::RecvTimeoutError::Timeout) = end.recv_timeout(LOOK) {
        if sql.is_none() {
            sql = connect(config, secrets).ok();
        }
        let Some(open) = &mut sql else { continue };
        match open.rows(&statements::progress(session)) {
            Ok(rows) => {
                let done = rows.first().and_then(|row| row.real("percent_complete").ok().flatten());
                percent.store(whole_percent(done.unwrap_or_default()), Ordering::Relaxed);
            }
            Err(_) => sql = None,
        }
    }
}

fn whole_percent(done: f64) -> u32 {
    (1..=100_u32).rev().find(|percent| f64::from(*percent) <= done).unwrap_or(0)
}

/// A restore whose connection was closed ends a little later; its database is in use until then.
fn wait_for_end(config: &Config, secrets: &Secrets, session: i64) {
    let (_open, end) = mpsc::channel::<()>();
    for _ in 0..ENDING_LOOKS_MAX {
        let Ok(mut sql) = connect(config, secrets) else { return };
        let runs = |row: &super::client::Row| {
            row.text("command")
                .is_ok_and(|command| command.is_some_and(|command| command.starts_with("RESTORE")))
        };
        match sql.rows(&statements::progress(session)) {
            Ok(rows) if rows.iter().any(runs) => {}
            _ => return,
        }
        // Nobody sends: it is a pause.
        let _ = end.recv_timeout(LOOK);
    }
}

fn record(file: &DatabaseFile, below: &Path) -> FileRecord {
    use super::config::FileKind;
    use super::tape::FileKind as InBackup;
    FileRecord {
        id: i64::from(file.file_id),
        guid: file.guid,
        kind: match file.kind {
            InBackup::Data => FileKind::Rows,
            InBackup::Log => FileKind::Log,
            InBackup::Other(_) => FileKind::Stream,
        },
        name: file.logical_name.clone(),
        path: below.to_owned(),
        pages: i64::try_from(file.size_bytes / 8192).unwrap_or_default(),
        group: i64::from(file.filegroup),
    }
}

/// The last part of a path of Windows or of Linux.
fn file_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

/// A place for a file: its own name, made distinct by its number.
fn free_place(folder: &Path, file: &DatabaseFile, taken: &BTreeSet<PathBuf>) -> PathBuf {
    let name = match file_name(&file.physical_name) {
        "" | "." | ".." => &file.logical_name,
        name => name,
    };
    // Names of other systems may differ in case alone, or hold what is no name here.
    let name = name.replace(['/', '\0'], "_");
    let same = |place: &Path| taken.iter().any(|other| other.as_os_str().eq_ignore_ascii_case(place));
    let place = folder.join(&name);
    if same(&place) { folder.join(format!("{}_{name}", file.file_id)) } else { place }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::sqlserver::tape::FileKind;

    fn file(id: u32, path: &str) -> DatabaseFile {
        DatabaseFile {
            file_id: id,
            kind: FileKind::Data,
            logical_name: format!("f{id}"),
            physical_name: path.to_owned(),
            size_bytes: 8192,
            filegroup: 1,
            guid: Some(Guid([id.to_le_bytes()[0]; 16])),
            pages_in_backup: 0,
        }
    }

    #[test]
    fn files_get_places_of_their_own_names() {
        let folder = Path::new("/v/DATA/db");
        let mut taken = BTreeSet::new();
        let mut place = |id, path: &str| {
            let place = free_place(folder, &file(id, path), &taken);
            taken.insert(place.clone());
            place.strip_prefix(folder).unwrap().display().to_string()
        };
        assert_eq!(place(1, "D:\\data\\Sales.mdf"), "Sales.mdf");
        assert_eq!(place(2, "/var/opt/sales.mdf"), "2_sales.mdf");
        assert_eq!(place(3, "E:\\log\\sales_log.ldf"), "sales_log.ldf");
        assert_eq!(place(4, ""), "f4");
        assert_eq!(place(5, "/x/.."), "f5");
    }

    #[test]
    fn times_are_those_of_the_zone() {
        let ms = 1_767_600_000_123;
        assert_eq!(local(0, ms).unwrap(), "2026-01-05T08:00:00.123");
        assert_eq!(local(-18, ms).unwrap(), "2026-01-05T03:30:00.123");
        assert!(local(0, i64::MAX).is_err());
    }

    #[test]
    fn percents_are_whole() {
        assert_eq!(
            [0.0, 0.9, 1.0, 55.5, 100.0, 300.0, f64::NAN].map(whole_percent),
            [0, 0, 1, 55, 100, 100, 0]
        );
    }
}
