//! Node numbers: which object of which view a number of the kernel's stands for.
//!
//! A node is `view << 40 | inode`, and `stat` shows it as the inode number too: a clone's files have the inode
//! numbers of their origin within their view, and PostgreSQL takes two data directories with one
//! (`st_dev`, `st_ino`) for the same. Inode 2 of a view is its `.snapshots` directory, made up by this layer.
//! Node 1 is the mount's root: the list of volumes, or the root of the one volume mounted alone.

use crate::volume::{Ino, ROOT_INO, ViewId};
use stillpoint_fuse::NodeId;

/// The node of the mount's root.
pub(crate) const TOP_NODE: NodeId = 1;

/// The inode number of a view's `.snapshots`; volumes never give it to a file.
pub(crate) const SNAPSHOTS_INO: Ino = 2;

const INO_BITS: u32 = 40;
const VIEW_BITS: u32 = 24;

/// What a node number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Node {
    /// The list of volumes.
    Top,
    /// A view's list of snapshots.
    Snapshots(ViewId),
    Object(ViewId, Ino),
}

/// The numbering of one mount.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbering {
    /// The view whose root is the mount's root.
    alone: Option<ViewId>,
}

impl Numbering {
    pub(crate) fn all_volumes() -> Self {
        Self { alone: None }
    }

    pub(crate) fn one_volume(view: ViewId) -> Self {
        Self { alone: Some(view) }
    }

    pub(crate) fn root(&self) -> Node {
        self.alone.map_or(Node::Top, |view| Node::Object(view, ROOT_INO))
    }

    /// The node's number; `None` when the view's or the inode's number is too large for it.
    pub(crate) fn number(&self, node: Node) -> Option<NodeId> {
        if node == self.root() {
            return Some(TOP_NODE);
        }
        let (view, ino) = match node {
            Node::Top => return None,
            Node::Snapshots(view) => (view, SNAPSHOTS_INO),
            Node::Object(view, ino) => (view, ino),
        };
        let fits = view.0 != 0 && view.0 >> VIEW_BITS == 0 && ino != 0 && ino >> INO_BITS == 0;
        fits.then(|| u64::from(view.0) << INO_BITS | ino)
    }

    pub(crate) fn node(&self, number: NodeId) -> Option<Node> {
        if number == TOP_NODE {
            return Some(self.root());
        }
        let view = ViewId(u32::try_from(number >> INO_BITS).ok()?);
        let ino = number & ((1 << INO_BITS) - 1);
        match (view.0, ino) {
            (0, _) | (_, 0) => None,
            (_, SNAPSHOTS_INO) => Some(Node::Snapshots(view)),
            _ => Some(Node::Object(view, ino)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_as_nodes() {
        let all = Numbering::all_volumes();
        let last = (1 << INO_BITS) - 1;
        for node in [
            Node::Top,
            Node::Snapshots(ViewId(1)),
            Node::Object(ViewId(1), ROOT_INO),
            Node::Object(ViewId((1 << VIEW_BITS) - 1), last),
        ] {
            let number = all.number(node).unwrap();
            assert_eq!(all.node(number), Some(node));
        }
        assert_eq!(all.number(Node::Top), Some(1));
    }

    #[test]
    fn a_volume_alone_has_its_root_at_the_top() {
        let alone = Numbering::one_volume(ViewId(7));
        assert_eq!(alone.number(Node::Object(ViewId(7), ROOT_INO)), Some(1));
        assert_eq!(alone.node(1), Some(Node::Object(ViewId(7), ROOT_INO)));
        assert_eq!(alone.number(Node::Top), None);
        // Its snapshots' roots are nodes like any other.
        assert_ne!(alone.number(Node::Object(ViewId(8), ROOT_INO)), Some(1));
    }

    #[test]
    fn what_does_not_fit_has_no_number() {
        let all = Numbering::all_volumes();
        assert_eq!(all.number(Node::Object(ViewId(1 << VIEW_BITS), ROOT_INO)), None);
        assert_eq!(all.number(Node::Object(ViewId(1), 1 << INO_BITS)), None);
        assert_eq!(all.number(Node::Object(ViewId(0), ROOT_INO)), None);
        assert_eq!(all.node(0), None);
        assert_eq!(all.node(5), None);
    }
}
