//! Encoding and decoding of every on-disk record. Pure: no I/O, no clocks, no locks.
//!
//! Integers are little-endian unless a key must sort. Every decoder checks lengths before it computes with or
//! allocates by them, and answers `ErrorKind::Corrupt` for bytes it does not understand.

pub mod block_ids;
pub mod catalog_records;
pub mod cursor;
pub mod inode;
pub mod journal;
pub mod key;
pub mod log;
pub mod node;
pub mod place;
pub mod segment;

pub use block_ids::{BlockId, PAGE_SIZE, Pointer, block_id, check_of};
pub use place::Place;
