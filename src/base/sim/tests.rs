//! Tests of the simulated storage: what crashes leave, how faults show, and that it is the host's equal.

use std::io::ErrorKind;

use proptest::prelude::*;

use super::*;
use crate::base::RealStorage;

fn create(storage: &SimStorage, name: &str) -> Arc<dyn StorageFile> {
    storage.open(name, OpenMode::CreateNew).unwrap()
}

/// A file whose name is durable.
fn durable_file(storage: &SimStorage, name: &str, data: &[u8]) -> Arc<dyn StorageFile> {
    let file = create(storage, name);
    file.write_all_at(data, 0).unwrap();
    file.sync_data().unwrap();
    storage.sync_dir("").unwrap();
    file
}

fn names(storage: &SimStorage) -> Vec<String> {
    storage.files().into_iter().map(|(name, _)| name).collect()
}

#[test]
fn what_was_synced_survives_and_the_rest_may_not() {
    let storage = SimStorage::new();
    let file = durable_file(&storage, "f", b"synced");
    file.write_all_at(b"later.", 6).unwrap();
    create(&storage, "g");
    let none = storage.after_crash(Landing::None);
    assert_eq!(none.files(), [("f".to_owned(), 6)]);
    assert_eq!(none.read_raw("f").unwrap(), b"synced");
    let all = storage.after_crash(Landing::All);
    assert_eq!(names(&all), ["f", "g"]);
    assert_eq!(all.read_raw("f").unwrap(), b"syncedlater.");
}

#[test]
fn torn_writes_break_at_sectors_and_every_outcome_comes_up() {
    let storage = SimStorage::new();
    let file = durable_file(&storage, "f", &[1; 4096]);
    file.write_all_at(&[2; 1024], 256).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..300 {
        let bytes = storage.after_crash(Landing::Random(seed)).read_raw("f").unwrap();
        let sectors = [256..512, 512..1024, 1024..1280];
        let landed: Vec<bool> = sectors.iter().map(|range| bytes[range.start] == 2).collect();
        for (range, landed) in sectors.into_iter().zip(&landed) {
            assert!(bytes[range].iter().all(|&b| (b == 2) == *landed), "seed {seed}");
        }
        assert!(bytes[..256].iter().chain(&bytes[1280..]).all(|&b| b == 1));
        seen.insert(landed);
    }
    assert_eq!(seen.len(), 8);
}

#[test]
fn later_writes_may_land_without_earlier_ones() {
    let storage = SimStorage::new();
    let file = durable_file(&storage, "f", &[0; 1024]);
    file.write_all_at(&[1; 512], 0).unwrap();
    file.write_all_at(&[2; 512], 512).unwrap();
    let outcomes: std::collections::BTreeSet<(u8, u8)> = (0..200)
        .map(|seed| {
            let bytes = storage.after_crash(Landing::Random(seed)).read_raw("f").unwrap();
            (bytes[0], bytes[512])
        })
        .collect();
    assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), [(0, 0), (0, 2), (1, 0), (1, 2)]);
}

#[test]
fn the_same_seed_gives_the_same_image() {
    let storage = SimStorage::new();
    let file = durable_file(&storage, "f", &[0; 100_000]);
    for offset in 0..20 {
        file.write_all_at(&[offset as u8 + 1; 5000], offset * 4000).unwrap();
    }
    for seed in 0..20 {
        let image = || storage.after_crash(Landing::Random(seed)).read_raw("f").unwrap();
        assert_eq!(image(), image());
    }
}

#[test]
fn names_land_in_order_within_a_folder() {
    let storage = SimStorage::new();
    storage.create_dir("d").unwrap();
    storage.sync_dir("").unwrap();
    for name in ["d/1", "d/2", "d/3"] {
        create(&storage, name);
    }
    storage.remove("d/1").unwrap();
    storage.rename("d/3", "d/4").unwrap();
    let allowed: [&[&str]; 6] =
        [&[], &["d/1"], &["d/1", "d/2"], &["d/1", "d/2", "d/3"], &["d/2", "d/3"], &["d/2", "d/4"]];
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let found = names(&storage.after_crash(Landing::Random(seed)));
        assert!(allowed.iter().any(|names| *names == found), "seed {seed}: {found:?}");
        seen.insert(found);
    }
    assert_eq!(seen.len(), allowed.len());
    storage.sync_dir("d").unwrap();
    assert_eq!(names(&storage.after_crash(Landing::None)), ["d/2", "d/4"]);
}

