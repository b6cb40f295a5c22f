//! Fulls by a cut of the database's own volume, and that its writes go on whatever ends: the statement, the daemon, the
//! process that watches.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use stillpoint::base::{Clock, Random, SystemClock};

use crate::backups::id;
use crate::stage::Stage;

/// How often the daemon is killed: `STILLPOINT_FREEZE_KILLS`.
const KILLS: u64 = 8;
/// The limit that the sets of these tests have, in seconds.
const LIMIT: &str = "3";

impl Stage {
    /// The database `prod` with `one`, its files on the volume `data` of this store, protected as `erp`. Time is real.
    pub(crate) fn held() -> Self {
        let clock = Arc::new(|| SystemClock.unix_nanos());
        let stage = Self::with_clock(clock);
        stage.ok(["volume", "create", "data"]);
        let folder = stage.fixture.mount_path().join("data");
        let folder = folder.display();
        stage.good(&format!(
            "CREATE DATABASE [prod] ON PRIMARY (NAME = N'prod', FILENAME = N'{folder}/prod.mdf') \
             LOG ON (NAME = N'prod_log', FILENAME = N'{folder}/prod_log.ldf')"
        ));
        stage.commit("prod", "one");
        let port = stage.server.as_ref().unwrap().port().to_string();
        stage.ok([
            "backup",
            "protect",
            "erp",
            "--instance-port",
            &port,
            "--login",
            "stage",
            "--encryption",
            "unverified",
            "--user",
            "nobody",
            "--database",
            "prod",
            "--hold-limit",
            LIMIT,
        ]);
        stage
    }

