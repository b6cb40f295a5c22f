//! The API of a real daemon: over TCP with and without TLS, with tokens, as streams, and as the document says.
//!
//! The daemon has a fresh store and no databases; its port is one that was free.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod client;
mod configuration;
mod network;
mod streams;
