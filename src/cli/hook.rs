//! `stillpoint hook`: add, list, remove, and templates. Secrets come from the environment, never from arguments.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::context::Context;
use super::dsource::parse_setting;
use super::exit::{Outcome, Result};
use super::output::{Show, Table, format_list};
use crate::api::{Hook, HookTemplate, NewHook, segment};
use crate::base::Error;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Run a script or command at a point of a dataset's operations
    Add(Box<Adding>),
    /// List a dataset's hooks in their order
    List { dataset: String },
    /// Remove a hook with its secrets
    Remove { dataset: String, name: String },
    /// Programs with parameters that hooks are made from
    #[command(subcommand)]
    Template(TemplateCommand),
}

#[derive(Args)]
#[group(id = "program", required = true, multiple = false)]
pub(super) struct Source {
    /// A script's file; its text is kept, run by the interpreter of its #! line or by /bin/sh
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// A program and its arguments, run without a shell; all that follows belongs to it
    #[arg(long, value_name = "WORDS", num_args = 1.., allow_hyphen_values = true)]
    command: Option<Vec<String>>,
    /// A template
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
}

#[derive(Args)]
pub(super) struct Adding {
    dataset: String,
    /// Where it runs, as in pre_snapshot or configure_clone
    #[arg(long)]
    point: String,
    /// Its name; a hook of the dataset that has it is replaced
    #[arg(long)]
    name: String,
    #[command(flatten)]
    source: Source,
    /// A value of the template's parameter
    #[arg(long = "value", value_name = "NAME=VALUE", value_parser = parse_setting, requires = "template")]
    values: Vec<(String, String)>,
    /// The OS user it runs as; that of the dataset's server if not told
    #[arg(long)]
    user: Option<String>,
    /// It is ended when it has run this long; 600 if not told
    #[arg(long, value_name = "SECONDS")]
    time_limit: Option<u32>,
    #[command(flatten)]
    variables: Variables,
}

#[derive(Args)]
pub(super) struct Variables {
    /// A variable of its own
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = parse_setting)]
    environment: Vec<(String, String)>,
    /// A variable whose value is read from this command's environment, kept apart and never shown
    #[arg(long = "secret-env", value_name = "NAME")]
    secrets: Vec<String>,
}

#[derive(Subcommand)]
pub(super) enum TemplateCommand {
    /// Keep a template; parameters stand in it as {{NAME}}
    Create {
        name: String,
        /// A script's file
        #[arg(long, value_name = "FILE", required_unless_present = "command")]
        script: Option<PathBuf>,
        /// A program and its arguments; all that follows belongs to it
        #[arg(long, value_name = "WORDS", num_args = 1.., allow_hyphen_values = true, conflicts_with = "script")]
        command: Option<Vec<String>>,
        /// A parameter, and what it is for
        #[arg(long = "parameter", value_name = "NAME=TEXT", value_parser = parse_setting)]
        parameters: Vec<(String, String)>,
        #[arg(long, value_name = "SECONDS")]
        time_limit: Option<u32>,
        /// A variable of its own
        #[arg(long = "env", value_name = "NAME=VALUE", value_parser = parse_setting)]
        environment: Vec<(String, String)>,
        /// A variable whose value each hook of it must be given
        #[arg(long = "secret-env", value_name = "NAME")]
        secrets: Vec<String>,
    },
    /// List templates
    List,
    /// Delete a template; hooks that were made from it stay
    Delete { name: String },
}

/// What a new dataset has from its beginning.
#[derive(Args)]
pub(super) struct Attached {
    /// A policy that it has from its beginning
    #[arg(long = "policy", value_name = "NAME")]
    pub policies: Vec<String>,
    /// A script that runs at a point of its operations, named after the file; `hook add` has more to say
    #[arg(long = "hook", value_name = "POINT=FILE", value_parser = parse_setting)]
    hooks: Vec<(String, String)>,
    /// The folder below which its volumes are shown, in the place of the daemon's mount
    #[arg(long, value_name = "DIR")]
    mount_base: Option<PathBuf>,
}

impl Attached {
    /// The mount base, from the root on.
    pub(super) fn mount_base(&self) -> Result<Option<String>> {
        let absolute =
            |path| std::path::absolute(path).map_err(|e| Error::io("resolve", "the mount base", e));
        Ok(self.mount_base.as_ref().map(absolute).transpose()?.map(|path| path.display().to_string()))
    }

    /// The hooks, with their scripts read.
    pub(super) fn hooks(&self) -> Result<Vec<NewHook>> {
        let hook = |(point, file): &(String, String)| {
            let path = Path::new(file);
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            Ok(NewHook { name, point: point.clone(), script: Some(read(path)?), ..NewHook::default() })
        };
        self.hooks.iter().map(hook).collect()
    }
}

