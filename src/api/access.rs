//! Who asks, and whether they may: the one place where that is decided, before any route sees the request.
//!
//! Decides by the table of operations alone. What is not in the table is an admin's. Whoever may not see a dataset
//! is told the same as if it were not there.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::idempotency::Repetition;
use super::operations::{About, Field, Needs, Operation, find};
use super::places::{Place, Places};
use super::problem::{Problem, as_problem};
use super::routes::blocking;
use crate::base::{Error, ErrorKind, Result};
use crate::catalog::{Dataset, Role, Token, TokenRole};
use crate::engine::{Engine, Shown, default_group};

/// The longest body that is looked into.
pub(super) const BODY_BYTES_MAX: usize = 2 << 20;

/// The adapter whose parameters are commands, and whose settings are variables of theirs.
const RUNS_COMMANDS: &str = "command";

/// By what way a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The store's socket, whose other side is root or the store's owner.
    ControlSocket,
    /// TCP, where anybody may be.
    Network,
}

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Principal {
    /// The token's number; 0 over the control socket.
    pub id: u64,
    name: String,
    role: TokenRole,
    groups: Vec<String>,
}

impl Principal {
    pub(super) fn local() -> Self {
        Self { id: 0, name: "local".into(), role: TokenRole::Admin, groups: Vec::new() }
    }

    fn of(token: Token) -> Self {
        Self { id: token.id, name: token.name, role: token.role, groups: token.groups }
    }

    /// Whether its token is still one, of the same groups.
    pub(super) fn is_valid(&self, engine: &Engine) -> Result<bool> {
        Ok(self.id == 0 || engine.token_is_valid(self.id, &self.groups)?)
    }

    pub(super) fn is_admin(&self) -> bool {
        self.role == TokenRole::Admin
    }

    /// Whether it may read what is of this group; what is of none is only for who may read all.
    pub(super) fn sees(&self, group: Option<&str>) -> bool {
        let all = self.is_admin() || (self.role == TokenRole::Viewer && self.groups.is_empty());
        all || group.is_some_and(|group| self.groups.iter().any(|own| own == group))
    }

    fn check(&self, operation: &Operation, group: &str, is_vdb: bool) -> Result<()> {
        if self.sees(Some(group)) && self.role >= least_role(operation.needs, is_vdb) {
            return Ok(());
        }
        Err(self.refused(operation, Some(group), is_vdb))
    }

    fn refused(&self, operation: &Operation, group: Option<&str>, is_vdb: bool) -> Error {
        let role = match least_role(operation.needs, is_vdb) {
            TokenRole::Admin => "an admin",
            TokenRole::Operator => "an operator",
            TokenRole::User => "a user",
            TokenRole::Viewer => "a viewer",
        };
        let of = group.map(|group| format!(" of group {group}")).unwrap_or_default();
        Error::new(
            ErrorKind::NotAllowed,
            format!("token {} may not do this: {} needs {role}{of}", self.name, operation.name),
        )
        .with_hint("an admin makes tokens with `stillpoint token create`")
    }
}

/// The role that is enough, in the right group.
fn least_role(needs: Needs, is_vdb: bool) -> TokenRole {
    match needs {
        Needs::Nothing | Needs::View => TokenRole::Viewer,
        Needs::UseVdb if is_vdb => TokenRole::User,
        Needs::UseVdb | Needs::Operate => TokenRole::Operator,
        Needs::Administer => TokenRole::Admin,
    }
}

/// The layer around all routes.
pub(super) async fn guard(
    State((engine, places)): State<(Arc<Engine>, Places)>,
    request: Request,
    next: Next,
) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = match admit(engine, &places, request).await {
        Ok((request, principal, _place)) => {
            let response = as_problem(next.run(request).await).await;
            if let Some(principal) = principal.filter(|one| one.id != 0 && method != Method::GET) {
                tracing::info!("token {}: {method} {path}: {}", principal.name, response.status().as_u16());
            }
            response
        }
        Err(problem) => {
            // Who has no token could fill the log.
            if problem.status != StatusCode::UNAUTHORIZED.as_u16() {
                tracing::info!("refused: {method} {path}: {}: {}", problem.status, problem.detail);
            }
            problem.into_response()
        }
    };
    // Answers hold what only this caller may see.
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// A request that may go on, who asks, and the place it has.
type Admitted = (Request, Option<Principal>, Option<Place>);

