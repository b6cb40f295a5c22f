//! Keeping a store well while it is used: giving space back, scrubbing, checking.
//!
//! Knows no commands and no mounts; progress goes to whoever asked.

mod collect;
mod scrub;

pub use collect::{CollectOptions, CollectReport, collect};
pub use scrub::{CheckReport, ScrubOptions, ScrubReport, check, scrub};

/// Told how far a long operation is.
pub trait Progress {
    /// `done` of `total` in bytes; `total` is an estimate.
    fn bytes(&mut self, done: u64, total: u64);
    /// Whether to stop at the next safe point.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Nobody listens.
impl Progress for () {
    fn bytes(&mut self, _: u64, _: u64) {}
}
