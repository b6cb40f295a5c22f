//! Verifies a whole data file, page by page, without a server.
//!
//! Each page is looked at as `page::check` does, and its place compared with the page and file id in its header. Whether it is
//! allocated comes from the PFS pages: page 1 and every multiple of 8,088, one byte a page from byte 100 on, bit 0x40
//! (published by Microsoft's storage team; measured on the real backups). A failure on a page that is not
//! allocated is a warning, for space is reused without being cleared. Invariants: memory does not grow with the file; the
//! report is the same whatever the number of threads; the file is only read. Not for log files: they have no pages. Must not know
//! databases or snapshots.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::page::{self, PAGE_BYTES, PageHeader, PageState, TYPE_FILE_HEADER, TYPE_PFS};
use crate::base::{Error, ErrorKind, Result};

/// Pages that one PFS page is about.
const PFS_PAGES: u64 = 8088;
const PFS_FIRST: u64 = 1;
const PFS_BYTES_AT: usize = 100;
const PFS_ALLOCATED: u8 = 0x40;
/// Pages that are read at once: one megabyte.
const CHUNK_PAGES: u64 = 128;
/// Bad pages that a report names; more are counted.
pub const BAD_PAGES_MAX: usize = 1000;

/// What is wrong with one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    Page(PageState),
    /// Its header has the ids of another place.
    Misplaced {
        file_id: u16,
        page_id: u32,
    },
    /// Its PFS page is not to be believed, so no page below it is known to be free.
    AllocationLost,
}

/// One failure. `page` is its place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadPage {
    pub page: u64,
    /// False when the database does not use it: a warning.
    pub allocated: bool,
    pub failure: Failure,
}

/// The verdict on a file. Counts are of pages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// As its first page says.
    pub file_id: u16,
    pub pages: u64,
    /// Whose checksum or torn-page bits hold.
    pub good: u64,
    pub zero: u64,
    /// Without checksum or torn-page bits: nothing can be said of their contents.
    pub unprotected: u64,
    /// Failures on pages in use.
    pub errors: u64,
    /// Failures on pages that are not in use.
    pub warnings: u64,
    /// Bytes at the end that are no whole page.
    pub tail_bytes: u64,
    /// The first `BAD_PAGES_MAX` failures, by place.
    pub bad: Vec<BadPage>,
}

impl Report {
    pub fn is_good(&self) -> bool {
        self.errors == 0 && self.tail_bytes == 0
    }

    fn add(mut self, other: Self) -> Self {
        self.good += other.good;
        self.zero += other.zero;
        self.unprotected += other.unprotected;
        self.errors += other.errors;
        self.warnings += other.warnings;
        self.bad.extend(other.bad);
        self.bad.sort_by_key(|bad| bad.page);
        self.bad.truncate(BAD_PAGES_MAX);
        self
    }

    fn fail(&mut self, page: u64, allocated: bool, failure: Failure) {
        *(if allocated { &mut self.errors } else { &mut self.warnings }) += 1;
        if self.bad.len() < BAD_PAGES_MAX {
            self.bad.push(BadPage { page, allocated, failure });
        }
    }
}

/// How a verification is watched and ended. Both are called from several threads.
pub struct Watch<'a> {
    /// Takes pages done and pages in all.
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
    /// Whether to stop: then the result is `Cancelled`.
    pub cancelled: &'a (dyn Fn() -> bool + Sync),
}

/// Verifies the data file at `path`, on the threads of the current rayon pool. Blocking. `Invalid` when it is no data file; what is wrong with
/// its pages is in the report, not an error.
pub fn verify_file(path: &Path, watch: &Watch<'_>) -> Result<Report> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|source| Error::io("open", &format!("data file {name}"), source))?;
    let length =
        file.metadata().map_err(|source| Error::io("look at", &format!("data file {name}"), source))?.len();
    let file = DataFile { file, name, pages: length / PAGE_BYTES as u64, done: AtomicU64::new(0) };
    let file_id = file.identify()?;
    let sections = file.pages.div_ceil(PFS_PAGES);
    let mut report = (0..sections)
        .into_par_iter()
        .map(|section| file.section(section, file_id, watch))
        .try_reduce(Report::default, |one, other| Ok(one.add(other)))?;
    report.file_id = file_id;
    report.pages = file.pages;
    report.tail_bytes = length % PAGE_BYTES as u64;
    Ok(report)
}

struct DataFile {
    file: File,
    name: String,
    pages: u64,
    done: AtomicU64,
}

