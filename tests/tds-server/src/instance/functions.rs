//! Built-in functions and `@@` values.

use super::ast::Expr;
use super::catalogue::{Outcome, fail};
use super::convert::compare;
use super::database::DatabaseState;
use super::dates::on_dates;
use super::evaluate::{self, Bound, Scope, condition, value};
use super::properties::{database_property, has_permission, is_whole_property, server_property};
use super::rights;
use super::run::Run;
use super::value::{date_text, local_millis, text_of, whole};
use crate::reply::{ColumnType, Value};

const NAME: ColumnType = ColumnType::NVarChar(Some(128));

fn text(text: &str) -> Value {
    Value::NVarChar(text.to_owned())
}

/// An `@@` value and its type. Error 137 for one that is not known.
pub(crate) fn global(run: &Run<'_>, name: &str) -> Outcome<(Value, ColumnType)> {
    let config = &run.shared.config;
    let (major, minor, build) = config.version;
    Ok(match name {
        "@@VERSION" => {
            let year = match major {
                ..=13 => 2016,
                14 => 2017,
                15 => 2019,
                16 => 2022,
                _ => 2025,
            };
            let edition = &config.edition;
            let version = format!(
                "Microsoft SQL Server {year} (RTM) - {major}.{minor}.{build}.1 (X64) \n\tJan  1 2026 00:00:00 \n\t\
                 Copyright (C) Microsoft Corporation\n\t{edition} on Linux (Ubuntu 22.04) <X64>"
            );
            (text(&version), ColumnType::NVarChar(Some(300)))
        }
        "@@SPID" => (Value::SmallInt(run.session), ColumnType::SmallInt),
        "@@SERVERNAME" => (text(&config.server_name()), NAME),
        "@@SERVICENAME" => (text(&config.name), NAME),
        "@@TRANCOUNT" => {
            let depth = run.connection(|own| own.transaction.as_ref().map_or(0, |open| open.depth))?;
            (Value::Int(i32::try_from(depth).unwrap_or(0)), ColumnType::Int)
        }
        "@@MICROSOFTVERSION" => (Value::Int(i32::from(major) << 24 | i32::from(build)), ColumnType::Int),
        "@@MAX_PRECISION" => (Value::TinyInt(38), ColumnType::TinyInt),
        "@@LANGUAGE" => (text("us_english"), NAME),
        "@@LOCK_TIMEOUT" => (Value::Int(-1), ColumnType::Int),
        "@@ERROR" | "@@ROWCOUNT" => return Err(fail(50_002, &[&name])),
        _ => return Err(fail(137, &[&name])),
    })
}

/// The type of a call's result. Error 195 for a function that is not known.
pub(crate) fn kind(run: &Run<'_>, name: &str, arguments: &[Expr], bound: &[Bound]) -> Outcome<ColumnType> {
    let of =
        |at: usize| arguments.get(at).map_or(Ok(ColumnType::Int), |expr| evaluate::kind(run, expr, bound));
    match name {
        "DB_ID" | "COUNT" | "HAS_PERMS_BY_NAME" | "IS_SRVROLEMEMBER" | "IS_ROLEMEMBER" | "HAS_DBACCESS"
        | "DATEPART" | "DATEDIFF" | "LEN" | "CHARINDEX" => Ok(ColumnType::Int),
        "COUNT_BIG" => Ok(ColumnType::BigInt),
        "GETDATE" | "GETUTCDATE" => Ok(ColumnType::DateTime),
        "SYSDATETIME" | "SYSUTCDATETIME" | "SYSDATETIMEOFFSET" => {
            Err(fail(50_002, &[&format!("{name} as a column that is not cast")]))
        }
        "SERVERPROPERTY" => Ok(match arguments {
            [Expr::Literal(Value::NVarChar(property))] if is_whole_property(property) => ColumnType::Int,
            _ => NAME,
        }),
        "DATABASEPROPERTYEX" => Ok(match arguments {
            [_, Expr::Literal(Value::NVarChar(property))] if property.to_lowercase().starts_with("is") => {
                ColumnType::Int
            }
            _ => NAME,
        }),
        "ISNULL" | "NULLIF" | "MAX" | "MIN" | "ABS" => of(0),
        "DATEADD" => of(2),
        "IIF" => of(1),
        "COALESCE" => {
            let known = arguments.iter().position(|expr| *expr != Expr::Literal(Value::Null));
            of(known.unwrap_or(0))
        }
        "DB_NAME" | "SUSER_SNAME" | "SUSER_NAME" | "ORIGINAL_LOGIN" | "USER_NAME" | "HOST_NAME"
        | "APP_NAME" => Ok(NAME),
        "QUOTENAME" => Ok(ColumnType::NVarChar(Some(258))),
        "UPPER" | "LOWER" | "LTRIM" | "RTRIM" | "LEFT" | "RIGHT" | "SUBSTRING" | "REPLACE" | "CONCAT" => {
            Ok(ColumnType::NVarChar(Some(4000)))
        }
        _ => Err(fail(195, &[&name])),
    }
}

