//! The metadata tree of a volume: a copy-on-write B+tree changed in sorted batches.

use std::sync::Arc;

use super::trees::Trees;
use crate::base::{Error, Result};
use crate::format::Pointer;
use crate::format::node::{Key, NODE_BYTES, Node, Value};

/// A subtree after a batch: as it was, or new and not written yet.
enum Built {
    Stored(Pointer),
    New(Node),
}

/// The value under `key`.
pub(crate) fn get(trees: &Trees, root: Option<Pointer>, key: &[u8]) -> Result<Option<Value>> {
    let Some(mut pointer) = root else { return Ok(None) };
    loop {
        let node = trees.node(&pointer)?;
        match node.as_ref() {
            Node::Leaf(items) => {
                let found = items.binary_search_by(|(item, _)| item.as_slice().cmp(key));
                return Ok(found.ok().map(|index| items[index].1.clone()));
            }
            Node::Inner { children, .. } => pointer = children[route(children, key)].1,
            Node::Radix { .. } => return Err(wrong_node()),
        }
    }
}

/// Calls `visit` with items from `from` on, in order, until it answers false.
pub(crate) fn scan(
    trees: &Trees,
    root: Option<Pointer>,
    from: &[u8],
    visit: &mut dyn FnMut(&Key, &Value) -> bool,
) -> Result<()> {
    if let Some(root) = root {
        scan_node(trees, &root, from, visit)?;
    }
    Ok(())
}

