//! What the command adapter is asked for, what it keeps, and what commands are told.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::Instance;
use crate::base::{Error, Result};
use crate::hook::{DatasetKind, Hook, HookPoint, Program, Variable};

/// The time limit of a command when none is told.
const TIME_LIMIT_SECONDS: u32 = 60;
/// The variable that names the folder of a dataset outside its volume; what a command started is known by it.
pub(super) const RUN_VARIABLE: &str = "STILLPOINT_RUN";
/// That folder inside the state folder.
const RUN_FOLDER: &str = "run";
/// Where applications listen.
pub(super) const HOST: &str = "127.0.0.1";

/// A request to link an application.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LinkRequest {
    /// The dataset's name.
    pub name: String,
    pub port: u16,
    /// The user of the host that owns the files and that commands run as.
    pub user: String,
    pub commands: Texts,
    /// A folder to copy into the volume at the link.
    pub from: Option<PathBuf>,
    pub time_limit_seconds: Option<u32>,
    /// Variables for the commands.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

/// Commands of an application, each a text for `/bin/sh`, or a script with a `#!` line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Texts {
    pub quiesce: String,
    pub thaw: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configure: Option<String>,
}

/// What a dataset of this adapter is run with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Config {
    pub user: String,
    pub commands: Texts,
    pub time_limit_seconds: u32,
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// Whether it is a clone, and not what was linked.
    #[serde(default)]
    pub vdb: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<PathBuf>,
}

/// A request to change an application's commands and settings, or for a new first copy.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Change {
    pub settings: BTreeMap<String, String>,
    /// Settings that go.
    pub unset: Vec<String>,
    /// New texts by their names; an empty one takes a command away.
    pub commands: BTreeMap<String, String>,
    pub time_limit_seconds: Option<u32>,
}

/// What a snapshot records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Metadata {
    /// How the application was at the cut.
    pub application: Held,
    pub user: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Held {
    /// By its quiesce command.
    Quiesced,
    /// It was not running, so there was nothing to hold.
    Stopped,
}

/// The commands by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Quiesce,
    Thaw,
    Start,
    Stop,
    Status,
    Configure,
}

impl Word {
    pub(super) const ALL: [Self; 6] =
        [Self::Quiesce, Self::Thaw, Self::Start, Self::Stop, Self::Status, Self::Configure];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Quiesce => "quiesce",
            Self::Thaw => "thaw",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Status => "status",
            Self::Configure => "configure",
        }
    }

    /// The point of an operation that it runs at.
    fn point(self) -> HookPoint {
        match self {
            Self::Quiesce => HookPoint::PreSnapshot,
            Self::Thaw => HookPoint::PostSnapshot,
            Self::Start => HookPoint::PreStart,
            Self::Status => HookPoint::PostStart,
            Self::Stop => HookPoint::PreStop,
            Self::Configure => HookPoint::ConfigureClone,
        }
    }
}

impl Texts {
    pub(super) fn get(&self, word: Word) -> Option<&str> {
        match word {
            Word::Quiesce => Some(&self.quiesce),
            Word::Thaw => Some(&self.thaw),
            Word::Start => self.start.as_deref(),
            Word::Stop => self.stop.as_deref(),
            Word::Status => self.status.as_deref(),
            Word::Configure => self.configure.as_deref(),
        }
    }

    fn set(&mut self, name: &str, text: String) -> Result<()> {
        let word = Word::ALL.into_iter().find(|word| word.name() == name);
        let text = Some(text).filter(|text| !text.is_empty());
        match (word, text) {
            (Some(Word::Quiesce), Some(text)) => self.quiesce = text,
            (Some(Word::Thaw), Some(text)) => self.thaw = text,
            (Some(Word::Quiesce | Word::Thaw), None) => {
                return Err(Error::invalid(format!("an application has a {name} command")));
            }
            (Some(Word::Start), text) => self.start = text,
            (Some(Word::Stop), text) => self.stop = text,
            (Some(Word::Status), text) => self.status = text,
            (Some(Word::Configure), text) => self.configure = text,
            (None, _) => return Err(Error::invalid(format!("there is no command {name} of an application"))),
        }
        Ok(())
    }
}

