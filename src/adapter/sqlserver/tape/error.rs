//! Why a backup file cannot be read, each cause apart.
//!
//! Invariant: every error says at which byte of the file it was seen; the caller adds the file's name. Must not know
//! what will be done about it beyond one sentence of advice.

use std::fmt;
use std::io;

use crate::base::{Error, ErrorKind};

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A compressed backup: begins with `MSSQLBAK`, or has compressed streams.
    Compressed,
    Encrypted,
    /// No backup of SQL Server at all, or one of another program.
    Foreign,
    /// It ends before the backup does.
    Truncated,
    /// What is there is not what was written.
    Damaged,
    /// The host could not read it.
    Io,
}

/// What stopped the reading of a backup file, and where.
#[derive(Debug)]
pub struct TapeError {
    pub fault: Fault,
    /// Byte offset in the file.
    pub at: u64,
    message: String,
    source: Option<io::Error>,
}

impl TapeError {
    pub(super) fn new(fault: Fault, at: u64, message: String) -> Self {
        Self { fault, at, message, source: None }
    }

    pub(super) fn truncated(at: u64, message: impl Into<String>) -> Self {
        Self::new(Fault::Truncated, at, message.into())
    }

    pub(super) fn io(at: u64, source: io::Error) -> Self {
        let message = format!("cannot read: {source}");
        Self { fault: Fault::Io, at, message, source: Some(source) }
    }

    /// What to do about it.
    fn hint(&self) -> &'static str {
        match self.fault {
            Fault::Compressed => "its header is known to SQL Server alone: ask one with RESTORE HEADERONLY",
            Fault::Encrypted => {
                "ask a SQL Server that has the certificate or key it was encrypted with, by RESTORE HEADERONLY"
            }
            Fault::Foreign => "name a file that BACKUP DATABASE or BACKUP LOG wrote",
            Fault::Truncated => "copy it again from where it was written, or wait until that has ended",
            Fault::Damaged => {
                "copy it again from where it was written, and check it there by RESTORE VERIFYONLY"
            }
            Fault::Io => "see the host's log for that device",
        }
    }

    /// As an error of the library, about the file of that name.
    pub fn about(self, file: &str) -> Error {
        let kind = match self.fault {
            Fault::Compressed | Fault::Encrypted => ErrorKind::Unsupported,
            Fault::Foreign => ErrorKind::Invalid,
            Fault::Truncated | Fault::Damaged => ErrorKind::Corrupt,
            Fault::Io => ErrorKind::Unreadable,
        };
        let hint = self.hint();
        let message = format!("backup file {file}: {self}");
        match self.source {
            Some(source) => Error::with_source(kind, message, source),
            None => Error::new(kind, message),
        }
        .with_hint(hint)
    }
}

impl fmt::Display for TapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.fault {
            Fault::Compressed => "compressed backup",
            Fault::Encrypted => "encrypted backup",
            Fault::Foreign => "no backup of SQL Server",
            Fault::Truncated => "truncated",
            Fault::Damaged => "damaged",
            Fault::Io => "unreadable",
        };
        write!(f, "{what}: {} (at byte {})", self.message, self.at)
    }
}

impl std::error::Error for TapeError {}
