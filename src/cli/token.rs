//! `stillpoint token`: create, list, revoke.

use clap::{Subcommand, ValueEnum};
use serde::Serialize;

use super::context::Context;
use super::exit::{Outcome, Result};
use super::output::{Show, Table, format_list};
use crate::api::{MadeToken, NewToken, Token, segment};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make a token for the API on TCP and print it; it cannot be shown again
    Create {
        /// What it is called, for `list`, `revoke` and the log
        name: String,
        /// What its holder may do
        #[arg(long, value_enum)]
        role: Role,
        /// A group that the role is for; for a viewer none means all, an admin has none
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
        /// How long it is valid: 12h, 30d, or never to end
        #[arg(long, value_name = "TIME", default_value = "90d", value_parser = parse_lifetime)]
        expires: Lifetime,
    },
    /// List tokens; their texts are not kept
    List,
    /// Refuse a token from now on
    Revoke { name: String },
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Role {
    /// Everything
    Admin,
    /// Everything on datasets of its groups
    Operator,
    /// Makes and runs VDBs of its groups
    User,
    /// Reads
    Viewer,
}

/// Seconds; absent for as long as it is not revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lifetime(Option<u64>);

fn parse_lifetime(text: &str) -> std::result::Result<Lifetime, String> {
    if text == "never" {
        return Ok(Lifetime(None));
    }
    let advice = "write it as 12h, 30d, 8w or never";
    let unit = text.chars().last().ok_or(advice)?;
    let seconds: u64 = match unit {
        'h' => 3600,
        'd' => 24 * 3600,
        'w' => 7 * 24 * 3600,
        _ => return Err(advice.into()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| advice)?;
    let whole = count.checked_mul(seconds).filter(|whole| *whole > 0).ok_or(advice)?;
    Ok(Lifetime(Some(whole)))
}

pub(super) fn run(command: Command, context: &Context) -> Result<Outcome> {
    let client = context.api()?;
    match command {
        Command::Create { name, role, groups, expires } => {
            let role = match role {
                Role::Admin => "admin",
                Role::Operator => "operator",
                Role::User => "user",
                Role::Viewer => "viewer",
            };
            let body = NewToken { name, role: role.into(), groups, lifetime_seconds: expires.0 };
            context.output.show(&Made(client.post("/v1/tokens", &body)?))?;
        }
        Command::List => context.output.show(&Tokens(client.get("/v1/tokens")?))?,
        Command::Revoke { name } => client.delete::<()>(&format!("/v1/tokens/{}", segment(&name)))?,
    }
    Ok(Outcome::Done)
}

#[derive(Serialize)]
#[serde(transparent)]
struct Made(MadeToken);

impl Show for Made {
    fn table(&self) -> Table {
        let mut table = Table::facts();
        let about = &self.0.about;
        table.fact("token", &self.0.token);
        table.fact("name", &about.name);
        table.fact("role", &about.role);
        table.fact("groups", groups(about));
        table.fact("expires", about.expires.as_deref().unwrap_or("never"));
        table.note("keep the token now: it is not shown again".into());
        table
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Tokens(Vec<Token>);

impl Show for Tokens {
    fn table(&self) -> Table {
        let mut table = Table::new(&["NAME", "ROLE", "GROUPS", "CREATED", "EXPIRES"]);
        for token in &self.0 {
            let expires = match (&token.expires, token.expired) {
                (Some(_), true) => "expired".into(),
                (Some(time), false) => time.clone(),
                (None, _) => "never".into(),
            };
            table.row(vec![
                token.name.clone(),
                token.role.clone(),
                groups(token),
                token.created.clone(),
                expires,
            ]);
        }
        table
    }
}

fn groups(token: &Token) -> String {
    if token.groups.is_empty() { "all".into() } else { format_list(&token.groups) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_read() {
        assert_eq!(parse_lifetime("never"), Ok(Lifetime(None)));
        assert_eq!(parse_lifetime("30d"), Ok(Lifetime(Some(2_592_000))));
        assert_eq!(parse_lifetime("12h"), Ok(Lifetime(Some(43_200))));
        for bad in ["", "d", "0d", "-1d", "1", "1m", "3ä", "99999999999999999999w", "18446744073709551615w"]
        {
            assert!(parse_lifetime(bad).is_err(), "{bad}");
        }
    }
}
