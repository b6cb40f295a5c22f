//! `stillpoint backup`: protect, configure, run, list, show, verify, why, restore, remove, unprotect.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::backup_show::{Plan, Points, Sets};
use super::confirm::confirm;
use super::context::Context;
use super::dsource::{Review, absolute, finish};
use super::exit::{Outcome, Result};
use super::sqlserver::AtInstance;
use crate::api::{
    ApiClient, BackupSet, LinkPlan, Protect, Protection, Restore, RestorePlan, RestorePoint, RunBackup,
    WhyPoint, default_group, segment,
};
use crate::base::Error;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Back up databases of a SQL Server instance together from now on; `backup run` makes the first backup
    Protect(Box<Protecting>),
    /// Say anew what a backup set is of: all of it, as with protect; without a password the kept one is used
    Configure(Box<Configuring>),
    /// Back up now: differential, or full where there is none to go on from
    Run(Running),
    /// List backup sets, or the restore points of one
    List { name: Option<String> },
    /// Show a backup set, or one of its restore points
    Show { name: String, point: Option<u64> },
    /// Check a restore point, or the newest of each database: by the server and by our own reader
    Verify {
        name: String,
        point: Option<u64>,
        /// Return when the job is accepted
        #[arg(long)]
        no_wait: bool,
    },
    /// Say why retention keeps a restore point
    Why { name: String, point: u64 },
    /// Restore a database to a point, as a database or as its files; the plan is shown first
    Restore(Box<Restoring>),
    /// Remove a restore point that no other needs
    Remove {
        name: String,
        point: u64,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Remove a backup set with all its restore points
    Unprotect {
        name: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
        /// Return when the job is accepted
        #[arg(long)]
        no_wait: bool,
    },
}

