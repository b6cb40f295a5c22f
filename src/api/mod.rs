//! The HTTP API: routes, what goes over the wire, who may ask for what, and the client that the command line uses.
//!
//! Wire types are this module's own, or views that the engine makes to be shown; the catalog's records never go out as
//! they are. Knows no store and no sockets.

mod access;
mod backups;
mod client;
mod environments;
mod groups;
mod hooks;
mod idempotency;
mod openapi;
mod operations;
mod paging;
mod places;
mod policies;
mod problem;
mod routes;
mod sources;
mod stream;
mod tokens;
mod types;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;

pub use access::Via;
pub use backups::{Protect, Protection, Restore, RunBackup, WhyPoint};
pub use client::{ApiClient, Frame, Frames, segment};
pub use environments::NewRepository;
pub use groups::GroupName;
pub use hooks::{Hook, HookTemplate, NewHook};
pub use openapi::document_text;
pub use policies::{
    Binding, NewPolicy, Policy, Retention, Runs, Schedule, SimulateRequest, Simulation, Verdict, Why,
};
pub use problem::Problem;
pub use tokens::{MadeToken, NewToken, Token};
pub use types::*;

use crate::engine::Engine;
// What the engine shows is made for the wire: one type each.
pub use crate::engine::{
    BackedUpDatabase, BackupSetView as BackupSet, ConversionView as Conversion,
    EnvironmentView as Environment, GroupView as Group, NewSource, RepositoryView as Repository,
    RestorePlanView as RestorePlan, RestorePointView as RestorePoint, SourceChange,
    SourceView as SourceConfig, default_group,
};

/// The whole API, for connections that carry `Via` as an extension; those without it come from the network.
pub fn router(engine: Arc<Engine>) -> Router {
    let keys = idempotency::Keys::default();
    routes::router(Arc::clone(&engine))
        .layer(from_fn_with_state((Arc::clone(&engine), keys), idempotency::once))
        .layer(from_fn_with_state((engine, places::Places::default()), access::guard))
}
