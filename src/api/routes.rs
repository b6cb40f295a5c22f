//! Routes: each one reads a request, asks the engine on a thread that may block, and answers.
//!
//! What takes time answers 202 with a job. Errors are problems of RFC 9457.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, FromRequest, Path, Query, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::access::Principal;
use super::hooks::attachments;
use super::paging::{self, Page, Paged};
use super::problem::Problem;
use super::types::{
    Accepted, Bookmark, Change, Dataset, Event, Export, Job, JobLog, Link, LinkPlan, Points, Provision,
    Replace, Snapshot,
};
use crate::adapter::{Secrets, Target};
use crate::base::{Error, ErrorKind, Result};
use crate::catalog::{self, JobKind, Role};
use crate::engine::{Engine, JobHandle, LinkRequest, ProvisionRequest};

/// The longest that one request waits for a job.
const WAIT_MAX: Duration = Duration::from_secs(30);

pub(super) type Shared = State<Arc<Engine>>;
pub(super) type Answer<T> = std::result::Result<Json<T>, Problem>;
pub(super) type Started = std::result::Result<(StatusCode, Json<Accepted>), Problem>;
type Listed = std::result::Result<Response, Problem>;

/// The routes of the API. Who may ask for what is not decided here: see `access`.
pub(super) fn router(engine: Arc<Engine>) -> Router {
    Router::new()
        .route("/v1/openapi.json", get(openapi))
        .route("/v1/dsources", get(list_dsources).post(link))
        .route("/v1/dsources/plan", post(plan_link))
        .route("/v1/vdbs", get(list_vdbs).post(provision))
        .route("/v1/datasets/{name}", get(show).delete(delete))
        .route("/v1/datasets/{name}/snapshots", get(list_snapshots).post(snapshot))
        .route("/v1/datasets/{name}/snapshots/{snapshot}", axum::routing::delete(destroy_snapshot))
        .route("/v1/datasets/{name}/snapshots/{snapshot}/verify", post(verify_snapshot))
        .route("/v1/datasets/{name}/snapshots/{snapshot}/check-files", post(check_snapshot_files))
        .route("/v1/datasets/{name}/points", get(points))
        .route("/v1/datasets/{name}/lock", put(lock).delete(unlock))
        .route("/v1/datasets/{name}/configure", post(configure))
        .route("/v1/datasets/{name}/configure/plan", post(plan_configure))
        .route("/v1/datasets/{name}/detach", post(detach))
        .route("/v1/datasets/{name}/attach", post(attach))
        .route("/v1/datasets/{name}/attach/plan", post(plan_attach))
        .route("/v1/datasets/{name}/resync", post(resync))
        .route("/v1/datasets/{name}/resync/plan", post(plan_resync))
        .route("/v1/datasets/{name}/export", post(export))
        .route("/v1/datasets/{name}/{operation}", post(operate))
        .route("/v1/bookmarks", post(bookmark))
        .route("/v1/jobs", get(list_jobs))
        .route("/v1/jobs/{id}", get(show_job))
        .route("/v1/jobs/{id}/log", get(job_log))
        .route("/v1/jobs/{id}/cancel", post(cancel_job))
        .route("/v1/events", get(list_events))
        .merge(super::backups::routes())
        .merge(super::environments::routes())
        .merge(super::sources::routes())
        .merge(super::groups::routes())
        .merge(super::policies::routes())
        .merge(super::hooks::routes())
        .merge(super::stream::routes())
        .merge(super::tokens::routes())
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .fallback(|| async { Problem::from(Error::not_found("there is no such address in this API")) })
        .with_state(engine)
}

/// A JSON body whose refusal is a problem, too.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(
        request: axum::extract::Request,
        state: &S,
    ) -> std::result::Result<Self, Self::Rejection> {
        let read: std::result::Result<Json<T>, JsonRejection> = Json::from_request(request, state).await;
        read.map(|Json(body)| Self(body))
            .map_err(|e| Error::invalid(format!("the request: {}", e.body_text())).into())
    }
}

