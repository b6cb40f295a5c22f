//! Every statement that is sent to SQL Server, in one place. `docs/sqlserver.md` lists each with the version and right it needs.
//!
//! Names and texts of users are quoted here and nowhere else.

pub(super) mod backup;

use std::path::{Path, PathBuf};

use super::chain::Stripe;

/// A name as an identifier.
pub(super) fn name(text: &str) -> String {
    format!("[{}]", text.replace(']', "]]"))
}

/// A text as a literal.
pub(super) fn text(text: &str) -> String {
    format!("N'{}'", text.replace('\'', "''"))
}

fn path(path: &Path) -> String {
    text(&path.display().to_string())
}

/// Product, edition and name. Everybody may ask.
pub(super) const SERVER: &str = "SELECT CAST(SERVERPROPERTY(N'ProductVersion') AS nvarchar(128)) AS version, \
     CAST(SERVERPROPERTY(N'Edition') AS nvarchar(128)) AS edition, @@SERVERNAME AS server, \
     DATEPART(tz, SYSDATETIMEOFFSET()) AS zone_minutes";

/// What the login may do. Everybody may ask of themselves.
pub(super) const RIGHTS: &str = "SELECT IS_SRVROLEMEMBER(N'sysadmin') AS is_sysadmin, \
     HAS_PERMS_BY_NAME(NULL, NULL, N'CREATE ANY DATABASE') AS creates, \
     HAS_PERMS_BY_NAME(NULL, NULL, N'ALTER ANY DATABASE') AS alters, \
     HAS_PERMS_BY_NAME(NULL, NULL, N'VIEW SERVER STATE') AS sees_state, \
     HAS_PERMS_BY_NAME(N'msdb.dbo.restorehistory', N'OBJECT', N'SELECT') AS reads_restores, \
     HAS_PERMS_BY_NAME(N'msdb.dbo.backupset', N'OBJECT', N'SELECT') AS reads_backups";

/// One database; no row when there is none of that name.
pub(super) fn database(of: &str) -> String {
    format!(
        "SELECT d.database_id, d.state_desc, d.is_in_standby, d.is_read_only, d.recovery_model_desc \
         FROM sys.databases AS d WHERE d.name = {}",
        text(of)
    )
}

/// The files of a database, whatever its state. Needs CREATE DATABASE, ALTER ANY DATABASE or VIEW ANY DEFINITION.
pub(super) fn files(database_id: i64) -> String {
    format!(
        "SELECT f.file_id, f.file_guid, f.type, f.name, f.physical_name, f.size, f.data_space_id, f.redo_start_lsn, \
         f.redo_start_fork_guid, f.differential_base_guid FROM sys.master_files AS f WHERE f.database_id = {database_id} ORDER BY f.file_id"
    )
}

/// The newest backup that was restored into a database. Needs SELECT on both tables of msdb.
pub(super) fn last_restore(of: &str) -> String {
    format!(
        "SELECT TOP (1) r.restore_history_id, r.restore_date, r.restore_type, r.stop_at, r.stop_at_mark_name, \
         b.backup_set_uuid, b.type, b.first_lsn, b.last_lsn, b.checkpoint_lsn, b.database_backup_lsn, \
         b.differential_base_guid, b.family_guid, b.last_recovery_fork_guid, b.backup_finish_date, b.time_zone, \
         b.is_copy_only, b.database_name, b.server_name \
         FROM msdb.dbo.restorehistory AS r INNER JOIN msdb.dbo.backupset AS b ON b.backup_set_id = r.backup_set_id \
         WHERE r.destination_database_name = {} AND r.restore_type <> 'V' ORDER BY r.restore_history_id DESC",
        text(of)
    )
}

