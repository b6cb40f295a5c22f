//! `stillpoint store`: stats, gc, scrub, check.

use clap::Subcommand;
use serde::Serialize;

use super::context::Context;
use super::exit::{Outcome, Result};
use super::output::{Show, Table};
use super::sizes::{format_bytes, parse_bytes};
use super::volume::unexpected;
use crate::base::RealStorage;
use crate::catalog::Catalog;
use crate::control::{CheckRow, FindingRow, GcRow, Reply, Request, ScrubRow, StatsRow};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Show sizes, ratios and free space
    Stats,
    /// Give back the space of what nothing refers to any more
    Gc {
        /// Copy so many bytes a second at most, such as 20MiB; 0 is no limit [default: 64MiB]
        #[arg(long, value_parser = parse_bytes)]
        rate: Option<u64>,
    },
    /// Read and verify every block; names the files and snapshots damage touches
    Scrub {
        /// Read so many bytes a second at most, such as 20MiB; 0 is no limit [default: 128MiB]
        #[arg(long, value_parser = parse_bytes)]
        rate: Option<u64>,
    },
    /// Walk everything and verify references and space accounting; exit 1 on any finding
    Check,
    /// Make the catalog of datasets anew from the copy that the last snapshot left; no daemon may run
    RestoreCatalog,
}

pub(super) fn run(command: &Command, context: &Context) -> Result<Outcome> {
    let request = match command {
        Command::Stats => Request::StoreStats,
        Command::Gc { rate } => Request::StoreGc { rate: *rate },
        Command::Scrub { rate } => Request::StoreScrub { rate: *rate },
        Command::Check => Request::StoreCheck,
        Command::RestoreCatalog => return restore_catalog(context),
    };
    match context.ask(&request)? {
        Reply::Stats(row) => {
            context.output.show(&StatsView(row))?;
            Ok(Outcome::Done)
        }
        Reply::Gc(row) => {
            context.output.show(&GcView(row))?;
            Ok(Outcome::Done)
        }
        Reply::Scrub(row) => {
            let outcome = if row.damaged == 0 { Outcome::Done } else { Outcome::Findings };
            context.output.show(&ScrubView(row))?;
            Ok(outcome)
        }
        Reply::Check(row) => {
            let outcome = if row.findings.is_empty() { Outcome::Done } else { Outcome::Findings };
            context.output.show(&CheckView(row))?;
            Ok(outcome)
        }
        _ => Err(unexpected()),
    }
}

/// The store's figures as they are shown.
/// With the store's own lock, so that no daemon has it.
fn restore_catalog(context: &Context) -> Result<Outcome> {
    let storage = RealStorage::open(context.store()?)?;
    let _lock = storage.lock("restore the catalog")?;
    let records = Catalog::restore(&storage)?;
    context.output.show(&Restored { records })?;
    Ok(Outcome::Done)
}

/// What a restoration of the catalog brought back.
#[derive(Serialize)]
struct Restored {
    records: usize,
}

impl Show for Restored {
    fn table(&self) -> Table {
        let mut table = Table::facts();
        table.fact("records", self.records.to_string());
        table.note(
            "volumes that are younger than the copy belong to no dataset: see `stillpoint volume list`"
                .into(),
        );
        table
    }
}

#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct StatsView(pub StatsRow);

impl StatsView {
    /// Adds the figures to a table.
    pub(super) fn facts(&self, table: &mut Table) {
        let stats = &self.0;
        table.fact("logical", format_bytes(stats.logical_bytes));
        table.fact("stored", format_bytes(stats.stored_bytes));
        table.fact("physical", format_bytes(stats.physical_bytes));
        table.fact("dedup ratio", format!("{:.2}", stats.dedup_ratio));
        table.fact("compression ratio", format!("{:.2}", stats.compression_ratio));
        table.fact("journal", format_bytes(stats.journal_bytes));
        table.fact("segments", stats.segments.to_string());
        table.fact("referred to", format_bytes(stats.live_bytes));
        table.fact("to be collected", format_bytes(stats.dead_bytes));
        table.fact("free", format_bytes(stats.free_bytes));
    }
}

impl Show for StatsView {
    fn table(&self) -> Table {
        let mut table = Table::facts();
        self.facts(&mut table);
        table
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct GcView(GcRow);

impl Show for GcView {
    fn table(&self) -> Table {
        let row = &self.0;
        let mut table = Table::facts();
        table.fact("freed", format_bytes(row.freed_bytes));
        table.fact("physical before", format_bytes(row.physical_bytes_before));
        table.fact("physical after", format_bytes(row.physical_bytes_after));
        table.fact("segments rewritten", row.segments_rewritten.to_string());
        table.fact("copied", format_bytes(row.copied_bytes));
        table
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct ScrubView(ScrubRow);

impl Show for ScrubView {
    fn table(&self) -> Table {
        let row = &self.0;
        let mut table = Table::facts();
        table.fact("segments", row.segments.to_string());
        table.fact("read", format_bytes(row.bytes));
        table.fact("damaged", row.damaged.to_string());
        add_findings(&mut table, &row.findings);
        table
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct CheckView(CheckRow);

impl Show for CheckView {
    fn table(&self) -> Table {
        let row = &self.0;
        let mut table = Table::facts();
        table.fact("volumes and snapshots", row.views.to_string());
        table.fact("nodes", row.nodes.to_string());
        table.fact("blocks", row.blocks.to_string());
        table.fact("findings", row.findings.len().to_string());
        add_findings(&mut table, &row.findings);
        table
    }
}

fn add_findings(table: &mut Table, findings: &[FindingRow]) {
    for finding in findings {
        table.fact("finding", format!("{}: {}", finding.object, finding.message));
    }
}
