//! Hooks as another user, where the tests run as root.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::{Bench, script};
use crate::base::ErrorKind;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A user of this host besides root who has, or has not, more groups than one.
fn user(with_groups: bool) -> Option<String> {
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    users.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let (name, gid) = (fields[0], fields[3]);
        let more = groups.lines().any(|group| {
            let fields: Vec<&str> = group.split(':').collect();
            fields[2] != gid && fields[3].split(',').any(|member| member == name)
        });
        (fields[2] != "0" && more == with_groups).then(|| name.to_owned())
    })
}

/// What the host says of a user, by the same words a script uses.
fn ids(name: &str) -> Vec<String> {
    let output = std::process::Command::new("sh")
        .args([
            "-c",
            &format!("id -un {name}; id -u {name}; id -g {name}; id -G {name} | tr ' ' '\\n' | sort -n"),
        ])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_hook_runs_as_its_user_with_that_users_groups() {
    if !is_root() {
        return;
    }
    for name in [user(false), user(true)].into_iter().flatten() {
        let mut bench = Bench::new();
        fs::set_permissions(bench.folder.path(), Permissions::from_mode(0o755)).unwrap();
        let mut hook =
            script("id -un; id -u; id -g; id -G | tr ' ' '\\n' | sort -n; stat -c '%a %U' $0; echo $HOME");
        hook.run_as = Some(name.clone());
        bench.run(&hook).unwrap();
        let home = bench.lines.pop().unwrap();
        assert!(home.starts_with('/') && home != "/root", "{home}");
        assert_eq!(bench.lines.pop().unwrap(), format!("400 {name}"));
        assert_eq!(bench.lines, ids(&name));
    }
}

#[test]
fn the_folder_of_scripts_lets_users_through_and_shows_them_nothing() {
    let bench = Bench::new();
    assert_eq!(fs::metadata(bench.path("run")).unwrap().mode() & 0o777, 0o711);
}

#[test]
fn only_root_changes_users() {
    if is_root() {
        return;
    }
    let mut hook = script("true");
    hook.run_as = Some("root".into());
    assert_eq!(Bench::new().run(&hook).unwrap_err().kind(), ErrorKind::NotAllowed);
}
