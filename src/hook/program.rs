//! From a hook to the command that is started: interpreter, script file, user and environment.
//!
//! Invariants: the environment is only what is given here; nothing secret is an argument. Must not know what happens
//! after the start.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::definition::{Hook, Program, Secrets, Variable, text_problem};
use super::family::MARKER;
use super::run_file::RunFile;
use crate::base::{ErrorKind, OsUser, Result};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const SHELL: &str = "/bin/sh";
const SETPRIV: &str = "/usr/bin/setpriv";

/// A command ready to start, and the file it needs meanwhile.
pub(super) struct Prepared {
    pub command: Command,
    /// What is started, for messages.
    pub shown: String,
    /// To be kept until the run has ended.
    pub file: RunFile,
}

impl Prepared {
    pub(super) fn new(
        hook: &Hook,
        environment: &BTreeMap<String, String>,
        scratch: &Path,
        run: &str,
    ) -> Result<Self> {
        let user = user_of(hook)?;
        let (words, file) = match &hook.program {
            Program::Command(words) => (words.clone(), RunFile::create(scratch, run, "", &user)?),
            Program::Script(text) => {
                let mut words = interpreter(text);
                check_interpreter(hook, &words[0])?;
                let file = RunFile::create(scratch, run, text, &user)?;
                words.push(file.path().display().to_string());
                (words, file)
            }
        };
        let shown = words.first().cloned().unwrap_or_default();
        let mut command = as_user(hook, &user, &words)?;
        command
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", &user.home)
            .env("LANG", "C.UTF-8")
            .envs(environment)
            .env(MARKER, run)
            .current_dir("/")
            .stdin(Stdio::null())
            .process_group(0);
        Ok(Self { command, shown, file })
    }
}

/// The hook's own variables with their secrets, and over them the engine's. `Precondition` names a secret that has no
/// value.
pub(super) fn environment(
    hook: &Hook,
    variables: &BTreeMap<String, String>,
    secrets: &Secrets,
) -> Result<BTreeMap<String, String>> {
    let mut environment = BTreeMap::new();
    for (name, variable) in &hook.environment {
        let value = match variable {
            Variable::Value(value) => value,
            Variable::Secret => secrets.get(name).ok_or_else(|| {
                hook.error(
                    ErrorKind::Precondition,
                    format!("needs the secret {name}, which has no value: set it, or take the variable away"),
                )
            })?,
        };
        environment.insert(name.clone(), value.to_owned());
    }
    environment.extend(variables.iter().map(|(name, value)| (name.clone(), value.clone())));
    for (name, value) in &environment {
        if let Some(problem) = text_problem(&format!("the variable {name}"), value) {
            return Err(hook.error(ErrorKind::Invalid, format!("cannot run: {problem}")));
        }
    }
    Ok(environment)
}

/// As the kernel reads a first line: a path, and the rest as one argument.
fn interpreter(text: &str) -> Vec<String> {
    let line = text.lines().next().unwrap_or_default();
    let Some(line) = line.strip_prefix("#!").map(str::trim).filter(|line| !line.is_empty()) else {
        return vec![SHELL.into()];
    };
    let (path, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let words = [path, argument.trim()];
    words.into_iter().filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn check_interpreter(hook: &Hook, path: &str) -> Result<()> {
    let runs =
        fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
    if path.starts_with('/') && runs {
        return Ok(());
    }
    let what = format!(
        "cannot run: its interpreter {path:?} is not a program on this host; change its #! line or install it"
    );
    Err(hook.error(ErrorKind::Precondition, what))
}

/// The user a hook names, or the one this process is. `NotFound` when the host has none of that name, `NotAllowed` when
/// this process may not become it.
fn user_of(hook: &Hook) -> Result<OsUser> {
    let Some(name) = &hook.run_as else { return Ok(OsUser::current()) };
    let user = OsUser::named(name).map_err(|e| e.context(format!("hook {:?}", hook.name)))?;
    if user.is_another() && !rustix::process::geteuid().is_root() {
        let what = format!("cannot run as {name}: only root may run hooks as another user");
        return Err(hook.error(ErrorKind::NotAllowed, what));
    }
    Ok(user)
}

/// The command for the user. std sets ids but no groups, so a user with more groups goes through setpriv.
fn as_user(hook: &Hook, user: &OsUser, words: &[String]) -> Result<Command> {
    let (program, arguments) =
        words.split_first().ok_or_else(|| hook.error(ErrorKind::Invalid, "names no program"))?;
    let mut command = Command::new(program);
    command.args(arguments);
    if !user.is_another() {
        return Ok(command);
    }
    let groups: Vec<String> = user.groups().iter().map(u32::to_string).collect();
    if groups.is_empty() {
        command.uid(user.uid).gid(user.gid);
        return Ok(command);
    }
    if !Path::new(SETPRIV).exists() {
        let what = format!(
            "cannot run as {}, who is in several groups, without {SETPRIV}: apt-get install util-linux",
            user.name
        );
        return Err(hook.error(ErrorKind::Precondition, what));
    }
    let mut command = Command::new(SETPRIV);
    command
        .arg(format!("--reuid={}", user.uid))
        .arg(format!("--regid={}", user.gid))
        .arg(format!("--groups={}", groups.join(",")))
        .arg("--")
        .args(words);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_names_the_interpreter() {
        assert_eq!(interpreter("echo a"), ["/bin/sh"]);
        assert_eq!(interpreter("#!\necho a"), ["/bin/sh"]);
        assert_eq!(interpreter("#! /usr/bin/env  python3 -u \nimport os"), ["/usr/bin/env", "python3 -u"]);
        assert_eq!(interpreter("#!/bin/bash\r\n"), ["/bin/bash"]);
    }
}
