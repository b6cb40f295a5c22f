//! Hooks at the points of operations: what each is told, as whom it runs, and what its failure means.
//!
//! A hook before an operation fails it before anything changes; one that has to succeed for a result to be whole
//! (`configure_clone`) fails it like any other step; one after an operation that is done leaves a warning.

use std::collections::BTreeMap;

use super::door::Door;
use super::jobs::JobTask;
use super::{Engine, Parts};
use crate::adapter::{HookAccess, Instance, Task};
use crate::base::{OsUser, Result};
use crate::catalog::{Dataset, DatasetHooks, JobKind, Role, Timeflow};
use crate::hook::{Hook, HookPoint, Limits, Runner, Secrets, Variable};

/// Below the state folder: scripts that run now, and doors to servers.
const SCRATCH: &str = "hooks";
/// Where a hook's own secrets are among its dataset's.
const SECRET_PREFIX: &str = "hook";

/// Under which name a hook's secret variable is kept.
pub(super) fn secret_name(hook: &str, variable: &str) -> String {
    format!("{SECRET_PREFIX}/{hook}/{variable}")
}

/// Makes what runs hooks, and ends those that a killed process left running.
pub(super) fn runner(parts: &Parts) -> Result<Runner> {
    let scratch = parts.state.join(SCRATCH);
    let runner = Runner::new(&scratch, parts.clock.clone(), parts.random.clone(), Limits::default())?;
    Door::clear(&scratch)?;
    Ok(runner)
}

impl Engine {
    /// Runs a dataset's hooks of a point, one after another; the first that fails ends it. `timeflow` is the one that
    /// the operation works on.
    pub(super) fn hooks_at(
        &self,
        point: HookPoint,
        dataset: &Dataset,
        timeflow: &Timeflow,
        task: &mut JobTask,
    ) -> Result<()> {
        let Some(record) = self.catalog.get::<DatasetHooks>(dataset.id)? else { return Ok(()) };
        for hook in record.hooks.iter().filter(|hook| hook.point == point) {
            task.step(&format!("hook {} at {point}", hook.name))?;
            let instance = self.instance(dataset, timeflow)?;
            self.run_hook(hook, dataset, &instance, task)?;
        }
        Ok(())
    }

    /// The same after an operation that is done: a failure is a warning.
    pub(super) fn hooks_after(
        &self,
        point: HookPoint,
        dataset: &Dataset,
        timeflow: &Timeflow,
        task: &mut JobTask,
    ) {
        if let Err(e) = self.hooks_at(point, dataset, timeflow, task) {
            task.warn(&format!("{point}: {e}"));
        }
    }

    /// The hooks of a VDB's server around `operation`, which starts or stops it: those before may fail it.
    pub(super) fn around(
        &self,
        dataset: &Dataset,
        (before, after): (HookPoint, HookPoint),
        task: &mut JobTask,
        operation: impl FnOnce(&mut JobTask) -> Result<()>,
    ) -> Result<()> {
        // A dSource has no such points.
        if dataset.role == Role::Dsource {
            return operation(task);
        }
        let timeflow = self.current_timeflow(dataset)?;
        self.hooks_at(before, dataset, &timeflow, task)?;
        operation(task)?;
        self.hooks_after(after, dataset, &timeflow, task);
        Ok(())
    }

    fn run_hook(
        &self,
        hook: &Hook,
        dataset: &Dataset,
        instance: &Instance,
        task: &mut JobTask,
    ) -> Result<()> {
        let scratch = self.state.join(SCRATCH);
        let number = u32::try_from(self.random.next_u64() >> 32).unwrap_or(0);
        let named = hook.run_as.as_deref().map(OsUser::named).transpose()?;
        let adapter = self.adapter(&dataset.adapter)?;
        // Who it runs as without a name of its own does not depend on where its door is.
        let user = match named {
            Some(user) => user,
            None => match adapter.hook_access(instance, &scratch)?.user {
                Some(name) => OsUser::named(&name)?,
                None => OsUser::current(),
            },
        };
        let mut hook = hook.clone();
        hook.run_as = Some(user.name.clone()).filter(|_| user.is_another());
        let mut door = Door::new(&scratch, number, user)?;
        let access = adapter.hook_access(instance, door.folder())?;
        if let Some(socket) = &access.socket {
            door.open(socket)?;
        }
        let mut variables = variables(dataset, instance, access);
        variables.insert("STILLPOINT_JOB".into(), task.id().to_string());
        let secrets = secrets(&hook, instance);
        let cancel = task.cancel_flag();
        let mut sink = |line: &str| task.log(&format!("{}: {line}", hook.name));
        self.hooks.run(&hook, &variables, &secrets, &mut sink, &cancel).map(drop)
    }
}

