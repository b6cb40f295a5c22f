//! What makes a VDB its users': a role with a password of its own, and other names for databases.

use super::super::{Task, VdbOptions};
use super::config::OWNER_PASSWORD;
use super::server::Server;
use super::sql::{Sql, identifier, quote};
use crate::base::{Error, ErrorKind, Result};

/// A name in the catalogs of PostgreSQL is cut behind this.
const NAME_BYTES_MAX: usize = 63;
/// Of every cluster; the engine connects to the first.
const OWN_DATABASES: [&str; 3] = ["postgres", "template0", "template1"];

/// Refuses names that PostgreSQL would change or refuse.
pub(super) fn check(options: &VdbOptions) -> Result<()> {
    let names = options.renames.iter().flat_map(|(old, new)| [old, new]).chain(&options.owner);
    for name in names {
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(['\0', '\n', '\r']) {
            return Err(Error::invalid(format!(
                "{name:?} is no name of a role or database: 1 to {NAME_BYTES_MAX} bytes, without line ends"
            )));
        }
    }
    if let Some(old) = options.renames.keys().find(|old| OWN_DATABASES.contains(&old.as_str())) {
        return Err(Error::invalid(format!(
            "the database {old} is one that every cluster has: it keeps its name"
        )));
    }
    if let Some(owner) = options.owner.as_ref().filter(|owner| owner.starts_with("pg_")) {
        return Err(Error::invalid(format!(
            "roles that begin with pg_ are PostgreSQL's own: rename {owner}"
        )));
    }
    Ok(())
}

/// Gives a VDB that has just got its data the names and the owner that were asked for.
pub(super) fn apply(server: &Server<'_>, task: &mut dyn Task) -> Result<()> {
    let config = &server.config;
    if config.owner.is_none() && config.renames.is_empty() {
        return Ok(());
    }
    // From a database that nobody renames: one that is connected to cannot be.
    let sql = server.connect("template1")?;
    for (old, new) in &config.renames {
        let known = sql.value(&format!("SELECT 1 FROM pg_database WHERE datname = {}", quote(old)))?;
        if known.is_none() {
            task.warn(&format!("there is no database {old} to call {new}"));
            continue;
        }
        sql.rows(&format!("ALTER DATABASE {} RENAME TO {}", identifier(old), identifier(new)))?;
        task.log(&format!("database {old} is called {new}"));
    }
    if let Some(owner) = &config.owner {
        make_owner(server, &sql, owner)?;
        task.log(&format!("{owner} owns the databases"));
    }
    Ok(())
}

fn make_owner(server: &Server<'_>, sql: &Sql, owner: &str) -> Result<()> {
    // Whatever the settings log: the password must not be in it.
    sql.rows(
        "SET log_statement = none; SET log_min_duration_statement = -1; SET log_duration = off; \
         SET log_min_error_statement = panic",
    )?;
    let known = sql.value(&format!("SELECT rolsuper FROM pg_roles WHERE rolname = {}", quote(owner)))?;
    if known.as_deref() == Some("t") {
        return Err(Error::new(
            ErrorKind::NotAllowed,
            format!("the role {owner} is a superuser of the database: name one that is not, or a new one"),
        ));
    }
    let how = if known.is_some() { "ALTER" } else { "CREATE" };
    let password = server
        .instance
        .secrets
        .get(OWNER_PASSWORD)
        .map_or_else(String::new, |password| format!(" PASSWORD {}", quote_secret(password)));
    sql.rows(&format!("{how} ROLE {} LOGIN{password}", identifier(owner))).map_err(|e| {
        Error::new(e.kind(), format!("the role {owner} could not be made: {}", without(&e, &password)))
    })?;
    let databases = sql.rows("SELECT datname FROM pg_database WHERE NOT datistemplate AND datallowconn")?;
    for name in databases.into_iter().flatten().flatten() {
        sql.rows(&format!("ALTER DATABASE {} OWNER TO {}", identifier(&name), identifier(owner)))?;
    }
    Ok(())
}

/// An error that repeats no secret.
fn without(error: &Error, secret: &str) -> String {
    if secret.is_empty() {
        return error.message().to_owned();
    }
    // A statement that got no answer is repeated in the error, escaped in its own way.
    if error.message().contains(" ROLE ") {
        return "the server did not answer".to_owned();
    }
    error.message().replace(secret, " …")
}

/// A literal whose backslashes mean themselves, whatever the server's settings.
fn quote_secret(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn names_and_passwords_are_quoted() {
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(quote_secret("it's \\"), "E'it''s \\\\'");
    }

    #[test]
    fn names_are_checked() {
        let with = |owner: &str| VdbOptions { owner: Some(owner.into()), ..VdbOptions::default() };
        assert!(check(&with("app")).is_ok());
        for bad in ["", "pg_x", "a\nb", &"x".repeat(64)] {
            assert!(check(&with(bad)).is_err(), "{bad}");
        }
        let renames = BTreeMap::from([("shop".to_owned(), String::new())]);
        assert!(check(&VdbOptions { renames, ..VdbOptions::default() }).is_err());
    }
}
