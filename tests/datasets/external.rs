//! Linking by backups that were taken elsewhere: followed by WAL files, with a gap that mends itself, and by streaming.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::Run;
use crate::common::postgres::{Server, give};
use crate::stage::{Stage, free_port};

/// A base backup with pg_basebackup's own archives.
fn take_backup(source: &Server, folder: &Path, options: &[&str]) {
    fs::create_dir(folder).unwrap();
    give(folder);
    let mut backup = source.client("pg_basebackup");
    let run = Run::of(backup.arg("-D").arg(folder).args(["-X", "stream", "-c", "fast"]).args(options));
    assert_eq!(run.status, 0, "{run:?}");
}

/// A stage whose source archives its WAL into a folder.
fn archiving() -> (Stage, PathBuf) {
    let stage = Stage::with_settings(|fixture| {
        let folder = fixture.path("wal");
        fs::create_dir(&folder).unwrap();
        give(&folder);
        // Renamed into place, as an archive command should.
        let copy = format!("cp %p {0}/.new && mv {0}/.new {0}/%f", folder.display());
        format!("archive_mode = on\narchive_command = '{copy}'\n")
    });
    let folder = stage.fixture.path("wal");
    (stage, folder)
}

fn rows(stage: &Stage, dataset: &str) -> i64 {
    stage.number(stage.port(dataset), "SELECT count(*) FROM marks")
}

/// Commits a row, and ends the segment that it is in, which is archived then.
fn mark(stage: &Stage, wal: &Path) -> String {
    stage.source.query("INSERT INTO marks VALUES (1)");
    let file = stage.source.query("SELECT pg_walfile_name(pg_current_wal_lsn())");
    stage.source.query("SELECT pg_switch_wal()");
    while !wal.join(&file).exists() {}
    file
}

#[test]
fn wal_files_are_followed_and_a_gap_is_named_and_mends_itself() {
    let (stage, wal) = archiving();
    stage.source.query("CREATE TABLE marks (id int)");
    let backup = stage.fixture.path("backup");
    take_backup(&stage.source, &backup, &["-F", "tar", "-z"]);
    mark(&stage, &wal);
    let port = free_port().to_string();
    let (backup, folder) = (backup.to_str().unwrap(), wal.to_str().unwrap());
    let run = stage.run([
        "dsource",
        "link",
        "postgres",
        "--name",
        "shop",
        "--external-backup",
        backup,
        "--wal-path",
        folder,
        "--staging-port",
        &port,
    ]);
    assert_eq!(run.status, 0, "{run:?}\n{}", stage.daemon_log());
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    assert_eq!(rows(&stage, "qa"), 1);
    stage.assert_sums_agree(stage.port("qa"));

    // One file is late: what is after it waits, and who asks is told which one.
    let missing = mark(&stage, &wal);
    let aside = stage.fixture.path("aside");
    fs::rename(wal.join(&missing), &aside).unwrap();
    mark(&stage, &wal);
    let damaged = mark(&stage, &wal);
    let whole = fs::read(wal.join(&damaged)).unwrap();
    stage.ok(["dsource", "snapshot", "shop"]);
    stage.ok(["vdb", "refresh", "qa"]);
    assert_eq!(rows(&stage, "qa"), 1);
    let state = stage.json(["dsource", "show", "shop"])["health"]["state"].clone();
    assert_eq!(state, format!("waiting for {missing}"));
    fs::rename(&aside, wal.join(&missing)).unwrap();
    stage.ok(["dsource", "snapshot", "shop"]);
    stage.ok(["vdb", "refresh", "qa"]);
    assert_eq!(rows(&stage, "qa"), 4);

    // A wrong one is a fault at once, by name, and ends when it is right.
    let next = mark(&stage, &wal);
    let right = fs::read(wal.join(&next)).unwrap();
    fs::write(wal.join(&next), &whole).unwrap();
    let refused = loop {
        let run = stage.run(["dsource", "snapshot", "shop"]);
        if run.status != 0 {
            break run;
        }
    };
    refused.fails_with(13, &[&next, "supply the file"]);
    while stage.json(["dsource", "list"])[0]["faults"][0]["code"] != "WAL_CHAIN_BROKEN" {}
    fs::write(wal.join(&next), right).unwrap();
    while stage.run(["dsource", "snapshot", "shop"]).status != 0 {}
    stage.ok(["vdb", "refresh", "qa"]);
    assert_eq!(rows(&stage, "qa"), 5);
    while stage.json(["dsource", "list"])[0]["faults"] != serde_json::json!([]) {}
}

#[test]
fn an_external_backup_is_followed_by_streaming() {
    let stage = Stage::new();
    let backup = stage.fixture.path("backup");
    take_backup(&stage.source, &backup, &["-F", "plain"]);
    stage.source.query("CREATE TABLE marks AS SELECT 1 AS id");
    let (port, source) = (free_port().to_string(), stage.source.port().to_string());
    let link = |name: &str, path: &Path, port: &str| {
        stage.run([
            "dsource",
            "link",
            "postgres",
            "--name",
            name,
            "--external-backup",
            path.to_str().unwrap(),
            "--streaming",
            "--source-user",
            "repl",
            "--source-port",
            &source,
            "--staging-port",
            port,
        ])
    };
    let run = link("shop", &backup, &port);
    assert_eq!(run.status, 0, "{run:?}\n{}", stage.daemon_log());
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    assert_eq!(rows(&stage, "qa"), 1);
    assert_eq!(stage.slots(), 1);

    // What is no backup, or one of another cluster, is refused by name.
    let other = free_port().to_string();
    link("none", &stage.fixture.path("nothing"), &other).fails_with(10, &["nothing"]);
    let foreign = stage.fixture.path("foreign");
    crate::common::postgres::make_cluster(&foreign);
    link("foreign", &foreign, &other).fails_with(13, &["another cluster", "system identifier"]);
    let backup = backup.to_str().unwrap();
    stage
        .run([
            "dsource",
            "link",
            "postgres",
            "--name",
            "both",
            "--external-backup",
            backup,
            "--initiated-backup",
            "--source-user",
            "repl",
            "--staging-port",
            &other,
        ])
        .fails_with(2, &["cannot be used with"]);
    stage
        .run([
            "dsource",
            "link",
            "postgres",
            "--name",
            "still",
            "--external-backup",
            backup,
            "--staging-port",
            &other,
        ])
        .fails_with(2, &["--wal-path", "--streaming"]);
}
