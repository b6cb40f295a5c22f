//! The library's attributes in the mount's terms, and how long the kernel may keep them.

use crate::base::Clock;
use crate::volume::{Attributes, FileKind, Timestamp};
use std::time::Duration;
use stillpoint_fuse as fuse;
use stillpoint_fuse::{NodeId, NodeKind, Time, TimeChange};

/// Inside a volume everything changes through the kernel, which then knows.
pub(crate) const VALID: Duration = Duration::from_secs(3600);

/// Volumes and snapshots come and go by commands. The kernel is told, but what it asks at that very moment it
/// may keep: this bounds for how long.
pub(crate) const VALID_LISTS: Duration = Duration::from_secs(1);

/// The page size: reads and writes of whole pages are cheapest.
const BLOCK_SIZE: u32 = 8192;

pub(crate) fn kind_of(kind: FileKind) -> NodeKind {
    match kind {
        FileKind::File => NodeKind::File,
        FileKind::Directory => NodeKind::Directory,
        FileKind::Symlink => NodeKind::Symlink,
        FileKind::Fifo => NodeKind::Fifo,
        FileKind::Socket => NodeKind::Socket,
        FileKind::CharDevice => NodeKind::CharDevice,
        FileKind::BlockDevice => NodeKind::BlockDevice,
    }
}

pub(crate) fn timed(number: NodeId, attributes: &Attributes, valid: Duration) -> fuse::Timed {
    let attributes = fuse::Attributes {
        ino: number,
        kind: kind_of(attributes.kind),
        mode: attributes.mode,
        links: attributes.links,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: attributes.rdev,
        size: attributes.size,
        blocks: attributes.blocks,
        block_size: BLOCK_SIZE,
        accessed: time(attributes.accessed),
        modified: time(attributes.modified),
        changed: time(attributes.changed),
    };
    fuse::Timed { attributes, valid }
}

/// A directory that exists in no volume.
pub(crate) fn made_up_directory(number: NodeId, links: u32, at: Timestamp) -> fuse::Timed {
    let at = time(at);
    let attributes = fuse::Attributes {
        ino: number,
        kind: NodeKind::Directory,
        mode: 0o755,
        links,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 0,
        blocks: 0,
        block_size: BLOCK_SIZE,
        accessed: at,
        modified: at,
        changed: at,
    };
    fuse::Timed { attributes, valid: VALID_LISTS }
}

pub(crate) fn time(timestamp: Timestamp) -> Time {
    Time { seconds: timestamp.seconds, nanos: timestamp.nanos }
}

pub(crate) fn timestamp(time: Time) -> Timestamp {
    Timestamp { seconds: time.seconds, nanos: time.nanos }
}

pub(crate) fn timestamp_of(change: TimeChange, clock: &dyn Clock) -> Timestamp {
    match change {
        TimeChange::Now => now(clock),
        TimeChange::At(time) => timestamp(time),
    }
}

pub(crate) fn now(clock: &dyn Clock) -> Timestamp {
    let nanos = clock.unix_nanos();
    let below_second = nanos.rem_euclid(1_000_000_000);
    Timestamp { seconds: nanos.div_euclid(1_000_000_000), nanos: u32::try_from(below_second).unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    struct Fixed(i64);

    impl Clock for Fixed {
        fn unix_nanos(&self) -> i64 {
            self.0
        }

        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }

        fn sleep(&self, _: Duration) {}
    }

    #[test]
    fn nanoseconds_count_forward_before_1970_too() {
        let before = now(&Fixed(-1));
        assert_eq!((before.seconds, before.nanos), (-1, 999_999_999));
        let after = now(&Fixed(1_500_000_000));
        assert_eq!((after.seconds, after.nanos), (1, 500_000_000));
    }
}
