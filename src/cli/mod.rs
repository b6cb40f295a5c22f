//! The command line: one file per noun. Knows terminals; nothing below it does.

mod application;
mod backup;
mod backup_file;
mod backup_show;
mod bench;
mod clone;
mod completion;
mod config;
mod confirm;
mod context;
mod daemon;
mod demo;
mod doctor;
mod dsource;
mod environment;
mod event;
mod exit;
mod follow;
mod freeze_watch;
mod group;
mod hook;
mod init;
mod job;
mod man;
mod mount;
mod mountinfo;
mod names;
mod openapi;
mod output;
mod policy;
mod progress;
mod relink;
mod repository;
mod signals;
mod sizes;
mod snapshot;
mod source;
mod sqlserver;
mod status;
mod store;
mod timeflow;
mod token;
mod unmount;
mod vdb;
mod volume;
mod wal_restore;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use context::Context;
use exit::{Outcome, Result};
use output::Output;

/// Staging storage, snapshots and thin clones for databases.
#[derive(Parser)]
#[command(name = "stillpoint", version, propagate_version = true, infer_subcommands = false)]
#[command(after_help = "Exit status: 0 done, 1 failed, 2 usage, 3 done with warnings, 10 not found, \
    11 busy or in use, 12 not allowed, 13 precondition failed.")]
struct Arguments {
    /// The store's directory
    #[arg(long, global = true, env = "STILLPOINT_STORE", value_name = "STORE")]
    store: Option<PathBuf>,
    /// The form of the output on stdout
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a new store in an empty or new directory
    Init(init::Arguments),
    /// Mount a store: every volume is a folder
    Mount(mount::Arguments),
    /// Unmount; returns when all is durable and the mounting process has ended
    Unmount(unmount::Arguments),
    /// Make and manage volumes
    #[command(subcommand)]
    Volume(volume::Command),
    /// Take and manage snapshots
    #[command(subcommand)]
    Snapshot(snapshot::Command),
    /// Make writable volumes from snapshots
    #[command(subcommand)]
    Clone(clone::Command),
    /// Run the daemon: the mounted store, its datasets, and the API
    Daemon(daemon::Arguments),
    /// See the hosts that servers run on
    #[command(subcommand)]
    Environment(environment::Command),
    /// See database installations, and say which may be chosen
    #[command(subcommand)]
    Repository(repository::Command),
    /// Keep addresses and passwords of source databases
    #[command(subcommand)]
    Source(source::Command),
    /// Link databases and keep copies of them in sync
    #[command(subcommand)]
    Dsource(dsource::Command),
    /// Back up source databases, and restore them to any point
    #[command(subcommand)]
    Backup(backup::Command),
    /// Make and run writable databases
    #[command(subcommand)]
    Vdb(vdb::Command),
    /// Show the snapshots of a dataset, by timeflow
    #[command(subcommand)]
    Timeflow(timeflow::Command),
    /// Land SQL Server backup files on a volume, so that equal pages are stored once
    #[command(subcommand)]
    BackupFile(backup_file::Command),
    /// Do things to datasets by themselves: snapshots, refreshes, retention, quotas
    #[command(subcommand)]
    Policy(policy::Command),
    /// Say why retention keeps a snapshot
    Why(policy::WhyArguments),
    /// Run scripts at points of operations
    #[command(subcommand)]
    Hook(hook::Command),
    /// See what operations do, and end them
    #[command(subcommand)]
    Job(job::Command),
    /// See what happened
    #[command(subcommand)]
    Event(event::Command),
    /// Make and manage groups: what shares permissions
    #[command(subcommand)]
    Group(group::Command),
    /// Make and revoke tokens for the API on TCP
    #[command(subcommand)]
    Token(token::Command),
    /// Check and show the daemon's configuration
    #[command(subcommand)]
    Config(config::Command),
    /// Figures, collection, scrub and check of the whole store
    #[command(subcommand)]
    Store(store::Command),
    /// Say whether the store is mounted, by whom, and how full it is
    Status,
    /// Check this host and say how to fix what is missing
    Doctor(doctor::Arguments),
    /// Measure a mount as databases use it, against the folder beneath
    Bench(bench::BenchArguments),
    /// Run PostgreSQL on a volume, snapshot it under load, and start a clone
    Demo(demo::Arguments),
    /// Give PostgreSQL a WAL file: its restore_command in a staging server
    #[command(hide = true)]
    WalRestore(wal_restore::Arguments),
    /// Watch over held writes of a source database: started by the daemon
    #[command(hide = true)]
    FreezeWatch,
    /// Print the completion script of a shell
    Completion(completion::Arguments),
    /// Write the manual pages
    #[command(hide = true)]
    Man(man::Arguments),
    /// Print the description of the API
    #[command(hide = true)]
    Openapi,
}

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

