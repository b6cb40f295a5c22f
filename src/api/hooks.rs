//! Hooks over the wire: of a dataset, and the templates that they are made from. Secrets go in and never come out.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use super::routes::{Answer, Body, Shared, blocking};
use crate::base::{Error, Result};
use crate::engine::{self, Attachments, Engine, HookSource};
use crate::hook::{self, Program, Variable};

/// How long a hook of a template may run when the template does not say.
const TIME_LIMIT_SECONDS: u32 = 600;

/// A request to add a hook. It has exactly one of `script`, `command` and `template`.
#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewHook {
    /// Unique in the dataset; a hook of this name is replaced.
    pub name: String,
    /// Where it runs: `pre_sync`, `configure_clone`, ...
    pub point: String,
    /// A script's text.
    pub script: Option<String>,
    /// A program and its arguments.
    pub command: Option<Vec<String>>,
    pub template: Option<String>,
    /// Of the template's parameters.
    #[serde(default)]
    pub values: BTreeMap<String, String>,
    /// The OS user it runs as; that of the dataset's server if not told.
    pub user: Option<String>,
    /// 600 if not told.
    pub time_limit_seconds: Option<u32>,
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Variables whose values are kept apart and never shown.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
}

impl std::fmt::Debug for NewHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewHook")
            .field("name", &self.name)
            .field("point", &self.point)
            .finish_non_exhaustive()
    }
}

/// A hook of a dataset.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Hook {
    pub name: String,
    pub point: String,
    pub script: Option<String>,
    pub command: Option<Vec<String>>,
    pub user: Option<String>,
    pub time_limit_seconds: u32,
    pub environment: BTreeMap<String, String>,
    /// The names of its secret variables.
    pub secrets: Vec<String>,
}

/// A template: a hook without point and user, whose program has parameters written `{{NAME}}`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HookTemplate {
    pub name: String,
    pub script: Option<String>,
    pub command: Option<Vec<String>>,
    /// Each parameter with what it is for.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    pub time_limit_seconds: Option<u32>,
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// The names of variables whose values a hook of it must be given.
    #[serde(default)]
    pub secrets: Vec<String>,
}

pub(super) fn routes() -> Router<Arc<Engine>> {
    Router::new()
        .route("/v1/datasets/{name}/hooks", get(list).put(add).delete(remove))
        .route("/v1/hook-templates", get(list_templates).post(create_template))
        .route("/v1/hook-templates/{name}", axum::routing::delete(delete_template))
}

/// What a new dataset is to have, as the engine takes it. What is wrong with a hook's program the engine says.
pub(super) fn attachments(policies: Vec<String>, hooks: Vec<NewHook>) -> Result<Attachments> {
    let hooks: Result<Vec<_>> = hooks.into_iter().map(new_hook).collect();
    Ok(Attachments { policies, hooks: hooks? })
}

async fn list(State(engine): Shared, Path(name): Path<String>) -> Answer<Vec<Hook>> {
    let found = blocking(engine, move |engine| engine.hooks_of(&name)).await?;
    Ok(Json(found.into_iter().map(Hook::from).collect()))
}

async fn add(State(engine): Shared, Path(name): Path<String>, Body(body): Body<NewHook>) -> Answer<Hook> {
    let added = blocking(engine, move |engine| engine.add_hook(&name, &new_hook(body)?));
    Ok(Json(added.await?.into()))
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

async fn remove(
    State(engine): Shared,
    Path(name): Path<String>,
    Query(hook): Query<Named>,
) -> std::result::Result<StatusCode, Problem> {
    blocking(engine, move |engine| engine.remove_hook(&name, &hook.name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn list_templates(State(engine): Shared) -> Answer<Vec<HookTemplate>> {
    let found = blocking(engine, |engine| engine.hook_templates()).await?;
    Ok(Json(found.into_iter().map(HookTemplate::from).collect()))
}

async fn create_template(State(engine): Shared, Body(body): Body<HookTemplate>) -> Answer<HookTemplate> {
    let made = blocking(engine, move |engine| engine.create_template(template(body)?));
    Ok(Json(made.await?.into()))
}

async fn delete_template(
    State(engine): Shared,
    Path(name): Path<String>,
) -> std::result::Result<StatusCode, Problem> {
    blocking(engine, move |engine| engine.delete_template(&name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn program(script: Option<String>, command: Option<Vec<String>>) -> Option<Program> {
    match (script, command) {
        (Some(text), None) => Some(Program::Script(text)),
        (None, Some(words)) => Some(Program::Command(words)),
        _ => None,
    }
}

fn new_hook(body: NewHook) -> Result<engine::NewHook> {
    let source = match (program(body.script, body.command), body.template) {
        (Some(program), None) => Some(HookSource::Program(program)),
        (None, Some(name)) => Some(HookSource::Template { name, values: body.values }),
        _ => None,
    };
    let source = source.ok_or_else(|| {
        Error::invalid(format!("hook {:?}: give it a script, a command, or a template", body.name))
    })?;
    Ok(engine::NewHook {
        name: body.name,
        point: body.point,
        source,
        run_as: body.user,
        time_limit_seconds: body.time_limit_seconds,
        environment: body.environment,
        secrets: body.secrets,
    })
}

fn template(body: HookTemplate) -> Result<hook::HookTemplate> {
    let program = program(body.script, body.command).ok_or_else(|| {
        Error::invalid(format!("hook template {:?}: give it a script or a command", body.name))
    })?;
    let values = body.environment.into_iter().map(|(name, value)| (name, Variable::Value(value)));
    let secrets = body.secrets.into_iter().map(|name| (name, Variable::Secret));
    Ok(hook::HookTemplate {
        name: body.name,
        parameters: body.parameters,
        program,
        time_limit_seconds: body.time_limit_seconds.unwrap_or(TIME_LIMIT_SECONDS),
        environment: values.chain(secrets).collect(),
    })
}

/// Values by name, and the names of secrets.
fn variables(environment: BTreeMap<String, Variable>) -> (BTreeMap<String, String>, Vec<String>) {
    let (mut values, mut secrets) = (BTreeMap::new(), Vec::new());
    for (name, variable) in environment {
        match variable {
            Variable::Value(value) => drop(values.insert(name, value)),
            Variable::Secret => secrets.push(name),
        }
    }
    (values, secrets)
}

fn parts(program: Program) -> (Option<String>, Option<Vec<String>>) {
    match program {
        Program::Script(text) => (Some(text), None),
        Program::Command(words) => (None, Some(words)),
    }
}

impl From<hook::Hook> for Hook {
    fn from(hook: hook::Hook) -> Self {
        let (script, command) = parts(hook.program);
        let (environment, secrets) = variables(hook.environment);
        Self {
            name: hook.name,
            point: hook.point.name().into(),
            script,
            command,
            user: hook.run_as,
            time_limit_seconds: hook.time_limit_seconds,
            environment,
            secrets,
        }
    }
}

impl From<hook::HookTemplate> for HookTemplate {
    fn from(template: hook::HookTemplate) -> Self {
        let (script, command) = parts(template.program);
        let (environment, secrets) = variables(template.environment);
        Self {
            name: template.name,
            script,
            command,
            parameters: template.parameters,
            time_limit_seconds: Some(template.time_limit_seconds),
            environment,
            secrets,
        }
    }
}
