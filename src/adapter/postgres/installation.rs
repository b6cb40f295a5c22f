//! PostgreSQL installations of this host.

use std::path::{Path, PathBuf};

use crate::base::{Error, ErrorKind, Result};

/// Where Debian's packages put each major version.
const ROOT: &str = "/usr/lib/postgresql";

/// The programs of one major version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    pub major: u32,
    pub programs: PathBuf,
}

/// Every installation, oldest first.
pub fn installations() -> Vec<Installation> {
    let Ok(entries) = std::fs::read_dir(ROOT) else { return Vec::new() };
    let mut found: Vec<Installation> = entries
        .flatten()
        .filter_map(|entry| {
            let major = entry.file_name().to_str()?.parse().ok()?;
            let programs = entry.path().join("bin");
            programs.join("postgres").exists().then_some(Installation { major, programs })
        })
        .collect();
    found.sort_by_key(|installation| installation.major);
    found
}

/// The installation of a major version; the error says what there is.
pub(super) fn installation(major: u32) -> Result<Installation> {
    let all = installations();
    let majors: Vec<String> = all.iter().map(|found| found.major.to_string()).collect();
    all.into_iter().find(|found| found.major == major).ok_or_else(|| {
        let have = if majors.is_empty() { "none".to_owned() } else { majors.join(", ") };
        Error::new(
            ErrorKind::Precondition,
            format!(
                "the source runs PostgreSQL {major}, and this host has {have} below {ROOT}: \
                 apt-get install postgresql-{major}"
            ),
        )
    })
}

/// The newest installation, whose client programs talk to every older server.
pub(super) fn newest() -> Result<Installation> {
    installations().pop().ok_or_else(|| {
        Error::new(
            ErrorKind::Precondition,
            format!("there is no PostgreSQL below {ROOT}: apt-get install postgresql"),
        )
    })
}

/// The version of an installation's server, such as `15.18`.
pub(super) fn version_of(programs: &Path) -> Option<String> {
    let output = std::process::Command::new(programs.join("postgres")).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit())).map(str::to_owned)
}
