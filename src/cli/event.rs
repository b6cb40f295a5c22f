//! `stillpoint event`: what happened.

use clap::Subcommand;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::Context;
use super::exit::{Outcome, Result};
use super::output::{Output, Show, Table};
use crate::api::{ApiClient, Event, Frame, Problem};
use crate::base::{Error, ErrorKind};

#[derive(Subcommand)]
pub(super) enum Command {
    /// List the newest events
    List {
        /// How many at most
        #[arg(long, default_value_t = 1000, value_name = "COUNT")]
        limit: usize,
    },
    /// Print events as they happen, until the daemon or the caller ends it
    Watch {
        /// Begin behind this event instead of with the next one; 0 for the oldest
        #[arg(long, value_name = "ID")]
        after: Option<u64>,
    },
}

pub(super) fn run(command: &Command, context: &Context) -> Result<Outcome> {
    let client = context.api()?;
    match command {
        Command::List { limit } => {
            context.output.show(&Events(client.get(&format!("/v1/events?limit={limit}"))?))?;
        }
        Command::Watch { after } => watch(&client, *after, context)?,
    }
    Ok(Outcome::Done)
}

fn watch(client: &ApiClient, after: Option<u64>, context: &Context) -> Result<()> {
    let query = after.map(|after| format!("?after={after}")).unwrap_or_default();
    let mut frames = client.follow(&format!("/v1/events/stream{query}"))?;
    while let Some(frame) = frames.next_frame()? {
        match frame.kind.as_str() {
            "event" => print(&read(&frame)?, context)?,
            "problem" => return Err(Error::from(read::<Problem>(&frame)?).into()),
            // Too many for a stream.
            _ => eprintln!("stillpoint: events were left out: see `stillpoint event list`"),
        }
    }
    Ok(())
}

/// What a frame of a stream says.
pub(super) fn read<T: DeserializeOwned>(frame: &Frame) -> Result<T> {
    Ok(serde_json::from_str(&frame.data).map_err(|e| {
        Error::new(
            ErrorKind::Unsupported,
            format!("the daemon's stream is not understood ({e}): is it of another version?"),
        )
    })?)
}

/// One line, so that lines can be taken apart as they come.
fn print(event: &Event, context: &Context) -> Result<()> {
    let line = match context.output {
        Output::Json => serde_json::to_string(event).map_err(|e| Error::invalid(e.to_string()))?,
        Output::Table => format!(
            "{}  {}  {}  {}",
            event.time,
            event.severity,
            event.kind,
            event.message.replace('\n', " ")
        ),
    };
    context.output.text(&format!("{line}\n"))
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
