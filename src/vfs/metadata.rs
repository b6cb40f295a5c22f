//! Attributes, symbolic links' targets, file system statistics, extended attributes.

use super::attributes::{timestamp, timestamp_of};
use super::node::Node;
use super::privilege::{CAPABILITY_XATTR, cleared, has_set_id, may_keep};
use super::tree::{NAME_BYTES_MAX, Vfs};
use crate::base::ErrorKind;
use crate::volume::{Attributes, FileKind, Ino, SetAttributes, View};
use stillpoint_fuse::{
    Answer, Caller, Change, Errno, Metadata, NodeId, NodeKind, Statistics, Time, Timed, XattrMode,
};

/// The largest value of an extended attribute, in bytes; Linux allows no more.
const XATTR_BYTES_MAX: usize = 65_536;

/// Unit of `statfs`: small enough that a quota shows exactly, a power of two as callers expect.
const STATISTICS_BLOCK: u64 = 4096;

/// Inodes `statfs` promises; there is no such limit, but 0 reads as "full" to some installers.
const INODES_FREE: u64 = 1 << 32;

impl Metadata for Vfs {
    fn attributes(&self, node: NodeId) -> Answer<Timed> {
        match self.node(node)? {
            Node::Top => self.top_attributes(),
            Node::Snapshots(view) => self.snapshots_attributes(view),
            Node::Object(view, ino) => {
                let found = self.view(view)?.attributes(ino).map_err(|error| self.errno(&error))?;
                self.timed(view, &found)
            }
        }
    }

    fn set_attributes(&self, caller: Caller, node: NodeId, change: &Change) -> Answer<Timed> {
        let (view, ino) = match self.object(node, Errno::PERM) {
            Err(Errno::STALE) if brings_times_only(change) => return Ok(nameless(node, change)),
            found => found?,
        };
        let clock = self.clock.as_ref();
        let mut set = SetAttributes {
            mode: change.mode,
            uid: change.uid,
            gid: change.gid,
            size: change.size,
            accessed: change.accessed.map(|time| timestamp_of(time, clock)),
            modified: change.modified.map(|time| timestamp_of(time, clock)),
            changed: change.changed.map(timestamp),
        };
        let owner_changes = change.uid.is_some() || change.gid.is_some();
        let clears = owner_changes || (change.size.is_some() && !may_keep(caller.uid));
        if clears && change.mode.is_none() {
            set.mode = self.mode_without_privileges(&view, ino)?;
        }
        let after = match view.set_attributes(ino, &set) {
            Err(error) if error.kind() == ErrorKind::NotFound && brings_times_only(change) => {
                return Ok(nameless(node, change));
            }
            result => result.map_err(|error| self.errno(&error))?,
        };
        if let Some(mode) = set.mode {
            self.note_privileges(&view, ino, mode);
        }
        self.timed(view.id(), &after)
    }

    fn read_link(&self, node: NodeId) -> Answer<Vec<u8>> {
        let (view, ino) = self.object(node, Errno::INVAL)?;
        view.read_link(ino).map_err(|error| self.errno(&error))
    }

    fn statistics(&self, node: NodeId) -> Answer<Statistics> {
        let view = match self.node(node)? {
            Node::Top => None,
            Node::Snapshots(view) | Node::Object(view, _) => Some(view),
        };
        let space = self.store.space();
        let (mut total, mut available) = (space.total_bytes, space.available_bytes);
        let quota = view.map(|view| self.view(view)).transpose()?.and_then(|view| view.quota());
        if let Some((quota, used)) = quota {
            total = total.min(quota);
            available = available.min(quota.saturating_sub(used));
        }
        Ok(Statistics {
            block_size: STATISTICS_BLOCK as u32,
            blocks: total / STATISTICS_BLOCK,
            blocks_free: available / STATISTICS_BLOCK,
            blocks_available: available / STATISTICS_BLOCK,
            files: INODES_FREE,
            files_free: INODES_FREE,
            name_bytes_max: NAME_BYTES_MAX as u32,
        })
    }

    fn xattr(&self, node: NodeId, name: &[u8]) -> Answer<Vec<u8>> {
        check_xattr_name(name)?;
        let (view, ino) = self.object(node, Errno::NODATA)?;
        view.xattr(ino, name).map_err(|error| self.errno(&error))
    }

    fn set_xattr(&self, node: NodeId, name: &[u8], value: &[u8], mode: XattrMode) -> Answer<()> {
        check_xattr_name(name)?;
        if value.len() > XATTR_BYTES_MAX {
            return Err(Errno::TOOBIG);
        }
        let (view, ino) = self.object(node, Errno::PERM)?;
        let mode = match mode {
            XattrMode::Set => crate::volume::XattrMode::Set,
            XattrMode::Create => crate::volume::XattrMode::Create,
            XattrMode::Replace => crate::volume::XattrMode::Replace,
        };
        view.set_xattr(ino, name, value, mode).map_err(|error| self.errno(&error))?;
        if name == CAPABILITY_XATTR {
            self.open.set_privileged(view.id(), ino, true);
        }
        Ok(())
    }

