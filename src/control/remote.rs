//! A store that another process mounts for the daemon, and keeps when the daemon ends.
//!
//! Requests go over `STORE/mount.sock`, each on a connection of its own while it runs, so that they run side by side.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::Signal;

use super::MOUNT_SOCKET_NAME;
use super::client::Client;
use super::holder::Holder;
use super::operations::{Operations, ProgressSink};
use super::wire::{Reply, Request};
use crate::base::{Error, ErrorKind, Result};

const LOOK: Duration = Duration::from_millis(100);
/// Closing a store writes what its journal holds.
const END_TIME_MAX: Duration = Duration::from_secs(600);
/// Connections kept open for the next requests.
const IDLE_MAX: usize = 8;

/// The mounting process of a store, seen from the daemon.
pub struct Remote {
    path: PathBuf,
    /// Asked for nothing, but for the process's end.
    watched: Client,
    idle: Mutex<Vec<Client>>,
    /// Where the API listens on TCP.
    api: Mutex<Option<String>>,
    /// A request took the last mount off, and the store is closed.
    taken_off: AtomicBool,
}

impl Remote {
    /// Finds the process that mounts `store` for its daemon; `None` when there is none.
    pub fn find(store: &Path) -> Result<Option<Self>> {
        let Some(watched) = Client::connect_to(store, MOUNT_SOCKET_NAME)? else { return Ok(None) };
        Ok(Some(Self {
            path: store.to_owned(),
            watched,
            idle: Mutex::default(),
            api: Mutex::default(),
            taken_off: AtomicBool::new(false),
        }))
    }

    /// Refuses when all volumes are not mounted at `directory`, where a daemon is to have them.
    pub fn check_directory(&self, directory: &Path) -> Result<()> {
        let Reply::Status(status) = self.perform(&Request::Status, &mut |_| {})? else {
            return Err(Error::new(ErrorKind::Failed, "the mounting process gave no status"));
        };
        let whole = status.mounts.iter().find(|row| row.volume.is_none());
        match whole {
            Some(row) if row.directory == directory => Ok(()),
            Some(row) => Err(Error::new(
                ErrorKind::InUse,
                format!(
                    "process {} keeps the store {} mounted at {}, not at {}",
                    self.watched.peer().as_raw_nonzero(),
                    self.path.display(),
                    row.directory.display(),
                    directory.display()
                ),
            )
            .with_hint("name that folder with --mount, or stop what uses it and `stillpoint unmount` it")),
            None => Err(Error::new(ErrorKind::Precondition, "the store is being unmounted: try again")),
        }
    }

    fn client(&self) -> Result<Client> {
        if let Some(client) = self.idle.lock().pop() {
            return Ok(client);
        }
        Client::connect_to(&self.path, MOUNT_SOCKET_NAME)?.ok_or_else(|| {
            Error::new(
                ErrorKind::Io,
                format!(
                    "the process that mounted {} has ended: start the daemon again; daemon.log in the store says more",
                    self.path.display()
                ),
            )
        })
    }
}

impl Operations for Remote {
    fn perform(&self, request: &Request, progress: &mut ProgressSink<'_>) -> Result<Reply> {
        let client = self.client()?;
        let mut reply = client.perform(request, progress)?;
        match &mut reply {
            Reply::Status(row) => row.api = self.api.lock().clone(),
            Reply::Unmounted { ending: true } => self.taken_off.store(true, Ordering::SeqCst),
            _ => {}
        }
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_MAX {
            idle.push(client);
        }
        Ok(reply)
    }
}

impl Holder for Remote {
    fn path(&self) -> &Path {
        &self.path
    }

    fn set_api(&self, url: Option<&str>) {
        *self.api.lock() = url.map(str::to_owned);
    }

    fn wait(&self) -> Option<Result<()>> {
        match self.watched.ends_within(Some(LOOK)) {
            Ok(false) => None,
            Ok(true) if self.taken_off.load(Ordering::SeqCst) => Some(Ok(())),
            Ok(true) => Some(Err(Error::new(
                ErrorKind::Io,
                format!(
                    "the process that mounted {} has ended, and with it what the servers work on: start the daemon again",
                    self.path.display()
                ),
            ))),
            Err(e) => Some(Err(e)),
        }
    }

    /// In order when nobody uses it, so that a failure to close the store is told.
    fn end(&self) -> Result<()> {
        if self.watched.ends_within(Some(Duration::ZERO))? {
            return Ok(());
        }
        let Reply::Status(status) = self.perform(&Request::Status, &mut |_| {})? else {
            return Err(Error::new(ErrorKind::Failed, "the mounting process gave no status"));
        };
        // What shows one volume alone goes first: it keeps the whole busy.
        let (alone, whole): (Vec<_>, Vec<_>) =
            status.mounts.into_iter().partition(|row| row.volume.is_some());
        for row in alone.into_iter().chain(whole) {
            let unmounted = self.perform(&Request::Unmount { directory: row.directory }, &mut |_| {});
            match unmounted {
                Err(e) if e.kind() == ErrorKind::InUse => {
                    tracing::warn!("{e}; what is written there from now on is lost");
                    self.watched.signal(Signal::TERM);
                    break;
                }
                unmounted => drop(unmounted?),
            }
        }
        match self.watched.ends_within(Some(END_TIME_MAX))? {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::InUse,
                format!("the mounting process {} does not end", self.watched.peer().as_raw_nonzero()),
            )),
        }
    }
}
