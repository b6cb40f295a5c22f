//! ALTER DATABASE: states, access, recovery model; files go to `files`, the freeze to `suspend`.

use super::ast::{Alteration, Termination};
use super::catalogue::{Outcome, Stop, fail};
use super::database::{Database, DatabaseState, RecoveryModel, UserAccess};
use super::run::Run;
use super::state::{State, same_name};
use super::{files, online, rights, storage, suspend};
use crate::reply::Part;

/// ALTER DATABASE. Every error but those of a rename is followed by 5069.
pub(crate) fn alter(
    run: &mut Run<'_>,
    name: &str,
    changes: &[Alteration],
    termination: Termination,
) -> Outcome<()> {
    for change in changes {
        let outcome = one(run, name, change, termination);
        let alone = matches!(change, Alteration::Rename(_));
        outcome.map_err(|stop| if alone { stop } else { stop.then(5069, &[]) })?;
    }
    Ok(())
}

fn one(run: &mut Run<'_>, name: &str, change: &Alteration, termination: Termination) -> Outcome<()> {
    permitted(run, name, change)?;
    match change {
        Alteration::Suspend { on, copy_only } => return suspend::database(run, name, *on, *copy_only),
        Alteration::ModifyFile(_)
        | Alteration::AddFile { .. }
        | Alteration::RemoveFile(_)
        | Alteration::AddGroup(_)
        | Alteration::RemoveGroup(_) => return files::change(run, name, change),
        _ => {}
    }
    let exclusive = matches!(
        change,
        Alteration::Offline
            | Alteration::SingleUser
            | Alteration::ReadOnly(_)
            | Alteration::Rename(_)
            | Alteration::Emergency
    );
    if exclusive {
        take_alone(run, name, termination, matches!(change, Alteration::Rename(_)))?;
    }
    if matches!(change, Alteration::Offline | Alteration::Emergency) && same_name(&run.database(), name) {
        rights::move_to(run, "master")?;
    }
    let renamed = {
        let mut state = run.state();
        apply(run, &mut state, name, change)?
    };
    if let Some(new) = renamed {
        run.info(5021, &[&"database", &new])?;
        if same_name(&run.database(), &new) {
            run.send(Part::Database(new))?;
        }
    }
    Ok(())
}

/// Errors 5011, 5052, 5058, 5061 and the like before anything changes.
fn permitted(run: &Run<'_>, name: &str, change: &Alteration) -> Outcome<()> {
    let login = run.login();
    let state = run.state();
    let Some(database) = state.find(name).filter(|database| rights::may_alter(&state, &login, database))
    else {
        return Err(fail(5011, &[&name]));
    };
    let frozen = database.suspended.is_some() && !matches!(change, Alteration::Suspend { .. });
    if frozen || database.busy.is_some_and(|session| session != run.session) {
        return Err(fail(5061, &[&database.name]));
    }
    if database.is_system() && !matches!(change, Alteration::Recovery(_) | Alteration::Harmless) {
        return Err(match change {
            Alteration::Rename(_) => fail(5016, &[&database.name]),
            Alteration::Suspend { .. } => fail(3091, &[&database.name]),
            other => fail(5058, &[&option_name(other), &database.name]),
        });
    }
    let single = database.access == UserAccess::Single;
    if single && !matches!(change, Alteration::MultiUser) && has_other_user(&state, database, run.session) {
        return Err(fail(5064, &[&database.name]));
    }
    match database.state {
        DatabaseState::Online | DatabaseState::Emergency => Ok(()),
        DatabaseState::Restoring => Err(fail(5052, &[&"ALTER DATABASE", &"Restoring"])),
        DatabaseState::Recovering => Err(fail(5052, &[&"ALTER DATABASE", &"Recovering"])),
        DatabaseState::Offline | DatabaseState::Suspect | DatabaseState::RecoveryPending => match change {
            Alteration::Online | Alteration::Offline | Alteration::Emergency | Alteration::ModifyFile(_) => {
                Ok(())
            }
            Alteration::Rename(_) if database.state == DatabaseState::Offline => Ok(()),
            Alteration::MultiUser | Alteration::SingleUser => Ok(()),
            _ => rights::open_for_use(database),
        },
    }
}