/// Runs the program with these arguments, the first being its name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(e) => {
            // Help and version go to stdout and are no error.
            let code = if e.use_stderr() { 2 } else { 0 };
            let _ = e.print();
            return ExitCode::from(code);
        }
    };
    start_log(matches!(arguments.command, Command::Mount(_) | Command::Daemon(_)));
    let context = Context::new(arguments.store, arguments.output);
    match dispatch(arguments.command, &context) {
        Ok(outcome) => outcome.code(),
        Err(failure) => {
            arguments.output.failure(&failure);
            failure.code()
        }
    }
}

fn dispatch(command: Command, context: &Context) -> Result<Outcome> {
    match command {
        Command::Init(arguments) => init::run(&arguments, context),
        Command::Mount(arguments) => mount::run(&arguments, context),
        Command::Unmount(arguments) => unmount::run(&arguments, context),
        Command::Volume(command) => volume::run(command, context),
        Command::Snapshot(command) => snapshot::run(command, context),
        Command::Clone(command) => clone::run(command, context),
        Command::Daemon(arguments) => daemon::run(&arguments, context),
        Command::Environment(command) => environment::run(&command, context),
        Command::Repository(command) => repository::run(command, context),
        Command::Source(command) => source::run(command, context),
        Command::Dsource(command) => dsource::run(command, context),
        Command::Backup(command) => backup::run(command, context),
        Command::Vdb(command) => vdb::run(command, context),
        Command::Timeflow(command) => timeflow::run(&command, context),
        Command::BackupFile(command) => backup_file::run(command, context),
        Command::Policy(command) => policy::run(command, context),
        Command::Why(arguments) => policy::why(&arguments, context),
        Command::Hook(command) => hook::run(command, context),
        Command::Job(command) => job::run(&command, context),
        Command::Event(command) => event::run(&command, context),
        Command::Group(command) => group::run(command, context),
        Command::Token(command) => token::run(command, context),
        Command::Config(command) => config::run(&command, context),
        Command::Store(command) => store::run(&command, context),
        Command::Status => status::run(context),
        Command::Doctor(arguments) => doctor::run(&arguments, context),
        Command::Bench(arguments) => bench::run(&arguments, context),
        Command::Demo(arguments) => demo::run(&arguments, context),
        Command::WalRestore(arguments) => Ok(wal_restore::run(&arguments)),
        Command::FreezeWatch => freeze_watch::run(),
        Command::Completion(arguments) => completion::run(&arguments, context),
        Command::Man(arguments) => man::run(&arguments, context),
        Command::Openapi => openapi::run(context),
    }
}

/// Log lines go to stderr: warnings, for a mounting process its doings, or what `STILLPOINT_LOG` asks for.
fn start_log(mounting: bool) {
    // The transport warns of what the mount itself handles and reports, and calls it an error when the answer to
    // a request whose caller was interrupted finds no taker.
    let level = if mounting { "info" } else { "warn" };
    let filter = tracing_subscriber::EnvFilter::try_from_env("STILLPOINT_LOG").unwrap_or_else(|_| {
        tracing_subscriber::EnvFilter::new(format!("{level},fuser=error,fuser::reply=off,tiberius=error"))
    });
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .try_init();
    if let Err(e) = started {
        // Only a caller of `run` that logs already meets this.
        tracing::debug!("the log was started before: {e}");
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use crate::cli::Arguments;

    #[test]
    fn the_arguments_are_sound() {
        Arguments::command().debug_assert();
    }
}
