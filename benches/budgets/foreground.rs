//! What a writer feels of work behind its back: collecting, scrubbing, and destroying a snapshot in the middle of
//! many.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use stillpoint::bench::report::median;
use stillpoint::bench::workload::{self, Access, Ground, Outcome, Workload};
use stillpoint::bench::{Fill, PageGenerator};

use crate::budget::{Findings, figure};
use crate::postgres::Installation;
use crate::scan::write_file;
use crate::setting::Setting;
use crate::stillpoint::Mounted;

pub const BACKGROUND: &str = "background";
pub const DESTROY: &str = "destroy";
/// Pages changed between two snapshots of the destroy section.
const PAGES_BETWEEN: u64 = 64;
const PAGE_BYTES: u64 = 8192;
/// The foreground: a few clients that commit.
const WRITER: Workload = Workload { access: Access::RandomWrite, block_bytes: 8192, depth: 4, sync: true };

/// A writer on a file of its own.
struct Writer<'a> {
    setting: &'a Setting,
    mounted: &'a Mounted,
    file: File,
    pages: PageGenerator,
    turns: u64,
}

impl<'a> Writer<'a> {
    fn new(setting: &'a Setting, mounted: &'a Mounted, path: &Path) -> anyhow::Result<Self> {
        write_file(setting, path, 11)?;
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Self { setting, mounted, file, pages: PageGenerator::new(Fill::Database, 12), turns: 0 })
    }

    fn write_for(&mut self, duration: Duration) -> anyhow::Result<Outcome> {
        self.turns += 1;
        self.pages = self.pages.with_seed(1000 + self.turns);
        let ground = Ground {
            file: &self.file,
            name: "the foreground's file",
            file_bytes: self.setting.sizes.file_bytes,
            duration,
            pages: &self.pages,
            seed: self.turns,
            clock: &self.setting.clock,
            mounting_pid: Some(self.mounted.pid),
        };
        Ok(workload::run(&WRITER, &ground)?)
    }
}

fn p99_ms(outcome: &Outcome) -> f64 {
    outcome.latency.quantile(0.99).as_secs_f64() * 1e3
}

/// The writer alone, while `store gc` runs over fresh garbage again and again, and while `store scrub` does.
pub fn background(setting: &Setting, _: &Installation, findings: &mut Findings) -> anyhow::Result<()> {
    let mounted = Mounted::create(setting, &setting.fresh_folder("background")?)?;
    let volume = mounted.create_volume("v")?;
    setting.say("background: writing the foreground's file");
    let mut writer = Writer::new(setting, &mounted, &volume.join("file"))?;
    let (mut alone, mut collecting, mut scrubbing) = (Vec::new(), Vec::new(), Vec::new());
    let garbage = volume.join("garbage");
    let mut counts = [0; 2];
    for turn in 0..setting.arguments.runs {
        setting.say(&format!("background: repetition {}", turn + 1));
        alone.push(p99_ms(&writer.write_for(setting.duration())?));
        write_file(setting, &garbage, 100 + turn as u64)?;
        std::fs::remove_file(&garbage)?;
        for (index, (task, figures)) in
            [("gc", &mut collecting), ("scrub", &mut scrubbing)].into_iter().enumerate()
        {
            let (outcome, count) = beside(
                || mounted.command(&["store", task]).map(drop),
                || writer.write_for(setting.duration()),
            )?;
            figures.push(p99_ms(&outcome));
            counts[index] += count;
        }
    }
    let alone = median(alone);
    for (id, figures, count) in [("p99-gc", collecting, counts[0]), ("p99-scrub", scrubbing, counts[1])] {
        let with = median(figures);
        findings.add(
            id,
            with / alone,
            format!(
                "p99 {} / {} ms of 8 KiB random write + fdatasync by {} threads; run {count} times beside it",
                figure(with),
                figure(alone),
                WRITER.depth
            ),
        );
    }
    // An open file would keep the mount busy.
    drop(writer);
    mounted.unmount(setting)
}

