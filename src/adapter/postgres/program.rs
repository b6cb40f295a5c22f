//! Running PostgreSQL's programs as the environment's user, with an end when the job is cancelled, and with what
//! they said when they fail.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use rustix::process::{Pid, Signal};

use super::super::Task;
use crate::base::{Error, ErrorKind, OsUser, Result};

/// How often a silent program's job is asked whether it goes on.
const POLL: Duration = Duration::from_millis(100);
/// How much of what a failed program said its error repeats.
const SHOWN_BYTES_MAX: usize = 2000;
/// A line is cut here, whatever a program prints.
const LINE_BYTES_MAX: usize = 8192;

/// One installation's programs, as one user.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    pub folder: PathBuf,
    pub user: OsUser,
}

impl Programs {
    pub(super) fn has(&self, program: &str) -> bool {
        self.folder.join(program).exists()
    }

    pub(super) fn command(&self, program: &str) -> Command {
        self.user.command(&self.folder.join(program))
    }
}

/// How a program ended, and what it said.
pub(super) struct Ended {
    pub status: ExitStatus,
    /// All of stdout.
    pub said: String,
    /// The end of stderr.
    pub heard: String,
}

/// Runs a program to its end and returns what it said on stdout; an error when it fails. Each line on stderr goes to
/// `line`.
pub(super) fn run(
    command: &mut Command,
    task: &mut dyn Task,
    line: &mut dyn FnMut(&str, &mut dyn Task),
) -> Result<String> {
    let ended = run_to_end(command, task, line)?;
    if ended.status.success() {
        return Ok(ended.said);
    }
    let (name, status) = (name_of(command), ended.status);
    Err(Error::new(ErrorKind::Io, format!("{name} failed ({status}); it said:\n{}", end_of(&ended.heard))))
}

/// The same for a program whose status means something.
pub(super) fn run_to_end(
    command: &mut Command,
    task: &mut dyn Task,
    line: &mut dyn FnMut(&str, &mut dyn Task),
) -> Result<Ended> {
    let name = name_of(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|e| Error::io("start", &name, e))?;
    let (sender, lines) = unbounded();
    let errors = child.stderr.take().map(|stream| read_lines(stream, sender));
    let output = child.stdout.take().map(|mut stream| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            // What was read up to an error is what there is to show.
            let _ = stream.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    });
    let followed = follow(&lines, task, line);
    if followed.is_err() {
        end_group(&mut child);
    }
    let status = child.wait().map_err(|e| Error::io("wait for", &name, e))?;
    join(errors);
    let said = output.and_then(|thread| thread.join().ok()).unwrap_or_default();
    Ok(Ended { status, said, heard: followed? })
}

/// Passes lines on until the program closes its stderr; keeps the last ones for an error.
fn follow(
    lines: &Receiver<String>,
    task: &mut dyn Task,
    line: &mut dyn FnMut(&str, &mut dyn Task),
) -> Result<String> {
    let mut heard = String::new();
    loop {
        match lines.recv_timeout(POLL) {
            Ok(text) => {
                line(&text, task);
                if heard.len() > 2 * SHOWN_BYTES_MAX {
                    heard = end_of(&heard).to_owned();
                }
                heard.push_str(&text);
                heard.push('\n');
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(heard),
        }
        task.check()?;
    }
}

/// Lines end with a line feed, or with the carriage return of a progress display.
fn read_lines(mut stream: impl Read + Send + 'static, sender: Sender<String>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        let mut line = Vec::new();
        while let Ok(count) = stream.read(&mut buffer) {
            if count == 0 {
                break;
            }
            for byte in &buffer[..count] {
                if matches!(byte, b'\n' | b'\r') {
                    send(&sender, &mut line);
                } else if line.len() < LINE_BYTES_MAX {
                    line.push(*byte);
                }
            }
        }
        send(&sender, &mut line);
    })
}

fn send(sender: &Sender<String>, line: &mut Vec<u8>) {
    if !line.is_empty() {
        // Nobody listens any more once the job has failed.
        let _ = sender.send(String::from_utf8_lossy(line).into_owned());
        line.clear();
    }
}

fn join(thread: Option<JoinHandle<()>>) {
    if thread.is_some_and(|thread| thread.join().is_err()) {
        tracing::error!("a thread that read a program's output had failed");
    }
}

/// Ends a program and what it started: they share a process group.
fn end_group(child: &mut Child) {
    let running = matches!(child.try_wait(), Ok(None));
    if running && let Err(e) = rustix::process::kill_process_group(Pid::from_child(child), Signal::TERM) {
        tracing::warn!("cannot end process group {}: {e}", child.id());
    }
}

fn name_of(command: &Command) -> String {
    let program = Path::new(command.get_program());
    program.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The end of a text, for an error message.
pub(super) fn end_of(text: &str) -> &str {
    let mut start = text.len().saturating_sub(SHOWN_BYTES_MAX);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].trim_end()
}
