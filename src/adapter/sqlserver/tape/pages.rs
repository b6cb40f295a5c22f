//! Where a database's pages lie in a backup file.
//!
//! Measured: an `MSDA` block has one or more `MQDA` streams; each has two bytes of padding, then whole extents of eight pages of
//! 8,192 bytes, only those that are allocated, in the order of the file. The pages begin at multiples of 512 bytes of the file,
//! not of 8,192. The stream does not say which extent follows: the pages do, by the page id in their headers; a page of an
//! extent that was never written may hold anything, so the others of its extent place it. Invariant: runs lie inside the file and
//! do not overlap. Must not know what the pages hold.

use serde::{Deserialize, Serialize};

use super::block::Stream;
use crate::adapter::sqlserver::page::{PAGE_BYTES, PageHeader};

/// Pages of an extent.
pub const EXTENT_PAGES: usize = 8;
/// Bytes of an extent.
pub const EXTENT_BYTES: usize = EXTENT_PAGES * PAGE_BYTES;
/// Bytes before the pages of a stream.
const PADDING_BYTES: u64 = 2;
/// Runs that are remembered; what follows is counted only, so that no file can make us hold more.
pub const RUNS_MAX: usize = 65_536;

/// Pages that follow each other in a backup file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRun {
    /// Byte offset in the backup file.
    pub at: u64,
    pub pages: u64,
}

/// The streams of one backup set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataStreams {
    pub data_pages: u64,
    /// The first `RUNS_MAX` of them.
    pub runs: Vec<PageRun>,
    /// Whether there are more runs than are remembered.
    pub more_runs: bool,
    /// Bytes of data streams that are not whole pages: their layout is not understood.
    pub unplaced_bytes: u64,
    /// Bytes of log.
    pub log_bytes: u64,
}

impl DataStreams {
    /// The run of pages that the stream is.
    pub(super) fn add_data(&mut self, stream: &Stream) -> Option<PageRun> {
        let page = PAGE_BYTES as u64;
        let padding = match stream.length % page {
            0 => 0,
            PADDING_BYTES => PADDING_BYTES,
            _ => {
                self.unplaced_bytes = self.unplaced_bytes.saturating_add(stream.length);
                return None;
            }
        };
        let pages = (stream.length - padding) / page;
        self.data_pages = self.data_pages.saturating_add(pages);
        let run = (pages > 0).then_some(PageRun { at: stream.data_at() + padding, pages })?;
        match self.runs.len() < RUNS_MAX {
            true => self.runs.push(run),
            false => self.more_runs = true,
        }
        Some(run)
    }

    pub(super) fn add_log(&mut self, stream: &Stream) {
        let padding = if stream.length % 512 == PADDING_BYTES { PADDING_BYTES } else { 0 };
        self.log_bytes = self.log_bytes.saturating_add(stream.length - padding);
    }
}

/// Which extent of which file eight pages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExtentPlace {
    pub file_id: u16,
    /// A multiple of eight.
    pub first_page: u32,
}

/// The place that most pages of an extent agree on; nothing when no page says, or as many say otherwise. `extent` is up to
/// eight pages.
pub fn place_extent(extent: &[u8]) -> Option<ExtentPlace> {
    let mut votes: Vec<(ExtentPlace, usize)> = Vec::new();
    for (at, page) in extent.chunks_exact(PAGE_BYTES).take(EXTENT_PAGES).enumerate() {
        let Some(header) = PageHeader::decode(page).filter(PageHeader::is_plausible) else { continue };
        let Some(first_page) = header.page_id.checked_sub(at as u32).filter(|first| first % 8 == 0) else {
            continue;
        };
        let place = ExtentPlace { file_id: header.file_id, first_page };
        match votes.iter_mut().find(|(known, _)| *known == place) {
            Some((_, count)) => *count += 1,
            None => votes.push((place, 1)),
        }
    }
    let (place, count) = *votes.iter().max_by_key(|(_, count)| *count)?;
    (votes.iter().filter(|(_, other)| *other == count).count() == 1).then_some(place)
}
