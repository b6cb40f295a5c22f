//! A view of a file tree: a volume's head, which can be written, or a snapshot.
//!
//! All state is under one lock that is held for memory work and for reads of tree nodes, never for writing or
//! syncing a store file. What a system call means is decided above; what it changes is decided here.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::layer::{Layer, PageEntry};
use super::shared::Shared;
use super::types::{Attributes, Ino, SetAttributes, ViewId};
use super::unlogged::Unlogged;
use super::version::{PageSource, Version, map_root};
use crate::base::{Error, ErrorKind, Result};
use crate::format::PAGE_SIZE;
use crate::format::inode::{FileKind, Inode};
use crate::format::journal::Seq;
use crate::format::key;
use crate::format::log::Batch;
use crate::format::node::{Key, Value};

/// Bytes a change of names or attributes is counted for when it asks for room.
const METADATA_BYTES: u64 = 4096;

/// What changes under the view's lock.
pub(crate) struct ViewState {
    pub(crate) base: Arc<Version>,
    pub(crate) live: Layer,
    /// Inodes whose attributes are newer than in `live`.
    pub(crate) inodes: HashMap<Ino, Inode>,
    pub(crate) next_ino: Ino,
    /// Changes of `live` that the journal does not have.
    pub(crate) unlogged: Unlogged,
    /// The same for layers that a running checkpoint stores.
    pub(crate) frozen_unlogged: Unlogged,
    /// The last journal record of this view.
    pub(crate) last_seq: Seq,
    /// Records below this are in the frozen layers.
    pub(crate) frozen_seq: Seq,
}

/// See the module.
pub struct View {
    pub(crate) id: ViewId,
    pub(crate) shared: Arc<Shared>,
    pub(crate) read_only: bool,
    pub(crate) name: Mutex<String>,
    pub(crate) state: RwLock<ViewState>,
    pub(crate) destroyed: AtomicBool,
    /// 0 is none.
    pub(crate) quota_bytes: AtomicU64,
    /// Data bytes in the durable tree, for the quota.
    pub(crate) stored_pages: AtomicU64,
    pub(crate) orphans_checked: AtomicBool,
}

impl View {
    pub(crate) fn new(
        id: ViewId,
        shared: Arc<Shared>,
        name: &str,
        base: Arc<Version>,
        next_ino: Ino,
        read_only: bool,
    ) -> Arc<Self> {
        let stored_pages = base.chain().1.pages;
        Arc::new(Self {
            id,
            shared,
            read_only,
            name: Mutex::new(name.to_owned()),
            state: RwLock::new(ViewState {
                base,
                live: Layer::default(),
                inodes: HashMap::new(),
                next_ino,
                unlogged: Unlogged::default(),
                frozen_unlogged: Unlogged::default(),
                last_seq: Seq(0),
                frozen_seq: Seq(0),
            }),
            destroyed: AtomicBool::new(false),
            quota_bytes: AtomicU64::new(0),
            stored_pages: AtomicU64::new(stored_pages),
            orphans_checked: AtomicBool::new(read_only),
        })
    }

    pub fn id(&self) -> ViewId {
        self.id
    }

    /// `volume`, or `volume@snapshot`.
    pub fn name(&self) -> String {
        self.name.lock().clone()
    }

    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// The quota and what is used of it, in bytes; `None` without a quota.
    pub fn quota(&self) -> Option<(u64, u64)> {
        let quota = self.quota_bytes.load(Ordering::Relaxed);
        let used = self.stored_pages.load(Ordering::Relaxed) * PAGE_SIZE as u64;
        (quota > 0).then_some((quota, used))
    }

