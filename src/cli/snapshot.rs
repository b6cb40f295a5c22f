//! `stillpoint snapshot`: create, list, show, destroy, hold, release.

use clap::Subcommand;
use serde::Serialize;

use super::confirm::confirm;
use super::context::{Context, Session};
use super::exit::{Failure, Outcome, Result};
use super::names::{SnapshotName, parse_name};
use super::output::{Show, Table, format_list, format_time};
use super::sizes::format_bytes;
use super::volume::{Destroyed, store_note, unexpected};
use crate::base::ErrorKind;
use crate::control::{Reply, Request, SnapshotRow};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Take a snapshot: one cut across all files of the volume
    Create {
        #[arg(value_name = "VOLUME@NAME")]
        snapshot: SnapshotName,
    },
    /// List the snapshots of one volume, or of all
    List {
        #[arg(value_parser = parse_name)]
        volume: Option<String>,
    },
    /// Show one snapshot
    Show {
        #[arg(value_name = "VOLUME@NAME")]
        snapshot: SnapshotName,
    },
    /// Destroy a snapshot
    Destroy {
        #[arg(value_name = "VOLUME@NAME")]
        snapshot: SnapshotName,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Keep a snapshot from being destroyed until the hold is released
    Hold {
        #[arg(value_name = "VOLUME@NAME")]
        snapshot: SnapshotName,
        /// The hold's name
        #[arg(long, default_value = "user", value_parser = parse_name)]
        tag: String,
    },
    /// Release a hold
    Release {
        #[arg(value_name = "VOLUME@NAME")]
        snapshot: SnapshotName,
        /// The hold's name
        #[arg(long, default_value = "user", value_parser = parse_name)]
        tag: String,
    },
}

pub(super) fn run(command: Command, context: &Context) -> Result<Outcome> {
    match command {
        Command::Create { snapshot: SnapshotName { volume, name } } => {
            let session = context.open()?;
            let row = ask_snapshot(&session, &Request::SnapshotCreate { volume, name })?;
            session.close()?;
            context.output.show(&Taken::from(row))?;
        }
        Command::List { volume } => {
            let session = context.open()?;
            let Reply::Snapshots(rows) = session.ask(&Request::SnapshotList { volume })? else {
                return Err(unexpected());
            };
            let store = store_note(context, &session)?;
            session.close()?;
            context.output.show(&Snapshots(rows.into_iter().map(SnapshotView::from).collect(), store))?;
        }
        Command::Show { snapshot: SnapshotName { volume, name } } => {
            show(context, &Request::SnapshotShow { volume, name })?;
        }
        Command::Destroy { snapshot, yes } => destroy(context, snapshot, yes)?,
        Command::Hold { snapshot: SnapshotName { volume, name }, tag } => {
            show(context, &Request::SnapshotHold { volume, name, tag })?;
        }
        Command::Release { snapshot: SnapshotName { volume, name }, tag } => {
            show(context, &Request::SnapshotRelease { volume, name, tag })?;
        }
    }
    Ok(Outcome::Done)
}

fn show(context: &Context, request: &Request) -> Result<()> {
    let session = context.open()?;
    let row = ask_snapshot(&session, request)?;
    session.close()?;
    context.output.show(&SnapshotView::from(row))
}

fn destroy(context: &Context, snapshot: SnapshotName, yes: bool) -> Result<()> {
    let session = context.open()?;
    let shown = snapshot.to_string();
    let SnapshotName { volume, name } = snapshot;
    let row = ask_snapshot(&session, &Request::SnapshotShow { volume: volume.clone(), name: name.clone() })?;
    if !row.holds.is_empty() {
        return Err(Failure::new(
            ErrorKind::InUse,
            format!("snapshot {shown} is held by: {}", row.holds.join(", ")),
        )
        .hint(format!("release it with `stillpoint snapshot release {shown} --tag {}`", row.holds[0])));
    }
    if !row.clones.is_empty() {
        return Err(Failure::new(
            ErrorKind::InUse,
            format!("snapshot {shown} is the origin of: {}", row.clones.join(", ")),
        )
        .hint("destroy these volumes first"));
    }
    confirm(
        yes,
        &format!("destroying snapshot {shown}"),
        &[format!("frees {}", format_bytes(row.unique_bytes))],
    )?;
    session.ask(&Request::SnapshotDestroy { volume, name })?;
    session.close()?;
    context.output.show(&Destroyed { destroyed: shown, freed_bytes: row.unique_bytes, snapshots: Vec::new() })
}

fn ask_snapshot(session: &Session, request: &Request) -> Result<SnapshotRow> {
    match session.ask(request)? {
        Reply::Snapshot(row) => Ok(row),
        _ => Err(unexpected()),
    }
}

/// A snapshot that was just taken. Its figures would take longer than taking it.
#[derive(Serialize)]
struct Taken {
    volume: String,
    name: String,
    created: String,
}

impl From<SnapshotRow> for Taken {
    fn from(row: SnapshotRow) -> Self {
        Self { volume: row.volume, name: row.name, created: format_time(row.created_unix_nanos) }
    }
}

impl Show for Taken {
    fn table(&self) -> Table {
        let mut table = Table::facts();
        table.fact("snapshot", format!("{}@{}", self.volume, self.name));
        table.fact("created", &self.created);
        table
    }
}

/// A snapshot as it is shown.
#[derive(Serialize)]
struct SnapshotView {
    volume: String,
    name: String,
    /// The volume it was taken of.
    origin: String,
    created: String,
    logical_bytes: u64,
    referenced_bytes: u64,
    unique_bytes: u64,
    holds: Vec<String>,
    clones: Vec<String>,
}

impl From<SnapshotRow> for SnapshotView {
    fn from(row: SnapshotRow) -> Self {
        Self {
            origin: row.volume.clone(),
            volume: row.volume,
            name: row.name,
            created: format_time(row.created_unix_nanos),
            logical_bytes: row.logical_bytes,
            referenced_bytes: row.referenced_bytes,
            unique_bytes: row.unique_bytes,
            holds: row.holds,
            clones: row.clones,
        }
    }
}

impl Show for SnapshotView {
    fn table(&self) -> Table {
        let mut table = Table::facts();
        table.fact("snapshot", format!("{}@{}", self.volume, self.name));
        table.fact("created", &self.created);
        table.fact("logical", format_bytes(self.logical_bytes));
        table.fact("referenced", format_bytes(self.referenced_bytes));
        table.fact("unique", format_bytes(self.unique_bytes));
        table.fact("holds", format_list(&self.holds));
        table.fact("clones", format_list(&self.clones));
        table
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Snapshots(Vec<SnapshotView>, #[serde(skip)] String);

impl Show for Snapshots {
    fn table(&self) -> Table {
        let mut table =
            Table::new(&["SNAPSHOT", "CREATED", ">LOGICAL", ">REFERENCED", ">UNIQUE", "HOLDS", "CLONES"]);
        for snapshot in &self.0 {
            table.row(vec![
                format!("{}@{}", snapshot.volume, snapshot.name),
                snapshot.created.clone(),
                format_bytes(snapshot.logical_bytes),
                format_bytes(snapshot.referenced_bytes),
                format_bytes(snapshot.unique_bytes),
                format_list(&snapshot.holds),
                format_list(&snapshot.clones),
            ]);
        }
        table.note(self.1.clone());
        table
    }
}
