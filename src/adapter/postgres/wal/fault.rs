//! What can be wrong with a WAL file, and the sentences for it.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::super::lsn::{Lsn, SegmentSize, Timeline};
use super::{magic_of, major_of};

/// A WAL file that is not what its name says; displays as a sentence that names the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalFault {
    pub path: PathBuf,
    pub kind: WalFaultKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalFaultKind {
    Missing,
    /// It is there and cannot be read.
    Unreadable {
        kind: io::ErrorKind,
        message: String,
    },
    /// A folder, a device or the like.
    NotAFile,
    /// Bytes.
    TooShort {
        found: u64,
        expected: u64,
    },
    /// Bytes; `found` is at least so much.
    TooLong {
        found: u64,
        expected: u64,
    },
    /// The compressed content ends early or is damaged.
    Undecodable {
        message: String,
    },
    /// It is there, compressed by a program whose format is not read here.
    UnsupportedCompression {
        ending: String,
    },
    /// It does not begin as the WAL of the expected major version does.
    BadMagic {
        found: u16,
        major: u32,
    },
    /// It begins with a page from the middle of a segment.
    NoSegmentStart,
    /// Of a cluster with another system identifier.
    ForeignSystem {
        found: u64,
        expected: u64,
    },
    WrongSegmentSize {
        found: u32,
        expected: SegmentSize,
    },
    BadBlockSize {
        found: u32,
    },
    /// No segment of this cluster's segment size has this name.
    NoSuchName {
        size: SegmentSize,
    },
    /// The content is another segment's.
    WrongSegment {
        found: Lsn,
        expected: Lsn,
    },
    WrongTimeline {
        offset: u64,
        found: u32,
        expected: Timeline,
    },
    /// A page that was never written before one that was.
    Hole {
        offset: u64,
    },
    BadPage {
        offset: u64,
        found: u16,
    },
    /// A page of another place: a segment under an older name that is being filled anew.
    WrongPage {
        offset: u64,
        found: Lsn,
        expected: Lsn,
    },
    /// It has the right form and ends in zeros, and was written a moment ago.
    Settling,
    /// The source left its timeline within it, so the newer timeline's segment of that place counts.
    Superseded {
        by: Timeline,
        fork: Lsn,
    },
    /// A history file that PostgreSQL would not take.
    BadHistory {
        message: String,
        incomplete: bool,
    },
}

impl WalFaultKind {
    pub(in super::super) const SUPERSEDED: &'static str = "superseded";
    pub(in super::super) const SETTLING: &'static str = "settling";

    /// From an error of opening or reading. One without an operating system's code came from decompressing.
    pub(in super::super) fn unreadable(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            _ if error.raw_os_error().is_none() => Self::Undecodable { message: error.to_string() },
            kind => Self::Unreadable { kind, message: error.to_string() },
        }
    }

    /// Whether a file that is just being copied or written can look so, and so may become right by itself.
    pub fn may_be_in_progress(&self) -> bool {
        match self {
            Self::Missing | Self::TooShort { .. } | Self::Undecodable { .. } | Self::Hole { .. } => true,
            Self::BadPage { .. } | Self::WrongPage { .. } | Self::Settling => true,
            Self::Superseded { .. } => true,
            Self::BadHistory { incomplete, .. } => *incomplete,
            _ => false,
        }
    }

    /// A short name that stays the same, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unreadable { .. } => "unreadable",
            Self::NotAFile => "not_a_file",
            Self::TooShort { .. } => "too_short",
            Self::TooLong { .. } => "too_long",
            Self::Undecodable { .. } => "undecodable",
            Self::UnsupportedCompression { .. } => "unsupported_compression",
            Self::BadMagic { .. } => "bad_magic",
            Self::NoSegmentStart => "no_segment_start",
            Self::ForeignSystem { .. } => "foreign_system",
            Self::WrongSegmentSize { .. } => "wrong_segment_size",
            Self::BadBlockSize { .. } => "bad_block_size",
            Self::NoSuchName { .. } => "no_such_name",
            Self::WrongSegment { .. } => "wrong_segment",
            Self::WrongTimeline { .. } => "wrong_timeline",
            Self::Hole { .. } => "hole",
            Self::BadPage { .. } => "bad_page",
            Self::WrongPage { .. } => "wrong_page",
            Self::Settling => Self::SETTLING,
            Self::Superseded { .. } => Self::SUPERSEDED,
            Self::BadHistory { .. } => "bad_history",
        }
    }
}

