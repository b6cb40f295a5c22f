//! Source configs: database clusters that dSources are linked to, asked before they are kept and whenever somebody
//! wants to know. A source's password is among the secrets, and goes nowhere but to its own address.

use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Engine;
use super::groups::{default_group, ensure_group};
use super::link::LinkRequest;
use super::names::check_name;
use super::relink::ChangeRequest;
use crate::adapter::{Secrets, SourceFacts};
use crate::base::{Error, ErrorKind, Result};
use crate::catalog::{Change, Dataset, Severity, SourceConfig};

/// The secret that a link has its source's password by.
const PASSWORD: &str = "source_password";
/// The parameter that a link has its source's address by.
const ADDRESS: &str = "source";
/// Hosts, roles and databases have shorter names.
const WORD_BYTES_MAX: usize = 255;

/// A request to keep a source.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSource {
    pub name: String,
    /// Whose operators may use it.
    #[serde(default = "default_group")]
    pub group: String,
    pub adapter: String,
    pub host: String,
    pub port: u16,
    /// A role that may replicate.
    pub user: String,
    /// The database that the engine connects to.
    pub database: String,
    /// `disable`, `prefer`, `require` or `verify-full`, as libpq's `sslmode`.
    #[serde(default = "prefer")]
    pub tls: String,
    /// A file of the daemon's host with the certificates of the authorities that vouch for it: for `verify-full`.
    #[serde(default)]
    pub ca: Option<String>,
    /// Kept apart from everything else, and never shown.
    #[serde(default)]
    pub password: Option<String>,
}

/// A change of a source; what is not named stays. Another host, port, user or proof of who answers needs the password
/// again.
#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceChange {
    #[serde(default)]
    pub host: Option<String>,
    #[serde(default)]
    pub port: Option<u16>,
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub database: Option<String>,
    #[serde(default)]
    pub tls: Option<String>,
    #[serde(default)]
    pub ca: Option<String>,
    #[serde(default)]
    pub password: Option<String>,
}

/// A source as it is shown.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "SourceConfig")]
pub struct SourceView {
    pub name: String,
    pub group: String,
    pub adapter: String,
    pub host: String,
    pub port: u16,
    pub user: String,
    pub database: String,
    pub tls: String,
    pub ca: Option<String>,
    pub has_password: bool,
    /// What it answered when it was last asked.
    pub version: String,
    /// By which it is known again at another address: the system identifier.
    pub identity: String,
    pub size_bytes: Option<u64>,
    pub created: String,
    pub checked: String,
    /// The dSources that were linked with it.
    pub datasets: Vec<String>,
    /// What to know of it before a link; only when it was just asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl fmt::Debug for NewSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("NewSource");
        shown.field("name", &self.name).field("host", &self.host).field("port", &self.port);
        shown.finish_non_exhaustive()
    }
}

impl fmt::Debug for SourceChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceChange")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl SourceChange {
    fn is_empty(&self) -> bool {
        !self.moves() && self.database.is_none() && self.password.is_none()
    }

    /// Whether the password would go to somebody else, or be another one's.
    fn moves(&self) -> bool {
        let address = self.host.is_some() || self.port.is_some() || self.user.is_some();
        // Without proof anybody may answer.
        address || self.tls.is_some() || self.ca.is_some()
    }
}

/// The address as adapters take it.
fn address(source: &SourceConfig) -> Value {
    let SourceConfig { host, port, user, database, tls, ca, .. } = source;
    json!({ "host": host, "port": port, "user": user, "database": database, "tls": tls, "ca": ca })
}

fn prefer() -> String {
    "prefer".into()
}

fn secrets(password: Option<&str>) -> Secrets {
    let entry = password.filter(|password| !password.is_empty());
    Secrets(entry.map(|password| (PASSWORD.to_owned(), password.to_owned())).into_iter().collect())
}

