//! Walking whole trees: to recount references and figures, and to name what a damaged block belongs to.

use std::collections::{HashMap, HashSet};

use super::store::{Store, StoreInner};
use super::trees::{Child, Trees, for_each_child};
use super::types::{FileKind, Ino, ROOT_INO};
use super::{btree, radix};
use crate::base::{Result, Throttle};
use crate::block::Damage;
use crate::format::catalog_records::TreeRoot;
use crate::format::inode::{Inode, MapRoot, decode_entry};
use crate::format::{PAGE_SIZE, Place, Pointer, key};

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// `volume`, `volume@snapshot`, a file in one of them, or a segment.
    pub object: String,
    pub message: String,
}

/// What a full check counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recount {
    pub views: u64,
    pub nodes: u64,
    pub blocks: u64,
    pub findings: Vec<Finding>,
}

/// Longest list of findings; the rest is counted only.
const FINDINGS_MAX: usize = 1000;

impl Store {
    /// Recounts references, figures, links and names of the durable trees, and compares them with what the store
    /// works with. Checkpoints wait meanwhile. `step` is called for each view.
    pub fn recount(&self, step: &mut dyn FnMut(&str)) -> Result<Recount> {
        let inner = &self.inner;
        let mut out = Recount::default();
        if !inner.shared.options.read_only {
            match self.checkpoint() {
                Err(error) if super::checkpoint::blocks_only(error.kind()) => {
                    out.findings.push(finding("checkpoint".into(), error.to_string()));
                }
                result => result?,
            }
        }
        let _serial = inner.serial.lock();
        let trees = &inner.shared.trees;
        let (views, roots) = inner.durable_views();
        out.views = views.len() as u64;
        let mut nodes = 0;
        let mut unreadable = 0u64;
        let table = super::open::count_references(trees, &roots, &mut |_, result| match result {
            Ok(()) => nodes += 1,
            // Named below with the view it belongs to.
            Err(_) => unreadable += 1,
        });
        out.nodes = nodes;
        out.blocks = table.live_blocks();
        let difference = trees.refs.lock().difference(&table);
        if let (Some((place, ours, counted)), false) = (difference, trees.is_incomplete() || unreadable > 0) {
            let message = format!("{ours} references are kept where the trees make {counted}");
            out.findings.push(finding(format!("block {}:{}", place.segment, place.slot), message));
        }
        if trees.is_incomplete() {
            let message = format!("{unreadable} tree nodes cannot be read: no space is reclaimed");
            out.findings.push(finding("references".into(), message));
        }
        let mut seen = HashSet::new();
        for (name, tree) in &views {
            step(name);
            check_view(trees, name, tree, &mut out);
            if let Some(root) = &tree.root {
                check_places(trees, name, root, &mut seen, &mut out);
            }
            out.findings.truncate(FINDINGS_MAX);
        }
        Ok(out)
    }

    /// Names what damaged blocks belong to.
    pub fn name_damage(&self, damages: &[Damage]) -> Vec<Finding> {
        let bad: HashMap<Place, usize> = damages
            .iter()
            .enumerate()
            .flat_map(|(index, damage)| damage.places.iter().map(move |place| (*place, index)))
            .collect();
        let (views, _) = self.inner.durable_views();
        let mut out = Vec::new();
        let mut named = vec![false; damages.len()];
        for (name, tree) in views {
            let mut hit = |place: &Place, object: String| {
                if let Some(index) = bad.get(place) {
                    named[*index] = true;
                    if out.len() < FINDINGS_MAX {
                        out.push(finding(object, damages[*index].message.clone()));
                    }
                }
            };
            name_in_view(&self.inner.shared.trees, &name, &tree, &mut hit);
        }
        for (damage, named) in damages.iter().zip(named) {
            if !named {
                out.push(finding("nothing that is still used".into(), damage.message.clone()));
            }
        }
        out
    }
}

fn finding(object: String, message: String) -> Finding {
    Finding { object, message }
}

impl StoreInner {
    /// All views with a durable tree, and the roots that hold references.
    fn durable_views(&self) -> (Vec<(String, TreeRoot)>, Vec<Pointer>) {
        let catalog = self.catalog.lock();
        let mut views: Vec<(String, TreeRoot)> = Vec::new();
        for entry in catalog.volumes.values() {
            views.push((entry.name.clone(), entry.view.state.read().base.chain().1));
        }
        for entry in catalog.snapshots.values() {
            let volume = catalog.volumes.get(&entry.volume).map_or("?", |volume| volume.name.as_str());
            views.push((format!("{volume}@{}", entry.name), entry.version.chain().1));
        }
        (views, catalog.durable_roots())
    }
}

