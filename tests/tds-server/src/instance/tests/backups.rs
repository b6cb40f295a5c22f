//! BACKUP: kinds, refusals, media, msdb, and what the headers say.

use std::fs;

use super::{World, login};
use crate::instance::{DatabaseState, ReplicaRole};
use crate::reply::Value;

fn cell(world: &mut World, sql: &str) -> Value {
    world.run(sql).one()
}

#[test]
fn each_kind_is_refused_where_it_cannot_be() {
    let mut world = World::new();
    world.database("a", &["1"]);
    world.refuse("BACKUP LOG a TO DISK='x'", &[4214, 3013]);
    world.refuse("BACKUP DATABASE a TO DISK='x' WITH DIFFERENTIAL", &[3035, 3013]);
    world.run("BACKUP DATABASE a TO DISK='copy.bak' WITH COPY_ONLY");
    world.refuse("BACKUP DATABASE a TO DISK='x' WITH DIFFERENTIAL", &[3035, 3013]);
    world.refuse("BACKUP LOG a TO DISK='x'", &[4214, 3013]);
    world.run("ALTER DATABASE a SET RECOVERY SIMPLE");
    world.refuse("BACKUP LOG a TO DISK='x'", &[4208, 3013]);
    world.refuse("BACKUP DATABASE none TO DISK='x'", &[911, 3013]);
    world.refuse("BACKUP DATABASE tempdb TO DISK='x'", &[3147, 3013]);
    world.refuse("BACKUP LOG master TO DISK='x'", &[4212, 3013]);
    world.refuse("BACKUP DATABASE master TO DISK='x' WITH DIFFERENTIAL", &[3024, 3013]);
    world.run("BACKUP DATABASE master TO DISK='master.bak'");
    world.refuse("BACKUP DATABASE a TO DISK='/none/x'", &[3201, 3013]);
    world.refuse("BACKUP DATABASE a TO DISK='x' WITH DIFFERENTIAL, COPY_ONLY", &[3031]);
    world.refuse("BACKUP DATABASE a TO DISK='x' WITH NONSENSE", &[155]);
    world.refuse("BACKUP DATABASE a TO DISK='x' WITH ENCRYPTION", &[50_002]);
    world.refuse("BEGIN TRAN; BACKUP DATABASE a TO DISK='x'", &[3021, 3013]);
    world.run("ROLLBACK");
    world.instance.set_state("a", DatabaseState::Emergency);
    world.refuse("BACKUP DATABASE a TO DISK='x'", &[3033, 3013]);
    world.instance.set_state("a", DatabaseState::Offline);
    world.refuse("BACKUP DATABASE a TO DISK='x'", &[942, 3013]);
}

#[test]
fn copy_only_is_no_base_and_no_link() {
    let mut world = World::new();
    world.database("a", &["1"]);
    world.run("BACKUP DATABASE a TO DISK='full.bak'");
    let base = cell(&mut world, "SELECT differential_base_guid FROM sys.master_files WHERE name = 'a'");
    world.run(
        "BACKUP DATABASE a TO DISK='copy.bak' WITH COPY_ONLY; BACKUP LOG a TO DISK='copy.trn' WITH COPY_ONLY",
    );
    assert_eq!(
        cell(&mut world, "SELECT differential_base_guid FROM sys.master_files WHERE name = 'a'"),
        base
    );
    world.run("BACKUP LOG a TO DISK='1.trn'");
    let sets = world.run(
        "SELECT first_lsn, is_copy_only FROM msdb.dbo.backupset WHERE type = 'L' ORDER BY backup_set_id",
    );
    assert_eq!(sets.rows[0][0], sets.rows[1][0], "a copy-only log leaves the log where it was");
    assert_eq!(sets.rows[0][1], Value::Bit(true));
    world.run("BACKUP DATABASE a TO DISK='diff.bak' WITH DIFFERENTIAL");
    let of = cell(&mut world, "SELECT differential_base_guid FROM msdb.dbo.backupset WHERE type = 'I'");
    assert_eq!(of, base);
    let uuid = "SELECT backup_set_uuid FROM msdb.dbo.backupset WHERE type = 'D' AND is_copy_only = 0";
    assert_eq!(cell(&mut world, uuid), base);
}

