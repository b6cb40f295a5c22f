//! Environments and repositories over the wire: what database installations the daemon's host has, and which of them
//! may be chosen.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use super::routes::{Answer, Body, Shared, blocking};
use crate::engine::{Engine, EnvironmentView, RepositoryView};

/// A request to look into a folder for database installations, now and from now on.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRepository {
    /// A folder of the daemon's host, from the root on.
    pub path: String,
}

pub(super) fn routes() -> Router<Arc<Engine>> {
    Router::new()
        .route("/v1/environments", get(list))
        .route("/v1/environments/{name}", get(show))
        .route("/v1/environments/{name}/refresh", post(refresh))
        .route("/v1/repositories", get(list_repositories).post(add))
        .route("/v1/repositories/{name}", get(show_repository).delete(remove))
        .route("/v1/repositories/{name}/enable", post(enable))
        .route("/v1/repositories/{name}/disable", post(disable))
}

async fn list(State(engine): Shared) -> Answer<Vec<EnvironmentView>> {
    Ok(Json(blocking(engine, |engine| engine.environments()).await?))
}

async fn show(State(engine): Shared, Path(name): Path<String>) -> Answer<EnvironmentView> {
    Ok(Json(blocking(engine, move |engine| engine.environment(&name)).await?))
}

async fn refresh(State(engine): Shared, Path(name): Path<String>) -> Answer<Vec<RepositoryView>> {
    Ok(Json(blocking(engine, move |engine| engine.refresh_environment(&name)).await?))
}

async fn list_repositories(State(engine): Shared) -> Answer<Vec<RepositoryView>> {
    Ok(Json(blocking(engine, |engine| engine.repositories()).await?))
}

async fn add(State(engine): Shared, Body(body): Body<NewRepository>) -> Answer<Vec<RepositoryView>> {
    let added = blocking(engine, move |engine| engine.add_repositories(std::path::Path::new(&body.path)));
    Ok(Json(added.await?))
}

async fn show_repository(State(engine): Shared, Path(name): Path<String>) -> Answer<RepositoryView> {
    Ok(Json(blocking(engine, move |engine| engine.repository(&name)).await?))
}

async fn remove(State(engine): Shared, Path(name): Path<String>) -> std::result::Result<StatusCode, Problem> {
    blocking(engine, move |engine| engine.remove_repository(&name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn enable(State(engine): Shared, Path(name): Path<String>) -> Answer<RepositoryView> {
    Ok(Json(blocking(engine, move |engine| engine.set_repository_enabled(&name, true)).await?))
}

async fn disable(State(engine): Shared, Path(name): Path<String>) -> Answer<RepositoryView> {
    Ok(Json(blocking(engine, move |engine| engine.set_repository_enabled(&name, false)).await?))
}