pub(super) fn run(command: Command, context: &Context) -> Result<Outcome> {
    let client = context.api()?;
    let path = |dataset: &str| format!("/v1/datasets/{}/hooks", segment(dataset));
    match command {
        Command::Add(arguments) => {
            let path = path(&arguments.dataset);
            context.output.show(&Hooks(vec![client.put_body(&path, &new_hook(*arguments)?)?]))?;
        }
        Command::List { dataset } => context.output.show(&Hooks(client.get(&path(&dataset))?))?,
        Command::Remove { dataset, name } => {
            client.delete::<()>(&format!("{}?name={}", path(&dataset), segment(&name)))?;
        }
        Command::Template(command) => return template(command, context),
    }
    Ok(Outcome::Done)
}

fn new_hook(arguments: Adding) -> Result<NewHook> {
    let secrets: Result<BTreeMap<String, String>> =
        arguments.variables.secrets.iter().map(|name| Ok((name.clone(), secret(name)?))).collect();
    Ok(NewHook {
        name: arguments.name,
        point: arguments.point,
        script: arguments.source.script.as_deref().map(read).transpose()?,
        command: arguments.source.command,
        template: arguments.source.template,
        values: arguments.values.into_iter().collect(),
        user: arguments.user,
        time_limit_seconds: arguments.time_limit,
        environment: arguments.variables.environment.into_iter().collect(),
        secrets: secrets?,
    })
}

fn secret(name: &str) -> Result<String> {
    let found = std::env::var(name).map_err(|_| {
        Error::invalid(format!("the environment has no variable {name}: set it, as --secret-env says"))
    });
    Ok(found?)
}

fn read(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path);
    Ok(text.map_err(|e| Error::io("read", &path.display().to_string(), e))?)
}

fn template(command: TemplateCommand, context: &Context) -> Result<Outcome> {
    let client = context.api()?;
    match command {
        TemplateCommand::Create { name, script, command, parameters, time_limit, environment, secrets } => {
            let body = HookTemplate {
                name,
                script: script.as_deref().map(read).transpose()?,
                command,
                parameters: parameters.into_iter().collect(),
                time_limit_seconds: time_limit,
                environment: environment.into_iter().collect(),
                secrets,
            };
            context.output.show(&Templates(vec![client.post("/v1/hook-templates", &body)?]))?;
        }
        TemplateCommand::List => context.output.show(&Templates(client.get("/v1/hook-templates")?))?,
        TemplateCommand::Delete { name } => {
            client.delete::<()>(&format!("/v1/hook-templates/{}", segment(&name)))?;
        }
    }
    Ok(Outcome::Done)
}

/// What is run, in a line.
fn describe(script: Option<&String>, command: Option<&Vec<String>>) -> String {
    match (script, command) {
        (Some(text), _) => format!("script of {} lines", text.lines().count()),
        (None, Some(words)) => words.join(" "),
        (None, None) => "-".into(),
    }
}

fn variables(environment: &BTreeMap<String, String>, secrets: &[String]) -> String {
    let values = environment.iter().map(|(name, value)| format!("{name}={value}"));
    let secrets = secrets.iter().map(|name| format!("{name}=***"));
    format_list(&values.chain(secrets).collect::<Vec<_>>())
}

#[derive(Serialize)]
#[serde(transparent)]
struct Hooks(Vec<Hook>);

impl Show for Hooks {
    fn table(&self) -> Table {
        let mut table = Table::new(&["POINT", "NAME", "WHAT", "USER", ">SECONDS", "VARIABLES"]);
        for hook in &self.0 {
            table.row(vec![
                hook.point.clone(),
                hook.name.clone(),
                describe(hook.script.as_ref(), hook.command.as_ref()),
                hook.user.clone().unwrap_or_else(|| "-".into()),
                hook.time_limit_seconds.to_string(),
                variables(&hook.environment, &hook.secrets),
            ]);
        }
        table
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Templates(Vec<HookTemplate>);

impl Show for Templates {
    fn table(&self) -> Table {
        let mut table = Table::new(&["NAME", "WHAT", "PARAMETERS", "VARIABLES"]);
        for template in &self.0 {
            let parameters: Vec<String> =
                template.parameters.iter().map(|(name, text)| format!("{name}: {text}")).collect();
            table.row(vec![
                template.name.clone(),
                describe(template.script.as_ref(), template.command.as_ref()),
                format_list(&parameters),
                variables(&template.environment, &template.secrets),
            ]);
        }
        table
    }
}
