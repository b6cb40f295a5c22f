//! `stillpoint daemon`: the process that holds the store, mounts it, and runs its datasets.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use serde::Serialize;

use super::context::{Context, environment};
use super::exit::{Failure, Outcome, Result};
use super::mount::{announce, launch};
use super::mountinfo::resolve;
use super::output::{Show, Table};
use super::signals::ending_signals;
use crate::base::{Error, ErrorKind, kind_name};
use crate::control::{Client, Message, Reply};
use crate::daemon::{Daemon, Options};

#[derive(Args)]
pub(super) struct Arguments {
    /// Where to mount all volumes
    #[arg(long, value_name = "DIR")]
    mount: PathBuf,
    /// Where sockets, settings, secrets and logs of the servers go; by default a folder of the store's own in
    /// /var/lib/stillpoint
    #[arg(long, value_name = "DIR", env = "STILLPOINT_STATE")]
    state: Option<PathBuf>,
    /// Return when the mount answers, and go on in the background
    #[arg(long)]
    background: bool,
    /// Say on stdout when the mount answers, then leave the caller's session
    #[arg(long, hide = true, conflicts_with = "background")]
    announce: bool,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<Outcome> {
    let store = context.store()?;
    if arguments.background {
        let shown = store.display().to_string();
        let store = store.canonicalize().map_err(|e| Error::io("open the store", &shown, e))?;
        let mount = mount_folder(arguments)?;
        if let Some(client) = Client::connect(&store)? {
            return Err(Failure::new(
                ErrorKind::InUse,
                format!("process {} has the store {shown} already", client.peer().as_raw_nonzero()),
            )
            .hint("see what it does with `stillpoint status`"));
        }
        launch(&store, background_command(&store, &mount, arguments.state.as_deref()))?;
        context.output.show(&Started { store, mounted_at: mount })?;
        return Ok(Outcome::Done);
    }
    let result = serve(arguments, store);
    if let (true, Err(failure)) = (arguments.announce, &result) {
        announce(&Message::Failed {
            kind: kind_name(failure.error.kind()).into(),
            message: failure.error.message().into(),
        })?;
    }
    result.map(|()| Outcome::Done)
}

/// The folder to mount at, made if it is not there.
fn mount_folder(arguments: &Arguments) -> Result<PathBuf> {
    let shown = arguments.mount.display().to_string();
    std::fs::create_dir_all(&arguments.mount).or_else(|e| match e.kind() {
        // The mount of a killed daemon, which the next one replaces.
        std::io::ErrorKind::AlreadyExists | std::io::ErrorKind::NotConnected => Ok(()),
        _ => Err(Error::io("create", &shown, e)),
    })?;
    resolve(&arguments.mount)
}

fn background_command(store: &Path, mount: &Path, state: Option<&Path>) -> Command {
    // This very program, also when its file was replaced since it started.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("stillpoint").arg("--store").arg(store).args(["daemon", "--announce", "--mount"]).arg(mount);
    if let Some(state) = state {
        command.arg("--state").arg(state);
    }
    // The working directory would keep the caller's file system busy.
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

fn serve(arguments: &Arguments, store: &Path) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new(ErrorKind::NotAllowed, "the daemon mounts and runs servers: only root may"));
    }
    if arguments.announce {
        // Out of the caller's session; it fails only for the leader of a process group.
        let _ = rustix::process::setsid();
    }
    let mut signals = ending_signals()?;
    let mount = mount_folder(arguments)?;
    let options =
        Options { store: store.to_owned(), mount, state: arguments.state.clone(), writethrough: false };
    let daemon = Daemon::start(&options, &environment())?;
    tracing::info!("{} is mounted at {}", daemon.store().display(), options.mount.display());
    if arguments.announce {
        announce(&Message::Done(Reply::Done))?;
    }
    let taken_off = loop {
        if let Some(result) = daemon.has_ended() {
            break Some(result);
        }
        if let Some(signal) = signals.pending().next() {
            tracing::info!("ending on signal {signal}");
            break None;
        }
    };
    let ended = daemon.end();
    tracing::info!("ended");
    taken_off.unwrap_or(Ok(())).and(ended)?;
    Ok(())
}

#[derive(Serialize)]
struct Started {
    store: PathBuf,
    mounted_at: PathBuf,
}

impl Show for Started {
    fn table(&self) -> Table {
        let mut table = Table::facts();
        table.fact("store", self.store.display().to_string());
        table.fact("mounted at", self.mounted_at.display().to_string());
        table
    }
}
