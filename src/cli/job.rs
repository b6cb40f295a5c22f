//! `stillpoint job`: list, show, watch, log, cancel.

use clap::Subcommand;
use serde::Serialize;

use super::context::Context;
use super::event::read;
use super::exit::{Outcome, Result};
use super::follow::{describe, follow, outcome};
use super::output::{Show, Table};
use super::progress::ProgressLine;
use crate::api::{Accepted, ApiClient, Job, Problem};
use crate::base::{Error, ErrorKind};

#[derive(Subcommand)]
pub(super) enum Command {
    /// List the newest jobs
    List {
        /// How many at most
        #[arg(long, default_value_t = 1000, value_name = "COUNT")]
        limit: usize,
    },
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
        Command::List { limit } => {
            context.output.show(&Jobs(client.get(&format!("/v1/jobs?limit={limit}"))?))?;
        }
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

/// The log on stdout, and what is done of the step on a terminal, until the job ends.
fn watch(client: &ApiClient, id: u64, context: &Context) -> Result<Outcome> {
    let mut line = ProgressLine::new();
    let mut frames = client.follow(&format!("/v1/jobs/{id}/stream"))?;
    let mut last: Option<Job> = None;
    while let Some(frame) = frames.next_frame()? {
        match frame.kind.as_str() {
            "log" => {
                line.clear();
                context.output.text(&read::<String>(&frame)?)?;
            }
            "job" => last = Some(read(&frame)?),
            "problem" => return Err(Error::from(read::<Problem>(&frame)?).into()),
            _ => {}
        }
        if let Some(job) = last.as_ref().filter(|job| !job.has_ended()) {
            line.say(&describe(job));
        }
    }
    drop(line);
    match last.filter(Job::has_ended) {
        Some(job) => outcome(&job),
        None => Err(Error::new(ErrorKind::Io, format!("the daemon ended before job {id}")).into()),
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
