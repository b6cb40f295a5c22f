//! `stillpoint job`: list, show, watch, log, cancel.

use clap::Subcommand;
use serde::Serialize;

use super::context::Context;
use super::exit::{Outcome, Result};
use super::follow::{describe, follow, outcome};
use super::output::{Show, Table};
use crate::api::{Accepted, ApiClient, Job};

#[derive(Subcommand)]
pub(super) enum Command {
    /// List the newest jobs
    List,
    /// Show one job
    Show { id: u64 },
    /// Wait for a job's end, printing its log as it goes
    Watch { id: u64 },
    /// Print a job's log
    Log { id: u64 },
    /// Ask a job to end at its next safe point
    Cancel { id: u64 },
}

pub(super) fn run(command: &Command, context: &Context) -> Result<Outcome> {
    let client = context.api()?;
    match command {
        Command::List => context.output.show(&Jobs(client.get("/v1/jobs")?))?,
        Command::Show { id } => context.output.show(&client.get::<Job>(&format!("/v1/jobs/{id}"))?)?,
        Command::Watch { id } => return watch(&client, *id, context),
        Command::Log { id } => {
            print_log(&client, *id, 0, context)?;
        }
        Command::Cancel { id } => {
            client.post::<Job>(&format!("/v1/jobs/{id}/cancel"), &())?;
            let job = follow(&client, &Accepted { job: *id })?;
            context.output.show(&job)?;
        }
    }
    Ok(Outcome::Done)
}

fn watch(client: &ApiClient, id: u64, context: &Context) -> Result<Outcome> {
    let mut from = 0;
    loop {
        // A short wait, so that the log's lines come as they are written.
        let job: Job = client.get(&format!("/v1/jobs/{id}?wait=1"))?;
        from = print_log(client, id, from, context)?;
        if job.has_ended() {
            return outcome(&job);
        }
    }
}

fn print_log(client: &ApiClient, id: u64, from: u64, context: &Context) -> Result<u64> {
    let mut from = from;
    loop {
        let log = client.job_log(id, from)?;
        if log.text.is_empty() {
            return Ok(from);
        }
        context.output.text(&log.text)?;
        from = log.next;
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Jobs(Vec<Job>);

impl Show for Jobs {
    fn table(&self) -> Table {
        let mut table = Table::new(&[">JOB", "STATUS", "CREATED", "WHAT"]);
        for job in &self.0 {
            let what = match &job.error {
                Some(error) => format!(
                    "{} {}: {}",
                    job.kind,
                    job.target,
                    error.message.lines().next().unwrap_or_default()
                ),
                None if job.has_ended() => format!("{} {}", job.kind, job.target),
                None => describe(job),
            };
            table.row(vec![job.id.to_string(), job.status.clone(), job.created.clone(), what]);
        }
        table
    }
}
