//! A PostgreSQL server of the demo: made, started, asked and stopped. It is a child of this process, so that it
//! is stopped by its own pid and nobody else's.

use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use rustix::process::Signal;

use super::super::exit::{Failure, Result};
use super::run::{Programs, end, pause};
use crate::base::{Clock, Error, ErrorKind, SystemClock};

/// A server that does not answer after this long has failed; recovery after a snapshot takes a second.
const START_TIME_MAX: Duration = Duration::from_secs(120);
/// Another program may take the free port between our look and the server's start.
const START_ATTEMPTS_MAX: usize = 5;

/// A running server.
pub(super) struct Server {
    child: Child,
    name: String,
    pub port: u16,
}

impl Server {
    /// Makes a database cluster in `data`, which must be an empty folder of PostgreSQL's user. Connections over the
    /// socket folder are trusted: only that user may enter it. Connections over the network need `password`.
    pub(super) fn make_cluster(programs: &Programs, data: &Path, password: &str) -> Result<()> {
        let file = programs.folder.join("password");
        let shown = file.display().to_string();
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file)
            .and_then(|mut opened| std::io::Write::write_all(&mut opened, password.as_bytes()))
            .map_err(|e| Error::io("write", &shown, e))?;
        programs.give(&file)?;
        let mut command = programs.command("initdb");
        command.arg("--pgdata").arg(data).arg("--pwfile").arg(&file);
        command.args(["--username=postgres", "--auth-local=trust", "--auth-host=scram-sha-256"]);
        command.args(["--encoding=UTF8", "--locale=C", "--data-checksums"]);
        programs.run(&mut command, "initdb")?;
        std::fs::remove_file(&file).map_err(|e| Error::io("remove", &shown, e))?;
        Ok(())
    }

    /// Starts a server on `data` and waits until it answers a query.
    pub(super) fn start(programs: &Programs, name: &str, data: &Path) -> Result<Self> {
        for stale in ["postmaster.pid", "postmaster.opts"] {
            // A snapshot of a running server holds these; they name the original, which must not be touched.
            let path = data.join(stale);
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", &path.display().to_string(), e).into());
                }
                _ => {}
            }
        }
        let mut last = Failure::new(ErrorKind::Io, format!("the server {name} did not start"));
        for _ in 0..START_ATTEMPTS_MAX {
            let port = free_port()?;
            let mut server = Self::spawn(programs, name, data, port)?;
            match server.wait_until_ready(programs) {
                Ok(()) => return Ok(server),
                Err(failure) => {
                    server.stop();
                    programs.interrupted.check()?;
                    if !failure.error.message().contains("could not bind") {
                        return Err(failure);
                    }
                    last = failure;
                }
            }
        }
        Err(last)
    }

    fn spawn(programs: &Programs, name: &str, data: &Path, port: u16) -> Result<Self> {
        let mut command = programs.command("postgres");
        command.arg("-D").arg(data).arg("-p").arg(port.to_string());
        command.arg("-k").arg(&programs.folder);
        for setting in [
            "listen_addresses=127.0.0.1",
            "shared_buffers=64MB",
            "huge_pages=off",
            "max_wal_size=256MB",
            "logging_collector=off",
        ] {
            command.arg("-c").arg(setting);
        }
        let child = programs.spawn(&mut command, name)?;
        Ok(Self { child, name: name.into(), port })
    }

    fn wait_until_ready(&mut self, programs: &Programs) -> Result<()> {
        let clock = SystemClock;
        let start = clock.monotonic();
        loop {
            if self.child.try_wait().map_err(|e| Error::io("wait for", &self.name, e))?.is_some() {
                return Err(programs.failed(&self.name));
            }
            if self.query(programs, "postgres", "SELECT 1").is_ok() {
                return Ok(());
            }
            if clock.monotonic().saturating_sub(start) > START_TIME_MAX {
                return Err(programs.failed(&self.name));
            }
            pause(&programs.interrupted)?;
        }
    }

    /// Asks one query; the answer's columns are separated by `|`.
    pub(super) fn query(&self, programs: &Programs, database: &str, sql: &str) -> Result<String> {
        let mut command = programs.command("psql");
        command.arg("-h").arg(&programs.folder).arg("-p").arg(self.port.to_string());
        command.args(["-U", "postgres", "-d", database, "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql]);
        Ok(programs.run(&mut command, &format!("psql-{}", self.name))?.trim().to_owned())
    }

    /// The process, for whom it is left running.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops the server in order and waits for its end.
    pub(super) fn stop(&mut self) {
        // SIGINT is PostgreSQL's fast shutdown: sessions end, data is flushed.
        end(&mut self.child, Signal::INT);
    }
}

/// A port nobody listens at now.
fn free_port() -> Result<u16> {
    let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    Ok(port.map_err(|e| Error::io("find", "a free port", e))?.port())
}
