//! Checks of what earlier runs left behind: dead mounts and stale sockets.

use std::path::Path;

use rustix::io::Errno;

use super::super::mountinfo::stillpoint_mounts;
use super::Finding;
use crate::control::{Client, SOCKET_NAME};

/// One finding per mount, or one that says there is none.
pub(super) fn mounts() -> Vec<Finding> {
    const CHECK: &str = "mount";
    let mounts = match stillpoint_mounts() {
        Ok(mounts) => mounts,
        Err(failure) => {
            return vec![Finding::warning(CHECK, failure.error.message(), "mount /proc")];
        }
    };
    if mounts.is_empty() {
        return vec![Finding::ok(CHECK, "no store is mounted")];
    }
    mounts
        .iter()
        .map(|mount| {
            let directory = mount.directory.display();
            match rustix::fs::statfs(&mount.directory) {
                Err(Errno::NOTCONN | Errno::CONNABORTED) => Finding::warning(
                    CHECK,
                    format!("{directory} is dead: its process ended without unmounting"),
                    format!("stillpoint unmount {directory}, then mount again: nothing acknowledged is lost"),
                ),
                Err(e) => Finding::warning(
                    CHECK,
                    format!("{directory} does not answer: {e}"),
                    format!("stillpoint unmount {directory}"),
                ),
                Ok(_) => Finding::ok(CHECK, format!("{} at {directory}", mount.store.display())),
            }
        })
        .collect()
}

/// Whether somebody answers at the store's socket, if there is one.
pub(super) fn socket(store: &Path) -> Finding {
    const CHECK: &str = "control socket";
    match Client::connect(store) {
        Ok(Some(client)) => Finding::ok(CHECK, format!("process {} answers", client.peer().as_raw_nonzero())),
        Ok(None) if store.join(SOCKET_NAME).exists() => Finding::warning(
            CHECK,
            "nobody answers: the mounting process was killed",
            "mount again: it is replaced, and nothing acknowledged is lost",
        ),
        Ok(None) => Finding::ok(CHECK, "none: the store is not mounted"),
        Err(e) => Finding::warning(CHECK, e.message(), "run as root or as the store's owner"),
    }
}
