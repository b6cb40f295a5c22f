//! Records of the root table: the superblock, volumes and snapshots; and the frame that protects each value.

use super::block_ids::Pointer;
use super::cursor::{Put, Reader};
use super::journal::Start;
use super::key::Ino;
use crate::base::{Error, ErrorKind, Result};

/// Version of the whole store's format.
pub const FORMAT_VERSION: u32 = 1;

/// Wraps a root table value: payload, then BLAKE3 (16 bytes) over table, key and payload, so that a value
/// under a wrong key is found as well.
pub fn seal(table: &str, key: u64, mut payload: Vec<u8>) -> Vec<u8> {
    let check = value_check(table, key, &payload);
    payload.extend_from_slice(&check);
    payload
}

/// The payload of a sealed value.
pub fn open_sealed<'a>(table: &str, key: u64, bytes: &'a [u8]) -> Result<&'a [u8]> {
    let Some((payload, check)) = bytes.split_last_chunk::<16>() else {
        return Err(Error::corrupt(format!("roots.redb: {table} {key} is too short")));
    };
    if value_check(table, key, payload) != *check {
        return Err(Error::corrupt(format!("roots.redb: {table} {key} does not match its checksum")));
    }
    Ok(payload)
}

fn value_check(table: &str, key: u64, payload: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(table.as_bytes());
    hasher.update(&[0]);
    hasher.update(&key.to_le_bytes());
    hasher.update(payload);
    super::check_of(hasher.finalize().as_bytes())
}

/// What one checkpoint leaves for the next open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    pub store_id: [u8; 16],
    /// Number of the commit: the table and its copy are the same when they have the same.
    pub commit: u64,
    /// Number of this checkpoint.
    pub checkpoint: u64,
    pub journal: Start,
    pub next_view: u32,
    pub next_segment: u32,
    pub next_file: u64,
}

impl Superblock {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u32(FORMAT_VERSION);
        out.extend_from_slice(&self.store_id);
        out.put_u64(self.commit);
        out.put_u64(self.checkpoint);
        out.extend_from_slice(&self.journal.encode());
        out.put_u32(self.next_view);
        out.put_u32(self.next_segment);
        out.put_u64(self.next_file);
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, "superblock");
        let version = reader.u32()?;
        if version != FORMAT_VERSION {
            let message =
                format!("superblock has format version {version}, this program reads {FORMAT_VERSION}");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let superblock = Self {
            store_id: reader.array()?,
            commit: reader.u64()?,
            checkpoint: reader.u64()?,
            journal: Start::decode(&reader.array()?)?,
            next_view: reader.u32()?,
            next_segment: reader.u32()?,
            next_file: reader.u64()?,
        };
        reader.finish()?;
        Ok(superblock)
    }
}

/// A file tree as of a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeRoot {
    /// Root of the metadata tree; an empty tree has none.
    pub root: Option<Pointer>,
    /// Pages mapped by all its files.
    pub pages: u64,
    /// Stored bytes of those pages, each reference counted.
    pub stored_bytes: u64,
    /// The next unused inode number.
    pub next_ino: Ino,
}

impl TreeRoot {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(u8::from(self.root.is_some()));
        if let Some(root) = &self.root {
            root.encode(out);
        }
        out.put_u64(self.pages);
        out.put_u64(self.stored_bytes);
        out.put_u64(self.next_ino);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let root = match reader.u8()? {
            0 => None,
            1 => Some(Pointer::decode(reader)?),
            _ => return Err(reader.corrupt("has an unknown flag")),
        };
        Ok(Self { root, pages: reader.u64()?, stored_bytes: reader.u64()?, next_ino: reader.u64()? })
    }
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRecord {
    pub id: u32,
    pub name: String,
    /// `volume@snapshot` it was cloned from.
    pub origin: Option<String>,
    pub created_unix_nanos: i64,
    pub quota_bytes: Option<u64>,
    pub reservation_bytes: Option<u64>,
    /// Journal records of this volume below this number are in `tree`.
    pub applied_seq: u64,
    pub tree: TreeRoot,
}

