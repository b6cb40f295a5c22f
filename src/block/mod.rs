//! Content-addressed blocks in append-only segments: compress, place, read back and verify.
//!
//! Knows nothing of files, volumes or snapshots, and does not decide what is still needed: reference counts are
//! kept here, but the tree walks that make them are the business of the layers above.

mod codec;
mod directory;
mod refs;
mod segments;
mod verify;
mod writer;

pub use codec::{Encoded, encode_content};
pub use refs::{RefTable, SegmentUse};
pub use segments::{BlockStore, BlockStoreOptions, SegmentInfo};
pub use verify::{Damage, Rewritten};
pub use writer::SEGMENT_BYTES;
