//! PostgreSQL for tests: a cluster on a folder, started as its own user, stopped by its own pid.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, getuid, kill_process};
use tempfile::TempDir;

/// A server that does not answer after this many looks of 20 ms has failed.
const START_LOOKS_MAX: usize = 6000;
/// Looks of 20 ms at a server that was told to stop at once.
const STOP_LOOKS_MAX: usize = 1500;
const LOOK: Duration = Duration::from_millis(20);

/// The newest installation of this host.
fn programs() -> PathBuf {
    let mut majors: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL is installed: apt-get install postgresql")
        .map(|entry| entry.unwrap())
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    majors.sort();
    majors.pop().expect("PostgreSQL is installed").1
}

/// The major version of that installation.
pub fn major() -> u32 {
    let version = command("postgres").arg("--version").output().unwrap();
    let text = String::from_utf8(version.stdout).unwrap();
    let number = text.split_whitespace().nth(2).unwrap();
    number.split('.').next().unwrap().parse().unwrap()
}

/// A program of PostgreSQL's, as its user.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(programs().join(program));
    if getuid().is_root() {
        let (uid, gid) = server_user();
        command.uid(uid).gid(gid);
    }
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").current_dir("/");
    command.stdin(Stdio::null());
    command
}

fn server_user() -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:")).expect("there is a user postgres");
    let fields: Vec<&str> = line.split(':').collect();
    (fields[2].parse().unwrap(), fields[3].parse().unwrap())
}

/// Gives a path to PostgreSQL's user.
pub fn give(path: &Path) {
    if getuid().is_root() {
        let (uid, gid) = server_user();
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
    }
}

/// Makes a database cluster in `data`, whose parent must exist.
pub fn make_cluster(data: &Path) {
    fs::create_dir(data).unwrap();
    give(data);
    let made = command("initdb")
        .arg("-D")
        .arg(data)
        .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--data-checksums"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
}

/// A running server, reached over a socket in a folder of its own.
pub struct Server {
    child: Child,
    port: u16,
    sockets: TempDir,
    log: PathBuf,
    data: PathBuf,
    network: &'static str,
}

impl Server {
    /// Starts a server on `data` and waits until it answers.
    pub fn start(data: &Path) -> Self {
        Self::start_at(data, "")
    }

