//! Backups that wait, are cancelled, run by themselves, and go when nothing keeps them.

use std::time::Duration;

use serde_json::Value;
use stillpoint::base::{Clock, SystemClock};

use crate::backups::id;
use crate::stage::Stage;

impl Stage {
    fn newest_job(&self) -> Value {
        let jobs = self.json(["job", "list"]);
        jobs.as_array().unwrap().iter().max_by_key(|job| job["id"].as_u64()).unwrap().clone()
    }

    fn ends_as(&self, job: &str, status: &str) {
        self.until(&format!("job {job} ends as {status}"), || {
            self.json(["job", "show", job])["status"] == status
        });
    }

    #[track_caller]
    fn until(&self, what: &str, found: impl Fn() -> bool) {
        let start = SystemClock.monotonic();
        while !found() {
            let passed = SystemClock.monotonic() - start;
            assert!(passed < Duration::from_secs(60), "{what}\n{}", self.daemon_log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_backup_waits_for_its_instance_and_runs_when_that_is_back() {
    let stage = Stage::protected();
    stage.instance.stop();
    stage.ok(["backup", "run", "erp", "--no-wait"]);
    let job = id(&stage.newest_job());
    stage.until("it waits", || stage.last_log().contains("waits until its instance answers"));
    assert_eq!(stage.json(["job", "show", &job])["steps"][1]["name"], "wait for the instance");
    assert!(stage.json(["event", "list"]).to_string().contains("BACKUP_WAITS"));
    // Others are not kept from running, and one wait of a set is enough.
    stage.run(&["backup", "run", "erp"]).fails_with(11, &["is at work on it"]);
    stage.instance.start();
    stage.ends_as(&job, "completed");
    assert_eq!(stage.points("erp").len(), 1);

    stage.instance.stop();
    stage.ok(["backup", "run", "erp", "--no-wait"]);
    let job = id(&stage.newest_job());
    stage.until("it waits", || stage.last_log().contains("waits until its instance answers"));
    stage.ok(["job", "cancel", &job]);
    stage.ends_as(&job, "cancelled");
    stage.instance.start();
}

#[test]
fn progress_is_told_and_a_cancelled_backup_leaves_nothing() {
    let stage = Stage::protected();
    stage.instance.set_pace(100, Duration::from_millis(100));
    stage.ok(["backup", "run", "erp", "--full", "--no-wait"]);
    let job = id(&stage.newest_job());
    stage.until("progress is seen", || {
        stage.json(["job", "show", &job])["bytes_done"].as_u64().is_some_and(|done| done > 0)
    });
    stage.ok(["job", "cancel", &job]);
    stage.ends_as(&job, "cancelled");
    stage.instance.set_pace(0, Duration::ZERO);
    assert!(stage.points("erp").is_empty());
    let volume = stage.json(["backup", "show", "erp"])["volume"].as_str().unwrap().to_owned();
    let left: Vec<_> = std::fs::read_dir(stage.fixture.mount_path().join(&volume)).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(stage.back_up("erp", "").len(), 1);

    // A cancelled restore takes its database away again.
    stage.instance.set_pace(100, Duration::from_millis(100));
    stage.ok(["backup", "restore", "erp", "--to-database", "copy", "--no-wait"]);
    let job = id(&stage.newest_job());
    stage.until("it restores", || stage.instance.state_of("copy").is_some());
    stage.ok(["job", "cancel", &job]);
    stage.ends_as(&job, "cancelled");
    assert_eq!(stage.instance.state_of("copy"), None);
}

#[test]
fn policies_make_backups_and_retention_keeps_what_is_needed() {
    let stage = Stage::protected();
    stage.back_up("erp", "full");
    stage.commit("prod", "two");
    for (kind, name) in [("full-backup", "f"), ("differential-backup", "d"), ("log-backup", "l")] {
        stage.ok(["policy", "create", kind, name, "--cron", "*/2 * * * * *"]);
    }
    stage.ok(["policy", "create", "snapshot", "s", "--cron", "@hourly"]);
    stage
        .run(&["policy", "apply", "s", "erp"])
        .fails_with(2, &["full_backup, differential_backup, log_backup"]);
    for (name, kind) in [("l", "log"), ("d", "differential"), ("f", "full")] {
        let before = stage.points("erp").len();
        stage.ok(["policy", "apply", name, "erp"]);
        stage.until(&format!("a {kind} backup runs by itself"), || {
            stage.commit("prod", "more");
            stage.points("erp")[before..].iter().any(|point| point["kind"] == kind)
        });
        stage.ok(["policy", "remove", name, "erp"]);
        stage.until("the last run has ended", || {
            let status = stage.newest_job()["status"].clone();
            status != "running" && status != "queued"
        });
    }
    let run = stage.run(&["policy", "delete", "l"]);
    assert_eq!(run.status, 0, "{run:?}");

    // Two fulls, a differential of the newer one, and a log: the instance's clock is of long ago, so all days are over.
    stage.back_up("erp", "full");
    stage.commit("prod", "last");
    stage.back_up("erp", "differential");
    stage.back_up("erp", "log");
    stage.ok(["policy", "create", "retention", "keep", "--all", "1"]);
    let points = stage.points("erp");
    let (differential, log) = (&points[points.len() - 2], &points[points.len() - 1]);
    let full = points.iter().rfind(|point| point["kind"] == "full").unwrap();
    stage.ok(["policy", "apply", "keep", "erp"]);
    let why = stage.json(["backup", "why", "erp", &id(full)]);
    assert!(why["kept"] == true && why["reasons"].to_string().contains("needs it"), "{why}");
    let why = stage.json(["backup", "why", "erp", &id(log)]);
    assert_eq!((&why["kept"], &why["retention"]), (&false.into(), &"keep".into()), "{why}");
    stage.until("the others go", || stage.points("erp").len() == 2);
    let left = stage.points("erp");
    assert_eq!([id(&left[0]), id(&left[1])], [id(full), id(differential)]);
    stage.restore(&["--to-database", "copy"]);
    assert!(stage.rows("copy").contains(&"last".to_owned()));
}
