//! Landing of files: any bytes come back, what is damaged is refused, and what an ended attempt left is put right.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::adapter::Task;
use crate::adapter::sqlserver::page::PAGE_BYTES;
use crate::adapter::sqlserver::tape::writer::{SetSpec, page, write};
use crate::adapter::sqlserver::tape::{self, EXTENT_PAGES};
use crate::base::{ErrorKind, SeededRandom, SimClock, SimStorage, Storage};
use crate::volume::{CreateOptions, Environment, NewNode, OpenOptions, Owner, ROOT_INO, Store};

/// Takes everything, and asks for an end after so many looks.
struct Quiet {
    looks_left: std::cell::Cell<u32>,
    on_step: Box<dyn FnMut(&str) + Send>,
}

impl Default for Quiet {
    fn default() -> Self {
        Self { looks_left: u32::MAX.into(), on_step: Box::new(|_| {}) }
    }
}

impl Task for Quiet {
    fn step(&mut self, name: &str) -> Result<()> {
        (self.on_step)(name);
        Ok(())
    }
    fn bytes(&mut self, done: u64, total: Option<u64>) {
        assert!(total.is_some_and(|total| done <= total));
    }
    fn log(&mut self, _line: &str) {}
    fn warn(&mut self, line: &str) {
        panic!("{line}");
    }
    fn check(&self) -> Result<()> {
        match self.looks_left.get() {
            0 => Err(Error::new(ErrorKind::Cancelled, "cancelled")),
            left => {
                self.looks_left.set(left - 1);
                Ok(())
            }
        }
    }
}

struct Stage {
    folder: TempDir,
}

impl Stage {
    fn with(bytes: &[u8]) -> Self {
        let stage = Self { folder: tempfile::tempdir().unwrap() };
        fs::write(stage.file(), bytes).unwrap();
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self) -> PathBuf {
        self.path("a.bak")
    }

    fn landed(&self) -> PathBuf {
        self.path("a.bak.landed")
    }

    fn land(&self, original: Original) -> Result<Landing> {
        land(&self.file(), &self.landed(), original, &mut Quiet::default())
    }

