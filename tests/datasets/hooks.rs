//! Hooks at every point of a dSource's and a VDB's operations: what they are told, and what is left when one fails.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::common::Run;
use crate::common::postgres::give;
use crate::hostile::as_superuser;
use crate::stage::{PASSWORD, Stage, free_port};

const DSOURCE_POINTS: [&str; 5] = ["pre_sync", "pre_log_sync", "post_sync", "pre_snapshot", "post_snapshot"];
const VDB_POINTS: [&str; 11] = [
    "configure_clone",
    "pre_refresh",
    "post_refresh",
    "pre_rewind",
    "post_rewind",
    "pre_snapshot",
    "post_snapshot",
    "pre_start",
    "post_start",
    "pre_stop",
    "post_stop",
];
const SECRET: &str = "kept-h00k-kept";

/// A linked source, and a folder in which hooks write down what they did and fail when told to.
fn stage() -> (Stage, PathBuf) {
    let stage = Stage::new();
    let folder = stage.fixture.path("hooks");
    fs::create_dir(&folder).unwrap();
    give(&folder);
    let run = stage.link("shop");
    assert_eq!(run.status, 0, "{run:?}\n{}", stage.daemon_log());
    (stage, folder)
}

/// Adds a hook to each point that leaves a line in `done`, and fails when a file of its name is there.
fn add_everywhere(stage: &Stage, folder: &Path, dataset: &str, points: &[&str]) {
    let shown = folder.display();
    for point in points {
        let script = stage.fixture.path("hook.sh");
        let text = format!(
            "echo {point} >>{shown}/done\necho {point} prints\n[ ! -e {shown}/fail-{point} ] || exit 3\n"
        );
        fs::write(&script, text).unwrap();
        let script = script.to_str().unwrap();
        stage.ok(["hook", "add", dataset, "--point", point, "--name", point, "--script", script]);
    }
}

/// What ran since this was asked last.
fn done(folder: &Path) -> Vec<String> {
    let path = folder.join("done");
    let text = fs::read_to_string(&path).unwrap_or_default();
    let _ = fs::remove_file(path);
    text.lines().map(str::to_owned).collect()
}

fn snapshots(stage: &Stage, dataset: &str) -> usize {
    stage.json(["timeflow", "list", dataset]).as_array().unwrap().len()
}

/// Runs with one point's hook failing.
fn failing<const N: usize>(stage: &Stage, folder: &Path, point: &str, arguments: [&str; N]) -> Run {
    let mark = folder.join(format!("fail-{point}"));
    fs::write(&mark, "").unwrap();
    let run = stage.run(arguments);
    fs::remove_file(mark).unwrap();
    run
}

/// The volumes of a dataset's timeflows; images of what it was made of have others.
fn volumes_of(stage: &Stage, dataset: &str) -> Vec<String> {
    let prefix = format!("{dataset}.");
    stage.volumes().into_iter().filter(|volume| volume.starts_with(&prefix)).collect()
}

fn health(stage: &Stage, dataset: &str) -> Value {
    stage.json(["vdb", "show", dataset])["health"]["running"].clone()
}

