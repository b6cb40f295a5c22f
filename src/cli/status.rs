//! `stillpoint status`: is the store mounted, by whom, where, and how full is it.

use serde::Serialize;

use super::context::Context;
use super::exit::{Outcome, Result};
use super::output::{Show, Table};
use super::sizes::format_bytes;
use super::store::StatsView;
use super::volume::unexpected;
use crate::control::{Reply, Request, RequestsRow, StatusRow};

pub(super) fn run(context: &Context) -> Result<Outcome> {
    let Reply::Status(row) = context.ask(&Request::Status)? else { return Err(unexpected()) };
    let store = context.store()?.display().to_string();
    context.output.show(&StatusView { store, mounted: row.pid.is_some(), row })?;
    Ok(Outcome::Done)
}

#[derive(Serialize)]
struct StatusView {
    store: String,
    mounted: bool,
    #[serde(flatten)]
    row: StatusRow,
}

impl Show for StatusView {
    fn table(&self) -> Table {
        let mut table = Table::facts();
        table.fact("store", &self.store);
        match self.row.pid {
            Some(pid) => table.fact("mounted", format!("by process {pid}, version {}", self.row.version)),
            None => table.fact("mounted", "no"),
        }
        if let Some(api) = &self.row.api {
            table.fact("api", api);
        }
        for mount in &self.row.mounts {
            let shown = match &mount.volume {
                Some(volume) => format!("{} (volume {volume})", mount.directory.display()),
                None => format!("{} (all volumes)", mount.directory.display()),
            };
            table.fact("mount", shown);
        }
        table.fact("volumes", self.row.volumes.to_string());
        table.fact("snapshots", self.row.snapshots.to_string());
        StatsView(self.row.stats.clone()).facts(&mut table);
        if let Some(requests) = &self.row.requests {
            let counts: Vec<String> =
                requests.counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
            table.fact("requests", counts.join(", "));
            table.fact("read and written", format_read_written(requests));
        }
        table
    }
}

fn format_read_written(requests: &RequestsRow) -> String {
    format!("{}, {}", format_bytes(requests.bytes_read), format_bytes(requests.bytes_written))
}
