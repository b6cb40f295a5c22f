//! `stillpoint dsource`: link, list, show, snapshot, start, stop, enable, disable, delete.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use super::confirm::confirm;
use super::context::Context;
use super::exit::{Failure, Outcome, Result};
use super::follow::{follow, outcome};
use super::hook::Attached;
use super::output::{Show, Table};
use super::relink::{Configure, Relink, attach, configure, resync};
use super::sizes::format_bytes;
use crate::api::{Accepted, ApiClient, Dataset, Link, LinkPlan, default_group, segment};
use crate::base::{Error, ErrorKind};

/// The environment variable that holds the replication user's password.
pub(super) const PASSWORD_VARIABLE: &str = "STILLPOINT_SOURCE_PASSWORD";

/// The words of libpq's `sslmode`, as far as they are offered.
pub(super) const TLS_MODES: [&str; 4] = ["disable", "prefer", "require", "verify-full"];

#[derive(Subcommand)]
pub(super) enum Command {
    /// Link a source database: a first copy, a staging server that follows it, and a first snapshot
    #[command(subcommand)]
    Link(LinkCommand),
    /// List dSources
    List,
    /// Show one dSource and what its staging server answers now
    Show { name: String },
    /// Bring a dSource up to its source and snapshot it
    Snapshot(Target),
    /// Start the staging server
    Start(Target),
    /// Stop the staging server
    Stop(Target),
    /// Resume a disabled dSource
    Enable(Target),
    /// Stop the staging server and every operation on the dSource
    Disable(Target),
    /// Change settings, port, source address or password; the server starts again with them
    Configure(Box<Configure>),
    /// End the link to the source; the dSource is kept and provisions
    Detach {
        #[command(flatten)]
        target: Target,
        /// Give up, for the moment, what it holds on a source that cannot be reached
        #[arg(long)]
        force: bool,
    },
    /// Link a detached dSource again: to its source, or to another server of the same cluster
    Attach(Box<Relink>),
    /// Take a new first copy into a new timeflow; snapshots stay, and equal blocks are stored once
    Resync {
        #[command(flatten)]
        relink: Box<Relink>,
        /// Begin with another backup that is there
        #[arg(long, value_name = "PATH")]
        external_backup: Option<PathBuf>,
    },
    /// Delete a dSource with all its snapshots
    Delete {
        #[command(flatten)]
        target: Target,
        /// Give up what it holds on a source that cannot be reached, and let VDBs that live on it keep their data
        #[arg(long)]
        force: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Args)]
pub(super) struct Target {
    pub name: String,
    /// Return when the job is accepted
    #[arg(long)]
    pub no_wait: bool,
}

#[derive(Subcommand)]
pub(super) enum LinkCommand {
    /// Link a PostgreSQL cluster
    Postgres(Box<Postgres>),
    /// Link a SQL Server database by a staging database that you restore into, or that follows a folder of backups
    Sqlserver(Box<super::sqlserver::SqlServer>),
    /// Link any other application: a folder of its files, and commands that hold it for a snapshot
    Command(Box<super::application::Application>),
}

