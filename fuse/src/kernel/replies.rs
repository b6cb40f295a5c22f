//! Small pieces of requests and replies shared by their handlers.

use super::convert::{errno, file_attr, file_type};
use super::run::GENERATION;
use crate::filesystem::{Answer, DirectorySink};
use crate::types::{Caching, Caller, Listed, Opened, SpaceMode, Timed};
use fuser::{
    FopenFlags, INodeNo, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyLseek, Request,
};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

pub(super) fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), thread: request.pid() }
}

pub(super) fn give_empty(reply: ReplyEmpty, answer: Answer<()>) {
    match answer {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

pub(super) fn give_data(reply: ReplyData, answer: Answer<Vec<u8>>) {
    match answer {
        Ok(data) => reply.data(&data),
        Err(error) => reply.error(errno(error)),
    }
}

pub(super) fn give_offset(reply: ReplyLseek, answer: Answer<u64>) {
    match answer {
        Ok(found) => reply.offset(i64::try_from(found).unwrap_or(i64::MAX)),
        Err(error) => reply.error(errno(error)),
    }
}

/// `FLUSH` is not asked for either way: the kernel leaves it out by flag or, with write-back, after one ENOSYS.
pub(super) fn open_flags(opened: Opened) -> FopenFlags {
    let caching = match opened.caching {
        Caching::Keep => FopenFlags::FOPEN_KEEP_CACHE,
        Caching::Direct => FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES,
    };
    caching | FopenFlags::FOPEN_NOFLUSH
}

pub(super) fn space_mode(flags: FallocateFlags) -> Answer<SpaceMode> {
    let keep = FallocateFlags::KEEP_SIZE;
    if flags.is_empty() {
        Ok(SpaceMode::Allocate)
    } else if flags == keep {
        Ok(SpaceMode::AllocateKeepSize)
    } else if flags == FallocateFlags::PUNCH_HOLE | keep {
        Ok(SpaceMode::PunchHole)
    } else if flags == FallocateFlags::ZERO_RANGE {
        Ok(SpaceMode::ZeroRange)
    } else if flags == FallocateFlags::ZERO_RANGE | keep {
        Ok(SpaceMode::ZeroRangeKeepSize)
    } else {
        Err(Errno::OPNOTSUPP)
    }
}

/// `READDIR`.
pub(super) struct PlainSink(pub(super) ReplyDirectory);

impl DirectorySink for PlainSink {
    fn wants_attributes(&self) -> bool {
        false
    }

    fn add(&mut self, entry: Listed<'_>, _: Option<&Timed>) -> bool {
        let name = OsStr::from_bytes(entry.name);
        !self.0.add(INodeNo(entry.ino), entry.next, file_type(entry.kind), name)
    }
}

/// `READDIRPLUS`. An entry without attributes was removed while the listing ran: it is left out.
pub(super) struct PlusSink(pub(super) ReplyDirectoryPlus);

impl DirectorySink for PlusSink {
    fn wants_attributes(&self) -> bool {
        true
    }

    fn add(&mut self, entry: Listed<'_>, attributes: Option<&Timed>) -> bool {
        let Some(timed) = attributes else { return true };
        let attr = file_attr(&timed.attributes);
        let name = OsStr::from_bytes(entry.name);
        !self.0.add(INodeNo(entry.ino), entry.next, name, &timed.valid, &attr, GENERATION)
    }
}