/// Runs on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    engine: Arc<Engine>,
    body: impl FnOnce(&Arc<Engine>) -> Result<T> + Send + 'static,
) -> std::result::Result<T, Problem> {
    match tokio::task::spawn_blocking(move || body(&engine)).await {
        Ok(result) => result.map_err(Problem::from),
        Err(_) => {
            Err(Error::new(ErrorKind::Io, "the request failed in a way that is a defect of stillpoint")
                .into())
        }
    }
}

pub(super) async fn started(
    engine: Arc<Engine>,
    body: impl FnOnce(&Arc<Engine>) -> Result<JobHandle> + Send + 'static,
) -> Started {
    let handle = blocking(engine, body).await?;
    Ok((StatusCode::ACCEPTED, Json(Accepted { job: handle.id })))
}

async fn openapi() -> impl axum::response::IntoResponse {
    static TEXT: LazyLock<String> = LazyLock::new(super::openapi::document_text);
    ([(axum::http::header::CONTENT_TYPE, "application/json")], TEXT.as_str())
}

async fn list_dsources(
    State(engine): Shared,
    Extension(principal): Extension<Principal>,
    Query(asked): Page,
    uri: Uri,
) -> Listed {
    list(engine, Role::Dsource, principal, asked, &uri).await
}

async fn list_vdbs(
    State(engine): Shared,
    Extension(principal): Extension<Principal>,
    Query(asked): Page,
    uri: Uri,
) -> Listed {
    list(engine, Role::Vdb, principal, asked, &uri).await
}

async fn list(
    engine: Arc<Engine>,
    role: Role,
    principal: Principal,
    asked: paging::Asked,
    uri: &Uri,
) -> Listed {
    let found = blocking(engine, move |engine| {
        let mut found = engine.datasets(role)?;
        found.retain(|view| principal.sees(Some(&view.dataset.group)));
        Ok(paging::oldest(found, |view| view.dataset.id, asked))
    });
    Ok(found.await?.map(Dataset::from).answer(uri))
}

fn link_request(link: Link) -> Result<LinkRequest> {
    Ok(LinkRequest {
        name: link.name,
        group: link.group,
        adapter: link.adapter,
        source: link.source,
        port: link.port,
        parameters: link.parameters,
        secrets: Secrets(link.secrets),
        logs: link.logs,
        images: link.images,
        attachments: attachments(link.policies, link.hooks)?,
        mount_base: link.mount_base.map(Into::into),
    })
}

async fn plan_link(State(engine): Shared, Body(body): Body<Link>) -> Answer<LinkPlan> {
    Ok(Json(blocking(engine, move |engine| engine.plan_link(&link_request(body)?)).await?.into()))
}

async fn configure(State(engine): Shared, Path(name): Path<String>, Body(body): Body<Change>) -> Started {
    started(engine, move |engine| engine.configure(&name, body.into())).await
}

async fn export(State(engine): Shared, Path(name): Path<String>, Body(body): Body<Export>) -> Started {
    started(engine, move |engine| engine.export(&name, std::path::Path::new(&body.to))).await
}

async fn attach(State(engine): Shared, Path(name): Path<String>, Body(body): Body<Change>) -> Started {
    started(engine, move |engine| engine.attach(&name, body.into())).await
}

async fn resync(State(engine): Shared, Path(name): Path<String>, Body(body): Body<Change>) -> Started {
    started(engine, move |engine| engine.resync(&name, body.into())).await
}

async fn detach(State(engine): Shared, Path(name): Path<String>, Query(query): Query<Force>) -> Started {
    started(engine, move |engine| engine.detach(&name, query.force.unwrap_or(false))).await
}

async fn plan_configure(
    State(engine): Shared,
    Path(name): Path<String>,
    Body(body): Body<Change>,
) -> Answer<LinkPlan> {
    plan_change(engine, name, JobKind::DbConfigure, body).await
}

async fn plan_attach(
    State(engine): Shared,
    Path(name): Path<String>,
    Body(body): Body<Change>,
) -> Answer<LinkPlan> {
    plan_change(engine, name, JobKind::DbAttach, body).await
}

