//! Checks of what staging servers and VDBs need: a user, installations, programs, and a mount namespace of their own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Finding;
use crate::adapter::postgres::{Installation, Installations};
use crate::base::OsUser;

/// Programs that servers are started, prepared and copied with, and Debian's packages of them.
const PROGRAMS: &[(&str, &str)] = &[
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("mount", "mount"),
    ("timeout", "coreutils"),
    ("stat", "coreutils"),
    ("truncate", "coreutils"),
    ("cp", "coreutils"),
    ("cmp", "diffutils"),
    ("find", "findutils"),
];
/// Where the engine looks for them.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

pub(super) fn user() -> Finding {
    const CHECK: &str = "PostgreSQL's user";
    match OsUser::for_servers("postgres") {
        Ok(user) => Finding::ok(CHECK, format!("{} ({})", user.name, user.uid)),
        Err(e) => Finding::warning(CHECK, e.message(), "apt-get install postgresql"),
    }
}

/// One finding for each installation, or one that says there is none.
pub(super) fn installations(installations: &Installations) -> Vec<Finding> {
    const CHECK: &str = "PostgreSQL";
    let all = installations.all();
    if all.is_empty() {
        return vec![Finding::warning(
            CHECK,
            "none in /usr/lib/postgresql",
            "apt-get install postgresql, or name the folder of an installation with --postgres DIR",
        )];
    }
    all.iter().map(|installation| of_installation(CHECK, installation)).collect()
}

fn of_installation(check: &'static str, installation: &Installation) -> Finding {
    let Installation { major, programs } = installation;
    let Some(version) = installation.version() else {
        return Finding::warning(
            check,
            format!("{major} in {}, which does not run", programs.display()),
            format!("see what `{}/postgres --version` says", programs.display()),
        );
    };
    let found = format!("{version} in {}", programs.display());
    let missing = installation.missing();
    if missing.is_empty() {
        return Finding::ok(check, found);
    }
    Finding::warning(
        check,
        format!("{found}, without {}: linking and snapshots need them", missing.join(", ")),
        format!("apt-get install postgresql-{major} postgresql-client-{major}, or name a whole installation"),
    )
}

pub(super) fn programs() -> Finding {
    const CHECK: &str = "programs";
    let folders: Vec<PathBuf> = FOLDERS.iter().map(PathBuf::from).collect();
    let missing = missing_programs(&folders);
    if missing.is_empty() {
        let names: Vec<&str> = PROGRAMS.iter().map(|(name, _)| *name).collect();
        return Finding::ok(CHECK, names.join(", "));
    }
    let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    packages.dedup();
    let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
    Finding::warning(
        CHECK,
        format!("no {} in {}: no server can start", names.join(", "), FOLDERS.join(", ")),
        format!("apt-get install {}", packages.join(" ")),
    )
}

fn missing_programs(folders: &[PathBuf]) -> Vec<(&'static str, &'static str)> {
    let there = |name: &str| folders.iter().any(|folder| folder.join(name).is_file());
    PROGRAMS.iter().copied().filter(|(name, _)| !there(name)).collect()
}

/// Whether a server can be started as all of them are.
pub(super) fn namespace() -> Finding {
    const CHECK: &str = "namespaces";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--ipc", "--fork", "--propagation", "private"]);
    command.args(["--", "mount", "-t", "proc", "proc", "/proc"]).stdin(Stdio::null());
    match command.output() {
        Ok(output) if output.status.success() => {
            Finding::ok(CHECK, "each server gets its own of mounts, processes and IPC")
        }
        Ok(output) => Finding::warning(
            CHECK,
            format!("refused, so no server can start: {}", String::from_utf8_lossy(&output.stderr).trim()),
            "run as root; in a container, give it CAP_SYS_ADMIN",
        ),
        Err(e) => Finding::warning(
            CHECK,
            format!("{} cannot be run: {e}", Path::new("unshare").display()),
            "apt-get install util-linux",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_programs_are_named_with_their_packages() {
        let folder = tempfile::tempdir().unwrap();
        for (name, _) in &PROGRAMS[2..] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let missing = missing_programs(&[folder.path().to_owned()]);
        assert_eq!(missing, [("unshare", "util-linux"), ("setpriv", "util-linux")]);
    }

    #[test]
    fn an_installation_without_clients_is_a_warning_with_advice() {
        let folder = tempfile::tempdir().unwrap();
        let programs = folder.path().join("bin");
        std::fs::create_dir(&programs).unwrap();
        std::fs::write(programs.join("postgres"), "#!/bin/sh\necho postgres (PostgreSQL) 91.2\n").unwrap();
        let found = Installation { major: 91, programs: programs.clone() };
        let finding = of_installation("PostgreSQL", &found);
        assert!(finding.found.ends_with("which does not run"), "{finding:?}");
        use std::os::unix::fs::PermissionsExt;
        let script = "#!/bin/sh\necho 'postgres (PostgreSQL) 91.2'\n";
        std::fs::write(programs.join("postgres"), script).unwrap();
        std::fs::set_permissions(programs.join("postgres"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let finding = of_installation("PostgreSQL", &found);
        assert!(finding.found.starts_with("91.2 in ") && finding.found.contains("psql"), "{finding:?}");
        assert!(finding.fix.unwrap().contains("postgresql-client-91"));
    }
}
