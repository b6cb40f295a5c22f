//! RESTORE: overwriting, placing, chains and stop points, one rule after the other.

use super::{World, ask};
use crate::instance::DatabaseState;
use crate::reply::Value;

/// A database `a` with a full, two logs and a differential, each with a row of its own.
fn chain() -> World {
    let mut world = World::new();
    world.database("a", &["f1"]);
    world.run("BACKUP DATABASE a TO DISK='full.bak' WITH CHECKSUM");
    world.instance.commit("a", "l1", None);
    world.run("BACKUP LOG a TO DISK='1.trn'");
    world.instance.commit("a", "d", None);
    world.run("BACKUP DATABASE a TO DISK='diff.bak' WITH DIFFERENTIAL");
    world.instance.commit("a", "l2", Some(("marked", "a mark")));
    world.instance.commit("a", "l3", None);
    world.run("BACKUP LOG a TO DISK='2.trn'");
    world
}

fn into(world: &World, name: &str, rest: &str) -> String {
    let (data, log) = (world.file(&format!("data/{name}.mdf")), world.file(&format!("log/{name}.ldf")));
    format!(
        "RESTORE DATABASE {name} FROM DISK='full.bak' WITH {rest}, MOVE 'a' TO '{data}', MOVE 'a_log' TO '{log}'"
    )
}

fn full(world: &mut World, name: &str) {
    let sql = into(world, name, "NORECOVERY");
    world.run(&sql);
}

#[test]
fn a_chain_restores_to_its_end() {
    let mut world = chain();
    full(&mut world, "b");
    world.run("RESTORE LOG b FROM DISK='1.trn' WITH NORECOVERY");
    assert_eq!(world.rows("b"), ["f1", "l1"]);
    let last = world.run("RESTORE LOG b FROM DISK='2.trn' WITH NORECOVERY, STATS = 25");
    assert_eq!(last.infos(), [3211, 3211, 3211, 3211, 4035, 3014]);
    world.refuse("USE b", &[927]);
    world.run("RESTORE DATABASE b WITH RECOVERY");
    assert_eq!(world.rows("b"), ["f1", "l1", "d", "l2", "l3"]);
    world.refuse("RESTORE DATABASE b WITH RECOVERY", &[3153, 3013]);
    world.refuse("RESTORE LOG b FROM DISK='2.trn'", &[3117, 3013]);
}

#[test]
fn a_differential_takes_the_place_of_logs() {
    let mut world = chain();
    full(&mut world, "b");
    world.run("RESTORE DATABASE b FROM DISK='diff.bak' WITH NORECOVERY");
    assert_eq!(world.rows("b"), ["f1", "l1", "d"]);
    world.refuse("RESTORE LOG b FROM DISK='1.trn' WITH NORECOVERY", &[4326, 3013]);
    world.run("RESTORE LOG b FROM DISK='2.trn' WITH RECOVERY");
    assert_eq!(world.rows("b"), ["f1", "l1", "d", "l2", "l3"]);
}

#[test]
fn gaps_and_repeats_are_told() {
    let mut world = chain();
    full(&mut world, "b");
    let gap = world.refuse("RESTORE LOG b FROM DISK='2.trn' WITH NORECOVERY", &[4305, 3013]);
    assert!(
        gap.messages[0].text.contains("An earlier log backup that includes LSN"),
        "{:?}",
        gap.messages[0]
    );
    world.run("RESTORE LOG b FROM DISK='1.trn' WITH NORECOVERY");
    world.refuse("RESTORE LOG b FROM DISK='1.trn' WITH NORECOVERY", &[4326, 3013]);
    world.refuse("RESTORE LOG c FROM DISK='1.trn'", &[3118, 3013]);
    world.refuse("RESTORE LOG b FROM DISK='full.bak'", &[3135, 3013]);
    world.refuse("RESTORE DATABASE b FROM DISK='1.trn'", &[3135, 3013]);
}

