//! The hint table against a plain map; growth, bounds, eviction, false finds, threads.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

fn id(number: u64) -> [u8; 32] {
    *blake3::hash(&number.to_le_bytes()).as_bytes()
}

fn place(number: u64) -> Place {
    Place { segment: (number >> 10) as u32 % Place::SEGMENTS_MAX, slot: (number % 1024) as u32 }
}

#[test]
fn all_of_a_place_comes_back() {
    let table = HintTable::new(1 << 20);
    let last = Place { segment: Place::SEGMENTS_MAX - 1, slot: Place::SLOTS_MAX - 1 };
    for place in [Place { segment: 0, slot: 0 }, last, Place { segment: 1, slot: 2 }] {
        table.insert(&id(1), place);
        table.insert(&id(1), place);
    }
    assert_eq!(table.len(), 3);
    assert!(table.candidates(&id(1)).contains(&last));
    table.insert(&id(1), Place { segment: Place::SEGMENTS_MAX, slot: 0 });
    table.insert(&id(1), Place { segment: 0, slot: Place::SLOTS_MAX });
    assert_eq!(table.len(), 3);
    table.remove(&id(1), last);
    assert_eq!(table.candidates(&id(1)).len(), 2);
    table.clear();
    assert!(table.is_empty() && table.candidates(&id(1)).is_empty());
}

#[test]
fn extreme_hashes_are_entries_like_others() {
    let table = HintTable::new(64 << 20);
    for (at, byte) in [0, 0xFF, 0x55, 0xAA].into_iter().enumerate() {
        table.insert(&[byte; 32], place(at as u64));
    }
    (0..400_000).for_each(|number| table.insert(&id(number), place(number)));
    for (at, byte) in [0, 0xFF, 0x55, 0xAA].into_iter().enumerate() {
        assert!(table.candidates(&[byte; 32]).contains(&place(at as u64)), "{byte}");
    }
}

fn missing(table: &HintTable, count: u64) -> u64 {
    let is_missing = |number: &u64| !table.candidates(&id(*number)).contains(&place(*number));
    (0..count).filter(is_missing).count() as u64
}

#[test]
fn growth_keeps_entries() {
    let count = 1_500_000;
    let roomy = HintTable::new(64 << 20);
    let tight = HintTable::new(16 << 20);
    assert_eq!(roomy.memory_bytes(), 64 << 10);
    for number in 0..count {
        roomy.insert(&id(number), place(number));
        tight.insert(&id(number), place(number));
    }
    assert!(roomy.memory_bytes() <= 32 << 20, "{} bytes", roomy.memory_bytes());
    assert_eq!((roomy.len(), missing(&roomy, count)), (count, 0));
    assert_eq!(tight.memory_bytes(), 16 << 20);
    assert!(missing(&tight, count) <= count / 1000, "{} lost", missing(&tight, count));
}

#[test]
fn false_finds_are_fewer_than_one_in_a_thousand() {
    let table = HintTable::new(16 << 20);
    (0..1_500_000).for_each(|number| table.insert(&id(number), place(number)));
    let absent = 1 << 40..(1 << 40) + 200_000_u64;
    let found = absent.clone().filter(|number| !table.candidates(&id(*number)).is_empty()).count();
    assert!(found < 200, "{found} false finds");
}

#[test]
fn memory_is_bounded_and_old_entries_go_by_lot() {
    let table = HintTable::new(100_000);
    let count = 40_000;
    for number in 0..count {
        table.insert(&id(number), place(number));
        assert!(table.candidates(&id(number)).contains(&place(number)));
    }
    assert_eq!(table.memory_bytes(), 64 << 10);
    assert!(table.len() > 8000 && table.len() <= 8192);
    let kept = |range: std::ops::Range<u64>| {
        range.filter(|number| table.candidates(&id(*number)).contains(&place(*number))).count()
    };
    assert!(kept(0..10_000) > 20, "the oldest are not all gone");
    assert!(kept(30_000..40_000) > 4000, "the newest are mostly there");
    assert_eq!(HintTable::new(0).memory_bytes(), 4096);
}

#[test]
fn threads_share_it() {
    let table = HintTable::new(8 << 20);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let table = &table;
            scope.spawn(move || {
                for number in thread * 100_000..thread * 100_000 + 50_000 {
                    table.insert(&id(number), place(number));
                    assert!(table.candidates(&id(number)).contains(&place(number)));
                    if number % 3 == 0 {
                        table.remove(&id(number), place(number));
                    }
                }
            });
        }
    });
    assert!(table.len().abs_diff(4 * 33_333) < 20, "{} entries", table.len());
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u64, u64),
    Remove(u64, u64),
    Clear,
    /// Many others, so that the table doubles.
    Fill(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        20 => (0..40_u64, 0..3_u64).prop_map(|(id, place)| Step::Insert(id, place)),
        8 => (0..40_u64, 0..3_u64).prop_map(|(id, place)| Step::Remove(id, place)),
        1 => Just(Step::Clear),
        2 => (1..3000_u64).prop_map(Step::Fill),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #[test]
    fn it_holds_what_a_map_holds(steps in steps()) {
        let table = HintTable::new(1 << 20);
        let mut model: HashMap<u64, HashSet<Place>> = HashMap::new();
        let mut filled = 1000;
        for step in steps {
            match step {
                Step::Insert(number, at) => {
                    table.insert(&id(number), place(at));
                    model.entry(number).or_default().insert(place(at));
                }
                Step::Remove(number, at) => {
                    table.remove(&id(number), place(at));
                    model.entry(number).or_default().remove(&place(at));
                }
                Step::Clear => {
                    table.clear();
                    model.clear();
                }
                Step::Fill(count) => {
                    (filled..filled + count).for_each(|number| table.insert(&id(number), place(number)));
                    filled += count;
                }
            }
        }
        for (number, places) in &model {
            let found: HashSet<_> = table.candidates(&id(*number)).iter().copied().collect();
            prop_assert_eq!(&found, places);
        }
    }
}
