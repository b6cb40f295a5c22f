//! The daemon: the mounted store, the engine on it, the API on the control socket and on TCP, and their end.
//!
//! Wires together what the other modules are; decides nothing of its own.

pub mod config;
mod http;
mod tls;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::adapter::Adapter;
use crate::adapter::command::Commands;
use crate::adapter::postgres::{Installations, Postgres};
use crate::adapter::sqlserver::SqlServer;
use crate::base::{Error, ErrorKind, RealStorage, Result, Storage, StoreLock};
use crate::catalog::Catalog;
use crate::control::{Holder, Host, HostOptions, HostVolumes, Operations, Remote, SOCKET_NAME, Server};
use crate::engine::{Engine, Parts};
use crate::volume::Environment;
use http::Http;

/// How often datasets are looked after.
const LOOK_AFTER_INTERVAL: Duration = Duration::from_secs(5);
/// How often old logs are removed.
const PRUNE_INTERVAL: Duration = Duration::from_secs(600);
/// How often policies are looked at.
const POLICY_INTERVAL: Duration = Duration::from_secs(1);
/// How often the end is looked for in between.
const POLL: Duration = Duration::from_millis(100);
/// How often old jobs and events are forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// Jobs that run at a time, when nothing else is said.
pub const JOBS_MAX: usize = 4;
/// Days that jobs, their logs and events are kept, when nothing else is said.
pub const LOG_KEEP_DAYS: u32 = 90;
/// Below which each store has a state folder, when none is named.
pub const STATE_ROOT: &str = "/var/lib/stillpoint";

/// How a daemon is run.
#[derive(Clone, Debug)]
pub struct Options {
    pub store: PathBuf,
    /// Where all volumes are mounted.
    pub mount: PathBuf,
    /// Sockets, settings, secrets and logs of the servers; `/var/lib/stillpoint/` and the store's mark when absent.
    pub state: Option<PathBuf>,
    pub writethrough: bool,
    /// Where the API listens beside the control socket.
    pub listen: Option<Listen>,
    /// Jobs that run at a time.
    pub jobs_max: usize,
    /// Days that jobs, their logs and events are kept.
    pub log_keep_days: u32,
    /// Folders of PostgreSQL installations beside those of the host's packages.
    pub postgres: Vec<PathBuf>,
    /// Whether servers go on when the daemon ends: the store is then mounted by a process of its own.
    pub keep_servers: bool,
}

/// Starts the process that mounts the store in the first folder at the second, and serves `mount.sock`; returns when the
/// mount answers.
pub type MountApart<'a> = dyn Fn(&Path, &Path) -> Result<()> + 'a;

/// Where the API listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub address: SocketAddr,
    /// Needed at every address that is not this host's alone.
    pub tls: Option<Tls>,
}

/// PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate, followed by those that lead from it to a known one.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// A running daemon.
pub struct Daemon {
    host: Arc<dyn Holder>,
    keep_servers: bool,
    engine: Arc<Engine>,
    server: Server,
    http: Http,
    jobs: Vec<JoinHandle<()>>,
    looking_after: (Arc<AtomicBool>, JoinHandle<()>),
    /// Released last.
    _lock: StoreLock,
}

impl Daemon {
    /// Mounts the store, clears away what an earlier daemon left half done, and starts to serve. Servers come up after
    /// that, as jobs; those that an earlier daemon kept go on.
    pub fn start(options: &Options, environment: &Environment, mount_apart: &MountApart<'_>) -> Result<Self> {
        if let Some(listen) = &options.listen {
            http::check_listen(listen.address, listen.tls.as_ref())?;
        }
        let adapters = adapters(options, environment);
        let store = options.store.canonicalize();
        let store = store.map_err(|e| Error::io("open", &options.store.display().to_string(), e))?;
        let state = options.state.clone().unwrap_or_else(|| state_of(&store));
        // From here on nobody else is this store's daemon: what is left below its state folder is no living one's.
        let lock = StoreLock::acquire_daemon(&store, "stillpoint daemon")?;
        let (host, kept) = hold(&store, options, environment, mount_apart, || {
            // Before the mount: they keep a dead one busy.
            for adapter in &adapters {
                for pid in adapter.end_strays(&state, &options.mount, &[])? {
                    tracing::warn!("process {pid} of an earlier daemon was ended");
                }
            }
            Ok(())
        })?;
        let started = Self::serve(options, state, environment, &host, adapters, kept, lock);
        if started.is_err()
            && !kept
            && let Err(e) = host.end()
        {
            tracing::error!("closing the store: {e}");
        }
        started
    }

    fn serve(
        options: &Options,
        state: PathBuf,
        environment: &Environment,
        host: &Arc<dyn Holder>,
        adapters: Vec<Arc<dyn Adapter>>,
        kept: bool,
        lock: StoreLock,
    ) -> Result<Self> {
        let storage: Arc<dyn Storage> = Arc::new(RealStorage::open(host.path())?);
        let engine = Engine::open(Parts {
            catalog: Catalog::open(&*storage)?,
            storage,
            adapters,
            volumes: Arc::new(HostVolumes::new(Arc::clone(host), options.mount.clone())),
            store: host.path().to_owned(),
            state,
            clock: Arc::clone(&environment.clock),
            random: Arc::clone(&environment.random),
            jobs_max: options.jobs_max,
            kept_mount: kept.then(|| options.mount.clone()),
        })?;
        // What is missing of the host's is for who links to learn; it keeps nobody else from working.
        if let Err(e) = engine.refresh_own_environment() {
            tracing::warn!("looking for database installations: {e}");
        }
        let mut http = Http::new(&engine)?;
        // Before anything runs: an address that is taken ends the start.
        if let Some(listen) = &options.listen {
            http.listen(listen)?;
            host.set_api(http.url());
        }
        let jobs = engine.start_jobs()?;
        engine.start_servers()?;
        let operations: Arc<dyn Operations> = Arc::clone(host) as Arc<dyn Operations>;
        let server = Server::start(host.path(), SOCKET_NAME, operations, Some(http.handler()))?;
        let keep = Duration::from_secs(u64::from(options.log_keep_days) * 24 * 60 * 60);
        let looking_after = look_after(&engine, environment, keep)?;
        Ok(Self {
            host: Arc::clone(host),
            keep_servers: options.keep_servers,
            engine,
            server,
            http,
            jobs,
            looking_after,
            _lock: lock,
        })
    }

