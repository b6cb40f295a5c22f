//! Each of the twelve reasons for which a full is made instead of a differential, provoked and named.

use serde_json::Value;
use stillpoint_tds_server::instance::ReplicaRole;

use crate::stage::Stage;

/// The reasons of a restore point, by their words.
fn codes(point: &Value) -> Vec<String> {
    let all = point["conversions"].as_array().unwrap();
    all.iter().map(|one| one["code"].as_str().unwrap().to_owned()).collect()
}

impl Stage {
    /// The newest restore point of a database, after a run that asks for differentials.
    #[track_caller]
    fn next_point(&self, set: &str, database: &str) -> Value {
        let points = self.back_up(set, "differential");
        points.into_iter().rfind(|point| point["database"] == database).unwrap()
    }

    /// The next backup is a full for exactly these reasons, and its job says so; the one after it is none.
    #[track_caller]
    fn converts(&self, database: &str, reasons: &[&str], words: &str) {
        let point = self.next_point("erp", database);
        assert_eq!(codes(&point), reasons, "{point}");
        assert_eq!((&point["kind"], &point["asked"]), (&"full".into(), &"differential".into()));
        assert!(point["conversions"].to_string().contains(words), "{point}");
        assert!(self.last_log().contains("full instead of differential"), "{}", self.last_log());
        let point = self.next_point("erp", database);
        assert_eq!((codes(&point).len(), &point["kind"]), (0, &"differential".into()), "{point}");
    }
}

#[test]
fn each_reason_is_provoked_and_named() {
    let stage = Stage::protected();
    stage.converts("prod", &["no_full"], "no full backup of the database has been completed");

    stage.instance.fail_next_with("BACKUP DATABASE", 3202);
    let run = stage.run(&["backup", "run", "erp", "--full"]);
    assert_eq!(run.status, 1, "{run:?}");
    stage.converts("prod", &["last_full_failed"], "Msg 3202");

    stage.backup("prod", "full");
    stage.converts("prod", &["foreign_full"], "another program has made a full");

    let more = stage.fixture.path("mssql/data/more.ndf").display().to_string();
    stage.good(&format!("ALTER DATABASE [prod] ADD FILE (NAME = N'more', FILENAME = N'{more}')"));
    stage.converts("prod", &["files_changed"], "added more");

    stage.good("ALTER DATABASE [prod] MODIFY FILE (NAME = N'more', NEWNAME = N'other')");
    stage.converts("prod", &["file_moved"], "is now other");

    stage.good("ALTER DATABASE [prod] MODIFY FILE (NAME = N'other', SIZE = 8MB)");
    stage.converts_not("prod");
    assert!(stage.instance.shrink("prod", "other", 256));
    stage.converts("prod", &["shrunk"], "file other was shrunk");

    // What is stored is gone: somebody removed the snapshot behind our back.
    let full = stage.points("erp").into_iter().rfind(|point| point["kind"] == "full").unwrap();
    stage.ok(["snapshot", "destroy", full["snapshot"].as_str().unwrap(), "--yes"]);
    stage.converts("prod", &["inconsistent"], "is not there");

    stage.good("ALTER DATABASE [prod] MODIFY NAME = [sales]");
    stage.converts("sales", &["database_renamed"], "renamed from prod to sales");

    // On a secondary each is a full that is copy-only, and its log backups have no marks.
    stage.instance.set_replica(Some(ReplicaRole::Secondary), &["sales"]);
    for _ in 0..2 {
        let point = stage.next_point("erp", "sales");
        assert_eq!(codes(&point), ["secondary_replica"], "{point}");
        assert!(point["facts"].to_string().contains("copy only"), "{point}");
    }
    stage.back_up("erp", "log");
    assert!(stage.last_log().contains("secondary replica have no marks"), "{}", stage.last_log());
    stage.instance.set_replica(None, &[]);
    // The base is the one before: a differential goes on from it.
    assert_eq!(stage.next_point("erp", "sales")["kind"], "differential");
}

impl Stage {
    #[track_caller]
    fn converts_not(&self, database: &str) {
        let point = self.next_point("erp", database);
        assert_eq!(point["kind"], "differential", "a file that grew: {point}");
    }
}

#[test]
fn a_set_whose_members_change_and_master_are_full() {
    let stage = Stage::new();
    stage.good("CREATE DATABASE [a]");
    let run = stage.protect("all", &[]);
    assert_eq!(run.status, 0, "{run:?}");
    let first = stage.back_up("all", "");
    assert!(first.iter().all(|point| point["kind"] == "full"), "{first:?}");
    let next = stage.back_up("all", "");
    let newest = |database: &str, points: &[Value]| {
        points.iter().rfind(|point| point["database"] == database).unwrap().clone()
    };
    assert_eq!(codes(&newest("master", &next)), ["master"]);
    assert_eq!(newest("a", &next)["kind"], "differential");
    stage.good("CREATE DATABASE [b]");
    let next = stage.back_up("all", "");
    assert_eq!(codes(&newest("a", &next)), ["members_changed"]);
    assert!(newest("a", &next)["conversions"].to_string().contains("added b"));
    assert_eq!(codes(&newest("b", &next)), ["no_full"]);
    assert_eq!(newest("a", &stage.back_up("all", ""))["kind"], "differential");
    let run = stage.set("configure", "all", &["--exclude", "b"]);
    assert_eq!(run.status, 0, "{run:?}");
    let next = stage.back_up("all", "");
    assert_eq!(codes(&newest("a", &next)), ["members_changed"]);
    assert!(newest("a", &next)["conversions"].to_string().contains("removed b"));
}

#[test]
fn a_hold_that_ended_without_its_backup_makes_the_next_a_full() {
    let stage = Stage::held();
    let points = stage.back_up("erp", "full");
    assert!(points[0]["cut"].is_string(), "{points:?}");
    assert_eq!(stage.next_point("erp", "prod")["kind"], "differential");
    stage.instance.fail_next_with("METADATA_ONLY", 3201);
    stage.run(&["backup", "run", "erp", "--full"]).fails_with(1, &["Msg 3201"]);
    assert_eq!(stage.instance.frozen(), Vec::<String>::new());
    stage.converts("prod", &["last_full_failed", "changes_unknown"], "a full that held its writes failed");
}
