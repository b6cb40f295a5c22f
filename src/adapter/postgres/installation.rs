//! PostgreSQL installations: those of the host's packages, and folders that the user names beside them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::base::{Error, ErrorKind, Result};

/// Where Debian's packages put each major version.
const ROOT: &str = "/usr/lib/postgresql";
/// The environment variable that lists further folders, separated by colons.
pub const POSTGRES_VARIABLE: &str = "STILLPOINT_POSTGRES_DIRS";
/// Programs that the adapter runs and that smaller packages leave out.
const CLIENTS: [&str; 5] = ["psql", "pg_basebackup", "pg_controldata", "pg_verifybackup", "pg_waldump"];

/// The programs of one major version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    pub major: u32,
    pub programs: PathBuf,
}

/// Where installations are looked for. What there is, is looked up each time: packages come and go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installations {
    folders: Vec<PathBuf>,
    /// Folders of programs that were added while the daemon ran, behind the others.
    added: Vec<PathBuf>,
    /// Folders of programs that nothing new is to run with.
    disabled: Vec<PathBuf>,
}

impl Installation {
    /// The version of its server, such as `15.18`.
    pub fn version(&self) -> Option<String> {
        version_of(&self.programs)
    }

    /// What it lacks of the programs that the adapter runs.
    pub fn missing(&self) -> Vec<&'static str> {
        CLIENTS.into_iter().filter(|program| !self.programs.join(program).exists()).collect()
    }
}

impl Installation {
    /// Refuses an installation without programs that an operation cannot do without.
    pub(super) fn with(self, programs: &[&str]) -> Result<Self> {
        let missing: Vec<&str> =
            programs.iter().copied().filter(|program| !self.programs.join(program).exists()).collect();
        if missing.is_empty() {
            return Ok(self);
        }
        Err(Error::new(
            ErrorKind::Precondition,
            format!(
                "{} has no {}: apt-get install postgresql-{major} postgresql-client-{major}, or name the folder of a whole \
                 installation with `daemon --postgres DIR`",
                self.programs.display(),
                missing.join(" and no "),
                major = self.major
            ),
        ))
    }
}

impl Installations {
    /// Those of the packages, and those in `folders`: each has `bin/postgres`, or is such a `bin` itself, or holds such
    /// folders, as `/usr/lib/postgresql` does. Of one major version the last one named is used.
    pub fn with(folders: Vec<PathBuf>) -> Self {
        Self { folders, ..Self::default() }
    }

    /// Adds folders of programs, and leaves some out of every choice.
    pub(super) fn choose(&mut self, added: Vec<PathBuf>, disabled: Vec<PathBuf>) {
        (self.added, self.disabled) = (added, disabled);
    }

    /// Every installation that may be chosen, oldest major version first.
    pub fn all(&self) -> Vec<Installation> {
        let mut found = self.found();
        found.retain(|installation| !self.disabled.contains(&installation.programs));
        found
    }

    /// Every installation, also those that are not to be chosen, oldest major version first.
    pub(super) fn found(&self) -> Vec<Installation> {
        let mut found: Vec<Installation> = below(Path::new(ROOT), |programs| {
            // Debian's folders have the number for a name: no program need be asked.
            programs.parent()?.file_name()?.to_str()?.parse().ok()
        });
        found.extend(self.folders.iter().chain(&self.added).flat_map(|folder| Self::in_folder(folder)));
        // One that is named twice counts as named last.
        let later = |at: usize| found[at + 1..].iter().any(|other| other.programs == found[at].programs);
        let mut all: Vec<Installation> =
            (0..found.len()).filter(|at| !later(*at)).map(|at| found[at].clone()).collect();
        all.sort_by_key(|installation| installation.major);
        all
    }

