//! What a volume must hold: for each page the number of the write that is in it, and the last one that was
//! acknowledged as durable. Pages are noise that says which write they are of, so a page of another place, of an
//! older write or of two writes is found.

use std::collections::BTreeMap;

use stillpoint::base::{ErrorKind, Result};
use stillpoint::volume::*;

pub(crate) const PAGE: u64 = 8192;

/// Numbers of writes by page; 0 is none.
#[derive(Clone, Copy, Default)]
struct Written {
    durable: u64,
    latest: u64,
}

struct File {
    ino: Ino,
    pages: BTreeMap<u64, Written>,
}

/// One volume, its files and snapshots. It has one writer.
pub(crate) struct Ledger {
    pub(crate) volume: String,
    files: BTreeMap<u32, File>,
    snapshots: BTreeMap<String, BTreeMap<(Ino, u64), u64>>,
    writes: u64,
}

fn page_bytes(volume: &str, ino: Ino, page: u64, number: u64) -> Vec<u8> {
    let mut bytes = vec![0; PAGE as usize];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    let mut noise = blake3::Hasher::new();
    noise.update(volume.as_bytes());
    for part in [ino, page, number] {
        noise.update(&part.to_le_bytes());
    }
    noise.finalize_xof().fill(&mut bytes[8..]);
    bytes
}

/// The number of the write that a page shows; `None` when it shows none at all.
fn number_of(volume: &str, ino: Ino, page: u64, bytes: &[u8]) -> Option<u64> {
    if bytes.iter().all(|byte| *byte == 0) {
        return None;
    }
    let number = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    let whole = bytes == page_bytes(volume, ino, page, number);
    assert!(whole, "{volume}: inode {ino}, page {page} is none that was written there");
    Some(number)
}

impl Ledger {
    pub(crate) fn new(store: &Store, volume: &str) -> Self {
        store.create_volume(volume).unwrap();
        let (files, snapshots) = (BTreeMap::new(), BTreeMap::new());
        Self { volume: volume.to_owned(), files, snapshots, writes: 0 }
    }

    pub(crate) fn snapshot_names(&self) -> Vec<String> {
        self.snapshots.keys().cloned().collect()
    }

    /// Bytes of data in the volume's files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.pages.len() as u64 * PAGE).sum()
    }

    pub(crate) fn pages(&self, file: u32) -> u64 {
        self.files.get(&file).map_or(0, |file| file.pages.len() as u64)
    }

    pub(crate) fn file_numbers(&self) -> Vec<u32> {
        self.files.keys().copied().collect()
    }

    /// Writes a page of file `number`, making the file first if it is not there.
    pub(crate) fn write(&mut self, store: &Store, number: u32, page: u64) -> Result<()> {
        let view = store.volume(&self.volume)?;
        let ino = match self.files.get(&number) {
            Some(file) => file.ino,
            None => {
                let name = format!("f{number}");
                let owner = Owner::default();
                let ino = view.create(ROOT_INO, name.as_bytes(), NewNode::File, 0o644, owner)?.ino;
                self.files.insert(number, File { ino, pages: BTreeMap::new() });
                ino
            }
        };
        self.writes += 1;
        view.write(ino, page * PAGE, &page_bytes(&self.volume, ino, page, self.writes))?;
        let file = self.files.get_mut(&number).unwrap();
        file.pages.entry(page).or_default().latest = self.writes;
        Ok(())
    }

    pub(crate) fn sync(&mut self, store: &Store, number: u32) -> Result<()> {
        let view = store.volume(&self.volume)?;
        let Some(file) = self.files.get_mut(&number) else { return Ok(()) };
        let (sender, receiver) = std::sync::mpsc::channel();
        view.sync_file(file.ino, Box::new(move |result| sender.send(result).unwrap()));
        receiver.recv().unwrap()?;
        file.pages.values_mut().for_each(|written| written.durable = written.latest);
        Ok(())
    }

    /// A snapshot makes durable all that the volume has.
    pub(crate) fn snapshot(&mut self, store: &Store, name: &str) -> Result<()> {
        store.create_snapshot(&self.volume, name)?;
        let mut content = BTreeMap::new();
        for file in self.files.values_mut() {
            for (page, written) in &mut file.pages {
                written.durable = written.latest;
                content.insert((file.ino, *page), written.latest);
            }
        }
        self.snapshots.insert(name.to_owned(), content);
        Ok(())
    }

    pub(crate) fn destroy_snapshot(&mut self, store: &Store, name: &str) -> Result<()> {
        store.destroy_snapshot(&self.volume, name)?;
        self.snapshots.remove(name);
        Ok(())
    }

    pub(crate) fn unlink(&mut self, store: &Store, number: u32) -> Result<()> {
        let view = store.volume(&self.volume)?;
        let gone = view.unlink(ROOT_INO, format!("f{number}").as_bytes())?;
        view.forget_orphan(gone.ino)?;
        self.files.remove(&number);
        Ok(())
    }

    pub(crate) fn truncate(&mut self, store: &Store, number: u32) -> Result<()> {
        let view = store.volume(&self.volume)?;
        let Some(file) = self.files.get_mut(&number) else { return Ok(()) };
        view.set_attributes(file.ino, &SetAttributes { size: Some(0), ..SetAttributes::default() })?;
        file.pages.clear();
        Ok(())
    }

    /// Everything reads as it was last written.
    pub(crate) fn verify(&self, store: &Store) {
        let view = store.volume(&self.volume).unwrap();
        for file in self.files.values() {
            for (page, written) in &file.pages {
                let found = self.read(&view, file.ino, *page);
                assert_eq!(found, Some(written.latest), "{}: inode {}, page {page}", self.volume, file.ino);
            }
        }
        self.verify_snapshots(store);
    }

    /// As `verify`, for a store that was opened after a crash: what was not acknowledged may be there or not.
    pub(crate) fn verify_crashed(&self, store: &Store) {
        let view = store.volume(&self.volume).unwrap();
        for (number, file) in &self.files {
            let held = file.pages.values().any(|written| written.durable > 0);
            match view.lookup(ROOT_INO, format!("f{number}").as_bytes()) {
                Ok(found) => assert_eq!(found.ino, file.ino),
                Err(error) => {
                    assert!(!held && error.kind() == ErrorKind::NotFound, "{}: {error:?}", self.volume);
                    continue;
                }
            }
            for (page, written) in &file.pages {
                let found = self.read(&view, file.ino, *page).unwrap_or(0);
                let expected = written.durable..=written.latest;
                let place = format!("{}: inode {}, page {page}", self.volume, file.ino);
                assert!(expected.contains(&found), "{place} is of write {found}, not of {expected:?}");
            }
        }
        self.verify_snapshots(store);
    }

    fn verify_snapshots(&self, store: &Store) {
        for (name, content) in &self.snapshots {
            let view = store.snapshot(&self.volume, name).unwrap();
            for ((ino, page), number) in content {
                let found = self.read(&view, *ino, *page);
                assert_eq!(found, Some(*number), "{}@{name}: inode {ino}, page {page}", self.volume);
            }
        }
    }

    fn read(&self, view: &View, ino: Ino, page: u64) -> Option<u64> {
        let mut bytes = view.read(ino, page * PAGE, PAGE as usize).unwrap();
        bytes.resize(PAGE as usize, 0);
        number_of(&self.volume, ino, page, &bytes)
    }
}
