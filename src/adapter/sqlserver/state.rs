//! Reading an instance: what it is, what a database is, and what was restored into it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::client::{Row, Sql};
use super::config::{FileKind, FileRecord};
use super::{Guid, Lsn, statements};
use crate::base::{Error, ErrorKind, Result};

/// An instance, as it tells of itself.
#[derive(Clone, Debug)]
pub(super) struct ServerState {
    pub version: String,
    pub edition: String,
    pub server: String,
    pub zone_minutes: i64,
}

impl ServerState {
    /// `16` for SQL Server 2022.
    pub(super) fn major(&self) -> u32 {
        self.version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0)
    }
}

/// One database.
#[derive(Clone, Debug)]
pub(super) struct DatabaseState {
    pub id: i64,
    pub state: String,
    pub standby: bool,
    pub read_only: bool,
    pub recovery_model: String,
    /// With the paths that the instance has.
    pub files: Vec<(FileRecord, PathBuf)>,
    pub redo_start_lsn: Option<Lsn>,
    pub redo_start_fork_guid: Option<Guid>,
    /// The full that differentials of the primary file are based on.
    pub differential_base_guid: Option<Guid>,
}

impl DatabaseState {
    /// Its state as people say it.
    pub(super) fn shown(&self) -> String {
        match (self.standby, self.read_only) {
            (true, _) => "STANDBY".into(),
            (false, true) if self.state == "ONLINE" => "READ_ONLY".into(),
            _ => self.state.clone(),
        }
    }

    /// The first file that is not below a folder.
    pub(super) fn outside(&self, folder: &Path) -> Option<&Path> {
        self.files.iter().map(|(_, path)| path.as_path()).find(|path| !path.starts_with(folder))
    }

    pub(super) fn records(&self) -> Vec<FileRecord> {
        self.files.iter().map(|(record, _)| record.clone()).collect()
    }
}

/// The backup that was last restored into a database. Times are the backing server's wall clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LastRestore {
    pub backup_set_uuid: Guid,
    /// `D` a full, `I` a differential, `L` a log.
    pub kind: String,
    pub first_lsn: Option<Lsn>,
    pub last_lsn: Option<Lsn>,
    pub checkpoint_lsn: Option<Lsn>,
    pub family_guid: Option<Guid>,
    pub last_recovery_fork_guid: Option<Guid>,
    /// Milliseconds since 1970-01-01.
    pub finished_millis: Option<i64>,
    /// Quarters of an hour east of UTC; 127 is unknown.
    pub time_zone: Option<i64>,
    pub stop_at_millis: Option<i64>,
    pub stop_at_mark: Option<String>,
    pub database: String,
    pub server: String,
}

impl LastRestore {
    /// Whether it is the same point: the same backup, stopped at the same place.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.backup_set_uuid == other.backup_set_uuid
            && self.stop_at_millis == other.stop_at_millis
            && self.stop_at_mark == other.stop_at_mark
    }

    /// The moment that was reached, in milliseconds since 1970 in UTC: the stop point, or the end of the backup.
    /// `zone_minutes` stands in for a backup that does not know its zone.
    pub(super) fn reached_ms(&self, zone_minutes: i64) -> Option<i64> {
        let minutes = self.zone_minutes().unwrap_or(zone_minutes);
        Some(self.stop_at_millis.or(self.finished_millis)? - minutes * 60_000)
    }

    /// The zone of the server that was backed up, in minutes east of UTC.
    pub(super) fn zone_minutes(&self) -> Option<i64> {
        self.time_zone.filter(|quarters| (-56..=56).contains(quarters)).map(|quarters| quarters * 15)
    }

    /// As a person calls it.
    pub(super) fn shown(&self) -> String {
        let kind = match self.kind.as_str() {
            "D" => "full",
            "I" => "differential",
            "L" => "log",
            other => other,
        };
        format!("the {kind} backup {} of {} on {}", self.backup_set_uuid, self.database, self.server)
    }
}

/// What a login lacks, as the statement that gives it.
pub(super) fn missing_rights(sql: &mut Sql, login: &str) -> Result<Vec<String>> {
    let row = only(sql.rows(statements::RIGHTS)?)?;
    if row.flag("is_sysadmin")? {
        return Ok(Vec::new());
    }
    let login = statements::name(login);
    let mut missing = Vec::new();
    for (column, grant) in [
        ("creates", format!("GRANT CREATE ANY DATABASE TO {login}")),
        ("alters", format!("GRANT ALTER ANY DATABASE TO {login}")),
        ("sees_state", format!("GRANT VIEW SERVER STATE TO {login}")),
        ("reads_restores", format!("USE msdb; GRANT SELECT ON dbo.restorehistory TO {login}")),
        ("reads_backups", format!("USE msdb; GRANT SELECT ON dbo.backupset TO {login}")),
    ] {
        if !row.flag(column)? {
            missing.push(grant);
        }
    }
    Ok(missing)
}

