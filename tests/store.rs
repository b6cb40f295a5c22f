//! The store as a library: volumes, snapshots and clones over simulated storage.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use stillpoint::base::sim::SimStorage;
use stillpoint::base::{SeededRandom, Storage};
use stillpoint::volume::*;

fn environment() -> Environment {
    Environment {
        clock: Arc::new(stillpoint::base::SimClock::new(
            std::time::Duration::from_secs(1_700_000_000),
            std::time::Duration::from_micros(10),
        )),
        random: Arc::new(SeededRandom::new(1)),
    }
}

fn small() -> OpenOptions {
    OpenOptions {
        background: false,
        dirty_bytes_soft: 1 << 20,
        dirty_bytes_max: 2 << 20,
        segment_bytes: 1 << 20,
        ..OpenOptions::default()
    }
}

fn new_store() -> (SimStorage, Arc<Store>) {
    let sim = SimStorage::new();
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    Store::create(storage.clone(), &environment(), &CreateOptions { journal_bytes: 1 << 20 }).unwrap();
    let store = Store::open(storage, &environment(), &small()).unwrap();
    (sim, store)
}

fn reopen(sim: &SimStorage, store: Arc<Store>) -> Arc<Store> {
    store.close().unwrap();
    drop(store);
    Store::open(Arc::new(sim.clone()), &environment(), &small()).unwrap()
}

fn page(seed: u32) -> Vec<u8> {
    (0..2048u32).flat_map(|n| (n / 7).wrapping_mul(seed).to_le_bytes()).collect()
}

fn make_file(view: &View, name: &[u8]) -> Ino {
    view.create(ROOT_INO, name, NewNode::File, 0o644, Owner::default()).unwrap().ino
}

#[test]
fn data_survives_checkpoint_and_reopen() {
    let (sim, store) = new_store();
    let view = store.create_volume("pg").unwrap();
    let ino = make_file(&view, b"a");
    for n in 0..300u32 {
        view.write(ino, u64::from(n) * 8192, &page(n + 1)).unwrap();
    }
    view.write(ino, 300 * 8192 + 100, b"tail").unwrap();
    store.checkpoint().unwrap();
    for n in 0..300u32 {
        assert_eq!(view.read(ino, u64::from(n) * 8192, 8192).unwrap(), page(n + 1), "{n}");
    }
    drop(view);
    let store = reopen(&sim, store);
    let view = store.volume("pg").unwrap();
    let ino = view.lookup(ROOT_INO, b"a").unwrap().ino;
    for n in 0..300u32 {
        assert_eq!(view.read(ino, u64::from(n) * 8192, 8192).unwrap(), page(n + 1), "{n}");
    }
    assert_eq!(view.read(ino, 300 * 8192, 8192).unwrap().len(), 104);
    assert_eq!(view.read(ino, 300 * 8192 + 100, 8192).unwrap(), b"tail");
}

#[test]
fn synced_data_survives_without_a_checkpoint() {
    let (sim, store) = new_store();
    let view = store.create_volume("pg").unwrap();
    let ino = make_file(&view, b"a");
    view.write(ino, 5, b"hello").unwrap();
    view.flush().unwrap();
    view.write(ino, 5, b"HELLO").unwrap();
    let crashed = sim.after_crash(stillpoint::base::sim::Landing::None);
    let store2 = Store::open(Arc::new(crashed), &environment(), &small()).unwrap();
    let view2 = store2.volume("pg").unwrap();
    let ino2 = view2.lookup(ROOT_INO, b"a").unwrap().ino;
    assert_eq!(view2.read(ino2, 0, 100).unwrap(), b"\0\0\0\0\0hello");
}