    /// The store's directory, absolute.
    pub fn store(&self) -> &Path {
        self.host.path()
    }

    /// The address of the API on TCP, with the port that was chosen for 0.
    pub fn api(&self) -> Option<&str> {
        self.http.url()
    }

    /// Waits a moment; true when the mount is gone, because somebody took it off.
    pub fn has_ended(&self) -> Option<Result<()>> {
        self.host.wait()
    }

    /// Ends: jobs at their next safe point, servers in order, then the mount; servers that are kept go on, and the mount
    /// with them. All is durable when this returns.
    pub fn end(self) -> Result<()> {
        self.http.close();
        self.engine.end_jobs();
        self.looking_after.0.store(true, Ordering::SeqCst);
        self.server.stop();
        for thread in self.jobs.into_iter().chain([self.looking_after.1]) {
            if thread.join().is_err() {
                tracing::error!("a thread of the daemon had failed");
            }
        }
        // Those who waited for a job have their answer by now.
        self.http.stop();
        if self.keep_servers {
            return Ok(());
        }
        let stopped = self.engine.stop_servers();
        let closed = self.host.end();
        stopped.and(closed)
    }
}

/// The store, mounted: by the process that an earlier daemon left with it, by a new one of that kind, or by this one. Says
/// whether servers may be at work on it already. `before_mount` is for a mount that is made now.
fn hold(
    store: &Path,
    options: &Options,
    environment: &Environment,
    mount_apart: &MountApart<'_>,
    before_mount: impl FnOnce() -> Result<()>,
) -> Result<(Arc<dyn Holder>, bool)> {
    if let Some(remote) = Remote::find(store)? {
        remote.check_directory(&options.mount)?;
        return Ok((Arc::new(remote), true));
    }
    if !options.keep_servers {
        let host_options = HostOptions { writethrough: options.writethrough, ..HostOptions::default() };
        let host = Host::start_after(store, &options.mount, None, environment, &host_options, before_mount)?;
        return Ok((host, false));
    }
    before_mount()?;
    mount_apart(store, &options.mount)?;
    let remote = Remote::find(store)?.ok_or_else(|| {
        Error::new(ErrorKind::Io, format!("the process that mounted {} has ended", store.display()))
            .with_hint("read daemon.log in the store")
    })?;
    Ok((Arc::new(remote), false))
}

/// All kinds of databases there are.
fn adapters(options: &Options, environment: &Environment) -> Vec<Arc<dyn Adapter>> {
    let parts = || (Arc::clone(&environment.clock), Arc::clone(&environment.random));
    let ((clock, random), installations) = (parts(), Installations::with(options.postgres.clone()));
    let postgres = Postgres::new(clock, random, installations);
    let (clock, random) = parts();
    vec![Arc::new(postgres), Arc::new(Commands::new(clock, random)), Arc::new(SqlServer::default())]
}

/// A store's own state folder: outside the store, so that neither a backup nor a search of it finds a secret.
pub fn state_of(store: &Path) -> PathBuf {
    let mark = blake3::hash(store.as_os_str().as_encoded_bytes()).to_hex();
    // Short, because sockets are in it, whose paths end at 107 bytes.
    Path::new(STATE_ROOT).join(&mark[..8])
}

fn look_after(
    engine: &Arc<Engine>,
    environment: &Environment,
    keep: Duration,
) -> Result<(Arc<AtomicBool>, JoinHandle<()>)> {
    let ending = Arc::new(AtomicBool::new(false));
    let (engine, clock, seen) = (Arc::clone(engine), Arc::clone(&environment.clock), Arc::clone(&ending));
    let thread = std::thread::Builder::new().name("look-after".into()).spawn(move || {
        let mut last = clock.monotonic();
        let mut pruned = last;
        let mut ticked = last;
        let mut forgotten = None;
        while !seen.load(Ordering::SeqCst) {
            clock.sleep(POLL);
            if clock.monotonic().saturating_sub(ticked) >= POLICY_INTERVAL {
                if let Err(e) = engine.run_policies() {
                    tracing::error!("looking at policies: {e}");
                }
                ticked = clock.monotonic();
            }
            if clock.monotonic().saturating_sub(last) < LOOK_AFTER_INTERVAL {
                continue;
            }
            if let Err(e) = engine.look_after() {
                tracing::error!("looking after datasets: {e}");
            }
            last = clock.monotonic();
            if last.saturating_sub(pruned) >= PRUNE_INTERVAL {
                if let Err(e) = engine.prune_logs() {
                    tracing::error!("removing old logs: {e}");
                }
                pruned = last;
            }
            if forgotten.is_none_or(|before| last.saturating_sub(before) >= FORGET_INTERVAL) {
                match engine.forget_past(keep) {
                    Ok(0) => {}
                    Ok(count) => tracing::info!("{count} old jobs and events were cleared away"),
                    Err(e) => tracing::error!("clearing away old jobs and events: {e}"),
                }
                forgotten = Some(last);
            }
        }
    });
    Ok((ending, thread.map_err(|e| Error::io("start", "a thread", e))?))
}