/// Does `task` over and over while `work` runs; returns the result and how often the task was done.
fn beside<T>(
    task: impl Fn() -> anyhow::Result<()> + Sync,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, u64)> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let tasks = scope.spawn(|| {
            let mut count = 0;
            while !done.load(Ordering::Acquire) {
                task()?;
                count += 1;
            }
            anyhow::Ok(count)
        });
        let result = work();
        done.store(true, Ordering::Release);
        let count = tasks.join().map_err(|_| anyhow::anyhow!("the background thread panicked"))??;
        Ok((result?, count))
    })
}

/// Destroys the middle one of many snapshots beside a writer: time, bytes freed, and what the writer felt.
pub fn destroy(setting: &Setting, _: &Installation, findings: &mut Findings) -> anyhow::Result<()> {
    let mounted = Mounted::create(setting, &setting.fresh_folder("destroy")?)?;
    let (volume, other) = (mounted.create_volume("v")?, mounted.create_volume("other")?);
    let path = volume.join("file");
    write_file(setting, &path, 21)?;
    setting.say(&format!("destroy: taking {} snapshots", setting.sizes.snapshots));
    let file = OpenOptions::new().write(true).open(&path)?;
    let mut pages = PageGenerator::new(Fill::Random, 22);
    let mut page = [0; PAGE_BYTES as usize];
    // The same pages each time, so that each snapshot alone has its contents of them.
    let stride = setting.sizes.file_bytes / PAGES_BETWEEN;
    for number in 0..setting.sizes.snapshots {
        for place in (0..setting.sizes.file_bytes).step_by(stride as usize) {
            pages.fill(&mut page);
            std::os::unix::fs::FileExt::write_all_at(&file, &page, place)?;
        }
        mounted.create_snapshot("v", &format!("s{number}"))?;
    }
    let middle = format!("s{}", setting.sizes.snapshots / 2);
    let before = (mounted.taken()?, mounted.figure("stored_bytes")?);
    let shown = mounted.json(&["snapshot", "show", &format!("v@{middle}")])?;
    let listed = shown["unique_bytes"].as_u64().unwrap_or(0);
    let ((), quiet) = setting.timed(|| mounted.destroy_snapshot("v", &middle))?;
    let after = (mounted.taken()?, mounted.figure("stored_bytes")?);
    let (segments, stored) = (before.0.since(after.0).max(0.0), before.1.saturating_sub(after.1));
    let mut writer = Writer::new(setting, &mounted, &other.join("file"))?;
    let alone = writer.write_for(setting.duration())?;
    let doomed = Doomed::new(setting.sizes.snapshots / 2 + 1, setting.sizes.snapshots);
    let (during, _) = beside(
        || match doomed.take() {
            Some(name) => mounted.destroy_snapshot("v", &name),
            None => {
                std::thread::sleep(Duration::from_millis(10));
                Ok(())
            }
        },
        || writer.write_for(setting.duration()),
    )?;
    findings.note(
        DESTROY,
        format!(
            "the middle one of {} snapshots: destroyed in {} ms; listed as unique {} KiB, freed {} KiB before \
             and {} KiB after compression; p99 of a writer {} ms alone, {} ms while {} more were destroyed one after another",
            setting.sizes.snapshots,
            figure(quiet.as_secs_f64() * 1e3),
            listed >> 10,
            stored >> 10,
            figure(segments / 1024.0),
            figure(p99_ms(&alone)),
            figure(p99_ms(&during)),
            doomed.taken(),
        ),
    );
    drop((file, writer));
    mounted.unmount(setting)
}

/// Names of snapshots to destroy, each once.
struct Doomed {
    next: AtomicU64,
    first: u64,
    end: u64,
}

impl Doomed {
    fn new(first: u64, end: u64) -> Self {
        Self { next: first.into(), first, end }
    }

    fn take(&self) -> Option<String> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.end).then(|| format!("s{number}"))
    }

    fn taken(&self) -> u64 {
        self.next.load(Ordering::Relaxed).min(self.end) - self.first
    }
}