/// Calls a function. Errors: 174, 195 and those of the values.
pub(crate) fn call(
    run: &Run<'_>,
    name: &str,
    arguments: &[Expr],
    scope: Option<&Scope<'_>>,
) -> Outcome<Value> {
    if ["DATEPART", "DATEDIFF", "DATEADD"].contains(&name) {
        return on_dates(run, name, arguments, scope);
    }
    if name == "IIF" {
        let [test, yes, no] = arguments else {
            return Err(fail(174, &[&"IIF", &3]));
        };
        return value(run, if condition(run, test, scope)? == Some(true) { yes } else { no }, scope);
    }
    let mut values = Vec::new();
    for argument in arguments {
        values.push(value(run, argument, scope)?);
    }
    if let Some(found) = on_values(name, &values)? {
        return Ok(found);
    }
    match on_texts(name, &values) {
        Some(found) => found,
        None => of_server(run, name, &values),
    }
}

fn on_values(name: &str, values: &[Value]) -> Outcome<Option<Value>> {
    Ok(Some(match (name, values) {
        ("COALESCE", [_, ..]) => {
            values.iter().find(|value| **value != Value::Null).cloned().unwrap_or(Value::Null)
        }
        ("ISNULL", [one, other]) => {
            if *one == Value::Null {
                other.clone()
            } else {
                one.clone()
            }
        }
        ("NULLIF", [one, other]) => {
            let equal = compare(one, other)? == Some(std::cmp::Ordering::Equal);
            if equal { Value::Null } else { one.clone() }
        }
        ("ABS", [Value::Int(number)]) => Value::Int(number.saturating_abs()),
        ("MAX" | "MIN" | "COUNT" | "SUM" | "COUNT_BIG", _) => {
            return Err(fail(50_002, &[&"an aggregate in this place"]));
        }
        _ => return Ok(None),
    }))
}

fn on_texts(name: &str, values: &[Value]) -> Option<Outcome<Value>> {
    let texts: Vec<Option<String>> = values.iter().map(text_of).collect();
    let known = [
        "UPPER",
        "LOWER",
        "LTRIM",
        "RTRIM",
        "LEN",
        "LEFT",
        "RIGHT",
        "SUBSTRING",
        "CHARINDEX",
        "REPLACE",
        "QUOTENAME",
        "CONCAT",
    ];
    if !known.contains(&name) {
        return None;
    }
    if name == "CONCAT" {
        return Some(Ok(Value::NVarChar(texts.into_iter().flatten().collect())));
    }
    let Some(texts) = texts.into_iter().collect::<Option<Vec<String>>>() else {
        return Some(Ok(Value::Null));
    };
    let number = |at: usize| texts.get(at).and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
    let found = match (name, &texts[..]) {
        ("UPPER", [one]) => one.to_uppercase(),
        ("LOWER", [one]) => one.to_lowercase(),
        ("LTRIM", [one]) => one.trim_start().to_owned(),
        ("RTRIM", [one]) => one.trim_end().to_owned(),
        ("LEN", [one]) => {
            return Some(Ok(Value::Int(i32::try_from(one.trim_end().chars().count()).unwrap_or(i32::MAX))));
        }
        ("LEFT", [one, _]) => one.chars().take(number(1)).collect(),
        ("RIGHT", [one, _]) => one.chars().skip(one.chars().count().saturating_sub(number(1))).collect(),
        ("SUBSTRING", [one, _, _]) => one.chars().skip(number(1).saturating_sub(1)).take(number(2)).collect(),
        ("REPLACE", [one, from, to]) if !from.is_empty() => one.replace(from, to),
        ("QUOTENAME", [one]) => format!("[{}]", one.replace(']', "]]")),
        ("CHARINDEX", [part, one]) => {
            let at = one.to_lowercase().find(&part.to_lowercase());
            let place = at.map_or(0, |at| one[..at.min(one.len())].chars().count() + 1);
            return Some(Ok(Value::Int(i32::try_from(place).unwrap_or(0))));
        }
        _ => return Some(Err(fail(174, &[&name, &"another number of"]))),
    };
    Some(Ok(Value::NVarChar(found)))
}

