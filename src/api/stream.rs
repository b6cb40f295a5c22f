//! Events and jobs as they happen, as server-sent events. A stream waits for the engine to tell of a change; it holds no
//! thread, and a client that reads slowly slows down only itself.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, Path, Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event as Frame, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream::unfold;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::access::Principal;
use super::problem::Problem;
use super::routes::blocking;
use super::types::{Event, Job};
use crate::base::{Error, ErrorKind, Result};
use crate::catalog;
use crate::engine::{Engine, JobLog};

/// Changes that come within this time are told together.
const GATHER: Duration = Duration::from_millis(100);
/// Something is sent at least this often, so that both sides see a connection that is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Reads of a job's log that are told together.
const LOG_READS_MAX: usize = 4;
/// A client that is further behind reads the list instead.
const BEHIND_MAX: usize = 1000;

pub(super) fn routes() -> Router<Arc<Engine>> {
    Router::new()
        .route("/v1/events/stream", get(follow_events))
        .route("/v1/jobs/{id}/stream", get(follow_job))
}

#[derive(Deserialize)]
struct After {
    after: Option<u64>,
}

#[derive(Deserialize)]
struct From {
    from: Option<u64>,
}

/// Where a client that lost its connection goes on.
fn last_id(headers: &HeaderMap) -> Option<u64> {
    headers.get("last-event-id")?.to_str().ok()?.parse().ok()
}

/// What a stream reads at a change: the next frames, and how it goes on.
struct Told {
    frames: Vec<Frame>,
    then: Then,
}

enum Then {
    /// There is more already.
    More,
    Wait,
    End,
}

/// A stream that looks with `look` at once and after each change. It ends with the token that it was asked for with.
fn stream<S: Send + 'static>(
    engine: Arc<Engine>,
    principal: Principal,
    state: S,
    look: impl Fn(&Engine, &mut S) -> Result<Told> + Copy + Send + Sync + 'static,
) -> Response {
    let changes = engine.changes();
    let started =
        Following { principal, engine, changes, state: Some(state), frames: VecDeque::new(), at_once: true };
    let frames = unfold(started, move |mut following| async move {
        loop {
            if let Some(frame) = following.frames.pop_front() {
                return Some((Ok::<_, Infallible>(frame), following));
            }
            following.look(look).await?;
        }
    });
    Sse::new(frames).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

struct Following<S> {
    principal: Principal,
    engine: Arc<Engine>,
    changes: watch::Receiver<u64>,
    /// Absent when all was told.
    state: Option<S>,
    frames: VecDeque<Frame>,
    /// Whether to look without waiting for a change.
    at_once: bool,
}

impl<S: Send + 'static> Following<S> {
    /// Waits for a change, and looks; `None` ends the stream.
    async fn look(&mut self, look: impl Fn(&Engine, &mut S) -> Result<Told> + Send + 'static) -> Option<()> {
        let mut state = self.state.take()?;
        if !std::mem::replace(&mut self.at_once, false) {
            self.changes.changed().await.ok()?;
            tokio::time::sleep(GATHER).await;
        }
        // Seen before the look, so that what changes during it is looked at again.
        self.changes.borrow_and_update();
        let principal = self.principal.clone();
        let looked = blocking(Arc::clone(&self.engine), move |engine| {
            if !principal.is_valid(engine)? {
                return Err(Error::new(ErrorKind::NotAllowed, "this token is no longer valid as it was"));
            }
            let told = look(engine, &mut state)?;
            Ok((told, state))
        });
        match looked.await {
            Ok((told, state)) => {
                self.frames.extend(told.frames);
                self.at_once = matches!(told.then, Then::More);
                self.state = Some(state).filter(|_| !matches!(told.then, Then::End));
            }
            Err(problem) => self.frames.push_back(frame("problem", &problem)),
        }
        Some(())
    }
}

fn frame(kind: &str, value: &impl Serialize) -> Frame {
    // What was read from the catalog can be written.
    Frame::default().event(kind).data(serde_json::to_string(value).unwrap_or_default())
}

async fn follow_events(
    State(engine): State<Arc<Engine>>,
    Extension(principal): Extension<Principal>,
    Query(query): Query<After>,
    headers: HeaderMap,
) -> std::result::Result<Response, Problem> {
    let from = last_id(&headers).or(query.after);
    let after = match from {
        Some(after) => after,
        None => blocking(Arc::clone(&engine), |engine| newest_event(engine)).await?,
    };
    Ok(stream(engine, principal.clone(), (after, principal), |engine, (after, principal)| {
        let mut frames = Vec::new();
        let mut behind = false;
        engine.catalog().walk_up(*after, |event: catalog::Event| {
            behind = frames.len() == BEHIND_MAX;
            if behind {
                return false;
            }
            *after = event.id;
            if principal.sees(event.group.as_deref()) {
                let id = event.id.to_string();
                frames.push(frame("event", &Event::from(event)).id(id));
            }
            true
        })?;
        if behind {
            *after = newest_event(engine)?;
            frames = vec![frame("reset", &*after).id(after.to_string())];
        }
        let then = if engine.is_ending() { Then::End } else { Then::Wait };
        Ok(Told { frames, then })
    }))
}

fn newest_event(engine: &Engine) -> Result<u64> {
    let mut newest = 0;
    engine.catalog().walk_down(u64::MAX, |event: catalog::Event| {
        newest = event.id;
        false
    })?;
    Ok(newest)
}

async fn follow_job(
    State(engine): State<Arc<Engine>>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<u64>,
    Query(query): Query<From>,
    headers: HeaderMap,
) -> std::result::Result<Response, Problem> {
    let from = last_id(&headers).or(query.from).unwrap_or(0);
    blocking(Arc::clone(&engine), move |engine| engine.job(id)).await?;
    Ok(stream(engine, principal, (id, from, String::new()), |engine, (id, from, shown)| {
        // The record first: what the log got before the end is then read, too.
        let record = engine.job(*id)?;
        let ended = record.status.is_final();
        // One that waits will not run any more; one that runs has an end to tell.
        let left = engine.is_ending() && record.status == catalog::JobStatus::Queued;
        let mut frames = Vec::new();
        for _ in 0..LOG_READS_MAX {
            let JobLog { text, next } = engine.job_log(*id, *from)?;
            if text.is_empty() {
                break;
            }
            *from = next;
            frames.push(frame("log", &text).id(next.to_string()));
        }
        if frames.len() == LOG_READS_MAX {
            return Ok(Told { frames, then: Then::More });
        }
        let job = Job::of(record, engine.now());
        let now = serde_json::to_string(&job).unwrap_or_default();
        if now != *shown {
            frames.push(frame("job", &job));
            *shown = now;
        }
        if ended {
            frames.push(frame("end", &job.status));
        }
        let then = if ended || left { Then::End } else { Then::Wait };
        Ok(Told { frames, then })
    }))
}
