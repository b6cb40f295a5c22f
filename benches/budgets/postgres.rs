//! PostgreSQL servers of our own: the same settings everywhere, Unix sockets in the scratch space, stopped by pid.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::cleanup::{Guard, Undo, alive};
use crate::command::{as_postgres, program, run};
use crate::filesystems::path_text;
use crate::setting::Setting;

const VERSIONS: &str = "/usr/lib/postgresql";
const START_WAIT: Duration = Duration::from_secs(120);
pub const DATABASE: &str = "bench";

/// Settings of every measured server. Autovacuum is off, as it would start at its own times in one run and not
/// in the other.
const SETTINGS: [&str; 8] = [
    "listen_addresses=",
    "shared_buffers=256MB",
    "max_wal_size=1GB",
    "checkpoint_timeout=5min",
    "max_connections=50",
    "autovacuum=off",
    "huge_pages=off",
    "logging_collector=off",
];

/// What a VDB is started with on top: little memory, and no work that only a long life pays back.
pub const VDB_SETTINGS: [&str; 4] =
    ["shared_buffers=32MB", "recovery_init_sync_method=syncfs", "wal_init_zero=off", "wal_recycle=off"];

/// An installed version.
#[derive(Clone, Debug)]
pub struct Installation {
    programs: PathBuf,
    pub version: String,
}

/// A running server.
pub struct Server {
    pub pid: u32,
    pub data: PathBuf,
    installation: Installation,
    sockets: PathBuf,
    guard: Guard,
}

/// What pgbench said of a run.
#[derive(Clone, Copy, Debug)]
pub struct PgbenchRun {
    pub tps: f64,
    pub latency_ms: f64,
}

impl Installation {
    /// The newest one on this host.
    pub fn find() -> anyhow::Result<Self> {
        let folders = fs::read_dir(VERSIONS).with_context(|| format!("no PostgreSQL in {VERSIONS}"))?;
        let newest = folders
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.parse::<u32>().ok())
            .filter(|major| Path::new(VERSIONS).join(major.to_string()).join("bin/postgres").exists())
            .max()
            .with_context(|| format!("no PostgreSQL server in {VERSIONS}: apt-get install postgresql"))?;
        let programs = Path::new(VERSIONS).join(newest.to_string()).join("bin");
        let said = run(&mut program(path_text(&programs.join("postgres"))?, ["--version"]))?;
        let version = said.trim().trim_start_matches("postgres (PostgreSQL) ").to_owned();
        Ok(Self { programs, version })
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// Makes a cluster in `parent`/data.
    pub fn create_cluster(&self, parent: &Path) -> anyhow::Result<PathBuf> {
        let data = owned_folder(&parent.join("data"))?;
        let mut initdb = as_postgres(&self.program("initdb"));
        initdb.arg("--pgdata").arg(&data).args([
            "--username=postgres",
            "--auth=trust",
            "--no-locale",
            "-E",
            "UTF8",
        ]);
        run(&mut initdb)?;
        Ok(data)
    }

    /// Starts a server and returns at once; `extra` settings win over the common ones.
    pub fn launch(&self, setting: &Setting, data: &Path, extra: &[&str]) -> anyhow::Result<Server> {
        let sockets = owned_folder(&setting.fresh_folder("s")?)?;
        let log = fs::File::create(sockets.join("log"))?;
        let mut postgres = as_postgres(&self.program("postgres"));
        postgres.arg("-D").arg(data).arg("-k").arg(&sockets);
        for value in SETTINGS.iter().chain(extra) {
            postgres.args(["-c", value]);
        }
        let child = postgres
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start setpriv")?;
        let guard = setting.cleanup.add(Undo::EndProcess(child.id()));
        let (installation, data) = (self.clone(), data.to_owned());
        Ok(Server { pid: child.id(), data, installation, sockets, guard })
    }

    /// Starts a server and waits until it answers.
    pub fn start(&self, setting: &Setting, data: &Path, extra: &[&str]) -> anyhow::Result<Server> {
        let server = self.launch(setting, data, extra)?;
        server.wait_for_answer(setting, "select 1")?;
        Ok(server)
    }
}

