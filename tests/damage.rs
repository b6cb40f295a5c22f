//! Damage at rest: any byte flipped, any file cut, zeroed, swapped for an older one or missing. What the store then
//! shows is right or an error that names what is affected; never wrong data, a panic or a hang.
//!
//! `STILLPOINT_DAMAGES` is how many to look at, `STILLPOINT_SEED` the first seed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "common/model.rs"]
mod model;
#[path = "common/operations.rs"]
mod operations;
#[path = "common/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use model::{Tree, node_difference, read_node};
use operations::{Dice, generate};
use stillpoint::base::sim::{Fault, FaultError, FaultOn, Landing, SimStorage};
use stillpoint::base::{Error, ErrorKind, Random, SeededRandom};
use stillpoint::maintain::{CollectOptions, ScrubOptions, check, collect, scrub};
use stillpoint::volume::{OpenOptions, Store, View};
use world::{Model, VolumeModel, World, environment, new_sim, options};

const DAMAGES: u64 = 1200;
const DAMAGES_PER_STORE: u64 = 60;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A store at rest, and what it may show: the last state, and, where the last flush is still in the journal only, the
/// one before.
struct Rest {
    sim: SimStorage,
    closed: bool,
    states: Vec<Model>,
}

fn rest(seed: u64) -> Rest {
    let sim = new_sim();
    let mut world = World::new(Arc::new(sim.clone()), [132 << 10, 516 << 10][(seed % 2) as usize]);
    for operation in generate(seed, 60) {
        world.run(&operation).unwrap_or_else(|error| panic!("seed {seed}: {operation:?}: {error}"));
    }
    let closed = !seed.is_multiple_of(3);
    let mut states = Vec::new();
    if closed {
        world.reopen().unwrap();
        world.store.close().unwrap();
    } else {
        for (name, _) in world.store.volume_names() {
            world.store.volume(&name).and_then(|view| view.flush()).unwrap();
        }
        states.push(world.model.clone());
        // One more flush, which a damaged end of the journal may take with it.
        let view = world.store.create_volume("last").unwrap();
        let volume = VolumeModel { id: view.id(), tree: Tree::new(), snapshots: BTreeMap::new() };
        world.model.volumes.insert("last".into(), volume);
    }
    states.push(world.model.clone());
    // Killed: what was written stays, and nothing more is written.
    Rest { sim: sim.after_crash(Landing::All), closed, states }
}

/// Damages a file of the store; says how.
fn damage(sim: &SimStorage, dice: &Dice) -> (String, String) {
    let files: Vec<(String, u64)> = sim.files().into_iter().filter(|(_, length)| *length > 0).collect();
    let wanted = ["segments/", "segments/", "roots", "journal", ""][dice.below(5) as usize];
    let files: Vec<(String, u64)> = files.into_iter().filter(|(name, _)| name.starts_with(wanted)).collect();
    let Some((name, length)) = files.get(dice.below(files.len().max(1) as u64) as usize).cloned() else {
        return ("nothing".into(), "there are no segments".into());
    };
    let bytes = sim.read_raw(&name).unwrap();
    // Most of the journal and of redb's file is zeros that nobody reads: look for something else.
    let written: Vec<u64> = (0..length).filter(|at| bytes[*at as usize] != 0).collect();
    let at = match dice.below(4) {
        0 => dice.below(length),
        _ if written.is_empty() => dice.below(length),
        _ => written[dice.below(written.len() as u64) as usize],
    };
    let what = match dice.below(16) {
        0 => {
            sim.remove_raw(&name).unwrap();
            "removed".to_owned()
        }
        1 | 2 => {
            let length = [0, at, length - 1, at / 4096 * 4096][dice.below(4) as usize];
            sim.truncate_raw(&name, length).unwrap();
            format!("cut to {length} bytes")
        }
        3 | 4 => {
            let from = at / 4096 * 4096;
            let zeros = vec![0; (length - from).min(4096) as usize];
            sim.write_raw(&name, from, &zeros).unwrap();
            format!("zeroed from {from}")
        }
        5 => {
            let (other, _) = &files[dice.below(files.len() as u64) as usize];
            let other_bytes = sim.read_raw(other).unwrap();
            let from = (at / 4096 * 4096).min(other_bytes.len() as u64 / 4096 * 4096);
            let to = (from + 4096).min(length).min(other_bytes.len() as u64);
            if from < to {
                sim.write_raw(&name, from, &other_bytes[from as usize..to as usize]).unwrap();
            }
            format!("has the sector at {from} of {other}")
        }
        _ => {
            let bit = dice.below(8) as u32;
            sim.flip_bit(&name, at, bit).unwrap();
            format!("bit {bit} of byte {at} flipped")
        }
    };
    (name, what)
}

fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Io)
}

/// Compares what can be read of a view. Answers how many inodes could not.
fn compare_view(view: &View, tree: &Tree, name: &str) -> Result<u64, String> {
    let mut unreadable = 0;
    for (ino, node) in &tree.nodes {
        match read_node(view, *ino) {
            Ok(found) => {
                if let Some(difference) = node_difference(node, &found) {
                    return Err(format!("{name}: inode {ino} {difference}"));
                }
            }
            // An orphan goes when its volume is opened to be written.
            Err(error) if node.links == 0 && error.kind() == ErrorKind::NotFound => {}
            Err(error) if is_damage(&error) => unreadable += 1,
            Err(error) => return Err(format!("{name}: inode {ino}: {error:?}")),
        }
    }
    Ok(unreadable)
}

fn compare(store: &Store, model: &Model) -> Result<u64, String> {
    let names: Vec<String> = store.volume_names().into_iter().map(|(name, _)| name).collect();
    let expected: Vec<String> = model.volumes.keys().cloned().collect();
    if names != expected {
        return Err(format!("there are the volumes {names:?} instead of {expected:?}"));
    }
    let mut unreadable = 0;
    for (name, volume) in &model.volumes {
        let view = match store.volume(name) {
            Ok(view) => view,
            Err(error) if is_damage(&error) => {
                unreadable += 1;
                continue;
            }
            Err(error) => return Err(format!("{name}: {error:?}")),
        };
        unreadable += compare_view(&view, &volume.tree, name)?;
        for (snapshot, tree) in &volume.snapshots {
            let view = store.snapshot(name, snapshot).map_err(|error| format!("{error:?}"))?;
            unreadable += compare_view(&view, tree, &format!("{name}@{snapshot}"))?;
        }
        let count = store.snapshot_names(view.id()).map_err(|error| format!("{error:?}"))?.len();
        if count != volume.snapshots.len() {
            return Err(format!("{name} has {count} snapshots"));
        }
    }
    Ok(unreadable)
}

/// One of the states, whichever fits best.
fn compare_any(store: &Store, states: &[Model]) -> Result<u64, String> {
    let mut result = Err("no state".to_owned());
    for state in states.iter().rev() {
        result = compare(store, state);
        if result.is_ok() {
            break;
        }
    }
    result
}

/// What a damaged store did.
#[derive(Default)]
struct Seen {
    refused: u64,
    unreadable: u64,
    unharmed: u64,
}

