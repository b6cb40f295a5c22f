//! A started hook: its output and its end.
//!
//! The group's leader is not reaped before the group is gone, so that the group's number cannot become another's. Must
//! not know why a run ends, nor how long it may.

use std::io::{PipeReader, Read};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid,
};

use super::family::{Family, Scope};

/// Reads before others get their turn, so that one who prints without end does not keep the clock from being looked at.
const READS_MAX: usize = 16;
const READ_BYTES: usize = 64 << 10;

/// A leader, its group and the pipe they write to.
pub(super) struct Running {
    child: Child,
    leader: Pid,
    /// Readable when the leader has ended; it is not reaped by that.
    ended: OwnedFd,
    output: Option<PipeReader>,
    family: Family,
    reaped: bool,
}

impl Running {
    /// Starts the command with its output into one pipe.
    pub(super) fn start(mut command: Command, run: &str) -> std::io::Result<Self> {
        let (reader, writer) = std::io::pipe()?;
        command.stdout(writer.try_clone()?).stderr(writer);
        let mut child = command.spawn()?;
        // The command holds this side's copies of the pipe's end: with them the pipe would never end.
        drop(command);
        let leader = Pid::from_child(&child);
        let ended = match pidfd_open(leader, PidfdFlags::empty()) {
            Ok(ended) => ended,
            Err(error) => {
                let _ = kill_process_group(leader, Signal::KILL);
                let _ = child.wait();
                return Err(error.into());
            }
        };
        Ok(Self {
            child,
            leader,
            ended,
            output: Some(reader),
            family: Family::new(Some(leader), run),
            reaped: false,
        })
    }

    /// Waits for output or the leader's end, `patience` at most, and hands on what there is to read.
    pub(super) fn pump(&mut self, patience: Duration, take: &mut dyn FnMut(&[u8])) {
        let leader_ended = self.leader_ended();
        let mut wait = patience;
        for _ in 0..READS_MAX {
            let Some(output) = &mut self.output else {
                // Nothing to read any more; an ended leader would make a wait for it return at once.
                self.wait_for_end(wait, leader_ended);
                return;
            };
            let mut fds = vec![PollFd::new(output, PollFlags::IN)];
            if !leader_ended {
                fds.push(PollFd::new(&self.ended, PollFlags::IN));
            }
            if poll(&mut fds, Some(&timespec(wait))).is_err() || fds[0].revents().is_empty() {
                return;
            }
            drop(fds);
            let mut bytes = vec![0; READ_BYTES];
            match output.read(&mut bytes) {
                Ok(0) => self.output = None,
                Ok(count) => take(&bytes[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => self.output = None,
            }
            wait = Duration::ZERO;
        }
    }

    fn wait_for_end(&self, patience: Duration, leader_ended: bool) {
        let mut fds = Vec::new();
        if !leader_ended {
            fds.push(PollFd::new(&self.ended, PollFlags::IN));
        }
        let _ = poll(&mut fds, Some(&timespec(patience)));
    }

    /// Whether nobody can write to the pipe any more.
    pub(super) fn output_ended(&self) -> bool {
        self.output.is_none()
    }

    pub(super) fn leader_ended(&self) -> bool {
        let mut fds = [PollFd::new(&self.ended, PollFlags::IN)];
        poll(&mut fds, Some(&timespec(Duration::ZERO))).is_ok_and(|ready| ready > 0)
    }

    /// Whether the leader has ended with status 0. It stays to be reaped.
    pub(super) fn leader_succeeded(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(self.leader), look)
            .ok()
            .flatten()
            .is_some_and(|status| status.exit_status() == Some(0))
    }

    /// Whether a process of the run is alive.
    pub(super) fn alive(&self, scope: Scope) -> bool {
        self.family.alive(scope)
    }

    /// Sends a signal to every process of the run, TERM once to each.
    pub(super) fn signal(&mut self, scope: Scope, signal: Signal) {
        self.family.signal(scope, signal);
        if signal == Signal::KILL {
            // At once, so that nobody can multiply faster than they are gone through.
            let _ = kill_process_group(self.leader, signal);
        }
    }

    /// The leader's status; `None` while it has not ended.
    pub(super) fn reap(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().ok().flatten();
        self.reaped = status.is_some();
        status
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.reaped {
            self.signal(Scope::All, Signal::KILL);
            let _ = self.child.try_wait();
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
