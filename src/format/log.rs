//! What journal records say: changes of one volume's tree, and changes of the catalog.
//!
//! Tree changes are physical (key and value, file bytes), so that replay needs no rules of its own.

use super::block_ids::Pointer;
use super::catalog_records::{optional_u64, put_optional_u64, put_texts, texts};
use super::cursor::{Put, Reader};
use super::key::Ino;
use super::node::{Key, Value};
use crate::base::Result;

const TREE: u8 = 1;
const CATALOG: u8 = 2;

/// Metadata changes that happen together.
pub type Batch = Vec<(Key, Option<Value>)>;

/// One change of a volume's tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeChange<'a> {
    Metadata(Batch),
    /// Pages `from..to` read as zeros from here on.
    Clear {
        ino: Ino,
        from: u64,
        to: u64,
    },
    /// Bytes of a file; they lie within one page.
    Data {
        ino: Ino,
        offset: u64,
        bytes: &'a [u8],
    },
    /// A page that shares a stored block.
    Share {
        ino: Ino,
        page: u64,
        pointer: Pointer,
    },
}

/// One change of the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogChange {
    CreateVolume { id: u32, name: String, created_unix_nanos: i64 },
    RenameVolume { id: u32, name: String },
    DestroyVolume { id: u32 },
    CreateSnapshot { id: u32, volume: u32, name: String, created_unix_nanos: i64 },
    DestroySnapshot { id: u32 },
    SetHolds { id: u32, holds: Vec<String> },
    CreateClone { id: u32, name: String, snapshot: u32, created_unix_nanos: i64 },
    SetLimits { id: u32, quota_bytes: Option<u64>, reservation_bytes: Option<u64> },
}

/// A decoded journal record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogRecord<'a> {
    Tree { view: u32, changes: Vec<TreeChange<'a>> },
    Catalog(CatalogChange),
}

/// Builds the record of one volume's changes.
#[derive(Debug)]
pub struct TreeRecord {
    bytes: Vec<u8>,
    empty: bool,
    shares: bool,
}

impl TreeRecord {
    pub fn new(view: u32) -> Self {
        let mut bytes = Vec::with_capacity(16 * 1024);
        bytes.put_u8(TREE);
        bytes.put_u32(view);
        Self { bytes, empty: true, shares: false }
    }

    pub fn metadata(&mut self, batch: &Batch) {
        self.empty = false;
        self.bytes.put_u8(1);
        self.bytes.put_u32(batch.len() as u32);
        for (key, value) in batch {
            self.bytes.put_u16(key.len() as u16);
            self.bytes.extend_from_slice(key);
            self.bytes.put_u8(u8::from(value.is_some()));
            if let Some(value) = value {
                self.bytes.put_bytes(value);
            }
        }
    }

    pub fn clear(&mut self, ino: Ino, from: u64, to: u64) {
        self.empty = false;
        self.bytes.put_u8(2);
        self.bytes.put_u64(ino);
        self.bytes.put_u64(from);
        self.bytes.put_u64(to);
    }

    pub fn data(&mut self, ino: Ino, offset: u64, data: &[u8]) {
        self.empty = false;
        self.bytes.put_u8(3);
        self.bytes.put_u64(ino);
        self.bytes.put_u64(offset);
        self.bytes.put_bytes(data);
    }

    pub fn share(&mut self, ino: Ino, page: u64, pointer: &Pointer) {
        self.empty = false;
        self.shares = true;
        self.bytes.put_u8(4);
        self.bytes.put_u64(ino);
        self.bytes.put_u64(page);
        pointer.encode(&mut self.bytes);
    }

    pub fn is_empty(&self) -> bool {
        self.empty
    }

