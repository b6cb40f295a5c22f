//! Stillpoint: a content-addressed, deduplicating, compressing, copy-on-write store whose volumes hold
//! databases, with instant snapshots and clones.
//!
//! Modules import only from lower ranks: base 0; format 1; block 2; index, journal 3; volume 4;
//! maintain, vfs 5; bench, control 8; cli 9. `tests/layers.rs` checks it.

pub mod base;
pub mod bench;
pub mod block;
pub mod cli;
pub mod control;
pub mod format;
pub mod index;
pub mod journal;
pub mod maintain;
pub mod vfs;
pub mod volume;