impl Config {
    /// What a request asks for; `Invalid` says what is wrong with it.
    pub(super) fn of(request: &LinkRequest) -> Result<Self> {
        let config = Self {
            user: request.user.clone(),
            commands: request.commands.clone(),
            time_limit_seconds: request.time_limit_seconds.unwrap_or(TIME_LIMIT_SECONDS),
            settings: request.settings.clone(),
            vdb: false,
            from: request.from.clone(),
        };
        config.check()?;
        Ok(config)
    }

    /// What it becomes by a change.
    pub(super) fn changed(mut self, change: Change) -> Result<Self> {
        for name in &change.unset {
            if self.settings.remove(name).is_none() {
                return Err(Error::not_found(format!("there is no variable {name} to take away")));
            }
        }
        self.settings.extend(change.settings);
        for (name, text) in change.commands {
            self.commands.set(&name, text)?;
        }
        self.time_limit_seconds = change.time_limit_seconds.unwrap_or(self.time_limit_seconds);
        self.check()?;
        Ok(self)
    }

    /// Refuses commands that cannot be run and variables that no command can have.
    pub(super) fn check(&self) -> Result<()> {
        if self.commands.start.is_some() != self.commands.stop.is_some() {
            return Err(Error::invalid(
                "an application that is started must be stopped, too: name both --start and --stop, or neither",
            ));
        }
        for word in Word::ALL {
            if let Some(hook) = self.hook(word) {
                let kind = match word {
                    Word::Quiesce | Word::Thaw => DatasetKind::DSource,
                    _ => DatasetKind::Vdb,
                };
                hook.check(kind).map_err(|e| e.context(format!("--{}", word.name())))?;
            }
        }
        Ok(())
    }

    /// A command as something to run; `None` when there is none.
    pub(super) fn hook(&self, word: Word) -> Option<Hook> {
        let text = self.commands.get(word)?;
        Some(self.hook_of(word, Program::Script(text.to_owned()), self.time_limit_seconds))
    }

    pub(super) fn hook_of(&self, word: Word, program: Program, time_limit_seconds: u32) -> Hook {
        let values = self.settings.iter();
        Hook {
            name: word.name().into(),
            point: word.point(),
            program,
            run_as: Some(self.user.clone()),
            time_limit_seconds,
            environment: values.map(|(name, value)| (name.clone(), Variable::Value(value.clone()))).collect(),
        }
    }
}

/// The folder outside the volume that the application may write in: process numbers, sockets, logs.
pub(super) fn run_folder(instance: &Instance) -> PathBuf {
    instance.state.join(RUN_FOLDER)
}

/// How the application is reached: its folder and port, by the names that scripts of dSources or of VDBs know.
pub(super) fn connection(instance: &Instance, config: &Config) -> BTreeMap<String, String> {
    let kind = if config.vdb { "VDB" } else { "STAGING" };
    let (folder, port) = (instance.volume.display().to_string(), instance.port.to_string());
    BTreeMap::from([
        ("STILLPOINT_FOLDER".to_owned(), folder.clone()),
        ("STILLPOINT_PORT".to_owned(), port.clone()),
        (format!("{kind}_MOUNT_BASE"), folder),
        (format!("{kind}_DATABASE_NAME"), instance.name.clone()),
        (format!("{kind}_INSTANCE_HOST"), HOST.to_owned()),
        (format!("{kind}_INSTANCE_PORT"), port),
    ])
}

/// All that a command is told.
pub(super) fn variables(instance: &Instance, config: &Config) -> BTreeMap<String, String> {
    let mut variables = connection(instance, config);
    variables.insert("STILLPOINT_DATASET".into(), instance.name.clone());
    variables.insert("STILLPOINT_ROLE".into(), if config.vdb { "vdb" } else { "dsource" }.into());
    variables.insert(RUN_VARIABLE.into(), run_folder(instance).display().to_string());
    variables
}

/// Reads one of the types above out of the value the engine kept.
pub(super) fn read<T: DeserializeOwned>(what: &str, value: &Value) -> Result<T> {
    serde_json::from_value(value.clone()).map_err(|e| Error::invalid(format!("{what}: {e}")))
}

/// The value the engine keeps.
pub(super) fn keep<T: Serialize>(what: &str, value: &T) -> Result<Value> {
    serde_json::to_value(value).map_err(|e| Error::invalid(format!("{what}: {e}")))
}
