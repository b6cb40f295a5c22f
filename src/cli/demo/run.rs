//! Running programs for the demo: as PostgreSQL's user, with an end on Ctrl-C, and with what they said when they
//! fail.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::super::exit::{Failure, Result};
use super::super::signals::Interrupted;
use crate::adapter::postgres::Installation;
use crate::base::{Error, ErrorKind, OsUser};

/// How often a running program is looked at.
const POLL: Duration = Duration::from_millis(10);
/// How much of a failed program's log is shown.
const SHOWN_BYTES_MAX: usize = 2000;

/// What the demo's programs share.
pub(super) struct Programs {
    pub installation: Installation,
    pub user: OsUser,
    /// Sockets and logs; only PostgreSQL's user (and root) may enter.
    pub folder: PathBuf,
    pub interrupted: Interrupted,
}

impl Programs {
    /// A command that runs one of PostgreSQL's programs as its user.
    pub(super) fn command(&self, program: &str) -> Command {
        self.user.command(&self.installation.programs.join(program))
    }

    /// Starts a program whose output goes to `LOG.log`. It has a process group of its own, so that Ctrl-C reaches
    /// this process alone, which then ends it in order.
    pub(super) fn spawn(&self, command: &mut Command, log: &str) -> Result<Child> {
        let path = self.log(log);
        let shown = path.display().to_string();
        let output = File::create(&path).map_err(|e| Error::io("create", &shown, e))?;
        let errors = output.try_clone().map_err(|e| Error::io("duplicate", &shown, e))?;
        let program = command.get_program().to_string_lossy().into_owned();
        Ok(command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(|e| Error::io("start", &program, e))?)
    }

    /// Runs a program to its end and returns what it said.
    pub(super) fn run(&self, command: &mut Command, log: &str) -> Result<String> {
        let mut child = self.spawn(command, log)?;
        let succeeded = loop {
            if let Some(status) = child.try_wait().map_err(|e| Error::io("wait for", log, e))? {
                break status.success();
            }
            if let Err(interrupted) = self.interrupted.check() {
                end(&mut child, Signal::TERM);
                return Err(interrupted);
            }
            thread::sleep(POLL);
        };
        let said = self.said(log);
        if succeeded { Ok(said) } else { Err(self.failed(log)) }
    }

    /// The failure of a program, with the end of its log.
    pub(super) fn failed(&self, log: &str) -> Failure {
        let said = self.said(log);
        let mut start = said.len().saturating_sub(SHOWN_BYTES_MAX);
        while !said.is_char_boundary(start) {
            start += 1;
        }
        Failure::new(ErrorKind::Io, format!("{log} failed; it said:\n{}", said[start..].trim_end()))
            .hint("see what `stillpoint doctor` finds")
    }

    fn said(&self, log: &str) -> String {
        std::fs::read(self.log(log))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    /// Gives a file or folder to PostgreSQL's user.
    pub(super) fn give(&self, path: &Path) -> Result<()> {
        Ok(std::os::unix::fs::chown(path, Some(self.user.uid), Some(self.user.gid))
            .map_err(|e| Error::io("change the owner of", &path.display().to_string(), e))?)
    }
}

/// Sends a signal to a child of ours, which as such cannot have been replaced by a stranger, and waits for its end.
pub(super) fn end(child: &mut Child, signal: Signal) {
    let running = matches!(child.try_wait(), Ok(None));
    if running && rustix::process::kill_process(Pid::from_child(child), signal).is_ok() {
        // It ended, or it is not ours to wait for; either way nothing is left to do.
        let _ = child.wait();
    }
}

/// Waits one interval; fails on Ctrl-C.
pub(super) fn pause(interrupted: &Interrupted) -> Result<()> {
    interrupted.check()?;
    thread::sleep(POLL);
    Ok(())
}
