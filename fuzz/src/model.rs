//! A volume as plain maps: what the store must look like to its callers.
//!
//! Knows nothing of layers, pages on disk, journals or checkpoints. Errors are only yes or no.

use std::collections::{BTreeMap, BTreeSet};

use stillpoint::volume::{AllocateMode, Attributes, FileKind, Ino, ROOT_INO, RenameMode, XattrMode};

pub const PAGE: u64 = 8192;

/// The operation must fail.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused;

pub type Outcome<T> = Result<T, Refused>;

fn refuse_if(condition: bool) -> Outcome<()> {
    if condition { Err(Refused) } else { Ok(()) }
}

/// An inode.
#[derive(Clone, PartialEq, Eq)]
pub struct Node {
    pub kind: FileKind,
    pub mode: u32,
    pub uid: u32,
    pub links: u32,
    pub rdev: u32,
    pub size: u64,
    pub parent: Ino,
    pub entries: BTreeMap<Vec<u8>, Ino>,
    /// Pages that are not all zero.
    pub pages: BTreeMap<u64, Vec<u8>>,
    pub target: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pages: Vec<_> = self.pages.iter().map(|(page, bytes)| (page, sum(bytes))).collect();
        let xattrs: Vec<_> =
            self.xattrs.iter().map(|(name, value)| (name, value.len(), sum(value))).collect();
        write!(
            f,
            "{:?} {:o} uid {} links {} rdev {} size {} parent {} entries {:?} pages {pages:?} target {} {xattrs:?}",
            self.kind,
            self.mode,
            self.uid,
            self.links,
            self.rdev,
            self.size,
            self.parent,
            self.entries,
            self.target.len()
        )
    }
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum, byte| (sum * 31 + u64::from(*byte)) % 1_000_007)
}

impl Node {
    pub fn of(attributes: &Attributes) -> Self {
        Self {
            kind: attributes.kind,
            mode: attributes.mode,
            uid: attributes.uid,
            links: attributes.links,
            rdev: attributes.rdev,
            size: attributes.size,
            parent: 0,
            entries: BTreeMap::new(),
            pages: BTreeMap::new(),
            target: Vec::new(),
            xattrs: BTreeMap::new(),
        }
    }

    pub fn is_directory(&self) -> bool {
        self.kind == FileKind::Directory
    }

    pub fn read(&self, offset: u64, length: u64) -> Vec<u8> {
        let end = self.size.min(offset + length).max(offset);
        let mut out = vec![0; (end - offset) as usize];
        for (page, bytes) in self.pages.range(offset / PAGE..end.div_ceil(PAGE)) {
            for (at, byte) in (page * PAGE..).zip(bytes) {
                if (offset..end).contains(&at) {
                    out[(at - offset) as usize] = *byte;
                }
            }
        }
        out
    }

    pub fn write(&mut self, offset: u64, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let mut at = 0;
        while at < data.len() {
            let (page, start) = ((offset + at as u64) / PAGE, ((offset + at as u64) % PAGE) as usize);
            let stop = (start + data.len() - at).min(PAGE as usize);
            let bytes = self.pages.entry(page).or_insert_with(|| vec![0; PAGE as usize]);
            bytes[start..stop].copy_from_slice(&data[at..at + stop - start]);
            if bytes.iter().all(|byte| *byte == 0) {
                self.pages.remove(&page);
            }
            at += stop - start;
        }
        self.size = self.size.max(offset + data.len() as u64);
    }

    pub fn zero(&mut self, from: u64, to: u64) {
        for page in
            self.pages.range(from / PAGE..to.div_ceil(PAGE)).map(|(page, _)| *page).collect::<Vec<_>>()
        {
            let start = from.saturating_sub(page * PAGE).min(PAGE) as usize;
            let stop = (to - page * PAGE).min(PAGE) as usize;
            let size = self.size;
            self.write(page * PAGE + start as u64, &vec![0; stop - start]);
            self.size = size;
        }
    }

    pub fn resize(&mut self, size: u64) {
        if size < self.size {
            self.zero(size, self.size.next_multiple_of(PAGE));
        }
        self.size = size;
    }

    pub fn allocate(&mut self, mode: AllocateMode, from: u64, to: u64) {
        if !matches!(mode, AllocateMode::Allocate | AllocateMode::KeepSize) {
            self.zero(from, to);
        }
        if matches!(mode, AllocateMode::Allocate | AllocateMode::ZeroRange) {
            self.size = self.size.max(to);
        }
    }
}

/// Inodes of a volume or snapshot by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    pub nodes: BTreeMap<Ino, Node>,
}

impl Tree {
    pub fn node(&mut self, ino: Ino) -> Outcome<&mut Node> {
        self.nodes.get_mut(&ino).ok_or(Refused)
    }

    pub fn file(&mut self, ino: Ino) -> Outcome<&mut Node> {
        let node = self.node(ino)?;
        refuse_if(node.kind != FileKind::File)?;
        Ok(node)
    }

    fn directory(&mut self, ino: Ino) -> Outcome<&mut Node> {
        let node = self.node(ino)?;
        refuse_if(!node.is_directory())?;
        Ok(node)
    }

