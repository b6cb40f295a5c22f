//! A storage that keeps an image of the disk before every change of it: all crash points of a run in one run.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use stillpoint::base::sim::SimStorage;
use stillpoint::base::{MappedBytes, OpenMode, SpaceInfo, Storage, StorageFile};

/// The disk at an instant, with what was not durable yet.
#[derive(Clone)]
pub struct Image {
    pub sim: SimStorage,
    /// The operation of the run that was under way.
    pub operation: usize,
    /// Counted over the run.
    pub point: u64,
}

#[derive(Default)]
struct Taken {
    operation: Option<usize>,
    images: Vec<Image>,
}

#[derive(Clone)]
pub struct Tap {
    sim: SimStorage,
    taken: Arc<Mutex<Taken>>,
}

impl Tap {
    pub fn new(sim: SimStorage) -> Self {
        Self { sim, taken: Arc::default() }
    }

    /// From now on it is operation `number` that runs.
    pub fn arm(&self, number: usize) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).operation = Some(number);
        self.keep();
    }

    pub fn images(&self) -> Vec<Image> {
        std::mem::take(&mut *self.taken.lock().unwrap_or_else(PoisonError::into_inner)).images
    }

    fn keep(&self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(operation) = taken.operation {
            let point = taken.images.len() as u64;
            taken.images.push(Image { sim: self.sim.fork(), operation, point });
        }
    }
}

impl Storage for Tap {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        if mode == OpenMode::CreateNew {
            self.keep();
        }
        Ok(Arc::new(TapFile { file: self.sim.open(name, mode)?, tap: self.clone() }))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.sim.list(dir)
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.keep();
        self.sim.create_dir(dir)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.keep();
        self.sim.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.keep();
        self.sim.rename(from, to)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.keep();
        self.sim.sync_dir(dir)
    }

    fn space(&self) -> io::Result<SpaceInfo> {
        self.sim.space()
    }
}

struct TapFile {
    file: Arc<dyn StorageFile>,
    tap: Tap,
}

impl StorageFile for TapFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.tap.keep();
        self.file.write_all_at(data, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.tap.keep();
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.tap.keep();
        self.file.set_len(length)
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        self.tap.keep();
        self.file.allocate(offset, length)
    }

    fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()> {
        self.tap.keep();
        self.file.punch_hole(offset, length)
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        self.file.allocated_bytes()
    }

    fn map(&self, offset: u64, length: usize) -> io::Result<MappedBytes> {
        self.file.map(offset, length)
    }
}
