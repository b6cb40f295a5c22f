//! SQL Server through the test server: staging push and links to folders of backups from link to VDB, points in time,
//! each check, what is skipped, and a daemon that is killed.
//!
//! The instance runs in this process, its files lie on the daemon's real mount.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod backup_policies;
mod backups;
mod checks;
mod conversions;
mod freeze;
mod lifecycle;
mod linked;
mod pages;
mod points;
mod stage;
