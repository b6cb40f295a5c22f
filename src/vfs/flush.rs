//! Pulling the kernel's dirty pages before a snapshot.
//!
//! With write-back caching a returned `write` may still lie in the kernel. The kernel offers FUSE no way to push
//! everything and wait: `syncfs` on such a mount starts the writes but, since Linux 6.18, does not wait for
//! them. So each inode open for writing is flushed by an `fsync` that asks the store for nothing. Others
//! cannot be dirty, for the kernel writes back at each close and unmap.
//!
//! To open an inode by number, the flushing thread, and it alone, finds files under made-up names in the mount's
//! root. Holding them open for writing, or flushing in the order of writes, is not needed: a database's own
//! `fsync` order holds in the cut, because what an `fsync` covered had left the kernel before it returned.

use super::attributes::{VALID, timed};
use super::node::{Node, TOP_NODE};
use super::tree::Vfs;
use crate::base::{Error, Result};
use crate::volume::ViewId;
use parking_lot::Mutex;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use stillpoint_fuse::{Answer, Caller, Entry, NodeId};

/// How a made-up name starts; the node's number in decimal follows.
const NAME_PREFIX: &str = ".stillpoint-flush-";

/// Knows the thread that flushes.
#[derive(Debug, Default)]
pub(crate) struct FlushGate {
    one_at_a_time: Mutex<()>,
    /// The flushing thread's id, or 0: no request comes from thread 0.
    thread: AtomicU32,
}

impl FlushGate {
    /// Whether the request comes from the flushing thread.
    pub(crate) fn admits(&self, caller: Caller) -> bool {
        let thread = self.thread.load(Ordering::Acquire);
        thread != 0 && thread == caller.thread
    }
}

impl Vfs {
    /// Brings every write to the volume that returned before this call from the kernel to the store. `root` is
    /// the mount's directory. Blocks on the event loops: never call it from one.
    pub(super) fn flush_view(&self, root: &Path, view: ViewId) -> Result<()> {
        let _one = self.gate.one_at_a_time.lock();
        let thread = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        self.gate.thread.store(thread, Ordering::Release);
        let outcome = self.open.written_inodes(view).into_iter().try_for_each(|ino| {
            let node = Node::Object(view, ino);
            self.numbering.number(node).map_or(Ok(()), |number| flush_node(root, number))
        });
        self.gate.thread.store(0, Ordering::Release);
        outcome
    }

    /// The file under a made-up name, for the flushing thread.
    pub(super) fn lookup_for_flush(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &[u8],
    ) -> Answer<Option<Entry>> {
        if parent != TOP_NODE || !self.gate.admits(caller) {
            return Ok(None);
        }
        let number = str::from_utf8(name)
            .ok()
            .and_then(|name| name.strip_prefix(NAME_PREFIX))
            .and_then(|number| number.parse::<NodeId>().ok());
        let Some(number) = number else { return Ok(None) };
        let Node::Object(view, ino) = self.node(number)? else { return Ok(None) };
        let found = self.view(view)?.attributes(ino).map_err(|error| self.errno(&error))?;
        // The name must not outlive the flush in the kernel.
        Ok(Some(Entry { found: Some(timed(number, &found, VALID)), valid: Duration::ZERO }))
    }
}

fn flush_node(root: &Path, number: NodeId) -> Result<()> {
    let path = root.join(format!("{NAME_PREFIX}{number}"));
    let outcome = File::open(&path).and_then(|file| file.sync_data());
    match outcome {
        Ok(()) => Ok(()),
        // Unlinked and closed since it was seen open: nothing of it can be in a snapshot.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("flush the kernel's pages of", &format!("node {number}"), error)),
    }
}