    pub(crate) fn check_alive(&self) -> Result<()> {
        if self.destroyed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Stale, format!("{} was destroyed", self.name())));
        }
        Ok(())
    }

    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.read_only {
            return Err(Error::new(ErrorKind::ReadOnly, format!("{} is read-only", self.name())));
        }
        self.shared.check_failed()
    }

    /// Runs `body` under the read lock, with the tree's blocks kept where they are.
    pub(crate) fn reading<T>(&self, body: impl FnOnce(&ViewState) -> Result<T>) -> Result<T> {
        let _gate = self.shared.gate.read_recursive();
        let state = self.state.read();
        // Under the lock: a destroy that came before has emptied the state.
        self.check_alive()?;
        body(&state)
    }

    /// Runs `body` as one change: what it puts is journaled together.
    pub(crate) fn changing<T>(&self, body: impl FnOnce(&mut Change<'_>) -> Result<T>) -> Result<T> {
        self.make_room(METADATA_BYTES)?;
        self.changing_now(body)
    }

    /// As `changing`, for what removes: it must work when there is no space left.
    pub(crate) fn removing<T>(&self, body: impl FnOnce(&mut Change<'_>) -> Result<T>) -> Result<T> {
        match self.shared.wait_for_room(METADATA_BYTES) {
            Err(error) if error.kind() == ErrorKind::NoSpace => {}
            result => result?,
        }
        let result = self.changing_now(body);
        if self.shared.options.background && self.shared.is_short_of_space() {
            // What was removed comes back by checkpoints, and writers need it now.
            self.shared.request_checkpoint(None);
        }
        result
    }

    /// As `changing`, without waiting for room: for callers that hold the gate already.
    pub(crate) fn changing_now<T>(&self, body: impl FnOnce(&mut Change<'_>) -> Result<T>) -> Result<T> {
        self.check_writable()?;
        let _gate = self.shared.gate.read_recursive();
        let mut state = self.state.write();
        self.check_alive()?;
        let cost = state.live.cost;
        let mut change = Change { view: self, state: &mut state, batch: Vec::new(), replaying: false };
        let result = body(&mut change);
        let batch = std::mem::take(&mut change.batch);
        if !batch.is_empty() {
            state.unlogged.push_batch(batch);
        }
        self.account(cost, state.live.cost);
        result
    }

    pub(crate) fn account(&self, before: u64, after: u64) {
        let live = &self.shared.live_cost;
        if after >= before {
            live.fetch_add(after - before, Ordering::Relaxed);
        } else {
            let less = before - after;
            let _ = live.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some(n.saturating_sub(less)));
        }
    }

    pub(crate) fn value(&self, state: &ViewState, key: &[u8]) -> Result<Option<Value>> {
        match state.live.metadata.get(key) {
            Some(value) => Ok(value.clone()),
            None => state.base.get(&self.shared.trees, key),
        }
    }

    pub(crate) fn find_inode(&self, state: &ViewState, ino: Ino) -> Result<Option<Inode>> {
        if let Some(inode) = state.inodes.get(&ino) {
            return Ok(Some(*inode));
        }
        self.value(state, &key::inode(ino))?.map(|value| Inode::decode(&value)).transpose()
    }

    pub(crate) fn inode(&self, state: &ViewState, ino: Ino) -> Result<Inode> {
        self.find_inode(state, ino)?
            .ok_or_else(|| Error::not_found(format!("{} has no inode {ino}", self.name())))
    }

    pub(crate) fn directory(&self, state: &ViewState, ino: Ino) -> Result<Inode> {
        let inode = self.inode(state, ino)?;
        if inode.kind != FileKind::Directory {
            return Err(Error::new(ErrorKind::NotDirectory, format!("inode {ino} is not a directory")));
        }
        Ok(inode)
    }

    pub(crate) fn file(&self, state: &ViewState, ino: Ino) -> Result<Inode> {
        let inode = self.inode(state, ino)?;
        match inode.kind {
            FileKind::File => Ok(inode),
            FileKind::Directory => {
                Err(Error::new(ErrorKind::IsDirectory, format!("inode {ino} is a directory")))
            }
            _ => Err(Error::invalid(format!("inode {ino} is not a regular file"))),
        }
    }

    pub(crate) fn describe(&self, state: &ViewState, ino: Ino, inode: &Inode) -> Result<Attributes> {
        let blocks = if inode.kind == FileKind::File { self.blocks(state, ino, inode)? } else { 0 };
        Ok(Attributes {
            ino,
            kind: inode.kind,
            mode: inode.mode,
            links: inode.links,
            uid: inode.uid,
            gid: inode.gid,
            rdev: inode.rdev,
            size: inode.size,
            blocks,
            accessed: inode.accessed,
            modified: inode.modified,
            changed: inode.changed,
            created: inode.created,
        })
    }

    /// 512-byte units of data, at most what the size allows.
    fn blocks(&self, state: &ViewState, ino: Ino, inode: &Inode) -> Result<u64> {
        let (layers, root) = state.base.chain();
        let mut pages = map_root(&self.shared.trees, &root, ino)?.pages;
        for layer in layers.iter().map(AsRef::as_ref).rev().chain([&state.live]) {
            if let Some(file) = layer.files.get(&ino) {
                if file.cleared.covers(0, inode.size.div_ceil(PAGE_SIZE as u64)) {
                    pages = 0;
                }
                pages += file.pages.len() as u64;
            }
        }
        let most = inode.size.div_ceil(PAGE_SIZE as u64);
        Ok(pages.min(most) * (PAGE_SIZE as u64 / 512))
    }

    pub fn attributes(&self, ino: Ino) -> Result<Attributes> {
        self.reading(|state| {
            let inode = self.inode(state, ino)?;
            self.describe(state, ino, &inode)
        })
    }

    /// Changes attributes; a new size truncates or extends with zeros.
    pub fn set_attributes(&self, ino: Ino, set: &SetAttributes) -> Result<Attributes> {
        // Cutting a file off is a way to make room.
        let shrinks = match set.size {
            Some(size) => size < self.reading(|state| Ok(self.inode(state, ino)?.size))?,
            None => false,
        };
        let body = |change: &mut Change<'_>| {
            let mut inode = self.inode(change.state, ino)?;
            let now = self.shared.now();
            if let Some(size) = set.size {
                self.file(change.state, ino)?;
                inode = change.resize(ino, inode, size)?;
                inode.modified = now;
            }
            inode.mode = set.mode.map_or(inode.mode, |mode| mode & 0o7777);
            inode.uid = set.uid.unwrap_or(inode.uid);
            inode.gid = set.gid.unwrap_or(inode.gid);
            inode.accessed = set.accessed.unwrap_or(inode.accessed);
            inode.modified = set.modified.unwrap_or(inode.modified);
            inode.changed = set.changed.unwrap_or(now);
            let only_times =
                set.mode.is_none() && set.uid.is_none() && set.gid.is_none() && set.size.is_none();
            if only_times {
                // Times go with the next fsync of the file, as its data does.
                change.set_inode(ino, inode);
            } else {
                change.put_inode(ino, &inode);
            }
            self.describe(change.state, ino, &inode)
        };
        if shrinks { self.removing(body) } else { self.changing(body) }
    }

    /// Moves lazily kept attributes into the live layer, so that freezing it takes everything.
    pub(crate) fn settle_inodes(state: &mut ViewState) {
        for (ino, inode) in std::mem::take(&mut state.inodes) {
            state.live.put(key::inode(ino), Some(Value::from(inode.encode())));
        }
    }

    /// Freezes the live layer. Answers whether there was one.
    pub(crate) fn freeze(&self, state: &mut ViewState) -> bool {
        let before = state.live.cost;
        Self::settle_inodes(state);
        self.account(before, state.live.cost);
        if state.live.is_empty() {
            return false;
        }
        let layer = Arc::new(std::mem::take(&mut state.live));
        self.account(layer.cost, 0);
        self.shared.frozen_cost.fetch_add(layer.cost, Ordering::Relaxed);
        state.base = Version::pending(state.base.clone(), layer, state.next_ino);
        true
    }
}