impl VolumeRecord {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u8(1);
        out.put_u32(self.id);
        out.put_bytes(self.name.as_bytes());
        put_optional_text(&mut out, self.origin.as_deref());
        out.put_i64(self.created_unix_nanos);
        put_optional_u64(&mut out, self.quota_bytes);
        put_optional_u64(&mut out, self.reservation_bytes);
        out.put_u64(self.applied_seq);
        self.tree.encode(&mut out);
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, "volume record");
        if reader.u8()? != 1 {
            return Err(reader.corrupt("has an unknown version"));
        }
        let record = Self {
            id: reader.u32()?,
            name: reader.text()?,
            origin: optional_text(&mut reader)?,
            created_unix_nanos: reader.i64()?,
            quota_bytes: optional_u64(&mut reader)?,
            reservation_bytes: optional_u64(&mut reader)?,
            applied_seq: reader.u64()?,
            tree: TreeRoot::decode(&mut reader)?,
        };
        reader.finish()?;
        Ok(record)
    }
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRecord {
    pub id: u32,
    pub volume: u32,
    pub name: String,
    pub created_unix_nanos: i64,
    pub holds: Vec<String>,
    pub tree: TreeRoot,
}

impl SnapshotRecord {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u8(1);
        out.put_u32(self.id);
        out.put_u32(self.volume);
        out.put_bytes(self.name.as_bytes());
        out.put_i64(self.created_unix_nanos);
        put_texts(&mut out, &self.holds);
        self.tree.encode(&mut out);
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, "snapshot record");
        if reader.u8()? != 1 {
            return Err(reader.corrupt("has an unknown version"));
        }
        let record = Self {
            id: reader.u32()?,
            volume: reader.u32()?,
            name: reader.text()?,
            created_unix_nanos: reader.i64()?,
            holds: texts(&mut reader)?,
            tree: TreeRoot::decode(&mut reader)?,
        };
        reader.finish()?;
        Ok(record)
    }
}

pub(super) fn put_texts(out: &mut Vec<u8>, texts: &[String]) {
    out.put_u32(texts.len() as u32);
    for text in texts {
        out.put_bytes(text.as_bytes());
    }
}

pub(super) fn texts(reader: &mut Reader<'_>) -> Result<Vec<String>> {
    let count = reader.u32()? as usize;
    if count > reader.remaining() / 4 {
        return Err(reader.corrupt("lists more texts than it has bytes"));
    }
    (0..count).map(|_| reader.text()).collect()
}

pub(super) fn put_optional_u64(out: &mut Vec<u8>, value: Option<u64>) {
    out.put_u8(u8::from(value.is_some()));
    if let Some(value) = value {
        out.put_u64(value);
    }
}

pub(super) fn optional_u64(reader: &mut Reader<'_>) -> Result<Option<u64>> {
    match reader.u8()? {
        0 => Ok(None),
        1 => Ok(Some(reader.u64()?)),
        _ => Err(reader.corrupt("has an unknown flag")),
    }
}

fn put_optional_text(out: &mut Vec<u8>, value: Option<&str>) {
    out.put_u8(u8::from(value.is_some()));
    if let Some(value) = value {
        out.put_bytes(value.as_bytes());
    }
}

fn optional_text(reader: &mut Reader<'_>) -> Result<Option<String>> {
    match reader.u8()? {
        0 => Ok(None),
        1 => Ok(Some(reader.text()?)),
        _ => Err(reader.corrupt("has an unknown flag")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_encoding() {
        let volume = VolumeRecord {
            id: 7,
            name: "pg".into(),
            origin: Some("a@b".into()),
            created_unix_nanos: -5,
            quota_bytes: Some(9),
            reservation_bytes: None,
            applied_seq: 3,
            tree: TreeRoot { root: None, pages: 1, stored_bytes: 2, next_ino: 3 },
        };
        assert_eq!(VolumeRecord::decode(&volume.encode()).unwrap(), volume);
        let snapshot = SnapshotRecord {
            id: 8,
            volume: 7,
            name: "s".into(),
            created_unix_nanos: 1,
            holds: vec!["x".into(), "y".into()],
            tree: TreeRoot::default(),
        };
        assert_eq!(SnapshotRecord::decode(&snapshot.encode()).unwrap(), snapshot);
        let journal = Start { journal: [3; 16], epoch: 1, seq: crate::format::journal::Seq(2), offset: 4096 };
        let superblock = Superblock {
            store_id: [1; 16],
            commit: 9,
            checkpoint: 4,
            journal,
            next_view: 5,
            next_segment: 6,
            next_file: 7,
        };
        assert_eq!(Superblock::decode(&superblock.encode()).unwrap(), superblock);
    }

    #[test]
    fn a_sealed_value_is_bound_to_its_key() {
        let sealed = seal("volumes", 1, b"payload".to_vec());
        assert_eq!(open_sealed("volumes", 1, &sealed).unwrap(), b"payload");
        assert!(open_sealed("volumes", 2, &sealed).is_err());
        assert!(open_sealed("snapshots", 1, &sealed).is_err());
        for index in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[index] ^= 1;
            assert!(open_sealed("volumes", 1, &damaged).is_err());
        }
    }
}
