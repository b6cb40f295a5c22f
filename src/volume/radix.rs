//! The page mapping of a file: a copy-on-write radix tree, 256 wide.

use super::ranges::RangeSet;
use super::trees::Trees;
use crate::base::{Error, ErrorKind, Result};
use crate::format::Pointer;
use crate::format::inode::MapRoot;
use crate::format::node::{FANOUT, Node, RADIX_LEVELS_MAX};

/// The block of `page`.
pub(crate) fn get(trees: &Trees, map: &MapRoot, page: u64) -> Result<Option<Pointer>> {
    let Some(mut pointer) = map.root else { return Ok(None) };
    if page >= span(map.height) {
        return Ok(None);
    }
    for level in (1..=map.height).rev() {
        let node = trees.node(&pointer)?;
        let children = children_at(&node, level)?;
        let index = (page / span(level - 1) % FANOUT) as u8;
        match children.binary_search_by_key(&index, |(child, _)| *child) {
            Ok(found) => pointer = children[found].1,
            Err(_) => return Ok(None),
        }
    }
    Ok(Some(pointer))
}

/// Calls `visit` with mapped pages from `from` on, in order, until it answers false.
pub(crate) fn scan(
    trees: &Trees,
    map: &MapRoot,
    from: u64,
    visit: &mut dyn FnMut(u64, &Pointer) -> bool,
) -> Result<()> {
    if let Some(root) = map.root {
        scan_node(trees, &root, map.height, 0, from, visit)?;
    }
    Ok(())
}

