//! SQL Server: what is known of backups, log positions and pages without a server, and the adapter, which asks one.
//!
//! `adapter`, `client`, `files`, `staging`, `state` and `statements` speak with an instance; all other parts are values in,
//! values out, and open no connection and ask no clock. Input that an enemy wrote is refused, never trusted. Nothing
//! here knows the engine, its volumes and its jobs.

mod adapter;
pub mod chain;
mod client;
mod config;
pub mod convert;
pub mod errors;
mod file_check;
mod files;
pub mod gather;
pub mod guid;
pub mod landing;
pub mod lsn;
pub mod page;
pub mod plan;
#[cfg(test)]
mod plan_tests;
mod plan_text;
pub mod refusal;
pub mod retention;
pub mod spans;
mod staging;
mod state;
mod statements;
pub mod tape;
pub mod verify;

pub use adapter::SqlServer;
pub use guid::Guid;
pub use lsn::Lsn;