fn check_address(source: &SourceConfig) -> Result<()> {
    let words = [("host", &source.host), ("user", &source.user), ("database", &source.database)];
    for (what, word) in words {
        let good = !word.is_empty() && word.len() <= WORD_BYTES_MAX && !word.chars().any(char::is_control);
        if !good || (what == "host" && word.contains(char::is_whitespace)) {
            return Err(Error::invalid(format!("source {}: {word:?} is no {what}", source.name)));
        }
    }
    match source.port {
        0 => Err(Error::invalid(format!("source {}: 0 is no port", source.name))),
        _ => Ok(()),
    }
}

fn unknown(name: &str) -> Error {
    Error::not_found(format!("there is no source {name}")).with_hint("see `stillpoint source list`")
}

fn find(change: &Change<'_>, name: &str) -> Result<SourceConfig> {
    let found = change.list::<SourceConfig>()?.into_iter().find(|source| source.name == name);
    found.ok_or_else(|| unknown(name))
}

/// The number of the source that a request names, with the record still there.
pub(super) fn number_of(change: &Change<'_>, name: Option<&str>) -> Result<Option<u64>> {
    name.map(|name| Ok(find(change, name)?.id)).transpose()
}

/// The source config that a dataset has after a change: the one that is named; none after an address by hand; else the
/// one it had.
pub(super) fn source_after(
    change: &Change<'_>,
    old: &Dataset,
    request: &ChangeRequest,
) -> Result<Option<u64>> {
    match &request.source {
        Some(name) => number_of(change, Some(name)),
        None if request.parameters[ADDRESS].is_null() => Ok(old.source),
        None => Ok(None),
    }
}

fn datasets_of(id: u64, datasets: &[Dataset]) -> Vec<String> {
    let own = datasets.iter().filter(|dataset| dataset.source == Some(id));
    own.map(|dataset| dataset.name.clone()).collect()
}

/// Writes down what a source answered.
fn learn(source: &mut SourceConfig, facts: &SourceFacts, now: Timestamp) {
    source.version.clone_from(&facts.version);
    source.identity.clone_from(&facts.identity);
    source.size_bytes = facts.size_bytes;
    source.checked = now;
}

impl Engine {
    /// Asks a source, and keeps its address, what it answered, and its password.
    pub fn add_source(&self, new: NewSource) -> Result<SourceView> {
        check_name("source", &new.name)?;
        self.check_group(&new.group)?;
        let now = self.now();
        let mut source = SourceConfig {
            id: 0,
            name: new.name,
            group: new.group,
            adapter: new.adapter,
            host: new.host,
            port: new.port,
            user: new.user,
            database: new.database,
            tls: new.tls,
            ca: new.ca,
            created: now,
            version: String::new(),
            identity: String::new(),
            size_bytes: None,
            checked: now,
        };
        check_address(&source)?;
        check_free(&self.catalog.list()?, &source.name)?;
        let password = secrets(new.password.as_deref());
        let facts = self.ask(&source, &password)?;
        learn(&mut source, &facts, now);
        let made = self.catalog.change(|change| {
            check_free(&change.list()?, &source.name)?;
            source.id = change.next_id()?;
            change.put(&source)?;
            ensure_group(change, &source.group, now)
        })?;
        // After the record: no crash leaves a secret that nothing names.
        if let Err(e) = self.secrets.put(source.id, &password) {
            self.catalog.change(|change| change.remove::<SourceConfig>(source.id))?;
            return Err(e);
        }
        self.group_made(made, &source.group);
        self.source_event("SOURCE_ADDED", &source.name, "was added");
        self.view_source(source, facts.warnings)
    }

    fn ask(&self, source: &SourceConfig, secrets: &Secrets) -> Result<SourceFacts> {
        let told = self.adapter(&source.adapter)?.ask_address(&address(source), secrets);
        told.map_err(|e| e.context(format!("source {}", source.name)))
    }

