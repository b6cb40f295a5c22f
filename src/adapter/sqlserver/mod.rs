//! SQL Server: what is known of backups, log positions and pages without a server, and the adapter, which asks one.
//!
//! `adapter`, `client`, `files`, `headers`, `linked`, `points`, `protect`, `pushed`, `restore`, `staging`, `state` and `statements` speak with an instance, `backups`
//! and `kept` read and write files of backups; all other parts are values in,
//! values out, and open no connection and ask no clock. Input that an enemy wrote is refused, never trusted. Nothing
//! here knows the engine, its volumes and its jobs.

mod adapter;
mod backups;
pub mod chain;
mod client;
mod config;
pub mod convert;
pub mod errors;
mod file_check;
mod files;
mod follow;
pub mod gather;
pub mod guid;
mod headers;
mod kept;
pub mod landing;
mod linked;
pub mod lsn;
pub mod page;
pub mod plan;
#[cfg(test)]
mod plan_tests;
mod plan_text;
mod points;
mod protect;
mod pushed;
pub mod refusal;
mod restore;
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
pub use protect::watch_freeze;
