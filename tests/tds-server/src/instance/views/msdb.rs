//! msdb: backupset and its kin, restorehistory and restorefile, logmarkhistory.

use super::{
    BIT, CHAR, DATE, DESC, GUID, INT, LSN, NAME, PATH, SIZE, SMALLINT, Spec, TEXT, TINYINT, Table,
    optional_text, size, table, text,
};
use crate::instance::catalogue::{Outcome, fail};
use crate::instance::database::FileKind;
use crate::instance::history::{MediaRow, RestoreRow, SetRow};
use crate::instance::rights;
use crate::instance::run::Run;
use crate::instance::state::State;
use crate::instance::value::{Lsn, local};
use crate::reply::{ColumnType, Value};

/// A table by its name. Error 229 where the login may not read it.
pub(super) fn view(run: &Run<'_>, name: &str) -> Outcome<Option<Table>> {
    let zone = run.state().zone_minutes;
    let login = run.login();
    let state = run.state();
    let history = &state.history;
    let found = match name {
        "backupset" => table(SETS, history.sets.iter().map(|row| set(row, zone)).collect()),
        "backupmediaset" => table(MEDIA, history.media.iter().map(media).collect()),
        "backupmediafamily" => table(FAMILIES, history.media.iter().flat_map(families).collect()),
        "backupfile" => table(FILES, history.sets.iter().flat_map(files).collect()),
        "restorehistory" => table(RESTORES, history.restores.iter().map(|row| restore(row, zone)).collect()),
        "restorefile" => table(RESTORE_FILES, history.restores.iter().flat_map(restore_files).collect()),
        "logmarkhistory" => table(MARKS, marks(&state, zone)),
        _ => return Ok(None),
    };
    let granted = rights::principal(&state, &login).is_some_and(|principal| {
        ["msdb.dbo.", "dbo.", ""]
            .iter()
            .any(|prefix| principal.rights.contains(&format!("SELECT ON {prefix}{name}")))
    });
    let reads = state
        .find("msdb")
        .is_some_and(|msdb| rights::in_database_role(&state, &login, msdb, "db_datareader"));
    if granted || reads { Ok(Some(found)) } else { Err(fail(229, &[&"SELECT", &name, &"msdb", &"dbo"])) }
}

#[rustfmt::skip]
const SETS: Spec = &[
    ("backup_set_id", INT), ("backup_set_uuid", GUID), ("media_set_id", INT), ("first_family_number", TINYINT),
    ("last_family_number", TINYINT), ("position", INT), ("expiration_date", DATE), ("software_vendor_id", INT),
    ("name", NAME), ("description", TEXT), ("user_name", NAME), ("software_major_version", TINYINT),
    ("software_minor_version", TINYINT), ("software_build_version", SMALLINT), ("time_zone", SMALLINT),
    ("first_lsn", LSN), ("last_lsn", LSN), ("checkpoint_lsn", LSN), ("database_backup_lsn", LSN),
    ("database_creation_date", DATE), ("backup_start_date", DATE), ("backup_finish_date", DATE), ("type", CHAR),
    ("compatibility_level", TINYINT), ("database_version", INT), ("backup_size", SIZE), ("database_name", NAME),
    ("server_name", NAME), ("machine_name", NAME), ("collation_name", NAME), ("is_password_protected", BIT),
    ("recovery_model", DESC), ("has_bulk_logged_data", BIT), ("is_snapshot", BIT), ("is_readonly", BIT),
    ("is_single_user", BIT), ("has_backup_checksums", BIT), ("is_damaged", BIT), ("begins_log_chain", BIT),
    ("has_incomplete_metadata", BIT), ("is_force_offline", BIT), ("is_copy_only", BIT),
    ("first_recovery_fork_guid", GUID), ("last_recovery_fork_guid", GUID), ("fork_point_lsn", LSN),
    ("database_guid", GUID), ("family_guid", GUID), ("differential_base_lsn", LSN), ("differential_base_guid", GUID),
    ("compressed_backup_size", SIZE), ("key_algorithm", ColumnType::NVarChar(Some(32))),
];

