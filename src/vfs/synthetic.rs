//! Directories that lie in no volume: the list of volumes at the mount's root, and `.snapshots` in each
//! volume's root. They change by commands only, so the kernel keeps them briefly.

use super::attributes::{VALID_LISTS, made_up_directory, timed};
use super::node::{Node, TOP_NODE};
use super::tree::Vfs;
use crate::base::{ErrorKind, Result};
use crate::volume::{ROOT_INO, View, ViewId};
use std::sync::Arc;
use stillpoint_fuse::{Answer, DirectorySink, Entry, Errno, Listed, NodeId, NodeKind, Timed};

/// A name and the root of the view it leads to.
type Named = (String, ViewId);

impl Vfs {
    pub(super) fn top_attributes(&self) -> Answer<Timed> {
        Ok(made_up_directory(TOP_NODE, 2, self.started))
    }

    pub(super) fn snapshots_attributes(&self, view: ViewId) -> Answer<Timed> {
        let number = self.number(Node::Snapshots(view))?;
        Ok(made_up_directory(number, 2, self.started))
    }

    pub(super) fn snapshots_entry(&self, view: ViewId) -> Answer<Entry> {
        Ok(Entry { found: Some(self.snapshots_attributes(view)?), valid: VALID_LISTS })
    }

    /// Whether the view's root has a `.snapshots`: volumes' roots have, snapshots' have not.
    pub(super) fn shows_snapshots(&self, view: ViewId) -> Answer<bool> {
        Ok(!self.view(view)?.is_read_only())
    }

    pub(super) fn lookup_volume(&self, name: &[u8]) -> Answer<Entry> {
        let Ok(name) = str::from_utf8(name) else { return Err(Errno::NOENT) };
        self.root_entry(self.store.volume(name))
    }

    pub(super) fn lookup_snapshot(&self, volume: ViewId, name: &[u8]) -> Answer<Entry> {
        let Ok(name) = str::from_utf8(name) else { return Err(Errno::NOENT) };
        let volume = self.view(volume)?.name();
        self.root_entry(self.store.snapshot(&volume, name))
    }

    pub(super) fn list_volumes(&self, position: u64, sink: &mut dyn DirectorySink) -> Answer<()> {
        self.list_roots(TOP_NODE, TOP_NODE, self.store.volume_names(), position, sink)
    }

    pub(super) fn list_snapshots(
        &self,
        volume: ViewId,
        position: u64,
        sink: &mut dyn DirectorySink,
    ) -> Answer<()> {
        let named = self.store.snapshot_names(volume).map_err(|error| self.errno(&error))?;
        let own = self.number(Node::Snapshots(volume))?;
        let above = self.number(Node::Object(volume, ROOT_INO))?;
        self.list_roots(own, above, named, position, sink)
    }

    /// The node that `..` in a view's root shows. It only fills a field of listings: the kernel walks up by
    /// itself.
    pub(super) fn above_root(&self, view: &Arc<View>) -> Answer<NodeId> {
        Ok(match self.numbering.root() {
            Node::Top => TOP_NODE,
            _ => self.number(Node::Object(view.id(), ROOT_INO))?,
        })
    }

    fn root_entry(&self, found: Result<Arc<View>>) -> Answer<Entry> {
        let view = match found {
            Ok(view) => self.keep_view(view),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Invalid) => {
                return Err(Errno::NOENT);
            }
            Err(error) => return Err(self.errno(&error)),
        };
        Ok(Entry { found: Some(self.root_attributes(view)?), valid: VALID_LISTS })
    }

    fn root_attributes(&self, view: ViewId) -> Answer<Timed> {
        let found = self.view(view)?.attributes(ROOT_INO).map_err(|error| self.errno(&error))?;
        Ok(timed(self.number(Node::Object(view, ROOT_INO))?, &found, VALID_LISTS))
    }

    /// Lists `.`, `..` and the names; an entry's position is its view's number, which is never used twice, so
    /// that a listing goes on rightly while names come and go.
    fn list_roots(
        &self,
        own: NodeId,
        above: NodeId,
        mut named: Vec<Named>,
        position: u64,
        sink: &mut dyn DirectorySink,
    ) -> Answer<()> {
        const FIRST: u64 = 16;
        for (ino, name, next) in [(own, &b"."[..], 1), (above, &b".."[..], 2)] {
            let listed = Listed { ino, kind: NodeKind::Directory, name, next };
            let shown = made_up_directory(ino, 2, self.started);
            if next > position && !sink.add(listed, Some(&shown)) {
                return Ok(());
            }
        }
        named.sort_by_key(|(_, view)| view.0);
        for (name, view) in named {
            let next = FIRST + u64::from(view.0);
            if next <= position {
                continue;
            }
            let ino = self.number(Node::Object(view, ROOT_INO))?;
            let listed = Listed { ino, kind: NodeKind::Directory, name: name.as_bytes(), next };
            // Destroyed meanwhile: it has no attributes and is left out.
            let shown = if sink.wants_attributes() { self.root_attributes(view).ok() } else { None };
            if !sink.add(listed, shown.as_ref()) {
                return Ok(());
            }
        }
        Ok(())
    }
}
