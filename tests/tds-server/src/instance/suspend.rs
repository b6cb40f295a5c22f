//! The freeze: SUSPEND_FOR_SNAPSHOT_BACKUP of a database, a group or the server, and the thaw.
//!
//! A frozen database takes no writes; reads go on. It thaws by BACKUP … METADATA_ONLY, by `= OFF` from any session, and
//! when the session that froze it ends. How long the longest freeze lasted is kept.

use std::time::Duration;

use super::Shared;
use super::catalogue::{Outcome, fail};
use super::database::{Database, DatabaseState, Suspended};
use super::options::save;
use super::rights;
use super::run::Run;
use super::state::State;

/// Databases of one group at most.
const GROUP_MAX: usize = 64;

/// ALTER DATABASE … SET SUSPEND_FOR_SNAPSHOT_BACKUP. Errors: 102 before 2022, 3081, 3082, 3091.
pub(crate) fn database(run: &mut Run<'_>, name: &str, on: bool, copy_only: bool) -> Outcome<()> {
    known_to(run)?;
    let own = run.state().database(name)?.name.clone();
    if on {
        freeze(run, std::slice::from_ref(&own), copy_only, "Database")?;
        return run.info(3086, &[&"Database", &own, &run.session.clone()]);
    }
    let froze = thaw(run, std::slice::from_ref(&own), true)?;
    run.info(3087, &[&"Database", &own, &froze, &run.session.clone()])
}

/// ALTER SERVER CONFIGURATION SET SUSPEND_FOR_SNAPSHOT_BACKUP. Errors: 3081, 3082, 3091, 3092, 3094.
pub(crate) fn server(run: &mut Run<'_>, on: bool, copy_only: bool, group: Option<&[String]>) -> Outcome<()> {
    known_to(run)?;
    let login = run.login();
    if !rights::has(&run.state(), &login, "ALTER SETTINGS") {
        return Err(fail(15247, &[]));
    }
    let server = run.shared.config.server_name();
    let (names, scope, shown) = match group {
        Some(names) => (names.to_vec(), "Group", names.join(",")),
        None => {
            let names = user_databases(&run.state(), on);
            (names, "Server", server.clone())
        }
    };
    for (index, name) in names.iter().enumerate() {
        if names[..index].iter().any(|other| super::state::same_name(other, name)) {
            return Err(fail(3092, &[name]));
        }
    }
    if names.is_empty() || names.len() > GROUP_MAX {
        return Err(if on { fail(3094, &[&server]) } else { fail(3082, &[&"Server", &server]) });
    }
    if on {
        freeze(run, &names, copy_only, scope)?;
        return run.info(3086, &[&scope, &shown, &run.session.clone()]);
    }
    let froze = thaw(run, &names, true)?;
    run.info(3087, &[&scope, &shown, &froze, &run.session.clone()])
}

fn user_databases(state: &State, to_freeze: bool) -> Vec<String> {
    let open = state.databases.iter().filter(|database| {
        !database.is_system()
            && database.state == DatabaseState::Online
            && !database.in_standby()
            && (to_freeze || database.suspended.is_some())
    });
    open.map(|database| database.name.clone()).collect()
}

/// The option came with 2022.
fn known_to(run: &Run<'_>) -> Outcome<()> {
    if run.shared.config.version.0 < 16 { Err(fail(102, &[&"SUSPEND_FOR_SNAPSHOT_BACKUP"])) } else { Ok(()) }
}

fn freeze(run: &mut Run<'_>, names: &[String], copy_only: bool, scope: &'static str) -> Outcome<()> {
    let now = run.now();
    let session = run.session;
    let durable = run.shared.config.durable;
    {
        let mut state = run.state();
        for name in names {
            let database = state.database(name)?;
            may_freeze(database)?;
        }
        for name in names {
            let database = state.database_mut(name)?;
            // A checkpoint, so that the files hold all that was committed.
            database.contents.checkpoint = database.contents.next;
            database.contents.next = database.contents.next.after(2);
            save(database, durable)?;
            database.suspended = Some(Suspended { session, since: now, copy_only, scope });
        }
    }
    for name in names {
        run.info(3083, &[name, &session])?;
        run.info(3197, &[name])?;
    }
    Ok(())
}

fn may_freeze(database: &Database) -> Outcome<()> {
    if database.is_system() || database.state != DatabaseState::Online || database.in_standby() {
        return Err(fail(3091, &[&database.name]));
    }
    if database.suspended.is_some() {
        return Err(fail(3081, &[&"Database", &database.name]));
    }
    Ok(())
}

/// Thaws; the session that froze. `spoils` is a thaw without a backup. Error 3082.
pub(crate) fn thaw(run: &mut Run<'_>, names: &[String], spoils: bool) -> Outcome<i16> {
    let now = run.now();
    let mut froze = run.session;
    let mut own = Vec::new();
    {
        let mut state = run.state();
        for name in names {
            let database = state.database(name)?;
            if database.suspended.is_none() {
                return Err(fail(3082, &[&"Database", &database.name]));
            }
            own.push(database.name.clone());
        }
        for name in &own {
            if let Some(session) = release(&mut state, name, now, spoils) {
                froze = session;
            }
        }
    }
    for name in &own {
        run.info(3198, &[name])?;
        run.info(3084, &[name, &froze])?;
    }
    Ok(froze)
}

/// Lets writes go on and notes how long they waited.
pub(crate) fn release(state: &mut State, name: &str, now: i64, spoils: bool) -> Option<i16> {
    let database = state.find_mut(name)?;
    let suspended = database.suspended.take()?;
    database.bitmap_spoiled |= spoils && !suspended.copy_only;
    let nanos = u64::try_from(now - suspended.since).unwrap_or(0);
    state.longest_freeze = state.longest_freeze.max(Duration::from_nanos(nanos));
    Some(suspended.session)
}

/// Thaws what an ended session froze.
pub(crate) fn session_ends(shared: &Shared, session: i16) {
    let now = shared.now();
    let mut state = shared.state();
    if state.keeps_freezes {
        return;
    }
    let frozen: Vec<String> = state
        .databases
        .iter()
        .filter(|database| database.suspended.as_ref().is_some_and(|suspended| suspended.session == session))
        .map(|database| database.name.clone())
        .collect();
    for name in frozen {
        release(&mut state, &name, now, true);
    }
}