#[test]
fn snapshots_do_not_change_and_clones_diverge() {
    let (sim, store) = new_store();
    let view = store.create_volume("pg").unwrap();
    let ino = make_file(&view, b"a");
    for n in 0..50u32 {
        view.write(ino, u64::from(n) * 8192, &page(n + 1)).unwrap();
    }
    store.create_snapshot("pg", "s1").unwrap();
    for n in 0..25u32 {
        view.write(ino, u64::from(n) * 8192, &page(n + 1000)).unwrap();
    }
    store.create_snapshot("pg", "s2").unwrap();
    let clone = store.create_clone("pg", "s1", "vdb").unwrap();
    clone.write(ino, 49 * 8192, &page(5000)).unwrap();
    let verify = |store: &Store| {
        let s1 = store.snapshot("pg", "s1").unwrap();
        let s2 = store.snapshot("pg", "s2").unwrap();
        let vdb = store.volume("vdb").unwrap();
        for n in 0..50u32 {
            let at = u64::from(n) * 8192;
            assert_eq!(s1.read(ino, at, 8192).unwrap(), page(n + 1));
            let new = if n < 25 { page(n + 1000) } else { page(n + 1) };
            assert_eq!(s2.read(ino, at, 8192).unwrap(), new);
            let cloned = if n == 49 { page(5000) } else { page(n + 1) };
            assert_eq!(vdb.read(ino, at, 8192).unwrap(), cloned);
        }
        assert!(s1.write(ino, 0, b"x").is_err());
    };
    verify(&store);
    store.checkpoint().unwrap();
    verify(&store);
    drop((view, clone));
    let store = reopen(&sim, store);
    verify(&store);
    let before = store.snapshot_info("pg", "s2").unwrap();
    let s1 = store.snapshot_info("pg", "s1").unwrap();
    assert_eq!(before.logical_bytes, 50 * 8192);
    assert!(s1.clones == ["vdb"]);
    store.destroy_snapshot("pg", "s1").unwrap();
    store.checkpoint().unwrap();
    let vdb = store.volume("vdb").unwrap();
    assert_eq!(vdb.read(ino, 0, 8192).unwrap(), page(1));
}

#[test]
fn equal_pages_are_stored_once() {
    let (_sim, store) = new_store();
    for name in ["a", "b"] {
        let view = store.create_volume(name).unwrap();
        let ino = make_file(&view, b"f");
        for n in 0..100u32 {
            view.write(ino, u64::from(n) * 8192, &page(n + 1)).unwrap();
        }
        store.checkpoint().unwrap();
    }
    let stats = store.stats().unwrap();
    assert_eq!(stats.logical_bytes, 200 * 8192);
    assert_eq!(stats.stored_bytes, 100 * 8192);
    assert!(stats.dedup_ratio > 1.99);
}

#[test]
fn what_was_destroyed_no_longer_counts_as_a_sharer() {
    let (_sim, store) = new_store();
    let view = store.create_volume("pg").unwrap();
    let ino = make_file(&view, b"a");
    view.write(ino, 0, &page(1)).unwrap();
    store.create_snapshot("pg", "s").unwrap();
    view.write(ino, 0, &page(2)).unwrap();
    store.create_clone("pg", "s", "clone").unwrap();
    assert!(store.snapshot_info("pg", "s").unwrap().unique_bytes < 4096);
    store.destroy_volume("clone").unwrap();
    assert!(store.snapshot_info("pg", "s").unwrap().unique_bytes > page(1).len() as u64 / 100);
}

#[test]
fn the_journal_takes_only_what_changed_of_a_page() {
    let (sim, store) = new_store();
    let view = store.create_volume("pg").unwrap();
    let ino = make_file(&view, b"wal");
    let mut bytes = page(3);
    view.write(ino, 0, &bytes).unwrap();
    view.flush().unwrap();
    let written = || {
        let ring = sim.read_raw("journal").unwrap();
        ring.chunks(4096).filter(|page| page.iter().any(|byte| *byte != 0)).count()
    };
    let before = written();
    for n in 0..20 {
        bytes[100 + n * 300..200 + n * 300].fill(0xA5);
        view.write(ino, 0, &bytes).unwrap();
        view.flush().unwrap();
    }
    // One page of the ring each, where the whole page would take three.
    assert_eq!(written() - before, 20);
    let crashed = sim.after_crash(stillpoint::base::sim::Landing::None);
    let store = Store::open(Arc::new(crashed), &environment(), &small()).unwrap();
    assert_eq!(store.volume("pg").unwrap().read(ino, 0, 8192).unwrap(), bytes);
}
