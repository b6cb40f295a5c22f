//! ALTER.

use super::create::{file, filegroup};
use super::cursor::Cursor;
use super::security;
use crate::instance::ast::{Alteration, Statement, Termination};
use crate::instance::catalogue::{Outcome, fail};
use crate::instance::database::RecoveryModel;

/// After ALTER.
pub(super) fn alter(cursor: &mut Cursor<'_>) -> Outcome<Statement> {
    if cursor.word("DATABASE") {
        return database(cursor);
    }
    if cursor.words(&["SERVER", "CONFIGURATION"]) {
        return configuration(cursor);
    }
    if cursor.words(&["SERVER", "ROLE"]) {
        return security::role(cursor, true).map(Statement::Security);
    }
    if cursor.word("ROLE") {
        return security::role(cursor, false).map(Statement::Security);
    }
    if cursor.word("LOGIN") {
        return security::alter_login(cursor).map(Statement::Security);
    }
    if cursor.word("AUTHORIZATION") {
        return security::authorization(cursor).map(Statement::Security);
    }
    let what = cursor.option()?;
    Err(fail(50_001, &[&format!("ALTER {what}")]))
}

fn database(cursor: &mut Cursor<'_>) -> Outcome<Statement> {
    let name = cursor.name()?;
    let mut termination = Termination::Wait;
    let change = if cursor.word("SET") {
        let mut changes = vec![option(cursor)?];
        while cursor.sign(",") {
            changes.push(option(cursor)?);
        }
        if cursor.word("WITH") {
            termination = ending(cursor)?;
        }
        changes
    } else if cursor.word("MODIFY") {
        vec![modify(cursor)?]
    } else if cursor.word("ADD") {
        vec![add(cursor)?]
    } else if cursor.word("REMOVE") {
        vec![if cursor.word("FILEGROUP") {
            Alteration::RemoveGroup(cursor.name()?)
        } else {
            cursor.expect("FILE")?;
            Alteration::RemoveFile(cursor.name()?)
        }]
    } else {
        return Err(cursor.wrong());
    };
    Ok(Statement::AlterDatabase { name, change, termination })
}

fn ending(cursor: &mut Cursor<'_>) -> Outcome<Termination> {
    if cursor.word("NO_WAIT") {
        return Ok(Termination::NoWait);
    }
    cursor.expect("ROLLBACK")?;
    if cursor.word("AFTER") {
        return Err(fail(50_002, &[&"ROLLBACK AFTER"]));
    }
    cursor.expect("IMMEDIATE")?;
    Ok(Termination::RollbackImmediate)
}

fn option(cursor: &mut Cursor<'_>) -> Outcome<Alteration> {
    let option = cursor.option()?;
    Ok(match option.as_str() {
        "ONLINE" => Alteration::Online,
        "OFFLINE" => Alteration::Offline,
        "EMERGENCY" => Alteration::Emergency,
        "SINGLE_USER" => Alteration::SingleUser,
        "MULTI_USER" => Alteration::MultiUser,
        "RESTRICTED_USER" => Alteration::RestrictedUser,
        "READ_ONLY" => Alteration::ReadOnly(true),
        "READ_WRITE" => Alteration::ReadOnly(false),
        "RECOVERY" => Alteration::Recovery(match cursor.option()?.as_str() {
            "FULL" => RecoveryModel::Full,
            "BULK_LOGGED" => RecoveryModel::BulkLogged,
            "SIMPLE" => RecoveryModel::Simple,
            _ => return Err(cursor.wrong()),
        }),
        "SUSPEND_FOR_SNAPSHOT_BACKUP" => {
            cursor.expect_sign("=")?;
            let on = switch(cursor)?;
            let copy_only = cursor.sign("(") && mode(cursor)?;
            if copy_only {
                cursor.expect_sign(")")?;
            }
            Alteration::Suspend { on, copy_only }
        }
        "PAGE_VERIFY" => {
            cursor.option()?;
            Alteration::Harmless
        }
        "AUTO_CLOSE"
        | "AUTO_SHRINK"
        | "AUTO_CREATE_STATISTICS"
        | "AUTO_UPDATE_STATISTICS"
        | "TRUSTWORTHY"
        | "DB_CHAINING"
        | "READ_COMMITTED_SNAPSHOT" => {
            switch(cursor)?;
            Alteration::Harmless
        }
        _ => return Err(fail(50_001, &[&format!("ALTER DATABASE SET {option}")])),
    })
}

fn switch(cursor: &mut Cursor<'_>) -> Outcome<bool> {
    if cursor.word("ON") {
        return Ok(true);
    }
    cursor.expect("OFF")?;
    Ok(false)
}

/// `MODE = COPY_ONLY`.
fn mode(cursor: &mut Cursor<'_>) -> Outcome<bool> {
    cursor.expect("MODE")?;
    cursor.expect_sign("=")?;
    cursor.expect("COPY_ONLY")?;
    Ok(true)
}

fn modify(cursor: &mut Cursor<'_>) -> Outcome<Alteration> {
    if cursor.word("NAME") {
        cursor.expect_sign("=")?;
        return cursor.name().map(Alteration::Rename);
    }
    if cursor.word("FILE") {
        return file(cursor).map(Alteration::ModifyFile);
    }
    Err(fail(50_001, &[&"ALTER DATABASE MODIFY FILEGROUP"]))
}

fn add(cursor: &mut Cursor<'_>) -> Outcome<Alteration> {
    if cursor.word("FILEGROUP") {
        return filegroup(cursor).map(Alteration::AddGroup);
    }
    let log = cursor.word("LOG");
    cursor.expect("FILE")?;
    let file = file(cursor)?;
    if cursor.is_sign(",") {
        return Err(fail(50_002, &[&"ADD FILE of several files"]));
    }
    let group = if cursor.words(&["TO", "FILEGROUP"]) { Some(cursor.name()?) } else { None };
    Ok(Alteration::AddFile { file, log, group })
}

/// `SET SUSPEND_FOR_SNAPSHOT_BACKUP = ON (GROUP = (a, b), MODE = COPY_ONLY)`.
fn configuration(cursor: &mut Cursor<'_>) -> Outcome<Statement> {
    cursor.expect("SET")?;
    if !cursor.word("SUSPEND_FOR_SNAPSHOT_BACKUP") {
        return Err(fail(50_001, &[&"ALTER SERVER CONFIGURATION"]));
    }
    cursor.expect_sign("=")?;
    let on = switch(cursor)?;
    let mut group = None;
    let mut copy_only = false;
    if cursor.sign("(") {
        loop {
            if cursor.word("GROUP") {
                cursor.expect_sign("=")?;
                cursor.expect_sign("(")?;
                let mut names = vec![cursor.name()?];
                while cursor.sign(",") {
                    names.push(cursor.name()?);
                }
                cursor.expect_sign(")")?;
                group = Some(names);
            } else {
                copy_only = mode(cursor)?;
            }
            if !cursor.sign(",") {
                break;
            }
        }
        cursor.expect_sign(")")?;
    }
    Ok(Statement::SuspendServer { on, copy_only, group })
}
