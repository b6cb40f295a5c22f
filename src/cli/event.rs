//! `stillpoint event`: what happened.

use clap::Subcommand;
use serde::Serialize;

use super::context::Context;
use super::exit::{Outcome, Result};
use super::output::{Show, Table};
use crate::api::Event;

#[derive(Subcommand)]
pub(super) enum Command {
    /// List the newest events
    List,
}

pub(super) fn run(command: &Command, context: &Context) -> Result<Outcome> {
    let Command::List = command;
    context.output.show(&Events(context.api()?.get("/v1/events")?))?;
    Ok(Outcome::Done)
}

#[derive(Serialize)]
#[serde(transparent)]
struct Events(Vec<Event>);

impl Show for Events {
    fn table(&self) -> Table {
        let mut table = Table::new(&["TIME", "SEVERITY", "KIND", ">JOB", "MESSAGE"]);
        for event in &self.0 {
            table.row(vec![
                event.time.clone(),
                event.severity.clone(),
                event.kind.clone(),
                event.job.map_or_else(|| "-".into(), |job| job.to_string()),
                event.message.replace('\n', " "),
            ]);
        }
        table
    }
}
