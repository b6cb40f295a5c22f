//! sys.databases, sys.database_recovery_status and the views of availability groups.

use super::{BIT, DATE, DESC, GUID, INT, LSN, NAME, Spec, TINYINT, Table, optional_guid, table, text};
use crate::instance::catalogue::Outcome;
use crate::instance::control::ReplicaRole;
use crate::instance::database::{Database, DatabaseState};
use crate::instance::rights;
use crate::instance::run::Run;
use crate::instance::value::{Guid, local};
use crate::reply::{ColumnType, Value};

#[rustfmt::skip]
const DATABASES: Spec = &[
    ("name", NAME), ("database_id", INT), ("source_database_id", INT), ("owner_sid", ColumnType::VarBinary(Some(85))),
    ("create_date", DATE), ("compatibility_level", TINYINT), ("collation_name", NAME), ("user_access", TINYINT),
    ("user_access_desc", DESC), ("is_read_only", BIT), ("is_auto_close_on", BIT), ("is_auto_shrink_on", BIT),
    ("state", TINYINT), ("state_desc", DESC), ("is_in_standby", BIT), ("is_cleanly_shutdown", BIT),
    ("recovery_model", TINYINT), ("recovery_model_desc", DESC), ("page_verify_option", TINYINT),
    ("page_verify_option_desc", DESC), ("is_encrypted", BIT), ("log_reuse_wait", TINYINT), ("log_reuse_wait_desc", DESC),
    ("replica_id", GUID), ("group_database_id", GUID),
];

/// Logins see what VIEW ANY DATABASE shows, which everybody has.
pub(super) fn databases(run: &Run<'_>) -> Outcome<Table> {
    let state = run.state();
    let level = run.shared.config.compatibility_level();
    let zone = state.zone_minutes;
    let mut sorted: Vec<&Database> = state.databases.iter().collect();
    sorted.sort_by_key(|database| database.id);
    let rows = sorted.into_iter().map(|database| row(database, level, zone)).collect();
    Ok(table(DATABASES, rows))
}

fn row(database: &Database, level: u8, zone: i32) -> Vec<Value> {
    let (state, state_desc) = database.state.shown();
    let (access, access_desc) = database.access.shown();
    let (model, model_desc) = database.contents.recovery_model.shown();
    let open = database.state == DatabaseState::Online;
    let waits = if database.contents.has_chain() { (2, "LOG_BACKUP") } else { (0, "NOTHING") };
    let group = database.replicated.then_some(database.contents.family_guid);
    vec![
        text(&database.name),
        Value::Int(database.id),
        Value::Null,
        Value::VarBinary(vec![1]),
        local(database.contents.created, zone),
        Value::TinyInt(level),
        if open { text("SQL_Latin1_General_CP1_CI_AS") } else { Value::Null },
        Value::TinyInt(access),
        text(access_desc),
        Value::Bit(database.is_read_only()),
        Value::Bit(false),
        Value::Bit(false),
        Value::TinyInt(state),
        text(state_desc),
        Value::Bit(database.in_standby()),
        Value::Bit(database.state == DatabaseState::Offline),
        Value::TinyInt(model),
        text(model_desc),
        Value::TinyInt(2),
        text("CHECKSUM"),
        Value::Bit(false),
        Value::TinyInt(waits.0),
        text(waits.1),
        optional_guid(group.map(|_| Guid::derived(7, 1))),
        optional_guid(group),
    ]
}

#[rustfmt::skip]
const RECOVERY: Spec = &[
    ("database_id", INT), ("database_guid", GUID), ("family_guid", GUID), ("last_log_backup_lsn", LSN),
    ("recovery_fork_guid", GUID), ("first_recovery_fork_guid", GUID), ("fork_point_lsn", LSN),
];