#[test]
fn hooks_of_a_dsource_run_in_order_and_a_failure_takes_no_snapshot() {
    let (stage, folder) = stage();
    add_everywhere(&stage, &folder, "shop", &DSOURCE_POINTS);
    stage.ok(["dsource", "snapshot", "shop"]);
    assert_eq!(done(&folder), DSOURCE_POINTS);
    let before = snapshots(&stage, "shop");
    for (at, point) in DSOURCE_POINTS[..4].iter().enumerate() {
        let run = failing(&stage, &folder, point, ["dsource", "snapshot", "shop"]);
        let message = format!("hook \"{point}\" at {point} ended with status 3");
        run.fails_with(1, &[&message, &format!("{point} prints")]);
        assert_eq!(done(&folder), DSOURCE_POINTS[..=at]);
        assert_eq!(snapshots(&stage, "shop"), before);
        // Never left paused.
        assert_eq!(stage.json(["dsource", "show", "shop"])["health"]["state"], "streaming");
    }
    // The snapshot is taken; what came after it is a warning.
    let run = failing(&stage, &folder, "post_snapshot", ["dsource", "snapshot", "shop"]);
    assert_eq!(run.status, 3, "{run:?}");
    assert!(run.stdout.contains("post_snapshot: hook"), "{run:?}");
    assert_eq!(snapshots(&stage, "shop"), before + 1);
    stage.ok(["hook", "remove", "shop", "pre_sync"]);
    assert_eq!(stage.json(["hook", "list", "shop"]).as_array().unwrap().len(), 4);
    stage.run(["hook", "remove", "shop", "pre_sync"]).fails_with(10, &["no hook pre_sync"]);
    stage
        .run(["hook", "add", "shop", "--point", "pre_start", "--name", "a", "--command", "true"])
        .fails_with(2, &["a dSource has no hook point \"pre_start\""]);
}

#[test]
fn hooks_of_a_vdb_run_at_their_points_and_failures_are_made_good() {
    let (stage, folder) = stage();
    // A provision whose hook fails leaves nothing.
    let mask = stage.fixture.path("mask.sh");
    let shown = folder.display();
    fs::write(&mask, format!("echo mask >>{shown}/done\n[ ! -e {shown}/fail-mask ]\n")).unwrap();
    let hook = format!("configure_clone={}", mask.display());
    let provision = ["vdb", "provision", "--name", "qa", "--from", "shop", "--hook", &hook];
    failing(&stage, &folder, "mask", provision).fails_with(1, &["hook \"mask\" at configure_clone"]);
    assert_eq!((stage.json(["vdb", "list"]), done(&folder)), (json!([]), vec!["mask".to_owned()]));
    assert_eq!(volumes_of(&stage, "qa"), Vec::<String>::new());
    stage.ok(provision);
    assert_eq!(done(&folder), ["mask"]);
    stage.ok(["hook", "remove", "qa", "mask"]);

    add_everywhere(&stage, &folder, "qa", &VDB_POINTS);
    let port = stage.port("qa");
    let rows = || stage.number(port, "SELECT count(*) FROM pgbench_branches");
    stage.ok(["vdb", "snapshot", "qa"]);
    let snapshot = stage.newest_snapshot("qa");
    assert_eq!(done(&folder), ["pre_snapshot", "post_snapshot"]);
    stage.ask(port, "DELETE FROM pgbench_branches");
    let rewind = ["vdb", "rewind", "qa", "--to", &snapshot];
    for (operation, point, arguments) in [
        ("pre_refresh", "pre_refresh", &["vdb", "refresh", "qa"][..]),
        ("pre_refresh", "configure_clone", &["vdb", "refresh", "qa"]),
        ("pre_rewind", "pre_rewind", &rewind),
        ("pre_rewind", "configure_clone", &rewind),
    ] {
        let before = volumes_of(&stage, "qa");
        let mark = folder.join(format!("fail-{point}"));
        fs::write(&mark, "").unwrap();
        let run = Run::of(&mut stage.fixture.command(arguments));
        fs::remove_file(mark).unwrap();
        run.fails_with(1, &[&format!("at {point} ended with status 3")]);
        assert_eq!(done(&folder)[0], operation);
        // The data of before, on the volume of before.
        assert_eq!((rows(), volumes_of(&stage, "qa")), (0, before));
    }
    stage.ok(["vdb", "refresh", "qa"]);
    assert_eq!(done(&folder), ["pre_refresh", "configure_clone", "post_refresh"]);
    assert_eq!(rows(), 1);
    let run = failing(&stage, &folder, "post_rewind", rewind);
    assert_eq!(run.status, 3, "{run:?}");
    assert_eq!(done(&folder), ["pre_rewind", "configure_clone", "post_rewind"]);

    failing(&stage, &folder, "pre_stop", ["vdb", "stop", "qa"]).fails_with(1, &["at pre_stop"]);
    assert_eq!((done(&folder), health(&stage, "qa")), (vec!["pre_stop".to_owned()], json!(true)));
    assert_eq!(failing(&stage, &folder, "post_stop", ["vdb", "stop", "qa"]).status, 3);
    assert_eq!(done(&folder), ["pre_stop", "post_stop"]);
    failing(&stage, &folder, "pre_start", ["vdb", "start", "qa"]).fails_with(1, &["at pre_start"]);
    assert_eq!((done(&folder), health(&stage, "qa")), (vec!["pre_start".to_owned()], json!(false)));
    assert_eq!(failing(&stage, &folder, "post_start", ["vdb", "start", "qa"]).status, 3);
    assert_eq!(
        (done(&folder), health(&stage, "qa")),
        (["pre_start", "post_start"].map(str::to_owned).to_vec(), json!(true))
    );
    failing(&stage, &folder, "pre_snapshot", ["vdb", "snapshot", "qa"]).fails_with(1, &["at pre_snapshot"]);
    assert_eq!(snapshots(&stage, "qa"), 1);
    assert_eq!(fs::read_dir(stage.state_path().join("hooks")).unwrap().count(), 0);
}