#[derive(Args)]
pub(super) struct Postgres {
    /// The dSource's name
    #[arg(long)]
    name: String,
    /// The group whose permissions it shares
    #[arg(long, default_value_t = default_group())]
    group: String,
    /// Take the first copy by a base backup now, and follow by streaming
    #[arg(long, conflicts_with_all = ["external_backup", "wal_path"])]
    initiated_backup: bool,
    /// Make the first copy of a base backup that is there: a folder with base.tar (.gz, .zst, .lz4) or a plain one
    #[arg(long, value_name = "PATH", required_unless_present = "initiated_backup")]
    external_backup: Option<PathBuf>,
    /// Follow by the WAL files that come into this folder
    #[arg(long, value_name = "DIR")]
    wal_path: Option<PathBuf>,
    /// Follow an external backup by streaming from the source; WAL files are the fallback, if a folder is named
    #[arg(long)]
    streaming: bool,
    /// A source that was added: its address and password are taken
    #[arg(long, value_name = "NAME", conflicts_with_all = ["source_host", "source_port", "source_user", "source_tls", "source_ca", "password_file"])]
    source: Option<String>,
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    source_host: String,
    #[arg(long, value_name = "PORT", default_value_t = 5432)]
    source_port: u16,
    #[command(flatten)]
    tls: SourceTls,
    /// A role of the source that may replicate
    #[arg(long, value_name = "ROLE")]
    source_user: Option<String>,
    /// The bootstrap superuser of an external backup that is not streamed: postgres if not told
    #[arg(long, value_name = "ROLE")]
    superuser: Option<String>,
    /// The file that holds its password; else the environment variable STILLPOINT_SOURCE_PASSWORD is taken
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Where the staging server listens
    #[arg(long, value_name = "PORT")]
    staging_port: u16,
    /// A setting of the staging server
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_setting)]
    settings: Vec<(String, String)>,
    /// Keep no logs: no points in time between snapshots
    #[arg(long)]
    no_logs: bool,
    /// Keep no image of the newest snapshot ready: a VDB takes as long as its recovery
    #[arg(long)]
    no_image: bool,
    #[command(flatten)]
    attached: Attached,
    /// Ask the source, print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Return when the job is accepted
    #[arg(long)]
    no_wait: bool,
}

/// How connections to the source are secured, in the words of libpq's `sslmode`.
#[derive(Args)]
pub(super) struct SourceTls {
    /// Encryption to the source: prefer takes it when it is there, verify-full also checks who answers [default: prefer]
    #[arg(long, value_name = "MODE", value_parser = TLS_MODES)]
    pub(super) source_tls: Option<String>,
    /// The certificates of the authorities that vouch for the source, in PEM: for verify-full
    #[arg(long, value_name = "FILE")]
    pub(super) source_ca: Option<PathBuf>,
}

pub(super) fn run(command: Command, context: &Context) -> Result<Outcome> {
    let client = context.api()?;
    match command {
        Command::Link(LinkCommand::Postgres(arguments)) => link(&client, *arguments, context),
        Command::Link(LinkCommand::Sqlserver(database)) => {
            let (dry_run, no_wait) = (database.dry_run, database.no_wait);
            submit_link(&client, &database.request()?, dry_run, no_wait, context)
        }
        Command::Link(LinkCommand::Command(application)) => {
            let (dry_run, no_wait) = (application.dry_run, application.no_wait);
            submit_link(&client, &application.request()?, dry_run, no_wait, context)
        }
        Command::List => {
            context.output.show(&Datasets(client.list("/v1/dsources")?))?;
            Ok(Outcome::Done)
        }
        Command::Show { name } => show(&client, &name, context),
        Command::Snapshot(target) => {
            let accepted = client.post(&format!("/v1/datasets/{}/snapshots", segment(&target.name)), &())?;
            finish(&client, &accepted, target.no_wait, context)
        }
        Command::Start(target) => operate(&client, &target, "start", context),
        Command::Stop(target) => operate(&client, &target, "stop", context),
        Command::Enable(target) => operate(&client, &target, "enable", context),
        Command::Disable(target) => operate(&client, &target, "disable", context),
        Command::Configure(arguments) => configure(&client, *arguments, context),
        Command::Detach { target, force } => {
            let path = format!("/v1/datasets/{}/detach?force={force}", segment(&target.name));
            finish(&client, &client.post(&path, &())?, target.no_wait, context)
        }
        Command::Attach(arguments) => attach(&client, *arguments, context),
        Command::Resync { relink, external_backup } => resync(&client, *relink, external_backup, context),
        Command::Delete { target, force, yes } => delete(&client, &target, force, yes, context),
    }
}

