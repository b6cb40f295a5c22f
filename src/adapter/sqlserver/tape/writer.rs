//! Writes backup files for tests, after the layout that was measured on real ones.
//!
//! Not a product's writer: one data file, one log file, and only the fields that the reader knows.

use super::block::checksum;
use super::set::SetKind;
use crate::adapter::sqlserver::guid::Guid;
use crate::adapter::sqlserver::lsn::Lsn;
use crate::adapter::sqlserver::page::{PAGE_BYTES, protect};

/// What the tests choose of a set.
#[derive(Clone, Debug)]
pub(crate) struct SetSpec {
    pub(crate) letter: u8,
    pub(crate) copy_only: bool,
    pub(crate) id: u8,
    pub(crate) database: String,
    pub(crate) first: Lsn,
    pub(crate) last: Lsn,
    pub(crate) base: Option<(Lsn, u8)>,
    pub(crate) fork: u8,
    pub(crate) earlier: Option<(Lsn, u8)>,
    pub(crate) flags: u32,
    pub(crate) zone: i8,
    /// First pages of the extents that it has.
    pub(crate) extents: Vec<u32>,
    /// Extents in one stream.
    pub(crate) extents_per_stream: usize,
    pub(crate) encrypted: bool,
}

impl Default for SetSpec {
    fn default() -> Self {
        Self {
            letter: b'D',
            copy_only: false,
            id: 1,
            database: "sales".to_owned(),
            first: Lsn::new(10, 5, 1),
            last: Lsn::new(10, 20, 1),
            base: None,
            fork: 7,
            earlier: None,
            flags: 0x200,
            zone: 4,
            extents: vec![0, 8, 24],
            extents_per_stream: 2,
            encrypted: false,
        }
    }
}

pub(crate) fn guid(seed: u8) -> Guid {
    Guid([seed; 16])
}

/// 2024-02-29 13:14:15.
pub(crate) const DATE: u64 = (2024 << 26) | (2 << 22) | (29 << 17) | (13 << 12) | (14 << 6) | 15;

/// A page of the file with id 1, with a checksum.
pub(crate) fn page(id: u32) -> Vec<u8> {
    let mut page = vec![(id % 251) as u8; PAGE_BYTES];
    page[..96].fill(0);
    page[..2].copy_from_slice(&[1, 1]);
    page[32..36].copy_from_slice(&id.to_le_bytes());
    page[36..38].copy_from_slice(&1u16.to_le_bytes());
    protect(&mut page);
    page
}

struct Tape(Vec<u8>);

impl Tape {
    fn block(&mut self, kind: &[u8; 4], attributes: u32, body: &[u8]) {
        assert_eq!(self.0.len() % 512, 0);
        let mut block = vec![0; 52];
        block[..4].copy_from_slice(kind);
        block[4..8].copy_from_slice(&attributes.to_le_bytes());
        let first = (52 + body.len()).next_multiple_of(4);
        block[8..10].copy_from_slice(&(first as u16).to_le_bytes());
        block[10..12].copy_from_slice(&[14, 1]);
        block[48] = 2;
        let sum = checksum(&block[..50]);
        block[50..52].copy_from_slice(&sum.to_le_bytes());
        block.extend_from_slice(body);
        block.resize(first, 0);
        self.0.extend_from_slice(&block);
    }

    fn stream(&mut self, kind: &[u8; 4], attributes: u16, data: &[u8]) {
        let mut header = vec![0; 20];
        header[..4].copy_from_slice(kind);
        header[6..8].copy_from_slice(&attributes.to_le_bytes());
        header[8..16].copy_from_slice(&(data.len() as u64).to_le_bytes());
        let sum = checksum(&header);
        header.extend_from_slice(&sum.to_le_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// Fills up so that the data of a stream that follows this one begins two bytes before a multiple of `align`.
    fn pad(&mut self, kind: &[u8; 4], align: usize, behind: usize) {
        let mut fill = 0;
        while !((self.0.len() + 22 + fill).next_multiple_of(4) + behind).is_multiple_of(align) {
            fill += 1;
        }
        self.stream(kind, 0, &vec![0; fill]);
    }

    fn end(&mut self) {
        self.pad(b"SPAD", 512, 0);
    }

    fn filemark(&mut self) {
        self.block(b"SFMB", 0x8000_0000, &[0; 460]);
    }
}

/// A record whose named texts stand at its end.
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
        let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let place = self.0.len() as u16;
        self.put(field, &(wide.len() as u16).to_le_bytes());
        self.put(field + 2, &place.to_le_bytes());
        self.0.extend_from_slice(&wide);
    }

    fn done(mut self) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.put(4, &length.to_le_bytes());
        self.0
    }
}

fn date() -> [u8; 5] {
    let bytes = DATE.to_be_bytes();
    [bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]]
}

