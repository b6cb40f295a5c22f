//! `stillpoint policy`: create, update, list, show, delete, apply, remove, simulate; and `stillpoint why`.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::context::Context;
use super::exit::{Outcome, Result};
use super::output::{Show, Table, format_limit, format_list};
use super::sizes::parse_bytes;
use crate::api::{
    ApiClient, BackupSet, Binding, NewPolicy, Policy, Retention, Schedule, SimulateRequest, Simulation, Why,
    segment,
};
use crate::base::{Error, ErrorKind};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make a policy; `policy apply` gives it to datasets
    #[command(subcommand)]
    Create(CreateCommand),
    /// Say anew what a policy does, for all who have it: all of it, as with create
    #[command(subcommand)]
    Update(CreateCommand),
    /// List policies and who has them, or those of one dataset with their last and next runs
    List { dataset: Option<String> },
    /// Show one policy, and when it runs next
    Show { name: String },
    /// Delete a policy that no dataset has
    Delete { name: String },
    /// Give a dataset a policy; it has at most one of each kind
    Apply { name: String, dataset: String },
    /// Take a policy from a dataset
    Remove { name: String, dataset: String },
    /// Say what policies would do, and do nothing
    Simulate(Simulating),
}

#[derive(Subcommand)]
pub(super) enum CreateCommand {
    /// Sync and snapshot dSources at set times
    #[command(name = "snap-sync")]
    SnapSync(Scheduled),
    /// Snapshot VDBs at set times
    Snapshot(Scheduled),
    /// Refresh VDBs at set times
    Refresh(Scheduled),
    /// Make full backups of source databases at set times
    #[command(name = "full-backup")]
    FullBackup(Scheduled),
    /// Make differential backups at set times; full ones where there is none to go on from
    #[command(name = "differential-backup")]
    DifferentialBackup(Scheduled),
    /// Make log backups at set times
    #[command(name = "log-backup")]
    LogBackup(Scheduled),
    /// Remove old snapshots and logs, or old restore points
    Retention(Keeping),
    /// Limit the data of a dataset
    Quota {
        name: String,
        /// Bytes of data before compression, as in 20GiB
        #[arg(value_parser = parse_bytes)]
        size: u64,
    },
}

#[derive(Args)]
pub(super) struct Scheduled {
    name: String,
    /// Minute, hour, day of month, month, day of week; or six fields with the second first; or @hourly and its like
    #[arg(long)]
    cron: String,
    /// The time zone of the schedule, as in Europe/Berlin
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    time_zone: String,
}

#[derive(Args)]
pub(super) struct Keeping {
    name: String,
    /// Keep every snapshot of this many days
    #[arg(long, value_name = "DAYS", default_value_t = 0)]
    all: u32,
    /// Keep the last snapshot of each of this many days
    #[arg(long, value_name = "DAYS", default_value_t = 0)]
    daily: u32,
    #[arg(long, value_name = "WEEKS", default_value_t = 0)]
    weekly: u32,
    #[arg(long, value_name = "MONTHS", default_value_t = 0)]
    monthly: u32,
    #[arg(long, value_name = "YEARS", default_value_t = 0)]
    yearly: u32,
    /// The weekday that weeks begin with
    #[arg(long, value_name = "DAY", default_value = "monday")]
    first_weekday: String,
    /// Keep logs for point-in-time of this many days
    #[arg(long, value_name = "DAYS", default_value_t = 0)]
    log_days: u32,
    /// The time zone whose days these are
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    time_zone: String,
}

#[derive(Args)]
pub(super) struct Simulating {
    /// The dataset whose snapshots are judged; without one only a policy's next runs are told
    #[arg(required_unless_present = "policy")]
    dataset: Option<String>,
    /// A policy in the place of the one of its kind that the dataset has
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// The moment that is asked about, RFC 3339; now when left out
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// How many runs of each schedule to tell
    #[arg(long, value_name = "N", default_value_t = 5)]
    runs: usize,
}

#[derive(Args)]
pub(super) struct WhyArguments {
    #[arg(value_name = "DATASET@SNAPSHOT")]
    snapshot: String,
}

