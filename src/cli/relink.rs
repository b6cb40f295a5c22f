//! `stillpoint dsource configure`, `attach`, `resync`, and `vdb configure`: what changes of a dataset's link and server.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value, json};

use super::context::Context;
use super::dsource::{Review, SourceTls, Target, absolute, finish, parse_setting, source_secrets};
use super::exit::{Outcome, Result};
use crate::api::{ApiClient, Change, LinkPlan, segment};

/// Another address of the source; what is not named stays.
#[derive(Args)]
pub(super) struct Source {
    /// A source that was added: its address and password are taken
    #[arg(long, value_name = "NAME", conflicts_with_all = ["source_host", "source_port", "source_user", "source_tls", "source_ca", "password_file"])]
    source: Option<String>,
    #[arg(long, value_name = "HOST")]
    source_host: Option<String>,
    #[arg(long, value_name = "PORT")]
    source_port: Option<u16>,
    #[arg(long, value_name = "ROLE")]
    source_user: Option<String>,
    #[command(flatten)]
    tls: SourceTls,
    /// The file that holds its password; else the environment variable STILLPOINT_SOURCE_PASSWORD, or the old one
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Where WAL files come
    #[arg(long, value_name = "DIR")]
    wal_path: Option<PathBuf>,
}

/// Other settings of the server.
#[derive(Args)]
pub(super) struct Settings {
    /// A setting of the server
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_setting)]
    settings: Vec<(String, String)>,
    /// Take a setting away
    #[arg(long, value_name = "NAME")]
    unset: Vec<String>,
}

/// How a SQL Server database is kept in sync from now on.
#[derive(Args)]
pub(super) struct Following {
    /// Of SQL Server: you keep it in sync, by hand or in a pre_sync hook
    #[arg(long, conflicts_with_all = ["backup_path", "source_database"])]
    staging_push: bool,
    /// Of SQL Server: the engine restores what comes into this folder of backups
    #[arg(long, value_name = "DIR")]
    backup_path: Option<PathBuf>,
    /// Of SQL Server: whose backups, when the folder has those of several databases
    #[arg(long, value_name = "DATABASE", requires = "backup_path")]
    source_database: Option<String>,
}

impl Following {
    fn add_to(self, change: &mut Change) -> Result<()> {
        let Value::Object(parameters) = &mut change.parameters else { return Ok(()) };
        if self.staging_push {
            parameters.insert("staging_push".to_owned(), true.into());
        }
        if let Some(path) = absolute(&self.backup_path)? {
            parameters.insert("backup_path".to_owned(), json!(path));
        }
        if let Some(name) = self.source_database {
            parameters.insert("source_database".to_owned(), name.into());
        }
        Ok(())
    }
}

/// `dsource configure`.
#[derive(Args)]
pub(super) struct Configure {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    commands: super::application::Commands,
    #[command(flatten)]
    following: Following,
    /// Where the staging server listens
    #[arg(long, value_name = "PORT")]
    staging_port: Option<u16>,
    /// Whether an image of the newest snapshot is kept ready
    #[arg(long)]
    image: Option<bool>,
    /// Ask the source, print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// `dsource attach` and `resync`.
#[derive(Args)]
pub(super) struct Relink {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    following: Following,
    /// Of SQL Server: another name for the staging database
    #[arg(long, value_name = "DATABASE")]
    staging_database: Option<String>,
    /// Ask the source, print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// `vdb configure`.
#[derive(Args)]
pub(super) struct ConfigureVdb {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    settings: Settings,
    /// Where it listens
    #[arg(long)]
    port: Option<u16>,
}

pub(super) fn configure(client: &ApiClient, arguments: Configure, context: &Context) -> Result<Outcome> {
    let mut change = Change {
        port: arguments.staging_port,
        images: arguments.image,
        ..change(arguments.source, arguments.settings, None)?
    };
    if let Value::Object(parameters) = &mut change.parameters {
        parameters.extend(arguments.commands.changes());
    }
    arguments.following.add_to(&mut change)?;
    send(client, &arguments.target, "configure", &change, arguments.dry_run, context)
}

pub(super) fn configure_vdb(
    client: &ApiClient,
    arguments: ConfigureVdb,
    context: &Context,
) -> Result<Outcome> {
    let parameters = Value::Object(of_settings(arguments.settings));
    let change = Change { port: arguments.port, parameters, ..Change::default() };
    send(client, &arguments.target, "configure", &change, false, context)
}

pub(super) fn attach(client: &ApiClient, arguments: Relink, context: &Context) -> Result<Outcome> {
    let mut change = change(arguments.source, arguments.settings, None)?;
    if let (Value::Object(parameters), Some(name)) = (&mut change.parameters, arguments.staging_database) {
        parameters.insert("database".to_owned(), name.into());
    }
    arguments.following.add_to(&mut change)?;
    send(client, &arguments.target, "attach", &change, arguments.dry_run, context)
}

pub(super) fn resync(
    client: &ApiClient,
    arguments: Relink,
    external_backup: Option<PathBuf>,
    context: &Context,
) -> Result<Outcome> {
    let mut change = change(arguments.source, arguments.settings, external_backup)?;
    arguments.following.add_to(&mut change)?;
    send(client, &arguments.target, "resync", &change, arguments.dry_run, context)
}

fn send(
    client: &ApiClient,
    target: &Target,
    operation: &str,
    change: &Change,
    dry_run: bool,
    context: &Context,
) -> Result<Outcome> {
    let path = format!("/v1/datasets/{}/{operation}", segment(&target.name));
    if dry_run {
        context.output.show(&Review(client.post::<LinkPlan>(&format!("{path}/plan"), change)?))?;
        return Ok(Outcome::Done);
    }
    let accepted = client.post(&path, change)?;
    finish(client, &accepted, target.no_wait, context)
}

fn of_settings(settings: Settings) -> Map<String, Value> {
    let set: Map<String, Value> =
        settings.settings.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
    Map::from_iter([("settings".to_owned(), Value::Object(set)), ("unset".to_owned(), json!(settings.unset))])
}

fn change(source: Source, settings: Settings, external_backup: Option<PathBuf>) -> Result<Change> {
    let mut parameters = of_settings(settings);
    let address = json!({
        "host": source.source_host,
        "port": source.source_port,
        "user": source.source_user,
        "tls": source.tls.source_tls,
        "ca": absolute(&source.tls.source_ca)?,
    });
    if address.as_object().is_some_and(|fields| fields.values().any(|value| !value.is_null())) {
        parameters.insert("source".to_owned(), address);
    }
    for (name, path) in [("wal_directory", source.wal_path), ("external_backup", external_backup)] {
        if let Some(path) = absolute(&path)? {
            parameters.insert(name.to_owned(), json!(path));
        }
    }
    Ok(Change {
        parameters: Value::Object(parameters),
        secrets: source_secrets(source.source.as_deref(), source.password_file.as_deref())?,
        source: source.source,
        ..Change::default()
    })
}
