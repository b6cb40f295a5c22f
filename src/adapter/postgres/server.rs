//! One PostgreSQL server: started in namespaces of its own, found again, stopped.
//!
//! A server is ours when a process of that number runs `postgres` in the cluster's folder: a `postmaster.pid` alone
//! may have come with a snapshot and name somebody else's. The number in it is that of the server's own namespace.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::super::{Instance, Task};
use super::config::{Config, DATA_FOLDER, TABLESPACES_FOLDER};
use super::files::{prepare, read_small, remove};
use super::program::{Programs, end_of};
use super::sql::Sql;
use crate::base::{Clock, Error, ErrorKind, OsUser, Result};

/// Arguments: see the script.
const PRIVATE_SCRIPT: &str = include_str!("private.sh");
/// The script's own name, among the arguments of what starts a server.
const SERVER_MARK: &str = "stillpoint-server";
const POLL: Duration = Duration::from_millis(20);
/// Recovery of a large cluster takes long; a server that says nothing for this long is given up.
pub(super) const START_TIME_MAX: Duration = Duration::from_secs(600);
/// A fast shutdown writes a checkpoint.
const STOP_TIME_MAX: Duration = Duration::from_secs(300);
/// Looks for strays until none is left.
const STRAY_ROUNDS_MAX: u32 = 20;
/// How much of a server's log is looked at for the reason of its end.
const LOG_BYTES_MAX: u64 = 64 << 10;

/// An instance with its configuration read.
pub(super) struct Server<'a> {
    pub instance: &'a Instance,
    pub config: Config,
    pub programs: Programs,
    clock: &'a dyn Clock,
}

/// A running postmaster that was verified to be this cluster's.
pub(super) struct Postmaster {
    pub pid: Pid,
    /// Stays with the process, whatever becomes of its number.
    handle: OwnedFd,
}

impl<'a> Server<'a> {
    pub(super) fn new(instance: &'a Instance, config: Config, clock: &'a dyn Clock) -> Result<Self> {
        let user = OsUser::for_servers(&config.os_user)?;
        let programs = Programs { folder: config.programs.clone(), user };
        Ok(Self { instance, config, programs, clock })
    }

    pub(super) fn data(&self) -> PathBuf {
        self.instance.volume.join(DATA_FOLDER)
    }

    pub(super) fn tablespace(&self, oid: u32) -> PathBuf {
        self.instance.volume.join(TABLESPACES_FOLDER).join(oid.to_string())
    }

    /// The folder of its sockets, the only one of the state folder that it can write in.
    pub(super) fn sockets(&self) -> PathBuf {
        self.instance.state.join("s")
    }

    /// The socket that its clients connect to.
    pub(super) fn socket(&self) -> PathBuf {
        self.sockets().join(format!(".s.PGSQL.{}", self.instance.port))
    }

    pub(super) fn log(&self) -> PathBuf {
        self.instance.state.join("server.log")
    }

    /// A file of settings in the state folder.
    pub(super) fn state_file(&self, name: &str) -> PathBuf {
        self.instance.state.join(name)
    }

    /// Connects as the cluster's superuser, over the socket that only this engine's users can reach.
    pub(super) fn connect(&self, database: &str) -> Result<Sql> {
        Sql::over_socket(&self.sockets(), self.instance.port, &self.config.superuser, database)
    }

    /// The running postmaster of this cluster, if there is one.
    pub(super) fn postmaster(&self) -> Option<Postmaster> {
        let data = self.data();
        let text = read_small(&data.join("postmaster.pid"))?;
        let number: i32 = text.lines().next()?.trim().parse().ok()?;
        let is_it = |pid| own_number(pid) == Some(number) && is_postgres_in(pid, |folder| folder == data);
        let pid = process_numbers().ok()?.find(|pid| is_it(*pid))?;
        let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Looked at after it was opened, so that both are of one process.
        is_it(pid).then_some(Postmaster { pid, handle })
    }

