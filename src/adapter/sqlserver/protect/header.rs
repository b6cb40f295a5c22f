//! What a backup's file says: asked of the server, and read by our own reader where that can.
//!
//! The server's answer is what is recorded, since it also tells of compressed and encrypted files. Where our reader can
//! read the file, both must agree on which backup it is, or the backup is not taken for good.

use std::path::Path;

use super::super::chain::{Backup, BackupKind, Stripe};
use super::super::client::{Row, Sql};
use super::super::errors::ErrorContext;
use super::super::{Guid, Lsn, statements, tape};
use super::config::RecordedFile;
use super::session::explained;
use crate::base::{Error, ErrorKind, Result};

/// A file's only backup set.
pub(super) struct Header {
    pub backup: Backup,
    pub database: String,
    pub server: String,
    pub version: String,
    pub bytes: u64,
    pub files: Vec<RecordedFile>,
    pub zone_quarters: Option<i64>,
    pub checksums: bool,
    pub read_by: Vec<String>,
}

/// Reads a file that holds one set. `zone_minutes` stands in for servers that tell no zone.
pub(super) fn read(sql: &mut Sql, path: &Path, zone_minutes: i64) -> Result<Header> {
    let files = [path.display().to_string()];
    let context = ErrorContext { files: files.to_vec(), ..ErrorContext::default() };
    let rows =
        sql.rows(&statements::backup::header(&files)).map_err(|refusal| explained(refusal, &context))?;
    let [row] = &rows[..] else {
        return Err(Error::corrupt(format!("backup file {} holds {} sets, not one", files[0], rows.len())));
    };
    let list = statements::backup::file_list(&files, 1);
    let listed = sql.rows(&list).map_err(|refusal| explained(refusal, &context))?;
    let mut header = of_row(row, path, zone_minutes)?;
    header.files = listed.iter().map(file_of).collect::<Result<_>>()?;
    match tape::read_file(path) {
        Ok(own) => {
            compare(&header, &own.check(&files[0])?, &files[0])?;
            header.read_by.push("own reader".into());
        }
        // Which files our reader cannot read is known: compressed, encrypted, or of no kind that it knows.
        Err(e) if matches!(e.kind(), ErrorKind::Unsupported | ErrorKind::Invalid) => {}
        Err(e) => return Err(e),
    }
    Ok(header)
}

fn of_row(row: &Row, path: &Path, zone_minutes: i64) -> Result<Header> {
    let text = |name: &str| row.text(name).map(Option::unwrap_or_default);
    let number = |name: &str| row.integer(name).map(Option::unwrap_or_default);
    let lsn = |name: &str| row.lsn(name).map(Option::unwrap_or_default);
    let kind = match number("BackupType")? {
        1 => BackupKind::Full,
        2 => BackupKind::Log,
        5 => BackupKind::Differential,
        other => return Err(Error::corrupt(format!("a backup of type {other} was made"))),
    };
    // 2022 tells the zone.
    let quarters = row.integer("TimeZone").ok().flatten().filter(|quarters| *quarters != 127);
    let zone_quarters = quarters.or(Some(zone_minutes / 15));
    let utc = |ms: i64| ms - zone_quarters.unwrap_or_default() * 15 * 60_000;
    let time = |name: &str| row.time(name).map(|time| time.map(utc));
    let id = row.guid("BackupSetGUID")?.ok_or_else(|| Error::corrupt("a backup without a GUID was made"))?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let started_ms = time("BackupStartDate")?.unwrap_or_default();
    let backup = Backup {
        id,
        kind,
        copy_only: row.flag("IsCopyOnly")?,
        damaged: row.flag("IsDamaged")?,
        bulk_logged: row.flag("HasBulkLoggedData")?,
        first_lsn: lsn("FirstLSN")?,
        last_lsn: lsn("LastLSN")?,
        base_id: row.guid("DifferentialBaseGUID")?.and_then(Guid::known),
        family_id: row.guid("FamilyGUID")?.unwrap_or_default(),
        first_fork: row.guid("FirstRecoveryForkID")?.unwrap_or_default(),
        last_fork: row.guid("RecoveryForkID")?.unwrap_or_default(),
        fork_point: row.lsn("ForkPointLSN")?.filter(|lsn: &Lsn| !lsn.is_zero()),
        started_ms,
        finished_ms: time("BackupFinishDate")?.unwrap_or(started_ms),
        reaches_ms: row.time("LastValidRestoreTime").ok().flatten().map(utc),
        position: u16::try_from(number("Position")?).unwrap_or(1),
        stripes: vec![Stripe { family: 1, file: name }],
        stripe_count: 1,
        marks: Vec::new(),
    };
    Ok(Header {
        backup,
        database: text("DatabaseName")?,
        server: text("ServerName")?,
        version: format!(
            "{}.{}.{}",
            number("SoftwareVersionMajor")?,
            number("SoftwareVersionMinor")?,
            number("SoftwareVersionBuild")?
        ),
        bytes: row.size("BackupSize")?.unwrap_or_default(),
        files: Vec::new(),
        zone_quarters,
        checksums: row.flag("HasBackupChecksums")?,
        read_by: vec!["server".into()],
    })
}

fn file_of(row: &Row) -> Result<RecordedFile> {
    Ok(RecordedFile {
        logical: row.text("LogicalName")?.unwrap_or_default(),
        physical: row.text("PhysicalName")?.unwrap_or_default(),
        kind: row.text("Type")?.unwrap_or_default(),
        bytes: row.size("Size")?.unwrap_or_default(),
        id: row.integer("FileId")?.unwrap_or_default(),
        in_cut: None,
    })
}

/// Refuses a file of which the server and our reader say different things.
pub(super) fn compare(header: &Header, own: &tape::BackupFile, name: &str) -> Result<()> {
    let told = &header.backup;
    let same = own
        .sets
        .iter()
        .any(|set| (set.id, set.first_lsn, set.last_lsn) == (told.id, told.first_lsn, told.last_lsn));
    match same {
        true => Ok(()),
        false => Err(Error::corrupt(format!(
            "backup file {name} has no set {} from LSN {} to {}, which the server says it has",
            told.id, told.first_lsn, told.last_lsn
        ))),
    }
}
