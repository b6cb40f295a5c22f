//! Generated operations on a store. Picks are numbers taken modulo what there is when the operation runs, so that
//! a sequence stays meaningful when some of it is left out.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

use stillpoint::base::{Random, SeededRandom};
use stillpoint::volume::{AllocateMode, RenameMode, XattrMode};

/// Picks among what there is.
pub type Pick = u32;

#[derive(Clone, Copy, Debug)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Fifo,
    Device,
}

/// A volume's head, and a number to pick inodes with.
#[derive(Clone, Copy, Debug)]
pub struct At {
    pub volume: Pick,
    pub inode: Pick,
}

#[derive(Clone, Debug)]
pub enum Operation {
    Create {
        at: At,
        name: u8,
        kind: Kind,
    },
    Write {
        at: At,
        offset: u64,
        length: u64,
        fill: u32,
    },
    Append {
        at: At,
        length: u64,
        fill: u32,
    },
    Truncate {
        at: At,
        size: u64,
    },
    Allocate {
        at: At,
        mode: AllocateMode,
        offset: u64,
        length: u64,
    },
    /// From a volume, or from a snapshot when there is one and `snapshot` says so.
    Copy {
        from: At,
        snapshot: Option<Pick>,
        to: At,
        source: u64,
        target: u64,
        length: u64,
    },
    Link {
        at: At,
        directory: Pick,
        name: u8,
    },
    Unlink {
        at: At,
    },
    RemoveDirectory {
        at: At,
    },
    Rename {
        at: At,
        directory: Pick,
        name: u8,
        mode: RenameMode,
    },
    SetMode {
        at: At,
        mode: u32,
        uid: u32,
    },
    SetXattr {
        at: At,
        name: u8,
        length: u64,
        mode: XattrMode,
    },
    RemoveXattr {
        at: At,
        name: u8,
    },
    ForgetOrphan {
        at: At,
    },
    SyncFile {
        at: At,
    },
    Flush {
        volume: Pick,
    },
    CreateVolume {
        name: u8,
    },
    RenameVolume {
        volume: Pick,
        name: u8,
    },
    DestroyVolume {
        volume: Pick,
    },
    Snapshot {
        volume: Pick,
        name: u8,
    },
    Clone {
        volume: Pick,
        snapshot: Pick,
        name: u8,
    },
    DestroySnapshot {
        volume: Pick,
        snapshot: Pick,
    },
    Checkpoint,
    Collect,
    Reopen,
}

/// The sequence of a seed.
pub fn generate(seed: u64, operations: usize) -> Vec<Operation> {
    let dice = Dice(SeededRandom::new(seed.wrapping_mul(0x9E37_79B9).wrapping_add(77)));
    let mut out = vec![
        Operation::CreateVolume { name: 0 },
        Operation::Create { at: At { volume: 0, inode: 0 }, name: 0, kind: Kind::File },
        Operation::Create { at: At { volume: 0, inode: 0 }, name: 1, kind: Kind::Directory },
    ];
    out.extend((0..operations).map(|_| dice.operation()));
    out
}

pub struct Dice(pub SeededRandom);

impl Dice {
    pub fn below(&self, bound: u64) -> u64 {
        self.0.next_u64() % bound
    }

    fn pick(&self) -> Pick {
        self.below(1 << 20) as Pick
    }

    fn name(&self) -> u8 {
        self.below(9) as u8
    }

    fn at(&self) -> At {
        // The first volume more often, so that something comes together there.
        At { volume: if self.below(2) == 0 { 0 } else { self.pick() }, inode: self.pick() }
    }

    /// Mostly near the start, sometimes on a page's border, rarely far off.
    fn offset(&self) -> u64 {
        match self.below(20) {
            0..=7 => self.below(12) * 8192,
            8..=17 => self.below(100_000),
            18 => self.below(280) * 8192,
            _ => self.below(2_300_000),
        }
    }

    fn length(&self) -> u64 {
        match self.below(10) {
            0..=2 => 1 + self.below(200),
            3..=5 => 8192,
            6..=8 => 1 + self.below(30_000),
            _ => self.below(9) * 8192,
        }
    }

    fn fill(&self) -> u32 {
        // Few, so that pages repeat.
        self.below(40) as u32
    }

