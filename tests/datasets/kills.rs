//! SIGKILL of the daemon at any moment of any operation: nothing half done, nothing lost, nothing left running.

use std::collections::BTreeSet;
use std::time::Duration;

use stillpoint::base::Random;

use crate::common::random;
use crate::stage::{PASSWORD, Stage};

/// The longest that an operation is let run before the kill.
const DELAY_MILLISECONDS_MAX: u64 = 900;

#[test]
fn a_killed_daemon_leaves_nothing_half_done() {
    kill(Stage::new(), "a_killed_daemon_leaves_nothing_half_done");
}

#[test]
fn a_killed_daemon_that_keeps_servers_leaves_nothing_half_done() {
    let mut stage = Stage::new();
    stage.stop_daemon();
    stage.keep_servers = true;
    stage.start_daemon();
    kill(stage, "a_killed_daemon_that_keeps_servers_leaves_nothing_half_done");
}

/// A daemon killed in the middle of a stop: the server was not shut down in order, and is not left so.
#[test]
fn a_stop_that_is_killed_is_not_half_done() {
    let stage = Stage::new();
    assert_eq!(stage.link("shop").status, 0, "{}", stage.daemon_log());
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    for word in ["stop", "disable"] {
        // A postmaster that does not react.
        let postmaster = stage.postmaster("qa");
        let _stopped = Suspended::new(postmaster);
        let job = stage.json(["vdb", word, "qa", "--no-wait"])["id"].to_string();
        while !stage.ok(["job", "log", &job]).contains("stop the server") {}
        stage.fixture.kill();
        stage.start_daemon();
        stage.wait_for_jobs();
        check(&stage, word);
        let shown = stage.json(["vdb", "show", "qa"]);
        assert_eq!(shown["state"], "active", "{word}: {shown}");
        stage.ok(["vdb", "snapshot", "qa"]);
        check(&stage, word);
    }
}

/// A daemon killed while a server starts: it is no longer one that was shut down in order, and is not left so.
#[test]
fn a_start_that_is_killed_is_not_half_done() {
    let stage = Stage::new();
    assert_eq!(stage.link("shop").status, 0, "{}", stage.daemon_log());
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    for (down, up) in [("stop", "start"), ("disable", "enable")] {
        stage.ok(["vdb", down, "qa"]);
        stage.ok(["vdb", up, "qa", "--no-wait"]);
        while stage.find_postmaster("qa").is_none() {}
        stage.fixture.kill();
        stage.start_daemon();
        stage.wait_for_jobs();
        check(&stage, up);
        stage.ok(["vdb", "snapshot", "qa"]);
        check(&stage, up);
    }
}

/// A process that is suspended until this is dropped.
struct Suspended(rustix::process::Pid);

impl Suspended {
    fn new(pid: rustix::process::Pid) -> Self {
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        Self(pid)
    }
}

impl Drop for Suspended {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.0, rustix::process::Signal::CONT);
    }
}