#[test]
fn only_replace_overwrites() {
    let mut world = chain();
    world.refuse("RESTORE DATABASE a FROM DISK='full.bak'", &[3159, 3013]);
    world.database("other", &[]);
    world.run("BACKUP DATABASE other TO DISK='other.bak'");
    world.refuse("RESTORE DATABASE a FROM DISK='other.bak'", &[3154, 3013]);
    world.refuse("RESTORE DATABASE b FROM DISK='full.bak'", &[1834, 3156, 1834, 3156, 3119, 3013]);
    let mut user = world.second();
    ask(user.as_mut(), "USE a", &[]);
    world.refuse("RESTORE DATABASE a FROM DISK='full.bak' WITH REPLACE", &[3101, 3013]);
    drop(user);
    world.refuse("USE a; RESTORE DATABASE a FROM DISK='full.bak' WITH REPLACE", &[3102, 3013]);
    world.run("USE master; RESTORE DATABASE a FROM DISK='full.bak' WITH REPLACE, NORECOVERY");
    assert_eq!(world.rows("a"), ["f1"]);
    let stray = world.file("data/stray.mdf");
    std::fs::write(&stray, "x").unwrap();
    let onto = format!(
        "RESTORE DATABASE c FROM DISK='other.bak' WITH MOVE 'other' TO '{stray}', MOVE 'other_log' TO '{stray}l'"
    );
    world.refuse(&onto, &[3142, 3156, 3119, 3013]);
    world.run(&format!("{onto}, REPLACE"));
    let nowhere = "RESTORE DATABASE d FROM DISK='other.bak' WITH MOVE 'other' TO '/none/d.mdf', MOVE 'other_log' TO '/none/d.ldf'";
    world.refuse(nowhere, &[5133, 3156, 5133, 3156, 3119, 3013]);
    world.refuse("RESTORE DATABASE d FROM DISK='other.bak' WITH MOVE 'x' TO '/tmp/x'", &[3234, 3013]);
}

#[test]
fn stop_points_stop() {
    let mut world = chain();
    let marked = world.instance.transactions("a").into_iter().find(|row| row.mark.is_some()).unwrap();
    let at = world
        .run("SELECT CONVERT(nvarchar(30), committed, 126) FROM a.dbo.transactions WHERE name = 'l2'")
        .text();
    for (stop, kept) in [
        (format!("STOPAT = '{at}'"), 4),
        ("STOPATMARK = 'marked'".to_owned(), 4),
        ("STOPBEFOREMARK = 'MARKED'".to_owned(), 3),
        (format!("STOPATMARK = 'lsn:{}'", marked.commit), 4),
        (format!("STOPBEFOREMARK = 'lsn:{}'", marked.commit), 3),
    ] {
        full(&mut world, "b");
        world.run("RESTORE LOG b FROM DISK='1.trn' WITH NORECOVERY");
        world.run(&format!("RESTORE LOG b FROM DISK='2.trn' WITH RECOVERY, {stop}"));
        assert_eq!(world.rows("b").len(), kept, "{stop}");
        world.run("DROP DATABASE b");
    }
    full(&mut world, "b");
    world.refuse("RESTORE LOG b FROM DISK='1.trn' WITH STOPAT='2020-01-01', RECOVERY", &[4335, 3013]);
    world.refuse("RESTORE LOG b FROM DISK='1.trn' WITH STOPATMARK='lsn:x'", &[4334, 3013]);
    world.refuse("RESTORE LOG b FROM DISK='1.trn' WITH STOPAT='yesterday'", &[241, 3013]);
    let later = world.run("RESTORE LOG b FROM DISK='1.trn' WITH STOPAT='2030-01-01', RECOVERY");
    assert!(later.infos().contains(&4322));
    assert_eq!(world.instance.state_of("b"), Some(DatabaseState::Restoring));
    let none = world.run("RESTORE LOG b FROM DISK='2.trn' WITH STOPATMARK='no such'");
    assert!(none.infos().contains(&4329));
    let early = into(&world, "c", "STOPAT = '2020-01-01T00:00:00'");
    world.refuse(&early, &[4338, 3013]);
    let mark = into(&world, "c", "STOPATMARK = 'm'");
    world.refuse(&mark, &[4340, 3013]);
}

#[test]
fn standby_is_readable_and_goes_on() {
    let mut world = chain();
    full(&mut world, "b");
    let undo = world.file("b.undo");
    world.refuse("RESTORE LOG b FROM DISK='1.trn' WITH STANDBY='/none/b.undo'", &[3170, 3013]);
    world.run(&format!("RESTORE LOG b FROM DISK='1.trn' WITH STANDBY='{undo}'"));
    assert!(world.path("b.undo").exists());
    let shown = world.run("SELECT state_desc, is_in_standby, is_read_only FROM sys.databases WHERE name='b'");
    assert_eq!(shown.rows[0], [Value::NVarChar("ONLINE".into()), Value::Bit(true), Value::Bit(true)]);
    assert_eq!(world.run("SELECT COUNT(*) FROM b.dbo.transactions").one(), Value::Int(2));
    world.refuse("BACKUP DATABASE b TO DISK='b.bak'", &[3036, 3013]);
    world.refuse("ALTER DATABASE b SET RECOVERY SIMPLE", &[5063, 5069]);
    world.run("RESTORE LOG b FROM DISK='2.trn' WITH NORECOVERY");
    assert!(!world.path("b.undo").exists());
    assert_eq!(world.rows("b").len(), 5);
}

