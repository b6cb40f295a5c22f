//! A store in a temporary folder and the real binary on it, for the tests through the whole.
//!
//! What a fixture starts it ends by its own pid when it is dropped, also when the test fails.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

pub mod postgres;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// The program under test: the one built with it, or that of the environment's `STILLPOINT`.
pub fn stillpoint() -> Command {
    let built = OsString::from(env!("CARGO_BIN_EXE_stillpoint"));
    let mut command = Command::new(std::env::var_os("STILLPOINT").unwrap_or(built));
    command.env_remove("STILLPOINT_STORE").env_remove("STILLPOINT_LOG").stdin(Stdio::null());
    command
}

/// What a run of the program gave.
#[derive(Debug)]
pub struct Run {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    pub fn of(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } = command.output().unwrap();
        Self {
            status: status.code().unwrap_or(-1),
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
        }
    }

    /// The output as JSON of a run that must have ended with 0.
    pub fn json(&self) -> Value {
        assert_eq!(self.status, 0, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    #[track_caller]
    pub fn fails_with(&self, status: i32, words: &[&str]) {
        assert_eq!(self.status, status, "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in {self:?}");
        }
        assert!(self.stdout.is_empty(), "{self:?}");
    }
}

/// A store in a folder of its own, with a place to mount it.
pub struct Fixture {
    /// Others may pass through it, as PostgreSQL's user must.
    pub folder: TempDir,
}

impl Fixture {
    /// An initialised store that is not mounted.
    pub fn new() -> Self {
        Self::within(tempfile::Builder::new().prefix("stillpoint-test-").tempdir().unwrap(), "64MiB")
    }

    /// The same in a folder of the caller's choice.
    pub fn within(folder: TempDir, journal_size: &str) -> Self {
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let fixture = Self { folder };
        fs::create_dir(fixture.mount_path()).unwrap();
        fixture.ok(["init", fixture.store_path().to_str().unwrap(), "--journal-size", journal_size]);
        fixture
    }

    /// A mounted store.
    pub fn mounted() -> Self {
        let fixture = Self::new();
        fixture.mount();
        fixture
    }

    pub fn store_path(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    pub fn mount_path(&self) -> PathBuf {
        self.folder.path().join("mnt")
    }

    /// A path in the folder beside the store.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The program with this store.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = stillpoint();
        command.env("STILLPOINT_STORE", self.store_path()).args(arguments);
        command
    }

    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Run {
        Run::of(&mut self.command(arguments))
    }

    /// Runs a command that must end with 0.
    #[track_caller]
    pub fn ok<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        let run = self.run(arguments);
        assert_eq!(run.status, 0, "{run:?}");
        run.stdout
    }

    /// Runs a command that must end with 0 and print JSON.
    #[track_caller]
    pub fn json<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Value {
        let mut command = self.command(arguments);
        Run::of(command.args(["-o", "json"])).json()
    }

    pub fn mount(&self) {
        self.ok([OsStr::new("mount"), self.store_path().as_os_str(), self.mount_path().as_os_str()]);
    }

    pub fn unmount(&self) {
        self.ok([OsStr::new("unmount"), self.mount_path().as_os_str()]);
    }

    /// The mounting process: the holder of the store's lock, as nothing asked of the process itself would leave it
    /// as it is.
    pub fn mounting_process(&self) -> Option<Pid> {
        self.holder("lock", "stillpoint mount")
    }

    /// The daemon, which may be the mounting process.
    pub fn daemon(&self) -> Option<Pid> {
        self.holder("daemon.lock", "stillpoint daemon")
    }

    fn holder(&self, lock: &str, holds_for: &str) -> Option<Pid> {
        let holder = fs::read_to_string(self.store_path().join(lock)).ok()?;
        let (pid, purpose) = holder.split_once(' ')?;
        if !purpose.starts_with(holds_for) {
            return None;
        }
        // The number of one that was killed may be another's by now.
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let store = self.store_path();
        let ours = command.split(|byte| *byte == 0).any(|word| word == store.as_os_str().as_encoded_bytes());
        ours.then(|| Pid::from_raw(pid.parse().unwrap()).unwrap())
    }

    /// Ends the daemon in order, or a mounting process that is none, and waits for its end.
    pub fn end(&self) {
        self.signal(Signal::TERM);
    }

    /// Kills it as a crash would.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        let pid = self.daemon().or_else(|| self.mounting_process()).expect("the store is mounted");
        let handle = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        kill_process(pid, signal).unwrap();
        let mut ended = [rustix::event::PollFd::new(&handle, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut ended, None).unwrap();
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        for mount in mounts_below(self.folder.path()) {
            let unmounted = Run::of(stillpoint().arg("unmount").arg(&mount));
            if unmounted.status != 0 {
                // A failed test may have left files open.
                let _ = rustix::mount::unmount(&mount, rustix::mount::UnmountFlags::DETACH);
            }
        }
        if let Some(pid) = self.mounting_process() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Directories below `folder` that something is mounted on, the last mounted first.
pub fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let folder = folder.canonicalize().unwrap();
    let list = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let directories = list.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut below: Vec<PathBuf> = directories.filter(|directory| directory.starts_with(&folder)).collect();
    below.reverse();
    below
}

/// Random numbers of a test; the seed is printed, and taken from `STILLPOINT_SEED` when that is set.
pub fn random(test: &str) -> stillpoint::base::SeededRandom {
    let seed = match std::env::var("STILLPOINT_SEED") {
        Ok(seed) => seed.parse().expect("STILLPOINT_SEED is a number"),
        Err(_) => stillpoint::base::Random::next_u64(&stillpoint::base::SystemRandom),
    };
    println!("{test}: STILLPOINT_SEED={seed}");
    stillpoint::base::SeededRandom::new(seed)
}