fn kill(stage: Stage, test: &str) {
    let kills: usize = std::env::var("STILLPOINT_DAEMON_KILLS").map_or(4, |text| text.parse().unwrap());
    let dice = random(test);
    let run = stage.link("shop");
    assert_eq!(run.status, 0, "{run:?}\n{}", stage.daemon_log());
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    // Retention at work after each snapshot, and a hook in each.
    stage.ok(["policy", "create", "retention", "few", "--daily", "1"]);
    for dataset in ["shop", "qa"] {
        stage.ok(["policy", "apply", "few", dataset]);
        stage.ok([
            "hook",
            "add",
            dataset,
            "--point",
            "pre_snapshot",
            "--name",
            "wait",
            "--command",
            "sleep",
            "0.2",
        ]);
    }
    for number in 0..kills {
        let now =
            stage.source.query("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')");
        let script: &[&[&str]] = &[
            &["dsource", "snapshot", "shop", "--no-wait"],
            &["vdb", "provision", "--name", "extra", "--from", "shop", "--no-wait"],
            &["vdb", "refresh", "qa", "--no-wait"],
            &["vdb", "snapshot", "qa", "--no-wait"],
            &["vdb", "delete", "extra", "--yes", "--no-wait"],
            &["vdb", "stop", "qa", "--no-wait"],
            &["vdb", "start", "qa", "--no-wait"],
            &["vdb", "rewind", "qa", "--time", &now, "--no-wait"],
            &["vdb", "undo", "qa", "--no-wait"],
            &["vdb", "provision", "--name", "extra", "--from", "shop", "--time", &now, "--no-wait"],
            &["vdb", "configure", "qa", "--set", "work_mem=8MB", "--no-wait"],
            &["dsource", "resync", "shop", "--no-wait"],
            &["dsource", "detach", "shop", "--no-wait"],
            &["dsource", "attach", "shop", "--no-wait"],
        ];
        let operation = script[usize::try_from(dice.next_u64() % script.len() as u64).unwrap()];
        let second = number % 4 == 3;
        // Some are refused, as `extra` may or may not be there.
        let mut command = stage.fixture.command(operation);
        let _ = crate::common::Run::of(command.env("STILLPOINT_SOURCE_PASSWORD", PASSWORD));
        if second {
            // A link at work beside it.
            let port = crate::stage::free_port().to_string();
            let _ = stage.run([
                "dsource",
                "link",
                "postgres",
                "--name",
                "other",
                "--initiated-backup",
                "--source-user",
                "repl",
                "--source-port",
                &stage.source.port().to_string(),
                "--staging-port",
                &port,
                "--no-wait",
            ]);
        }
        std::thread::sleep(Duration::from_millis(dice.next_u64() % DELAY_MILLISECONDS_MAX));
        stage.fixture.kill();
        stage.start_daemon();
        stage.wait_for_jobs();
        check(&stage, &format!("kill {number} during {operation:?}"));
    }
    println!("{kills} kills");
}

/// The last job that failed, with what it said.
fn last_failure(stage: &Stage) -> String {
    let jobs = stage.json(["job", "list"]);
    let failed = jobs.as_array().unwrap().iter().rfind(|job| job["status"] == "failed").cloned();
    failed.map_or_else(String::new, |job| job.to_string())
}

/// Every dataset is whole and its server does what its state says; there is nothing else.
fn check(stage: &Stage, when: &str) {
    let mut active = 0;
    let mut slots = 0;
    let mut datasets: Vec<serde_json::Value> = Vec::new();
    for noun in ["dsource", "vdb"] {
        datasets.extend(stage.json([noun, "list"]).as_array().unwrap().iter().cloned());
    }
    let mut volumes = BTreeSet::new();
    for dataset in &datasets {
        let name = dataset["name"].as_str().unwrap();
        let state = dataset["state"].as_str().unwrap();
        assert!(["active", "stopped", "detached"].contains(&state), "{when}: {dataset}");
        volumes.insert(dataset["volume"].as_str().unwrap().to_owned());
        slots += i64::from(dataset["role"] == "dsource" && state != "detached");
        if state == "active" {
            active += 1;
            let port = u16::try_from(dataset["port"].as_u64().unwrap()).unwrap();
            let health = stage.json(["vdb", "show", name])["health"].clone();
            assert_eq!(health["running"], true, "{when}: {name} is {health}\n{}", last_failure(stage));
            let accounts = stage.number(port, "SELECT count(*) FROM pgbench_accounts");
            assert_eq!(accounts, 100_000, "{when}: {name}");
        }
        for snapshot in stage.json(["timeflow", "list", name]).as_array().unwrap() {
            assert_eq!(snapshot["provisionable"], true, "{when}: {snapshot}");
        }
    }
    assert!(datasets.len() >= 2, "{when}: {datasets:?}");
    assert_eq!(stage.servers(), active, "{when}\n{}", stage.daemon_log());
    assert_eq!(stage.slots(), slots, "{when}");
    // Timeflows that a refresh left behind have volumes, too; none is there without a dataset of its name.
    let there = stage.volumes();
    assert!(volumes.is_subset(&there), "{when}: {volumes:?} {there:?}");
    for volume in &there {
        let name = volume.rsplit_once('.').unwrap().0;
        assert!(datasets.iter().any(|dataset| dataset["name"] == name), "{when}: {volume} is nobody's");
    }
}
