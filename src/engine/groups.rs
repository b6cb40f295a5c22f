//! Groups: what datasets, sources and tokens name so that they share permissions. A group that is named first is made
//! then, so that a script needs no step before its link.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Engine;
use super::names::check_name;
use crate::base::{Error, ErrorKind, Result};
use crate::catalog::{BackupSet, Change, Dataset, Event, Group, Job, Severity, SourceConfig, Token};

/// A group and what is in it, by name.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Group")]
pub struct GroupView {
    pub name: String,
    pub created: String,
    pub datasets: Vec<String>,
    pub sources: Vec<String>,
    #[serde(default)]
    pub backup_sets: Vec<String>,
    /// For an admin alone.
    #[serde(default)]
    pub tokens: Vec<String>,
}

impl GroupView {
    fn is_empty(&self) -> bool {
        [&self.datasets, &self.sources, &self.backup_sets, &self.tokens].iter().all(|names| names.is_empty())
    }
}

/// The group of what names none.
pub fn default_group() -> String {
    "default".into()
}

fn find(change: &Change<'_>, name: &str) -> Result<Group> {
    let found = change.list::<Group>()?.into_iter().find(|group| group.name == name);
    found.ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> Error {
    Error::not_found(format!("there is no group {name}")).with_hint("see `stillpoint group list`")
}

/// Makes the record of a group that something is put into, if there is none; true when it was made.
pub(super) fn ensure_group(change: &mut Change<'_>, name: &str, created: Timestamp) -> Result<bool> {
    if change.list::<Group>()?.iter().any(|group| group.name == name) {
        return Ok(false);
    }
    check_name("group", name)?;
    let id = change.next_id()?;
    change.put(&Group { id, name: name.to_owned(), created })?;
    Ok(true)
}

/// A group with what names it.
fn view(
    group: Group,
    datasets: &[Dataset],
    sources: &[SourceConfig],
    sets: &[BackupSet],
    tokens: &[Token],
) -> GroupView {
    let name = group.name;
    let of = |own: &str| own == name;
    GroupView {
        backup_sets: sets.iter().filter(|one| of(&one.group)).map(|one| one.name.clone()).collect(),
        created: group.created.to_string(),
        datasets: datasets.iter().filter(|one| of(&one.group)).map(|one| one.name.clone()).collect(),
        sources: sources.iter().filter(|one| of(&one.group)).map(|one| one.name.clone()).collect(),
        tokens: tokens.iter().filter(|one| one.groups.contains(&name)).map(|one| one.name.clone()).collect(),
        name,
    }
}

/// Gives what is told of the past of a group to another one; to nobody but who sees all when there is none. Otherwise
/// a later group of the old name would inherit it.
fn move_history(change: &mut Change<'_>, old: &str, new: Option<&str>) -> Result<()> {
    for mut job in change.list::<Job>()? {
        if job.group.as_deref() == Some(old) {
            job.group = new.map(str::to_owned);
            change.put(&job)?;
        }
    }
    for mut event in change.list::<Event>()? {
        if event.group.as_deref() == Some(old) {
            event.group = new.map(str::to_owned);
            change.put(&event)?;
        }
    }
    Ok(())
}

impl Engine {
    /// Makes a group. `Exists` when there is one of its name.
    pub fn create_group(&self, name: &str) -> Result<GroupView> {
        let created = self.now();
        let made = self.catalog.change(|change| ensure_group(change, name, created))?;
        if !made {
            return Err(Error::new(ErrorKind::Exists, format!("there is a group {name} already")));
        }
        self.group_made(made, name);
        self.group(name)
    }

    /// Says that a group was made, by whatever named it first.
    pub(super) fn group_made(&self, made: bool, name: &str) {
        if made {
            self.event(Severity::Info, "GROUP_CREATED", None, None, &format!("group {name} was made"));
        }
    }

    /// Refuses a group that is not there and cannot be made, because its name is none.
    pub(super) fn check_group(&self, name: &str) -> Result<()> {
        match self.catalog.list::<Group>()?.iter().any(|group| group.name == name) {
            true => Ok(()),
            false => check_name("group", name),
        }
    }

    /// All groups, oldest first.
    pub fn groups(&self) -> Result<Vec<GroupView>> {
        let (datasets, sources) = (self.catalog.list::<Dataset>()?, self.catalog.list::<SourceConfig>()?);
        let (sets, tokens) = (self.catalog.list::<BackupSet>()?, self.catalog.list::<Token>()?);
        let groups = self.catalog.list::<Group>()?.into_iter();
        Ok(groups.map(|group| view(group, &datasets, &sources, &sets, &tokens)).collect())
    }

    pub fn group(&self, name: &str) -> Result<GroupView> {
        self.groups()?.into_iter().find(|group| group.name == name).ok_or_else(|| unknown(name))
    }

    /// Gives a group another name, and all that names it with it: datasets, sources, tokens, jobs and events.
    pub fn rename_group(&self, old: &str, new: &str) -> Result<GroupView> {
        check_name("group", new)?;
        self.catalog.change(|change| {
            let group = find(change, old)?;
            if change.list::<Group>()?.iter().any(|other| other.name == new) {
                return Err(Error::new(
                    ErrorKind::Exists,
                    format!("group {old} cannot be called {new}: there is a group {new} already"),
                ));
            }
            change.update::<Group>(group.id, |group| group.name = new.to_owned())?;
            for mut dataset in change.list::<Dataset>()? {
                if dataset.group == old {
                    dataset.group = new.to_owned();
                    change.put(&dataset)?;
                }
            }
            for mut source in change.list::<SourceConfig>()? {
                if source.group == old {
                    source.group = new.to_owned();
                    change.put(&source)?;
                }
            }
            for mut set in change.list::<BackupSet>()? {
                if set.group == old {
                    set.group = new.to_owned();
                    change.put(&set)?;
                }
            }
            for mut token in change.list::<Token>()? {
                if token.groups.iter().any(|group| group == old) {
                    token
                        .groups
                        .iter_mut()
                        .filter(|group| *group == old)
                        .for_each(|group| *group = new.into());
                    change.put(&token)?;
                }
            }
            move_history(change, old, Some(new))
        })?;
        let text = format!("group {old} is called {new} now");
        self.event(Severity::Info, "GROUP_RENAMED", None, None, &text);
        self.group(new)
    }

    /// Removes a group that nothing is in.
    pub fn remove_group(&self, name: &str) -> Result<()> {
        self.catalog.change(|change| {
            let group = find(change, name)?;
            let id = group.id;
            let (datasets, sources) = (change.list::<Dataset>()?, change.list::<SourceConfig>()?);
            let sets = change.list::<BackupSet>()?;
            let inside = view(group, &datasets, &sources, &sets, &change.list::<Token>()?);
            if !inside.is_empty() {
                let list = |what: &str, names: &[String]| match names {
                    [] => None,
                    names => Some(format!("{what} {}", names.join(", "))),
                };
                let parts = [
                    list("datasets", &inside.datasets),
                    list("sources", &inside.sources),
                    list("backup sets", &inside.backup_sets),
                    list("tokens", &inside.tokens),
                ];
                let parts: Vec<String> = parts.into_iter().flatten().collect();
                return Err(Error::new(
                    ErrorKind::InUse,
                    format!("group {name} has {}: delete or revoke them first", parts.join("; ")),
                ));
            }
            move_history(change, name, None)?;
            change.remove::<Group>(id)
        })?;
        self.event(Severity::Info, "GROUP_REMOVED", None, None, &format!("group {name} was removed"));
        Ok(())
    }
}
