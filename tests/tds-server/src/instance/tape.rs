//! The frame of an uncompressed backup file: Microsoft Tape Format with SQL Server's blocks and streams in it.
//!
//! The headers hold what the real ones were measured to hold, so that a reader of real files reads these, too. What this double
//! itself needs lies in streams of its own in between; where a real file has pages and log, this has rows.

use super::media::{MediaHead, SetHead, SetKind};
use super::value::{Guid, Lsn, civil_of};

const ALIGN: usize = 512;
const BLOCK_HEADER: usize = 52;
const STREAM_HEADER: usize = 22;
/// This double's own streams: a media header, the headers of a set, and its rows.
const MEDIA: &[u8; 4] = b"SPMD";
const HEADS: &[u8; 4] = b"SPHD";
const ROWS: &[u8; 4] = b"MQTL";

/// What lies in the streams of a file.
pub(super) struct Found<'a> {
    pub media: &'a [u8],
    pub sets: Vec<FoundSet<'a>>,
}

/// The headers of a set, and its rows where they are whole.
pub(super) struct FoundSet<'a> {
    pub heads: &'a [u8],
    pub rows: Option<&'a [u8]>,
}

struct Tape(Vec<u8>);

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    words.fold(0, |sum, word| sum ^ word).to_le_bytes()
}

impl Tape {
    fn block(&mut self, kind: &[u8; 4], attributes: u32, body: &[u8]) {
        let mut block = vec![0; BLOCK_HEADER];
        block[..4].copy_from_slice(kind);
        block[4..8].copy_from_slice(&attributes.to_le_bytes());
        let first = (BLOCK_HEADER + body.len()).next_multiple_of(4);
        block[8..10].copy_from_slice(&u16::try_from(first).unwrap_or(0).to_le_bytes());
        block[10..12].copy_from_slice(&[14, 1]);
        block[48] = 2;
        let sum = checksum(&block[..50]);
        block[50..52].copy_from_slice(&sum);
        block.extend_from_slice(body);
        block.resize(first, 0);
        self.0.extend_from_slice(&block);
    }

