//! `Idempotency-Key`: a request that starts a job, sent again with its key, finds the job it started.
//!
//! The key is kept in the job's record, bound to who asked. A daemon that ends before it is written fails the job, too,
//! so the same request may then start another one.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;

use super::access::{BODY_BYTES_MAX, Principal};
use super::problem::Problem;
use super::routes::blocking;
use super::types::Accepted;
use crate::base::{Error, ErrorKind, Result};
use crate::catalog::Job;
use crate::engine::Engine;

const HEADER: &str = "idempotency-key";
const KEY_BYTES_MAX: usize = 255;
/// How long a key finds its job.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// The keys whose first request has not been answered.
#[derive(Clone, Default)]
pub(super) struct Keys(Arc<Mutex<HashSet<String>>>);

/// One such key; given back on drop.
struct Taken {
    keys: Keys,
    key: String,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.keys.0.lock().remove(&self.key);
    }
}

impl Keys {
    fn take(&self, key: &str) -> Result<Taken> {
        if self.0.lock().insert(key.to_owned()) {
            return Ok(Taken { keys: self.clone(), key: key.to_owned() });
        }
        Err(Error::new(ErrorKind::InUse, "the first request with this idempotency key is not answered yet")
            .with_hint("wait a moment, and send it again"))
    }
}

/// The layer within the guard: who asks is known.
pub(super) async fn once(
    State((engine, keys)): State<(Arc<Engine>, Keys)>,
    request: Request,
    next: Next,
) -> Response {
    let principal = request.extensions().get::<Principal>().map(|principal| principal.id);
    let starts = matches!(*request.method(), Method::POST | Method::DELETE);
    match (key_of(request.headers()), principal) {
        (Ok(None), _) | (_, None) => next.run(request).await,
        _ if !starts => next.run(request).await,
        (Err(e), _) => Problem::from(e).into_response(),
        (Ok(Some(key)), Some(id)) => {
            // On its own: a caller that hangs up in the middle must find its key when it comes again.
            let answer = tokio::spawn(answer_once(engine, keys, bound(id, &key), request, next));
            match answer.await {
                Ok(answer) => answer.unwrap_or_else(Problem::into_response),
                Err(e) => Problem::from(Error::new(ErrorKind::Io, format!("the request failed: {e}")))
                    .into_response(),
            }
        }
    }
}

fn key_of(headers: &HeaderMap) -> Result<Option<String>> {
    let Some(value) = headers.get(HEADER) else { return Ok(None) };
    match value.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= KEY_BYTES_MAX => Ok(Some(key.to_owned())),
        _ => Err(Error::invalid(format!(
            "an idempotency key is text of 1 to {KEY_BYTES_MAX} ASCII characters"
        ))),
    }
}

/// What a request for a removal may be the repetition of.
pub(super) struct Repetition(Option<(String, String)>);

impl Repetition {
    /// Of a request without a body.
    pub(super) fn of(parts: &Parts, principal: u64) -> Self {
        let key = key_of(&parts.headers).ok().flatten().filter(|_| parts.method == Method::DELETE);
        let asked = fingerprint(&parts.method, &parts.uri.to_string(), &[]);
        Self(key.map(|key| (bound(principal, &key), asked)))
    }

    /// Whether the same request of the same one has started a job.
    pub(super) fn is_known(&self, engine: &Engine) -> Result<bool> {
        match &self.0 {
            Some((key, asked)) => Ok(find(engine, key, asked)?.is_some()),
            None => Ok(false),
        }
    }
}

/// A key is good only for who used it.
fn bound(principal: u64, key: &str) -> String {
    format!("{principal}:{key}")
}

async fn answer_once(
    engine: Arc<Engine>,
    keys: Keys,
    key: String,
    request: Request,
    next: Next,
) -> std::result::Result<Response, Problem> {
    let _taken = keys.take(&key)?;
    let (parts, body) = request.into_parts();
    let bytes = to_bytes(body, BODY_BYTES_MAX)
        .await
        .map_err(|e| Error::invalid(format!("the request cannot be read, or is too long: {e}")))?;
    let asked = fingerprint(&parts.method, &parts.uri.to_string(), &bytes);
    let (looked_for, wanted) = (key.clone(), asked.clone());
    let known = blocking(Arc::clone(&engine), move |engine| find(engine, &looked_for, &wanted)).await?;
    if let Some(job) = known {
        return Ok((StatusCode::ACCEPTED, axum::Json(Accepted { job })).into_response());
    }
    let response = next.run(Request::from_parts(parts, Body::from(bytes))).await;
    if response.status() != StatusCode::ACCEPTED {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, BODY_BYTES_MAX)
        .await
        .map_err(|e| Error::new(ErrorKind::Io, format!("the answer cannot be read: {e}")))?;
    if let Ok(accepted) = serde_json::from_slice::<Accepted>(&bytes) {
        blocking(engine, move |engine| remember(engine, accepted.job, key, asked)).await?;
    }
    Ok(Response::from_parts(parts, Body::from(bytes)))
}

fn fingerprint(method: &Method, uri: &str, body: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [method.as_str().as_bytes(), uri.as_bytes(), body] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    hasher.finalize().to_hex().to_string()
}

/// The job that was started with this key, if it was the same request.
fn find(engine: &Engine, key: &str, asked: &str) -> Result<Option<u64>> {
    let oldest = engine.now().checked_sub(KEPT).unwrap_or(jiff::Timestamp::MIN);
    let mut found = None;
    engine.catalog().walk_down(u64::MAX, |job: Job| {
        if job.created < oldest {
            return false;
        }
        if job.idempotency_key.as_deref() == Some(key) {
            found = Some(job);
        }
        found.is_none()
    })?;
    match found {
        Some(job) if job.idempotency_request.as_deref() == Some(asked) => Ok(Some(job.id)),
        Some(job) => Err(Error::new(
            ErrorKind::Precondition,
            format!("this idempotency key was used for another request, which started job {}", job.id),
        )
        .with_hint("make a new key for each request that is not a repetition")),
        None => Ok(None),
    }
}

fn remember(engine: &Engine, job: u64, key: String, asked: String) -> Result<()> {
    engine.catalog().change(|change| {
        change.update::<Job>(job, |job| {
            job.idempotency_key = Some(key);
            job.idempotency_request = Some(asked);
        })
    })?;
    Ok(())
}
