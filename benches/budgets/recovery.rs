//! How long a store takes to open after its process was killed with a full journal.

use std::fs::OpenOptions;
use std::time::Duration;

use stillpoint::bench::report::median;
use stillpoint::bench::workload::{self, Access, Ground, Workload};
use stillpoint::bench::{Fill, PageGenerator};

use crate::budget::{Findings, figure};
use crate::postgres::Installation;
use crate::setting::Setting;
use crate::stillpoint::Mounted;

pub const SECTION: &str = "open";
const DEPTH: usize = 8;
/// The journal is full enough when it holds this share of the most it held while watched.
const FULL: f64 = 0.9;

pub fn run(setting: &Setting, _: &Installation, findings: &mut Findings) -> anyhow::Result<()> {
    let mut mounted = Mounted::create(setting, &setting.fresh_folder("open")?)?;
    let volume = mounted.create_volume("v")?;
    let mut pages = PageGenerator::new(Fill::Database, 3);
    let (mut took, mut journals) = (Vec::new(), Vec::new());
    for turn in 0..setting.arguments.runs {
        setting.say(&format!("open: repetition {}: filling the journal", turn + 1));
        journals.push(fill_journal_and_kill(setting, &mounted, &volume.join("file"), &mut pages)?);
        let (store, directory) = mounted.crash();
        let begun = setting.now();
        mounted = Mounted::mount(setting, &store, &directory)?;
        took.push((setting.now() - begun).as_secs_f64());
        std::fs::read_dir(&volume)?.next();
    }
    let each: Vec<String> = took.iter().map(|seconds| format!("{seconds:.2}")).collect();
    let journals: Vec<String> = journals.iter().map(|bytes| format!("{}", bytes >> 20)).collect();
    findings.add(
        "open",
        median(took),
        format!(
            "[{}] s from `mount` to a mount that answers, journal of [{}] MiB at the kill",
            each.join(" "),
            journals.join(" ")
        ),
    );
    mounted.unmount(setting)?;
    findings.note(SECTION, format!("the journal counted as full at {} of its highest level", figure(FULL)));
    Ok(())
}

/// Writes pages with fdatasync, watches how the journal fills, and kills the process when it is nearly as full as
/// it ever was. Returns the journal's bytes at the last look.
fn fill_journal_and_kill(
    setting: &Setting,
    mounted: &Mounted,
    path: &std::path::Path,
    pages: &mut PageGenerator,
) -> anyhow::Result<u64> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    file.set_len(setting.sizes.file_bytes)?;
    let watch = setting.duration();
    *pages = pages.with_seed(pages_seed(setting));
    let ground = Ground {
        file: &file,
        name: "the written file",
        file_bytes: setting.sizes.file_bytes,
        duration: watch * 4,
        pages,
        seed: pages_seed(setting),
        clock: &setting.clock,
        mounting_pid: None,
    };
    let workload = Workload { access: Access::RandomWrite, block_bytes: 8192, depth: DEPTH, sync: true };
    std::thread::scope(|scope| {
        // It ends with an error when the process is killed.
        let writers = scope.spawn(|| workload::run(&workload, &ground));
        let bytes = wait_for_full_journal(setting, mounted, watch);
        crate::cleanup::kill(mounted.pid);
        let ended_before = writers.join().map_err(|_| anyhow::anyhow!("a writing thread panicked"))?.is_ok();
        anyhow::ensure!(!ended_before, "the writers ended before the kill");
        bytes
    })
}

fn wait_for_full_journal(setting: &Setting, mounted: &Mounted, watch: Duration) -> anyhow::Result<u64> {
    let begun = setting.now();
    let mut highest = 0;
    loop {
        let bytes = mounted.figure("journal_bytes")?;
        let watched = setting.now() - begun;
        if watched > watch && (bytes as f64 >= highest as f64 * FULL || watched > watch * 3) {
            return Ok(bytes);
        }
        highest = highest.max(bytes);
    }
}

/// Another one each time: pages written twice would be found again, not stored.
fn pages_seed(setting: &Setting) -> u64 {
    use stillpoint::base::Clock;
    setting.clock.unix_nanos().cast_unsigned()
}
