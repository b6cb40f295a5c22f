//! The readers of SQL Server's backup files and pages on real ones: headers, chains, checksums, every flipped byte.
//!
//! And what landing saves: bytes that a real store takes for each file after the others, as it is and landed.
//!
//! Run by tests/mssql_files.sh, never by a plain `cargo test`: the files are not in the repository. Fails when they are not there. Prints
//! the figures that docs/sqlserver.md gives.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

use std::sync::Arc;

use jiff::tz::TimeZone;
use stillpoint::adapter::Task;
use stillpoint::adapter::sqlserver::chain::{Backup, BackupKind, Chain, Stripe};
use stillpoint::adapter::sqlserver::landing::{Landing, Original, land, put_together};
use stillpoint::adapter::sqlserver::page::{self, PAGE_BYTES, PageState};
use stillpoint::adapter::sqlserver::plan::{Leave, RestorePlan, RestoreTarget};
use stillpoint::adapter::sqlserver::tape::{
    BackupFile, BackupSet, EXTENT_BYTES, SetKind, place_extent, read_file,
};
use stillpoint::adapter::sqlserver::verify::{Watch, verify_file};

use stillpoint::base::{RealStorage, SystemClock, SystemRandom};
use stillpoint::{CreateOptions, Environment, NewNode, OpenOptions, Owner, ROOT_INO, Store};

const SECOND: i64 = 1000;

/// The backup files below the folder that the environment names, by name.
fn files() -> Vec<PathBuf> {
    let folder = std::env::var_os("STILLPOINT_MSSQL_DATA")
        .expect("STILLPOINT_MSSQL_DATA names the folder of backup files");
    let mut open = vec![PathBuf::from(folder)];
    let mut files = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    assert!(!files.is_empty(), "there are no backup files");
    files
}

fn read_all() -> Vec<(PathBuf, BackupFile)> {
    let read = |path: PathBuf| {
        let file = read_file(&path).and_then(|file| file.check(&path.display().to_string()));
        (path.clone(), file.unwrap_or_else(|error| panic!("{error}")))
    };
    files().into_iter().map(read).collect()
}

fn record(path: &std::path::Path, set: &BackupSet) -> Backup {
    let stripes = vec![Stripe { family: 1, file: path.file_name().unwrap().to_string_lossy().into_owned() }];
    Backup::of_set(set, stripes, 1, None).expect("a full, differential or log of known time zone")
}

/// The chain of each database.
fn chains() -> BTreeMap<String, Chain> {
    let mut databases: BTreeMap<String, Vec<Backup>> = BTreeMap::new();
    for (path, file) in read_all() {
        for set in &file.sets {
            databases.entry(set.database.clone()).or_default().push(record(&path, set));
        }
    }
    databases.into_iter().map(|(database, backups)| (database, Chain::new(backups))).collect()
}

fn names(plan: &RestorePlan) -> Vec<String> {
    plan.steps.iter().map(|step| step.files[0].file.clone()).collect()
}

#[test]
fn every_header_is_read() {
    for (path, file) in read_all() {
        for set in &file.sets {
            println!(
                "{}: {:?} {} of {} on {} ({}.{}.{}, database version {}), LSN {} to {}, checkpoint {:?}, full before {:?}, base {:?}, fork {:?}, \
                 finished {:?}, {} pages in {} runs, {} bytes of log, flags {:#x}",
                path.file_name().unwrap().to_string_lossy(),
                set.kind,
                set.id,
                set.database,
                set.server,
                set.software.0,
                set.software.1,
                set.software.2,
                set.database_version,
                set.first_lsn,
                set.last_lsn,
                set.checkpoint_lsn.map(|lsn| lsn.to_string()),
                set.database_backup_lsn.map(|lsn| lsn.to_string()),
                set.differential_base_id,
                set.last_fork,
                set.finished.map(|time| time.0),
                set.data.data_pages,
                set.data.runs.len(),
                set.data.log_bytes,
                set.flags.0,
            );
            assert!(set.complete && !set.database.is_empty() && set.first_lsn < set.last_lsn);
            assert!(set.files.iter().all(|file| !file.logical_name.is_empty() && file.size_bytes > 0));
            assert_eq!(set.data.unplaced_bytes, 0);
            // The file list counts the same pages as the streams have.
            let listed: u64 = set
                .files
                .iter()
                .filter(|file| file.file_id == 1)
                .map(|file| u64::from(file.pages_in_backup))
                .sum();
            assert_eq!(listed, set.data.data_pages);
            let expected = match path.extension().unwrap().to_str().unwrap() {
                "trn" => set.kind == SetKind::Log,
                _ => set.kind != SetKind::Log,
            };
            assert!(expected, "{}", path.display());
        }
        assert_eq!(file.sets.len(), 1);
        assert!(file.media.set_id.is_some());
    }
}

