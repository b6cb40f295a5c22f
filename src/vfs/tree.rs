//! The state of one mount, and what its parts share: numbers to views, names checked, errors turned.

use super::attributes::{VALID, now, timed};
use super::errno::Failures;
use super::flush::FlushGate;
use super::handles::{Fate, OpenFiles};
use super::node::{Node, Numbering};
use crate::base::{Clock, ErrorKind, Result};
use crate::volume::{Attributes, Ino, Store, Timestamp, View, ViewId};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use stillpoint_fuse::{Answer, Entry, Errno, FileSystem, NodeId, Timed};

/// The longest name, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 255;

/// The directory in each volume's root that shows its snapshots.
pub(crate) const SNAPSHOTS_NAME: &[u8] = b".snapshots";

/// A store's volumes as a file system: all of them below one root, or one alone.
///
/// A store may be served by one mount at a time: two would cache the same files apart. To show a volume at a
/// second place, bind it there ([`super::Mount::bind_volume`]).
pub struct Vfs {
    pub(super) store: Arc<Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) numbering: Numbering,
    pub(super) open: OpenFiles,
    pub(super) gate: FlushGate,
    /// Times of the directories that exist in no volume.
    pub(super) started: Timestamp,
    failures: Failures,
    views: RwLock<HashMap<ViewId, Arc<View>>>,
}

impl Vfs {
    /// All volumes, each a directory of the root.
    pub fn of_store(store: Arc<Store>, clock: Arc<dyn Clock>) -> Self {
        Self::new(store, clock, Numbering::all_volumes())
    }

    /// One volume, whose root is the mount's root.
    pub fn of_volume(store: Arc<Store>, clock: Arc<dyn Clock>, volume: &str) -> Result<Self> {
        let view = store.volume(volume)?;
        Ok(Self::new(store, clock, Numbering::one_volume(view.id())))
    }

    fn new(store: Arc<Store>, clock: Arc<dyn Clock>, numbering: Numbering) -> Self {
        let started = now(clock.as_ref());
        Self {
            store,
            clock,
            numbering,
            open: OpenFiles::default(),
            gate: FlushGate::default(),
            started,
            failures: Failures::default(),
            views: RwLock::default(),
        }
    }

    /// How many files of a view are open; destroying one with open files takes their data away.
    pub fn open_files(&self, view: ViewId) -> u64 {
        self.open.count(view)
    }

    /// How many files are open in all.
    pub fn all_open_files(&self) -> u64 {
        self.open.total()
    }

    /// Lets go of a view that was destroyed.
    pub(super) fn forget_view(&self, view: ViewId) {
        self.views.write().remove(&view);
    }

    pub(super) fn node(&self, number: NodeId) -> Answer<Node> {
        self.numbering.node(number).ok_or(Errno::STALE)
    }

    pub(super) fn number(&self, node: Node) -> Answer<NodeId> {
        self.numbering.number(node).ok_or(Errno::OVERFLOW)
    }

    /// The view and inode of a node that lies in a volume or snapshot; made-up directories are `refusal`.
    pub(super) fn object(&self, number: NodeId, refusal: Errno) -> Answer<(Arc<View>, Ino)> {
        match self.node(number)? {
            Node::Object(view, ino) => Ok((self.view(view)?, ino)),
            Node::Top | Node::Snapshots(_) => Err(refusal),
        }
    }

    /// The view and inode of a directory that is to change: the list of volumes is changed by commands only,
    /// snapshots not at all.
    pub(super) fn changeable(&self, parent: NodeId) -> Answer<(Arc<View>, Ino)> {
        match self.node(parent)? {
            Node::Object(view, ino) => Ok((self.view(view)?, ino)),
            Node::Top => Err(Errno::PERM),
            Node::Snapshots(_) => Err(Errno::ROFS),
        }
    }

    pub(super) fn view(&self, id: ViewId) -> Answer<Arc<View>> {
        if let Some(view) = self.views.read().get(&id) {
            return Ok(Arc::clone(view));
        }
        let view = self.store.view(id).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Errno::STALE,
            _ => self.errno(&error),
        })?;
        self.views.write().insert(id, Arc::clone(&view));
        Ok(view)
    }

    /// What a name of a volume or snapshot leads to: the root of its view.
    pub(super) fn keep_view(&self, view: Arc<View>) -> ViewId {
        let id = view.id();
        self.views.write().entry(id).or_insert(view);
        id
    }

    /// The error number for the caller of a system call.
    pub(super) fn errno(&self, error: &crate::base::Error) -> Errno {
        self.failures.errno(error)
    }

    pub(super) fn timed(&self, view: ViewId, attributes: &Attributes) -> Answer<Timed> {
        let number = self.number(Node::Object(view, attributes.ino))?;
        Ok(timed(number, attributes, VALID))
    }

    pub(super) fn entry(&self, view: ViewId, attributes: &Attributes) -> Answer<Entry> {
        Ok(Entry { found: Some(self.timed(view, attributes)?), valid: VALID })
    }

    /// An inode lost its last name: it goes now, or when its last handle is released.
    pub(super) fn lost_name(&self, view: &View, after: &Attributes) {
        if after.links == 0 && self.open.unlinked(view.id(), after.ino) == Fate::Forget {
            self.forget(view, after.ino);
        }
    }

    /// Frees an inode without names and handles. A failure leaves it to the next open of the store, which
    /// frees all such.
    pub(super) fn forget(&self, view: &View, ino: Ino) {
        if let Err(error) = view.forget_orphan(ino)
            && error.kind() != ErrorKind::NotFound
        {
            self.errno(&error);
        }
        self.open.forgotten(view.id(), ino);
    }
}

/// Refuses names no directory takes.
pub(super) fn check_name(name: &[u8]) -> Answer<()> {
    match name.len() {
        0 => Err(Errno::NOENT),
        1..=NAME_BYTES_MAX => Ok(()),
        _ => Err(Errno::NAMETOOLONG),
    }
}

impl FileSystem for Vfs {
    fn ended(&self) {
        for (view, ino) in self.open.drain() {
            self.forget(&view, ino);
        }
        self.views.write().clear();
    }
}
