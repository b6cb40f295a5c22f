//! Requests counted by kind, so that chatter between kernel and daemon can be seen.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! opcodes {
    ($($variant:ident $name:literal,)*) => {
        /// Kinds of request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Opcode { $($variant,)* }

        impl Opcode {
            const ALL: &'static [(Opcode, &'static str)] = &[$((Opcode::$variant, $name),)*];
        }
    };
}

opcodes! {
    Lookup "lookup",
    Forget "forget",
    GetAttributes "getattr",
    SetAttributes "setattr",
    ReadLink "readlink",
    MakeNode "mknod",
    MakeDirectory "mkdir",
    Unlink "unlink",
    RemoveDirectory "rmdir",
    Symlink "symlink",
    Rename "rename",
    Link "link",
    Open "open",
    Create "create",
    Read "read",
    Write "write",
    Flush "flush",
    Release "release",
    Sync "fsync",
    OpenDirectory "opendir",
    ReadDirectory "readdir",
    ReadDirectoryPlus "readdirplus",
    ReleaseDirectory "releasedir",
    SyncDirectory "fsyncdir",
    Statistics "statfs",
    SetXattr "setxattr",
    GetXattr "getxattr",
    ListXattrs "listxattr",
    RemoveXattr "removexattr",
    Space "fallocate",
    Seek "lseek",
    Copy "copy_file_range",
    Other "other",
}

/// Counts since the mount, readable at any time.
#[derive(Debug)]
pub struct Counters {
    requests: Vec<AtomicU64>,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    panics: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            requests: Opcode::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            bytes_read: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
            panics: AtomicU64::new(0),
        }
    }
}

impl Counters {
    /// Requests of one kind so far.
    pub fn requests(&self, opcode: Opcode) -> u64 {
        self.requests.get(opcode as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Names and counts of all kinds that occurred.
    pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
        Opcode::ALL
            .iter()
            .map(|&(opcode, name)| (name, self.requests(opcode)))
            .filter(|&(_, count)| count > 0)
            .collect()
    }

    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    pub fn bytes_written(&self) -> u64 {
        self.bytes_written.load(Ordering::Relaxed)
    }

    /// Requests whose handler panicked; each was answered with `EIO`.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    pub(crate) fn count(&self, opcode: Opcode) {
        if let Some(count) = self.requests.get(opcode as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn count_read(&self, bytes: usize) {
        self.bytes_read.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn count_written(&self, bytes: usize) {
        self.bytes_written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn count_panic(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_kind_and_names_only_what_occurred() {
        let counters = Counters::default();
        counters.count(Opcode::Write);
        counters.count(Opcode::Write);
        counters.count(Opcode::Other);
        assert_eq!(counters.requests(Opcode::Write), 2);
        assert_eq!(counters.snapshot(), vec![("write", 2), ("other", 1)]);
    }
}
