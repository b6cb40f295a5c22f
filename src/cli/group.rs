//! `stillpoint group`: create, list, show, rename, remove.

use clap::Subcommand;
use serde::Serialize;

use super::context::Context;
use super::exit::{Outcome, Result};
use super::output::{Show, Table, format_list};
use crate::api::{Group, GroupName, segment};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make a group; whatever names one that is not there makes it, too
    Create { name: String },
    /// List groups and what is in them
    List,
    /// Show what is in a group, and which tokens are for it
    Show { name: String },
    /// Give a group another name; its datasets, sources and tokens stay in it
    Rename { name: String, new: String },
    /// Remove a group that nothing is in
    Remove { name: String },
}

pub(super) fn run(command: Command, context: &Context) -> Result<Outcome> {
    let client = context.api()?;
    let path = |name: &str| format!("/v1/groups/{}", segment(name));
    match command {
        Command::Create { name } => {
            context.output.show(&client.post::<Group>("/v1/groups", &GroupName { name })?)?;
        }
        Command::List => context.output.show(&Groups(client.get("/v1/groups")?))?,
        Command::Show { name } => context.output.show(&client.get::<Group>(&path(&name))?)?,
        Command::Rename { name, new } => {
            let renamed: Group = client.post(&format!("{}/rename", path(&name)), &GroupName { name: new })?;
            context.output.show(&renamed)?;
        }
        Command::Remove { name } => client.delete::<()>(&path(&name))?,
    }
    Ok(Outcome::Done)
}

#[derive(Serialize)]
#[serde(transparent)]
struct Groups(Vec<Group>);

impl Show for Groups {
    fn table(&self) -> Table {
        let mut table = Table::new(&["NAME", ">DATASETS", ">SOURCES", ">TOKENS"]);
        for group in &self.0 {
            let counts =
                [&group.datasets, &group.sources, &group.tokens].map(|names| names.len().to_string());
            table.row(std::iter::once(group.name.clone()).chain(counts).collect());
        }
        table
    }
}

impl Show for Group {
    fn table(&self) -> Table {
        let mut table = Table::facts();
        table.fact("name", &self.name);
        table.fact("created", &self.created);
        table.fact("datasets", format_list(&self.datasets));
        table.fact("sources", format_list(&self.sources));
        table.fact("tokens", format_list(&self.tokens));
        table
    }
}
