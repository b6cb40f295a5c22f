//! Several threads over real files: group commit, callbacks, blocking for room, shutting down.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

use super::*;
use crate::base::RealStorage;
use crate::base::sim::{Fault, FaultError, FaultOn};

const WRITERS: u64 = 6;
const RECORDS: u64 = 60;

#[test]
fn writers_and_a_checkpointer_share_one_ring() {
    let dir = tempfile::tempdir().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(RealStorage::open(dir.path()).unwrap());
    let start = create(storage.as_ref(), ID, 260 << 10).unwrap();
    let journal = Journal::open(&storage, start, THREADED, &mut |_, _| Ok(())).unwrap();
    let pressed = Arc::new(AtomicU64::new(0));
    let (press, pressing) = mpsc::channel();
    let counting = Arc::clone(&pressed);
    journal.on_pressure(Arc::new(move || {
        counting.fetch_add(1, Ordering::Relaxed);
        let _ = press.send(());
    }));
    let kept = Mutex::new(start);
    let done = AtomicBool::new(false);
    let durable = AtomicU64::new(0);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn({
                    let (journal, durable) = (&journal, &durable);
                    move || write(journal, durable, writer)
                })
            })
            .collect();
        let (journal, kept, done) = (&journal, &kept, &done);
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                if pressing.recv_timeout(std::time::Duration::from_millis(1)).is_ok() {
                    let position = journal.position();
                    journal.commit(Seq(position.seq.0 - 1)).unwrap();
                    *kept.lock() = position;
                    journal.release(&position);
                }
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(pressed.load(Ordering::Relaxed) > 0);
    journal.shut_down().unwrap();
    assert_eq!(durable.load(Ordering::Relaxed), WRITERS * RECORDS);
    let start = *kept.lock();
    let mut last = HashMap::new();
    let mut seqs = Vec::new();
    read_only_replay(storage.as_ref(), start, &mut |seq, payload| {
        seqs.push(seq.0);
        let number = u64::from_le_bytes(payload[8..16].try_into().unwrap());
        if let Some(before) = last.insert(payload[0], number) {
            assert_eq!(number, before + 1);
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(seqs, (start.seq.0..=WRITERS * RECORDS).collect::<Vec<_>>());
}

fn write(journal: &Journal, durable: &AtomicU64, writer: u64) {
    let (told, telling) = mpsc::channel();
    let mut asked = 0;
    for number in 0..RECORDS {
        let body = vec![writer as u8; (number * 131 % 9000) as usize];
        let mut reservation = journal.reserve(16 + body.len() as u64, 1).unwrap();
        let seq = journal.append(&mut reservation, &[&writer.to_le_bytes(), &number.to_le_bytes(), &body]);
        drop(reservation);
        if number % 3 == 0 {
            let told = told.clone();
            journal.on_durable(seq, Box::new(move |outcome| told.send(outcome).unwrap()));
            asked += 1;
        } else {
            journal.commit(seq).unwrap();
            assert!(journal.last_durable() >= seq);
        }
        durable.fetch_add(1, Ordering::Relaxed);
    }
    for _ in 0..asked {
        telling.recv().unwrap().unwrap();
    }
}

#[test]
fn a_failed_sync_reaches_all_who_wait() {
    let (storage, start) = created(1 << 20);
    let (journal, _) = reopen(&storage, start, THREADED).unwrap();
    storage.inject(Fault::for_ever(FaultOn::Sync, 0, FaultError::Io));
    let (told, telling) = mpsc::channel();
    let seqs: Vec<_> = (0..5).map(|_| append(&journal, b"x")).collect();
    for seq in &seqs {
        let told = told.clone();
        journal.on_durable(*seq, Box::new(move |outcome| told.send(outcome.unwrap_err().kind()).unwrap()));
    }
    assert_eq!(journal.commit(seqs[0]).unwrap_err().kind(), ErrorKind::Poisoned);
    for _ in seqs {
        assert_eq!(telling.recv().unwrap(), ErrorKind::Poisoned);
    }
    assert_eq!(journal.shut_down().unwrap_err().kind(), ErrorKind::Poisoned);
}

#[test]
fn memory_is_bounded_when_nobody_waits() {
    let (storage, start) = created(64 << 20);
    let (journal, _) = reopen(&storage, start, THREADED).unwrap();
    for _ in 0..6 {
        append(&journal, &vec![1; 1 << 20]);
    }
    while journal.last_durable() == Seq(0) {
        thread::yield_now();
    }
}

#[test]
fn those_blocked_for_room_leave_when_it_shuts_down() {
    let (storage, start) = created(128 << 10);
    let (journal, _) = reopen(&storage, start, THREADED).unwrap();
    let (press, pressing) = mpsc::channel();
    journal.on_pressure(Arc::new(move || press.send(()).unwrap()));
    append(&journal, b"something to release");
    let held = journal.reserve(journal.capacity_bytes() - 4 * PAGE, 1).unwrap();
    thread::scope(|scope| {
        let blocked = scope.spawn(|| journal.reserve(3 * PAGE, 1).err().map(|error| error.kind()));
        pressing.recv().unwrap();
        journal.shut_down().unwrap();
        assert_eq!(blocked.join().unwrap(), Some(ErrorKind::Precondition));
    });
    drop(held);
}

#[test]
fn those_blocked_for_room_are_told_why_there_is_none_and_what_is_urgent_goes_on() {
    let (storage, start) = created(128 << 10);
    let (journal, _) = reopen(&storage, start, THREADED).unwrap();
    append(&journal, b"nothing that can be released");
    let held = journal.reserve(journal.capacity_bytes() - 4 * PAGE, 1).unwrap();
    thread::scope(|scope| {
        let blocked = scope.spawn(|| journal.reserve(3 * PAGE, 1).err().map(|error| error.kind()));
        journal.set_stuck(Some(Error::new(ErrorKind::NoSpace, "the host is full")));
        assert_eq!(blocked.join().unwrap(), Some(ErrorKind::NoSpace));
    });
    assert!(journal.reserve(3 * PAGE, 1).is_err());
    let mut urgent = journal.reserve_urgent(PAGE, 1).unwrap();
    journal.append(&mut urgent, &[b"destroy"]);
    journal.set_stuck(None);
    drop(held);
    journal.reserve(3 * PAGE, 1).unwrap();
}

#[test]
fn a_panic_in_a_callback_poisons_instead_of_hanging() {
    let (storage, start) = created(1 << 20);
    let (journal, _) = reopen(&storage, start, THREADED).unwrap();
    let (told, telling) = mpsc::channel();
    let first = append(&journal, b"x");
    journal.on_durable(first, Box::new(|_| panic!("a callback of the test panics")));
    while journal.poisoned().is_none() {
        thread::yield_now();
    }
    journal.on_durable(first, Box::new(move |outcome| told.send(outcome.unwrap_err().kind()).unwrap()));
    assert_eq!(telling.recv().unwrap(), ErrorKind::Poisoned);
}

#[test]
fn a_callback_may_drop_the_last_journal() {
    let (storage, start) = created(1 << 20);
    let (journal, _) = reopen(&storage, start, THREADED).unwrap();
    let (told, telling) = mpsc::channel();
    let seq = append(&journal, b"x");
    let shared = Arc::clone(&journal.shared);
    let held = Arc::clone(&journal);
    journal.on_durable(
        seq,
        Box::new(move |_| {
            telling.recv().unwrap();
            drop(held);
        }),
    );
    drop(journal);
    told.send(()).unwrap();
    while Arc::strong_count(&shared) > 1 {
        thread::yield_now();
    }
}
