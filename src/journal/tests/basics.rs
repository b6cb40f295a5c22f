//! One journal, one thread: what is kept, what is lost, what is refused.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::base::sim::{Fault, FaultError, FaultOn, Landing};

#[test]
fn committed_records_come_back_in_order() {
    let (storage, start) = created(1 << 20);
    let (journal, replayed) = reopen(&storage, start, INLINE).unwrap();
    assert!(replayed.is_empty());
    assert_eq!(append(&journal, b"one"), Seq(1));
    let mut reservation = journal.reserve(5, 2).unwrap();
    assert_eq!(journal.append(&mut reservation, &[b"t", b"w", b"o"]), Seq(2));
    assert_eq!(journal.append(&mut reservation, &[]), Seq(3));
    assert_eq!(journal.last_durable(), Seq(0));
    journal.commit(Seq(2)).unwrap();
    assert_eq!(journal.last_durable(), Seq(3));
    assert_eq!(journal.counters(), Counters { batches: 1, records: 3, bytes: PAGE, fsyncs: 1 });
    append(&journal, b"never committed");
    let crashed = storage.after_crash(Landing::None);
    let (_, replayed) = reopen(&crashed, start, INLINE).unwrap();
    assert_eq!(replayed, [(1, b"one".to_vec()), (2, b"two".to_vec()), (3, Vec::new())]);
}

#[test]
fn a_commit_is_one_write_and_one_sync() {
    let (storage, start) = created(8 << 20);
    let (journal, _) = reopen(&storage, start, INLINE).unwrap();
    let mut last = Seq(0);
    for _ in 0..40 {
        last = append(&journal, &payload("x", 100_000));
    }
    let before = storage.operations();
    journal.commit(last).unwrap();
    assert_eq!(storage.operations() - before, 2);
    journal.commit(last).unwrap();
    assert_eq!(storage.operations() - before, 2);
    assert!(journal.counters().batches > 1);
}

#[test]
fn an_idle_journal_commits_in_the_caller() {
    let (storage, start) = created(1 << 20);
    let (journal, _) = reopen(&storage, start, THREADED).unwrap();
    let seq = append(&journal, b"x");
    assert!(journal.commit_if_idle(seq).unwrap());
    assert!(journal.commit_if_idle(seq).unwrap());
    assert_eq!((journal.last_durable(), journal.counters().fsyncs), (seq, 1));
    assert_eq!(journal.commit_if_idle(Seq(9)).unwrap_err().kind(), ErrorKind::Invalid);
    storage.inject(Fault::once(FaultOn::Sync, 0, FaultError::Io));
    let lost = append(&journal, b"lost");
    assert_eq!(journal.commit_if_idle(lost).unwrap_err().kind(), ErrorKind::Poisoned);
}

#[test]
fn a_position_stands_while_earlier_records_are_in_memory() {
    let (storage, start) = created(1 << 20);
    let (journal, _) = reopen(&storage, start, INLINE).unwrap();
    append(&journal, b"before");
    let position = journal.position();
    assert_eq!((position.seq, position.offset), (Seq(2), PAGE));
    let last = append(&journal, b"after");
    journal.commit(last).unwrap();
    let (_, replayed) = reopen(&storage, position, INLINE).unwrap();
    assert_eq!(replayed, [(2, b"after".to_vec())]);
    let tail = read_only_replay(&storage, start, &mut |_, _| Ok(())).unwrap();
    assert_eq!((tail.seq, tail.offset), (Seq(3), 2 * PAGE));
}

#[test]
fn records_before_a_position_need_not_reach_the_disk() {
    let (storage, start) = created(1 << 20);
    let (journal, _) = reopen(&storage, start, INLINE).unwrap();
    append(&journal, b"in a checkpoint");
    let position = journal.position();
    let crashed = storage.after_crash(Landing::None);
    let (journal, replayed) = reopen(&crashed, position, INLINE).unwrap();
    assert!(replayed.is_empty());
    let last = append(&journal, b"next life");
    assert_eq!(last, Seq(2));
    journal.commit(last).unwrap();
    let (_, replayed) = reopen(&crashed, position, INLINE).unwrap();
    assert_eq!(replayed, [(2, b"next life".to_vec())]);
}

#[test]
fn the_ring_goes_around_many_times() {
    let (storage, mut start) = created(128 << 10);
    let (journal, _) = reopen(&storage, start, INLINE).unwrap();
    for round in 0..200_usize {
        let bytes = payload(&format!("round {round} "), 1 + round * 97 % 28_000);
        let seq = append(&journal, &bytes);
        journal.commit(seq).unwrap();
        let (_, replayed) = reopen(&storage.fork(), start, INLINE).unwrap();
        assert_eq!(replayed.last().unwrap(), &(seq.0, bytes));
        if journal.used_bytes() > 50_000 {
            start = journal.position();
            journal.release(&start);
            assert_eq!(journal.used_bytes(), 0);
        }
    }
    assert!(start.offset > 5 * (128 << 10));
}