async fn admit(
    engine: Arc<Engine>,
    places: &Places,
    request: Request,
) -> std::result::Result<Admitted, Problem> {
    let (mut parts, body) = request.into_parts();
    let (path, parameters) = address(&mut parts).await;
    let operation = path.as_deref().and_then(|path| find(parts.method.as_str(), path));
    if operation.as_ref().is_some_and(|operation| operation.needs == Needs::Nothing) {
        return Ok((Request::from_parts(parts, body), None, None));
    }
    let principal = identify(&engine, &parts).await?;
    let place = match principal.id {
        0 => None,
        id => Some(places.take(id).ok_or_else(|| Problem::too_many(&principal.name))?),
    };
    // Nobody's address: the router says so. Nobody's rule: an admin's.
    let operation = match (operation, path) {
        (Some(operation), _) => operation,
        (None, Some(_)) if principal.role != TokenRole::Admin => {
            return Err(Error::new(ErrorKind::NotAllowed, "only an admin may do this").into());
        }
        _ => {
            parts.extensions.insert(principal.clone());
            return Ok((Request::from_parts(parts, body), Some(principal), place));
        }
    };
    let (body, looked_at) = match operation.fields.is_empty() {
        true => (body, Value::Null),
        false => look_into(body).await?,
    };
    let asking = principal.clone();
    let repetition = Repetition::of(&parts, principal.id);
    blocking(engine, move |engine| {
        match decide(engine, &asking, &operation, &parameters, &looked_at) {
            // What it removed the first time: the layer within answers with the same job.
            Err(e) if e.kind() == ErrorKind::NotFound && repetition.is_known(engine)? => Ok(()),
            decided => decided,
        }
    })
    .await?;
    parts.extensions.insert(principal.clone());
    Ok((Request::from_parts(parts, body), Some(principal), place))
}

/// The address as the table has it, and what stands in its braces, read as the routes will read it.
async fn address(parts: &mut Parts) -> (Option<String>, HashMap<String, String>) {
    let Ok(matched) = MatchedPath::from_request_parts(parts, &()).await else {
        return (None, HashMap::new());
    };
    let parameters = match RawPathParams::from_request_parts(parts, &()).await {
        Ok(found) => found.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        Err(_) => HashMap::new(),
    };
    let mut path = matched.as_str().to_owned();
    if let Some(operation) = parameters.get("operation") {
        path = path.replace("{operation}", operation);
    }
    (Some(path), parameters)
}

async fn identify(engine: &Arc<Engine>, parts: &Parts) -> std::result::Result<Principal, Problem> {
    if parts.extensions.get::<Via>() == Some(&Via::ControlSocket) {
        return Ok(Principal::local());
    }
    let shown = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let hint =
        "show a token: `Authorization: Bearer TOKEN`; an admin makes one with `stillpoint token create`";
    let text = shown
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, text)| text.trim().to_owned())
        .ok_or_else(|| Problem::unauthorized("this request shows no token", hint))?;
    match blocking(Arc::clone(engine), move |engine| engine.check_token(&text)).await? {
        Shown::Valid(token) => Ok(Principal::of(token)),
        Shown::Expired(token) => {
            Err(Problem::unauthorized(&format!("token {} has expired", token.name), hint))
        }
        Shown::Unknown => Err(Problem::unauthorized("this token is not valid, or no longer", hint)),
    }
}

/// The body, and what it says; nothing when that is no JSON, which the route refuses.
async fn look_into(body: Body) -> std::result::Result<(Body, Value), Problem> {
    let bytes: Bytes = to_bytes(body, BODY_BYTES_MAX)
        .await
        .map_err(|e| Error::invalid(format!("the request cannot be read, or is too long: {e}")))?;
    let value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    check_shape(&value)?;
    Ok((Body::from(bytes), value))
}

