//! Scrub reads every stored block and verifies it; check walks every tree and verifies the accounts.

use super::Progress;
use crate::base::Result;
use crate::volume::{Finding, Store};

/// How fast a scrub goes.
#[derive(Clone, Copy, Debug)]
pub struct ScrubOptions {
    /// Stored bytes a second; `None` is as fast as the disk.
    pub bytes_per_second: Option<u64>,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        Self { bytes_per_second: Some(128 << 20) }
    }
}

/// What a scrub found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    pub segments: u64,
    pub bytes: u64,
    /// Damaged blocks, and chunks whose directory is damaged.
    pub damaged: u64,
    /// With the files and snapshots they touch.
    pub findings: Vec<Finding>,
}

/// What a check found.
pub type CheckReport = crate::volume::Recount;

/// Reads and verifies everything in the segments.
pub fn scrub(store: &Store, options: &ScrubOptions, progress: &mut dyn Progress) -> Result<ScrubReport> {
    let mut report = ScrubReport::default();
    let total = store.segment_bytes();
    let mut damages = Vec::new();
    for segment in store.segment_ids() {
        if progress.cancelled() {
            break;
        }
        let before = report.bytes;
        let found = store.verify_segment(segment, options.bytes_per_second, &mut |bytes| {
            report.bytes += bytes;
            if (report.bytes ^ before) >> 20 != 0 {
                progress.bytes(report.bytes, total);
            }
        })?;
        report.segments += 1;
        damages.extend(found);
    }
    report.damaged = damages.len() as u64;
    if !damages.is_empty() {
        report.findings = store.name_damage(&damages);
    }
    Ok(report)
}

/// Walks every volume and snapshot: references, figures, names. `step` hears each view's name.
pub fn check(store: &Store, step: &mut dyn FnMut(&str)) -> Result<CheckReport> {
    store.recount(step)
}
