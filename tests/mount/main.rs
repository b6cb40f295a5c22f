//! A store mounted for real: what POSIX and Linux promise, seen through the kernel. Needs root and /dev/fuse.
//!
//! Every test runs in both cache modes on a store and mount of its own, and takes the mount off again.

#![allow(clippy::unwrap_used)] // Failing here is a failing test.

mod attributes;
mod data;
mod fixture;
mod lists;
mod model;
mod names;
mod sessions;
