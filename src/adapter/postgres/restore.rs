//! Our own restore command: gives PostgreSQL the WAL files of a folder, and tells a late file from a missing, a
//! wrong or a damaged one, which PostgreSQL cannot.
//!
//! Runs as PostgreSQL's user, started by its startup process, with no daemon: all it knows is in the
//! configuration file and its own state file. It never reports by a signal or a status above 125, which would
//! end the recovery.
//!
//! What PostgreSQL makes of the status: `RestoreArchivedFile` in `src/backend/access/transam/xlogarchive.c`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::compression::Compression;
use super::history::TimelineHistory;
use super::lsn::{Lsn, SegmentName, SegmentSize, Timeline, WalFileName};
use super::wal::{CopyError, ExpectedSegment, WalFault, WalFaultKind, check_segment, copy_segment};
use crate::base::{Clock, Error, Result, SystemClock};

mod chain;
mod copy;
mod folder;
mod state;
#[cfg(test)]
mod tests;

use copy::{Copy, put};
use folder::{candidates, history_of, read_history, read_small, unsupported};

pub use chain::{BreakReason, ChainMoment, ChainVerdict, FolderListing, analyse};
pub use state::{Asked, ChainState, Delivered, FileSeen, FoundFault, HistoryAsked, LaterFiles, Wanted};

/// A file that ends in zeros and was written less than this ago may still be filled.
const SETTLE: Duration = Duration::from_secs(2);
/// Small files, as `.backup`, that are handed on as they are.
const OTHER_BYTES_MAX: u64 = 1 << 20;

/// What the command is told by its file (JSON).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreConfig {
    /// Where the user puts the WAL files.
    pub wal_directory: PathBuf,
    /// Replaced at each call; its folder must be writable by PostgreSQL's user and lie outside the data
    /// directory.
    pub state_file: PathBuf,
    pub system_id: u64,
    pub major: u32,
    /// Bytes.
    pub segment_size: SegmentSize,
    pub grace_seconds: u64,
}

impl RestoreConfig {
    pub fn load(path: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        let bytes = fs::read(path).map_err(|e| Error::io("read", &shown, e))?;
        serde_json::from_slice(&bytes)
            .map_err(|e| Error::invalid(format!("{shown} is no configuration of the restore command: {e}")))
    }

    fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_seconds)
    }
}

/// How a call ends. The number is the process's exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RestoreStatus {
    Restored = 0,
    /// Not there, or not complete yet: PostgreSQL asks again.
    NotThere = 1,
    /// There and not right: PostgreSQL asks again, and the state file says why.
    Wrong = 2,
    /// The command itself failed; the message says why.
    Failed = 3,
}

/// The end of a call, with what belongs into PostgreSQL's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreResult {
    pub status: RestoreStatus,
    /// `None` for a success and for a mere wait, which repeats every few seconds.
    pub message: Option<String>,
}

impl RestoreResult {
    fn failed(error: &Error) -> Self {
        Self { status: RestoreStatus::Failed, message: Some(error.to_string()) }
    }

    pub fn exit_code(&self) -> u8 {
        self.status as u8
    }
}

/// One call of the command: `file` is PostgreSQL's `%f`, `destination` its `%p`, `redo` its `%r`.
pub fn run_restore(config: &Path, file: &str, destination: &Path, redo: &str) -> RestoreResult {
    match RestoreConfig::load(config) {
        Ok(config) => restore(&config, file, destination, redo, &SystemClock),
        Err(e) => RestoreResult::failed(&e),
    }
}

/// As `run_restore`, with its inputs in hand.
pub fn restore(
    config: &RestoreConfig,
    file: &str,
    destination: &Path,
    redo: &str,
    clock: &dyn Clock,
) -> RestoreResult {
    let now = clock.unix_nanos() / 1_000_000;
    let mut state = match ChainState::load(&config.state_file) {
        Ok(state) => state,
        Err(e) => return RestoreResult::failed(&e),
    };
    let said_before = state.sentence.clone();
    let mut result = match WalFileName::parse(file) {
        Some(WalFileName::Segment(name)) => restore_segment(config, name, destination, &mut state, now),
        Some(WalFileName::History(timeline)) => {
            restore_history(config, timeline, destination, &mut state, now)
        }
        Some(WalFileName::Backup(..) | WalFileName::Partial(_)) => restore_other(config, file, destination),
        None => Err(Error::invalid(format!("{file:?} is no name of a WAL file; give %f, %p and %r"))),
    };
    if let Ok(redo) = redo.parse() {
        state.redo = Some(redo);
    }
    state.checked_at_unix_ms = now;
    let judged = judge(config, &mut state, now);
    result = result.and_then(|status| judged.map(|()| status).or_else(|e| unless_restored(status, e)));
    state.trouble = result.as_ref().err().map(ToString::to_string);
    let saved = state.save(&config.state_file);
    let told = saved.as_ref().err().map(ToString::to_string);
    match result.and_then(|status| saved.map(|()| status).or_else(|e| unless_restored(status, e))) {
        Ok(RestoreStatus::Restored) => RestoreResult { status: RestoreStatus::Restored, message: told },
        Ok(status) => {
            let news = state.sentence.filter(|_| state.verdict == "broken");
            RestoreResult { status, message: news.filter(|said| Some(said) != said_before.as_ref()) }
        }
        Err(e) => RestoreResult::failed(&e),
    }
}

