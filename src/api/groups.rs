//! Groups over the wire: an admin's to make, rename and remove; each token sees its own.

use std::sync::Arc;

use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::access::Principal;
use super::problem::Problem;
use super::routes::{Answer, Body, Shared, blocking};
use crate::engine::{Engine, GroupView};

/// A request to make a group, or to give one another name.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupName {
    pub name: String,
}

pub(super) fn routes() -> Router<Arc<Engine>> {
    Router::new()
        .route("/v1/groups", get(list).post(create))
        .route("/v1/groups/{name}", get(show).delete(remove))
        .route("/v1/groups/{name}/rename", post(rename))
}

/// Who has which rights is an admin's to know.
fn hide(principal: &Principal, mut group: GroupView) -> GroupView {
    if !principal.is_admin() {
        group.tokens.clear();
    }
    group
}

async fn list(State(engine): Shared, Extension(principal): Extension<Principal>) -> Answer<Vec<GroupView>> {
    let mut found = blocking(engine, |engine| engine.groups()).await?;
    found.retain(|group| principal.sees(Some(&group.name)));
    Ok(Json(found.into_iter().map(|group| hide(&principal, group)).collect()))
}

async fn create(
    State(engine): Shared,
    Body(body): Body<GroupName>,
) -> std::result::Result<(StatusCode, Json<GroupView>), Problem> {
    let made = blocking(engine, move |engine| engine.create_group(&body.name)).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

async fn show(
    State(engine): Shared,
    Extension(principal): Extension<Principal>,
    Path(name): Path<String>,
) -> Answer<GroupView> {
    Ok(Json(hide(&principal, blocking(engine, move |engine| engine.group(&name)).await?)))
}

async fn rename(
    State(engine): Shared,
    Path(name): Path<String>,
    Body(body): Body<GroupName>,
) -> Answer<GroupView> {
    Ok(Json(blocking(engine, move |engine| engine.rename_group(&name, &body.name)).await?))
}

async fn remove(State(engine): Shared, Path(name): Path<String>) -> std::result::Result<StatusCode, Problem> {
    blocking(engine, move |engine| engine.remove_group(&name)).await?;
    Ok(StatusCode::NO_CONTENT)
}