/// The points before and after a refresh or a rewind.
pub(super) fn replacing(kind: JobKind) -> Option<(HookPoint, HookPoint)> {
    match kind {
        JobKind::DbRefresh => Some((HookPoint::PreRefresh, HookPoint::PostRefresh)),
        JobKind::DbRewind => Some((HookPoint::PreRewind, HookPoint::PostRewind)),
        _ => None,
    }
}

/// What a hook is told beside its job.
fn variables(dataset: &Dataset, instance: &Instance, access: HookAccess) -> BTreeMap<String, String> {
    let mut variables = access.variables;
    let mut set = |name: &str, value: String| variables.insert(name.to_owned(), value);
    let prefix = match dataset.role {
        Role::Dsource => "STAGING",
        Role::Vdb => "VDB",
    };
    set(&format!("{prefix}_MOUNT_BASE"), instance.volume.display().to_string());
    set(&format!("{prefix}_DATABASE_NAME"), access.database);
    set(&format!("{prefix}_INSTANCE_HOST"), access.host);
    set(&format!("{prefix}_INSTANCE_PORT"), instance.port.to_string());
    if dataset.role == Role::Dsource {
        set("STAGING_INSTANCE_NAME", dataset.name.clone());
        if let Some(source) = access.source {
            set("SOURCE_INSTANCE_HOST", source.host);
            set("SOURCE_INSTANCE_PORT", source.port.to_string());
            set("SOURCE_DATABASE_NAME", source.database);
        }
    }
    set("STILLPOINT_DATASET", dataset.name.clone());
    variables
}

/// The values of the hook's secret variables, and all others of its dataset, which it is not given but might print.
fn secrets(hook: &Hook, instance: &Instance) -> Secrets {
    let mut secrets = Secrets::default();
    for (name, value) in &instance.secrets.0 {
        secrets.insert(format!("dataset/{name}"), value.clone());
    }
    for (name, variable) in &hook.environment {
        if let (Variable::Secret, Some(value)) =
            (variable, instance.secrets.get(&secret_name(&hook.name, name)))
        {
            secrets.insert(name.clone(), value);
        }
    }
    secrets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::HookSource;

    fn dataset(role: Role) -> Dataset {
        serde_json::from_value(serde_json::json!({
            "id": 1,
            "name": "shop",
            "group": "default",
            "role": role,
            "adapter": "postgres",
            "config": null,
            "state": "active",
            "created": "2026-11-21T14:00:00Z",
            "port": 6001,
            "timeflow": null,
        }))
        .unwrap()
    }

    fn told(role: Role) -> Vec<String> {
        let dataset = dataset(role);
        let instance = Instance {
            name: "shop".into(),
            volume: "/mnt/shop.1".into(),
            state: "/state/1".into(),
            port: 6001,
            config: serde_json::Value::Null,
            secrets: Default::default(),
            logs: None,
        };
        let source = HookSource { host: "db1".into(), port: 5432, database: "postgres".into() };
        let access = HookAccess {
            host: "127.0.0.1".into(),
            database: "postgres".into(),
            source: Some(source),
            variables: BTreeMap::from([("CONNECT_STRING".into(), "url".into())]),
            ..HookAccess::default()
        };
        variables(&dataset, &instance, access)
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    #[test]
    fn hooks_are_told_what_the_documentation_says() {
        assert_eq!(
            told(Role::Dsource),
            [
                "CONNECT_STRING=url",
                "SOURCE_DATABASE_NAME=postgres",
                "SOURCE_INSTANCE_HOST=db1",
                "SOURCE_INSTANCE_PORT=5432",
                "STAGING_DATABASE_NAME=postgres",
                "STAGING_INSTANCE_HOST=127.0.0.1",
                "STAGING_INSTANCE_NAME=shop",
                "STAGING_INSTANCE_PORT=6001",
                "STAGING_MOUNT_BASE=/mnt/shop.1",
                "STILLPOINT_DATASET=shop",
            ]
        );
        assert_eq!(
            told(Role::Vdb),
            [
                "CONNECT_STRING=url",
                "STILLPOINT_DATASET=shop",
                "VDB_DATABASE_NAME=postgres",
                "VDB_INSTANCE_HOST=127.0.0.1",
                "VDB_INSTANCE_PORT=6001",
                "VDB_MOUNT_BASE=/mnt/shop.1",
            ]
        );
    }
}
