//! Policies as time passes: runs at set times, retention with its reasons, quotas, and what cannot run.

use serde_json::{Value, json};

use crate::stage::Stage;

const EVERY_SECOND: &str = "* * * * * *";

fn stage() -> Stage {
    let stage = Stage::new();
    let run = stage.link("shop");
    assert_eq!(run.status, 0, "{run:?}\n{}", stage.daemon_log());
    stage
}

/// Runs a command that a job of a policy may be in the way of.
#[track_caller]
fn at_last<const N: usize>(stage: &Stage, arguments: [&str; N]) {
    loop {
        let run = stage.run(arguments);
        match run.status {
            0 => return,
            11 => assert!(run.stderr.contains("is at work on it"), "{run:?}"),
            _ => panic!("{run:?}\n{}", stage.daemon_log()),
        }
    }
}

fn names(stage: &Stage, dataset: &str) -> Vec<String> {
    let list = stage.json(["timeflow", "list", dataset]);
    list.as_array().unwrap().iter().map(|row| row["snapshot"].as_str().unwrap().to_owned()).collect()
}

fn events(stage: &Stage, kind: &str) -> Vec<String> {
    let list = stage.json(["event", "list"]);
    let found = list.as_array().unwrap().iter().filter(|event| event["kind"] == kind);
    found.map(|event| event["message"].as_str().unwrap().to_owned()).collect()
}

/// The jobs of a kind that ended well.
fn completed(stage: &Stage, kind: &str) -> usize {
    let list = stage.json(["job", "list"]);
    let found = list.as_array().unwrap().iter();
    found.filter(|job| job["kind"] == kind && job["status"] == "completed").count()
}

#[test]
fn runs_come_at_their_times_and_what_cannot_run_is_skipped_and_said() {
    let stage = stage();
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    let port = stage.port("qa");
    stage.ask(port, "DELETE FROM pgbench_branches");
    for kind in ["snap-sync", "snapshot", "refresh"] {
        stage.ok(["policy", "create", kind, kind, "--cron", EVERY_SECOND, "--time-zone", "Europe/Berlin"]);
    }
    stage.run(["policy", "apply", "refresh", "shop"]).fails_with(2, &["a dSource has snap_sync"]);
    stage.run(["policy", "apply", "snap-sync", "qa"]).fails_with(2, &["a VDB has snapshot"]);

    stage.ok(["policy", "apply", "snap-sync", "shop"]);
    while names(&stage, "shop").len() < 3 {}
    // A second one of the kind is refused, the same one again is not.
    stage.ok(["policy", "create", "snap-sync", "other", "--cron", "@hourly"]);
    stage.run(["policy", "apply", "other", "shop"]).fails_with(11, &["snap_sync policy snap-sync already"]);
    stage.ok(["policy", "apply", "snap-sync", "shop"]);
    stage.run(["policy", "delete", "snap-sync"]).fails_with(11, &["shop have policy snap-sync"]);
    let shown = stage.json(["policy", "show", "snap-sync"]);
    assert_eq!(shown["datasets"][0]["dataset"], "shop");
    assert!(shown["datasets"][0]["last_job"].is_u64(), "{shown}");
    at_last(&stage, ["dsource", "disable", "shop"]);
    while !events(&stage, "POLICY_SKIPPED").iter().any(|text| text.contains("shop is disabled")) {}
    stage.ok(["policy", "remove", "snap-sync", "shop"]);
    stage.ok(["policy", "delete", "snap-sync"]);
    stage.ok(["dsource", "enable", "shop"]);

    // A locked VDB may have a refresh policy, whose runs are skipped until it is unlocked.
    stage.ok(["vdb", "lock", "qa"]);
    stage.ok(["policy", "apply", "refresh", "qa"]);
    while !events(&stage, "POLICY_SKIPPED").iter().any(|text| text.contains("qa is locked")) {}
    assert_eq!(stage.number(port, "SELECT count(*) FROM pgbench_branches"), 0);
    stage.ok(["vdb", "unlock", "qa"]);
    while completed(&stage, "DB_REFRESH") == 0 {}
    stage.ok(["policy", "remove", "refresh", "qa"]);
    stage.ok(["policy", "apply", "snapshot", "qa"]);
    while names(&stage, "qa").is_empty() {}
    // Deleting a dataset takes its bindings with it.
    stage.ok(["policy", "remove", "snapshot", "qa"]);
    stage.ok(["policy", "create", "snapshot", "rarely", "--cron", "@yearly"]);
    stage.ok(["policy", "apply", "rarely", "qa"]);
    at_last(&stage, ["vdb", "delete", "qa", "--yes"]);
    for policy in stage.json(["policy", "list"]).as_array().unwrap() {
        assert_eq!(policy["datasets"], json!([]), "{policy}");
    }
}

