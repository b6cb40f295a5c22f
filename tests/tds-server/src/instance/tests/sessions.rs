//! Logins, running statements seen from another session, KILL, WAITFOR, orders of a test.

use std::time::Duration;

use super::{World, ask, login};
use crate::reply::{Part, Value};

#[test]
fn logins_are_checked() {
    let mut world = World::new();
    world.run("CREATE LOGIN app WITH PASSWORD = N'secret'");
    let refused = |world: &World, user: &str, password: &str| {
        login(&world.instance, user, password).err().map(|error| (error.number, error.class, error.text))
    };
    let text = "Login failed for user 'app'.".to_owned();
    assert_eq!(refused(&world, "app", "wrong"), Some((18456, 14, text.clone())));
    assert_eq!(refused(&world, "APP", "secret"), None);
    world.run("ALTER LOGIN app DISABLE");
    assert_eq!(refused(&world, "app", "secret"), Some((18456, 14, text)));
    world.run("ALTER LOGIN app ENABLE; ALTER LOGIN app WITH PASSWORD = 'other'");
    assert_eq!(refused(&world, "app", "other"), None);
    world.refuse("CREATE LOGIN app WITH PASSWORD = 'x'", &[15025]);
    world.run("DROP LOGIN app");
    world.refuse("DROP LOGIN app", &[15151]);
}

#[test]
fn a_running_restore_is_seen_and_can_be_cancelled() {
    let mut world = World::new();
    world.database("a", &["1"]);
    world.run("BACKUP DATABASE a TO DISK='full.bak'");
    world.instance.set_pace(10, Duration::from_millis(1));
    let (data, log) = (world.file("b.mdf"), world.file("b.ldf"));
    let sql = format!(
        "RESTORE DATABASE b FROM DISK='full.bak' WITH STATS=10, MOVE 'a' TO '{data}', MOVE 'a_log' TO '{log}'"
    );
    let mut watcher = world.second();
    let mut seen = Vec::new();
    let mut restorer = world.second();
    restorer.batch(&sql, &[], &mut |part| {
        if !matches!(part, Part::Wait(_)) {
            return true;
        }
        let answer = ask(
            watcher.as_mut(),
            "SELECT r.command, r.percent_complete, t.text, l.request_mode FROM sys.dm_exec_requests AS r \
             CROSS APPLY sys.dm_exec_sql_text(r.sql_handle) AS t \
             LEFT JOIN sys.dm_tran_locks AS l ON l.request_session_id = r.session_id AND l.resource_database_id = DB_ID('b') \
             WHERE r.command LIKE 'RESTORE%'",
            &[],
        );
        assert_eq!(answer.rows.len(), 1, "{answer:?}");
        assert_eq!(answer.rows[0][0], Value::NVarChar("RESTORE DATABASE".into()));
        assert!(matches!(&answer.rows[0][2], Value::NVarChar(text) if text.starts_with("RESTORE DATABASE b")));
        assert_eq!(answer.rows[0][3], Value::NVarChar("X".into()));
        let Value::Real(percent) = answer.rows[0][1] else { panic!() };
        seen.push(percent);
        if seen.len() == 1 {
            assert_eq!(ask(watcher.as_mut(), "DROP DATABASE b", &[]).errors(), [3702]);
            assert_eq!(ask(watcher.as_mut(), "ALTER DATABASE b SET MULTI_USER", &[]).errors(), [5061, 5069]);
            let second = ask(watcher.as_mut(), "RESTORE DATABASE b WITH RECOVERY", &[]);
            assert_eq!(second.errors(), [3101, 3013]);
        }
        seen.len() < 5
    });
    assert_eq!(seen, [0.0, 10.0, 20.0, 30.0, 40.0]);
    assert_eq!(world.run("SELECT state_desc FROM sys.databases WHERE name='b'").text(), "RESTORING");
    world.refuse("RESTORE DATABASE b WITH RECOVERY", &[4320, 3013]);
    world.run("DROP DATABASE b");
}

#[test]
fn sessions_can_be_killed() {
    let mut world = World::new();
    let mut victim = world.second();
    let Value::SmallInt(id) = ask(victim.as_mut(), "SELECT @@SPID", &[]).one() else { panic!() };
    world.refuse("KILL 9999", &[6106]);
    world.run(&format!("KILL {id}"));
    assert_eq!(ask(victim.as_mut(), "SELECT 1", &[]).errors(), [596]);
    let sessions = world.run("SELECT COUNT(*) FROM sys.dm_exec_sessions").one();
    assert_eq!(sessions, Value::Int(1));
}

