//! One application: its commands run, seen, started and stopped.

use std::collections::HashMap;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::channel::{RecvTimeoutError, unbounded};
use parking_lot::Mutex;

use super::super::{Instance, Task};
use super::config::{Config, Word, run_folder, variables};
use super::processes::{self, Of};
use crate::base::{Clock, Error, ErrorKind, OsUser, Result};
use crate::hook::{Hook, Program, Runner, Secrets};

/// The folder of running commands inside the state folder.
const SCRATCH: &str = "commands";
/// How often a silent command's job is asked whether it goes on.
const POLL: Duration = Duration::from_millis(100);
/// A status command is asked every few seconds, and others wait for it.
const STATUS_SECONDS_MAX: u32 = 10;
/// A copy of a folder may take as long as any command may.
const COPY_SECONDS_MAX: u32 = 7 * 24 * 3600;
const COPY_OPTIONS: [&str; 4] = ["cp", "-a", "--reflink=auto", "--"];

/// What is known of applications without being asked of them. Of those of an earlier process nothing is.
#[derive(Default)]
pub(super) struct Known {
    /// The runners of commands, by state folder: each ends what an earlier process left in its own.
    runners: Mutex<HashMap<PathBuf, Arc<Runner>>>,
    /// Whether it was started or stopped last, by state folder.
    running: Mutex<HashMap<PathBuf, bool>>,
}

/// Whether an application runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Running,
    Stopped,
    /// Nobody told, or the status command gave no answer, which says why.
    Unknown(Option<String>),
}

/// An instance with its configuration read.
pub(super) struct Application<'a> {
    pub instance: &'a Instance,
    pub config: Config,
    known: &'a Known,
    clock: &'a dyn Clock,
    runner: Arc<Runner>,
}

impl Known {
    /// The runner of a dataset's commands, made with `make` at the first time.
    pub(super) fn runner(
        &self,
        instance: &Instance,
        make: impl FnOnce(PathBuf) -> Result<Runner>,
    ) -> Result<Arc<Runner>> {
        let mut runners = self.runners.lock();
        if let Some(runner) = runners.get(&instance.state) {
            return Ok(Arc::clone(runner));
        }
        make_folder(&instance.state, 0o711)?;
        let runner = Arc::new(make(instance.state.join(SCRATCH))?);
        runners.insert(instance.state.clone(), Arc::clone(&runner));
        Ok(runner)
    }
}

impl<'a> Application<'a> {
    pub(super) fn new(
        instance: &'a Instance,
        config: Config,
        known: &'a Known,
        clock: &'a dyn Clock,
        runner: Arc<Runner>,
    ) -> Self {
        Self { instance, config, known, clock, runner }
    }

    /// Gives volume and run folder to the application's user.
    pub(super) fn make_folders(&self) -> Result<()> {
        let user = OsUser::named(&self.config.user)?;
        let run = run_folder(self.instance);
        make_folder(&run, 0o700)?;
        user.own(&run)
    }

    /// The volume's own folder, which is empty and root's, becomes the user's.
    pub(super) fn give_volume(&self) -> Result<()> {
        let volume = &self.instance.volume;
        std::fs::set_permissions(volume, std::fs::Permissions::from_mode(0o750))
            .map_err(|e| Error::io("restrict", &volume.display().to_string(), e))?;
        OsUser::named(&self.config.user)?.own(volume)
    }

    /// Copies a folder's content into another one, as the application's user: nothing gets there that it may not read, and
    /// no link of its own leads any further.
    pub(super) fn copy(&self, from: &Path, to: &Path, task: &mut dyn Task) -> Result<()> {
        task.step("copy the files")?;
        let paths = [from.join("."), to.to_owned()];
        let paths = paths.iter().map(|path| path.display().to_string());
        let words = COPY_OPTIONS.iter().map(|word| (*word).to_owned()).chain(paths).collect();
        let hook = self.config.hook_of(Word::Configure, Program::Command(words), COPY_SECONDS_MAX);
        self.watch(Hook { name: "copy".into(), ..hook }, task)
    }

