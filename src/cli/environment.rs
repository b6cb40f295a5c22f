//! `stillpoint environment`: list, show, refresh.

use clap::Subcommand;
use serde::Serialize;

use super::context::Context;
use super::exit::{Outcome, Result};
use super::output::{Show, Table, format_list};
use super::repository::Repositories;
use crate::api::{Environment, segment};

#[derive(Subcommand)]
pub(super) enum Command {
    /// List the hosts that servers run on: this one
    List,
    /// Show a host, its user and its database installations
    Show { name: String },
    /// Look for the database installations of a host again
    Refresh { name: String },
}

pub(super) fn run(command: &Command, context: &Context) -> Result<Outcome> {
    let client = context.api()?;
    let path = |name: &str| format!("/v1/environments/{}", segment(name));
    match command {
        Command::List => context.output.show(&Environments(client.get("/v1/environments")?))?,
        Command::Show { name } => context.output.show(&client.get::<Environment>(&path(name))?)?,
        Command::Refresh { name } => {
            let found = client.post(&format!("{}/refresh", path(name)), &())?;
            context.output.show(&Repositories(found))?;
        }
    }
    Ok(Outcome::Done)
}

#[derive(Serialize)]
#[serde(transparent)]
struct Environments(Vec<Environment>);

impl Show for Environments {
    fn table(&self) -> Table {
        let mut table = Table::new(&["NAME", "HOST", "USER", "ROLES", ">REPOSITORIES"]);
        for environment in &self.0 {
            table.row(vec![
                environment.name.clone(),
                environment.host.clone(),
                environment.user.clone(),
                format_list(&environment.roles),
                environment.repositories.len().to_string(),
            ]);
        }
        table
    }
}

impl Show for Environment {
    fn table(&self) -> Table {
        let mut table = Table::facts();
        table.fact("name", &self.name);
        table.fact("host", &self.host);
        table.fact("user of servers", &self.user);
        table.fact("roles", format_list(&self.roles));
        table.fact("created", &self.created);
        table.fact("refreshed", self.refreshed.as_deref().unwrap_or("never"));
        table.fact("repositories", format_list(&self.repositories));
        table
    }
}
