//! A full host, quotas and reservations: what was acknowledged stays, reads go on, removing makes room, and
//! writing resumes in the same process. `mount` does the same through the real program on a small file system,
//! and needs root, /dev/fuse and loop devices.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod fixture;
mod ledger;
mod limit;
mod moments;
mod mount;
mod quota;
