//! BACKUP and RESTORE.

use super::cursor::Cursor;
use super::expression::expression;
use crate::instance::ast::{BackupOptions, Expr, RestoreWhat, Statement};
use crate::instance::catalogue::{Outcome, fail};
use crate::instance::lex::Token;
use crate::reply::Value;

/// Options that stand alone.
const FLAGS: [&str; 26] = [
    "COPY_ONLY",
    "DIFFERENTIAL",
    "FORMAT",
    "NOFORMAT",
    "INIT",
    "NOINIT",
    "COMPRESSION",
    "NO_COMPRESSION",
    "CHECKSUM",
    "NO_CHECKSUM",
    "STATS",
    "METADATA_ONLY",
    "NORECOVERY",
    "RECOVERY",
    "REPLACE",
    "SKIP",
    "NOSKIP",
    "REWIND",
    "NOREWIND",
    "UNLOAD",
    "NOUNLOAD",
    "NO_TRUNCATE",
    "STOP_ON_ERROR",
    "CONTINUE_AFTER_ERROR",
    "RESTRICTED_USER",
    "LOADHISTORY",
];
/// Options with `= value`.
const VALUED: [&str; 15] = [
    "NAME",
    "DESCRIPTION",
    "STATS",
    "FILE",
    "STANDBY",
    "STOPAT",
    "STOPATMARK",
    "STOPBEFOREMARK",
    "DBNAME",
    "MEDIANAME",
    "MEDIADESCRIPTION",
    "BUFFERCOUNT",
    "MAXTRANSFERSIZE",
    "BLOCKSIZE",
    "RETAINDAYS",
];

/// After BACKUP.
pub(super) fn backup(cursor: &mut Cursor<'_>) -> Outcome<Statement> {
    let what = cursor.option()?;
    let (mut log, mut group) = (false, false);
    let databases = match what.as_str() {
        "DATABASE" => Some(vec![named(cursor)?]),
        "LOG" => {
            log = true;
            Some(vec![named(cursor)?])
        }
        "GROUP" => {
            group = true;
            let mut names = vec![named(cursor)?];
            while cursor.sign(",") {
                names.push(named(cursor)?);
            }
            Some(names)
        }
        "SERVER" => None,
        _ => return Err(fail(50_001, &[&format!("BACKUP {what}")])),
    };
    if cursor.is_word("FILE") || cursor.is_word("FILEGROUP") || cursor.is_word("READ_WRITE_FILEGROUPS") {
        return Err(fail(50_002, &[&"file and partial backups"]));
    }
    cursor.expect("TO")?;
    let mut options = BackupOptions::default();
    disks(cursor, &mut options)?;
    with(cursor, &mut options)?;
    refuse(&options, &["NORECOVERY", "COPY_ONLY", "NO_TRUNCATE", "STANDBY"], !log, "BACKUP DATABASE")?;
    Ok(Statement::Backup { log, group, databases, options })
}

/// Error 155 for options of the other statement.
fn refuse(options: &BackupOptions, for_log: &[&str], database: bool, statement: &str) -> Outcome<()> {
    for (flag, _) in &options.flags {
        if database && for_log.contains(&flag.as_str()) && flag != "COPY_ONLY" {
            return Err(fail(155, &[flag, &statement]));
        }
    }
    Ok(())
}

/// A database's name or the variable that holds it.
fn named(cursor: &mut Cursor<'_>) -> Outcome<Expr> {
    if let Some(Token::Variable(name)) = cursor.peek() {
        cursor.at += 1;
        return Ok(Expr::Variable(name.clone()));
    }
    Ok(Expr::Literal(Value::NVarChar(cursor.name()?)))
}

/// A text or the variable that holds it.
fn text(cursor: &mut Cursor<'_>) -> Outcome<Expr> {
    match cursor.peek() {
        Some(Token::Text(_) | Token::Variable(_)) => expression(cursor),
        _ => Err(cursor.wrong()),
    }
}

fn disks(cursor: &mut Cursor<'_>, options: &mut BackupOptions) -> Outcome<()> {
    loop {
        if cursor.is_word("URL") || cursor.is_word("TAPE") || !cursor.is_word("DISK") {
            return Err(fail(50_002, &[&"a backup device that is no DISK"]));
        }
        cursor.at += 1;
        cursor.expect_sign("=")?;
        options.disks.push(text(cursor)?);
        if !cursor.sign(",") {
            return Ok(());
        }
    }
}

fn with(cursor: &mut Cursor<'_>, options: &mut BackupOptions) -> Outcome<()> {
    if !cursor.word("WITH") {
        return Ok(());
    }
    loop {
        let option = cursor.option()?;
        if option == "MOVE" {
            let from = text(cursor)?;
            cursor.expect("TO")?;
            options.moves.push((from, text(cursor)?));
        } else if cursor.is_sign("=") && VALUED.contains(&option.as_str()) {
            cursor.at += 1;
            let value = expression(cursor)?;
            let of_mark = option == "STOPATMARK" || option == "STOPBEFOREMARK";
            options.flags.push((option, Some(value)));
            if of_mark && cursor.word("AFTER") {
                options.flags.push(("AFTER".to_owned(), Some(text(cursor)?)));
            }
        } else if FLAGS.contains(&option.as_str()) {
            options.flags.push((option, None));
        } else if [
            "KEEP_REPLICATION",
            "KEEP_CDC",
            "PARTIAL",
            "ENCRYPTION",
            "CREDENTIAL",
            "RESTART",
            "SNAPSHOT",
        ]
        .contains(&option.as_str())
        {
            return Err(fail(50_002, &[&option]));
        } else {
            return Err(fail(155, &[&option, &"BACKUP/RESTORE"]));
        }
        if !cursor.sign(",") {
            return Ok(());
        }
    }
}

/// After RESTORE.
pub(super) fn restore(cursor: &mut Cursor<'_>) -> Outcome<Statement> {
    let word = cursor.option()?;
    let what = match word.as_str() {
        "DATABASE" => RestoreWhat::Database,
        "LOG" => RestoreWhat::Log,
        "HEADERONLY" => RestoreWhat::HeaderOnly,
        "FILELISTONLY" => RestoreWhat::FileListOnly,
        "LABELONLY" => RestoreWhat::LabelOnly,
        "VERIFYONLY" => RestoreWhat::VerifyOnly,
        _ => return Err(fail(50_001, &[&format!("RESTORE {word}")])),
    };
    let of_database = matches!(what, RestoreWhat::Database | RestoreWhat::Log);
    let name = if of_database { Some(named(cursor)?) } else { None };
    for part in ["FILE", "FILEGROUP", "PAGE", "READ_WRITE_FILEGROUPS"] {
        if of_database && cursor.is_word(part) {
            return Err(fail(50_002, &[&format!("RESTORE of a {part}")]));
        }
    }
    let mut options = BackupOptions::default();
    if cursor.word("FROM") {
        disks(cursor, &mut options)?;
    } else if !of_database {
        return Err(cursor.wrong());
    }
    with(cursor, &mut options)?;
    Ok(Statement::Restore { what, name, options })
}
