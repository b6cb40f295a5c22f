//! Criterion benches of volumes through the library on the host's file system: write, read, fsync, snapshot,
//! clone.

use std::hint::black_box;
use std::sync::{Arc, mpsc};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use stillpoint::base::{Error, RealStorage, Result, SystemClock, SystemRandom};
use stillpoint::bench::{Fill, PageGenerator, Sequence};
use stillpoint::volume::{
    CreateOptions, Environment, Ino, NewNode, OpenOptions, Owner, ROOT_INO, Store, View,
};

const PAGE_BYTES: u64 = 8192;
const FILE_BYTES: u64 = 64 << 20;

struct Bench {
    store: Arc<Store>,
    volume: Arc<View>,
    file: Ino,
    pages: PageGenerator,
    page: Vec<u8>,
    sequence: Sequence,
    numbers: u64,
}

impl Bench {
    fn new(folder: &tempfile::TempDir) -> Result<Self> {
        let storage = Arc::new(RealStorage::create(&folder.path().join("store"))?);
        let environment = Environment { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom) };
        Store::create(storage.clone(), &environment, &CreateOptions::default())?;
        let store = Store::open(storage, &environment, &OpenOptions::default())?;
        let volume = store.create_volume("v")?;
        let owner = Owner { uid: 0, gid: 0 };
        let file = volume.create(ROOT_INO, b"file", NewNode::File, 0o600, owner)?.ino;
        let page = vec![0; PAGE_BYTES as usize];
        let (pages, sequence) = (PageGenerator::new(Fill::Database, 1), Sequence::new(2));
        let mut bench = Self { store, volume, file, pages, page, sequence, numbers: 0 };
        for offset in (0..FILE_BYTES).step_by(PAGE_BYTES as usize) {
            bench.pages.fill(&mut bench.page);
            bench.volume.write(bench.file, offset, &bench.page)?;
        }
        bench.store.checkpoint()?;
        Ok(bench)
    }

    fn somewhere(&mut self) -> u64 {
        self.sequence.below(FILE_BYTES / PAGE_BYTES) * PAGE_BYTES
    }

    fn write(&mut self) -> Result<()> {
        let offset = self.somewhere();
        self.pages.fill(&mut self.page);
        self.volume.write(self.file, offset, &self.page)
    }

    fn read(&mut self) -> Result<()> {
        let offset = self.somewhere();
        self.volume.read(self.file, offset, PAGE_BYTES as usize).map(|bytes| drop(black_box(bytes)))
    }

    fn write_and_sync(&mut self) -> Result<()> {
        self.write()?;
        let (sender, receiver) = mpsc::channel();
        self.volume.sync_file(
            self.file,
            Box::new(move |result| {
                // The receiver waits below.
                let _ = sender.send(result);
            }),
        );
        receiver.recv().map_err(|_| Error::invalid("the store forgot a sync"))?
    }

    fn snapshot(&mut self) -> Result<()> {
        self.numbers += 1;
        self.store.create_snapshot("v", &format!("s{}", self.numbers)).map(drop)
    }

    fn write_and_snapshot(&mut self) -> Result<()> {
        self.write()?;
        self.snapshot()
    }

    fn clone_last_snapshot(&mut self) -> Result<()> {
        self.store.create_clone("v", &format!("s{}", self.numbers), "clone")?;
        self.store.destroy_volume("clone")
    }
}

type Operation = fn(&mut Bench) -> Result<()>;

const PAGED: [(&str, Operation); 3] =
    [("write", Bench::write), ("read", Bench::read), ("write and fsync", Bench::write_and_sync)];
const WHOLE: [(&str, Operation); 2] =
    [("write and snapshot", Bench::write_and_snapshot), ("clone and destroy", Bench::clone_last_snapshot)];

fn measure(criterion: &mut Criterion, bench: &mut Bench) -> Result<()> {
    let mut failed = Ok(());
    for (name, operation, bytes) in PAGED
        .iter()
        .map(|(name, operation)| (name, operation, Some(PAGE_BYTES)))
        .chain(WHOLE.iter().map(|(name, operation)| (name, operation, None)))
    {
        let mut group = criterion.benchmark_group("volume");
        if let Some(bytes) = bytes {
            group.throughput(Throughput::Bytes(bytes));
        } else {
            group.sample_size(10);
        }
        group.bench_function(*name, |bencher| {
            bencher.iter(|| {
                if let Err(error) = operation(bench) {
                    failed = Err(error);
                }
            });
        });
        group.finish();
    }
    failed
}

fn all(criterion: &mut Criterion) {
    let run = |criterion: &mut Criterion| {
        let folder = tempfile::tempdir().map_err(|error| Error::io("create", "a temporary folder", error))?;
        let mut bench = Bench::new(&folder)?;
        bench.snapshot()?;
        measure(criterion, &mut bench)?;
        bench.store.close()
    };
    if let Err(error) = run(criterion) {
        eprintln!("volumes cannot be measured: {error}");
        std::process::exit(1);
    }
}

criterion_group!(benches, all);
criterion_main!(benches);