    /// Starts the server; it is not ready yet. A server that runs already is left alone.
    pub(super) fn spawn(&self) -> Result<Option<Child>> {
        if self.postmaster().is_some() {
            return Ok(None);
        }
        let data = self.data();
        for (pid, _) in processes()? {
            if is_postgres_in(pid, |folder| folder == data) {
                return Err(Error::new(
                    ErrorKind::InUse,
                    format!("process {} works on {} already", pid.as_raw_nonzero(), data.display()),
                ));
            }
        }
        for stale in ["postmaster.pid", "postmaster.opts"] {
            // It came with a snapshot, or its server was killed: the one it names is not this one.
            prepare(self, "drop", &[stale], "")?;
        }
        let socket = format!(".s.PGSQL.{}", self.instance.port);
        for stale in [format!("{socket}.lock"), socket] {
            // Of a killed server, whose process number may be somebody else's by now.
            remove(&self.sockets().join(&stale))?;
        }
        let log = self.open_log()?;
        let errors = log.try_clone().map_err(|e| Error::io("duplicate", "the server's log", e))?;
        let mut command = self.private_command();
        command.arg("--").arg(self.programs.folder.join("postgres"));
        command.arg("-D").arg(&data);
        for (name, file) in
            [("config_file", "postgresql.conf"), ("hba_file", "pg_hba.conf"), ("ident_file", "pg_ident.conf")]
        {
            command.arg("-c").arg(format!("{name}={}", self.state_file(file).display()));
        }
        // Here, so that no ALTER SYSTEM in the database can move it.
        command.arg("-c").arg(format!("port={}", self.instance.port));
        command.arg("-c").arg(format!("unix_socket_directories={}", self.sockets().display()));
        let child = command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(|e| Error::io("start", "unshare", e))?;
        Ok(Some(child))
    }