impl DataFile {
    fn read(&self, page: u64, count: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; count as usize * PAGE_BYTES];
        let at = page * PAGE_BYTES as u64;
        let object = || format!("page {page} of data file {}", self.name);
        self.file.read_exact_at(&mut bytes, at).map_err(|source| Error::read(&object(), source))?;
        Ok(bytes)
    }

    /// The file id of its header page. With that page damaged the PFS page behind it says it.
    fn identify(&self) -> Result<u16> {
        let no_file = |what: &str| {
            Error::invalid(format!("{} is no data file of SQL Server: {what}", self.name))
                .with_hint("verify .mdf and .ndf files; log files have no pages")
        };
        if self.pages < 2 {
            return Err(no_file("it has less than two pages"));
        }
        let bytes = self.read(0, 2)?;
        let is = |header: &PageHeader, kind: u8| header.is_plausible() && header.kind == kind;
        let header =
            PageHeader::decode(&bytes).filter(|header| is(header, TYPE_FILE_HEADER) && header.page_id == 0);
        let pfs = PageHeader::decode(&bytes[PAGE_BYTES..]).filter(|header| is(header, TYPE_PFS));
        match (header, pfs) {
            (Some(header), Some(pfs)) if page::check(&bytes).is_bad() => Ok(pfs.file_id.min(header.file_id)),
            (Some(header), Some(_)) => Ok(header.file_id),
            (None, Some(pfs)) => Ok(pfs.file_id),
            // A log file begins with a header page too, and has none of the others.
            (Some(_), None) if page::check(&bytes[PAGE_BYTES..]).is_bad() => {
                Ok(PageHeader::decode(&bytes).map_or(0, |h| h.file_id))
            }
            _ => Err(no_file("neither its header page nor its first PFS page is one")),
        }
    }

    /// The pages of one PFS page.
    fn section(&self, section: u64, file_id: u16, watch: &Watch<'_>) -> Result<Report> {
        let start = section * PFS_PAGES;
        let end = (start + PFS_PAGES).min(self.pages);
        let pfs_at = if section == 0 { PFS_FIRST } else { start };
        let pfs = self.read(pfs_at, 1)?;
        let mut report = Report::default();
        let believed = believe(&pfs, pfs_at, file_id);
        if !believed {
            report.fail(pfs_at, true, Failure::AllocationLost);
        }
        let allocated = |page: u64| {
            let byte = pfs.get(PFS_BYTES_AT + (page - start) as usize).copied().unwrap_or(PFS_ALLOCATED);
            !believed || page == pfs_at || byte & PFS_ALLOCATED != 0
        };
        let mut at = start;
        while at < end {
            if (watch.cancelled)() {
                return Err(Error::new(
                    ErrorKind::Cancelled,
                    format!("verification of {} was stopped", self.name),
                ));
            }
            let count = CHUNK_PAGES.min(end - at);
            let bytes = self.read(at, count)?;
            for (page, bytes) in (at..).zip(bytes.chunks_exact(PAGE_BYTES)) {
                look(&mut report, page, bytes, file_id, allocated(page));
            }
            at += count;
            (watch.progress)(self.done.fetch_add(count, Ordering::Relaxed) + count, self.pages);
        }
        Ok(report)
    }
}

/// Whether a PFS page says which pages are allocated.
fn believe(pfs: &[u8], at: u64, file_id: u16) -> bool {
    !page::check(pfs).is_bad()
        && PageHeader::decode(pfs).is_some_and(|header| {
            header.is_plausible()
                && header.kind == TYPE_PFS
                && u64::from(header.page_id) == at
                && header.file_id == file_id
        })
}

