//! One run of a hook: start, watch, end, conclude.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use super::definition::{Hook, Secrets};
use super::family::{Family, Scope};
use super::mask::Mask;
use super::output::Output;
use super::process::Running;
use super::program::{Prepared, environment};
use super::run_file::RunFile;
use crate::base::{Clock, Error, ErrorKind, Random, Result};

/// How often a cancel and the clock are looked at while nothing is printed.
const TURN: Duration = Duration::from_millis(50);
/// What a group may print after its leader ended, as `exec > >(tee log)` does, and how long its members may take to leave
/// it, as `setsid program &` does.
const LINGER: Duration = Duration::from_secs(2);
/// How long killed processes may take to go: those in an uninterruptible wait take longer.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// Runs hooks. One can run many at a time.
pub struct Runner {
    scratch: PathBuf,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    limits: Limits,
}

/// Bounds of every run.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A longer line is cut.
    pub line_bytes_max: usize,
    /// Later lines are not given to the sink.
    pub output_bytes_max: u64,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
}

/// A run that ended with status 0.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub elapsed: Duration,
    /// Lines given to the sink.
    pub lines: u64,
    /// Whether the output was longer than its limit.
    pub output_cut: bool,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    ByItself,
    TimeLimit,
    Cancelled,
}

impl Default for Limits {
    fn default() -> Self {
        Self { line_bytes_max: 4 << 10, output_bytes_max: 1 << 20, grace: Duration::from_secs(10) }
    }
}

