//! Hooks as real processes. Limits are generous, and nothing depends on how fast the machine is.

mod ending;
mod running;
mod users;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tempfile::TempDir;

use super::{Hook, HookPoint, Limits, Outcome, Program, Runner, Secrets};
use crate::base::{Clock, Result, SystemClock, SystemRandom};

/// A runner in a folder of its own, and what a run printed.
struct Bench {
    folder: TempDir,
    runner: Runner,
    variables: BTreeMap<String, String>,
    secrets: Secrets,
    lines: Vec<String>,
}

impl Bench {
    fn new() -> Self {
        Self::with_limits(Limits { grace: Duration::from_secs(20), ..Limits::default() })
    }

    fn with_limits(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(LeapingClock(folder.path().join("leap")));
        let runner = Runner::new(folder.path().join("run"), clock, Arc::new(SystemRandom), limits).unwrap();
        let (variables, secrets) = (BTreeMap::new(), Secrets::default());
        Self { folder, runner, variables, secrets, lines: Vec::new() }
    }

    fn run(&mut self, hook: &Hook) -> Result<Outcome> {
        self.run_until(hook, &AtomicBool::new(false))
    }

    fn run_until(&mut self, hook: &Hook, cancel: &AtomicBool) -> Result<Outcome> {
        self.lines.clear();
        let lines = &mut self.lines;
        let mut sink = |line: &str| lines.push(line.to_owned());
        let result = self.runner.run(hook, &self.variables, &self.secrets, &mut sink, cancel);
        let left: Vec<_> = fs::read_dir(self.folder.path().join("run")).unwrap().flatten().collect();
        assert!(left.is_empty(), "a script was left: {left:?}");
        result
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The process whose number a script has written to this file.
    fn pid(&self, name: &str) -> i32 {
        fs::read_to_string(self.path(name)).unwrap().trim().parse().unwrap()
    }
}

/// The host's clock until a script makes the file; then a day later. So time limits are over when a script is ready for it.
struct LeapingClock(PathBuf);

impl Clock for LeapingClock {
    fn unix_nanos(&self) -> i64 {
        SystemClock.unix_nanos()
    }

    fn monotonic(&self) -> Duration {
        let leap = if self.0.exists() { Duration::from_secs(86_400) } else { Duration::ZERO };
        SystemClock.monotonic() + leap
    }

    fn sleep(&self, duration: Duration) {
        SystemClock.sleep(duration);
    }
}

fn script(text: &str) -> Hook {
    hook(Program::Script(text.into()))
}

fn command(words: &[&str]) -> Hook {
    hook(Program::Command(words.iter().map(|word| (*word).to_owned()).collect()))
}

fn hook(program: Program) -> Hook {
    Hook {
        name: "load".into(),
        point: HookPoint::PreSync,
        program,
        run_as: None,
        time_limit_seconds: 3600,
        environment: BTreeMap::new(),
    }
}

/// Whether a process of this number runs; one that has ended and waits to be reaped does not.
fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
    state.is_some_and(|state| state != "Z" && state != "X")
}
