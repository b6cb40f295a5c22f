//! Damaged, foreign, short and missing files: an error that names the file, or a legal prefix, never other bytes.

use proptest::prelude::*;

use super::*;

/// Three flushes of a few records each; the last has two batches.
fn written() -> (SimStorage, Start, Replayed) {
    let (storage, start) = created(256 << 10);
    let (journal, _) = reopen(&storage, start, INLINE).unwrap();
    let mut records = Vec::new();
    for (flush, lengths) in [vec![10, 5000, 0], vec![3, 4], vec![40_000, 40_000, 9000]].iter().enumerate() {
        let mut last = Seq(0);
        for length in lengths {
            let bytes = payload(&format!("flush {flush} length {length} "), *length);
            last = append(&journal, &bytes);
            records.push((last.0, bytes));
        }
        journal.commit(last).unwrap();
    }
    (storage, start, records)
}

#[test]
fn a_bad_batch_before_the_last_flush_is_corruption() {
    let (storage, start, records) = written();
    let pages = |bytes: u64| bytes.next_multiple_of(PAGE);
    let second = PAGE + pages(72 + 3 * 4 + 5010);
    let third = second + PAGE;
    for place in [PAGE, PAGE + 100, second, second + 75] {
        let damaged = storage.fork();
        damaged.flip_bit("journal", place, 3).unwrap();
        let error = reopen(&damaged, start, INLINE).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "place {place}");
        let batch = if place < second { PAGE } else { second };
        assert!(error.message().contains(&format!("journal at offset {batch}")), "{error}");
    }
    for (place, kept) in [(third, 5), (third + 300, 5)] {
        let damaged = storage.fork();
        damaged.flip_bit("journal", place, 0).unwrap();
        let (_, replayed) = reopen(&damaged, start, INLINE).unwrap();
        assert_eq!(replayed, records[..kept], "place {place}");
    }
}

/// Appends a record in each of two batches, flushes both at once and tears the first.
fn torn_flush(storage: &SimStorage, start: Start, life: &str) {
    let (journal, replayed) = reopen(storage, start, INLINE).unwrap();
    assert!(replayed.is_empty(), "{life}");
    append(&journal, format!("first of {life}").as_bytes());
    journal.position();
    let last = append(&journal, format!("second of {life}").as_bytes());
    journal.commit(last).unwrap();
    storage.flip_bit("journal", PAGE + 80, 0).unwrap();
}

#[test]
fn what_an_earlier_life_left_behind_its_torn_tail_is_not_taken() {
    for lives in 1..4 {
        let (storage, start) = created(128 << 10);
        for life in 0..lives {
            torn_flush(&storage, start, &format!("life {life}"));
        }
        let (journal, _) = reopen(&storage, start, INLINE).unwrap();
        let only = append(&journal, b"of the same size ");
        journal.commit(only).unwrap();
        let (_, replayed) = reopen(&storage, start, INLINE).unwrap();
        assert_eq!(replayed, [(1, b"of the same size ".to_vec())], "{lives} lives before");
    }
}

#[test]
fn short_missing_and_foreign_files_are_named() {
    let (storage, start, _) = written();
    let kind = |storage: &SimStorage, start| {
        let error = reopen(storage, start, INLINE).err().unwrap();
        assert!(error.message().contains("journal"), "{error}");
        error.kind()
    };
    for length in [0, 100, 4096, 100_000, (256 << 10) - 1] {
        let damaged = storage.fork();
        damaged.truncate_raw("journal", length).unwrap();
        assert_eq!(kind(&damaged, start), ErrorKind::Corrupt, "length {length}");
    }
    assert_eq!(kind(&storage, Start { journal: [0; 16], ..start }), ErrorKind::Corrupt);
    assert_eq!(kind(&storage, Start { offset: 5, ..start }), ErrorKind::Corrupt);
    assert_eq!(kind(&storage, Start { seq: Seq(2), ..start }), ErrorKind::Corrupt);
    let gone = storage.fork();
    gone.remove_raw("journal").unwrap();
    assert_eq!(kind(&gone, start), ErrorKind::Corrupt);
    assert_eq!(create(&storage, ID, 1 << 20).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(create(&gone, ID, 1000).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn a_start_older_than_the_ring_is_corruption() {
    let (storage, start) = created(128 << 10);
    let (journal, _) = reopen(&storage, start, INLINE).unwrap();
    for _ in 0..40 {
        let seq = append(&journal, &[5; 7000]);
        journal.commit(seq).unwrap();
        journal.release(&journal.position());
    }
    assert_eq!(reopen(&storage, start, INLINE).err().unwrap().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_batch_of_another_journal_is_not_taken() {
    let (storage, start, records) = written();
    let (other, other_start) = (SimStorage::new(), [9; 16]);
    let other_start = create(&other, other_start, 256 << 10).unwrap();
    let bytes = storage.read_raw("journal").unwrap();
    other.write_raw("journal", PAGE, &bytes[PAGE as usize..]).unwrap();
    let (_, replayed) = reopen(&other, other_start, INLINE).unwrap();
    assert!(replayed.is_empty());
    let (_, replayed) = reopen(&storage, start, INLINE).unwrap();
    assert_eq!(replayed, records);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    // Two at most: three can hit the heads of the second flush and of both batches after it, which leaves nothing
    // that tells the rest from a tail never written.
    #[test]
    fn any_flipped_bits_end_in_an_error_or_a_prefix(
        places in prop::collection::vec((0_u64..256 << 10, 0_u32..8), 1..3),
        near in any::<bool>(),
    ) {
        let (storage, start, records) = written();
        for (place, bit) in places {
            let place = if near { place % (26 * PAGE) } else { place };
            storage.flip_bit("journal", place, bit).unwrap();
        }
        match reopen(&storage, start, INLINE) {
            Err(error) => prop_assert!(matches!(error.kind(), ErrorKind::Corrupt), "{}", error),
            Ok((_, replayed)) => {
                prop_assert!(replayed.len() >= 5);
                prop_assert_eq!(&replayed[..], &records[..replayed.len()]);
            }
        }
    }
}
