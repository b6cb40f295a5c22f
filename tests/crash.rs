//! Crashes at every write of generated runs, failed syncs and lying disks: what is acknowledged survives, the
//! rest is old or new, and the store goes on.
//!
//! `STILLPOINT_CRASH_POINTS` is how many crashes to look at, `STILLPOINT_CRASH_FIRST` the first seed.

#[path = "common/history.rs"]
mod history;
#[path = "common/model.rs"]
mod model;
#[path = "common/operations.rs"]
mod operations;
#[path = "common/tap.rs"]
mod tap;
#[path = "common/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use history::{History, Window};
use operations::{Dice, Operation, generate};
use stillpoint::base::SeededRandom;
use stillpoint::base::sim::{Fault, FaultError, FaultOn, Landing, SimStorage};
use stillpoint::volume::{SetAttributes, Store};
use tap::{Image, Tap};
use world::{Model, World, environment, new_sim, options, sync_file};

const POINTS: u64 = 1500;
/// Operations of a run.
const OPERATIONS: usize = 45;
/// Operations after a crash.
const FURTHER: usize = 6;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn points() -> u64 {
    number("STILLPOINT_CRASH_POINTS", POINTS)
}

fn first_seed() -> u64 {
    number("STILLPOINT_CRASH_FIRST", 1)
}

/// Small ones wrap and ask for checkpoints, large ones hold many records.
fn journal_bytes(seed: u64) -> u64 {
    [132 << 10, 260 << 10, 516 << 10][(seed % 3) as usize]
}

fn landings(seed: u64) -> [Landing; 4] {
    [Landing::All, Landing::None, Landing::Random(seed), Landing::Random(seed ^ 0xABCD_EF01)]
}

/// Runs the sequence of `seed` with an image of the disk before every write of it.
fn record(seed: u64) -> (History, Vec<Image>) {
    let sim = new_sim();
    let tap = Arc::new(Tap::new(sim));
    let mut world = World::new(tap.clone(), journal_bytes(seed));
    let history = History::record(&mut world, generate(seed, OPERATIONS), &mut |number| tap.arm(number));
    let history = history.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    (history, tap.images())
}

/// Opens what a crash left, sometimes after another crash while it was opened.
fn open_again(sim: &SimStorage, again: Option<u64>) -> Result<(SimStorage, Arc<Store>), String> {
    let mut sim = sim.clone();
    if let Some(seed) = again {
        sim.crash_at(seed % 24);
        let opened = Store::open(Arc::new(sim.clone()), &environment(), &options());
        if let Ok(store) = &opened {
            let names = store.volume_names();
            names.iter().for_each(|(name, _)| drop(store.volume(name)));
            let _ = store.checkpoint();
        }
        drop(opened);
        sim = sim.after_crash(Landing::Random(seed));
    }
    let store = Store::open(Arc::new(sim.clone()), &environment(), &options());
    Ok((sim, store.map_err(|error| format!("open: {error:?}"))?))
}

/// Bytes behind the end of a file must be zeros when it grows.
fn check_growth(store: &Store, model: &mut Model) -> Result<(), String> {
    for (name, volume) in &mut model.volumes {
        let view = store.volume(name).map_err(|error| format!("{error:?}"))?;
        for ino in volume.tree.inos(|node| matches!(node.body, model::Body::File(_))) {
            let file = volume.tree.file_mut(ino).map_err(|kind| format!("the model: {kind:?}"))?;
            let (old, new) = (file.size, file.size + 3 * model::PAGE);
            let set = SetAttributes { size: Some(new), ..SetAttributes::default() };
            view.set_attributes(ino, &set).map_err(|error| format!("{error:?}"))?;
            let bytes = view.read(ino, old, (new - old) as usize).map_err(|error| format!("{error:?}"))?;
            if bytes.len() as u64 != new - old || bytes.iter().any(|byte| *byte != 0) {
                return Err(format!("{name}: inode {ino} grew from {old} and shows old bytes"));
            }
            file.resize(new);
        }
    }
    Ok(())
}

/// After the crash the store works: changes, a checkpoint, another opening.
fn go_on(sim: SimStorage, store: Arc<Store>, model: Model, seed: u64) -> Result<(), String> {
    let mut world = World { storage: Arc::new(sim), store, model };
    check_growth(&world.store, &mut world.model)?;
    let dice = Dice(SeededRandom::new(seed));
    for number in 0..FURTHER {
        let operation = dice.operation();
        world.run(&operation).map_err(|error| format!("then operation {number}, {operation:?}: {error}"))?;
    }
    world.verify_counts()?;
    world.verify().map_err(|error| format!("after going on: {error}"))?;
    world.reopen()?;
    world.verify().map_err(|error| format!("after going on and reopening: {error}"))?;
    world.verify_counts()
}

