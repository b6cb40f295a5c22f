//! The journal over simulated storage: against a model, across crashes, under damage, and with threads.

use std::sync::Arc;

use super::*;
use crate::base::{ErrorKind, SimStorage};

mod basics;
mod damage;
mod model;
mod threads;

const ID: [u8; 16] = *b"journal of tests";
const PAGE: u64 = 4096;
const INLINE: JournalOptions = JournalOptions { threaded: false };
const THREADED: JournalOptions = JournalOptions { threaded: true };

type Replayed = Vec<(u64, Vec<u8>)>;

fn created(size_bytes: u64) -> (SimStorage, Start) {
    let storage = SimStorage::new();
    let start = create(&storage, ID, size_bytes).unwrap();
    (storage, start)
}

fn reopen(storage: &SimStorage, start: Start, options: JournalOptions) -> Result<(Arc<Journal>, Replayed)> {
    let storage: Arc<dyn Storage> = Arc::new(storage.clone());
    let mut replayed = Vec::new();
    let journal = Journal::open(&storage, start, options, &mut |seq, payload| {
        replayed.push((seq.0, payload.to_vec()));
        Ok(())
    })?;
    Ok((journal, replayed))
}

fn append(journal: &Journal, payload: &[u8]) -> Seq {
    let mut reservation = journal.reserve(payload.len() as u64, 1).unwrap();
    journal.append(&mut reservation, &[payload])
}

fn payload(label: &str, length: usize) -> Vec<u8> {
    label.bytes().cycle().take(length).collect()
}

fn sequence(replayed: &Replayed) -> Vec<u64> {
    replayed.iter().map(|(seq, _)| *seq).collect()
}