    /// Those of one folder.
    pub(super) fn in_folder(folder: &Path) -> Vec<Installation> {
        let asked = |programs: &Path| major_of(&version_of(programs)?);
        let places = [folder.to_owned(), folder.join("bin")];
        let there = places.into_iter().filter(|place| place.join("postgres").exists());
        let itself = there.filter_map(|programs| Some(Installation { major: asked(&programs)?, programs }));
        itself.chain(below(folder, asked)).collect()
    }

    /// The programs for something new that would be run with these: others of the major version when these are
    /// disabled.
    pub(super) fn instead_of(&self, major: u32, programs: &Path) -> Result<PathBuf> {
        match self.disabled.iter().any(|disabled| disabled == programs) {
            true => Ok(self.of(major)?.programs),
            false => Ok(programs.to_owned()),
        }
    }

    /// The installation of a major version; the error says what there is.
    pub(super) fn of(&self, major: u32) -> Result<Installation> {
        let all = self.all();
        let majors: Vec<String> = all.iter().map(|found| found.major.to_string()).collect();
        all.into_iter().rfind(|found| found.major == major).ok_or_else(|| {
            if let Some(disabled) = self.found().into_iter().rfind(|found| found.major == major) {
                return Error::new(
                    ErrorKind::Precondition,
                    format!(
                        "PostgreSQL {major} is needed, and the repository at {} is disabled: see `stillpoint \
                         repository list` and enable it, or add another one",
                        disabled.programs.display()
                    ),
                );
            }
            let have = if majors.is_empty() { "none".to_owned() } else { majors.join(", ") };
            Error::new(
                ErrorKind::Precondition,
                format!(
                    "the source runs PostgreSQL {major}, and this host has {have} below {}: apt-get install \
                     postgresql-{major}, or name the folder of an installation with `stillpoint repository add --path \
                     DIR` or `daemon --postgres DIR`",
                    self.shown()
                ),
            )
        })
    }

    /// The newest installation with client programs, which talk to every older server. One that is disabled serves when
    /// there is no other: it only asks.
    pub(super) fn newest(&self) -> Result<Installation> {
        let mut found = self.found();
        found.sort_by_key(|installation| !self.disabled.contains(&installation.programs));
        found.into_iter().rfind(|found| found.programs.join("psql").exists()).ok_or_else(|| {
            Error::new(
                ErrorKind::Precondition,
                format!(
                    "there is no PostgreSQL with psql below {}: apt-get install postgresql",
                    self.shown()
                ),
            )
        })
    }

    fn shown(&self) -> String {
        let folders = self.folders.iter().chain(&self.added).map(|folder| folder.display().to_string());
        std::iter::once(ROOT.to_owned()).chain(folders).collect::<Vec<_>>().join(", ")
    }
}

/// The installations in folders of a folder, as `major` tells their version.
fn below(root: &Path, major: impl Fn(&Path) -> Option<u32>) -> Vec<Installation> {
    let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
    let mut programs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path().join("bin")).collect();
    programs.sort();
    let there = programs.into_iter().filter(|programs| programs.join("postgres").exists());
    there.filter_map(|programs| Some(Installation { major: major(&programs)?, programs })).collect()
}

fn version_of(programs: &Path) -> Option<String> {
    let output = Command::new(programs.join("postgres")).arg("--version").output().ok()?;
    version_in(&String::from_utf8(output.stdout).ok()?)
}

/// The version in `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn version_in(text: &str) -> Option<String> {
    text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit())).map(str::to_owned)
}