fn config(spec: &SetSpec, finished: bool) -> Vec<u8> {
    let mut set = Record::new(b"SCIN", 360);
    set.put(8, &spec.flags.to_le_bytes());
    set.put(24, &[0xd9, 0x13, 0, 13]);
    set.put(32, &spec.first.to_bytes());
    set.put(42, &spec.last.to_bytes());
    set.put(52, &spec.first.to_bytes());
    set.put(72, &date());
    set.put(77, &date());
    if finished {
        set.put(82, &date());
    }
    set.put(87, &[spec.letter]);
    set.put(91, &[130]);
    set.put(94, &852u16.to_le_bytes());
    set.put(124, &guid(0x33).0);
    set.put(156, &guid(spec.fork).0);
    if let Some((ends, fork)) = spec.earlier {
        set.put(172, &ends.to_bytes());
        set.put(184, &guid(fork).0);
    }
    set.put(224, &guid(0x44).0);
    if let Some((lsn, id)) = spec.base {
        set.put(62, &lsn.to_bytes());
        set.put(200, &guid(id).0);
        set.put(260, &lsn.to_bytes());
        set.put(272, &guid(id).0);
    }
    set.text(104, &spec.database);
    set.text(108, "HOST\\SQL");
    let mut config = set.done();
    for (id, kind, name) in [(1u32, 1u32, "sales.mdf"), (2, 2, "sales_log.ldf")] {
        let mut file = Record::new(b"SFIN", 300);
        file.put(20, &id.to_le_bytes());
        file.put(28, &kind.to_le_bytes());
        file.put(40, &(1u64 << 20).to_le_bytes());
        file.put(186, &guid(0x50 + id as u8).0);
        file.text(48, name.split('.').next().unwrap());
        file.text(52, &format!("D:\\data\\{name}"));
        config.extend_from_slice(&file.done());
    }
    config
}

fn set(tape: &mut Tape, number: u16, spec: &SetSpec) {
    let mut body = vec![0; 64];
    let differential = SetKind::of_letter(char::from(spec.letter)) == Some(SetKind::Differential);
    let attributes = u32::from(spec.copy_only) * 2 + if differential { 8 } else { 4 };
    body[..4].copy_from_slice(&attributes.to_le_bytes());
    body[10..12].copy_from_slice(&number.to_le_bytes());
    body[36..41].copy_from_slice(&date());
    body[43] = spec.zone.to_le_bytes()[0];
    body[48..64].copy_from_slice(&guid(spec.id).0);
    tape.block(b"SSET", if spec.encrypted { 0x2_0000 } else { 0 }, &body);
    tape.end();
    tape.block(b"VOLB", 0, &[0; 56]);
    tape.end();
    tape.block(b"MSCI", 0, &[0; 4]);
    tape.stream(b"MQCI", 0, &config(spec, false));
    tape.end();
    if !spec.extents.is_empty() {
        tape.block(b"MSDA", 0, &[0; 8]);
        for some in spec.extents.chunks(spec.extents_per_stream) {
            tape.pad(b"APAD", 512, 24);
            let pages = some.iter().flat_map(|first| (*first..first + 8).flat_map(page));
            tape.stream(b"MQDA", 2, &[0, 0].into_iter().chain(pages).collect::<Vec<u8>>());
        }
        tape.stream(b"MQDA", 6, &[]);
        tape.end();
    }
    tape.block(b"MSTL", 0, &[0; 540]);
    tape.pad(b"APAD", 512, 24);
    tape.stream(b"MQTL", 0, &[5; 1026]);
    tape.end();
    tape.block(b"MSLS", 0, &[0; 4]);
    tape.stream(b"MQCI", 0, &config(spec, true));
    tape.end();
    tape.filemark();
    for _ in 0..2 {
        tape.block(b"ESET", 0, &[0; 36]);
        tape.end();
    }
    tape.filemark();
}

/// A whole backup file with these sets.
pub(crate) fn write(sets: &[SetSpec]) -> Vec<u8> {
    let mut tape = Tape(Vec::new());
    let name: Vec<u8> = "Microsoft SQL Server".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut body = vec![0; 42];
    body[..4].copy_from_slice(&0x1234_5678u32.to_le_bytes());
    body[8] = 1;
    body[12] = 1;
    body[28..30].copy_from_slice(&(name.len() as u16).to_le_bytes());
    body[30..32].copy_from_slice(&94u16.to_le_bytes());
    body[32..34].copy_from_slice(&1024u16.to_le_bytes());
    body[36..41].copy_from_slice(&date());
    body.extend_from_slice(&name);
    tape.block(b"TAPE", 0x3_0000, &body);
    let mut raid = guid(0x66).0.to_vec();
    raid.extend_from_slice(&[0xad, 0, 0, 0xf0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 1, 0]);
    tape.stream(b"RAID", 0, &raid);
    tape.end();
    tape.filemark();
    for (at, spec) in sets.iter().enumerate() {
        set(&mut tape, at as u16 + 1, spec);
    }
    tape.0
}