#[test]
fn recovery_forks_the_path() {
    let mut world = chain();
    full(&mut world, "b");
    world.run("RESTORE LOG b FROM DISK='1.trn' WITH RECOVERY");
    world.instance.commit("b", "other way", None);
    world.run("BACKUP LOG b TO DISK='fork.trn'");
    let header = world.run("RESTORE HEADERONLY FROM DISK='fork.trn'");
    assert_eq!(header.rows.len(), 1);
    full(&mut world, "c");
    world.run("RESTORE LOG c FROM DISK='1.trn' WITH NORECOVERY");
    world.run("RESTORE LOG c FROM DISK='fork.trn' WITH NORECOVERY");
    assert_eq!(world.rows("c"), ["f1", "l1", "other way"]);
    // A log of the other branch that reaches further than `d` did on its own.
    world.instance.commit("b", "more", None);
    world.run("BACKUP LOG b TO DISK='fork2.trn'");
    full(&mut world, "d");
    world.run("RESTORE LOG d FROM DISK='1.trn' WITH NORECOVERY");
    world.run("RESTORE LOG d FROM DISK='2.trn' WITH NORECOVERY");
    let answer = world.ask("RESTORE LOG d FROM DISK='fork2.trn' WITH NORECOVERY");
    assert!([4305, 4326, 4330].contains(&answer.errors()[0]), "{answer:?}");
    for number in 0..40 {
        world.instance.commit("b", &number.to_string(), None);
    }
    full(&mut world, "e");
    world.run("RESTORE LOG e FROM DISK='1.trn' WITH RECOVERY");
    for number in 0..40 {
        world.instance.commit("e", &number.to_string(), None);
    }
    world.run("BACKUP LOG e TO DISK='e.trn'");
    world.refuse("RESTORE LOG d FROM DISK='e.trn' WITH NORECOVERY", &[4330, 3013]);
}

#[test]
fn a_differential_needs_its_own_base() {
    let mut world = chain();
    world.run("BACKUP DATABASE a TO DISK='full2.bak'");
    world.instance.commit("a", "late", None);
    world.run("BACKUP DATABASE a TO DISK='diff2.bak' WITH DIFFERENTIAL");
    full(&mut world, "b");
    world.refuse("RESTORE DATABASE b FROM DISK='diff2.bak' WITH NORECOVERY", &[3136, 3013]);
    world.run("RESTORE LOG b FROM DISK='1.trn' WITH NORECOVERY");
    world.run("RESTORE LOG b FROM DISK='2.trn' WITH NORECOVERY");
    world.refuse("RESTORE DATABASE b FROM DISK='diff.bak' WITH NORECOVERY", &[3120, 3013]);
    world.refuse("RESTORE DATABASE nosuch FROM DISK='diff.bak'", &[3118, 3013]);
    world.refuse("RESTORE DATABASE a FROM DISK='diff.bak'", &[3117, 3013]);
}

#[test]
fn bulk_logged_changes_inhibit_stopping() {
    let mut world = World::new();
    world.database("a", &["1"]);
    world.run("ALTER DATABASE a SET RECOVERY BULK_LOGGED; BACKUP DATABASE a TO DISK='full.bak'");
    world.instance.commit("a", "bulk", Some(("m", "")));
    world.run("BACKUP LOG a TO DISK='1.trn'");
    full(&mut world, "b");
    world.refuse("RESTORE LOG b FROM DISK='1.trn' WITH STOPATMARK='m'", &[4341, 3013]);
    world.run("RESTORE LOG b FROM DISK='1.trn' WITH RECOVERY");
    assert_eq!(world.rows("b"), ["1", "bulk"]);
}

#[test]
fn an_interrupted_restore_asks_for_a_full() {
    let mut world = chain();
    full(&mut world, "b");
    world.instance.interrupt_restore("b");
    let log = world.refuse("RESTORE LOG b FROM DISK='1.trn' WITH NORECOVERY", &[4320, 3013]);
    assert_eq!((log.messages[0].state, log.messages[0].line), (3, 1));
    assert!(log.messages[0].text.starts_with("The file \"a_log\" was not fully restored"));
    world.refuse("RESTORE DATABASE b WITH RECOVERY", &[4320, 3013]);
    let again = into(&world, "b", "REPLACE, NORECOVERY");
    world.run(&again);
    world.run("RESTORE LOG b FROM DISK='1.trn' WITH NORECOVERY");
}