#[test]
fn hooks_reach_their_server_with_secrets_that_nobody_sees() {
    let (stage, folder) = stage();
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    let shown = folder.display();
    let script = stage.fixture.path("tell.sh");
    let text = format!(
        "#!/bin/sh -e\nid -un\nenv | sort >{shown}/env\nchmod a+r {shown}/env\n\
         psql -XAtqc \"SELECT current_user, pg_is_in_recovery()\"\n\
         psql \"$CONNECT_STRING\" -XAtqc 'SELECT 7 * 6'\necho the token is $TOKEN\n\
         [ \"$TOKEN\" = {} ] && [ \"$TEAM\" = 'a b' ]\n",
        // Not in one piece, so that the script's text does not hold it.
        "kept-\"h00k\"-kept"
    );
    fs::write(&script, text).unwrap();
    let add = |dataset: &str, point: &str| {
        let mut command = stage.fixture.command(["hook", "add", dataset, "--point", point, "--name", "tell"]);
        command.arg("--script").arg(&script).args(["--env", "TEAM=a b", "--secret-env", "TOKEN"]);
        let run = Run::of(command.env("TOKEN", SECRET));
        assert_eq!(run.status, 0, "{run:?}");
        assert!(run.stdout.contains("TOKEN=***"), "{run:?}");
    };
    add("shop", "pre_snapshot");
    add("qa", "post_snapshot");
    let variable = |name: &str| {
        let text = fs::read_to_string(folder.join("env")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}=")).map(str::to_owned));
        line.unwrap_or_else(|| panic!("{name} is not in {text}"))
    };
    for (noun, dataset, prefix, standby) in [("dsource", "shop", "STAGING", "t"), ("vdb", "qa", "VDB", "f")] {
        stage.ok([noun, "snapshot", dataset]);
        let jobs = stage.json(["job", "list"]);
        let job = jobs.as_array().unwrap().iter().rfind(|job| job["kind"] == "DB_SNAPSHOT").unwrap().clone();
        assert_eq!(job["status"], "completed", "{job}");
        let log = stage.ok(["job", "log", &job["id"].to_string()]);
        for line in [format!("tell: postgres|{standby}"), "tell: 42".into(), "tell: the token is ***".into()]
        {
            assert!(log.contains(&line), "{line} is not in {log}");
        }
        let shown = stage.json([noun, "show", dataset]);
        let folder = stage.fixture.mount_path().join(shown["volume"].as_str().unwrap());
        assert_eq!(variable(&format!("{prefix}_MOUNT_BASE")), folder.to_str().unwrap());
        assert_eq!(variable(&format!("{prefix}_INSTANCE_PORT")), shown["port"].to_string());
        assert_eq!(variable(&format!("{prefix}_INSTANCE_HOST")), "127.0.0.1");
        assert_eq!(variable(&format!("{prefix}_DATABASE_NAME")), "postgres");
        assert_eq!(variable("STILLPOINT_DATASET"), dataset);
        assert_eq!(variable("STILLPOINT_JOB"), job["id"].to_string());
        if dataset == "shop" {
            assert_eq!(variable("SOURCE_INSTANCE_PORT"), stage.source.port().to_string());
        }
        fs::remove_file(folder.parent().unwrap().parent().unwrap().join("hooks/env")).unwrap();
    }
    // The server's own user, who has no way in by himself.
    let first = stage.json(["job", "list"])[0]["id"].to_string();
    assert!(!stage.ok(["job", "log", &first]).contains(PASSWORD));
    for place in
        [stage.fixture.store_path(), stage.state_path().join("jobs"), stage.state_path().join("hooks")]
    {
        let mut grep = std::process::Command::new("grep");
        let run = Run::of(grep.args(["-rl", SECRET]).arg(&place));
        assert_eq!(run.stdout, "", "{place:?}");
    }
    assert!(!stage.ok(["hook", "list", "shop", "-o", "json"]).contains(SECRET));
    stage.ok(["hook", "remove", "shop", "tell"]);
    stage.ok(["vdb", "delete", "qa", "--yes"]);
    let run = Run::of(std::process::Command::new("grep").args(["-rl", SECRET]).arg(stage.state_path()));
    assert_eq!(run.stdout, "");
}