#[test]
fn the_files_make_chains() {
    for (database, chain) in chains() {
        let plan = chain.plan(&RestoreTarget::Newest, &Leave::Recovered).unwrap();
        println!("== {database}, newest\n{}", plan.describe(&TimeZone::UTC));
        for span in chain.spans() {
            println!("span {:?}", span);
        }
        assert_eq!(chain.gaps(), []);
        for backup in chain.backups() {
            let plan = chain.plan(&RestoreTarget::Backup(backup.id), &Leave::NoRecovery);
            assert!(plan.is_ok(), "{}: {plan:?}", backup.stripes[0].file);
        }
    }
}

#[test]
fn logs_join_and_differentials_know_their_full() {
    let chain = chains().remove("RestoreTimeClean").expect("the files of RestoreTimeClean");
    let of = |kind| chain.backups().iter().filter(move |backup| backup.kind == kind).collect::<Vec<_>>();
    let (logs, fulls, differentials) =
        (of(BackupKind::Log), of(BackupKind::Full), of(BackupKind::Differential));
    assert_eq!((logs.len(), fulls.len(), differentials.len()), (6, 1, 1));
    assert!(logs.windows(2).all(|pair| pair[0].last_lsn == pair[1].first_lsn));
    assert_eq!(differentials[0].base_id, Some(fulls[0].id));
    let plan = chain.plan(&RestoreTarget::Newest, &Leave::Recovered).unwrap();
    let expected = [
        "RestoreTimeClean.bak",
        "RestoreTimeClean2.bak",
        "RestoreTimeClean2_1.trn",
        "RestoreTimeClean2_2.trn",
        "RestoreTimeClean2_3.trn",
    ];
    assert_eq!(names(&plan), expected);
    // Before the differential was made, logs alone lead on.
    let time = differentials[0].finished_ms - 120 * SECOND;
    let plan = chain.plan(&RestoreTarget::Time(time), &Leave::Recovered).unwrap();
    let expected = [
        "RestoreTimeClean.bak",
        "RestoreTimeClean_1.trn",
        "RestoreTimeClean_2.trn",
        "RestoreTimeClean_3.trn",
    ];
    assert_eq!(names(&plan), expected);
    // Without the middle log there is no way on but the differential, and the gap is told.
    let lost: Vec<Backup> = chain
        .backups()
        .iter()
        .filter(|backup| !backup.stripes[0].file.ends_with("Clean_2.trn"))
        .cloned()
        .collect();
    let refusal = Chain::new(lost).plan(&RestoreTarget::Time(time), &Leave::Recovered).unwrap_err();
    println!("{}", refusal.about("RestoreTimeClean", &TimeZone::UTC).message());
    assert_eq!(refusal.gaps.len(), 1);
}

/// The pages of all data streams, with the page that each is to be.
struct Pages {
    pages: Vec<(Option<u32>, Vec<u8>)>,
    extents: usize,
    placed: usize,
}

fn pages(path: &std::path::Path, set: &BackupSet) -> Pages {
    let bytes = fs::read(path).unwrap();
    let mut found = Pages { pages: Vec::new(), extents: 0, placed: 0 };
    for run in &set.data.runs {
        let from = usize::try_from(run.at).unwrap();
        for extent in
            bytes[from..from + usize::try_from(run.pages).unwrap() * PAGE_BYTES].chunks(EXTENT_BYTES)
        {
            let place = place_extent(extent);
            found.extents += 1;
            found.placed += usize::from(place.is_some());
            for (at, page) in (0u32..).zip(extent.chunks(PAGE_BYTES)) {
                found.pages.push((place.map(|place| place.first_page + at), page.to_vec()));
            }
        }
    }
    found
}