    /// Whether it names a stored block by its place.
    pub fn shares(&self) -> bool {
        self.shares
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl CatalogChange {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![CATALOG];
        match self {
            Self::CreateVolume { id, name, created_unix_nanos } => {
                out.put_u8(1);
                out.put_u32(*id);
                out.put_bytes(name.as_bytes());
                out.put_i64(*created_unix_nanos);
            }
            Self::RenameVolume { id, name } => {
                out.put_u8(2);
                out.put_u32(*id);
                out.put_bytes(name.as_bytes());
            }
            Self::DestroyVolume { id } => {
                out.put_u8(3);
                out.put_u32(*id);
            }
            Self::CreateSnapshot { id, volume, name, created_unix_nanos } => {
                out.put_u8(4);
                out.put_u32(*id);
                out.put_u32(*volume);
                out.put_bytes(name.as_bytes());
                out.put_i64(*created_unix_nanos);
            }
            Self::DestroySnapshot { id } => {
                out.put_u8(5);
                out.put_u32(*id);
            }
            Self::SetHolds { id, holds } => {
                out.put_u8(6);
                out.put_u32(*id);
                put_texts(&mut out, holds);
            }
            Self::CreateClone { id, name, snapshot, created_unix_nanos } => {
                out.put_u8(7);
                out.put_u32(*id);
                out.put_bytes(name.as_bytes());
                out.put_u32(*snapshot);
                out.put_i64(*created_unix_nanos);
            }
            Self::SetLimits { id, quota_bytes, reservation_bytes } => {
                out.put_u8(8);
                out.put_u32(*id);
                put_optional_u64(&mut out, *quota_bytes);
                put_optional_u64(&mut out, *reservation_bytes);
            }
        }
        out
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(match reader.u8()? {
            1 => Self::CreateVolume {
                id: reader.u32()?,
                name: reader.text()?,
                created_unix_nanos: reader.i64()?,
            },
            2 => Self::RenameVolume { id: reader.u32()?, name: reader.text()? },
            3 => Self::DestroyVolume { id: reader.u32()? },
            4 => Self::CreateSnapshot {
                id: reader.u32()?,
                volume: reader.u32()?,
                name: reader.text()?,
                created_unix_nanos: reader.i64()?,
            },
            5 => Self::DestroySnapshot { id: reader.u32()? },
            6 => Self::SetHolds { id: reader.u32()?, holds: texts(reader)? },
            7 => Self::CreateClone {
                id: reader.u32()?,
                name: reader.text()?,
                snapshot: reader.u32()?,
                created_unix_nanos: reader.i64()?,
            },
            8 => Self::SetLimits {
                id: reader.u32()?,
                quota_bytes: optional_u64(reader)?,
                reservation_bytes: optional_u64(reader)?,
            },
            _ => return Err(reader.corrupt("has an unknown catalog change")),
        })
    }
}

impl<'a> LogRecord<'a> {
    pub fn decode(bytes: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, "journal record");
        let record = match reader.u8()? {
            TREE => {
                let view = reader.u32()?;
                let mut changes = Vec::new();
                while reader.remaining() > 0 {
                    changes.push(decode_change(&mut reader)?);
                }
                Self::Tree { view, changes }
            }
            CATALOG => Self::Catalog(CatalogChange::decode(&mut reader)?),
            _ => return Err(reader.corrupt("has an unknown kind")),
        };
        reader.finish()?;
        Ok(record)
    }
}

fn decode_change<'a>(reader: &mut Reader<'a>) -> Result<TreeChange<'a>> {
    Ok(match reader.u8()? {
        1 => {
            let count = reader.u32()? as usize;
            if count > reader.remaining() / 3 {
                return Err(reader.corrupt("has more keys than bytes"));
            }
            let mut batch = Vec::with_capacity(count);
            for _ in 0..count {
                let length = usize::from(reader.u16()?);
                let key = reader.take(length)?.to_vec();
                let value = match reader.u8()? {
                    0 => None,
                    1 => Some(Value::from(reader.bytes()?)),
                    _ => return Err(reader.corrupt("has an unknown flag")),
                };
                batch.push((key, value));
            }
            TreeChange::Metadata(batch)
        }
        2 => TreeChange::Clear { ino: reader.u64()?, from: reader.u64()?, to: reader.u64()? },
        3 => TreeChange::Data { ino: reader.u64()?, offset: reader.u64()?, bytes: reader.bytes()? },
        4 => TreeChange::Share { ino: reader.u64()?, page: reader.u64()?, pointer: Pointer::decode(reader)? },
        _ => return Err(reader.corrupt("has an unknown tree change")),
    })
}
