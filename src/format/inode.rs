//! Inode records, mapping roots and directory entry values.

use super::block_ids::Pointer;
use super::cursor::{Put, Reader};
use super::key::Ino;
use crate::base::{Error, Result};

/// Seconds and nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    pub seconds: i64,
    /// Below 1,000,000,000.
    pub nanos: u32,
}

impl Timestamp {
    pub fn from_unix_nanos(nanos: i64) -> Self {
        Self { seconds: nanos.div_euclid(1_000_000_000), nanos: nanos.rem_euclid(1_000_000_000) as u32 }
    }
}

/// Type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

impl FileKind {
    pub fn code(self) -> u8 {
        match self {
            Self::File => 1,
            Self::Directory => 2,
            Self::Symlink => 3,
            Self::Fifo => 4,
            Self::Socket => 5,
            Self::CharDevice => 6,
            Self::BlockDevice => 7,
        }
    }

    pub fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::File,
            2 => Self::Directory,
            3 => Self::Symlink,
            4 => Self::Fifo,
            5 => Self::Socket,
            6 => Self::CharDevice,
            7 => Self::BlockDevice,
            _ => return None,
        })
    }
}

/// An inode's attributes as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inode {
    pub kind: FileKind,
    /// Permission bits and set-id and sticky bits, 07777.
    pub mode: u32,
    pub links: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub size: u64,
    /// Of a directory: the directory that holds it. Else 0.
    pub parent: Ino,
    pub accessed: Timestamp,
    pub modified: Timestamp,
    pub changed: Timestamp,
    pub created: Timestamp,
}

impl Inode {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(96);
        out.put_u8(1);
        out.put_u8(self.kind.code());
        out.put_u16(self.mode as u16);
        out.put_u32(self.links);
        out.put_u32(self.uid);
        out.put_u32(self.gid);
        out.put_u32(self.rdev);
        out.put_u64(self.size);
        out.put_u64(self.parent);
        for time in [self.accessed, self.modified, self.changed, self.created] {
            out.put_i64(time.seconds);
            out.put_u32(time.nanos);
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, "inode record");
        if reader.u8()? != 1 {
            return Err(reader.corrupt("has an unknown version"));
        }
        let Some(kind) = FileKind::from_code(reader.u8()?) else {
            return Err(reader.corrupt("has an unknown file type"));
        };
        let mut inode = Self {
            kind,
            mode: u32::from(reader.u16()?),
            links: reader.u32()?,
            uid: reader.u32()?,
            gid: reader.u32()?,
            rdev: reader.u32()?,
            size: reader.u64()?,
            parent: reader.u64()?,
            accessed: Timestamp::default(),
            modified: Timestamp::default(),
            changed: Timestamp::default(),
            created: Timestamp::default(),
        };
        let times = [&mut inode.accessed, &mut inode.modified, &mut inode.changed, &mut inode.created];
        for time in times {
            *time = Timestamp { seconds: reader.i64()?, nanos: reader.u32()? };
            if time.nanos >= 1_000_000_000 {
                return Err(Error::corrupt(format!("inode has a time of {} nanoseconds", time.nanos)));
            }
        }
        reader.finish()?;
        Ok(inode)
    }
}

/// Root of a file's page mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapRoot {
    pub root: Option<Pointer>,
    /// Levels of the radix tree; 0 when there is no root. Level 1 maps 256 pages.
    pub height: u8,
    /// Pages mapped.
    pub pages: u64,
    /// Stored bytes of those pages, each reference counted.
    pub stored_bytes: u64,
}

impl MapRoot {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(42);
        out.put_u8(self.height);
        out.put_u64(self.pages);
        out.put_u64(self.stored_bytes);
        if let Some(root) = &self.root {
            root.encode(&mut out);
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, "mapping root");
        let height = reader.u8()?;
        let pages = reader.u64()?;
        let stored_bytes = reader.u64()?;
        let root = if reader.remaining() > 0 { Some(Pointer::decode(&mut reader)?) } else { None };
        if height > 5 || root.is_some() != (height > 0) {
            return Err(reader.corrupt("has an impossible height"));
        }
        reader.finish()?;
        Ok(Self { root, height, pages, stored_bytes })
    }
}

/// Value of a directory entry: the inode and its type.
pub fn encode_entry(ino: Ino, kind: FileKind) -> Vec<u8> {
    let mut out = Vec::with_capacity(9);
    out.put_u64(ino);
    out.put_u8(kind.code());
    out
}

pub fn decode_entry(bytes: &[u8]) -> Result<(Ino, FileKind)> {
    let mut reader = Reader::new(bytes, "directory entry");
    let ino = reader.u64()?;
    let Some(kind) = FileKind::from_code(reader.u8()?) else {
        return Err(reader.corrupt("has an unknown file type"));
    };
    reader.finish()?;
    Ok((ino, kind))
}
