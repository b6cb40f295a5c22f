//! Servers that go on when the daemon ends, and the mount with them.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};

use crate::common::postgres::command;
use crate::stage::{APP_PASSWORD, Stage};

fn kept() -> Stage {
    let mut stage = Stage::new();
    stage.stop_daemon();
    stage.keep_servers = true;
    stage.start_daemon();
    assert_eq!(stage.link("shop").status, 0, "{}", stage.daemon_log());
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    stage
}

/// The postmaster as it knows itself, and since when.
fn since(stage: &Stage, dataset: &str) -> String {
    stage.ask(stage.port(dataset), "SELECT pg_postmaster_start_time()")
}

#[test]
fn servers_go_on_without_their_daemon_and_are_found_by_the_next() {
    let mut stage = kept();
    let (qa, shop) = (since(&stage, "qa"), since(&stage, "shop"));
    let port = stage.port("qa");
    for kill in [false, true] {
        // A session that outlives the daemon, with a transaction under way.
        let mut session = command("psql");
        session.env("PGPASSWORD", APP_PASSWORD).args(["-h", "127.0.0.1", "-p", &port.to_string()]);
        session.args(["-U", "app", "-d", "postgres", "-w", "-XAtq", "-v", "ON_ERROR_STOP=1"]);
        let update = "UPDATE pgbench_tellers SET tbalance = tbalance + 1 WHERE tid = 1;";
        session.args(["-c", &format!("BEGIN; {update} SELECT pg_advisory_lock(7); COMMIT")]);
        let holder = Holder::new(port);
        let session = session.stdin(Stdio::null()).spawn().unwrap();
        if kill {
            stage.fixture.kill();
        } else {
            stage.stop_daemon();
        }
        assert_eq!(stage.number(port, "SELECT count(*) FROM pgbench_accounts"), 100_000);
        // What came while there was no daemon is there, too.
        stage.source.query("INSERT INTO pgbench_history (tid) VALUES (1)");
        stage.ask(port, "INSERT INTO pgbench_history (tid) VALUES (9)");
        // Volumes are asked of the process that mounts them.
        assert_eq!(stage.volumes().len(), 5, "two with logs, one image");
        stage.run(["vdb", "list"]).fails_with(13, &["no daemon runs"]);
        stage.start_daemon();
        drop(holder);
        assert!({ session }.wait().unwrap().success());
        assert_eq!(since(&stage, "qa"), qa);
        assert_eq!(since(&stage, "shop"), shop);
        assert_eq!(stage.json(["vdb", "show", "qa"])["health"]["running"], true);
    }
    assert_eq!(stage.number(port, "SELECT count(*) FROM pgbench_history WHERE tid = 9"), 2);
    let sync = stage.run(["dsource", "snapshot", "shop"]);
    assert_eq!(sync.status, 0, "{sync:?}");
    stage.ok(["vdb", "refresh", "qa"]);
    assert_eq!(stage.number(port, "SELECT count(*) FROM pgbench_history"), 2);

    // Without the setting all ends with the daemon, also what an earlier one kept.
    stage.stop_daemon();
    assert_eq!(stage.servers(), 2);
    stage.keep_servers = false;
    stage.start_daemon();
    assert_eq!(stage.servers(), 2);
    stage.stop_daemon();
    assert_eq!(stage.servers(), 0);
    assert!(stage.fixture.mounting_process().is_none());
    stage.start_daemon();
    assert_eq!(stage.fixture.daemon(), stage.fixture.mounting_process());
    stage.wait_for_jobs();
    assert_eq!(stage.number(port, "SELECT count(*) FROM pgbench_history"), 2);
}

/// A mount that dies takes the servers' files away: the daemon ends and says so, and the next one makes all anew.
#[test]
fn a_kept_mount_that_dies_is_made_anew() {
    let stage = kept();
    let daemon = stage.fixture.daemon().unwrap();
    let handle = rustix::process::pidfd_open(daemon, rustix::process::PidfdFlags::empty()).unwrap();
    let mounting = stage.fixture.mounting_process().unwrap();
    assert_ne!(daemon, mounting);
    stage.ask(stage.port("qa"), "UPDATE pgbench_tellers SET tbalance = 7 WHERE tid = 1");
    rustix::process::kill_process(mounting, rustix::process::Signal::KILL).unwrap();
    let mut ended = [rustix::event::PollFd::new(&handle, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut ended, None).unwrap();
    assert!(stage.daemon_log().contains("start the daemon again"), "{}", stage.daemon_log());
    stage.start_daemon();
    stage.wait_for_jobs();
    assert_eq!(stage.number(stage.port("qa"), "SELECT tbalance FROM pgbench_tellers WHERE tid = 1"), 7);
    assert_eq!(stage.servers(), 2);
}

#[test]
fn one_daemon_at_a_time_and_at_one_place() {
    let mut stage = kept();
    let mount = stage.fixture.mount_path();
    let second = stage.run(["daemon", "--mount", mount.to_str().unwrap()]);
    second.fails_with(11, &["in use by process", "stillpoint daemon"]);
    stage.stop_daemon();
    let other = stage.fixture.path("other");
    let moved = stage.run(["daemon", "--background", "--mount", other.to_str().unwrap()]);
    moved.fails_with(11, &["mounted at", mount.to_str().unwrap(), "--mount"]);
    stage.keep_servers = false;
    let unmount = stage.run(["unmount", mount.to_str().unwrap()]);
    assert_eq!(unmount.status, 11, "servers work there: {unmount:?}");
    stage.start_daemon();
}

/// Holds an advisory lock of a VDB.
struct Holder(Child);

impl Holder {
    fn new(port: u16) -> Self {
        let mut psql = command("psql");
        psql.env("PGPASSWORD", APP_PASSWORD).args(["-h", "127.0.0.1", "-p", &port.to_string()]);
        psql.args(["-U", "app", "-d", "postgres", "-w", "-XAtq"]);
        let mut child = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.as_mut().unwrap();
        input.write_all(b"SELECT pg_advisory_lock(7)::text || 'held';\n").unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "held");
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
