//! `stillpoint demo`: a real PostgreSQL on a volume, a snapshot under load, a clone of it that starts.
//!
//! Whatever it starts it stops by its own handle, at the end, on an error, and on Ctrl-C.

mod report;
mod run;
mod server;
mod stage;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::context::Context;
use super::exit::{Failure, Outcome, Result};
use super::volume::unexpected;
use crate::adapter::postgres::Installations;
use crate::base::{Clock, ErrorKind, OsUser, SystemClock};
use crate::control::{Reply, Request, VolumeRow};
use report::{Counts, Database, Report, milliseconds};
use run::pause;
use server::Server;
use stage::Stage;

const SOURCE: &str = "shop";
const SNAPSHOT: &str = "under-load";
const CLONE: &str = "shop-clone";
/// The snapshot waits until the load has written this many transactions.
const HISTORY_ROWS_MIN: u64 = 100;
const LOAD_TIME_MAX: Duration = Duration::from_secs(120);

#[derive(Args)]
pub(super) struct Arguments {
    /// Where to make everything: new or empty; a temporary folder by default
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// pgbench's scale: 100,000 accounts, about 16 MiB, each
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    scale: u32,
    /// Sessions that write while the snapshot is taken
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    clients: u32,
    /// Leave both servers running, and say how to connect and how to clean up
    #[arg(long)]
    keep: bool,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<Outcome> {
    let installation = Installations::default().all().pop().ok_or_else(|| {
        Failure::new(ErrorKind::Precondition, "the demo needs PostgreSQL, and /usr/lib/postgresql has none")
            .hint("apt-get install postgresql")
    })?;
    let mut stage = Stage::set_up(
        arguments.dir.as_deref(),
        installation,
        OsUser::for_servers("postgres")?,
        context.output,
    )?;
    let result = perform(arguments, &mut stage);
    match result {
        Ok(report) => {
            context.output.show(&report)?;
            let agree = report.source.sums_agree && report.clone.sums_agree;
            if arguments.keep {
                stage.leave(context.output)?;
            } else {
                stage.clean_up()?;
            }
            if agree {
                return Ok(Outcome::Done);
            }
            Err(Failure::new(ErrorKind::Corrupt, "the sums of a database do not agree"))
        }
        Err(failure) => {
            // The first failure is the one to show.
            if let Err(second) = stage.clean_up() {
                tracing::warn!("cleaning up: {}", second.error.message());
            }
            Err(failure)
        }
    }
}

fn perform(arguments: &Arguments, stage: &mut Stage) -> Result<Report> {
    let clock = SystemClock;
    let source_data = stage.make_volume(SOURCE)?;
    stage.step(&format!("initdb, PostgreSQL {}", stage.programs.installation.major))?;
    Server::make_cluster(&stage.programs, &source_data, &stage.password)?;
    stage.step("starting PostgreSQL on the volume")?;
    let source = stage.start_server("source", &source_data)?;
    stage.step(&format!("loading pgbench, scale {}", arguments.scale))?;
    let start = clock.monotonic();
    stage.load(source, arguments.scale)?;
    let load_seconds = clock.monotonic().saturating_sub(start).as_secs_f64();

    stage.step(&format!("{} sessions write", arguments.clients))?;
    stage.start_writers(source, arguments.clients)?;
    let before = wait_for_history(stage, source)?;
    stage.step(&format!("snapshot {SOURCE}@{SNAPSHOT} while they write"))?;
    let start = clock.monotonic();
    stage.ask(&Request::SnapshotCreate { volume: SOURCE.into(), name: SNAPSHOT.into() })?;
    let snapshot_time = clock.monotonic().saturating_sub(start);
    let after = stage.counts(source)?.history_rows;

    stage.step(&format!("clone {CLONE} of {SOURCE}@{SNAPSHOT}, and PostgreSQL on it"))?;
    let start = clock.monotonic();
    stage.ask(&Request::CloneCreate {
        volume: SOURCE.into(),
        snapshot: SNAPSHOT.into(),
        name: CLONE.into(),
    })?;
    let clone_time = clock.monotonic().saturating_sub(start);
    let clone_data = stage.data_folder(CLONE);
    let clone = stage.start_server("clone", &clone_data)?;
    let ready_time = clock.monotonic().saturating_sub(start);

    stage.step("asking both")?;
    let clone_counts = stage.counts(clone)?;
    stage.stop_writers()?;
    let source_counts = stage.counts(source)?;
    check(before, after, clone_counts)?;
    Ok(Report {
        postgres_major: stage.programs.installation.major,
        scale: arguments.scale,
        load_seconds,
        snapshot_milliseconds: milliseconds(snapshot_time),
        clone_milliseconds: milliseconds(clone_time),
        clone_ready_seconds: ready_time.as_secs_f64(),
        source: Database::new(stage.port(source), source_counts, &volume(stage, SOURCE)?),
        clone: Database::new(stage.port(clone), clone_counts, &volume(stage, CLONE)?),
        history_rows_before_snapshot: before,
        history_rows_after_snapshot: after,
        store: match stage.ask(&Request::StoreStats)? {
            Reply::Stats(row) => row,
            _ => return Err(unexpected()),
        },
    })
}

/// Waits until the writers have written; returns how many transactions there are.
fn wait_for_history(stage: &Stage, server: usize) -> Result<u64> {
    let clock = SystemClock;
    let start = clock.monotonic();
    loop {
        let rows = stage.counts(server)?.history_rows;
        if rows >= HISTORY_ROWS_MIN {
            return Ok(rows);
        }
        if clock.monotonic().saturating_sub(start) > LOAD_TIME_MAX {
            return Err(stage.programs.failed("pgbench-write"));
        }
        pause(&stage.programs.interrupted)?;
    }
}

/// The clone must hold what was committed before the snapshot was asked for, and nothing begun after it was there.
fn check(before: u64, after: u64, clone: Counts) -> Result<()> {
    if clone.history_rows < before || clone.history_rows > after {
        return Err(Failure::new(
            ErrorKind::Corrupt,
            format!(
                "the clone holds {} transactions; before the snapshot there were {before}, after it {after}",
                clone.history_rows
            ),
        ));
    }
    Ok(())
}

fn volume(stage: &Stage, name: &str) -> Result<VolumeRow> {
    match stage.ask(&Request::VolumeShow { name: name.into() })? {
        Reply::Volume(row) => Ok(row),
        _ => Err(unexpected()),
    }
}
