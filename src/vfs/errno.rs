//! The library's kinds of error as error numbers of system calls: the one table.

use crate::base::{Error, ErrorKind};
use parking_lot::Mutex;
use std::collections::HashSet;
use stillpoint_fuse::Errno;

/// Different failures remembered so that each is logged once. Beyond that a failing disk fills no log.
const LOGGED_MAX: usize = 1000;

/// What the caller of a system call gets for a kind of error.
pub(crate) fn errno_of(kind: ErrorKind) -> Errno {
    match kind {
        ErrorKind::NotFound => Errno::NOENT,
        ErrorKind::Exists => Errno::EXIST,
        ErrorKind::NotDirectory => Errno::NOTDIR,
        ErrorKind::IsDirectory => Errno::ISDIR,
        ErrorKind::NotEmpty => Errno::NOTEMPTY,
        ErrorKind::NoSpace => Errno::NOSPC,
        ErrorKind::QuotaExceeded => Errno::DQUOT,
        ErrorKind::ReadOnly => Errno::ROFS,
        ErrorKind::Invalid => Errno::INVAL,
        ErrorKind::NameTooLong => Errno::NAMETOOLONG,
        ErrorKind::TooManyLinks => Errno::MLINK,
        ErrorKind::FileTooLarge => Errno::FBIG,
        ErrorKind::NoAttribute => Errno::NODATA,
        ErrorKind::Range => Errno::RANGE,
        ErrorKind::CrossVolume => Errno::XDEV,
        ErrorKind::Unsupported => Errno::OPNOTSUPP,
        ErrorKind::Stale => Errno::STALE,
        ErrorKind::InUse | ErrorKind::Locked => Errno::BUSY,
        ErrorKind::NotAllowed | ErrorKind::Precondition => Errno::PERM,
        ErrorKind::Corrupt
        | ErrorKind::Io
        | ErrorKind::Unreadable
        | ErrorKind::Poisoned
        | ErrorKind::Failed => Errno::IO,
        ErrorKind::Cancelled => Errno::CANCELED,
    }
}

/// Failures of the store seen through the mount, each logged once.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    logged: Mutex<HashSet<String>>,
}

impl Failures {
    /// The error number, and a line in the log when the store itself failed: the system call's caller learns
    /// no more than EIO.
    pub(crate) fn errno(&self, error: &Error) -> Errno {
        if matches!(
            error.kind(),
            ErrorKind::Corrupt | ErrorKind::Io | ErrorKind::Unreadable | ErrorKind::Poisoned
        ) {
            let mut logged = self.logged.lock();
            if logged.len() < LOGGED_MAX && logged.insert(error.message().to_owned()) {
                tracing::error!(kind = ?error.kind(), "{error}");
            }
        }
        errno_of(error.kind())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_failure_is_eio_and_remembered_once() {
        let failures = Failures::default();
        for _ in 0..3 {
            assert_eq!(failures.errno(&Error::corrupt("segment 3, slot 9")), Errno::IO);
        }
        assert_eq!(failures.errno(&Error::not_found("x")), Errno::NOENT);
        assert_eq!(failures.logged.lock().len(), 1);
    }
}