fn has_other_user(state: &State, database: &Database, session: i16) -> bool {
    !state.users_of(&database.name, session).is_empty()
}

fn option_name(change: &Alteration) -> &'static str {
    match change {
        Alteration::Online => "ONLINE",
        Alteration::Offline => "OFFLINE",
        Alteration::Emergency => "EMERGENCY",
        Alteration::SingleUser => "SINGLE_USER",
        Alteration::MultiUser => "MULTI_USER",
        Alteration::RestrictedUser => "RESTRICTED_USER",
        Alteration::ReadOnly(true) => "READ_ONLY",
        Alteration::ReadOnly(false) => "READ_WRITE",
        _ => "FILE",
    }
}

/// Waits for other sessions to leave, ends them, or gives up. Errors: 5030 for a rename, 5070 with NO_WAIT.
fn take_alone(run: &mut Run<'_>, name: &str, termination: Termination, rename: bool) -> Outcome<()> {
    loop {
        let others = run.state().users_of(name, run.session);
        if others.is_empty() {
            return Ok(());
        }
        match termination {
            _ if rename => return Err(fail(5030, &[&name])),
            Termination::NoWait => return Err(fail(5070, &[&name])),
            Termination::RollbackImmediate => {
                run.state().kill(&others);
                run.info(5060, &[&0])?;
                run.info(5060, &[&100])?;
            }
            Termination::Wait => run.look_again()?,
        }
    }
}

/// Does it; the new name of a renamed database.
fn apply(run: &Run<'_>, state: &mut State, name: &str, change: &Alteration) -> Outcome<Option<String>> {
    let config = &run.shared.config;
    if let Alteration::Rename(new) = change
        && state.find(new).is_some_and(|found| !same_name(&found.name, name))
    {
        return Err(fail(1801, &[new]));
    }
    let standby_refuses = matches!(
        change,
        Alteration::ReadOnly(_)
            | Alteration::Recovery(_)
            | Alteration::SingleUser
            | Alteration::RestrictedUser
    );
    let database = state.database_mut(name)?;
    if database.in_standby() && standby_refuses {
        return Err(fail(5063, &[&database.name]));
    }
    match change {
        Alteration::Online if database.state != DatabaseState::Online => {
            online::online(database, config.database_version(), config.durable)?;
        }
        Alteration::Offline => online::offline(database, config.durable)?,
        Alteration::Emergency => database.state = DatabaseState::Emergency,
        Alteration::SingleUser => database.access = UserAccess::Single,
        Alteration::MultiUser => database.access = UserAccess::Multi,
        Alteration::RestrictedUser => database.access = UserAccess::Restricted,
        Alteration::ReadOnly(on) => {
            database.contents.read_only = *on;
            save(database, config.durable)?;
        }
        Alteration::Recovery(model) => {
            set_model(database, *model);
            if !database.is_system() {
                save(database, config.durable)?;
            }
        }
        Alteration::Rename(new) => {
            database.name.clone_from(new);
            if database.state == DatabaseState::Online {
                save(database, config.durable)?;
            }
            for connection in state.sessions.values_mut().filter(|session| same_name(&session.database, name))
            {
                connection.database.clone_from(new);
            }
            return Ok(Some(new.clone()));
        }
        _ => {}
    }
    Ok(None)
}

/// SIMPLE ends the chain of log backups; leaving it begins none before the next full or differential.
fn set_model(database: &mut Database, model: RecoveryModel) {
    let contents = &mut database.contents;
    if model == RecoveryModel::Simple {
        contents.log_backup = None;
        contents.chain_begun = false;
    }
    contents.recovery_model = model;
    contents.next = contents.next.after(2);
}

/// Writes the state. Error 3634.
pub(crate) fn save(database: &mut Database, durable: bool) -> Result<(), Stop> {
    storage::write(database, durable).map_err(|error| storage::write_failed(database.path(1), &error))
}
