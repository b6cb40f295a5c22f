//! Snapshots, clones, destroys, collection, scrub, check and lists while writers run, on the library with its
//! threads; and what must hold when a volume goes while somebody uses it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod destroyed;
mod page;
mod places;
mod storm;
mod writer;
