//! `stillpoint repository`: list, show, add, remove, enable, disable.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;

use super::context::Context;
use super::dsource::absolute;
use super::exit::{Outcome, Result};
use super::output::{Show, Table, format_list};
use crate::api::{ApiClient, NewRepository, Repository, segment};

#[derive(Subcommand)]
pub(super) enum Command {
    /// List the database installations that were found on the host
    List,
    /// Show a database installation and what runs with it
    Show { name: String },
    /// Add the installations in a folder: one that has bin/postgres, such a bin itself, or a folder of such folders
    Add {
        #[arg(long, value_name = "DIR")]
        path: PathBuf,
    },
    /// Forget an installation that was added, or is gone, and that nothing runs with
    Remove { name: String },
    /// Let an installation be chosen again
    Enable { name: String },
    /// Choose an installation for no new link or VDB; what runs with it goes on
    Disable { name: String },
}

pub(super) fn run(command: Command, context: &Context) -> Result<Outcome> {
    let client = context.api()?;
    let path = |name: &str| format!("/v1/repositories/{}", segment(name));
    match command {
        Command::List => context.output.show(&Repositories(client.get("/v1/repositories")?))?,
        Command::Show { name } => context.output.show(&client.get::<Repository>(&path(&name))?)?,
        Command::Add { path } => context.output.show(&Repositories(add(&client, path)?))?,
        Command::Remove { name } => client.delete::<()>(&path(&name))?,
        Command::Enable { name } => {
            context.output.show(&client.post::<Repository>(&format!("{}/enable", path(&name)), &())?)?;
        }
        Command::Disable { name } => {
            context.output.show(&client.post::<Repository>(&format!("{}/disable", path(&name)), &())?)?;
        }
    }
    Ok(Outcome::Done)
}

fn add(client: &ApiClient, path: PathBuf) -> Result<Vec<Repository>> {
    let path = absolute(&Some(path))?.unwrap_or_default().display().to_string();
    Ok(client.post("/v1/repositories", &NewRepository { path })?)
}

/// Repositories as a list.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Repositories(pub Vec<Repository>);

fn state(repository: &Repository) -> &'static str {
    match (repository.present, repository.enabled) {
        (false, _) => "gone",
        (true, true) => "enabled",
        (true, false) => "disabled",
    }
}

impl Show for Repositories {
    fn table(&self) -> Table {
        let mut table = Table::new(&["NAME", "VERSION", "STATE", "PROGRAMS", "DATASETS"]);
        for repository in &self.0 {
            table.row(vec![
                repository.name.clone(),
                repository.version.clone(),
                state(repository).into(),
                repository.programs.clone(),
                format_list(&repository.datasets),
            ]);
        }
        table
    }
}

impl Show for Repository {
    fn table(&self) -> Table {
        let mut table = Table::facts();
        table.fact("name", &self.name);
        table.fact("environment", &self.environment);
        table.fact("adapter", &self.adapter);
        table.fact("version", &self.version);
        table.fact("state", state(self));
        table.fact("programs", &self.programs);
        table.fact("user of servers", &self.user);
        table.fact("found", if self.added { "added by hand" } else { "by itself" });
        table.fact("first seen", &self.first_seen);
        table.fact("last seen", &self.last_seen);
        table.fact("datasets", format_list(&self.datasets));
        if !self.enabled && !self.datasets.is_empty() {
            table.note("these datasets go on with it".into());
        }
        table
    }
}
