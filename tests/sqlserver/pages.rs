//! The pages of each snapshot are checked by themselves, without the server, and what is damaged is said by file and page.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::stage::Stage;

const PAGE_BYTES: u64 = 8192;
/// The first page of those that the test server keeps a database's state in.
const STATE_PAGE: u64 = 16;

/// The newest snapshot, once its files were checked.
fn checked(stage: &Stage, dataset: &str) -> Value {
    for _ in 0..600 {
        let newest = stage.snapshots(dataset).pop().unwrap();
        if !newest["file_check"].is_null() {
            return newest;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("no check of {dataset}: {}\n{}", stage.json(["job", "list"]), stage.daemon_log());
}

fn checks(stage: &Stage) -> usize {
    let jobs = stage.json(["job", "list"]);
    jobs.as_array().unwrap().iter().filter(|job| job["kind"] == "DB_CHECK").count()
}

fn has_fault(stage: &Stage) -> bool {
    let shown = stage.json(["dsource", "show", "shop"]);
    shown["faults"].as_array().unwrap().iter().any(|fault| fault["code"] == "PAGES_DAMAGED")
}

#[test]
fn each_snapshot_has_its_pages_checked() {
    let (stage, _) = Stage::restored();
    let clean = checked(&stage, "shop");
    let found = &clean["file_check"];
    assert_eq!((&found["sound"], &found["problems"]), (&true.into(), &json!([])), "{found}");
    assert_eq!(found["checks"], json!(["page checksums"]));
    assert!(found["left_out"].to_string().contains("shop_staging_log.ldf: a log has no pages"), "{found}");
    assert!(clean["verification"].is_null());
    assert!(stage.ok(["timeflow", "list", "shop"]).contains("pages sound"));

    // A byte that the host spoilt, after the last restore has written.
    assert!(stage.instance.commit("prod", "two", None));
    let log = stage.backup("prod", "log");
    stage.good(&format!("RESTORE LOG [shop_staging] FROM DISK = N'{log}' WITH NORECOVERY"));
    let path = stage.volume("shop").join("DATA/db/shop_staging.mdf");
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, STATE_PAGE * PAGE_BYTES + 5000).unwrap();
    file.write_all_at(&[byte[0] ^ 1], STATE_PAGE * PAGE_BYTES + 5000).unwrap();
    drop(file);
    stage.ok(["dsource", "snapshot", "shop"]);
    let damaged = checked(&stage, "shop");
    let found = &damaged["file_check"];
    assert_eq!(found["sound"], false, "{found}");
    let problems = found["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 1, "{found}");
    assert!(
        problems[0].as_str().unwrap().starts_with("DATA/db/shop_staging.mdf, page 16: its checksum is 0x"),
        "{found}"
    );
    let list = stage.ok(["timeflow", "list", "shop"]);
    assert!(list.contains("damaged: DATA/db/shop_staging.mdf, page 16"), "{list}");
    let events = stage.json(["event", "list"]);
    let event = events.as_array().unwrap().iter().find(|event| event["kind"] == "FILES_DAMAGED").unwrap();
    assert!(event["message"].as_str().unwrap().contains("shop_staging.mdf, page 16"), "{event}");
    while !has_fault(&stage) {
        std::thread::sleep(Duration::from_millis(50));
    }

    // Asked for again, of each.
    let count = checks(&stage);
    let name = |snapshot: &Value| snapshot["snapshot"].as_str().unwrap().to_owned();
    stage.ok(["timeflow", "verify", "--files", &name(&clean)]);
    let run = stage.run(&["timeflow", "verify", "--files", &name(&damaged)]);
    assert_eq!(run.status, 3, "{run:?}");
    assert!(run.stdout.contains("page 16"), "{run:?}");
    assert_eq!(checks(&stage), count + 2);
    stage.run(&["timeflow", "verify", "--files", "shop@nothing"]).fails_with(10, &["nothing"]);

    // After a start nothing is checked twice.
    stage.stop_daemon();
    stage.start_daemon();
    assert_eq!(checks(&stage), count + 2);
    assert!(has_fault(&stage), "it stays until a sound snapshot is there");

    // A restore mends it.
    let full = stage.backup("prod", "later-full");
    stage.restore_full("shop", "shop_staging", "prod", &full);
    stage.ok(["dsource", "snapshot", "shop"]);
    let mended = checked(&stage, "shop");
    assert_eq!(mended["file_check"]["sound"], true, "{mended}");
    while has_fault(&stage) {
        std::thread::sleep(Duration::from_millis(50));
    }
    // Of a VDB, too; and what one is at work on can go.
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    stage.ok(["vdb", "snapshot", "qa"]);
    assert_eq!(checked(&stage, "qa")["file_check"]["sound"], true);
    for _ in 0..3 {
        stage.ok(["vdb", "snapshot", "qa"]);
        let newest = stage.snapshots("qa").pop().unwrap();
        stage.ok(["timeflow", "destroy", newest["snapshot"].as_str().unwrap()]);
    }
    stage.ok(["vdb", "snapshot", "qa"]);
    stage.ok(["vdb", "delete", "qa", "--yes"]);
}

/// How many checks are in this state.
fn checks_that_are(stage: &Stage, status: &str) -> usize {
    let jobs = stage.json(["job", "list"]);
    let of_it = |job: &&Value| job["kind"] == "DB_CHECK" && job["status"] == status;
    jobs.as_array().unwrap().iter().filter(of_it).count()
}

fn wait_for_running(stage: &Stage) {
    while checks_that_are(stage, "running") == 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Until the jobs that a start begins have ended.
fn wait_for_others(stage: &Stage) {
    let at_work = |job: &Value| {
        job["kind"] != "DB_CHECK" && ["running", "queued"].contains(&job["status"].as_str().unwrap())
    };
    while stage.json(["job", "list"]).as_array().unwrap().iter().any(at_work) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_check_gives_way_and_is_made_up_for_after_a_start() {
    let (stage, _) = Stage::restored();
    checked(&stage, "shop");
    // Two snapshots of a file that takes longer to read than this test lasts.
    let path = stage.volume("shop").join("DATA/db/shop_staging.mdf");
    OpenOptions::new().write(true).open(path).unwrap().set_len(1 << 40).unwrap();
    for row in ["two", "three"] {
        assert!(stage.instance.commit("prod", row, None));
        let log = stage.backup("prod", &format!("{row}-log"));
        stage.good(&format!("RESTORE LOG [shop_staging] FROM DISK = N'{log}' WITH NORECOVERY"));
        stage.ok(["dsource", "snapshot", "shop"]);
        wait_for_running(&stage);
    }
    assert_eq!(checks_that_are(&stage, "running") + checks_that_are(&stage, "queued"), 2, "one at a time");

    stage.stop_daemon();
    stage.start_daemon();
    wait_for_running(&stage);
    wait_for_others(&stage);
    let snapshots = stage.snapshots("shop");
    assert!(snapshots.iter().rev().take(2).all(|snapshot| snapshot["file_check"].is_null()), "{snapshots:?}");
    for snapshot in snapshots.iter().rev().take(2) {
        stage.ok(["timeflow", "destroy", snapshot["snapshot"].as_str().unwrap()]);
    }
    assert_eq!(checks_that_are(&stage, "running"), 0);

    let full = stage.backup("prod", "later-full");
    stage.restore_full("shop", "shop_staging", "prod", &full);
    stage.ok(["dsource", "snapshot", "shop"]);
    assert_eq!(checked(&stage, "shop")["file_check"]["sound"], true);
}