/// Every block below `root` must be in its segment's directory; nodes shared with views seen before are done.
fn check_places(trees: &Trees, name: &str, root: &Pointer, seen: &mut HashSet<Place>, out: &mut Recount) {
    let mut stack = vec![*root];
    while let Some(pointer) = stack.pop() {
        if !seen.insert(pointer.place) {
            continue;
        }
        let node = match trees.node(&pointer) {
            Ok(node) => node,
            Err(error) => {
                out.findings.push(finding(name.to_owned(), format!("a tree node: {error}")));
                continue;
            }
        };
        let mut pages = Vec::new();
        let visited = for_each_child(&node, &mut |child, kind| match kind {
            Child::Node => stack.push(*child),
            Child::Page => pages.push(*child),
        });
        if let Err(error) = visited {
            out.findings.push(finding(name.to_owned(), error.to_string()));
        }
        for page in pages {
            match trees.blocks.full_id(page.place) {
                Ok(id) if crate::format::check_of(&id) == page.check => {}
                Ok(_) => {
                    let message = format!("block {}:{} is another one", page.place.segment, page.place.slot);
                    out.findings.push(finding(name.to_owned(), message));
                }
                Err(error) => out.findings.push(finding(name.to_owned(), error.to_string())),
            }
        }
    }
}

/// Names, links and figures of one view.
fn check_view(trees: &Trees, name: &str, tree: &TreeRoot, out: &mut Recount) {
    let mut inodes: HashMap<Ino, Inode> = HashMap::new();
    let mut links: HashMap<Ino, u32> = HashMap::new();
    let mut orphans: HashSet<Ino> = HashSet::new();
    let mut maps: Vec<(Ino, MapRoot)> = Vec::new();
    let mut bad: Vec<String> = Vec::new();
    let walked = btree::scan(trees, tree.root, &[], &mut |item, value| {
        let result = (|| -> Result<()> {
            let (ino, kind, rest) = key::split(item)?;
            match kind {
                key::kind::INODE => {
                    inodes.insert(ino, Inode::decode(value)?);
                }
                key::kind::MAP => maps.push((ino, MapRoot::decode(value)?)),
                key::kind::ENTRY => {
                    let (child, kind) = decode_entry(value)?;
                    *links.entry(child).or_insert(0) += 1;
                    if kind == FileKind::Directory {
                        // Its own `.` and its parent's `..`.
                        *links.entry(child).or_insert(0) += 1;
                        *links.entry(ino).or_insert(0) += 1;
                    }
                }
                key::kind::ORPHAN => {
                    let mut number = [0; 8];
                    if rest.len() == 8 {
                        number.copy_from_slice(rest);
                        orphans.insert(Ino::from_be_bytes(number));
                    }
                }
                _ => {}
            }
            Ok(())
        })();
        if let Err(error) = result {
            bad.push(error.to_string());
        }
        bad.len() < FINDINGS_MAX
    });
    if let Err(error) = walked {
        bad.push(error.to_string());
    }
    *links.entry(ROOT_INO).or_insert(0) += 2;
    for (ino, inode) in &inodes {
        let counted = links.get(ino).copied().unwrap_or(0);
        if inode.links != counted {
            bad.push(format!("inode {ino} has {counted} names and says {}", inode.links));
        }
        if inode.links == 0 && !orphans.contains(ino) {
            bad.push(format!("inode {ino} has no name and is not listed as an orphan"));
        }
    }
    bad.extend(
        links.keys().filter(|ino| !inodes.contains_key(ino)).map(|ino| format!("inode {ino} is missing")),
    );
    let (mut pages, mut stored) = (0, 0);
    for (ino, map) in maps {
        let (mut file_pages, mut file_stored) = (0, 0);
        let walked = radix::scan(trees, &map, 0, &mut |_, pointer| {
            file_pages += 1;
            file_stored += u64::from(pointer.stored_bytes);
            true
        });
        if let Err(error) = walked {
            bad.push(format!("inode {ino}: {error}"));
        } else if (file_pages, file_stored) != (map.pages, map.stored_bytes) {
            bad.push(format!(
                "inode {ino} maps {file_pages} pages of {file_stored} bytes and says {} of {}",
                map.pages, map.stored_bytes
            ));
        }
        if !inodes.contains_key(&ino) {
            bad.push(format!("inode {ino} has pages and does not exist"));
        }
        pages += map.pages;
        stored += map.stored_bytes;
    }
    if tree.root.is_some() && (pages, stored) != (tree.pages, tree.stored_bytes) {
        bad.push(format!(
            "it maps {pages} pages of {stored} bytes and says {} of {}",
            tree.pages, tree.stored_bytes
        ));
    }
    out.findings.extend(bad.into_iter().map(|message| finding(name.to_owned(), message)));
}

