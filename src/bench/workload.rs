//! One timed access pattern on one file: what each thread does, for how long, and what came out.
//!
//! Must not know of stores, mounts or comparisons.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::cpu;
use super::histogram::Histogram;
use super::pages::{PageGenerator, Sequence};
use crate::base::{Clock, Error, Result};

/// Where the operations of a workload fall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Blocks at random, read.
    RandomRead,
    /// Each block once in random order, read, so that no cache filled meanwhile can answer.
    RandomReadOnce,
    /// Blocks at random, written.
    RandomWrite,
    /// Each block once in random order, written.
    RandomWriteOnce,
    /// From the file's end on, written.
    Append,
    /// From the start on and round again, written: a log file of fixed size.
    LogWrite,
    /// From start to end, read, once.
    ScanOnce,
    /// From start to end, read, round and round.
    Scan,
}

impl Access {
    pub fn is_read(self) -> bool {
        matches!(self, Self::RandomRead | Self::RandomReadOnce | Self::ScanOnce | Self::Scan)
    }
}

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    pub access: Access,
    pub block_bytes: usize,
    /// Threads, each with one operation under way.
    pub depth: usize,
    /// Whether each write is followed by fdatasync before the next; the latency then counts both.
    pub sync: bool,
}

/// On what, and how long.
pub struct Ground<'a> {
    pub file: &'a File,
    /// For messages.
    pub name: &'a str,
    pub file_bytes: u64,
    /// A workload that does not end by itself ends then.
    pub duration: Duration,
    /// Makes what is written, under seeds of this run.
    pub pages: &'a PageGenerator,
    pub seed: u64,
    pub clock: &'a dyn Clock,
    /// The process whose processor time counts as well.
    pub mounting_pid: Option<u32>,
}

/// What came out.
#[derive(Clone)]
pub struct Outcome {
    pub operations: u64,
    pub bytes: u64,
    /// Until the last operation ended and, for writes, all of them were durable.
    pub elapsed: Duration,
    pub latency: Histogram,
    pub processor: Duration,
}

/// Runs `workload`, blocking until it ends.
pub fn run(workload: &Workload, ground: &Ground<'_>) -> Result<Outcome> {
    let blocks = (ground.file_bytes / workload.block_bytes as u64).max(1);
    let order = match workload.access {
        Access::RandomReadOnce | Access::RandomWriteOnce => shuffled(blocks, ground.seed),
        _ => Vec::new(),
    };
    let processor_before = cpu::total(ground.mounting_pid);
    let begun = ground.clock.monotonic();
    let deadline = begun + ground.duration;
    let mut latency = Histogram::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workload.depth)
            .map(|index| {
                let worker = Worker { workload, ground, index, blocks, order: &order, deadline };
                scope.spawn(move || worker.work())
            })
            .collect();
        for worker in workers {
            let outcome = worker.join().map_err(|_| Error::invalid("a measuring thread panicked"))?;
            latency.merge(&outcome.map_err(|error| Error::io("measure on", ground.name, error))?);
        }
        Ok::<(), Error>(())
    })?;
    if !workload.access.is_read() {
        ground.file.sync_data().map_err(|error| Error::io("flush", ground.name, error))?;
    }
    let elapsed = ground.clock.monotonic() - begun;
    let processor = cpu::total(ground.mounting_pid).saturating_sub(processor_before);
    let operations = latency.count();
    Ok(Outcome { operations, bytes: operations * workload.block_bytes as u64, elapsed, latency, processor })
}

struct Worker<'a> {
    workload: &'a Workload,
    ground: &'a Ground<'a>,
    index: usize,
    blocks: u64,
    order: &'a [u32],
    deadline: Duration,
}

impl Worker<'_> {
    fn work(&self) -> std::io::Result<Histogram> {
        let clock = self.ground.clock;
        let seed = self.ground.seed ^ ((self.index as u64 + 1) << 48);
        let mut sequence = Sequence::new(seed);
        let mut pages = self.ground.pages.with_seed(seed);
        let mut buffer = vec![0; self.workload.block_bytes];
        let mut latency = Histogram::default();
        for turn in 0.. {
            let Some(block) = self.block(turn, &mut sequence) else { break };
            if !self.workload.access.is_read() {
                pages.fill(&mut buffer);
            }
            let begun = clock.monotonic();
            // A thread that the host let run too late still gives one figure.
            if turn > 0 && begun >= self.deadline {
                break;
            }
            self.operate(&mut buffer, block * self.workload.block_bytes as u64)?;
            latency.record(clock.monotonic() - begun);
        }
        Ok(latency)
    }

    /// The block of this thread's operation number `turn`; None when all are done.
    fn block(&self, turn: u64, sequence: &mut Sequence) -> Option<u64> {
        let depth = self.workload.depth as u64;
        let position = turn * depth + self.index as u64;
        match self.workload.access {
            Access::RandomRead | Access::RandomWrite => Some(sequence.below(self.blocks)),
            Access::RandomReadOnce | Access::RandomWriteOnce => {
                self.order.get(position as usize).map(|block| u64::from(*block))
            }
            Access::Append => Some(position),
            Access::LogWrite | Access::Scan => Some(position % self.blocks),
            Access::ScanOnce => (position < self.blocks).then_some(position),
        }
    }

    fn operate(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        let file = self.ground.file;
        if self.workload.access.is_read() {
            return file.read_exact_at(buffer, offset);
        }
        file.write_all_at(buffer, offset)?;
        if self.workload.sync {
            file.sync_data()?;
        }
        Ok(())
    }
}

/// The numbers below `count`, each once, in an order that follows from `seed`.
fn shuffled(count: u64, seed: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..u32::try_from(count).unwrap_or(u32::MAX)).collect();
    let mut sequence = Sequence::new(seed);
    for last in (1..order.len()).rev() {
        order.swap(last, sequence.below(last as u64 + 1) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::SystemClock;
    use crate::bench::pages::Fill;

    fn outcome(access: Access, depth: usize, duration: Duration) -> (Outcome, u64) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let ground = Ground {
            file: &file,
            name: "a temporary file",
            file_bytes: 1 << 20,
            duration,
            pages: &PageGenerator::new(Fill::Database, 1),
            seed: 5,
            clock: &SystemClock,
            mounting_pid: None,
        };
        let workload = Workload { access, block_bytes: 8192, depth, sync: false };
        let outcome = run(&workload, &ground).unwrap();
        let length = file.metadata().unwrap().len();
        (outcome, length)
    }

    #[test]
    fn once_means_every_block_once_whatever_the_depth() {
        let long = Duration::from_secs(60);
        for depth in [1, 3, 32] {
            for access in [Access::RandomReadOnce, Access::RandomWriteOnce, Access::ScanOnce] {
                let (outcome, length) = outcome(access, depth, long);
                assert_eq!((outcome.operations, outcome.bytes, length), (128, 1 << 20, 1 << 20));
            }
        }
    }

    #[test]
    fn the_others_end_by_time() {
        for access in
            [Access::RandomRead, Access::RandomWrite, Access::LogWrite, Access::Scan, Access::Append]
        {
            let (outcome, length) = outcome(access, 2, Duration::from_millis(20));
            assert!(outcome.operations > 0);
            assert!(outcome.elapsed >= Duration::from_millis(20));
            assert_eq!(length > 1 << 20, access == Access::Append && outcome.operations > 128);
        }
    }

    #[test]
    fn shuffling_loses_nothing() {
        let mut order = shuffled(1000, 9);
        assert_ne!(order[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        order.sort_unstable();
        assert!(order.iter().copied().eq(0..1000));
    }
}