pub(super) fn run(command: Command, context: &Context) -> Result<Outcome> {
    let client = context.api()?;
    let path = |name: &str| format!("/v1/policies/{}", segment(name));
    let bound = |name: &str, holder: &str| -> Result<String> {
        Ok(format!("{}/policies/{}", holder_path(&client, holder)?, segment(name)))
    };
    match command {
        Command::Create(command) => {
            context.output.show(&client.post::<Policy>("/v1/policies", &new_policy(command))?)?;
        }
        Command::Update(command) => {
            let new = new_policy(command);
            context.output.show(&client.put_body::<Policy>(&path(&new.name), &new)?)?;
        }
        Command::List { dataset: None } => context.output.show(&Policies(client.get("/v1/policies")?))?,
        Command::List { dataset: Some(name) } => {
            let found = client.get(&format!("{}/policies", holder_path(&client, &name)?))?;
            context.output.show(&Bindings(found))?;
        }
        Command::Show { name } => context.output.show(&client.get::<Policy>(&path(&name))?)?,
        Command::Delete { name } => client.delete::<()>(&path(&name))?,
        Command::Apply { name, dataset } => client.put::<()>(&bound(&name, &dataset)?)?,
        Command::Remove { name, dataset } => client.delete::<()>(&bound(&name, &dataset)?)?,
        Command::Simulate(arguments) => {
            let Simulating { dataset, policy, at, runs } = arguments;
            let request = SimulateRequest { dataset, policy, at, runs: Some(runs) };
            context.output.show(&client.post::<Simulation>("/v1/policies/simulate", &request)?)?;
        }
    }
    Ok(Outcome::Done)
}

/// Where the policies of a dataset or a backup set are: no two have one name.
fn holder_path(client: &ApiClient, name: &str) -> Result<String> {
    let set = format!("/v1/backup-sets/{}", segment(name));
    match client.get::<BackupSet>(&set) {
        Ok(_) => Ok(set),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(format!("/v1/datasets/{}", segment(name))),
        Err(e) => Err(e.into()),
    }
}

/// Says why a snapshot is kept.
pub(super) fn why(arguments: &WhyArguments, context: &Context) -> Result<Outcome> {
    let (dataset, name) = arguments
        .snapshot
        .split_once('@')
        .ok_or_else(|| Error::invalid("write a snapshot as DATASET@SNAPSHOT"))?;
    let path = format!("/v1/datasets/{}/snapshots/{}/why", segment(dataset), segment(name));
    context.output.show(&context.api()?.get::<Why>(&path)?)?;
    Ok(Outcome::Done)
}

fn new_policy(command: CreateCommand) -> NewPolicy {
    let (kind, name, schedule, retention, quota_bytes) = match command {
        CreateCommand::SnapSync(of) => ("snap_sync", of.name, Some((of.cron, of.time_zone)), None, None),
        CreateCommand::FullBackup(of) => ("full_backup", of.name, Some((of.cron, of.time_zone)), None, None),
        CreateCommand::DifferentialBackup(of) => {
            ("differential_backup", of.name, Some((of.cron, of.time_zone)), None, None)
        }
        CreateCommand::LogBackup(of) => ("log_backup", of.name, Some((of.cron, of.time_zone)), None, None),
        CreateCommand::Snapshot(of) => ("snapshot", of.name, Some((of.cron, of.time_zone)), None, None),
        CreateCommand::Refresh(of) => ("refresh", of.name, Some((of.cron, of.time_zone)), None, None),
        CreateCommand::Retention(keeping) => {
            let retention = Retention {
                keep_all_days: keeping.all,
                daily: keeping.daily,
                weekly: keeping.weekly,
                monthly: keeping.monthly,
                yearly: keeping.yearly,
                first_weekday: Some(keeping.first_weekday),
                log_days: keeping.log_days,
                time_zone: keeping.time_zone,
            };
            ("retention", keeping.name, None, Some(retention), None)
        }
        CreateCommand::Quota { name, size } => ("quota", name, None, None, Some(size)),
    };
    let schedule = schedule.map(|(cron, time_zone)| Schedule { cron, time_zone });
    NewPolicy { name, kind: kind.into(), schedule, retention, quota_bytes }
}

