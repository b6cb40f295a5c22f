//! The hooks that datasets have and the templates they are made from: added, listed, removed.
//!
//! A hook's secrets go to the secret store and nowhere else.

use std::collections::BTreeMap;
use std::fmt;

use super::Engine;
use super::run_hooks::secret_name;
use crate::base::{Error, ErrorKind, OsUser, Result};
use crate::catalog::{Dataset, DatasetHooks, Role, StoredTemplate};
use crate::hook::{DatasetKind, Hook, HookPoint, HookTemplate, Placement, Program, Variable};

/// How long a hook may run that says nothing of it.
const TIME_LIMIT_SECONDS: u32 = 600;
/// Hooks of a dataset: more would be one script's work.
const HOOKS_MAX: usize = 100;

/// What is asked for with a new hook.
#[derive(Clone)]
pub struct NewHook {
    pub name: String,
    pub point: String,
    pub source: HookSource,
    /// The OS user it runs as; the environment's when absent.
    pub run_as: Option<String>,
    pub time_limit_seconds: Option<u32>,
    pub environment: BTreeMap<String, String>,
    /// Values of variables that are told to nobody else.
    pub secrets: BTreeMap<String, String>,
}

/// Where a new hook's program comes from.
#[derive(Clone, Debug)]
pub enum HookSource {
    Program(Program),
    Template { name: String, values: BTreeMap<String, String> },
}

impl fmt::Debug for NewHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewHook")
            .field("name", &self.name)
            .field("point", &self.point)
            .finish_non_exhaustive()
    }
}

/// What a new dataset is to have from its beginning.
#[derive(Clone, Debug, Default)]
pub struct Attachments {
    /// Names of policies.
    pub policies: Vec<String>,
    pub hooks: Vec<NewHook>,
}

fn kind_of(role: Role) -> DatasetKind {
    match role {
        Role::Dsource => DatasetKind::DSource,
        Role::Vdb => DatasetKind::Vdb,
    }
}

impl Engine {
    /// Refuses attachments that a dataset of this role cannot have, before there is one.
    pub(super) fn check_attachments(&self, role: Role, wanted: &Attachments) -> Result<()> {
        let mut names = Vec::new();
        for new in &wanted.hooks {
            self.make_hook(new, role)?;
            if names.contains(&&new.name) {
                return Err(Error::invalid(format!(
                    "two hooks are called {}: each has its own name",
                    new.name
                )));
            }
            names.push(&new.name);
        }
        self.check_policies(role, &wanted.policies)
    }

    /// Gives a new dataset what was asked for with it.
    pub(super) fn attach_all(&self, dataset: &Dataset, wanted: &Attachments) -> Result<()> {
        for new in &wanted.hooks {
            self.put_hook(dataset, new)?;
        }
        for policy in &wanted.policies {
            self.bind_policy(dataset, policy)?;
        }
        Ok(())
    }

    /// The hooks of a dataset, in their order.
    pub fn hooks_of(&self, dataset: &str) -> Result<Vec<Hook>> {
        let dataset = self.dataset(dataset)?;
        Ok(self.catalog.get::<DatasetHooks>(dataset.id)?.map_or_else(Vec::new, |record| record.hooks))
    }

    /// Adds a hook to a dataset, or puts it into the place of the one of its name.
    pub fn add_hook(&self, dataset: &str, new: &NewHook) -> Result<Hook> {
        self.put_hook(&self.dataset(dataset)?, new)
    }

    fn put_hook(&self, dataset: &Dataset, new: &NewHook) -> Result<Hook> {
        let hook = self.make_hook(new, dataset.role)?;
        // First, so that no hook is ever without what it needs.
        self.secrets.update(dataset.id, |secrets| {
            let own = secret_name(&hook.name, "");
            secrets.retain(|name, _| !name.starts_with(&own));
            for (name, value) in &new.secrets {
                secrets.insert(secret_name(&hook.name, name), value.clone());
            }
        })?;
        let put = self.catalog.change(|change| {
            if change.get::<Dataset>(dataset.id)?.is_none() {
                return Err(Error::not_found(format!("{} has just been deleted", dataset.name)));
            }
            let mut record = change
                .get::<DatasetHooks>(dataset.id)?
                .unwrap_or(DatasetHooks { id: dataset.id, hooks: Vec::new() });
            match record.hooks.iter().position(|other| other.name == hook.name) {
                Some(at) => record.hooks[at] = hook.clone(),
                None if record.hooks.len() >= HOOKS_MAX => {
                    return Err(Error::invalid(format!(
                        "{} has {HOOKS_MAX} hooks already: take one away",
                        dataset.name
                    )));
                }
                None => record.hooks.push(hook.clone()),
            }
            change.put(&record)
        });
        if put.is_err() && self.catalog.get::<Dataset>(dataset.id)?.is_none() {
            self.secrets.remove(dataset.id)?;
        }
        put.map(|()| hook)
    }

