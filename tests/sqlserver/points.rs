//! Points in time of a dSource that follows a folder of backups.

use std::time::Duration;

use crate::stage::Stage;

const MINUTE: Duration = Duration::from_secs(60);

/// A moment after the start of the instance's clock, which is 2026-01-05T08:00:00Z.
fn at(minutes: u32) -> String {
    format!("2026-01-05T{:02}:{:02}:30+00:00", 8 + minutes / 60, minutes % 60)
}

impl Stage {
    /// Lets the clock go to that many minutes after its start, and commits a row.
    fn row(&self, name: &str) {
        self.clock.advance(MINUTE);
        assert!(self.instance.commit("prod", name, None));
    }

    fn refused(&self, point: &[&str], status: i32, words: &[&str]) {
        let words_of = [&["vdb", "provision", "--name", "no", "--from", "shop"], point].concat();
        self.run(&words_of).fails_with(status, words);
    }
}

#[test]
fn a_vdb_at_a_time_an_lsn_and_a_mark() {
    let stage = Stage::new();
    // Times in logs and in STOPAT are those of a clock an hour ahead.
    stage.instance.set_zone(60);
    stage.production("prod", &["zero"]);
    assert_eq!(stage.follow(&[]).status, 0);
    assert_eq!(stage.snapshots("shop")[0]["metadata"]["zone_minutes"], 60);
    // Minutes 1 to 3, a log, 4 to 6, a log, and snapshots in between.
    for name in ["one", "two"] {
        stage.row(name);
    }
    stage.clock.advance(MINUTE);
    assert!(stage.instance.commit("prod", "three", Some(("release", "before it"))));
    stage.clock.advance(MINUTE);
    stage.backup("prod", "a-log");
    stage.wait_for_rows(&["zero", "one", "two", "three"]);
    for name in ["five", "six"] {
        stage.row(name);
    }
    stage.clock.advance(MINUTE);
    stage.backup("prod", "b-log");
    stage.wait_for_rows(&["zero", "one", "two", "three", "five", "six"]);
    // The folder is cleaned up: what is kept leads there.
    for name in ["a", "b"] {
        std::fs::remove_file(stage.fixture.path(&format!("mssql/backup/prod-{name}-log.bak"))).unwrap();
    }
    let cases: [(u32, &[&str]); 5] = [
        (0, &["zero"]),
        (1, &["zero", "one"]),
        (2, &["zero", "one", "two"]),
        (3, &["zero", "one", "two", "three"]),
        (5, &["zero", "one", "two", "three", "five"]),
    ];
    for (minutes, rows) in cases {
        let name = format!("t{minutes}");
        stage.ok(["vdb", "provision", "--name", &name, "--from", "shop", "--time", &at(minutes)]);
        assert_eq!(stage.rows(&name), rows, "{minutes}");
    }
    // Up to an LSN, and not with it.
    let all = stage.instance.transactions("prod");
    let lsn = all.iter().find(|row| row.name == "two").unwrap().commit.to_string();
    stage.ok(["vdb", "provision", "--name", "lsn", "--from", "shop", "--lsn", &lsn]);
    assert_eq!(stage.rows("lsn"), ["zero", "one"]);
    // With a marked transaction.
    stage.ok(["vdb", "provision", "--name", "mark", "--from", "shop", "--restore-point", "release"]);
    assert_eq!(stage.rows("mark"), ["zero", "one", "two", "three"]);
    stage.refused(&["--restore-point", "none"], 10, &["mark none"]);
    stage.refused(&["--xid", "7"], 13, &["no points by transaction number"]);
    stage.refused(&["--time", "2026-01-05T07:00:00Z"], 13, &["before the oldest snapshot of shop"]);
    stage.refused(
        &["--time", "2026-01-06T07:00:00Z"],
        13,
        &["that is later than 2026-01-05T09:0", "log backup"],
    );
    let span = stage.json(["timeflow", "points", "shop"]);
    assert!(span.to_string().contains("2026-01-05T08:0"), "{span}");
    // A VDB is refreshed to a point, too; and keeps no logs of its own.
    stage.ok(["vdb", "refresh", "lsn", "--time", &at(1)]);
    assert_eq!(stage.rows("lsn"), ["zero", "one"]);
    stage
        .run(&["vdb", "provision", "--name", "no", "--from", "lsn", "--time", &at(1)])
        .fails_with(13, &["lsn keeps no logs"]);
}

#[test]
fn a_point_in_missing_log_is_refused_with_what_is_missing() {
    let stage = Stage::new();
    stage.production("prod", &["zero"]);
    assert_eq!(stage.follow(&[]).status, 0);
    stage.row("one");
    let outside = stage.fixture.path("outside.trn").display().to_string();
    stage.good(&format!("BACKUP LOG [prod] TO DISK = N'{outside}' WITH INIT"));
    stage.row("two");
    stage.row("three");
    stage.backup("prod", "b-log");
    stage.row("four");
    stage.backup("prod", "diff");
    stage.row("five");
    stage.clock.advance(MINUTE);
    stage.backup("prod", "c-log");
    stage.wait_for_rows(&["zero", "one", "two", "three", "four", "five"]);
    stage.refused(&["--time", &at(2)], 13, &["log from LSN", "is missing"]);
    let span = stage.json(["timeflow", "points", "shop"]);
    assert!(span.to_string().contains("is missing"), "{span}");
}

#[test]
fn logs_that_a_user_restores_are_kept_for_points_in_time() {
    let (stage, _) = Stage::restored();
    let mut files = Vec::new();
    for (name, file) in [("two", "a-log"), ("three", "b-log")] {
        stage.row(name);
        stage.clock.advance(MINUTE);
        let log = stage.backup("prod", file);
        stage.good(&format!("RESTORE LOG [shop_staging] FROM DISK = N'{log}' WITH NORECOVERY"));
        files.push(log);
    }
    stage.ok(["dsource", "snapshot", "shop"]);
    for log in files {
        std::fs::remove_file(log).unwrap();
    }
    // Two at one minute, three at three.
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop", "--time", &at(2)]);
    assert_eq!(stage.rows("qa"), ["one", "two"]);
    // One that is gone before it was seen is said.
    stage.row("four");
    let log = stage.backup("prod", "c-log");
    stage.good(&format!("RESTORE LOG [shop_staging] FROM DISK = N'{log}' WITH NORECOVERY"));
    std::fs::remove_file(log).unwrap();
    stage.ok(["dsource", "snapshot", "shop"]);
    stage.refused(&["--time", &at(4)], 13, &["that is later than"]);
    stage.ok(["vdb", "provision", "--name", "qb", "--from", "shop"]);
    assert_eq!(stage.rows("qb"), ["one", "two", "three", "four"]);
}
