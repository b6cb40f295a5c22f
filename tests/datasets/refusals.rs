//! What cannot be is refused early, by name, and leaves nothing.

use crate::stage::{PASSWORD, Stage, free_port};

#[test]
fn bad_requests_are_refused_by_name_and_leave_nothing() {
    let stage = Stage::new();
    let source_port = stage.source.port().to_string();
    let link = |port: &str, user: &str, staging: &str, password: &str| {
        let mut command = stage.fixture.command([
            "dsource",
            "link",
            "postgres",
            "--name",
            "shop",
            "--initiated-backup",
            "--source-user",
            user,
            "--source-port",
            port,
            "--staging-port",
            staging,
        ]);
        crate::common::Run::of(command.env("STILLPOINT_SOURCE_PASSWORD", password))
    };
    let free = free_port().to_string();
    link(&source_port, "repl", &free, "wrong").fails_with(12, &["repl", "password"]);
    link(&source_port, "app", &free, crate::stage::APP_PASSWORD)
        .fails_with(12, &["app may not replicate", "ALTER ROLE"]);
    link(&source_port, "repl", &source_port, PASSWORD).fails_with(11, &[&source_port, "listens"]);
    link(&free, "repl", &free_port().to_string(), PASSWORD)
        .fails_with(1, &["cannot ask the source", "listen_addresses"]);
    stage.run(["vdb", "provision", "--name", "qa", "--from", "shop"]).fails_with(10, &["no dataset shop"]);
    stage.run(["vdb", "provision", "--name", "../qa", "--from", "shop"]).fails_with(2, &["no name"]);
    stage.run(["job", "show", "999"]).fails_with(10, &["no job 999"]);
    assert_eq!((stage.slots(), stage.servers(), stage.volumes().len()), (0, 0, 0));

    let plan = stage.json([
        "dsource",
        "link",
        "postgres",
        "--name",
        "shop",
        "--initiated-backup",
        "--source-user",
        "repl",
        "--source-port",
        &source_port,
        "--staging-port",
        &free,
        "--dry-run",
    ]);
    assert!(plan["review"].as_array().unwrap().len() > 4, "{plan}");
    assert_eq!((stage.slots(), stage.volumes().len()), (0, 0));

    let run = stage.link("shop");
    assert_eq!(run.status, 0, "{run:?}");
    stage.link("shop").fails_with(11, &["a dataset shop already"]);
    let staging = stage.json(["dsource", "show", "shop"])["port"].to_string();
    link(&source_port, "repl", &staging, PASSWORD).fails_with(11, &["a dataset shop already"]);
    stage
        .run(["vdb", "provision", "--name", "qa", "--from", "shop", "--port", &staging])
        .fails_with(11, &["belongs to shop"]);
    stage
        .run(["vdb", "provision", "--name", "qa", "--from", "shop", "--set", "archive_mode=on"])
        .fails_with(2, &["archive_mode", "engine's"]);

    // Whoever had no password has no way in.
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    let port = stage.port("qa");
    assert_ne!(Stage::try_ask(port, "nobody", "", "SELECT 1").status, 0);
    assert_ne!(Stage::try_ask(port, "postgres", "", "SELECT 1").status, 0);
    assert_eq!(stage.ask(port, "SELECT 1"), "1");
    stage.stop_daemon();
    stage.run(["dsource", "list"]).fails_with(13, &["no daemon runs", "stillpoint daemon"]);
}