#[test]
fn a_run_that_was_missed_while_the_daemon_was_down_comes_once() {
    let stage = stage();
    stage.ok(["policy", "create", "snap-sync", "often", "--cron", EVERY_SECOND]);
    stage.ok(["policy", "create", "snap-sync", "yearly", "--cron", "@yearly"]);
    stage.ok(["policy", "apply", "often", "shop"]);
    while names(&stage, "shop").len() < 2 {}
    stage.stop_daemon();
    stage.start_daemon();
    let before = names(&stage, "shop").len();
    while names(&stage, "shop").len() <= before {}
    stage.ok(["policy", "remove", "often", "shop"]);
    stage.ok(["policy", "apply", "yearly", "shop"]);
    let binding = stage.json(["policy", "show", "yearly"])["datasets"][0].clone();
    assert_eq!((binding["last_run"].clone(), binding["last_job"].clone()), (Value::Null, Value::Null));
    assert!(binding["next_run"].as_str().unwrap().ends_with("-01-01T00:00:00Z"), "{binding}");
}

#[test]
fn retention_removes_what_nothing_keeps_and_says_why_the_rest_stays() {
    let stage = stage();
    stage.ok(["policy", "create", "retention", "one", "--daily", "1"]);
    stage
        .run(["policy", "create", "retention", "none", "--log-days", "3"])
        .fails_with(2, &["keeps no snapshot but the newest"]);
    for _ in 0..4 {
        stage.ok(["dsource", "snapshot", "shop"]);
    }
    let all = names(&stage, "shop");
    assert_eq!(all.len(), 5);
    stage.ok(["vdb", "provision", "--name", "qa", "--from", &all[1]]);
    stage.ok(["timeflow", "bookmark", &all[2], "before-release"]);
    let volume = stage.json(["dsource", "show", "shop"])["volume"].as_str().unwrap().to_owned();
    let held = format!("{volume}@{}", all[3].split_once('@').unwrap().1);
    stage.ok(["snapshot", "hold", &held, "--tag", "audit"]);

    // A dry run of a policy that it does not have yet; nothing is removed.
    let simulated = stage.json(["policy", "simulate", "shop", "--policy", "one"]);
    let verdicts: Vec<(bool, String)> = simulated["snapshots"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["kept"].as_bool().unwrap(), row["reasons"].to_string()))
        .collect();
    let kept: Vec<bool> = verdicts.iter().map(|(kept, _)| *kept).collect();
    assert_eq!(kept, [false, true, true, true, true], "{verdicts:?}");
    for (at, words) in
        [(1, "VDB qa lives on it"), (2, "bookmark before-release"), (3, "hold audit"), (4, "newest snapshot")]
    {
        assert!(verdicts[at].1.contains(words), "{verdicts:?}");
    }
    let why = stage.json(["why", &all[0]]);
    assert_eq!((why["kept"].clone(), why["retention"].clone()), (json!(true), Value::Null));
    assert_eq!(why["reasons"], json!(["shop has no retention policy"]));
    assert_eq!(names(&stage, "shop"), all);

    stage.ok(["policy", "apply", "one", "shop"]);
    while names(&stage, "shop").len() > 4 {}
    assert_eq!(names(&stage, "shop"), all[1..]);
    let why = stage.ok(["why", &all[4]]);
    assert!(why.contains("newest snapshot") && why.contains("last of day"), "{why}");
    stage.run(["why", &all[0]]).fails_with(10, &["no snapshot"]);

    // What kept them goes, and so do they, after the next snapshot.
    stage.ok(["snapshot", "release", &held, "--tag", "audit"]);
    stage.ok(["vdb", "delete", "qa", "--yes"]);
    at_last(&stage, ["dsource", "snapshot", "shop"]);
    let newest = format!("shop@{}", stage.newest_snapshot("shop"));
    while names(&stage, "shop") != [all[2].clone(), newest.clone()] {}
    let jobs = stage.json(["job", "list"]);
    let job = jobs.as_array().unwrap().iter().rfind(|job| job["kind"] == "DB_RETENTION").unwrap();
    assert_eq!((job["status"].clone(), job["target"].clone()), (json!("completed"), json!("shop")));

    // Timeflows that refreshes left behind end, but the one an undo goes back to.
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop", "--no-logs"]);
    for _ in 0..2 {
        stage.ok(["vdb", "refresh", "qa"]);
    }
    assert_eq!(volumes_of(&stage, "qa"), 3);
    stage.ok(["policy", "apply", "one", "qa"]);
    while volumes_of(&stage, "qa") > 2 {}
    at_last(&stage, ["vdb", "undo", "qa"]);
}

