//! Backups of source databases over the wire: sets, runs, restore points, restores.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::access::Principal;
use super::policies::Binding;
use super::problem::Problem;
use super::routes::{Answer, Body, Shared, Started, blocking, started};
use super::types::LinkPlan;
use crate::adapter::Secrets;
use crate::adapter::backups::RestoreTo;
use crate::base::{Error, Result};
use crate::catalog::PointKind;
use crate::engine::{
    BackupRequest, BackupSetView, Engine, ProtectRequest, RestorePlanView, RestorePointView, RestoreRequest,
    default_group,
};

/// A request to back up source databases together from now on.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Protect {
    pub name: String,
    #[serde(default = "default_group")]
    pub group: String,
    pub adapter: String,
    /// What the adapter needs: see its part of the documentation.
    pub parameters: Value,
    /// Passwords by name; kept apart from everything else.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    /// Names of policies that it has from its beginning.
    #[serde(default)]
    pub policies: Vec<String>,
}

impl std::fmt::Debug for Protect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Protect").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a backup set is of, said anew. Its name, group, policies and restore points stay.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Protection {
    pub adapter: String,
    /// As for a new set.
    pub parameters: Value,
    /// Those that are not named stay.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
}

impl std::fmt::Debug for Protection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Protection").field("adapter", &self.adapter).finish_non_exhaustive()
    }
}

/// A request to back up now.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunBackup {
    /// `full`, `differential` or `log`; differential, or full where there is none, if not told.
    #[serde(default)]
    pub kind: Option<String>,
    /// All of the set if none is named.
    #[serde(default)]
    pub databases: BTreeSet<String>,
}

/// A request to restore a database. At most one of the points is named: the newest if none is.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// The database that was backed up; may be left out of a set of one.
    #[serde(default)]
    pub database: Option<String>,
    /// The end of a restore point.
    #[serde(default)]
    pub point: Option<u64>,
    /// RFC 3339 with an offset.
    #[serde(default)]
    pub time: Option<String>,
    #[serde(default)]
    pub lsn: Option<String>,
    /// A marked transaction.
    #[serde(default)]
    pub mark: Option<String>,
    /// Without the marked transaction.
    #[serde(default)]
    pub before_mark: bool,
    /// Of several marks of a name the first after this time.
    #[serde(default)]
    pub mark_after: Option<String>,
    /// The name that the restored database gets.
    #[serde(default)]
    pub to_database: Option<String>,
    /// The folder of the host for its files, in the place of a database.
    #[serde(default)]
    pub files: Option<String>,
    /// Left readable and able to take more logs.
    #[serde(default)]
    pub standby: bool,
    /// Whether a database of that name may be replaced.
    #[serde(default)]
    pub replace: bool,
    /// The folder of the host for the restored database's files.
    #[serde(default)]
    pub folder: Option<String>,
}

/// Why a restore point is kept.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct WhyPoint {
    pub restore_point: u64,
    /// The retention policy of its set.
    pub retention: Option<String>,
    pub kept: bool,
    /// It cannot be restored, whatever is kept.
    pub broken: bool,
    pub reasons: Vec<String>,
}

pub(super) fn routes() -> Router<Arc<Engine>> {
    Router::new()
        .route("/v1/backup-sets", get(list).post(protect))
        .route("/v1/backup-sets/plan", post(plan))
        .route("/v1/backup-sets/{name}", get(show).put(reprotect).delete(unprotect))
        .route("/v1/backup-sets/{name}/run", post(run))
        .route("/v1/backup-sets/{name}/verify", post(verify))
        .route("/v1/backup-sets/{name}/restore", post(restore))
        .route("/v1/backup-sets/{name}/restore/plan", post(plan_restore))
        .route("/v1/backup-sets/{name}/points", get(points))
        .route("/v1/backup-sets/{name}/points/{id}", get(point).delete(remove_point))
        .route("/v1/backup-sets/{name}/points/{id}/why", get(why))
        .route("/v1/backup-sets/{name}/points/{id}/verify", post(verify_point))
        .route("/v1/backup-sets/{name}/policies", get(policies))
        .route("/v1/backup-sets/{name}/policies/{policy}", put(apply).delete(remove))
}

type Done = std::result::Result<StatusCode, Problem>;

async fn list(
    State(engine): Shared,
    Extension(principal): Extension<Principal>,
) -> Answer<Vec<BackupSetView>> {
    let mut found = blocking(engine, |engine| engine.backup_sets()).await?;
    found.retain(|set| principal.sees(Some(&set.group)));
    Ok(Json(found))
}

fn request(body: Protect) -> ProtectRequest {
    ProtectRequest {
        name: body.name,
        group: body.group,
        adapter: body.adapter,
        parameters: body.parameters,
        secrets: Secrets(body.secrets),
        policies: body.policies,
    }
}

async fn protect(
    State(engine): Shared,
    Body(body): Body<Protect>,
) -> std::result::Result<(StatusCode, Json<BackupSetView>), Problem> {
    let made = blocking(engine, move |engine| {
        let set = engine.protect(&request(body))?;
        engine.show_set(&set.name)
    });
    Ok((StatusCode::CREATED, Json(made.await?)))
}

async fn plan(State(engine): Shared, Body(body): Body<Protect>) -> Answer<LinkPlan> {
    Ok(Json(blocking(engine, move |engine| engine.plan_protect(&request(body))).await?.into()))
}

async fn show(State(engine): Shared, Path(name): Path<String>) -> Answer<BackupSetView> {
    Ok(Json(blocking(engine, move |engine| engine.show_set(&name)).await?))
}

