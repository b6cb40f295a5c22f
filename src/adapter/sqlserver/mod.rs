//! SQL Server: what is known of backups, log positions and pages without a server.
//!
//! Pure parts only: values in, values out. Invariants: nothing here opens a connection or asks a clock; input that an
//! enemy wrote is refused, never trusted. Must not know the engine, its volumes and its jobs.

pub mod chain;
pub mod convert;
pub mod errors;
pub mod gather;
pub mod guid;
pub mod lsn;
pub mod page;
pub mod plan;
#[cfg(test)]
mod plan_tests;
mod plan_text;
pub mod refusal;
pub mod retention;
pub mod spans;
pub mod tape;
pub mod verify;

pub use guid::Guid;
pub use lsn::Lsn;
