//! Criterion benches of the journal on the host's file system: what a commit costs alone and in company.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use stillpoint::base::{RealStorage, Result, Storage};
use stillpoint::bench::{Fill, PageGenerator};
use stillpoint::journal::{self, Journal, JournalOptions, Start};

const RING_BYTES: u64 = 64 << 20;

struct Scratch {
    _folder: tempfile::TempDir,
    storage: Arc<dyn Storage>,
    start: Start,
}

fn scratch() -> Result<Scratch> {
    let folder = tempfile::tempdir()
        .map_err(|error| stillpoint::base::Error::io("create", "a temporary folder", error))?;
    let storage: Arc<dyn Storage> = Arc::new(RealStorage::create(&folder.path().join("store"))?);
    let start = journal::create(storage.as_ref(), [7; 16], RING_BYTES)?;
    Ok(Scratch { _folder: folder, storage, start })
}

/// One record made durable; a checkpoint is played by releasing all that is durable whenever half is used.
fn commit(journal: &Journal, payload: &[u8]) -> Result<()> {
    let mut room = journal.reserve(payload.len() as u64, 1)?;
    let seq = journal.append(&mut room, &[payload]);
    journal.commit(seq)?;
    if journal.used_bytes() > RING_BYTES / 2 {
        journal.release(&journal.position());
    }
    Ok(())
}

fn commits(criterion: &mut Criterion, journal: &Journal) -> Result<()> {
    let mut group = criterion.benchmark_group("journal/commit");
    for bytes in [8 << 10, 60 << 10, 1 << 20] {
        let mut payload = vec![0; bytes];
        PageGenerator::new(Fill::Database, 1).fill(&mut payload);
        group.throughput(Throughput::Bytes(bytes as u64));
        let mut failed = Ok(());
        group.bench_with_input(BenchmarkId::from_parameter(bytes), &payload, |bencher, payload| {
            bencher.iter(|| {
                if let Err(error) = commit(journal, black_box(payload)) {
                    failed = Err(error);
                }
            });
        });
        failed?;
    }
    group.finish();
    Ok(())
}

/// Eight threads that commit 8 KiB each at once: one group flush should do for several.
fn group_commits(criterion: &mut Criterion, journal: &Journal) -> Result<()> {
    const THREADS: usize = 8;
    let mut payload = vec![0; 8 << 10];
    PageGenerator::new(Fill::Database, 2).fill(&mut payload);
    let mut group = criterion.benchmark_group("journal/commit by 8 threads");
    group.throughput(Throughput::Elements(THREADS as u64));
    let mut failed = Ok(());
    group.bench_function("8192", |bencher| {
        bencher.iter(|| {
            std::thread::scope(|scope| {
                let committers: Vec<_> =
                    (0..THREADS).map(|_| scope.spawn(|| commit(journal, &payload))).collect();
                for committer in committers {
                    if let Ok(Err(error)) = committer.join() {
                        failed = Err(error);
                    }
                }
            });
        });
    });
    group.finish();
    failed
}

/// Opening a ring half full of records of 8 KiB.
fn replay(criterion: &mut Criterion) -> Result<()> {
    let scratch = scratch()?;
    let options = JournalOptions { threaded: false };
    let journal = Journal::open(&scratch.storage, scratch.start, options, &mut |_, _| Ok(()))?;
    let mut pages = PageGenerator::new(Fill::Database, 3);
    let mut payload = vec![0; 8 << 10];
    let mut bytes = 0;
    while journal.used_bytes() < RING_BYTES / 2 {
        pages.fill(&mut payload);
        let mut room = journal.reserve(payload.len() as u64, 1)?;
        journal.append(&mut room, &[&payload]);
        bytes += payload.len() as u64;
    }
    journal.shut_down()?;
    let mut group = criterion.benchmark_group("journal/replay");
    group.throughput(Throughput::Bytes(bytes)).sample_size(20);
    let mut failed = Ok(());
    group.bench_function("half of 64 MiB", |bencher| {
        bencher.iter(|| {
            let mut replayed = 0;
            let read =
                journal::read_only_replay(scratch.storage.as_ref(), scratch.start, &mut |_, record| {
                    replayed += record.len() as u64;
                    Ok(())
                });
            if let Err(error) = read {
                failed = Err(error);
            }
            black_box(replayed)
        });
    });
    group.finish();
    failed
}

fn all(criterion: &mut Criterion) {
    let run = |criterion: &mut Criterion| {
        let scratch = scratch()?;
        let options = JournalOptions { threaded: true };
        let journal = Journal::open(&scratch.storage, scratch.start, options, &mut |_, _| Ok(()))?;
        commits(criterion, &journal)?;
        group_commits(criterion, &journal)?;
        journal.shut_down()?;
        replay(criterion)
    };
    if let Err(error) = run(criterion) {
        eprintln!("the journal cannot be measured: {error}");
        std::process::exit(1);
    }
}

criterion_group!(benches, all);
criterion_main!(benches);
