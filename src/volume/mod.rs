//! Volumes, snapshots and clones: file trees over content-addressed blocks.
//!
//! Changes gather in layers in memory; fsync puts them into the journal; checkpoints store them in copy-on-write
//! trees. Knows nothing of FUSE, handles, databases or the command line.

mod btree;
mod catalog;
mod checkpoint;
mod compact;
mod data;
mod layer;
mod logging;
mod names;
mod open;
mod pages;
mod radix;
mod ranges;
mod reclaim;
mod roots;
mod shared;
mod space;
mod store;
mod trees;
mod types;
mod unlogged;
mod version;
mod view;
mod walk;
mod xattrs;

pub use compact::CompactStep;
pub use store::{OBJECT_NAME_MAX, Store, check_object_name};
pub use types::*;
pub use view::View;
pub use walk::{Finding, Recount};
