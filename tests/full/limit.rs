//! Filling a store to the brim, making room, and filling it again.

use std::thread;

use stillpoint::base::{Random, SeededRandom};

use super::common;
use super::fixture::{Fixture, is_full, options};
use super::ledger::Ledger;

const TOTAL_BYTES: u64 = 40 << 20;
/// Of the disk, what data that does not compress can take at least, in percent. The rest is the journal, the
/// reserve, the root table with its copy and what a checkpoint needs.
const DATA_PERCENT: u64 = 78;
const ROUNDS: u32 = 3;
const THREADS: u32 = 3;

/// One random step of a writer. Answers whether there was no space for it.
fn step(fixture: &Fixture, ledger: &mut Ledger, random: &SeededRandom, files: u32, grow: bool) -> bool {
    let file = (random.next_u64() % u64::from(files)) as u32;
    let pages = ledger.pages(file);
    let store = &fixture.store;
    match random.next_u64() % 20 {
        0 => is_full(ledger.sync(store, file)),
        1..=4 if !grow && pages > 0 => is_full(ledger.write(store, file, random.next_u64() % pages)),
        5 if !grow && ledger.snapshot_names().len() < 3 && random.next_u64().is_multiple_of(30) => {
            let name = format!("s{}", random.next_u64());
            is_full(ledger.snapshot(store, &name))
        }
        _ => is_full(ledger.write(store, file, pages)),
    }
}

/// Removes what should give room: one of the ways, by turns.
fn make_room(fixture: &Fixture, ledger: &mut Ledger, way: u32) {
    let store = &fixture.store;
    let snapshots = ledger.snapshot_names();
    let files = ledger.file_numbers();
    // What snapshots hold does not come back by changing the volume.
    for name in &snapshots {
        ledger.destroy_snapshot(store, name).unwrap();
    }
    match way % 2 {
        0 => ledger.unlink(store, files[0]).unwrap(),
        _ => ledger.truncate(store, files[0]).unwrap(),
    }
    fixture.reclaim();
}

#[test]
fn what_fits_is_most_of_the_disk() {
    for background in [false, true] {
        let fixture = Fixture::new(TOTAL_BYTES, options(background));
        let mut ledger = Ledger::new(&fixture.store, "v");
        let random = SeededRandom::new(1);
        while !step(&fixture, &mut ledger, &random, 3, true) {}
        let percent = ledger.bytes() * 100 / TOTAL_BYTES;
        println!("background {background}: data takes {percent} % of a full disk");
        assert!(percent >= DATA_PERCENT, "{percent}");
        ledger.verify(&fixture.store);
        fixture.assert_clean();
    }
}

#[test]
fn one_writer_fills_removes_and_goes_on() {
    let random = common::random("one_writer_fills_removes_and_goes_on");
    let mut fixture = Fixture::new(TOTAL_BYTES, options(false));
    let mut ledger = Ledger::new(&fixture.store, "v");
    let mut other = Ledger::new(&fixture.store, "other");
    for page in 0..200 {
        other.write(&fixture.store, 0, page).unwrap();
    }
    other.sync(&fixture.store, 0).unwrap();
    for round in 0..ROUNDS {
        let mut steps = 0;
        while !step(&fixture, &mut ledger, &random, 4, false) {
            steps += 1;
        }
        println!("round {round}: full after {steps} steps with {} bytes of data", ledger.bytes());
        assert!(steps > 100, "{steps}");
        // Full stays full, and harms nothing, however often it is tried.
        for _ in 0..20 {
            step(&fixture, &mut ledger, &random, 4, false);
        }
        ledger.verify(&fixture.store);
        fixture.verify_crashes(random.next_u64(), &[&ledger, &other]);
        make_room(&fixture, &mut ledger, round);
        fixture.until_resumed(|| ledger.write(&fixture.store, 9, 0));
        fixture.until_resumed(|| ledger.sync(&fixture.store, 9));
        ledger.verify(&fixture.store);
        fixture.verify_crashes(random.next_u64(), &[&ledger, &other]);
    }
    while !step(&fixture, &mut ledger, &random, 4, false) {}
    fixture.reopen();
    ledger.verify(&fixture.store);
    other.verify(&fixture.store);
    fixture.store.destroy_volume("other").unwrap();
    fixture.reclaim();
    fixture.until_resumed(|| ledger.write(&fixture.store, 9, 1));
    ledger.verify(&fixture.store);
    fixture.assert_clean();
}

#[test]
fn threads_fill_remove_and_go_on() {
    let random = common::random("threads_fill_remove_and_go_on");
    let mut fixture = Fixture::new(TOTAL_BYTES, options(true));
    let mut ledgers: Vec<Ledger> =
        (0..THREADS).map(|n| Ledger::new(&fixture.store, &format!("v{n}"))).collect();
    for round in 0..ROUNDS {
        let seeds: Vec<u64> = ledgers.iter().map(|_| random.next_u64()).collect();
        thread::scope(|scope| {
            for (ledger, seed) in ledgers.iter_mut().zip(seeds) {
                let fixture = &fixture;
                scope.spawn(move || {
                    let random = SeededRandom::new(seed);
                    while !step(fixture, ledger, &random, 3, false) {}
                });
            }
        });
        let bytes: u64 = ledgers.iter().map(Ledger::bytes).sum();
        println!("round {round}: full with {bytes} bytes of data");
        ledgers.iter().for_each(|ledger| ledger.verify(&fixture.store));
        fixture.verify_crashes(random.next_u64(), &ledgers.iter().collect::<Vec<_>>());
        // All of them make room and go on at once.
        thread::scope(|scope| {
            for ledger in &mut ledgers {
                let fixture = &fixture;
                scope.spawn(move || {
                    make_room(fixture, ledger, round);
                    for page in 0..20 {
                        fixture.until_resumed(|| ledger.write(&fixture.store, 9, page));
                    }
                    fixture.until_resumed(|| ledger.sync(&fixture.store, 9));
                });
            }
        });
        ledgers.iter().for_each(|ledger| ledger.verify(&fixture.store));
        fixture.assert_clean();
    }
    fixture.reopen();
    ledgers.iter().for_each(|ledger| ledger.verify(&fixture.store));
    fixture.store.destroy_volume(&ledgers.pop().unwrap().volume).unwrap();
    fixture.until_resumed(|| ledgers[0].write(&fixture.store, 10, 0));
    ledgers.iter().for_each(|ledger| ledger.verify(&fixture.store));
    fixture.assert_clean();
}
