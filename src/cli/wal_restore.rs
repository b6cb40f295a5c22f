//! `stillpoint wal-restore`: what a staging server that follows by WAL files runs as its restore_command. No daemon is
//! asked; what it found is in a file that the daemon looks at.

use std::path::PathBuf;

use clap::Args;

use super::exit::Outcome;
use crate::adapter::postgres::restore::run_restore;

#[derive(Args)]
pub(super) struct Arguments {
    /// What to restore from, written by the daemon
    #[arg(long)]
    config: PathBuf,
    /// The file PostgreSQL wants: its %f
    file: String,
    /// Where it wants it: its %p
    destination: PathBuf,
    /// The last file it needs to start again from: its %r
    redo: String,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let result = run_restore(&arguments.config, &arguments.file, &arguments.destination, &arguments.redo);
    if let Some(message) = &result.message {
        // Into the server's log.
        eprintln!("stillpoint: {message}");
    }
    Outcome::Status(result.exit_code())
}
