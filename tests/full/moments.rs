//! The limit met at a chosen moment: in a checkpoint, in compaction, in a snapshot of much unsynced data, and
//! with no byte left because somebody else took them.

use stillpoint::base::ErrorKind;
use stillpoint::maintain::{CollectOptions, collect};
use stillpoint::volume::OpenOptions;

use super::common;
use super::fixture::{Fixture, is_full, options};
use super::ledger::Ledger;
use stillpoint::base::Random;

const TOTAL_BYTES: u64 = 40 << 20;
/// Bytes left when the moment comes: each lets the work come a little further.
const LEFT_BYTES: [u64; 10] =
    [0, 4 << 10, 12 << 10, 64 << 10, 256 << 10, 700 << 10, 1400 << 10, 2 << 20, 3 << 20, 5 << 20];

/// Memory for all that a test changes: no checkpoint begins by itself.
fn patient() -> OpenOptions {
    OpenOptions { dirty_bytes_soft: 16 << 20, dirty_bytes_max: 32 << 20, ..options(false) }
}

fn write_all(fixture: &Fixture, ledger: &mut Ledger, file: u32, pages: u64) {
    for page in 0..pages {
        ledger.write(&fixture.store, file, page).unwrap();
    }
}

fn limit(fixture: &Fixture, left: u64) {
    fixture.sim.set_total_bytes(Some(fixture.used_bytes() + left));
}

#[test]
fn in_a_checkpoint() {
    let random = common::random("in_a_checkpoint");
    let mut refused = 0;
    for left in LEFT_BYTES {
        let fixture = Fixture::new(TOTAL_BYTES, patient());
        let mut ledger = Ledger::new(&fixture.store, "v");
        write_all(&fixture, &mut ledger, 0, 100);
        ledger.snapshot(&fixture.store, "s").unwrap();
        fixture.store.checkpoint().unwrap();
        write_all(&fixture, &mut ledger, 0, 5);
        ledger.sync(&fixture.store, 0).unwrap();
        write_all(&fixture, &mut ledger, 1, 400);
        limit(&fixture, left);
        refused += u32::from(is_full(fixture.store.checkpoint()));
        ledger.verify(&fixture.store);
        fixture.verify_crashes(random.next_u64(), &[&ledger]);
        fixture.sim.set_total_bytes(Some(TOTAL_BYTES));
        fixture.store.checkpoint().unwrap();
        ledger.verify(&fixture.store);
        fixture.assert_clean();
        fixture.verify_crashes(random.next_u64(), &[&ledger]);
    }
    assert!(refused > 2 && refused < LEFT_BYTES.len() as u32, "{refused} checkpoints were refused");
}

#[test]
fn in_compaction() {
    let random = common::random("in_compaction");
    let (mut refused, mut freed) = (0, 0);
    for left in LEFT_BYTES {
        let mut fixture = Fixture::new(TOTAL_BYTES, patient());
        let mut ledger = Ledger::new(&fixture.store, "v");
        write_all(&fixture, &mut ledger, 0, 800);
        fixture.store.checkpoint().unwrap();
        for page in (0..800).filter(|page| page % 3 > 0) {
            ledger.write(&fixture.store, 0, page).unwrap();
        }
        ledger.sync(&fixture.store, 0).unwrap();
        fixture.store.checkpoint().unwrap();
        limit(&fixture, left);
        match collect(&fixture.store, &CollectOptions::default(), &mut ()) {
            Ok(report) => freed += report.freed_bytes,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
                refused += 1;
            }
        }
        ledger.verify(&fixture.store);
        fixture.verify_crashes(random.next_u64(), &[&ledger]);
        fixture.sim.set_total_bytes(Some(TOTAL_BYTES));
        collect(&fixture.store, &CollectOptions::default(), &mut ()).unwrap();
        fixture.reopen();
        ledger.verify(&fixture.store);
        fixture.assert_clean();
    }
    println!("{refused} collections were refused, the others freed {freed} bytes");
    assert!(freed > 0);
}

#[test]
fn in_a_snapshot_of_much_unsynced_data() {
    let random = common::random("in_a_snapshot_of_much_unsynced_data");
    let mut refused = 0;
    for left in LEFT_BYTES {
        let fixture = Fixture::new(TOTAL_BYTES, patient());
        let mut ledger = Ledger::new(&fixture.store, "v");
        write_all(&fixture, &mut ledger, 0, 50);
        ledger.sync(&fixture.store, 0).unwrap();
        write_all(&fixture, &mut ledger, 1, 400);
        limit(&fixture, left);
        if is_full(ledger.snapshot(&fixture.store, "s")) {
            refused += 1;
            assert!(fixture.store.snapshot("v", "s").is_err());
        }
        ledger.verify(&fixture.store);
        fixture.verify_crashes(random.next_u64(), &[&ledger]);
        fixture.sim.set_total_bytes(Some(TOTAL_BYTES));
        ledger.snapshot(&fixture.store, "later").unwrap();
        write_all(&fixture, &mut ledger, 1, 20);
        ledger.verify(&fixture.store);
        fixture.verify_crashes(random.next_u64(), &[&ledger]);
        fixture.assert_clean();
    }
    assert!(refused > 2 && refused < LEFT_BYTES.len() as u32, "{refused} snapshots were refused");
}

#[derive(Clone, Copy, Debug)]
enum Way {
    DestroySnapshot,
    DestroyVolume,
    Unlink,
    Truncate,
}

