//! Tokens of the API: made, listed, revoked, and checked. The secret is told once, to the one who made it, and is
//! neither kept nor logged.

use std::time::Duration;

use jiff::Timestamp;

use super::Engine;
use super::groups::ensure_group;
use super::names::check_name;
use crate::base::{Error, ErrorKind, Result};
use crate::catalog::{Severity, Token, TokenRole};

/// What a token's text begins with, so that one that leaked is recognised.
const PREFIX: &str = "stp_";
const SECRET_BYTES: usize = 32;

/// What is asked for with a new token.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    pub name: String,
    pub role: TokenRole,
    pub groups: Vec<String>,
    /// How long it is valid; absent: until it is revoked.
    pub lifetime: Option<Duration>,
}

/// What became of a token that somebody showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    Valid(Token),
    /// It was one.
    Expired(Token),
    /// No token, a revoked one, or one with another secret.
    Unknown,
}

impl Engine {
    /// Makes a token; the text is what its holder shows, and can be had only now.
    pub fn create_token(&self, request: &TokenRequest) -> Result<(Token, String)> {
        check_name("token", &request.name)?;
        check_role(request)?;
        let mut secret = [0; SECRET_BYTES];
        for part in secret.chunks_exact_mut(8) {
            part.copy_from_slice(&self.random.next_u64().to_le_bytes());
        }
        let created = self.now();
        let expires = request.lifetime.map(|lifetime| expiry(created, lifetime)).transpose()?;
        let (token, new_groups) = self.catalog.change(|change| {
            if change.list::<Token>()?.iter().any(|other| other.name == request.name) {
                return Err(Error::new(
                    ErrorKind::Exists,
                    format!("there is a token {} already", request.name),
                )
                .with_hint(format!("revoke it with `stillpoint token revoke {}`", request.name)));
            }
            let mut new_groups = Vec::new();
            for group in &request.groups {
                if ensure_group(change, group, created)? {
                    new_groups.push(group);
                }
            }
            let token = Token {
                id: change.next_id()?,
                name: request.name.clone(),
                role: request.role,
                groups: request.groups.clone(),
                created,
                expires,
                hash: blake3::hash(&secret).to_hex().to_string(),
            };
            change.put(&token)?;
            Ok((token, new_groups))
        })?;
        new_groups.into_iter().for_each(|group| self.group_made(true, group));
        self.event(Severity::Info, "TOKEN_CREATED", None, None, &format!("token {} was made", token.name));
        let text = format!("{PREFIX}{}_{}", token.id, hex(&secret));
        Ok((token, text))
    }

    /// All tokens, oldest first, expired ones too.
    pub fn tokens(&self) -> Result<Vec<Token>> {
        self.catalog.list()
    }

    /// Removes a token: it is refused from now on.
    pub fn revoke_token(&self, name: &str) -> Result<()> {
        self.catalog.change(|change| {
            let found = change.list::<Token>()?.into_iter().find(|token| token.name == name);
            let token = found.ok_or_else(|| {
                Error::not_found(format!("there is no token {name}")).with_hint("see `stillpoint token list`")
            })?;
            change.remove::<Token>(token.id)
        })?;
        self.event(Severity::Info, "TOKEN_REVOKED", None, None, &format!("token {name} was revoked"));
        Ok(())
    }

    /// Whether a token that was valid for these groups still is. After a group's renaming its old name may become
    /// another one's.
    pub fn token_is_valid(&self, id: u64, groups: &[String]) -> Result<bool> {
        let token = self.catalog.get::<Token>(id)?;
        Ok(token.is_some_and(|token| token.groups == groups && !self.is_over(&token)))
    }

    fn is_over(&self, token: &Token) -> bool {
        token.expires.is_some_and(|expires| expires <= self.now())
    }

    /// Whose token this text is.
    pub fn check_token(&self, text: &str) -> Result<Shown> {
        let Some((id, secret)) = parse(text) else { return Ok(Shown::Unknown) };
        let Some(token) = self.catalog.get::<Token>(id)? else { return Ok(Shown::Unknown) };
        let kept = blake3::Hash::from_hex(&token.hash)
            .map_err(|_| Error::corrupt(format!("the hash of token {} is damaged", token.name)))?;
        // Hashes of this type compare in constant time.
        if blake3::hash(&secret) != kept {
            return Ok(Shown::Unknown);
        }
        if self.is_over(&token) {
            return Ok(Shown::Expired(token));
        }
        Ok(Shown::Valid(token))
    }
}

fn check_role(request: &TokenRequest) -> Result<()> {
    match request.role {
        TokenRole::Admin if !request.groups.is_empty() => {
            Err(Error::invalid("an admin is not bound to groups: name none, or another role"))
        }
        TokenRole::Operator | TokenRole::User if request.groups.is_empty() => {
            Err(Error::invalid("an operator or user is one of a group: name at least one"))
        }
        _ => Ok(()),
    }
}

fn expiry(created: Timestamp, lifetime: Duration) -> Result<Timestamp> {
    created
        .checked_add(lifetime)
        .ok()
        .filter(|_| !lifetime.is_zero())
        .ok_or_else(|| Error::invalid(format!("a token cannot be valid for {} s", lifetime.as_secs())))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse(text: &str) -> Option<(u64, [u8; SECRET_BYTES])> {
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
    if secret.len() != 2 * SECRET_BYTES || !secret.is_ascii() {
        return None;
    }
    let mut bytes = [0; SECRET_BYTES];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(secret.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some((id.parse().ok()?, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tokens_text_is_read_back() {
        let secret = [7; SECRET_BYTES];
        let text = format!("stp_12_{}", hex(&secret));
        assert_eq!(parse(&text), Some((12, secret)));
        let short = &text[..text.len() - 1];
        let moved = text.replace("stp_12_", "stp_12_+");
        for bad in ["", "stp_", "stp_12_", short, &moved, &text.replace("stp_", ""), &text.replace("12", "x")]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
