//! `stillpoint timeflow`: the snapshots of a dSource or VDB.

use clap::Subcommand;
use serde::Serialize;

use super::context::Context;
use super::dsource::finish;
use super::exit::{Outcome, Result};
use super::output::{Show, Table, format_list};
use crate::api::{Bookmark, Points, Snapshot, segment};

#[derive(Subcommand)]
pub(super) enum Command {
    /// List a dataset's snapshots, oldest first
    List { dataset: String },
    /// Show from where to where points in time can be reached
    Points { dataset: String },
    /// Name a snapshot, so that nothing removes it
    Bookmark {
        #[arg(value_name = "DATASET@SNAPSHOT")]
        snapshot: String,
        name: String,
    },
    /// Start a throw-away clone of a snapshot and check its tables, indexes and pages
    Verify {
        #[arg(value_name = "DATASET@SNAPSHOT")]
        snapshot: String,
        /// Start nothing: check every page of the snapshot's files (SQL Server), as is done by itself after each snapshot
        #[arg(long)]
        files: bool,
        /// Return when the job is accepted
        #[arg(long)]
        no_wait: bool,
    },
    /// Destroy a snapshot that nothing depends on
    Destroy {
        #[arg(value_name = "DATASET@SNAPSHOT")]
        snapshot: String,
    },
}

pub(super) fn run(command: &Command, context: &Context) -> Result<Outcome> {
    let client = context.api()?;
    match command {
        Command::List { dataset } => {
            let found = client.list(&format!("/v1/datasets/{}/snapshots", segment(dataset)))?;
            context.output.show(&Snapshots(found))?;
        }
        Command::Points { dataset } => {
            let found = client.get(&format!("/v1/datasets/{}/points", segment(dataset)))?;
            context.output.show(&Spans(found))?;
        }
        Command::Bookmark { snapshot, name } => {
            let body = Bookmark { snapshot: snapshot.clone(), name: name.clone() };
            context.output.show(&Snapshots(vec![client.post("/v1/bookmarks", &body)?]))?;
        }
        Command::Destroy { snapshot } => {
            client.delete::<()>(&path_of(snapshot)?)?;
        }
        Command::Verify { snapshot, files, no_wait } => {
            let operation = if *files { "check-files" } else { "verify" };
            let accepted = client.post(&format!("{}/{operation}", path_of(snapshot)?), &())?;
            return finish(&client, &accepted, *no_wait, context);
        }
    }
    Ok(Outcome::Done)
}

fn path_of(snapshot: &str) -> Result<String> {
    let (dataset, name) = snapshot
        .split_once('@')
        .ok_or_else(|| crate::base::Error::invalid("write a snapshot as DATASET@SNAPSHOT"))?;
    Ok(format!("/v1/datasets/{}/snapshots/{}", segment(dataset), segment(name)))
}

/// What was found of its database, of its files, or of neither.
fn verdict(snapshot: &Snapshot) -> String {
    let found = [snapshot.verification.as_ref(), snapshot.file_check.as_ref()].into_iter().flatten();
    let problems: Vec<&str> = found.flat_map(|found| &found.problems).map(String::as_str).collect();
    match (&snapshot.verification, &snapshot.file_check) {
        _ if !problems.is_empty() => format!("damaged: {}", problems.join("; ")),
        (Some(_), _) => "sound".into(),
        (None, Some(_)) => "pages sound".into(),
        (None, None) => "-".into(),
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Spans(Vec<Points>);

impl Show for Spans {
    fn table(&self) -> Table {
        let mut table = Table::new(&[">TIMEFLOW", "STATE", "FROM", "TO", "FROM PLACE", "TO PLACE", "GAPS"]);
        for points in &self.0 {
            let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
            let to = text(&points.latest_time);
            table.row(vec![
                points.timeflow.to_string(),
                if points.current { "current".into() } else { "retired".into() },
                text(&points.earliest_time),
                if points.can_sync { format!("{to}, later ones by asking the source") } else { to },
                text(&points.earliest_place),
                text(&points.latest_place),
                format_list(&points.gaps),
            ]);
        }
        table
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Snapshots(Vec<Snapshot>);

impl Show for Snapshots {
    fn table(&self) -> Table {
        let mut table = Table::new(&[
            "SNAPSHOT",
            ">TIMEFLOW",
            "PROVISIONABLE",
            "VERIFIED",
            "LSN",
            "LAST COMMIT",
            "BOOKMARKS",
        ]);
        for snapshot in &self.0 {
            let text = |name: &str| snapshot.metadata[name].as_str().unwrap_or("-").to_owned();
            table.row(vec![
                snapshot.snapshot.clone(),
                snapshot.timeflow.to_string(),
                snapshot.reason.as_ref().map_or_else(|| "yes".into(), |reason| format!("no: {reason}")),
                verdict(snapshot),
                text("replay_lsn"),
                text("last_commit_time"),
                format_list(&snapshot.bookmarks),
            ]);
        }
        table
    }
}
