//! `stillpoint config`: check a daemon's configuration file, and show what goes for a daemon and who said so.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;

use super::context::Context;
use super::exit::{Outcome, Result};
use super::output::{Show, Table};
use crate::daemon::config::{self, Config, Layers, Setting};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Read a configuration file of `daemon --config` and say what is wrong with it
    Check { file: PathBuf },
    /// Show every value that a daemon started now would have, and where it comes from
    Show {
        /// The file of `daemon --config`
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print the JSON schema of the file
    Schema,
}

pub(super) fn run(command: &Command, context: &Context) -> Result<Outcome> {
    match command {
        Command::Check { file } => {
            config::read(file)?.check()?;
            context.output.show(&Checked { file: file.clone(), good: true })?;
        }
        Command::Show { config } => {
            let layers = Layers::of(config.as_deref(), said_by_arguments(context))?;
            layers.effective().check()?;
            context.output.show(&Settings(layers.settings()))?;
        }
        Command::Schema => context.output.text(&config::schema_text())?,
    }
    Ok(Outcome::Done)
}

/// The store, if it was named by an argument and not by the variable that the arguments are read from as well.
pub(super) fn said_by_arguments(context: &Context) -> Config {
    let variable = std::env::var_os("STILLPOINT_STORE").map(PathBuf::from);
    let store = context.named_store().filter(|store| Some(*store) != variable.as_deref());
    Config { store: store.map(PathBuf::from), ..Config::default() }
}

#[derive(Serialize)]
struct Checked {
    file: PathBuf,
    good: bool,
}

impl Show for Checked {
    fn table(&self) -> Table {
        let mut table = Table::facts();
        table.fact(&self.file.display().to_string(), "good");
        table
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Settings(Vec<Setting>);

impl Show for Settings {
    fn table(&self) -> Table {
        let mut table = Table::new(&["KEY", "VALUE", "FROM"]);
        for setting in &self.0 {
            let value = setting.value.clone().unwrap_or_else(|| "-".into());
            table.row(vec![setting.key.to_owned(), value, setting.from.clone()]);
        }
        table
    }
}
