//! fsync: putting a view's unlogged changes into the journal, or, when there are many, into a checkpoint.

use std::sync::atomic::Ordering;

use super::types::{Completion, Ino};
use super::version::PageSource;
use super::view::{View, ViewState};
use crate::base::Result;
use crate::format::inode::Inode;
use crate::format::journal::Seq;
use crate::format::log::TreeRecord;
use crate::format::node::Value;
use crate::format::{PAGE_SIZE, key};
use crate::journal::Reservation;

/// More than this goes straight to segments by a checkpoint: once, compressed, instead of twice.
const JOURNAL_BYTES_MAX: u64 = 2 << 20;

enum Plan {
    /// All is in the journal up to here.
    Wait(Seq),
    Checkpoint,
}

impl View {
    /// Makes the data and attributes of `ino`, and all names of the view, durable, then calls back: here or from
    /// another thread.
    pub fn sync_file(&self, ino: Ino, done: Completion) {
        self.sync(Some(ino), done);
    }

    /// Makes everything written to the view durable, then calls back.
    pub fn sync_all(&self, done: Completion) {
        self.sync(None, done);
    }

    fn sync(&self, ino: Option<Ino>, done: Completion) {
        if let Err(error) = self.check_alive() {
            return done(Err(error));
        }
        if self.read_only {
            return done(Ok(()));
        }
        match self.plan_sync(ino) {
            Ok(Plan::Wait(seq)) => match self.shared.journal() {
                Ok(journal) => match journal.commit_if_idle(seq) {
                    Ok(false) => journal.on_durable(seq, done),
                    settled => done(settled.map(|_| ())),
                },
                Err(error) => done(Err(error)),
            },
            Ok(Plan::Checkpoint) if self.shared.options.background => {
                self.shared.request_checkpoint(Some(done));
            }
            Ok(Plan::Checkpoint) => done(self.shared.checkpoint_now()),
            Err(error) => done(Err(error)),
        }
    }

    /// Blocks until everything written to the view is durable.
    pub fn flush(&self) -> Result<()> {
        let (sender, receiver) = crossbeam::channel::bounded(1);
        self.sync_all(Box::new(move |result| {
            let _ = sender.send(result);
        }));
        receiver.recv().unwrap_or_else(|_| self.shared.check_failed())
    }

    /// Bytes above which a checkpoint is the cheaper way.
    pub(crate) fn journal_bytes_max(&self) -> Result<u64> {
        let journal = self.shared.journal()?;
        Ok(JOURNAL_BYTES_MAX.min(journal.record_bytes_max() / 2).min(journal.capacity_bytes() / 8))
    }

    fn plan_sync(&self, ino: Option<Ino>) -> Result<Plan> {
        self.shared.check_failed()?;
        let journal = self.shared.journal()?;
        let most = self.journal_bytes_max()?;
        loop {
            let bytes = {
                let state = self.state.read();
                if !needs_logging(&state, ino) {
                    return Ok(Plan::Wait(state.last_seq));
                }
                state.unlogged.bytes(ino) + state.frozen_unlogged.bytes(ino)
            };
            if bytes > most {
                return Ok(Plan::Checkpoint);
            }
            // Writers go on between the estimate and the lock: leave them some room, look again if they took more.
            let room = (bytes * 2).max(64 << 10).min(most * 2);
            let mut reservation = match journal.reserve(room, 1) {
                Ok(reservation) => reservation,
                Err(_) if !self.shared.options.background => return Ok(Plan::Checkpoint),
                Err(error) => return Err(error),
            };
            let _gate = self.shared.gate.read_recursive();
            let mut state = self.state.write();
            if state.unlogged.bytes(ino) + state.frozen_unlogged.bytes(ino) > room {
                continue;
            }
            self.log(&mut state, ino, &mut reservation)?;
            let seq = state.last_seq;
            drop(state);
            self.shared.pace(journal);
            return Ok(Plan::Wait(seq));
        }
    }