impl Server {
    /// Asks until the server answers `query`; fails when it ends before.
    pub fn wait_for_answer(&self, setting: &Setting, query: &str) -> anyhow::Result<String> {
        let begun = setting.now();
        loop {
            // The socket's file is cheap to look for; psql is not.
            if self.sockets.join(".s.PGSQL.5432").exists()
                && let Ok(answer) = self.query_in("postgres", query)
            {
                return Ok(answer);
            }
            if !alive(self.pid) || setting.now() - begun > START_WAIT {
                let log = fs::read_to_string(self.sockets.join("log")).unwrap_or_default();
                let end = log.lines().rev().take(12).collect::<Vec<_>>();
                bail!("PostgreSQL on {} does not answer: {end:#?}", self.data.display());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn query(&self, query: &str) -> anyhow::Result<String> {
        self.query_in(DATABASE, query)
    }

    pub fn query_in(&self, database: &str, query: &str) -> anyhow::Result<String> {
        let mut psql = self.client("psql");
        psql.args(["--no-psqlrc", "-qtAX", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", query]);
        Ok(run(&mut psql)?.trim().to_owned())
    }

    pub fn create_database(&self) -> anyhow::Result<()> {
        self.query_in("postgres", &format!("create database {DATABASE}")).map(drop)
    }

    /// `pgbench -i`: drops, makes and fills the tables.
    pub fn load(&self, scale: u32) -> anyhow::Result<()> {
        let mut pgbench = self.client("pgbench");
        run(pgbench.args(["--initialize", "--quiet", "--scale", &scale.to_string(), DATABASE]))?;
        Ok(())
    }

    /// Runs pgbench for `seconds`.
    pub fn pgbench(&self, clients: u32, seconds: u64, extra: &[&str]) -> anyhow::Result<PgbenchRun> {
        let said = run(&mut self.pgbench_command(clients, seconds, extra))?;
        let number = |name: &str| {
            let line = said.lines().find(|line| line.starts_with(name))?;
            line[name.len()..].split_whitespace().next()?.parse::<f64>().ok()
        };
        let (Some(tps), Some(latency_ms)) = (number("tps = "), number("latency average = ")) else {
            bail!("pgbench printed no figures: {said}");
        };
        Ok(PgbenchRun { tps, latency_ms })
    }

    /// Starts pgbench and returns at once; it is ended when the guard is dropped.
    pub fn pgbench_beside(&self, setting: &Setting, clients: u32, seconds: u64) -> anyhow::Result<Guard> {
        let mut command = self.pgbench_command(clients, seconds, &[]);
        let child =
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("cannot start pgbench")?;
        Ok(setting.cleanup.add(Undo::EndProcess(child.id())))
    }

    fn pgbench_command(&self, clients: u32, seconds: u64, extra: &[&str]) -> std::process::Command {
        let mut command = self.client("pgbench");
        command.args(["--no-vacuum", "--jobs", "2", "--client", &clients.to_string()]);
        command.args(["--time", &seconds.to_string()]).args(extra).arg(DATABASE);
        command
    }

    /// A base backup into a new folder `parent`/data.
    pub fn base_backup(&self, parent: &Path) -> anyhow::Result<PathBuf> {
        let data = owned_folder(&parent.join("data"))?;
        run(self.client("pg_basebackup").args(["--checkpoint=fast", "--no-sync", "--pgdata"]).arg(&data))?;
        Ok(data)
    }

    fn client(&self, name: &str) -> std::process::Command {
        let mut command = as_postgres(&self.installation.program(name));
        command.arg("--host").arg(&self.sockets).args(["--username", "postgres"]);
        command
    }

    /// A fast shutdown; returns when the server has ended.
    pub fn stop(self) {
        drop(self.guard);
    }
}

/// Makes a folder that belongs to the user postgres and to nobody else.
fn owned_folder(folder: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    run(&mut program("chown", ["postgres:postgres", path_text(folder)?]))?;
    run(&mut program("chmod", ["0700", path_text(folder)?]))?;
    Ok(folder.to_owned())
}

/// Makes the copy of a running server's data directory startable beside it: the server's pid file would make
/// `postgres` refuse, or a stop hit the original.
pub fn make_independent(data: &Path) -> anyhow::Result<()> {
    for name in ["postmaster.pid", "postmaster.opts"] {
        match fs::remove_file(data.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {name} of {}", data.display()));
            }
            _ => {}
        }
    }
    Ok(())
}