#[test]
fn logs_follow_each_other_and_lsns_chain() {
    let mut world = World::new();
    world.database("a", &["1"]);
    world.run("BACKUP DATABASE a TO DISK='full.bak'");
    for number in 0..3 {
        world.instance.commit("a", "row", None);
        world.run(&format!("BACKUP LOG a TO DISK='{number}.trn'"));
    }
    let sets = world.run(
        "SELECT first_lsn, last_lsn, database_backup_lsn, begins_log_chain, type FROM msdb..backupset \
         ORDER BY backup_set_id",
    );
    let full = &sets.rows[0];
    assert_eq!(full[2], crate::instance::Lsn(0).value());
    for (index, log) in sets.rows[1..].iter().enumerate() {
        assert_eq!(log[2], full[0], "the full's first LSN");
        assert_eq!(log[3], Value::Bit(index == 0));
        assert_eq!(log[0], if index == 0 { full[0].clone() } else { sets.rows[index][1].clone() });
    }
}

#[test]
fn several_sets_and_stripes_on_a_medium() {
    let mut world = World::new();
    world.database("a", &["1", "2", "3"]);
    world.run("BACKUP DATABASE a TO DISK='s1', DISK='s2' WITH NAME='one', COMPRESSION");
    world.refuse("BACKUP DATABASE a TO DISK='s1', DISK='s2' WITH NAME='plain'", &[3098, 3013]);
    world.refuse("BACKUP DATABASE a TO DISK='s1' WITH COMPRESSION", &[3231, 3013]);
    world.instance.commit("a", "4", None);
    world.run("BACKUP LOG a TO DISK='s1', DISK='s2' WITH NAME='two', COMPRESSION");
    let header = world.run("RESTORE HEADERONLY FROM DISK='s1'");
    assert_eq!(header.rows.len(), 2);
    let names: Vec<&str> = header.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!((names[0], names[2], names.len()), ("BackupName", "BackupType", 59));
    assert_eq!((&header.rows[1][2], &header.rows[1][5]), (&Value::SmallInt(2), &Value::SmallInt(2)));
    let label = world.run("RESTORE LABELONLY FROM DISK='s2'");
    assert_eq!((&label.rows[0][2], &label.rows[0][3]), (&Value::Int(2), &Value::Int(2)));
    let files = world.run("RESTORE FILELISTONLY FROM DISK='s1' WITH FILE = 2");
    assert_eq!(files.rows.len(), 2);
    let (data, log) = (world.file("b.mdf"), world.file("b.ldf"));
    let moves = format!("NORECOVERY, MOVE 'a' TO '{data}', MOVE 'a_log' TO '{log}'");
    world.refuse(&format!("RESTORE DATABASE b FROM DISK='s1' WITH {moves}"), &[3132, 3013]);
    world
        .refuse(&format!("RESTORE DATABASE b FROM DISK='s1', DISK='s2' WITH FILE=3, {moves}"), &[4038, 3013]);
    world.run(&format!("RESTORE DATABASE b FROM DISK='s2', DISK='s1' WITH {moves}"));
    world.run("RESTORE LOG b FROM DISK='s1', DISK='s2' WITH FILE = 2");
    assert_eq!(world.rows("b"), ["1", "2", "3", "4"]);
    world.run("BACKUP DATABASE a TO DISK='s1' WITH FORMAT");
    assert_eq!(world.run("RESTORE HEADERONLY FROM DISK='s1'").rows.len(), 1);
    world.refuse("RESTORE VERIFYONLY FROM DISK='s1', DISK='s2'", &[3258, 3013]);
}