#[test]
fn a_hook_is_cancelled_and_one_of_a_template_is_checked() {
    let (stage, folder) = stage();
    let mark = folder.join("began");
    let text = format!("touch {}; sleep 1000", mark.display());
    let sleeping =
        ["hook", "add", "shop", "--point", "pre_sync", "--name", "sleep", "--command", "sh", "-c", &text];
    stage.ok(sleeping);
    let job = stage.json(["dsource", "snapshot", "shop", "--no-wait"])["id"].to_string();
    while !mark.exists() {}
    stage.ok(["job", "cancel", &job]);
    assert_eq!(stage.json(["job", "show", &job])["status"], "cancelled");
    stage.ok(["hook", "remove", "shop", "sleep"]);
    stage.ok(["dsource", "snapshot", "shop"]);

    let script = stage.fixture.path("note.sh");
    fs::write(&script, format!("echo {{{{word}}}} >{}/word\n", folder.display())).unwrap();
    let script = script.to_str().unwrap();
    stage.ok(["hook", "template", "create", "note", "--script", script, "--parameter", "word=what to note"]);
    let add = |value: &str| {
        stage.run([
            "hook",
            "add",
            "shop",
            "--point",
            "post_sync",
            "--name",
            "note",
            "--template",
            "note",
            "--value",
            value,
        ])
    };
    add("other=1").fails_with(2, &["needs a value for the parameter word (what to note)"]);
    add("word=a;b").fails_with(2, &["the value of word holds ';'"]);
    assert_eq!(add("word=noted").status, 0);
    stage.ok(["hook", "template", "delete", "note"]);
    assert_eq!(stage.json(["hook", "template", "list"]), json!([]));
    stage.ok(["dsource", "snapshot", "shop"]);
    assert_eq!(fs::read_to_string(folder.join("word")).unwrap(), "noted\n");
    stage
        .run([
            "hook",
            "add",
            "shop",
            "--point",
            "pre_sync",
            "--name",
            "u",
            "--user",
            "nobody-here",
            "--command",
            "id",
        ])
        .fails_with(10, &["nobody-here"]);
}

