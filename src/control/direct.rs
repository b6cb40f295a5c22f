//! A store opened in this process for one command, because nobody has it mounted.

use std::path::Path;
use std::sync::Arc;

use super::operations::{Operations, ProgressSink};
use super::perform::perform;
use super::wire::{Reply, Request};
use crate::base::{RealStorage, Result, StoreLock};
use crate::volume::{Environment, OpenOptions, Store};

/// A store held by this process alone. `close` makes it durable; dropped without, it is as after a crash.
pub struct Direct {
    store: Arc<Store>,
    /// Released after the store is closed.
    _lock: StoreLock,
}

impl Direct {
    /// Opens the store; `ErrorKind::Locked` names the process that has it.
    pub fn open(path: &Path, environment: &Environment) -> Result<Self> {
        let (store, lock) = open_store(path, environment, "stillpoint", &OpenOptions::default())?;
        Ok(Self { store, _lock: lock })
    }

    pub fn close(self) -> Result<()> {
        self.store.close()
    }
}

impl Operations for Direct {
    fn perform(&self, request: &Request, progress: &mut ProgressSink<'_>) -> Result<Reply> {
        perform(&self.store, request, progress)
    }
}

/// Takes the lock of a store and opens it. `purpose` is what others are told this process does.
pub(super) fn open_store(
    path: &Path,
    environment: &Environment,
    purpose: &str,
    options: &OpenOptions,
) -> Result<(Arc<Store>, StoreLock)> {
    let storage = RealStorage::open(path)?;
    // Before the lock, which would leave a file behind in a folder that is no store.
    if !Store::exists(&storage) {
        let message = format!("{} is no store; `stillpoint init` makes one", path.display());
        return Err(crate::base::Error::not_found(message));
    }
    let lock = storage.lock(purpose)?;
    let space = crate::base::Storage::space(&storage)
        .map_err(|e| crate::base::Error::io("measure the space of", &path.display().to_string(), e))?;
    let store = Store::open(Arc::new(storage), environment, &options.fitted_to(space.total_bytes))?;
    Ok((store, lock))
}