#[test]
fn a_full_ring_refuses_until_released() {
    let (storage, start) = created(128 << 10);
    let (journal, _) = reopen(&storage, start, INLINE).unwrap();
    let full = loop {
        match journal.reserve(6000, 1) {
            Ok(mut reservation) => journal.append(&mut reservation, &[&[1; 6000]]),
            Err(error) => break error,
        };
    };
    assert_eq!(full.kind(), ErrorKind::NoSpace);
    assert!(journal.used_bytes() <= journal.capacity_bytes());
    assert_eq!(journal.reserve(1 << 30, 1).err().unwrap().kind(), ErrorKind::Invalid);
    let position = journal.position();
    journal.release(&position);
    journal.release(&start);
    assert_eq!(journal.used_bytes(), 0);
    let unused = journal.reserve(6000, 4).unwrap();
    drop(unused);
    let last = append(&journal, &[2; 6000]);
    journal.commit(last).unwrap();
    let (_, replayed) = reopen(&storage, position, INLINE).unwrap();
    assert_eq!(sequence(&replayed), [last.0]);
}

#[test]
fn the_largest_record_fits_and_a_larger_one_poisons() {
    let (storage, start) = created(64 << 20);
    let (journal, _) = reopen(&storage, start, INLINE).unwrap();
    assert_eq!(journal.record_bytes_max(), 8 << 20);
    let large = payload("large", 8 << 20);
    let seq = append(&journal, &large);
    journal.commit(seq).unwrap();
    let (_, replayed) = reopen(&storage, start, INLINE).unwrap();
    assert!(replayed == [(1, large)]);
    let mut reservation = journal.reserve(9 << 20, 1).unwrap();
    let seq = journal.append(&mut reservation, &[&vec![0; 9 << 20]]);
    assert_eq!(journal.commit(seq).unwrap_err().kind(), ErrorKind::Poisoned);
}

#[test]
fn a_failed_write_or_sync_poisons_for_good() {
    for on in [FaultOn::Write, FaultOn::Sync] {
        let (storage, start) = created(1 << 20);
        let (journal, _) = reopen(&storage, start, INLINE).unwrap();
        let kept = append(&journal, b"kept");
        journal.commit(kept).unwrap();
        storage.inject(Fault::once(on, 0, FaultError::Io));
        let lost = append(&journal, b"lost");
        assert_eq!(journal.commit(lost).unwrap_err().kind(), ErrorKind::Poisoned);
        assert_eq!(journal.commit(kept).unwrap_err().kind(), ErrorKind::Poisoned);
        assert_eq!(journal.reserve(1, 1).err().unwrap().kind(), ErrorKind::Poisoned);
        assert!(journal.poisoned().unwrap().message().contains("journal"));
        let told = Arc::new(AtomicU32::new(0));
        let telling = Arc::clone(&told);
        journal.on_durable(
            lost,
            Box::new(move |outcome| {
                assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Poisoned);
                telling.fetch_add(1, Ordering::Relaxed);
            }),
        );
        assert_eq!(told.load(Ordering::Relaxed), 1);
        assert_eq!(journal.shut_down().unwrap_err().kind(), ErrorKind::Poisoned);
        let (_, replayed) = reopen(&storage.after_crash(Landing::None), start, INLINE).unwrap();
        assert_eq!(sequence(&replayed), [1]);
    }
}

#[test]
fn what_was_replayed_does_not_vanish_later() {
    let (storage, start) = created(1 << 20);
    let (journal, _) = reopen(&storage, start, INLINE).unwrap();
    let first = append(&journal, b"first");
    journal.commit(first).unwrap();
    storage.inject(Fault::once(FaultOn::Sync, 0, FaultError::Io));
    let second = append(&journal, b"in the page cache, marked clean");
    assert!(journal.commit(second).is_err());
    let (next_life, replayed) = reopen(&storage, start, INLINE).unwrap();
    assert_eq!(sequence(&replayed), [1, 2]);
    let third = append(&next_life, b"third");
    next_life.commit(third).unwrap();
    let (_, replayed) = reopen(&storage.after_crash(Landing::None), start, INLINE).unwrap();
    assert_eq!(sequence(&replayed), [1, 2, 3]);
}

#[test]
fn what_was_never_appended_cannot_be_awaited() {
    let (storage, start) = created(1 << 20);
    let (journal, _) = reopen(&storage, start, INLINE).unwrap();
    journal.commit(Seq(0)).unwrap();
    assert_eq!(journal.commit(Seq(1)).unwrap_err().kind(), ErrorKind::Invalid);
    append(&journal, b"flushed by shut_down");
    journal.shut_down().unwrap();
    journal.shut_down().unwrap();
    assert_eq!(journal.reserve(1, 1).err().unwrap().kind(), ErrorKind::Precondition);
    let (_, replayed) = reopen(&storage.after_crash(Landing::None), start, INLINE).unwrap();
    assert_eq!(sequence(&replayed), [1]);
}

#[test]
fn an_error_of_replay_is_passed_on_and_rescue_writes_nothing() {
    let (storage, start) = created(1 << 20);
    let (journal, _) = reopen(&storage, start, INLINE).unwrap();
    let last = append(&journal, b"one");
    journal.commit(last).unwrap();
    let shared: Arc<dyn Storage> = Arc::new(storage.clone());
    let refused = Journal::open(&shared, start, INLINE, &mut |_, _| Err(Error::invalid("no")));
    assert_eq!(refused.err().unwrap().message(), "no");
    let before = storage.operations();
    read_only_replay(&storage, start, &mut |_, _| Ok(())).unwrap();
    assert_eq!(storage.operations(), before);
}
