//! sys.dm_exec_requests, sys.dm_exec_sessions, sys.dm_exec_sql_text, sys.dm_tran_locks, sys.dm_server_suspend_status
//! and sys.dm_db_log_info.

use super::{
    BIGINT, BIT, DATE, DESC, INT, LSN, NAME, REAL, SMALLINT, Spec, TINYINT, Table, needs_server_state, table,
    text,
};
use crate::instance::catalogue::{Outcome, fail};
use crate::instance::rights;
use crate::instance::run::Run;
use crate::instance::value::{Lsn, local, text_of, whole};
use crate::reply::{ColumnType, Value};

const NAME30: ColumnType = ColumnType::NVarChar(Some(30));
const NAME32: ColumnType = ColumnType::NVarChar(Some(32));
const HANDLE: ColumnType = ColumnType::VarBinary(Some(64));

#[rustfmt::skip]
const REQUESTS: Spec = &[
    ("session_id", SMALLINT), ("request_id", INT), ("start_time", DATE), ("status", NAME30), ("command", NAME32),
    ("sql_handle", HANDLE), ("statement_start_offset", INT), ("statement_end_offset", INT), ("database_id", SMALLINT),
    ("user_id", INT), ("blocking_session_id", SMALLINT), ("wait_type", DESC), ("wait_time", INT),
    ("open_transaction_count", INT), ("percent_complete", REAL), ("estimated_completion_time", BIGINT),
    ("cpu_time", INT), ("total_elapsed_time", INT),
];

/// The statement's handle is its session: the text is found as long as it runs.
fn handle(session: i16) -> Value {
    let mut bytes = vec![2, 0, 0, 0];
    bytes.extend_from_slice(&session.to_be_bytes());
    Value::VarBinary(bytes)
}

/// Whether the login sees other sessions than its own.
fn sees_all(run: &Run<'_>) -> bool {
    let login = run.login();
    rights::sees_server(&run.state(), &login)
}

pub(super) fn requests(run: &Run<'_>) -> Outcome<Table> {
    let all = sees_all(run);
    let now = run.now();
    let state = run.state();
    let zone = state.zone_minutes;
    let mut rows = Vec::new();
    for (id, session) in &state.sessions {
        let Some(request) = session.request.as_ref().filter(|_| all || *id == run.session) else {
            continue;
        };
        let elapsed = i32::try_from((now - request.started) / 1_000_000).unwrap_or(i32::MAX);
        let status = if request.blocked_by != 0 { "suspended" } else { "running" };
        let waits = request.blocked_by != 0;
        rows.push(vec![
            Value::SmallInt(*id),
            Value::Int(0),
            local(request.started, zone),
            text(status),
            text(&request.command),
            handle(*id),
            Value::Int(0),
            Value::Int(-1),
            Value::SmallInt(i16::try_from(request.database_id).unwrap_or(1)),
            Value::Int(1),
            Value::SmallInt(request.blocked_by),
            if waits { text("WRITELOG") } else { Value::Null },
            Value::Int(if waits { elapsed } else { 0 }),
            Value::Int(i32::from(session.transaction.is_some())),
            Value::Real(request.percent),
            Value::BigInt(0),
            Value::Int(0),
            Value::Int(elapsed),
        ]);
    }
    Ok(table(REQUESTS, rows))
}

#[rustfmt::skip]
const SESSIONS: Spec = &[
    ("session_id", SMALLINT), ("login_time", DATE), ("host_name", NAME), ("program_name", NAME), ("login_name", NAME),
    ("status", NAME30), ("database_id", SMALLINT), ("is_user_process", BIT), ("open_transaction_count", INT),
    ("original_login_name", NAME),
];

pub(super) fn sessions(run: &Run<'_>) -> Outcome<Table> {
    let all = sees_all(run);
    let state = run.state();
    let seen = state.sessions.iter().filter(|(id, session)| !session.killed && (all || **id == run.session));
    let rows = seen.map(|(id, session)| {
        let database = state.find(&session.database).map_or(1, |database| database.id);
        vec![
            Value::SmallInt(*id),
            local(session.opened, state.zone_minutes),
            text(&session.host),
            text(&session.application),
            text(&session.login),
            text(if session.request.is_some() { "running" } else { "sleeping" }),
            Value::SmallInt(i16::try_from(database).unwrap_or(1)),
            Value::Bit(true),
            Value::Int(i32::from(session.transaction.is_some())),
            text(&session.login),
        ]
    });
    Ok(table(SESSIONS, rows.collect()))
}

#[rustfmt::skip]
const SQL_TEXT: Spec = &[
    ("dbid", SMALLINT), ("objectid", INT), ("number", SMALLINT), ("encrypted", BIT), ("text", ColumnType::NVarChar(None)),
];