#[test]
fn a_synced_folder_is_lost_with_its_unsynced_name() {
    let storage = SimStorage::new();
    storage.create_dir("d").unwrap();
    create(&storage, "d/f");
    storage.sync_dir("d").unwrap();
    assert!(storage.after_crash(Landing::None).list("d").is_err());
    storage.sync_dir("").unwrap();
    assert_eq!(storage.after_crash(Landing::None).list("d").unwrap(), ["f"]);
}

#[test]
fn a_rename_between_folders_lands_whole() {
    let storage = SimStorage::new();
    storage.create_dir("d").unwrap();
    durable_file(&storage, "f", b"x");
    storage.rename("f", "d/f").unwrap();
    for seed in 0..50 {
        let found = names(&storage.after_crash(Landing::Random(seed)));
        assert!(found == ["f"] || found == ["d/f"], "seed {seed}: {found:?}");
    }
    storage.sync_dir("d").unwrap();
    assert_eq!(names(&storage.after_crash(Landing::None)), ["d/f"]);
}

#[test]
fn a_removed_file_comes_back_with_its_bytes() {
    let storage = SimStorage::new();
    let file = durable_file(&storage, "f", b"bytes");
    drop(file);
    storage.remove("f").unwrap();
    assert_eq!(storage.after_crash(Landing::None).read_raw("f").unwrap(), b"bytes");
    storage.sync_dir("").unwrap();
    assert!(storage.after_crash(Landing::None).files().is_empty());
}

#[test]
fn each_change_is_a_crash_point_and_nothing_works_after() {
    let run = |storage: &SimStorage| -> io::Result<()> {
        storage.create_dir("d")?;
        let file = storage.open("d/f", OpenMode::CreateNew)?;
        file.allocate(0, 8192)?;
        file.write_all_at(&[1; 8192], 0)?;
        file.sync_data()?;
        file.punch_hole(0, 4096)?;
        file.set_len(6000)?;
        storage.rename("d/f", "d/g")?;
        storage.sync_dir("d")?;
        storage.remove("d/g")
    };
    let whole = SimStorage::new();
    run(&whole).unwrap();
    assert_eq!(whole.operations(), 10);
    for point in 0..10 {
        let storage = SimStorage::new();
        storage.crash_at(point);
        run(&storage).unwrap_err();
        assert!(storage.crashed().unwrap().ends_with(&format!("operation {point}")));
        assert!(storage.list("").is_err() && storage.space().is_err());
        assert!(storage.after_crash(Landing::All).crashed().is_none());
    }
}

#[test]
fn the_operation_of_the_crash_may_land() {
    let storage = SimStorage::new();
    let file = durable_file(&storage, "f", b"old");
    storage.crash_at(storage.operations());
    file.write_all_at(b"new", 0).unwrap_err();
    assert_eq!(storage.after_crash(Landing::None).read_raw("f").unwrap(), b"old");
    assert_eq!(storage.after_crash(Landing::All).read_raw("f").unwrap(), b"new");
}

#[test]
fn a_failed_sync_may_have_lost_what_a_later_one_does_not_save() {
    let storage = SimStorage::new();
    let file = durable_file(&storage, "f", b"aaaa");
    file.write_all_at(b"b", 0).unwrap();
    storage.inject(Fault::once(FaultOn::Sync, 0, FaultError::Io));
    file.sync_data().unwrap_err();
    file.write_all_at(b"c", 1).unwrap();
    file.sync_data().unwrap();
    assert_eq!(storage.read_raw("f").unwrap(), b"bcaa");
    assert_eq!(storage.after_crash(Landing::None).read_raw("f").unwrap(), b"acaa");
    assert_eq!(storage.after_crash(Landing::All).read_raw("f").unwrap(), b"bcaa");
}

#[test]
fn a_lying_sync_makes_nothing_durable() {
    let storage = SimStorage::new();
    let file = durable_file(&storage, "f", b"old");
    storage.set_lying_sync(true);
    file.write_all_at(b"new", 0).unwrap();
    file.sync_data().unwrap();
    create(&storage, "g");
    storage.sync_dir("").unwrap();
    let found = storage.after_crash(Landing::None);
    assert_eq!((names(&found), found.read_raw("f").unwrap()), (vec!["f".to_owned()], b"old".to_vec()));
}