fn set(row: &SetRow, zone: i32) -> Vec<Value> {
    let head = &row.head;
    let contents = &head.contents;
    let own_zone = i32::from(head.zone) * 15;
    let mut values = vec![
        Value::Int(row.id),
        head.guid.value(),
        Value::Int(row.media_id),
        Value::TinyInt(1),
        Value::TinyInt(1),
        Value::Int(row.position),
        Value::Null,
        Value::Int(4608),
        optional_text(head.name.as_deref()),
        optional_text(head.description.as_deref()),
        text(&head.user),
        Value::TinyInt(head.software.0),
        Value::TinyInt(head.software.1),
        Value::SmallInt(i16::try_from(head.software.2).unwrap_or(i16::MAX)),
        Value::SmallInt(head.zone),
        head.first.value(),
        head.last.value(),
        head.checkpoint.value(),
        head.full_backup.value(),
        local(contents.created, zone),
        local(head.started, own_zone),
        local(head.finished, own_zone),
        text(head.kind.shown().1),
        Value::TinyInt(head.software.0.saturating_mul(10)),
        Value::Int(contents.version),
        size(head.bytes()),
        text(&head.database),
        text(&head.server),
        text(&head.machine),
        text("SQL_Latin1_General_CP1_CI_AS"),
        Value::Bit(false),
        text(&contents.recovery_model.shown().1.replace('_', "-")),
    ];
    let bits = [
        head.bulk,
        head.metadata_only,
        head.read_only,
        head.single_user,
        head.checksums,
        head.damaged,
        head.begins_chain,
        false,
        head.force_offline,
        head.copy_only,
    ];
    values.extend(bits.map(Value::Bit));
    values.extend([
        head.first_fork().value(),
        head.last_fork().value(),
        head.fork_point().map_or(Value::Null, Lsn::value),
        contents.database_guid.value(),
        contents.family_guid.value(),
        head.base.map_or(Value::Null, |(lsn, _)| lsn.value()),
        head.base.map_or(Value::Null, |(_, guid)| guid.value()),
        size(head.bytes()),
        Value::Null,
    ]);
    values
}

#[rustfmt::skip]
const MEDIA: Spec = &[
    ("media_set_id", INT), ("media_uuid", GUID), ("media_family_count", TINYINT), ("name", NAME), ("description", TEXT),
    ("software_name", NAME), ("software_vendor_id", INT), ("MTF_major_version", TINYINT), ("mirror_count", TINYINT),
    ("is_password_protected", BIT), ("is_compressed", BIT), ("is_encrypted", BIT),
];

fn media(row: &MediaRow) -> Vec<Value> {
    vec![
        Value::Int(row.id),
        row.head.media_set.value(),
        Value::TinyInt(row.head.families),
        Value::Null,
        Value::Null,
        text("Microsoft SQL Server"),
        Value::Int(4608),
        Value::TinyInt(1),
        Value::TinyInt(1),
        Value::Bit(false),
        Value::Bit(row.head.compressed),
        Value::Bit(false),
    ]
}

#[rustfmt::skip]
const FAMILIES: Spec = &[
    ("media_set_id", INT), ("family_sequence_number", TINYINT), ("media_family_id", GUID), ("media_count", INT),
    ("logical_device_name", NAME), ("physical_device_name", PATH), ("device_type", TINYINT),
    ("physical_block_size", INT), ("mirror", TINYINT),
];

fn families(row: &MediaRow) -> Vec<Vec<Value>> {
    let rows = row.families.iter().map(|(family, guid, path)| {
        vec![
            Value::Int(row.id),
            Value::TinyInt(*family),
            guid.value(),
            Value::Int(1),
            Value::Null,
            text(path),
            Value::TinyInt(2),
            Value::Int(512),
            Value::TinyInt(0),
        ]
    });
    rows.collect()
}