    fn source_event(&self, kind: &str, name: &str, what: &str) {
        self.event(Severity::Info, kind, None, None, &format!("source {name} {what}"));
    }

    fn source_named(&self, name: &str) -> Result<SourceConfig> {
        let found = self.catalog.select(|source: &SourceConfig| source.name == name)?.pop();
        found.ok_or_else(|| unknown(name))
    }

    /// All sources, oldest first.
    pub fn sources(&self) -> Result<Vec<SourceView>> {
        let found = self.catalog.list::<SourceConfig>()?;
        found.into_iter().map(|source| self.view_source(source, Vec::new())).collect()
    }

    pub fn source(&self, name: &str) -> Result<SourceView> {
        self.view_source(self.source_named(name)?, Vec::new())
    }

    fn view_source(&self, source: SourceConfig, warnings: Vec<String>) -> Result<SourceView> {
        Ok(SourceView {
            has_password: self.secrets.get(source.id)?.get(PASSWORD).is_some(),
            datasets: datasets_of(source.id, &self.catalog.list()?),
            name: source.name,
            group: source.group,
            adapter: source.adapter,
            host: source.host,
            port: source.port,
            user: source.user,
            database: source.database,
            tls: source.tls,
            ca: source.ca,
            version: source.version,
            identity: source.identity,
            size_bytes: source.size_bytes,
            created: source.created.to_string(),
            checked: source.checked.to_string(),
            warnings,
        })
    }

    /// Changes a source, after asking it where it is then. What was linked with it goes on as it was, until it is told to
    /// take the change over.
    pub fn configure_source(&self, name: &str, change: SourceChange) -> Result<SourceView> {
        if change.is_empty() {
            return Err(Error::invalid(format!("source {name}: say what is to change")));
        }
        let old = self.source_named(name)?;
        let kept = self.secrets.get(old.id)?;
        if change.moves() && change.password.is_none() && kept.get(PASSWORD).is_some() {
            return Err(Error::invalid(format!(
                "source {name}: its password is for {} at {}:{} alone: give the one for another address, user or TLS mode with it",
                old.user, old.host, old.port
            )));
        }
        let password = change.password.as_deref().or_else(|| kept.get(PASSWORD));
        let password = secrets(password);
        let tls = change.tls.unwrap_or(old.tls);
        let mut new = SourceConfig {
            host: change.host.unwrap_or(old.host),
            port: change.port.unwrap_or(old.port),
            user: change.user.unwrap_or(old.user),
            database: change.database.unwrap_or(old.database),
            // An authority is nothing to who does not ask for proof.
            ca: change.ca.or(old.ca.filter(|_| tls == "verify-full")),
            tls,
            ..old
        };
        check_address(&new)?;
        let mut facts = self.ask(&new, &password)?;
        if facts.identity != new.identity {
            facts.warnings.push(format!("it is another cluster than before: {}", new.identity));
        }
        learn(&mut new, &facts, self.now());
        let users = self.catalog.change(|change| {
            find(change, name)?;
            change.put(&new)?;
            // In the writer's turn: two who change it at a time never leave one's address with the other's password.
            self.secrets.put(new.id, &password)?;
            Ok(datasets_of(new.id, &change.list()?))
        })?;
        let stale = users.iter().map(|user| {
            format!("{user} goes on as it is: `stillpoint dsource configure {user} --source {name}` takes the change over")
        });
        facts.warnings.extend(stale);
        self.source_event("SOURCE_CHANGED", name, "was changed");
        self.view_source(new, facts.warnings)
    }

