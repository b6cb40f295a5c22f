//! Points in time, against rows whose commits are known by time, place and transaction.

use std::fs;
use std::path::PathBuf;

use stillpoint::base::Random;

use crate::common::{Run, random};
use crate::stage::{APP_PASSWORD, Stage};

/// A row, and where the source stood after its commit.
struct Row {
    time: String,
    lsn: String,
    xid: String,
}

/// The clock of a server as recovery targets are written, and its place in the WAL.
const AFTER: &str = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), \
                     pg_current_wal_lsn()";

/// Commits row `number` and says where that is.
fn commit(stage: &Stage, number: usize) -> Row {
    let insert = format!("WITH row AS (INSERT INTO rows VALUES ({number})) SELECT txid_current()");
    let xid = stage.source.query(&insert);
    let after = stage.source.query(AFTER);
    let (time, lsn) = after.split_once('|').unwrap();
    Row { time: time.to_owned(), lsn: lsn.to_owned(), xid }
}

/// The rows of a VDB, which must be those up to a number and no others.
#[track_caller]
fn assert_rows(stage: &Stage, vdb: &str, last: usize) {
    let found = stage.ask(stage.port(vdb), "SELECT count(*), coalesce(max(id), 0) FROM rows");
    assert_eq!(found, format!("{last}|{last}"), "{vdb}");
}

fn provision(stage: &Stage, from: &str, option: &str, value: &str) -> Run {
    stage.run(["vdb", "provision", "--name", "then", "--from", from, option, value])
}

/// Provisions a VDB at a point, checks what it holds, and deletes it.
#[track_caller]
fn assert_point(stage: &Stage, from: &str, option: &str, value: &str, rows: usize) {
    let run = provision(stage, from, option, value);
    assert_eq!(run.status, 0, "{option} {value}: {run:?}\n{}", stage.daemon_log());
    assert_rows(stage, "then", rows);
    stage.ok(["vdb", "delete", "then", "--yes"]);
}

#[test]
fn every_kind_of_point_is_exact() {
    let dice = random("every_kind_of_point_is_exact");
    let stage = Stage::new();
    stage.source.query("CREATE TABLE rows (id int)");
    let run = stage.link("shop");
    assert_eq!(run.status, 0, "{run:?}\n{}", stage.daemon_log());
    let rows: Vec<Row> = (1..=12)
        .map(|number| {
            let row = commit(&stage, number);
            match dice.next_u64() % 5 {
                0 => drop(stage.source.query("SELECT pg_switch_wal()")),
                1 => drop(stage.ok(["dsource", "snapshot", "shop"])),
                _ => {}
            }
            stage.source.query(&format!("SELECT pg_create_restore_point('after {number}')"));
            row
        })
        .collect();
    for _ in 0..10 {
        let at = usize::try_from(dice.next_u64() % 12).unwrap();
        let row = &rows[at];
        match dice.next_u64() % 4 {
            0 => assert_point(&stage, "shop", "--time", &row.time, at + 1),
            1 => assert_point(&stage, "shop", "--lsn", &row.lsn, at + 1),
            2 => assert_point(&stage, "shop", "--xid", &row.xid, at + 1),
            _ => assert_point(&stage, "shop", "--restore-point", &format!("after {}", at + 1), at + 1),
        }
    }
    // The last commit, at a time when nothing came after it.
    let now = stage.source.query(AFTER);
    assert_point(&stage, "shop", "--time", now.split_once('|').unwrap().0, 12);
    // What cannot be is refused with what can.
    provision(&stage, "shop", "--time", "2001-01-01T00:00:00Z")
        .fails_with(13, &["too early", "the earliest point"]);
    provision(&stage, "shop", "--time", "2999-01-01T00:00:00Z").fails_with(13, &["in the future"]);
    provision(&stage, "shop", "--time", "yesterday").fails_with(2, &["offset"]);
    provision(&stage, "shop", "--lsn", "FF/0").fails_with(13, &["not reached yet"]);
    provision(&stage, "shop", "--xid", "4000000").fails_with(13, &["has not ended"]);
    provision(&stage, "shop", "--restore-point", "none").fails_with(10, &["after 12"]);
    assert_eq!(stage.servers(), 1, "{}", stage.daemon_log());

    // A refresh to a point, under the same port.
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    let port = stage.port("qa");
    stage.ok(["vdb", "refresh", "qa", "--time", &rows[4].time]);
    assert_eq!(stage.port("qa"), port);
    assert_rows(&stage, "qa", 5);
}

