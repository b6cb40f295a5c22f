//! Verified snapshots: a sound one, a damaged one, and one that has no checks.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use serde_json::Value;

use crate::hostile::as_superuser;
use crate::stage::Stage;

const PAGE_BYTES: u64 = 8192;

fn verification(stage: &Stage, dataset: &str) -> Value {
    let list = stage.json(["timeflow", "list", dataset]);
    list.as_array().unwrap().last().unwrap()["verification"].clone()
}

#[test]
fn a_snapshot_is_verified_and_damage_is_told() {
    let stage = Stage::new();
    let run = stage.link("shop");
    assert_eq!(run.status, 0, "{run:?}\n{}", stage.daemon_log());
    let snapshot = format!("shop@{}", stage.newest_snapshot("shop"));
    assert!(verification(&stage, "shop").is_null());
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    let volumes = stage.volumes();
    stage.ok(["timeflow", "verify", &snapshot]);
    let found = verification(&stage, "shop");
    assert_eq!((&found["sound"], &found["problems"]), (&true.into(), &serde_json::json!([])), "{found}");
    assert!(
        found["checks"].as_array().unwrap().iter().any(|check| check.as_str().unwrap().contains("amcheck"))
    );
    assert_eq!(stage.volumes(), volumes, "the clone is gone");
    assert_eq!(stage.servers(), 2);

    // A page of a table that the host spoilt.
    let path = as_superuser(&stage, "qa", "CHECKPOINT; SELECT pg_relation_filepath('pgbench_accounts')");
    stage.ok(["vdb", "stop", "qa"]);
    let volume = stage.json(["vdb", "show", "qa"])["volume"].as_str().unwrap().to_owned();
    let table = stage.fixture.mount_path().join(volume).join("data").join(path.stdout.trim());
    let table = OpenOptions::new().write(true).open(table).unwrap();
    table.write_all_at(&[0x5a; PAGE_BYTES as usize], 5 * PAGE_BYTES).unwrap();
    table.sync_all().unwrap();
    drop(table);
    stage.ok(["vdb", "start", "qa"]);
    stage.ok(["vdb", "snapshot", "qa"]);
    let run = stage.run(["timeflow", "verify", &format!("qa@{}", stage.newest_snapshot("qa"))]);
    assert_eq!(run.status, 3, "{run:?}\n{}", stage.daemon_log());
    let found = verification(&stage, "qa");
    assert_eq!(found["sound"], false, "{found}");
    assert!(found["problems"].to_string().contains("pgbench_accounts"), "{found}");
    let events = stage.json(["event", "list"]);
    assert!(events.as_array().unwrap().iter().any(|event| event["kind"] == "VERIFY_FAILED"), "{events}");
    stage.run(["timeflow", "verify", "qa@nothing"]).fails_with(10, &["nothing"]);
}