/// Whether the first PFS page says that a page is in use.
fn allocated(pfs: &[u8], page: u32) -> bool {
    pfs[100 + page as usize] & 0x40 != 0
}

#[test]
fn checksums_hold_and_every_flipped_byte_is_found() {
    let (mut flips, mut found, mut protected, mut unused_failures) = (0u64, 0u64, 0u64, 0u64);
    let mut seen = BTreeSet::new();
    for (path, file) in read_all() {
        for set in file.sets.iter().filter(|set| set.data.data_pages > 0) {
            let all = pages(&path, set);
            assert_eq!(all.placed, all.extents, "{}: extents without a place", path.display());
            let pfs = all.pages.iter().find(|(id, _)| *id == Some(1)).map(|(_, page)| page.clone()).unwrap();
            let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
            for (id, page) in &all.pages {
                let state = page::check(page);
                let used = allocated(&pfs, id.unwrap());
                if state.is_bad() {
                    assert!(!used, "{}: page {id:?}: {state:?}", path.display());
                    unused_failures += 1;
                }
                let word = match state {
                    PageState::Zero => "zero",
                    PageState::Unprotected if used => "unprotected, in use",
                    PageState::Unprotected => "unprotected, free",
                    PageState::Good => "good",
                    _ => "bad, free",
                };
                *counts.entry(word).or_default() += 1;
                if state == PageState::Good && seen.insert(page.clone()) {
                    protected += 1;
                    let (tried, hit) = flip_every_byte(page);
                    flips += tried;
                    found += hit;
                }
            }
            println!(
                "{}: {} extents, all placed; {counts:?}",
                path.file_name().unwrap().to_string_lossy(),
                all.extents
            );
        }
    }
    println!(
        "{protected} different pages with a checksum; {found} of {flips} flipped bytes found; {unused_failures} failures on free pages"
    );
    assert_eq!(found, flips);
}

#[test]
fn data_files_made_of_full_backups_are_verified() {
    for (path, file) in read_all() {
        for set in file.sets.iter().filter(|set| set.kind == SetKind::Full) {
            let mut data = tempfile::NamedTempFile::new().unwrap();
            for (id, page) in pages(&path, set).pages {
                data.seek(SeekFrom::Start(u64::from(id.unwrap()) * PAGE_BYTES as u64)).unwrap();
                data.write_all(&page).unwrap();
            }
            data.as_file()
                .set_len(set.files.iter().find(|file| file.file_id == 1).unwrap().size_bytes)
                .unwrap();
            let watch = Watch { progress: &|_, _| {}, cancelled: &|| false };
            let report = verify_file(data.path(), &watch).unwrap();
            println!("{}: {report:?}", path.file_name().unwrap().to_string_lossy());
            assert!(report.is_good());
            assert_eq!(report.file_id, 1);
        }
    }
}

/// Each byte of a page changed, by a mask that differs from place to place.
fn flip_every_byte(page: &[u8]) -> (u64, u64) {
    let mut page = page.to_vec();
    let mut found = 0;
    for at in 0..PAGE_BYTES {
        let mask = (at as u8).wrapping_mul(37) | 1 << (at % 8);
        page[at] ^= mask;
        found += u64::from(page::check(&page).is_bad());
        page[at] ^= mask;
    }
    (PAGE_BYTES as u64, found)
}

/// Watches nothing.
struct Quiet;

impl Task for Quiet {
    fn step(&mut self, _name: &str) -> stillpoint::Result<()> {
        Ok(())
    }
    fn bytes(&mut self, _done: u64, _total: Option<u64>) {}
    fn log(&mut self, _line: &str) {}
    fn warn(&mut self, line: &str) {
        panic!("{line}");
    }
    fn check(&self) -> stillpoint::Result<()> {
        Ok(())
    }
}

/// A store on this host, and what it takes.
struct Taking {
    store: Arc<Store>,
    _folder: tempfile::TempDir,
}

