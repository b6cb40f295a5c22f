//! Batches of any text: an answer or an error, never a panic.

use proptest::prelude::*;

use super::{World, ask};

const WORDS: [&str; 64] = [
    "SELECT",
    "FROM",
    "WHERE",
    "sys.databases",
    "name",
    "*",
    "(",
    ")",
    ",",
    "=",
    "<>",
    "'x'",
    "N'it''s'",
    "1",
    "0x1F",
    "RESTORE",
    "BACKUP",
    "DATABASE",
    "LOG",
    "a",
    "[b]",
    "DISK",
    "WITH",
    "NORECOVERY",
    "STOPAT",
    "MOVE",
    "TO",
    "ALTER",
    "SET",
    "ONLINE",
    "OFFLINE",
    "CREATE",
    "DROP",
    "FOR",
    "ATTACH",
    "ON",
    "USE",
    "@x",
    "@@SPID",
    ";",
    "AND",
    "OR",
    "NOT",
    "NULL",
    "IN",
    "LIKE",
    "CAST",
    "AS",
    "int",
    "JOIN",
    "ORDER",
    "BY",
    "TOP",
    "COUNT",
    "msdb.dbo.backupset",
    "INSERT",
    "INTO",
    "VALUES",
    "BEGIN",
    "TRAN",
    "MARK",
    "COMMIT",
    "KILL",
    "DECLARE",
];

const STATEMENTS: [&str; 12] = [
    "SELECT TOP (3) d.name, COUNT(*) FROM sys.databases d LEFT JOIN sys.master_files f ON f.database_id = d.database_id",
    "RESTORE DATABASE b FROM DISK='f.bak' WITH FILE=1, NORECOVERY, REPLACE, CHECKSUM, STATS=5, MOVE 'a' TO '/tmp/none/a'",
    "RESTORE LOG b FROM DISK='f.bak', DISK=N'g' WITH STOPATMARK='m' AFTER '2026-01-01'",
    "BACKUP DATABASE a TO DISK='f.bak' WITH FORMAT, INIT, NAME='n', DIFFERENTIAL",
    "ALTER DATABASE a MODIFY FILE (NAME = a, SIZE = 10MB)",
    "ALTER SERVER CONFIGURATION SET SUSPEND_FOR_SNAPSHOT_BACKUP = ON (GROUP = (a, b), MODE = COPY_ONLY)",
    "CREATE LOGIN l WITH PASSWORD = 'p', CHECK_POLICY = OFF",
    "GRANT VIEW SERVER STATE ON x TO l",
    "SELECT CASE WHEN 1 BETWEEN 0 AND 2 THEN CONVERT(nvarchar(10), GETDATE(), 126) ELSE SUBSTRING('abc', 2, 1) END",
    "EXEC sp_detach_db @dbname = N'a', @skipchecks = 'true'",
    "DBCC CHECKDB (a) WITH NO_INFOMSGS",
    "DECLARE @x nvarchar(10) = N'y'; SET @x = @x + 'z'; SELECT @x, DATEADD(day, 2147483647, GETDATE())",
];

fn mangled() -> impl Strategy<Value = String> {
    (0..STATEMENTS.len(), any::<prop::sample::Index>(), any::<prop::sample::Index>(), "\\PC{0,4}").prop_map(
        |(which, from, to, insert)| {
            let chars: Vec<char> = STATEMENTS[which].chars().collect();
            let (from, to) = (from.index(chars.len()), to.index(chars.len()));
            let (low, high) = (from.min(to), from.max(to));
            let cut = if high - low < 12 { high } else { low + 1 };
            chars[..low]
                .iter()
                .chain(insert.chars().collect::<Vec<_>>().iter())
                .chain(&chars[cut..])
                .collect()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn any_batch_is_answered(
        noise in "\\PC{0,60}",
        words in proptest::collection::vec(0..WORDS.len(), 0..24),
        mangled in mangled(),
    ) {
        let world = World::new();
        let mut session = world.second();
        let words: Vec<&str> = words.into_iter().map(|word| WORDS[word]).collect();
        for sql in [noise, words.join(" "), mangled] {
            let mut parts = 0;
            session.batch(&sql, &[], &mut |_| {
                parts += 1;
                parts < 1000
            });
        }
        ask(session.as_mut(), "SELECT 1", &[]);
    }
}

#[test]
fn depth_is_bounded() {
    let mut world = World::new();
    let deep = format!("SELECT {}1{}", "(".repeat(5000), ")".repeat(5000));
    world.refuse(&deep, &[50_002]);
    world.refuse(&format!("SELECT {} 1", "NOT ".repeat(5000)), &[102]);
}
