//! The processes that an application's commands started, found by the variable that all of them were given.
//!
//! Not found are those that dropped it or wrote over it, and those that another service started for them.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::config::RUN_VARIABLE;
use crate::base::{Clock, Error, ErrorKind, Result};

const LOOK: Duration = Duration::from_millis(20);
/// A killed process may wait for a disk.
const KILL_TIME_MAX: Duration = Duration::from_secs(60);

/// A process, held by more than its number.
pub(super) struct Started {
    pub pid: i32,
    handle: OwnedFd,
}

/// Which processes are meant.
#[derive(Clone, Copy, Debug)]
pub(super) enum Of<'a> {
    /// One dataset's, by its folder.
    Dataset(&'a Path),
    /// Those of every dataset below a state folder, but for the datasets with these folders.
    All(&'a Path, &'a [PathBuf]),
}

impl Of<'_> {
    fn has(self, environment: &[u8]) -> bool {
        let value = |entry: &[u8]| {
            let rest = entry.strip_prefix(RUN_VARIABLE.as_bytes())?.strip_prefix(b"=")?;
            Some(rest.to_vec())
        };
        let mut folders = environment.split(|byte| *byte == 0).filter_map(value);
        match self {
            Self::Dataset(folder) => folders.any(|found| found == folder.as_os_str().as_encoded_bytes()),
            Self::All(state, kept) => folders.any(|found| {
                let is_below = |folder: &Path| {
                    let rest = found.strip_prefix(folder.as_os_str().as_encoded_bytes());
                    rest.is_some_and(|rest| rest.starts_with(b"/"))
                };
                is_below(state) && !kept.iter().any(|folder| is_below(folder))
            }),
        }
    }
}

/// The processes that run now.
pub(super) fn started(of: Of<'_>) -> Result<Vec<Started>> {
    let entries = std::fs::read_dir("/proc").map_err(|e| Error::io("read", "/proc", e))?;
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let found = numbers.filter_map(|number| {
        let pid = Pid::from_raw(number).filter(|pid| *pid != rustix::process::getpid())?;
        let handle = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Read after it was opened, so that both are of one process.
        let environment = std::fs::read(format!("/proc/{number}/environ")).ok()?;
        of.has(&environment).then_some(Started { pid: number, handle })
    });
    Ok(found.collect())
}

/// Waits until none is left; false when the time is over.
pub(super) fn wait(of: Of<'_>, limit: Duration, clock: &dyn Clock) -> Result<bool> {
    let start = clock.monotonic();
    loop {
        if started(of)?.is_empty() {
            return Ok(true);
        }
        if clock.monotonic().saturating_sub(start) >= limit {
            return Ok(false);
        }
        clock.sleep(LOOK);
    }
}

/// Ends all of them at once and waits for it; their numbers.
pub(super) fn end(of: Of<'_>, clock: &dyn Clock) -> Result<Vec<u32>> {
    let start = clock.monotonic();
    let mut ended = Vec::new();
    loop {
        let left = started(of)?;
        let Some(first) = left.first() else { return Ok(ended) };
        if clock.monotonic().saturating_sub(start) >= KILL_TIME_MAX {
            return Err(Error::new(ErrorKind::InUse, format!("process {} does not end", first.pid)));
        }
        for process in &left {
            // It may have ended meanwhile, which is what is wanted.
            let _ = pidfd_send_signal(&process.handle, Signal::KILL);
            let number = process.pid.unsigned_abs();
            if !ended.contains(&number) {
                ended.push(number);
            }
        }
        clock.sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::base::SystemClock;

    fn sleeper(run: &Path) -> Child {
        Command::new("sleep").arg("1000").env(RUN_VARIABLE, run).stdin(Stdio::null()).spawn().unwrap()
    }

    #[test]
    fn processes_are_found_by_their_dataset_and_ended() {
        let state = tempfile::tempdir().unwrap();
        let folder = |name: &str| state.path().join("instances").join(name).join("run");
        let (mut one, mut ten) = (sleeper(&folder("1")), sleeper(&folder("10")));
        // The child has the variable only once it has become the other program.
        let both = || started(Of::All(state.path(), &[])).unwrap().len() == 2;
        while !both() {
            SystemClock.sleep(LOOK);
        }
        let number = |child: &Child| child.id();
        assert_eq!(end(Of::Dataset(&folder("1")), &SystemClock).unwrap(), [number(&one)]);
        one.wait().unwrap();
        let kept = [state.path().join("instances").join("10")];
        assert!(started(Of::All(state.path(), &kept)).unwrap().is_empty());
        assert!(!wait(Of::All(state.path(), &[]), Duration::ZERO, &SystemClock).unwrap());
        assert!(wait(Of::Dataset(&folder("1")), Duration::ZERO, &SystemClock).unwrap());
        // A folder that only begins like another is another.
        let other = format!("{}-other", state.path().display());
        assert!(started(Of::All(Path::new(&other), &[])).unwrap().is_empty());
        assert_eq!(end(Of::All(state.path(), &[]), &SystemClock).unwrap(), [number(&ten)]);
        ten.wait().unwrap();
    }
}