async fn reprotect(
    State(engine): Shared,
    Path(name): Path<String>,
    Body(body): Body<Protection>,
) -> Answer<BackupSetView> {
    let changed = blocking(engine, move |engine| {
        engine.reprotect(&name, &body.adapter, &body.parameters, Secrets(body.secrets))?;
        engine.show_set(&name)
    });
    Ok(Json(changed.await?))
}

async fn unprotect(State(engine): Shared, Path(name): Path<String>) -> Started {
    started(engine, move |engine| engine.unprotect(&name)).await
}

async fn run(State(engine): Shared, Path(name): Path<String>, body: axum::body::Bytes) -> Started {
    started(engine, move |engine| {
        let asked: Option<RunBackup> = match body.is_empty() {
            true => None,
            false => {
                serde_json::from_slice(&body).map_err(|e| Error::invalid(format!("the request: {e}")))?
            }
        };
        let asked = asked.unwrap_or_default();
        let kind = asked.kind.as_deref().map(kind_named).transpose()?;
        engine.back_up(&name, BackupRequest { kind, databases: asked.databases })
    })
    .await
}

fn kind_named(name: &str) -> Result<PointKind> {
    let kinds = [PointKind::Full, PointKind::Differential, PointKind::Log];
    kinds.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
        Error::invalid(format!("there is no backup kind {name:?}: there are full, differential and log"))
    })
}

fn restore_request(body: Restore) -> Result<RestoreRequest> {
    let named = [body.point.is_some(), body.time.is_some(), body.lsn.is_some(), body.mark.is_some()];
    if named.iter().filter(|named| **named).count() > 1 {
        return Err(Error::invalid("name one point: a restore point, a time, an LSN or a mark"));
    }
    if body.mark.is_none() && (body.before_mark || body.mark_after.is_some()) {
        return Err(Error::invalid("which mark is meant? It is not named"));
    }
    let to = match (body.point, body.time, body.lsn, body.mark) {
        (Some(id), ..) => RestoreTo::Point(id),
        (_, Some(time), ..) => RestoreTo::Time(time),
        (_, _, Some(lsn), _) => RestoreTo::Lsn(lsn),
        (_, _, _, Some(name)) => RestoreTo::Mark { name, before: body.before_mark, after: body.mark_after },
        _ => RestoreTo::Newest,
    };
    Ok(RestoreRequest {
        database: body.database,
        to,
        to_database: body.to_database,
        files: body.files.map(Into::into),
        standby: body.standby,
        replace: body.replace,
        folder: body.folder.map(Into::into),
    })
}

async fn restore(State(engine): Shared, Path(name): Path<String>, Body(body): Body<Restore>) -> Started {
    started(engine, move |engine| engine.restore(&name, &restore_request(body)?)).await
}

async fn plan_restore(
    State(engine): Shared,
    Path(name): Path<String>,
    Body(body): Body<Restore>,
) -> Answer<RestorePlanView> {
    let found = blocking(engine, move |engine| {
        let (planned, _) = engine.plan_restore(&name, &restore_request(body)?)?;
        Ok(RestorePlanView { restore_points: planned.points, steps: planned.text })
    });
    Ok(Json(found.await?))
}

async fn points(State(engine): Shared, Path(name): Path<String>) -> Answer<Vec<RestorePointView>> {
    Ok(Json(blocking(engine, move |engine| engine.restore_points(&name)).await?))
}

async fn point(State(engine): Shared, Path((name, id)): Path<(String, u64)>) -> Answer<RestorePointView> {
    Ok(Json(blocking(engine, move |engine| engine.show_point(&name, id)).await?))
}

async fn remove_point(State(engine): Shared, Path((name, id)): Path<(String, u64)>) -> Done {
    blocking(engine, move |engine| engine.destroy_point(&name, id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn why(State(engine): Shared, Path((name, id)): Path<(String, u64)>) -> Answer<WhyPoint> {
    let (verdict, retention) = blocking(engine, move |engine| engine.why_point(&name, id)).await?;
    Ok(Json(WhyPoint {
        restore_point: id,
        retention,
        kept: verdict.kept,
        broken: verdict.broken,
        reasons: verdict.reasons,
    }))
}

async fn verify_point(State(engine): Shared, Path((name, id)): Path<(String, u64)>) -> Started {
    started(engine, move |engine| engine.verify_points(&name, Some(id))).await
}

async fn verify(State(engine): Shared, Path(name): Path<String>) -> Started {
    started(engine, move |engine| engine.verify_points(&name, None)).await
}

async fn policies(State(engine): Shared, Path(name): Path<String>) -> Answer<Vec<Binding>> {
    let found = blocking(engine, move |engine| engine.set_policies(&name)).await?;
    Ok(Json(found.into_iter().map(Binding::from).collect()))
}

async fn apply(State(engine): Shared, Path((name, policy)): Path<(String, String)>) -> Done {
    blocking(engine, move |engine| engine.apply_set_policy(&policy, &name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove(State(engine): Shared, Path((name, policy)): Path<(String, String)>) -> Done {
    blocking(engine, move |engine| engine.unapply_set_policy(&policy, &name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_point_is_named_at_most() {
        let named = |body: Restore| restore_request(body).map(|request| request.to);
        assert_eq!(named(Restore::default()).unwrap(), RestoreTo::Newest);
        let mark = Restore { mark: Some("m".into()), before_mark: true, ..Restore::default() };
        let wanted = RestoreTo::Mark { name: "m".into(), before: true, after: None };
        assert_eq!(named(mark).unwrap(), wanted);
        let two = Restore { point: Some(1), time: Some("t".into()), ..Restore::default() };
        assert!(named(two).is_err());
        assert!(named(Restore { before_mark: true, ..Restore::default() }).is_err());
        assert!(kind_named("log").is_ok() && kind_named("Log").is_err());
    }
}
