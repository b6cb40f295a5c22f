//! Collection, scrub and check on an open store, with their progress.

use super::operations::ProgressSink;
use super::rows::{CheckRow, FindingRow, GcRow, ScrubRow};
use super::wire::{Progress, Reply};
use crate::base::Result;
use crate::maintain::{self, CollectOptions, ScrubOptions};
use crate::volume::{Finding, Store};

/// Puts what was asked for in the place of the usual: 0 is no limit.
fn set_rate(bytes_per_second: &mut Option<u64>, asked: Option<u64>) {
    if let Some(rate) = asked {
        *bytes_per_second = (rate > 0).then_some(rate);
    }
}

/// Gives back the space of what nothing refers to.
pub(super) fn collect(store: &Store, rate: Option<u64>, sink: &mut ProgressSink<'_>) -> Result<Reply> {
    let mut told = Told { step: "collecting", sink };
    let mut options = CollectOptions::default();
    set_rate(&mut options.bytes_per_second, rate);
    let report = maintain::collect(store, &options, &mut told)?;
    Ok(Reply::Gc(GcRow {
        segments_rewritten: report.segments_rewritten,
        copied_bytes: report.copied_bytes,
        physical_bytes_before: report.physical_bytes_before,
        physical_bytes_after: report.physical_bytes_after,
        freed_bytes: report.freed_bytes,
    }))
}

/// Reads and verifies every block.
pub(super) fn scrub(store: &Store, rate: Option<u64>, sink: &mut ProgressSink<'_>) -> Result<Reply> {
    let mut told = Told { step: "scrubbing", sink };
    let mut options = ScrubOptions::default();
    set_rate(&mut options.bytes_per_second, rate);
    let report = maintain::scrub(store, &options, &mut told)?;
    Ok(Reply::Scrub(ScrubRow {
        segments: report.segments,
        bytes: report.bytes,
        damaged: report.damaged,
        findings: report.findings.into_iter().map(FindingRow::from).collect(),
    }))
}

/// Walks every tree and verifies the accounts.
pub(super) fn check(store: &Store, sink: &mut ProgressSink<'_>) -> Result<Reply> {
    let mut done = 0;
    let report = maintain::check(store, &mut |view| {
        sink(Progress { step: format!("checking {view}"), done, total: None });
        done += 1;
    })?;
    Ok(Reply::Check(CheckRow {
        views: report.views,
        nodes: report.nodes,
        blocks: report.blocks,
        findings: report.findings.into_iter().map(FindingRow::from).collect(),
    }))
}

/// Passes on what `maintain` says of its progress.
struct Told<'a, 'b> {
    step: &'static str,
    sink: &'a mut ProgressSink<'b>,
}

impl maintain::Progress for Told<'_, '_> {
    fn bytes(&mut self, done: u64, total: u64) {
        (self.sink)(Progress { step: self.step.into(), done, total: Some(total) });
    }
}

impl From<Finding> for FindingRow {
    fn from(finding: Finding) -> Self {
        Self { object: finding.object, message: finding.message }
    }
}
