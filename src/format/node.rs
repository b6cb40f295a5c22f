//! Nodes of the two kinds of trees: the metadata tree of a volume (sorted keys) and the page mapping of a file
//! (radix, 256 wide).
//!
//! A node is a block: it is named and verified by the pointer that leads to it.

use std::sync::Arc;

use super::block_ids::Pointer;
use super::cursor::{Put, Reader};
use crate::base::Result;

/// Metadata nodes are split when their encoding grows over this many bytes.
pub const NODE_BYTES: usize = 8192;
/// Children of a radix node.
pub const FANOUT: u64 = 256;
/// Radix levels at most: 256^5 pages is more than any file.
pub const RADIX_LEVELS_MAX: u8 = 5;

const LEAF: u8 = 1;
const INNER: u8 = 2;
const RADIX: u8 = 3;

pub type Key = Vec<u8>;
pub type Value = Arc<[u8]>;

/// A decoded node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    Leaf(Vec<(Key, Value)>),
    /// Children with the smallest key each may hold; level 1 has leaves below.
    Inner {
        level: u8,
        children: Vec<(Key, Pointer)>,
    },
    /// Children by index, sorted; level 1 has pages below.
    Radix {
        level: u8,
        children: Vec<(u8, Pointer)>,
    },
}

impl Node {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(NODE_BYTES);
        match self {
            Self::Leaf(items) => {
                out.put_u8(LEAF);
                out.put_u8(0);
                out.put_u16(items.len() as u16);
                for (key, value) in items {
                    out.put_u16(key.len() as u16);
                    out.extend_from_slice(key);
                    out.put_bytes(value);
                }
            }
            Self::Inner { level, children } => {
                out.put_u8(INNER);
                out.put_u8(*level);
                out.put_u16(children.len() as u16);
                for (key, pointer) in children {
                    out.put_u16(key.len() as u16);
                    out.extend_from_slice(key);
                    pointer.encode(&mut out);
                }
            }
            Self::Radix { level, children } => {
                out.put_u8(RADIX);
                out.put_u8(*level);
                let mut bitmap = [0u8; 32];
                for (index, _) in children {
                    bitmap[usize::from(*index) / 8] |= 1 << (index % 8);
                }
                out.extend_from_slice(&bitmap);
                for (_, pointer) in children {
                    pointer.encode(&mut out);
                }
            }
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, "tree node");
        let kind = reader.u8()?;
        let level = reader.u8()?;
        let node = match kind {
            LEAF => Self::Leaf(decode_items(&mut reader)?),
            INNER => Self::Inner { level, children: decode_children(&mut reader)? },
            RADIX => Self::Radix { level, children: decode_radix(&mut reader)? },
            _ => return Err(reader.corrupt("has an unknown kind")),
        };
        let level_fits = match kind {
            LEAF => level == 0,
            INNER => (1..=32).contains(&level),
            _ => (1..=RADIX_LEVELS_MAX).contains(&level),
        };
        if !level_fits {
            return Err(reader.corrupt("has an impossible level"));
        }
        reader.finish()?;
        Ok(node)
    }

    /// Bytes an item adds to a leaf.
    pub fn item_bytes(key: &[u8], value: &[u8]) -> usize {
        2 + key.len() + 4 + value.len()
    }

    /// Bytes a child adds to an inner node.
    pub fn child_bytes(key: &[u8]) -> usize {
        2 + key.len() + Pointer::ENCODED
    }

    /// Memory the decoded node takes, roughly.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::Leaf(items) => items.iter().map(|(key, value)| 64 + key.len() + value.len()).sum(),
            Self::Inner { children, .. } => children.iter().map(|(key, _)| 64 + key.len()).sum(),
            Self::Radix { children, .. } => children.len() * size_of::<(u8, Pointer)>(),
        }
    }
}

fn decode_items(reader: &mut Reader<'_>) -> Result<Vec<(Key, Value)>> {
    let count = usize::from(reader.u16()?);
    let mut items: Vec<(Key, Value)> = Vec::with_capacity(count.min(reader.remaining() / 6 + 1));
    for _ in 0..count {
        let length = usize::from(reader.u16()?);
        let key = reader.take(length)?.to_vec();
        let value = Value::from(reader.bytes()?);
        if items.last().is_some_and(|(last, _)| *last >= key) {
            return Err(reader.corrupt("is not sorted"));
        }
        items.push((key, value));
    }
    Ok(items)
}

fn decode_children(reader: &mut Reader<'_>) -> Result<Vec<(Key, Pointer)>> {
    let count = usize::from(reader.u16()?);
    let mut children: Vec<(Key, Pointer)> = Vec::with_capacity(count.min(reader.remaining() / 26 + 1));
    for _ in 0..count {
        let length = usize::from(reader.u16()?);
        let key = reader.take(length)?.to_vec();
        let pointer = Pointer::decode(reader)?;
        if children.last().is_some_and(|(last, _)| *last >= key) {
            return Err(reader.corrupt("is not sorted"));
        }
        children.push((key, pointer));
    }
    if children.is_empty() {
        return Err(reader.corrupt("has no children"));
    }
    Ok(children)
}

fn decode_radix(reader: &mut Reader<'_>) -> Result<Vec<(u8, Pointer)>> {
    let bitmap: [u8; 32] = reader.array()?;
    let mut children = Vec::with_capacity(bitmap.iter().map(|byte| byte.count_ones() as usize).sum());
    for index in 0..=255u8 {
        if bitmap[usize::from(index) / 8] & (1 << (index % 8)) != 0 {
            children.push((index, Pointer::decode(reader)?));
        }
    }
    if children.is_empty() {
        return Err(reader.corrupt("has no children"));
    }
    Ok(children)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::place::Place;

    fn pointer(n: u32) -> Pointer {
        Pointer { place: Place { segment: n, slot: n }, stored_bytes: n, check: [n as u8; 16] }
    }

    #[test]
    fn nodes_survive_encoding() {
        let nodes = [
            Node::Leaf(vec![(b"a".to_vec(), Value::from(&b"1"[..])), (b"b".to_vec(), Value::from(&b""[..]))]),
            Node::Inner { level: 2, children: vec![(Vec::new(), pointer(1)), (b"k".to_vec(), pointer(2))] },
            Node::Radix { level: 1, children: vec![(0, pointer(1)), (9, pointer(5)), (255, pointer(7))] },
        ];
        for node in nodes {
            assert_eq!(Node::decode(&node.encode()).unwrap(), node);
        }
    }

    #[test]
    fn every_truncation_is_an_error() {
        let node = Node::Inner { level: 1, children: vec![(b"k".to_vec(), pointer(2))] };
        let bytes = node.encode();
        for length in 0..bytes.len() {
            assert!(Node::decode(&bytes[..length]).is_err(), "{length}");
        }
    }
}
