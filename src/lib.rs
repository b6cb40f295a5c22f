//! Stillpoint: a content-addressed, deduplicating, compressing, copy-on-write store whose volumes hold
//! databases, with instant snapshots and clones.
//!
//! Modules import only from lower ranks: base 0; format 1; block 2; index, journal 3; volume 4;
//! hook, maintain, schedule, vfs 5; adapter, catalog 6; engine 7; bench, control 8; api 9; daemon 10; cli 11.
//! `tests/layers.rs` checks it.
//!
//! The store is a library of its own, without mounts and databases:
//!
//! ```
//! use std::sync::Arc;
//! use stillpoint::base::RealStorage;
//! use stillpoint::{CreateOptions, Environment, NewNode, OpenOptions, Owner, ROOT_INO, Store};
//!
//! # fn main() -> stillpoint::base::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let path = folder.path().join("store");
//! let storage = Arc::new(RealStorage::create(&path)?);
//! let environment = Environment::system();
//! Store::create(storage.clone(), &environment, &CreateOptions { journal_bytes: 8 << 20 })?;
//! let store = Store::open(storage, &environment, &OpenOptions::default())?;
//!
//! let volume = store.create_volume("pg")?;
//! let file = volume.create(ROOT_INO, b"table", NewNode::File, 0o600, Owner::default())?;
//! volume.write(file.ino, 0, b"before")?;
//! volume.flush()?; // durable
//!
//! store.create_snapshot("pg", "monday")?;
//! let clone = store.create_clone("pg", "monday", "vdb")?;
//! clone.write(file.ino, 0, b"after!")?;
//!
//! assert_eq!(volume.read(file.ino, 0, 6)?, b"before");
//! assert_eq!(clone.read(file.ino, 0, 6)?, b"after!");
//! assert_eq!(store.snapshot("pg", "monday")?.read(file.ino, 0, 6)?, b"before");
//! store.close()
//! # }
//! ```

pub mod adapter;
pub mod api;
pub mod base;
pub mod bench;
pub mod block;
pub mod catalog;
pub mod cli;
pub mod control;
pub mod daemon;
pub mod engine;
pub mod format;
pub mod hook;
pub mod index;
pub mod journal;
pub mod maintain;
pub mod schedule;
pub mod vfs;
pub mod volume;

pub use base::{Error, ErrorKind, Result};
pub use volume::{
    Attributes, CreateOptions, Environment, Ino, NewNode, OpenOptions, Owner, ROOT_INO, SetAttributes,
    SnapshotInfo, Store, StoreStats, View, ViewId, VolumeInfo,
};

/// A volume's head, to read and write.
pub type Volume = View;
/// A snapshot, to read.
pub type Snapshot = View;
