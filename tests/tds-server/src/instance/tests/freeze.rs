//! The freeze, the thaw, snapshots by METADATA_ONLY.

use std::time::Duration;

use super::{World, ask};
use crate::reply::{Part, Value};

#[test]
fn a_freeze_stops_writes_and_is_seen() {
    let mut world = World::new();
    world.database("a", &["1"]);
    let frozen = world.run("ALTER DATABASE a SET SUSPEND_FOR_SNAPSHOT_BACKUP = ON");
    assert_eq!(frozen.infos(), [3083, 3197, 3086]);
    world.clock.advance(Duration::from_secs(3));
    let status =
        world.run("SELECT db_name, suspend_time_ms, is_diff_map_cleared FROM sys.dm_server_suspend_status");
    assert_eq!((status.rows.len(), &status.rows[0][2]), (1, &Value::Bit(true)));
    assert!(matches!(status.rows[0][1], Value::BigInt(millis) if millis >= 3000));
    assert!(!world.instance.commit("a", "2", None));
    assert_eq!(world.run("SELECT COUNT(*) FROM a.dbo.transactions").one(), Value::Int(1), "reads go on");
    world.refuse("ALTER DATABASE a SET SUSPEND_FOR_SNAPSHOT_BACKUP = ON", &[3081, 5069]);
    world.refuse("BACKUP DATABASE a TO DISK='x.bak'", &[3090, 3013]);
    world.refuse("DROP DATABASE a", &[3702]);
    world.refuse("ALTER DATABASE a SET OFFLINE", &[5061, 5069]);
    // A writer waits until the thaw, here in another session's wait.
    let mut writer = world.second();
    let mut thaw = Some(world.second());
    let mut blocked = false;
    writer.batch("USE a; INSERT INTO dbo.transactions (name) VALUES ('late')", &[], &mut |part| {
        if matches!(part, Part::Wait(_))
            && let Some(mut thaw) = thaw.take()
        {
            let seen = ask(
                thaw.as_mut(),
                "SELECT blocking_session_id FROM sys.dm_exec_requests WHERE command='INSERT'",
                &[],
            );
            blocked = seen.rows.len() == 1;
            let off = ask(thaw.as_mut(), "ALTER DATABASE a SET SUSPEND_FOR_SNAPSHOT_BACKUP = OFF", &[]);
            assert_eq!(off.infos(), [3198, 3084, 3087]);
        }
        true
    });
    assert!(blocked);
    assert_eq!(world.rows("a"), ["1", "late"]);
    assert!(world.instance.longest_freeze() >= Duration::from_secs(3));
    world.refuse("ALTER DATABASE a SET SUSPEND_FOR_SNAPSHOT_BACKUP = OFF", &[3082, 5069]);
    world.refuse("BACKUP DATABASE a TO DISK='x.bkm' WITH METADATA_ONLY", &[3082, 3013]);
    world.refuse("ALTER DATABASE master SET SUSPEND_FOR_SNAPSHOT_BACKUP = ON", &[3091, 5069]);
}

#[test]
fn the_end_of_the_session_thaws() {
    let mut world = World::new();
    world.database("a", &["1"]);
    let mut freezer = world.second();
    ask(freezer.as_mut(), "ALTER DATABASE a SET SUSPEND_FOR_SNAPSHOT_BACKUP = ON (MODE = COPY_ONLY)", &[]);
    assert_eq!(world.instance.frozen(), ["a"]);
    drop(freezer);
    assert!(world.instance.frozen().is_empty());
    world.run("SELECT 1");
    assert!(world.instance.commit("a", "2", None));
}

#[test]
fn a_snapshot_restores_with_logs() {
    let mut world = World::new();
    world.database("a", &["1"]);
    world.run("ALTER DATABASE a SET SUSPEND_FOR_SNAPSHOT_BACKUP = ON");
    std::fs::create_dir(world.path("snap")).unwrap();
    for (from, to) in [("data/a.mdf", "snap/a.mdf"), ("log/a_log.ldf", "snap/a.ldf")] {
        std::fs::copy(world.path(from), world.path(to)).unwrap();
    }
    let done = world.run("BACKUP DATABASE a TO DISK='a.bkm' WITH METADATA_ONLY, FORMAT");
    assert_eq!(done.infos(), [3198, 3084, 3087, 4035, 4035, 3014]);
    world.instance.commit("a", "2", None);
    world.run("BACKUP LOG a TO DISK='1.trn'; BACKUP DATABASE a TO DISK='d.bak' WITH DIFFERENTIAL");
    let (data, log) = (world.file("snap/a.mdf"), world.file("snap/a.ldf"));
    let moves = format!("MOVE 'a' TO '{data}', MOVE 'a_log' TO '{log}'");
    world.run(&format!(
        "RESTORE DATABASE n FROM DISK='a.bkm' WITH METADATA_ONLY, DBNAME='a', NORECOVERY, {moves}"
    ));
    assert_eq!(world.rows("n"), ["1"]);
    world.run("RESTORE LOG n FROM DISK='1.trn' WITH RECOVERY");
    assert_eq!(world.rows("n"), ["1", "2"]);
}

#[test]
fn groups_freeze_together() {
    let mut world = World::new();
    for name in ["a", "b", "c"] {
        world.database(name, &["1"]);
    }
    world.refuse("ALTER SERVER CONFIGURATION SET SUSPEND_FOR_SNAPSHOT_BACKUP = ON (GROUP = (a, A))", &[3092]);
    world.refuse(
        "ALTER SERVER CONFIGURATION SET SUSPEND_FOR_SNAPSHOT_BACKUP = ON (GROUP = (a, none))",
        &[911],
    );
    world.run(
        "ALTER SERVER CONFIGURATION SET SUSPEND_FOR_SNAPSHOT_BACKUP = ON (GROUP = (a, b), MODE = COPY_ONLY)",
    );
    assert_eq!(world.instance.frozen(), ["a", "b"]);
    world.run("BACKUP GROUP a, b TO DISK='g.bkm' WITH METADATA_ONLY");
    assert!(world.instance.frozen().is_empty());
    let header = world.run("RESTORE HEADERONLY FROM DISK='g.bkm'");
    assert_eq!(header.rows.len(), 2);
    world.run("ALTER SERVER CONFIGURATION SET SUSPEND_FOR_SNAPSHOT_BACKUP = ON");
    assert_eq!(world.run("SELECT SERVERPROPERTY('SuspendedDatabaseCount')").one(), Value::Int(3));
    world.run("ALTER SERVER CONFIGURATION SET SUSPEND_FOR_SNAPSHOT_BACKUP = OFF");
    assert!(world.instance.frozen().is_empty());
}

#[test]
fn older_servers_know_no_freeze() {
    let mut world = World::with(|config| config.version = (15, 0, 4300));
    world.database("a", &[]);
    world.refuse("ALTER DATABASE a SET SUSPEND_FOR_SNAPSHOT_BACKUP = ON", &[102, 5069]);
    world.refuse("SELECT * FROM sys.dm_server_suspend_status", &[208]);
}
