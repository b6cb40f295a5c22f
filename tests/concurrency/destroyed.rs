//! Volumes that go while somebody uses them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use stillpoint::base::ErrorKind;
use stillpoint::base::sim::{Landing, SimStorage};
use stillpoint::maintain::{CollectOptions, collect};
use stillpoint::volume::*;

use super::page::{PAGE, Stamp, make, read};
use super::places::{Place, assert_clean, new_file, sync_file};

const PAGES: u64 = 200;
const ROUNDS: u64 = 40;
/// So few that a sync journals them.
const FEW_PAGES: u64 = 20;

fn stamp(number: u64) -> Stamp {
    Stamp { writer: 1, number }
}

/// A volume with one file of pages that are stamped for inode `for_ino`.
fn source(store: &Store, pages: u64, for_ino: Ino) -> (Arc<View>, Ino) {
    let view = store.create_volume("source").unwrap();
    let ino = new_file(&view, "source");
    for page in 0..pages {
        view.write(ino, page * PAGE as u64, &make(for_ino, page, stamp(page + 1))).unwrap();
    }
    (view, ino)
}

fn verify(store: &Store, target: Ino) {
    let view = store.volume("target").unwrap();
    for page in 0..FEW_PAGES {
        assert_eq!(read(&view, target, page), stamp(page + 1), "page {page}");
    }
}

/// When the source goes, relative to what else happens to its pages in the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Destroy,
    Sync,
    Checkpoint,
    Collect,
}

#[test]
fn shared_pages_outlive_their_source() {
    use Then::{Checkpoint, Collect, Destroy, Sync};
    let orders: [&[Then]; 6] = [
        &[Destroy, Checkpoint, Collect],
        &[Destroy, Sync],
        &[Sync, Destroy],
        &[Sync, Destroy, Checkpoint, Collect],
        &[Checkpoint, Destroy, Collect],
        &[Destroy, Sync, Collect, Checkpoint],
    ];
    for order in orders {
        for stored in [false, true] {
            println!("stored before: {stored}, then {order:?}");
            let sim = SimStorage::new();
            let store = Place::simulated(&sim, false).create();
            let view = store.create_volume("target").unwrap();
            let target = new_file(&view, "target");
            let (from, ino) = source(&store, FEW_PAGES, target);
            if stored {
                store.checkpoint().unwrap();
            }
            let bytes = FEW_PAGES * PAGE as u64;
            assert_eq!(from.copy_range(ino, 0, &view, target, 0, bytes).unwrap(), bytes);
            for then in order {
                match then {
                    Destroy => store.destroy_volume("source").unwrap(),
                    Sync => sync_file(&view, target).unwrap(),
                    Checkpoint => store.checkpoint().unwrap(),
                    Collect => {
                        collect(&store, &CollectOptions::default(), &mut ()).unwrap();
                    }
                }
                verify(&store, target);
            }
            // Before a check, which stores what the journal alone has.
            for landing in [Landing::None, Landing::All] {
                let crashed = sim.after_crash(landing);
                let store = Place::simulated(&crashed, false).open();
                assert!(store.volume("source").is_err());
                verify(&store, target);
                collect(&store, &CollectOptions::default(), &mut ()).unwrap();
                verify(&store, target);
                assert_clean(&store);
            }
            assert_clean(&store);
            verify(&store, target);
        }
    }
}

#[test]
fn sources_go_while_they_are_copied() {
    let store = Place::simulated(&SimStorage::new(), true).create();
    let view = store.create_volume("target").unwrap();
    let mut copied = 0;
    for round in 0..ROUNDS {
        let progress = AtomicU64::new(0);
        let target = new_file(&view, &format!("t{round}"));
        let (from, ino) = source(&store, PAGES, target);
        if round % 2 == 0 {
            store.checkpoint().unwrap();
        }
        let pages = thread::scope(|scope| {
            let copier = scope.spawn(|| {
                let copy = |page: &u64| {
                    let at = page * PAGE as u64;
                    match from.copy_range(ino, at, &view, target, at, PAGE as u64) {
                        Ok(bytes) => {
                            progress.fetch_add(1, Ordering::SeqCst);
                            bytes == PAGE as u64
                        }
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Stale, "{error:?}");
                            false
                        }
                    }
                };
                (0..PAGES).take_while(copy).count() as u64
            });
            while progress.load(Ordering::SeqCst) < PAGES * round / ROUNDS / 2 && !copier.is_finished() {
                thread::yield_now();
            }
            store.destroy_volume("source").unwrap();
            // Nothing of the source is left but what the target has by now.
            collect(&store, &CollectOptions::default(), &mut ()).unwrap();
            copier.join().unwrap()
        });
        copied += pages;
        collect(&store, &CollectOptions::default(), &mut ()).unwrap();
        for page in 0..pages {
            assert_eq!(read(&view, target, page), stamp(page + 1), "round {round}, page {page}");
        }
    }
    println!("{copied} of {} pages were copied", ROUNDS * PAGES);
    assert!(copied >= ROUNDS * PAGES / 5);
    assert_clean(&store);
}

