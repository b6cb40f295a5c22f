//! The files of a snapshot, checked without a server: every page of every data file, and what that comes to in words.
//!
//! One file after another on one thread of its own, which has the priority of who asks, at the rate of a scrub. Log files have no pages, and folders of FILESTREAM and
//! memory-optimized data none of this kind: they are left out, and said. Invariant: what could not be read counts as damaged, never as
//! sound. Must not know jobs and catalogs.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam::channel::{RecvTimeoutError, bounded};
use parking_lot::Mutex;
use rustix::fs::{Advice, fadvise};

use super::super::{Task, Verified};
use super::config::{FileKind, FileRecord};
use super::page::{PAGE_BYTES, PageState};
use super::verify::{BadPage, Failure, Report, Watch, verify_file};
use crate::base::{Clock, Error, ErrorKind, Result, SystemClock, Throttle};

/// What a verdict says was run.
const CHECK: &str = "page checksums";
/// Damaged pages of one file that are named; the others are counted.
const NAMED_MAX: usize = 20;
/// How often progress is told, and an end looked for.
const POLL: Duration = Duration::from_millis(100);
/// What is read in a second: whoever uses the volume meanwhile comes first.
const RATE_BYTES: u64 = 128 << 20;

/// Checks the data files among `files`, which are below `folder`.
pub(super) fn check_files(folder: &Path, files: &[FileRecord], task: &mut dyn Task) -> Result<Verified> {
    task.step("check the pages of the data files")?;
    let mut verified = Verified { checks: vec![CHECK.into()], ..Verified::default() };
    let bytes = |file: &FileRecord| u64::try_from(file.pages).unwrap_or(0) * PAGE_BYTES as u64;
    let rows = || files.iter().filter(|file| file.kind == FileKind::Rows);
    let mut progress = Progress { done: 0, total: rows().map(bytes).sum() };
    for file in files {
        let shown = file.path.display().to_string();
        let left_out = match file.kind {
            FileKind::Rows => None,
            FileKind::Log => Some("a log has no pages"),
            FileKind::Stream => Some("FILESTREAM and memory-optimized data have no pages of this kind"),
            FileKind::FullText => Some("full-text catalogs have no pages"),
        };
        if let Some(why) = left_out {
            verified.left_out.push(format!("{shown}: {why}"));
            continue;
        }
        match check_file(&folder.join(&file.path), &mut progress, task) {
            Ok(report) => tell(&shown, file, &report, &mut verified, task),
            Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
            Err(e) => verified.problems.push(format!("{shown}: {e}")),
        }
    }
    Ok(verified)
}

struct Progress {
    /// Bytes of the files before.
    done: u64,
    total: u64,
}

/// Verifies one file on a thread of its own, so that somebody looks for an end meanwhile.
fn check_file(path: &Path, progress: &mut Progress, task: &mut dyn Task) -> Result<Report> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let pool = pool.map_err(|e| Error::new(ErrorKind::Io, format!("cannot start a thread: {e}")))?;
    let (pages, ended) = (AtomicU64::new(0), AtomicBool::new(false));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let throttle = Mutex::new(Throttle::new(&clock, Some(RATE_BYTES)));
    let told = |done: u64, _all: u64| {
        let before = pages.fetch_max(done, Ordering::Relaxed);
        throttle.lock().spend(done.saturating_sub(before) * PAGE_BYTES as u64);
    };
    let cancelled = || ended.load(Ordering::Relaxed);
    let watch = Watch { progress: &told, cancelled: &cancelled };
    let (result, found) = bounded(1);
    let report = pool.in_place_scope(|scope| {
        let watch = &watch;
        scope.spawn(move |_| {
            // The receiver waits until this has come.
            let _ = result.send(verify_file(path, watch));
        });
        loop {
            match found.recv_timeout(POLL) {
                Ok(report) => return Some(report),
                // It panicked, which the scope hands on.
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if task.check().is_err() {
                ended.store(true, Ordering::Relaxed);
            }
            let done = progress.done + pages.load(Ordering::Relaxed) * PAGE_BYTES as u64;
            task.bytes(done.min(progress.total), Some(progress.total));
        }
    });
    forget(path);
    progress.done += pages.load(Ordering::Relaxed) * PAGE_BYTES as u64;
    report.unwrap_or_else(|| Err(Error::new(ErrorKind::Io, format!("the check of {} ended", path.display()))))
}

/// Nobody else reads a snapshot's files now: they need not push what others read out of the host's memory.
fn forget(path: &Path) {
    let advised = File::open(path).map(|file| fadvise(&file, 0, None, Advice::DontNeed));
    if !matches!(advised, Ok(Ok(()))) {
        tracing::debug!("{} stays in memory", path.display());
    }
}

fn tell(shown: &str, file: &FileRecord, report: &Report, verified: &mut Verified, task: &mut dyn Task) {
    task.log(&format!(
        "{shown}: {} pages, {} with a checksum that holds, {} zero, {} without one; {} damaged, {} damaged and not in use",
        report.pages, report.good, report.zero, report.unprotected, report.errors, report.warnings
    ));
    if i64::from(report.file_id) != file.id {
        verified.problems.push(format!(
            "{shown}: its pages are those of file {}, and not of file {}",
            report.file_id, file.id
        ));
    }
    if report.tail_bytes > 0 {
        verified.problems.push(format!("{shown}: it ends with {} bytes that are no page", report.tail_bytes));
    }
    let damaged: Vec<&BadPage> = report.bad.iter().filter(|bad| bad.allocated).collect();
    let named = damaged.iter().take(NAMED_MAX);
    verified.problems.extend(named.map(|bad| format!("{shown}, page {}: {}", bad.page, words(bad.failure))));
    let more = report.errors.saturating_sub(damaged.len().min(NAMED_MAX) as u64);
    if more > 0 {
        verified.problems.push(format!("{shown}: {more} more damaged pages"));
    }
    if report.unprotected > 0 {
        verified.left_out.push(format!("{shown}: {} pages without a checksum", report.unprotected));
    }
}