async fn plan_resync(
    State(engine): Shared,
    Path(name): Path<String>,
    Body(body): Body<Change>,
) -> Answer<LinkPlan> {
    plan_change(engine, name, JobKind::DbResync, body).await
}

async fn plan_change(engine: Arc<Engine>, name: String, kind: JobKind, body: Change) -> Answer<LinkPlan> {
    let plan = blocking(engine, move |engine| engine.plan_relink(&name, kind, &body.into())).await?;
    Ok(Json(plan.into()))
}

async fn link(State(engine): Shared, Body(body): Body<Link>) -> Started {
    started(engine, move |engine| engine.link(link_request(body)?)).await
}

async fn provision(State(engine): Shared, Body(body): Body<Provision>) -> Started {
    let target = body.at.try_into()?;
    let request = ProvisionRequest {
        name: body.name,
        group: body.group,
        from: body.from,
        target,
        logs: body.logs,
        owner: body.owner,
        renames: body.rename_databases,
        secrets: Secrets(body.secrets),
        port: body.port,
        settings: body.settings,
        attachments: attachments(body.policies, body.hooks)?,
        mount_base: body.mount_base.map(Into::into),
    };
    started(engine, move |engine| engine.provision(&request)).await
}

async fn show(State(engine): Shared, Path(name): Path<String>) -> Answer<Dataset> {
    Ok(Json(blocking(engine, move |engine| engine.show(&name)).await?.into()))
}

#[derive(Deserialize)]
struct Force {
    force: Option<bool>,
}

async fn delete(State(engine): Shared, Path(name): Path<String>, Query(query): Query<Force>) -> Started {
    started(engine, move |engine| engine.delete(&name, query.force.unwrap_or(false))).await
}

async fn list_snapshots(
    State(engine): Shared,
    Path(name): Path<String>,
    Query(asked): Page,
    uri: Uri,
) -> Listed {
    let found = blocking(engine, move |engine| {
        let dataset = engine.dataset(&name)?;
        let page = paging::oldest(engine.snapshots_of(dataset.id)?, |snapshot| snapshot.id, asked);
        Ok(page.map(|snapshot| Snapshot::of(&name, snapshot)))
    });
    Ok(found.await?.answer(&uri))
}

async fn points(State(engine): Shared, Path(name): Path<String>) -> Answer<Vec<Points>> {
    let found = blocking(engine, move |engine| engine.spans(&name)).await?;
    Ok(Json(found.into_iter().map(|(timeflow, span)| Points::of(&timeflow, span)).collect()))
}

async fn snapshot(State(engine): Shared, Path(name): Path<String>) -> Started {
    started(engine, move |engine| engine.snapshot(&name)).await
}

