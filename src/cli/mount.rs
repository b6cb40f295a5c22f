//! `stillpoint mount`: the process that shows a store's volumes as folders.
//!
//! Without `--foreground` this program runs itself again with it, in a session of its own, and returns when that
//! process has said that the mount answers, or why it does not.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::context::{Context, environment};
use super::exit::{Failure, Outcome, Result};
use super::mountinfo::resolve;
use super::names::parse_name;
use super::output::{Show, Table};
use super::signals::ending_signals;
use super::volume::unexpected;
use crate::base::{Error, ErrorKind, RealStorage};
use crate::control::{
    Client, Holder, Host, HostOptions, MOUNT_SOCKET_NAME, Message, Operations, Reply, Request, SOCKET_NAME,
    Server, told_error,
};
use crate::volume::Store;

/// What the mounting process said, in the store's directory.
const LOG_NAME: &str = "daemon.log";
/// How much of it is shown when that process ended without a word.
const LOG_LINES_SHOWN: usize = 5;

#[derive(Args)]
pub(super) struct Arguments {
    /// The store's directory
    #[arg(value_name = "STORE")]
    store_directory: PathBuf,
    /// Where to mount it
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    #[command(flatten)]
    options: Options,
    /// Stay in the foreground until it is unmounted
    #[arg(long)]
    foreground: bool,
    /// Say on stdout when the mount answers, then leave the caller's session
    #[arg(long, hide = true, requires = "foreground")]
    announce: bool,
    /// Mount this volume alone
    #[arg(long, hide = true, value_parser = parse_name)]
    only: Option<String>,
    /// Mount for a daemon that may end before this process does
    #[arg(long, hide = true, requires = "foreground")]
    for_daemon: bool,
}