impl Runner {
    /// `scratch` is the folder of running hooks, of this runner alone. It is made if it is not there, and every user that
    /// hooks run as must be able to pass through its parents. What a process that was killed had left running in it
    /// is ended first, for which its grace is waited.
    pub fn new(
        scratch: impl Into<PathBuf>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        limits: Limits,
    ) -> Result<Self> {
        let scratch = scratch.into();
        match fs::create_dir(&scratch) {
            // Afterwards, for a mode given at once would be less the umask.
            Ok(()) => fs::set_permissions(&scratch, Permissions::from_mode(0o711)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(e) => Err(e),
        }
        .map_err(|e| Error::io("make the folder of running hooks,", &scratch.display().to_string(), e))?;
        let runner = Self { scratch, clock, random, limits };
        runner.end_left();
        Ok(runner)
    }

    fn end_left(&self) {
        let mut left: Vec<(Family, RunFile)> = RunFile::left_in(&self.scratch)
            .into_iter()
            .map(|(run, file)| (Family::new(None, &run), file))
            .collect();
        for (signal, patience) in [(Signal::TERM, self.limits.grace), (Signal::KILL, KILL_PATIENCE)] {
            let deadline = self.clock.monotonic() + patience;
            loop {
                left.retain(|(family, _)| family.alive(Scope::All));
                if left.is_empty() || self.clock.monotonic() >= deadline {
                    break;
                }
                left.iter_mut().for_each(|(family, _)| family.signal(Scope::All, signal));
                self.clock.sleep(TURN);
            }
        }
    }

    /// Runs a hook to its end; blocks. `sink` is given each line of stdout and stderr as it comes.
    ///
    /// Its environment is PATH, HOME, LANG, its own variables, `variables` over them, and the run's name. The values of
    /// all `secrets` are replaced by `***` in everything it prints.
    ///
    /// A status other than 0 is `Failed`, with the last lines it printed in the message; so is the time limit, and
    /// `cancel` is `Cancelled`. A program, interpreter, user or secret that is not there is `Precondition` or
    /// `NotFound`, and nothing was run.
    ///
    /// A hook that ends by itself with status 0 may leave behind what it took out of its process group, as `setsid`
    /// does; whatever else of it still runs is sent SIGTERM and, after a grace, SIGKILL. At any other end those outside
    /// of the group are ended too. Not found are processes that have both left the group and dropped the variable
    /// `STILLPOINT_HOOK_RUN` (as `sudo` on a terminal of its own does), and those another service started for it.
    pub fn run(
        &self,
        hook: &Hook,
        variables: &BTreeMap<String, String>,
        secrets: &Secrets,
        sink: &mut dyn FnMut(&str),
        cancel: &AtomicBool,
    ) -> Result<Outcome> {
        let environment = environment(hook, variables, secrets)?;
        let run: String = self.random.next_id().iter().map(|byte| format!("{byte:02x}")).collect();
        let prepared = Prepared::new(hook, &environment, &self.scratch, &run)?;
        let limits = &self.limits;
        let mask = Mask::new(secrets.values());
        let mut output = Output::new(mask, limits.line_bytes_max, limits.output_bytes_max, sink);
        let began = self.clock.monotonic();
        let Prepared { command, shown, file } = prepared;
        let mut running = Running::start(command, &run).map_err(|e| not_started(hook, &shown, &e))?;
        let end = self.watch(hook, &mut running, began, cancel, &mut output);
        let status = self.finish(&mut running, end, &mut output);
        drop(file);
        output.finish();
        let elapsed = self.clock.monotonic().saturating_sub(began);
        conclude(hook, end, status, &output).map(|()| {
            let (lines, output_cut) = output.lines();
            Outcome { elapsed, lines, output_cut }
        })
    }

    /// Until the leader ends, time is up or the run is cancelled.
    fn watch(
        &self,
        hook: &Hook,
        running: &mut Running,
        began: Duration,
        cancel: &AtomicBool,
        output: &mut Output<'_>,
    ) -> End {
        let deadline = began + Duration::from_secs(u64::from(hook.time_limit_seconds));
        loop {
            running.pump(TURN, &mut |bytes| output.push(bytes));
            if running.leader_ended() {
                return End::ByItself;
            }
            if cancel.load(Ordering::Relaxed) {
                return End::Cancelled;
            }
            if self.clock.monotonic() >= deadline {
                return End::TimeLimit;
            }
        }
    }

    /// Ends what is left and reads what was still printed. The leader's status, if it could be ended.
    fn finish(&self, running: &mut Running, end: End, output: &mut Output<'_>) -> Option<ExitStatus> {
        let mut scope = Scope::All;
        if end == End::ByItself {
            // Seen, not reaped: the group keeps its number until it is gone.
            let succeeded = running.leader_succeeded();
            self.wait(running, LINGER, output, |running| {
                // A program that will be in a session of its own is in the group until it is.
                (running.output_ended() && !succeeded) || !running.alive(Scope::Group)
            });
            if succeeded {
                scope = Scope::Group;
            }
        }
        for (signal, patience) in [(Signal::TERM, self.limits.grace), (Signal::KILL, KILL_PATIENCE)] {
            let gone = self.wait(running, patience, output, |running| {
                let gone = !running.alive(scope);
                if !gone {
                    running.signal(scope, signal);
                }
                gone
            });
            if gone {
                break;
            }
        }
        // What was in the pipe before; those who still hold it are not waited for.
        running.pump(Duration::ZERO, &mut |bytes| output.push(bytes));
        running.reap()
    }

    /// Reads on until `done` or `patience` is over; says which.
    fn wait(
        &self,
        running: &mut Running,
        patience: Duration,
        output: &mut Output<'_>,
        mut done: impl FnMut(&mut Running) -> bool,
    ) -> bool {
        let deadline = self.clock.monotonic() + patience;
        loop {
            if done(running) {
                return true;
            }
            if self.clock.monotonic() >= deadline {
                return false;
            }
            running.pump(TURN, &mut |bytes| output.push(bytes));
        }
    }
}

/// What a run's end means. A status of `None` is a leader that even SIGKILL has not ended yet.
fn conclude(hook: &Hook, end: End, status: Option<ExitStatus>, output: &Output<'_>) -> Result<()> {
    let (kind, what) = match (end, status) {
        (End::ByItself, Some(status)) if status.success() => return Ok(()),
        (End::ByItself, Some(status)) => (ErrorKind::Failed, ended_with(status)),
        (End::TimeLimit, _) => {
            let seconds = hook.time_limit_seconds;
            (ErrorKind::Failed, format!("ran longer than its time limit of {seconds} s and was ended"))
        }
        (End::Cancelled, _) => (ErrorKind::Cancelled, "was cancelled".to_owned()),
        (End::ByItself, None) => (ErrorKind::Failed, "ended without a status".to_owned()),
    };
    let stuck =
        if status.is_none() { "; its process waits in the kernel and could not be ended yet" } else { "" };
    Err(hook.error(kind, format!("{what}{stuck}{}", Quoted(&output.last_lines()))))
}

fn ended_with(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

fn not_started(hook: &Hook, shown: &str, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => {
            let what = format!(
                "cannot run: there is no program {shown:?} on this host, or not in the PATH of hooks"
            );
            hook.error(ErrorKind::Precondition, what)
        }
        io::ErrorKind::PermissionDenied => {
            let what = format!("cannot run: {shown:?} is not a program that its user may run");
            hook.error(ErrorKind::Precondition, what)
        }
        _ => hook.error(ErrorKind::Io, format!("cannot run {shown:?}: {error}")),
    }
}

/// The last lines of an output, as the end of a message.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("; it printed nothing");
        }
        f.write_str("; it printed last:")?;
        self.0.lines().try_for_each(|line| write!(f, "\n  {line}"))
    }
}