async fn destroy_snapshot(
    State(engine): Shared,
    Path((name, snapshot)): Path<(String, String)>,
) -> std::result::Result<StatusCode, Problem> {
    blocking(engine, move |engine| engine.destroy_snapshot(&format!("{name}@{snapshot}"))).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn verify_snapshot(State(engine): Shared, Path((name, snapshot)): Path<(String, String)>) -> Started {
    started(engine, move |engine| engine.verify(&format!("{name}@{snapshot}"))).await
}

async fn check_snapshot_files(
    State(engine): Shared,
    Path((name, snapshot)): Path<(String, String)>,
) -> Started {
    started(engine, move |engine| engine.check_files(&format!("{name}@{snapshot}"))).await
}

/// Operations without words of their own; refresh and rewind take a body.
async fn operate(
    State(engine): Shared,
    Path((name, operation)): Path<(String, String)>,
    body: axum::body::Bytes,
) -> Started {
    started(engine, move |engine| {
        let replace: Option<Replace> = match body.is_empty() {
            true => None,
            false => {
                serde_json::from_slice(&body).map_err(|e| Error::invalid(format!("the request: {e}")))?
            }
        };
        let replace = replace.unwrap_or_default();
        let target = replace.at.try_into()?;
        match operation.as_str() {
            "start" => engine.start(&name),
            "stop" => engine.stop(&name),
            "enable" => engine.enable(&name),
            "disable" => engine.disable(&name),
            "undo" => engine.undo(&name),
            "refresh" => engine.refresh(&name, replace.from.as_deref(), &target),
            "rewind" if replace.from.is_some() == (target != Target::Snapshot) => {
                Err(Error::invalid("name the snapshot to rewind to, or a point in time"))
            }
            "rewind" => engine.rewind(&name, replace.from.as_deref(), &target),
            other => Err(Error::not_found(format!("there is no operation {other} on datasets"))),
        }
    })
    .await
}

async fn lock(State(engine): Shared, Path(name): Path<String>) -> std::result::Result<StatusCode, Problem> {
    blocking(engine, move |engine| engine.set_locked(&name, true)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn unlock(State(engine): Shared, Path(name): Path<String>) -> std::result::Result<StatusCode, Problem> {
    blocking(engine, move |engine| engine.set_locked(&name, false)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn bookmark(State(engine): Shared, Body(body): Body<Bookmark>) -> Answer<Snapshot> {
    let found = blocking(engine, move |engine| {
        let snapshot = engine.bookmark(&body.snapshot, &body.name)?;
        let name = body.snapshot.split('@').next().unwrap_or_default().to_owned();
        Ok(Snapshot::of(&name, snapshot))
    });
    Ok(Json(found.await?))
}

async fn list_jobs(
    State(engine): Shared,
    Extension(principal): Extension<Principal>,
    Query(asked): Page,
    uri: Uri,
) -> Listed {
    let now = engine.now();
    let found: Paged<catalog::Job> = blocking(engine, move |engine| {
        paging::newest(engine, asked, |job: &catalog::Job| principal.sees(job.group.as_deref()))
    })
    .await?;
    Ok(found.map(|job| Job::of(job, now)).answer(&uri))
}

#[derive(Deserialize)]
struct Wait {
    /// Seconds to wait for the job's end.
    wait: Option<u64>,
}

async fn show_job(State(engine): Shared, Path(id): Path<u64>, Query(query): Query<Wait>) -> Answer<Job> {
    let limit = Duration::from_secs(query.wait.unwrap_or(0)).min(WAIT_MAX);
    let mut changes = engine.changes();
    let ended = async {
        loop {
            changes.borrow_and_update();
            let job = blocking(Arc::clone(&engine), move |engine| engine.job(id)).await?;
            let left = engine.is_ending() && job.status == catalog::JobStatus::Queued;
            // The engine outlives its requests: the sender is there.
            if job.status.is_final() || left || changes.changed().await.is_err() {
                return Ok::<_, Problem>(job);
            }
        }
    };
    let job = match tokio::time::timeout(limit, ended).await {
        Ok(job) => job?,
        Err(_) => blocking(Arc::clone(&engine), move |engine| engine.job(id)).await?,
    };
    Ok(Json(Job::of(job, engine.now())))
}

#[derive(Deserialize)]
struct From {
    from: Option<u64>,
}

async fn job_log(State(engine): Shared, Path(id): Path<u64>, Query(query): Query<From>) -> Answer<JobLog> {
    let log = blocking(engine, move |engine| engine.job_log(id, query.from.unwrap_or(0))).await?;
    Ok(Json(JobLog { text: log.text, next: log.next }))
}

async fn cancel_job(State(engine): Shared, Path(id): Path<u64>) -> Answer<Job> {
    let now = engine.now();
    Ok(Json(Job::of(blocking(engine, move |engine| engine.cancel(id)).await?, now)))
}

async fn list_events(
    State(engine): Shared,
    Extension(principal): Extension<Principal>,
    Query(asked): Page,
    uri: Uri,
) -> Listed {
    let found: Paged<catalog::Event> = blocking(engine, move |engine| {
        paging::newest(engine, asked, |event: &catalog::Event| principal.sees(event.group.as_deref()))
    })
    .await?;
    Ok(found.map(Event::from).answer(&uri))
}
