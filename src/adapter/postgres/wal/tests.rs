//! Segments made by hand, whole, changed and random.

use std::fs;

use proptest::prelude::*;

use super::*;

pub(in super::super) const SYSTEM_ID: u64 = 7_391_000_000_000_000_001;
pub(in super::super) const SIZE: SegmentSize = SegmentSize::MIN;

pub(in super::super) fn name(text: &str) -> SegmentName {
    text.parse().unwrap()
}

pub(in super::super) fn expected(name: SegmentName) -> ExpectedSegment<'static> {
    ExpectedSegment { name, system_id: SYSTEM_ID, major: 15, size: SIZE, history: None }
}

/// A segment as the server writes it, with pages full of something.
pub(in super::super) fn segment(expected: &ExpectedSegment<'_>) -> Vec<u8> {
    let start = expected.name.start(expected.size).unwrap();
    let mut bytes = vec![0xA5; expected.size.bytes() as usize];
    for (page, at) in bytes.chunks_mut(8192).zip((0_u64..).step_by(8192)) {
        page[..SHORT_HEADER_BYTES].fill(0);
        page[0..2].copy_from_slice(&magic_of(expected.major).unwrap().to_le_bytes());
        page[4..8].copy_from_slice(&expected.name.timeline.get().to_le_bytes());
        page[8..16].copy_from_slice(&(start.0 + at).to_le_bytes());
    }
    bytes[2] = 2;
    bytes[24..32].copy_from_slice(&expected.system_id.to_le_bytes());
    bytes[32..36].copy_from_slice(&(expected.size.bytes() as u32).to_le_bytes());
    bytes[36..40].copy_from_slice(&8192_u32.to_le_bytes());
    bytes
}

fn check(expected: ExpectedSegment<'_>, bytes: &[u8], piece: usize) -> Result<SegmentContent, WalFaultKind> {
    let mut check = SegmentCheck::new(expected);
    for piece in bytes.chunks(piece) {
        check.feed(piece)?;
    }
    check.finish()
}

fn fault(change: impl FnOnce(&mut Vec<u8>)) -> WalFaultKind {
    let expected = expected(name("000000020000000100000003"));
    let mut bytes = segment(&expected);
    change(&mut bytes);
    let fault = check(expected, &bytes, 4096).unwrap_err();
    assert_eq!(check(expected, &bytes, 7).unwrap_err().code(), fault.code());
    fault
}

#[test]
fn a_segment_of_each_version_is_right() {
    for major in 10..=18 {
        let expected = ExpectedSegment { major, ..expected(name("000000020000000100000003")) };
        let bytes = segment(&expected);
        for piece in [1, 23, 8192, 1 << 20] {
            assert_eq!(check(expected, &bytes, piece), Ok(SegmentContent { ends_in_zeros: false }));
        }
        assert_eq!(major_of(magic_of(major).unwrap()), Some(major));
    }
    assert_eq!(magic_of(9), None);
    assert_eq!(major_of(0), None);
}

#[test]
fn a_switched_segment_ends_in_zeros() {
    let expected = expected(name("000000010000000000000001"));
    let mut bytes = segment(&expected);
    bytes[3 * 8192..].fill(0);
    assert_eq!(check(expected, &bytes, 1000), Ok(SegmentContent { ends_in_zeros: true }));
}

#[test]
fn each_fault_is_found_and_said() {
    let set = |at: usize, value: &[u8]| {
        let value = value.to_vec();
        move |bytes: &mut Vec<u8>| bytes[at..at + value.len()].copy_from_slice(&value)
    };
    let start = Lsn(0x1_0030_0000);
    let cases = [
        (
            fault(|bytes| bytes.truncate(1000)),
            WalFaultKind::TooShort { found: 1000, expected: 1 << 20 },
            "1000 bytes",
        ),
        (fault(Vec::clear), WalFaultKind::TooShort { found: 0, expected: 1 << 20 }, "0 bytes"),
        (fault(set(0, &[0x0D, 0xD1])), WalFaultKind::BadMagic { found: 0xD10D, major: 15 }, "PostgreSQL 14"),
        (fault(set(0, &[0xD1, 0x10])), WalFaultKind::BadMagic { found: 0x10D1, major: 15 }, "byte order"),
        (fault(set(0, &[0x1F, 0x8B])), WalFaultKind::BadMagic { found: 0x8B1F, major: 15 }, ".gz"),
        (fault(set(0, b"ab")), WalFaultKind::BadMagic { found: 0x6261, major: 15 }, "no WAL file"),
        (fault(set(2, &[0])), WalFaultKind::NoSegmentStart, "first page"),
        (
            fault(set(24, &[1, 0, 0, 0, 0, 0, 0, 0])),
            WalFaultKind::ForeignSystem { found: 1, expected: SYSTEM_ID },
            "another cluster",
        ),
        (
            fault(set(32, &(16_u32 << 20).to_le_bytes())),
            WalFaultKind::WrongSegmentSize { found: 16 << 20, expected: SIZE },
            "1 MiB",
        ),
        (fault(set(36, &[0, 0, 0, 0])), WalFaultKind::BadBlockSize { found: 0 }, "page size"),
        (
            fault(set(10, &[0x20])),
            WalFaultKind::WrongSegment { found: Lsn(0x1_0020_0000), expected: start },
            "1/300000",
        ),
        (
            fault(set(4, &[3])),
            WalFaultKind::WrongTimeline { offset: 0, found: 3, expected: Timeline::new(2).unwrap() },
            "timeline 3",
        ),
        (
            fault(set(8192 + 4, &[1])),
            WalFaultKind::WrongTimeline { offset: 8192, found: 1, expected: Timeline::new(2).unwrap() },
            "timeline 1",
        ),
        (fault(set(0, &[0; 8192])), WalFaultKind::Hole { offset: 0 }, "offset 0"),
        (fault(set(16384, &[0; 8192])), WalFaultKind::Hole { offset: 16384 }, "offset 16384"),
        (fault(set(8192, b"ab")), WalFaultKind::BadPage { offset: 8192, found: 0x6261 }, "6261"),
        (
            fault(set(8192 + 12, &[0])),
            WalFaultKind::WrongPage { offset: 8192, found: Lsn(0x30_2000), expected: Lsn(0x1_0030_2000) },
            "0/302000",
        ),
    ];
    for (found, expected, word) in cases {
        assert_eq!(found, expected);
        let sentence = WalFault { path: "/wal/F".into(), kind: found }.to_string();
        assert!(sentence.contains(word) && sentence.contains("/wal/F"), "{sentence}");
    }
    assert_eq!(fault(|bytes| bytes.push(0)).code(), "too_long");
}

