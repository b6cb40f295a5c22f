//! The statements of backups of source databases and of their restores.

use std::fmt::Write as _;
use std::path::Path;

use super::{name, path, text};

/// This connection's number.
pub(in crate::adapter::sqlserver) const SESSION: &str = "SELECT @@SPID AS session_id";

/// Where the instance puts the files of new databases.
pub(in crate::adapter::sqlserver) const DEFAULT_FOLDERS: &str = "SELECT CAST(SERVERPROPERTY(N'InstanceDefaultDataPath') AS nvarchar(260)) AS data, \
     CAST(SERVERPROPERTY(N'InstanceDefaultLogPath') AS nvarchar(260)) AS logs";

/// Whether the login is one for whom all is allowed, or sees what is needed of the server.
pub(in crate::adapter::sqlserver) const BACKUP_RIGHTS: &str = "SELECT IS_SRVROLEMEMBER(N'sysadmin') AS is_sysadmin, \
     HAS_PERMS_BY_NAME(NULL, NULL, N'VIEW SERVER STATE') AS sees_state, \
     HAS_PERMS_BY_NAME(NULL, NULL, N'CREATE ANY DATABASE') AS creates, \
     HAS_PERMS_BY_NAME(N'msdb.dbo.logmarkhistory', N'OBJECT', N'SELECT') AS reads_marks";

/// Whether the login may back up a database. Everybody may ask of themselves.
pub(in crate::adapter::sqlserver) fn may_back_up(of: &str) -> String {
    format!(
        "SELECT HAS_PERMS_BY_NAME({0}, N'DATABASE', N'BACKUP DATABASE') AS backs_up, \
         HAS_PERMS_BY_NAME({0}, N'DATABASE', N'BACKUP LOG') AS backs_up_log",
        text(of)
    )
}

/// All databases with what backups of them depend on. The family needs VIEW ANY DEFINITION or a right on the database.
pub(in crate::adapter::sqlserver) const DATABASES: &str = "SELECT d.database_id, d.name, d.state_desc, d.is_in_standby, \
     d.is_read_only, d.recovery_model_desc, s.family_guid FROM sys.databases AS d \
     LEFT JOIN sys.database_recovery_status AS s ON s.database_id = d.database_id ORDER BY d.database_id";

/// The databases of which this instance has a secondary replica. Needs VIEW SERVER STATE.
pub(in crate::adapter::sqlserver) const SECONDARIES: &str = "SELECT d.name FROM sys.databases AS d \
     INNER JOIN sys.dm_hadr_availability_replica_states AS r ON r.replica_id = d.replica_id \
     WHERE r.is_local = 1 AND r.role_desc = N'SECONDARY'";

/// A database's files with the base of their differentials.
pub(in crate::adapter::sqlserver) fn bases(database_id: i64) -> String {
    format!(
        "SELECT f.file_id, f.file_guid, f.type, f.name, f.physical_name, f.size, f.differential_base_lsn, \
         f.differential_base_guid FROM sys.master_files AS f WHERE f.database_id = {database_id} ORDER BY f.file_id"
    )
}

/// How far a session's statement is, in percent. Needs VIEW SERVER STATE for another session than one's own.
pub(in crate::adapter::sqlserver) fn progress(session: i64) -> String {
    format!(
        "SELECT r.command, r.percent_complete FROM sys.dm_exec_requests AS r WHERE r.session_id = {session}"
    )
}

/// The databases whose writes are held. From 2022; needs VIEW SERVER PERFORMANCE STATE.
pub(in crate::adapter::sqlserver) const SUSPENDED: &str = "SELECT s.db_name, s.suspend_session_id, s.suspend_time_ms, s.is_diff_map_cleared FROM sys.dm_server_suspend_status AS s";

/// A full or differential backup. What it writes is not compressed, so that equal pages are stored once.
pub(in crate::adapter::sqlserver) fn back_up(
    of: &str,
    to: &Path,
    differential: bool,
    copy_only: bool,
    label: &str,
) -> String {
    let (kind, copy) =
        (if differential { "DIFFERENTIAL, " } else { "" }, if copy_only { "COPY_ONLY, " } else { "" });
    format!(
        "BACKUP DATABASE {} TO DISK = {} WITH {kind}{copy}FORMAT, NO_COMPRESSION, CHECKSUM, STATS = 5, NAME = {}",
        name(of),
        path(to),
        text(label)
    )
}

/// A log backup, which lets the log be used anew.
pub(in crate::adapter::sqlserver) fn back_up_log(of: &str, to: &Path, label: &str) -> String {
    format!(
        "BACKUP LOG {} TO DISK = {} WITH FORMAT, NO_COMPRESSION, CHECKSUM, STATS = 5, NAME = {}",
        name(of),
        path(to),
        text(label)
    )
}

/// Holds a database's writes for a full backup by a cut of its files; its differential base becomes that full. From 2022.
pub(in crate::adapter::sqlserver) fn suspend_for_full(of: &str) -> String {
    format!("ALTER DATABASE {} SET SUSPEND_FOR_SNAPSHOT_BACKUP = ON", name(of))
}

/// Records the cut that was made while writes were held, and lets them go on. From 2022.
pub(in crate::adapter::sqlserver) fn back_up_metadata(of: &str, to: &Path, label: &str) -> String {
    format!(
        "BACKUP DATABASE {} TO DISK = {} WITH METADATA_ONLY, FORMAT, NAME = {}",
        name(of),
        path(to),
        text(label)
    )
}

