//! Everything at once, bounded by counts: writers, snapshots, clones, destroys in any order, maintenance, lists.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use parking_lot::Mutex;
use stillpoint::base::sim::SimStorage;
use stillpoint::base::{Random, SeededRandom};
use stillpoint::maintain::{CollectOptions, ScrubOptions, collect, scrub};
use stillpoint::volume::*;

use super::common;
use super::page::{PAGE, Stamp, hash, make};
use super::places::{Place, assert_clean};
use super::writer::Volume;

const WRITERS: u64 = 3;
const FIRST_STEPS: u64 = 10;
const STEPS: u64 = 10_000;
/// Threads that take snapshots.
const CUTTERS: u64 = 2;
const SNAPSHOTS: u64 = 60;
const CHANGES: u64 = 150;
const ROUNDS: u64 = 12;

/// A snapshot and what it must show for ever.
struct Kept {
    volume: String,
    name: String,
    hash: blake3::Hash,
}

/// Ends the waiting of others when its thread fails.
struct Departure<'a>(&'a Objects);

impl Drop for Departure<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.cuts.store(u64::MAX / 2, Ordering::SeqCst);
        }
    }
}

/// What was made and not destroyed. Who takes an entry out is the only one that destroys it.
#[derive(Default)]
struct Objects {
    snapshots: Mutex<Vec<Kept>>,
    /// Clones, with what they show.
    clones: Mutex<Vec<(String, blake3::Hash)>>,
    made: AtomicU64,
    /// Snapshots of the volumes that were made.
    cuts: AtomicU64,
}

fn take<T>(from: &Mutex<Vec<T>>, random: &SeededRandom) -> Option<T> {
    let mut from = from.lock();
    if from.is_empty() {
        return None;
    }
    let index = random.next_u64() as usize % from.len();
    Some(from.swap_remove(index))
}

fn cut(store: &Store, volumes: &[Volume], objects: &Objects, seed: u64) {
    let _departure = Departure(objects);
    let random = SeededRandom::new(seed);
    for number in 0..SNAPSHOTS {
        let volume = &volumes[random.next_u64() as usize % volumes.len()];
        let name = format!("s{seed}-{number}");
        let before = volume.returned();
        store.create_snapshot(&volume.name, &name).unwrap();
        let view = store.snapshot(&volume.name, &name).unwrap();
        volume.verify_cut(&view, &before);
        let kept = Kept { volume: volume.name.clone(), name, hash: hash(&view) };
        objects.snapshots.lock().push(kept);
        objects.cuts.fetch_add(1, Ordering::SeqCst);
    }
}

fn change(store: &Store, objects: &Objects, seed: u64) {
    let random = SeededRandom::new(seed);
    for number in 0..CHANGES {
        // As the snapshots come, not before them.
        while objects.cuts.load(Ordering::SeqCst) < CUTTERS * SNAPSHOTS * number / CHANGES {
            thread::yield_now();
        }
        match random.next_u64() % 10 {
            0..5 => make_clone(store, objects, &random),
            5..8 => {
                let Some(kept) = take(&objects.snapshots, &random) else { continue };
                let view = store.snapshot(&kept.volume, &kept.name).unwrap();
                assert_eq!(hash(&view), kept.hash, "{} changed", view.name());
                store.destroy_snapshot(&kept.volume, &kept.name).unwrap();
            }
            _ => {
                let Some((name, expected)) = take(&objects.clones, &random) else { continue };
                assert_eq!(hash(&store.volume(&name).unwrap()), expected, "{name} changed");
                // Another thread may be making a snapshot's clone: snapshots of it are its own to destroy.
                objects.snapshots.lock().retain(|kept| kept.volume != name);
                store.destroy_volume_with_snapshots(&name).unwrap();
            }
        }
    }
}

/// A clone shows its snapshot, is written, is cut itself, and the snapshot stays as it is.
fn make_clone(store: &Store, objects: &Objects, random: &SeededRandom) {
    let Some(kept) = take(&objects.snapshots, random) else { return };
    let number = objects.made.fetch_add(1, Ordering::SeqCst);
    let name = format!("c{number}");
    let clone = store.create_clone(&kept.volume, &kept.name, &name).unwrap();
    assert_eq!(hash(&clone), kept.hash, "{name} of {}@{}", kept.volume, kept.name);
    let entries = clone.list_directory(ROOT_INO, 0, usize::MAX).unwrap();
    for _ in 0..20 {
        let ino = entries[random.next_u64() as usize % entries.len()].ino;
        let pages = clone.attributes(ino).unwrap().size.div_ceil(PAGE as u64);
        let page = random.next_u64() % (pages + 1);
        let stamp = Stamp { writer: 1000 + number, number: random.next_u64() };
        clone.write(ino, page * PAGE as u64, &make(ino, page, stamp)).unwrap();
    }
    let written = hash(&clone);
    assert_ne!(written, kept.hash);
    if random.next_u64().is_multiple_of(2) {
        store.create_snapshot(&name, "own").unwrap();
        let own = Kept { volume: name.clone(), name: "own".to_owned(), hash: written };
        assert_eq!(hash(&store.snapshot(&name, "own").unwrap()), written);
        objects.snapshots.lock().push(own);
    }
    objects.clones.lock().push((name, written));
    let snapshot = store.snapshot(&kept.volume, &kept.name).unwrap();
    assert_eq!(hash(&snapshot), kept.hash, "{} changed", snapshot.name());
    objects.snapshots.lock().push(kept);
}

