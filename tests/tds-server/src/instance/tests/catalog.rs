//! The small T-SQL: names, literals, parameters, joins, functions, and what is refused.

use super::{World, ask};
use crate::reply::{ColumnType, Parameter, Value};

fn text(value: &str) -> Value {
    Value::NVarChar(value.to_owned())
}

#[test]
fn names_and_literals_are_read_as_written() {
    let mut world = World::new();
    world.run("CREATE DATABASE [odd ]] name]; /* a /* nested */ comment */ -- and a line");
    assert_eq!(world.run("SELECT DB_NAME(DB_ID(N'odd ] name')) AS [the name]").text(), "odd ] name");
    assert_eq!(world.run("select N'it''s'").text(), "it's");
    assert_eq!(world.run("SELECT QUOTENAME('a]b') + N'x'").text(), "[a]]b]x");
    let parameters = [Parameter { name: "@P1".into(), value: text("odd ] name") }];
    let mut session = world.second();
    let found = ask(session.as_mut(), "SELECT COUNT(*) FROM sys.databases WHERE name = @p1", &parameters);
    assert_eq!(found.one(), Value::Int(1));
    world.refuse("SELECT @p1", &[137]);
    world.run("DECLARE @x int = 3; SET @x = @x + 1; SELECT @x = @x * 2; SELECT @x");
    assert_eq!(world.run("DECLARE @x int = 3; SELECT @x = @x * 2; SELECT @x").one(), Value::Int(6));
    world.run("IF DB_ID('model') IS NULL CREATE DATABASE x ELSE IF @@TRANCOUNT > 0 COMMIT TRAN");
    assert_eq!(world.run("PRINT N'said'").messages[0].text, "said");
}

#[test]
fn conditions_have_three_answers() {
    let mut world = World::new();
    for (condition, holds) in [
        ("1 = 1 AND NOT 2 < 1", true),
        ("NULL = NULL", false),
        ("NOT (NULL = 1)", false),
        ("NULL IS NULL AND 1 IS NOT NULL", true),
        ("'RESTORE LOG' LIKE 'restore%'", true),
        ("'a_b' LIKE 'a[_]b' AND 'axb' NOT LIKE 'a[^x]b'", true),
        ("2 IN (1, 2, NULL)", true),
        ("3 NOT IN (1, NULL)", false),
        ("2 BETWEEN 1 AND 2 OR 1/1 = 2", true),
        ("EXISTS (SELECT 1 FROM sys.databases WHERE name = 'MASTER')", true),
        ("'model' IN (SELECT name FROM sys.databases)", true),
        ("CAST('2026-01-02' AS datetime) > '2026-01-01T23:59:59.997'", true),
        ("CASE WHEN 1 = 2 THEN 1 ELSE 0 END = 0", true),
        ("CAST(10.50 AS numeric(10,2)) > 10", true),
    ] {
        let count =
            world.run(&format!("SELECT COUNT(*) FROM sys.databases WHERE database_id = 1 AND ({condition})"));
        assert_eq!(count.one(), Value::Int(i32::from(holds)), "{condition}");
    }
}

#[test]
fn queries_join_order_and_limit() {
    let mut world = World::new();
    world.database("a", &["1"]);
    let answer = world.run(
        "SELECT TOP 2 d.name, f.name AS logical, ISNULL(f.differential_base_lsn, 0) base FROM master.sys.databases d \
         LEFT OUTER JOIN sys.master_files f ON f.database_id = d.database_id AND f.type_desc = 'LOG' \
         WHERE d.name NOT IN ('tempdb') ORDER BY d.database_id DESC, 2",
    );
    let names: Vec<_> = answer.rows.iter().map(|row| row[1].clone()).collect();
    assert_eq!(names, [text("a_log"), text("msdblog")]);
    assert_eq!(answer.columns[2].kind, ColumnType::Numeric { precision: 25, scale: 0 });
    let none = world.run(
        "SELECT s.session_id FROM sys.dm_exec_sessions s OUTER APPLY sys.dm_exec_sql_text(NULL) t WHERE t.text IS NULL",
    );
    assert_eq!(none.rows.len(), 1);
    let most = world.run("SELECT MAX(database_id), MIN(name), COUNT(source_database_id) FROM sys.databases");
    assert_eq!(most.rows, [[Value::Int(5), text("a"), Value::Int(0)]]);
    let distinct = world.run("SELECT DISTINCT type_desc FROM sys.master_files ORDER BY type_desc");
    assert_eq!(distinct.rows.len(), 2);
    let all = world.run("SELECT d.* FROM sys.databases AS d WHERE d.database_id = 5");
    assert_eq!((all.rows.len(), all.columns.len()), (1, 25));
}

