//! Who may do what: logins, roles, rights, and the database that a session is in.

use super::ast::{Expr, Security};
use super::catalogue::{Outcome, fail};
use super::database::{Database, DatabaseState, UserAccess};
use super::run::Run;
use super::state::{Principal, State, same_name};
use super::value::whole;
use crate::reply::Part;

/// A login by name.
pub(crate) fn principal<'a>(state: &'a State, login: &str) -> Option<&'a Principal> {
    state.principals.iter().find(|principal| same_name(&principal.name, login))
}

/// Whether a login is in a server role; sysadmin is in none but its own.
pub(crate) fn in_role(state: &State, login: &str, role: &str) -> bool {
    principal(state, login).is_some_and(|principal| principal.roles.contains(role))
}

/// Whether a login has a right on the server, by itself or through a wider one.
pub(crate) fn has(state: &State, login: &str, right: &str) -> bool {
    if in_role(state, login, "sysadmin") {
        return true;
    }
    let Some(principal) = principal(state, login) else {
        return false;
    };
    let wider: &[&str] = match right {
        "VIEW SERVER PERFORMANCE STATE" | "VIEW SERVER SECURITY STATE" => {
            &["VIEW SERVER STATE", "CONTROL SERVER"]
        }
        "CREATE ANY DATABASE" => &["ALTER ANY DATABASE", "CONTROL SERVER"],
        "VIEW ANY DATABASE" => return true,
        "CONNECT SQL" => return !principal.disabled,
        _ => &["CONTROL SERVER"],
    };
    let by_role = principal.roles.contains("dbcreator") && right.ends_with("ANY DATABASE");
    by_role || principal.rights.contains(right) || wider.iter().any(|right| principal.rights.contains(*right))
}

/// Whether a login may see what the server does; 2022 split the right.
pub(crate) fn sees_server(state: &State, login: &str) -> bool {
    has(state, login, "VIEW SERVER STATE") || has(state, login, "VIEW SERVER PERFORMANCE STATE")
}

/// Whether a login owns a database or is a member of a role of it.
pub(crate) fn in_database_role(state: &State, login: &str, database: &Database, role: &str) -> bool {
    let member = database.users.get(&login.to_lowercase());
    let by_role = member.is_some_and(|roles| roles.iter().any(|own| own == role || own == "db_owner"));
    in_role(state, login, "sysadmin") || same_name(&database.owner, login) || by_role
}

/// Whether a login may change a database's options.
pub(crate) fn may_alter(state: &State, login: &str, database: &Database) -> bool {
    has(state, login, "ALTER ANY DATABASE") || in_database_role(state, login, database, "db_owner")
}

/// Whether a login is let into a database.
pub(crate) fn may_enter(state: &State, login: &str, database: &Database) -> bool {
    let open_to_all = ["master", "tempdb", "msdb"].contains(&database.name.as_str());
    let is_user = database.users.contains_key(&login.to_lowercase());
    open_to_all || is_user || in_database_role(state, login, database, "db_owner")
}

/// Error of a database that is not open: 927, 942, 926, 945, 922.
pub(crate) fn open_for_use(database: &Database) -> Outcome<()> {
    let number = match database.state {
        DatabaseState::Online | DatabaseState::Emergency => return Ok(()),
        DatabaseState::Restoring => 927,
        DatabaseState::Offline => 942,
        DatabaseState::Suspect => 926,
        DatabaseState::RecoveryPending => 945,
        DatabaseState::Recovering => 922,
    };
    Err(fail(number, &[&database.name]))
}

/// The database's own name if `login` may go there from `session`. Errors: 911, 916, 924, those of [`open_for_use`].
pub(crate) fn enter(state: &State, login: &str, name: &str, session: i16) -> Outcome<String> {
    let database = state.database(name)?;
    open_for_use(database)?;
    if !may_enter(state, login, database) {
        return Err(fail(916, &[&login, &database.name]));
    }
    if database.access == UserAccess::Single && !state.users_of(&database.name, session).is_empty() {
        return Err(fail(924, &[&database.name]));
    }
    Ok(database.name.clone())
}

/// USE.
pub(crate) fn use_database(run: &mut Run<'_>, name: &str) -> Outcome<()> {
    let login = run.login();
    let own = enter(&run.state(), &login, name, run.session)?;
    move_to(run, &own)
}

/// Puts the session into a database and tells the client.
pub(crate) fn move_to(run: &mut Run<'_>, name: &str) -> Outcome<()> {
    run.connection(|connection| name.clone_into(&mut connection.database))?;
    run.send(Part::Database(name.to_owned()))?;
    run.info(5701, &[&name])
}

