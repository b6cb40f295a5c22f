//! `stillpoint source`: add, list, show, configure, check, remove.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde::Serialize;

use super::context::Context;
use super::dsource::{PASSWORD_VARIABLE, TLS_MODES, absolute, password};
use super::exit::{Failure, Outcome, Result};
use super::output::{Show, Table, format_list};
use super::sizes::format_bytes;
use crate::api::{NewSource, SourceChange, SourceConfig, default_group, segment};
use crate::base::{Error, ErrorKind};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Ask a source database what it is, and keep its address and password for links
    #[command(subcommand)]
    Add(AddCommand),
    /// List sources
    List,
    /// Show a source, and what it answered when it was last asked
    Show { name: String },
    /// Change a source, after asking it; what is linked with it is told to take that over by `dsource configure --source`
    Configure(Configure),
    /// Ask a source whether it can be linked now
    Check { name: String },
    /// Forget a source that no dSource has
    Remove { name: String },
}

#[derive(Subcommand)]
pub(super) enum AddCommand {
    /// A PostgreSQL cluster
    Postgres(Postgres),
}

#[derive(Args)]
pub(super) struct Postgres {
    /// What it is called here
    #[arg(long)]
    name: String,
    /// The group whose operators may use it
    #[arg(long, default_value_t = default_group())]
    group: String,
    #[arg(long)]
    host: String,
    #[arg(long, default_value_t = 5432)]
    port: u16,
    /// A role of the source that may replicate
    #[arg(long, value_name = "ROLE")]
    user: String,
    /// The database that the engine connects to; all of the cluster is copied
    #[arg(long, value_name = "NAME", default_value = "postgres")]
    database: String,
    /// Encryption: prefer takes it when it is there, verify-full also checks who answers
    #[arg(long, value_name = "MODE", default_value = "prefer", value_parser = TLS_MODES)]
    tls: String,
    /// The certificates of the authorities that vouch for the source, in PEM: for verify-full
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    #[command(flatten)]
    password: Password,
}

#[derive(Args)]
pub(super) struct Configure {
    name: String,
    #[arg(long)]
    host: Option<String>,
    #[arg(long)]
    port: Option<u16>,
    /// A role of the source that may replicate
    #[arg(long, value_name = "ROLE")]
    user: Option<String>,
    /// The database that the engine connects to
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Encryption, as for `source add`
    #[arg(long, value_name = "MODE", value_parser = TLS_MODES)]
    tls: Option<String>,
    /// The certificates of the authorities that vouch for the source, in PEM: for verify-full
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    #[command(flatten)]
    password: Password,
}

/// Where the role's password comes from.
#[derive(Args)]
pub(super) struct Password {
    /// The file that holds the role's password; else the environment variable STILLPOINT_SOURCE_PASSWORD is taken
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Ask for the role's password on the terminal
    #[arg(long, conflicts_with = "password_file")]
    ask_password: bool,
}

impl Password {
    fn read(&self) -> Result<Option<String>> {
        match self.ask_password {
            true => ask().map(Some),
            false => password(self.password_file.as_deref(), PASSWORD_VARIABLE),
        }
    }
}

/// Reads a password from the terminal, which does not show it.
fn ask() -> Result<String> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::new(
            ErrorKind::Precondition,
            "the password cannot be asked for: stdin is no terminal",
        )
        .hint("use --password-file, or the environment variable STILLPOINT_SOURCE_PASSWORD"));
    }
    let failed = |e: io::Error| Error::io("ask on", "the terminal", e);
    let shown = tcgetattr(&stdin).map_err(|e| failed(e.into()))?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    let mut stderr = io::stderr();
    stderr.write_all(b"Password: ").and_then(|()| stderr.flush()).map_err(failed)?;
    tcsetattr(&stdin, OptionalActions::Flush, &hidden).map_err(|e| failed(e.into()))?;
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    tcsetattr(&stdin, OptionalActions::Flush, &shown).map_err(|e| failed(e.into()))?;
    // The end of the line was not shown either. Without it the next output stands beside the question.
    let _ = stderr.write_all(b"\n");
    read.map_err(failed)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// A file's path as the daemon is told it.
fn whole(path: &Option<PathBuf>) -> Result<Option<String>> {
    Ok(absolute(path)?.map(|path| path.display().to_string()))
}

pub(super) fn run(command: Command, context: &Context) -> Result<Outcome> {
    let client = context.api()?;
    let path = |name: &str| format!("/v1/sources/{}", segment(name));
    match command {
        Command::Add(AddCommand::Postgres(arguments)) => {
            let password = arguments.password.read()?;
            let Postgres { name, group, host, port, user, database, tls, ca, .. } = arguments;
            let (adapter, ca) = ("postgres".into(), whole(&ca)?);
            let body = NewSource { name, group, adapter, host, port, user, database, tls, ca, password };
            context.output.show(&client.post::<SourceConfig>("/v1/sources", &body)?)?;
        }
        Command::List => context.output.show(&Sources(client.get("/v1/sources")?))?,
        Command::Show { name } => context.output.show(&client.get::<SourceConfig>(&path(&name))?)?,
        Command::Configure(arguments) => {
            let password = arguments.password.read()?;
            let Configure { name, host, port, user, database, tls, ca, .. } = arguments;
            let body = SourceChange { host, port, user, database, tls, ca: whole(&ca)?, password };
            let changed: SourceConfig = client.post(&format!("{}/configure", path(&name)), &body)?;
            context.output.show(&changed)?;
        }
        Command::Check { name } => {
            context.output.show(&client.post::<SourceConfig>(&format!("{}/check", path(&name)), &())?)?;
        }
        Command::Remove { name } => client.delete::<()>(&path(&name))?,
    }
    Ok(Outcome::Done)
}

#[derive(Serialize)]
#[serde(transparent)]
struct Sources(Vec<SourceConfig>);

impl Show for Sources {
    fn table(&self) -> Table {
        let mut table = Table::new(&["NAME", "GROUP", "ADDRESS", "USER", "VERSION", ">SIZE", "DATASETS"]);
        for source in &self.0 {
            table.row(vec![
                source.name.clone(),
                source.group.clone(),
                format!("{}:{}", source.host, source.port),
                source.user.clone(),
                source.version.clone(),
                source.size_bytes.map_or_else(|| "-".into(), format_bytes),
                format_list(&source.datasets),
            ]);
        }
        table
    }
}

impl Show for SourceConfig {
    fn table(&self) -> Table {
        let mut table = Table::facts();
        table.fact("name", &self.name);
        table.fact("group", &self.group);
        table.fact("adapter", &self.adapter);
        table.fact("address", format!("{}:{}", self.host, self.port));
        table.fact("user", &self.user);
        table.fact("password", if self.has_password { "kept" } else { "none" });
        table.fact("database", &self.database);
        table.fact("TLS", &self.tls);
        if let Some(ca) = &self.ca {
            table.fact("authorities", ca);
        }
        table.fact("version", &self.version);
        table.fact("system identifier", &self.identity);
        if let Some(bytes) = self.size_bytes {
            table.fact("size of the databases", format_bytes(bytes));
        }
        table.fact("created", &self.created);
        table.fact("last answered", &self.checked);
        table.fact("datasets", format_list(&self.datasets));
        for warning in &self.warnings {
            table.fact("warning", warning);
        }
        table
    }
}