fn disks(files: &[String]) -> String {
    files.iter().map(|file| format!("DISK = {}", text(file))).collect::<Vec<_>>().join(", ")
}

/// The sets of a backup file. Needs CREATE DATABASE.
pub(in crate::adapter::sqlserver) fn header(files: &[String]) -> String {
    format!("RESTORE HEADERONLY FROM {}", disks(files))
}

/// The database files that a set is of. The same right.
pub(in crate::adapter::sqlserver) fn file_list(files: &[String], position: u16) -> String {
    format!("RESTORE FILELISTONLY FROM {} WITH FILE = {position}", disks(files))
}

/// Has the server read all of a set. The same right.
pub(in crate::adapter::sqlserver) fn verify(files: &[String], position: u16, checksums: bool) -> String {
    let with = if checksums { ", CHECKSUM" } else { "" };
    format!("RESTORE VERIFYONLY FROM {} WITH FILE = {position}{with}", disks(files))
}

/// The marked transactions of a database from an LSN on. Needs SELECT on the table.
pub(in crate::adapter::sqlserver) fn marks(of: &str, from: u128, to: u128) -> String {
    format!(
        "SELECT m.mark_name, m.lsn, m.mark_time FROM msdb.dbo.logmarkhistory AS m WHERE m.database_name = {} \
         AND m.lsn >= {from} AND m.lsn < {to} ORDER BY m.lsn",
        text(of)
    )
}

/// The states in which a RESTORE leaves a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::adapter::sqlserver) enum Left {
    Recovered,
    Restoring,
    /// With the path of its undo file.
    Standby(String),
}

/// One RESTORE of a sequence.
#[derive(Clone, Debug)]
pub(in crate::adapter::sqlserver) struct Restore<'a> {
    pub database: &'a str,
    pub is_log: bool,
    pub files: &'a [String],
    pub position: u16,
    pub left: Left,
    pub replace: bool,
    pub checksums: bool,
    /// The backed-up database's name, when the backup is the record of a cut whose files are in place.
    pub of_cut: Option<&'a str>,
    /// Logical names and new places.
    pub moves: &'a [(String, String)],
    /// A whole stop clause, quoted already.
    pub stop: Option<String>,
}

/// Restores a backup. Needs CREATE DATABASE for a new database, and its ownership for one that is there.
pub(in crate::adapter::sqlserver) fn restore(of: &Restore<'_>) -> String {
    let what = if of.is_log { "LOG" } else { "DATABASE" };
    let mut sql =
        format!("RESTORE {what} {} FROM {} WITH FILE = {}", name(of.database), disks(of.files), of.position);
    match &of.left {
        Left::Recovered => sql.push_str(", RECOVERY"),
        Left::Restoring => sql.push_str(", NORECOVERY"),
        Left::Standby(undo) => {
            let _ = write!(sql, ", STANDBY = {}", text(undo));
        }
    }
    if let Some(database) = of.of_cut {
        let _ = write!(sql, ", METADATA_ONLY, DBNAME = {}", text(database));
    }
    if of.replace {
        sql.push_str(", REPLACE");
    }
    if of.checksums {
        sql.push_str(", CHECKSUM");
    }
    sql.push_str(", STATS = 5");
    for (logical, place) in of.moves {
        let _ = write!(sql, ", MOVE {} TO {}", text(logical), text(place));
    }
    if let Some(stop) = &of.stop {
        let _ = write!(sql, ", {stop}");
    }
    sql
}

/// `STOPAT`, with a time of the server's own clock.
pub(in crate::adapter::sqlserver) fn stop_at(time: &str) -> String {
    format!("STOPAT = {}", text(time))
}

/// `STOPATMARK` or `STOPBEFOREMARK`; the mark may be `lsn:…`.
pub(in crate::adapter::sqlserver) fn stop_mark(mark: &str, before: bool, after: Option<&str>) -> String {
    let word = if before { "STOPBEFOREMARK" } else { "STOPATMARK" };
    let after = after.map(|time| format!(" AFTER {}", text(time))).unwrap_or_default();
    format!("{word} = {}{after}", text(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_has_its_clauses_in_order() {
        let files = ["/b/it's.bak".to_owned()];
        let moves = [("l".to_owned(), "/d/l.mdf".to_owned())];
        let mut restore_of = Restore {
            database: "n]",
            is_log: false,
            files: &files,
            position: 1,
            left: Left::Restoring,
            replace: true,
            checksums: true,
            of_cut: None,
            moves: &moves,
            stop: None,
        };
        assert_eq!(
            restore(&restore_of),
            "RESTORE DATABASE [n]]] FROM DISK = N'/b/it''s.bak' WITH FILE = 1, NORECOVERY, REPLACE, CHECKSUM, STATS = 5, \
             MOVE N'l' TO N'/d/l.mdf'"
        );
        restore_of.is_log = true;
        restore_of.left = Left::Standby("/d/undo".into());
        (restore_of.replace, restore_of.checksums, restore_of.moves) = (false, false, &[]);
        restore_of.stop = Some(stop_mark("m", true, Some("2026-01-05T08:00:00.000")));
        assert_eq!(
            restore(&restore_of),
            "RESTORE LOG [n]]] FROM DISK = N'/b/it''s.bak' WITH FILE = 1, STANDBY = N'/d/undo', STATS = 5, \
             STOPBEFOREMARK = N'm' AFTER N'2026-01-05T08:00:00.000'"
        );
    }
}
