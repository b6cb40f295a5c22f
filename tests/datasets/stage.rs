//! A source cluster with a password, and a daemon beside it. Both end with the test.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::common::postgres::{Server, command, make_cluster};
use crate::common::{Fixture, Run};

/// Nothing of the engine's may ever hold it in clear, but the files made for it.
pub(crate) const PASSWORD: &str = "kept-s3cret-kept";
pub(crate) const APP_PASSWORD: &str = "app-s3cret";

pub(crate) struct Stage {
    pub(crate) source: Server,
    pub(crate) fixture: Fixture,
    /// Whether servers go on when the daemon ends.
    pub(crate) keep_servers: bool,
}

impl Stage {
    /// A source with pgbench's tables, and a running daemon.
    pub(crate) fn new() -> Self {
        Self::with_settings(|_| String::new())
    }

    /// The same with settings of the source.
    pub(crate) fn with_settings(settings: impl FnOnce(&Fixture) -> String) -> Self {
        let fixture = Fixture::new();
        let data = fixture.path("source");
        make_cluster(&data);
        let rules = "local all all trust\nlocal replication all trust\n\
                     host all all 127.0.0.1/32 scram-sha-256\nhost replication all 127.0.0.1/32 scram-sha-256\n";
        fs::write(data.join("pg_hba.conf"), rules).unwrap();
        let conf = fs::read_to_string(data.join("postgresql.conf")).unwrap();
        fs::write(data.join("postgresql.conf"), conf + &settings(&fixture)).unwrap();
        let source = Server::start_on_network(&data);
        source.query(&format!("CREATE ROLE repl LOGIN REPLICATION PASSWORD '{PASSWORD}'"));
        source.query(&format!(
            "CREATE ROLE app LOGIN PASSWORD '{APP_PASSWORD}' IN ROLE pg_read_all_data, pg_write_all_data"
        ));
        source.query("CREATE ROLE nobody LOGIN");
        source.query(&format!("CREATE ROLE admin LOGIN SUPERUSER PASSWORD '{APP_PASSWORD}'"));
        source.load_pgbench(1);
        let stage = Self { source, fixture, keep_servers: false };
        stage.start_daemon();
        stage
    }

    pub(crate) fn state_path(&self) -> PathBuf {
        self.fixture.path("state")
    }

    pub(crate) fn start_daemon(&self) {
        let mount = self.fixture.mount_path();
        let run = self.run(["daemon", "--background", "--mount", mount.to_str().unwrap()]);
        assert_eq!(run.status, 0, "{run:?}\n{}", self.daemon_log());
    }

    /// Ends the daemon in order, and waits for its end.
    pub(crate) fn stop_daemon(&self) {
        self.fixture.end();
    }

    pub(crate) fn daemon_log(&self) -> String {
        fs::read_to_string(self.fixture.store_path().join("daemon.log")).unwrap_or_default()
    }

    /// Runs a command with the source's password in its environment.
    pub(crate) fn run<const N: usize>(&self, arguments: [&str; N]) -> Run {
        self.run_all(arguments)
    }

    pub(crate) fn run_all<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Run {
        let mut command = self.fixture.command(arguments);
        command.env("STILLPOINT_STATE", self.state_path()).env("STILLPOINT_SOURCE_PASSWORD", PASSWORD);
        command.env("STILLPOINT_KEEP_SERVERS", self.keep_servers.to_string());
        Run::of(&mut command)
    }

    #[track_caller]
    pub(crate) fn ok<const N: usize>(&self, arguments: [&str; N]) -> String {
        let run = self.run(arguments);
        assert_eq!(run.status, 0, "{run:?}\n{}", self.daemon_log());
        run.stdout
    }

    #[track_caller]
    pub(crate) fn json<const N: usize>(&self, arguments: [&str; N]) -> Value {
        let mut command = self.fixture.command(arguments);
        command.env("STILLPOINT_SOURCE_PASSWORD", PASSWORD).args(["-o", "json"]);
        Run::of(&mut command).json()
    }

    /// Waits for the jobs that bring the servers up again.
    pub(crate) fn wait_for_jobs(&self) {
        for job in self.json(["job", "list"]).as_array().unwrap() {
            if job["status"] == "running" || job["status"] == "queued" {
                self.run(["job", "watch", &job["id"].to_string()]);
            }
        }
    }

    /// Links the source as `name`, the staging server at a port that was free a moment ago.
    pub(crate) fn link(&self, name: &str) -> Run {
        let port = free_port().to_string();
        self.run([
            "dsource",
            "link",
            "postgres",
            "--name",
            name,
            "--initiated-backup",
            "--source-user",
            "repl",
            "--source-port",
            &self.source.port().to_string(),
            "--staging-port",
            &port,
        ])
    }

