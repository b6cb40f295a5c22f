//! Waiting for a job with its progress on a terminal, and what its end means for the command.

use super::exit::{Failure, Outcome, Result};
use super::output::{Show, Table, format_list};
use super::progress::ProgressLine;
use super::sizes::format_bytes;
use crate::api::{Accepted, ApiClient, Job};
use crate::base::{ErrorKind, kind_of_name};

/// The name under which a job tells of the one that goes on after it.
const NEXT_JOB: &str = "next_job";

/// Waits for a job's end, and for the jobs that follow from it.
pub(super) fn follow(client: &ApiClient, accepted: &Accepted) -> Result<Job> {
    let mut line = ProgressLine::new();
    let mut id = accepted.job;
    let mut warnings = Vec::new();
    loop {
        let mut job = client.wait_for_job(id)?;
        if !job.has_ended() {
            line.say(&describe(&job));
            continue;
        }
        match job.result.get(NEXT_JOB).and_then(|next| next.parse().ok()) {
            Some(next) => {
                warnings.append(&mut job.warnings);
                id = next;
            }
            None => {
                if !warnings.is_empty() && job.status == "completed" {
                    job.status = "completed_with_warnings".into();
                }
                warnings.append(&mut job.warnings);
                job.warnings = warnings;
                return Ok(job);
            }
        }
    }
}

/// `DB_LINK shop: base backup, 1.0 GiB of 4.0 GiB, 25 %, 30 s left`.
pub(super) fn describe(job: &Job) -> String {
    let step = job.steps.last().map_or("waiting", |step| step.name.as_str());
    let mut text = format!("{} {}: {step}", job.kind, job.target);
    if let Some(total) = job.bytes_total {
        text += &format!(", {} of {}", format_bytes(job.bytes_done), format_bytes(total));
    }
    if let Some(percent) = job.percent {
        text += &format!(", {percent} %");
    }
    if let Some(seconds) = job.eta_seconds {
        text += &format!(", {seconds} s left");
    }
    text
}

/// What an ended job means: done, done with warnings, or a failure with its error.
pub(super) fn outcome(job: &Job) -> Result<Outcome> {
    match job.status.as_str() {
        "completed" => Ok(Outcome::Done),
        "completed_with_warnings" => Ok(Outcome::Warnings),
        status => {
            let why = job.error.as_ref().map_or(status, |error| error.message.as_str());
            let kind = job.error.as_ref().map_or(ErrorKind::Io, |error| kind_of_name(&error.code));
            Err(Failure::new(
                kind,
                format!("job {} ({} of {}) {status}: {why}", job.id, job.kind, job.target),
            )
            .hint(match job.error.as_ref().and_then(|error| error.hint.as_ref()) {
                Some(hint) => format!("{hint}; its log is `stillpoint job log {}`", job.id),
                None => format!("read its log with `stillpoint job log {}`", job.id),
            }))
        }
    }
}

impl Show for Job {
    fn table(&self) -> Table {
        let mut table = Table::facts();
        table.fact("job", format!("{} ({} of {})", self.id, self.kind, self.target));
        table.fact("status", &self.status);
        table.fact("created", &self.created);
        if let Some(started) = &self.started {
            table.fact("started", started);
        }
        if let Some(ended) = &self.ended {
            table.fact("ended", ended);
        }
        for step in &self.steps {
            table.fact("step", format!("{}  {}", step.started, step.name));
        }
        if let Some(total) = self.bytes_total {
            table.fact("progress", format!("{} of {}", format_bytes(self.bytes_done), format_bytes(total)));
        }
        for warning in &self.warnings {
            table.fact("warning", warning);
        }
        if let Some(error) = &self.error {
            table.fact("error", &error.message);
        }
        let made: Vec<String> = self.result.iter().map(|(name, value)| format!("{name} {value}")).collect();
        if !made.is_empty() {
            table.fact("result", format_list(&made));
        }
        table
    }
}
