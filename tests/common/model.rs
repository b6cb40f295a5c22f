//! A plain file tree in memory that says what a view must show, and reading a view back into one.
//!
//! Must not know how a store works: only what its callers may expect.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stillpoint::base::ErrorKind;
use stillpoint::volume::{FileKind, Ino, ROOT_INO, RenameMode, SeekTarget, View};

pub const PAGE: u64 = 8192;

/// What an operation may end with.
pub type Outcome<T> = Result<T, ErrorKind>;

/// A file's bytes: pages that are not all zeros, and the size. Bytes behind the size are zeros.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct FileBody {
    pub size: u64,
    pub pages: BTreeMap<u64, Arc<[u8]>>,
}

impl FileBody {
    pub fn read(&self, offset: u64, length: u64) -> Vec<u8> {
        let end = (offset + length).min(self.size);
        let mut out = Vec::new();
        let mut at = offset;
        while at < end {
            let stop = ((at / PAGE + 1) * PAGE).min(end);
            let (from, to) = ((at % PAGE) as usize, (at % PAGE + stop - at) as usize);
            match self.pages.get(&(at / PAGE)) {
                Some(page) => out.extend_from_slice(&page[from..to]),
                None => out.resize(out.len() + to - from, 0),
            }
            at = stop;
        }
        out
    }

    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let end = offset + data.len() as u64;
        let mut at = offset;
        while at < end {
            let stop = ((at / PAGE + 1) * PAGE).min(end);
            let part = &data[(at - offset) as usize..(stop - offset) as usize];
            self.change_page(at / PAGE, |page| {
                page[(at % PAGE) as usize..][..part.len()].copy_from_slice(part);
            });
            at = stop;
        }
        if !data.is_empty() {
            self.size = self.size.max(end);
        }
    }

    /// Makes a range zeros; the size stays.
    pub fn zero(&mut self, offset: u64, end: u64) {
        let pages: Vec<u64> = self.pages.range(offset / PAGE..end.div_ceil(PAGE)).map(|(n, _)| *n).collect();
        for number in pages {
            let from = offset.saturating_sub(number * PAGE).min(PAGE) as usize;
            let to = (end - number * PAGE).min(PAGE) as usize;
            self.change_page(number, |page| page[from..to].fill(0));
        }
    }

    pub fn resize(&mut self, size: u64) {
        if size < self.size {
            self.zero(size, self.size.next_multiple_of(PAGE));
        }
        self.size = size;
    }

    fn change_page(&mut self, number: u64, change: impl FnOnce(&mut [u8])) {
        let mut page = self.pages.get(&number).map_or_else(|| vec![0; PAGE as usize], |page| page.to_vec());
        change(&mut page);
        self.put_page(number, page);
    }

    pub fn put_page(&mut self, number: u64, mut page: Vec<u8>) {
        page.resize(PAGE as usize, 0);
        if page.iter().all(|byte| *byte == 0) {
            self.pages.remove(&number);
        } else {
            self.pages.insert(number, page.into());
        }
    }
}

#[derive(Clone, PartialEq, Eq)]
pub enum Body {
    File(FileBody),
    /// Entries, and the directory it lies in.
    Directory(BTreeMap<Vec<u8>, Ino>, Ino),
    Symlink(Vec<u8>),
    Other,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Node {
    pub kind: FileKind,
    pub mode: u32,
    pub uid: u32,
    pub rdev: u32,
    pub links: u32,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub body: Body,
}

/// A file tree. Clones share what neither changes.
#[derive(Clone, PartialEq, Eq)]
pub struct Tree {
    pub nodes: BTreeMap<Ino, Arc<Node>>,
}

impl Tree {
    /// An empty root directory.
    pub fn new() -> Self {
        let root = Node {
            kind: FileKind::Directory,
            mode: 0o755,
            uid: 0,
            rdev: 0,
            links: 2,
            xattrs: BTreeMap::new(),
            body: Body::Directory(BTreeMap::new(), ROOT_INO),
        };
        Self { nodes: BTreeMap::from([(ROOT_INO, Arc::new(root))]) }
    }

    pub fn node(&self, ino: Ino) -> Outcome<&Node> {
        self.nodes.get(&ino).map(Arc::as_ref).ok_or(ErrorKind::NotFound)
    }

    pub fn node_mut(&mut self, ino: Ino) -> Outcome<&mut Node> {
        self.nodes.get_mut(&ino).map(Arc::make_mut).ok_or(ErrorKind::NotFound)
    }

