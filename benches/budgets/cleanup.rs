//! What was started, mounted or made, so that it ends with the program however that ends: by return, by error,
//! by panic or by a signal. Only SIGKILL leaves things behind.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// How long a server may take to stop by itself.
const STOP_WAIT: Duration = Duration::from_secs(60);
const KILL_WAIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

/// How to undo one step.
#[derive(Clone, Debug)]
pub enum Undo {
    /// Ends a child of this process: asks with SIGINT, which PostgreSQL takes as a fast shutdown, then insists.
    EndProcess(u32),
    Unmount(PathBuf),
    Run(Vec<String>),
    RemoveFolder(PathBuf),
}

/// The steps to undo, last first.
#[derive(Default)]
pub struct Cleanup {
    steps: Mutex<Vec<(u64, Undo)>>,
    next: AtomicU64,
    /// A signal came: from then on only the thread that handles it undoes, and ends the program.
    interrupted: AtomicBool,
    /// Held while a step is undone.
    undoing: Mutex<()>,
}

/// Undoes its step when dropped.
pub struct Guard {
    cleanup: Arc<Cleanup>,
    id: u64,
}

impl Cleanup {
    /// A new list, which is also worked off when the user ends the program.
    pub fn new() -> anyhow::Result<Arc<Self>> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let cleanup = Arc::new(Self::default());
        let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM])?;
        let on_signal = Arc::clone(&cleanup);
        std::thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                eprintln!("budgets: signal {signal}: cleaning up");
                on_signal.interrupted.store(true, Ordering::SeqCst);
                let _undoing = on_signal.undoing.lock();
                on_signal.run();
                std::process::exit(128 + signal);
            }
        });
        Ok(cleanup)
    }

    #[must_use]
    pub fn add(self: &Arc<Self>, undo: Undo) -> Guard {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.steps.lock().push((id, undo));
        Guard { cleanup: Arc::clone(self), id }
    }

    fn take(&self, id: u64) -> Option<Undo> {
        let mut steps = self.steps.lock();
        let position = steps.iter().position(|(step, _)| *step == id)?;
        Some(steps.remove(position).1)
    }

    /// Undoes everything that is left.
    fn run(&self) {
        loop {
            // The lock is not held while undoing, as another thread may still add steps.
            let step = self.steps.lock().pop();
            match step {
                Some((_, undo)) => undo.perform(),
                None => return,
            }
        }
    }

    /// Returns only when no signal came; else the thread that handles it ends the program.
    pub fn wait_if_interrupted(&self) {
        while self.interrupted.load(Ordering::SeqCst) {
            std::thread::park();
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.cleanup.wait_if_interrupted();
        let _undoing = self.cleanup.undoing.lock();
        if let Some(undo) = self.cleanup.take(self.id) {
            undo.perform();
        }
    }
}

impl Undo {
    fn perform(self) {
        match self {
            Self::EndProcess(pid) => end_process(pid),
            Self::Unmount(directory) => unmount(&directory),
            Self::Run(words) => {
                let done = Command::new(&words[0]).args(&words[1..]).stdout(Stdio::null()).status();
                if !done.is_ok_and(|status| status.success()) {
                    eprintln!("budgets: `{}` failed", words.join(" "));
                }
            }
            Self::RemoveFolder(folder) => {
                if let Err(error) = std::fs::remove_dir_all(&folder) {
                    eprintln!("budgets: cannot remove {}: {error}", folder.display());
                }
            }
        }
    }
}

/// Ends a child of this process and waits for it.
pub fn end_process(pid: u32) {
    for (signal, patience) in [(Signal::INT, STOP_WAIT), (Signal::QUIT, KILL_WAIT), (Signal::KILL, KILL_WAIT)]
    {
        if !alive(pid) {
            return;
        }
        send(pid, signal);
        let mut waited = Duration::ZERO;
        while alive(pid) && waited < patience {
            std::thread::sleep(POLL);
            waited += POLL;
        }
    }
}

/// Ends a child at once, as a crash would, and waits for it.
pub fn kill(pid: u32) {
    send(pid, Signal::KILL);
    while alive(pid) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn send(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
        // It may have ended by itself.
        let _ = kill_process(pid, signal);
    }
}

/// Whether a child of this process still runs; one that ended is reaped, and its number free from then on.
pub fn alive(pid: u32) -> bool {
    Pid::from_raw(pid.cast_signed())
        .is_some_and(|pid| matches!(waitpid(Some(pid), WaitOptions::NOHANG), Ok(None)))
}

/// Unmounts, lazily if it is in use.
pub fn unmount(directory: &Path) {
    use rustix::mount::UnmountFlags;
    for _ in 0..50 {
        match rustix::mount::unmount(directory, UnmountFlags::empty()) {
            Err(rustix::io::Errno::BUSY) => std::thread::sleep(POLL * 10),
            // Done, or not mounted any more.
            _ => return,
        }
    }
    let _ = rustix::mount::unmount(directory, UnmountFlags::DETACH);
}
