//! A simulated `Storage` in memory, for tests: it crashes at a chosen operation, leaves behind what a crash
//! could leave, and fails on demand. Deterministic: the same calls and seeds give the same bytes.
//!
//! What is durable: bytes and length of a file by its `sync_data`, names by `sync_dir` of their folder, and
//! nothing else. At a crash any subset of the later changes of a file may have landed, each whole or torn at
//! sectors, and of the later changes of names a start in order per folder.
//!
//! Files are renamed, folders are not. Must not know who stores what in the files.

mod content;
mod fault;
mod names;
mod node;
mod state;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::storage::{MappedBytes, OpenMode, SpaceInfo, Storage, StorageFile};
use names::FileId;
use node::Change;
use state::State;

pub use fault::{Fault, FaultError, FaultOn};

/// Which changes that no sync made durable are found after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landing {
    All,
    None,
    /// A part of them, drawn from the seed.
    Random(u64),
}

/// A directory in memory. Clones share it; `fork` and `after_crash` make independent ones.
#[derive(Clone)]
pub struct SimStorage {
    state: Arc<Mutex<State>>,
}

impl Default for SimStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl SimStorage {
    /// An empty directory without space limit.
    pub fn new() -> Self {
        Self::of(State::new())
    }

    fn of(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// An independent copy of all files, with what is durable and what is not; no handles, faults or crash.
    /// Costs little: contents are shared until one side writes.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::of(self.state.lock().fork())
    }

    /// The directory that the next start finds if the host stops now (or stopped at the crash point).
    #[must_use]
    pub fn after_crash(&self, landing: Landing) -> Self {
        Self::of(self.state.lock().after_crash(landing))
    }

    /// Changing operations so far: every create, write, `set_len`, allocate, punch, sync, rename, remove and
    /// `sync_dir` that was not refused for a bad argument. Each is a point to crash at.
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Crashes in operation `number`, counted from 0: it may land or not, its caller gets an error, and so does
    /// every later call.
    pub fn crash_at(&self, number: u64) {
        self.state.lock().crash_at = Some(number);
    }

    /// The operation in which it crashed, if it has.
    pub fn crashed(&self) -> Option<String> {
        self.state.lock().crashed.clone()
    }

    /// Adds a fault to those that wait.
    pub fn inject(&self, fault: Fault) {
        self.state.lock().faults.add(fault);
    }

    pub fn clear_faults(&self) {
        self.state.lock().faults.clear();
    }

    /// While set, syncs return success and make nothing durable.
    pub fn set_lying_sync(&self, lying: bool) {
        self.state.lock().lying_sync = lying;
    }

    /// Bytes of the simulated disk; `None` is 1 TiB. Less than what is taken leaves nothing available.
    pub fn set_total_bytes(&self, total_bytes: Option<u64>) {
        self.state.lock().set_total_bytes(total_bytes);
    }

    /// Names and lengths of all files, sorted by name.
    pub fn files(&self) -> Vec<(String, u64)> {
        self.state.lock().files()
    }

    /// All bytes of a file, past faults.
    pub fn read_raw(&self, name: &str) -> io::Result<Vec<u8>> {
        let state = self.state.lock();
        let content = state.node(state.find(name)?)?.current();
        let mut bytes = vec![0; usize::try_from(content.len()).map_err(io::Error::other)?];
        content.read(&mut bytes, 0);
        Ok(bytes)
    }

    /// Puts bytes into a file, durably, past faults and counters.
    pub fn write_raw(&self, name: &str, offset: u64, data: &[u8]) -> io::Result<()> {
        let change = Change::Write { offset, data: Arc::from(data) };
        self.state.lock().change_durably(name, &change)
    }

    /// Turns one bit of the byte at `offset` over, durably.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u32) -> io::Result<()> {
        let mut state = self.state.lock();
        let content = state.node(state.find(name)?)?.current();
        if offset >= content.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut byte = [0];
        content.read(&mut byte, offset);
        byte[0] ^= 1 << (bit % 8);
        state.change_durably(name, &Change::Write { offset, data: Arc::from(byte) })
    }

    /// Sets a file's length, durably.
    pub fn truncate_raw(&self, name: &str, length: u64) -> io::Result<()> {
        self.state.lock().change_durably(name, &Change::SetLen { length })
    }

    /// Removes a file, durably.
    pub fn remove_raw(&self, name: &str) -> io::Result<()> {
        self.state.lock().remove_durably(name)
    }
}

impl Storage for SimStorage {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let id = self.state.lock().open(name, mode)?;
        let writable = mode != OpenMode::Read;
        Ok(Arc::new(SimFile { state: Arc::clone(&self.state), id, name: name.to_owned(), writable }))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.state.lock().list(dir)
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.state.lock().create_dir(dir)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.state.lock().remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.state.lock().rename(from, to)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.state.lock().sync_dir(dir)
    }

    fn space(&self) -> io::Result<SpaceInfo> {
        self.state.lock().space()
    }
}

struct SimFile {
    state: Arc<Mutex<State>>,
    id: FileId,
    /// The name it was opened by, for faults and messages.
    name: String,
    writable: bool,
}

impl SimFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(rustix::io::Errno::BADF.into()) }
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.state.lock().close(self.id);
    }
}

impl StorageFile for SimFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.state.lock().read(self.id, &self.name, buffer, offset)
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        self.state.lock().write(self.id, &self.name, data, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.state.lock().sync(self.id, &self.name)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().node(self.id)?.current().len())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.check_writable()?;
        self.state.lock().set_len(self.id, &self.name, length)
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        self.check_writable()?;
        self.state.lock().allocate(self.id, &self.name, offset, length)
    }

    fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()> {
        self.check_writable()?;
        self.state.lock().punch(self.id, &self.name, offset, length)
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        Ok(self.state.lock().node(self.id)?.current().allocated_bytes())
    }

    fn map(&self, offset: u64, length: usize) -> io::Result<MappedBytes> {
        let length_found = self.len()?;
        if length as u64 > length_found.saturating_sub(offset) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; length];
        self.read_exact_at(&mut bytes, offset)?;
        Ok(Box::new(bytes))
    }
}