/// One crash: `Err` says what is wrong with what it left.
fn explore(
    history: &History,
    image: &SimStorage,
    landing: Landing,
    window: Window,
    seed: u64,
) -> Result<(), String> {
    let again = seed.is_multiple_of(8).then_some(seed / 8);
    let result = catch_unwind(AssertUnwindSafe(|| {
        let (sim, store) = open_again(&image.after_crash(landing), again)?;
        let model = history.judge(&store, window)?;
        go_on(sim, store, model, seed)
    }));
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

fn fail(seed: u64, history: &History, window: Window, landing: Landing, place: &str, error: &str) -> ! {
    for (number, operation) in history.operations.iter().enumerate().take(window.during + 1) {
        println!("  {number} {operation:?} -> {:?}", history.durable.get(number));
    }
    panic!("seed {seed}, {place}, {landing:?}, {window:?}: {error}");
}

#[test]
fn crashes_at_every_write() {
    let (wanted, explored, next) = (points(), AtomicU64::new(0), AtomicU64::new(first_seed()));
    std::thread::scope(|scope| {
        let work = || {
            while explored.load(Ordering::Relaxed) < wanted {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                let (history, images) = record(seed);
                for image in &images {
                    let window = Window { during: image.operation, honest: usize::MAX };
                    let mixed = seed.wrapping_mul(0x1_0000_01B3) ^ image.point.wrapping_mul(0x9E37_79B9);
                    for (number, landing) in landings(mixed).into_iter().enumerate() {
                        let result =
                            explore(&history, &image.sim, landing, window, mixed.rotate_left(number as u32));
                        if let Err(error) = result {
                            let place = format!("point {}", image.point);
                            fail(seed, &history, window, landing, &place, &error);
                        }
                        explored.fetch_add(1, Ordering::Relaxed);
                    }
                    if explored.load(Ordering::Relaxed) >= wanted {
                        return;
                    }
                }
            }
        };
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            worker.join().unwrap();
        }
    });
    let seeds = next.load(Ordering::Relaxed) - first_seed();
    println!("{} crashes in {seeds} runs", explored.load(Ordering::Relaxed));
}

/// Runs until an operation fails; its number.
fn run_into_fault(world: &mut World, history: &History) -> Option<usize> {
    history.operations.iter().position(|operation| world.run(operation).is_err())
}

/// A store that met a failed sync or write acknowledges nothing any more.
fn check_poisoned(world: &World) -> Result<(), String> {
    let store = &world.store;
    if store.checkpoint().is_ok() {
        return Err("a checkpoint succeeded after a failed one".into());
    }
    for (name, _) in store.volume_names() {
        let Ok(view) = store.volume(&name) else { continue };
        let set = SetAttributes { mode: Some(0o711), ..SetAttributes::default() };
        let changed = view.set_attributes(1, &set).is_ok();
        if changed && (view.flush().is_ok() || sync_file(&view, 1).is_ok()) {
            return Err(format!("a sync of {name} succeeded after a failed one"));
        }
        if store.create_snapshot(&name, "late").is_ok() {
            return Err(format!("a snapshot of {name} succeeded after a failed sync"));
        }
    }
    if store.create_volume("late").is_ok() {
        Err("a volume was created after a failed sync".into())
    } else {
        Ok(())
    }
}

#[test]
fn a_failed_sync_or_write_loses_nothing_acknowledged() {
    let wanted = points() / 10;
    let mut explored = 0;
    let mut seed = first_seed() + 1_000_000;
    while explored < wanted {
        seed += 1;
        let (history, images) = record(seed);
        for after in (0..images.len() as u64).step_by(7) {
            let on = if after % 2 == 0 { FaultOn::Sync } else { FaultOn::Write };
            let sim = new_sim();
            let mut world = World::new(Arc::new(sim.clone()), journal_bytes(seed));
            sim.inject(Fault::once(on, after / 4, FaultError::Io));
            let Some(during) = run_into_fault(&mut world, &history) else { continue };
            let window = Window { during, honest: usize::MAX };
            let place = format!("{on:?} {} failed", after / 4);
            // A reopening may fail with the store closed and nothing to poison; a collection that could not write
            // its new file has changed nothing.
            if !matches!(history.operations[during], Operation::Reopen | Operation::Collect) {
                if let Err(error) = check_poisoned(&world) {
                    fail(seed, &history, window, Landing::All, &place, &error);
                }
                if world.store.close().is_ok() {
                    fail(seed, &history, window, Landing::All, &place, "closing succeeded");
                }
            }
            drop(world);
            for landing in landings(seed ^ after) {
                if let Err(error) = explore(&history, &sim, landing, window, seed ^ after | 1) {
                    fail(seed, &history, window, landing, &place, &error);
                }
                explored += 1;
            }
        }
    }
    println!("{explored} crashes after failed syncs and writes");
}

#[test]
fn a_disk_that_lied_gives_an_older_state() {
    let wanted = points() / 10;
    let mut explored = 0;
    let mut seed = first_seed() + 2_000_000;
    while explored < wanted {
        seed += 1;
        let sim = new_sim();
        let tap = Arc::new(Tap::new(sim.clone()));
        let mut world = World::new(tap.clone(), journal_bytes(seed));
        let honest = (seed % OPERATIONS as u64) as usize;
        let history = History::record(&mut world, generate(seed, OPERATIONS), &mut |number| {
            if number == honest {
                sim.set_lying_sync(true);
            }
            tap.arm(number);
        });
        let history = history.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        drop(world);
        for image in tap.images().iter().filter(|image| image.operation >= honest).step_by(5) {
            let window = Window { during: image.operation, honest };
            // Not a random half of the writes: a lie about the roots, then a torn batch over the part of the ring they
            // still need, is a loss that no reader of the disk can tell from an older journal.
            for landing in [Landing::None, Landing::All] {
                let place = format!("lying from operation {honest} on, point {}", image.point);
                let result = explore(&history, &image.sim, landing, window, seed ^ image.point | 1);
                if let Err(error) = result {
                    fail(seed, &history, window, landing, &place, &error);
                }
                explored += 1;
            }
        }
    }
    println!("{explored} crashes of a lying disk");
}