/// Everything one can ask of a view, by name.
fn every_operation(view: &View, other: &View, ino: Ino) -> Vec<(&'static str, stillpoint::base::Result<()>)> {
    let root = ROOT_INO;
    let owner = Owner::default();
    let mut results = reading(view, ino);
    results.extend([
        ("set_attributes", view.set_attributes(ino, &SetAttributes::default()).map(drop)),
        ("truncate", {
            let set = SetAttributes { size: Some(0), ..SetAttributes::default() };
            view.set_attributes(ino, &set).map(drop)
        }),
        ("create", view.create(root, b"new", NewNode::File, 0o644, owner).map(drop)),
        ("link", view.link(ino, root, b"link").map(drop)),
        ("unlink", view.unlink(root, b"file").map(drop)),
        ("remove_directory", view.remove_directory(root, b"folder").map(drop)),
        ("rename", view.rename(root, b"file", root, b"new", RenameMode::Replace).map(drop)),
        ("forget_orphan", view.forget_orphan(ino)),
        ("write", view.write(ino, 0, b"x")),
        ("append", view.append(ino, b"x").map(drop)),
        ("allocate", view.allocate(ino, AllocateMode::Allocate, 0, 8192)),
        ("punch", view.allocate(ino, AllocateMode::PunchHole, 0, 8192)),
        ("copy from", view.copy_range(ino, 0, other, ino, 0, 8192).map(drop)),
        ("copy to", other.copy_range(ino, 0, view, ino, 0, 8192).map(drop)),
        ("set_xattr", view.set_xattr(ino, b"user.a", b"x", XattrMode::Set)),
        ("remove_xattr", view.remove_xattr(ino, b"user.a")),
    ]);
    results
}

fn reading(view: &View, ino: Ino) -> Vec<(&'static str, stillpoint::base::Result<()>)> {
    let root = ROOT_INO;
    let (sender, receiver) = std::sync::mpsc::channel();
    view.sync_all(Box::new(move |result| sender.send(result).unwrap()));
    vec![
        ("attributes", view.attributes(ino).map(drop)),
        ("lookup", view.lookup(root, b"file").map(drop)),
        ("list_directory", view.list_directory(root, 0, 10).map(drop)),
        ("parent", view.parent(root).map(drop)),
        ("read_link", view.read_link(ino).map(drop)),
        ("read", view.read(ino, 0, 10).map(drop)),
        ("seek", view.seek(ino, 0, SeekTarget::Data).map(drop)),
        ("xattr", view.xattr(ino, b"user.a").map(drop)),
        ("list_xattrs", view.list_xattrs(ino).map(drop)),
        ("sync_file", sync_file(view, ino)),
        ("sync_all", receiver.recv().unwrap()),
        ("flush", view.flush()),
    ]
}

#[test]
fn every_operation_on_what_was_destroyed_is_stale() {
    for background in [false, true] {
        for stored in [false, true] {
            let store = Place::simulated(&SimStorage::new(), background).create();
            let (view, other) = (store.create_volume("v").unwrap(), store.create_volume("other").unwrap());
            let ino = new_file(&view, "file");
            assert_eq!(new_file(&other, "file"), ino);
            view.create(ROOT_INO, b"folder", NewNode::Directory, 0o755, Owner::default()).unwrap();
            for one in [&view, &other] {
                one.write(ino, 0, &make(ino, 0, stamp(1))).unwrap();
                one.set_xattr(ino, b"user.a", b"x", XattrMode::Set).unwrap();
            }
            store.create_snapshot("v", "s").unwrap();
            let snapshot = store.snapshot("v", "s").unwrap();
            if stored {
                store.checkpoint().unwrap();
            }
            // Unsynced when it goes.
            view.write(ino, 0, &make(ino, 0, stamp(2))).unwrap();
            store.destroy_volume_with_snapshots("v").unwrap();
            for round in 0..2 {
                for (name, result) in
                    every_operation(&view, &other, ino).into_iter().chain(reading(&snapshot, ino))
                {
                    let kind = result.map_err(|error| error.kind());
                    assert_eq!(kind, Err(ErrorKind::Stale), "{name}, {background}, {stored}, round {round}");
                }
                store.checkpoint().unwrap();
                collect(&store, &CollectOptions::default(), &mut ()).unwrap();
            }
            assert_eq!(read(&other, ino, 0), stamp(1));
            assert_clean(&store);
        }
    }
}
