//! From a link to a deletion: what each operation gives, and that nothing is left at the end.

use std::path::Path;

use crate::stage::{PASSWORD, Stage};

#[test]
fn a_source_under_load_is_linked_provisioned_refreshed_and_let_go() {
    let stage = Stage::new();
    let load = stage.source.start_pgbench(2);
    let run = stage.link("shop");
    assert_eq!(run.status, 0, "{run:?}\n{}", stage.daemon_log());
    stage.ok(["dsource", "snapshot", "shop"]);
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    let port = stage.port("qa");
    stage.assert_sums_agree(port);
    assert_eq!(stage.number(port, "SELECT count(*) FROM pgbench_accounts"), 100_000);
    drop(load);

    // With the source at rest a snapshot holds exactly what the source does.
    let there = stage.source.number("SELECT count(*) FROM pgbench_history");
    stage.ok(["dsource", "snapshot", "shop"]);
    stage.ok(["vdb", "refresh", "qa"]);
    assert_eq!(stage.port("qa"), port);
    assert_eq!(stage.number(port, "SELECT count(*) FROM pgbench_history"), there);

    // A VDB has a history of its own, which rewind and undo walk.
    stage.ok(["vdb", "snapshot", "qa"]);
    let before = stage.newest_snapshot("qa");
    stage.ask(port, "DELETE FROM pgbench_history");
    stage.ok(["vdb", "rewind", "qa", "--to", &before]);
    assert_eq!(stage.number(port, "SELECT count(*) FROM pgbench_history"), there);
    stage.ok(["vdb", "undo", "qa"]);
    assert_eq!(stage.number(port, "SELECT count(*) FROM pgbench_history"), 0);

    // A VDB of a VDB.
    stage.ok(["vdb", "provision", "--name", "child", "--from", &format!("qa@{before}")]);
    assert_eq!(stage.number(stage.port("child"), "SELECT count(*) FROM pgbench_history"), there);

    // Stopped and disabled servers stay so over a restart of the daemon.
    stage.ok(["vdb", "stop", "child"]);
    stage.stop_daemon();
    assert_eq!(stage.servers(), 0);
    stage.start_daemon();
    wait_until_active(&stage, "qa");
    wait_until_active(&stage, "shop");
    assert_eq!(stage.number(port, "SELECT count(*) FROM pgbench_history"), 0);
    assert_eq!(stage.servers(), 2);
    stage.ok(["vdb", "start", "child"]);
    stage.ok(["dsource", "disable", "shop"]);
    stage.run(["dsource", "snapshot", "shop"]).fails_with(13, &["shop is disabled", "enable"]);
    stage.ok(["dsource", "enable", "shop"]);

    // What others depend on stays.
    stage.run(["dsource", "delete", "shop", "--yes"]).fails_with(11, &["qa"]);
    stage.run(["vdb", "delete", "qa", "--yes"]).fails_with(11, &["child"]);
    stage.ok(["vdb", "lock", "child"]);
    stage.run(["vdb", "delete", "child", "--yes"]).fails_with(12, &["locked"]);
    stage.ok(["vdb", "unlock", "child"]);

    assert_secret_is_nowhere(&stage);
    assert_eq!(stage.slots(), 1);
    for (noun, name) in [("vdb", "child"), ("vdb", "qa"), ("dsource", "shop")] {
        stage.ok([noun, "delete", name, "--yes"]);
    }
    assert_eq!((stage.slots(), stage.servers(), stage.volumes().len()), (0, 0, 0));
    assert_eq!(std::fs::read_dir(stage.state_path().join("secrets")).unwrap().count(), 0);
    stage.stop_daemon();
    assert_eq!(stage.fixture.json(["store", "check"])["findings"], serde_json::json!([]));
}

/// Waits until a dataset's server answers; its start is a job of the daemon's.
pub(crate) fn wait_until_active(stage: &Stage, name: &str) {
    while !stage.json(["vdb", "show", name])["health"]["running"].as_bool().unwrap() {}
    let jobs = stage.json(["job", "list"]);
    for job in jobs.as_array().unwrap() {
        if job["status"] == "running" || job["status"] == "queued" {
            stage.ok(["job", "watch", &job["id"].to_string()]);
        }
    }
}

/// The password is in no snapshot, log, record or argument: only in the two files made for it.
pub(crate) fn assert_secret_is_nowhere(stage: &Stage) {
    let allowed = |path: &Path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name == "passfile" || path.starts_with(stage.state_path().join("secrets"))
    };
    let mut found = Vec::new();
    for folder in [stage.fixture.store_path(), stage.state_path(), stage.fixture.mount_path()] {
        search(&folder, &mut found);
    }
    found.retain(|path| !allowed(path));
    assert!(found.is_empty(), "{found:?}");
    assert!(!stage.ok(["job", "list"]).contains(PASSWORD));
    assert!(!stage.ok(["event", "list"]).contains(PASSWORD));
}

fn search(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            search(&entry.path(), found);
        } else if kind.is_file() {
            let bytes = std::fs::read(entry.path()).unwrap_or_default();
            if bytes.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes()) {
                found.push(entry.path());
            }
        }
    }
}
