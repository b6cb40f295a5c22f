//! SQL Server backup files of any bytes, and right ones with changed fields whose checksums are put right again: they are
//! read or refused, and what is read lies inside the file.

#![no_main]

use std::io::Cursor;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use stillpoint::adapter::sqlserver::chain::{Backup, Chain};
use stillpoint::adapter::sqlserver::page::PAGE_BYTES;
use stillpoint::adapter::sqlserver::plan::{Leave, RestoreTarget};
use stillpoint::adapter::sqlserver::tape::{BackupFile, read};

const BLOCKS: [&[u8; 4]; 8] = [b"SSET", b"VOLB", b"MSCI", b"MSDA", b"MSTL", b"MSLS", b"ESET", b"SFMB"];
const STREAMS: [&[u8; 4]; 6] = [b"MQCI", b"MQDA", b"MQTL", b"APAD", b"RAID", b"SPAD"];

#[derive(Arbitrary, Debug)]
struct Part {
    kind: u8,
    attributes: u32,
    body: Vec<u8>,
    streams: Vec<(u8, u16, Vec<u8>, Option<u64>)>,
}

#[derive(Arbitrary, Debug)]
struct Input {
    raw: Option<Vec<u8>>,
    parts: Vec<Part>,
    cut: Option<u16>,
}

fuzz_target!(|input: Input| {
    let mut bytes = input.raw.unwrap_or_else(|| tape(&input.parts));
    if let Some(cut) = input.cut {
        bytes.truncate(usize::from(cut));
    }
    if let Ok(file) = read(Cursor::new(&bytes)) {
        check(&file);
    }
});

fn check(file: &BackupFile) {
    let mut backups = Vec::new();
    for set in &file.sets {
        assert!(set.data.data_pages.saturating_mul(PAGE_BYTES as u64) <= file.length);
        for run in &set.data.runs {
            assert!(run.at + run.pages * PAGE_BYTES as u64 <= file.length);
        }
        backups.extend(Backup::of_set(set, Vec::new(), 1, Some((0, 0))));
    }
    let chain = Chain::new(backups);
    let _ = (chain.plan(&RestoreTarget::Newest, &Leave::Recovered), chain.spans(), chain.gaps());
}

fn sum(bytes: &[u8]) -> [u8; 2] {
    bytes.chunks_exact(2).fold(0, |sum, pair| sum ^ u16::from_le_bytes([pair[0], pair[1]])).to_le_bytes()
}

fn block(bytes: &mut Vec<u8>, kind: &[u8; 4], attributes: u32, body: &[u8]) {
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    let first = (52 + body.len()).next_multiple_of(4);
    let mut header = [0; 52];
    header[..4].copy_from_slice(kind);
    header[4..8].copy_from_slice(&attributes.to_le_bytes());
    header[8..10].copy_from_slice(&(first as u16).to_le_bytes());
    header[48] = 2;
    let checksum = sum(&header[..50]);
    header[50..].copy_from_slice(&checksum);
    let start = bytes.len();
    bytes.extend_from_slice(&header);
    bytes.extend_from_slice(body);
    bytes.resize(start + first, 0);
}

fn stream(bytes: &mut Vec<u8>, kind: &[u8; 4], attributes: u16, data: &[u8], length: Option<u64>) {
    let mut header = [0; 20];
    header[..4].copy_from_slice(kind);
    header[6..8].copy_from_slice(&attributes.to_le_bytes());
    header[8..16].copy_from_slice(&length.unwrap_or(data.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&header);
    bytes.extend_from_slice(&sum(&header));
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn pad(bytes: &mut Vec<u8>) {
    let fill = (bytes.len() + 22).next_multiple_of(512) - bytes.len() - 22;
    stream(bytes, b"SPAD", 0, &vec![0; fill], None);
}

fn tape(parts: &[Part]) -> Vec<u8> {
    let name: Vec<u8> = "Microsoft SQL Server".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut body = vec![0; 42];
    body[28] = name.len() as u8;
    body[30] = 94;
    body.extend_from_slice(&name);
    let mut bytes = Vec::new();
    block(&mut bytes, b"TAPE", 0, &body);
    pad(&mut bytes);
    for part in parts.iter().take(24) {
        let kind = BLOCKS[usize::from(part.kind) % BLOCKS.len()];
        block(&mut bytes, kind, part.attributes & 0xffff, &part.body[..part.body.len().min(600)]);
        for (kind, attributes, data, length) in part.streams.iter().take(6) {
            let kind = STREAMS[usize::from(*kind) % (STREAMS.len() - 1)];
            let record = if kind == b"MQCI" { records(data) } else { data.clone() };
            stream(&mut bytes, kind, attributes & 0x7, &record, *length);
        }
        pad(&mut bytes);
    }
    bytes
}

/// A record of a set, and others, with the bytes as their fields.
fn records(data: &[u8]) -> Vec<u8> {
    let mut records = Vec::new();
    for (kind, bytes) in [(b"SCIN", 360), (b"SFIN", 240), (b"SFGI", 60)] {
        let mut record: Vec<u8> = data.iter().copied().cycle().take(if data.is_empty() { 0 } else { bytes }).collect();
        record.resize(bytes, 0);
        record[..4].copy_from_slice(kind);
        record[4..8].copy_from_slice(&(bytes as u32).to_le_bytes());
        if kind == b"SCIN" {
            record[87] = b"DIL"[usize::from(record[87]) % 3];
        }
        records.extend_from_slice(&record);
    }
    records
}
