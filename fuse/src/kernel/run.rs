//! Running one request: counted, fenced against panics, answered.

use super::convert::{entry_parts, errno, file_attr};
use super::replies::give_empty;
use crate::counters::{Counters, Opcode};
use crate::filesystem::{Answer, FileSystem};
use crate::types::{Entry, Timed};
use fuser::{Generation, INodeNo, ReplyAttr, ReplyEmpty, ReplyEntry, ReplyWrite, ReplyXattr};
use rustix::io::Errno;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

/// Inode numbers are never used twice, so one generation does.
pub(super) const GENERATION: Generation = Generation(0);

/// The transport's view of a file system.
pub(super) struct Requests<F> {
    pub(super) filesystem: Arc<F>,
    pub(super) counters: Arc<Counters>,
    pub(super) writeback: bool,
    /// Set once the mount is up.
    pub(super) notifier: Arc<OnceLock<fuser::Notifier>>,
}

impl<F: FileSystem> Requests<F> {
    pub(super) fn new(filesystem: Arc<F>, counters: Arc<Counters>, writeback: bool) -> Self {
        Self { filesystem, counters, writeback, notifier: Arc::default() }
    }

    /// Where the mount's notifier goes once there is one.
    pub(super) fn notifier_slot(&self) -> Arc<OnceLock<fuser::Notifier>> {
        Arc::clone(&self.notifier)
    }

    /// Runs one request. A panic drops the reply inside `work`, which answers `EIO`.
    pub(super) fn run(&self, opcode: Opcode, work: impl FnOnce(&F)) {
        self.counters.count(opcode);
        if catch_unwind(AssertUnwindSafe(|| work(&self.filesystem))).is_err() {
            self.counters.count_panic();
            tracing::error!(request = ?opcode, "a request's handler panicked; it was answered with EIO");
        }
    }

    pub(super) fn run_empty(&self, opcode: Opcode, reply: ReplyEmpty, work: impl FnOnce(&F) -> Answer<()>) {
        self.run(opcode, |filesystem| give_empty(reply, work(filesystem)));
    }

    pub(super) fn run_entry(
        &self,
        opcode: Opcode,
        reply: ReplyEntry,
        work: impl FnOnce(&F) -> Answer<Entry>,
    ) {
        self.run(opcode, |filesystem| match work(filesystem) {
            Ok(entry) => {
                let (attributes_valid, name_valid, attr) = entry_parts(&entry);
                reply.entry_with_ttls(&attributes_valid, &name_valid, &attr, GENERATION);
            }
            Err(error) => reply.error(errno(error)),
        });
    }

    pub(super) fn run_attr(&self, opcode: Opcode, reply: ReplyAttr, work: impl FnOnce(&F) -> Answer<Timed>) {
        self.run(opcode, |filesystem| match work(filesystem) {
            Ok(timed) => reply.attr(&timed.valid, &file_attr(&timed.attributes)),
            Err(error) => reply.error(errno(error)),
        });
    }

    pub(super) fn run_write(&self, opcode: Opcode, reply: ReplyWrite, work: impl FnOnce(&F) -> Answer<u64>) {
        self.run(opcode, |filesystem| match work(filesystem) {
            Ok(length) => reply.written(u32::try_from(length).unwrap_or(u32::MAX)),
            Err(error) => reply.error(errno(error)),
        });
    }

    /// Has the kernel write back the inode's dirty pages, then seeks: it asks where data lies without doing so
    /// itself, and would take what only its cache holds for a hole. The caller of `lseek` holds the inode's
    /// lock, so that of all ways only an invalidation can do it, from a thread that serves no requests. There
    /// are at most as many such threads as callers waiting in `lseek`.
    pub(super) fn after_write_back(
        &self,
        notifier: fuser::Notifier,
        ino: INodeNo,
        seek: impl FnOnce(&F) + Send + 'static,
    ) {
        let filesystem = Arc::clone(&self.filesystem);
        let spawned = std::thread::Builder::new().name("fuse-seek".to_owned()).spawn(move || {
            if let Err(error) = notifier.inval_inode(ino, 0, 0) {
                tracing::warn!(node = ino.0, %error, "the kernel did not write back before a seek");
            }
            seek(&filesystem);
        });
        if let Err(error) = spawned {
            // The reply went with the closure, and was answered with EIO.
            tracing::error!(%error, "cannot start a thread for a seek");
        }
    }

    pub(super) fn run_xattr(
        &self,
        opcode: Opcode,
        size: u32,
        reply: ReplyXattr,
        work: impl FnOnce(&F) -> Answer<Vec<u8>>,
    ) {
        self.run(opcode, |filesystem| match work(filesystem) {
            Ok(value) => match u32::try_from(value.len()) {
                Ok(length) if size == 0 => reply.size(length),
                Ok(length) if length <= size => reply.data(&value),
                _ => reply.error(errno(Errno::RANGE)),
            },
            Err(error) => reply.error(errno(error)),
        });
    }
}
