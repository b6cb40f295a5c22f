//! Names: lookup, create, link, rename, remove, list.

use super::attributes::{VALID, kind_of, timed};
use super::node::Node;
use super::privilege::inherited;
use super::tree::{SNAPSHOTS_NAME, Vfs, check_name};
use crate::base::ErrorKind;
use crate::volume::{self, Attributes, FileKind, Ino, Owner, ROOT_INO, View, ViewId};
use std::sync::Arc;
use stillpoint_fuse::{
    Answer, Caller, DirectorySink, Done, Entry, Errno, Listed, Namespace, NewNode, NodeId, NodeKind,
    RenameMode,
};

/// Names an inode may have, as on ext4.
const LINKS_MAX: u32 = 65_000;

/// The longest target of a symbolic link, in bytes: `PATH_MAX` less its terminator.
const SYMLINK_BYTES_MAX: usize = 4095;

/// Entries taken from a volume at once while listing.
const LIST_BATCH: usize = 128;

/// Positions of `.` and `..`; a volume's own positions start at 16.
const POSITION_SELF: u64 = 1;
const POSITION_PARENT: u64 = 2;

impl Namespace for Vfs {
    fn lookup(&self, caller: Caller, parent: NodeId, name: &[u8]) -> Answer<Entry> {
        check_name(name)?;
        if let Some(entry) = self.lookup_for_flush(caller, parent, name)? {
            return Ok(entry);
        }
        match self.node(parent)? {
            Node::Top => self.lookup_volume(name),
            Node::Snapshots(view) => self.lookup_snapshot(view, name),
            Node::Object(view, ROOT_INO) if name == SNAPSHOTS_NAME && self.shows_snapshots(view)? => {
                self.snapshots_entry(view)
            }
            Node::Object(view, directory) => match self.view(view)?.lookup(directory, name) {
                Ok(found) => self.entry(view, &found),
                // The kernel makes all names, so it may remember which there are not.
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(Entry { found: None, valid: VALID }),
                Err(error) => Err(self.errno(&error)),
            },
        }
    }

    fn make(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &[u8],
        new: NewNode<'_>,
        mode: u32,
    ) -> Answer<Entry> {
        let (view, directory) = self.changeable(parent)?;
        let made = self.make_in(&view, directory, caller, name, new, mode)?;
        self.entry(view.id(), &made)
    }

    fn link(&self, node: NodeId, parent: NodeId, name: &[u8]) -> Answer<Entry> {
        check_name(name)?;
        let (to, directory) = self.changeable(parent)?;
        let (from, ino) = self.object(node, Errno::PERM)?;
        if from.id() != to.id() {
            return Err(Errno::XDEV);
        }
        self.refuse_reserved(to.id(), directory, name, Errno::EXIST)?;
        let before = from.attributes(ino).map_err(|error| self.errno(&error))?;
        if before.links >= LINKS_MAX {
            return Err(Errno::MLINK);
        }
        let after = to.link(ino, directory, name).map_err(|error| self.errno(&error))?;
        self.entry(to.id(), &after)
    }

    fn unlink(&self, parent: NodeId, name: &[u8]) -> Answer<()> {
        let (view, directory) = self.changeable(parent)?;
        self.refuse_reserved(view.id(), directory, name, Errno::ISDIR)?;
        let after = view.unlink(directory, name).map_err(|error| self.errno(&error))?;
        self.lost_name(&view, &after);
        Ok(())
    }

    fn remove_directory(&self, parent: NodeId, name: &[u8]) -> Answer<()> {
        let (view, directory) = self.changeable(parent)?;
        self.refuse_reserved(view.id(), directory, name, Errno::PERM)?;
        let after = view.remove_directory(directory, name).map_err(|error| self.errno(&error))?;
        self.lost_name(&view, &after);
        Ok(())
    }

    fn rename(&self, from: (NodeId, &[u8]), to: (NodeId, &[u8]), mode: RenameMode) -> Answer<()> {
        check_name(to.1)?;
        let (view, directory) = self.changeable(from.0)?;
        let (to_view, to_directory) = self.changeable(to.0)?;
        if view.id() != to_view.id() {
            return Err(Errno::XDEV);
        }
        self.refuse_reserved(view.id(), directory, from.1, Errno::PERM)?;
        self.refuse_reserved(view.id(), to_directory, to.1, Errno::PERM)?;
        let mode = match mode {
            RenameMode::Replace => volume::RenameMode::Replace,
            RenameMode::NoReplace => volume::RenameMode::NoReplace,
            RenameMode::Exchange => volume::RenameMode::Exchange,
        };
        let replaced =
            view.rename(directory, from.1, to_directory, to.1, mode).map_err(|error| self.errno(&error))?;
        if let Some(replaced) = replaced {
            self.lost_name(&view, &replaced);
        }
        Ok(())
    }