#[test]
fn faults_hit_what_they_name_and_when() {
    let storage = SimStorage::new();
    let journal = create(&storage, "journal");
    let other = create(&storage, "other");
    storage.inject(Fault::once(FaultOn::Write, 1, FaultError::Io).of("journal"));
    storage.inject(Fault::for_ever(FaultOn::Sync, 1, FaultError::NoSpace));
    other.write_all_at(b"x", 0).unwrap();
    journal.write_all_at(b"x", 0).unwrap();
    journal.write_all_at(&[9; 2048], 0).unwrap_err();
    assert_eq!(journal.len().unwrap(), 1024, "a failed write leaves its start");
    journal.write_all_at(b"x", 0).unwrap();
    journal.sync_data().unwrap();
    for _ in 0..3 {
        assert_eq!(storage.sync_dir("").unwrap_err().kind(), ErrorKind::StorageFull);
    }
    storage.clear_faults();
    storage.sync_dir("").unwrap();
    storage.inject(Fault::once(FaultOn::Read, 0, FaultError::Io));
    journal.map(0, 1).map(|_| ()).unwrap_err();
    assert_eq!(&journal.map(0, 1).unwrap()[..], b"x");
}

#[test]
fn a_full_disk_refuses_new_blocks_only() {
    let storage = SimStorage::new();
    storage.set_total_bytes(Some(5 * 4096));
    let file = create(&storage, "f");
    file.allocate(0, 3 * 4096).unwrap();
    assert_eq!(storage.space().unwrap().available_bytes, 2 * 4096);
    assert_eq!(file.allocate(0, 6 * 4096).unwrap_err().kind(), ErrorKind::StorageFull);
    let error = file.write_all_at(&[1; 4 * 4096], 3 * 4096).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 5 * 4096, "what fitted was written");
    assert_eq!(storage.space().unwrap().available_bytes, 0);
    file.write_all_at(&[2; 3 * 4096], 0).unwrap();
    file.punch_hole(0, 2 * 4096).unwrap();
    assert_eq!(storage.space().unwrap().available_bytes, 2 * 4096);
    storage.remove("f").unwrap();
    assert_eq!(storage.space().unwrap().available_bytes, 2 * 4096, "an open file keeps its space");
    drop(file);
    assert_eq!(storage.space().unwrap().available_bytes, 5 * 4096);
}

#[test]
fn forks_go_their_own_ways() {
    let storage = SimStorage::new();
    let file = durable_file(&storage, "f", b"one");
    file.write_all_at(b"two", 0).unwrap();
    let fork = storage.fork();
    fork.open("f", OpenMode::ReadWrite).unwrap().write_all_at(b"six", 0).unwrap();
    assert_eq!(storage.read_raw("f").unwrap(), b"two");
    assert_eq!(fork.read_raw("f").unwrap(), b"six");
    assert_eq!(fork.after_crash(Landing::None).read_raw("f").unwrap(), b"one");
    assert_eq!(fork.operations(), 1);
}

#[test]
fn damage_is_durable_and_uncounted() {
    let storage = SimStorage::new();
    durable_file(&storage, "f", &[0; 10]);
    durable_file(&storage, "g", b"g");
    let operations = storage.operations();
    storage.flip_bit("f", 3, 2).unwrap();
    storage.write_raw("f", 8, b"abc").unwrap();
    storage.truncate_raw("f", 10).unwrap();
    storage.remove_raw("g").unwrap();
    storage.flip_bit("f", 10, 0).unwrap_err();
    assert_eq!(storage.operations(), operations);
    let found = storage.after_crash(Landing::None);
    assert_eq!(found.read_raw("f").unwrap(), b"\0\0\0\x04\0\0\0\0ab");
    assert_eq!(names(&found), ["f"]);
}

#[derive(Clone, Debug)]
enum Action {
    Create(u8),
    Remove(u8),
    Rename(u8, u8),
    CreateFolder(u8),
    Write { file: u8, offset: u64, length: usize, byte: u8 },
    SetLen { file: u8, length: u64 },
    Allocate { file: u8, offset: u64, length: u64 },
    Punch { file: u8, offset: u64, length: u64 },
    Read { file: u8, offset: u64, length: usize },
    Map { file: u8, offset: u64, length: usize },
}

const FILE_NAMES: [&str; 5] = ["a", "b", "d/a", "e/b", "d/e/a"];
/// No file and folder share a name: only files are renamed in a store.
const FOLDER_NAMES: [&str; 3] = ["d", "e", "d/e"];