#[test]
fn a_link_and_a_provision_bring_their_hooks_and_policies() {
    let stage = Stage::new();
    let folder = stage.fixture.path("hooks");
    fs::create_dir(&folder).unwrap();
    give(&folder);
    let script = stage.fixture.path("first.sh");
    fs::write(&script, format!("echo first >>{}/done\n", folder.display())).unwrap();
    stage.ok(["policy", "create", "quota", "large", "1GiB"]);
    let (port, source) = (free_port().to_string(), stage.source.port().to_string());
    let hook = format!("pre_snapshot={}", script.display());
    let link = |policy: &str, hook: &str| {
        stage.run([
            "dsource",
            "link",
            "postgres",
            "--name",
            "shop",
            "--initiated-backup",
            "--source-user",
            "repl",
            "--source-port",
            &source,
            "--staging-port",
            &port,
            "--policy",
            policy,
            "--hook",
            hook,
        ])
    };
    link("none", &hook).fails_with(10, &["no policy none"]);
    link("large", &format!("pre_start={}", script.display())).fails_with(2, &["a dSource has no hook point"]);
    assert_eq!((stage.slots(), stage.volumes().len()), (0, 0));
    let run = link("large", &hook);
    assert_eq!(run.status, 0, "{run:?}\n{}", stage.daemon_log());
    assert_eq!(done(&folder), ["first"]);
    let volume = stage.json(["dsource", "show", "shop"])["volume"].as_str().unwrap().to_owned();
    assert_eq!(stage.json(["volume", "show", &volume])["quota_bytes"], 1 << 30);
    stage.ok(["dsource", "delete", "shop", "--yes"]);
    assert_eq!(stage.json(["policy", "show", "large"])["datasets"], json!([]));
    stage.ok(["policy", "delete", "large"]);
}

#[test]
fn a_daemon_that_is_killed_leaves_no_hook_running_and_no_half_made_vdb() {
    let (stage, folder) = stage();
    let script = stage.fixture.path("stay.sh");
    fs::write(&script, format!("echo $$ >{0}/new\nmv {0}/new {0}/pid\nsleep 1000\n", folder.display()))
        .unwrap();
    let hook = format!("configure_clone={}", script.display());
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop", "--hook", &hook, "--no-wait"]);
    while !folder.join("pid").exists() {}
    let pid = fs::read_to_string(folder.join("pid")).unwrap().trim().to_owned();
    assert!(fs::exists(format!("/proc/{pid}")).unwrap());
    stage.fixture.kill();
    stage.start_daemon();
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
    assert_eq!(fs::read_dir(stage.state_path().join("hooks")).unwrap().count(), 0);
    assert_eq!((stage.json(["vdb", "list"]), volumes_of(&stage, "qa")), (json!([]), Vec::new()));
}

#[test]
fn a_superuser_of_a_vdb_finds_no_way_through_the_door_of_a_hook() {
    let (stage, folder) = stage();
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    let shown = folder.display();
    // As who a server runs as, and from outside of every server's namespace: let in.
    let text = format!(
        "psql -XAtqc 'SELECT 1' >{shown}/answer; echo $PGHOST $PGPORT >{shown}/new; mv {shown}/new {shown}/door; sleep 1000"
    );
    stage.ok([
        "hook",
        "add",
        "shop",
        "--point",
        "pre_sync",
        "--name",
        "wait",
        "--command",
        "sh",
        "-c",
        &text,
    ]);
    let job = stage.json(["dsource", "snapshot", "shop", "--no-wait"])["id"].to_string();
    while !folder.join("door").exists() {}
    assert_eq!(fs::read_to_string(folder.join("answer")).unwrap(), "1\n");
    let door = fs::read_to_string(folder.join("door")).unwrap();
    let (host, port) = door.trim().split_once(' ').unwrap();
    let enter = format!("psql -h {host} -p {port} -U postgres -d postgres -w -XAtqc 'SELECT 1'");
    let run = as_superuser(&stage, "qa", &format!("COPY (SELECT 1) TO PROGRAM $$ {enter} $$"));
    assert_ne!(run.status, 0, "{run:?}");
    assert!(
        stage.daemon_log().contains("lives in another mount namespace"),
        "{run:?}\n{}",
        stage.daemon_log()
    );
    stage.ok(["job", "cancel", &job]);
}
