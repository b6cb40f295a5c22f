//! Garbage collection: checkpoints let segments without live blocks go, compaction the dead parts of others.

use super::Progress;
use crate::base::{Error, Result};
use crate::volume::Store;

/// How thorough a collection is.
#[derive(Clone, Copy, Debug)]
pub struct CollectOptions {
    /// Segments of which at least this share is dead are rewritten, in percent.
    pub dead_percent: u64,
    /// Live bytes copied a second; `None` is as fast as the disk.
    pub bytes_per_second: Option<u64>,
}

impl Default for CollectOptions {
    fn default() -> Self {
        Self { dead_percent: 3, bytes_per_second: Some(64 << 20) }
    }
}

/// What a collection did, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectReport {
    pub segments_rewritten: u64,
    pub copied_bytes: u64,
    pub physical_bytes_before: u64,
    pub physical_bytes_after: u64,
    pub freed_bytes: u64,
}

/// Checkpoints that let dead segments go, at most.
const SETTLE_CHECKPOINTS: u32 = 3;

/// Gives all space back that nothing refers to. Safe to stop at any instant and to run again.
pub fn collect(
    store: &Store,
    options: &CollectOptions,
    progress: &mut dyn Progress,
) -> Result<CollectReport> {
    let before = store.stats()?;
    let mut report =
        CollectReport { physical_bytes_before: before.physical_bytes, ..CollectReport::default() };
    settle(store)?;
    if !store.recover_references() {
        let message = "tree nodes of the store cannot be read, so what is still used is not known: no space is \
                       reclaimed; `store scrub` names what to destroy";
        return Err(Error::corrupt(message));
    }
    store.end_sparse_segment(options.dead_percent);
    let total = store.stats()?.dead_bytes;
    let mut freed = 0;
    while !progress.cancelled() {
        let Some(step) = store.compact_step(options.dead_percent, options.bytes_per_second)? else { break };
        report.segments_rewritten += step.segments;
        report.copied_bytes += step.copied_bytes;
        freed += step.freed_bytes;
        progress.bytes(freed.min(total), total);
        if step.freed_bytes == 0 {
            break;
        }
    }
    settle(store)?;
    report.physical_bytes_after = store.stats()?.physical_bytes;
    report.freed_bytes = report.physical_bytes_before.saturating_sub(report.physical_bytes_after);
    Ok(report)
}

/// One checkpoint finds what died, the next one drops it; more only if that let more die.
fn settle(store: &Store) -> Result<()> {
    store.checkpoint()?;
    for _ in 1..SETTLE_CHECKPOINTS {
        if !store.has_dead_segments() {
            break;
        }
        store.checkpoint()?;
    }
    Ok(())
}
