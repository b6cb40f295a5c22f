//! What the restore command remembers from one call to the next, and tells the engine: a small JSON file
//! outside the data directory, replaced by renaming.
//!
//! A lost or damaged state costs knowledge of how long something has been missing and nothing else, so it is
//! then begun anew. Whoever gives a staging database another base (link, resync, roll back) removes the file.
//! Times are milliseconds of the host's clock since 1970.

use std::fs;
use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::super::lsn::{SegmentName, Timeline};
use super::super::wal::WalFaultKind;
use super::chain::REPEATS_MIN;
use crate::base::{Error, Result};

/// Names of one place of the WAL that are remembered, one for each timeline that PostgreSQL tried.
const ASKED_MAX: usize = 16;
/// A state file is a few hundred bytes.
const STATE_BYTES_MAX: u64 = 1 << 20;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChainState {
    /// What PostgreSQL needs and was not given; `None` when it was given all it asked for.
    pub wanted: Option<Wanted>,
    /// The furthest segment that it was given.
    pub delivered: Option<Delivered>,
    /// The last segment that it asked for, given or not.
    pub expected: Option<SegmentName>,
    /// A history file that is there and was not given, as it is not right.
    pub history_fault: Option<HistoryAsked>,
    /// The oldest segment that a restart of PostgreSQL may ask for again (`%r`).
    pub redo: Option<SegmentName>,
    pub checked_at_unix_ms: i64,
    /// `fine`, `waiting` or `broken` at that time, as `analyse` has it.
    pub verdict: String,
    /// The sentence for it, when not fine.
    pub sentence: Option<String>,
    /// What failed on our side, as a full disk; `None` when nothing did.
    pub trouble: Option<String>,
}

/// A place in the WAL that PostgreSQL waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The names under which it asked, the last asked last; never empty.
    pub asked: Vec<Asked>,
    pub since_unix_ms: i64,
    /// Since when later files are there although this one is not.
    pub later_since_unix_ms: Option<i64>,
    pub later: Option<LaterFiles>,
}

/// One name of the wanted place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    pub name: SegmentName,
    /// `None` when no file of this name was there.
    pub fault: Option<FoundFault>,
    /// The files of this name, plain and compressed, as they were.
    pub seen: Vec<FileSeen>,
    /// Since when they have been so.
    pub since_unix_ms: i64,
}

impl Asked {
    /// What keeps it from being given, unless that passes with time alone.
    pub(super) fn lasting_fault(&self) -> Option<&FoundFault> {
        self.fault.as_ref().filter(|fault| fault.code != WalFaultKind::SETTLING)
    }

    /// Of no use whether it is there or not.
    pub(super) fn is_superseded(&self) -> bool {
        self.fault.as_ref().is_some_and(|fault| fault.code == WalFaultKind::SUPERSEDED)
    }
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundFault {
    pub code: String,
    /// With the file's path.
    pub sentence: String,
    /// It may become right by itself.
    pub in_progress: bool,
}

impl FoundFault {
    pub(super) fn new(path: &Path, kind: &WalFaultKind) -> Self {
        Self {
            code: kind.code().to_owned(),
            sentence: format!("the WAL file {} {kind}", path.display()),
            in_progress: kind.may_be_in_progress(),
        }
    }
}

/// By which a file is known to be the same as before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSeen {
    /// Without its folder.
    pub file: String,
    pub bytes: u64,
    pub modified_unix_ms: i64,
    /// Changes with the owner and the mode too.
    pub changed_unix_ms: i64,
}

impl FileSeen {
    /// `None` when there is no such file.
    pub(super) fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;

        let metadata = path.metadata().ok()?;
        let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(Self {
            file: path.file_name()?.to_str()?.to_owned(),
            bytes: metadata.len(),
            modified_unix_ms: i64::try_from(modified.as_millis()).unwrap_or(i64::MAX),
            changed_unix_ms: metadata.ctime().saturating_mul(1000) + metadata.ctime_nsec() / 1_000_000,
        })
    }
}

/// Files that come after the wanted one, and so show that it is missing rather than late.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaterFiles {
    pub segments: u64,
    pub first: Option<SegmentName>,
    pub last: Option<SegmentName>,
    /// The newest timeline that came from the wanted file's, by its history file.
    pub child: Option<Timeline>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    pub name: SegmentName,
    /// The file that it was, which is another when it was replaced.
    pub file: FileSeen,
    pub at_unix_ms: i64,
    /// How often, and since when, with nothing further asked for: PostgreSQL asks again for what it cannot
    /// replay.
    pub times: u32,
    pub first_at_unix_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryAsked {
    pub file: String,
    pub fault: FoundFault,
    pub since_unix_ms: i64,
}