/// Refuses lists in the place of objects: what reads the body later would take their elements for the fields that are
/// looked at here by name.
fn check_shape(body: &Value) -> Result<()> {
    let objects = |value: &Value| value.is_object() || value.is_null();
    let hooks = body["hooks"].as_array().into_iter().flatten().all(Value::is_object);
    let inner = ["parameters", "settings", "secrets"].iter().all(|field| objects(&body[*field]));
    if objects(body) && hooks && inner {
        return Ok(());
    }
    Err(Error::invalid("the request: its body, and what has fields in it, must be JSON objects"))
}

fn decide(
    engine: &Arc<Engine>,
    principal: &Principal,
    operation: &Operation,
    parameters: &HashMap<String, String>,
    body: &Value,
) -> Result<()> {
    // What is not there is for the route to say.
    if principal.role == TokenRole::Admin {
        return Ok(());
    }
    // Whatever it is about, this role is never enough.
    if principal.role < least_role(operation.needs, true) {
        return Err(principal.refused(operation, None, true));
    }
    let parameter = |name: &str| parameters.get(name).map_or("", String::as_str);
    match operation.about {
        About::Nothing => {}
        About::Dataset => {
            let dataset = visible(engine, principal, parameter("name"))?;
            principal.check(operation, &dataset.group, dataset.role == Role::Vdb)?;
        }
        About::Job => check_job(engine, principal, operation, parameter("id"))?,
        About::BackupSet => check_set(engine, principal, operation, parameter("name"))?,
        About::Source => check_source(engine, principal, operation, parameter("name"))?,
        About::Group => {
            let name = parameter("name");
            if !principal.sees(Some(name)) {
                return Err(unseen(principal, "group", name));
            }
        }
    }
    for (field, names) in operation.fields {
        let text = body[*field].as_str();
        match (names, text) {
            (Field::Hook, _) => check_hook(engine, principal, operation, body)?,
            (Field::Hooks, _) => {
                for hook in body[*field].as_array().into_iter().flatten() {
                    check_hook(engine, principal, operation, hook)?;
                }
            }
            (Field::Group, group) => {
                let default = default_group();
                principal.check(operation, group.unwrap_or(&default), true)?;
            }
            (Field::Adapter, adapter)
                if adapter == Some(RUNS_COMMANDS) || names_host(&body["parameters"]) =>
            {
                return Err(host_program(principal, operation));
            }
            (Field::Adapter, _) => {}
            (Field::Parameters | Field::Settings, _) if !given(&body[*field]) => {}
            (Field::Parameters, _) if sends_password_elsewhere(body) => {
                return Err(keeps_password(principal, operation));
            }
            (Field::Parameters | Field::Settings, _) => {
                let of = match operation.about {
                    About::Dataset => parameter("name"),
                    _ => dataset_of(body["from"].as_str().unwrap_or_default()),
                };
                if visible(engine, principal, of)?.adapter == RUNS_COMMANDS || names_host(&body[*field]) {
                    return Err(host_program(principal, operation));
                }
            }
            (Field::HostFile, _) if given(&body[*field]) => return Err(host_program(principal, operation)),
            // Missing or of another type: left to the route.
            (_, None) => {}
            (Field::Source, Some(spec)) => {
                visible(engine, principal, dataset_of(spec))?;
            }
            (Field::HostFile, Some(_)) => {}
            (Field::SourceConfig, Some(name)) => check_source(engine, principal, operation, name)?,
            (Field::Target, Some(spec)) => {
                let dataset = visible(engine, principal, dataset_of(spec))?;
                principal.check(operation, &dataset.group, dataset.role == Role::Vdb)?;
            }
        }
    }
    Ok(())
}

/// The dataset of `DATASET@SNAPSHOT` or `DATASET`.
fn dataset_of(spec: &str) -> &str {
    spec.split_once('@').map_or(spec, |(dataset, _)| dataset)
}

fn visible(engine: &Engine, principal: &Principal, name: &str) -> Result<Dataset> {
    match engine.dataset(name) {
        Ok(dataset) if principal.sees(Some(&dataset.group)) => Ok(dataset),
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Err(unseen(principal, "dataset", name)),
    }
}

