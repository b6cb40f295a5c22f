//! Our types to and from the transport's.

use crate::types::{Attributes, Entry, NodeKind, OpenRequest, Time, TimeChange, Timed};
use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(super) fn errno(error: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(error.raw_os_error())
}

pub(super) fn file_type(kind: NodeKind) -> FileType {
    match kind {
        NodeKind::File => FileType::RegularFile,
        NodeKind::Directory => FileType::Directory,
        NodeKind::Symlink => FileType::Symlink,
        NodeKind::Fifo => FileType::NamedPipe,
        NodeKind::Socket => FileType::Socket,
        NodeKind::CharDevice => FileType::CharDevice,
        NodeKind::BlockDevice => FileType::BlockDevice,
    }
}

pub(super) fn file_attr(attributes: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(attributes.ino),
        size: attributes.size,
        blocks: attributes.blocks,
        atime: to_system_time(attributes.accessed),
        mtime: to_system_time(attributes.modified),
        ctime: to_system_time(attributes.changed),
        crtime: UNIX_EPOCH,
        kind: file_type(attributes.kind),
        perm: (attributes.mode & 0o7777) as u16,
        nlink: attributes.links,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: attributes.rdev,
        blksize: attributes.block_size,
        flags: 0,
    }
}

/// An entry as the transport wants it: (how long attributes, how long the name is valid, attributes). Inode
/// number 0 is how the protocol says that the name is known to be absent.
pub(super) fn entry_parts(entry: &Entry) -> (Duration, Duration, FileAttr) {
    match &entry.found {
        Some(Timed { attributes, valid }) => (*valid, entry.valid, file_attr(attributes)),
        None => (Duration::ZERO, entry.valid, file_attr(&absent())),
    }
}

fn absent() -> Attributes {
    Attributes {
        ino: 0,
        kind: NodeKind::File,
        mode: 0,
        links: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 0,
        blocks: 0,
        block_size: 0,
        accessed: Time::default(),
        modified: Time::default(),
        changed: Time::default(),
    }
}

fn to_system_time(time: Time) -> SystemTime {
    let nanos = Duration::from_nanos(u64::from(time.nanos));
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    let whole =
        if time.seconds >= 0 { UNIX_EPOCH.checked_add(seconds) } else { UNIX_EPOCH.checked_sub(seconds) };
    whole.and_then(|whole| whole.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
}

/// The protocol's seconds and nanoseconds. Before 1970 the transport subtracts the nanoseconds instead of
/// adding them; taking the distance to 1970 apart again gives both numbers back as they were sent.
pub(super) fn from_system_time(time: SystemTime) -> Time {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => {
            Time { seconds: i64::try_from(after.as_secs()).unwrap_or(i64::MAX), nanos: after.subsec_nanos() }
        }
        Err(before) => {
            let before = before.duration();
            let seconds = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            Time { seconds: -seconds, nanos: before.subsec_nanos() }
        }
    }
}

pub(super) fn time_change(time: TimeOrNow) -> TimeChange {
    match time {
        TimeOrNow::Now => TimeChange::Now,
        TimeOrNow::SpecificTime(time) => TimeChange::At(from_system_time(time)),
    }
}

/// Open flags as the kernel sends them.
pub(super) fn open_request(flags: i32) -> OpenRequest {
    let flags = OFlags::from_bits_retain(flags.cast_unsigned());
    let access = flags & OFlags::RWMODE;
    OpenRequest {
        write: access == OFlags::WRONLY || access == OFlags::RDWR,
        exclusive: flags.contains(OFlags::EXCL),
        direct: flags.contains(OFlags::DIRECT),
        sync: flags.intersects(OFlags::SYNC | OFlags::DSYNC),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_come_through_as_sent() {
        // What the transport builds from seconds -2 and 300 ns.
        let sent = UNIX_EPOCH - Duration::new(2, 300);
        assert_eq!(from_system_time(sent), Time { seconds: -2, nanos: 300 });
        // What it must be given to send seconds -2 and 300 ns.
        assert_eq!(
            to_system_time(Time { seconds: -2, nanos: 300 }),
            UNIX_EPOCH - Duration::new(1, 999_999_700)
        );
    }

    #[test]
    fn open_flags_are_taken_apart() {
        let flags = OFlags::RDWR | OFlags::DSYNC | OFlags::DIRECT;
        let request = open_request(flags.bits().cast_signed());
        assert!(request.write && request.sync && request.direct);
        assert!(!request.exclusive);
        assert!(!open_request(0).write);
    }
}