#[test]
fn damage_is_found() {
    let mut world = World::new();
    world.database("a", &["1"]);
    world.run("BACKUP DATABASE a TO DISK='plain.bak'; BACKUP DATABASE a TO DISK='sums.bak' WITH CHECKSUM");
    assert_eq!(world.run("RESTORE VERIFYONLY FROM DISK='sums.bak' WITH CHECKSUM").infos(), [3262]);
    world.refuse("RESTORE VERIFYONLY FROM DISK='plain.bak' WITH CHECKSUM", &[3187, 3013]);
    world.refuse("RESTORE VERIFYONLY FROM DISK='none.bak'", &[3201, 3013]);
    for (name, errors) in [("plain.bak", [3189, 3013]), ("sums.bak", [3183, 3013])] {
        let path = world.path("backup").join(name);
        let mut bytes = fs::read(&path).unwrap();
        let of = |bytes: &[u8], word: &str| {
            bytes.windows(word.len()).rposition(|at| at == word.as_bytes()).unwrap()
        };
        let rows = of(&bytes, "committed");
        bytes[rows] ^= 1;
        fs::write(&path, &bytes).unwrap();
        world.refuse(&format!("RESTORE VERIFYONLY FROM DISK='{name}'"), &errors);
        world.refuse(&format!("RESTORE DATABASE a FROM DISK='{name}' WITH REPLACE"), &errors);
        assert_eq!(world.run(&format!("RESTORE HEADERONLY FROM DISK='{name}'")).rows.len(), 1);
        let media = of(&bytes, "media_set");
        bytes[media] ^= 1;
        fs::write(&path, &bytes).unwrap();
        world.refuse(&format!("RESTORE HEADERONLY FROM DISK='{name}'"), &[3241, 3013]);
    }
    assert_eq!(world.rows("a"), ["1"]);
}

#[test]
fn the_tail_takes_the_database_offline() {
    let mut world = World::new();
    world.database("a", &["1"]);
    world.run("BACKUP DATABASE a TO DISK='full.bak'");
    world.instance.commit("a", "tail", None);
    world.run("BACKUP LOG a TO DISK='tail.trn' WITH NORECOVERY");
    assert_eq!(world.instance.state_of("a"), Some(DatabaseState::Restoring));
    world.run("RESTORE DATABASE a FROM DISK='full.bak' WITH NORECOVERY");
    world.run("RESTORE LOG a FROM DISK='tail.trn'");
    assert_eq!(world.rows("a"), ["1", "tail"]);
}

#[test]
fn history_is_written_unless_it_is_broken() {
    let mut world = World::new();
    world.database("a", &["1"]);
    world.run("BACKUP DATABASE a TO DISK='full.bak'");
    let (data, log) = (world.file("b.mdf"), world.file("b.ldf"));
    world.run(&format!(
        "RESTORE DATABASE b FROM DISK='full.bak' WITH NORECOVERY, MOVE 'a' TO '{data}', MOVE 'a_log' TO '{log}'"
    ));
    let sql = "SELECT TOP (1) h.restore_type, s.database_name, s.time_zone, m.physical_device_name, h.stop_at \
               FROM msdb.dbo.restorehistory AS h \
               INNER JOIN msdb.dbo.backupset AS s ON s.backup_set_id = h.backup_set_id \
               INNER JOIN msdb.dbo.backupmediafamily AS m ON m.media_set_id = s.media_set_id \
               WHERE h.destination_database_name = N'b' AND h.restore_type <> 'V' ORDER BY h.restore_history_id DESC";
    let history = world.run(sql);
    let path = world.file("backup/full.bak");
    let expected = [
        Value::NVarChar("D".into()),
        Value::NVarChar("a".into()),
        Value::SmallInt(0),
        Value::NVarChar(path),
        Value::Null,
    ];
    assert_eq!(history.rows, [expected]);
    world.instance.break_history(true);
    world.instance.commit("a", "2", None);
    world.refuse("BACKUP LOG a TO DISK='1.trn'", &[3009]);
    world.refuse("RESTORE LOG b FROM DISK='1.trn' WITH NORECOVERY", &[3009]);
    assert_eq!(world.rows("b"), ["1", "2"]);
    assert_eq!(world.run(sql).rows.len(), 1);
}