fn unseen(principal: &Principal, what: &str, name: impl std::fmt::Display) -> Error {
    Error::not_found(format!("there is no {what} {name} that token {} may see", principal.name))
}

fn check_source(engine: &Engine, principal: &Principal, operation: &Operation, name: &str) -> Result<()> {
    match engine.source(name) {
        Ok(source) if principal.sees(Some(&source.group)) => principal.check(operation, &source.group, false),
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Err(unseen(principal, "source", name)),
    }
}

fn check_set(engine: &Engine, principal: &Principal, operation: &Operation, name: &str) -> Result<()> {
    match engine.backup_set(name) {
        Ok(set) if principal.sees(Some(&set.group)) => principal.check(operation, &set.group, false),
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Err(unseen(principal, "backup set", name)),
    }
}

/// Whether somebody who is no admin may have this hook run. What it runs must be an admin's, as the admin's template
/// says, or a token would be an account of the host.
fn check_hook(engine: &Engine, principal: &Principal, operation: &Operation, hook: &Value) -> Result<()> {
    let own = ["script", "command", "user", "environment"].into_iter().find(|field| given(&hook[*field]));
    let template = hook["template"].as_str().unwrap_or_default();
    let templates = engine.hook_templates()?;
    let declared = templates.iter().find(|known| known.name == template).map(|known| &known.environment);
    let secrets = hook["secrets"].as_object().into_iter().flatten().map(|(name, _)| name);
    let undeclared =
        secrets.into_iter().any(|name| declared.is_none_or(|declared| !declared.contains_key(name)));
    if own.is_none() && !undeclared && principal.role >= TokenRole::Operator {
        return Ok(());
    }
    Err(host_program(principal, operation))
}

/// Whether parameters name a folder or a user of the host, which no group owns: they are read as root.
fn names_host(parameters: &Value) -> bool {
    let named = ["external_backup", "wal_directory", "user"].iter().any(|field| given(&parameters[*field]));
    named || given(&parameters["source"]["ca"])
}

/// Whether a change names another address of the source and no password for it: the one that is kept, which the caller
/// may not know, would go there.
fn sends_password_elsewhere(body: &Value) -> bool {
    given(&body["parameters"]["source"]) && body["secrets"]["source_password"].is_null()
}

fn keeps_password(principal: &Principal, operation: &Operation) -> Error {
    Error::new(
        ErrorKind::NotAllowed,
        format!(
            "token {} may not do this ({}): it would send the password that is kept to another address",
            principal.name, operation.name
        ),
    )
    .with_hint("give the password for the new address with it, or name a source of your group")
}

/// Whether a field says anything.
fn given(value: &Value) -> bool {
    !value.is_null() && value.as_object().is_none_or(|map| !map.is_empty())
}

fn host_program(principal: &Principal, operation: &Operation) -> Error {
    Error::new(
        ErrorKind::NotAllowed,
        format!(
            "token {} may not do this ({}): it names what runs or lies on the daemon's host",
            principal.name, operation.name
        ),
    )
    .with_hint(
        "an operator adds hooks of an admin's template, with values and the secrets it declares; all else needs an admin",
    )
}

fn check_job(engine: &Engine, principal: &Principal, operation: &Operation, id: &str) -> Result<()> {
    // What is no number is refused by the route.
    let Ok(id) = id.parse() else { return Ok(()) };
    let job = match engine.job(id) {
        Ok(job) if principal.sees(job.group.as_deref()) => job,
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => return Err(unseen(principal, "job", id)),
    };
    let dataset = job.dataset.map(|id| engine.catalog().get::<Dataset>(id)).transpose()?.flatten();
    let is_vdb = dataset.is_some_and(|dataset| dataset.role == Role::Vdb);
    if principal.role >= least_role(operation.needs, is_vdb) {
        return Ok(());
    }
    Err(principal.refused(operation, job.group.as_deref(), is_vdb))
}

#[cfg(test)]
mod tests;
