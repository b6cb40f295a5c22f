//! CREATE and DROP.

use super::cursor::Cursor;
use super::expression::type_name;
use super::security;
use crate::instance::ast::{FileSpec, GroupSpec, Statement};
use crate::instance::catalogue::{Outcome, fail};
use crate::instance::lex::Token;

/// After CREATE.
pub(super) fn create(cursor: &mut Cursor<'_>) -> Outcome<Statement> {
    if cursor.word("DATABASE") {
        return database(cursor);
    }
    if cursor.word("LOGIN") {
        return security::create_login(cursor).map(Statement::Security);
    }
    if cursor.word("USER") {
        return security::create_user(cursor).map(Statement::Security);
    }
    let what = cursor.option()?;
    Err(fail(50_001, &[&format!("CREATE {what}")]))
}

/// After DROP.
pub(super) fn drop(cursor: &mut Cursor<'_>) -> Outcome<Statement> {
    let what = cursor.option()?;
    let if_exists = cursor.words(&["IF", "EXISTS"]);
    match what.as_str() {
        "DATABASE" => {
            let mut names = vec![cursor.name()?];
            while cursor.sign(",") {
                names.push(cursor.name()?);
            }
            Ok(Statement::DropDatabase { names, if_exists })
        }
        "LOGIN" if !if_exists => {
            Ok(Statement::Security(crate::instance::ast::Security::DropLogin(cursor.name()?)))
        }
        "USER" => {
            let name = cursor.name()?;
            Ok(Statement::Security(crate::instance::ast::Security::DropUser { name, if_exists }))
        }
        _ => Err(fail(50_001, &[&format!("DROP {what}")])),
    }
}

fn database(cursor: &mut Cursor<'_>) -> Outcome<Statement> {
    let name = cursor.name()?;
    let mut files = Vec::new();
    let mut groups: Vec<GroupSpec> = Vec::new();
    let mut logs = Vec::new();
    let mut attach = false;
    if cursor.words(&["CONTAINMENT"]) {
        cursor.expect_sign("=")?;
        cursor.expect("NONE")?;
    }
    if cursor.word("ON") {
        cursor.word("PRIMARY");
        let mut group = None;
        loop {
            if cursor.word("FILEGROUP") {
                groups.push(filegroup(cursor)?);
                group = Some(groups.len() - 1);
            }
            files.push(FileSpec { group, ..file(cursor)? });
            if !cursor.sign(",") {
                break;
            }
        }
    }
    if cursor.words(&["LOG", "ON"]) {
        loop {
            logs.push(file(cursor)?);
            if !cursor.sign(",") {
                break;
            }
        }
    }
    if cursor.word("COLLATE") {
        type_name(cursor)?;
    }
    if cursor.word("FOR") {
        if cursor.word("ATTACH_REBUILD_LOG") {
            return Err(fail(50_002, &[&"FOR ATTACH_REBUILD_LOG"]));
        }
        cursor.expect("ATTACH")?;
        attach = true;
    }
    if cursor.is_word("WITH") || cursor.is_word("AS") {
        return Err(fail(50_002, &[&"WITH and AS SNAPSHOT of CREATE DATABASE"]));
    }
    Ok(Statement::CreateDatabase { name, files, groups, logs, attach })
}

/// A filegroup's name and what it contains: `FG`, `FD`, `FX`.
pub(super) fn filegroup(cursor: &mut Cursor<'_>) -> Outcome<GroupSpec> {
    let name = cursor.name()?;
    let mut kind = "FG";
    if cursor.word("CONTAINS") {
        kind = match cursor.option()?.as_str() {
            "FILESTREAM" => "FD",
            "MEMORY_OPTIMIZED_DATA" => "FX",
            _ => return Err(cursor.wrong()),
        };
    }
    cursor.word("DEFAULT");
    Ok((name, kind))
}

/// `(NAME = …, FILENAME = …, …)`.
pub(super) fn file(cursor: &mut Cursor<'_>) -> Outcome<FileSpec> {
    let mut spec = FileSpec::default();
    cursor.expect_sign("(")?;
    loop {
        let option = cursor.option()?;
        if option == "OFFLINE" {
            return Err(fail(50_002, &[&"OFFLINE of a file"]));
        }
        cursor.expect_sign("=")?;
        match option.as_str() {
            "NAME" => spec.name = Some(name_or_text(cursor)?),
            "NEWNAME" => spec.new_name = Some(name_or_text(cursor)?),
            "FILENAME" => spec.path = Some(cursor.text()?),
            "SIZE" => spec.pages = Some(pages(cursor)?),
            "MAXSIZE" if cursor.word("UNLIMITED") => {}
            "MAXSIZE" | "FILEGROWTH" => {
                pages(cursor)?;
                cursor.sign("%");
            }
            _ => {
                cursor.at -= 2;
                return Err(cursor.wrong());
            }
        }
        if !cursor.sign(",") {
            break;
        }
    }
    cursor.expect_sign(")")?;
    Ok(spec)
}

fn name_or_text(cursor: &mut Cursor<'_>) -> Outcome<String> {
    if matches!(cursor.peek(), Some(Token::Text(_))) { cursor.text() } else { cursor.name() }
}

/// A size in MB unless it says otherwise, as pages.
fn pages(cursor: &mut Cursor<'_>) -> Outcome<u64> {
    let Some(Token::Number(digits)) = cursor.next() else {
        return Err(cursor.wrong());
    };
    let number: u64 = digits.parse().map_err(|_| cursor.wrong())?;
    let kilobytes = match cursor.peek() {
        Some(Token::Word(unit)) if unit.eq_ignore_ascii_case("KB") => 1,
        Some(Token::Word(unit)) if unit.eq_ignore_ascii_case("GB") => 1 << 20,
        Some(Token::Word(unit)) if unit.eq_ignore_ascii_case("TB") => 1 << 30,
        Some(Token::Word(unit)) if !unit.eq_ignore_ascii_case("MB") => return Err(cursor.wrong()),
        other => {
            cursor.at -= usize::from(!matches!(other, Some(Token::Word(_))));
            1024
        }
    };
    cursor.at += 1;
    number.checked_mul(kilobytes).map(|kilobytes| kilobytes.div_ceil(8)).ok_or_else(|| cursor.wrong())
}