fn link(client: &ApiClient, arguments: Postgres, context: &Context) -> Result<Outcome> {
    let parameters = parameters(&arguments)?;
    let body = Link {
        name: arguments.name,
        group: arguments.group,
        adapter: "postgres".into(),
        secrets: source_secrets(arguments.source.as_deref(), arguments.password_file.as_deref())?,
        source: arguments.source,
        port: Some(arguments.staging_port),
        parameters,
        logs: !arguments.no_logs,
        images: !arguments.no_image,
        policies: arguments.attached.policies.clone(),
        mount_base: arguments.attached.mount_base()?,
        hooks: arguments.attached.hooks()?,
    };
    submit_link(client, &body, arguments.dry_run, arguments.no_wait, context)
}

fn submit_link(
    client: &ApiClient,
    body: &Link,
    dry_run: bool,
    no_wait: bool,
    context: &Context,
) -> Result<Outcome> {
    if dry_run {
        let plan: LinkPlan = client.post("/v1/dsources/plan", body)?;
        context.output.show(&Review(plan))?;
        return Ok(Outcome::Done);
    }
    let accepted = client.post("/v1/dsources", body)?;
    finish(client, &accepted, no_wait, context)
}

/// What the adapter is asked for.
fn parameters(arguments: &Postgres) -> Result<serde_json::Value> {
    let settings: BTreeMap<String, String> = arguments.settings.iter().cloned().collect();
    let streams = arguments.initiated_backup || arguments.streaming;
    match (streams, &arguments.source, &arguments.source_user) {
        (true, None, None) => {
            return Err(Error::invalid(
                "name the source: --source NAME, or --source-user ROLE with --source-host and --source-port",
            )
            .into());
        }
        (false, Some(_), _) => {
            return Err(Error::invalid(
                "--source is followed by streaming: add --initiated-backup, or --streaming",
            )
            .into());
        }
        _ => {}
    }
    let tls = &arguments.tls;
    let ca = absolute(&tls.source_ca)?;
    let source = arguments.source_user.as_ref().filter(|_| streams).map(|user| {
        let mut source =
            json!({ "host": arguments.source_host, "port": arguments.source_port, "user": user, "ca": ca });
        if let Some(mode) = &tls.source_tls {
            source["tls"] = json!(mode);
        }
        source
    });
    Ok(json!({
        "initiated_backup": arguments.initiated_backup,
        "external_backup": absolute(&arguments.external_backup)?,
        "wal_directory": absolute(&arguments.wal_path)?,
        "superuser": arguments.superuser,
        "source": source,
        "settings": settings,
    }))
}

/// The password of a source that is named by its address; a source that was added has its own.
pub(super) fn source_secrets(
    source: Option<&str>,
    password_file: Option<&Path>,
) -> Result<BTreeMap<String, String>> {
    if source.is_some() {
        return Ok(BTreeMap::new());
    }
    let password = password(password_file, PASSWORD_VARIABLE)?;
    Ok(password.map(|password| ("source_password".to_owned(), password)).into_iter().collect())
}

/// A path that means the same to the daemon, which has another working directory.
pub(super) fn absolute(path: &Option<PathBuf>) -> Result<Option<PathBuf>> {
    let absolute = path.as_ref().map(std::path::absolute).transpose();
    Ok(absolute.map_err(|e| Error::io("resolve", "a path", e))?)
}

