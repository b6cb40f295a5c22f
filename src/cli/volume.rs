//! `stillpoint volume`: create, list, show, rename, destroy, mount, quota.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;

use super::confirm::confirm;
use super::context::{Context, Session};
use super::exit::{Failure, Outcome, Result};
use super::mount;
use super::names::parse_name;
use super::output::{Output, Show, Table, format_limit, format_time};
use super::sizes::{format_bytes, parse_bytes};
use crate::base::ErrorKind;
use crate::control::{Limit, Reply, Request, VolumeRow};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make an empty volume
    Create {
        #[arg(value_parser = parse_name)]
        name: String,
        /// The most its files may reference
        #[arg(long, value_name = "SIZE", value_parser = parse_limit)]
        quota: Option<Limit>,
        /// Room kept for it
        #[arg(long, value_name = "SIZE", value_parser = parse_limit)]
        reservation: Option<Limit>,
    },
    /// List the volumes
    List,
    /// Show one volume
    Show {
        #[arg(value_parser = parse_name)]
        name: String,
    },
    /// Give a volume another name
    Rename {
        #[arg(value_parser = parse_name)]
        name: String,
        #[arg(value_parser = parse_name)]
        new_name: String,
    },
    /// Destroy a volume and its files
    Destroy {
        #[arg(value_parser = parse_name)]
        name: String,
        /// Destroy its snapshots as well
        #[arg(long)]
        with_snapshots: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Mount one volume alone; `unmount` ends it
    Mount {
        #[arg(value_parser = parse_name)]
        name: String,
        directory: PathBuf,
        #[command(flatten)]
        options: mount::Options,
    },
    /// Show or set how much a volume may take, and how much is kept for it
    Quota {
        #[arg(value_parser = parse_name)]
        name: String,
        /// The most its files may reference, or `none`
        #[arg(long, value_name = "SIZE", value_parser = parse_limit)]
        quota: Option<Limit>,
        /// Room kept for it, or `none`
        #[arg(long, value_name = "SIZE", value_parser = parse_limit)]
        reservation: Option<Limit>,
    },
}

pub(super) fn run(command: Command, context: &Context) -> Result<Outcome> {
    match command {
        Command::Create { name, quota, reservation } => {
            let session = context.open()?;
            session.ask(&Request::VolumeCreate { name: name.clone() })?;
            if quota.is_some() || reservation.is_some() {
                session.ask(&Request::VolumeQuota { name: name.clone(), quota, reservation })?;
            }
            session.close()?;
            context.output.show(&Named { name, origin: None })?;
        }
        Command::List => {
            let session = context.open()?;
            let Reply::Volumes(rows) = session.ask(&Request::VolumeList)? else { return Err(unexpected()) };
            let store = store_note(context, &session)?;
            session.close()?;
            context.output.show(&Volumes(rows.into_iter().map(VolumeView::from).collect(), store))?;
        }
        Command::Show { name } => show(context, &Request::VolumeShow { name })?,
        Command::Rename { name, new_name } => {
            context.ask(&Request::VolumeRename { name, new_name: new_name.clone() })?;
            context.output.show(&Named { name: new_name, origin: None })?;
        }
        Command::Destroy { name, with_snapshots, yes } => destroy(context, name, with_snapshots, yes)?,
        Command::Mount { name, directory, options } => {
            return mount::mount_volume(context, name, &directory, &options);
        }
        Command::Quota { name, quota, reservation } => {
            let request = if quota.is_some() || reservation.is_some() {
                Request::VolumeQuota { name, quota, reservation }
            } else {
                Request::VolumeShow { name }
            };
            show(context, &request)?;
        }
    }
    Ok(Outcome::Done)
}

fn show(context: &Context, request: &Request) -> Result<()> {
    let session = context.open()?;
    let row = ask_volume(&session, request)?;
    session.close()?;
    context.output.show(&VolumeView::from(row))
}

fn destroy(context: &Context, name: String, with_snapshots: bool, yes: bool) -> Result<()> {
    let session = context.open()?;
    let volume = ask_volume(&session, &Request::VolumeShow { name: name.clone() })?;
    let Reply::Snapshots(snapshots) = session.ask(&Request::SnapshotList { volume: Some(name.clone()) })?
    else {
        return Err(unexpected());
    };
    let names: Vec<String> = snapshots.iter().map(|s| format!("{}@{}", s.volume, s.name)).collect();
    if !snapshots.is_empty() && !with_snapshots {
        return Err(Failure::new(
            ErrorKind::InUse,
            format!("volume {name} has {} snapshots: {}", names.len(), names.join(", ")),
        )
        .hint("destroy them first, or add --with-snapshots"));
    }
    let mut consequences = vec![format!("frees {}", format_bytes(volume.unique_bytes))];
    consequences.extend(names.iter().map(|snapshot| format!("destroys {snapshot}")));
    confirm(yes, &format!("destroying volume {name}"), &consequences)?;
    session.ask(&Request::VolumeDestroy { name: name.clone(), with_snapshots })?;
    session.close()?;
    context.output.show(&Destroyed { destroyed: name, freed_bytes: volume.unique_bytes, snapshots: names })
}

