//! What happens to servers and sources by themselves: killed, restarted, promoted, with other passwords and limits.

use std::collections::BTreeSet;

use rustix::process::{Pid, Signal, kill_process};

use crate::common::Run;
use crate::common::postgres::{Server, give};
use crate::stage::Stage;

const COUNT: &str = "SELECT count(*) FROM rows";

fn linked() -> Stage {
    let stage = Stage::new();
    stage.source.query("CREATE TABLE rows AS SELECT 1 AS id");
    let run = stage.link("shop");
    assert_eq!(run.status, 0, "{run:?}\n{}", stage.daemon_log());
    stage
}

fn faults(stage: &Stage) -> BTreeSet<String> {
    let shown = stage.json(["dsource", "show", "shop"]);
    shown["faults"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| fault["code"].as_str().unwrap().to_owned())
        .collect()
}

/// Waits until a fault is there, and returns what it says.
fn wait_for_fault(stage: &Stage, code: &str) -> String {
    loop {
        let shown = stage.json(["dsource", "show", "shop"]);
        let found = shown["faults"].as_array().unwrap().iter().find(|fault| fault["code"] == code).cloned();
        if let Some(fault) = found {
            return format!("{}; {}", fault["message"].as_str().unwrap(), fault["action"].as_str().unwrap());
        }
    }
}

/// Snapshots until that works: a server that was killed comes back by itself.
fn snapshot(stage: &Stage) {
    while stage.run(["dsource", "snapshot", "shop"]).status != 0 {}
}

fn pid(stage: &Stage) -> Option<Pid> {
    let pid = stage.json(["dsource", "show", "shop"])["health"]["pid"].as_i64()?;
    Pid::from_raw(i32::try_from(pid).unwrap())
}

#[test]
fn a_killed_staging_server_comes_back_and_has_lost_nothing() {
    let stage = linked();
    let load = stage.source.start_pgbench(2);
    for _ in 0..3 {
        let old = loop {
            if let Some(pid) = pid(&stage) {
                break pid;
            }
        };
        kill_process(old, Signal::KILL).unwrap();
        while pid(&stage).is_none_or(|pid| pid == old) {}
    }
    drop(load);
    snapshot(&stage);
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    let there = stage.source.number("SELECT count(*) FROM pgbench_history");
    let port = stage.port("qa");
    assert_eq!(stage.number(port, "SELECT count(*) FROM pgbench_history"), there);
    stage.assert_sums_agree(port);
    while !faults(&stage).is_empty() {}
}

#[test]
fn a_source_that_restarts_with_higher_limits_is_followed_on() {
    let mut stage = linked();
    stage.source.query("ALTER SYSTEM SET max_connections = 250");
    stage.source.restart();
    stage.source.query("INSERT INTO rows VALUES (2)");
    // Until it runs with the source's limit: by a restart that nobody asked for.
    let staging = stage.port("shop");
    loop {
        let run = Stage::try_ask(staging, "app", crate::stage::APP_PASSWORD, "SHOW max_connections");
        if run.stdout.trim() == "250" {
            break;
        }
    }
    snapshot(&stage);
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    assert_eq!(stage.number(stage.port("qa"), COUNT), 2);
}

#[test]
fn a_password_that_changed_is_a_fault_that_ends_with_the_new_one() {
    let mut stage = linked();
    stage.source.query("ALTER ROLE repl PASSWORD 'another'");
    stage.source.restart();
    let said = wait_for_fault(&stage, "SOURCE_REFUSES");
    assert!(said.contains("--password-file"), "{said}");
    // The staging server stays up and readable meanwhile.
    assert_eq!(stage.number(stage.port("shop"), COUNT), 1);
    let file = stage.fixture.path("password");
    std::fs::write(&file, "another\n").unwrap();
    stage.ok(["dsource", "configure", "shop", "--password-file", file.to_str().unwrap()]);
    while !faults(&stage).is_empty() {}
}

#[test]
fn a_promoted_standby_of_the_source_is_followed_on() {
    let stage = linked();
    let data = stage.fixture.path("standby");
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    give(&data);
    let mut backup = stage.source.client("pg_basebackup");
    let run = Run::of(backup.arg("-D").arg(&data).args(["-R", "-X", "stream", "-c", "fast"]));
    assert_eq!(run.status, 0, "{run:?}");
    let standby = Server::start_on_network(&data);
    stage.source.query("INSERT INTO rows VALUES (2)");
    stage.ok(["dsource", "snapshot", "shop"]);
    let port = standby.port().to_string();
    // A server without our slot would not keep what is needed next.
    stage
        .run(["dsource", "configure", "shop", "--source-port", &port])
        .fails_with(13, &["replication slot", "detach"]);
    while standby.query(COUNT) != "2" {}
    standby.query("SELECT pg_promote()");
    stage.ok(["dsource", "detach", "shop"]);
    assert_eq!(stage.slots(), 0);
    standby.query("INSERT INTO rows VALUES (3)");
    stage.ok(["dsource", "attach", "shop", "--source-port", &port]);
    snapshot(&stage);
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    assert_eq!(stage.number(stage.port("qa"), COUNT), 3);
    // What it had before the promotion, by a point in time on the timeline before.
    let snapshots = stage.json(["timeflow", "list", "shop"]);
    let timelines: Vec<u64> = snapshots
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["metadata"]["timeline"].as_u64().unwrap())
        .collect();
    assert_eq!(timelines.first(), Some(&1), "{timelines:?}");
    // It lets go of the new source, too.
    stage.ok(["vdb", "delete", "qa", "--yes"]);
    stage.ok(["dsource", "delete", "shop", "--yes"]);
    assert_eq!(standby.number("SELECT count(*) FROM pg_replication_slots"), 0);
}

#[test]
fn eight_vdbs_under_load_do_not_meet() {
    let stage = linked();
    let names: Vec<String> = (0..8).map(|number| format!("vdb{number}")).collect();
    for name in &names {
        stage.ok(["vdb", "provision", "--name", name, "--from", "shop"]);
    }
    let ports: Vec<u16> = names.iter().map(|name| stage.port(name)).collect();
    let load = stage.source.start_pgbench(1);
    std::thread::scope(|scope| {
        for (number, port) in ports.iter().enumerate() {
            let stage = &stage;
            scope.spawn(move || {
                stage.ask(*port, "DELETE FROM rows");
                for round in 0..40 {
                    stage.ask(*port, &format!("INSERT INTO rows VALUES ({})", number * 1000 + round));
                    stage.ask(
                        *port,
                        &format!("UPDATE pgbench_accounts SET abalance = {number} WHERE aid % 40 = {round}"),
                    );
                }
            });
        }
    });
    drop(load);
    for (number, port) in ports.iter().enumerate() {
        let of = number * 1000;
        let own = format!("SELECT count(*), count(*) FILTER (WHERE id BETWEEN {of} AND {of} + 39) FROM rows");
        assert_eq!(stage.ask(*port, &own), "40|40", "{number}");
        assert_eq!(
            stage.ask(*port, "SELECT min(abalance), max(abalance), count(*) FROM pgbench_accounts"),
            format!("{number}|{number}|100000")
        );
    }
    assert_eq!(stage.source.number(COUNT), 1);
    assert_eq!(stage.number(stage.port("shop"), COUNT), 1);
}
