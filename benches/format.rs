//! Criterion benches of the codecs that a checkpoint or a read goes through for every block.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use stillpoint::bench::{Fill, PageGenerator, Sequence};
use stillpoint::format::node::{FANOUT, Node, Value};
use stillpoint::format::segment::{BlockKind, Codec, Entry, decode_directory, encode_directory};
use stillpoint::format::{PAGE_SIZE, Place, Pointer, block_id, check_of};

/// Entries of a directory as chunks have them.
const ENTRIES: u32 = 512;

fn pointer(slot: u32) -> Pointer {
    let place = Place { segment: 7, slot };
    Pointer { place, stored_bytes: 4000 + slot, check: check_of(&block_id(&slot.to_le_bytes())) }
}

fn identity(criterion: &mut Criterion) {
    let mut page = vec![0; PAGE_SIZE];
    PageGenerator::new(Fill::Database, 1).fill(&mut page);
    let mut group = criterion.benchmark_group("format/block_id");
    group.throughput(Throughput::Bytes(PAGE_SIZE as u64));
    group.bench_function("page", |bencher| bencher.iter(|| block_id(black_box(&page))));
    group.finish();
}

fn nodes(criterion: &mut Criterion) {
    let children = (0..FANOUT).map(|index| (index as u8, pointer(index as u32))).collect();
    let radix = Node::Radix { level: 1, children };
    let mut sequence = Sequence::new(2);
    let mut items: Vec<_> = (0..60_u64)
        .map(|ino| {
            let value: Vec<u8> = (0..90).map(|_| sequence.next_u64() as u8).collect();
            (ino.to_be_bytes().to_vec(), Value::from(value))
        })
        .collect();
    items.sort();
    let leaf = Node::Leaf(items);
    for (name, node) in [("radix", radix), ("leaf", leaf)] {
        let bytes = node.encode();
        let mut group = criterion.benchmark_group(format!("format/node {name}"));
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function("encode", |bencher| bencher.iter(|| black_box(&node).encode()));
        group.bench_function("decode", |bencher| bencher.iter(|| Node::decode(black_box(&bytes))));
        group.finish();
    }
}

fn directories(criterion: &mut Criterion) {
    let entries: Vec<Entry> = (0..ENTRIES)
        .map(|slot| Entry {
            id: block_id(&slot.to_le_bytes()),
            slot,
            offset: slot * 4096,
            stored_bytes: 4000,
            content_bytes: PAGE_SIZE as u32,
            codec: Codec::Zstd,
            kind: BlockKind::Page,
        })
        .collect();
    let (bytes, check) = encode_directory(3, &entries);
    let mut group = criterion.benchmark_group("format/directory of 512");
    group.throughput(Throughput::Elements(ENTRIES.into()));
    group.bench_function("encode", |bencher| bencher.iter(|| encode_directory(3, black_box(&entries))));
    group.bench_function("decode", |bencher| bencher.iter(|| decode_directory(black_box(&bytes), 3, &check)));
    group.finish();
}

criterion_group!(benches, identity, nodes, directories);
criterion_main!(benches);