    pub fn file(&self, ino: Ino) -> Outcome<&FileBody> {
        match &self.node(ino)?.body {
            Body::File(file) => Ok(file),
            Body::Directory(..) => Err(ErrorKind::IsDirectory),
            _ => Err(ErrorKind::Invalid),
        }
    }

    pub fn file_mut(&mut self, ino: Ino) -> Outcome<&mut FileBody> {
        self.file(ino)?;
        match &mut self.node_mut(ino)?.body {
            Body::File(file) => Ok(file),
            _ => Err(ErrorKind::Invalid),
        }
    }

    pub fn entries(&self, ino: Ino) -> Outcome<&BTreeMap<Vec<u8>, Ino>> {
        match &self.node(ino)?.body {
            Body::Directory(entries, _) => Ok(entries),
            _ => Err(ErrorKind::NotDirectory),
        }
    }

    fn entries_mut(&mut self, ino: Ino) -> Outcome<&mut BTreeMap<Vec<u8>, Ino>> {
        match &mut self.node_mut(ino)?.body {
            Body::Directory(entries, _) => Ok(entries),
            _ => Err(ErrorKind::NotDirectory),
        }
    }

    pub fn entry(&self, dir: Ino, name: &[u8]) -> Outcome<Ino> {
        self.entries(dir)?.get(name).copied().ok_or(ErrorKind::NotFound)
    }

    fn is_directory(&self, ino: Ino) -> bool {
        self.entries(ino).is_ok()
    }

    /// Whether `name` can be made in `dir`.
    pub fn check_free(&self, dir: Ino, name: &[u8]) -> Outcome<()> {
        if self.entries(dir)?.contains_key(name) {
            return Err(ErrorKind::Exists);
        }
        if self.node(dir)?.links == 0 { Err(ErrorKind::NotFound) } else { Ok(()) }
    }

    pub fn create(&mut self, dir: Ino, name: &[u8], ino: Ino, node: Node) -> Outcome<()> {
        self.check_free(dir, name)?;
        if matches!(node.body, Body::Directory(..)) {
            self.node_mut(dir)?.links += 1;
        }
        self.entries_mut(dir)?.insert(name.to_vec(), ino);
        self.nodes.insert(ino, Arc::new(node));
        Ok(())
    }

    pub fn link(&mut self, ino: Ino, dir: Ino, name: &[u8]) -> Outcome<()> {
        self.check_free(dir, name)?;
        if self.is_directory(ino) || self.node(ino)?.links == 0 {
            return Err(ErrorKind::NotAllowed);
        }
        self.entries_mut(dir)?.insert(name.to_vec(), ino);
        self.node_mut(ino)?.links += 1;
        Ok(())
    }

    pub fn unlink(&mut self, dir: Ino, name: &[u8]) -> Outcome<()> {
        let ino = self.entry(dir, name)?;
        if self.is_directory(ino) {
            return Err(ErrorKind::IsDirectory);
        }
        self.entries_mut(dir)?.remove(name);
        self.node_mut(ino)?.links -= 1;
        Ok(())
    }

    pub fn remove_directory(&mut self, dir: Ino, name: &[u8]) -> Outcome<()> {
        let ino = self.entry(dir, name)?;
        if !self.entries(ino)?.is_empty() {
            return Err(ErrorKind::NotEmpty);
        }
        self.entries_mut(dir)?.remove(name);
        self.node_mut(dir)?.links -= 1;
        let gone = self.node_mut(ino)?;
        gone.links = 0;
        gone.body = Body::Directory(BTreeMap::new(), 0);
        Ok(())
    }

    fn is_below(&self, mut at: Ino, ancestor: Ino) -> bool {
        loop {
            if at == ancestor {
                return true;
            }
            match self.node(at).map(|node| &node.body) {
                Ok(Body::Directory(_, parent)) if *parent != at => at = *parent,
                _ => return false,
            }
        }
    }

