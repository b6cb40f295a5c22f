//! The HTTP API: routes, what goes over the wire, and the client that the command line uses.
//!
//! Wire types are this module's own; the catalog's records never go out as they are. Knows no store.

mod client;
mod hooks;
mod policies;
mod problem;
mod routes;
mod types;

pub use client::{ApiClient, segment};
pub use hooks::{Hook, HookTemplate, NewHook};
pub use policies::{
    Binding, NewPolicy, Policy, Retention, Runs, Schedule, SimulateRequest, Simulation, Verdict, Why,
};
pub use problem::Problem;
pub use routes::router;
pub use types::*;