    /// Appends what is unlogged of `ino` (or all) as one record. The reservation must cover it.
    pub(crate) fn log(&self, state: &mut ViewState, ino: Option<Ino>, room: &mut Reservation) -> Result<()> {
        let mut record = TreeRecord::new(self.id.0);
        for batch in state.frozen_unlogged.batches.iter().chain(&state.unlogged.batches) {
            record.metadata(batch);
        }
        let inos: Vec<Ino> = match ino {
            Some(ino) => vec![ino],
            None => {
                let unlogged = [&state.frozen_unlogged, &state.unlogged];
                let mut inos: Vec<Ino> = unlogged
                    .iter()
                    .flat_map(|unlogged| unlogged.inodes.iter().chain(unlogged.files.keys()))
                    .copied()
                    .collect();
                inos.sort_unstable();
                inos.dedup();
                inos
            }
        };
        for ino in &inos {
            self.log_inode(state, *ino, &mut record)?;
        }
        if !record.is_empty() {
            let journal = self.shared.journal()?;
            state.last_seq = journal.append(room, &[record.bytes()]);
            if record.shares() {
                self.shared.last_share.fetch_max(state.last_seq.0, Ordering::Relaxed);
            }
        }
        for unlogged in [&mut state.frozen_unlogged, &mut state.unlogged] {
            unlogged.batches.clear();
            unlogged.batch_bytes = 0;
            for ino in &inos {
                unlogged.forget(*ino);
            }
        }
        Ok(())
    }

    fn log_inode(&self, state: &mut ViewState, ino: Ino, record: &mut TreeRecord) -> Result<()> {
        let has_inode = state.unlogged.inodes.contains(&ino) || state.frozen_unlogged.inodes.contains(&ino);
        if has_inode && let Some(inode) = self.find_inode(state, ino)? {
            self.settle_inode(state, ino, &inode);
            record.metadata(&vec![(key::inode(ino), Some(Value::from(inode.encode())))]);
        }
        // The ranges of both, with the bytes as they are now. Ranges that do not touch stay apart: their hull could
        // be more than what was reserved for them.
        let mut pages: std::collections::BTreeMap<u64, Vec<(u16, u16)>> = std::collections::BTreeMap::new();
        for unlogged in [&state.frozen_unlogged, &state.unlogged] {
            let Some(file) = unlogged.files.get(&ino) else { continue };
            for (from, to) in file.cleared.iter() {
                record.clear(ino, from, to);
                pages.retain(|page, _| *page < from || *page >= to);
            }
            for (page, (from, to)) in &file.pages {
                let parts = pages.entry(*page).or_default();
                match parts.iter_mut().find(|part| part.0 <= *to && *from <= part.1) {
                    Some(part) => *part = (part.0.min(*from), part.1.max(*to)),
                    None => parts.push((*from, *to)),
                }
            }
        }
        for (page, parts) in pages {
            let source = self.page_source(state, ino, page)?;
            for (from, to) in parts {
                let (from, to) = (usize::from(from), usize::from(to));
                let offset = page * PAGE_SIZE as u64 + from as u64;
                match &source {
                    PageSource::Data(data) => record.data(ino, offset, &data[from..to]),
                    PageSource::Stored(pointer) => record.share(ino, page, pointer),
                    PageSource::Zero => record.data(ino, offset, &vec![0; to - from]),
                }
            }
        }
        Ok(())
    }

    fn settle_inode(&self, state: &mut ViewState, ino: Ino, inode: &Inode) {
        if state.inodes.remove(&ino).is_some() {
            let before = state.live.cost;
            state.live.put(key::inode(ino), Some(Value::from(inode.encode())));
            self.account(before, state.live.cost);
        }
    }
}

fn needs_logging(state: &ViewState, ino: Option<Ino>) -> bool {
    let has = |unlogged: &super::unlogged::Unlogged| match ino {
        Some(ino) => {
            !unlogged.batches.is_empty()
                || unlogged.inodes.contains(&ino)
                || unlogged.files.contains_key(&ino)
        }
        None => !unlogged.is_empty(),
    };
    has(&state.unlogged) || has(&state.frozen_unlogged)
}