#[derive(Args)]
pub(super) struct Protecting {
    /// The backup set's name
    name: String,
    /// The group whose permissions it shares
    #[arg(long, default_value_t = default_group())]
    group: String,
    #[command(flatten)]
    of: Of,
    /// A policy that it has from its beginning; may be repeated
    #[arg(long = "policy", value_name = "NAME")]
    policies: Vec<String>,
    /// Ask the instance, print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args)]
pub(super) struct Configuring {
    /// The backup set's name
    name: String,
    #[command(flatten)]
    of: Of,
}

/// What a backup set is of.
#[derive(Args)]
struct Of {
    #[command(flatten)]
    at: AtInstance,
    /// A database to back up; may be repeated. All of the instance when none is named, those too that come later
    #[arg(long = "database", value_name = "DATABASE", conflicts_with = "excluded")]
    databases: Vec<String>,
    /// A database to leave out of all; may be repeated
    #[arg(long = "exclude", value_name = "DATABASE")]
    excluded: Vec<String>,
    /// The longest that a database's writes are held for a cut of its volume, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    hold_limit: u32,
}

#[derive(Args)]
pub(super) struct Running {
    name: String,
    #[command(flatten)]
    kind: Kind,
    /// Only this database of the set; may be repeated
    #[arg(long = "database", value_name = "DATABASE")]
    databases: Vec<String>,
    /// Return when the job is accepted
    #[arg(long)]
    no_wait: bool,
}

#[derive(Args)]
#[group(multiple = false)]
struct Kind {
    /// All of each database
    #[arg(long)]
    full: bool,
    /// What has changed since the last full
    #[arg(long)]
    differential: bool,
    /// The log since the last log backup, which is let go of on the server
    #[arg(long)]
    log: bool,
}

#[derive(Args)]
pub(super) struct Restoring {
    /// The backup set
    name: String,
    /// The database that was backed up; may be left out of a set of one
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,
    #[command(flatten)]
    at: At,
    /// Stop before the marked transaction, not after it
    #[arg(long, requires = "mark")]
    before: bool,
    /// Of several marks of a name the first after this time
    #[arg(long, value_name = "TIME", requires = "mark")]
    mark_after: Option<String>,
    /// The name that the restored database gets
    #[arg(long, value_name = "DATABASE", required_unless_present = "files", conflicts_with = "files")]
    to_database: Option<String>,
    /// A folder for its files, in the place of a database
    #[arg(long, value_name = "DIR")]
    files: Option<PathBuf>,
    /// Leave it readable and able to take more logs
    #[arg(long)]
    standby: bool,
    /// Replace a database of that name: what it holds now is lost
    #[arg(long)]
    replace: bool,
    /// Where the restored database's files are to be; the instance's own folders if not told
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Show what would be done, and do nothing
    #[arg(long)]
    plan_only: bool,
    /// Do not ask before a database is replaced
    #[arg(short, long)]
    yes: bool,
    /// Return when the job is accepted
    #[arg(long)]
    no_wait: bool,
}

/// The point; the end of the newest backup when none is named.
#[derive(Args)]
#[group(multiple = false)]
struct At {
    /// The end of a restore point
    #[arg(long, value_name = "ID")]
    point: Option<u64>,
    /// All that was committed up to then: RFC 3339 with an offset, as 2026-11-21T14:03:00+01:00
    #[arg(long, value_name = "TIME")]
    time: Option<String>,
    /// All before a place in the log, as 39000000048800071
    #[arg(long)]
    lsn: Option<String>,
    /// A marked transaction
    #[arg(long, value_name = "NAME")]
    mark: Option<String>,
}

fn path(name: &str) -> String {
    format!("/v1/backup-sets/{}", segment(name))
}

pub(super) fn run(command: Command, context: &Context) -> Result<Outcome> {
    let client = context.api()?;
    match command {
        Command::Protect(arguments) => {
            let Protecting { name, group, of, policies, dry_run } = *arguments;
            let Protection { adapter, parameters, secrets } = of.protection()?;
            let body = Protect { name, group, adapter, parameters, secrets, policies };
            match dry_run {
                true => {
                    context.output.show(&Review(client.post::<LinkPlan>("/v1/backup-sets/plan", &body)?))?
                }
                false => context.output.show(&client.post::<BackupSet>("/v1/backup-sets", &body)?)?,
            }
        }
        Command::Configure(arguments) => {
            let body = arguments.of.protection()?;
            context.output.show(&client.put_body::<BackupSet>(&path(&arguments.name), &body)?)?;
        }
        Command::Run(arguments) => {
            let Running { name, kind, databases, no_wait } = arguments;
            let body = RunBackup { kind: kind.word(), databases: databases.into_iter().collect() };
            let accepted = client.post(&format!("{}/run", path(&name)), &body)?;
            return finish(&client, &accepted, no_wait, context);
        }
        Command::List { name: None } => context.output.show(&Sets(client.get("/v1/backup-sets")?))?,
        Command::List { name: Some(name) } => {
            context.output.show(&Points(client.get(&format!("{}/points", path(&name)))?))?;
        }
        Command::Show { name, point: None } => {
            context.output.show(&client.get::<BackupSet>(&path(&name))?)?
        }
        Command::Show { name, point: Some(id) } => {
            let found = client.get::<RestorePoint>(&format!("{}/points/{id}", path(&name)))?;
            context.output.show(&found)?;
        }
        Command::Verify { name, point, no_wait } => {
            let address = match point {
                Some(id) => format!("{}/points/{id}/verify", path(&name)),
                None => format!("{}/verify", path(&name)),
            };
            return finish(&client, &client.post(&address, &())?, no_wait, context);
        }
        Command::Why { name, point } => {
            let found = client.get::<WhyPoint>(&format!("{}/points/{point}/why", path(&name)))?;
            context.output.show(&found)?;
        }
        Command::Restore(arguments) => return restore(&client, *arguments, context),
        Command::Remove { name, point, yes } => {
            confirm(yes, &format!("removing restore point {point} of {name}"), &[])?;
            client.delete::<()>(&format!("{}/points/{point}", path(&name)))?;
        }
        Command::Unprotect { name, yes, no_wait } => {
            let set: BackupSet = client.get(&path(&name))?;
            let count: usize = set.databases.iter().map(|database| database.restore_points).sum();
            let gone = format!("destroys its volume {} and {count} restore points", set.volume);
            confirm(yes, &format!("removing backup set {name}"), &[gone])?;
            return finish(&client, &client.delete(&path(&name))?, no_wait, context);
        }
    }
    Ok(Outcome::Done)
}

impl Kind {
    fn word(&self) -> Option<String> {
        let words = [(self.full, "full"), (self.differential, "differential"), (self.log, "log")];
        words.iter().find(|(chosen, _)| *chosen).map(|(_, word)| (*word).to_owned())
    }
}

impl Of {
    fn protection(&self) -> Result<Protection> {
        let parameters = json!({
            "databases": self.databases,
            "excluded": self.excluded,
            "user": self.at.user,
            "hold_seconds": self.hold_limit,
            "instance": self.at.parameters()?,
        });
        Ok(Protection { adapter: "sqlserver".into(), parameters, secrets: self.at.secrets()? })
    }
}

fn restore(client: &ApiClient, arguments: Restoring, context: &Context) -> Result<Outcome> {
    let shown = |folder: &Option<PathBuf>| -> Result<Option<String>> {
        Ok(absolute(folder)?.map(|path| path.display().to_string()))
    };
    let body = Restore {
        database: arguments.database,
        point: arguments.at.point,
        time: arguments.at.time,
        lsn: arguments.at.lsn,
        mark: arguments.at.mark,
        before_mark: arguments.before,
        mark_after: arguments.mark_after,
        files: shown(&arguments.files)?,
        folder: shown(&arguments.folder)?,
        to_database: arguments.to_database,
        standby: arguments.standby,
        replace: arguments.replace,
    };
    let base = path(&arguments.name);
    let plan: RestorePlan = client.post(&format!("{base}/restore/plan"), &body)?;
    if arguments.plan_only {
        context.output.show(&Plan(plan))?;
        return Ok(Outcome::Done);
    }
    // Data on stdout is the job: the plan goes before it, to whoever reads along.
    for line in &plan.steps {
        eprintln!("{line}");
    }
    if body.replace {
        let name = body.to_database.as_deref().unwrap_or_default();
        if name.is_empty() {
            return Err(Error::invalid("files replace no database: leave out --replace").into());
        }
        confirm(arguments.yes, &format!("replacing database {name}"), &["what it holds now is lost".into()])?;
    }
    let accepted = client.post(&format!("{base}/restore"), &body)?;
    finish(client, &accepted, arguments.no_wait, context)
}