    /// Copies a snapshot's files to a new folder.
    pub(super) fn export(&self, from: &Path, to: &Path, task: &mut dyn Task) -> Result<()> {
        let shown = to.display().to_string();
        let is_empty = || std::fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_none());
        match std::fs::create_dir(to) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && is_empty() => {}
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                let text = format!("{shown} is there and not empty: name a new folder");
                return Err(Error::new(ErrorKind::Exists, text));
            }
            made => made.map_err(|e| Error::io("create", &shown, e))?,
        }
        OsUser::named(&self.config.user)?.own(to)?;
        self.copy(from, to, task)?;
        // All of it at once: one file system.
        let folder = std::fs::File::open(to).map_err(|e| Error::io("open", &shown, e))?;
        rustix::fs::syncfs(&folder).map_err(|e| Error::io("sync", &shown, e.into()))
    }

    /// Runs a command, if there is one, with its output in the job's log; ends it when the job is cancelled.
    pub(super) fn run(&self, word: Word, task: &mut dyn Task) -> Result<()> {
        match self.config.hook(word) {
            Some(hook) => self.watch(hook, task),
            None => Ok(()),
        }
    }

    fn watch(&self, hook: Hook, task: &mut dyn Task) -> Result<()> {
        let cancel = AtomicBool::new(false);
        let (sender, lines) = unbounded::<String>();
        let name = hook.name.clone();
        let (runner, seen, variables) = (&self.runner, &cancel, variables(self.instance, &self.config));
        std::thread::scope(|scope| {
            let running = scope.spawn(move || {
                let mut sink = |line: &str| {
                    // Somebody listens as long as this runs.
                    let _ = sender.send(line.to_owned());
                };
                runner.run(&hook, &variables, &Secrets::default(), &mut sink, seen)
            });
            loop {
                match lines.recv_timeout(POLL) {
                    Ok(line) => task.log(&format!("{name}: {line}")),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
                if task.check().is_err() {
                    cancel.store(true, Ordering::Relaxed);
                }
            }
            running
                .join()
                .unwrap_or_else(|_| Err(Error::new(ErrorKind::Io, "the thread that ran it failed")))
                .map(drop)
                .map_err(|e| e.context(&self.instance.name))
        })
    }

    /// Runs a command to its end whatever happens; its output goes into the program's log.
    pub(super) fn run_alone(&self, word: Word) -> Result<()> {
        let Some(hook) = self.config.hook(word) else { return Ok(()) };
        let name = &self.instance.name;
        let mut sink = |line: &str| tracing::info!("{} of {name}: {line}", word.name());
        self.run_hook(&hook, &mut sink)
    }

    fn run_hook(&self, hook: &Hook, sink: &mut dyn FnMut(&str)) -> Result<()> {
        let variables = variables(self.instance, &self.config);
        self.runner
            .run(hook, &variables, &Secrets::default(), sink, &AtomicBool::new(false))
            .map(drop)
            .map_err(|e| e.context(&self.instance.name))
    }

    /// Whether the application runs: what its status command says, or else what was last done with it.
    pub(super) fn seen(&self) -> Seen {
        let Some(hook) = self.config.hook(Word::Status) else {
            return match self.known.running.lock().get(&self.instance.state) {
                Some(true) => Seen::Running,
                Some(false) => Seen::Stopped,
                None => Seen::Unknown(None),
            };
        };
        let hook = Hook { time_limit_seconds: hook.time_limit_seconds.min(STATUS_SECONDS_MAX), ..hook };
        let limit = Duration::from_secs(u64::from(hook.time_limit_seconds));
        let start = self.clock.monotonic();
        match self.run_hook(&hook, &mut |_| {}) {
            Ok(()) => Seen::Running,
            // A status other than 0 is an answer; a time limit is none.
            Err(e)
                if e.kind() == ErrorKind::Failed && self.clock.monotonic().saturating_sub(start) < limit =>
            {
                Seen::Stopped
            }
            Err(e) => Seen::Unknown(Some(e.message().to_owned())),
        }
    }

    /// Whether the engine starts and stops it.
    pub(super) fn is_managed(&self) -> bool {
        self.config.commands.start.is_some()
    }

    /// Starts it, if that is the engine's to do and it does not run, and waits until its status command says so.
    pub(super) fn start(&self, task: &mut dyn Task) -> Result<()> {
        self.make_folders()?;
        if !self.is_managed() {
            return Ok(());
        }
        if self.seen() != Seen::Running {
            self.run(Word::Start, task)?;
            // From here on it is to be stopped, also when it never answers.
            self.known.running.lock().insert(self.instance.state.clone(), true);
            self.wait_until_running(task)?;
        }
        self.known.running.lock().insert(self.instance.state.clone(), true);
        Ok(())
    }

    fn wait_until_running(&self, task: &mut dyn Task) -> Result<()> {
        let limit = Duration::from_secs(u64::from(self.config.time_limit_seconds));
        let start = self.clock.monotonic();
        while self.seen() != Seen::Running {
            task.check()?;
            if self.clock.monotonic().saturating_sub(start) >= limit {
                return Err(Error::new(
                    ErrorKind::Failed,
                    format!(
                        "{}: the start command ended well, but {} s later the status command does not say that the \
                         application runs",
                        self.instance.name,
                        limit.as_secs()
                    ),
                ));
            }
            self.clock.sleep(POLL);
        }
        Ok(())
    }

    /// Stops it, if the engine started it, and ends what it left running. No error when it does not run.
    pub(super) fn stop(&self, task: &mut dyn Task) -> Result<()> {
        if !self.is_managed() {
            return Ok(());
        }
        let seen = self.seen();
        let asked = match seen {
            Seen::Stopped => Ok(()),
            _ => self.make_folders().and_then(|()| self.run(Word::Stop, task)),
        };
        let ended = self.end_rest(asked.is_ok())?;
        if ended > 0 {
            task.warn(&format!(
                "{ended} processes of {} did not stop and were ended by force",
                self.instance.name
            ));
        }
        match asked {
            // It was never started by this process, and perhaps does not run at all.
            Err(e) if ended > 0 || seen == Seen::Unknown(None) => {
                task.log(&format!("the stop command failed: {e}"));
            }
            asked => asked?,
        }
        self.known.running.lock().insert(self.instance.state.clone(), false);
        Ok(())
    }

    /// Ends what still runs of it, at once or when its time is over; how many there were.
    fn end_rest(&self, patiently: bool) -> Result<usize> {
        let run = run_folder(self.instance);
        // What the command only asked to end may take a moment; after a failed one nothing more is to come.
        let limit = match patiently {
            true => Duration::from_secs(u64::from(self.config.time_limit_seconds)),
            false => Duration::ZERO,
        };
        if processes::wait(Of::Dataset(&run), limit, self.clock)? {
            return Ok(0);
        }
        Ok(processes::end(Of::Dataset(&run), self.clock)?.len())
    }
}

/// Makes a folder in one of root's; it is no error when it is there.
fn make_folder(path: &Path, mode: u32) -> Result<()> {
    match std::fs::DirBuilder::new().mode(mode).create(path) {
        // Afterwards, for a mode given at once would be less the umask.
        Ok(()) => std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
    }
    .map_err(|e| Error::io("create", &path.display().to_string(), e))
}