#[test]
fn with_no_byte_left_by_others() {
    let random = common::random("with_no_byte_left_by_others");
    for background in [false, true] {
        for way in [Way::DestroySnapshot, Way::DestroyVolume, Way::Unlink, Way::Truncate] {
            println!("{way:?}, background: {background}");
            let mut fixture = Fixture::new(TOTAL_BYTES, options(background));
            let mut ledger = Ledger::new(&fixture.store, "v");
            let mut other = Ledger::new(&fixture.store, "other");
            write_all(&fixture, &mut ledger, 0, 500);
            write_all(&fixture, &mut other, 0, 500);
            ledger.snapshot(&fixture.store, "s").unwrap();
            write_all(&fixture, &mut ledger, 0, 500);
            write_all(&fixture, &mut ledger, 1, 500);
            ledger.sync(&fixture.store, 0).unwrap();
            ledger.sync(&fixture.store, 1).unwrap();
            other.sync(&fixture.store, 0).unwrap();
            fixture.store.checkpoint().unwrap();
            fixture.leave_nothing();
            fixture.store.checkpoint().unwrap();
            ledger.verify(&fixture.store);
            fixture.verify_crashes(random.next_u64(), &[&ledger, &other]);
            match way {
                Way::DestroySnapshot => ledger.destroy_snapshot(&fixture.store, "s").unwrap(),
                Way::DestroyVolume => fixture.store.destroy_volume("other").unwrap(),
                Way::Unlink => ledger.unlink(&fixture.store, 1).unwrap(),
                Way::Truncate => ledger.truncate(&fixture.store, 1).unwrap(),
            }
            fixture.reclaim();
            for page in 0..50 {
                fixture.until_resumed(|| ledger.write(&fixture.store, 9, page));
            }
            fixture.until_resumed(|| ledger.sync(&fixture.store, 9));
            ledger.verify(&fixture.store);
            fixture.verify_crashes(random.next_u64(), &[&ledger]);
            fixture.reopen();
            ledger.verify(&fixture.store);
            fixture.assert_clean();
        }
    }
}

/// No checkpoint can free the journal's ring: an fsync is refused instead of waiting for ever, and the ring keeps room
/// for what is destroyed.
#[test]
fn with_a_journal_that_no_checkpoint_frees() {
    for background in [false, true] {
        println!("background: {background}");
        let fixture = Fixture::new(TOTAL_BYTES, OpenOptions { background, ..patient() });
        let mut ledger = Ledger::new(&fixture.store, "v");
        write_all(&fixture, &mut ledger, 0, 1000);
        ledger.snapshot(&fixture.store, "s").unwrap();
        write_all(&fixture, &mut ledger, 0, 1000);
        fixture.store.checkpoint().unwrap();
        write_all(&fixture, &mut ledger, 1, 400);
        fixture.leave_nothing();
        let refused = (0..1000).any(|number| {
            ledger.write(&fixture.store, 2, number % 8).unwrap();
            is_full(ledger.sync(&fixture.store, 2))
        });
        assert!(refused);
        assert!(is_full(ledger.snapshot(&fixture.store, "later")));
        ledger.destroy_snapshot(&fixture.store, "s").unwrap();
        ledger.verify(&fixture.store);
        fixture.verify_crashes(1, &[&ledger]);
        // What was destroyed is room enough, though no checkpoint could store what waits before it went.
        fixture.until_resumed(|| ledger.write(&fixture.store, 2, 8));
        fixture.until_resumed(|| ledger.sync(&fixture.store, 2));
        ledger.snapshot(&fixture.store, "later").unwrap();
        ledger.verify(&fixture.store);
        fixture.assert_clean();
    }
}

/// A crash at every step of giving room back by removals alone: the journal then replays over a root table that lacks
/// what it destroys.
#[test]
fn in_the_removal_that_makes_room() {
    let (mut crashes, mut done) = (0, false);
    for point in (0..).step_by(2) {
        let fixture = Fixture::new(TOTAL_BYTES, patient());
        let mut ledger = Ledger::new(&fixture.store, "v");
        write_all(&fixture, &mut ledger, 0, 700);
        ledger.snapshot(&fixture.store, "s").unwrap();
        write_all(&fixture, &mut ledger, 0, 700);
        fixture.store.checkpoint().unwrap();
        // In the journal, about a snapshot that goes: a hold, and one that comes and goes itself.
        fixture.store.hold("v", "s", "tag").unwrap();
        fixture.store.release("v", "s", "tag").unwrap();
        ledger.snapshot(&fixture.store, "short").unwrap();
        ledger.destroy_snapshot(&fixture.store, "short").unwrap();
        write_all(&fixture, &mut ledger, 1, 400);
        for number in 0..10 {
            ledger.write(&fixture.store, 2, number).unwrap();
            ledger.sync(&fixture.store, 2).unwrap();
        }
        fixture.leave_nothing();
        assert!(is_full(fixture.store.checkpoint()));
        ledger.destroy_snapshot(&fixture.store, "s").unwrap();
        fixture.sim.crash_at(fixture.sim.operations() + point);
        let result = fixture.store.checkpoint();
        fixture.verify_crashes(point, &[&ledger]);
        if fixture.sim.crashed().is_none() {
            result.unwrap();
            done = true;
            break;
        }
        crashes += 1;
    }
    println!("{crashes} crashes");
    assert!(done && crashes > 10);
}