    /// The newest snapshot of a dataset, without the dataset's name.
    pub(crate) fn newest_snapshot(&self, dataset: &str) -> String {
        let list = self.json(["timeflow", "list", dataset]);
        let last = list.as_array().unwrap().last().expect("there is a snapshot")["snapshot"].clone();
        last.as_str().unwrap().split_once('@').unwrap().1.to_owned()
    }

    pub(crate) fn port(&self, dataset: &str) -> u16 {
        let shown = self.json(["vdb", "show", dataset]);
        u16::try_from(shown["port"].as_u64().unwrap()).unwrap()
    }

    /// Asks a VDB or staging server as the application would, with its password.
    #[track_caller]
    pub(crate) fn ask(&self, port: u16, sql: &str) -> String {
        let run = Self::try_ask(port, "app", APP_PASSWORD, sql);
        assert_eq!(run.status, 0, "{sql}: {run:?}");
        run.stdout.trim().to_owned()
    }

    pub(crate) fn try_ask(port: u16, user: &str, password: &str, sql: &str) -> Run {
        let mut psql = command("psql");
        psql.env("PGPASSWORD", password).args(["-h", "127.0.0.1", "-p", &port.to_string()]);
        Run::of(psql.args(["-U", user, "-d", "postgres", "-w", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql]))
    }

    #[track_caller]
    pub(crate) fn number(&self, port: u16, sql: &str) -> i64 {
        self.ask(port, sql).parse().unwrap()
    }

    /// The check that pgbench's tables were changed by whole transactions only.
    #[track_caller]
    pub(crate) fn assert_sums_agree(&self, port: u16) {
        let sums = self.ask(
            port,
            "SELECT (SELECT coalesce(sum(delta), 0) FROM pgbench_history), \
             (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers), \
             (SELECT sum(bbalance) FROM pgbench_branches)",
        );
        let distinct: BTreeSet<&str> = sums.split('|').collect();
        assert_eq!(distinct.len(), 1, "{sums}");
    }

    /// The replication slots of the source that are ours.
    pub(crate) fn slots(&self) -> i64 {
        self.source.number("SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'stillpoint%'")
    }

    /// Waits until no image is being made, whose server would be counted.
    fn settle(&self) {
        let busy = || {
            let jobs = self.json(["job", "list"]);
            let ended = |job: &Value| {
                job["kind"] != "DB_IMAGE" || (job["status"] != "queued" && job["status"] != "running")
            };
            !jobs.as_array().unwrap().iter().all(ended)
        };
        while self.fixture.daemon().is_some() && busy() {}
    }

    /// How many postmasters have their clusters on the mount, but for what is made in the background.
    pub(crate) fn servers(&self) -> usize {
        self.settle();
        self.postmasters().count()
    }

    /// The postmaster of a dataset's current timeflow.
    pub(crate) fn postmaster(&self, dataset: &str) -> rustix::process::Pid {
        self.find_postmaster(dataset).expect("it runs")
    }

    pub(crate) fn find_postmaster(&self, dataset: &str) -> Option<rustix::process::Pid> {
        let volume = self.json(["vdb", "show", dataset])["volume"].as_str().unwrap().to_owned();
        let folder = self.fixture.mount_path().join(volume);
        self.postmasters().find(|(_, cluster)| cluster.starts_with(&folder)).map(|(pid, _)| pid)
    }

    fn postmasters(&self) -> impl Iterator<Item = (rustix::process::Pid, PathBuf)> {
        let mount = self.fixture.mount_path();
        let found = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
            let arguments = fs::read(entry.path().join("cmdline")).ok()?;
            let words: Vec<&[u8]> = arguments.split(|byte| *byte == 0).collect();
            // Not what started it, and has its arguments, too.
            words[0].ends_with(b"/postgres").then_some(())?;
            let folder = words.iter().position(|word| *word == b"-D").and_then(|at| words.get(at + 1))?;
            let pid = rustix::process::Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
            Some((pid, PathBuf::from(String::from_utf8_lossy(folder).into_owned())))
        });
        found.filter(move |(_, folder)| folder.starts_with(&mount))
    }

    pub(crate) fn volumes(&self) -> BTreeSet<String> {
        let rows = self.json(["volume", "list"]);
        rows.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.fixture.daemon().is_some() {
            self.stop_daemon();
        }
        // A daemon that could not end them, or was killed: only what runs on this test's own mount.
        let mount = self.fixture.mount_path();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let ours = fs::read_link(entry.path().join("cwd")).is_ok_and(|folder| folder.starts_with(&mount));
            if let (true, Some(pid)) = (ours, pid.and_then(rustix::process::Pid::from_raw)) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