impl ChainState {
    /// Whether the folder has to be looked at for a verdict: not while PostgreSQL gets one file after the
    /// other.
    pub(super) fn needs_listing(&self) -> bool {
        let repeated = self.delivered.as_ref().is_some_and(|last| last.times >= REPEATS_MIN);
        self.wanted.is_some() || self.history_fault.is_some() || repeated
    }

    pub(super) fn note_delivered(&mut self, name: SegmentName, file: FileSeen, now: i64) {
        // A restart goes back and asks for earlier ones again: what is missing further on is so still.
        self.wanted.take_if(|wanted| wanted.asked.iter().all(|asked| !asked.name.is_beyond(name)));
        self.expected = Some(name);
        let (times, first) = match &self.delivered {
            Some(last) if last.name == name && last.file == file => {
                (last.times.saturating_add(1), last.first_at_unix_ms)
            }
            // On the way back to the furthest; a record there may begin in the segment before.
            Some(last) if last.name.is_beyond(name) => return,
            _ => (1, now),
        };
        self.delivered = Some(Delivered { name, file, at_unix_ms: now, times, first_at_unix_ms: first });
    }

    /// `fault` is what was wrong with a file of this name, `None` when there was none; `seen` are all of this
    /// name.
    pub(super) fn note_missing(
        &mut self,
        name: SegmentName,
        fault: Option<FoundFault>,
        seen: Vec<FileSeen>,
        now: i64,
    ) {
        self.expected = Some(name);
        if let Some(delivered) = &mut self.delivered
            && name.is_beyond(delivered.name)
        {
            // It got past the last one.
            (delivered.times, delivered.first_at_unix_ms) = (1, now);
        }
        let same_place =
            |wanted: &mut Wanted| wanted.asked.iter().all(|asked| asked.name.on(name.timeline) == name);
        let mut wanted = self.wanted.take_if(same_place).unwrap_or(Wanted {
            asked: Vec::new(),
            since_unix_ms: now,
            later_since_unix_ms: None,
            later: None,
        });
        let before = wanted.asked.iter().position(|asked| asked.name == name);
        let before = before.map(|at| wanted.asked.remove(at));
        let since = match before {
            Some(before) if before.seen == seen && before.fault == fault => before.since_unix_ms,
            _ => now,
        };
        wanted.asked.push(Asked { name, fault, seen, since_unix_ms: since });
        let surplus = wanted.asked.len().saturating_sub(ASKED_MAX);
        wanted.asked.drain(..surplus);
        self.wanted = Some(wanted);
    }

    pub(super) fn note_later(&mut self, later: Option<LaterFiles>, now: i64) {
        if let Some(wanted) = &mut self.wanted {
            wanted.later_since_unix_ms = later.as_ref().map(|_| wanted.later_since_unix_ms.unwrap_or(now));
            wanted.later = later;
        }
    }

    pub(super) fn note_history(&mut self, file: &str, fault: Option<FoundFault>, now: i64) {
        let same = self.history_fault.take_if(|known| known.file == file);
        if let Some(fault) = fault {
            let since = same.filter(|known| known.fault == fault).map_or(now, |known| known.since_unix_ms);
            self.history_fault = Some(HistoryAsked { file: file.to_owned(), fault, since_unix_ms: since });
        }
    }

    /// The state in this file; one that is not there or is damaged is begun anew.
    ///
    /// Fails only when the file is there and cannot be read.
    pub fn load(path: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        match path.metadata() {
            Ok(metadata) if metadata.len() > STATE_BYTES_MAX => return Ok(Self::default()),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(Error::io("read", &shown, e)),
        }
        let bytes = fs::read(path).map_err(|e| Error::io("read", &shown, e))?;
        Ok(serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// Replaces the file. Readers see the old or the new one, never a part; it is not forced to disk.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let new = path.with_file_name(name);
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|e| Error::invalid(format!("cannot write {}: {e}", path.display())))?;
        fs::write(&new, bytes).map_err(|e| Error::io("write", &new.display().to_string(), e))?;
        fs::rename(&new, path).map_err(|e| Error::io("replace", &path.display().to_string(), e))
    }
}
