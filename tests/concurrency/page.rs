//! Pages that say what they are, and the hash of all that a view shows.

use stillpoint::volume::*;

pub(crate) const PAGE: usize = 8192;
const CHECK_AT: usize = PAGE - 32;

/// Who wrote a page, and the number of the write. The default is a page of zeros: nobody wrote it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) writer: u64,
    pub(crate) number: u64,
}

pub(crate) fn make(ino: Ino, page: u64, stamp: Stamp) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PAGE);
    while bytes.len() < CHECK_AT {
        for part in [stamp.writer, ino, page, stamp.number] {
            bytes.extend_from_slice(&part.to_le_bytes());
        }
    }
    bytes.truncate(CHECK_AT);
    let check = blake3::hash(&bytes);
    bytes.extend_from_slice(check.as_bytes());
    bytes
}

/// What a page of this place says of itself. Fails when it is torn, or of another place.
pub(crate) fn stamp_of(view: &View, ino: Ino, page: u64, mut bytes: Vec<u8>) -> Stamp {
    bytes.resize(PAGE, 0);
    if bytes.iter().all(|byte| *byte == 0) {
        return Stamp::default();
    }
    let part = |at: usize| u64::from_le_bytes(bytes[at * 8..at * 8 + 8].try_into().unwrap());
    let stamp = Stamp { writer: part(0), number: part(3) };
    assert!(
        bytes == make(ino, page, stamp),
        "{}: inode {ino}, page {page} is torn or misplaced",
        view.name()
    );
    stamp
}

pub(crate) fn read(view: &View, ino: Ino, page: u64) -> Stamp {
    let bytes = view.read(ino, page * PAGE as u64, PAGE).unwrap();
    stamp_of(view, ino, page, bytes)
}

/// Reads all of a view, verifying each page on the way.
pub(crate) fn hash(view: &View) -> blake3::Hash {
    let mut entries = view.list_directory(ROOT_INO, 0, usize::MAX).unwrap();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let mut hasher = blake3::Hasher::new();
    for entry in entries {
        let size = view.attributes(entry.ino).unwrap().size;
        hasher.update(&entry.name).update(&entry.ino.to_le_bytes()).update(&size.to_le_bytes());
        for page in 0..size.div_ceil(PAGE as u64) {
            let stamp = read(view, entry.ino, page);
            hasher.update(&stamp.writer.to_le_bytes()).update(&stamp.number.to_le_bytes());
        }
    }
    hasher.finalize()
}
