//! `stillpoint vdb`: provision, list, show, start, stop, refresh, rewind, undo, lock, env, psql, delete.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::context::Context;
use super::dsource::{Datasets, Target, delete, finish, operate, parse_setting, password, show, wrong_role};
use super::exit::{Failure, Outcome, Result};
use super::hook::Attached;
use super::relink::{ConfigureVdb, configure_vdb};
use crate::api::{ApiClient, Dataset, Export, Point, Provision, Replace, default_group, segment};
use crate::base::{Error, ErrorKind};

/// The environment variable that holds the owner's password.
const OWNER_PASSWORD_VARIABLE: &str = "STILLPOINT_OWNER_PASSWORD";

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make a writable database from a snapshot
    Provision(Box<Provisioning>),
    /// List VDBs
    List,
    /// Show one VDB and what its server answers now
    Show { name: String },
    /// Start its server
    Start(Target),
    /// Stop its server
    Stop(Target),
    /// Take a snapshot of it
    Snapshot(Target),
    /// Give it the data of its parent's newest snapshot, or of the one named; name, port and credentials stay
    Refresh {
        #[command(flatten)]
        target: Target,
        #[arg(long, value_name = "DATASET[@SNAPSHOT]")]
        from: Option<String>,
        #[command(flatten)]
        at: At,
    },
    /// Take it back to one of its own snapshots, or to a point in its own time
    Rewind {
        #[command(flatten)]
        target: Target,
        #[arg(long, value_name = "SNAPSHOT", required_unless_present_any = At::NAMES, conflicts_with_all = At::NAMES)]
        to: Option<String>,
        #[command(flatten)]
        at: At,
    },
    /// Undo the last refresh or rewind
    Undo(Target),
    /// Resume a disabled VDB
    Enable(Target),
    /// Stop its server and every operation on it
    Disable(Target),
    /// Refuse refresh, rewind and deletion
    Lock { name: String },
    /// Allow them again
    Unlock { name: String },
    /// Print variables that connect to it, for `eval`
    Env { name: String },
    /// Run psql on it
    Psql {
        name: String,
        /// What psql gets
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Snapshot it and copy its files to a new folder, where PostgreSQL starts from them without the store
    Export {
        #[command(flatten)]
        target: Target,
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// Change its settings or port; its server starts again with them
    Configure(ConfigureVdb),
    /// Delete it with all its snapshots
    Delete {
        #[command(flatten)]
        target: Target,
        /// Let VDBs that live on it keep their data
        #[arg(long)]
        force: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// A point in time; a snapshot when none is named.
#[derive(Args)]
#[group(multiple = false)]
pub(super) struct At {
    /// All that was committed up to then: RFC 3339 with an offset, as 2026-11-21T14:03:00+01:00
    #[arg(long, value_name = "TIME")]
    time: Option<String>,
    /// All before a place in the log, as 16/B374D848
    #[arg(long)]
    lsn: Option<String>,
    /// Up to the end of a transaction
    #[arg(long)]
    xid: Option<String>,
    /// Up to a restore point that the source named
    #[arg(long, value_name = "NAME")]
    restore_point: Option<String>,
}

impl At {
    const NAMES: [&str; 4] = ["time", "lsn", "xid", "restore_point"];

    fn point(self) -> Point {
        Point { time: self.time, lsn: self.lsn, xid: self.xid, restore_point: self.restore_point }
    }
}

#[derive(Args)]
pub(super) struct Provisioning {
    /// The VDB's name
    #[arg(long)]
    name: String,
    /// The group whose permissions it shares
    #[arg(long, default_value_t = default_group())]
    group: String,
    /// A snapshot by its name or bookmark, or a dataset for its newest snapshot or with a point in time
    #[arg(long, value_name = "DATASET[@SNAPSHOT]")]
    from: String,
    #[command(flatten)]
    at: At,
    /// The bookmark of the snapshot to take
    #[arg(long, conflicts_with_all = At::NAMES)]
    bookmark: Option<String>,
    /// The role as which it is used: made if it is not there, and the owner of its databases; refreshes keep it
    #[arg(long, value_name = "ROLE")]
    owner: Option<String>,
    /// The file that holds the owner's password; else the environment variable STILLPOINT_OWNER_PASSWORD is taken
    #[arg(long, value_name = "FILE", requires = "owner")]
    owner_password_file: Option<PathBuf>,
    /// Give a database another name
    #[arg(long = "rename-database", value_name = "OLD=NEW", value_parser = parse_setting)]
    rename_databases: Vec<(String, String)>,
    /// Keep no logs: no points in time of its own
    #[arg(long)]
    no_logs: bool,
    /// Where it listens; a free port when left out
    #[arg(long)]
    port: Option<u16>,
    /// A setting of its server
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_setting)]
    settings: Vec<(String, String)>,
    #[command(flatten)]
    attached: Attached,
    /// Return when the job is accepted
    #[arg(long)]
    no_wait: bool,
}

pub(super) fn run(command: Command, context: &Context) -> Result<Outcome> {
    let client = context.api()?;
    match command {
        Command::Provision(arguments) => provision(&client, *arguments, context),
        Command::List => {
            context.output.show(&Datasets(client.list("/v1/vdbs")?))?;
            Ok(Outcome::Done)
        }
        Command::Show { name } => show(&client, &name, context),
        Command::Start(target) => operate(&client, &target, "start", context),
        Command::Stop(target) => operate(&client, &target, "stop", context),
        Command::Enable(target) => operate(&client, &target, "enable", context),
        Command::Disable(target) => operate(&client, &target, "disable", context),
        Command::Undo(target) => operate(&client, &target, "undo", context),
        Command::Snapshot(target) => {
            let accepted = client.post(&format!("/v1/datasets/{}/snapshots", segment(&target.name)), &())?;
            finish(&client, &accepted, target.no_wait, context)
        }
        Command::Refresh { target, from, at } => {
            replace(&client, &target, "refresh", Replace { from, at: at.point() }, context)
        }
        Command::Rewind { target, to, at } => {
            replace(&client, &target, "rewind", Replace { from: to, at: at.point() }, context)
        }
        Command::Lock { name } => {
            client.put::<()>(&format!("/v1/datasets/{}/lock", segment(&name)))?;
            Ok(Outcome::Done)
        }
        Command::Unlock { name } => {
            client.delete::<()>(&format!("/v1/datasets/{}/lock", segment(&name)))?;
            Ok(Outcome::Done)
        }
        Command::Env { name } => {
            let text: String = connection(&client, &name)?
                .iter()
                .map(|(name, value)| format!("export {name}={}\n", quote(value)))
                .collect();
            context.output.text(&text)?;
            Ok(Outcome::Done)
        }
        Command::Psql { name, arguments } => {
            let dataset: Dataset = client.get(&format!("/v1/datasets/{}", segment(&name)))?;
            if dataset.adapter != "postgres" {
                let text = format!(
                    "{name} is no PostgreSQL: see how it is reached with `stillpoint vdb env {name}`"
                );
                return Err(Failure::new(ErrorKind::Precondition, text));
            }
            let error =
                std::process::Command::new("psql").envs(connection(&client, &name)?).args(arguments).exec();
            Err(Error::io("run", "psql", error).into())
        }
        Command::Export { target, to } => {
            let to = std::path::absolute(&to).map_err(|e| Error::io("resolve", "a path", e))?;
            let body = Export { to: to.display().to_string() };
            let path = format!("/v1/datasets/{}/export", segment(&target.name));
            finish(&client, &client.post(&path, &body)?, target.no_wait, context)
        }
        Command::Configure(arguments) => configure_vdb(&client, arguments, context),
        Command::Delete { target, force, yes } => delete(&client, &target, force, yes, context),
    }
}

fn provision(client: &ApiClient, arguments: Provisioning, context: &Context) -> Result<Outcome> {
    let from = match arguments.bookmark {
        Some(bookmark) => format!("{}@{bookmark}", arguments.from),
        None => arguments.from,
    };
    let mut secrets = BTreeMap::new();
    if arguments.owner.is_some()
        && let Some(password) = password(arguments.owner_password_file.as_deref(), OWNER_PASSWORD_VARIABLE)?
    {
        secrets.insert("owner_password".to_owned(), password);
    }
    let (hooks, mount_base) = (arguments.attached.hooks()?, arguments.attached.mount_base()?);
    let body = Provision {
        name: arguments.name,
        group: arguments.group,
        from,
        at: arguments.at.point(),
        logs: !arguments.no_logs,
        owner: arguments.owner,
        rename_databases: arguments.rename_databases.into_iter().collect(),
        secrets,
        port: arguments.port,
        settings: arguments.settings.into_iter().collect(),
        mount_base,
        policies: arguments.attached.policies,
        hooks,
    };
    let accepted = client.post("/v1/vdbs", &body)?;
    finish(client, &accepted, arguments.no_wait, context)
}

fn replace(
    client: &ApiClient,
    target: &Target,
    operation: &str,
    replace: Replace,
    context: &Context,
) -> Result<Outcome> {
    let path = format!("/v1/datasets/{}/{operation}", segment(&target.name));
    let accepted = client.post(&path, &replace)?;
    finish(client, &accepted, target.no_wait, context)
}

fn connection(client: &ApiClient, name: &str) -> Result<BTreeMap<String, String>> {
    let dataset: Dataset = client.get(&format!("/v1/datasets/{}", segment(name)))?;
    if dataset.role != "vdb" {
        return Err(wrong_role(name, &dataset.role, "VDB"));
    }
    Ok(dataset.connection)
}

/// A value for a shell.
fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', "'\\''"))
}