/// KILL. Errors: 6102, 6104, 6106.
pub(crate) fn kill(run: &mut Run<'_>, session: &Expr) -> Outcome<()> {
    let number = whole(&run.value(session)?).and_then(|number| i16::try_from(number).ok()).unwrap_or(0);
    let login = run.login();
    let own = run.session;
    let mut state = run.state();
    if !has(&state, &login, "ALTER ANY CONNECTION") {
        return Err(fail(6102, &[]));
    }
    if number == own {
        return Err(fail(6104, &[]));
    }
    if state.sessions.get(&number).is_none_or(|connection| connection.killed) {
        return Err(fail(6106, &[&number]));
    }
    state.kill(&[number]);
    Ok(())
}

/// Statements on logins, users and rights.
pub(crate) fn change(run: &mut Run<'_>, change: &Security) -> Outcome<()> {
    let login = run.login();
    let current = run.database();
    let mut state = run.state();
    match change {
        Security::CreateUser { .. } | Security::DropUser { .. } | Security::Role { server: false, .. } => {
            in_database(&mut state, &login, &current, change)
        }
        Security::Owner { database, login: owner } => set_owner(&mut state, &login, database, owner),
        _ if !has(&state, &login, "ALTER ANY LOGIN") => Err(fail(15247, &[])),
        _ => on_server(&mut state, change),
    }
}

fn set_owner(state: &mut State, login: &str, database: &str, owner: &str) -> Outcome<()> {
    let missing = |what: &str, name: &str| fail(15151, &[&"find", &what, &name]);
    let Some(owner) = principal(state, owner).map(|principal| principal.name.clone()) else {
        return Err(missing("principal", owner));
    };
    let allowed = state.find(database).is_some_and(|database| may_alter(state, login, database));
    match state.find_mut(database).filter(|_| allowed) {
        Some(database) => {
            open_for_use(database)?;
            database.owner = owner;
            Ok(())
        }
        None => Err(missing("database", database)),
    }
}

fn in_database(state: &mut State, login: &str, current: &str, change: &Security) -> Outcome<()> {
    let missing = |verb: &str, what: &str, name: &str| fail(15151, &[&verb, &what, &name]);
    if !state.find(current).is_some_and(|database| in_database_role(state, login, database, "db_owner")) {
        return Err(fail(15247, &[]));
    }
    if let Security::CreateUser { login, .. } = change
        && principal(state, login).is_none()
    {
        return Err(missing("find", "login", login));
    }
    let users = &mut state.database_mut(current)?.users;
    match change {
        // Users are known by their login: a user of another name than its login's is not modelled.
        Security::CreateUser { name, login } if !same_name(name, login) => {
            Err(fail(50_002, &[&"a user of another name than its login"]))
        }
        Security::CreateUser { name, .. } if users.contains_key(&name.to_lowercase()) => {
            Err(fail(15023, &[name]))
        }
        Security::CreateUser { name, .. } => {
            users.insert(name.to_lowercase(), Vec::new());
            Ok(())
        }
        Security::DropUser { name, if_exists } => match users.remove(&name.to_lowercase()) {
            None if !if_exists => Err(missing("drop", "user", name)),
            _ => Ok(()),
        },
        Security::Role { role, member, add, .. } => {
            let Some(roles) = users.get_mut(&member.to_lowercase()) else {
                return Err(missing("add", "principal", member));
            };
            roles.retain(|own| own != role);
            if *add {
                roles.push(role.clone());
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn on_server(state: &mut State, change: &Security) -> Outcome<()> {
    let missing = |verb: &str, name: &str| fail(15151, &[&verb, &"login", &name]);
    let find = |state: &State, name: &str| state.principals.iter().position(|own| same_name(&own.name, name));
    match change {
        Security::CreateLogin { name, password } => {
            if find(state, name).is_some() {
                return Err(fail(15025, &[name]));
            }
            let (name, password) = (name.clone(), password.clone());
            state.principals.push(Principal { name, password, ..Principal::default() });
        }
        Security::AlterLogin { name, password, enabled, new_name } => {
            let at = find(state, name).ok_or_else(|| missing("alter", name))?;
            let principal = &mut state.principals[at];
            if let Some(password) = password {
                principal.password.clone_from(password);
            }
            principal.disabled = enabled.map_or(principal.disabled, |enabled| !enabled);
            if let Some(name) = new_name {
                principal.name.clone_from(name);
            }
        }
        Security::DropLogin(name) => {
            let at = find(state, name).ok_or_else(|| missing("drop", name))?;
            state.principals.remove(at);
        }
        Security::Role { role, member, add, .. } => {
            let at = find(state, member).ok_or_else(|| missing("add", member))?;
            let roles = &mut state.principals[at].roles;
            if *add {
                roles.insert(role.clone())
            } else {
                roles.remove(role)
            };
        }
        Security::Grant { rights, object, to, revoke } => {
            let at = find(state, to).ok_or_else(|| missing("find", to))?;
            let own = &mut state.principals[at].rights;
            for right in rights {
                let right =
                    object.as_ref().map_or_else(|| right.clone(), |object| format!("{right} ON {object}"));
                if *revoke {
                    own.remove(&right)
                } else {
                    own.insert(right)
                };
            }
        }
        _ => {}
    }
    Ok(())
}
