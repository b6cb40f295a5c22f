//! Logins, users and rights.

use super::cursor::Cursor;
use crate::instance::ast::Security;
use crate::instance::catalogue::{Outcome, fail};
use crate::instance::lex::Token;

/// After CREATE LOGIN.
pub(super) fn create_login(cursor: &mut Cursor<'_>) -> Outcome<Security> {
    let name = cursor.name()?;
    if cursor.is_word("FROM") {
        return Err(fail(50_002, &[&"CREATE LOGIN … FROM"]));
    }
    cursor.expect("WITH")?;
    cursor.expect("PASSWORD")?;
    cursor.expect_sign("=")?;
    let password = cursor.text()?;
    while cursor.sign(",") {
        let option = cursor.option()?;
        cursor.expect_sign("=")?;
        match option.as_str() {
            "CHECK_POLICY" | "CHECK_EXPIRATION" | "DEFAULT_DATABASE" | "DEFAULT_LANGUAGE" => cursor.next(),
            _ => return Err(fail(50_002, &[&format!("{option} of CREATE LOGIN")])),
        };
    }
    Ok(Security::CreateLogin { name, password })
}

/// After ALTER LOGIN.
pub(super) fn alter_login(cursor: &mut Cursor<'_>) -> Outcome<Security> {
    let name = cursor.name()?;
    if cursor.word("ENABLE") {
        return Ok(Security::AlterLogin { name, password: None, enabled: Some(true), new_name: None });
    }
    if cursor.word("DISABLE") {
        return Ok(Security::AlterLogin { name, password: None, enabled: Some(false), new_name: None });
    }
    cursor.expect("WITH")?;
    match cursor.option()?.as_str() {
        "PASSWORD" => {
            cursor.expect_sign("=")?;
            let password = Some(cursor.text()?);
            if cursor.word("OLD_PASSWORD") {
                cursor.expect_sign("=")?;
                cursor.text()?;
            }
            Ok(Security::AlterLogin { name, password, enabled: None, new_name: None })
        }
        "NAME" => {
            cursor.expect_sign("=")?;
            Ok(Security::AlterLogin { name, password: None, enabled: None, new_name: Some(cursor.name()?) })
        }
        other => Err(fail(50_002, &[&format!("{other} of ALTER LOGIN")])),
    }
}

/// After CREATE USER.
pub(super) fn create_user(cursor: &mut Cursor<'_>) -> Outcome<Security> {
    let name = cursor.name()?;
    let login = if cursor.words(&["FOR", "LOGIN"]) || cursor.words(&["FROM", "LOGIN"]) {
        cursor.name()?
    } else {
        name.clone()
    };
    Ok(Security::CreateUser { name, login })
}

/// After ALTER AUTHORIZATION.
pub(super) fn authorization(cursor: &mut Cursor<'_>) -> Outcome<Security> {
    cursor.expect("ON")?;
    if !cursor.word("DATABASE") {
        return Err(fail(50_001, &[&"ALTER AUTHORIZATION of what is no database"]));
    }
    cursor.expect_sign(":")?;
    cursor.expect_sign(":")?;
    let database = cursor.name()?;
    cursor.expect("TO")?;
    Ok(Security::Owner { database, login: cursor.name()? })
}

/// After ALTER [SERVER] ROLE.
pub(super) fn role(cursor: &mut Cursor<'_>, server: bool) -> Outcome<Security> {
    let role = cursor.name()?;
    let add = cursor.word("ADD");
    if !add {
        cursor.expect("DROP")?;
    }
    cursor.expect("MEMBER")?;
    Ok(Security::Role { server, role: role.to_lowercase(), member: cursor.name()?, add })
}

/// After GRANT, REVOKE or DENY.
pub(super) fn grant(cursor: &mut Cursor<'_>, verb: &str) -> Outcome<Security> {
    if verb == "DENY" {
        return Err(fail(50_001, &[&"DENY"]));
    }
    let mut rights = vec![String::new()];
    let mut object = None;
    loop {
        if cursor.word("TO") || cursor.word("FROM") {
            break;
        }
        if cursor.word("ON") {
            object = Some(cursor.dotted()?);
            continue;
        }
        if cursor.sign(",") {
            rights.push(String::new());
            continue;
        }
        let Some(Token::Word(word)) = cursor.next() else {
            return Err(cursor.wrong());
        };
        if let Some(right) = rights.last_mut() {
            if !right.is_empty() {
                right.push(' ');
            }
            right.push_str(&word.to_uppercase());
        }
    }
    let to = cursor.name()?;
    Ok(Security::Grant { rights, object, to, revoke: verb == "REVOKE" })
}