    pub fn rename(&mut self, from: (Ino, &[u8]), to: (Ino, &[u8]), mode: RenameMode) -> Outcome<()> {
        let ino = self.entry(from.0, from.1)?;
        let target = self.entries(to.0)?.get(to.1).copied();
        if self.node(to.0)?.links == 0 {
            return Err(ErrorKind::NotFound);
        }
        if self.is_directory(ino) && self.is_below(to.0, ino) {
            return Err(ErrorKind::Invalid);
        }
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return Err(ErrorKind::Exists),
            (RenameMode::Exchange, None) => return Err(ErrorKind::NotFound),
            (RenameMode::Exchange, Some(other)) => {
                if self.is_directory(other) && self.is_below(from.0, other) {
                    return Err(ErrorKind::Invalid);
                }
                if other != ino {
                    self.move_to(other, to.0, from.0)?;
                    self.move_to(ino, from.0, to.0)?;
                    self.entries_mut(from.0)?.insert(from.1.to_vec(), other);
                    self.entries_mut(to.0)?.insert(to.1.to_vec(), ino);
                }
                return Ok(());
            }
            (_, Some(other)) if other == ino => return Ok(()),
            (_, Some(other)) => match (self.is_directory(ino), self.is_directory(other)) {
                (true, true) => self.remove_directory(to.0, to.1)?,
                (false, false) => self.unlink(to.0, to.1)?,
                (true, false) => return Err(ErrorKind::NotDirectory),
                (false, true) => return Err(ErrorKind::IsDirectory),
            },
            (_, None) => {}
        }
        self.move_to(ino, from.0, to.0)?;
        self.entries_mut(from.0)?.remove(from.1);
        self.entries_mut(to.0)?.insert(to.1.to_vec(), ino);
        Ok(())
    }

    /// What a directory's move does to the links of the directories that hold it.
    fn move_to(&mut self, ino: Ino, from: Ino, to: Ino) -> Outcome<()> {
        if let Body::Directory(_, parent) = &mut self.node_mut(ino)?.body {
            *parent = to;
            self.node_mut(from)?.links -= 1;
            self.node_mut(to)?.links += 1;
        }
        Ok(())
    }

    pub fn forget_orphan(&mut self, ino: Ino) {
        if self.node(ino).is_ok_and(|node| node.links == 0) {
            self.nodes.remove(&ino);
        }
    }

    pub fn forget_all_orphans(&mut self) {
        self.nodes.retain(|_, node| node.links > 0);
    }

    /// Inodes for which `wanted` holds.
    pub fn inos(&self, wanted: impl Fn(&Node) -> bool) -> Vec<Ino> {
        self.nodes.iter().filter(|(_, node)| wanted(node)).map(|(ino, _)| *ino).collect()
    }

    /// Directory and name of every entry.
    pub fn names(&self) -> Vec<(Ino, Vec<u8>)> {
        let entries = self.nodes.iter().filter_map(|(ino, node)| match &node.body {
            Body::Directory(entries, _) => Some(entries.keys().map(move |name| (*ino, name.clone()))),
            _ => None,
        });
        entries.flatten().collect()
    }

    /// The first difference from `found`, orphans left out.
    pub fn difference(&self, found: &Self) -> Option<String> {
        let inos: BTreeSet<Ino> = self.nodes.keys().chain(found.nodes.keys()).copied().collect();
        inos.into_iter().find_map(|ino| {
            let ours = self.nodes.get(&ino).filter(|node| node.links > 0);
            let theirs = found.nodes.get(&ino);
            match (ours, theirs) {
                (None, None) => None,
                (Some(ours), Some(theirs)) => node_difference(ours, theirs),
                (Some(_), None) => Some("is missing".to_owned()),
                (None, Some(_)) => Some("should not be there".to_owned()),
            }
            .map(|what| format!("inode {ino} {what}"))
        })
    }
}

/// How `found` differs from `expected`.
pub fn node_difference(expected: &Node, found: &Node) -> Option<String> {
    if let (Body::File(ours), Body::File(theirs)) = (&expected.body, &found.body) {
        if ours.size != theirs.size {
            return Some(format!("has size {} instead of {}", theirs.size, ours.size));
        }
        let pages: BTreeSet<u64> = ours.pages.keys().chain(theirs.pages.keys()).copied().collect();
        for page in pages {
            let (ours, theirs) = (ours.pages.get(&page), theirs.pages.get(&page));
            if ours != theirs {
                let zeros: Arc<[u8]> = vec![0; PAGE as usize].into();
                let (ours, theirs) = (ours.unwrap_or(&zeros), theirs.unwrap_or(&zeros));
                let at = ours.iter().zip(theirs.iter()).position(|(a, b)| a != b).unwrap_or(0);
                return Some(format!(
                    "differs in page {page} at byte {at}: {} instead of {}",
                    theirs[at], ours[at]
                ));
            }
        }
    } else if expected.body != found.body {
        return Some("has other entries, another parent or another target".to_owned());
    }
    let attributes = |node: &Node| (node.kind, node.mode, node.uid, node.rdev, node.links);
    if attributes(expected) != attributes(found) {
        return Some(format!("has {:?} instead of {:?}", attributes(found), attributes(expected)));
    }
    (expected.xattrs != found.xattrs).then(|| "has other extended attributes".to_owned())
}

