//! Source configs over the wire. A list holds what the caller may see; passwords go in and never out.

use std::sync::Arc;

use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};

use super::access::Principal;
use super::problem::Problem;
use super::routes::{Answer, Body, Shared, blocking};
use crate::engine::{Engine, NewSource, SourceChange, SourceView};

pub(super) fn routes() -> Router<Arc<Engine>> {
    Router::new()
        .route("/v1/sources", get(list).post(add))
        .route("/v1/sources/{name}", get(show).delete(remove))
        .route("/v1/sources/{name}/configure", post(configure))
        .route("/v1/sources/{name}/check", post(check))
}

async fn list(State(engine): Shared, Extension(principal): Extension<Principal>) -> Answer<Vec<SourceView>> {
    let mut found = blocking(engine, |engine| engine.sources()).await?;
    found.retain(|source| principal.sees(Some(&source.group)));
    Ok(Json(found))
}

async fn add(
    State(engine): Shared,
    Body(body): Body<NewSource>,
) -> std::result::Result<(StatusCode, Json<SourceView>), Problem> {
    let added = blocking(engine, move |engine| engine.add_source(body)).await?;
    Ok((StatusCode::CREATED, Json(added)))
}

async fn show(State(engine): Shared, Path(name): Path<String>) -> Answer<SourceView> {
    Ok(Json(blocking(engine, move |engine| engine.source(&name)).await?))
}

async fn configure(
    State(engine): Shared,
    Path(name): Path<String>,
    Body(body): Body<SourceChange>,
) -> Answer<SourceView> {
    Ok(Json(blocking(engine, move |engine| engine.configure_source(&name, body)).await?))
}

async fn check(State(engine): Shared, Path(name): Path<String>) -> Answer<SourceView> {
    Ok(Json(blocking(engine, move |engine| engine.check_source(&name)).await?))
}

async fn remove(State(engine): Shared, Path(name): Path<String>) -> std::result::Result<StatusCode, Problem> {
    blocking(engine, move |engine| engine.remove_source(&name)).await?;
    Ok(StatusCode::NO_CONTENT)
}