fn scan_node(
    trees: &Trees,
    pointer: &Pointer,
    from: &[u8],
    visit: &mut dyn FnMut(&Key, &Value) -> bool,
) -> Result<bool> {
    let node = trees.node(pointer)?;
    match node.as_ref() {
        Node::Leaf(items) => {
            let start = items.partition_point(|(item, _)| item.as_slice() < from);
            Ok(items[start..].iter().all(|(item, value)| visit(item, value)))
        }
        Node::Inner { children, .. } => {
            for (_, child) in &children[route(children, from)..] {
                if !scan_node(trees, child, from, visit)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Node::Radix { .. } => Err(wrong_node()),
    }
}

/// Applies sorted updates (`None` deletes) and answers the new root. The old tree is left as it is.
pub(crate) fn apply(
    trees: &Trees,
    root: Option<Pointer>,
    updates: &[(Key, Option<Value>)],
) -> Result<Option<Pointer>> {
    if updates.is_empty() {
        return Ok(root);
    }
    let mut level = 0;
    let mut built = match root {
        None => leaves(merge(&[], updates)),
        Some(pointer) => {
            let node = trees.node(&pointer)?;
            level = if let Node::Inner { level, .. } = node.as_ref() { *level } else { 0 };
            apply_node(trees, &node, updates)?
        }
    };
    while built.len() > 1 {
        level += 1;
        built = inners(trees, level, built)?;
    }
    let Some((_, top)) = built.pop() else { return Ok(None) };
    // A root with one child is its child.
    let mut top = top;
    while let Built::New(Node::Inner { children, .. }) = &top
        && let [(_, only)] = children.as_slice()
    {
        top = Built::Stored(*only);
    }
    Ok(Some(store(trees, top)?))
}

fn store(trees: &Trees, built: Built) -> Result<Pointer> {
    match built {
        Built::Stored(pointer) => Ok(pointer),
        Built::New(node) => trees.write(node),
    }
}

fn apply_node(
    trees: &Trees,
    node: &Arc<Node>,
    updates: &[(Key, Option<Value>)],
) -> Result<Vec<(Key, Built)>> {
    match node.as_ref() {
        Node::Leaf(items) => Ok(leaves(merge(items, updates))),
        Node::Inner { level, children } => {
            let mut built: Vec<(Key, Built)> = Vec::with_capacity(children.len() + 1);
            let mut rest = updates;
            for (index, (separator, pointer)) in children.iter().enumerate() {
                let mine = match children.get(index + 1) {
                    Some((next, _)) => rest.partition_point(|(key, _)| key < next),
                    None => rest.len(),
                };
                let (here, after) = rest.split_at(mine);
                rest = after;
                if here.is_empty() {
                    built.push((separator.clone(), Built::Stored(*pointer)));
                    continue;
                }
                let child = trees.node(pointer)?;
                let mut parts = apply_node(trees, &child, here)?;
                if let Some((first, _)) = parts.first_mut()
                    && *first > *separator
                {
                    first.clone_from(separator);
                }
                for part in parts {
                    push_merging(&mut built, part);
                }
            }
            inners(trees, *level, built)
        }
        Node::Radix { .. } => Err(wrong_node()),
    }
}

/// Adds a part, joined to the one before when both are new leaves and fit together: deletes must not leave
/// trails of small leaves.
fn push_merging(built: &mut Vec<(Key, Built)>, part: (Key, Built)) {
    if let (Some((_, Built::New(Node::Leaf(left)))), (_, Built::New(Node::Leaf(right)))) =
        (built.last_mut(), &part)
        && leaf_bytes(left) + leaf_bytes(right) <= NODE_BYTES / 2
    {
        left.extend(right.iter().cloned());
        return;
    }
    built.push(part);
}

fn leaf_bytes(items: &[(Key, Value)]) -> usize {
    items.iter().map(|(key, value)| Node::item_bytes(key, value)).sum()
}

fn merge(items: &[(Key, Value)], updates: &[(Key, Option<Value>)]) -> Vec<(Key, Value)> {
    let mut out = Vec::with_capacity(items.len() + updates.len());
    let mut old = items.iter().peekable();
    for (key, value) in updates {
        while let Some(item) = old.next_if(|(item, _)| item < key) {
            out.push(item.clone());
        }
        old.next_if(|(item, _)| item == key);
        if let Some(value) = value {
            out.push((key.clone(), value.clone()));
        }
    }
    out.extend(old.cloned());
    out
}

fn leaves(items: Vec<(Key, Value)>) -> Vec<(Key, Built)> {
    let sizes: Vec<usize> = items.iter().map(|(key, value)| Node::item_bytes(key, value)).collect();
    let mut out = Vec::new();
    let mut rest = items.into_iter();
    for count in split_counts(&sizes) {
        let part: Vec<_> = rest.by_ref().take(count).collect();
        if let Some((first, _)) = part.first() {
            out.push((first.clone(), Built::New(Node::Leaf(part))));
        }
    }
    out
}

fn inners(trees: &Trees, level: u8, built: Vec<(Key, Built)>) -> Result<Vec<(Key, Built)>> {
    let mut children = Vec::with_capacity(built.len());
    for (key, child) in built {
        children.push((key, store(trees, child)?));
    }
    let sizes: Vec<usize> = children.iter().map(|(key, _)| Node::child_bytes(key)).collect();
    let mut out = Vec::new();
    let mut rest = children.into_iter();
    for count in split_counts(&sizes) {
        let part: Vec<_> = rest.by_ref().take(count).collect();
        if let Some((first, _)) = part.first() {
            out.push((first.clone(), Built::New(Node::Inner { level, children: part })));
        }
    }
    Ok(out)
}

/// How many items go into each node: one node when all fit, else about equal parts of three quarters.
fn split_counts(sizes: &[usize]) -> Vec<usize> {
    let total: usize = sizes.iter().sum();
    if sizes.is_empty() {
        return Vec::new();
    }
    if total <= NODE_BYTES || sizes.len() == 1 {
        return vec![sizes.len()];
    }
    let parts = total.div_ceil(NODE_BYTES * 3 / 4);
    let target = total.div_ceil(parts);
    let mut counts = Vec::new();
    let (mut count, mut bytes) = (0, 0);
    for size in sizes {
        if count > 0 && bytes + size > target + NODE_BYTES / 8 {
            counts.push(count);
            (count, bytes) = (0, 0);
        }
        count += 1;
        bytes += size;
    }
    counts.push(count);
    counts
}

fn route(children: &[(Key, Pointer)], key: &[u8]) -> usize {
    children.partition_point(|(separator, _)| separator.as_slice() <= key).saturating_sub(1)
}

fn wrong_node() -> Error {
    Error::corrupt("a mapping node stands where a metadata node belongs")
}