/// What could not be noted down must not keep PostgreSQL from a file that it has been given.
fn unless_restored(status: RestoreStatus, error: Error) -> Result<RestoreStatus> {
    if status == RestoreStatus::Restored { Ok(status) } else { Err(error) }
}

/// Puts the verdict into the state. The folder is listed only when something is missing.
fn judge(config: &RestoreConfig, state: &mut ChainState, now: i64) -> Result<()> {
    let listed = match state.needs_listing() {
        true => FolderListing::read(&config.wal_directory, state).map_err(Some),
        false => Err(None),
    };
    let (listing, failure) = match listed {
        Ok(listing) => (listing, None),
        Err(failure) => (FolderListing::default(), failure),
    };
    if failure.is_none() {
        let absent = listing.wanted.is_empty();
        let later = state.wanted.as_ref().filter(|_| absent).and_then(|wanted| listing.later(wanted));
        state.note_later(later, now);
    }
    let moment =
        ChainMoment { now_unix_ms: now, grace: config.grace(), size: config.segment_size, replayed: None };
    let verdict = analyse(&listing, state, &moment);
    verdict.code().clone_into(&mut state.verdict);
    state.sentence = (verdict != ChainVerdict::Fine).then(|| verdict.to_string());
    failure.map_or(Ok(()), Err)
}

/// The verdict on the chain now, which the engine asks for: with staging running or stopped, and with how far
/// it has replayed where that is known. A chain that was broken and is mended is `Waiting` until PostgreSQL
/// asks again.
///
/// Fails when the state file or the WAL folder cannot be read.
pub fn look(config: &RestoreConfig, replayed: Option<Lsn>, clock: &dyn Clock) -> Result<ChainVerdict> {
    let state = ChainState::load(&config.state_file)?;
    let listing = FolderListing::read(&config.wal_directory, &state)?;
    let now_unix_ms = clock.unix_nanos() / 1_000_000;
    let moment = ChainMoment { now_unix_ms, grace: config.grace(), size: config.segment_size, replayed };
    Ok(analyse(&listing, &state, &moment))
}

/// Checks the file that PostgreSQL will ask for under this name, without giving it: the engine looks so before
/// it starts staging again.
pub fn check(config: &RestoreConfig, name: SegmentName) -> std::result::Result<(), WalFault> {
    let folder = &config.wal_directory;
    let history = history_of(folder, name.timeline);
    let expected = expectation(config, name, history.as_ref());
    let mut first = None;
    for (path, compression) in candidates(folder, &name.to_string()) {
        let checked = match compression {
            Some(_) => check_segment(&path, &expected).map(|_| ()),
            None => Err(WalFault { kind: unsupported(&path), path }),
        };
        match checked {
            Ok(()) => return Ok(()),
            Err(fault) => first = first.or(Some(fault)),
        }
    }
    let missing = || WalFault { path: folder.join(name.to_string()), kind: WalFaultKind::Missing };
    Err(first.unwrap_or_else(missing))
}

fn expectation<'a>(
    config: &RestoreConfig,
    name: SegmentName,
    history: Option<&'a TimelineHistory>,
) -> ExpectedSegment<'a> {
    let RestoreConfig { system_id, major, segment_size: size, .. } = *config;
    ExpectedSegment { name, system_id, major, size, history }
}

