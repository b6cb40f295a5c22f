//! A database that lives, is backed up and restored to earlier points: what plans are compared with.
//!
//! The other method: the log is a list of records with identities, a backup is a piece of that list, a restored database is the list
//! of records it has. A log goes onto a database when what the database has is the beginning of the log's own past. No
//! fork identifiers, no LSN arithmetic; what can be reached is found by trying every sequence of backups.

use super::super::chain::{Backup, BackupKind, Mark, Stripe};
use super::super::guid::Guid;
use super::super::lsn::Lsn;

/// One log record. `id` is unique in the world; forks share the records of their common past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    id: u32,
    fork: u8,
    pub(super) ms: i64,
    pub(super) mark: Option<u8>,
    bulk: bool,
}

/// What a backup really has.
#[derive(Clone, Debug)]
pub(super) struct Truth {
    /// The whole past of the database when it was taken.
    pub(super) past: Vec<Record>,
    /// From here on the records are in it; 0 in a full.
    start: usize,
}

/// A case: backups as a catalogue shows them, each with its truth.
pub(super) struct World {
    pub(super) backups: Vec<Backup>,
    pub(super) truths: Vec<Truth>,
    pub(super) now: i64,
}

/// A restored database.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Restored {
    pub(super) past: Vec<Record>,
    /// The full it was restored from, as long as nothing came after.
    only_full: Option<Guid>,
    pub(super) data_at: usize,
    pub(super) steps: Vec<usize>,
}

/// The position behind so many records.
pub(super) fn position(count: usize) -> Lsn {
    Lsn::new(40, 8 * (count as u32 + 1), 1)
}

pub(super) fn fork_guid(fork: u8) -> Guid {
    Guid([0xf0 + fork; 16])
}

/// Numbers from a seed, the same everywhere.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

struct Life {
    dice: Dice,
    world: World,
    past: Vec<Record>,
    fork: u8,
    next_record: u32,
    /// Also those that were lost.
    backups_made: u8,
    /// Where the next log backup begins; nothing when the chain is broken.
    log_from: Option<usize>,
    /// The fulls that differentials were made against, each with what it had.
    bases: Vec<(Guid, Vec<Record>)>,
    forked_since_log: bool,
}

/// A world of up to `events` backups and other events.
pub(super) fn generate(seed: u64, events: usize) -> World {
    let world = World { backups: Vec::new(), truths: Vec::new(), now: 1_000_000 };
    let mut life = Life {
        dice: Dice::new(seed),
        world,
        past: Vec::new(),
        fork: 0,
        next_record: 0,
        backups_made: 0,
        log_from: None,
        bases: Vec::new(),
        forked_since_log: false,
    };
    life.write(2);
    for _ in 0..events {
        life.event();
    }
    life.world
}

impl Life {
    fn tick(&mut self) -> i64 {
        self.world.now += 1 + self.dice.below(5) as i64;
        self.world.now
    }

    fn write(&mut self, count: u64) {
        for _ in 0..count {
            let ms = self.tick();
            let mark = self.dice.chance(12).then(|| self.dice.below(3) as u8);
            let bulk = self.dice.chance(4);
            self.past.push(Record { id: self.next_record, fork: self.fork, ms, mark, bulk });
            self.next_record += 1;
        }
    }

    fn event(&mut self) {
        match self.dice.below(20) {
            0..=2 => self.full(),
            3..=5 => self.differential(),
            6..=14 => {
                let count = self.dice.below(4);
                self.write(count);
                self.log();
            }
            15 | 16 => self.restore_to_earlier(),
            // The recovery model was simple for a while.
            17 => {
                self.write(1);
                self.log_from = None;
            }
            _ => {
                let count = 1 + self.dice.below(3);
                self.write(count);
            }
        }
    }

    fn full(&mut self) {
        let copy_only = self.dice.chance(25);
        if self.log_from.is_none() && !copy_only {
            self.log_from = Some(self.past.len());
        }
        let id = self.backup(BackupKind::Full, 0, copy_only, None);
        if !copy_only {
            self.bases.push((id, self.past.clone()));
        }
    }

    fn differential(&mut self) {
        if let Some((base, _)) = self.bases.last() {
            self.backup(BackupKind::Differential, 0, false, Some(*base));
        }
    }

    fn log(&mut self) {
        let Some(from) = self.log_from else { return };
        if from >= self.past.len() {
            return;
        }
        let copy_only = self.dice.chance(10);
        self.backup(BackupKind::Log, from, copy_only, None);
        if !copy_only {
            self.log_from = Some(self.past.len());
            self.forked_since_log = false;
        }
    }

    /// The database is restored to an earlier point of its own past and goes on from there on a new fork.
    fn restore_to_earlier(&mut self) {
        if self.forked_since_log || self.past.len() < 4 || self.fork > 8 {
            return;
        }
        let back = self.dice.below(4) as usize;
        self.past.truncate(self.past.len() - back.min(self.past.len() - 2));
        // With its files the database got back the base that they name.
        while self.bases.last().is_some_and(|(_, had)| !self.past.starts_with(had)) {
            self.bases.pop();
        }
        self.fork += 1;
        self.write(1);
        self.forked_since_log = true;
        self.log_from = self.log_from.map(|from| from.min(self.past.len() - 1));
    }