#[test]
fn a_vdb_has_points_of_its_own_and_a_gap_is_said() {
    let stage = Stage::new();
    stage.source.query("CREATE TABLE rows (id int)");
    let run = stage.link("shop");
    assert_eq!(run.status, 0, "{run:?}\n{}", stage.daemon_log());
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    let port = stage.port("qa");
    stage.run(["vdb", "rewind", "qa", "--lsn", "0/1"]).fails_with(13, &["no snapshot"]);
    stage.ok(["vdb", "snapshot", "qa"]);
    let times: Vec<String> = (1..=6)
        .map(|number| {
            stage.ask(port, &format!("INSERT INTO rows VALUES ({number})"));
            let after = stage.ask(port, AFTER);
            if number == 3 {
                switch_wal(port);
            }
            after.split_once('|').unwrap().0.to_owned()
        })
        .collect();
    assert_point(&stage, "qa", "--time", &times[1], 2);
    stage.ok(["vdb", "rewind", "qa", "--time", &times[3]]);
    assert_rows(&stage, "qa", 4);
    stage.ok(["vdb", "undo", "qa"]);
    assert_rows(&stage, "qa", 6);
    // Over a restart, too.
    stage.ok(["vdb", "stop", "qa"]);
    assert_point(&stage, "qa", "--time", &times[5], 6);
    stage.ok(["vdb", "start", "qa"]);

    // Three more segments, then one of them goes missing among the kept: what lies before is still reached.
    let wal = kept(&stage, "qa");
    for number in 7..=9 {
        stage.ask(port, &format!("INSERT INTO rows VALUES ({number})"));
        switch_wal(port);
    }
    let lost = stage.ask(port, "SELECT pg_walfile_name(pg_current_wal_lsn() - 17000000)");
    while !wal.join(&lost).exists() {}
    let last = stage.ask(port, AFTER);
    // Until the cluster itself has let go of it.
    while stage.fixture.mount_path().join(volume(&stage, "qa")).join("data/pg_wal").join(&lost).exists() {
        stage.ask(port, "INSERT INTO rows SELECT 10 WHERE false");
        checkpoint(port);
        switch_wal(port);
    }
    fs::remove_file(wal.join(&lost)).unwrap();
    let (time, lsn) = last.split_once('|').unwrap();
    provision(&stage, "qa", "--lsn", lsn).fails_with(13, &["is missing"]);
    let gaps = stage.json(["timeflow", "points", "qa"])[0]["gaps"].clone();
    assert_eq!(gaps.as_array().unwrap().len(), 1, "{gaps}");
    let late = provision(&stage, "qa", "--time", time);
    assert_ne!(late.status, 0, "a point behind the gap was made of what lies before it");
    assert_point(&stage, "qa", "--time", &times[5], 6);
}

fn volume(stage: &Stage, dataset: &str) -> String {
    stage.json(["vdb", "show", dataset])["volume"].as_str().unwrap().to_owned()
}

/// Where the finished segments of a dataset's only timeflow with a snapshot are.
fn kept(stage: &Stage, dataset: &str) -> PathBuf {
    let volume = stage.json(["vdb", "show", dataset])["log_volume"].as_str().unwrap().to_owned();
    stage.fixture.mount_path().join(volume).join("wal")
}

fn as_admin(port: u16, sql: &str) {
    let run = Stage::try_ask(port, "admin", APP_PASSWORD, sql);
    assert_eq!(run.status, 0, "{sql}: {run:?}");
}

fn switch_wal(port: u16) {
    as_admin(port, "SELECT pg_switch_wal()");
}

fn checkpoint(port: u16) {
    as_admin(port, "CHECKPOINT");
}
