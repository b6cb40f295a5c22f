//! Runs the suite on the mount and on the folder beneath in turns, so that both meet the same weather.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use super::folder::{self, WorkFolder};
use super::lineage::{self, Lineage};
use super::pages::{Fill, PageGenerator};
use super::report::{LineageResult, Report, Skipped, TestResult};
use super::suite::{self, LINEAGE, LOG_BYTES, OVERWRITE, Start, TESTS, Test, TestFile};
use super::workload::{self, Ground, Outcome};
use crate::base::{Clock, Error, Random, Result};

/// Snapshots and clones measured at each count.
const LINEAGE_SAMPLES: u64 = 20;
const READ_BYTES: usize = 1 << 20;

/// How to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of the file that is read and overwritten.
    pub file_bytes: u64,
    /// How long a run of a test lasts that does not end by itself.
    pub duration: Duration,
    pub runs: usize,
    pub fill: Fill,
    /// Beginnings of names of the tests to run; empty for all.
    pub only: Vec<String>,
    /// Empty the whole host's page cache before cold tests; needs root.
    pub drop_host_caches: bool,
    /// Numbers of snapshots at which one more is timed.
    pub counts: Vec<u64>,
}

/// What to measure.
pub struct Subject<'a> {
    pub directory: PathBuf,
    /// The process that serves `directory`, when known.
    pub mounting_pid: Option<u32>,
    /// A folder to compare with.
    pub beneath: Option<PathBuf>,
    /// The volume that `directory` lies on, or why it cannot be snapshotted.
    pub lineage: std::result::Result<&'a dyn Lineage, String>,
}

/// Time, chance and where to say what goes on. An error of `progress` ends the measurement.
pub struct Surroundings<'a> {
    pub clock: &'a dyn Clock,
    pub random: &'a dyn Random,
    pub progress: &'a dyn Fn(&str) -> Result<()>,
}

/// One of the folders that are compared.
struct Side {
    label: &'static str,
    folder: WorkFolder,
    mounting_pid: Option<u32>,
    pages: PageGenerator,
}

/// Measures; blocks for minutes. The files it makes are gone when it returns.
pub fn run(subject: &Subject<'_>, options: &Options, around: &Surroundings<'_>) -> Result<Report> {
    if options.runs == 0 || options.file_bytes < READ_BYTES as u64 {
        return Err(Error::invalid("a measurement needs at least one run and a file of 1 MiB"));
    }
    let seed = around.random.next_u64();
    let name = format!("stillpoint-bench-{seed:016x}");
    let side = |label, directory: &PathBuf, mounting_pid, seed| {
        let folder = WorkFolder::create(directory, &name)?;
        Ok::<_, Error>(Side { label, folder, mounting_pid, pages: PageGenerator::new(options.fill, seed) })
    };
    let mut sides = vec![side("mount", &subject.directory, subject.mounting_pid, seed)?];
    if let Some(beneath) = &subject.beneath {
        sides.push(side("beneath", beneath, None, !seed)?);
    }
    let mut bench = Run { subject, options, around, seed, sides, skipped: Vec::new() };
    let results = bench.tests()?;
    let lineage = bench.lineage()?;
    Ok(Report {
        mount: subject.directory.display().to_string(),
        beneath: subject.beneath.as_ref().map(|beneath| beneath.display().to_string()),
        file_bytes: options.file_bytes,
        fill: format!("{:?}", options.fill).to_lowercase(),
        runs: options.runs,
        seed,
        host_caches_dropped: options.drop_host_caches,
        results,
        lineage,
        skipped: bench.skipped,
    })
}

struct Run<'a> {
    subject: &'a Subject<'a>,
    options: &'a Options,
    around: &'a Surroundings<'a>,
    seed: u64,
    sides: Vec<Side>,
    skipped: Vec<Skipped>,
}