impl Taking {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let storage = Arc::new(RealStorage::create(&folder.path().join("store")).unwrap());
        let environment = Environment { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom) };
        Store::create(storage.clone(), &environment, &CreateOptions { journal_bytes: 8 << 20 }).unwrap();
        let store = Store::open(storage, &environment, &OpenOptions::default()).unwrap();
        store.create_volume("backups").unwrap();
        Self { store, _folder: folder }
    }

    /// Stores files; the bytes that this took: blocks before compression, and all that is kept of them.
    fn add(&self, files: &[(String, Vec<u8>)]) -> (u64, u64) {
        let before = self.store.stats().unwrap();
        let volume = self.store.volume("backups").unwrap();
        for (name, bytes) in files {
            let made = volume.create(ROOT_INO, name.as_bytes(), NewNode::File, 0o600, Owner::default());
            let file = made.unwrap().ino;
            for (number, part) in (0u64..).zip(bytes.chunks(1 << 20)) {
                volume.write(file, number << 20, part).unwrap();
            }
        }
        volume.flush().unwrap();
        self.store.checkpoint().unwrap();
        let after = self.store.stats().unwrap();
        (after.stored_bytes - before.stored_bytes, after.live_bytes.saturating_sub(before.live_bytes))
    }
}

/// The data file that a full backup is of, as far as the backup has its pages.
fn data_file(path: &std::path::Path, set: &BackupSet) -> Vec<u8> {
    let size = set.files.iter().find(|file| file.file_id == 1).unwrap().size_bytes;
    let mut bytes = vec![0; usize::try_from(size).unwrap()];
    for (id, page) in pages(path, set).pages {
        let at = id.unwrap() as usize * PAGE_BYTES;
        bytes[at..at + PAGE_BYTES].copy_from_slice(&page);
    }
    bytes
}

/// What each form of a file is stored as.
fn forms(path: &std::path::Path) -> [Vec<(String, Vec<u8>)>; 2] {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let bytes = fs::read(path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (landed, again) = (folder.path().join("landed"), folder.path().join("again"));
    let found = land(path, &landed, Original::Keep, &mut Quiet).unwrap();
    let parts = match found {
        Landing::Kept(why) => {
            println!("{name}: kept as it is: {why}");
            vec![(name.clone(), bytes.clone())]
        }
        Landing::Landed(found) => {
            put_together(&landed, &again, &mut Quiet).unwrap();
            assert!(fs::read(&again).unwrap() == bytes, "{name} did not come back as it was");
            println!(
                "{name}: {} bytes, {} pages, {} bytes of frame",
                bytes.len(),
                found.pages,
                found.frame_bytes
            );
            let part = |part: &str| (format!("{name}.{part}"), fs::read(landed.join(part)).unwrap());
            vec![part("pages"), part("frame")]
        }
    };
    [vec![(name, bytes)], parts]
}

#[test]
fn what_landing_saves() {
    let mut databases: BTreeMap<String, Vec<(PathBuf, BackupFile)>> = BTreeMap::new();
    for (path, file) in read_all() {
        databases.entry(file.sets[0].database.clone()).or_default().push((path, file));
    }
    for (database, mut files) in databases {
        files.sort_by_key(|(_, file)| (file.sets[0].kind, file.sets[0].first_lsn));
        let data = files.iter().find(|(_, file)| file.sets[0].kind == SetKind::Full).unwrap();
        let data = vec![("data.mdf".to_owned(), data_file(&data.0, &data.1.sets[0]))];
        for with_data in [false, true] {
            println!("== {database}{}", if with_data { ", its data file on the volume before" } else { "" });
            let stores = [Taking::new(), Taking::new()];
            if with_data {
                for store in &stores {
                    store.add(&data);
                }
            }
            for (path, file) in &files {
                let [plain, landed] = forms(path);
                let added = [stores[0].add(&plain), stores[1].add(&landed)];
                println!(
                    "{:?} of {} bytes: as it is {} bytes of blocks, {} stored; landed {} and {}",
                    file.sets[0].kind,
                    plain[0].1.len(),
                    added[0].0,
                    added[0].1,
                    added[1].0,
                    added[1].1
                );
                // Landed next to its data file a full adds its frame, at most one block more for its end.
                let frame = landed.last().unwrap().1.len() as u64;
                let full = file.sets[0].kind == SetKind::Full;
                assert!(!(with_data && full) || added[1].0 <= frame + PAGE_BYTES as u64);
                assert!(landed.len() == 1 || added[1].0 < added[0].0);
            }
        }
    }
}