fn restore_segment(
    config: &RestoreConfig,
    name: SegmentName,
    destination: &Path,
    state: &mut ChainState,
    now: i64,
) -> Result<RestoreStatus> {
    let folder = &config.wal_directory;
    if let Some(fault) = superseded(config, name, state) {
        state.note_missing(
            name,
            Some(FoundFault::new(&folder.join(name.to_string()), &fault)),
            Vec::new(),
            now,
        );
        return Ok(RestoreStatus::NotThere);
    }
    let history = history_of(folder, name.timeline);
    let expected = expectation(config, name, history.as_ref());
    let mut first_fault = None;
    let mut seen = Vec::new();
    for (path, compression) in candidates(folder, &name.to_string()) {
        let file = FileSeen::of(&path);
        seen.extend(file.clone());
        let fault = match compression {
            Some(compression) => give(&path, compression, &expected, destination, now)?,
            None => Some(unsupported(&path)),
        };
        let Some(fault) = fault else {
            let file = file.ok_or_else(|| Error::not_found(format!("{} has gone", path.display())))?;
            state.note_delivered(name, file, now);
            return Ok(RestoreStatus::Restored);
        };
        // It may go while it is looked at, as `gzip` removes what it has compressed.
        if fault != WalFaultKind::Missing {
            first_fault = first_fault.or(Some(FoundFault::new(&path, &fault)));
        }
    }
    let wrong = first_fault.as_ref().is_some_and(|fault| !fault.in_progress);
    state.note_missing(name, first_fault, seen, now);
    Ok(if wrong { RestoreStatus::Wrong } else { RestoreStatus::NotThere })
}

/// Whether the wanted place belongs to a newer timeline, for which PostgreSQL has just asked.
///
/// When that segment is not there, PostgreSQL asks for the one of the timeline before; if the old primary went
/// on writing after the fork, its segment has WAL that the source never had, and staging would replay it.
fn superseded(config: &RestoreConfig, name: SegmentName, state: &ChainState) -> Option<WalFaultKind> {
    let same_place = state.wanted.iter().flat_map(|wanted| &wanted.asked).map(|asked| asked.name);
    let newer = same_place.filter(|newer| *newer > name && newer.on(name.timeline) == name).max()?;
    let fork = history_of(&config.wal_directory, newer.timeline)?.fork_from(name.timeline)?;
    let end = name.start(config.segment_size)?.checked_add(config.segment_size.bytes())?;
    (fork < end).then_some(WalFaultKind::Superseded { by: newer.timeline, fork })
}

/// Copies a segment to its destination, or says what is wrong with it. An error is of the destination.
fn give(
    path: &Path,
    compression: Compression,
    expected: &ExpectedSegment<'_>,
    destination: &Path,
    now: i64,
) -> Result<Option<WalFaultKind>> {
    let before = FileSeen::of(path);
    let mut copy = Copy::create(destination)?;
    match copy_segment(path, compression, expected, &mut |bytes| copy.file.write_all(bytes)) {
        Err(CopyError::Fault(fault)) => return Ok(Some(fault)),
        Err(CopyError::Sink(e)) => return Err(copy.failed(e)),
        Ok(content) => {
            let after = FileSeen::of(path);
            let changed = before != after;
            let recent = after.is_some_and(|seen| {
                let age = now.saturating_sub(seen.modified_unix_ms);
                u128::from(age.unsigned_abs()) < SETTLE.as_millis()
            });
            if changed || (content.ends_in_zeros && recent && compression == Compression::None) {
                return Ok(Some(WalFaultKind::Settling));
            }
        }
    }
    copy.finish(expected.size.bytes())?;
    Ok(None)
}

fn restore_history(
    config: &RestoreConfig,
    timeline: Timeline,
    destination: &Path,
    state: &mut ChainState,
    now: i64,
) -> Result<RestoreStatus> {
    let file = WalFileName::History(timeline).to_string();
    match read_history(&config.wal_directory, timeline) {
        Ok(Some(history)) => {
            // The text is written anew: what was read is what PostgreSQL gets.
            put(destination, history.to_string().as_bytes())?;
            state.note_history(&file, None, now);
            Ok(RestoreStatus::Restored)
        }
        Ok(None) => {
            state.note_history(&file, None, now);
            Ok(RestoreStatus::NotThere)
        }
        Err(fault) => {
            let wrong = !fault.kind.may_be_in_progress();
            state.note_history(&file, Some(FoundFault::new(&fault.path, &fault.kind)), now);
            Ok(if wrong { RestoreStatus::Wrong } else { RestoreStatus::NotThere })
        }
    }
}

fn restore_other(config: &RestoreConfig, file: &str, destination: &Path) -> Result<RestoreStatus> {
    for (path, compression) in candidates(&config.wal_directory, file) {
        if let Some(Ok(bytes)) = compression.map(|kind| read_small(&path, kind, OTHER_BYTES_MAX)) {
            put(destination, &bytes)?;
            return Ok(RestoreStatus::Restored);
        }
    }
    Ok(RestoreStatus::NotThere)
}