    fn join(&self) -> Result<Vec<u8>> {
        let to = self.path("again.bak");
        put_together(&self.landed(), &to, &mut Quiet::default())?;
        let bytes = fs::read(&to).unwrap();
        fs::remove_file(to).unwrap();
        Ok(bytes)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// A set of so many extents, so many of them in one stream.
fn set(extents: u32, extents_per_stream: usize) -> SetSpec {
    SetSpec { extents: (0..extents).map(|at| at * 8).collect(), extents_per_stream, ..SetSpec::default() }
}

fn landed(landing: Landing) -> Landed {
    match landing {
        Landing::Landed(landed) => landed,
        Landing::Kept(why) => panic!("{why}"),
    }
}

#[test]
fn pages_lie_on_the_grid_in_the_order_of_the_file() {
    let bytes = write(&[set(5, 2), SetSpec { id: 2, ..set(1, 1) }]);
    let stage = Stage::with(&bytes);
    let landed = landed(stage.land(Original::Keep).unwrap());
    let expected: Vec<u8> = (0..5 * 8).chain(0..8).flat_map(page).collect();
    assert!(fs::read(stage.landed().join("pages")).unwrap() == expected);
    assert_eq!((landed.length, landed.pages), (bytes.len() as u64, 48));
    assert_eq!(landed.frame_bytes, fs::metadata(stage.landed().join("frame")).unwrap().len());
    assert!(landed.frame_bytes < 32 << 10, "{landed:?}");
    assert_eq!(landed, look(&stage.landed()).unwrap());
    assert!(stage.join().unwrap() == bytes);
    // As the file, without putting it together.
    let mut file = LandedFile::open(&stage.landed()).unwrap();
    let mut again = Vec::new();
    file.read_to_end(&mut again).unwrap();
    assert!(again == bytes);
    let read = tape::read(LandedFile::open(&stage.landed()).unwrap()).unwrap();
    assert_eq!(read.sets, tape::read_file(&stage.file()).unwrap().sets);
    assert_eq!(stage.names(), ["a.bak", "a.bak.landed"]);
}

#[test]
fn the_file_goes_only_when_asked_and_comes_back_as_it_was() {
    let bytes = write(&[set(2, 2)]);
    let stage = Stage::with(&bytes);
    fs::set_permissions(stage.file(), fs::Permissions::from_mode(0o640)).unwrap();
    let before = fs::metadata(stage.file()).unwrap();
    stage.land(Original::Keep).unwrap();
    assert!(stage.file().exists());
    // The second time nothing is left to do but the removal.
    landed(stage.land(Original::Remove).unwrap());
    assert_eq!(stage.names(), ["a.bak.landed"]);
    put_together(&stage.landed(), &stage.file(), &mut Quiet::default()).unwrap();
    let after = fs::metadata(stage.file()).unwrap();
    assert_eq!(after.permissions(), before.permissions());
    assert_eq!(after.modified().unwrap(), before.modified().unwrap());
    let error = put_together(&stage.landed(), &stage.file(), &mut Quiet::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
    assert!(fs::read(stage.file()).unwrap() == bytes);
}

#[test]
fn what_cannot_be_landed_stays_and_says_why() {
    let log = SetSpec { letter: b'L', extents: Vec::new(), ..SetSpec::default() };
    let full = write(&[set(2, 1)]);
    for (bytes, why) in [
        (b"MSSQLBAK and more".to_vec(), "MSSQLBAK"),
        (b"some other file".to_vec(), "tape header"),
        (Vec::new(), "empty"),
        (write(&[log]), "no pages"),
        (write(&[SetSpec { encrypted: true, ..set(2, 1) }]), "encrypted"),
        (full[..full.len() - 4096].to_vec(), "ends"),
    ] {
        let stage = Stage::with(&bytes);
        match stage.land(Original::Remove).unwrap() {
            Landing::Kept(text) => assert!(text.contains(why), "{text}"),
            Landing::Landed(_) => panic!("landed what is {why}"),
        }
        assert_eq!(stage.names(), ["a.bak"]);
        assert!(fs::read(stage.file()).unwrap() == bytes);
    }
}

#[test]
fn damage_is_refused_and_leaves_nothing() {
    let stage = Stage::with(&write(&[set(3, 1)]));
    stage.land(Original::Keep).unwrap();
    for (name, at) in [("pages", 9000), ("frame", 3), ("frame", 700), ("frame", 3000)] {
        let path = stage.landed().join(name);
        let good = fs::read(&path).unwrap();
        let mut bytes = good.clone();
        bytes[at] ^= 0x20;
        fs::write(&path, &bytes).unwrap();
        let error = stage.join().unwrap_err();
        assert!(error.message().contains(name), "{error}");
        // Nor is the file taken for superfluous.
        assert!(stage.land(Original::Remove).is_err());
        fs::write(&path, &good[..good.len() - 8]).unwrap();
        assert!(stage.join().is_err() && look(&stage.landed()).is_err());
        fs::write(&path, &good).unwrap();
    }
    assert_eq!(stage.names(), ["a.bak", "a.bak.landed"]);
    stage.join().unwrap();
}

#[test]
fn a_folder_of_something_else_is_left_alone() {
    let stage = Stage::with(&write(&[set(3, 1)]));
    fs::create_dir(stage.landed()).unwrap();
    assert_eq!(stage.land(Original::Remove).unwrap_err().kind(), ErrorKind::Exists);
    fs::remove_dir(stage.landed()).unwrap();
    stage.land(Original::Keep).unwrap();
    // Of the same length, of other content.
    let mut other = fs::read(stage.file()).unwrap();
    other[20_000] ^= 1;
    fs::write(stage.file(), &other).unwrap();
    assert_eq!(stage.land(Original::Remove).unwrap_err().kind(), ErrorKind::Exists);
    assert!(stage.file().exists());
}

#[test]
fn a_file_that_changes_meanwhile_stays() {
    let stage = Stage::with(&write(&[set(3, 1)]));
    let file = stage.file();
    let mut task = Quiet {
        on_step: Box::new(move |name| {
            if name == "read it back" {
                let mut bytes = fs::read(&file).unwrap();
                bytes.extend_from_slice(&[0; 512]);
                fs::write(&file, bytes).unwrap();
            }
        }),
        ..Quiet::default()
    };
    let error = land(&stage.file(), &stage.landed(), Original::Remove, &mut task).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse, "{error}");
    assert_eq!(stage.names(), ["a.bak"]);
}

#[test]
fn what_is_damaged_on_the_way_is_found_before_the_file_goes() {
    let stage = Stage::with(&write(&[set(3, 1)]));
    let pages = stage.path(".a.bak.landed.partial").join("pages");
    let mut task = Quiet {
        on_step: Box::new(move |name| {
            if name == "read it back" {
                let mut bytes = fs::read(&pages).unwrap();
                bytes[12_345] ^= 4;
                fs::write(&pages, bytes).unwrap();
            }
        }),
        ..Quiet::default()
    };
    let error = land(&stage.file(), &stage.landed(), Original::Remove, &mut task).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(stage.names(), ["a.bak"]);
}

/// Ended at each of the points where it may be, and tried again over what an attempt left that could not clear up.
#[test]
fn an_ended_attempt_is_taken_up() {
    let bytes = write(&[set(3, 1)]);
    let stage = Stage::with(&bytes);
    let mut ended = 0;
    loop {
        let leftover = stage.path(".a.bak.landed.partial");
        fs::create_dir(&leftover).unwrap();
        fs::write(leftover.join("pages"), b"half").unwrap();
        let mut task = Quiet { looks_left: ended.into(), ..Quiet::default() };
        match land(&stage.file(), &stage.landed(), Original::Remove, &mut task) {
            Ok(_) => break,
            Err(e) => assert_eq!(e.kind(), ErrorKind::Cancelled),
        }
        assert_eq!(stage.names(), ["a.bak"]);
        ended += 1;
    }
    assert!(ended > 10, "ended {ended} times");
    assert_eq!(stage.names(), ["a.bak.landed"]);
    assert!(stage.join().unwrap() == bytes);
}

#[test]
fn links_and_folders_are_no_backup_files() {
    let stage = Stage::with(&write(&[set(1, 1)]));
    let link = stage.path("link.bak");
    std::os::unix::fs::symlink(stage.file(), &link).unwrap();
    for path in [link.as_path(), stage.folder.path()] {
        let error = land(path, &stage.landed(), Original::Remove, &mut Quiet::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    let nothing = put_together(Path::new("/nowhere"), &stage.path("x"), &mut Quiet::default());
    assert_eq!(nothing.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(stage.names(), ["a.bak", "link.bak"]);
}

/// A store in memory, and what files take in it.
struct Taking {
    store: Arc<Store>,
    files: u32,
}

impl Taking {
    fn new() -> Self {
        let environment = Environment {
            clock: Arc::new(SimClock::new(Duration::from_secs(1_700_000_000), Duration::from_micros(10))),
            random: Arc::new(SeededRandom::new(1)),
        };
        let storage: Arc<dyn Storage> = Arc::new(SimStorage::new());
        Store::create(storage.clone(), &environment, &CreateOptions { journal_bytes: 1 << 20 }).unwrap();
        let options = OpenOptions { background: false, ..OpenOptions::default() };
        let store = Store::open(storage, &environment, &options).unwrap();
        store.create_volume("backups").unwrap();
        Self { store, files: 0 }
    }

    /// Blocks that it takes more than before.
    fn add(&mut self, bytes: &[u8]) -> u64 {
        let before = self.store.stats().unwrap().stored_bytes;
        let volume = self.store.volume("backups").unwrap();
        self.files += 1;
        let name = self.files.to_string();
        let file = volume.create(ROOT_INO, name.as_bytes(), NewNode::File, 0o600, Owner::default()).unwrap();
        for (number, part) in (0u64..).zip(bytes.chunks(1 << 20)) {
            volume.write(file.ino, number << 20, part).unwrap();
        }
        self.store.checkpoint().unwrap();
        (self.store.stats().unwrap().stored_bytes - before) / PAGE_BYTES as u64
    }

    /// Blocks that a backup takes, landed: pages, frame.
    fn add_landed(&mut self, bytes: &[u8]) -> (u64, u64) {
        let stage = Stage::with(bytes);
        landed(stage.land(Original::Remove).unwrap());
        let [pages, frame] = ["pages", "frame"].map(|name| fs::read(stage.landed().join(name)).unwrap());
        (self.add(&pages), self.add(&frame))
    }
}

/// A data file, two fulls with one page in a hundred changed between them, and a differential with the extents of those: 4,096 pages.
#[test]
fn pages_that_are_stored_already_take_no_room_again() {
    let extents = 512;
    let full = write(&[set(extents, 16)]);
    let mut changed = full.clone();
    let runs = tape::read(std::io::Cursor::new(&full)).unwrap().sets.remove(0).data.runs;
    let places: Vec<usize> = runs
        .iter()
        .flat_map(|run| (0..run.pages).map(|page| (run.at + page * PAGE_BYTES as u64) as usize))
        .collect();
    let mut differing = Vec::new();
    for (number, at) in places.iter().enumerate().filter(|(number, _)| number % 100 == 50) {
        changed[at + 200..at + 300].iter_mut().for_each(|byte| *byte ^= 0xff);
        differing.push(number as u32 / 8 * 8);
    }
    let differential = SetSpec { letter: b'I', ..SetSpec { extents: differing.clone(), ..set(0, 16) } };
    let differential = write(&[differential]);
    let data: Vec<u8> = (0..extents * 8).flat_map(page).collect();
    let (mut plain, mut landed) = (Taking::new(), Taking::new());
    let as_is = [&data, &full, &changed, &differential].map(|bytes| plain.add(bytes));
    let whole = landed.add(&data);
    let split = [&full, &changed, &differential].map(|bytes| landed.add_landed(bytes));
    println!(
        "blocks added by a data file, a full, a full and a differential: {as_is:?} as they are; {whole}, {split:?} landed"
    );
    assert_eq!((as_is[0], whole), (4096, 4096));
    assert_eq!(split.map(|(pages, _)| pages), [0, differing.len() as u64, 0]);
    assert!(split.iter().all(|(_, frame)| *frame < 12), "{split:?}");
    // As they are, a backup shares nothing with a data file, and a differential nothing with a full whose streams begin elsewhere.
    assert!(as_is[1] > 3000 && as_is[3] > 250, "{as_is:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Backups of any shape, with bytes changed and cut off anywhere: what is landed comes back, and what is not stays.
    #[test]
    fn any_bytes_come_back(
        sets in prop::collection::vec((0..12u32, 1..4usize), 1..4),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in prop::option::weighted(0.1, any::<prop::sample::Index>()),
        tail in prop::collection::vec(any::<u8>(), 0..3),
    ) {
        let sets: Vec<SetSpec> = sets.into_iter().map(|(extents, of)| set(extents, of)).collect();
        let mut bytes = write(&sets);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        bytes.extend(tail);
        let stage = Stage::with(&bytes);
        match stage.land(Original::Remove).unwrap() {
            Landing::Landed(landed) => {
                prop_assert!(!stage.file().exists());
                prop_assert!(landed.pages % EXTENT_PAGES as u64 == 0);
                prop_assert!(landed.frame_bytes + landed.pages * PAGE_BYTES as u64 >= landed.length);
                prop_assert!(stage.join().unwrap() == bytes);
            }
            Landing::Kept(_) => prop_assert!(fs::read(stage.file()).unwrap() == bytes),
        }
    }
}
