//! A link in its later life: detached and attached, resynchronized, configured, and gone while VDBs stay.

use std::fs;

use crate::stage::Stage;

const COUNT: &str = "SELECT count(*) FROM rows";

fn linked() -> Stage {
    let stage = Stage::new();
    stage.source.query("CREATE TABLE rows AS SELECT 1 AS id");
    let run = stage.link("shop");
    assert_eq!(run.status, 0, "{run:?}\n{}", stage.daemon_log());
    stage
}

#[test]
fn a_detached_dsource_provisions_and_goes_on_when_attached() {
    let stage = linked();
    stage.ok(["dsource", "detach", "shop"]);
    assert_eq!((stage.slots(), stage.servers()), (0, 0));
    stage.run(["dsource", "snapshot", "shop"]).fails_with(13, &["detached", "attach it"]);
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    assert_eq!(stage.number(stage.port("qa"), COUNT), 1);
    stage.source.query("INSERT INTO rows VALUES (2)");
    // A restart in between changes nothing.
    stage.stop_daemon();
    stage.start_daemon();
    assert_eq!(stage.json(["dsource", "show", "shop"])["state"], "detached");
    let review = stage.ok(["dsource", "attach", "shop", "--dry-run"]);
    assert!(review.contains("nothing was done"), "{review}");
    assert_eq!(stage.slots(), 0);
    stage.ok(["dsource", "attach", "shop"]);
    assert_eq!(stage.slots(), 1);
    stage.ok(["dsource", "snapshot", "shop"]);
    stage.ok(["vdb", "refresh", "qa"]);
    assert_eq!(stage.number(stage.port("qa"), COUNT), 2);

    // When the source has let go of the WAL since, that is said, and a new first copy is what helps.
    stage.ok(["dsource", "detach", "shop"]);
    for _ in 0..3 {
        stage.source.query("INSERT INTO rows VALUES (3)");
        stage.source.query("SELECT pg_switch_wal()");
        stage.source.query("CHECKPOINT");
    }
    stage.run(["dsource", "attach", "shop"]).fails_with(13, &["no longer has the WAL", "resync"]);
    assert_eq!((stage.slots(), stage.servers()), (0, 1));
    assert_eq!(stage.json(["dsource", "show", "shop"])["state"], "detached");
    let old = stage.newest_snapshot("shop");
    let volumes = stage.volumes().len();
    stage.ok(["dsource", "resync", "shop"]);
    assert_eq!(stage.slots(), 1);
    stage.ok(["vdb", "refresh", "qa"]);
    assert_eq!(stage.number(stage.port("qa"), COUNT), 5);
    // What was there before the new copy still provisions.
    stage.ok(["vdb", "provision", "--name", "then", "--from", &format!("shop@{old}")]);
    assert_eq!(stage.number(stage.port("then"), COUNT), 2);
    assert!(stage.volumes().len() > volumes);
    for (noun, name) in [("vdb", "then"), ("vdb", "qa"), ("dsource", "shop")] {
        stage.ok([noun, "delete", name, "--yes"]);
    }
    assert_eq!((stage.slots(), stage.servers(), stage.volumes().len()), (0, 0, 0));
}

#[test]
fn a_resync_that_fails_leaves_the_old_copy_running() {
    let stage = linked();
    let before = stage.volumes();
    let backup = stage.fixture.path("no-backup");
    fs::create_dir(&backup).unwrap();
    let path = backup.to_str().unwrap();
    let refused = stage.run(["dsource", "resync", "shop", "--external-backup", path]);
    assert_ne!(refused.status, 0, "{refused:?}");
    // A source that cannot be copied any more: the role lost its right.
    stage.source.query("ALTER ROLE repl NOREPLICATION");
    stage.run(["dsource", "resync", "shop"]).fails_with(12, &["may not replicate"]);
    stage.source.query("ALTER ROLE repl REPLICATION");
    stage.source.query("INSERT INTO rows VALUES (2)");
    stage.ok(["dsource", "snapshot", "shop"]);
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    assert_eq!(stage.number(stage.port("qa"), COUNT), 2);
    assert_eq!(stage.slots(), 1);
    assert!(before.iter().filter(|name| !name.contains("image")).all(|name| stage.volumes().contains(name)));
}

#[test]
fn settings_and_passwords_change_and_wrong_ones_are_taken_back() {
    let stage = linked();
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    let port = stage.port("qa");
    stage.ok(["vdb", "configure", "qa", "--set", "work_mem=7MB"]);
    assert_eq!(stage.ask(port, "SHOW work_mem"), "7MB");
    // The server does not start with it: the old one is back.
    let run = stage.run(["vdb", "configure", "qa", "--set", "shared_buffers=nonsense"]);
    run.fails_with(1, &["shared_buffers"]);
    assert_eq!(stage.ask(port, "SHOW work_mem"), "7MB");
    stage.ok(["vdb", "configure", "qa", "--unset", "work_mem"]);
    assert_eq!(stage.ask(port, "SHOW work_mem"), "4MB");
    stage.run(["vdb", "configure", "qa", "--set", "archive_mode=off"]).fails_with(2, &["the engine's"]);
    let other = crate::stage::free_port();
    stage.ok(["vdb", "configure", "qa", "--port", &other.to_string()]);
    assert_eq!(stage.ask(other, "SHOW work_mem"), "4MB");

    // The source's password changes: a new one is tried before it is taken.
    stage.source.query("ALTER ROLE repl PASSWORD 'n3w-s3cret'");
    let file = stage.fixture.path("password");
    fs::write(&file, "wrong\n").unwrap();
    let configure = ["dsource", "configure", "shop", "--password-file", file.to_str().unwrap()];
    stage.run(configure).fails_with(12, &["password"]);
    fs::write(&file, "n3w-s3cret\n").unwrap();
    stage.ok(configure);
    stage.source.query("INSERT INTO rows VALUES (2)");
    stage.ok(["dsource", "snapshot", "shop"]);
    stage.ok(["vdb", "refresh", "qa"]);
    assert_eq!(stage.number(other, COUNT), 2);
}

#[test]
fn vdbs_outlive_a_dsource_that_is_deleted_by_force() {
    let stage = linked();
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    stage.ok(["vdb", "provision", "--name", "child", "--from", "shop"]);
    stage.run(["dsource", "delete", "shop", "--yes"]).fails_with(11, &["qa", "child", "--force"]);
    stage.ok(["dsource", "delete", "shop", "--yes", "--force"]);
    assert_eq!(stage.slots(), 0);
    assert_eq!(stage.number(stage.port("qa"), COUNT), 1);
    stage.run(["vdb", "refresh", "qa"]).fails_with(13, &["parent of qa is gone"]);
    stage.ok(["vdb", "snapshot", "qa"]);
    stage.ok(["vdb", "rewind", "qa", "--to", &stage.newest_snapshot("qa")]);
    for name in ["qa", "child"] {
        stage.ok(["vdb", "delete", name, "--yes"]);
    }
    assert_eq!((stage.servers(), stage.volumes().len()), (0, 0));
    stage.stop_daemon();
    assert_eq!(stage.fixture.json(["store", "check"])["findings"], serde_json::json!([]));
}
