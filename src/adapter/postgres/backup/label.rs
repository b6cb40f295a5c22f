//! The two text files that make a copy of a cluster a base backup: `backup_label` says from where the WAL is to
//! be replayed, `tablespace_map` where the tablespaces were. Knows text, no files.
//!
//! Formats: PostgreSQL's `src/backend/access/transam/xlogbackup.c` (`build_backup_content`) and
//! `read_backup_label`, `read_tablespace_map` of `xlogrecovery.c` (`xlog.c` before 15).

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::super::lsn::{Lsn, SegmentName, Timeline};
use crate::base::{Error, ErrorKind, Result};

/// Neither file is near this size.
pub(super) const TEXT_BYTES_MAX: u64 = 1 << 20;

/// What `backup_label` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackupLabel {
    /// Replay starts here.
    pub start: Lsn,
    /// The segment that holds it.
    pub start_segment: SegmentName,
    pub checkpoint: Option<Lsn>,
    /// From 11 on it is written; before, it is that of the segment.
    pub timeline: Timeline,
    /// `streamed` by `pg_basebackup` and by the functions; `pg_start_backup` of an exclusive backup.
    pub method: String,
    /// `primary` or `standby`.
    pub from: String,
    /// As the source wrote it, in its log's time zone.
    pub start_time: String,
    pub label: String,
}

impl BackupLabel {
    pub fn parse(text: &str) -> Result<Self> {
        let value = |key: &str| {
            let mut lines = text.lines();
            lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).map(str::trim)
        };
        if value("INCREMENTAL FROM LSN").is_some() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the backup is an incremental one: put it together with its predecessors by pg_combinebackup first",
            ));
        }
        let bad =
            |what: &str| Error::corrupt(format!("backup_label has no {what}: it is damaged or cut off"));
        let place = value("START WAL LOCATION").ok_or_else(|| bad("START WAL LOCATION"))?;
        let parts = place.split_once(" (file ").and_then(|(lsn, file)| {
            Some((lsn.parse().ok()?, file.strip_suffix(')')?.parse::<SegmentName>().ok()?))
        });
        let (start, start_segment) = parts.ok_or_else(|| bad("START WAL LOCATION with an LSN and a file"))?;
        let timeline = match value("START TIMELINE") {
            Some(number) => {
                number.parse().ok().and_then(Timeline::new).ok_or_else(|| bad("START TIMELINE"))?
            }
            None => start_segment.timeline,
        };
        let text_of = |key: &str| value(key).unwrap_or_default().to_owned();
        Ok(Self {
            start,
            start_segment,
            checkpoint: value("CHECKPOINT LOCATION").and_then(|lsn| lsn.parse().ok()),
            timeline,
            method: text_of("BACKUP METHOD"),
            from: text_of("BACKUP FROM"),
            start_time: text_of("START TIME"),
            label: text_of("LABEL"),
        })
    }
}

/// A tablespace of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tablespace {
    pub oid: u32,
    /// Where it was on the source.
    pub location: PathBuf,
}

/// Reads `tablespace_map`: a line for each, its OID and its path, in which a backslash stands before a line's
/// end that is part of the path (and, from 14 on, before a backslash).
pub(super) fn parse_map(text: &[u8]) -> Result<Vec<Tablespace>> {
    let mut lines = vec![Vec::new()];
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => lines.last_mut().into_iter().for_each(|line| line.extend(bytes.next())),
            b'\n' | b'\r' => lines.push(Vec::new()),
            byte => lines.last_mut().into_iter().for_each(|line| line.push(*byte)),
        }
    }
    let mut tablespaces: Vec<Tablespace> = Vec::new();
    for line in lines.into_iter().filter(|line| !line.is_empty()) {
        let split = line.iter().position(|byte| *byte == b' ');
        let oid = split.and_then(|at| parse_oid(&line[..at]));
        let location = split.map(|at| line[at + 1..].to_vec()).filter(|path| !path.is_empty());
        let (Some(oid), Some(location)) = (oid, location) else {
            let shown = String::from_utf8_lossy(&line).into_owned();
            return Err(Error::corrupt(format!(
                "tablespace_map has a line that is no OID and path: {shown:?}"
            )));
        };
        if tablespaces.iter().any(|known| known.oid == oid) {
            return Err(Error::corrupt(format!("tablespace_map names the tablespace {oid} twice")));
        }
        tablespaces.push(Tablespace { oid, location: std::ffi::OsString::from_vec(location).into() });
    }
    Ok(tablespaces)
}