fn look(report: &mut Report, page: u64, bytes: &[u8], file_id: u16, allocated: bool) {
    let state = page::check(bytes);
    match state {
        PageState::Zero => report.zero += 1,
        _ if state.is_bad() => report.fail(page, allocated, Failure::Page(state)),
        _ => {
            let header = PageHeader::decode(bytes);
            let header = header.filter(|header| state == PageState::Good || header.is_plausible());
            let misplaced = header.filter(|h| u64::from(h.page_id) != page || h.file_id != file_id);
            match misplaced {
                Some(h) => {
                    let failure = Failure::Misplaced { file_id: h.file_id, page_id: h.page_id };
                    report.fail(page, allocated, failure);
                }
                None if state == PageState::Good => report.good += 1,
                None => report.unprotected += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::atomic::AtomicBool;

    use proptest::prelude::*;

    use super::super::page::protect;
    use super::super::tape::writer::page as data_page;
    use super::*;

    const QUIET: Watch<'static> = Watch { progress: &|_, _| {}, cancelled: &|| false };

    /// A data file of so many pages, every third free.
    fn file(pages: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        for id in 0..pages {
            let mut page = data_page(id as u32);
            if id == 0 {
                page[1] = TYPE_FILE_HEADER;
            }
            if id == PFS_FIRST || id > 0 && id % PFS_PAGES == 0 {
                page[1] = TYPE_PFS;
                let start = id / PFS_PAGES * PFS_PAGES;
                for at in 0..PFS_PAGES {
                    page[PFS_BYTES_AT + at as usize] = if (start + at) % 3 == 2 { 0 } else { 0x44 };
                }
            }
            protect(&mut page);
            bytes.extend_from_slice(&page);
        }
        bytes
    }

    fn verify(bytes: &[u8]) -> Result<Report> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        verify_file(file.path(), &QUIET)
    }

    fn at(page: usize) -> usize {
        page * PAGE_BYTES
    }

    #[test]
    fn a_good_file_is_good_and_counted() {
        let mut bytes = file(40);
        bytes[at(7)..at(8)].fill(0);
        bytes[at(9)..at(10)].fill(0xee);
        bytes[at(9) + 5] = 0;
        let report = verify(&bytes).unwrap();
        assert!(report.is_good(), "{report:?}");
        assert_eq!((report.pages, report.good, report.zero, report.unprotected), (40, 38, 1, 1));
        assert_eq!(report.file_id, 1);
    }

    #[test]
    fn a_failure_on_a_free_page_is_a_warning() {
        let mut bytes = file(40);
        bytes[at(10) + 500] ^= 1;
        bytes[at(11) + 500] ^= 1;
        let report = verify(&bytes).unwrap();
        assert_eq!((report.errors, report.warnings), (1, 1));
        assert_eq!(
            report.bad.iter().map(|bad| (bad.page, bad.allocated)).collect::<Vec<_>>(),
            [(10, true), (11, false)]
        );
    }

    #[test]
    fn a_page_in_anothers_place_is_found() {
        let mut bytes = file(40);
        let other = bytes[at(12)..at(13)].to_vec();
        bytes[at(13)..at(14)].copy_from_slice(&other);
        let report = verify(&bytes).unwrap();
        assert_eq!(
            report.bad,
            [BadPage { page: 13, allocated: true, failure: Failure::Misplaced { file_id: 1, page_id: 12 } }]
        );
    }

    #[test]
    fn without_its_allocation_every_page_counts_as_used() {
        let mut bytes = file(40);
        bytes[at(1) + 4000] ^= 8;
        bytes[at(11) + 500] ^= 1;
        let report = verify(&bytes).unwrap();
        assert_eq!((report.errors, report.warnings), (3, 0));
        assert_eq!(report.bad[0].failure, Failure::AllocationLost);
    }

    #[test]
    fn header_tail_and_what_is_no_data_file() {
        let mut bytes = file(16);
        bytes[at(0) + 33] ^= 1;
        bytes.extend_from_slice(&[0; 100]);
        let report = verify(&bytes).unwrap();
        assert_eq!((report.errors, report.tail_bytes, report.bad[0].page), (1, 100, 0));
        for other in [vec![0; 3 * PAGE_BYTES], vec![1; 100], b"MSSQLBAK".repeat(4096)] {
            let error = verify(&other).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
    }

    #[test]
    fn a_second_section_has_its_own_allocation() {
        let mut bytes = file(PFS_PAGES + 20);
        let page = PFS_PAGES as usize + 3;
        bytes[at(page) + 99] ^= 1;
        bytes[at(page + 5) + 99] ^= 1;
        let report = verify(&bytes).unwrap();
        let expected = |page: usize| page % 3 != 2;
        assert_eq!(report.bad.len(), 2);
        for bad in &report.bad {
            assert_eq!(bad.allocated, expected(bad.page as usize), "{bad:?}");
        }
    }

    #[test]
    fn it_stops_when_asked_and_tells_how_far_it_is() {
        let mut file_on_disk = tempfile::NamedTempFile::new().unwrap();
        file_on_disk.write_all(&file(600)).unwrap();
        let seen = AtomicU64::new(0);
        let stop = AtomicBool::new(false);
        let progress = |done: u64, all: u64| {
            assert!(done <= all);
            seen.fetch_max(done, Ordering::Relaxed);
        };
        let cancelled = || stop.load(Ordering::Relaxed);
        let watch = Watch { progress: &progress, cancelled: &cancelled };
        verify_file(file_on_disk.path(), &watch).unwrap();
        assert_eq!(seen.load(Ordering::Relaxed), 600);
        stop.store(true, Ordering::Relaxed);
        assert_eq!(verify_file(file_on_disk.path(), &watch).unwrap_err().kind(), ErrorKind::Cancelled);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn one_flip_is_one_failure(place in 0..at(24), mask in 1..=255u8) {
            let mut bytes = file(24);
            bytes[place] ^= mask;
            let report = verify(&bytes).unwrap();
            let page = (place / PAGE_BYTES) as u64;
            prop_assert!(report.bad.iter().all(|bad| bad.page == page));
            prop_assert_eq!(report.errors + report.warnings, if page == 1 { 2 } else { 1 });
        }
    }
}