impl fmt::Display for WalFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the WAL file {} {}", self.path.display(), self.kind)
    }
}

impl std::error::Error for WalFault {}

/// The sentence after the file's name.
impl fmt::Display for WalFaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is not there"),
            Self::Unreadable { kind: io::ErrorKind::PermissionDenied, .. } => f.write_str(
                "may not be read by the user that runs PostgreSQL: let that user read it and enter its folder",
            ),
            Self::Unreadable { message, .. } => write!(f, "cannot be read: {message}"),
            Self::NotAFile => f.write_str("is no regular file"),
            Self::TooShort { found, expected } => write!(
                f,
                "has {found} bytes where a segment has {expected}: it is still being copied, or was cut off"
            ),
            Self::TooLong { found, expected } => {
                write!(f, "has {found} bytes or more where a segment has {expected}: it is no segment of this cluster")
            }
            Self::Undecodable { message } => {
                write!(f, "cannot be decompressed ({message}): it is still being copied, was cut off or is damaged")
            }
            Self::UnsupportedCompression { ending } => {
                write!(f, "is there with the ending {ending}, which is not read: ")?;
                f.write_str("give it plain, or as .gz, .zst or .lz4")
            }
            Self::BadMagic { found, major } => bad_magic(f, *found, *major),
            Self::NoSegmentStart => f.write_str("does not begin with the first page of a segment: it is damaged"),
            Self::ForeignSystem { found, expected } => write!(
                f,
                "belongs to another cluster: its system identifier is {found}, that of this source is {expected}"
            ),
            Self::WrongSegmentSize { found, expected } => {
                write!(f, "is of a cluster with segments of {found} bytes, this source has {} ", expected.bytes())?;
                write!(f, "({expected})")
            }
            Self::BadBlockSize { found } => write!(f, "has a header with an impossible page size, {found} bytes"),
            Self::NoSuchName { size } => write!(f, "has a name that no segment of {size} has"),
            Self::WrongSegment { found, expected } => write!(
                f,
                "holds the WAL from {found} on where its name says {expected}: it is another segment under this name"
            ),
            Self::WrongTimeline { offset, found, expected } => write!(
                f,
                "holds WAL of timeline {found} at offset {offset}, which is not on the way to timeline \
                 {expected} of its name"
            ),
            Self::Hole { offset } => {
                write!(f, "was not written at offset {offset}, as while it is being copied, or has lost that part")
            }
            Self::BadPage { offset, found } => {
                write!(f, "is damaged: the page at offset {offset} begins with {found:04X}, as no page of WAL does")
            }
            Self::WrongPage { offset, found, expected } => write!(
                f,
                "has a page of {found} at offset {offset}, the place of {expected}: it was taken before it was \
                 complete, or is damaged"
            ),
            Self::Settling => f.write_str("was written a moment ago and may not be complete yet"),
            Self::Superseded { by, fork } => {
                write!(f, "is not used: the source went on on timeline {by} from {fork} on, within this file")
            }
            Self::BadHistory { message, .. } => write!(f, "is not right: {message}"),
        }
    }
}

fn bad_magic(f: &mut fmt::Formatter<'_>, found: u16, major: u32) -> fmt::Result {
    let expected = magic_of(major).unwrap_or(0);
    write!(f, "does not begin as WAL of PostgreSQL {major} does ({expected:04X}) but with {found:04X}: ")?;
    // The first two bytes of the formats of compressed files, as a number of this byte order.
    match found {
        _ if major_of(found).is_some() => {
            write!(f, "it is of PostgreSQL {}", major_of(found).unwrap_or_default())
        }
        _ if major_of(found.swap_bytes()).is_some() => {
            f.write_str("it is of a machine of the other byte order")
        }
        0x8B1F => f.write_str("it is gzip data, whose name must end in .gz"),
        0xB528 => f.write_str("it is zstd data, whose name must end in .zst"),
        0x2204 => f.write_str("it is lz4 data, whose name must end in .lz4"),
        _ => f.write_str("it is no WAL file, or is damaged or encrypted"),
    }
}