/// Calls `hit` with every place of a view and what it belongs to, as far as the tree can be read.
fn name_in_view(trees: &Trees, name: &str, tree: &TreeRoot, hit: &mut dyn FnMut(&Place, String)) {
    let mut parents: HashMap<Ino, (Ino, Vec<u8>)> = HashMap::new();
    let mut maps: Vec<(Ino, MapRoot)> = Vec::new();
    let mut stack: Vec<Pointer> = tree.root.into_iter().collect();
    while let Some(pointer) = stack.pop() {
        hit(&pointer.place, format!("{name}: names and attributes"));
        let Ok(node) = trees.node_uncached(&pointer) else { continue };
        match node {
            crate::format::node::Node::Inner { children, .. } => {
                stack.extend(children.iter().map(|(_, child)| *child));
            }
            crate::format::node::Node::Leaf(items) => {
                for (item, value) in items {
                    let Ok((ino, kind, rest)) = key::split(&item) else { continue };
                    if kind == key::kind::MAP
                        && let Ok(map) = MapRoot::decode(&value)
                    {
                        maps.push((ino, map));
                    }
                    if kind == key::kind::ENTRY
                        && let (Ok((_, entry)), Ok((child, _))) =
                            (key::split_entry(rest), decode_entry(&value))
                    {
                        parents.insert(child, (ino, entry.to_vec()));
                    }
                }
            }
            crate::format::node::Node::Radix { .. } => {}
        }
    }
    for (ino, map) in maps {
        let path = path_of(&parents, ino);
        let mut stack: Vec<(Pointer, u8, u64)> =
            map.root.map(|root| (root, map.height, 0)).into_iter().collect();
        while let Some((pointer, level, base)) = stack.pop() {
            let span = crate::format::node::FANOUT.saturating_pow(u32::from(level));
            let from = base * PAGE_SIZE as u64;
            let to = base.saturating_add(span).saturating_mul(PAGE_SIZE as u64);
            hit(&pointer.place, format!("{name}:{path} bytes {from} to {to}"));
            if level == 0 {
                continue;
            }
            let Ok(node) = trees.node_uncached(&pointer) else { continue };
            if let crate::format::node::Node::Radix { children, .. } = node {
                let width = span / crate::format::node::FANOUT;
                for (index, child) in children {
                    stack.push((child, level - 1, base + u64::from(index) * width));
                }
            }
        }
    }
}

fn path_of(parents: &HashMap<Ino, (Ino, Vec<u8>)>, ino: Ino) -> String {
    const DEPTH_MAX: usize = 256;
    let mut names = Vec::new();
    let mut at = ino;
    while at != ROOT_INO && names.len() < DEPTH_MAX {
        let Some((parent, name)) = parents.get(&at) else {
            names.push(format!("(inode {at})"));
            break;
        };
        names.push(String::from_utf8_lossy(name).into_owned());
        at = *parent;
    }
    names.reverse();
    format!("/{}", names.join("/"))
}

impl Store {
    pub fn segment_ids(&self) -> Vec<u32> {
        self.inner.shared.trees.blocks.segments().iter().map(|info| info.id).collect()
    }

    /// Bytes of all segments.
    pub fn segment_bytes(&self) -> u64 {
        self.inner.dead_bytes().0
    }

    /// Verifies every block of a segment, at most `bytes_per_second`. A segment that is compacted away meanwhile
    /// is verified again in its new place; one that is gone has nothing to verify.
    pub fn verify_segment(
        &self,
        segment: u32,
        bytes_per_second: Option<u64>,
        pace: &mut dyn FnMut(u64),
    ) -> Result<Vec<Damage>> {
        let inner = &self.inner;
        let blocks = &inner.shared.trees.blocks;
        let mut throttle = Throttle::new(&inner.shared.environment.clock, bytes_per_second);
        let mut slow = |bytes: u64| {
            pace(bytes);
            throttle.spend(bytes);
        };
        loop {
            let file = |id| blocks.segments().iter().find(|info| info.id == id).map(|info| info.file);
            let Some(before) = file(segment) else { return Ok(Vec::new()) };
            let result = blocks.verify_segment(segment, &mut slow);
            let clean = matches!(&result, Ok(damages) if damages.is_empty());
            match file(segment) {
                Some(after) if clean || after == before => return result,
                None => return Ok(Vec::new()),
                // It moved under our hands.
                Some(_) => {}
            }
        }
    }
}
