//! A ring of any batches, with right checksums at any places: opening it ends in an error or in a journal that
//! keeps what it replayed and goes on.

#![no_main]

use std::sync::Arc;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use stillpoint::base::{SimStorage, Storage};
use stillpoint::format::journal::{BATCH_HEADER_BYTES, BatchHeader, BatchKey, Seq, Start};
use stillpoint::journal::{Journal, JournalOptions, create};

const ID: [u8; 16] = [3; 16];
const RING_PAGES: u64 = 24;
const PAGE_BYTES: u64 = 4096;

#[derive(Arbitrary, Debug)]
struct Placed {
    page: u8,
    /// The place that the header names is another one.
    displaced: Option<u8>,
    lap: u8,
    epoch: u8,
    first: u8,
    durable: u8,
    records: Vec<u16>,
    /// A byte changed after sealing.
    damage: Option<u16>,
}

#[derive(Arbitrary, Debug)]
struct Input {
    batches: Vec<Placed>,
    epoch: u8,
    seq: u8,
    page: u8,
    appended: Vec<u16>,
}

fuzz_target!(|input: Input| {
    let storage = SimStorage::new();
    create(&storage, ID, (RING_PAGES + 1) * PAGE_BYTES).unwrap();
    for batch in input.batches.iter().take(30) {
        place(&storage, batch);
    }
    let start = Start {
        journal: ID,
        epoch: u64::from(input.epoch),
        seq: Seq(u64::from(input.seq)),
        offset: u64::from(input.page) * PAGE_BYTES,
    };
    let Some((journal, mut records)) = open(&storage, start) else { return };
    for length in input.appended.iter().take(20) {
        let payload = vec![0xEE; usize::from(*length) % 6000];
        let Ok(mut reservation) = journal.reserve(payload.len() as u64, 1) else { break };
        let seq = journal.append(&mut reservation, &[&payload]);
        journal.commit(seq).unwrap();
        records.push((seq, payload));
    }
    drop(journal);
    let (_, again) = open(&storage, start).expect("what was committed opens again");
    assert_eq!(again, records);
});

type Records = Vec<(Seq, Vec<u8>)>;

fn open(storage: &SimStorage, start: Start) -> Option<(Arc<Journal>, Records)> {
    let storage: Arc<dyn Storage> = Arc::new(storage.clone());
    let mut records = Vec::new();
    let options = JournalOptions { threaded: false };
    let journal = Journal::open(&storage, start, options, &mut |seq, payload| {
        records.push((seq, payload.to_vec()));
        Ok(())
    });
    Some((journal.ok()?, records))
}

fn place(storage: &SimStorage, placed: &Placed) {
    let mut bytes = vec![0; BATCH_HEADER_BYTES];
    for length in placed.records.iter().take(8) {
        let length = u32::from(*length) % 10_000;
        bytes.extend(length.to_le_bytes());
        bytes.resize(bytes.len() + length as usize, placed.first);
    }
    let page = u64::from(placed.page) % RING_PAGES;
    let named = placed.displaced.map_or(page, |page| u64::from(page) % RING_PAGES);
    let header = BatchHeader {
        records: placed.records.len().min(8) as u32,
        epoch: u64::from(placed.epoch),
        first: Seq(u64::from(placed.first)),
        durable: Seq(u64::from(placed.durable)),
        offset: (u64::from(placed.lap % 12) * RING_PAGES + named) * PAGE_BYTES,
        payload_bytes: (bytes.len() - BATCH_HEADER_BYTES) as u32,
    };
    header.seal(&BatchKey::new(&ID), &mut bytes);
    if let Some(damage) = placed.damage {
        let at = usize::from(damage) % bytes.len();
        bytes[at] ^= 1;
    }
    bytes.truncate(((RING_PAGES - page) * PAGE_BYTES) as usize);
    storage.write_raw("journal", (page + 1) * PAGE_BYTES, &bytes).unwrap();
}