    fn stream(&mut self, kind: &[u8; 4], data: &[u8]) {
        let mut header = vec![0; STREAM_HEADER - 2];
        header[..4].copy_from_slice(kind);
        header[8..16].copy_from_slice(&(data.len() as u64).to_le_bytes());
        let sum = checksum(&header);
        header.extend_from_slice(&sum);
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// Fills up to the next block.
    fn end(&mut self) {
        let fill = (ALIGN - (self.0.len() + STREAM_HEADER) % ALIGN) % ALIGN;
        self.stream(b"SPAD", &vec![0; fill]);
        self.0.resize(self.0.len().next_multiple_of(ALIGN), 0);
    }

    fn filemark(&mut self) {
        self.block(b"SFMB", 0x8000_0000, &[0; ALIGN - BLOCK_HEADER]);
    }
}

/// A record whose texts stand at its end.
struct Record(Vec<u8>);

impl Record {
    fn new(kind: &[u8; 4], bytes: usize) -> Self {
        let mut record = vec![0; bytes];
        record[..4].copy_from_slice(kind);
        Self(record)
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn text(&mut self, field: usize, text: &str) {
        let wide = wide(text);
        let (length, place) = (short(wide.len()), short(self.0.len()));
        self.put(field, &length);
        self.put(field + 2, &place);
        self.0.extend_from_slice(&wide);
    }

    fn done(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(0);
        self.put(4, &length.to_le_bytes());
        self.0
    }
}

fn wide(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn short(number: usize) -> [u8; 2] {
    u16::try_from(number).unwrap_or(u16::MAX).to_le_bytes()
}

fn lsn(lsn: Lsn) -> [u8; 10] {
    let (vlf, block, slot) = lsn.parts();
    let mut bytes = [0; 10];
    bytes[..4].copy_from_slice(&vlf.to_le_bytes());
    bytes[4..8].copy_from_slice(&block.to_le_bytes());
    bytes[8..].copy_from_slice(&slot.to_le_bytes());
    bytes
}

/// In the order of bytes that files have: the first three groups are turned round.
fn guid(guid: Guid) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h, rest @ ..] = guid.0;
    let mut bytes = [d, c, b, a, f, e, h, g, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes[8..].copy_from_slice(&rest);
    bytes
}

/// 40 bits: year 14, month 4, day 5, hour 5, minute 6, second 6, on the wall of a zone in quarter hours.
fn date(unix_nanos: i64, zone_quarters: i16) -> [u8; 5] {
    let seconds = unix_nanos.div_euclid(1_000_000_000) + i64::from(zone_quarters) * 900;
    let (year, month, day) = civil_of(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let packed = year << 26 | month << 22 | day << 17 | hour << 12 | minute << 6 | second;
    let [_, _, _, bytes @ ..] = packed.to_be_bytes();
    bytes
}

/// The first blocks of a stripe.
pub(super) fn label(head: &MediaHead, payload: &[u8]) -> Vec<u8> {
    let mut tape = Tape(Vec::new());
    let software = wide("Microsoft SQL Server");
    let mut body = vec![0; 42];
    body[..4].copy_from_slice(&head.family_guid.0[..4]);
    body[8] = 1;
    body[12] = 1;
    body[28..30].copy_from_slice(&short(software.len()));
    body[30..32].copy_from_slice(&short(BLOCK_HEADER + 42));
    body[32..34].copy_from_slice(&1024_u16.to_le_bytes());
    body[36..41].copy_from_slice(&date(head.written, 0));
    body.extend_from_slice(&software);
    tape.block(b"TAPE", 0x3_0000, &body);
    let mut raid = guid(head.media_set).to_vec();
    raid.extend_from_slice(&[0xad, 0, 0, 0xf0]);
    raid.extend_from_slice(&[head.families, 0, head.family, 0, 1, 0, 0, 0, 0, 0, 1, 0]);
    tape.stream(b"RAID", &raid);
    tape.stream(MEDIA, payload);
    tape.end();
    tape.filemark();
    tape.0
}

fn description(head: &SetHead, is_finished: bool) -> Vec<u8> {
    let mut set = Record::new(b"SCIN", 360);
    let flags = u32::from(head.bulk)
        | u32::from(head.metadata_only) << 1
        | u32::from(head.checksums) << 4
        | u32::from(head.damaged) << 5
        | 0x200;
    set.put(8, &flags.to_le_bytes());
    set.put(24, &head.software.2.to_le_bytes());
    set.put(26, &[head.software.1, head.software.0]);
    for (at, of) in [(32, head.first), (42, head.last), (52, head.checkpoint), (62, head.full_backup)] {
        set.put(at, &lsn(of));
    }
    set.put(72, &date(head.contents.created, head.zone));
    set.put(77, &date(head.started, head.zone));
    if is_finished {
        set.put(82, &date(head.finished, head.zone));
    }
    set.put(87, head.kind.shown().1.as_bytes());
    set.put(91, &[head.software.0.saturating_mul(10)]);
    set.put(94, &short(usize::try_from(head.contents.version).unwrap_or(0)));
    set.put(96, &head.bytes().to_le_bytes());
    set.put(124, &guid(head.contents.database_guid));
    set.put(156, &guid(head.last_fork()));
    if let [.., earlier, last] = &head.forks[..] {
        set.put(172, &lsn(last.start));
        set.put(184, &guid(earlier.guid));
    }
    set.put(224, &guid(head.contents.family_guid));
    if let Some((of, base)) = head.base {
        set.put(200, &guid(base));
        set.put(260, &lsn(of));
        set.put(272, &guid(base));
    }
    set.text(104, &head.database);
    set.text(108, &head.server);
    let mut all = set.done();
    for file in &head.contents.files {
        let mut record = Record::new(b"SFIN", 300);
        let path = head.paths.iter().find(|(id, _)| *id == file.id).map_or("", |(_, path)| path.as_str());
        let kind: u32 = match file.kind {
            super::FileKind::Rows => 1,
            super::FileKind::Log => 2,
            super::FileKind::Filestream => 3,
        };
        record.put(20, &file.id.to_le_bytes());
        record.put(28, &kind.to_le_bytes());
        record.put(36, &file.group.to_le_bytes());
        record.put(40, &(file.pages * 8192).to_le_bytes());
        record.put(186, &guid(file.guid));
        record.text(48, &file.name);
        record.text(52, path);
        all.extend_from_slice(&record.done());
    }
    all
}

/// One backup set, to be appended to a stripe.
pub(super) fn set(head: &SetHead, position: usize, heads: &[u8], rows: &[u8]) -> Vec<u8> {
    let mut tape = Tape(Vec::new());
    let mut body = vec![0; 64];
    let differential = head.kind == SetKind::Differential;
    let attributes = u32::from(head.copy_only) * 2 + if differential { 8 } else { 4 };
    body[..4].copy_from_slice(&attributes.to_le_bytes());
    body[10..12].copy_from_slice(&short(position));
    body[36..41].copy_from_slice(&date(head.started, head.zone));
    body[41] = head.software.0;
    body[42] = head.software.1;
    body[43] = head.zone.to_le_bytes()[0];
    body[48..64].copy_from_slice(&guid(head.guid));
    tape.block(b"SSET", if head.certificate.is_some() { 0x2_0000 } else { 0 }, &body);
    tape.end();
    tape.block(b"VOLB", 0, &[0; 56]);
    tape.end();
    tape.block(b"MSCI", 0, &[0; 4]);
    tape.stream(b"MQCI", &description(head, false));
    tape.stream(HEADS, heads);
    tape.end();
    tape.block(b"MSTL", 0, &[0; 540]);
    tape.stream(ROWS, rows);
    tape.end();
    tape.block(b"MSLS", 0, &[0; 4]);
    tape.stream(b"MQCI", &description(head, true));
    tape.end();
    tape.filemark();
    for _ in 0..2 {
        tape.block(b"ESET", 0, &[0; 36]);
        tape.end();
    }
    tape.filemark();
    tape.0
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// Finds the streams of this double; `None` when there is no media header. What is cut off is not there.
pub(super) fn find(bytes: &[u8]) -> Option<Found<'_>> {
    let (mut media, mut sets): (_, Vec<FoundSet<'_>>) = (None, Vec::new());
    let mut at = 0;
    while let Some(kind) = number::<4>(bytes, at) {
        if &kind == b"SFMB" {
            at += ALIGN;
            continue;
        }
        let Some(first) = number(bytes, at + 8).map(u16::from_le_bytes) else { break };
        let mut stream = at + usize::from(first);
        loop {
            let name = number::<4>(bytes, stream);
            let length =
                number(bytes, stream + 8).map(u64::from_le_bytes).and_then(|n| usize::try_from(n).ok());
            let (Some(name), Some(length)) = (name, length) else {
                return media.map(|media| Found { media, sets });
            };
            let data = stream + STREAM_HEADER;
            let whole = data.checked_add(length).and_then(|end| bytes.get(data..end));
            match (&name, whole) {
                (MEDIA, Some(whole)) => media = Some(whole),
                (HEADS, Some(whole)) => sets.push(FoundSet { heads: whole, rows: None }),
                (ROWS, whole) => {
                    if let Some(set) = sets.last_mut() {
                        set.rows = whole;
                    }
                }
                _ => {}
            }
            if whole.is_none() {
                return media.map(|media| Found { media, sets });
            }
            stream = (data + length).next_multiple_of(4);
            if &name == b"SPAD" {
                break;
            }
        }
        at = stream.next_multiple_of(ALIGN);
    }
    media.map(|media| Found { media, sets })
}