fn scan_node(
    trees: &Trees,
    pointer: &Pointer,
    level: u8,
    base: u64,
    from: u64,
    visit: &mut dyn FnMut(u64, &Pointer) -> bool,
) -> Result<bool> {
    let node = trees.node(pointer)?;
    let width = span(level - 1);
    for (index, child) in children_at(&node, level)? {
        let start = base + u64::from(*index) * width;
        if start.saturating_add(width) <= from {
            continue;
        }
        let more = if level == 1 {
            visit(start, child)
        } else {
            scan_node(trees, child, level - 1, start, from, visit)?
        };
        if !more {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Clears ranges, then sets pages (sorted; `None` clears), and answers the new root. The old tree is left as it
/// is.
pub(crate) fn apply(
    trees: &Trees,
    map: &MapRoot,
    cleared: &RangeSet,
    updates: &[(u64, Option<Pointer>)],
) -> Result<MapRoot> {
    let (pages, stored) = (i128::from(map.pages), i128::from(map.stored_bytes));
    let mut change = Change { trees, cleared, pages, stored, lost: false };
    let mut height = map.height;
    let mut root = map.root;
    let last = updates.iter().rev().find(|(_, pointer)| pointer.is_some()).map(|(page, _)| *page);
    while last.is_some_and(|last| height == 0 || last >= span(height)) {
        if height >= RADIX_LEVELS_MAX {
            return Err(Error::invalid("a page number is too large for a file"));
        }
        height += 1;
        if let Some(below) = root
            && height > 1
        {
            root = Some(trees.write(Node::Radix { level: height, children: vec![(0, below)] })?);
        }
    }
    if height == 0 {
        return Ok(MapRoot::default());
    }
    let within = updates.partition_point(|(page, _)| *page < span(height));
    let root = change.apply(root, height, 0, &updates[..within])?;
    if change.lost {
        (change.pages, change.stored) = (0, 0);
        if let Some(root) = &root {
            change.count(root, height);
        }
    }
    Ok(MapRoot {
        root,
        height: if root.is_some() { height } else { 0 },
        pages: change.pages.max(0) as u64,
        stored_bytes: change.stored.max(0) as u64,
    })
}

struct Change<'a> {
    trees: &'a Trees,
    cleared: &'a RangeSet,
    pages: i128,
    stored: i128,
    /// A node could not be read: the figures are to be counted anew.
    lost: bool,
}

impl Change<'_> {
    fn apply(
        &mut self,
        pointer: Option<Pointer>,
        level: u8,
        base: u64,
        updates: &[(u64, Option<Pointer>)],
    ) -> Result<Option<Pointer>> {
        let width = span(level - 1);
        let end = base.saturating_add(span(level));
        let mut old: Vec<(u8, Pointer)> = Vec::new();
        if let Some(pointer) = pointer {
            if self.cleared.covers(base, end) {
                self.forget(&pointer, level)?;
            } else {
                old = self.children(&pointer, level)?;
            }
        } else if updates.is_empty() {
            return Ok(None);
        }
        let mut children = Vec::with_capacity(old.len().max(8));
        let mut existing = old.iter().copied().peekable();
        let mut rest = updates;
        let mut changed = old.is_empty();
        loop {
            let next_old = existing.peek().map(|(index, _)| *index);
            let next_new = rest.first().map(|(page, _)| ((page - base) / width) as u8);
            let Some(index) = [next_old, next_new].into_iter().flatten().min() else { break };
            let start = base + u64::from(index) * width;
            let here = rest.partition_point(|(page, _)| *page < start.saturating_add(width));
            let (mine, after) = rest.split_at(here);
            rest = after;
            let before = existing.next_if(|(child, _)| *child == index).map(|(_, pointer)| pointer);
            let touched = !mine.is_empty() || self.cleared.touches(start, start.saturating_add(width));
            let now = if !touched {
                before
            } else if level > 1 {
                self.apply(before, level - 1, start, mine)?
            } else {
                self.set_page(before, start, mine)
            };
            changed |= now != before;
            if let Some(now) = now {
                children.push((index, now));
            }
        }
        if children.is_empty() {
            return Ok(None);
        }
        match pointer {
            Some(pointer) if !changed => Ok(Some(pointer)),
            _ => Ok(Some(self.trees.write(Node::Radix { level, children })?)),
        }
    }

    fn set_page(
        &mut self,
        before: Option<Pointer>,
        page: u64,
        updates: &[(u64, Option<Pointer>)],
    ) -> Option<Pointer> {
        let now = match updates.last() {
            Some((_, pointer)) => *pointer,
            None if self.cleared.end_of(page).is_some() => None,
            None => before,
        };
        if let Some(before) = before {
            self.pages -= 1;
            self.stored -= i128::from(before.stored_bytes);
        }
        if let Some(now) = now {
            self.pages += 1;
            self.stored += i128::from(now.stored_bytes);
        }
        now
    }

    /// What a node maps. Where that cannot be read, every page below is lost until it is written again; a file that
    /// is damaged must not keep the others from being stored.
    fn children(&mut self, pointer: &Pointer, level: u8) -> Result<Vec<(u8, Pointer)>> {
        let node = self.trees.node(pointer);
        match node.and_then(|node| children_at(&node, level).map(<[_]>::to_vec)) {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::warn!("what a mapping node of level {level} led to is lost: {error}");
                self.lost = true;
                Ok((0..=u8::MAX).map(|index| (index, pointer.lost())).collect())
            }
            result => result,
        }
    }

    /// Counts the pages below a node, as far as it can be read.
    fn count(&mut self, pointer: &Pointer, level: u8) {
        let Ok(node) = self.trees.node(pointer) else { return };
        for (_, child) in children_at(&node, level).unwrap_or_default() {
            if level == 1 {
                self.pages += 1;
                self.stored += i128::from(child.stored_bytes);
            } else {
                self.count(child, level - 1);
            }
        }
    }

    /// Takes a subtree that goes as a whole out of the figures.
    fn forget(&mut self, pointer: &Pointer, level: u8) -> Result<()> {
        let node = match self.trees.node(pointer) {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                self.lost = true;
                return Ok(());
            }
            result => result?,
        };
        for (_, child) in children_at(&node, level)? {
            if level == 1 {
                self.pages -= 1;
                self.stored -= i128::from(child.stored_bytes);
            } else {
                self.forget(child, level - 1)?;
            }
        }
        Ok(())
    }
}

/// Pages under a node of `level`.
fn span(level: u8) -> u64 {
    FANOUT.saturating_pow(u32::from(level))
}

fn children_at(node: &Node, level: u8) -> Result<&[(u8, Pointer)]> {
    match node {
        Node::Radix { level: found, children } if *found == level => Ok(children),
        _ => Err(Error::corrupt(format!("a mapping node of level {level} is something else"))),
    }
}