/// Databases that are not open show NULLs, as documented. Rows by VIEW ANY DEFINITION and the like.
pub(super) fn recovery_status(run: &Run<'_>) -> Outcome<Table> {
    let login = run.login();
    let state = run.state();
    let seen = state.databases.iter().filter(|database| rights::may_alter(&state, &login, database));
    let rows = seen.map(|database| {
        let contents = &database.contents;
        if database.handles.is_empty() && !database.is_system() {
            return vec![
                Value::Int(database.id),
                Value::Null,
                Value::Null,
                Value::Null,
                Value::Null,
                Value::Null,
                Value::Null,
            ];
        }
        vec![
            Value::Int(database.id),
            contents.database_guid.value(),
            contents.family_guid.value(),
            contents.log_backup.map_or(Value::Null, crate::instance::value::Lsn::value),
            contents.fork().value(),
            Value::Null,
            Value::Null,
        ]
    });
    Ok(table(RECOVERY, rows.collect()))
}

#[rustfmt::skip]
const CLUSTER: Spec = &[
    ("group_id", GUID), ("group_database_id", GUID), ("database_name", NAME), ("truncation_lsn", LSN),
];

pub(super) fn cluster(run: &Run<'_>) -> Outcome<Table> {
    let state = run.state();
    let members = state.databases.iter().filter(|database| database.replicated);
    let rows = members.map(|database| {
        let group = Guid::derived(7, 0).value();
        vec![group, database.contents.family_guid.value(), text(&database.name), Value::Null]
    });
    Ok(table(CLUSTER, rows.collect()))
}

#[rustfmt::skip]
const REPLICAS: Spec = &[
    ("replica_id", GUID), ("group_id", GUID), ("is_local", BIT), ("role", TINYINT), ("role_desc", DESC),
    ("operational_state", TINYINT), ("operational_state_desc", DESC), ("connected_state", TINYINT),
    ("connected_state_desc", DESC), ("synchronization_health", TINYINT), ("synchronization_health_desc", DESC),
];

/// Needs VIEW SERVER STATE.
pub(super) fn replica_states(run: &Run<'_>) -> Outcome<Table> {
    super::needs_server_state(run)?;
    let Some(role) = run.state().replica else {
        return Ok(table(REPLICAS, Vec::new()));
    };
    let other = if role == ReplicaRole::Primary { ReplicaRole::Secondary } else { ReplicaRole::Primary };
    let row = |count: u64, is_local: bool, role: ReplicaRole| {
        let (number, name) = role.shown();
        vec![
            Guid::derived(7, count).value(),
            Guid::derived(7, 0).value(),
            Value::Bit(is_local),
            Value::TinyInt(number),
            text(name),
            if is_local { Value::TinyInt(2) } else { Value::Null },
            if is_local { text("ONLINE") } else { Value::Null },
            Value::TinyInt(1),
            text("CONNECTED"),
            Value::TinyInt(2),
            text("HEALTHY"),
        ]
    };
    Ok(table(REPLICAS, vec![row(1, true, role), row(2, false, other)]))
}

#[rustfmt::skip]
const DATABASE_REPLICAS: Spec = &[
    ("database_id", INT), ("group_id", GUID), ("replica_id", GUID), ("group_database_id", GUID), ("is_local", BIT),
    ("is_primary_replica", BIT), ("synchronization_state", TINYINT), ("synchronization_state_desc", DESC),
    ("is_suspended", BIT), ("last_hardened_lsn", LSN),
];

/// Needs VIEW SERVER STATE.
pub(super) fn database_replica_states(run: &Run<'_>) -> Outcome<Table> {
    super::needs_server_state(run)?;
    let state = run.state();
    let Some(role) = state.replica else {
        return Ok(table(DATABASE_REPLICAS, Vec::new()));
    };
    let members = state.databases.iter().filter(|database| database.replicated);
    let rows = members.map(|database| {
        vec![
            Value::Int(database.id),
            Guid::derived(7, 0).value(),
            Guid::derived(7, 1).value(),
            database.contents.family_guid.value(),
            Value::Bit(true),
            Value::Bit(role == ReplicaRole::Primary),
            Value::TinyInt(2),
            text("SYNCHRONIZED"),
            Value::Bit(false),
            database.contents.next.value(),
        ]
    });
    Ok(table(DATABASE_REPLICAS, rows.collect()))
}
