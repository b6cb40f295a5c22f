//! Finding files of an archive of WAL by their names, compressed or not, and reading the small ones.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::super::compression::Compression;
use super::super::history::{HISTORY_BYTES_MAX, HistoryFault, TimelineHistory};
use super::super::lsn::{Timeline, WalFileName};
use super::super::wal::{WalFault, WalFaultKind, open};

/// The files of this name that are there, in the order in which they are tried; without a compression when it
/// is one that cannot be read.
pub(super) fn candidates(folder: &Path, name: &str) -> Vec<(PathBuf, Option<Compression>)> {
    let known = Compression::ALL.iter().map(|kind| (kind.ending(), Some(*kind)));
    let unknown = Compression::UNSUPPORTED.iter().map(|ending| (*ending, None));
    let paths = known.chain(unknown).map(|(ending, kind)| (folder.join(format!("{name}{ending}")), kind));
    // A file in a folder that may not be entered is one that cannot be read, not one that is absent.
    let there =
        |path: &Path| path.symlink_metadata().err().is_none_or(|e| e.kind() != io::ErrorKind::NotFound);
    let mut there: Vec<_> = paths.filter(|(path, _)| there(path)).collect();
    if there.len() == Compression::ALL.len() + Compression::UNSUPPORTED.len() {
        there.truncate(1);
    }
    there
}

pub(super) fn unsupported(path: &Path) -> WalFaultKind {
    let ending = path.extension().unwrap_or_default().to_string_lossy();
    WalFaultKind::UnsupportedCompression { ending: format!(".{ending}") }
}

pub(super) fn history_of(folder: &Path, timeline: Timeline) -> Option<TimelineHistory> {
    (timeline > Timeline::FIRST).then(|| read_history(folder, timeline).ok().flatten()).flatten()
}

/// The history of a timeline; `None` when no file of it is there.
pub(super) fn read_history(
    folder: &Path,
    timeline: Timeline,
) -> std::result::Result<Option<TimelineHistory>, WalFault> {
    let mut first = None;
    for (path, compression) in candidates(folder, &WalFileName::History(timeline).to_string()) {
        let read = match compression {
            Some(compression) => read_small(&path, compression, HISTORY_BYTES_MAX),
            None => Err(unsupported(&path)),
        };
        let parsed = read.and_then(|bytes| {
            let text = String::from_utf8_lossy(&bytes);
            TimelineHistory::parse(timeline, &text).map_err(|e| WalFaultKind::BadHistory {
                incomplete: e.fault == HistoryFault::Incomplete,
                message: e.to_string(),
            })
        });
        match parsed {
            Ok(history) => return Ok(Some(history)),
            Err(kind) => first = first.or(Some(WalFault { path, kind })),
        }
    }
    first.map_or(Ok(None), Err)
}

pub(super) fn read_small(
    path: &Path,
    compression: Compression,
    bytes_max: u64,
) -> std::result::Result<Vec<u8>, WalFaultKind> {
    let fail = |e: io::Error| WalFaultKind::unreadable(&e);
    let mut bytes = Vec::new();
    let source = compression.decode(open(path)?).map_err(fail)?;
    source.take(bytes_max + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > bytes_max {
        return Err(WalFaultKind::TooLong { found: bytes.len() as u64, expected: bytes_max });
    }
    Ok(bytes)
}
