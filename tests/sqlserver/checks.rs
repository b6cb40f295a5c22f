//! What must be so before a snapshot of a staging database: each thing missing by itself, with its own words.

use std::time::Duration;

use stillpoint_tds_server::instance::DatabaseState;
use stillpoint_tds_server::reply::Part;

use crate::stage::Stage;

#[test]
fn each_check_fails_by_itself() {
    let (stage, full) = Stage::linked();
    let snapshot = || {
        let run = stage.run(&["dsource", "snapshot", "shop"]);
        // What a user sees, with --nocapture.
        println!("{}", run.stderr);
        run
    };
    // ONLINE, as the link left it: not the first snapshot any more.
    snapshot()
        .fails_with(13, &["shop_staging is ONLINE", "only a RESTORING database", "NORECOVERY, REPLACE"]);
    stage.restore_full("shop", "shop_staging", "prod", &full);
    stage.ok(["dsource", "snapshot", "shop"]);
    let count = stage.snapshots("shop").len();

    // A restore that runs.
    assert!(stage.instance.commit("prod", "two", None));
    let log = stage.backup("prod", "log");
    stage.instance.set_pace(2, Duration::from_millis(1));
    let mut session = stage.session();
    let restore = format!("RESTORE LOG [shop_staging] FROM DISK = N'{log}' WITH NORECOVERY");
    let (began, begun) = std::sync::mpsc::channel();
    let (goes_on, go_on) = std::sync::mpsc::channel::<()>();
    let running = std::thread::spawn(move || {
        session.batch(&restore, &[], &mut |part| {
            if matches!(part, Part::Wait(_)) && began.send(()).is_ok() {
                // In the middle, until it is told; then to its end.
                let _ = go_on.recv();
            }
            true
        });
    });
    begun.recv().unwrap();
    snapshot().fails_with(11, &["restores into shop_staging", "wait until it has ended"]);
    drop((begun, goes_on));
    running.join().unwrap();
    assert_eq!(stage.snapshots("shop").len(), count);

    // STANDBY and READ_ONLY are seen as what they are.
    let undo = stage.fixture.path("mssql/undo").display().to_string();
    stage.good(&format!("RESTORE DATABASE [shop_staging] WITH STANDBY = N'{undo}'"));
    snapshot().fails_with(13, &["shop_staging is STANDBY"]);
    let cannot = || {
        let faults = stage.json(["dsource", "show", "shop"])["faults"].clone();
        faults.as_array().unwrap().iter().any(|fault| fault["code"] == "CANNOT_MONITOR")
    };
    while !cannot() {
        std::thread::yield_now();
    }
    stage.restore_full("shop", "shop_staging", "prod", &full);
    while cannot() {
        std::thread::yield_now();
    }

    // Files elsewhere, no database, no folder.
    stage.good("DROP DATABASE [shop_staging]");
    snapshot().fails_with(13, &["there is no database shop_staging"]);
    let elsewhere = stage.fixture.path("mssql/data").display().to_string();
    stage.good(&format!(
        "RESTORE DATABASE [shop_staging] FROM DISK = N'{full}' WITH NORECOVERY, MOVE N'prod' TO N'{elsewhere}/s.mdf', \
         MOVE N'prod_log' TO N'{elsewhere}/s.ldf'"
    ));
    snapshot().fails_with(13, &["s.mdf", "is not on the volume", "MOVE"]);
    stage.good("DROP DATABASE [shop_staging]");
    std::fs::remove_dir_all(stage.volume("shop").join("DATA")).unwrap();
    snapshot().fails_with(13, &["there is no database shop_staging"]);
    assert_eq!(stage.snapshots("shop").len(), count);

    // The server is down.
    stage.instance.stop();
    snapshot().fails_with(1, &["cannot ask"]);
    stage.instance.start();
}

#[test]
fn a_link_is_refused_for_what_is_missing() {
    let stage = Stage::new();
    stage.production("prod", &[]);
    stage.link("shop", "prod").fails_with(11, &["has a database prod already"]);
    stage.link("shop", "master").fails_with(2, &["cannot be the name"]);
    let run = stage.run(&["dsource", "list", "-o", "json"]);
    assert_eq!(run.stdout.trim(), "[]", "{run:?}");
    assert_eq!(stage.json(["volume", "list"]), serde_json::json!([]));
    // A restore without history leaves nothing to tell snapshots apart by.
    assert_eq!(stage.link("shop", "shop_staging").status, 3);
    let full = stage.backup("prod", "other-full");
    stage.restore_full("shop", "shop_staging", "prod", &full);
    stage.instance.clear_history();
    let run = stage.run(&["dsource", "snapshot", "shop"]);
    assert_eq!(run.status, 3, "{run:?}");
    assert!(run.stdout.contains("no backup was restored into shop_staging"), "{run:?}");
    assert_eq!(stage.instance.state_of("shop_staging"), Some(DatabaseState::Restoring));
}
