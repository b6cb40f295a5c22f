//! DROP DATABASE and sp_detach_db: the one deletes files, the other leaves them.

use super::ast::Expr;
use super::catalogue::{Outcome, fail};
use super::database::{Database, DatabaseState};
use super::rights;
use super::run::Run;
use super::state::{State, same_name};
use super::storage;

/// Whether somebody is in the database or works on it.
fn in_use(state: &State, database: &Database, session: i16) -> bool {
    let own = state
        .sessions
        .get(&session)
        .is_some_and(|connection| same_name(&connection.database, &database.name));
    own || database.busy.is_some()
        || database.suspended.is_some()
        || !state.users_of(&database.name, session).is_empty()
}

/// DROP DATABASE. Errors: 3701, 3702, 3708, 3752.
pub(crate) fn drop_databases(run: &mut Run<'_>, names: &[String], if_exists: bool) -> Outcome<()> {
    let login = run.login();
    for name in names {
        let mut state = run.state();
        let Some(database) = state.find(name) else {
            if if_exists {
                continue;
            }
            return Err(fail(3701, &[name]));
        };
        if database.is_system() {
            return Err(fail(3708, &[name]));
        }
        if !rights::may_alter(&state, &login, database) {
            return Err(fail(3701, &[name]));
        }
        if database.replicated {
            return Err(fail(3752, &[name]));
        }
        if in_use(&state, database, run.session) {
            return Err(fail(3702, &[name]));
        }
        let at = state.databases.iter().position(|found| same_name(&found.name, name));
        if let Some(at) = at {
            let mut database = state.databases.remove(at);
            // Files of an offline database are left, as documented.
            if database.state != DatabaseState::Offline {
                storage::delete(&mut database);
            }
        }
    }
    Ok(())
}

/// sp_detach_db. Errors: 15010, 15247, 3703, 3707, 3708, 3752.
pub(crate) fn detach(run: &mut Run<'_>, name: &Expr) -> Outcome<()> {
    let name = run.text(name)?;
    let login = run.login();
    let durable = run.shared.config.durable;
    let mut state = run.state();
    let Some(database) = state.find(&name) else {
        return Err(fail(15010, &[&name]));
    };
    if database.is_system() {
        return Err(fail(3708, &[&name]));
    }
    if !rights::may_alter(&state, &login, database) {
        return Err(fail(15247, &[]));
    }
    if database.replicated {
        return Err(fail(3752, &[&name]));
    }
    match database.state {
        DatabaseState::Suspect | DatabaseState::RecoveryPending => return Err(fail(3707, &[])),
        DatabaseState::Restoring => return Err(fail(927, &[&database.name])),
        _ => {}
    }
    if in_use(&state, database, run.session) {
        return Err(fail(3703, &[&name]));
    }
    let at = state.databases.iter().position(|found| same_name(&found.name, &name));
    if let Some(at) = at {
        let database = &mut state.databases[at];
        if database.state == DatabaseState::Online {
            storage::write(database, durable)
                .map_err(|error| storage::write_failed(database.path(1), &error))?;
        }
        state.databases.remove(at);
    }
    Ok(())
}