    /// The same, listening on the loopback address as well.
    pub fn start_on_network(data: &Path) -> Self {
        Self::start_at(data, "127.0.0.1")
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn start_at(data: &Path, network: &'static str) -> Self {
        for stale in ["postmaster.pid", "postmaster.opts"] {
            // Of a snapshot's original, or of a server that was killed.
            let _ = fs::remove_file(data.join(stale));
        }
        let sockets = tempfile::Builder::new().prefix("stillpoint-pg-").tempdir().unwrap();
        give(sockets.path());
        for _ in 0..5 {
            if let Some((child, port)) = attempt(data, sockets.path(), network, None) {
                let log = sockets.path().join("log");
                return Self { child, port, sockets, log, data: data.to_owned(), network };
            }
        }
        panic!("no server:\n{}", fs::read_to_string(sockets.path().join("log")).unwrap_or_default());
    }

    /// A client program with the connection's arguments.
    pub fn client(&self, program: &str) -> Command {
        client(program, self.sockets.path(), self.port)
    }

    /// The answer to a query, columns separated by `|`.
    #[track_caller]
    pub fn query(&self, sql: &str) -> String {
        let output = self
            .client("psql")
            .args(["-d", "postgres", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql])
            .output()
            .unwrap();
        assert!(output.status.success(), "{sql}: {output:?}\n{}", self.log());
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[track_caller]
    pub fn number(&self, sql: &str) -> i64 {
        let answer = self.query(sql);
        answer.parse().unwrap_or_else(|_| panic!("{sql}: {answer:?}"))
    }

    /// Fills pgbench's tables.
    pub fn load_pgbench(&self, scale: u32) {
        let loaded =
            self.client("pgbench").args(["-i", "-q", "-s", &scale.to_string(), "postgres"]).output().unwrap();
        assert!(loaded.status.success(), "{loaded:?}\n{}", self.log());
    }

    /// Starts pgbench, writing until it is ended.
    pub fn start_pgbench(&self, clients: u32) -> Program {
        let log = File::create(self.sockets.path().join("pgbench.log")).unwrap();
        let child = self
            .client("pgbench")
            .args(["-n", "-T", "36000", "-c", &clients.to_string(), "postgres"])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Program(child)
    }

    /// The check that pgbench's tables were changed by whole transactions only.
    #[track_caller]
    pub fn assert_sums_agree(&self) {
        let sums = self.query(
            "SELECT (SELECT coalesce(sum(delta), 0) FROM pgbench_history), \
             (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers), \
             (SELECT sum(bbalance) FROM pgbench_branches)",
        );
        let distinct: std::collections::BTreeSet<&str> = sums.split('|').collect();
        assert_eq!(distinct.len(), 1, "{sums}");
    }

    /// A client that commits one statement after another.
    pub fn session(&self) -> Session {
        let mut child = self
            .client("psql")
            .args(["-d", "postgres", "-XAt", "-v", "ON_ERROR_STOP=1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Session { program: Program(child), input, output }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Stops the server in order, and starts it again where it listened.
    pub fn restart(&mut self) {
        self.end(Signal::INT);
        let data = self.data.clone();
        for _ in 0..START_LOOKS_MAX {
            if let Some((child, _)) = attempt(&data, self.sockets.path(), self.network, Some(self.port)) {
                self.child = child;
                return;
            }
            // A test beside this one may have the port for a moment.
            thread::sleep(LOOK);
        }
        panic!("no server:\n{}", self.log());
    }

    /// Stops the server in order.
    pub fn stop(mut self) {
        self.end(Signal::INT);
    }

    /// Stops the server as fast as it can be, its storage being gone.
    pub fn abort(mut self) {
        self.end(Signal::QUIT);
    }

    fn end(&mut self, signal: Signal) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        for _ in 0..STOP_LOOKS_MAX {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(LOOK);
        }
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end(Signal::QUIT);
    }
}

fn client(program: &str, sockets: &Path, port: u16) -> Command {
    let mut command = command(program);
    command.arg("-h").arg(sockets).args(["-U", "postgres", "-p", &port.to_string()]);
    command
}

/// Starts a server on a port that was free a moment ago, or on the one given; `None` when somebody took it.
fn attempt(data: &Path, sockets: &Path, network: &str, port: Option<u16>) -> Option<(Child, u16)> {
    let free = || TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let port = port.unwrap_or_else(free);
    let log = File::create(sockets.join("log")).unwrap();
    let mut child = command("postgres")
        .arg("-D")
        .arg(data)
        .arg("-k")
        .arg(sockets)
        .args(["-p", &port.to_string(), "-c", &format!("listen_addresses={network}")])
        .args(["-c", "shared_buffers=32MB", "-c", "huge_pages=off", "-c", "max_wal_size=128MB"])
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .process_group(0)
        .spawn()
        .unwrap();
    for _ in 0..START_LOOKS_MAX {
        if child.try_wait().unwrap().is_some() {
            return None;
        }
        let asked = client("psql", sockets, port).args(["-d", "postgres", "-XAtqc", "SELECT 1"]).output();
        if asked.unwrap().status.success() {
            return Some((child, port));
        }
        thread::sleep(LOOK);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}

/// A program that is ended when the test is done with it.
pub struct Program(Child);

impl Program {
    pub fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A client of one connection in autocommit.
pub struct Session {
    program: Program,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Session {
    /// Runs one statement; true when the server has acknowledged it as `tag`.
    pub fn commit(&mut self, statement: &str, tag: &str) -> bool {
        if writeln!(self.input, "{statement};").and_then(|()| self.input.flush()).is_err() {
            return false;
        }
        let mut answer = String::new();
        self.output.read_line(&mut answer).is_ok() && answer.trim() == tag
    }
}
