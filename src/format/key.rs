//! Keys of a volume's metadata tree: inode number (big-endian), type, then what the type needs.

use crate::base::{Error, Result};

pub type Ino = u64;

/// What a key names.
pub mod kind {
    /// The inode's attributes.
    pub const INODE: u8 = 1;
    /// The root of its page mapping; written by checkpoints only.
    pub const MAP: u8 = 2;
    /// A symbolic link's target.
    pub const TARGET: u8 = 3;
    /// An extended attribute: name follows.
    pub const XATTR: u8 = 4;
    /// A directory entry: 63-bit hash of the name, then the name.
    pub const ENTRY: u8 = 5;
    /// Under inode 0: an inode with no name that a handle may hold.
    pub const ORPHAN: u8 = 6;
}

pub fn inode(ino: Ino) -> Vec<u8> {
    plain(ino, kind::INODE)
}

pub fn map(ino: Ino) -> Vec<u8> {
    plain(ino, kind::MAP)
}

pub fn target(ino: Ino) -> Vec<u8> {
    plain(ino, kind::TARGET)
}

pub fn xattr(ino: Ino, name: &[u8]) -> Vec<u8> {
    let mut key = plain(ino, kind::XATTR);
    key.extend_from_slice(name);
    key
}

pub fn orphan(ino: Ino) -> Vec<u8> {
    let mut key = plain(0, kind::ORPHAN);
    key.extend_from_slice(&ino.to_be_bytes());
    key
}

pub fn entry(directory: Ino, name: &[u8]) -> Vec<u8> {
    let mut key = entry_from(directory, name_hash(name));
    key.extend_from_slice(name);
    key
}

/// The smallest key of an entry whose name's hash is `hash` or more.
pub fn entry_from(directory: Ino, hash: u64) -> Vec<u8> {
    let mut key = plain(directory, kind::ENTRY);
    key.extend_from_slice(&hash.to_be_bytes());
    key
}

/// The smallest key of `kind` under `ino`.
pub fn plain(ino: Ino, kind: u8) -> Vec<u8> {
    let mut key = Vec::with_capacity(32);
    key.extend_from_slice(&ino.to_be_bytes());
    key.push(kind);
    key
}

/// Position of a name in its directory's listing: 63 bits of BLAKE3, 16 or more (lower ones are for `.` and
/// `..` and their like).
pub fn name_hash(name: &[u8]) -> u64 {
    let hash = blake3::hash(name);
    let mut word = [0; 8];
    word.copy_from_slice(&hash.as_bytes()[..8]);
    (u64::from_le_bytes(word) >> 1).max(16)
}

/// A key taken apart: inode, type, rest.
pub fn split(key: &[u8]) -> Result<(Ino, u8, &[u8])> {
    let Some((head, rest)) = key.split_at_checked(9) else {
        return Err(Error::corrupt("metadata key is too short"));
    };
    let mut ino = [0; 8];
    ino.copy_from_slice(&head[..8]);
    Ok((Ino::from_be_bytes(ino), head[8], rest))
}

/// Hash and name of the rest of an entry key.
pub fn split_entry(rest: &[u8]) -> Result<(u64, &[u8])> {
    let Some((head, name)) = rest.split_at_checked(8) else {
        return Err(Error::corrupt("directory entry key is too short"));
    };
    let mut hash = [0; 8];
    hash.copy_from_slice(head);
    Ok((u64::from_be_bytes(hash), name))
}