/// The password from the file, or else from the environment; never from the arguments, which others can see.
pub(super) fn password(file: Option<&Path>, variable: &str) -> Result<Option<String>> {
    let Some(path) = file else {
        return Ok(std::env::var(variable).ok());
    };
    let text =
        std::fs::read_to_string(path).map_err(|e| Error::io("read", &path.display().to_string(), e))?;
    Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// Prints the job that was accepted, or waits for its end and prints that.
pub(super) fn finish(
    client: &ApiClient,
    accepted: &Accepted,
    no_wait: bool,
    context: &Context,
) -> Result<Outcome> {
    if no_wait {
        context.output.show(&client.get::<crate::api::Job>(&format!("/v1/jobs/{}", accepted.job))?)?;
        return Ok(Outcome::Done);
    }
    let job = follow(client, accepted)?;
    let ended = outcome(&job)?;
    context.output.show(&job)?;
    Ok(ended)
}

/// Starts an operation that needs no words of its own.
pub(super) fn operate(
    client: &ApiClient,
    target: &Target,
    operation: &str,
    context: &Context,
) -> Result<Outcome> {
    let accepted = client.post(&format!("/v1/datasets/{}/{operation}", segment(&target.name)), &())?;
    finish(client, &accepted, target.no_wait, context)
}

pub(super) fn show(client: &ApiClient, name: &str, context: &Context) -> Result<Outcome> {
    context.output.show(&client.get::<Dataset>(&format!("/v1/datasets/{}", segment(name)))?)?;
    Ok(Outcome::Done)
}

pub(super) fn delete(
    client: &ApiClient,
    target: &Target,
    force: bool,
    yes: bool,
    context: &Context,
) -> Result<Outcome> {
    let path = format!("/v1/datasets/{}", segment(&target.name));
    let dataset: Dataset = client.get(&path)?;
    let volume = dataset.volume.unwrap_or_default();
    confirm(
        yes,
        &format!("deleting {}", target.name),
        &[format!("destroys its volume {volume} and {} snapshots", dataset.snapshots)],
    )?;
    let accepted = client.delete(&format!("{path}?force={force}"))?;
    finish(client, &accepted, target.no_wait, context)
}

/// `NAME=VALUE`.
pub(super) fn parse_setting(text: &str) -> std::result::Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write a setting as NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// What a link would do.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Review(pub LinkPlan);

impl Show for Review {
    fn table(&self) -> Table {
        let mut table = Table::facts();
        for (name, value) in &self.0.review {
            table.fact(name, value);
        }
        if let Some(bytes) = self.0.estimated_bytes {
            table.fact("size of the databases", format_bytes(bytes));
        }
        for warning in &self.0.warnings {
            table.fact("warning", warning);
        }
        table.note("nothing was done: leave out --dry-run to do it".into());
        table
    }
}

/// Datasets as a list.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Datasets(pub Vec<Dataset>);

impl Show for Datasets {
    fn table(&self) -> Table {
        let mut table = Table::new(&["NAME", "GROUP", "STATE", ">PORT", "FROM", ">SNAPSHOTS", "FAULTS"]);
        for dataset in &self.0 {
            let faults: Vec<&str> = dataset.faults.iter().map(|fault| fault.code.as_str()).collect();
            table.row(vec![
                dataset.name.clone(),
                dataset.group.clone(),
                if dataset.locked { format!("{}, locked", dataset.state) } else { dataset.state.clone() },
                dataset.port.to_string(),
                dataset.from.clone().unwrap_or_else(|| "-".into()),
                dataset.snapshots.to_string(),
                if faults.is_empty() { "-".into() } else { faults.join(", ") },
            ]);
        }
        table
    }
}

impl Show for Dataset {
    fn table(&self) -> Table {
        let mut table = Table::facts();
        table.fact("name", &self.name);
        table.fact("group", &self.group);
        if let Some(source) = &self.source {
            table.fact("source config", source);
        }
        table.fact("state", &self.state);
        table.fact("created", &self.created);
        table.fact("port", self.port.to_string());
        if let Some(volume) = &self.volume {
            table.fact("volume", volume);
        }
        if let Some(from) = &self.from {
            table.fact("from", from);
        }
        table.fact("snapshots", self.snapshots.to_string());
        if let Some(health) = &self.health {
            let server = match health.pid {
                Some(pid) => format!("{}, process {pid}", health.state),
                None => health.state.clone(),
            };
            table.fact("server", server);
            for (name, value) in &health.facts {
                table.fact(name, value);
            }
        }
        for (name, value) in &self.connection {
            table.fact(name, value);
        }
        for fault in &self.faults {
            table.fact("fault", format!("{} {}; {}", fault.code, fault.message, fault.action));
        }
        table
    }
}

/// Something that only a daemon can do was asked of a store without one.
pub(super) fn wrong_role(name: &str, role: &str, wanted: &str) -> Failure {
    Failure::new(ErrorKind::Precondition, format!("{name} is a {role}, not a {wanted}"))
}