#[rustfmt::skip]
const FILES: Spec = &[
    ("backup_set_id", INT), ("first_family_number", TINYINT), ("file_type", CHAR), ("file_number", SIZE),
    ("logical_name", NAME), ("physical_name", PATH), ("file_size", SIZE), ("page_size", INT), ("create_lsn", LSN),
    ("file_guid", GUID), ("filegroup_name", NAME), ("filegroup_id", INT), ("differential_base_lsn", LSN),
    ("differential_base_guid", GUID), ("is_present", BIT), ("state_desc", ColumnType::NVarChar(Some(64))),
];

fn files(row: &SetRow) -> Vec<Vec<Value>> {
    let head = &row.head;
    let rows = head.contents.files.iter().map(|file| {
        let kind = match file.kind {
            FileKind::Rows => "D",
            FileKind::Log => "L",
            FileKind::Filestream => "S",
        };
        let path = head.paths.iter().find(|(id, _)| *id == file.id).map_or("", |(_, path)| path.as_str());
        let group = head.contents.groups.iter().find(|group| group.id == file.group);
        vec![
            Value::Int(row.id),
            Value::TinyInt(1),
            text(kind),
            Value::Numeric { digits: i128::from(file.id), precision: 20, scale: 0 },
            text(&file.name),
            text(path),
            size(file.pages * 8192),
            Value::Int(8192),
            file.created.value(),
            file.guid.value(),
            optional_text(group.map(|group| group.name.as_str())),
            Value::Int(file.group),
            head.base.map_or(Value::Null, |(lsn, _)| lsn.value()),
            head.base.map_or(Value::Null, |(_, guid)| guid.value()),
            Value::Bit(true),
            text("ONLINE"),
        ]
    });
    rows.collect()
}

#[rustfmt::skip]
const RESTORES: Spec = &[
    ("restore_history_id", INT), ("restore_date", DATE), ("destination_database_name", NAME), ("user_name", NAME),
    ("backup_set_id", INT), ("restore_type", CHAR), ("replace", BIT), ("recovery", BIT), ("restart", BIT),
    ("stop_at", DATE), ("device_count", TINYINT), ("stop_at_mark_name", NAME), ("stop_before", BIT),
];

fn restore(row: &RestoreRow, zone: i32) -> Vec<Value> {
    vec![
        Value::Int(row.id),
        local(row.date, zone),
        text(&row.database),
        text(&row.user),
        Value::Int(row.set_id),
        text(row.kind),
        Value::Bit(row.replace),
        Value::Bit(row.recovery),
        Value::Bit(false),
        row.stop_at.map_or(Value::Null, |at| local(at, zone)),
        Value::TinyInt(row.devices),
        optional_text(row.stop_mark.as_deref()),
        if row.stop_mark.is_some() { Value::Bit(row.stop_before) } else { Value::Null },
    ]
}

#[rustfmt::skip]
const RESTORE_FILES: Spec = &[
    ("restore_history_id", INT), ("file_number", SIZE), ("destination_phys_drive", PATH),
    ("destination_phys_name", PATH),
];

fn restore_files(row: &RestoreRow) -> Vec<Vec<Value>> {
    let rows = row.files.iter().map(|(id, path)| {
        let number = Value::Numeric { digits: i128::from(*id), precision: 20, scale: 0 };
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        vec![Value::Int(row.id), number, text(folder), text(path)]
    });
    rows.collect()
}

#[rustfmt::skip]
const MARKS: Spec = &[
    ("database_name", NAME), ("mark_name", NAME), ("description", TEXT), ("user_name", NAME), ("lsn", LSN),
    ("mark_time", DATE),
];

fn marks(state: &State, zone: i32) -> Vec<Vec<Value>> {
    let rows = state.history.marks.iter().map(|row| {
        let description = text(&row.description);
        vec![
            text(&row.database),
            text(&row.mark),
            description,
            text(&row.user),
            row.lsn.value(),
            local(row.time, zone),
        ]
    });
    rows.collect()
}