    fn list_directory(&self, node: NodeId, position: u64, sink: &mut dyn DirectorySink) -> Answer<()> {
        match self.node(node)? {
            Node::Top => self.list_volumes(position, sink),
            Node::Snapshots(view) => self.list_snapshots(view, position, sink),
            Node::Object(view, ino) => self.list_object(&self.view(view)?, ino, position, sink),
        }
    }

    fn sync_directory(&self, node: NodeId, done: Done) {
        match self.object(node, Errno::ROFS) {
            Ok((view, ino)) => self.sync_inode(&view, ino, done),
            // Made-up directories have nothing to lose.
            Err(Errno::ROFS) => done(Ok(())),
            Err(error) => done(Err(error)),
        }
    }
}

impl Vfs {
    /// Makes a node, with group and mode as its directory passes them on.
    pub(super) fn make_in(
        &self,
        view: &Arc<View>,
        directory: Ino,
        caller: Caller,
        name: &[u8],
        new: NewNode<'_>,
        mode: u32,
    ) -> Answer<Attributes> {
        check_name(name)?;
        self.refuse_reserved(view.id(), directory, name, Errno::EXIST)?;
        let parent = view.attributes(directory).map_err(|error| self.errno(&error))?;
        let new = match new {
            NewNode::File => volume::NewNode::File,
            NewNode::Directory => volume::NewNode::Directory,
            NewNode::Fifo => volume::NewNode::Fifo,
            NewNode::Socket => volume::NewNode::Socket,
            NewNode::CharDevice(device) => volume::NewNode::CharDevice(device),
            NewNode::BlockDevice(device) => volume::NewNode::BlockDevice(device),
            NewNode::Symlink(target) if target.len() > SYMLINK_BYTES_MAX => return Err(Errno::NAMETOOLONG),
            NewNode::Symlink(target) => volume::NewNode::Symlink(target),
        };
        let is_directory = matches!(new, volume::NewNode::Directory);
        let (gid, mode) = inherited(parent.mode, parent.gid, caller.gid, mode, is_directory);
        let owner = Owner { uid: caller.uid, gid };
        view.create(directory, name, new, mode, owner).map_err(|error| self.errno(&error))
    }

    /// Makes an inode durable and then calls back, from whichever thread the volume finishes on.
    pub(super) fn sync_inode(&self, view: &Arc<View>, ino: Ino, done: Done) {
        if view.is_read_only() {
            return done(Ok(()));
        }
        view.sync_file(
            ino,
            Box::new(move |outcome| {
                done(outcome.map_err(|error| {
                    tracing::error!(kind = ?error.kind(), "fsync failed: {error}");
                    super::errno::errno_of(error.kind())
                }));
            }),
        );
    }

    /// `.snapshots` of a volume's root is not the user's to make, move or remove.
    fn refuse_reserved(&self, view: ViewId, directory: Ino, name: &[u8], refusal: Errno) -> Answer<()> {
        if directory == ROOT_INO && name == SNAPSHOTS_NAME && self.shows_snapshots(view)? {
            return Err(refusal);
        }
        Ok(())
    }

    fn list_object(
        &self,
        view: &Arc<View>,
        directory: Ino,
        position: u64,
        sink: &mut dyn DirectorySink,
    ) -> Answer<()> {
        if position < POSITION_PARENT && !self.list_dots(view, directory, position, sink)? {
            return Ok(());
        }
        let mut after = if position <= POSITION_PARENT { 0 } else { position };
        loop {
            let batch =
                view.list_directory(directory, after, LIST_BATCH).map_err(|error| self.errno(&error))?;
            for entry in &batch {
                let ino = self.number(Node::Object(view.id(), entry.ino))?;
                let listed = Listed { ino, kind: kind_of(entry.kind), name: &entry.name, next: entry.cookie };
                let found = if sink.wants_attributes() { view.attributes(entry.ino).ok() } else { None };
                let timed = found.map(|found| timed(ino, &found, VALID));
                if !sink.add(listed, timed.as_ref()) {
                    return Ok(());
                }
                after = entry.cookie;
            }
            if batch.len() < LIST_BATCH {
                return Ok(());
            }
        }
    }

    /// `.` and `..`; false when the sink is full.
    fn list_dots(
        &self,
        view: &Arc<View>,
        directory: Ino,
        position: u64,
        sink: &mut dyn DirectorySink,
    ) -> Answer<bool> {
        let here = view.attributes(directory).map_err(|error| self.errno(&error))?;
        if here.kind != FileKind::Directory {
            return Err(Errno::NOTDIR);
        }
        let own = self.number(Node::Object(view.id(), directory))?;
        let above = if directory == ROOT_INO {
            self.above_root(view)?
        } else {
            let parent = view.parent(directory).map_err(|error| self.errno(&error))?;
            self.number(Node::Object(view.id(), parent))?
        };
        for (ino, name, next) in [(own, &b"."[..], POSITION_SELF), (above, &b".."[..], POSITION_PARENT)] {
            let listed = Listed { ino, kind: NodeKind::Directory, name, next };
            if next > position && !sink.add(listed, Some(&timed(ino, &here, VALID))) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
