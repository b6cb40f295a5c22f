//! Collection, scrub and check over simulated storage.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use stillpoint::base::sim::SimStorage;
use stillpoint::base::{SeededRandom, SimClock, Storage};
use stillpoint::maintain::{CollectOptions, ScrubOptions, check, collect, scrub};
use stillpoint::volume::*;

fn environment() -> Environment {
    let start = std::time::Duration::from_secs(1_700_000_000);
    Environment {
        clock: Arc::new(SimClock::new(start, std::time::Duration::from_micros(10))),
        random: Arc::new(SeededRandom::new(1)),
    }
}

fn options() -> OpenOptions {
    OpenOptions {
        background: false,
        dirty_bytes_soft: 1 << 20,
        dirty_bytes_max: 4 << 20,
        segment_bytes: 1 << 20,
        content_cache_bytes: 0,
        ..OpenOptions::default()
    }
}

fn new_store() -> (SimStorage, Arc<Store>) {
    let sim = SimStorage::new();
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    Store::create(storage.clone(), &environment(), &CreateOptions { journal_bytes: 1 << 20 }).unwrap();
    (sim, Store::open(storage, &environment(), &options()).unwrap())
}

/// Half noise, half pattern: compresses about two to one.
fn page(seed: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(8192);
    for n in 0..128u64 {
        out.extend_from_slice(blake3::hash(&(seed * 1000 + n).to_le_bytes()).as_bytes());
    }
    out.resize(8192, seed as u8);
    out
}

fn fill(view: &View, name: &[u8], pages: std::ops::Range<u64>, salt: u64) -> Ino {
    let ino = match view.lookup(ROOT_INO, name) {
        Ok(found) => found.ino,
        Err(_) => view.create(ROOT_INO, name, NewNode::File, 0o644, Owner::default()).unwrap().ino,
    };
    for n in pages {
        view.write(ino, n * 8192, &page(n + salt)).unwrap();
    }
    ino
}

fn assert_clean(store: &Store) {
    let report = check(store, &mut |_| {}).unwrap();
    assert_eq!(report.findings, Vec::new());
}

#[test]
fn destroying_frees_what_is_listed_as_unique() {
    let (_sim, store) = new_store();
    let view = store.create_volume("pg").unwrap();
    fill(&view, b"a", 0..1000, 0);
    let mut state = 7u64;
    for round in 1..=5u64 {
        store.create_snapshot("pg", &format!("s{round}")).unwrap();
        for _ in 0..200 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let n = (state >> 33) % 1000;
            fill(&view, b"a", n..n + 1, round * 100_000);
        }
    }
    assert_clean(&store);
    collect(&store, &CollectOptions::default(), &mut ()).unwrap();
    for victim in ["s3", "s1", "s5"] {
        let listed = store.snapshot_info("pg", victim).unwrap().unique_bytes;
        let before = store.stats().unwrap();
        store.destroy_snapshot("pg", victim).unwrap();
        store.checkpoint().unwrap();
        let after = store.stats().unwrap();
        let freed = before.live_bytes - after.live_bytes;
        assert_eq!(freed, listed, "{victim}");
        assert!(listed > 0);
        collect(&store, &CollectOptions::default(), &mut ()).unwrap();
        let collected = store.stats().unwrap();
        let physical = before.physical_bytes - collected.physical_bytes;
        let off = physical.abs_diff(listed) as f64 / listed as f64;
        assert!(off < 0.25, "{victim}: {physical} of {listed}");
        assert_clean(&store);
    }
    let listed = store.volume_info("pg").unwrap().unique_bytes;
    assert!(listed > 0);
    store.destroy_volume_with_snapshots("pg").unwrap();
    collect(&store, &CollectOptions::default(), &mut ()).unwrap();
    assert_eq!(store.stats().unwrap().live_bytes, 0);
}

#[test]
fn compaction_keeps_every_page() {
    let (sim, store) = new_store();
    let view = store.create_volume("pg").unwrap();
    let ino = fill(&view, b"a", 0..1500, 0);
    for n in (0..1500).filter(|n| n % 3 != 0) {
        view.write(ino, n * 8192, &page(n + 50_000)).unwrap();
        if n % 200 == 0 {
            store.checkpoint().unwrap();
        }
    }
    let report = collect(&store, &CollectOptions::default(), &mut ()).unwrap();
    assert!(report.segments_rewritten > 0, "{report:?}");
    let verify = |view: &View| {
        for n in 0..1500 {
            let salt = if n % 3 == 0 { 0 } else { 50_000 };
            assert_eq!(view.read(ino, n * 8192, 8192).unwrap(), page(n + salt), "{n}");
        }
    };
    verify(&view);
    assert_clean(&store);
    drop(view);
    store.close().unwrap();
    drop(store);
    let store = Store::open(Arc::new(sim.clone()), &environment(), &options()).unwrap();
    verify(&store.volume("pg").unwrap());
    assert_clean(&store);
}

#[test]
fn scrub_finds_a_flipped_bit_and_names_the_file() {
    let (sim, store) = new_store();
    let view = store.create_volume("pg").unwrap();
    view.create(ROOT_INO, b"dir", NewNode::Directory, 0o755, Owner::default()).unwrap();
    fill(&view, b"table", 0..200, 0);
    store.create_snapshot("pg", "s").unwrap();
    store.checkpoint().unwrap();
    let clean = scrub(&store, &ScrubOptions::default(), &mut ()).unwrap();
    assert_eq!(clean.findings, Vec::new());
    assert!(clean.bytes > 100 * 4096);
    let name =
        sim.files().into_iter().map(|(name, _)| name).find(|name| name.starts_with("segments/")).unwrap();
    sim.flip_bit(&name, 50_000, 3).unwrap();
    let report = scrub(&store, &ScrubOptions::default(), &mut ()).unwrap();
    assert_eq!(report.damaged, 1);
    let objects: Vec<&str> = report.findings.iter().map(|finding| finding.object.as_str()).collect();
    assert!(objects.iter().any(|object| object.starts_with("pg:/table bytes")), "{objects:?}");
    assert!(objects.iter().any(|object| object.starts_with("pg@s:/table bytes")), "{objects:?}");
}