    pub fn operation(&self) -> Operation {
        match self.below(100) {
            0..=54 => self.data(),
            55..=79 => self.names(),
            80..=88 => match self.below(3) {
                0 => Operation::Flush { volume: self.at().volume },
                _ => Operation::SyncFile { at: self.at() },
            },
            89..=96 => self.catalog(),
            97 => Operation::Reopen,
            98 => Operation::Collect,
            _ => Operation::Checkpoint,
        }
    }

    fn data(&self) -> Operation {
        let at = self.at();
        match self.below(20) {
            0..=9 => Operation::Write { at, offset: self.offset(), length: self.length(), fill: self.fill() },
            10 | 11 => Operation::Append { at, length: self.length(), fill: self.fill() },
            12..=14 => Operation::Truncate { at, size: self.offset() },
            15 | 16 => {
                use AllocateMode::{Allocate, KeepSize, PunchHole, ZeroRange, ZeroRangeKeepSize};
                let modes = [Allocate, KeepSize, PunchHole, PunchHole, ZeroRange, ZeroRangeKeepSize];
                let mode = modes[self.below(6) as usize];
                Operation::Allocate { at, mode, offset: self.offset(), length: self.length().max(1) }
            }
            _ => {
                let aligned = self.below(3) > 0;
                let place = || if aligned { self.below(12) * 8192 } else { self.offset() };
                let snapshot = (self.below(3) == 0).then(|| self.pick());
                let length = if aligned { self.below(9) * 8192 } else { self.length() };
                let (source, target) = (place(), place());
                Operation::Copy { from: self.at(), snapshot, to: at, source, target, length }
            }
        }
    }

    fn names(&self) -> Operation {
        let at = self.at();
        match self.below(20) {
            0..=4 => {
                let kinds = [Kind::File, Kind::File, Kind::File, Kind::Directory, Kind::Directory];
                let rare = [Kind::Symlink, Kind::Fifo, Kind::Device];
                let kind = match self.below(8) {
                    0 => rare[self.below(3) as usize],
                    _ => kinds[self.below(5) as usize],
                };
                Operation::Create { at, name: self.name(), kind }
            }
            5 | 6 => Operation::Link { at, directory: self.pick(), name: self.name() },
            7 | 8 => Operation::Unlink { at },
            9 => Operation::RemoveDirectory { at },
            10..=13 => {
                let modes = [RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange];
                let mode = modes[[0, 0, 1, 2, 2][self.below(5) as usize]];
                Operation::Rename { at, directory: self.pick(), name: self.name(), mode }
            }
            14 | 15 => Operation::SetMode { at, mode: self.below(0o10000) as u32, uid: self.pick() },
            16 => {
                let modes = [XattrMode::Set, XattrMode::Create, XattrMode::Replace];
                let mode = modes[self.below(3) as usize];
                let length = if self.below(8) == 0 { self.below(20_000) } else { self.below(60) };
                Operation::SetXattr { at, name: self.below(4) as u8, length, mode }
            }
            17 => Operation::RemoveXattr { at, name: self.below(4) as u8 },
            _ => Operation::ForgetOrphan { at },
        }
    }

    fn catalog(&self) -> Operation {
        let volume = self.at().volume;
        let name = self.below(5) as u8;
        match self.below(20) {
            0 | 1 => Operation::CreateVolume { name },
            2 | 3 => Operation::RenameVolume { volume: self.pick(), name },
            4 => Operation::DestroyVolume { volume: self.pick() },
            5..=11 => Operation::Snapshot { volume, name },
            12..=15 => Operation::Clone { volume, snapshot: self.pick(), name },
            _ => Operation::DestroySnapshot { volume, snapshot: self.pick() },
        }
    }
}

/// Bytes of a write: pages of few kinds, some zeros, some noise, some that compress.
pub fn fill_bytes(fill: u32, offset: u64, length: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(length as usize);
    let noise = SeededRandom::new(u64::from(fill));
    for at in offset..offset + length {
        out.push(match fill % 4 {
            0 if fill == 0 => 0,
            0 => (at % 8192 / 16) as u8 ^ fill as u8 | 1,
            1 => fill as u8 | 1,
            2 => (at % 251) as u8 ^ fill as u8,
            _ => noise.next_u64() as u8,
        });
    }
    out
}
