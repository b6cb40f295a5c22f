//! Names: directories, links, renames, symbolic links, orphans.

use super::types::{
    Attributes, DirectoryEntry, FIRST_INO, Ino, LINKS_MAX, NAME_BYTES_MAX, NewNode, Owner, ROOT_INO,
    RenameMode, TARGET_BYTES_MAX,
};
use super::view::{Change, View, ViewState};
use crate::base::{Error, ErrorKind, Result};
use crate::format::inode::{FileKind, Inode, decode_entry, encode_entry};
use crate::format::key;
use crate::format::node::Value;

fn check_name(name: &[u8]) -> Result<()> {
    if name.len() > NAME_BYTES_MAX {
        return Err(Error::new(
            ErrorKind::NameTooLong,
            format!("a name of {} bytes is longer than {NAME_BYTES_MAX}", name.len()),
        ));
    }
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0) {
        return Err(Error::invalid(format!("{:?} cannot be a file name", String::from_utf8_lossy(name))));
    }
    Ok(())
}

fn no_entry(name: &[u8]) -> Error {
    Error::not_found(format!("no entry {:?}", String::from_utf8_lossy(name)))
}

impl View {
    fn entry(&self, state: &ViewState, parent: Ino, name: &[u8]) -> Result<Option<(Ino, FileKind)>> {
        self.value(state, &key::entry(parent, name))?.map(|value| decode_entry(&value)).transpose()
    }

    fn entry_inode(&self, state: &ViewState, parent: Ino, name: &[u8]) -> Result<(Ino, Inode)> {
        let (ino, _) = self.entry(state, parent, name)?.ok_or_else(|| no_entry(name))?;
        let inode = self.find_inode(state, ino)?.ok_or_else(|| {
            let name = String::from_utf8_lossy(name);
            Error::corrupt(format!("{}: entry {name:?} leads to the missing inode {ino}", self.name()))
        })?;
        Ok((ino, inode))
    }

    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attributes> {
        if name.len() > NAME_BYTES_MAX {
            check_name(name)?;
        }
        self.reading(|state| {
            self.directory(state, parent)?;
            let (ino, inode) = self.entry_inode(state, parent, name)?;
            self.describe(state, ino, &inode)
        })
    }

    /// The directory that holds directory `ino`; the root's is itself.
    pub fn parent(&self, ino: Ino) -> Result<Ino> {
        self.reading(|state| {
            let inode = self.directory(state, ino)?;
            Ok(if ino == ROOT_INO { ROOT_INO } else { inode.parent })
        })
    }

    /// Entries behind `after_cookie` (0 is the start), in the order of their names' hashes, without `.` and `..`.
    pub fn list_directory(&self, dir: Ino, after_cookie: u64, limit: usize) -> Result<Vec<DirectoryEntry>> {
        self.reading(|state| {
            self.directory(state, dir)?;
            let from = key::entry_from(dir, after_cookie.saturating_add(1));
            let prefix = key::plain(dir, key::kind::ENTRY);
            let within = |key: &[u8]| key.starts_with(&prefix);
            let trees = &self.shared.trees;
            let items = state.base.scan(trees, Some(&state.live), &from, limit, &within)?;
            items
                .iter()
                .map(|(entry_key, value)| {
                    let (_, _, rest) = key::split(entry_key)?;
                    let (cookie, name) = key::split_entry(rest)?;
                    let (ino, kind) = decode_entry(value)?;
                    Ok(DirectoryEntry { cookie, ino, kind, name: name.to_vec() })
                })
                .collect()
        })
    }

