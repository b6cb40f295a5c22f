//! Datasets through the whole: a daemon, a real source under load, staging servers and VDBs. Needs root, /dev/fuse and
//! PostgreSQL.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod command;
mod external;
mod faults;
mod hooks;
mod hostile;
mod kept;
mod kills;
mod lifecycle;
mod owner;
mod places;
mod points;
mod policies;
mod records;
mod refusals;
mod relink;
mod secure;
mod stage;
mod tablespaces;
mod verify;
