//! Criterion benches of the block store on the host's file system: compress, append, read back and verify.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use stillpoint::base::{Error, RealStorage, Result, Storage};
use stillpoint::bench::{Fill, PageGenerator, Sequence};
use stillpoint::block::{BlockStore, BlockStoreOptions, encode_content};
use stillpoint::format::segment::BlockKind;
use stillpoint::format::{PAGE_SIZE, Pointer, block_id};

/// Blocks that the reads choose from: more than the cache of decompressed pages holds.
const BLOCKS: usize = 16_384;
/// Blocks appended between two syncs, as a checkpoint does.
const CHECKPOINT_BLOCKS: usize = 2_048;

fn store(folder: &tempfile::TempDir) -> Result<BlockStore> {
    let storage: Arc<dyn Storage> = Arc::new(RealStorage::create(&folder.path().join("store"))?);
    storage.create_dir("segments").map_err(|error| Error::io("create", "segments", error))?;
    Ok(BlockStore::new(storage, BlockStoreOptions::default(), Vec::new(), 0, 0, false))
}

fn page(pages: &mut PageGenerator) -> Vec<u8> {
    let mut page = vec![0; PAGE_SIZE];
    pages.fill(&mut page);
    page
}

/// Hash, compress, append: what a checkpoint does for each dirty page.
fn put(blocks: &BlockStore, page: &[u8]) -> Result<Pointer> {
    blocks.append(BlockKind::Page, &block_id(page), &encode_content(page), page.len())
}

fn compressing(criterion: &mut Criterion) {
    let mut pages = PageGenerator::new(Fill::Database, 1);
    let content = page(&mut pages);
    let mut group = criterion.benchmark_group("block/encode");
    group.throughput(Throughput::Bytes(PAGE_SIZE as u64));
    group.bench_function("page", |bencher| bencher.iter(|| encode_content(black_box(&content))));
    group.finish();
}

fn putting(criterion: &mut Criterion, blocks: &BlockStore) -> Result<()> {
    let mut pages = PageGenerator::new(Fill::Database, 2);
    let mut group = criterion.benchmark_group("block/put and sync");
    group.throughput(Throughput::Bytes((CHECKPOINT_BLOCKS * PAGE_SIZE) as u64)).sample_size(10);
    let mut failed = Ok(());
    group.bench_function("2048 pages", |bencher| {
        bencher.iter_batched(
            || (0..CHECKPOINT_BLOCKS).map(|_| page(&mut pages)).collect::<Vec<_>>(),
            |batch| {
                let put_all = || {
                    batch.iter().try_for_each(|page| put(blocks, page).map(drop))?;
                    blocks.finish()?;
                    blocks.sync()
                };
                if let Err(error) = put_all() {
                    failed = Err(error);
                }
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
    failed
}

fn getting(criterion: &mut Criterion, blocks: &BlockStore) -> Result<()> {
    let mut pages = PageGenerator::new(Fill::Database, 3);
    let pointers: Vec<Pointer> =
        (0..BLOCKS).map(|_| put(blocks, &page(&mut pages))).collect::<Result<_>>()?;
    blocks.finish()?;
    let mut sequence = Sequence::new(4);
    let mut group = criterion.benchmark_group("block/get");
    group.throughput(Throughput::Bytes(PAGE_SIZE as u64));
    let mut failed = Ok(());
    group.bench_function("verified, not cached here", |bencher| {
        bencher.iter(|| {
            let pointer = &pointers[sequence.below(BLOCKS as u64) as usize];
            match blocks.read_uncached(pointer) {
                Ok(content) => drop(black_box(content)),
                Err(error) => failed = Err(error),
            }
        });
    });
    group.bench_function("cached", |bencher| {
        bencher.iter(|| {
            let pointer = &pointers[sequence.below(64) as usize];
            match blocks.read(pointer) {
                Ok(content) => drop(black_box(content)),
                Err(error) => failed = Err(error),
            }
        });
    });
    group.finish();
    failed
}

fn all(criterion: &mut Criterion) {
    compressing(criterion);
    let run = |criterion: &mut Criterion| {
        let folder = tempfile::tempdir().map_err(|error| Error::io("create", "a temporary folder", error))?;
        let blocks = store(&folder)?;
        putting(criterion, &blocks)?;
        getting(criterion, &blocks)
    };
    if let Err(error) = run(criterion) {
        eprintln!("the block store cannot be measured: {error}");
        std::process::exit(1);
    }
}

criterion_group!(benches, all);
criterion_main!(benches);