#[test]
fn a_name_that_the_size_does_not_have_is_a_fault() {
    let expected = ExpectedSegment { size: SegmentSize::MAX, ..expected(name("000000010000000000000004")) };
    let mut bytes = segment(&super::tests::expected(name("000000010000000000000004")));
    bytes[32..36].copy_from_slice(&(1_u32 << 30).to_le_bytes());
    assert_eq!(check(expected, &bytes, 4096).unwrap_err().code(), "no_such_name");
}

#[test]
fn pages_of_an_ancestor_count_up_to_the_fork() {
    let name = name("000000020000000100000003");
    let mut bytes = segment(&expected(name));
    for page in 0..4 {
        bytes[page * 8192 + 4] = 1;
    }
    assert!(check(expected(name), &bytes, 4096).is_ok());
    let history =
        |fork: u64| TimelineHistory::parse(name.timeline, &format!("1\t{}\tx\n", Lsn(fork))).unwrap();
    let with = |fork: u64| {
        check(ExpectedSegment { history: Some(&history(fork)), ..expected(name) }, &bytes, 4096)
            .map_err(|e| e.code())
    };
    let start = 0x1_0030_0000_u64;
    assert!(with(start + 4 * 8192).is_ok());
    assert!(with(start + 3 * 8192 + 100).is_ok());
    assert_eq!(with(start + 3 * 8192), Err("wrong_timeline"));
    assert_eq!(with(start), Err("wrong_timeline"));
}

#[test]
fn files_are_read_as_their_endings_say() {
    use crate::adapter::postgres::compression::tests::encode;

    let folder = tempfile::tempdir().unwrap();
    let expected = expected(name("000000010000000000000001"));
    let bytes = segment(&expected);
    for compression in Compression::ALL {
        let path = folder.path().join(format!("f{}", compression.ending()));
        let encoded = encode(compression, &bytes);
        fs::write(&path, &encoded).unwrap();
        assert_eq!(check_segment(&path, &expected), Ok(SegmentContent { ends_in_zeros: false }));
        fs::write(&path, &encoded[..encoded.len() / 2]).unwrap();
        let fault = check_segment(&path, &expected).unwrap_err();
        assert!(fault.kind.may_be_in_progress(), "{fault}");
        let longer = encode(compression, &[&bytes[..], b"more"].concat());
        fs::write(&path, longer).unwrap();
        assert_eq!(check_segment(&path, &expected).unwrap_err().kind.code(), "too_long");
    }
    assert_eq!(check_segment(folder.path(), &expected).unwrap_err().kind, WalFaultKind::NotAFile);
    let missing = check_segment(&folder.path().join("none"), &expected).unwrap_err();
    assert_eq!(missing.kind, WalFaultKind::Missing);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn any_bytes_are_judged(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        right in 0_usize..40,
        piece in 1_usize..50,
    ) {
        // Right up to a place, so that each field is reached.
        let expected = expected(name("000000020000000100000003"));
        let whole = segment(&expected);
        let right = right.min(bytes.len());
        bytes[..right].copy_from_slice(&whole[..right]);
        prop_assert!(check(expected, &bytes, piece).is_err());
        let _ = SegmentHeader::decode(&bytes);
    }

    #[test]
    fn a_changed_header_is_found(page in 0_usize..128, at in 0_usize..SHORT_HEADER_BYTES, bit in 0_u8..8) {
        let expected = expected(name("000000020000000100000003"));
        let mut bytes = segment(&expected);
        bytes[page * 8192 + at] ^= 1 << bit;
        let found = check(expected, &bytes, 8192);
        // Flags, save the one of the long header, and the length of a record's rest are free.
        let free = matches!(at, 2 | 3 | 16..) && !(page == 0 && at == 2 && bit == 1);
        prop_assert_eq!(found.is_ok(), free, "{:?}", found);
    }
}