    fn wait_until(&self, what: &str, limit: Duration, found: impl Fn() -> bool) {
        let start = SystemClock.monotonic();
        while !found() {
            let passed = SystemClock.monotonic() - start;
            assert!(passed < limit, "{what} within {limit:?}\n{}", self.daemon_log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn thaws(&self, limit: Duration) {
        self.wait_until("writes go on", limit, || self.instance.frozen().is_empty());
    }
}

#[test]
fn a_full_by_a_cut_holds_writes_for_a_moment_and_restores() {
    let stage = Stage::held();
    let points = stage.back_up("erp", "full");
    let full = &points[0];
    assert!(full["cut"].as_str().unwrap().starts_with("data@backup-"), "{full}");
    assert!(full["facts"].to_string().contains("writes held"), "{full}");
    assert_eq!(stage.instance.frozen(), Vec::<String>::new());
    println!("longest freeze: {:?}", stage.instance.longest_freeze());
    stage.ok(["backup", "verify", "erp", &id(full)]);
    stage.commit("prod", "two");
    stage.back_up("erp", "differential");
    stage.commit("prod", "three");
    let points = stage.back_up("erp", "log");

    stage.restore(&["--to-database", "copy"]);
    assert_eq!(stage.rows("copy"), ["one", "two", "three"]);
    stage.restore(&["--to-database", "first", "--point", &id(full)]);
    assert_eq!(stage.rows("first"), ["one"]);
    stage.commit("first", "its own");
    assert_eq!(stage.rows("prod"), ["one", "two", "three"], "it has a volume of its own");

    // The files of a cut are taken as they are; with a differential they go through Rst_prod.
    for (name, point, rows) in [("f", &points[0], &["one"][..]), ("d", &points[1], &["one", "two"])] {
        let to = stage.fixture.path(&format!("mssql/{name}"));
        stage.restore(&["--files", to.to_str().unwrap(), "--point", &id(point)]);
        assert_eq!(stage.instance.state_of("Rst_prod"), None);
        let files = format!("{0}/prod.mdf') , (FILENAME = N'{0}/prod_log.ldf", to.display());
        stage.good(&format!("CREATE DATABASE [{name}] ON (FILENAME = N'{files}') FOR ATTACH"));
        assert_eq!(stage.rows(name), rows);
    }
    // A restore point that goes takes its cut with it.
    stage.good("DROP DATABASE [f]; DROP DATABASE [d]; DROP DATABASE [copy]; DROP DATABASE [first]");
    for volume in stage.json(["volume", "list"]).as_array().unwrap() {
        let name = volume["name"].as_str().unwrap();
        if name.contains("restored") {
            stage.ok(["volume", "destroy", name, "--yes"]);
        }
    }
    stage
        .run(&["backup", "remove", "erp", &id(full), "--yes"])
        .fails_with(11, &["cannot be restored without"]);
    stage.ok(["backup", "unprotect", "erp", "--yes"]);
    let left = stage.json(["snapshot", "list", "data"]);
    assert_eq!(left.as_array().map(Vec::len), Some(0), "{left}");
}

#[test]
fn a_hold_has_a_limit() {
    let stage = Stage::held();
    stage.instance.keep_freezes(true);
    stage.instance.delay_next("METADATA_ONLY", Duration::from_secs(30));
    let run = stage.run(&["backup", "run", "erp", "--full"]);
    assert_eq!(run.status, 1, "{run:?}\n{}", stage.last_log());
    stage.thaws(Duration::from_secs(5));
    stage.commit("prod", "goes on");
    let longest = stage.instance.longest_freeze();
    assert!(longest < Duration::from_secs(8), "{longest:?}");
    assert!(stage.points("erp").is_empty());
}

/// Kills the processes that a daemon has started.
fn kill_children(daemon: Pid) {
    for task in std::fs::read_dir(format!("/proc/{}/task", daemon.as_raw_nonzero())).unwrap() {
        let children = std::fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().unwrap())) {
            kill_process(child, Signal::KILL).unwrap();
        }
    }
}

#[test]
fn a_starting_daemon_lets_go_of_what_nobody_watched() {
    let stage = Stage::held();
    stage.back_up("erp", "full");
    stage.instance.keep_freezes(true);
    stage.instance.delay_next("METADATA_ONLY", Duration::from_secs(2));
    stage.ok(["backup", "run", "erp", "--full", "--no-wait"]);
    stage.wait_until("writes are held", Duration::from_secs(20), || !stage.instance.frozen().is_empty());
    kill_children(stage.fixture.mounting_process().unwrap());
    stage.fixture.kill();
    // Nobody is left who would: this is what the watching process is for.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(stage.instance.frozen(), ["prod"]);
    stage.start_daemon();
    assert_eq!(stage.instance.frozen(), Vec::<String>::new());
    assert!(stage.json(["event", "list"]).to_string().contains("WRITES_LET_GO"));
    stage.instance.crash();
    let points = stage.back_up("erp", "differential");
    assert!(points[1]["conversions"].to_string().contains("changes_unknown"), "{points:?}");
}

/// One point at which the daemon is killed: what is slow then, and whether writes are held at that moment.
const STEPS: [(&str, bool); 4] = [
    ("SUSPEND_FOR_SNAPSHOT_BACKUP = ON", false),
    ("dm_server_suspend_status", true),
    ("METADATA_ONLY", true),
    ("HEADERONLY", false),
];

#[test]
fn writes_go_on_when_the_daemon_is_killed() {
    let count = std::env::var("STILLPOINT_FREEZE_KILLS").map_or(KILLS, |text| text.parse().unwrap());
    let random = crate::common::random("writes_go_on_when_the_daemon_is_killed");
    let stage = Stage::held();
    for kill in 0..count {
        let (slow, held) = STEPS[usize::try_from(kill).unwrap() % STEPS.len()];
        // Nothing documents that the end of a session ends its freeze: mostly it does not here.
        stage.instance.keep_freezes(kill % 8 < 6);
        stage.instance.delay_next(slow, Duration::from_secs(2));
        let before = stage.points("erp").len();
        stage.ok(["backup", "run", "erp", "--full", "--no-wait"]);
        if held {
            stage.wait_until("writes are held", Duration::from_secs(20), || {
                !stage.instance.frozen().is_empty()
            });
        } else {
            let marked = || stage.json(["backup", "show", "erp"])["held"] != Value::Array(Vec::new());
            stage.wait_until("it is written down that they may be", Duration::from_secs(20), marked);
        }
        std::thread::sleep(Duration::from_millis(random.next_u64() % 300));
        stage.fixture.kill();
        stage.thaws(Duration::from_secs(10));
        stage.start_daemon();
        // Its files were on the mount that went with the daemon.
        stage.instance.crash();
        stage.commit("prod", "goes on");
        let set = stage.json(["backup", "show", "erp"]);
        assert_eq!(set["held"], Value::Array(Vec::new()), "{set}");
        let points = stage.points("erp");
        assert!(points.len() <= before + 1, "{points:?}");
        // The next one is a full, says why, and is good.
        let points = stage.back_up("erp", "differential");
        let newest = points.last().unwrap();
        assert_eq!(newest["kind"], "full", "kill {kill} at {slow}: {newest}");
        let reasons = newest["conversions"].to_string();
        assert!(reasons.contains("changes_unknown") || reasons.contains("last_full_failed"), "{reasons}");
        stage.ok(["backup", "verify", "erp", &id(newest)]);
    }
    println!("kills: {count}, longest freeze: {:?}", stage.instance.longest_freeze());
    assert!(stage.instance.longest_freeze() < Duration::from_secs(6));
}