#[test]
fn a_test_can_order_errors_and_delays() {
    let mut world = World::new();
    world.instance.fail_next_with("create database", 1807);
    world.instance.delay_next("SELECT 2", Duration::from_secs(1));
    world.run("SELECT 1");
    assert_eq!(world.ask("CREATE DATABASE a").errors().len(), 1);
    world.run("CREATE DATABASE a");
    assert_eq!(world.run("SELECT 2").waits, 1);
    assert_eq!(world.run("WAITFOR DELAY '00:00:05'").waits, 1);
    world.refuse("WAITFOR DELAY 'soon'", &[148]);
}

#[test]
fn a_batch_goes_on_or_not_by_the_error() {
    let mut world = World::new();
    let answer = world.ask("DROP DATABASE none; SELECT 1");
    assert_eq!((answer.errors(), answer.rows.len()), (vec![3701], 1));
    let answer = world.ask("SELECT\n*\nFROM sys.nothing;\nSELECT 1");
    assert_eq!((answer.errors(), answer.rows.len(), answer.messages[0].line), (vec![208], 0, 1));
    let answer = world.ask("SELECT 1;\nDROP DATABASE none");
    assert_eq!(answer.messages[0].line, 2);
    let answer = world.ask("SELECT 1;\nSELEKT 2");
    assert_eq!((answer.errors(), answer.rows.len(), answer.messages[0].line), (vec![102], 0, 2));
    assert_eq!(world.run("USE msdb").database.as_deref(), Some("msdb"));
}

#[test]
fn checkdb_reports_what_there_is() {
    let mut world = World::new();
    world.database("a", &["1"]);
    assert!(world.run("DBCC CHECKDB (N'a') WITH NO_INFOMSGS").messages.is_empty());
    assert_eq!(world.run("DBCC CHECKDB ([a])").infos(), [2536, 2528]);
    let path = world.path("data/a.mdf");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[16 * 8192 + 200] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let found = world.ask("DBCC CHECKDB (a) WITH NO_INFOMSGS, ALL_ERRORMSGS");
    assert_eq!((found.errors(), found.infos()), (vec![8928], vec![8989]));
}

/// Statements of many kinds at once: whatever each answers, none waits for another for ever.
#[test]
fn sessions_do_not_lock_each_other_up() {
    let mut world = World::new();
    world.database("a", &["1"]);
    world.run("BACKUP DATABASE a TO DISK='full.bak'");
    world.instance.set_pace(3, Duration::from_millis(1));
    let (data, log) = (world.file("b.mdf"), world.file("b.ldf"));
    let statements = [
        format!("RESTORE DATABASE b FROM DISK='full.bak' WITH NORECOVERY, REPLACE, MOVE 'a' TO '{data}', MOVE 'a_log' TO '{log}'"),
        "RESTORE DATABASE b WITH RECOVERY; DROP DATABASE IF EXISTS b".to_owned(),
        "BACKUP LOG a TO DISK='log.trn' WITH INIT; BACKUP DATABASE a TO DISK='diff.bak' WITH DIFFERENTIAL, INIT".to_owned(),
        "ALTER DATABASE a SET SUSPEND_FOR_SNAPSHOT_BACKUP = ON; ALTER DATABASE a SET SUSPEND_FOR_SNAPSHOT_BACKUP = OFF".to_owned(),
        "INSERT INTO a.dbo.transactions VALUES ('x'); SELECT COUNT(*) FROM a.dbo.transactions".to_owned(),
        "SELECT * FROM sys.dm_exec_requests r CROSS APPLY sys.dm_exec_sql_text(r.sql_handle) t".to_owned(),
        "SELECT * FROM sys.databases d JOIN sys.master_files f ON f.database_id = d.database_id".to_owned(),
        "SELECT * FROM msdb.dbo.restorehistory h JOIN msdb.dbo.backupset s ON s.backup_set_id = h.backup_set_id".to_owned(),
    ];
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let mut session = world.second();
            let statements = statements.clone();
            std::thread::spawn(move || {
                for turn in 0..24 {
                    let sql = &statements[(turn * 5 + thread * 3) % statements.len()];
                    session.batch(sql, &[], &mut |part| {
                        if let Part::Wait(duration) = part {
                            std::thread::sleep(duration);
                        }
                        true
                    });
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(world.instance.frozen().is_empty());
    world.run("BACKUP DATABASE a TO DISK='last.bak'");
}