    fn private_command(&self) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--ipc", "--fork", "--propagation", "private"]);
        command.args(["--", "/bin/sh", "-c"]);
        command.arg(PRIVATE_SCRIPT).arg(SERVER_MARK);
        command.arg(&self.instance.volume).arg(&self.instance.state).arg(self.sockets());
        command.arg(self.programs.user.uid.to_string()).arg(self.programs.user.gid.to_string());
        for tablespace in &self.config.tablespaces {
            command.arg(self.tablespace(tablespace.oid)).arg(&tablespace.location);
        }
        if let Some(logs) = &self.instance.logs {
            command.arg(logs).arg(logs);
        }
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C").current_dir("/");
        command
    }

    fn open_log(&self) -> Result<File> {
        let path = self.log();
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| Error::io("open", &path.display().to_string(), e))
    }

    /// Starts the server and waits until `ready` says so over a connection to it.
    pub(super) fn start(
        &self,
        task: &mut dyn Task,
        ready: &mut dyn FnMut(&Sql) -> Result<bool>,
    ) -> Result<()> {
        let log_start = self.log_length();
        let mut child = self.spawn()?;
        let ready = self.wait_until_ready(child.as_mut(), log_start, task, ready);
        if let (Err(_), Some(child)) = (&ready, &mut child) {
            // It may not have written its number yet, so that nobody else could find it.
            self.end(child)?;
        }
        reap(child);
        ready
    }

    fn wait_until_ready(
        &self,
        mut child: Option<&mut Child>,
        log_start: u64,
        task: &mut dyn Task,
        ready: &mut dyn FnMut(&Sql) -> Result<bool>,
    ) -> Result<()> {
        let start = self.clock.monotonic();
        loop {
            task.check()?;
            let ended = match child.as_deref_mut() {
                Some(child) => {
                    child.try_wait().map_err(|e| Error::io("wait for", "the server", e))?.is_some()
                }
                None => self.postmaster().is_none(),
            };
            if ended {
                return Err(self.ended_error(log_start));
            }
            // Refused until the server listens; what the refusal says then changes nothing.
            if let Ok(sql) = self.connect("postgres")
                && ready(&sql)?
            {
                return Ok(());
            }
            if self.clock.monotonic().saturating_sub(start) > START_TIME_MAX {
                return Err(Error::new(
                    ErrorKind::Io,
                    format!(
                        "the server of {} did not get ready within {} s; see {}",
                        self.instance.name,
                        START_TIME_MAX.as_secs(),
                        self.log().display()
                    ),
                ));
            }
            self.clock.sleep(POLL);
        }
    }

    /// What the server said when it ended by itself.
    pub(super) fn ended_error(&self, log_start: u64) -> Error {
        let said = self.log_since(log_start);
        Error::new(
            ErrorKind::Io,
            format!(
                "the server of {} ended; it said:\n{}\nthe whole log is {}",
                self.instance.name,
                end_of(&said),
                self.log().display()
            ),
        )
    }

    pub(super) fn log_length(&self) -> u64 {
        std::fs::metadata(self.log()).map_or(0, |log| log.len())
    }

    /// The wall clock.
    pub(super) fn now(&self) -> jiff::Timestamp {
        super::point::now(self.clock)
    }

    /// A number that no other look at this server has.
    pub(super) fn unique(&self) -> u128 {
        self.clock.monotonic().as_nanos()
    }

    /// The end of the server's log, from a byte on.
    pub(super) fn log_since(&self, start: u64) -> String {
        use std::os::unix::fs::FileExt;
        let Ok(file) = File::open(self.log()) else { return String::new() };
        let length = file.metadata().map_or(0, |log| log.len());
        let from = start.max(length.saturating_sub(LOG_BYTES_MAX));
        let mut bytes = vec![0; usize::try_from(length.saturating_sub(from)).unwrap_or(0)];
        match file.read_exact_at(&mut bytes, from) {
            Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(_) => String::new(),
        }
    }

    /// Ends a server that was just started: in order when it is one already, or by force.
    fn end(&self, child: &mut Child) -> Result<()> {
        if let Some(postmaster) = self.postmaster() {
            postmaster.signal(Signal::INT);
            postmaster.wait(STOP_TIME_MAX)?;
        }
        // With the first process of its namespace all others of it end.
        match rustix::process::kill_process_group(Pid::from_child(child), Signal::KILL) {
            Err(e) if e != Errno::SRCH => return Err(Error::io("end", "a server", e.into())),
            _ => {}
        }
        child.wait().map(drop).map_err(|e| Error::io("wait for", "a server", e))
    }

    /// Stops the server in order, by force if it does not end; no error when none runs.
    pub(super) fn stop(&self, task: &mut dyn Task) -> Result<()> {
        let Some(postmaster) = self.postmaster() else { return Ok(()) };
        // A fast shutdown: sessions end, data is flushed.
        postmaster.signal(Signal::INT);
        if postmaster.wait(STOP_TIME_MAX)? {
            return Ok(());
        }
        task.warn(&format!(
            "the server of {} did not stop within {} s and was ended by force: its next start recovers",
            self.instance.name,
            STOP_TIME_MAX.as_secs()
        ));
        postmaster.signal(Signal::QUIT);
        if postmaster.wait(STOP_TIME_MAX)? {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InUse,
            format!("process {} of {} does not end", postmaster.pid.as_raw_nonzero(), self.instance.name),
        ))
    }
}

impl Postmaster {
    pub(super) fn signal(&self, signal: Signal) {
        // It may have ended meanwhile, which is what is wanted.
        let _ = rustix::process::pidfd_send_signal(&self.handle, signal);
    }

    /// Waits for the end; false when the time is over.
    pub(super) fn wait(&self, limit: Duration) -> Result<bool> {
        let limit = rustix::event::Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(limit.subsec_nanos()),
        };
        let mut waiting = [rustix::event::PollFd::new(&self.handle, rustix::event::PollFlags::IN)];
        loop {
            match rustix::event::poll(&mut waiting, Some(&limit)) {
                Ok(count) => return Ok(count > 0),
                Err(Errno::INTR) => {}
                Err(e) => return Err(Error::io("wait for", "a server", e.into())),
            }
        }
    }
}

