//! Exit statuses and errors as the command line shows them. The one table from kinds to statuses is here.

use std::process::ExitCode;

use crate::base::{Error, ErrorKind};
use crate::control::Message;

/// How a command that did not fail ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// Done, but something needs a look.
    Warnings,
    /// What was looked at is not as it should be; the report is on stdout.
    Findings,
    /// As PostgreSQL takes the status of a restore command.
    Status(u8),
}

impl Outcome {
    pub(super) fn code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Done => 0,
            Self::Findings => 1,
            Self::Warnings => 3,
            Self::Status(status) => status,
        })
    }
}

/// Result of a command.
pub(super) type Result<T> = std::result::Result<T, Failure>;

/// An error with what to do about it.
#[derive(Debug)]
pub(super) struct Failure {
    pub error: Error,
    pub hint: Option<String>,
}

impl Failure {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error::new(kind, message).into()
    }

    /// The same with advice of its own instead of the kind's.
    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// For the process that waits for this one's start.
    pub(super) fn message(&self) -> Message {
        match &self.hint {
            Some(hint) => Message::failed(&self.error.duplicate().with_hint(hint)),
            None => Message::failed(&self.error),
        }
    }

    pub(super) fn code(&self) -> ExitCode {
        ExitCode::from(status(self.error.kind()))
    }

    /// What to do: the advice given with the error, or what goes for all of its kind.
    pub(super) fn advice(&self) -> Option<&str> {
        self.hint.as_deref().or_else(|| self.error.hint()).or_else(|| advice(self.error.kind()))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, hint: None }
    }
}

/// The exit status of an error.
pub(super) fn status(kind: ErrorKind) -> u8 {
    use ErrorKind as K;
    match kind {
        K::Invalid | K::NameTooLong | K::Range => 2,
        K::NotFound | K::NoAttribute | K::Stale => 10,
        K::Exists | K::InUse | K::Locked | K::NotEmpty => 11,
        K::NotAllowed | K::ReadOnly => 12,
        K::Precondition | K::Unsupported => 13,
        K::NotDirectory
        | K::IsDirectory
        | K::NoSpace
        | K::QuotaExceeded
        | K::TooManyLinks
        | K::FileTooLarge
        | K::CrossVolume
        | K::Corrupt
        | K::Io
        | K::Poisoned
        | K::Unreadable
        | K::Failed
        | K::Cancelled => 1,
    }
}

fn advice(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::Locked => Some("wait for that process, or end it, and try again"),
        ErrorKind::NoSpace => {
            Some("destroy a snapshot or volume, or free room on the host file system, and try again")
        }
        ErrorKind::QuotaExceeded => {
            Some("raise the quota with `stillpoint volume quota`, or free room in it")
        }
        ErrorKind::Corrupt => Some("see what is affected with `stillpoint store scrub`"),
        ErrorKind::Poisoned => Some("unmount the store, look at the host's disk, and mount again"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_the_errors_own() {
        let refused = Failure::from(Error::new(ErrorKind::NotAllowed, "qa is locked"));
        assert_eq!(refused.advice(), None);
        let refused = Failure::from(refused.error.with_hint("unlock it"));
        assert_eq!(refused.advice(), Some("unlock it"));
        assert_eq!(refused.hint("no, delete it").advice(), Some("no, delete it"));
    }

    #[test]
    fn the_documented_statuses() {
        for (kind, expected) in [
            (ErrorKind::Io, 1),
            (ErrorKind::Invalid, 2),
            (ErrorKind::NotFound, 10),
            (ErrorKind::InUse, 11),
            (ErrorKind::Locked, 11),
            (ErrorKind::Exists, 11),
            (ErrorKind::NotAllowed, 12),
            (ErrorKind::ReadOnly, 12),
            (ErrorKind::Precondition, 13),
        ] {
            assert_eq!(status(kind), expected, "{kind:?}");
        }
    }
}
