//! A process beside the mounting one that ends the mount when that one was killed and cannot end.
//!
//! A thread of this process that reads a file of its own mount waits for an answer of this process. Killed in that
//! moment, it waits for ever, holds the connection and the store's lock, and nobody else could mount again.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const SCRIPT: &str = include_str!("guard.sh");

/// Ends with the mount.
#[derive(Debug)]
pub(super) struct Guard(Option<Child>);

impl Guard {
    /// Starts watching this process. Without a guard the mount works as well.
    pub(super) fn start(directory: &Path) -> Self {
        let child = Command::new("/bin/sh")
            .arg("-c")
            .arg(SCRIPT)
            .arg("stillpoint-guard")
            .arg(std::process::id().to_string())
            .arg(directory)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        Self(child.map_err(|e| tracing::warn!("the mount has no guard: {e}")).ok())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