#[test]
fn a_cancelled_log_must_be_restored_again() {
    let mut world = chain();
    full(&mut world, "b");
    world.instance.set_pace(4, std::time::Duration::from_millis(1));
    let mut other = world.second();
    let mut waits = 0;
    other.batch("RESTORE LOG b FROM DISK='1.trn' WITH NORECOVERY", &[], &mut |part| {
        waits += usize::from(matches!(part, crate::reply::Part::Wait(_)));
        waits < 2
    });
    world.instance.set_pace(0, std::time::Duration::ZERO);
    assert_eq!(world.instance.state_of("b"), Some(DatabaseState::Restoring));
    assert_eq!(world.rows("b"), ["f1"]);
    world.refuse("RESTORE DATABASE b WITH RECOVERY", &[4319, 3013]);
    world.run("RESTORE LOG b FROM DISK='1.trn' WITH NORECOVERY");
    world.run("RESTORE LOG b FROM DISK='2.trn' WITH RECOVERY");
    assert_eq!(world.rows("b").len(), 5);
}

#[test]
fn versions_only_go_up() {
    let mut new = World::with(|config| config.version = (17, 0, 1000));
    new.database("a", &["1"]);
    new.run("BACKUP DATABASE a TO DISK='full.bak'");
    let media = new.file("backup/full.bak");
    let mut old = World::with(|config| (config.version, config.seed) = ((15, 0, 4300), 2));
    old.refuse(&format!("RESTORE DATABASE a FROM DISK='{media}'"), &[3169, 3013]);
    old.database("b", &["1"]);
    old.run("BACKUP DATABASE b TO DISK='full.bak'");
    let media = old.file("backup/full.bak");
    let (data, log) = (new.file("b.mdf"), new.file("b.ldf"));
    let moves = format!("MOVE 'b' TO '{data}', MOVE 'b_log' TO '{log}'");
    let undo = new.file("undo");
    new.refuse(
        &format!("RESTORE DATABASE b FROM DISK='{media}' WITH STANDBY='{undo}', {moves}"),
        &[3180, 3013],
    );
    new.run(&format!("RESTORE DATABASE b FROM DISK='{media}' WITH {moves}"));
    new.run("EXEC sp_detach_db 'b'");
    let attach = format!("CREATE DATABASE b2 ON (FILENAME='{data}'), (FILENAME='{log}') FOR ATTACH");
    old.refuse(&attach, &[948, 1813]);
}

#[test]
fn a_differential_of_another_branch_is_refused_by_file() {
    let mut world = chain();
    full(&mut world, "b");
    world.run("RESTORE DATABASE b WITH RECOVERY");
    for number in 0..40 {
        world.instance.commit("b", &number.to_string(), None);
    }
    world.run("BACKUP DATABASE b TO DISK='b.bak' WITH DIFFERENTIAL");
    full(&mut world, "c");
    world.run("RESTORE LOG c FROM DISK='1.trn' WITH NORECOVERY");
    let refused = world.refuse("RESTORE DATABASE c FROM DISK='b.bak' WITH NORECOVERY", &[3121, 3119, 3013]);
    assert!(refused.messages[0].text.starts_with("The file \"a\" is on a recovery path"));
    full(&mut world, "d");
    world.run("RESTORE DATABASE d FROM DISK='b.bak'");
    assert_eq!(world.rows("d").len(), 41);
}

#[test]
fn a_suspect_database_is_known_by_its_name_only() {
    let mut world = chain();
    world.database("other", &[]);
    world.instance.set_state("other", DatabaseState::Suspect);
    world.refuse("USE other", &[926]);
    world.refuse("RESTORE DATABASE other FROM DISK='full.bak'", &[3141, 3013]);
    world.refuse("RESTORE LOG other FROM DISK='1.trn'", &[3185, 3013]);
    std::fs::create_dir(world.path("folder.mdf")).unwrap();
    let (folder, log) = (world.file("folder.mdf"), world.file("new.ldf"));
    let onto = format!("WITH REPLACE, MOVE 'a' TO '{folder}', MOVE 'a_log' TO '{log}'");
    world.refuse(&format!("RESTORE DATABASE new FROM DISK='full.bak' {onto}"), &[5123, 3013]);
    assert_eq!(world.instance.state_of("new"), None);
}