/// What a policy does, in a line.
fn describe(policy: &Policy) -> String {
    if let Some(schedule) = &policy.schedule {
        return format!("{} {}", schedule.cron, schedule.time_zone);
    }
    match &policy.retention {
        Some(keep) => {
            let counts = [
                ("all", keep.keep_all_days),
                ("daily", keep.daily),
                ("weekly", keep.weekly),
                ("monthly", keep.monthly),
                ("yearly", keep.yearly),
                ("log days", keep.log_days),
            ];
            let counts = counts.iter().filter(|(_, count)| *count > 0);
            let counts: Vec<String> = counts.map(|(what, count)| format!("{what} {count}")).collect();
            format!("{} {}", counts.join(", "), keep.time_zone)
        }
        None => format_limit(policy.quota_bytes),
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Policies(Vec<Policy>);

impl Show for Policies {
    fn table(&self) -> Table {
        let mut table = Table::new(&["NAME", "KIND", "WHAT", "DATASETS"]);
        for policy in &self.0 {
            let datasets: Vec<String> =
                policy.datasets.iter().map(|binding| binding.dataset.clone()).collect();
            table.row(vec![
                policy.name.clone(),
                policy.kind.clone(),
                describe(policy),
                format_list(&datasets),
            ]);
        }
        table
    }
}

/// The policies of one dataset.
#[derive(Serialize)]
#[serde(transparent)]
struct Bindings(Vec<Binding>);

impl Show for Bindings {
    fn table(&self) -> Table {
        let mut table = Table::new(&["POLICY", "KIND", "LAST RUN", ">LAST JOB", "NEXT RUN"]);
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        for binding in &self.0 {
            table.row(vec![
                binding.policy.clone(),
                binding.kind.clone(),
                or_dash(&binding.last_run),
                binding.last_job.map_or_else(|| "-".into(), |job| job.to_string()),
                or_dash(&binding.next_run),
            ]);
        }
        table
    }
}

impl Show for Policy {
    fn table(&self) -> Table {
        let mut table = Table::facts();
        table.fact("name", &self.name);
        table.fact("kind", &self.kind);
        table.fact("what", describe(self));
        table.fact("created", &self.created);
        for binding in &self.datasets {
            table.fact("dataset", describe_binding(binding));
        }
        table
    }
}

fn describe_binding(binding: &Binding) -> String {
    let mut text = binding.dataset.clone();
    if let Some(time) = &binding.last_run {
        text += &format!(", last {time}");
    }
    if let Some(job) = binding.last_job {
        text += &format!(", job {job}");
    }
    if let Some(time) = &binding.next_run {
        text += &format!(", next {time}");
    }
    text
}

impl Show for Simulation {
    fn table(&self) -> Table {
        let mut table = match self.snapshots.is_empty() {
            true => Table::facts(),
            false => Table::new(&["SNAPSHOT", ">TIMEFLOW", "VERDICT", "WHY"]),
        };
        for verdict in &self.snapshots {
            let (word, why) = match verdict.kept {
                true => ("keep", verdict.reasons.join("; ")),
                false => ("remove", "nothing keeps it".into()),
            };
            table.row(vec![verdict.snapshot.clone(), verdict.timeflow.to_string(), word.into(), why]);
        }
        if !self.snapshots.is_empty() {
            let removed = self.snapshots.iter().filter(|verdict| !verdict.kept).count();
            let judge = match &self.retention {
                Some(name) => format!("by retention policy {name}"),
                None => "by no retention policy".into(),
            };
            let kept = self.snapshots.len() - removed;
            table.note(format!("at {}, {judge}: {kept} kept, {removed} removed", self.at));
        }
        for timeflow in &self.timeflows_removed {
            table.note(format!("timeflow {timeflow} is of the past and goes with its last snapshot"));
        }
        for runs in &self.runs {
            table.note(format!(
                "{} ({} {}, {}) runs at {}",
                runs.policy,
                runs.schedule.cron,
                runs.schedule.time_zone,
                runs.kind,
                runs.times.join(", ")
            ));
        }
        table.note("nothing was done".into());
        table
    }
}

impl Show for Why {
    fn table(&self) -> Table {
        let mut table = Table::facts();
        table.fact("snapshot", &self.verdict.snapshot);
        table.fact("taken", &self.verdict.taken);
        table.fact("retention", self.retention.clone().unwrap_or_else(|| "-".into()));
        match self.verdict.kept {
            true => self.verdict.reasons.iter().for_each(|reason| table.fact("kept", reason)),
            false => table.fact("removed", "by the next retention: nothing keeps it"),
        }
        table
    }
}