fn action() -> impl Strategy<Value = Action> {
    let file = 0..FILE_NAMES.len() as u8;
    let place = (file.clone(), 0..40_000_u64, 0..20_000_u64);
    prop_oneof![
        3 => file.clone().prop_map(Action::Create),
        1 => file.clone().prop_map(Action::Remove),
        1 => (file.clone(), file.clone()).prop_map(|(from, to)| Action::Rename(from, to)),
        1 => (0..FOLDER_NAMES.len() as u8).prop_map(Action::CreateFolder),
        6 => (place.clone(), 1..=255_u8).prop_map(|((file, offset, length), byte)| {
            Action::Write { file, offset, length: length as usize, byte }
        }),
        1 => (file, 0..40_000_u64).prop_map(|(file, length)| Action::SetLen { file, length }),
        1 => place.clone().prop_map(|(file, offset, length)| Action::Allocate { file, offset, length }),
        2 => place.clone().prop_map(|(file, offset, length)| Action::Punch { file, offset, length }),
        2 => place.clone().prop_map(|(file, offset, length)| {
            Action::Read { file, offset, length: length as usize }
        }),
        1 => place.prop_map(|(file, offset, length)| Action::Map { file, offset, length: length as usize }),
    ]
}

/// Runs one action and returns all that a caller can see of it.
fn run(storage: &dyn Storage, action: &Action) -> Result<Vec<u8>, ErrorKind> {
    let open = |file: u8| storage.open(FILE_NAMES[usize::from(file)], OpenMode::ReadWrite);
    let name = |file: u8| FILE_NAMES[usize::from(file)];
    let none = Vec::new();
    let outcome = match *action {
        Action::Create(file) => storage.open(name(file), OpenMode::CreateNew).map(|_| none),
        Action::Remove(file) => storage.remove(name(file)).map(|()| none),
        Action::Rename(from, to) => storage.rename(name(from), name(to)).map(|()| none),
        Action::CreateFolder(folder) => storage.create_dir(FOLDER_NAMES[usize::from(folder)]).map(|()| none),
        Action::Write { file, offset, length, byte } => {
            open(file).and_then(|file| file.write_all_at(&vec![byte; length], offset)).map(|()| none)
        }
        Action::SetLen { file, length } => open(file).and_then(|file| file.set_len(length)).map(|()| none),
        Action::Allocate { file, offset, length } => {
            open(file).and_then(|file| file.allocate(offset, length)).map(|()| none)
        }
        Action::Punch { file, offset, length } => {
            open(file).and_then(|file| file.punch_hole(offset, length)).map(|()| none)
        }
        Action::Read { file, offset, length } => open(file).and_then(|file| {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, offset).map(|()| bytes)
        }),
        Action::Map { file, offset, length } => {
            open(file).and_then(|file| Ok(file.map(offset, length)?.to_vec()))
        }
    };
    outcome.map_err(|error| error.kind())
}

/// All that is stored: names, and bytes of each file.
fn contents(storage: &dyn Storage) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for folder in ["", "d", "e", "d/e"] {
        let Ok(files) = storage.list(folder) else { continue };
        for file in files {
            let name = if folder.is_empty() { file } else { format!("{folder}/{file}") };
            let file = storage.open(&name, OpenMode::Read).unwrap();
            let mut bytes = vec![0; file.len().unwrap() as usize];
            file.read_exact_at(&mut bytes, 0).unwrap();
            found.push((name, bytes));
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_is_the_hosts_equal(actions in proptest::collection::vec(action(), 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        let real = RealStorage::open(folder.path()).unwrap();
        let sim = SimStorage::new();
        for action in &actions {
            prop_assert_eq!(run(&sim, action), run(&real, action), "{:?}", action);
        }
        prop_assert_eq!(contents(&sim), contents(&real));
        prop_assert_eq!(contents(&sim.after_crash(Landing::All)), contents(&real));
    }

    #[test]
    fn space_is_accounted_for(actions in proptest::collection::vec(action(), 1..60)) {
        let sim = SimStorage::new();
        for action in &actions {
            let _ = run(&sim, action);
        }
        let files = sim.files();
        let taken: u64 = files
            .iter()
            .map(|(name, _)| sim.open(name, OpenMode::Read).unwrap().allocated_bytes().unwrap())
            .sum();
        let space = sim.space().unwrap();
        prop_assert_eq!(space.total_bytes - space.available_bytes, taken);
        let fork = sim.fork().space().unwrap();
        prop_assert_eq!(fork, space);
    }
}
