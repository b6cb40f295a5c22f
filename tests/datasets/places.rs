//! Volumes that are shown below a mount base, and servers that work there.

use std::fs;
use std::path::Path;

use crate::stage::{Stage, free_port};

/// Where a dataset's server has its cluster, as it says itself.
fn cluster(stage: &Stage, dataset: &str) -> String {
    Stage::try_ask(stage.port(dataset), "admin", crate::stage::APP_PASSWORD, "SHOW data_directory")
        .stdout
        .trim()
        .to_owned()
}

fn entries(base: &Path) -> usize {
    fs::read_dir(base).unwrap().count()
}

#[test]
fn a_vdb_lives_below_its_mount_base() {
    let stage = Stage::new();
    let base = stage.fixture.path("vdbs");
    let staging = stage.fixture.path("staging");
    let (shown, port) = (base.to_str().unwrap(), free_port().to_string());
    stage.ok([
        "dsource",
        "link",
        "postgres",
        "--name",
        "shop",
        "--initiated-backup",
        "--source-user",
        "repl",
        "--source-port",
        &stage.source.port().to_string(),
        "--staging-port",
        &port,
        "--mount-base",
        staging.to_str().unwrap(),
    ]);
    assert!(cluster(&stage, "shop").starts_with(staging.to_str().unwrap()));
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop", "--mount-base", shown]);
    let first = cluster(&stage, "qa");
    assert!(first.starts_with(shown), "{first}");
    assert_eq!(stage.json(["vdb", "show", "qa"])["place"], first.trim_end_matches("/data"));
    let accounts = "SELECT count(*) FROM pgbench_accounts";
    assert_eq!(stage.number(stage.port("qa"), accounts), 100_000);
    stage.ok(["vdb", "snapshot", "qa"]);

    // A refresh's files lie there, too, and an undo finds the old ones.
    stage.ok(["vdb", "refresh", "qa"]);
    let second = cluster(&stage, "qa");
    assert!(second.starts_with(shown) && second != first, "{second}");
    stage.ok(["vdb", "undo", "qa"]);
    assert_eq!(cluster(&stage, "qa"), first);

    // The mounting process goes: dead mounts are replaced.
    for kill in [true, false] {
        if kill {
            stage.fixture.kill()
        } else {
            stage.stop_daemon()
        }
        stage.start_daemon();
        stage.wait_for_jobs();
        assert_eq!(cluster(&stage, "qa"), first, "kill: {kill}");
        assert_eq!(stage.number(stage.port("qa"), accounts), 100_000);
    }
    stage.ok(["dsource", "snapshot", "shop"]);
    assert_eq!(entries(&base), 2);
    stage.ok(["vdb", "delete", "qa", "--yes"]);
    assert_eq!(entries(&base), 0);
    stage.ok(["dsource", "delete", "shop", "--yes"]);
    assert_eq!(entries(&staging), 0);
    assert!(stage.volumes().is_empty());
}

#[test]
fn a_mount_base_that_cannot_be_is_refused_and_leaves_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let stage = Stage::new();
    assert_eq!(stage.link("shop").status, 0, "{}", stage.daemon_log());
    stage.wait_for_jobs();
    let volumes = stage.volumes();
    let closed = stage.fixture.path("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let file = stage.fixture.path("file");
    fs::write(&file, "").unwrap();
    for (base, word) in [
        (stage.fixture.mount_path().join("x"), "the mount is"),
        (stage.fixture.store_path(), "the store is"),
        (stage.state_path().join("x"), "the state folder is"),
        (closed.join("vdbs"), "chmod o+x"),
        (file, "is no folder"),
    ] {
        let run = stage.run([
            "vdb",
            "provision",
            "--name",
            "qa",
            "--from",
            "shop",
            "--mount-base",
            base.to_str().unwrap(),
        ]);
        assert_ne!(run.status, 0, "{run:?}");
        assert!(run.stderr.contains(word), "{word}: {run:?}");
    }
    assert_eq!(stage.volumes(), volumes);
    assert!(stage.json(["vdb", "list"]).as_array().unwrap().is_empty());
}