/// Opens the damaged store to write, reads everything, lets it scrub and check itself, and uses it.
fn examine(sim: &SimStorage, rest: &Rest, name: &str, seen: &mut Seen) -> Result<(), String> {
    let store = match Store::open(Arc::new(sim.clone()), &environment(), &options()) {
        Ok(store) => store,
        Err(error) => {
            let text = error.to_string();
            let told =
                ["segment", "journal", "roots", "format", "inode"].iter().any(|word| text.contains(word));
            if !told {
                return Err(format!("refused to open without naming a file: {error:?}"));
            }
            if name.starts_with("segments/") && rest.closed {
                return Err(format!("one damaged segment refuses the whole store: {error:?}"));
            }
            if name.starts_with("roots") || name == "format" {
                return Err(format!("it could have been made anew: {error:?}"));
            }
            seen.refused += 1;
            return rescue(sim, rest, name);
        }
    };
    let unreadable = compare_any(&store, &rest.states)?;
    let lists = store.volumes().and_then(|_| store.snapshots(None)).and_then(|_| store.stats());
    lists.map_err(|error| format!("lists: {error:?}"))?;
    let scrubbed =
        scrub(&store, &ScrubOptions::default(), &mut ()).map_err(|error| format!("scrub: {error:?}"))?;
    let checked = check(&store, &mut |_| {}).map_err(|error| format!("check: {error:?}"))?;
    if unreadable > 0 && scrubbed.findings.is_empty() && checked.findings.is_empty() {
        return Err(format!("{unreadable} inodes cannot be read; scrub and check find nothing"));
    }
    if unreadable == 0 && scrubbed.findings.is_empty() {
        seen.unharmed += 1;
        if !checked.findings.is_empty() {
            return Err(format!("check found {:?}", checked.findings));
        }
    } else {
        seen.unreadable += 1;
    }
    let _ = collect(&store, &CollectOptions::default(), &mut ());
    compare_any(&store, &rest.states).map_err(|error| format!("after a collection: {error}"))?;
    // What is whole goes on being used.
    let volume = store.create_volume("more").map_err(|error| format!("create: {error:?}"))?;
    volume.flush().map_err(|error| format!("flush: {error:?}"))?;
    store.destroy_volume("more").map_err(|error| format!("destroy: {error:?}"))?;
    store.close().map_err(|error| format!("close: {error:?}"))?;
    let again = Store::open(Arc::new(sim.clone()), &environment(), &options());
    let again = again.map_err(|error| format!("opened once, and not again: {error:?}"))?;
    compare_any(&again, &rest.states).map_err(|error| format!("opened again: {error}"))?;
    Ok(())
}

/// A store that refuses to be written opens for rescue, and shows nothing wrong of what it holds.
fn rescue(sim: &SimStorage, rest: &Rest, name: &str) -> Result<(), String> {
    let options = OpenOptions { rescue: true, ..options() };
    let store = Store::open(Arc::new(sim.clone()), &environment(), &options);
    let store = store.map_err(|error| format!("not even for rescue: {error:?}"))?;
    if name != "journal" && rest.closed {
        compare_any(&store, &rest.states).map_err(|error| format!("rescue: {error}"))?;
    }
    let read = store.volume_names().iter().filter(|(name, _)| store.volume(name).is_ok()).count();
    if read == 0 && !store.volume_names().is_empty() {
        return Err("rescue reads no volume".into());
    }
    Ok(())
}

#[test]
fn damage_is_said_and_never_shown_as_data() {
    let (wanted, mut seed) = (number("STILLPOINT_DAMAGES", DAMAGES), number("STILLPOINT_SEED", 1));
    let (mut done, mut seen) = (0, Seen::default());
    while done < wanted {
        let rest = rest(seed);
        for round in 0..DAMAGES_PER_STORE {
            let dice = Dice(SeededRandom::new(seed << 20 | round));
            let sim = rest.sim.fork();
            let (name, what) = damage(&sim, &dice);
            let result = catch_unwind(AssertUnwindSafe(|| examine(&sim, &rest, &name, &mut seen)));
            let result = result.unwrap_or_else(|panic| {
                let text = panic.downcast_ref::<String>().cloned();
                Err(format!("panic: {}", text.unwrap_or_default()))
            });
            if let Err(error) = result {
                panic!("seed {seed}, round {round}, closed {}: {name} {what}: {error}", rest.closed);
            }
            done += 1;
        }
        seed += 1;
    }
    println!(
        "{done} damages: {} refused with a reason, {} with unreadable parts named, {} without effect",
        seen.refused, seen.unreadable, seen.unharmed
    );
    assert!(seen.refused > 0 && seen.unreadable > 0 && seen.unharmed > 0, "nothing was hit");
}

