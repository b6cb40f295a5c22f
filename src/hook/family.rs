//! The processes of a run, found among all of the host.
//!
//! They are found in two ways: by the process group, and by the run's name in their environment, which a process that
//! has left the group still has. Must not know when they are to end.

use std::collections::HashSet;
use std::fs;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The variable that names the run in the environment of everything the hook starts.
pub(super) const MARKER: &str = "STILLPOINT_HOOK_RUN";

/// Which processes of a run are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Group,
    /// With those that left the group.
    All,
}

/// How the processes of one run are told from others.
pub(super) struct Family {
    group: Option<i32>,
    marker: Vec<u8>,
    signalled: HashSet<i32>,
}

impl Family {
    /// Of the group that this process leads, while it has not been reaped, and of the run of this name.
    pub(super) fn new(leader: Option<Pid>, run: &str) -> Self {
        let group = leader.map(|leader| leader.as_raw_nonzero().get());
        Self { group, marker: format!("{MARKER}={run}").into_bytes(), signalled: HashSet::new() }
    }

    pub(super) fn alive(&self, scope: Scope) -> bool {
        !self.processes(scope).is_empty()
    }

    /// Sends a signal to each, TERM only once.
    pub(super) fn signal(&mut self, scope: Scope, signal: Signal) {
        for process in self.processes(scope) {
            if signal == Signal::TERM && !self.signalled.insert(process.pid) {
                continue;
            }
            let Some(pid) = Pid::from_raw(process.pid) else { continue };
            // The number may have passed to a stranger since: hold the process, then look again.
            let Ok(held) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
            if Process::read(process.pid).is_some_and(|found| self.has(&found, scope)) {
                let _ = pidfd_send_signal(&held, signal);
            }
        }
    }

    fn processes(&self, scope: Scope) -> Vec<Process> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter_map(Process::read).filter(|process| self.has(process, scope)).collect()
    }

    fn has(&self, process: &Process, scope: Scope) -> bool {
        self.group == Some(process.group) || (scope == Scope::All && process.has(&self.marker))
    }
}

/// A process that is alive.
struct Process {
    pid: i32,
    group: i32,
}

impl Process {
    /// `pid (name) state parent group …`, where the name may hold anything.
    fn read(pid: i32) -> Option<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
        let rest = String::from_utf8_lossy(&stat[after_name..]);
        let mut fields = rest.split_ascii_whitespace();
        if ["Z", "X"].contains(&fields.next()?) {
            return None;
        }
        Some(Self { pid, group: fields.nth(1)?.parse().ok()? })
    }

    fn has(&self, variable: &[u8]) -> bool {
        let environment = fs::read(format!("/proc/{}/environ", self.pid)).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|found| found == variable)
    }
}
