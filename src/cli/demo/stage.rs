//! What the demo builds up and takes down: folder, store, mount, servers, writers.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use rustix::process::Signal;

use super::super::context::Session;
use super::super::exit::{Failure, Result};
use super::super::init::create_store;
use super::super::mount::{Options, start_daemon};
use super::super::output::Output;
use super::super::signals::Interrupted;
use super::super::unmount::unmount;
use super::report::Counts;
use super::run::{Programs, end};
use super::server::Server;
use crate::adapter::postgres::Installation;
use crate::base::{Clock, Error, ErrorKind, OsUser, Random, SystemClock, SystemRandom};
use crate::control::{Reply, Request};

/// The database pgbench fills.
const DATABASE: &str = "shop";
/// The longest folder whose socket `.s.PGSQL.65535` still fits a socket's address.
const SOCKET_FOLDER_BYTES_MAX: usize = 107 - 16;

/// Everything the demo has made so far.
pub(super) struct Stage {
    pub programs: Programs,
    /// Lets a user connect over the network.
    pub password: String,
    folder: PathBuf,
    /// Whether the folder was there before, and only its contents are ours.
    folder_was_there: bool,
    servers: Vec<Server>,
    writers: Option<Child>,
    mounted: bool,
    output: Output,
    start: Duration,
}

impl Stage {
    /// Makes the folder, a store in it, and mounts it.
    pub(super) fn set_up(
        folder: Option<&Path>,
        installation: Installation,
        user: OsUser,
        output: Output,
    ) -> Result<Self> {
        let interrupted = Interrupted::watch()?;
        let (folder, folder_was_there) = make_folder(folder)?;
        let sockets = folder.join("run");
        let password = format!("{:016x}{:016x}", SystemRandom.next_u64(), SystemRandom.next_u64());
        let programs = Programs { installation, user, folder: sockets, interrupted };
        let mut stage = Self {
            programs,
            password,
            folder,
            folder_was_there,
            servers: Vec::new(),
            writers: None,
            mounted: false,
            output,
            start: SystemClock.monotonic(),
        };
        match stage.fill() {
            Ok(()) => Ok(stage),
            Err(failure) => {
                if let Err(second) = stage.clean_up() {
                    tracing::warn!("cleaning up: {}", second.error.message());
                }
                Err(failure)
            }
        }
    }

    fn fill(&mut self) -> Result<()> {
        if self.programs.folder.as_os_str().len() > SOCKET_FOLDER_BYTES_MAX {
            return Err(Failure::new(
                ErrorKind::Precondition,
                format!("{} is too long a path for PostgreSQL's socket", self.programs.folder.display()),
            )
            .hint("name a shorter --dir"));
        }
        make_directory(&self.programs.folder, 0o700)?;
        self.programs.give(&self.programs.folder)?;
        make_directory(&self.mount_folder(), 0o755)?;
        self.step(&format!("making and mounting a store in {}", self.folder.display()))?;
        create_store(&self.store(), None)?;
        start_daemon(&self.store(), &self.mount_folder(), None, &Options::default())?;
        self.mounted = true;
        Ok(())
    }

    fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    fn mount_folder(&self) -> PathBuf {
        self.folder.join("mnt")
    }

    /// Where a volume's database cluster lies.
    pub(super) fn data_folder(&self, volume: &str) -> PathBuf {
        self.mount_folder().join(volume).join("data")
    }

    /// Says what is done next; fails on Ctrl-C.
    pub(super) fn step(&self, what: &str) -> Result<()> {
        self.programs.interrupted.check()?;
        if self.output == Output::Table {
            let passed = SystemClock.monotonic().saturating_sub(self.start).as_secs_f64();
            self.output.text(&format!("{passed:7.2} s  {what}\n"))?;
        }
        Ok(())
    }

    /// Asks the mounting process.
    pub(super) fn ask(&self, request: &Request) -> Result<Reply> {
        let session = Session::open(&self.store())?;
        let reply = session.ask(request)?;
        session.close()?;
        Ok(reply)
    }

    /// Makes a volume with an empty folder of PostgreSQL's user in it.
    pub(super) fn make_volume(&self, name: &str) -> Result<PathBuf> {
        self.step(&format!("volume {name}"))?;
        self.ask(&Request::VolumeCreate { name: name.into() })?;
        let data = self.data_folder(name);
        make_directory(&data, 0o700)?;
        self.programs.give(&data)?;
        Ok(data)
    }

    /// Starts a server and returns its number.
    pub(super) fn start_server(&mut self, name: &str, data: &Path) -> Result<usize> {
        let server = Server::start(&self.programs, name, data)?;
        self.servers.push(server);
        Ok(self.servers.len() - 1)
    }

    pub(super) fn port(&self, server: usize) -> u16 {
        self.servers[server].port
    }