/// Reads all of a view by its names. An error names what could not be read.
pub fn read_back(view: &View) -> stillpoint::base::Result<Tree> {
    let mut tree = Tree { nodes: BTreeMap::new() };
    let mut waiting = vec![ROOT_INO];
    while let Some(ino) = waiting.pop() {
        if tree.nodes.contains_key(&ino) {
            continue;
        }
        let node = read_node(view, ino)?;
        if let Body::Directory(entries, _) = &node.body {
            waiting.extend(entries.values());
        }
        tree.nodes.insert(ino, Arc::new(node));
    }
    Ok(tree)
}

pub fn read_node(view: &View, ino: Ino) -> stillpoint::base::Result<Node> {
    let attributes = view.attributes(ino)?;
    let body = match attributes.kind {
        FileKind::File => Body::File(read_file(view, ino, attributes.size)?),
        FileKind::Directory => Body::Directory(read_directory(view, ino)?, view.parent(ino)?),
        FileKind::Symlink => Body::Symlink(view.read_link(ino)?),
        _ => Body::Other,
    };
    let mut xattrs = BTreeMap::new();
    for name in view.list_xattrs(ino)? {
        let value = view.xattr(ino, &name)?;
        xattrs.insert(name, value);
    }
    Ok(Node {
        kind: attributes.kind,
        mode: attributes.mode,
        uid: attributes.uid,
        rdev: attributes.rdev,
        links: attributes.links,
        xattrs,
        body,
    })
}

fn read_file(view: &View, ino: Ino, size: u64) -> stillpoint::base::Result<FileBody> {
    const STEP_PAGES: u64 = 24;
    let mut body = FileBody { size, pages: BTreeMap::new() };
    let mut at = 0;
    while at < size {
        let bytes = view.read(ino, at, (STEP_PAGES * PAGE) as usize)?;
        assert_eq!(bytes.len() as u64, (size - at).min(STEP_PAGES * PAGE), "a read of inode {ino} is short");
        for (page, chunk) in (at / PAGE..).zip(bytes.chunks(PAGE as usize)) {
            if chunk.iter().any(|byte| *byte != 0) {
                body.put_page(page, chunk.to_vec());
            }
        }
        at += STEP_PAGES * PAGE;
    }
    Ok(body)
}

fn read_directory(view: &View, ino: Ino) -> stillpoint::base::Result<BTreeMap<Vec<u8>, Ino>> {
    let mut entries = BTreeMap::new();
    let mut cookie = 0;
    loop {
        // Few at a time, so that going on behind a cookie is tried.
        let listed = view.list_directory(ino, cookie, 3)?;
        let Some(last) = listed.last() else { return Ok(entries) };
        assert!(last.cookie > cookie && last.cookie >= 16, "cookies of inode {ino} do not rise");
        cookie = last.cookie;
        for entry in listed {
            let looked = view.lookup(ino, &entry.name)?;
            assert_eq!((looked.ino, looked.kind), (entry.ino, entry.kind), "lookup and listing differ");
            assert_eq!(entries.insert(entry.name, entry.ino), None, "an entry of {ino} is listed twice");
        }
    }
}

/// Data must lie where `seek` says that there is data.
pub fn check_seek(view: &View, ino: Ino, file: &FileBody) -> Result<(), String> {
    let mut at = 0;
    let mut rest = file.pages.keys().copied().collect::<BTreeSet<u64>>();
    while at < file.size {
        let Ok(data) = view.seek(ino, at, SeekTarget::Data) else { break };
        let hole = view.seek(ino, data, SeekTarget::Hole).map_err(|error| error.to_string())?;
        if data < at || hole <= data {
            return Err(format!("inode {ino}: seek from {at} found data {data} and a hole at {hole}"));
        }
        rest.retain(|page| *page < data / PAGE || page * PAGE >= hole);
        at = hole;
    }
    rest.first()
        .map_or(Ok(()), |page| Err(format!("inode {ino}: seek does not know of the data in page {page}")))
}
