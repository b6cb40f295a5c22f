//! Where the stores under test live: a folder of the host, or simulated.

use std::sync::Arc;

use stillpoint::base::sim::SimStorage;
use stillpoint::base::{RealStorage, Storage};
use stillpoint::maintain::check;
use stillpoint::volume::*;
use tempfile::TempDir;

/// Small sizes, so that little work reaches every path.
pub(crate) fn options(background: bool) -> OpenOptions {
    OpenOptions {
        background,
        dirty_bytes_soft: 1 << 20,
        dirty_bytes_max: 4 << 20,
        segment_bytes: 1 << 20,
        content_cache_bytes: 256 << 10,
        node_cache_bytes: 256 << 10,
        ..OpenOptions::default()
    }
}

pub(crate) struct Place {
    storage: Arc<dyn Storage>,
    options: OpenOptions,
    /// Removed after the store is gone.
    _folder: Option<TempDir>,
}

impl Place {
    pub(crate) fn real() -> Self {
        let folder = tempfile::Builder::new().prefix("stillpoint-concurrency-").tempdir().unwrap();
        let storage = Arc::new(RealStorage::open(folder.path()).unwrap());
        Self { storage, options: options(true), _folder: Some(folder) }
    }

    pub(crate) fn simulated(sim: &SimStorage, background: bool) -> Self {
        Self { storage: Arc::new(sim.clone()), options: options(background), _folder: None }
    }

    pub(crate) fn create(&self) -> Arc<Store> {
        let create = CreateOptions { journal_bytes: 2 << 20 };
        Store::create(self.storage.clone(), &Environment::system(), &create).unwrap();
        self.open()
    }

    pub(crate) fn open(&self) -> Arc<Store> {
        Store::open(self.storage.clone(), &Environment::system(), &self.options).unwrap()
    }
}

pub(crate) fn assert_clean(store: &Store) {
    assert_eq!(check(store, &mut |_| {}).unwrap().findings, Vec::new());
}

pub(crate) fn new_file(view: &View, name: &str) -> Ino {
    view.create(ROOT_INO, name.as_bytes(), NewNode::File, 0o644, Owner::default()).unwrap().ino
}

/// Waits for the fsync of one file.
pub(crate) fn sync_file(view: &View, ino: Ino) -> stillpoint::base::Result<()> {
    let (sender, receiver) = std::sync::mpsc::channel();
    view.sync_file(ino, Box::new(move |result| sender.send(result).unwrap()));
    receiver.recv().unwrap()
}
