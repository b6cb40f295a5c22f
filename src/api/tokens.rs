//! Tokens: what goes over the wire of them, and their routes, where only an admin comes.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{delete, get};
use axum::{Json, Router};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use super::routes::{Body, blocking};
use super::types::word;
use crate::base::Error;
use crate::catalog::{self, TokenRole};
use crate::engine::{Engine, TokenRequest};

/// A request for a token.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    pub name: String,
    /// `admin`, `operator`, `user` or `viewer`.
    pub role: String,
    /// The groups that the role is for. None for an admin; for a viewer none means all.
    #[serde(default)]
    pub groups: Vec<String>,
    /// How long it is valid; without it, until it is revoked.
    pub lifetime_seconds: Option<u64>,
}

/// A token, without its secret.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Token {
    pub name: String,
    pub role: String,
    pub groups: Vec<String>,
    pub created: String,
    pub expires: Option<String>,
    pub expired: bool,
}

/// A token that was made.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct MadeToken {
    /// What goes behind `Authorization: Bearer`. It cannot be had again.
    pub token: String,
    #[serde(flatten)]
    pub about: Token,
}

impl std::fmt::Debug for MadeToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MadeToken").field("about", &self.about).finish_non_exhaustive()
    }
}

impl Token {
    /// A token's record as it is shown at a moment.
    pub fn of(record: catalog::Token, now: Timestamp) -> Self {
        Self {
            role: word(&record.role),
            expired: record.expires.is_some_and(|expires| expires <= now),
            expires: record.expires.map(|time| time.to_string()),
            created: record.created.to_string(),
            name: record.name,
            groups: record.groups,
        }
    }
}

pub(super) fn routes() -> Router<Arc<Engine>> {
    Router::new().route("/v1/tokens", get(list).post(create)).route("/v1/tokens/{name}", delete(revoke))
}

async fn list(State(engine): State<Arc<Engine>>) -> std::result::Result<Json<Vec<Token>>, Problem> {
    let now = engine.now();
    let found = blocking(engine, |engine| engine.tokens()).await?;
    Ok(Json(found.into_iter().map(|token| Token::of(token, now)).collect()))
}

async fn create(
    State(engine): State<Arc<Engine>>,
    Body(body): Body<NewToken>,
) -> std::result::Result<(StatusCode, Json<MadeToken>), Problem> {
    let role = match body.role.as_str() {
        "admin" => TokenRole::Admin,
        "operator" => TokenRole::Operator,
        "user" => TokenRole::User,
        "viewer" => TokenRole::Viewer,
        other => {
            return Err(
                Error::invalid(format!("{other:?} is no role: admin, operator, user or viewer")).into()
            );
        }
    };
    let request = TokenRequest {
        name: body.name,
        role,
        groups: body.groups,
        lifetime: body.lifetime_seconds.map(Duration::from_secs),
    };
    let now = engine.now();
    let (token, text) = blocking(engine, move |engine| engine.create_token(&request)).await?;
    Ok((StatusCode::CREATED, Json(MadeToken { token: text, about: Token::of(token, now) })))
}

async fn revoke(
    State(engine): State<Arc<Engine>>,
    Path(name): Path<String>,
) -> std::result::Result<StatusCode, Problem> {
    blocking(engine, move |engine| engine.revoke_token(&name)).await?;
    Ok(StatusCode::NO_CONTENT)
}
