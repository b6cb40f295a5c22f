//! Running other programs: what they print, and an error that says what failed.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, bail};

/// Runs and returns what it printed on stdout; an error carries the end of what it printed on stderr.
pub fn run(command: &mut Command) -> anyhow::Result<String> {
    let described = describe(command);
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{described}`"))?;
    checked(&described, output)
}

/// A command of this name with these arguments.
pub fn program<'a>(name: &str, arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(name);
    command.args(arguments);
    command
}

/// A command run by the user postgres, from a folder that user may enter. The process it starts is the program
/// itself, so its pid can be signalled.
pub fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"])
        .arg(program)
        .current_dir("/")
        .env("LC_ALL", "C");
    command
}

/// Whether a program of this name can be started.
pub fn available(name: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(name).is_file())
}

fn checked(described: &str, output: Output) -> anyhow::Result<String> {
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let from = stderr.char_indices().rev().nth(1500).map_or(0, |(index, _)| index);
        bail!("`{described}` failed ({}): {}", output.status, stderr[from..].trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
