//! The server itself: sys.configurations, sys.dm_os_host_info, sys.time_zone_info, sys.server_principals.

use super::{BIT, CHAR, DESC, INT, NAME, Spec, TEXT, Table, table, text};
use crate::instance::catalogue::Outcome;
use crate::instance::rights;
use crate::instance::run::Run;
use crate::reply::{ColumnType, Value};

/// `value` and its kin are documented as sql_variant; all of them hold an int.
#[rustfmt::skip]
const CONFIGURATIONS: Spec = &[
    ("configuration_id", INT), ("name", ColumnType::NVarChar(Some(35))), ("value", INT), ("minimum", INT),
    ("maximum", INT), ("value_in_use", INT), ("description", TEXT), ("is_dynamic", BIT), ("is_advanced", BIT),
];

pub(super) fn configurations(_run: &Run<'_>) -> Outcome<Table> {
    let known = [
        (1579, "backup compression default", 0, 1, "Enable compression of backups by default"),
        (1584, "backup checksum default", 0, 1, "Enable checksum of backups by default"),
        (1544, "max server memory (MB)", 2_147_483_647, 2_147_483_647, "Maximum size of server memory (MB)"),
        (16_390, "xp_cmdshell", 0, 1, "Enable or disable command shell"),
    ];
    let rows = known.map(|(id, name, value, maximum, description)| {
        vec![
            Value::Int(id),
            text(name),
            Value::Int(value),
            Value::Int(0),
            Value::Int(maximum),
            Value::Int(value),
            text(description),
            Value::Bit(true),
            Value::Bit(false),
        ]
    });
    Ok(table(CONFIGURATIONS, rows.into()))
}

#[rustfmt::skip]
const HOST: Spec = &[
    ("host_platform", ColumnType::NVarChar(Some(256))), ("host_distribution", ColumnType::NVarChar(Some(256))),
    ("host_release", ColumnType::NVarChar(Some(256))), ("host_service_pack_level", ColumnType::NVarChar(Some(256))),
    ("host_sku", INT), ("os_language_version", INT), ("host_architecture", ColumnType::NVarChar(Some(256))),
];

/// Came with 2017.
pub(super) fn host_info(run: &Run<'_>) -> Outcome<Table> {
    if run.shared.config.version.0 < 14 {
        return Err(crate::instance::catalogue::fail(208, &[&"sys.dm_os_host_info"]));
    }
    let row =
        vec![text("Linux"), text("Ubuntu"), text("22.04"), text(""), Value::Null, Value::Int(0), text("X64")];
    Ok(table(HOST, vec![row]))
}

#[rustfmt::skip]
const ZONES: Spec = &[
    ("name", NAME), ("current_utc_offset", ColumnType::NVarChar(Some(6))), ("is_currently_dst", BIT),
];

pub(super) fn time_zones(_run: &Run<'_>) -> Outcome<Table> {
    let known = [
        ("UTC", "+00:00"),
        ("W. Europe Standard Time", "+01:00"),
        ("Eastern Standard Time", "-05:00"),
        ("India Standard Time", "+05:30"),
        ("Tokyo Standard Time", "+09:00"),
    ];
    let rows = known.map(|(name, offset)| vec![text(name), text(offset), Value::Bit(false)]);
    Ok(table(ZONES, rows.into()))
}

#[rustfmt::skip]
const PRINCIPALS: Spec = &[
    ("name", NAME), ("principal_id", INT), ("type", CHAR), ("type_desc", DESC), ("is_disabled", BIT),
];

/// Every login sees itself and sa; who may alter logins sees all.
pub(super) fn principals(run: &Run<'_>) -> Outcome<Table> {
    let login = run.login();
    let state = run.state();
    let all = rights::has(&state, &login, "ALTER ANY LOGIN");
    let seen = (1..).zip(&state.principals).filter(|(_, principal)| {
        all || principal.name == "sa" || principal.name.eq_ignore_ascii_case(&login)
    });
    let rows = seen.map(|(id, principal)| {
        let described = text("SQL_LOGIN");
        vec![text(&principal.name), Value::Int(id), text("S"), described, Value::Bit(principal.disabled)]
    });
    Ok(table(PRINCIPALS, rows.collect()))
}
