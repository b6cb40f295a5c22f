//! SERVERPROPERTY, DATABASEPROPERTYEX and HAS_PERMS_BY_NAME.

use super::database::DatabaseState;
use super::rights;
use super::run::Run;
use super::state::State;
use super::value::text_of;
use crate::reply::Value;

fn text(text: &str) -> Value {
    Value::NVarChar(text.to_owned())
}

/// HAS_PERMS_BY_NAME.
pub(crate) fn has_permission(state: &State, login: &str, current: &str, values: &[Value]) -> Value {
    let [securable, class, permission] = values else {
        return Value::Null;
    };
    let permission = text_of(permission).unwrap_or_default().to_uppercase();
    let class = text_of(class).map(|class| class.to_uppercase());
    let name = text_of(securable);
    let has = match class.as_deref() {
        None | Some("SERVER") => rights::has(state, login, &permission),
        Some("DATABASE") => {
            let Some(database) = state.find(name.as_deref().unwrap_or(current)) else {
                return Value::Null;
            };
            let role = if permission.starts_with("BACKUP") { "db_backupoperator" } else { "db_owner" };
            let creates = permission == "CREATE DATABASE" && rights::has(state, login, "CREATE ANY DATABASE");
            creates
                || permission == "CONNECT" && rights::may_enter(state, login, database)
                || rights::in_database_role(state, login, database, role)
        }
        Some("OBJECT") => {
            let object = name.unwrap_or_default().to_lowercase();
            let short = object.rsplit('.').next().unwrap_or("").to_owned();
            let own = rights::principal(state, login);
            let granted = own.is_some_and(|principal| {
                let ends = format!(" ON {short}");
                principal.rights.iter().any(|right| {
                    right.starts_with(&permission)
                        && (right.ends_with(&ends) || right.ends_with(&format!(".{short}")))
                })
            });
            granted
                || state
                    .find("msdb")
                    .is_some_and(|msdb| rights::in_database_role(state, login, msdb, "db_datareader"))
        }
        Some(_) => return Value::Null,
    };
    Value::Int(i32::from(has))
}

/// Whether a property of the server is an int.
pub(crate) fn is_whole_property(property: &str) -> bool {
    let known = [
        "engineedition",
        "ishadrenabled",
        "isclustered",
        "issingleuser",
        "processid",
        "suspendeddatabasecount",
        "hadrmanagerstatus",
        "isintegratedsecurityonly",
        "isxtpsupported",
        "isfulltextinstalled",
        "filestreameffectivelevel",
    ];
    known.contains(&property.to_lowercase().as_str())
}

/// SERVERPROPERTY; NULL for one that is not known.
pub(crate) fn server_property(run: &Run<'_>, state: &State, property: &str) -> Value {
    let config = &run.shared.config;
    let (major, minor, build) = config.version;
    let folder = |path: &std::path::Path| text(&format!("{}/", path.display()));
    match property.to_lowercase().as_str() {
        "productversion" => text(&format!("{major}.{minor}.{build}.1")),
        "productmajorversion" => text(&major.to_string()),
        "productminorversion" => text(&minor.to_string()),
        "productbuild" => text(&build.to_string()),
        "productlevel" => text("RTM"),
        "edition" => text(&config.edition),
        "engineedition" => Value::Int(match config.edition.split(' ').next() {
            Some("Standard" | "Web") => 2,
            Some("Express") => 4,
            _ => 3,
        }),
        "instancename" if config.name == "MSSQLSERVER" => Value::Null,
        "instancename" => text(&config.name),
        "machinename" | "computernamephysicalnetbios" => text(&config.machine),
        "servername" => text(&config.server_name()),
        "ishadrenabled" => Value::Int(i32::from(state.replica.is_some())),
        "isclustered" | "issingleuser" | "isintegratedsecurityonly" | "filestreameffectivelevel" => {
            Value::Int(0)
        }
        "isxtpsupported" => Value::Int(1),
        "processid" => Value::Int(4242),
        "instancedefaultdatapath" => folder(&config.data_folder),
        "instancedefaultlogpath" => folder(&config.log_folder),
        "instancedefaultbackuppath" if major >= 15 => text(&config.backup_folder.display().to_string()),
        "collation" => text("SQL_Latin1_General_CP1_CI_AS"),
        "suspendeddatabasecount" if major >= 16 => {
            let count = state.databases.iter().filter(|database| database.suspended.is_some()).count();
            Value::Int(i32::try_from(count).unwrap_or(i32::MAX))
        }
        _ => Value::Null,
    }
}

/// DATABASEPROPERTYEX; NULL for one that is not known.
pub(crate) fn database_property(state: &State, name: &str, property: &str) -> Value {
    let Some(database) = state.find(name) else {
        return Value::Null;
    };
    let updateable = if database.is_read_only() { "READ_ONLY" } else { "READ_WRITE" };
    match property.to_lowercase().as_str() {
        "status" => text(database.state.shown().1),
        "recovery" => text(database.contents.recovery_model.shown().1),
        "updateability" => text(updateable),
        "useraccess" => text(database.access.shown().1),
        "collation" if database.state == DatabaseState::Online => text("SQL_Latin1_General_CP1_CI_AS"),
        "isinstandby" => Value::Int(i32::from(database.in_standby())),
        "isdatabasesuspendedforsnapshotbackup" => Value::Int(i32::from(database.suspended.is_some())),
        _ => Value::Null,
    }
}
