//! The operations that a sequence is made of. Numbers are taken modulo what there is.

use arbitrary::{Arbitrary, Result, Unstructured};

/// A place in a file: near a border of the page mapping, or anywhere small.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct At {
    region: u8,
    delta: u16,
}

impl At {
    pub fn offset(self) -> u64 {
        let delta = u64::from(self.delta);
        let page = 8192;
        match self.region % 8 {
            0..3 => delta % 4 * page,
            3 | 4 => delta,
            5 => 255 * page + delta % (3 * page),
            6 => 65_535 * page + delta % (2 * page),
            _ => delta % 40 * page + delta % 3,
        }
    }
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Fill {
    pub length: u16,
    pub seed: u8,
    pub whole_pages: bool,
}

impl Fill {
    /// Zeros, repeated bytes or noise; blocks recur, so that deduplication has work.
    pub fn bytes(self) -> Vec<u8> {
        let length =
            if self.whole_pages { usize::from(self.length % 5) * 8192 } else { usize::from(self.length) };
        match self.seed % 8 {
            0 => vec![0; length],
            1..6 => vec![self.seed; length],
            _ => {
                let mut state = u32::from(self.seed) + 1;
                (0..length)
                    .map(|_| {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        (state >> 24) as u8
                    })
                    .collect()
            }
        }
    }
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Named {
    pub dir: u8,
    pub name: u8,
}

/// On the files of one volume.
#[derive(Arbitrary, Clone, Debug)]
pub enum FileOperation {
    Create(Named, u8),
    Link(u8, Named),
    Unlink(Named),
    RemoveDirectory(Named),
    Rename(Named, Named, u8),
    Write(u8, At, Fill),
    Append(u8, Fill),
    Truncate(u8, At),
    Allocate(u8, u8, At, At),
    Copy { from: u8, from_at: At, volume: u8, to: u8, to_at: At, length: At },
    Read(u8, At, u16),
    Seek(u8, At, bool),
    SetXattr { ino: u8, name: u8, value: Fill, mode: u8 },
    RemoveXattr(u8, u8),
    SetMode(u8, u16, Option<u8>),
    SetTimes(u8),
    Forget(u8),
    SyncFile(u8),
    SyncAll,
}

#[derive(Arbitrary, Clone, Debug)]
pub enum Operation {
    Files(u8, FileOperation),
    Checkpoint,
    CreateVolume(u8),
    DestroyVolume(u8, bool),
    RenameVolume(u8, u8),
    Snapshot(u8, u8),
    DestroySnapshot(u8, u8),
    Clone(u8, u8, u8),
    Hold(u8, u8, bool),
    /// Gives space back: segments of which this share is dead are rewritten.
    Collect(u8),
    /// Recounts references and verifies every block.
    Check,
    /// Closes and opens.
    Reopen,
    /// Makes all durable, then the host stops.
    SyncAndCrash {
        checkpoint: bool,
        seed: u64,
    },
    /// The host stops in one of the next writes of a sync, a checkpoint or a collection.
    Crash {
        within: u8,
        during: u8,
        seed: u64,
    },
    Verify,
}

/// As many operations as the input has bytes for, at most `count_max`; most of them are on files.
pub fn sequence(input: &[u8], count_max: usize) -> Vec<Operation> {
    let mut rest = Unstructured::new(input);
    let mut operations = Vec::new();
    while !rest.is_empty() && operations.len() < count_max {
        let Ok(operation) = next(&mut rest) else { break };
        operations.push(operation);
    }
    operations
}

fn next(rest: &mut Unstructured<'_>) -> Result<Operation> {
    let choice: u8 = rest.arbitrary()?;
    if choice < 210 { Ok(Operation::Files(choice, rest.arbitrary()?)) } else { rest.arbitrary() }
}
