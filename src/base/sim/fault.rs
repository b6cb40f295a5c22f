//! Which simulated operations fail, and how.
//!
//! Must not know what a failed operation leaves behind.

use std::io;

use rustix::io::Errno;

/// The operations that a fault may hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultOn {
    /// `read_exact_at` and `map`.
    Read,
    /// `write_all_at`, `set_len`, `allocate`, `punch_hole`.
    Write,
    /// `sync_data` and `sync_dir`.
    Sync,
    /// Creating, renaming and removing.
    Name,
}

/// The error that a fault returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultError {
    /// EIO.
    Io,
    /// ENOSPC.
    NoSpace,
}

impl FaultError {
    pub(super) fn to_error(self) -> io::Error {
        match self {
            Self::Io => Errno::IO.into(),
            Self::NoSpace => Errno::NOSPC.into(),
        }
    }
}

/// An error to return for one or more coming operations.
#[derive(Clone, Debug)]
pub struct Fault {
    pub on: FaultOn,
    /// How many matching operations succeed first.
    pub after: u64,
    pub error: FaultError,
    /// All later ones fail too.
    pub for_ever: bool,
    /// Only files (for `sync_dir`: folders) whose name starts so.
    pub prefix: String,
}

impl Fault {
    /// Fails one operation, after `after` of them.
    pub fn once(on: FaultOn, after: u64, error: FaultError) -> Self {
        Self { on, after, error, for_ever: false, prefix: String::new() }
    }

    /// Fails every operation, after `after` of them.
    pub fn for_ever(on: FaultOn, after: u64, error: FaultError) -> Self {
        Self { for_ever: true, ..Self::once(on, after, error) }
    }

    /// The same for names that start with `prefix`.
    #[must_use]
    pub fn of(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.prefix);
        self
    }
}

/// The faults of one storage, with how many matching operations each has seen.
#[derive(Default)]
pub(super) struct FaultPlan(Vec<(Fault, u64)>);

impl FaultPlan {
    pub(super) fn add(&mut self, fault: Fault) {
        self.0.push((fault, 0));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The error for the operation that is about to run, if it is one that fails.
    pub(super) fn check(&mut self, on: FaultOn, name: &str) -> Option<io::Error> {
        let mut found = None;
        for (fault, seen) in &mut self.0 {
            if fault.on != on || !name.starts_with(&fault.prefix) {
                continue;
            }
            if *seen == fault.after || (fault.for_ever && *seen > fault.after) {
                found = found.or(Some(fault.error));
            }
            *seen += 1;
        }
        found.map(FaultError::to_error)
    }
}