#[test]
fn a_damaged_snapshot_can_be_destroyed_and_space_comes_back() {
    let seed = number("STILLPOINT_SEED", 1);
    let random = SeededRandom::new(seed);
    let sim = new_sim();
    let mut world = World::new(Arc::new(sim.clone()), 516 << 10);
    let volume = world.store.create_volume("v").unwrap();
    let owner = stillpoint::volume::Owner { uid: 0, gid: 0 };
    let file = volume.create(1, b"f", stillpoint::volume::NewNode::File, 0o600, owner).unwrap().ino;
    let fill = |view: &View| {
        let bytes: Vec<u8> = (0..50 << 10).flat_map(|_| random.next_u64().to_le_bytes()).collect();
        view.write(file, 0, &bytes).unwrap();
    };
    fill(&volume);
    world.store.create_snapshot("v", "s").unwrap();
    world.store.checkpoint().unwrap();
    let (name, _) = sim.files().into_iter().rfind(|(name, _)| name.starts_with("segments/")).unwrap();
    let before = sim.read_raw(&name).unwrap();
    fill(&volume);
    world.store.close().unwrap();

    // Nodes are the last blocks of a checkpoint: hit the end of what the first one wrote, with its directory.
    let last = before.iter().rposition(|byte| *byte != 0).unwrap();
    for at in last.saturating_sub(4 << 10)..=last {
        sim.flip_bit(&name, at as u64, 3).unwrap();
    }
    world.store = Store::open(Arc::new(sim.clone()), &environment(), &options()).unwrap();
    let snapshot = world.store.snapshot("v", "s").unwrap();
    assert!(snapshot.read(file, 0, 400 << 10).is_err(), "seed {seed}: the damage is not in the snapshot");
    let error = collect(&world.store, &CollectOptions::default(), &mut ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let scrubbed = scrub(&world.store, &ScrubOptions::default(), &mut ()).unwrap();
    assert!(scrubbed.findings.iter().any(|finding| finding.object.starts_with("v@s")), "{scrubbed:?}");
    let readable = world.store.volume("v").unwrap().read(file, 0, 400 << 10).unwrap();

    world.store.destroy_snapshot("v", "s").unwrap();
    let report = collect(&world.store, &CollectOptions::default(), &mut ()).unwrap();
    assert!(report.physical_bytes_after < report.physical_bytes_before, "{report:?}");
    assert_eq!(world.store.volume("v").unwrap().read(file, 0, 400 << 10).unwrap(), readable);
    let checked = check(&world.store, &mut |_| {}).unwrap();
    assert!(checked.findings.is_empty(), "{checked:?}");
}

#[test]
fn what_cannot_be_read_for_a_moment_is_not_lost() {
    let mut met = 0;
    for after in 0..40 {
        let sim = new_sim();
        let mut world = World::new(Arc::new(sim.clone()), 516 << 10);
        let volume = world.store.create_volume("v").unwrap();
        let owner = stillpoint::volume::Owner { uid: 0, gid: 0 };
        let file = volume.create(1, b"f", stillpoint::volume::NewNode::File, 0o600, owner).unwrap().ino;
        let mut expected: Vec<u8> = (0..800u64 << 10).flat_map(|n| (n / 999).to_le_bytes()).collect();
        volume.write(file, 0, &expected).unwrap();
        drop(volume);
        world.reopen().unwrap();
        let volume = world.store.volume("v").unwrap();
        for page in [0usize, 300, 700] {
            volume.write(file, page as u64 * 8192, &[7; 8192]).unwrap();
            expected[page * 8192..(page + 1) * 8192].fill(7);
        }
        let prefix = "segments/".to_owned();
        sim.inject(Fault { prefix, ..Fault::once(FaultOn::Read, after, FaultError::Io) });
        let result = world.store.checkpoint();
        sim.clear_faults();
        if let Err(error) = &result {
            met += 1;
            assert_eq!(error.kind(), ErrorKind::Unreadable, "{error:?}");
            volume.write(file, 0, &[7; 8192]).unwrap();
            world.store.checkpoint().unwrap();
        }
        assert!(volume.read(file, 0, expected.len()).unwrap() == expected, "after {after} reads");
        assert!(world.store.recover_references());
        assert!(check(&world.store, &mut |_| {}).unwrap().findings.is_empty());
        drop(volume);
        world.reopen().unwrap();
        let volume = world.store.volume("v").unwrap();
        assert!(
            volume.read(file, 0, expected.len()).unwrap() == expected,
            "after {after} reads, opened again"
        );
    }
    println!("{met} checkpoints met a read that failed");
    assert!(met > 0);
}