#[test]
fn what_is_not_there_has_the_servers_numbers() {
    let mut world = World::new();
    for (sql, error) in [
        ("SELECT nothing FROM sys.databases", 207),
        ("SELECT * FROM sys.nothing", 208),
        ("SELECT * FROM nowhere.dbo.transactions", 911),
        ("SELECT FORMAT(1, 'x')", 195),
        ("SELECT name FROM sys.databases d JOIN sys.master_files f ON 1 = 1", 209),
        ("SELECT 1 +", 102),
        ("SELECT 1 FROM WHERE", 156),
        ("SELECT 'open", 105),
        ("/* open", 113),
        ("SELECT CAST('x' AS int)", 245),
        ("SELECT CAST('x' AS datetime)", 241),
        ("SELECT CAST('x' AS uniqueidentifier)", 8169),
        ("SELECT 1/0", 8134),
        ("SELECT CAST(300 AS tinyint)", 220),
        ("UPDATE sys.databases SET name = 'x'", 50_001),
        ("SELECT name FROM sys.databases GROUP BY name", 50_002),
        ("ALTER DATABASE a SET QUERY_STORE = ON", 50_001),
        ("EXEC xp_cmdshell 'ls'", 50_001),
        ("SELECT SYSDATETIMEOFFSET()", 50_002),
        ("RESTORE DATABASE a FROM DISK='x' WITH KEEP_REPLICATION", 50_002),
        ("RESTORE DATABASE a FROM URL='x'", 50_002),
        ("IF 1 = 1 BEGIN SELECT 1 END", 50_001),
        ("WHAT", 102),
    ] {
        world.refuse(sql, &[error]);
    }
}

#[test]
fn the_server_describes_itself() {
    let mut world = World::with(|config| {
        (config.name, config.zone_minutes) = ("INST".into(), -210);
        config.edition = "Standard Edition (64-bit)".into();
    });
    let answer = world.run(
        "SELECT SERVERPROPERTY('ProductVersion'), CAST(SERVERPROPERTY('ProductMajorVersion') AS int), @@SERVERNAME, \
         SERVERPROPERTY('EngineEdition'), SERVERPROPERTY('InstanceName'), SERVERPROPERTY('IsHadrEnabled'), \
         SERVERPROPERTY('NoSuch'), DATEPART(tz, SYSDATETIMEOFFSET()), SUSER_SNAME(), \
         DATEDIFF(minute, GETUTCDATE(), GETDATE()), CONVERT(nvarchar(40), SYSDATETIMEOFFSET(), 121)",
    );
    let row = &answer.rows[0];
    assert_eq!((&row[0], &row[1], &row[2]), (&text("16.0.4125.1"), &Value::Int(16), &text("sqlhost\\INST")));
    assert_eq!(
        (&row[3], &row[4], &row[5], &row[6]),
        (&Value::Int(2), &text("INST"), &Value::Int(0), &Value::Null)
    );
    assert_eq!((&row[7], &row[8], &row[9]), (&Value::Int(-210), &text("sa"), &Value::Int(-210)));
    assert!(matches!(&row[10], Value::NVarChar(moment) if moment.ends_with(" -03:30")));
    world.instance.set_zone(60);
    assert_eq!(world.run("SELECT DATEPART(tz, SYSDATETIMEOFFSET())").one(), Value::Int(60));
    for view in [
        "sys.configurations",
        "sys.dm_os_host_info",
        "sys.time_zone_info",
        "sys.dm_exec_requests",
        "sys.filegroups",
        "sys.database_recovery_status",
        "sys.database_files",
        "sys.server_principals",
        "sys.dm_db_log_info(1)",
    ] {
        assert!(!world.run(&format!("SELECT * FROM {view}")).rows.is_empty(), "{view}");
    }
    for table in ["backupfile", "backupmediaset", "restorefile", "logmarkhistory"] {
        assert!(world.run(&format!("SELECT * FROM msdb.dbo.{table}")).rows.is_empty(), "{table}");
    }
    let mut old = World::with(|config| config.version = (13, 0, 6300));
    old.refuse("SELECT * FROM sys.dm_os_host_info", &[208]);
}

#[test]
fn marks_come_from_transactions() {
    let mut world = World::new();
    world.database("a", &[]);
    world.run(
        "USE a; BEGIN TRAN deploy WITH MARK 'version 2'; INSERT INTO dbo.transactions (name) VALUES ('x'), ('y'); COMMIT TRAN",
    );
    let marks = world.run("SELECT mark_name, description, database_name FROM msdb.dbo.logmarkhistory");
    assert_eq!(marks.rows, [[text("deploy"), text("version 2"), text("a")]]);
    world.database("b", &[]);
    world.run("INSERT INTO b.dbo.transactions VALUES ('there'); BEGIN TRAN; INSERT INTO transactions VALUES ('gone'); ROLLBACK");
    assert_eq!(world.rows("b"), ["there"]);
    assert_eq!(world.rows("a"), ["x", "y"]);
    world.refuse("COMMIT", &[3902]);
    world.refuse("ROLLBACK", &[3903]);
}