pub(super) fn server(sql: &mut Sql) -> Result<ServerState> {
    let row = only(sql.rows(statements::SERVER)?)?;
    let text = |name: &str| row.text(name).map(Option::unwrap_or_default);
    Ok(ServerState {
        version: text("version")?,
        edition: text("edition")?,
        server: text("server")?,
        zone_minutes: row.integer("zone_minutes")?.unwrap_or_default(),
    })
}

/// A database of an instance whose files are to be below `volume`; `None` when there is none of that name.
pub(super) fn database(sql: &mut Sql, name: &str, volume: &Path) -> Result<Option<DatabaseState>> {
    let Some(row) = sql.rows(&statements::database(name))?.into_iter().next() else { return Ok(None) };
    let id = row.integer("database_id")?.unwrap_or_default();
    let (mut files, mut redo, mut base) = (Vec::new(), (None, None), None);
    for file in sql.rows(&statements::files(id))? {
        let (record, path) = file_of(&file, volume)?;
        if record.kind == FileKind::Rows && redo.0.is_none() {
            redo = (file.lsn("redo_start_lsn")?, file.guid("redo_start_fork_guid")?);
            base = file.guid("differential_base_guid")?.and_then(Guid::known);
        }
        files.push((record, path));
    }
    Ok(Some(DatabaseState {
        id,
        state: row.text("state_desc")?.unwrap_or_default(),
        standby: row.flag("is_in_standby")?,
        read_only: row.flag("is_read_only")?,
        recovery_model: row.text("recovery_model_desc")?.unwrap_or_default(),
        files,
        redo_start_lsn: redo.0,
        redo_start_fork_guid: redo.1,
        differential_base_guid: base,
    }))
}

fn file_of(row: &Row, volume: &Path) -> Result<(FileRecord, PathBuf)> {
    let path = PathBuf::from(row.text("physical_name")?.unwrap_or_default());
    let below = path.strip_prefix(volume).unwrap_or(&path).to_owned();
    let number = |name: &str| row.integer(name).map(Option::unwrap_or_default);
    let record = FileRecord {
        id: number("file_id")?,
        guid: row.guid("file_guid")?,
        kind: FileKind::of(number("type")?)?,
        name: row.text("name")?.unwrap_or_default(),
        path: below,
        pages: number("size")?,
        group: number("data_space_id")?,
    };
    Ok((record, path))
}

/// The newest backup that history knows of a database.
pub(super) fn last_restore(sql: &mut Sql, name: &str) -> Result<Option<LastRestore>> {
    let Some(row) = sql.rows(&statements::last_restore(name))?.into_iter().next() else { return Ok(None) };
    let text = |name: &str| row.text(name).map(Option::unwrap_or_default);
    let uuid = row.guid("backup_set_uuid")?;
    Ok(Some(LastRestore {
        backup_set_uuid: uuid.ok_or_else(|| Error::corrupt("msdb has a backup set without a GUID"))?,
        kind: text("type")?,
        first_lsn: row.lsn("first_lsn")?,
        last_lsn: row.lsn("last_lsn")?,
        checkpoint_lsn: row.lsn("checkpoint_lsn")?,
        family_guid: row.guid("family_guid")?,
        last_recovery_fork_guid: row.guid("last_recovery_fork_guid")?,
        finished_millis: row.time("backup_finish_date")?,
        time_zone: row.integer("time_zone")?,
        stop_at_millis: row.time("stop_at")?,
        stop_at_mark: row.text("stop_at_mark_name")?,
        database: text("database_name")?,
        server: text("server_name")?,
    }))
}

/// The session that restores into a database now, if one does.
pub(super) fn running_restore(sql: &mut Sql, name: &str, id: i64) -> Result<Option<i64>> {
    let running = sql.rows(statements::RUNNING_RESTORES)?;
    if running.is_empty() {
        return Ok(None);
    }
    let holders: Result<Vec<Option<i64>>> =
        sql.rows(&statements::holders(id))?.iter().map(|row| row.integer("request_session_id")).collect();
    let holders = holders?;
    for row in &running {
        let session = row.integer("session_id")?;
        let said = row.text("text")?.unwrap_or_default();
        // What only looks at a backup restores nothing.
        let looks = ["HEADERONLY", "FILELISTONLY", "LABELONLY", "VERIFYONLY"];
        let looks = looks.iter().any(|word| said.to_ascii_uppercase().contains(word));
        let named = said.to_lowercase().contains(&name.to_lowercase());
        if holders.contains(&session) || (named && !looks) {
            return Ok(session);
        }
    }
    Ok(None)
}

fn only(rows: Vec<Row>) -> Result<Row> {
    rows.into_iter().next().ok_or_else(|| Error::new(ErrorKind::Unsupported, "SQL Server answered no row"))
}