    /// Takes a hook from a dataset, with its secrets.
    pub fn remove_hook(&self, dataset: &str, name: &str) -> Result<()> {
        let dataset = self.dataset(dataset)?;
        self.catalog.change(|change| {
            let mut record = change.get::<DatasetHooks>(dataset.id)?;
            let found = record.as_mut().and_then(|record| {
                let at = record.hooks.iter().position(|hook| hook.name == name)?;
                record.hooks.remove(at);
                Some(record)
            });
            let record = found.ok_or_else(|| {
                Error::not_found(format!(
                    "{0} has no hook {name}: see `stillpoint hook list {0}`",
                    dataset.name
                ))
            })?;
            match record.hooks.is_empty() {
                true => change.remove::<DatasetHooks>(dataset.id),
                false => change.put(record),
            }
        })?;
        let own = secret_name(name, "");
        self.secrets.update(dataset.id, |secrets| secrets.retain(|name, _| !name.starts_with(&own)))
    }

    /// Makes and checks a hook's definition.
    fn make_hook(&self, new: &NewHook, role: Role) -> Result<Hook> {
        let kind = kind_of(role);
        let point = HookPoint::parse(kind, &new.point)?;
        let mut hook = match &new.source {
            HookSource::Program(program) => Hook {
                name: new.name.clone(),
                point,
                program: program.clone(),
                run_as: new.run_as.clone(),
                time_limit_seconds: TIME_LIMIT_SECONDS,
                environment: BTreeMap::new(),
            },
            HookSource::Template { name, values } => {
                let placement = Placement { name: new.name.clone(), point, run_as: new.run_as.clone() };
                self.template(name)?.template.hook(placement, values)?
            }
        };
        if let Some(seconds) = new.time_limit_seconds {
            hook.time_limit_seconds = seconds;
        }
        let values =
            new.environment.iter().map(|(name, value)| (name.clone(), Variable::Value(value.clone())));
        hook.environment.extend(values);
        hook.environment.extend(new.secrets.keys().map(|name| (name.clone(), Variable::Secret)));
        hook.check(kind)?;
        for (name, variable) in &hook.environment {
            if *variable == Variable::Secret && !new.secrets.contains_key(name) {
                return Err(Error::invalid(format!(
                    "hook {:?}: a value of the secret {name} is missing",
                    hook.name
                )));
            }
        }
        if let Some(user) = &hook.run_as {
            OsUser::named(user)?;
        }
        Ok(hook)
    }

    pub fn hook_templates(&self) -> Result<Vec<HookTemplate>> {
        let found = self.catalog.list::<StoredTemplate>()?;
        Ok(found.into_iter().map(|record| record.template).collect())
    }

    fn template(&self, name: &str) -> Result<StoredTemplate> {
        let found = self.catalog.select(|record: &StoredTemplate| record.template.name == name)?.pop();
        found.ok_or_else(|| {
            Error::not_found(format!("there is no hook template {name}: see `stillpoint hook template list`"))
        })
    }

    /// Keeps a template. `Exists` when there is one of its name.
    pub fn create_template(&self, template: HookTemplate) -> Result<HookTemplate> {
        template.check()?;
        self.catalog.change(|change| {
            let others = change.list::<StoredTemplate>()?;
            if others.iter().any(|other| other.template.name == template.name) {
                let message = format!("there is a hook template {} already", template.name);
                return Err(Error::new(ErrorKind::Exists, message));
            }
            let id = change.next_id()?;
            change.put(&StoredTemplate { id, template: template.clone() })?;
            Ok(template)
        })
    }

    /// Removes a template. Hooks that were made from it stay as they are.
    pub fn delete_template(&self, name: &str) -> Result<()> {
        let id = self.template(name)?.id;
        self.catalog.change(|change| change.remove::<StoredTemplate>(id))
    }
}