/// One change in progress, under the view's lock.
pub(crate) struct Change<'a> {
    pub(crate) view: &'a View,
    pub(crate) state: &'a mut ViewState,
    batch: Batch,
    replaying: bool,
}

impl<'a> Change<'a> {
    /// For replay, where nothing is journaled again.
    pub(crate) fn replaying(view: &'a View, state: &'a mut ViewState) -> Self {
        Self { view, state, batch: Vec::new(), replaying: true }
    }

    /// The page was changed in part, and what it was cannot be read: so cannot what it is.
    pub(crate) fn lose_page(&mut self, ino: Ino, page: u64, source: &PageSource, error: Error) -> Result<()> {
        let PageSource::Stored(pointer) = source else { return Err(error) };
        // What the host cannot read at this moment is not lost.
        if !self.replaying || error.kind() != ErrorKind::Corrupt {
            return Err(error);
        }
        tracing::warn!("{} inode {ino}: page {page} is lost: {error}", self.view.name());
        self.state.live.set_page(ino, page, PageEntry::Stored(pointer.lost()));
        Ok(())
    }
}

impl Change<'_> {
    pub(crate) fn put(&mut self, key: Key, value: Option<Value>) {
        self.state.live.put(key.clone(), value.clone());
        self.batch.push((key, value));
    }

    /// Puts an inode into the batch.
    pub(crate) fn put_inode(&mut self, ino: Ino, inode: &Inode) {
        self.state.inodes.remove(&ino);
        self.put(key::inode(ino), Some(Value::from(inode.encode())));
    }

    /// Changes an inode's attributes; they are journaled with the file's data.
    pub(crate) fn set_inode(&mut self, ino: Ino, inode: Inode) {
        self.state.inodes.insert(ino, inode);
        self.state.unlogged.inodes.insert(ino);
    }

    pub(crate) fn next_ino(&mut self) -> Result<Ino> {
        let ino = self.state.next_ino;
        if ino >= super::types::INO_MAX {
            return Err(Error::new(ErrorKind::NoSpace, "all inode numbers are used up"));
        }
        self.state.next_ino += 1;
        Ok(ino)
    }

    /// Removes all an inode has.
    pub(crate) fn delete_inode(&mut self, ino: Ino, inode: &Inode) -> Result<()> {
        self.state.inodes.remove(&ino);
        self.state.live.forget_file(ino);
        self.state.unlogged.forget(ino);
        self.state.frozen_unlogged.forget(ino);
        self.put(key::inode(ino), None);
        if inode.kind == FileKind::File {
            self.put(key::map(ino), None);
        }
        if inode.kind == FileKind::Symlink {
            self.put(key::target(ino), None);
        }
        let prefix = key::plain(ino, key::kind::XATTR);
        let within = |key: &[u8]| key.starts_with(&prefix);
        let trees = &self.view.shared.trees;
        let xattrs = self.state.base.scan(trees, Some(&self.state.live), &prefix, usize::MAX, &within)?;
        for (xattr, _) in xattrs {
            self.put(xattr, None);
        }
        Ok(())
    }
}