pub(super) fn sql_text(run: &Run<'_>, arguments: &[Value]) -> Outcome<Table> {
    needs_server_state(run)?;
    let [wanted] = arguments else {
        return Err(fail(174, &[&"sys.dm_exec_sql_text", &1]));
    };
    let state = run.state();
    let found = state.sessions.iter().find(|(id, _)| handle(**id) == *wanted);
    let request = found.and_then(|(_, session)| session.request.as_ref());
    let rows = request.map(|request| {
        vec![Value::Null, Value::Null, Value::Null, Value::Bit(false), Value::NVarChar(request.sql.clone())]
    });
    Ok(table(SQL_TEXT, rows.into_iter().collect()))
}

#[rustfmt::skip]
const LOCKS: Spec = &[
    ("resource_type", DESC), ("resource_subtype", DESC), ("resource_database_id", INT),
    ("resource_description", ColumnType::NVarChar(Some(256))), ("request_mode", DESC), ("request_type", DESC),
    ("request_status", DESC), ("request_session_id", INT), ("request_owner_type", DESC),
];

/// A session holds a shared lock on its database; RESTORE and the freeze hold more.
pub(super) fn locks(run: &Run<'_>) -> Outcome<Table> {
    needs_server_state(run)?;
    let state = run.state();
    let mut held: Vec<(i32, &str, i16, &str)> = Vec::new();
    for (id, session) in state.sessions.iter().filter(|(_, session)| !session.killed) {
        let database = state.find(&session.database).map_or(1, |database| database.id);
        if database != 1 {
            held.push((database, "S", *id, "SHARED_TRANSACTION_WORKSPACE"));
        }
        for (database, mode) in session.request.iter().flat_map(|request| &request.locks) {
            held.push((*database, mode, *id, "SHARED_TRANSACTION_WORKSPACE"));
        }
    }
    for database in &state.databases {
        if let Some(suspended) = &database.suspended {
            held.push((database.id, "S", suspended.session, "SESSION"));
        }
    }
    let rows = held.into_iter().map(|(database, mode, session, owner)| {
        vec![
            text("DATABASE"),
            text(""),
            Value::Int(database),
            text(""),
            text(mode),
            text("LOCK"),
            text("GRANT"),
            Value::Int(i32::from(session)),
            text(owner),
        ]
    });
    Ok(table(LOCKS, rows.collect()))
}

#[rustfmt::skip]
const SUSPENDED: Spec = &[
    ("db_id", INT), ("db_name", NAME), ("suspend_session_id", TINYINT), ("suspend_time_ms", BIGINT),
    ("is_diff_map_cleared", BIT), ("is_write_io_frozen", BIT),
];

/// Came with 2022.
pub(super) fn suspend_status(run: &Run<'_>) -> Outcome<Table> {
    if run.shared.config.version.0 < 16 {
        return Err(fail(208, &[&"sys.dm_server_suspend_status"]));
    }
    needs_server_state(run)?;
    let now = run.now();
    let state = run.state();
    let frozen = state.databases.iter().filter_map(|database| Some((database, database.suspended.as_ref()?)));
    let rows = frozen.map(|(database, suspended)| {
        vec![
            Value::Int(database.id),
            text(&database.name),
            // Documented as tinyint, though session ids may be larger.
            Value::TinyInt(u8::try_from(suspended.session).unwrap_or(u8::MAX)),
            Value::BigInt((now - suspended.since) / 1_000_000),
            Value::Bit(!suspended.copy_only),
            Value::Bit(true),
        ]
    });
    Ok(table(SUSPENDED, rows.collect()))
}

#[rustfmt::skip]
const LOG_INFO: Spec = &[
    ("database_id", INT), ("file_id", SMALLINT), ("vlf_begin_offset", BIGINT), ("vlf_size_mb", REAL),
    ("vlf_sequence_number", BIGINT), ("vlf_active", BIT), ("vlf_status", INT), ("vlf_parity", TINYINT),
    ("vlf_first_lsn", ColumnType::NVarChar(Some(48))), ("vlf_create_lsn", LSN),
];

/// One active virtual log file.
pub(super) fn log_info(run: &Run<'_>, arguments: &[Value]) -> Outcome<Table> {
    needs_server_state(run)?;
    let id = arguments.first().and_then(whole);
    let current = run.database();
    let state = run.state();
    let found = state.databases.iter().find(|database| match id {
        Some(id) => i128::from(database.id) == id,
        None => text_of(&text(&database.name)) == text_of(&text(&current)),
    });
    let rows = found.filter(|database| rights::open_for_use(database).is_ok()).map(|database| {
        let vlf = database.contents.next.parts().0;
        vec![
            Value::Int(database.id),
            Value::SmallInt(2),
            Value::BigInt(8192),
            Value::Real(8.0),
            Value::BigInt(i64::from(vlf)),
            Value::Bit(true),
            Value::Int(2),
            Value::TinyInt(64),
            text(&database.contents.next.in_parts()),
            Lsn(0).value(),
        ]
    });
    Ok(table(LOG_INFO, rows.into_iter().collect()))
}