    /// Creates an inode under a name that must be free.
    pub fn create(
        &self,
        parent: Ino,
        name: &[u8],
        node: NewNode<'_>,
        mode: u32,
        owner: Owner,
    ) -> Result<Attributes> {
        check_name(name)?;
        self.changing(|change| {
            let mut directory = self.directory(change.state, parent)?;
            if directory.links == 0 {
                return Err(no_entry(name));
            }
            if self.entry(change.state, parent, name)?.is_some() {
                let name = String::from_utf8_lossy(name);
                return Err(Error::new(ErrorKind::Exists, format!("{name:?} exists")));
            }
            let (kind, rdev, target) = match node {
                NewNode::File => (FileKind::File, 0, None),
                NewNode::Directory => (FileKind::Directory, 0, None),
                NewNode::Fifo => (FileKind::Fifo, 0, None),
                NewNode::Socket => (FileKind::Socket, 0, None),
                NewNode::CharDevice(rdev) => (FileKind::CharDevice, rdev, None),
                NewNode::BlockDevice(rdev) => (FileKind::BlockDevice, rdev, None),
                NewNode::Symlink(target) => (FileKind::Symlink, 0, Some(target)),
            };
            if target.is_some_and(|target| target.len() > TARGET_BYTES_MAX) {
                return Err(Error::new(ErrorKind::NameTooLong, "the link's target is too long"));
            }
            let is_directory = kind == FileKind::Directory;
            if is_directory && directory.links >= LINKS_MAX {
                return Err(too_many_links());
            }
            let ino = change.next_ino()?;
            let now = self.shared.now();
            let inode = Inode {
                kind,
                mode: mode & 0o7777,
                links: if is_directory { 2 } else { 1 },
                uid: owner.uid,
                gid: owner.gid,
                rdev,
                size: target.map_or(0, |target| target.len() as u64),
                parent: if is_directory { parent } else { 0 },
                accessed: now,
                modified: now,
                changed: now,
                created: now,
            };
            change.put_inode(ino, &inode);
            if let Some(target) = target {
                change.put(key::target(ino), Some(Value::from(target)));
            }
            change.put_entry(parent, name, ino, kind);
            directory.links += u32::from(is_directory);
            change.touch_directory(parent, directory);
            self.describe(change.state, ino, &inode)
        })
    }

    /// Another name for an inode that is not a directory.
    pub fn link(&self, ino: Ino, new_parent: Ino, name: &[u8]) -> Result<Attributes> {
        check_name(name)?;
        self.changing(|change| {
            let mut inode = self.inode(change.state, ino)?;
            let directory = self.directory(change.state, new_parent)?;
            if inode.kind == FileKind::Directory {
                return Err(Error::new(ErrorKind::NotAllowed, "a directory cannot have a second name"));
            }
            if inode.links == 0 || directory.links == 0 {
                return Err(no_entry(name));
            }
            if inode.links >= LINKS_MAX {
                return Err(too_many_links());
            }
            if self.entry(change.state, new_parent, name)?.is_some() {
                let name = String::from_utf8_lossy(name);
                return Err(Error::new(ErrorKind::Exists, format!("{name:?} exists")));
            }
            inode.links += 1;
            inode.changed = self.shared.now();
            change.put_inode(ino, &inode);
            change.put_entry(new_parent, name, ino, inode.kind);
            change.touch_directory(new_parent, directory);
            self.describe(change.state, ino, &inode)
        })
    }

    /// Removes a name. An inode that has none left is an orphan until `forget_orphan`.
    pub fn unlink(&self, parent: Ino, name: &[u8]) -> Result<Attributes> {
        self.removing(|change| {
            let directory = self.directory(change.state, parent)?;
            let (ino, inode) = self.entry_inode(change.state, parent, name)?;
            if inode.kind == FileKind::Directory {
                return Err(Error::new(ErrorKind::IsDirectory, "it is a directory"));
            }
            change.put(key::entry(parent, name), None);
            change.touch_directory(parent, directory);
            let inode = change.drop_link(ino, inode);
            self.describe(change.state, ino, &inode)
        })
    }

    pub fn remove_directory(&self, parent: Ino, name: &[u8]) -> Result<Attributes> {
        self.removing(|change| {
            let mut directory = self.directory(change.state, parent)?;
            let (ino, inode) = self.entry_inode(change.state, parent, name)?;
            self.check_empty_directory(change.state, ino, &inode)?;
            change.put(key::entry(parent, name), None);
            directory.links = directory.links.saturating_sub(1);
            change.touch_directory(parent, directory);
            let inode = change.drop_directory(ino, inode);
            self.describe(change.state, ino, &inode)
        })
    }

    fn check_empty_directory(&self, state: &ViewState, ino: Ino, inode: &Inode) -> Result<()> {
        if inode.kind != FileKind::Directory {
            return Err(Error::new(ErrorKind::NotDirectory, "it is not a directory"));
        }
        let prefix = key::plain(ino, key::kind::ENTRY);
        let within = |key: &[u8]| key.starts_with(&prefix);
        if !state.base.scan(&self.shared.trees, Some(&state.live), &prefix, 1, &within)?.is_empty() {
            return Err(Error::new(ErrorKind::NotEmpty, "the directory is not empty"));
        }
        Ok(())
    }

