//! Nodes of the trees on disk: reading them through a cache, writing them, and what they refer to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::base::{Error, Result};
use crate::block::{BlockStore, RefTable, encode_content};
use crate::format::inode::MapRoot;
use crate::format::key;
use crate::format::node::Node;
use crate::format::segment::BlockKind;
use crate::format::{Place, Pointer, block_id};

#[derive(Clone)]
pub(crate) struct NodeWeight;
impl Weighter<Place, Arc<Node>> for NodeWeight {
    fn weight(&self, _: &Place, value: &Arc<Node>) -> u64 {
        value.memory_bytes() as u64 + 96
    }
}

/// What a pointer in a node leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Child {
    Node,
    Page,
}

/// Reads and writes nodes.
pub(crate) struct Trees {
    pub(crate) blocks: Arc<BlockStore>,
    pub(crate) refs: Mutex<RefTable>,
    nodes: Cache<Place, Arc<Node>, NodeWeight>,
    /// Nodes written since the last `take_written`.
    written: Mutex<Vec<Pointer>>,
    pub(crate) figures: NodeFigures,
    /// A node could not be read, so what it refers to is not counted: nothing may be reclaimed.
    pub(crate) incomplete: AtomicBool,
}

/// Nodes that exist, for the figures of a store.
#[derive(Default)]
pub(crate) struct NodeFigures {
    pub(crate) blocks: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

impl NodeFigures {
    pub(crate) fn add(&self, pointer: &Pointer) {
        self.blocks.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(u64::from(pointer.stored_bytes), Ordering::Relaxed);
    }

    fn remove(&self, pointer: &Pointer) {
        self.blocks.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(u64::from(pointer.stored_bytes), Ordering::Relaxed);
    }
}

impl Trees {
    pub(crate) fn new(blocks: Arc<BlockStore>, cache_bytes: u64) -> Self {
        let items = (cache_bytes / 8192).max(64) as usize;
        Self {
            blocks,
            refs: Mutex::new(RefTable::default()),
            nodes: Cache::with_weighter(items, cache_bytes, NodeWeight),
            written: Mutex::new(Vec::new()),
            figures: NodeFigures::default(),
            incomplete: AtomicBool::new(false),
        }
    }

    pub(crate) fn node(&self, pointer: &Pointer) -> Result<Arc<Node>> {
        if let Some(node) = self.nodes.get(&pointer.place) {
            return Ok(node);
        }
        let node = Arc::new(self.node_uncached(pointer)?);
        self.nodes.insert(pointer.place, node.clone());
        Ok(node)
    }

    pub(crate) fn node_uncached(&self, pointer: &Pointer) -> Result<Node> {
        let content = self.blocks.read_uncached(pointer)?;
        Node::decode(&content)
    }

    /// Appends a node, and counts the references it makes.
    pub(crate) fn write(&self, node: Node) -> Result<Pointer> {
        let content = node.encode();
        let encoded = encode_content(&content);
        let pointer = self.blocks.append(BlockKind::Node, &block_id(&content), &encoded, content.len())?;
        {
            let mut refs = self.refs.lock();
            for_each_child(&node, &mut |child, _| {
                refs.add(child);
            })?;
        }
        self.nodes.insert(pointer.place, Arc::new(node));
        self.written.lock().push(pointer);
        self.figures.add(&pointer);
        Ok(pointer)
    }

    /// Drops one reference to a node; what nothing refers to any more drops its own references in turn.
    pub(crate) fn release_node(&self, pointer: &Pointer) -> Result<()> {
        let mut stack = vec![*pointer];
        while let Some(pointer) = stack.pop() {
            if self.drop_reference(&pointer)? > 0 {
                continue;
            }
            let node = match self.node(&pointer) {
                Ok(node) => node,
                Err(error) => {
                    // What it referred to keeps its references until all are counted anew.
                    self.incomplete.store(true, Ordering::Relaxed);
                    tracing::warn!("a tree node that is let go cannot be read: {error}");
                    continue;
                }
            };
            self.nodes.remove(&pointer.place);
            self.figures.remove(&pointer);
            let mut pages = Vec::new();
            for_each_child(&node, &mut |child, kind| match kind {
                Child::Node => stack.push(*child),
                Child::Page => pages.push(*child),
            })?;
            for page in pages {
                self.drop_reference(&page)?;
            }
        }
        Ok(())
    }

    /// Starts the figures and the list of written nodes anew.
    pub(crate) fn forget_written(&self) {
        self.written.lock().clear();
        self.figures.blocks.store(0, Ordering::Relaxed);
        self.figures.bytes.store(0, Ordering::Relaxed);
    }

    /// Takes back the references of nodes written since the last call that nothing refers to: intermediate trees,
    /// and all of an abandoned checkpoint's. Call it while the old trees still hold their references.
    pub(crate) fn forget_unused(&self) -> Result<()> {
        let written = std::mem::take(&mut *self.written.lock());
        // Children were written before their parents.
        for pointer in written.iter().rev() {
            if self.refs.lock().count(pointer.place) > 0 {
                continue;
            }
            let node = self.node(pointer)?;
            self.nodes.remove(&pointer.place);
            self.figures.remove(pointer);
            let mut children = Vec::new();
            for_each_child(&node, &mut |child, _| children.push(*child))?;
            for child in children {
                self.drop_reference(&child)?;
            }
        }
        Ok(())
    }

    pub(crate) fn drop_reference(&self, pointer: &Pointer) -> Result<u64> {
        if let Some(left) = self.refs.lock().drop_one(pointer) {
            return Ok(left);
        }
        if self.is_incomplete() {
            // Never counted. It stays, with all below it.
            return Ok(1);
        }
        let place = pointer.place;
        Err(Error::corrupt(format!("block {}:{} has fewer references than users", place.segment, place.slot)))
    }

    /// Whether references are missing from the counts: then everything is kept.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.incomplete.load(Ordering::Relaxed)
    }
}

/// Calls `visit` with every pointer of a node.
pub(crate) fn for_each_child(node: &Node, visit: &mut dyn FnMut(&Pointer, Child)) -> Result<()> {
    match node {
        Node::Leaf(items) => {
            for (item_key, value) in items {
                let (_, kind, _) = key::split(item_key)?;
                if kind == key::kind::MAP
                    && let Some(root) = MapRoot::decode(value)?.root
                {
                    visit(&root, Child::Node);
                }
            }
        }
        Node::Inner { children, .. } => {
            for (_, child) in children {
                visit(child, Child::Node);
            }
        }
        Node::Radix { level, children } => {
            let kind = if *level == 1 { Child::Page } else { Child::Node };
            for (_, child) in children {
                visit(child, kind);
            }
        }
    }
    Ok(())
}
