//! The tests of `stillpoint bench`: what databases do to a file system, by name.

use super::workload::{Access, Workload};

const KIB: usize = 1024;

/// The file a test works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestFile {
    /// Filled once, kept for all tests.
    Data,
    /// A filled file of `LOG_BYTES`, written round and round.
    Log,
    /// Empty at the start of each run.
    Grown,
}

/// The state of the file when the clock starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    AsIs,
    /// In no cache of the kernel, as far as we may.
    Cold,
    /// Read whole just before.
    Warm,
    /// Just snapshotted; a file system without snapshots is measured as it is.
    Snapshotted,
}

/// Bytes of the log file.
pub const LOG_BYTES: u64 = 64 << 20;

/// One test.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    pub name: &'static str,
    pub workload: Workload,
    pub file: TestFile,
    pub start: Start,
}

const fn test(
    name: &'static str,
    access: Access,
    (block_bytes, depth, sync): (usize, usize, bool),
    file: TestFile,
    start: Start,
) -> Test {
    Test { name, workload: Workload { access, block_bytes, depth, sync }, file, start }
}

/// All tests but snapshot and clone latency, in the order they run.
pub const TESTS: [Test; 12] = [
    test("random-read-d1", Access::RandomReadOnce, (8 * KIB, 1, false), TestFile::Data, Start::Cold),
    test("random-read-d32", Access::RandomReadOnce, (8 * KIB, 32, false), TestFile::Data, Start::Cold),
    test("random-read-warm-d1", Access::RandomRead, (8 * KIB, 1, false), TestFile::Data, Start::Warm),
    test("random-write-d1", Access::RandomWrite, (8 * KIB, 1, false), TestFile::Data, Start::AsIs),
    test("random-write-d32", Access::RandomWrite, (8 * KIB, 32, false), TestFile::Data, Start::AsIs),
    test("random-write-sync-d1", Access::RandomWrite, (8 * KIB, 1, true), TestFile::Data, Start::AsIs),
    test("random-write-sync-d32", Access::RandomWrite, (8 * KIB, 32, true), TestFile::Data, Start::AsIs),
    test("append-sync", Access::Append, (8 * KIB, 1, true), TestFile::Grown, Start::AsIs),
    test("log-write-sync", Access::LogWrite, (60 * KIB, 1, true), TestFile::Log, Start::AsIs),
    test("scan-cold", Access::ScanOnce, (1024 * KIB, 1, false), TestFile::Data, Start::Cold),
    test("scan-warm", Access::Scan, (1024 * KIB, 1, false), TestFile::Data, Start::Warm),
    test(OVERWRITE, Access::RandomWriteOnce, (8 * KIB, 1, false), TestFile::Data, Start::Snapshotted),
];

/// The first write to each page after a snapshot.
pub const OVERWRITE: &str = "overwrite-after-snapshot";
/// Name of the test of snapshot and clone latency.
pub const LINEAGE: &str = "snapshot-clone";

/// All names `only` may choose from.
pub fn names() -> impl Iterator<Item = &'static str> {
    TESTS.iter().map(|test| test.name).chain([LINEAGE])
}

/// Whether a test of this name is chosen by `only`: by its name or the beginning of it. Empty chooses all.
pub fn chosen(only: &[String], name: &str) -> bool {
    only.is_empty() || only.iter().any(|wanted| name.starts_with(wanted.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_chosen_by_their_beginning() {
        let all: Vec<_> = names().collect();
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(all.len(), distinct.len());
        let only = ["scan".to_owned(), "append-sync".to_owned()];
        let picked: Vec<_> = all.into_iter().filter(|name| chosen(&only, name)).collect();
        assert_eq!(picked, ["append-sync", "scan-cold", "scan-warm"]);
        assert!(chosen(&[], LINEAGE));
    }
}