    /// Renames; answers the inode that was replaced, which may have no name left.
    pub fn rename(
        &self,
        parent: Ino,
        name: &[u8],
        new_parent: Ino,
        new_name: &[u8],
        mode: RenameMode,
    ) -> Result<Option<Attributes>> {
        check_name(new_name)?;
        self.changing(|change| {
            self.directory(change.state, parent)?;
            let target_directory = self.directory(change.state, new_parent)?;
            let (ino, inode) = self.entry_inode(change.state, parent, name)?;
            let target = match self.entry(change.state, new_parent, new_name)? {
                Some(_) => Some(self.entry_inode(change.state, new_parent, new_name)?),
                None => None,
            };
            if target_directory.links == 0 {
                return Err(no_entry(new_name));
            }
            if inode.kind == FileKind::Directory {
                self.check_not_below(change.state, ino, new_parent)?;
            }
            match (mode, target) {
                (RenameMode::NoReplace, Some(_)) => {
                    Err(Error::new(ErrorKind::Exists, "the new name is taken"))
                }
                (RenameMode::Exchange, None) => Err(no_entry(new_name)),
                (RenameMode::Exchange, Some((other, other_inode))) => {
                    if other_inode.kind == FileKind::Directory {
                        self.check_not_below(change.state, other, parent)?;
                    }
                    if ino != other {
                        change.exchange(
                            (parent, name, ino, inode),
                            (new_parent, new_name, other, other_inode),
                        )?;
                    }
                    Ok(None)
                }
                // Two names of one inode: nothing happens.
                (_, Some((other, _))) if other == ino => Ok(None),
                (_, target) => {
                    if let Some((other, other_inode)) = &target {
                        match (inode.kind, other_inode.kind) {
                            (FileKind::Directory, _) => {
                                self.check_empty_directory(change.state, *other, other_inode)?;
                            }
                            (_, FileKind::Directory) => {
                                return Err(Error::new(
                                    ErrorKind::IsDirectory,
                                    "the new name is a directory",
                                ));
                            }
                            _ => {}
                        }
                    }
                    let replaced =
                        change.move_entry((parent, name, ino, inode), (new_parent, new_name), target)?;
                    replaced.map(|(other, gone)| self.describe(change.state, other, &gone)).transpose()
                }
            }
        })
    }

    /// A directory cannot move into itself.
    fn check_not_below(&self, state: &ViewState, ino: Ino, new_parent: Ino) -> Result<()> {
        let mut at = new_parent;
        while at != ROOT_INO {
            if at == ino {
                return Err(Error::invalid("a directory cannot be moved into itself"));
            }
            at = self.directory(state, at)?.parent;
            if at == 0 {
                return Err(Error::not_found("the new directory was removed"));
            }
        }
        if ino == ROOT_INO {
            return Err(Error::invalid("the root cannot be moved"));
        }
        Ok(())
    }

    pub fn read_link(&self, ino: Ino) -> Result<Vec<u8>> {
        self.reading(|state| {
            let inode = self.inode(state, ino)?;
            if inode.kind != FileKind::Symlink {
                return Err(Error::invalid(format!("inode {ino} is not a symbolic link")));
            }
            let target = self.value(state, &key::target(ino))?;
            target
                .map(|value| value.to_vec())
                .ok_or_else(|| Error::corrupt(format!("symbolic link {ino} has no target")))
        })
    }

    /// The last handle of an inode without a name is closed: its space comes free.
    pub fn forget_orphan(&self, ino: Ino) -> Result<()> {
        self.removing(|change| {
            let Some(inode) = self.find_inode(change.state, ino)? else { return Ok(()) };
            if inode.links > 0 {
                return Ok(());
            }
            change.put(key::orphan(ino), None);
            change.delete_inode(ino, &inode)
        })
    }

    /// Frees orphans left by a crash, by a snapshot's past or by a store that was closed with open files. Call it
    /// before the first handle exists.
    pub(crate) fn forget_all_orphans(&self) -> Result<()> {
        let prefix = key::plain(0, key::kind::ORPHAN);
        let orphans = self.reading(|state| {
            let within = |key: &[u8]| key.starts_with(&prefix);
            state.base.scan(&self.shared.trees, Some(&state.live), &prefix, usize::MAX, &within)
        })?;
        for (orphan, _) in orphans {
            let (_, _, rest) = key::split(&orphan)?;
            let mut ino = [0; 8];
            if rest.len() != 8 {
                return Err(Error::corrupt("orphan key has a wrong length"));
            }
            ino.copy_from_slice(rest);
            self.forget_orphan(Ino::from_be_bytes(ino))?;
        }
        Ok(())
    }

