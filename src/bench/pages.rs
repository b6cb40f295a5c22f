//! Page contents for measuring: database-like, about 2:1 compressible at 8 KiB, and never two alike by accident.
//!
//! Zeros would be elided and repeated pages deduplicated, random bytes would not compress: a store measured on
//! any of those looks better or worse than it is. Must not know where the pages go.

use std::sync::Arc;

/// What the written pages look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fill {
    /// Slotted pages of rows with small integers, words and some random bytes.
    #[default]
    Database,
    Zero,
    Random,
}

/// Bytes of one generated page.
pub const PAGE_BYTES: usize = 8192;
/// Pages made up front; each written page is one of them with a stamp of its own. Enough that neighbours differ.
const TEMPLATES: usize = 256;

const HEADER_BYTES: usize = 24;
const LINE_POINTER_BYTES: usize = 4;
const WORDS: [&str; 16] = [
    "pending",
    "shipped",
    "invoice",
    "customer",
    "warehouse",
    "north",
    "returned",
    "account",
    "balance",
    "gold",
    "silver",
    "transfer",
    "credit",
    "debit",
    "monthly",
    "closed",
];

/// SplitMix64: fast, and good enough for contents and positions.
#[derive(Clone, Debug)]
pub struct Sequence(u64);

impl Sequence {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// Makes pages. Two generators of different seeds make different pages.
pub struct PageGenerator {
    fill: Fill,
    sequence: Sequence,
    templates: Arc<[u8]>,
    stamp: u64,
    seed: u64,
}

impl PageGenerator {
    pub fn new(fill: Fill, seed: u64) -> Self {
        let mut sequence = Sequence::new(seed);
        let mut templates = Vec::new();
        if fill == Fill::Database {
            templates = vec![0; TEMPLATES * PAGE_BYTES];
            for page in templates.chunks_mut(PAGE_BYTES) {
                fill_database_page(page, &mut sequence);
            }
        }
        Self { fill, sequence, templates: templates.into(), stamp: 0, seed }
    }

    /// A generator of another seed that shares the templates: cheap.
    #[must_use]
    pub fn with_seed(&self, seed: u64) -> Self {
        let templates = Arc::clone(&self.templates);
        Self { fill: self.fill, sequence: Sequence::new(seed), templates, stamp: 0, seed }
    }

    /// Fills `buffer` with new pages; the last may be cut.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        match self.fill {
            Fill::Zero => buffer.fill(0),
            Fill::Random => self.sequence.fill_bytes(buffer),
            Fill::Database => {
                for page in buffer.chunks_mut(PAGE_BYTES) {
                    self.fill_from_template(page);
                }
            }
        }
    }

    fn fill_from_template(&mut self, page: &mut [u8]) {
        let template = self.sequence.below(TEMPLATES as u64) as usize * PAGE_BYTES;
        page.copy_from_slice(&self.templates[template..template + page.len()]);
        self.stamp += 1;
        // Where PostgreSQL keeps the page's LSN and checksum: unlike in every page ever written.
        let mut stamp = [0; 16];
        stamp[..8].copy_from_slice(&self.stamp.to_le_bytes());
        stamp[8..].copy_from_slice(&self.seed.to_le_bytes());
        let length = page.len().min(stamp.len());
        page[..length].copy_from_slice(&stamp[..length]);
    }
}

/// A heap page as databases lay them out: header, line pointers growing up, rows growing down.
fn fill_database_page(page: &mut [u8], sequence: &mut Sequence) {
    let mut lower = HEADER_BYTES;
    let mut upper = page.len();
    let mut key = sequence.below(1 << 30) as u32;
    let transaction = sequence.below(1 << 28) as u32;
    let mut row = Vec::with_capacity(256);
    loop {
        row.clear();
        fill_row(&mut row, key, transaction, sequence);
        if upper < lower + LINE_POINTER_BYTES + row.len() {
            break;
        }
        upper -= row.len();
        page[upper..upper + row.len()].copy_from_slice(&row);
        let pointer = (upper as u32) | (row.len() as u32) << 17 | 1 << 15;
        page[lower..lower + LINE_POINTER_BYTES].copy_from_slice(&pointer.to_le_bytes());
        lower += LINE_POINTER_BYTES;
        key = key.wrapping_add(1);
    }
}

fn fill_row(row: &mut Vec<u8>, key: u32, transaction: u32, sequence: &mut Sequence) {
    row.extend_from_slice(&transaction.to_le_bytes());
    row.extend_from_slice(&[0; 12]);
    row.extend_from_slice(&[4, 0, 2, 9, 24, 0]);
    row.extend_from_slice(&key.to_le_bytes());
    row.extend_from_slice(&(sequence.below(10_000_000) as u32).to_le_bytes());
    for _ in 0..3 {
        row.extend_from_slice(WORDS[sequence.below(WORDS.len() as u64) as usize].as_bytes());
        row.push(b' ');
    }
    // A column without structure: a hash, a session key, a measured value.
    let mut opaque = [0; 20];
    sequence.fill_bytes(&mut opaque);
    row.extend_from_slice(&opaque);
    row.resize(row.len().next_multiple_of(8), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn pages(fill: Fill, count: usize) -> Vec<u8> {
        let mut bytes = vec![1; count * PAGE_BYTES];
        PageGenerator::new(fill, 7).fill(&mut bytes);
        bytes
    }

    #[test]
    fn database_pages_compress_about_two_to_one() {
        let bytes = pages(Fill::Database, 512);
        let compressed: usize =
            bytes.chunks(PAGE_BYTES).map(|page| zstd::bulk::compress(page, 1).unwrap().len()).sum();
        let ratio = bytes.len() as f64 / compressed as f64;
        assert!((1.8..2.3).contains(&ratio), "ratio {ratio}");
    }

    #[test]
    fn no_two_pages_are_alike() {
        for fill in [Fill::Database, Fill::Random] {
            let bytes = pages(fill, 4096);
            let distinct: HashSet<_> = bytes.chunks(PAGE_BYTES).map(blake3::hash).collect();
            assert_eq!(distinct.len(), 4096, "{fill:?}");
        }
        let (mut one, mut other) = (vec![0; PAGE_BYTES], vec![0; PAGE_BYTES]);
        PageGenerator::new(Fill::Database, 1).fill(&mut one);
        PageGenerator::new(Fill::Database, 2).fill(&mut other);
        assert_ne!(one, other);
    }

    #[test]
    fn zero_pages_are_zero_and_cut_pages_are_filled() {
        assert!(pages(Fill::Zero, 2).iter().all(|byte| *byte == 0));
        let mut odd = vec![0; 60 * 1024];
        PageGenerator::new(Fill::Database, 3).fill(&mut odd);
        assert!(odd[56 * 1024..].iter().any(|byte| *byte != 0));
    }
}