impl Run<'_> {
    fn tests(&mut self) -> Result<Vec<TestResult>> {
        let mut results = Vec::new();
        for test in TESTS.iter().filter(|test| suite::chosen(&self.options.only, test.name)) {
            if test.start == Start::Snapshotted
                && let Err(reason) = &self.subject.lineage
            {
                self.skipped.push(Skipped { test: OVERWRITE.to_owned(), reason: reason.clone() });
                continue;
            }
            let mut outcomes: Vec<Vec<Outcome>> = self.sides.iter().map(|_| Vec::new()).collect();
            for turn in 0..self.options.runs {
                // Each side goes first equally often.
                for position in 0..self.sides.len() {
                    let side = (position + turn) % self.sides.len();
                    (self.around.progress)(&format!(
                        "{} on {}, run {} of {}",
                        test.name,
                        self.sides[side].label,
                        turn + 1,
                        self.options.runs
                    ))?;
                    outcomes[side].push(self.once(test, side, turn)?);
                }
            }
            let beneath = outcomes.get(1).map_or(&[][..], Vec::as_slice);
            results.push(TestResult::new(test.name, &outcomes[0], beneath));
        }
        Ok(results)
    }

    fn once(&mut self, test: &Test, side_index: usize, turn: usize) -> Result<Outcome> {
        let options = self.options;
        let side = &mut self.sides[side_index];
        let (file_name, file_bytes) = match test.file {
            TestFile::Data => ("data", options.file_bytes),
            TestFile::Log => ("log", LOG_BYTES),
            TestFile::Grown => ("grown", 0),
        };
        let file = side.folder.filled(file_name, file_bytes, &mut side.pages)?;
        let snapshot = self.prepare(test, side_index, turn, &file)?;
        let side = &self.sides[side_index];
        let ground = Ground {
            file: &file,
            name: file_name,
            file_bytes,
            duration: options.duration,
            pages: &side.pages,
            seed: self.seed.rotate_left(1 + turn as u32) ^ (side_index as u64) << 32,
            clock: self.around.clock,
            mounting_pid: side.mounting_pid,
        };
        let outcome = workload::run(&test.workload, &ground);
        if let (Some(snapshot), Ok(lineage)) = (snapshot, &self.subject.lineage) {
            lineage.destroy_snapshot(&snapshot)?;
        }
        if test.file == TestFile::Grown {
            side.folder.remove(file_name)?;
        }
        outcome
    }

    /// Brings the file into the state the test starts from; returns the name of the snapshot made for it.
    fn prepare(&self, test: &Test, side: usize, turn: usize, file: &File) -> Result<Option<String>> {
        let on_mount = side == 0;
        match test.start {
            Start::AsIs => {}
            Start::Cold => folder::drop_caches(file, self.options.drop_host_caches)?,
            Start::Warm => read_whole(file)?,
            Start::Snapshotted => {
                if let (true, Ok(lineage)) = (on_mount, &self.subject.lineage) {
                    let name = format!("bench-{:08x}-{}-{turn}", self.seed as u32, test.name);
                    lineage.create_snapshot(&name)?;
                    return Ok(Some(name));
                }
            }
        }
        Ok(None)
    }

    fn lineage(&mut self) -> Result<Vec<LineageResult>> {
        if !suite::chosen(&self.options.only, LINEAGE) {
            return Ok(Vec::new());
        }
        let lineage = match &self.subject.lineage {
            Ok(lineage) => *lineage,
            Err(reason) => {
                self.skipped.push(Skipped { test: LINEAGE.to_owned(), reason: reason.clone() });
                return Ok(Vec::new());
            }
        };
        (self.around.progress)(&format!("{LINEAGE} at {:?}", self.options.counts))?;
        let side = &mut self.sides[0];
        let file = side.folder.filled("touched", 1 << 20, &mut side.pages)?;
        let mut page = vec![0; super::pages::PAGE_BYTES];
        let pages = &mut side.pages;
        let mut touch = || {
            pages.fill(&mut page);
            std::os::unix::fs::FileExt::write_all_at(&file, &page, 0)
                .map_err(|error| Error::io("write", "the touched file", error))
        };
        let prefix = format!("bench-{:08x}-", self.seed as u32);
        let (counts, clock) = (&self.options.counts, self.around.clock);
        let points = lineage::measure(lineage, &mut touch, counts, LINEAGE_SAMPLES, &prefix, clock)?;
        Ok(points.iter().map(LineageResult::from).collect())
    }
}

fn read_whole(file: &File) -> Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let mut offset = 0;
    loop {
        let length = std::os::unix::fs::FileExt::read_at(file, &mut buffer, offset)
            .map_err(|error| Error::io("read", "the measured file", error))?;
        if length == 0 {
            return Ok(());
        }
        offset += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{SeededRandom, SystemClock};

    #[test]
    fn the_whole_suite_runs_on_plain_folders_and_leaves_nothing() {
        let (mount, beneath) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let options = Options {
            file_bytes: 1 << 20,
            duration: Duration::from_millis(20),
            runs: 1,
            fill: Fill::Database,
            only: Vec::new(),
            drop_host_caches: false,
            counts: vec![1],
        };
        let subject = Subject {
            directory: mount.path().to_owned(),
            mounting_pid: None,
            beneath: Some(beneath.path().to_owned()),
            lineage: Err("not a Stillpoint mount".to_owned()),
        };
        let around =
            Surroundings { clock: &SystemClock, random: &SeededRandom::new(3), progress: &|_| Ok(()) };
        let report = run(&subject, &options, &around).unwrap();
        assert_eq!(report.results.len(), TESTS.len() - 1);
        assert!(report.results.iter().all(|result| result.ratio.is_some_and(|ratio| ratio > 0.0)));
        let skipped: Vec<_> = report.skipped.iter().map(|skipped| skipped.test.as_str()).collect();
        assert_eq!(skipped, [OVERWRITE, LINEAGE]);
        for folder in [&mount, &beneath] {
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }
}