    /// The tree of a new volume: an empty root directory.
    pub(crate) fn make_root(&self, created_unix_nanos: i64) -> Result<()> {
        let now = super::types::Timestamp::from_unix_nanos(created_unix_nanos);
        let root = Inode {
            kind: FileKind::Directory,
            mode: 0o755,
            links: 2,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            parent: ROOT_INO,
            accessed: now,
            modified: now,
            changed: now,
            created: now,
        };
        let mut state = self.state.write();
        state.next_ino = FIRST_INO;
        let before = state.live.cost;
        state.live.put(key::inode(ROOT_INO), Some(Value::from(root.encode())));
        self.account(before, state.live.cost);
        Ok(())
    }
}

type Named<'a> = (Ino, &'a [u8], Ino, Inode);

impl Change<'_> {
    fn put_entry(&mut self, parent: Ino, name: &[u8], ino: Ino, kind: FileKind) {
        self.put(key::entry(parent, name), Some(Value::from(encode_entry(ino, kind))));
    }

    fn touch_directory(&mut self, ino: Ino, mut directory: Inode) {
        let now = self.view.shared.now();
        directory.modified = now;
        directory.changed = now;
        self.put_inode(ino, &directory);
    }

    fn drop_link(&mut self, ino: Ino, mut inode: Inode) -> Inode {
        inode.links = inode.links.saturating_sub(1);
        inode.changed = self.view.shared.now();
        self.put_inode(ino, &inode);
        if inode.links == 0 {
            self.put(key::orphan(ino), Some(Value::from(&b""[..])));
        }
        inode
    }

    fn drop_directory(&mut self, ino: Ino, mut inode: Inode) -> Inode {
        inode.links = 0;
        inode.parent = 0;
        inode.changed = self.view.shared.now();
        self.put_inode(ino, &inode);
        self.put(key::orphan(ino), Some(Value::from(&b""[..])));
        inode
    }

    fn move_entry(
        &mut self,
        (parent, name, ino, mut inode): Named<'_>,
        (new_parent, new_name): (Ino, &[u8]),
        target: Option<(Ino, Inode)>,
    ) -> Result<Option<(Ino, Inode)>> {
        let is_directory = inode.kind == FileKind::Directory;
        let replaces_directory = matches!(&target, Some((_, inode)) if inode.kind == FileKind::Directory);
        let adds_directory = is_directory && !replaces_directory && parent != new_parent;
        if adds_directory && self.view.directory(self.state, new_parent)?.links >= LINKS_MAX {
            return Err(too_many_links());
        }
        let mut from = self.view.directory(self.state, parent)?;
        if is_directory {
            from.links = from.links.saturating_sub(1);
        }
        self.put(key::entry(parent, name), None);
        self.touch_directory(parent, from);
        let mut to = self.view.directory(self.state, new_parent)?;
        if is_directory && !replaces_directory {
            to.links += 1;
        }
        let replaced = target.map(|(other, gone)| {
            let gone = if replaces_directory {
                self.drop_directory(other, gone)
            } else {
                self.drop_link(other, gone)
            };
            (other, gone)
        });
        self.put_entry(new_parent, new_name, ino, inode.kind);
        self.touch_directory(new_parent, to);
        inode.changed = self.view.shared.now();
        if is_directory {
            inode.parent = new_parent;
        }
        self.put_inode(ino, &inode);
        Ok(replaced)
    }

    fn exchange(&mut self, left: Named<'_>, right: Named<'_>) -> Result<()> {
        let now = self.view.shared.now();
        let shift = |inode: &Inode| u32::from(inode.kind == FileKind::Directory);
        let (left_parent, left_name, left_ino, mut left_inode) = left;
        let (right_parent, right_name, right_ino, mut right_inode) = right;
        let mut directory = self.view.directory(self.state, left_parent)?;
        directory.links = (directory.links + shift(&right_inode)).saturating_sub(shift(&left_inode));
        self.touch_directory(left_parent, directory);
        let mut directory = self.view.directory(self.state, right_parent)?;
        directory.links = (directory.links + shift(&left_inode)).saturating_sub(shift(&right_inode));
        self.touch_directory(right_parent, directory);
        self.put_entry(left_parent, left_name, right_ino, right_inode.kind);
        self.put_entry(right_parent, right_name, left_ino, left_inode.kind);
        for (ino, inode, parent) in
            [(left_ino, &mut left_inode, right_parent), (right_ino, &mut right_inode, left_parent)]
        {
            // The touch above may have changed it: one may be the other's directory.
            let mut current = self.view.inode(self.state, ino)?;
            current.changed = now;
            if inode.kind == FileKind::Directory {
                current.parent = parent;
            }
            self.put_inode(ino, &current);
        }
        Ok(())
    }
}

fn too_many_links() -> Error {
    Error::new(ErrorKind::TooManyLinks, format!("it has {LINKS_MAX} names already"))
}
