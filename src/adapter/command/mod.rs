//! Any other application: a folder of files that its user writes, and commands that hold it for a snapshot, let it go
//! on, and start and stop it.
//!
//! A snapshot is as good as its quiesce command: the volume is cut between that and the thaw command. All commands run
//! as the application's user. There are no logs, so no points in time, and no source to follow.

mod application;
mod config;
mod processes;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use super::{
    Abilities, Adapter, ChangeKind, Described, Health, HookAccess, Instance, LinkPlan, Parent, Problem,
    Repository, Secrets, Synced, Target, Task, VdbOptions, Verified, no_points,
};
use crate::base::{Clock, Error, ErrorKind, OsUser, Random, Result};
use crate::hook::{Limits, Runner};
use application::{Application, Known, Seen};
use config::{Change, Config, HOST, Held, LinkRequest, Metadata, Word, connection, keep, read, variables};

/// The adapter.
pub struct Commands {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    known: Known,
    /// State folders of datasets that are cut without being held, as nothing of them runs.
    unheld: Mutex<HashSet<PathBuf>>,
}

impl Commands {
    pub fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self { clock, random, known: Known::default(), unheld: Mutex::default() }
    }

    fn application<'a>(&'a self, instance: &'a Instance) -> Result<Application<'a>> {
        let config: Config = read(&format!("the configuration of {}", instance.name), &instance.config)?;
        let runner = self.known.runner(instance, |scratch| {
            Runner::new(scratch, Arc::clone(&self.clock), Arc::clone(&self.random), Limits::default())
        })?;
        Ok(Application::new(instance, config, &self.known, &*self.clock, runner))
    }
}

impl Adapter for Commands {
    fn kind(&self) -> &'static str {
        "command"
    }

    fn abilities(&self) -> Abilities {
        Abilities { logs: false, vdb_logs: false, images: false, verifies: false, checks_files: false }
    }

    /// None: what an application needs, its commands know.
    fn discover(&self) -> Result<Vec<Repository>> {
        Ok(Vec::new())
    }

    fn plan_link(&self, request: &Value, _secrets: &Secrets) -> Result<LinkPlan> {
        let request: LinkRequest = read("the request to link", request)?;
        let config = Config::of(&request)?;
        if OsUser::named(&config.user)?.uid == 0 {
            return Err(Error::invalid(
                "commands of an application do not run as root: name the user that it runs as",
            ));
        }
        if let Some(from) = &config.from
            && !(from.is_absolute() && from.is_dir())
        {
            return Err(Error::not_found(format!("{} is no folder of this host", from.display())));
        }
        Ok(LinkPlan {
            review: review(&request.name, request.port, &config),
            warnings: warnings(&config),
            estimated_bytes: None,
            config: keep("the configuration", &config)?,
        })
    }

    fn ingest(&self, instance: &Instance, task: &mut dyn Task) -> Result<()> {
        let application = self.application(instance)?;
        application.make_folders()?;
        application.give_volume()?;
        match &application.config.from {
            Some(from) => application.copy(from, &instance.volume, task),
            None => Ok(()),
        }
    }

    fn unlink(&self, _instance: &Instance, _task: &mut dyn Task) -> Result<()> {
        Ok(())
    }

    fn plan_change(&self, instance: &Instance, change: &Value, _kind: ChangeKind) -> Result<LinkPlan> {
        let config: Config = read(&format!("the configuration of {}", instance.name), &instance.config)?;
        let change: Change =
            read(&format!("the change of {}, which is an application", instance.name), change)?;
        let config = config.changed(change)?;
        Ok(LinkPlan {
            review: review(&instance.name, instance.port, &config),
            warnings: warnings(&config),
            estimated_bytes: None,
            config: keep("the configuration", &config)?,
        })
    }

    /// A new first copy is one of the folder that the first one was of.
    fn plan_resync(&self, instance: &Instance, change: &Value) -> Result<LinkPlan> {
        let plan = self.plan_change(instance, change, ChangeKind::Settings)?;
        match read::<Config>("the configuration", &plan.config)?.from {
            Some(_) => Ok(plan),
            None => Err(no_source(&instance.name, "to take a new first copy of: link it with --from FOLDER")),
        }
    }

    fn detached(&self, instance: &Instance) -> Result<Value> {
        Err(no_source(
            &instance.name,
            "to be detached from: `stillpoint dsource disable` stops all work on it",
        ))
    }

    fn attach(&self, instance: &Instance, _task: &mut dyn Task) -> Result<()> {
        Err(no_source(&instance.name, "to be attached to"))
    }

    fn reconfigure(&self, instance: &Instance) -> Result<Value> {
        Ok(instance.config.clone())
    }

    fn start_staging(&self, instance: &Instance, task: &mut dyn Task) -> Result<()> {
        self.application(instance)?.start(task)
    }

    /// What is in the folder is all there is.
    fn sync(&self, _instance: &Instance, _before: Option<&Value>, _task: &mut dyn Task) -> Result<Synced> {
        Ok(Synced::Ready)
    }

    fn monitor(&self, instance: &Instance) -> Result<Health> {
        Ok(health(&self.application(instance)?))
    }

    fn quiesce(&self, instance: &Instance, task: &mut dyn Task) -> Result<Described> {
        let application = self.application(instance)?;
        let describe = |held| {
            let metadata = Metadata { application: held, user: application.config.user.clone() };
            let metadata = keep("the snapshot's records", &metadata)?;
            Ok(Described { metadata, unprovisionable: None })
        };
        self.unheld.lock().remove(&instance.state);
        if application.is_managed() && application.seen() == Seen::Stopped {
            self.unheld.lock().insert(instance.state.clone());
            return describe(Held::Stopped);
        }
        task.step("quiesce")?;
        application.make_folders()?;
        application.run(Word::Quiesce, task)?;
        describe(Held::Quiesced)
    }

    fn thaw(&self, instance: &Instance) -> Result<()> {
        if self.unheld.lock().remove(&instance.state) {
            return Ok(());
        }
        self.application(instance)?.run_alone(Word::Thaw)
    }

    fn describe_end(&self, _instance: &Instance, _metadata: &mut Value) -> Result<()> {
        Ok(())
    }

    fn plan_vdb(&self, parent: &Value, _metadata: &Value, options: &VdbOptions) -> Result<Value> {
        let parent: Config = read("the configuration of the parent", parent)?;
        if options.owner.is_some() || !options.renames.is_empty() {
            return Err(Error::invalid(
                "an application has no roles and databases to own or rename: its configure command does such things",
            ));
        }
        let mut settings = parent.settings;
        settings.extend(options.settings.clone());
        let config = Config { vdb: true, from: None, settings, ..parent };
        config.check()?;
        keep("the configuration", &config)
    }

    fn plan_refresh(&self, vdb: &Value, _parent: &Value, _metadata: &Value) -> Result<Value> {
        Ok(vdb.clone())
    }

    fn provision(
        &self,
        instance: &Instance,
        _metadata: &Value,
        target: &Target,
        _parent: Option<Parent<'_>>,
        task: &mut dyn Task,
    ) -> Result<()> {
        if *target != Target::Snapshot {
            return Err(no_points(&instance.name));
        }
        let application = self.application(instance)?;
        application.make_folders()?;
        if application.config.commands.configure.is_some() {
            task.step("configure")?;
            application.run(Word::Configure, task)?;
        }
        self.adopt(instance, task)
    }

    fn adopt(&self, instance: &Instance, task: &mut dyn Task) -> Result<()> {
        task.step("start")?;
        self.start(instance, task)
    }

    fn start(&self, instance: &Instance, task: &mut dyn Task) -> Result<()> {
        self.application(instance)?.start(task)
    }

    fn verify(&self, instance: &Instance, _task: &mut dyn Task) -> Result<Verified> {
        Err(Error::new(ErrorKind::Unsupported, format!("{} has no checks of its own", instance.name)))
    }

    fn export(&self, instance: &Instance, from: &Path, to: &Path, task: &mut dyn Task) -> Result<()> {
        self.application(instance)?.export(from, to, task)
    }

    fn stop(&self, instance: &Instance, task: &mut dyn Task) -> Result<()> {
        self.application(instance)?.stop(task)
    }

    fn end_strays(&self, state: &Path, _mount: &Path, kept: &[PathBuf]) -> Result<Vec<u32>> {
        processes::end(processes::Of::All(state, kept), &*self.clock)
    }

    fn connection(&self, instance: &Instance) -> BTreeMap<String, String> {
        read::<Config>("the configuration", &instance.config)
            .map_or_else(|_| BTreeMap::new(), |config| connection(instance, &config))
    }

    /// Hooks run as the application's user, and are told what its commands are.
    fn hook_access(&self, instance: &Instance, _door: &Path) -> Result<HookAccess> {
        let config: Config = read(&format!("the configuration of {}", instance.name), &instance.config)?;
        Ok(HookAccess {
            host: HOST.into(),
            database: instance.name.clone(),
            variables: variables(instance, &config),
            user: Some(config.user),
            ..HookAccess::default()
        })
    }
}