fn offset_text(minutes: i32) -> String {
    let sign = if minutes < 0 { '-' } else { '+' };
    format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
}

fn of_server(run: &Run<'_>, name: &str, values: &[Value]) -> Outcome<Value> {
    let first = values.first().and_then(text_of);
    let login = run.login();
    let now = run.now();
    let current = run.database();
    let zone = run.state().zone_minutes;
    let argument = |at: usize| values.get(at).and_then(text_of).unwrap_or_default();
    let state = run.state();
    Ok(match (name, values.len()) {
        ("DB_ID", 0 | 1) => {
            let found = state.find(&first.unwrap_or(current));
            found.map_or(Value::Null, |database| Value::Int(database.id))
        }
        ("DB_NAME", 0) => text(&current),
        ("DB_NAME", 1) => {
            let id = values.first().and_then(whole);
            let found = state.databases.iter().find(|database| Some(i128::from(database.id)) == id);
            found.map_or(Value::Null, |database| text(&database.name))
        }
        ("SUSER_SNAME" | "SUSER_NAME" | "ORIGINAL_LOGIN", 0) => text(&login),
        ("SUSER_SNAME", 1) => text("sa"),
        ("HOST_NAME" | "APP_NAME", 0) => {
            let own = state.sessions.get(&run.session);
            own.map_or(Value::Null, |own| text(if name == "APP_NAME" { &own.application } else { &own.host }))
        }
        ("GETDATE", 0) => Value::DateTime(local_millis(now, zone)),
        ("GETUTCDATE", 0) => Value::DateTime(local_millis(now, 0)),
        ("SYSDATETIME", 0) => Value::DateTime(local_millis(now, zone)),
        ("SYSUTCDATETIME", 0) => Value::DateTime(local_millis(now, 0)),
        ("SYSDATETIMEOFFSET", 0) => {
            text(&format!("{}0000 {}", date_text(local_millis(now, zone), ' '), offset_text(zone)))
        }
        ("SERVERPROPERTY", 1) => server_property(run, &state, &argument(0)),
        ("DATABASEPROPERTYEX", 2) => database_property(&state, &argument(0), &argument(1)),
        ("HAS_DBACCESS", 1) => state.find(&argument(0)).map_or(Value::Null, |database| {
            let open = database.state == DatabaseState::Online;
            Value::Int(i32::from(open && rights::may_enter(&state, &login, database)))
        }),
        ("IS_SRVROLEMEMBER", 1 | 2) => {
            let member = if values.len() == 2 { argument(1) } else { login };
            let known = [
                "sysadmin",
                "dbcreator",
                "serveradmin",
                "securityadmin",
                "processadmin",
                "diskadmin",
                "public",
            ];
            let role = argument(0).to_lowercase();
            let is_member = rights::in_role(&state, &member, &role) || role == "public";
            if known.contains(&role.as_str()) { Value::Int(i32::from(is_member)) } else { Value::Null }
        }
        ("IS_ROLEMEMBER", 1) => {
            let database = state.database(&current)?;
            Value::Int(i32::from(rights::in_database_role(
                &state,
                &login,
                database,
                &argument(0).to_lowercase(),
            )))
        }
        ("HAS_PERMS_BY_NAME", 3) => has_permission(&state, &login, &current, values),
        _ => return Err(fail(195, &[&name])),
    })
}
