//! PostgreSQL on a mount: snapshots under load, clones that start, and the demo. Needs root, /dev/fuse and
//! PostgreSQL.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use common::postgres::{Server, make_cluster};
use common::{Fixture, Run, mounts_below, stillpoint};
use rustix::process::{Pid, Signal, kill_process};

/// Waits until the writers have added this many transactions.
fn wait_for_history(server: &Server, rows: i64) -> i64 {
    loop {
        let there = server.number("SELECT count(*) FROM pgbench_history");
        if there >= rows {
            return there;
        }
    }
}

#[test]
fn clones_of_snapshots_under_load_start_and_agree() {
    let fixture = Fixture::mounted();
    fixture.ok(["volume", "create", "shop"]);
    let data = fixture.mount_path().join("shop/data");
    make_cluster(&data);
    let source = Server::start(&data);
    source.load_pgbench(2);
    let mut writers = source.start_pgbench(4);

    let mut history = 0;
    for round in 0..3 {
        let before = wait_for_history(&source, history + 50);
        fixture.ok(["snapshot", "create", &format!("shop@s{round}")]);
        fixture.ok(["clone", "create", &format!("shop@s{round}"), &format!("clone{round}")]);
        let clone = Server::start(&fixture.mount_path().join(format!("clone{round}/data")));
        clone.assert_sums_agree();
        let cloned = clone.number("SELECT count(*) FROM pgbench_history");
        history = wait_for_history(&source, before);
        // A transaction of each of the 4 writers may be durable and not yet visible.
        assert!((before..=history + 4).contains(&cloned), "{before} {cloned} {history}");
        assert_eq!(clone.number("SELECT count(*) FROM pgbench_accounts"), 200_000);
        // What the clone writes is its own.
        clone.query("DELETE FROM pgbench_accounts");
        clone.stop();
    }
    assert!(writers.is_running());
    drop(writers);
    assert_eq!(source.number("SELECT count(*) FROM pgbench_accounts"), 200_000);
    source.assert_sums_agree();

    // A clone of a clone, and the middle snapshot goes.
    fixture.ok(["snapshot", "create", "clone0@inner"]);
    fixture.ok(["clone", "create", "clone0@inner", "grandchild"]);
    let grandchild = Server::start(&fixture.mount_path().join("grandchild/data"));
    assert_eq!(grandchild.number("SELECT count(*) FROM pgbench_accounts"), 0);
    grandchild.stop();
    fixture.ok(["volume", "destroy", "clone1", "--yes"]);
    fixture.ok(["snapshot", "destroy", "shop@s1", "--yes"]);
    source.stop();
    fixture.unmount();
    assert_eq!(fixture.json(["store", "check"])["findings"], serde_json::json!([]));
    assert_eq!(fixture.json(["store", "scrub"])["damaged"], 0);
}

#[test]
fn a_cleanly_stopped_database_survives_a_remount() {
    let fixture = Fixture::mounted();
    fixture.ok(["volume", "create", "shop"]);
    let data = fixture.mount_path().join("shop/data");
    make_cluster(&data);
    let server = Server::start(&data);
    server.query("CREATE TABLE kept AS SELECT generate_series(1, 50000) AS id");
    server.stop();
    fixture.unmount();
    fixture.mount();
    let server = Server::start(&data);
    assert_eq!(server.number("SELECT sum(id) FROM kept"), 1_250_025_000);
    server.stop();
}

#[test]
fn the_demo_shows_two_servers_and_leaves_nothing() {
    let fixture = Fixture::new();
    let folder = fixture.path("demo");
    let run = Run::of(
        stillpoint().args(["demo", "--scale", "1", "--clients", "2", "-o", "json", "--dir"]).arg(&folder),
    );
    let report = run.json();
    for server in ["source", "clone"] {
        assert_eq!(report[server]["accounts"], 100_000, "{report}");
        assert_eq!(report[server]["sums_agree"], true, "{report}");
    }
    let rows = |server: &str| report[server]["history_rows"].as_u64().unwrap();
    assert!(rows("clone") >= 100 && rows("clone") <= rows("source"), "{report}");
    assert!(!folder.exists());
    assert_eq!(mounts_below(fixture.folder.path()).len(), 0);
}

#[test]
fn a_kept_demo_runs_until_its_own_words_clean_it_up() {
    let fixture = Fixture::new();
    let folder = fixture.path("demo");
    let run = Run::of(stillpoint().args(["demo", "--scale", "1", "--keep", "--dir"]).arg(&folder));
    assert_eq!(run.status, 0, "{run:?}");
    let after = |label: &str| {
        let line = run.stdout.lines().find_map(|line| line.trim().strip_prefix(label));
        line.unwrap_or_else(|| panic!("{label} is not in {run:?}")).trim().to_owned()
    };
    for server in ["source:", "clone:"] {
        let query = format!("{} -Atc 'SELECT count(*) FROM pgbench_accounts'", after(server));
        let answer = Run::of(Command::new("sh").args(["-c", &query]));
        assert_eq!(answer.stdout.trim(), "100000", "{answer:?}");
    }
    let cleaned = Run::of(Command::new("sh").args(["-c", &after("clean up:")]));
    assert_eq!(cleaned.status, 0, "{cleaned:?}");
    assert!(!folder.exists());
    assert_eq!(mounts_below(fixture.folder.path()).len(), 0);
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    let fixture = Fixture::new();
    let folder = fixture.path("demo");
    let mut demo = stillpoint()
        .args(["demo", "--scale", "5", "--dir"])
        .arg(&folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // In the middle: PostgreSQL runs, and pgbench loads it.
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("loading")));
    kill_process(Pid::from_child(&demo), Signal::INT).unwrap();
    let rest: Vec<String> = lines.map(|line| line.unwrap()).collect();
    let output = demo.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{rest:?} {output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted"), "{output:?}");
    assert!(!folder.exists());
    assert_eq!(mounts_below(fixture.folder.path()).len(), 0);
}
