//! The one error type of the library: few kinds, each telling the caller what to do, and a message that names
//! the object.

use std::error::Error as StdError;
use std::fmt;
use std::io;

/// What a caller may do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    NotFound,
    Exists,
    NotDirectory,
    IsDirectory,
    NotEmpty,
    /// The host file system, less what is promised to others, is full.
    NoSpace,
    /// The volume's quota is used up.
    QuotaExceeded,
    ReadOnly,
    /// The request makes no sense: a bad name, a bad range, a bad flag.
    Invalid,
    NameTooLong,
    TooManyLinks,
    FileTooLarge,
    /// An extended attribute that is not there.
    NoAttribute,
    /// The answer does not fit the buffer given.
    Range,
    /// Two objects that must lie on one volume do not.
    CrossVolume,
    Unsupported,
    /// The view was destroyed while a handle to it was open.
    Stale,
    /// Something else depends on the object or holds it; the message lists what.
    InUse,
    /// Another process holds the store.
    Locked,
    NotAllowed,
    /// The object is not in the state the request needs.
    Precondition,
    /// A script or program that was run for the request failed; the message has what it said last.
    Failed,
    /// Stopped because someone asked.
    Cancelled,
    /// Stored bytes are not what was written; the message names file and place.
    Corrupt,
    /// The host failed to read or write.
    Io,
    /// The host could not read a block: it is not known to be damaged, a later try may succeed.
    Unreadable,
    /// An fsync failed earlier: what was written since is unknown, reopen the store.
    Poisoned,
}

/// An error of the library.
pub struct Error {
    kind: ErrorKind,
    message: String,
    /// What to do, when the message does not say it.
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// Result of library calls.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    pub fn with_source(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self { kind, message: message.into(), hint: None, source: Some(source.into()) }
    }

    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// An I/O error of the host while doing `action` on `object`. A full host is `NoSpace`.
    pub fn io(action: &str, object: &str, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::UnexpectedEof => ErrorKind::Corrupt,
            _ => ErrorKind::Io,
        };
        let message = format!("cannot {action} {object}: {source}");
        Self::with_source(kind, message, source)
    }

    /// As `io`, for a read of what may be there all the same.
    pub fn read(object: &str, source: io::Error) -> Self {
        let mut error = Self::io("read", object, source);
        if error.kind == ErrorKind::Io {
            error.kind = ErrorKind::Unreadable;
        }
        error
    }

    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it, if that is known here.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The same error with what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same error with what was being done put before the message.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// A copy without the source, for the second and later waiters of one failed operation.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self { kind: self.kind, message: self.message.clone(), hint: self.hint.clone(), source: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// Every kind under the name it has on the wire and in `-o json`.
const KIND_NAMES: &[(ErrorKind, &str)] = &[
    (ErrorKind::NotFound, "not_found"),
    (ErrorKind::Exists, "exists"),
    (ErrorKind::NotDirectory, "not_directory"),
    (ErrorKind::IsDirectory, "is_directory"),
    (ErrorKind::NotEmpty, "not_empty"),
    (ErrorKind::NoSpace, "no_space"),
    (ErrorKind::QuotaExceeded, "quota_exceeded"),
    (ErrorKind::ReadOnly, "read_only"),
    (ErrorKind::Invalid, "invalid"),
    (ErrorKind::NameTooLong, "name_too_long"),
    (ErrorKind::TooManyLinks, "too_many_links"),
    (ErrorKind::FileTooLarge, "file_too_large"),
    (ErrorKind::NoAttribute, "no_attribute"),
    (ErrorKind::Range, "range"),
    (ErrorKind::CrossVolume, "cross_volume"),
    (ErrorKind::Unsupported, "unsupported"),
    (ErrorKind::Stale, "stale"),
    (ErrorKind::InUse, "in_use"),
    (ErrorKind::Locked, "locked"),
    (ErrorKind::NotAllowed, "not_allowed"),
    (ErrorKind::Precondition, "precondition"),
    (ErrorKind::Failed, "failed"),
    (ErrorKind::Cancelled, "cancelled"),
    (ErrorKind::Corrupt, "corrupt"),
    (ErrorKind::Io, "io"),
    (ErrorKind::Poisoned, "poisoned"),
    (ErrorKind::Unreadable, "unreadable"),
];

/// All kinds.
pub fn kinds() -> impl Iterator<Item = ErrorKind> {
    KIND_NAMES.iter().map(|(kind, _)| *kind)
}

/// A kind's name on the wire.
pub fn kind_name(kind: ErrorKind) -> &'static str {
    KIND_NAMES.iter().find(|(known, _)| *known == kind).map_or("io", |(_, name)| name)
}

/// The kind of a name; an unknown one is `Io`, for its message says the rest.
pub fn kind_of_name(name: &str) -> ErrorKind {
    KIND_NAMES.iter().find(|(_, known)| *known == name).map_or(ErrorKind::Io, |(kind, _)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_survive_the_wire() {
        for (kind, name) in KIND_NAMES {
            assert_eq!(kind_of_name(kind_name(*kind)), *kind, "{name}");
        }
        assert_eq!(kind_of_name("no such"), ErrorKind::Io);
    }
}
