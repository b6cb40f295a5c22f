//! The WAL that is kept for points in time: every finished segment, copied by the server itself to a volume of its own.
//!
//! A server archives what it has received (`archive_mode = always`), so nothing more is asked of the source, and a
//! segment is removed from the cluster only after it was kept. What is in the last, unfinished segment is read from
//! the cluster.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::files::{Readers, make_folder, prepare, write_state};
use super::lsn::{Lsn, SegmentName, SegmentSize, Timeline, WalFileName};
use super::server::Server;
use crate::base::{Error, Result};

/// Where the segments are in the volume for logs.
const FOLDER: &str = "wal";
const SCRIPT: &str = include_str!("archive.sh");
const SCRIPT_FILE: &str = "archive.sh";

/// The files of one folder of WAL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct WalFiles {
    pub segments: BTreeSet<SegmentName>,
    pub histories: BTreeSet<Timeline>,
}

/// Places between which WAL is missing: the first missing segment and the one before which there is some again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub from: Lsn,
    pub to: Lsn,
}

/// Where a server's finished segments go, when they are kept.
pub(super) fn folder(server: &Server<'_>) -> Option<PathBuf> {
    server.instance.logs.as_ref().map(|logs| logs.join(FOLDER))
}

/// Makes the folder, and returns the setting that fills it. `None` when no logs are kept.
pub(super) fn archive_command(server: &Server<'_>) -> Result<Option<String>> {
    // A primary that writes the least cannot archive.
    let minimal = server.config.settings.get("wal_level").is_some_and(|level| level == "minimal");
    let Some(folder) = folder(server).filter(|_| !minimal) else { return Ok(None) };
    let user = &server.programs.user;
    make_folder(&folder, user, Readers::User)?;
    let script = server.state_file(SCRIPT_FILE);
    write_state(&script, SCRIPT, user, Readers::Group)?;
    Ok(Some(format!("/bin/sh {} {} %p %f", shell_quoted(&script), shell_quoted(&folder))))
}

/// A path as a word for a shell, in a setting where `%` has a meaning.
pub(super) fn shell_quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''").replace('%', "%%"))
}

/// The WAL files in a folder; none when it is not there.
pub(super) fn list(folder: &Path) -> Result<WalFiles> {
    let shown = folder.display().to_string();
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(WalFiles::default()),
        entries => entries.map_err(|e| Error::io("read", &shown, e))?,
    };
    let mut found = WalFiles::default();
    for entry in entries {
        let name = entry.map_err(|e| Error::io("read", &shown, e))?.file_name();
        match name.to_str().and_then(WalFileName::parse) {
            Some(WalFileName::Segment(segment)) => drop(found.segments.insert(segment)),
            Some(WalFileName::History(timeline)) => drop(found.histories.insert(timeline)),
            _ => {}
        }
    }
    Ok(found)
}

/// All WAL there is of a server's timeflow: what was kept, and what its cluster has.
pub(super) fn all(server: &Server<'_>) -> Result<WalFiles> {
    let mut found = list(&server.data().join("pg_wal"))?;
    if let Some(folder) = folder(server) {
        let kept = list(&folder)?;
        found.segments.extend(kept.segments);
        found.histories.extend(kept.histories);
    }
    Ok(found)
}

impl WalFiles {
    /// The places from `from` on at which segments are missing. Whatever the timeline, a place needs one segment.
    pub(super) fn gaps(&self, from: Lsn, size: SegmentSize) -> Vec<Gap> {
        let starts: BTreeSet<Lsn> = self.segments.iter().filter_map(|segment| segment.start(size)).collect();
        let mut expected = Lsn(from.0 - from.0 % size.bytes());
        let mut gaps = Vec::new();
        for start in starts.range(expected..) {
            if *start > expected {
                gaps.push(Gap { from: expected, to: *start });
            }
            expected = Lsn(start.0.saturating_add(size.bytes()));
        }
        gaps
    }

    /// The segments that a recovery from `needed` on does not read.
    fn ending_before(&self, needed: Lsn, size: SegmentSize) -> Vec<SegmentName> {
        let old = |segment: &&SegmentName| segment.end(size).is_some_and(|end| end <= needed);
        self.segments.iter().filter(old).copied().collect()
    }

    /// Where the last segment ends, `None` when there is none.
    pub(super) fn end(&self, size: SegmentSize) -> Option<Lsn> {
        self.segments.iter().filter_map(|segment| segment.end(size)).max()
    }
}

/// Removes kept segments that end before `needed`; returns how many.
pub(super) fn prune(server: &Server<'_>, needed: Lsn, size: SegmentSize) -> Result<usize> {
    let Some(folder) = folder(server) else { return Ok(0) };
    let old = list(&folder)?.ending_before(needed, size);
    if !old.is_empty() {
        let input: String = old.iter().map(|name| format!("{name}\n")).collect();
        prepare(server, "forget", &[&folder.display().to_string()], &input)?;
    }
    Ok(old.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> WalFiles {
        WalFiles {
            segments: names.iter().map(|name| name.parse().unwrap()).collect(),
            histories: BTreeSet::new(),
        }
    }

    #[test]
    fn gaps_are_places_and_not_names() {
        let size = SegmentSize::DEFAULT;
        let wal = files(&[
            "000000010000000000000003",
            "000000010000000000000004",
            "000000020000000000000004",
            "000000020000000000000005",
            "000000020000000000000008",
        ]);
        let lsn = |text: &str| text.parse::<Lsn>().unwrap();
        assert_eq!(wal.gaps(lsn("0/3000028"), size), [Gap { from: lsn("0/6000000"), to: lsn("0/8000000") }]);
        assert_eq!(wal.gaps(lsn("0/8000028"), size), []);
        assert_eq!(
            wal.gaps(lsn("0/1000000"), size).first(),
            Some(&Gap { from: lsn("0/1000000"), to: lsn("0/3000000") })
        );
        assert_eq!(wal.end(size), Some(lsn("0/9000000")));
        assert_eq!(WalFiles::default().end(size), None);
        let old = |needed: &str| wal.ending_before(lsn(needed), size).len();
        assert_eq!((old("0/4FFFFFF"), old("0/5000000"), old("0/5000028")), (1, 3, 3));
    }
}