    /// Fills the database with pgbench.
    pub(super) fn load(&self, server: usize, scale: u32) -> Result<()> {
        let server = &self.servers[server];
        server.query(&self.programs, "postgres", &format!("CREATE DATABASE {DATABASE}"))?;
        let mut command = self.pgbench(server.port);
        command.args(["-i", "-q", "-s", &scale.to_string(), DATABASE]);
        self.programs.run(&mut command, "pgbench-load")?;
        Ok(())
    }

    /// Starts sessions that write until they are stopped.
    pub(super) fn start_writers(&mut self, server: usize, clients: u32) -> Result<()> {
        let mut command = self.pgbench(self.servers[server].port);
        command.args(["-n", "-T", "3600", "-c", &clients.to_string(), DATABASE]);
        self.writers = Some(self.programs.spawn(&mut command, "pgbench-write")?);
        Ok(())
    }

    /// Ends the writers, which must still be writing.
    pub(super) fn stop_writers(&mut self) -> Result<()> {
        if let Some(mut writers) = self.writers.take() {
            if !matches!(writers.try_wait(), Ok(None)) {
                return Err(self.programs.failed("pgbench-write"));
            }
            end(&mut writers, Signal::TERM);
        }
        Ok(())
    }

    fn pgbench(&self, port: u16) -> std::process::Command {
        let mut command = self.programs.command("pgbench");
        command.arg("-h").arg(&self.programs.folder).args(["-U", "postgres", "-p", &port.to_string()]);
        command
    }

    /// Counts a server's rows.
    pub(super) fn counts(&self, server: usize) -> Result<Counts> {
        let answer = self.servers[server].query(&self.programs, DATABASE, Counts::QUERY)?;
        Counts::parse(&answer).ok_or_else(|| {
            Failure::new(
                ErrorKind::Io,
                format!("PostgreSQL answered {answer:?} when asked for its row counts"),
            )
        })
    }

    /// Stops and removes everything.
    pub(super) fn clean_up(mut self) -> Result<()> {
        if let Some(mut writers) = self.writers.take() {
            end(&mut writers, Signal::TERM);
        }
        for server in &mut self.servers {
            server.stop();
        }
        if self.mounted {
            unmount(&self.mount_folder())?;
        }
        for made in [self.store(), self.mount_folder(), self.programs.folder.clone()] {
            remove(&made, std::fs::remove_dir_all(&made))?;
        }
        if !self.folder_was_there {
            remove(&self.folder, std::fs::remove_dir(&self.folder))?;
        }
        Ok(())
    }

    /// Leaves everything and says how to go on.
    pub(super) fn leave(self, output: Output) -> Result<()> {
        let [source, clone] = &self.servers[..] else { return Ok(()) };
        if output == Output::Json {
            return Ok(());
        }
        let programs = self.programs.installation.programs.display();
        let connect = |server: &Server| {
            format!(
                "PGPASSWORD={} {programs}/psql -h 127.0.0.1 -p {} -U postgres {DATABASE}",
                self.password, server.port
            )
        };
        let pids = format!("{} {}", source.pid(), clone.pid());
        let program = std::env::current_exe().unwrap_or_else(|_| "stillpoint".into());
        let program = program.display();
        output.text(&format!(
            "\nBoth servers are left running.\n  source:   {}\n  clone:    {}\n  store:    export STILLPOINT_STORE={}\n  \
             clean up: kill -INT {pids}; while kill -0 {pids} 2>/dev/null; do sleep 0.1; done; \
             {program} unmount {} && rm -r {}\n",
            connect(source),
            connect(clone),
            self.store().display(),
            self.mount_folder().display(),
            self.folder.display(),
        ))
    }
}

/// Makes the demo's folder, or takes an empty one; others may pass through it, as PostgreSQL's user must.
fn make_folder(folder: Option<&Path>) -> Result<(PathBuf, bool)> {
    let Some(folder) = folder else {
        let name = format!("stillpoint-demo-{:08x}", SystemRandom.next_u64() >> 32);
        let folder = std::env::temp_dir().join(name);
        make_directory(&folder, 0o755)?;
        return Ok((folder, false));
    };
    let shown = folder.display().to_string();
    let absolute = std::path::absolute(folder).map_err(|e| Error::io("resolve", &shown, e))?;
    match std::fs::read_dir(&absolute).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok((absolute, true)),
        Ok(false) => Err(Failure::new(ErrorKind::Exists, format!("{shown} is not empty"))
            .hint("name a new or empty directory")),
        Err(_) => {
            make_directory(&absolute, 0o755)?;
            Ok((absolute, false))
        }
    }
}

fn make_directory(path: &Path, mode: u32) -> Result<()> {
    Ok(DirBuilder::new()
        .mode(mode)
        .create(path)
        .map_err(|e| Error::io("create", &path.display().to_string(), e))?)
}

/// Something that never came to be is removed already.
fn remove(path: &Path, result: std::io::Result<()>) -> Result<()> {
    match result {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", &path.display().to_string(), e).into())
        }
        _ => Ok(()),
    }
}
