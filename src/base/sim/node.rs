//! One simulated inode: the bytes readers see, the durable bytes, and the ordered changes between.
//!
//! Must not know names.

use std::sync::Arc;

use super::content::Content;
use crate::base::random::Random;

/// What a disk writes whole or not at all.
pub(super) const SECTOR_BYTES: u64 = 512;

#[derive(Clone)]
pub(super) enum Change {
    Write { offset: u64, data: Arc<[u8]> },
    SetLen { length: u64 },
    Allocate { offset: u64, length: u64 },
    Punch { offset: u64, length: u64 },
}

impl Change {
    fn apply(&self, content: &mut Content) {
        match self {
            Self::Write { offset, data } => content.write(data, *offset),
            Self::SetLen { length } => content.set_len(*length),
            Self::Allocate { offset, length } => content.allocate(*offset, *length),
            Self::Punch { offset, length } => content.punch(*offset, *length),
        }
    }

    /// Applies a random part: each sector lands or not. A length is not divisible.
    fn apply_torn(&self, content: &mut Content, random: &dyn Random) {
        match self {
            Self::Write { offset, data } => {
                let end = offset + data.len() as u64;
                for (from, to) in sectors(*offset, end) {
                    if chance(random, 1, 2) {
                        content.write(&data[(from - offset) as usize..(to - offset) as usize], from);
                    }
                }
                // A file system may have noted the new length before the bytes came.
                if content.len() < end && chance(random, 1, 2) {
                    content.set_len(end);
                }
            }
            Self::Punch { offset, length } => {
                for (from, to) in sectors(*offset, offset.saturating_add(*length).min(content.len())) {
                    if chance(random, 1, 2) {
                        content.punch(from, to - from);
                    }
                }
            }
            Self::SetLen { .. } | Self::Allocate { .. } => {
                if chance(random, 1, 2) {
                    self.apply(content);
                }
            }
        }
    }
}

/// Cuts a range at sector borders.
fn sectors(offset: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
    let mut from = offset;
    std::iter::from_fn(move || {
        if from >= end {
            return None;
        }
        let to = ((from / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
        let sector = (from, to);
        from = to;
        Some(sector)
    })
}

fn chance(random: &dyn Random, numerator: u64, denominator: u64) -> bool {
    random.next_u64() % denominator < numerator
}

/// What the syncs of the file did to a change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// None ended since.
    Unsynced,
    /// One failed: as on Linux, no later success brings the change to disk.
    Lost,
    /// One succeeded, while an earlier change was already lost.
    Synced,
}

#[derive(Clone)]
struct Pending {
    change: Change,
    fate: Fate,
}

/// How likely the changes after the last sync land at a crash, of 16.
#[derive(Clone, Copy)]
pub(super) struct Odds {
    pub(super) keep: u64,
    pub(super) tear: u64,
}

#[derive(Clone, Default)]
pub(super) struct Node {
    current: Content,
    durable: Content,
    pending: Vec<Pending>,
    /// Open handles; a file without name and handles takes no space.
    pub(super) handles: u64,
}

impl Node {
    pub(super) fn current(&self) -> &Content {
        &self.current
    }

    pub(super) fn change(&mut self, change: Change) {
        change.apply(&mut self.current);
        self.pending.push(Pending { change, fate: Fate::Unsynced });
    }

    /// Records a change in which the crash came: it may land, but nobody sees it before.
    pub(super) fn change_at_crash(&mut self, change: Change) {
        self.pending.push(Pending { change, fate: Fate::Unsynced });
    }

    /// Changes the bytes as no crash can undo it; for damage.
    pub(super) fn change_durably(&mut self, change: &Change) {
        change.apply(&mut self.current);
        change.apply(&mut self.durable);
    }

    pub(super) fn sync(&mut self) {
        if self.pending.iter().all(|pending| pending.fate == Fate::Unsynced) {
            self.durable = self.current.clone();
            self.pending.clear();
            return;
        }
        for pending in &mut self.pending {
            if pending.fate == Fate::Unsynced {
                pending.fate = Fate::Synced;
            }
        }
    }

    pub(super) fn fail_sync(&mut self) {
        for pending in &mut self.pending {
            if pending.fate == Fate::Unsynced {
                pending.fate = Fate::Lost;
            }
        }
    }

    /// The bytes with every pending change.
    pub(super) fn all(&self) -> Content {
        let mut content = self.durable.clone();
        self.pending.iter().for_each(|pending| pending.change.apply(&mut content));
        content
    }

    /// The bytes with no pending change but those that a sync promised.
    pub(super) fn none(&self) -> Content {
        let mut content = self.durable.clone();
        let synced = self.pending.iter().filter(|pending| pending.fate == Fate::Synced);
        synced.for_each(|pending| pending.change.apply(&mut content));
        content
    }

    /// The bytes with a random part of the pending changes, the later of two winning where both land.
    pub(super) fn random(&self, odds: Odds, random: &dyn Random) -> Content {
        let mut content = self.durable.clone();
        for Pending { change, fate } in &self.pending {
            let draw = random.next_u64() % 16;
            if *fate == Fate::Synced || draw < odds.keep {
                change.apply(&mut content);
            } else if draw < odds.keep + odds.tear {
                change.apply_torn(&mut content, random);
            }
        }
        content
    }

    /// A file as it is after a restart.
    pub(super) fn settled(content: Content) -> Self {
        Self { current: content.clone(), durable: content, pending: Vec::new(), handles: 0 }
    }
}
