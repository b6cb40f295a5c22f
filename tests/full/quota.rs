//! Quotas and reservations of volumes.

use stillpoint::base::ErrorKind;

use super::fixture::{Fixture, is_full, options};
use super::ledger::{Ledger, PAGE};

const QUOTA_BYTES: u64 = 4 << 20;
/// A quota counts what is being changed too: a little less than all of it fits.
const SLACK_BYTES: u64 = 128 << 10;

#[test]
fn a_quota_stops_its_volume_alone_until_it_is_raised() {
    for background in [false, true] {
        let mut fixture = Fixture::new(64 << 20, options(background));
        let store = fixture.store.clone();
        let (mut small, mut free) = (Ledger::new(&store, "small"), Ledger::new(&store, "free"));
        for quota in [QUOTA_BYTES, 2 * QUOTA_BYTES] {
            store.set_quota("small", Some(Some(quota)), None).unwrap();
            let error = loop {
                let page = small.pages(0);
                match small.write(&store, 0, page) {
                    Ok(()) => {}
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), ErrorKind::QuotaExceeded, "{error:?}");
            let used = small.bytes();
            assert!((quota - SLACK_BYTES..=quota).contains(&used), "{used} of {quota}");
            small.sync(&store, 0).unwrap();
            free.write(&store, 0, used / PAGE).unwrap();
        }
        // Removing works at the quota, and gives room below it.
        small.write(&store, 0, 0).unwrap_err();
        small.truncate(&store, 0).unwrap();
        for page in 0..100 {
            small.write(&store, 0, page).unwrap();
        }
        store.set_quota("small", Some(None), None).unwrap();
        for page in 0..3 * QUOTA_BYTES / PAGE {
            small.write(&store, 0, page).unwrap();
        }
        store.set_quota("small", Some(Some(QUOTA_BYTES)), None).unwrap();
        let error = small.write(&store, 0, 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::QuotaExceeded, "{error:?}");
        drop(store);
        fixture.reopen();
        let error = small.write(&fixture.store, 0, 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::QuotaExceeded, "after reopening: {error:?}");
        small.verify(&fixture.store);
        free.verify(&fixture.store);
        fixture.assert_clean();
    }
}

#[test]
fn a_reservation_is_kept_from_the_others() {
    const RESERVED_BYTES: u64 = 12 << 20;
    const LEFT_OVER_BYTES: u64 = 512 << 10;
    for background in [false, true] {
        let fixture = Fixture::new(48 << 20, options(background));
        let store = fixture.store.clone();
        let (mut greedy, mut owner) = (Ledger::new(&store, "greedy"), Ledger::new(&store, "owner"));
        store.set_quota("owner", None, Some(Some(RESERVED_BYTES))).unwrap();
        let fill = |ledger: &mut Ledger| loop {
            let page = ledger.pages(0);
            if is_full(ledger.write(&store, 0, page)) {
                break;
            }
        };
        fill(&mut greedy);
        greedy.sync(&store, 0).unwrap();
        let left = store.space().available_bytes;
        println!("background {background}: {left} bytes are left beside {} taken", greedy.bytes());
        // Less what the last checkpoint took for directories and nodes.
        assert!(left >= RESERVED_BYTES * 98 / 100, "{left}");
        // The owner has it, although it is full for the other: that one gets what a checkpoint left over at most.
        let greedy_bytes = greedy.bytes();
        for page in 0..RESERVED_BYTES / PAGE * 9 / 10 {
            owner.write(&store, 0, page).unwrap();
            if page % 100 == 0 {
                owner.sync(&store, 0).unwrap();
                fill(&mut greedy);
            }
        }
        owner.sync(&store, 0).unwrap();
        let got = greedy.bytes() - greedy_bytes;
        assert!(got < LEFT_OVER_BYTES, "{got}");
        // Without the reservation the rest is anybody's.
        store.set_quota("owner", None, Some(None)).unwrap();
        let before = greedy.bytes();
        fill(&mut greedy);
        assert!(greedy.bytes() > before);
        greedy.verify(&store);
        owner.verify(&store);
        fixture.verify_crashes(7, &[&greedy, &owner]);
        fixture.assert_clean();
    }
}
