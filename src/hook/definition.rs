//! What a hook is, and what makes one valid.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::point::{DatasetKind, HookPoint};
use crate::base::{Error, ErrorKind, Result};

/// The kernel refuses a longer argument or variable.
const TEXT_BYTES_MAX: usize = 128 << 10;
const SCRIPT_BYTES_MAX: usize = 1 << 20;
const TIME_LIMIT_SECONDS_MAX: u32 = 7 * 24 * 3600;
const NAME_BYTES_MAX: usize = 64;
/// What variables the engine sets may begin with; a hook's own may not.
const OWN_PREFIX: &str = "STILLPOINT_";

/// A user's script or command at a point of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    pub name: String,
    pub point: HookPoint,
    pub program: Program,
    /// The OS user it runs as; without one the user this process is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as: Option<String>,
    /// It is ended when it has run this long.
    pub time_limit_seconds: u32,
    /// Variables of its own. Those the engine gives it win over these.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, Variable>,
}

/// What a hook runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// A script's text, run by the interpreter of its `#!` line, or else by `/bin/sh`.
    Script(String),
    /// A program, by its path or found in the PATH of hooks, and its arguments; no shell.
    Command(Vec<String>),
}

/// The value of a hook's own variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variable {
    Value(String),
    /// Kept elsewhere; given when the hook runs, by the variable's name.
    Secret,
}

/// Values that no output may show, by name. Never printed.
#[derive(Clone, Default)]
pub struct Secrets(BTreeMap<String, String>);

impl Hook {
    /// `Invalid` says what is wrong with the definition; `kind` is what it belongs to.
    pub fn check(&self, kind: DatasetKind) -> Result<()> {
        self.point.check(kind)?;
        self.problem()
            .map_or(Ok(()), |problem| Err(Error::invalid(format!("hook {:?}: {problem}", self.name))))
    }

    fn problem(&self) -> Option<String> {
        if let Some(problem) = name_problem(&self.name).or_else(|| self.program.problem()) {
            return Some(problem);
        }
        if !(1..=TIME_LIMIT_SECONDS_MAX).contains(&self.time_limit_seconds) {
            return Some(format!(
                "time_limit_seconds is {}, and must be 1 to {TIME_LIMIT_SECONDS_MAX}",
                self.time_limit_seconds
            ));
        }
        self.environment.iter().find_map(|(name, variable)| variable_problem(name, variable))
    }

    /// An error about a run of this hook, naming it and its point.
    pub(super) fn error(&self, kind: ErrorKind, what: impl fmt::Display) -> Error {
        Error::new(kind, format!("hook {:?} at {} {what}", self.name, self.point))
    }
}

impl Program {
    /// What is wrong with it.
    pub(super) fn problem(&self) -> Option<String> {
        match self {
            Self::Script(text) if text.trim().is_empty() => Some("the script is empty".into()),
            Self::Script(text) if text.len() > SCRIPT_BYTES_MAX => {
                Some(format!("the script has {} bytes, and may have {SCRIPT_BYTES_MAX}", text.len()))
            }
            Self::Script(text) => text.contains('\0').then(|| "the script holds a zero byte".into()),
            Self::Command(words) if words.first().is_none_or(String::is_empty) => {
                Some("the command names no program".into())
            }
            Self::Command(words) => words.iter().find_map(|word| text_problem("an argument", word)),
        }
    }
}

/// What is wrong with the name of a hook or a template.
pub(super) fn name_problem(name: &str) -> Option<String> {
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    (!fits).then(|| format!("a name has 1 to {NAME_BYTES_MAX} letters, digits, dots, dashes and underscores"))
}

fn variable_problem(name: &str, variable: &Variable) -> Option<String> {
    if !is_identifier(name) {
        return Some(format!("the variable name {name:?} is not letters, digits and underscores"));
    }
    if name.starts_with(OWN_PREFIX) {
        return Some(format!("variables that begin with {OWN_PREFIX} are the engine's: rename {name}"));
    }
    match variable {
        Variable::Value(value) => text_problem(&format!("the variable {name}"), value),
        Variable::Secret => None,
    }
}

pub(super) fn text_problem(what: &str, text: &str) -> Option<String> {
    if text.contains('\0') {
        return Some(format!("{what} holds a zero byte"));
    }
    (text.len() >= TEXT_BYTES_MAX).then(|| format!("{what} is longer than {TEXT_BYTES_MAX} bytes"))
}

pub(super) fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

impl Secrets {
    /// Adds a value, or replaces the one of this name.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.insert(name.into(), value.into());
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &str> {
        self.0.values().map(String::as_str)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook() -> Hook {
        Hook {
            name: "mask-emails".into(),
            point: HookPoint::ConfigureClone,
            program: Program::Script("psql -f mask.sql".into()),
            run_as: Some("postgres".into()),
            time_limit_seconds: 600,
            environment: BTreeMap::from([("TOKEN".into(), Variable::Secret)]),
        }
    }

    #[test]
    fn definitions_are_stored_as_json() {
        let stored = serde_json::to_string(&hook()).unwrap();
        assert_eq!(
            stored,
            r#"{"name":"mask-emails","point":"configure_clone","program":{"script":"psql -f mask.sql"},"run_as":"postgres","time_limit_seconds":600,"environment":{"TOKEN":"secret"}}"#
        );
        assert_eq!(serde_json::from_str::<Hook>(&stored).unwrap(), hook());
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(hook().check(DatasetKind::Vdb).is_ok());
        assert!(hook().check(DatasetKind::DSource).unwrap_err().message().contains("configure_clone"));
        let wrong = |change: fn(&mut Hook)| {
            let mut hook = hook();
            change(&mut hook);
            hook.check(DatasetKind::Vdb).unwrap_err().message().to_owned()
        };
        assert!(wrong(|hook| hook.name = "a b".into()).contains("a name has 1 to 64"));
        assert!(wrong(|hook| hook.time_limit_seconds = 0).contains("time_limit_seconds is 0"));
        assert!(wrong(|hook| hook.program = Program::Script(" \n".into())).contains("the script is empty"));
        assert!(wrong(|hook| hook.program = Program::Command(vec![])).contains("names no program"));
        assert!(wrong(|hook| hook.program = Program::Command(vec!["a\0".into()])).contains("zero byte"));
        let own = |name: &str| BTreeMap::from([(name.to_owned(), Variable::Secret)]);
        let mut named = hook();
        for (name, expected) in [("a=b", "is not letters"), ("STILLPOINT_JOB", "rename STILLPOINT_JOB")] {
            named.environment = own(name);
            let error = named.check(DatasetKind::Vdb).unwrap_err();
            assert!(error.message().contains(expected), "{error}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let mut secrets = Secrets::default();
        secrets.insert("TOKEN", "hunter2");
        assert_eq!(format!("{secrets:?}"), "{\"TOKEN\"}");
    }
}
