//! sys.master_files, sys.database_files and sys.filegroups.

use super::{BIT, DATE, DESC, GUID, INT, LSN, NAME, PATH, Spec, TINYINT, Table, table, text};
use crate::instance::catalogue::Outcome;
use crate::instance::database::{Database, DatabaseState, FileEntry, FileKind};
use crate::instance::rights;
use crate::instance::run::Run;
use crate::instance::value::{Lsn, local};
use crate::reply::{ColumnType, Value};

#[rustfmt::skip]
const FILES: Spec = &[
    ("file_id", INT), ("file_guid", GUID), ("type", TINYINT), ("type_desc", DESC), ("data_space_id", INT), ("name", NAME),
    ("physical_name", PATH), ("state", TINYINT), ("state_desc", DESC), ("size", INT), ("max_size", INT), ("growth", INT),
    ("is_media_read_only", BIT), ("is_read_only", BIT), ("is_sparse", BIT), ("is_percent_growth", BIT),
    ("is_name_reserved", BIT), ("create_lsn", LSN), ("drop_lsn", LSN), ("read_only_lsn", LSN), ("read_write_lsn", LSN),
    ("differential_base_lsn", LSN), ("differential_base_guid", GUID), ("differential_base_time", DATE),
    ("redo_start_lsn", LSN), ("redo_start_fork_guid", GUID), ("redo_target_lsn", LSN), ("redo_target_fork_guid", GUID),
    ("backup_lsn", LSN),
];

fn row(database: &Database, file: &FileEntry, zone: i32) -> Vec<Value> {
    let (kind, kind_desc) = file.kind.shown();
    let shown = if database.in_standby() { DatabaseState::Online } else { database.state };
    let (state, state_desc) = shown.shown();
    let contents = &database.contents;
    let base = contents.base.as_ref().filter(|_| file.kind == FileKind::Rows);
    let redo = contents.redo.as_ref();
    let redo = redo.filter(|_| matches!(shown, DatabaseState::Restoring | DatabaseState::RecoveryPending));
    let max = if file.kind == FileKind::Log { 268_435_456 } else { -1 };
    vec![
        Value::Int(file.id),
        file.guid.value(),
        Value::TinyInt(kind),
        text(kind_desc),
        Value::Int(file.group),
        text(&file.name),
        text(database.path(file.id)),
        Value::TinyInt(state),
        text(state_desc),
        Value::Int(i32::try_from(file.pages).unwrap_or(i32::MAX)),
        Value::Int(max),
        Value::Int(8192),
        Value::Bit(false),
        Value::Bit(contents.read_only),
        Value::Bit(false),
        Value::Bit(false),
        Value::Bit(false),
        file.created.value(),
        Value::Null,
        Value::Null,
        Value::Null,
        base.map_or(Value::Null, |base| base.lsn.value()),
        base.map_or(Value::Null, |base| base.guid.value()),
        base.map_or(Value::Null, |base| local(base.time, zone)),
        redo.map_or(Value::Null, |redo| redo.start.value()),
        redo.map_or(Value::Null, |redo| redo.fork.value()),
        Value::Null,
        Value::Null,
        if contents.full_backup == Lsn(0) { Value::Null } else { contents.full_backup.value() },
    ]
}

/// Rows need CREATE DATABASE, ALTER ANY DATABASE or VIEW ANY DEFINITION.
pub(super) fn master_files(run: &Run<'_>) -> Outcome<Table> {
    let login = run.login();
    let state = run.state();
    let mut shown = table(FILES, Vec::new());
    let id = super::columns(&[("database_id", INT)]);
    shown.columns.splice(0..0, id);
    let sees = ["CREATE ANY DATABASE", "ALTER ANY DATABASE", "VIEW ANY DEFINITION"];
    let all = sees.iter().any(|right| rights::has(&state, &login, right));
    let mut databases: Vec<&Database> = state.databases.iter().collect();
    databases.sort_by_key(|database| database.id);
    for database in databases {
        if !all && !rights::in_database_role(&state, &login, database, "db_owner") {
            continue;
        }
        for file in &database.contents.files {
            let mut values = vec![Value::Int(database.id)];
            values.extend(row(database, file, state.zone_minutes));
            shown.rows.push(values);
        }
    }
    Ok(shown)
}

pub(super) fn database_files(run: &Run<'_>, name: &str) -> Outcome<Table> {
    let state = run.state();
    let database = state.database(name)?;
    let rows = database.contents.files.iter().map(|file| row(database, file, state.zone_minutes));
    Ok(table(FILES, rows.collect()))
}

#[rustfmt::skip]
const FILEGROUPS: Spec = &[
    ("name", NAME), ("data_space_id", INT), ("type", ColumnType::NVarChar(Some(2))), ("type_desc", DESC),
    ("is_default", BIT), ("is_system", BIT), ("filegroup_guid", GUID), ("log_filegroup_id", INT), ("is_read_only", BIT),
    ("is_autogrow_all_files", BIT),
];

pub(super) fn filegroups(run: &Run<'_>, name: &str) -> Outcome<Table> {
    let state = run.state();
    let database = state.database(name)?;
    let rows = database.contents.groups.iter().map(|group| {
        let described = match group.kind.as_str() {
            "FD" => "FILESTREAM_DATA_FILEGROUP",
            "FX" => "MEMORY_OPTIMIZED_DATA_FILEGROUP",
            _ => "ROWS_FILEGROUP",
        };
        vec![
            text(&group.name),
            Value::Int(group.id),
            text(&group.kind),
            text(described),
            Value::Bit(group.id == 1),
            Value::Bit(false),
            Value::Null,
            Value::Null,
            Value::Bit(false),
            Value::Bit(false),
        ]
    });
    Ok(table(FILEGROUPS, rows.collect()))
}