/// The log backups that were restored into a database last, with their files. Needs SELECT on these tables of msdb.
pub(super) fn restored_logs(of: &str) -> String {
    format!(
        "SELECT TOP (1000) r.restore_history_id, b.backup_set_uuid, m.physical_device_name \
         FROM msdb.dbo.restorehistory AS r INNER JOIN msdb.dbo.backupset AS b ON b.backup_set_id = r.backup_set_id \
         INNER JOIN msdb.dbo.backupmediafamily AS m ON m.media_set_id = b.media_set_id \
         WHERE r.destination_database_name = {} AND r.restore_type = 'L' ORDER BY r.restore_history_id DESC",
        text(of)
    )
}

/// Restores that run now, with their texts. Needs VIEW SERVER STATE (from 2022 VIEW SERVER PERFORMANCE STATE).
pub(super) const RUNNING_RESTORES: &str = "SELECT r.session_id, r.command, r.percent_complete, t.text \
     FROM sys.dm_exec_requests AS r CROSS APPLY sys.dm_exec_sql_text(r.sql_handle) AS t \
     WHERE r.command LIKE N'RESTORE%'";

/// The sessions that hold a database. The same right.
pub(super) fn holders(database_id: i64) -> String {
    format!(
        "SELECT l.request_session_id FROM sys.dm_tran_locks AS l \
         WHERE l.resource_type = N'DATABASE' AND l.resource_database_id = {database_id}"
    )
}

/// One file of a database that is to be made.
pub(super) struct NewFile<'a> {
    pub logical: &'a str,
    pub path: &'a Path,
}

/// Makes a database of these data files, all of the primary filegroup, and log files. Needs CREATE ANY DATABASE.
pub(super) fn create(of: &str, data: &[NewFile<'_>], logs: &[NewFile<'_>]) -> String {
    let list = |files: &[NewFile<'_>]| {
        let one =
            |file: &NewFile<'_>| format!("(NAME = {}, FILENAME = {})", text(file.logical), path(file.path));
        files.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    format!("CREATE DATABASE {} ON PRIMARY {} LOG ON {}", name(of), list(data), list(logs))
}

/// Takes files that were closed in order, or that a crash left, for a database. Needs CREATE ANY DATABASE.
pub(super) fn attach<'a>(of: &str, files: impl Iterator<Item = &'a Path>) -> String {
    let files: Vec<String> = files.map(|file| format!("(FILENAME = {})", path(file))).collect();
    format!("CREATE DATABASE {} ON {} FOR ATTACH", name(of), files.join(", "))
}

/// Ends all sessions of a database but this. Needs ALTER on it.
pub(super) fn single_user(of: &str) -> String {
    format!("ALTER DATABASE {} SET SINGLE_USER WITH ROLLBACK IMMEDIATE", name(of))
}

pub(super) fn multi_user(of: &str) -> String {
    format!("ALTER DATABASE {} SET MULTI_USER", name(of))
}

/// Closes the files. A restoring database refuses it (5052).
pub(super) fn offline(of: &str) -> String {
    format!("ALTER DATABASE {} SET OFFLINE WITH ROLLBACK IMMEDIATE", name(of))
}

pub(super) fn online(of: &str) -> String {
    format!("ALTER DATABASE {} SET ONLINE", name(of))
}

/// Forgets a database; its files stay. Needs db_owner.
pub(super) fn detach(of: &str) -> String {
    format!("EXEC master.dbo.sp_detach_db @dbname = {}, @skipchecks = N'true'", text(of))
}

/// Forgets a database and deletes its files, unless it is offline.
pub(super) fn drop(of: &str) -> String {
    format!("DROP DATABASE {}", name(of))
}

/// Ends a restore sequence: the database can be used.
pub(super) fn recover(of: &str) -> String {
    format!("RESTORE DATABASE {} WITH RECOVERY", name(of))
}

/// Who we are to the server.
pub(super) const SESSION: &str = "SELECT @@SPID AS session_id";

/// How far a session's statement is; no row when none runs. Needs VIEW SERVER STATE.
pub(super) fn progress(session: i64) -> String {
    format!(
        "SELECT r.command, r.percent_complete FROM sys.dm_exec_requests AS r WHERE r.session_id = {session}"
    )
}