    /// Asks a source whether it can be linked now, and keeps what it answers.
    pub fn check_source(&self, name: &str) -> Result<SourceView> {
        let source = self.source_named(name)?;
        let facts = self.ask(&source, &self.secrets.get(source.id)?)?;
        if facts.identity != source.identity {
            return Err(Error::new(
                ErrorKind::Precondition,
                format!(
                    "source {name}: at {}:{} is another cluster now: its identifier is {}, that of the one that was added {}",
                    source.host, source.port, facts.identity, source.identity
                ),
            )
            .with_hint(format!("if that is meant: `stillpoint source configure {name} --host {}`", source.host)));
        }
        let now = self.now();
        let source = self
            .catalog
            .change(|change| change.update::<SourceConfig>(source.id, |source| learn(source, &facts, now)))?;
        self.view_source(source, facts.warnings)
    }

    /// Forgets a source and its password. Refused while a dSource names it.
    pub fn remove_source(&self, name: &str) -> Result<()> {
        self.catalog.change(|change| {
            let source = find(change, name)?;
            let users = datasets_of(source.id, &change.list()?);
            if !users.is_empty() {
                return Err(Error::new(
                    ErrorKind::InUse,
                    format!("source {name} is the source of {}: delete them first", users.join(", ")),
                )
                .with_hint(
                    "a dSource lets go of it with `dsource configure` or `attach` and an address of its own",
                ));
            }
            // Before the record is gone for good: no crash leaves a secret that nothing names.
            self.secrets.remove(source.id)?;
            change.remove::<SourceConfig>(source.id)
        })?;
        self.source_event("SOURCE_REMOVED", name, "was removed");
        Ok(())
    }

    /// Puts a named source's address and password into what an adapter is asked for.
    fn put_source(
        &self,
        name: &str,
        adapter: &str,
        parameters: &mut Value,
        given: &mut Secrets,
    ) -> Result<Option<String>> {
        let source = self.source_named(name)?;
        if source.adapter != adapter {
            let own = &source.adapter;
            return Err(Error::invalid(format!("source {name} is one of adapter {own}, not of {adapter}")));
        }
        let Value::Object(fields) = parameters else {
            return Err(Error::invalid("parameters are no JSON object"));
        };
        if fields.get(ADDRESS).is_some_and(|given| !given.is_null()) || given.get(PASSWORD).is_some() {
            return Err(Error::invalid(format!(
                "source {name} has its own address and password: leave out those of the request"
            )));
        }
        fields.insert(ADDRESS.to_owned(), address(&source));
        let kept = self.secrets.get(source.id)?;
        Ok(kept.get(PASSWORD).map(str::to_owned))
    }

    /// A link with the address and password of the source that it names.
    pub(super) fn link_with_source(&self, request: &LinkRequest) -> Result<LinkRequest> {
        let mut request = request.clone();
        if let Some(name) = request.source.clone() {
            let (parameters, secrets) = (&mut request.parameters, &mut request.secrets);
            if let Some(password) = self.put_source(&name, &request.adapter, parameters, secrets)? {
                secrets.0.insert(PASSWORD.to_owned(), password);
            }
        }
        Ok(request)
    }

    /// The same for a change of a dataset.
    pub(super) fn change_with_source(&self, old: &Dataset, request: &ChangeRequest) -> Result<ChangeRequest> {
        let mut request = request.clone();
        if let Some(name) = request.source.clone() {
            let (parameters, secrets) = (&mut request.parameters, &mut request.secrets);
            let password = self.put_source(&name, &old.adapter, parameters, secrets)?;
            // An empty one, where it has none: that of another address must not go to this one.
            secrets.0.insert(PASSWORD.to_owned(), password.unwrap_or_default());
        }
        Ok(request)
    }

    /// The name of the source that a dataset was linked with.
    pub(super) fn source_of(&self, dataset: &Dataset) -> Result<Option<String>> {
        let found = dataset.source.map(|id| self.catalog.get::<SourceConfig>(id)).transpose()?.flatten();
        Ok(found.map(|source| source.name))
    }
}

fn check_free(others: &[SourceConfig], name: &str) -> Result<()> {
    match others.iter().any(|other| other.name == name) {
        true => Err(Error::new(ErrorKind::Exists, format!("there is a source {name} already"))),
        false => Ok(()),
    }
}