fn review(name: &str, port: u16, config: &Config) -> Vec<(String, String)> {
    let mut review = vec![
        ("application".to_owned(), format!("{name}, as {}", config.user)),
        ("files".into(), format!("a volume that belongs to {}", config.user)),
    ];
    if let Some(from) = &config.from {
        review.push(("first copy".into(), from.display().to_string()));
    }
    for word in Word::ALL {
        let text = config.commands.get(word).unwrap_or("none");
        review.push((word.name().into(), text.to_owned()));
    }
    review.push(("time limit".into(), format!("{} s for each command", config.time_limit_seconds)));
    review.push(("port".into(), port.to_string()));
    for (name, value) in &config.settings {
        review.push(("variable".into(), format!("{name} = {value}")));
    }
    review
}

fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    if config.commands.start.is_none() {
        warnings.push(
            "without --start and --stop the engine runs no application: a VDB is a folder of files"
                .to_owned(),
        );
    } else if config.commands.status.is_none() {
        warnings.push("without --status the engine does not see when the application goes down".to_owned());
    }
    warnings
}

fn health(application: &Application<'_>) -> Health {
    let (managed, asked) = (application.is_managed(), application.config.commands.status.is_some());
    let name = &application.instance.name;
    let seen = application.seen();
    let mut health = Health {
        running: !managed || seen == Seen::Running,
        state: match &seen {
            _ if !managed && !asked => "not run by the engine",
            Seen::Running => "running",
            Seen::Stopped => "stopped",
            Seen::Unknown(_) => "unknown",
        }
        .to_owned(),
        ..Health::default()
    };
    match seen {
        Seen::Stopped if !managed => health.problems.push(Problem {
            code: "APPLICATION_DOWN".into(),
            message: format!("the status command of {name} says that the application does not run"),
            action: "start it: the engine has no command for that".into(),
        }),
        Seen::Unknown(Some(why)) => {
            // Started again it could run twice.
            health.running = true;
            health.problems.push(Problem {
                code: "STATUS_UNKNOWN".into(),
                message: format!("whether {name} runs is not known: {why}"),
                action: "see why its status command gives no answer".into(),
            });
        }
        _ => {}
    }
    health
}

fn no_source(name: &str, for_what: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("{name} is an application with commands, and has no source {for_what}"),
    )
}
