//! The reader against written files, cut ones, damaged ones and arbitrary bytes.

use std::io::Cursor;

use proptest::prelude::*;

use super::writer::{SetSpec, guid, write};
use super::*;
use crate::adapter::sqlserver::lsn::Lsn;
use crate::adapter::sqlserver::page::PAGE_BYTES;
use crate::base::ErrorKind;

fn read_bytes(bytes: &[u8]) -> std::result::Result<BackupFile, TapeError> {
    read(Cursor::new(bytes))
}

fn three_sets() -> Vec<SetSpec> {
    let full = SetSpec::default();
    let base = Some((full.first, full.id));
    let differential = SetSpec {
        letter: b'I',
        id: 2,
        first: Lsn::new(10, 20, 1),
        last: Lsn::new(10, 30, 1),
        base,
        ..full.clone()
    };
    let log = SetSpec {
        letter: b'L',
        id: 3,
        flags: 0x201,
        extents: vec![],
        first: Lsn::new(10, 5, 1),
        last: Lsn::new(10, 40, 1),
        earlier: Some((Lsn::new(10, 8, 1), 9)),
        ..full.clone()
    };
    vec![SetSpec { copy_only: true, ..full }, differential, log]
}

#[test]
fn what_was_written_is_read() {
    let file = read_bytes(&write(&three_sets())).unwrap().check("x.bak").unwrap();
    assert_eq!(file.media.software, "Microsoft SQL Server");
    assert_eq!(
        (file.media.families, file.media.family, file.media.set_id),
        (Some(1), Some(1), Some(guid(0x66)))
    );
    let [full, differential, log] = &file.sets[..] else { panic!("{:?}", file.sets) };
    assert_eq!((full.kind, full.copy_only, full.position, full.complete), (SetKind::Full, true, 1, true));
    assert_eq!(
        (full.database.as_str(), full.server.as_str(), full.software),
        ("sales", "HOST\\SQL", (13, 0, 5081))
    );
    assert_eq!(full.finished_ms(), Some(1_709_212_455_000 - 3_600_000));
    assert_eq!(full.first_fork(), Some(guid(7)));
    assert_eq!(differential.kind, SetKind::Differential);
    assert_eq!((differential.differential_base_id, differential.position), (Some(guid(1)), 2));
    assert_eq!((log.kind, log.flags.bulk_logged(), log.first_fork()), (SetKind::Log, true, Some(guid(9))));
    assert_eq!((log.last_fork, log.data.log_bytes), (Some(guid(7)), 1024));
    let names: Vec<_> =
        full.files.iter().map(|file| (file.logical_name.as_str(), file.kind, file.file_id)).collect();
    assert_eq!(names, [("sales", FileKind::Data, 1), ("sales_log", FileKind::Log, 2)]);
    assert_eq!(full.files[0].physical_name, "D:\\data\\sales.mdf");
}

#[test]
fn pages_are_where_it_says() {
    let bytes = write(&three_sets());
    let file = read_bytes(&bytes).unwrap();
    let data = &file.sets[0].data;
    assert_eq!((data.data_pages, data.unplaced_bytes, data.runs.len()), (24, 0, 2));
    let mut places = Vec::new();
    for run in &data.runs {
        assert_eq!(run.at % 512, 0);
        let from = run.at as usize;
        for extent in bytes[from..from + run.pages as usize * PAGE_BYTES].chunks(EXTENT_BYTES) {
            places.push(place_extent(extent).unwrap().first_page);
        }
    }
    assert_eq!(places, [0, 8, 24]);
    assert_eq!(place_extent(&[0; EXTENT_BYTES]), None);
}

#[test]
fn each_kind_of_bad_file_has_its_own_error() {
    let good = write(&[SetSpec::default()]);
    let encrypted = write(&[SetSpec { encrypted: true, ..SetSpec::default() }]);
    let fault = |bytes: &[u8]| match read_bytes(bytes) {
        Ok(file) => file.problem.map(|problem| problem.fault),
        Err(error) => Some(error.fault),
    };
    assert_eq!(fault(b"MSSQLBAK\x01\0\0\0"), Some(Fault::Compressed));
    assert_eq!(fault(&encrypted), Some(Fault::Encrypted));
    assert_eq!(fault(b"PK\x03\x04 an archive"), Some(Fault::Foreign));
    assert_eq!(fault(b""), Some(Fault::Truncated));
    assert_eq!(fault(&good[..good.len() / 2]), Some(Fault::Truncated));
    let mut other = good.clone();
    other[94] = b'N';
    assert_eq!(fault(&other), Some(Fault::Foreign));
    let mut damaged = good.clone();
    damaged[0x605] ^= 1;
    assert_eq!(fault(&damaged), Some(Fault::Damaged));
    assert_eq!(fault(&good), None);
    let error = read_bytes(&encrypted).unwrap().check("x.bak").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().starts_with("backup file x.bak: encrypted backup"), "{error}");
    assert!(error.hint().unwrap().contains("RESTORE HEADERONLY"));
}

#[test]
fn a_cut_file_keeps_its_complete_sets_and_is_never_whole() {
    let bytes = write(&three_sets());
    let whole = read_bytes(&bytes).unwrap().sets;
    for length in (0..bytes.len()).step_by(509) {
        let Ok(file) = read_bytes(&bytes[..length]) else { continue };
        let complete = file.sets.iter().filter(|set| set.complete).count();
        assert_eq!(file.sets[..complete], whole[..complete], "cut at {length}");
        if complete == 0 {
            assert_eq!(file.problem.map(|problem| problem.fault), Some(Fault::Truncated), "cut at {length}");
        }
    }
}

#[test]
fn a_larger_block_size_leaves_room_behind_a_filemark() {
    let mut bytes = write(&[SetSpec::default()]);
    bytes.splice(0x600..0x600, vec![0; 4096 - 512]);
    assert!(read_bytes(&bytes).unwrap().problem.is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..4096), head in 0..3) {
        let head: &[u8] = [b"TAPE".as_slice(), b"MSSQLBAK", b""][head as usize];
        let bytes = [head, &bytes].concat();
        let _ = read_bytes(&bytes);
    }

    /// Damage with the checksums put right again, as an enemy would.
    #[test]
    fn forged_fields_are_read_or_refused(at in any::<prop::sample::Index>(), value: u64, width in 1..=8usize, fix: bool) {
        let mut bytes = write(&three_sets());
        let at = at.index(bytes.len() - 8);
        bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        if fix {
            put_checksums_right(&mut bytes);
        }
        if let Ok(file) = read_bytes(&bytes) {
            let held: u64 = file.sets.iter().map(|set| set.data.data_pages).sum();
            prop_assert!(held * PAGE_BYTES as u64 <= file.length);
            for run in file.sets.iter().flat_map(|set| &set.data.runs) {
                prop_assert!(run.at + run.pages * PAGE_BYTES as u64 <= file.length);
            }
        }
    }
}

/// Computes again the checksums of all places that look like a block or a stream.
fn put_checksums_right(bytes: &mut [u8]) {
    for at in (0..bytes.len().saturating_sub(52)).step_by(4) {
        let kind = &bytes[at..at + 4];
        let (place, words) = if block::is_block_type(kind) {
            (50, 50)
        } else if [b"SPAD", b"APAD", b"MQDA", b"MQTL", b"MQCI", b"RAID"]
            .iter()
            .any(|known| known.as_slice() == kind)
        {
            (20, 20)
        } else {
            continue;
        };
        let sum = block::checksum(&bytes[at..at + words]);
        bytes[at + place..at + place + 2].copy_from_slice(&sum.to_le_bytes());
    }
}
