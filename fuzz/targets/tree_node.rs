//! Tree nodes: what decodes is sorted, and encodes to the same bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stillpoint::format::node::Node;

fuzz_target!(|input: &[u8]| {
    let Ok(node) = Node::decode(input) else { return };
    assert_eq!(node.encode(), input);
    assert!(node.memory_bytes() <= 64 * input.len());
    match node {
        Node::Leaf(items) => assert!(items.is_sorted_by(|left, right| left.0 < right.0)),
        Node::Inner { children, .. } => assert!(children.is_sorted_by(|left, right| left.0 < right.0)),
        Node::Radix { children, .. } => assert!(children.is_sorted_by(|left, right| left.0 < right.0)),
    }
});