fn maintain(store: &Store, volumes: &[Volume]) {
    for round in 0..ROUNDS {
        if round % 2 == 0 {
            collect(store, &CollectOptions::default(), &mut ()).unwrap();
        }
        let scrubbed = scrub(store, &ScrubOptions::default(), &mut ()).unwrap();
        assert_eq!((scrubbed.damaged, scrubbed.findings), (0, Vec::new()));
        assert_clean(store);
    }
    list(store, volumes);
}

fn list(store: &Store, volumes: &[Volume]) {
    for _ in 0..ROUNDS {
        let found = store.volumes().unwrap();
        assert!(found.is_sorted_by(|a, b| a.name < b.name));
        for volume in volumes {
            let info = found.iter().find(|info| info.name == volume.name).unwrap();
            assert!(info.unique_bytes <= info.referenced_bytes + (1 << 20) && info.logical_bytes > 0);
        }
        for info in store.snapshots(None).unwrap() {
            assert!(info.volume.starts_with(['v', 'c']) && info.logical_bytes > 0, "{info:?}");
        }
        let stats = store.stats().unwrap();
        assert!(stats.volumes >= WRITERS && stats.live_bytes <= stats.physical_bytes, "{stats:?}");
    }
}

fn verify(store: &Store, volumes: &[Volume], objects: &Objects) {
    volumes.iter().for_each(|volume| volume.verify(store));
    for kept in objects.snapshots.lock().iter() {
        let view = store.snapshot(&kept.volume, &kept.name).unwrap();
        assert_eq!(hash(&view), kept.hash, "{} changed", view.name());
    }
    for (name, expected) in objects.clones.lock().iter() {
        assert_eq!(hash(&store.volume(name).unwrap()), *expected, "{name} changed");
    }
}

fn storm(place: &Place, random: &SeededRandom) {
    let store = place.create();
    let volumes: Vec<Volume> = (0..WRITERS).map(|n| Volume::new(&store, &format!("v{n}"), n + 1)).collect();
    // Something to list and to clone from the start.
    volumes.iter().for_each(|volume| volume.write_all(1..FIRST_STEPS, 1));
    let objects = Objects::default();
    thread::scope(|scope| {
        let (store, volumes, objects) = (&*store, &volumes[..], &objects);
        for volume in volumes {
            let seed = random.next_u64();
            scope.spawn(move || volume.write_all(FIRST_STEPS..STEPS, seed));
        }
        for _ in 0..CUTTERS {
            let seed = random.next_u64();
            scope.spawn(move || cut(store, volumes, objects, seed));
        }
        let seed = random.next_u64();
        scope.spawn(move || change(store, objects, seed));
        scope.spawn(move || maintain(store, volumes));
        scope.spawn(move || list(store, volumes));
    });
    let (snapshots, clones) = (objects.snapshots.lock().len(), objects.clones.lock().len());
    println!("{} clones made, {clones} and {snapshots} snapshots left", objects.made.load(Ordering::SeqCst));
    verify(&store, &volumes, &objects);
    collect(&store, &CollectOptions::default(), &mut ()).unwrap();
    verify(&store, &volumes, &objects);
    assert_clean(&store);
    store.close().unwrap();
    // The volumes' views belong to the store that is closed.
    drop(store);
    let store = place.open();
    verify(&store, &volumes, &objects);
    assert_clean(&store);
    // What is left goes in any order, and takes everything with it.
    while let Some(kept) = take(&objects.snapshots, random) {
        store.destroy_snapshot(&kept.volume, &kept.name).unwrap();
    }
    while let Some((name, _)) = take(&objects.clones, random) {
        store.destroy_volume(&name).unwrap();
    }
    volumes.iter().for_each(|volume| volume.verify(&store));
    volumes.iter().for_each(|volume| store.destroy_volume(&volume.name).unwrap());
    collect(&store, &CollectOptions::default(), &mut ()).unwrap();
    assert_eq!(store.stats().unwrap().live_bytes, 0);
    assert_clean(&store);
}

#[test]
fn a_storm_in_a_folder() {
    storm(&Place::real(), &common::random("a_storm_in_a_folder"));
}

#[test]
fn a_storm_in_memory() {
    let sim = SimStorage::new();
    storm(&Place::simulated(&sim, true), &common::random("a_storm_in_memory"));
}
