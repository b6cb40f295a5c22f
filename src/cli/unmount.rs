//! `stillpoint unmount`: takes a mount off, and returns when all is durable and, with a store's last mount, the
//! mounting process has ended. A mount whose process was killed goes as well.

use std::path::{Path, PathBuf};

use clap::Args;
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use serde::Serialize;

use super::context::Context;
use super::exit::{Failure, Outcome, Result};
use super::mountinfo::{Mount, mount_at};
use super::output::{Show, Table};
use super::volume::unexpected;
use crate::base::{Error, ErrorKind};
use crate::control::{Client, Operations, Reply, Request};

/// How many of the processes that keep a mount busy are named.
const USERS_SHOWN_MAX: usize = 10;

#[derive(Args)]
pub(super) struct Arguments {
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<Outcome> {
    let mount = unmount(&arguments.directory)?;
    context.output.show(&Unmounted { store: mount.store, unmounted: mount.directory })?;
    Ok(Outcome::Done)
}

/// Takes the mount at `directory` off.
pub(super) fn unmount(directory: &Path) -> Result<Mount> {
    let Some(mount) = mount_at(directory)? else {
        return Err(Failure::new(
            ErrorKind::NotFound,
            format!("no store is mounted at {}", directory.display()),
        )
        .hint("see what is mounted with `stillpoint doctor`"));
    };
    if matches!(rustix::fs::statfs(&mount.directory), Err(Errno::NOTCONN | Errno::CONNABORTED)) {
        // Its process is dead: nobody is left to ask, and nothing to flush.
        detach(&mount.directory, UnmountFlags::DETACH)?;
        return Ok(mount);
    }
    let Some(client) = Client::connect(&mount.store)? else {
        detach(&mount.directory, UnmountFlags::empty())?;
        return Ok(mount);
    };
    match client.perform(&Request::Unmount { directory: mount.directory.clone() }, &mut |_| {}) {
        Ok(Reply::Unmounted { ending: true }) => {
            client.wait_for_end()?;
            Ok(mount)
        }
        Ok(Reply::Unmounted { ending: false }) => Ok(mount),
        Ok(_) => Err(unexpected()),
        Err(e) if e.kind() == ErrorKind::InUse => Err(busy(&mount.directory, e)),
        Err(e) => Err(e.into()),
    }
}

fn detach(directory: &Path, flags: UnmountFlags) -> Result<()> {
    let shown = directory.display().to_string();
    rustix::mount::unmount(directory, flags).map_err(|e| match e {
        Errno::BUSY => busy(directory, Error::new(ErrorKind::InUse, format!("{shown} is busy"))),
        Errno::PERM => Failure::new(ErrorKind::NotAllowed, format!("cannot unmount {shown}: only root may"))
            .hint("run as root")
            .hint("run this command as root"),
        other => Error::io("unmount", &shown, other.into()).into(),
    })
}

/// Names who keeps a mount busy, as far as this user may see.
fn busy(directory: &Path, error: Error) -> Failure {
    let users = users(directory);
    let failure = Failure::from(error);
    if users.is_empty() {
        return failure;
    }
    failure.hint(format!("end these first: {}", users.join(", ")))
}

/// Processes with an open file or their working directory below `directory`.
fn users(directory: &Path) -> Vec<String> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter(|entry| {
            let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
            number.is_some_and(|pid: u32| pid != std::process::id())
        })
        .filter(|entry| uses(&entry.path(), directory))
        .take(USERS_SHOWN_MAX)
        .map(|entry| {
            let program = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            format!("{} ({})", entry.file_name().to_string_lossy(), program.trim())
        })
        .collect()
}

fn uses(process: &Path, directory: &Path) -> bool {
    let below = |link: &Path| std::fs::read_link(link).is_ok_and(|target| target.starts_with(directory));
    if below(&process.join("cwd")) || below(&process.join("root")) {
        return true;
    }
    let Ok(files) = std::fs::read_dir(process.join("fd")) else { return false };
    files.flatten().any(|file| below(&file.path()))
}

#[derive(Serialize)]
struct Unmounted {
    store: PathBuf,
    unmounted: PathBuf,
}

impl Show for Unmounted {
    fn table(&self) -> Table {
        let mut table = Table::facts();
        table.fact("store", self.store.display().to_string());
        table.fact("unmounted", self.unmounted.display().to_string());
        table
    }
}