fn ask_volume(session: &Session, request: &Request) -> Result<VolumeRow> {
    match session.ask(request)? {
        Reply::Volume(row) => Ok(row),
        _ => Err(unexpected()),
    }
}

/// The failure of an answer that is none to what was asked.
pub(super) fn unexpected() -> Failure {
    Failure::new(ErrorKind::Io, "the mounting process answered something else than was asked")
        .hint("mount again with this version of the program")
}

fn parse_limit(text: &str) -> std::result::Result<Limit, String> {
    if text == "none" { Ok(Limit::None) } else { parse_bytes(text).map(Limit::Bytes) }
}

/// A volume that was just made or named. Its figures would take longer than making it.
#[derive(Serialize)]
pub(super) struct Named {
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) origin: Option<String>,
}

impl Show for Named {
    fn table(&self) -> Table {
        let mut table = Table::facts();
        table.fact("volume", &self.name);
        if let Some(origin) = &self.origin {
            table.fact("origin", origin);
        }
        table
    }
}

/// A volume as it is shown.
#[derive(Serialize)]
pub(super) struct VolumeView {
    name: String,
    origin: Option<String>,
    created: String,
    logical_bytes: u64,
    referenced_bytes: u64,
    unique_bytes: u64,
    quota_bytes: Option<u64>,
    reservation_bytes: Option<u64>,
    snapshots: u64,
}

impl From<VolumeRow> for VolumeView {
    fn from(row: VolumeRow) -> Self {
        Self {
            name: row.name,
            origin: row.origin,
            created: format_time(row.created_unix_nanos),
            logical_bytes: row.logical_bytes,
            referenced_bytes: row.referenced_bytes,
            unique_bytes: row.unique_bytes,
            quota_bytes: row.quota_bytes,
            reservation_bytes: row.reservation_bytes,
            snapshots: row.snapshots,
        }
    }
}

impl Show for VolumeView {
    fn table(&self) -> Table {
        let mut table = Table::facts();
        table.fact("name", &self.name);
        table.fact("origin", self.origin.as_deref().unwrap_or("-"));
        table.fact("created", &self.created);
        table.fact("logical", format_bytes(self.logical_bytes));
        table.fact("referenced", format_bytes(self.referenced_bytes));
        table.fact("unique", format_bytes(self.unique_bytes));
        table.fact("quota", format_limit(self.quota_bytes));
        table.fact("reservation", format_limit(self.reservation_bytes));
        table.fact("snapshots", self.snapshots.to_string());
        table
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Volumes(Vec<VolumeView>, #[serde(skip)] String);

/// What all volumes and snapshots take together: blocks are shared, so no row has host bytes of its own.
pub(super) fn store_note(context: &Context, session: &Session) -> Result<String> {
    if context.output == Output::Json {
        return Ok(String::new());
    }
    let Reply::Stats(stats) = session.ask(&Request::StoreStats)? else { return Err(unexpected()) };
    let (logical, physical) = (format_bytes(stats.logical_bytes), format_bytes(stats.physical_bytes));
    Ok(format!("in all {logical} logical, {physical} physical"))
}

impl Show for Volumes {
    fn table(&self) -> Table {
        let mut table =
            Table::new(&["NAME", "ORIGIN", "CREATED", ">LOGICAL", ">REFERENCED", ">UNIQUE", ">SNAPSHOTS"]);
        for volume in &self.0 {
            table.row(vec![
                volume.name.clone(),
                volume.origin.clone().unwrap_or_else(|| "-".into()),
                volume.created.clone(),
                format_bytes(volume.logical_bytes),
                format_bytes(volume.referenced_bytes),
                format_bytes(volume.unique_bytes),
                volume.snapshots.to_string(),
            ]);
        }
        table.note(self.1.clone());
        table
    }
}

/// What a destroy took away.
#[derive(Serialize)]
pub(super) struct Destroyed {
    pub destroyed: String,
    pub freed_bytes: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<String>,
}

impl Show for Destroyed {
    fn table(&self) -> Table {
        let mut table = Table::facts();
        table.fact("destroyed", &self.destroyed);
        for snapshot in &self.snapshots {
            table.fact("destroyed", snapshot);
        }
        table.fact("frees", format_bytes(self.freed_bytes));
        table
    }
}
