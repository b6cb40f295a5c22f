//! What every command gets: the store it is about, the form of its output, and a way to ask the store, which
//! is opened here or reached through the process that mounts it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::exit::{Failure, Result};
use super::output::Output;
use super::progress::ProgressLine;
use crate::api::ApiClient;
use crate::base::{ErrorKind, SystemClock, SystemRandom};
use crate::control::{Client, Direct, Operations, Reply, Request};
use crate::volume::Environment;

/// The host's clock and random numbers.
pub(super) fn environment() -> Environment {
    Environment { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom) }
}

/// The arguments every command shares.
pub(super) struct Context {
    store: Option<PathBuf>,
    pub output: Output,
}

impl Context {
    pub(super) fn new(store: Option<PathBuf>, output: Output) -> Self {
        Self { store, output }
    }

    /// The store's directory.
    pub(super) fn store(&self) -> Result<&Path> {
        self.store.as_deref().ok_or_else(|| {
            Failure::new(ErrorKind::Invalid, "no store was named")
                .hint("add --store STORE, or set STILLPOINT_STORE")
        })
    }

    /// The store's directory, if one was named.
    pub(super) fn named_store(&self) -> Option<&Path> {
        self.store.as_deref()
    }

    /// Reaches the daemon of the store.
    pub(super) fn api(&self) -> Result<ApiClient> {
        Ok(ApiClient::connect(self.store()?)?)
    }

    /// Reaches the store for several requests.
    pub(super) fn open(&self) -> Result<Session> {
        Session::open(self.store()?)
    }

    /// Carries out one request.
    pub(super) fn ask(&self, request: &Request) -> Result<Reply> {
        let session = self.open()?;
        let reply = session.ask(request)?;
        session.close()?;
        Ok(reply)
    }
}

/// A store reached: by the mounting process's socket when there is one, or opened in this process.
pub(super) enum Session {
    Remote(Client),
    Direct(Direct),
}

impl Session {
    pub(super) fn open(store: &Path) -> Result<Self> {
        if let Some(client) = Client::connect(store)? {
            return Ok(Self::Remote(client));
        }
        Ok(Self::Direct(Direct::open(store, &environment())?))
    }

    /// Carries out one request with a progress line.
    pub(super) fn ask(&self, request: &Request) -> Result<Reply> {
        let mut line = ProgressLine::new();
        let mut show = |step| line.update(&step);
        Ok(match self {
            Self::Remote(client) => client.perform(request, &mut show)?,
            Self::Direct(direct) => direct.perform(request, &mut show)?,
        })
    }

    /// Closes what was opened; the store is durable then.
    pub(super) fn close(self) -> Result<()> {
        match self {
            Self::Remote(_) => Ok(()),
            Self::Direct(direct) => Ok(direct.close()?),
        }
    }
}
