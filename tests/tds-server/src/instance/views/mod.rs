//! Catalog views, dynamic management views and msdb's tables, as typed rows made from the state.
//!
//! A useful subset of the documented columns, each with its documented type (`char` as `nvarchar`, `xml` and the like
//! left out). What a login may not see is left out or refused, as documented for each view.

mod databases;
mod dynamic;
mod files;
mod msdb;
mod server;

use super::catalogue::{Outcome, fail};
use super::rights;
use super::run::Run;
use super::value::{Guid, local};
use super::writes::rows_of;
use crate::reply::{Column, ColumnType, Value};

pub(crate) const BIT: ColumnType = ColumnType::Bit;
pub(crate) const TINYINT: ColumnType = ColumnType::TinyInt;
pub(crate) const SMALLINT: ColumnType = ColumnType::SmallInt;
pub(crate) const INT: ColumnType = ColumnType::Int;
pub(crate) const BIGINT: ColumnType = ColumnType::BigInt;
pub(crate) const REAL: ColumnType = ColumnType::Real;
pub(crate) const DATE: ColumnType = ColumnType::DateTime;
pub(crate) const GUID: ColumnType = ColumnType::Guid;
/// `sysname` and `nvarchar(128)`.
pub(crate) const NAME: ColumnType = ColumnType::NVarChar(Some(128));
pub(crate) const DESC: ColumnType = ColumnType::NVarChar(Some(60));
pub(crate) const PATH: ColumnType = ColumnType::NVarChar(Some(260));
pub(crate) const TEXT: ColumnType = ColumnType::NVarChar(Some(255));
pub(crate) const CHAR: ColumnType = ColumnType::NVarChar(Some(1));
pub(crate) const LSN: ColumnType = ColumnType::Numeric { precision: 25, scale: 0 };
pub(crate) const SIZE: ColumnType = ColumnType::Numeric { precision: 20, scale: 0 };

/// Names and types of a view's columns.
pub(crate) type Spec = &'static [(&'static str, ColumnType)];

/// A view's rows.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Value>>,
}

pub(crate) fn columns(spec: Spec) -> Vec<Column> {
    spec.iter().map(|(name, kind)| Column { name: (*name).to_owned(), kind: *kind }).collect()
}

fn table(spec: Spec, rows: Vec<Vec<Value>>) -> Table {
    Table { columns: columns(spec), rows }
}

pub(crate) fn text(text: &str) -> Value {
    Value::NVarChar(text.to_owned())
}

pub(crate) fn optional_text(value: Option<&str>) -> Value {
    value.map_or(Value::Null, text)
}

pub(crate) fn size(bytes: u64) -> Value {
    Value::Numeric { digits: i128::from(bytes), precision: 20, scale: 0 }
}

fn optional_guid(value: Option<Guid>) -> Value {
    value.map_or(Value::Null, Guid::value)
}

/// A view by its name in lower case; `arguments` are those of a function. Errors: 208, 229, 297 and 300.
pub(crate) fn view(run: &Run<'_>, name: &str, arguments: Option<&[Value]>) -> Outcome<Table> {
    let current = run.database();
    let name = name.replace("..", ".dbo.");
    let short = name.strip_prefix("master.").unwrap_or(&name);
    let in_msdb = short.strip_prefix("msdb.");
    if let Some(arguments) = arguments {
        return match short {
            "sys.dm_exec_sql_text" => dynamic::sql_text(run, arguments),
            "sys.dm_db_log_info" => dynamic::log_info(run, arguments),
            _ => Err(fail(208, &[&name])),
        };
    }
    if let Some(table) = in_msdb.or(if current == "msdb" { Some(short) } else { None }) {
        let table = table.strip_prefix("dbo.").unwrap_or(table);
        if let Some(found) = msdb::view(run, table)? {
            return Ok(found);
        }
    }
    match short {
        "sys.databases" => databases::databases(run),
        "sys.database_recovery_status" => databases::recovery_status(run),
        "sys.availability_databases_cluster" => databases::cluster(run),
        "sys.dm_hadr_availability_replica_states" => databases::replica_states(run),
        "sys.dm_hadr_database_replica_states" => databases::database_replica_states(run),
        "sys.master_files" => files::master_files(run),
        "sys.database_files" => files::database_files(run, &current),
        "sys.filegroups" => files::filegroups(run, &current),
        "sys.dm_exec_requests" => dynamic::requests(run),
        "sys.dm_exec_sessions" => dynamic::sessions(run),
        "sys.dm_tran_locks" => dynamic::locks(run),
        "sys.dm_server_suspend_status" => dynamic::suspend_status(run),
        "sys.configurations" => server::configurations(run),
        "sys.dm_os_host_info" => server::host_info(run),
        "sys.time_zone_info" => server::time_zones(run),
        "sys.server_principals" => server::principals(run),
        other => of_database(run, other, &current, &name),
    }
}

/// `dbo.transactions` and views with a database's name before them.
fn of_database(run: &Run<'_>, short: &str, current: &str, name: &str) -> Outcome<Table> {
    let parts: Vec<&str> = short.split('.').collect();
    let (database, object) = match parts[..] {
        [table] => (current, table),
        ["dbo", table] => (current, table),
        [database, "dbo", table] => (database, table),
        [database, "sys", "database_files"] => return files::database_files(run, &enter(run, database)?),
        [database, "sys", "filegroups"] => return files::filegroups(run, &enter(run, database)?),
        _ => return Err(fail(208, &[&name])),
    };
    if object != "transactions" {
        return Err(fail(208, &[&name]));
    }
    let database = enter(run, database)?;
    let rows = rows_of(&run.state(), &database)?;
    let zone = run.state().zone_minutes;
    let spec: Spec = &[("id", INT), ("name", ColumnType::NVarChar(None)), ("committed", DATE), ("lsn", LSN)];
    let rows = (1..).zip(rows).map(|(id, row)| {
        vec![Value::Int(id), Value::NVarChar(row.name), local(row.committed, zone), row.commit.value()]
    });
    Ok(table(spec, rows.collect()))
}

fn enter(run: &Run<'_>, database: &str) -> Outcome<String> {
    let login = run.login();
    rights::enter(&run.state(), &login, database, run.session)
}

/// Errors 300 and 297 where a login may not see the server's state.
fn needs_server_state(run: &Run<'_>) -> Outcome<()> {
    let login = run.login();
    if rights::sees_server(&run.state(), &login) {
        return Ok(());
    }
    let right =
        if run.shared.config.version.0 >= 16 { "VIEW SERVER PERFORMANCE STATE" } else { "VIEW SERVER STATE" };
    Err(fail(300, &[&right, &"server", &"master"]).then(297, &[]))
}