/// The major version of `15.18`, or of `19beta1`.
fn major_of(version: &str) -> Option<u32> {
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn make(programs: &Path, version: &str, clients: &[&str]) {
        std::fs::create_dir_all(programs).unwrap();
        let text = format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n");
        for name in ["postgres"].iter().chain(clients) {
            std::fs::write(programs.join(name), &text).unwrap();
            std::fs::set_permissions(programs.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    #[test]
    fn versions_are_read() {
        let version = version_in("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n");
        assert_eq!(version.as_deref(), Some("15.18"));
        assert_eq!(version_in("no version here"), None);
        let majors = ["15.18", "19beta1", "10.23", "x", ""].map(major_of);
        assert_eq!(majors, [Some(15), Some(19), Some(10), None, None]);
    }

    #[test]
    fn named_folders_are_looked_into_beside_the_packages() {
        let folder = tempfile::tempdir().unwrap();
        let [one, bin, many] = ["one", "two/bin", "many"].map(|name| folder.path().join(name));
        make(&one.join("bin"), "91.2", &[]);
        make(&bin, "92beta1", &["psql"]);
        make(&many.join("a/bin"), "93.1", &[]);
        make(&many.join("b/bin"), "91.4", &CLIENTS);
        std::fs::create_dir_all(many.join("c/bin")).unwrap();
        let installations = Installations::with(vec![one.clone(), bin.clone(), many.clone()]);
        let mut all = installations.all();
        all.retain(|found| found.major > 90);
        let places: Vec<(u32, PathBuf)> =
            all.into_iter().map(|found| (found.major, found.programs)).collect();
        let expected =
            [(91, one.join("bin")), (91, many.join("b/bin")), (92, bin.clone()), (93, many.join("a/bin"))];
        assert_eq!(places, expected);
        // The last one named wins; clients come from the newest that has them.
        assert_eq!(installations.of(91).unwrap().programs, many.join("b/bin"));
        assert_eq!(installations.of(91).unwrap().missing(), Vec::<&str>::new());
        assert_eq!(installations.newest().unwrap().programs, bin);
        assert_eq!(installations.newest().unwrap().missing(), CLIENTS[1..]);
        assert_eq!(installations.of(92).unwrap().version().as_deref(), Some("92beta1"));
        assert!(installations.of(91).unwrap().with(&["pg_controldata"]).is_ok());
        let error = installations.of(92).unwrap().with(&["psql", "pg_controldata"]).unwrap_err();
        assert!(error.message().contains("has no pg_controldata: apt-get"), "{error}");
        let error = installations.of(94).unwrap_err();
        assert!(error.message().contains("91, 92, 93") || error.message().contains("92, 93"), "{error}");
        assert!(error.message().contains("--postgres"), "{error}");
    }

    #[test]
    fn a_disabled_one_is_not_chosen_and_an_added_one_is() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one/bin", "two/bin"].map(|name| folder.path().join(name));
        make(&one, "91.1", &["psql"]);
        make(&two, "91.2", &[]);
        let mut installations = Installations::with(vec![folder.path().join("one")]);
        assert_eq!(installations.of(91).unwrap().programs, one);
        installations.choose(vec![two.clone()], Vec::new());
        assert_eq!(installations.of(91).unwrap().programs, two);
        // Added once more by its folder: it is one all the same.
        installations.choose(vec![two.clone(), one.clone()], Vec::new());
        assert_eq!(installations.found().iter().filter(|found| found.major == 91).count(), 2);
        assert_eq!(installations.of(91).unwrap().programs, one);

        installations.choose(vec![two.clone()], vec![two.clone()]);
        assert_eq!(installations.of(91).unwrap().programs, one);
        assert_eq!(installations.instead_of(91, &two).unwrap(), one);
        assert_eq!(installations.instead_of(91, &one).unwrap(), one);
        assert!(installations.found().iter().any(|found| found.programs == two));
        installations.choose(Vec::new(), vec![one.clone()]);
        let error = installations.of(91).unwrap_err();
        let named = [one.to_str().unwrap(), "is disabled", "repository list"];
        assert!(named.iter().all(|part| error.message().contains(part)), "{error}");
        assert!(installations.instead_of(91, &one).is_err());
        // Its clients ask only when no other one's can.
        make(&two, "90.2", &["psql"]);
        installations.choose(vec![two.clone()], vec![one]);
        assert_eq!(installations.newest().unwrap().programs, two);
    }
}
