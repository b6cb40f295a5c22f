//! WAL segments of any bytes, right up to a place and in pieces of any length: judged, and by how they were cut
//! not differently. Timeline histories of any text: what is read says the same when it is written.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use stillpoint::adapter::postgres::history::TimelineHistory;
use stillpoint::adapter::postgres::lsn::{Lsn, SegmentName, SegmentSize, Timeline, WalFileName};
use stillpoint::adapter::postgres::wal::{ExpectedSegment, SegmentCheck, WalFault, WalFaultKind, magic_of};

#[derive(Arbitrary, Debug)]
struct Input {
    log: u32,
    number: u16,
    timeline: u8,
    /// Changes of a right segment: where, and to what.
    changes: Vec<(u32, u8)>,
    length: u32,
    piece: u16,
    name: String,
    history: String,
}

fuzz_target!(|input: Input| {
    history(&input);
    segment(&input);
    if let Some(name) = WalFileName::parse(&input.name) {
        assert_eq!(name.to_string(), input.name);
    }
});

fn history(input: &Input) {
    let timeline = Timeline::new(u32::from(input.timeline).max(1)).unwrap();
    if let Ok(read) = TimelineHistory::parse(timeline, &input.history) {
        assert_eq!(TimelineHistory::parse(timeline, &read.to_string()).unwrap(), read);
        for ancestor in &read.ancestors {
            assert_eq!(read.fork_from(ancestor.timeline), Some(ancestor.end));
            let _ = read.timeline_at(ancestor.end);
        }
    }
}

fn segment(input: &Input) {
    let timeline = Timeline::new(u32::from(input.timeline).max(1)).unwrap();
    let size = SegmentSize::MIN;
    let name = SegmentName { timeline, log: input.log, number: u32::from(input.number) };
    let history = TimelineHistory::parse(timeline, &input.history).ok();
    let expected = ExpectedSegment { name, system_id: 7, major: 15, size, history: history.as_ref() };
    let mut bytes = right(&expected);
    for (at, byte) in &input.changes {
        // Most in the headers.
        let at = if at % 4 == 0 { *at as usize } else { (*at as usize / 64 % 128) * 8192 + *at as usize % 64 };
        let length = bytes.len();
        bytes[at % length] = *byte;
    }
    bytes.resize((input.length as usize % (3 << 19)).max(1), 0);
    let whole = judge(expected, &bytes, bytes.len());
    let pieces = judge(expected, &bytes, usize::from(input.piece) + 16);
    match (&whole, &pieces) {
        // How much is too much depends on where the pieces end.
        (Err(WalFaultKind::TooLong { .. }), Err(WalFaultKind::TooLong { .. })) => {}
        _ => assert_eq!(whole, pieces),
    }
    if let Err(kind) = whole {
        assert!(!WalFault { path: "f".into(), kind }.to_string().is_empty());
    }
}

fn judge(expected: ExpectedSegment<'_>, bytes: &[u8], piece: usize) -> Result<bool, WalFaultKind> {
    let mut check = SegmentCheck::new(expected);
    for piece in bytes.chunks(piece) {
        check.feed(piece)?;
    }
    Ok(check.finish()?.ends_in_zeros)
}

fn right(expected: &ExpectedSegment<'_>) -> Vec<u8> {
    let start = expected.name.start(expected.size).unwrap_or(Lsn::INVALID);
    let mut bytes = vec![1; expected.size.bytes() as usize];
    for (page, at) in bytes.chunks_mut(8192).zip((0_u64..).step_by(8192)) {
        page[..40].fill(0);
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