    fn backup(&mut self, kind: BackupKind, start: usize, copy_only: bool, base_id: Option<Guid>) -> Guid {
        let started_ms = self.tick();
        let finished_ms = self.tick();
        self.backups_made += 1;
        let id = Guid([self.backups_made; 16]);
        let piece = &self.past[start..];
        let last = piece.last().map_or(0, |record| record.fork);
        // The fork on which its first position was reached.
        let first = if start == 0 { last } else { self.past[start - 1].fork };
        let fork_point = (first != last).then(|| (start..).find(|&at| self.past[at].fork == last).unwrap());
        let marks = piece.iter().enumerate().filter_map(|(at, record)| {
            let mark = record.mark?;
            Some(Mark { name: format!("m{mark}"), lsn: position(start + at), ms: record.ms })
        });
        let marks = if kind == BackupKind::Log { marks.collect() } else { Vec::new() };
        let stripe_count = 1 + self.dice.below(3) as u16;
        let lost = self.dice.chance(5).then(|| 1 + self.dice.below(u64::from(stripe_count)) as u16);
        let stripes = (1..=stripe_count).filter(|family| Some(*family) != lost);
        let backup = Backup {
            id,
            kind,
            copy_only,
            damaged: self.dice.chance(4),
            bulk_logged: kind == BackupKind::Log && piece.iter().any(|record| record.bulk),
            first_lsn: position(if kind == BackupKind::Log {
                start
            } else {
                self.past.len().saturating_sub(2)
            }),
            last_lsn: position(self.past.len()),
            base_id,
            family_id: Guid([9; 16]),
            first_fork: fork_guid(first),
            last_fork: fork_guid(last),
            fork_point: fork_point.map(position),
            started_ms,
            finished_ms,
            reaches_ms: None,
            position: 1,
            stripes: stripes.map(|family| Stripe { family, file: format!("{id}-{family}.bak") }).collect(),
            stripe_count,
            marks,
        };
        // Some files are gone altogether.
        if !self.dice.chance(6)
            || base_id.is_none() && kind == BackupKind::Full && self.world.backups.is_empty()
        {
            self.world.backups.push(backup);
            self.world.truths.push(Truth { past: self.past.clone(), start });
        }
        id
    }
}

impl World {
    fn readable(&self, at: usize) -> bool {
        let backup = &self.backups[at];
        !backup.damaged && backup.stripes.len() == usize::from(backup.stripe_count)
    }

    /// Restores one whole backup onto what there is; nothing when the server would refuse.
    pub(super) fn restore(&self, onto: Option<&Restored>, at: usize) -> Option<Restored> {
        if !self.readable(at) {
            return None;
        }
        let (backup, truth) = (&self.backups[at], &self.truths[at]);
        let mut steps = onto.map_or(Vec::new(), |onto| onto.steps.clone());
        steps.push(at);
        let (only_full, data_at) = match (backup.kind, onto) {
            (BackupKind::Full, None) => (Some(backup.id).filter(|_| !backup.copy_only), truth.past.len()),
            (BackupKind::Differential, Some(onto))
                if onto.only_full.is_some() && onto.only_full == backup.base_id =>
            {
                (None, truth.past.len())
            }
            (BackupKind::Log, Some(onto)) if self.log_fits(onto, truth) => (None, onto.data_at),
            _ => return None,
        };
        Some(Restored { past: truth.past.clone(), only_full, data_at, steps })
    }

    fn log_fits(&self, onto: &Restored, log: &Truth) -> bool {
        let has = onto.past.len();
        log.start <= has && has < log.past.len() && log.past[..has] == onto.past[..]
    }

    /// Restores a log up to the first record that `stop` does not want any more.
    pub(super) fn restore_until(
        &self,
        onto: &Restored,
        at: usize,
        stop: impl Fn(usize, &Record) -> bool,
    ) -> Option<Restored> {
        if self.backups[at].kind != BackupKind::Log || self.backups[at].bulk_logged {
            return None;
        }
        let mut restored = self.restore(Some(onto), at)?;
        let from = onto.past.len();
        let end = (from..restored.past.len()).find(|&place| stop(place, &restored.past[place]));
        restored.past.truncate(end.unwrap_or(restored.past.len()));
        Some(restored)
    }

    /// Every database that whole backups lead to, by every sequence.
    pub(super) fn all_restored(&self) -> Vec<Restored> {
        let mut found: Vec<Restored> = Vec::new();
        let mut open: Vec<Restored> =
            (0..self.backups.len()).filter_map(|at| self.restore(None, at)).collect();
        while let Some(next) = open.pop() {
            open.extend((0..self.backups.len()).filter_map(|at| self.restore(Some(&next), at)));
            found.push(next);
        }
        found
    }
}

impl Record {
    pub(super) fn fork_number(&self) -> u8 {
        self.fork
    }
}