/// How to mount.
#[derive(Args, Clone, Copy, Default)]
pub(super) struct Options {
    /// Whether the kernel keeps written pages until fsync or pressure, or sends each write at once
    #[arg(long, value_enum, default_value_t)]
    cache: Cache,
    /// Open the store for reading only
    #[arg(long)]
    read_only: bool,
    /// Show what can be read of a damaged store, read-only; the log says what is missing
    #[arg(long)]
    rescue: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Cache {
    #[default]
    Writeback,
    Writethrough,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<Outcome> {
    let (store, directory) = (&arguments.store_directory, &arguments.directory);
    if arguments.foreground {
        let result = serve(arguments);
        if let (true, Err(failure)) = (arguments.announce, &result) {
            announce(&failure.message())?;
        }
        return result.map(|()| Outcome::Done);
    }
    let shown = start_daemon(store, directory, None, &arguments.options)?;
    context.output.show(&shown)?;
    Ok(Outcome::Done)
}

/// Mounts one volume alone: by the process that mounts the store, or by one of its own.
pub(super) fn mount_volume(
    context: &Context,
    name: String,
    directory: &Path,
    options: &Options,
) -> Result<Outcome> {
    let store = context.store()?;
    let shown = match Client::connect(store)? {
        Some(client) => {
            let directory = resolve(directory)?;
            let request = Request::VolumeMount { name: name.clone(), directory };
            let Reply::Mounted(row) = client.perform(&request, &mut |_| {})? else {
                return Err(unexpected());
            };
            MountView { store: store.to_owned(), directory: row.directory, volume: Some(name), missing: None }
        }
        None => start_daemon(store, directory, Some(&name), options)?,
    };
    context.output.show(&shown)?;
    Ok(Outcome::Done)
}

/// Starts the mounting process and waits until the mount answers.
pub(super) fn start_daemon(
    store: &Path,
    directory: &Path,
    volume: Option<&str>,
    options: &Options,
) -> Result<MountView> {
    let shown = store.display().to_string();
    let store = store.canonicalize().map_err(|e| Error::io("open the store", &shown, e))?;
    let directory = resolve(directory)?;
    if let Some(client) = Client::connect(&store)? {
        return Err(Failure::new(
            ErrorKind::InUse,
            format!("the store {shown} is mounted already, by process {}", client.peer().as_raw_nonzero()),
        )
        .hint(
            "see where with `stillpoint status`; a volume alone is mounted with `stillpoint volume mount`",
        ));
    }
    if !Store::exists(&RealStorage::open(&store)?) {
        return Err(Failure::new(ErrorKind::NotFound, format!("{shown} is no store"))
            .hint("make one with `stillpoint init`"));
    }
    launch(&store, daemon_command(&store, &directory, volume, options))?;
    let missing = options.rescue.then(|| store.join(LOG_NAME));
    Ok(MountView { store, directory, volume: volume.map(str::to_owned), missing })
}

/// Starts the process that mounts a store for its daemon, and goes on without it.
pub(super) fn mount_apart(store: &Path, directory: &Path) -> Result<()> {
    let mut command = daemon_command(store, directory, None, &Options::default());
    command.arg("--for-daemon");
    launch(store, command)
}

/// Starts a process that announces itself, with its log in the store, and waits until it has.
pub(super) fn launch(store: &Path, mut command: Command) -> Result<()> {
    let mut child = command
        .stderr(open_log(store)?)
        .spawn()
        .map_err(|e| Error::io("start", "the mounting process", e))?;
    match child.stdout.take().map_or(Ok(None), listen)? {
        Some(Message::Done(_)) => Ok(()),
        Some(Message::Failed { kind, message, hint }) => {
            let _ = child.wait();
            Err(told_error(&kind, message, hint).into())
        }
        Some(Message::Progress(_)) | None => {
            let status = child.wait().map_err(|e| Error::io("wait for", "the mounting process", e))?;
            Err(Failure::new(
                ErrorKind::Io,
                format!("the mounting process ended ({status}) before the mount answered{}", log_end(store)),
            )
            .hint(format!("read {}", store.join(LOG_NAME).display())))
        }
    }
}

fn daemon_command(store: &Path, directory: &Path, volume: Option<&str>, options: &Options) -> Command {
    // This very program, also when its file was replaced since it started.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("stillpoint").arg("mount").args(["--foreground", "--announce"]);
    command.arg(match options.cache {
        Cache::Writeback => "--cache=writeback",
        Cache::Writethrough => "--cache=writethrough",
    });
    if options.read_only {
        command.arg("--read-only");
    }
    if options.rescue {
        command.arg("--rescue");
    }
    if let Some(volume) = volume {
        command.arg(format!("--only={volume}"));
    }
    command.arg(store).arg(directory);
    // The working directory would keep the caller's file system busy.
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

fn open_log(store: &Path) -> Result<File> {
    let path = store.join(LOG_NAME);
    Ok(OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .map_err(|e| Error::io("open", &path.display().to_string(), e))?)
}

/// The last lines of the log, for an error message.
fn log_end(store: &Path) -> String {
    let log = std::fs::read(store.join(LOG_NAME)).unwrap_or_default();
    let text = String::from_utf8_lossy(&log).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
    if lines.is_empty() { String::new() } else { format!("; it said:\n{}", lines[from..].join("\n")) }
}

/// Reads what the mounting process announces.
fn listen(stdout: ChildStdout) -> Result<Option<Message>> {
    let mut line = String::new();
    BufReader::new(stdout)
        .read_line(&mut line)
        .map_err(|e| Error::io("listen to", "the mounting process", e))?;
    if line.is_empty() {
        return Ok(None);
    }
    serde_json::from_str(&line).map(Some).map_err(|_| unexpected())
}

/// Tells the waiting caller, then lets go of its pipe.
pub(super) fn announce(message: &Message) -> Result<()> {
    let line = serde_json::to_string(message)
        .map_err(|e| Error::with_source(ErrorKind::Io, format!("cannot encode a message: {e}"), e))?;
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(format!("{line}\n").as_bytes())
        .and_then(|()| stdout.flush())
        .and_then(|()| Ok(rustix::stdio::dup2_stdout(std::io::stderr())?))
        .map_err(|e| Error::io("answer", "the waiting command", e))?;
    Ok(())
}

/// Mounts, answers the control socket, and returns when it is unmounted and the store is closed.
fn serve(arguments: &Arguments) -> Result<()> {
    if arguments.announce {
        // Out of the caller's session: its terminal's signals and its end are not ours. It fails only for the
        // leader of a process group, which then has a group of its own.
        let _ = rustix::process::setsid();
    }
    let mut signals = ending_signals()?;
    let directory = resolve(&arguments.directory)?;
    let options = HostOptions {
        writethrough: arguments.options.cache == Cache::Writethrough,
        read_only: arguments.options.read_only,
        rescue: arguments.options.rescue,
    };
    let host = Host::start(
        &arguments.store_directory,
        &directory,
        arguments.only.as_deref(),
        &environment(),
        &options,
    )?;
    let operations: std::sync::Arc<dyn Operations> = host.clone();
    let socket = if arguments.for_daemon { MOUNT_SOCKET_NAME } else { SOCKET_NAME };
    let server = match Server::start(host.path(), socket, operations, None) {
        Ok(server) => server,
        Err(e) => {
            host.end()?;
            return Err(e.into());
        }
    };
    tracing::info!("{} is mounted at {}", host.path().display(), directory.display());
    if arguments.announce {
        announce(&Message::Done(Reply::Done))?;
    }
    let result = loop {
        if let Some(result) = host.wait() {
            break result;
        }
        if let Some(signal) = signals.pending().next() {
            tracing::info!("ending on signal {signal}");
            break host.end();
        }
    };
    server.stop();
    tracing::info!("{} is unmounted", host.path().display());
    Ok(result?)
}

/// A mount as it is shown.
#[derive(Serialize)]
pub(super) struct MountView {
    store: PathBuf,
    directory: PathBuf,
    volume: Option<String>,
    /// The log that says what a rescue leaves out.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<PathBuf>,
}

impl Show for MountView {
    fn table(&self) -> Table {
        let mut table = Table::facts();
        table.fact("store", self.store.display().to_string());
        table.fact("mounted at", self.directory.display().to_string());
        if let Some(volume) = &self.volume {
            table.fact("volume", volume);
        }
        if let Some(missing) = &self.missing {
            table.fact("what is missing", format!("see {}", missing.display()));
        }
        table
    }
}