/// What a backup file says of itself. This and the next two need CREATE ANY DATABASE.
pub(super) fn label(file: &Path) -> String {
    format!("RESTORE LABELONLY FROM DISK = {}", path(file))
}

/// The backup sets of a file.
pub(super) fn headers(file: &Path) -> String {
    format!("RESTORE HEADERONLY FROM DISK = {}", path(file))
}

/// The database's files that a backup set has.
pub(super) fn file_list(file: &Path, position: u16) -> String {
    format!("RESTORE FILELISTONLY FROM DISK = {} WITH FILE = {position}", path(file))
}

/// One restore of a whole backup set.
pub(super) struct Restore<'a> {
    pub of: &'a str,
    pub is_log: bool,
    pub files: &'a [Stripe],
    pub position: u16,
    /// Otherwise it waits for more.
    pub recover: bool,
    /// `STOPAT = '…'` and the like.
    pub stop: Option<String>,
    pub moves: &'a [(String, PathBuf)],
    pub replace: bool,
}

/// Restores a backup set. A log that ends before the stop point leaves the database RESTORING, recovery asked for or
/// not. Needs CREATE ANY DATABASE for a new database, else its owner or sysadmin.
pub(super) fn restore(one: &Restore<'_>) -> String {
    let files: Vec<String> =
        one.files.iter().map(|stripe| format!("DISK = {}", text(&stripe.file))).collect();
    let mut options = vec![format!("FILE = {}", one.position.max(1))];
    options.push(if one.recover { "RECOVERY" } else { "NORECOVERY" }.to_owned());
    if one.replace {
        options.push("REPLACE".to_owned());
    }
    options.push("STATS = 5".to_owned());
    options.extend(one.stop.clone());
    options.extend(one.moves.iter().map(|(logical, to)| format!("MOVE {} TO {}", text(logical), path(to))));
    let what = if one.is_log { "LOG" } else { "DATABASE" };
    format!("RESTORE {what} {} FROM {} WITH {}", name(one.of), files.join(", "), options.join(", "))
}

/// A moment of the source's clock, in milliseconds since 1970 there.
pub(super) fn stop_at(local: &str) -> String {
    format!("STOPAT = {}", text(local))
}

/// Before the record at an LSN.
pub(super) fn stop_before_lsn(lsn: super::Lsn) -> String {
    format!("STOPBEFOREMARK = {}", text(&format!("lsn:{lsn}")))
}

/// With a marked transaction, the first of that name.
pub(super) fn stop_at_mark(mark: &str) -> String {
    format!("STOPATMARK = {}", text(mark))
}

/// Holds a database's writes for a snapshot of its files, without touching its differential base. From 2022.
pub(super) fn suspend(of: &str) -> String {
    format!("ALTER DATABASE {} SET SUSPEND_FOR_SNAPSHOT_BACKUP = ON (MODE = COPY_ONLY)", name(of))
}

/// Lets them go on.
pub(super) fn resume(of: &str) -> String {
    format!("ALTER DATABASE {} SET SUSPEND_FOR_SNAPSHOT_BACKUP = OFF", name(of))
}

/// Checks all of a database. Needs sysadmin or db_owner.
pub(super) fn check(of: &str) -> String {
    format!("DBCC CHECKDB ({}) WITH NO_INFOMSGS", name(of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_say_stays_a_name_or_a_text() {
        assert_eq!(name("a]; DROP DATABASE [b"), "[a]]; DROP DATABASE [b]");
        assert_eq!(text("it's"), "N'it''s'");
        let files = [NewFile { logical: "l'", path: Path::new("/m/o'.mdf") }];
        let logs = [NewFile { logical: "g", path: Path::new("/m/g.ldf") }];
        assert_eq!(
            create("d", &files, &logs),
            "CREATE DATABASE [d] ON PRIMARY (NAME = N'l''', FILENAME = N'/m/o''.mdf') \
             LOG ON (NAME = N'g', FILENAME = N'/m/g.ldf')"
        );
    }
}