    pub fn lookup(&mut self, dir: Ino, name: &[u8]) -> Outcome<Ino> {
        self.directory(dir)?.entries.get(name).copied().ok_or(Refused)
    }

    /// Whether a new name may be made.
    pub fn may_create(&mut self, dir: Ino, name: &[u8]) -> Outcome<()> {
        let directory = self.directory(dir)?;
        refuse_if(directory.links == 0 || directory.entries.contains_key(name))
    }

    pub fn create(&mut self, dir: Ino, name: &[u8], ino: Ino, mut node: Node) -> Outcome<()> {
        self.may_create(dir, name)?;
        let directory = self.directory(dir)?;
        directory.entries.insert(name.to_vec(), ino);
        if node.is_directory() {
            directory.links += 1;
            node.parent = dir;
        }
        assert!(self.nodes.insert(ino, node).is_none(), "inode {ino} is used twice");
        Ok(())
    }

    pub fn link(&mut self, ino: Ino, dir: Ino, name: &[u8]) -> Outcome<()> {
        let node = self.node(ino)?;
        refuse_if(node.is_directory() || node.links == 0)?;
        self.may_create(dir, name)?;
        self.directory(dir)?.entries.insert(name.to_vec(), ino);
        self.node(ino)?.links += 1;
        Ok(())
    }

    pub fn unlink(&mut self, dir: Ino, name: &[u8]) -> Outcome<Ino> {
        let ino = self.lookup(dir, name)?;
        refuse_if(self.node(ino)?.is_directory())?;
        self.directory(dir)?.entries.remove(name);
        self.node(ino)?.links -= 1;
        Ok(ino)
    }

    pub fn remove_directory(&mut self, dir: Ino, name: &[u8]) -> Outcome<Ino> {
        let ino = self.lookup(dir, name)?;
        refuse_if(!self.directory(ino)?.entries.is_empty())?;
        self.directory(dir)?.entries.remove(name);
        self.directory(dir)?.links -= 1;
        self.drop_directory(ino)?;
        Ok(ino)
    }

    fn drop_directory(&mut self, ino: Ino) -> Outcome<()> {
        let gone = self.directory(ino)?;
        gone.links = 0;
        gone.parent = 0;
        Ok(())
    }

    fn is_below(&mut self, dir: Ino, above: Ino) -> Outcome<bool> {
        let mut at = dir;
        while at != above {
            if at == ROOT_INO {
                return Ok(false);
            }
            at = self.directory(at)?.parent;
        }
        Ok(true)
    }

    pub fn rename(
        &mut self,
        (from, name): (Ino, &[u8]),
        (to, new_name): (Ino, &[u8]),
        mode: RenameMode,
    ) -> Outcome<Option<Ino>> {
        let ino = self.lookup(from, name)?;
        refuse_if(self.directory(to)?.links == 0)?;
        let target = self.lookup(to, new_name).ok();
        let is_directory = self.node(ino)?.is_directory();
        refuse_if(is_directory && self.is_below(to, ino)?)?;
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) | (RenameMode::Exchange, None) => return Err(Refused),
            (RenameMode::Exchange, Some(other)) => {
                let other_is_directory = self.node(other)?.is_directory();
                refuse_if(other_is_directory && self.is_below(from, other)?)?;
                self.place(from, name, other)?;
                self.place(to, new_name, ino)?;
                let shift = |node: &mut Node, less: bool, more: bool| {
                    node.links = node.links + u32::from(more) - u32::from(less);
                };
                shift(self.directory(from)?, is_directory, other_is_directory);
                shift(self.directory(to)?, other_is_directory, is_directory);
                return Ok(None);
            }
            (_, Some(other)) if other == ino => return Ok(None),
            _ => {}
        }
        if let Some(other) = target {
            let other = self.node(other)?;
            refuse_if(other.is_directory() != is_directory || !other.entries.is_empty())?;
        }
        self.directory(from)?.entries.remove(name);
        if is_directory {
            self.directory(from)?.links -= 1;
            self.directory(to)?.links += u32::from(target.is_none());
        }
        self.place(to, new_name, ino)?;
        if let Some(other) = target {
            if is_directory { self.drop_directory(other)? } else { self.node(other)?.links -= 1 }
        }
        Ok(target)
    }

    fn place(&mut self, dir: Ino, name: &[u8], ino: Ino) -> Outcome<()> {
        self.directory(dir)?.entries.insert(name.to_vec(), ino);
        let node = self.node(ino)?;
        if node.is_directory() {
            node.parent = dir;
        }
        Ok(())
    }

    pub fn set_xattr(&mut self, ino: Ino, name: &[u8], value: Vec<u8>, mode: XattrMode) -> Outcome<()> {
        let xattrs = &mut self.node(ino)?.xattrs;
        let exists = xattrs.contains_key(name);
        refuse_if(mode == XattrMode::Create && exists || mode == XattrMode::Replace && !exists)?;
        xattrs.insert(name.to_vec(), value);
        Ok(())
    }

    /// Takes away inodes that no name leads to, as an open does.
    pub fn drop_orphans(&mut self) {
        let named: BTreeSet<Ino> =
            self.nodes.values().flat_map(|node| node.entries.values()).copied().chain([ROOT_INO]).collect();
        self.nodes.retain(|ino, _| named.contains(ino));
    }
}
