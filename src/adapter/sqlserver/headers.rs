//! What an instance says of a backup file that cannot be read without it: compressed ones and encrypted ones.
//!
//! The answers are given the shape of what our own reader finds, so that all files are put together in one way. Columns are
//! taken by name: later versions have more. Must not know chains and folders.

use std::path::Path;

use jiff::civil::DateTime;

use super::client::{Row, Sql};
use super::statements;
use super::tape::{
    BackupFile, BackupSet, DataStreams, DatabaseFile, FileKind, ForkEnd, LocalTime, Media, SetFlags, SetKind,
};
use super::{Guid, Lsn};
use crate::base::{Error, ErrorKind, Result};

/// Bits of `Flags` that are documented for RESTORE HEADERONLY.
const BULK_LOGGED: u32 = 1;
const DAMAGED: u32 = 32;

/// Asks for the label, the sets and the files of each.
pub(super) fn ask(sql: &mut Sql, path: &Path) -> Result<BackupFile> {
    let label = sql.rows(&statements::label(path))?.into_iter().next();
    let mut media = Media::default();
    if let Some(label) = label {
        let small = |name: &str| -> Result<Option<u16>> {
            Ok(label.integer(name)?.and_then(|number| u16::try_from(number).ok()))
        };
        media.families = small("FamilyCount")?;
        media.family = small("FamilySequenceNumber")?;
        media.set_id = label.guid("MediaSetId")?;
        if let Some(Guid([a, b, c, d, ..])) = label.guid("MediaFamilyId")? {
            media.family_id = u32::from_le_bytes([a, b, c, d]);
        }
    }
    let mut sets = Vec::new();
    for row in sql.rows(&statements::headers(path))? {
        let mut set = set_of(&row)?;
        let rows = sql.rows(&statements::file_list(path, set.position))?;
        set.files = rows.iter().map(file_of).collect::<Result<_>>()?;
        sets.push(set);
    }
    let length = std::fs::metadata(path).map_or(0, |found| found.len());
    Ok(BackupFile { media, sets, length, problem: None })
}

fn unknown(what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("RESTORE HEADERONLY answered no {what} that is known"))
}

fn set_of(row: &Row) -> Result<BackupSet> {
    let text = |name: &str| row.text(name).map(Option::unwrap_or_default);
    let lsn = |name: &str| row.lsn(name).map(|lsn| lsn.filter(|lsn| !lsn.is_zero()));
    let guid = |name: &str| row.guid(name).map(|guid| guid.and_then(Guid::known));
    let number = |name: &str| row.integer(name).map(Option::unwrap_or_default);
    let kind = match number("BackupType")? {
        1 => SetKind::Full,
        2 => SetKind::Log,
        4 => SetKind::File,
        5 => SetKind::Differential,
        6 => SetKind::FileDifferential,
        7 => SetKind::Partial,
        8 => SetKind::PartialDifferential,
        _ => return Err(unknown("BackupType")),
    };
    let mut flags = u32::try_from(number("Flags")?).unwrap_or_default();
    flags |= if row.flag("HasBulkLoggedData")? { BULK_LOGGED } else { 0 };
    flags |= if row.flag("IsDamaged")? { DAMAGED } else { 0 };
    let last_fork = guid("RecoveryForkID")?;
    let earlier = guid("FirstRecoveryForkID")?.filter(|fork| Some(*fork) != last_fork);
    let version = |name: &str| number(name).map(|number| u8::try_from(number).unwrap_or_default());
    let build = u16::try_from(number("SoftwareVersionBuild")?).unwrap_or_default();
    Ok(BackupSet {
        position: u16::try_from(number("Position")?).map_err(|_| unknown("Position"))?,
        at: 0,
        complete: true,
        kind,
        copy_only: row.flag("IsCopyOnly")?,
        id: guid("BackupSetGUID")?.ok_or_else(|| unknown("BackupSetGUID"))?,
        name: row.text("BackupName")?,
        description: row.text("BackupDescription")?,
        user: text("UserName")?,
        software: (version("SoftwareVersionMajor")?, version("SoftwareVersionMinor")?, build),
        database: text("DatabaseName")?,
        server: text("ServerName")?,
        database_version: u16::try_from(number("DatabaseVersion")?).unwrap_or_default(),
        compatibility_level: version("CompatibilityLevel")?,
        created: time(row, "DatabaseCreationDate")?,
        started: time(row, "BackupStartDate")?,
        finished: time(row, "BackupFinishDate")?,
        // Told from 2022 on.
        zone_quarters: row
            .optional_integer("TimeZone")
            .and_then(|zone| i8::try_from(zone).ok())
            .filter(|zone| (-56..=56).contains(zone)),
        first_lsn: row.lsn("FirstLSN")?.unwrap_or(Lsn::ZERO),
        last_lsn: row.lsn("LastLSN")?.unwrap_or(Lsn::ZERO),
        checkpoint_lsn: lsn("CheckpointLSN")?,
        database_backup_lsn: lsn("DatabaseBackupLSN")?,
        database_backup_id: None,
        differential_base_lsn: lsn("DifferentialBaseLSN")?,
        differential_base_id: guid("DifferentialBaseGUID")?,
        binding_id: guid("BindingID")?,
        family_id: guid("FamilyGUID")?,
        last_fork,
        earlier_fork: match (earlier, lsn("ForkPointLSN")?) {
            (Some(fork), Some(ends)) => Some(ForkEnd { fork, ends }),
            _ => None,
        },
        flags: SetFlags(flags),
        size_bytes: row.whole("BackupSize")?.unwrap_or_default(),
        files: Vec::new(),
        filegroups: Vec::new(),
        data: DataStreams::default(),
    })
}

fn file_of(row: &Row) -> Result<DatabaseFile> {
    let number = |name: &str| -> Result<u32> {
        Ok(row.integer(name)?.and_then(|number| u32::try_from(number).ok()).unwrap_or_default())
    };
    let kind = row.text("Type")?.unwrap_or_default();
    Ok(DatabaseFile {
        file_id: number("FileId")?,
        kind: match kind.as_str() {
            "D" => FileKind::Data,
            "L" => FileKind::Log,
            other => FileKind::Other(other.chars().next().map_or(0, u32::from)),
        },
        logical_name: row.text("LogicalName")?.unwrap_or_default(),
        physical_name: row.text("PhysicalName")?.unwrap_or_default(),
        size_bytes: row.whole("Size")?.unwrap_or_default(),
        filegroup: number("FileGroupId")?,
        guid: row.guid("UniqueId")?.and_then(Guid::known),
        pages_in_backup: 0,
    })
}

/// A date of the backing server's clock.
fn time(row: &Row, name: &str) -> Result<Option<LocalTime>> {
    let Some(ms) = row.time(name)? else { return Ok(None) };
    let moment = jiff::Timestamp::from_millisecond(ms).ok();
    let shown: Option<DateTime> = moment.map(|moment| moment.to_zoned(jiff::tz::TimeZone::UTC).datetime());
    Ok(shown.map(LocalTime))
}