fn volumes_of(stage: &Stage, dataset: &str) -> usize {
    let prefix = format!("{dataset}.");
    stage.volumes().iter().filter(|volume| volume.starts_with(&prefix)).count()
}

#[test]
fn a_dry_run_tells_the_next_runs_and_a_quota_bounds_every_volume() {
    let stage = stage();
    stage.ok([
        "policy",
        "create",
        "snap-sync",
        "nightly",
        "--cron",
        "30 2 * * *",
        "--time-zone",
        "Europe/Berlin",
    ]);
    let simulated = stage.json([
        "policy",
        "simulate",
        "--policy",
        "nightly",
        "--at",
        "2027-03-26T12:00:00Z",
        "--runs",
        "3",
    ]);
    // The clocks go forward on 28 March: there is no 02:30 then.
    assert_eq!(
        simulated["runs"][0]["times"],
        json!(["2027-03-27T02:30:00+01:00", "2027-03-28T03:00:00+02:00", "2027-03-29T02:30:00+02:00"])
    );
    stage.run(["policy", "simulate", "shop", "--at", "soon"]).fails_with(2, &["\"soon\" is no time"]);
    stage
        .run(["policy", "create", "snapshot", "bad", "--cron", "61 * * * *"])
        .fails_with(2, &["minute", "61"]);

    stage.ok(["policy", "create", "quota", "small", "64MiB"]);
    let quota = |dataset: &str| {
        let volume = stage.json(["vdb", "show", dataset])["volume"].as_str().unwrap().to_owned();
        stage.json(["volume", "show", &volume])["quota_bytes"].clone()
    };
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop", "--policy", "small"]);
    assert_eq!(quota("qa"), 64 << 20);
    stage.ok(["vdb", "refresh", "qa"]);
    assert_eq!(quota("qa"), 64 << 20);
    stage.ok(["policy", "remove", "small", "qa"]);
    assert_eq!(quota("qa"), Value::Null);
    stage
        .run(["vdb", "provision", "--name", "more", "--from", "shop", "--policy", "nightly"])
        .fails_with(2, &["a VDB has snapshot"]);
    stage
        .run(["vdb", "provision", "--name", "more", "--from", "shop", "--policy", "no"])
        .fails_with(10, &["no policy no"]);
    assert_eq!(stage.json(["vdb", "list"]).as_array().unwrap().len(), 1);
}