    fn list_xattrs(&self, caller: Caller, node: NodeId) -> Answer<Vec<Vec<u8>>> {
        let Node::Object(view, ino) = self.node(node)? else { return Ok(Vec::new()) };
        let mut names = self.view(view)?.list_xattrs(ino).map_err(|error| self.errno(&error))?;
        // The kernel lets only root at these values, and leaves hiding their names to us.
        names.retain(|name| caller.uid == 0 || !name.starts_with(b"trusted."));
        Ok(names)
    }

    fn remove_xattr(&self, node: NodeId, name: &[u8]) -> Answer<()> {
        check_xattr_name(name)?;
        let (view, ino) = self.object(node, Errno::PERM)?;
        view.remove_xattr(ino, name).map_err(|error| self.errno(&error))
    }
}

/// Whether the kernel brings the times it kept of a file, which it also does after the file's last name is gone:
/// only it sends a time of change, and alone. A refusal would be an error of the next `syncfs`, for nothing lost.
fn brings_times_only(change: &Change) -> bool {
    let Change { mode, uid, gid, size, accessed, changed, .. } = change;
    let asked = mode.is_some() || uid.is_some() || gid.is_some() || size.is_some() || accessed.is_some();
    changed.is_some() && !asked
}

/// The attributes of a file that is gone.
fn nameless(node: NodeId, change: &Change) -> Timed {
    let at = change.changed.unwrap_or(Time { seconds: 0, nanos: 0 });
    Timed {
        attributes: stillpoint_fuse::Attributes {
            ino: node,
            kind: NodeKind::File,
            mode: 0,
            links: 0,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            blocks: 0,
            block_size: STATISTICS_BLOCK as u32,
            accessed: at,
            modified: at,
            changed: at,
        },
        valid: std::time::Duration::ZERO,
    }
}

impl Vfs {
    /// Takes set-id bits and file capabilities away, before a write by someone who may not keep them.
    pub(super) fn clear_privileges(&self, view: &View, ino: Ino) -> Answer<()> {
        if let Some(mode) = self.mode_without_privileges(view, ino)? {
            let set = SetAttributes { mode: Some(mode), ..SetAttributes::default() };
            view.set_attributes(ino, &set).map_err(|error| self.errno(&error))?;
        }
        self.open.set_privileged(view.id(), ino, false);
        Ok(())
    }

    /// Whether a write by others would take something away from the file.
    pub(super) fn is_privileged(&self, view: &View, attributes: &Attributes) -> Answer<bool> {
        Ok(has_set_id(attributes.mode) || self.has_capability(view, attributes.ino)?)
    }

    /// Removes the file's capabilities, and gives the mode to set if its set-id bits must go. Directories keep
    /// both.
    fn mode_without_privileges(&self, view: &View, ino: Ino) -> Answer<Option<u32>> {
        let before = view.attributes(ino).map_err(|error| self.errno(&error))?;
        if before.kind == FileKind::Directory {
            return Ok(None);
        }
        if self.has_capability(view, ino)? {
            view.remove_xattr(ino, CAPABILITY_XATTR).map_err(|error| self.errno(&error))?;
        }
        Ok(has_set_id(before.mode).then(|| cleared(before.mode)))
    }

    fn has_capability(&self, view: &View, ino: Ino) -> Answer<bool> {
        match view.xattr(ino, CAPABILITY_XATTR) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NoAttribute => Ok(false),
            Err(error) => Err(self.errno(&error)),
        }
    }

    fn note_privileges(&self, view: &View, ino: Ino, mode: u32) {
        if has_set_id(mode) {
            self.open.set_privileged(view.id(), ino, true);
        }
    }
}

/// The namespaces a volume keeps. Access control lists are not among them: `default_permissions` would not
/// obey them.
fn check_xattr_name(name: &[u8]) -> Answer<()> {
    let kept = [&b"user."[..], b"trusted.", b"security."];
    if !kept.iter().any(|prefix| name.starts_with(prefix) && name.len() > prefix.len()) {
        return Err(Errno::OPNOTSUPP);
    }
    if name.len() > NAME_BYTES_MAX { Err(Errno::RANGE) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_three_xattr_namespaces_are_kept() {
        assert_eq!(check_xattr_name(b"user.a"), Ok(()));
        assert_eq!(check_xattr_name(b"security.capability"), Ok(()));
        assert_eq!(check_xattr_name(b"user."), Err(Errno::OPNOTSUPP));
        assert_eq!(check_xattr_name(b"system.posix_acl_access"), Err(Errno::OPNOTSUPP));
        let long = [b"user.".as_slice(), &[b'x'; 251]].concat();
        assert_eq!(check_xattr_name(&long), Err(Errno::RANGE));
    }
}
