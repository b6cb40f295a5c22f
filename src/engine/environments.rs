//! Environments and the database installations on them. There is one environment: the daemon's own host.
//!
//! A repository is found by its adapter, or named by an admin. What is disabled stays known, and runs what it ran; the
//! adapter chooses it for nothing new. Knows installations as folders of programs alone.

use std::net::IpAddr;
use std::path::Path;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Engine;
use crate::adapter::{self, Adapter};
use crate::base::{Error, ErrorKind, OsUser, Result};
use crate::catalog::{Change, Dataset, Environment, Repository, Severity, SourceConfig};

/// The user of servers, where the daemon may choose.
const SERVER_USER: &str = "postgres";

/// An environment as it is shown.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Environment")]
pub struct EnvironmentView {
    pub name: String,
    pub host: String,
    /// The user that servers run as.
    pub user: String,
    /// `staging` and `target`; `source` when a source is on it.
    pub roles: Vec<String>,
    pub created: String,
    /// When repositories were last looked for.
    pub refreshed: Option<String>,
    /// Those that are there, by name.
    pub repositories: Vec<String>,
}

/// A repository as it is shown.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Repository")]
pub struct RepositoryView {
    pub name: String,
    pub environment: String,
    pub adapter: String,
    pub version: String,
    /// The folder of its programs.
    pub programs: String,
    /// The user that its servers run as.
    pub user: String,
    /// Whether an admin named it, and it was not found by itself.
    pub added: bool,
    /// Whether it may be chosen for new links and VDBs.
    pub enabled: bool,
    /// Whether it was there when it was last looked for.
    pub present: bool,
    pub first_seen: String,
    pub last_seen: String,
    /// The datasets that run with it.
    pub datasets: Vec<String>,
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Whether an address is that of the environment.
fn is_here(address: &str, environment: &Environment) -> bool {
    let local = address == "localhost" || address.starts_with('/') || address == environment.host;
    local || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn unknown(name: &str) -> Error {
    Error::not_found(format!("there is no repository {name}")).with_hint("see `stillpoint repository list`")
}

fn find(change: &Change<'_>, name: &str) -> Result<Repository> {
    let found = change.list::<Repository>()?.into_iter().find(|repository| repository.name == name);
    found.ok_or_else(|| unknown(name))
}

/// A name that no repository has: the adapter's with the first number of the version.
fn new_name(others: &[Repository], found: &adapter::Repository) -> String {
    let digits = found.version.find(|c: char| !c.is_ascii_digit()).unwrap_or(found.version.len());
    let plain = match &found.version[..digits] {
        "" => found.adapter.clone(),
        major => format!("{}-{major}", found.adapter),
    };
    let numbered = (2..).map(|number| format!("{plain}-{number}"));
    let mut names = std::iter::once(plain.clone()).chain(numbered);
    let free = names.find(|name| others.iter().all(|other| other.name != *name));
    free.unwrap_or(plain)
}

/// Writes down what was found, and whether it is new or was gone.
fn see(
    change: &mut Change<'_>,
    environment: u64,
    found: adapter::Repository,
    added: bool,
    now: Timestamp,
) -> Result<Option<Repository>> {
    let others = change.list::<Repository>()?;
    let known =
        others.iter().find(|other| other.adapter == found.adapter && other.programs == found.programs);
    let Some(known) = known else {
        let repository = Repository {
            id: change.next_id()?,
            name: new_name(&others, &found),
            environment,
            adapter: found.adapter,
            version: found.version,
            programs: found.programs,
            user: found.user,
            added,
            disabled: false,
            first_seen: now,
            last_seen: now,
            present: true,
        };
        change.put(&repository)?;
        return Ok(Some(repository));
    };
    let returned = !known.present;
    let repository = change.update::<Repository>(known.id, |repository| {
        (repository.version, repository.user) = (found.version, found.user);
        (repository.last_seen, repository.present) = (now, true);
    })?;
    Ok(returned.then_some(repository))
}

impl Engine {
    /// Makes the record of this host, or brings it up to what the host is now, and tells the adapters which
    /// repositories they may choose.
    pub(super) fn open_environment(&self) -> Result<()> {
        let (host, now) = (host_name(), self.now());
        let user = OsUser::for_servers(SERVER_USER).map_or_else(|_| SERVER_USER.to_owned(), |user| user.name);
        self.catalog.change(|change| match change.list::<Environment>()?.pop() {
            None => {
                let id = change.next_id()?;
                let name = host.clone();
                change.put(&Environment { id, name, host, user, created: now, refreshed: None })
            }
            Some(known) if known.host == host && known.user == user => Ok(()),
            // A store that came to another host with its catalog keeps the name that its users know.
            Some(known) => change.put(&Environment { host, user, ..known }),
        })?;
        self.tell_adapters()
    }

    fn tell_adapters(&self) -> Result<()> {
        let known = self.catalog.list::<Repository>()?;
        for (kind, adapter) in &self.adapters {
            let of = |wanted: fn(&Repository) -> bool| {
                let found = known.iter().filter(|one| one.adapter == *kind && wanted(one));
                found.map(|one| one.programs.clone()).collect()
            };
            adapter.use_repositories(of(|one| one.added), of(|one| one.disabled));
        }
        Ok(())
    }

    /// The environment that this daemon runs on.
    fn own_environment(&self) -> Result<Environment> {
        let found = self.catalog.list::<Environment>()?.pop();
        found.ok_or_else(|| Error::corrupt("the catalog lacks the record of this host"))
    }

    fn environment_named(&self, name: &str) -> Result<Environment> {
        let found = self.catalog.select(|environment: &Environment| environment.name == name)?.pop();
        found.ok_or_else(|| {
            Error::not_found(format!("there is no environment {name}"))
                .with_hint("see `stillpoint environment list`")
        })
    }

    pub fn environments(&self) -> Result<Vec<EnvironmentView>> {
        let found = self.catalog.list::<Environment>()?;
        found.into_iter().map(|environment| self.view_environment(environment)).collect()
    }

    pub fn environment(&self, name: &str) -> Result<EnvironmentView> {
        self.view_environment(self.environment_named(name)?)
    }

    fn view_environment(&self, environment: Environment) -> Result<EnvironmentView> {
        let sources = self.catalog.list::<SourceConfig>()?;
        let has_source = sources.iter().any(|source| is_here(&source.host, &environment));
        let roles = has_source.then_some("source").into_iter().chain(["staging", "target"]);
        let there =
            self.catalog.select(|one: &Repository| one.environment == environment.id && one.present)?;
        Ok(EnvironmentView {
            roles: roles.map(str::to_owned).collect(),
            repositories: there.into_iter().map(|repository| repository.name).collect(),
            name: environment.name,
            host: environment.host,
            user: environment.user,
            created: environment.created.to_string(),
            refreshed: environment.refreshed.map(|time| time.to_string()),
        })
    }

    /// Looks for the repositories of an environment again. Takes as long as each one's server program needs to tell its
    /// version.
    pub fn refresh_environment(&self, name: &str) -> Result<Vec<RepositoryView>> {
        self.discover(self.environment_named(name)?.id)?;
        self.repositories()
    }

    /// The same for this host, at the daemon's start.
    pub fn refresh_own_environment(&self) -> Result<()> {
        self.discover(self.own_environment()?.id)
    }

    fn discover(&self, environment: u64) -> Result<()> {
        let found: Result<Vec<_>> = self.adapters.values().map(|adapter| adapter.discover()).collect();
        let found: Vec<adapter::Repository> = found?.into_iter().flatten().collect();
        let now = self.now();
        let (came, gone) = self.catalog.change(|change| {
            let mut gone = Vec::new();
            for known in change.list::<Repository>()? {
                let there =
                    found.iter().any(|one| one.adapter == known.adapter && one.programs == known.programs);
                if known.environment == environment && known.present && !there {
                    gone.push(change.update::<Repository>(known.id, |known| known.present = false)?);
                }
            }
            let mut came = Vec::new();
            for one in found {
                came.extend(see(change, environment, one, false, now)?);
            }
            // What the first look finds is no news.
            let known = change.get::<Environment>(environment)?;
            if known.is_some_and(|environment| environment.refreshed.is_none()) {
                came.clear();
            }
            change.update::<Environment>(environment, |environment| environment.refreshed = Some(now))?;
            Ok((came, gone))
        })?;
        came.iter()
            .for_each(|one| self.repository_event(Severity::Info, "REPOSITORY_FOUND", one, "was found"));
        let missed = "is no longer there; what runs with it cannot be started again";
        gone.iter().for_each(|one| self.repository_event(Severity::Warning, "REPOSITORY_GONE", one, missed));
        Ok(())
    }

    fn repository_event(&self, severity: Severity, kind: &str, repository: &Repository, what: &str) {
        let Repository { name, version, programs, .. } = repository;
        let text = format!("repository {name} ({version}, {}) {what}", programs.display());
        self.event(severity, kind, None, None, &text);
    }

    /// All repositories, oldest first, also those that are gone.
    pub fn repositories(&self) -> Result<Vec<RepositoryView>> {
        let found = self.catalog.list::<Repository>()?;
        found.into_iter().map(|repository| self.view_repository(repository)).collect()
    }

    pub fn repository(&self, name: &str) -> Result<RepositoryView> {
        let found = self.catalog.select(|repository: &Repository| repository.name == name)?.pop();
        self.view_repository(found.ok_or_else(|| unknown(name))?)
    }

    fn view_repository(&self, repository: Repository) -> Result<RepositoryView> {
        let environment = self.catalog.get::<Environment>(repository.environment)?;
        Ok(RepositoryView {
            datasets: self.users_of(&repository, self.catalog.list()?),
            environment: environment.map_or_else(String::new, |environment| environment.name),
            programs: repository.programs.display().to_string(),
            name: repository.name,
            adapter: repository.adapter,
            version: repository.version,
            user: repository.user,
            added: repository.added,
            enabled: !repository.disabled,
            present: repository.present,
            first_seen: repository.first_seen.to_string(),
            last_seen: repository.last_seen.to_string(),
        })
    }

    /// The names of the datasets that run with a repository.
    fn users_of(&self, repository: &Repository, datasets: Vec<Dataset>) -> Vec<String> {
        let Some(adapter) = self.adapters.get(repository.adapter.as_str()) else { return Vec::new() };
        let runs_with = |dataset: &Dataset| {
            dataset.adapter == repository.adapter
                && adapter.programs(&dataset.config).as_ref() == Some(&repository.programs)
        };
        datasets.into_iter().filter(runs_with).map(|dataset| dataset.name).collect()
    }

    /// Adds the installations in a folder, which the adapters do not look into by themselves.
    pub fn add_repositories(&self, folder: &Path) -> Result<Vec<RepositoryView>> {
        let shown = folder.display();
        if !folder.is_absolute() {
            return Err(Error::invalid(format!(
                "{shown} is no folder from the root on: write its whole path"
            )));
        }
        let look = |adapter: &dyn Adapter| adapter.discover_in(folder);
        let found: Result<Vec<_>> = self.adapters.values().map(|adapter| look(&**adapter)).collect();
        let found: Vec<adapter::Repository> = found?.into_iter().flatten().collect();
        if found.is_empty() {
            return Err(Error::new(
                ErrorKind::Precondition,
                format!(
                    "{shown} has no database installation that can be run here: name a folder that has bin/postgres, such \
                     a bin itself, or a folder of such folders"
                ),
            ));
        }
        let (environment, now) = (self.own_environment()?.id, self.now());
        let added = self.catalog.change(|change| {
            let known = change.list::<Repository>()?;
            let mut added = Vec::new();
            for one in found {
                let twin = known.iter().find(|k| k.adapter == one.adapter && k.programs == one.programs);
                if let Some(twin) = twin {
                    return Err(Error::new(
                        ErrorKind::Exists,
                        format!("{} is known already, as repository {}", one.programs.display(), twin.name),
                    ));
                }
                added.extend(see(change, environment, one, true, now)?);
            }
            Ok(added)
        })?;
        self.tell_adapters()?;
        added
            .iter()
            .for_each(|one| self.repository_event(Severity::Info, "REPOSITORY_ADDED", one, "was added"));
        added.into_iter().map(|repository| self.view_repository(repository)).collect()
    }

    /// Forgets a repository that nothing runs with. One that would be found again is refused.
    pub fn remove_repository(&self, name: &str) -> Result<()> {
        let removed = self.catalog.change(|change| {
            let repository = find(change, name)?;
            let users = self.users_of(&repository, change.list::<Dataset>()?);
            if !users.is_empty() {
                return Err(Error::new(
                    ErrorKind::InUse,
                    format!(
                        "repository {name} runs {}: delete them first, or keep it from what is new with `stillpoint \
                         repository disable {name}`",
                        users.join(", ")
                    ),
                ));
            }
            if repository.present && !repository.added {
                return Err(Error::new(
                    ErrorKind::Precondition,
                    format!(
                        "repository {name} was found on the host and would be found again: `stillpoint repository \
                         disable {name}` keeps it from being chosen"
                    ),
                ));
            }
            change.remove::<Repository>(repository.id)?;
            Ok(repository)
        })?;
        self.tell_adapters()?;
        self.repository_event(Severity::Info, "REPOSITORY_REMOVED", &removed, "was removed");
        Ok(())
    }

    /// Keeps a repository from being chosen for new links and VDBs, or lets it be chosen again. No error when it is so
    /// already.
    pub fn set_repository_enabled(&self, name: &str, enabled: bool) -> Result<RepositoryView> {
        let changed = self.catalog.change(|change| {
            let repository = find(change, name)?;
            if repository.disabled != enabled {
                return Ok(None);
            }
            change.update::<Repository>(repository.id, |repository| repository.disabled = !enabled).map(Some)
        })?;
        self.tell_adapters()?;
        if let Some(repository) = changed {
            let (kind, what) = match enabled {
                true => ("REPOSITORY_ENABLED", "may be chosen again"),
                false => ("REPOSITORY_DISABLED", "is not chosen any more"),
            };
            self.repository_event(Severity::Info, kind, &repository, what);
        }
        self.repository(name)
    }
}