#[test]
fn a_secondary_replica_takes_no_differential() {
    let mut world = World::new();
    world.database("a", &["1"]);
    world.run("BACKUP DATABASE a TO DISK='full.bak'");
    world.instance.set_replica(Some(ReplicaRole::Secondary), &["a"]);
    world.refuse("BACKUP DATABASE a TO DISK='d.bak' WITH DIFFERENTIAL", &[3059, 3013]);
    world.refuse("BACKUP DATABASE a TO DISK='d.bak'", &[3059, 3013]);
    world.run("BACKUP DATABASE a TO DISK='d.bak' WITH COPY_ONLY; BACKUP LOG a TO DISK='l.trn'");
    let role = "SELECT role_desc FROM sys.dm_hadr_availability_replica_states WHERE is_local = 1";
    assert_eq!(world.run(role).text(), "SECONDARY");
    world.refuse("DROP DATABASE a", &[3752]);
    world.refuse("RESTORE DATABASE a FROM DISK='full.bak' WITH REPLACE", &[3104, 3013]);
}

#[test]
fn rights_are_asked_for() {
    let mut world = World::new();
    world.database("a", &["1"]);
    world.run("BACKUP DATABASE a TO DISK='full.bak'");
    world.run("CREATE LOGIN weak WITH PASSWORD = 'p''w'");
    let mut weak = login(&world.instance, "weak", "p'w").unwrap();
    for (sql, errors) in [
        ("CREATE DATABASE w", vec![262]),
        ("RESTORE HEADERONLY FROM DISK='full.bak'", vec![262, 3013]),
        ("RESTORE DATABASE a FROM DISK='full.bak' WITH REPLACE", vec![3110, 3013]),
        ("RESTORE DATABASE w FROM DISK='full.bak'", vec![262, 3013]),
        ("BACKUP DATABASE a TO DISK='w.bak'", vec![262, 3013]),
        ("ALTER DATABASE a SET OFFLINE", vec![5011, 5069]),
        ("DROP DATABASE a", vec![3701]),
        ("USE a", vec![916]),
        ("SELECT * FROM msdb.dbo.backupset", vec![229]),
        ("SELECT * FROM sys.dm_tran_locks", vec![300, 297]),
        ("KILL 51", vec![6102]),
        ("EXEC sp_detach_db 'a'", vec![15247]),
        ("CREATE LOGIN x WITH PASSWORD='y'", vec![15247]),
    ] {
        assert_eq!(super::ask(weak.as_mut(), sql, &[]).errors(), errors, "{sql}");
    }
    assert_eq!(super::ask(weak.as_mut(), "SELECT * FROM sys.master_files", &[]).rows.len(), 0);
    world.run("GRANT VIEW SERVER STATE, CREATE ANY DATABASE TO weak; USE a; CREATE USER weak FOR LOGIN weak");
    world
        .run("ALTER ROLE db_backupoperator ADD MEMBER weak; USE msdb; GRANT SELECT ON dbo.backupset TO weak");
    for sql in
        ["BACKUP LOG a TO DISK='w.trn'", "USE a", "SELECT * FROM sys.dm_tran_locks", "CREATE DATABASE w"]
    {
        assert!(super::ask(weak.as_mut(), sql, &[]).errors().is_empty(), "{sql}");
    }
    assert_eq!(super::ask(weak.as_mut(), "SELECT 1 FROM msdb.dbo.backupset", &[]).rows.len(), 2);
    let has = "SELECT HAS_PERMS_BY_NAME(NULL, NULL, 'VIEW SERVER STATE'), IS_SRVROLEMEMBER('sysadmin')";
    assert_eq!(super::ask(weak.as_mut(), has, &[]).rows, [[Value::Int(1), Value::Int(0)]]);
}

#[test]
fn an_encrypted_backup_needs_its_certificate() {
    let mut world = World::new();
    world.database("a", &["1"]);
    world.instance.encrypt_backups(Some("0xAB"));
    world.run("BACKUP DATABASE a TO DISK='full.bak'");
    world.instance.encrypt_backups(None);
    let text = world.refuse("RESTORE DATABASE a FROM DISK='full.bak' WITH REPLACE", &[33111, 3013]).messages
        [0]
    .text
    .clone();
    assert_eq!(text, "Cannot find server certificate with thumbprint '0xAB'.");
    world.instance.add_certificate("0xAB");
    world.run("RESTORE DATABASE a FROM DISK='full.bak' WITH REPLACE");
}
