//! Sequential read of cold data, on a mount and on the host's file system in turns.

use std::fs::File;
use std::path::Path;

use stillpoint::bench::report::median;
use stillpoint::bench::workload::{self, Access, Ground, Workload};
use stillpoint::bench::{Fill, PageGenerator};

use crate::budget::{Findings, figure};
use crate::postgres::Installation;
use crate::setting::{Setting, drop_host_caches};
use crate::stillpoint::Mounted;

pub const SECTION: &str = "scan";
const BLOCK_BYTES: usize = 1 << 20;

pub fn run(setting: &Setting, _: &Installation, findings: &mut Findings) -> anyhow::Result<()> {
    let folder = setting.fresh_folder("scan")?;
    let beneath = folder.join("file");
    let mut mounted = Mounted::create(setting, &folder)?;
    let volume = mounted.create_volume("scan")?;
    setting.say("scan: writing the file twice");
    write_file(setting, &beneath, 1)?;
    write_file(setting, &volume.join("file"), 2)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for turn in 0..setting.arguments.runs {
        setting.say(&format!("scan: repetition {}", turn + 1));
        // A new process has empty caches; the kernel's are dropped before each read.
        mounted = mounted.remount(setting)?;
        ours.push(read_cold(setting, &volume.join("file"))?);
        theirs.push(read_cold(setting, &beneath)?);
    }
    let (ours, theirs) = (median(ours), median(theirs));
    findings.add(
        "scan",
        ours / theirs,
        format!(
            "{} / {} MB/s, medians of {}, {} MiB of database-like pages read in steps of 1 MiB",
            figure(ours),
            figure(theirs),
            setting.arguments.runs,
            setting.sizes.file_bytes >> 20
        ),
    );
    mounted.unmount(setting)
}

/// Writes a file of database-like pages and makes it durable.
pub fn write_file(setting: &Setting, path: &Path, seed: u64) -> anyhow::Result<()> {
    let mut pages = PageGenerator::new(Fill::Database, seed);
    let mut buffer = vec![0; BLOCK_BYTES];
    let mut file = File::create(path)?;
    for _ in 0..setting.sizes.file_bytes / BLOCK_BYTES as u64 {
        pages.fill(&mut buffer);
        std::io::Write::write_all(&mut file, &buffer)?;
    }
    file.sync_all()?;
    Ok(())
}

/// Reads a file from a cold start; returns MB/s.
fn read_cold(setting: &Setting, path: &Path) -> anyhow::Result<f64> {
    drop_host_caches()?;
    let file = File::open(path)?;
    let workload = Workload { access: Access::ScanOnce, block_bytes: BLOCK_BYTES, depth: 1, sync: false };
    let ground = Ground {
        file: &file,
        name: "the scanned file",
        file_bytes: setting.sizes.file_bytes,
        duration: std::time::Duration::MAX / 2,
        pages: &PageGenerator::new(Fill::Zero, 0),
        seed: 0,
        clock: &setting.clock,
        mounting_pid: None,
    };
    let outcome = workload::run(&workload, &ground)?;
    Ok(outcome.bytes as f64 / 1e6 / outcome.elapsed.as_secs_f64())
}
