//! What a file system call does on the store's volumes: inodes, directories, handles.
//!
//! [`Vfs`] implements the traits of `stillpoint_fuse`; [`Mount`] runs one at a directory. It must know nothing
//! of the kernel's protocol, of blocks or trees, nor of databases. Locks (`flock`, `fcntl`) and access checks
//! are the kernel's.
//!
//! Invariants: an inode stays as long as a handle to it is open, whatever happens to its names; snapshots never
//! change; what the kernel caches changes only through the kernel, or is invalidated by [`Mount`].

mod attributes;
mod errno;
mod files;
mod flush;
mod guard;
mod handles;
mod metadata;
mod mount;
mod namespace;
mod node;
mod privilege;
mod synthetic;
mod tree;

pub use mount::{Mount, MountTarget};
pub use tree::Vfs;