fn words(failure: Failure) -> String {
    match failure {
        Failure::Page(PageState::Checksum { stored, computed }) => {
            format!("its checksum is {computed:#010x}, and {stored:#010x} stands in it")
        }
        Failure::Page(PageState::Torn { sectors }) => format!("it is torn, at sectors {sectors:#06x}"),
        Failure::Page(PageState::FlagLost) => "it lost the flag that says that it has a checksum".into(),
        Failure::Page(state) => format!("{state:?}"),
        Failure::Misplaced { file_id, page_id } => {
            format!("it is page {page_id} of file {file_id}, by its header")
        }
        Failure::AllocationLost => {
            "it says which pages are in use, and cannot be believed: all below it count as in use".into()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::page::{TYPE_FILE_HEADER, TYPE_PFS, protect};
    use super::super::tape::writer::page;
    use super::*;

    /// Asked to end from the start, or never.
    struct Watched {
        ends: bool,
        log: Vec<String>,
    }

    impl Task for Watched {
        fn step(&mut self, _name: &str) -> Result<()> {
            Ok(())
        }
        fn bytes(&mut self, done: u64, total: Option<u64>) {
            assert!(Some(done) <= total);
        }
        fn log(&mut self, line: &str) {
            self.log.push(line.to_owned());
        }
        fn warn(&mut self, line: &str) {
            panic!("{line}");
        }
        fn check(&self) -> Result<()> {
            match self.ends {
                true => Err(Error::new(ErrorKind::Cancelled, "cancelled")),
                false => Ok(()),
            }
        }
    }

    fn record(id: i64, kind: FileKind, path: &str) -> FileRecord {
        FileRecord { id, guid: None, kind, name: path.into(), path: path.into(), pages: 40, group: 1 }
    }

    fn data_file(pages: u32) -> Vec<u8> {
        let of = |id: u32| {
            let mut page = page(id);
            match id {
                0 => page[1] = TYPE_FILE_HEADER,
                1 => {
                    page[1] = TYPE_PFS;
                    page[100..].fill(0x40);
                    page[100 + 30] = 0;
                }
                _ => {}
            }
            protect(&mut page);
            page
        };
        (0..pages).flat_map(of).collect()
    }

    fn check(bytes: &[u8]) -> (Verified, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.mdf"), bytes).unwrap();
        let files = [record(1, FileKind::Rows, "a.mdf"), record(2, FileKind::Log, "a.ldf")];
        let mut task = Watched { ends: false, log: Vec::new() };
        (check_files(folder.path(), &files, &mut task).unwrap(), task.log)
    }

    #[test]
    fn a_sound_file_and_a_log() {
        let (verified, log) = check(&data_file(40));
        assert_eq!(verified.problems, Vec::<String>::new());
        assert_eq!(verified.left_out, ["a.ldf: a log has no pages"]);
        assert_eq!(verified.checks, ["page checksums"]);
        assert!(log[0].contains("40 pages, 40 with a checksum that holds"), "{log:?}");
    }

    #[test]
    fn damage_names_file_and_page_and_what_is_free_is_only_counted() {
        let mut bytes = data_file(40);
        bytes[17 * PAGE_BYTES + 500] ^= 1;
        bytes[30 * PAGE_BYTES + 500] ^= 1;
        bytes.extend_from_slice(&[1; 5]);
        let (verified, log) = check(&bytes);
        assert_eq!(verified.problems.len(), 2, "{verified:?}");
        assert!(verified.problems[0].contains("a.mdf: it ends with 5 bytes"), "{verified:?}");
        assert!(verified.problems[1].starts_with("a.mdf, page 17: its checksum is 0x"), "{verified:?}");
        assert!(log[0].contains("1 damaged, 1 damaged and not in use"), "{log:?}");
    }

    #[test]
    fn many_are_counted_and_what_is_no_data_file_is_damage() {
        let mut bytes = data_file(40);
        (2..30).for_each(|page| bytes[page * PAGE_BYTES + 700] ^= 8);
        let (verified, _) = check(&bytes);
        assert_eq!(verified.problems.len(), NAMED_MAX + 1);
        assert_eq!(verified.problems[NAMED_MAX], "a.mdf: 8 more damaged pages");
        for (bytes, why) in [(vec![0; 40 * PAGE_BYTES], "no data file"), (Vec::new(), "no data file")] {
            assert!(check(&bytes).0.problems[0].contains(why));
        }
        let gone = [record(1, FileKind::Rows, "a.mdf")];
        let mut task = Watched { ends: false, log: Vec::new() };
        assert_eq!(check_files(Path::new("/nowhere"), &gone, &mut task).unwrap().problems.len(), 1);
    }

    #[test]
    fn it_ends_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        // Long enough that a look for an end comes before its own.
        let file = File::create(folder.path().join("a.mdf")).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &data_file(40), 0).unwrap();
        file.set_len(64 << 30).unwrap();
        let files = [record(1, FileKind::Rows, "a.mdf")];
        let mut task = Watched { ends: true, log: Vec::new() };
        let error = check_files(folder.path(), &files, &mut task).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    }
}
