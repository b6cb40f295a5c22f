//! How long a store takes to open after its process was killed with a full journal.
//!
//! A child of this program fills the journal through the library without background work, as a mounting process
//! would checkpoint meanwhile; then it is killed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};

use anyhow::{Context as _, bail};
use stillpoint::base::{Clock, RealStorage, SystemClock, SystemRandom};
use stillpoint::bench::report::median;
use stillpoint::bench::{Fill, PageGenerator, Sequence};
use stillpoint::volume::{Environment, Ino, OpenOptions, ROOT_INO, Store, View};

use crate::budget::Findings;
use crate::cleanup::{Undo, kill};
use crate::postgres::Installation;
use crate::scan::write_file;
use crate::setting::{Setting, logical_bytes};
use crate::stillpoint::Mounted;

pub const SECTION: &str = "open";
const VOLUME: &str = "v";
const FILE: &str = "file";
const PAGE_BYTES: u64 = 8192;
/// What a page's record takes in the journal beyond the page, at most.
const RECORD_OVERHEAD_BYTES: u64 = 512;
/// Full enough: a ring lets itself be filled to a little less than its size.
const FULL: f64 = 0.85;

pub fn run(setting: &Setting, _: &Installation, findings: &mut Findings) -> anyhow::Result<()> {
    let mut mounted = Mounted::create(setting, &setting.fresh_folder("open")?)?;
    let volume = mounted.create_volume(VOLUME)?;
    write_file(setting, &volume.join(FILE), 1)?;
    let (store, directory) = (mounted.store.clone(), mounted.directory.clone());
    let (mut took, mut written) = (Vec::new(), 0);
    for turn in 0..setting.arguments.runs {
        mounted.unmount(setting)?;
        setting.say(&format!("open: repetition {}: filling the journal", turn + 1));
        written = fill_and_kill(setting, &store)?;
        setting.say("open: mounting");
        let begun = setting.now();
        mounted = Mounted::mount(setting, &store, &directory)?;
        took.push((setting.now() - begun).as_secs_f64());
        anyhow::ensure!(logical_bytes(&volume)? == setting.sizes.file_bytes, "the file lost its size");
    }
    let each: Vec<String> = took.iter().map(|seconds| format!("{seconds:.2}")).collect();
    findings.add(
        SECTION,
        median(took),
        format!(
            "[{}] s from `mount` to a mount that answers, {} pages in the journal, a file of {} MiB",
            each.join(" "),
            written,
            setting.sizes.file_bytes >> 20
        ),
    );
    mounted.unmount(setting)
}

/// Returns the number of pages that were acknowledged before the kill.
fn fill_and_kill(setting: &Setting, store: &Path) -> anyhow::Result<u64> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--bench", "--fill-journal"])
        .arg(store)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the process that fills the journal")?;
    let process = setting.cleanup.add(Undo::EndProcess(child.id()));
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    kill(child.id());
    drop(process);
    line.trim().parse().with_context(|| format!("the journal could not be filled: {line:?}"))
}

/// The child's part: writes and syncs random pages until the journal is nearly full, says how many, and waits
/// for its end.
pub fn fill_journal(store: &Path) -> anyhow::Result<()> {
    let storage = RealStorage::open(store)?;
    let _lock = storage.lock("budgets")?;
    let environment = Environment { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom) };
    let options = OpenOptions {
        background: false,
        dirty_bytes_soft: u64::MAX,
        dirty_bytes_max: u64::MAX,
        ..OpenOptions::default()
    };
    let store = Store::open(Arc::new(storage), &environment, &options)?;
    let journal_bytes = store.stats()?.journal_bytes;
    let volume = store.volume(VOLUME)?;
    let file = volume.lookup(ROOT_INO, FILE.as_bytes())?;
    let count = (journal_bytes as f64 * FULL) as u64 / (PAGE_BYTES + RECORD_OVERHEAD_BYTES);
    // Another seed each time: pages written before would be found again, not stored.
    let seed = SystemClock.unix_nanos().cast_unsigned();
    let (mut pages, mut sequence) = (PageGenerator::new(Fill::Database, seed), Sequence::new(seed));
    let mut page = vec![0; PAGE_BYTES as usize];
    for _ in 0..count {
        pages.fill(&mut page);
        volume.write(file.ino, sequence.below(file.size / PAGE_BYTES) * PAGE_BYTES, &page)?;
        sync(&volume, file.ino)?;
    }
    println!("{count}");
    loop {
        std::thread::park();
    }
}

fn sync(volume: &View, file: Ino) -> anyhow::Result<()> {
    let (sender, receiver) = mpsc::channel();
    volume.sync_file(
        file,
        Box::new(move |result| {
            // The receiver waits below.
            let _ = sender.send(result);
        }),
    );
    match receiver.recv() {
        Ok(result) => Ok(result?),
        Err(_) => bail!("the store forgot a sync"),
    }
}
