//! SQL Server through the test server: staging push from link to VDB, each check, what is skipped, and a daemon that is
//! killed.
//!
//! The instance runs in this process, its files lie on the daemon's real mount.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod checks;
mod lifecycle;
mod pages;
mod stage;
