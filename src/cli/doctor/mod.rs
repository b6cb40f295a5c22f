//! `stillpoint doctor`: what this host must have, what it has, and how to get the rest.

mod host;
mod limits;
mod mounts;
mod ports;
mod servers;
mod time;

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::context::Context;
use super::exit::{Outcome, Result};
use super::output::{Show, Table};
use crate::adapter::postgres::{Installations, POSTGRES_VARIABLE};
use crate::daemon::STATE_ROOT;

#[derive(Args)]
pub(super) struct Arguments {
    /// The folder whose file system is looked at; the store's, or that for temporary files, by default
    #[arg(long)]
    directory: Option<PathBuf>,
    /// A port that is to be free; may be given again
    #[arg(long, value_name = "PORT")]
    port: Vec<u16>,
    /// A folder with a PostgreSQL installation beside those of the host's packages; may be given again
    #[arg(long, value_name = "DIR", env = POSTGRES_VARIABLE, value_delimiter = ':')]
    postgres: Vec<PathBuf>,
}

const STORE_BYTES_MIN: u64 = 2 << 30;
const STATE_BYTES_MIN: u64 = 1 << 30;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    Ok,
    Warning,
    /// Mounting or the demo cannot work.
    Missing,
}

/// One check.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    check: &'static str,
    state: State,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, state: State::Ok, found: found.into(), fix: None }
    }

    fn warning(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, state: State::Warning, found: found.into(), fix: Some(fix.into()) }
    }

    fn missing(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, state: State::Missing, found: found.into(), fix: Some(fix.into()) }
    }
}

/// Ends with 0 when all is well, 3 with a warning, 1 when something is missing.
pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<Outcome> {
    let store = context.store().ok();
    let directory = arguments.directory.as_deref().or(store).map_or_else(std::env::temp_dir, PathBuf::from);
    let mut findings = vec![host::fuse_device(), host::fuse_settings(), host::user(), servers::user()];
    findings.extend(servers::installations(&Installations::with(arguments.postgres.clone())));
    findings.extend([
        servers::programs(),
        servers::namespace(),
        limits::open_files(),
        limits::processes(),
        limits::mappings(),
        limits::shared_memory(),
        host::free_space("free space", &directory, STORE_BYTES_MIN),
        host::free_space("free space for state", Path::new(STATE_ROOT), STATE_BYTES_MIN),
        host::file_system(&directory),
        time::zone(),
        time::clock(),
    ]);
    findings.extend(arguments.port.iter().map(|port| ports::free(*port, context)));
    findings.extend(mounts::mounts());
    if let Some(store) = store {
        findings.push(mounts::socket(store));
    }
    let worst = findings.iter().map(|finding| finding.state).fold(State::Ok, |worst, state| {
        if worst == State::Missing || state == State::Ok { worst } else { state }
    });
    context.output.show(&Findings(findings))?;
    Ok(match worst {
        State::Ok => Outcome::Done,
        State::Warning => Outcome::Warnings,
        State::Missing => Outcome::Findings,
    })
}

#[derive(Serialize)]
#[serde(transparent)]
struct Findings(Vec<Finding>);

impl Show for Findings {
    fn table(&self) -> Table {
        let mut table = Table::new(&["CHECK", "STATE", "FOUND"]);
        for finding in &self.0 {
            let state = match finding.state {
                State::Ok => "ok",
                State::Warning => "warning",
                State::Missing => "missing",
            };
            table.row(vec![finding.check.into(), state.into(), finding.found.clone()]);
            if let Some(fix) = &finding.fix {
                table.row(vec![String::new(), "to do:".into(), fix.clone()]);
            }
        }
        table
    }
}