/// Ends every process that an earlier engine started with settings in `state`, and every server on the dead mount at
/// `mount`: postmasters, what they started, and copies under way. Nothing they could still write would stay. Returns
/// their numbers. The servers of the state folders in `kept` go on, with all that runs in their namespaces.
pub(super) fn end_strays(state: &Path, mount: &Path, kept: &[PathBuf]) -> Result<Vec<u32>> {
    let mut ended = Vec::new();
    // A postmaster may start one more child while it is being ended.
    for _ in 0..STRAY_ROUNDS_MAX {
        let strays: Vec<Postmaster> = processes()?
            .into_iter()
            .filter(|(pid, _)| {
                *pid != rustix::process::getpid()
                    && (is_marked(*pid, state) && !is_kept(*pid, kept) || is_on_dead(*pid, mount))
            })
            .map(|(pid, handle)| Postmaster { pid, handle })
            .collect();
        if strays.is_empty() {
            return Ok(ended);
        }
        for stray in strays {
            stray.signal(Signal::KILL);
            let number = stray.pid.as_raw_nonzero().get();
            if !stray.wait(STOP_TIME_MAX)? {
                return Err(Error::new(ErrorKind::InUse, format!("process {number} does not end")));
            }
            ended.push(number.unsigned_abs());
        }
    }
    Ok(ended)
}

/// Whether a process is of one of these servers: in its namespace, or the one outside that waits for the namespace's end.
/// Tools that work on a server from outside, such as a copy, are not.
fn is_kept(pid: Pid, kept: &[PathBuf]) -> bool {
    if !kept.iter().any(|state| is_marked(pid, state)) {
        return false;
    }
    let namespace = |folder: &Path| std::fs::read_link(folder.join("ns/pid")).ok();
    let arguments = std::fs::read(process_folder(pid).join("cmdline")).unwrap_or_default();
    arguments.split(|byte| *byte == 0).any(|word| word == SERVER_MARK.as_bytes())
        || namespace(&process_folder(pid)) != namespace(Path::new("/proc/self"))
}

/// Whether a path of the state folder is among a process's arguments; this program has at most the folder itself.
fn is_marked(pid: Pid, state: &Path) -> bool {
    let mark = state.as_os_str().as_encoded_bytes();
    let arguments = std::fs::read(process_folder(pid).join("cmdline")).unwrap_or_default();
    arguments.windows(mark.len() + 1).any(|window| window.starts_with(mark) && window[mark.len()] == b'/')
}

/// Whether a process is a server, or a child of one, in a cluster on a mount whose process is dead. Children write
/// something else over their arguments, and outlive their postmaster for a moment.
fn is_on_dead(pid: Pid, mount: &Path) -> bool {
    let folder = process_folder(pid).join("cwd");
    is_postgres_in(pid, |cluster| cluster.starts_with(mount))
        && matches!(rustix::fs::statfs(&folder), Err(Errno::NOTCONN | Errno::CONNABORTED))
}

fn processes() -> Result<Vec<(Pid, OwnedFd)>> {
    let open = |pid| Some((pid, rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?));
    Ok(process_numbers()?.filter_map(open).collect())
}

fn process_numbers() -> Result<impl Iterator<Item = Pid>> {
    let entries = std::fs::read_dir("/proc").map_err(|e| Error::io("read", "/proc", e))?;
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(numbers.filter_map(Pid::from_raw))
}

/// A process's number in its own namespace, by which it knows itself.
fn own_number(pid: Pid) -> Option<i32> {
    let status = read_small(&process_folder(pid).join("status"))?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    numbers.split_whitespace().last()?.parse().ok()
}

fn process_folder(pid: Pid) -> PathBuf {
    PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()))
}

/// Whether a process runs PostgreSQL in such a folder: a postmaster and its children stay in their cluster's. A program
/// that was replaced by an upgrade, and a folder that was removed, are told as deleted.
fn is_postgres_in(pid: Pid, wanted: impl Fn(&Path) -> bool) -> bool {
    let link = |name: &str| {
        let target = std::fs::read_link(process_folder(pid).join(name)).ok()?;
        let text = target.to_str()?;
        Some(PathBuf::from(text.strip_suffix(" (deleted)").unwrap_or(text)))
    };
    let is_postgres =
        link("exe").is_some_and(|program| program.file_name().is_some_and(|name| name == "postgres"));
    is_postgres && link("cwd").is_some_and(|folder| wanted(&folder))
}

/// Waits for a server's end in a thread of its own, so that it leaves no zombie.
fn reap(child: Option<Child>) {
    if let Some(mut child) = child {
        std::thread::spawn(move || {
            let _ = child.wait();
        });
    }
}
