//! Open files: open, create, read, write, sync, space, seek, copy.

use super::handles::{Fate, OpenFile, Purpose};
use super::node::Node;
use super::privilege::may_keep;
use super::tree::Vfs;
use crate::base::ErrorKind;
use crate::volume::{AllocateMode, FileKind, Ino, SeekTarget, View};
use std::sync::Arc;
use stillpoint_fuse::{
    Answer, Caching, Caller, Copy, Done, Durability, Entry, Errno, Files, NewNode, NodeId, OpenRequest,
    Opened, Seek, SpaceMode, Write,
};

/// The most one copy request moves. The caller asks again for the rest; meanwhile other requests get their turn.
const COPY_BYTES_MAX: u64 = 64 << 20;

impl Files for Vfs {
    fn open(&self, caller: Caller, node: NodeId, request: OpenRequest) -> Answer<Opened> {
        let (view, ino) = self.object(node, Errno::ISDIR)?;
        let purpose = match request.write {
            true => Purpose::Write,
            false if self.gate.admits(caller) => Purpose::Flush,
            false => Purpose::Read,
        };
        self.open.reserve(view.id(), ino, purpose).ok_or(Errno::NOENT)?;
        self.open_reserved(&view, ino, request, purpose).inspect_err(|_| {
            self.let_go(&view, ino, purpose);
        })
    }

    fn create(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &[u8],
        mode: u32,
        request: OpenRequest,
    ) -> Answer<(Entry, Opened)> {
        let (view, directory) = self.changeable(parent)?;
        let made = match self.make_in(&view, directory, caller, name, NewNode::File, mode) {
            Ok(made) => made,
            // The kernel believed the name free. It has to look again and check access to what is there.
            Err(Errno::EXIST) if !request.exclusive => return Err(Errno::STALE),
            Err(error) => return Err(error),
        };
        let purpose = if request.write { Purpose::Write } else { Purpose::Read };
        self.open.reserve(view.id(), made.ino, purpose).ok_or(Errno::STALE)?;
        let opened = self.add_handle(&view, made.ino, request, purpose, false);
        Ok((self.entry(view.id(), &made)?, opened))
    }

    fn release(&self, _: NodeId, handle: u64) {
        if let Some(file) = self.open.remove(handle) {
            self.let_go(&file.view, file.ino, file.purpose);
        }
    }

    fn read(&self, _: NodeId, handle: u64, offset: u64, length: usize) -> Answer<Vec<u8>> {
        let file = self.file(handle)?;
        file.view.read(file.ino, offset, length).map_err(|error| self.errno(&error))
    }

    fn write(&self, _: Caller, write: &Write<'_>) -> Answer<Durability> {
        let file = self.file(write.handle)?;
        if write.clear_privileges && file.is_privileged() {
            self.clear_privileges(&file.view, file.ino)?;
        }
        file.view.write(file.ino, write.offset, write.data).map_err(|error| self.errno(&error))?;
        // Through the page cache the kernel sends an fsync of its own after such a write.
        Ok(if write.sync && file.direct { Durability::Required } else { Durability::Deferred })
    }

    fn sync(&self, _: NodeId, handle: u64, done: Done) {
        match self.file(handle) {
            Ok(file) if file.purpose == Purpose::Flush => done(Ok(())),
            Ok(file) => self.sync_inode(&file.view, file.ino, done),
            Err(error) => done(Err(error)),
        }
    }

    fn space(
        &self,
        caller: Caller,
        _: NodeId,
        handle: u64,
        mode: SpaceMode,
        (offset, length): (u64, u64),
    ) -> Answer<()> {
        let file = self.file(handle)?;
        if length == 0 {
            return Err(Errno::INVAL);
        }
        if !may_keep(caller.uid) && file.is_privileged() {
            self.clear_privileges(&file.view, file.ino)?;
        }
        let mode = match mode {
            SpaceMode::Allocate => AllocateMode::Allocate,
            SpaceMode::AllocateKeepSize => AllocateMode::KeepSize,
            SpaceMode::PunchHole => AllocateMode::PunchHole,
            SpaceMode::ZeroRange => AllocateMode::ZeroRange,
            SpaceMode::ZeroRangeKeepSize => AllocateMode::ZeroRangeKeepSize,
        };
        file.view.allocate(file.ino, mode, offset, length).map_err(|error| self.errno(&error))
    }

    fn seek(&self, _: NodeId, handle: u64, offset: u64, target: Seek) -> Answer<u64> {
        let file = self.file(handle)?;
        let target = match target {
            Seek::Data => SeekTarget::Data,
            Seek::Hole => SeekTarget::Hole,
        };
        file.view.seek(file.ino, offset, target).map_err(|error| match error.kind() {
            ErrorKind::Range => Errno::NXIO,
            _ => self.errno(&error),
        })
    }

    fn has_writers(&self, node: NodeId) -> bool {
        match self.numbering.node(node) {
            Some(Node::Object(view, ino)) => self.open.has_writers(view, ino),
            _ => false,
        }
    }

    fn copy(&self, caller: Caller, copy: &Copy) -> Answer<u64> {
        let from = self.file(copy.from_handle)?;
        let to = self.file(copy.to_handle)?;
        if !may_keep(caller.uid) && to.is_privileged() {
            self.clear_privileges(&to.view, to.ino)?;
        }
        let length = copy.length.min(COPY_BYTES_MAX);
        from.view
            .copy_range(from.ino, copy.from_offset, &to.view, to.ino, copy.to_offset, length)
            .map_err(|error| self.errno(&error))
    }
}

impl Vfs {
    fn file(&self, handle: u64) -> Answer<Arc<OpenFile>> {
        self.open.get(handle).ok_or(Errno::BADF)
    }

    fn open_reserved(
        &self,
        view: &Arc<View>,
        ino: Ino,
        request: OpenRequest,
        purpose: Purpose,
    ) -> Answer<Opened> {
        let found = view.attributes(ino).map_err(|error| self.errno(&error))?;
        match found.kind {
            FileKind::File => {}
            FileKind::Directory => return Err(Errno::ISDIR),
            _ => return Err(Errno::OPNOTSUPP),
        }
        if view.is_read_only() && request.write {
            return Err(Errno::ROFS);
        }
        let privileged = request.write && self.is_privileged(view, &found)?;
        Ok(self.add_handle(view, ino, request, purpose, privileged))
    }

    fn add_handle(
        &self,
        view: &Arc<View>,
        ino: Ino,
        request: OpenRequest,
        purpose: Purpose,
        privileged: bool,
    ) -> Opened {
        let handle = self.open.add(Arc::clone(view), ino, purpose, request.direct, privileged);
        Opened { handle, caching: if request.direct { Caching::Direct } else { Caching::Keep } }
    }

    /// Uncounts a handle; the last one of an unlinked inode frees it.
    fn let_go(&self, view: &Arc<View>, ino: Ino, purpose: Purpose) {
        if self.open.release_inode(view.id(), ino, purpose) == Fate::Forget {
            self.forget(view, ino);
        }
    }
}