/// Decimal digits alone, and not 0, which is no object's.
pub(super) fn parse_oid(text: &[u8]) -> Option<u32> {
    let digits = text.iter().all(u8::is_ascii_digit) && text.first() != Some(&b'0');
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// The text of a `tablespace_map`. Paths with line ends or backslashes, which the versions write differently,
/// are refused.
pub(super) fn format_map<'a>(entries: impl Iterator<Item = (u32, &'a Path)>) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for (oid, path) in entries {
        let bytes = OsStr::as_bytes(path.as_os_str());
        if bytes.iter().any(|byte| matches!(byte, b'\n' | b'\r' | b'\\' | 0)) {
            return Err(Error::invalid(format!(
                "tablespaces cannot lie below {}: its name has a line end or a backslash",
                path.display()
            )));
        }
        text.extend_from_slice(format!("{oid} ").as_bytes());
        text.extend_from_slice(bytes);
        text.push(b'\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LABEL: &str = "START WAL LOCATION: 0/4000028 (file 000000010000000000000004)\n\
        CHECKPOINT LOCATION: 0/4000060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
        START TIME: 2026-11-21 11:20:00 UTC\nLABEL: pg_basebackup base backup\nSTART TIMELINE: 1\n";

    #[test]
    fn a_label_is_read() {
        let label = BackupLabel::parse(LABEL).unwrap();
        assert_eq!((label.start, label.checkpoint), (Lsn(0x400_0028), Some(Lsn(0x400_0060))));
        assert_eq!(
            (label.timeline, label.method.as_str(), label.from.as_str()),
            (Timeline::FIRST, "streamed", "primary")
        );
        assert_eq!(label.label, "pg_basebackup base backup");
        assert_eq!(label.start_time, "2026-11-21 11:20:00 UTC");
        // As version 10 writes it.
        let old = LABEL.replace("START TIMELINE: 1\n", "").replace("000000010000", "000000030000");
        assert_eq!(BackupLabel::parse(&old).unwrap().timeline, Timeline::new(3).unwrap());
    }

    #[test]
    fn other_labels_are_refused() {
        for (text, word) in [
            (String::new(), "START WAL LOCATION"),
            (LABEL.replace("0/4000028", "here"), "START WAL LOCATION"),
            (LABEL.replace(" (file", ""), "START WAL LOCATION"),
            (LABEL.replace("TIMELINE: 1", "TIMELINE: 0"), "START TIMELINE"),
            (format!("{LABEL}INCREMENTAL FROM LSN: 0/2000028\n"), "pg_combinebackup"),
        ] {
            let error = BackupLabel::parse(&text).unwrap_err();
            assert!(error.message().contains(word), "{error}");
        }
    }

    #[test]
    fn a_map_is_read() {
        let map = parse_map(b"16384 /srv/a b\n16385 /srv/back\\\\slash\\\nand line\n").unwrap();
        let paths: Vec<_> = map.iter().map(|space| (space.oid, space.location.to_str().unwrap())).collect();
        assert_eq!(paths, [(16384, "/srv/a b"), (16385, "/srv/back\\slash\nand line")]);
        assert!(parse_map(b"").unwrap().is_empty());
        for wrong in ["16384", "16384 ", "x /a", "0 /a", "-1 /a", "+1 /a", "99999999999 /a", "1 /a\n1 /b"] {
            assert!(parse_map(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(format_map([(1, Path::new("/a\nb"))].into_iter()).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

        #[test]
        fn a_map_comes_back(paths in proptest::collection::vec("/[a-z /]{0,20}", 0..5)) {
            let entries = paths.iter().zip(1..).map(|(path, oid)| (oid, Path::new(path)));
            let read = parse_map(&format_map(entries.clone()).unwrap()).unwrap();
            let read: Vec<_> = read.iter().map(|space| (space.oid, space.location.as_path())).collect();
            prop_assert_eq!(read, entries.collect::<Vec<_>>());
        }

        #[test]
        fn any_text_is_a_map_or_an_error(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse_map(&text);
            let _ = BackupLabel::parse(&String::from_utf8_lossy(&text));
        }
    }
}
