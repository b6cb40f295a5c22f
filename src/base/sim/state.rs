//! Everything one simulated storage holds, behind its lock.
//!
//! Must not know of handles' types nor of the `Storage` trait; decides what crashes, fails and lands.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use super::Landing;
use super::content::BLOCK_BYTES;
use super::fault::{FaultOn, FaultPlan};
use super::names::{FileId, NameChange, Names, parent};
use super::node::{Change, Node, Odds, SECTOR_BYTES};
use crate::base::random::{Random, SeededRandom};
use crate::base::storage::{OpenMode, SpaceInfo, check_name};

/// Space of a storage whose test sets no limit.
const TOTAL_BYTES: u64 = 1 << 40;
/// As on the host: offsets are signed there.
const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// What becomes of an operation that is about to run.
enum Step {
    Run,
    Crash,
    Fail(io::Error),
}

pub(super) struct State {
    names: Names,
    nodes: BTreeMap<FileId, Node>,
    next_id: FileId,
    total_bytes: u64,
    /// Bytes taken by files that have a name or a handle.
    used_bytes: u64,
    pub(super) faults: FaultPlan,
    pub(super) lying_sync: bool,
    pub(super) operations: u64,
    pub(super) crash_at: Option<u64>,
    /// The operation in which it crashed.
    pub(super) crashed: Option<String>,
}

impl State {
    pub(super) fn new() -> Self {
        Self::with(Names::default(), BTreeMap::new(), 0, TOTAL_BYTES)
    }

    fn with(names: Names, nodes: BTreeMap<FileId, Node>, next_id: FileId, total_bytes: u64) -> Self {
        let used_bytes =
            names.current().files.values().filter_map(|id| nodes.get(id)).map(allocated_bytes).sum();
        Self {
            names,
            nodes,
            next_id,
            total_bytes,
            used_bytes,
            faults: FaultPlan::default(),
            lying_sync: false,
            operations: 0,
            crash_at: None,
            crashed: None,
        }
    }

    pub(super) fn fork(&self) -> Self {
        let mut nodes = self.nodes.clone();
        nodes.values_mut().for_each(|node| node.handles = 0);
        Self::with(self.names.clone(), nodes, self.next_id, self.total_bytes)
    }

    pub(super) fn after_crash(&self, landing: Landing) -> Self {
        let (tree, random, odds) = match landing {
            Landing::All => (self.names.all(), None, None),
            Landing::None => (self.names.none(), None, None),
            Landing::Random(seed) => {
                let random = SeededRandom::new(seed);
                let odds = draw_odds(&random);
                (self.names.random(&random), Some(random), Some(odds))
            }
        };
        let mut nodes = BTreeMap::new();
        for id in tree.files.values() {
            let Some(node) = self.nodes.get(id) else { continue };
            let content = match (landing, &random, odds) {
                (Landing::All, ..) => node.all(),
                (Landing::Random(_), Some(random), Some(odds)) => node.random(odds, random),
                _ => node.none(),
            };
            nodes.insert(*id, Node::settled(content));
        }
        Self::with(Names::settled(tree), nodes, self.next_id, self.total_bytes)
    }

    fn step(&mut self, on: FaultOn, name: &str, what: &str) -> io::Result<Step> {
        self.refuse_if_crashed()?;
        let number = self.operations;
        self.operations += 1;
        if self.crash_at == Some(number) {
            self.crashed = Some(format!("{what} {name:?}, operation {number}"));
            return Ok(Step::Crash);
        }
        Ok(self.faults.check(on, name).map_or(Step::Run, Step::Fail))
    }

    fn refuse_if_crashed(&self) -> io::Result<()> {
        if self.crashed.is_some() { Err(crash_error()) } else { Ok(()) }
    }

    pub(super) fn open(&mut self, name: &str, mode: OpenMode) -> io::Result<FileId> {
        check_name(name)?;
        self.refuse_if_crashed()?;
        let id = if mode == OpenMode::CreateNew { self.create(name)? } else { self.find(name)? };
        if let Some(node) = self.nodes.get_mut(&id) {
            node.handles += 1;
        }
        Ok(id)
    }

    fn create(&mut self, name: &str) -> io::Result<FileId> {
        self.check_folder(parent(name))?;
        let tree = self.names.current();
        if tree.files.contains_key(name) || tree.has_folder(name) {
            return Err(Errno::EXIST.into());
        }
        let id = self.next_id;
        let change = NameChange::Create { name: name.to_owned(), id };
        match self.step(FaultOn::Name, name, "create")? {
            Step::Run => self.names.change(change),
            Step::Crash => self.names.change_at_crash(change),
            Step::Fail(error) => return Err(error),
        }
        self.next_id += 1;
        self.nodes.insert(id, Node::default());
        self.refuse_if_crashed()?;
        Ok(id)
    }

    pub(super) fn find(&self, name: &str) -> io::Result<FileId> {
        let tree = self.names.current();
        match tree.files.get(name) {
            Some(id) => Ok(*id),
            None if tree.has_folder(name) => Err(Errno::ISDIR.into()),
            None => {
                self.check_folder(parent(name))?;
                Err(Errno::NOENT.into())
            }
        }
    }

    fn check_folder(&self, folder: &str) -> io::Result<()> {
        let tree = self.names.current();
        if tree.has_folder(folder) {
            return Ok(());
        }
        let is_file = tree.files.contains_key(folder);
        Err(if is_file { Errno::NOTDIR } else { Errno::NOENT }.into())
    }

    pub(super) fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.refuse_if_crashed()?;
        self.check_folder(folder)?;
        let start = if folder.is_empty() { 0 } else { folder.len() + 1 };
        let files = self.names.current().files.keys().filter(|name| parent(name) == folder);
        Ok(files.map(|name| name[start..].to_owned()).collect())
    }

    pub(super) fn create_dir(&mut self, name: &str) -> io::Result<()> {
        check_name(name)?;
        self.refuse_if_crashed()?;
        self.check_folder(parent(name))?;
        if self.names.current().has_folder(name) {
            return Ok(());
        }
        if self.names.current().files.contains_key(name) {
            return Err(Errno::EXIST.into());
        }
        self.change_names(name, "create folder", NameChange::CreateFolder { name: name.to_owned() })
    }

    pub(super) fn remove(&mut self, name: &str) -> io::Result<()> {
        check_name(name)?;
        self.refuse_if_crashed()?;
        let id = self.find(name)?;
        self.change_names(name, "remove", NameChange::Remove { name: name.to_owned() })?;
        self.forget_if_unused(id);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        check_name(from)?;
        check_name(to)?;
        self.refuse_if_crashed()?;
        let id = self.find(from)?;
        self.check_folder(parent(to))?;
        if self.names.current().has_folder(to) {
            return Err(Errno::ISDIR.into());
        }
        let replaced = self.names.current().files.get(to).copied();
        if replaced == Some(id) {
            return Ok(());
        }
        let change = NameChange::Rename { from: from.to_owned(), to: to.to_owned(), id };
        self.change_names(from, "rename", change)?;
        if let Some(replaced) = replaced {
            self.forget_if_unused(replaced);
        }
        Ok(())
    }

    fn change_names(&mut self, name: &str, what: &str, change: NameChange) -> io::Result<()> {
        match self.step(FaultOn::Name, name, what)? {
            Step::Run => {
                self.names.change(change);
                Ok(())
            }
            Step::Crash => {
                self.names.change_at_crash(change);
                Err(crash_error())
            }
            Step::Fail(error) => Err(error),
        }
    }

    pub(super) fn sync_dir(&mut self, folder: &str) -> io::Result<()> {
        self.refuse_if_crashed()?;
        self.check_folder(folder)?;
        match self.step(FaultOn::Sync, folder, "sync folder")? {
            Step::Run if self.lying_sync => {}
            Step::Run => {
                self.names.sync(folder);
                let (names, nodes) = (&self.names, &mut self.nodes);
                nodes.retain(|id, node| node.handles > 0 || names.mentions(*id));
            }
            Step::Crash => return Err(crash_error()),
            Step::Fail(error) => return Err(error),
        }
        Ok(())
    }

    pub(super) fn space(&self) -> io::Result<SpaceInfo> {
        self.refuse_if_crashed()?;
        let available_bytes = self.total_bytes.saturating_sub(self.used_bytes);
        Ok(SpaceInfo { total_bytes: self.total_bytes, available_bytes })
    }

    pub(super) fn set_total_bytes(&mut self, total_bytes: Option<u64>) {
        self.total_bytes = total_bytes.unwrap_or(TOTAL_BYTES);
    }

    pub(super) fn node(&self, id: FileId) -> io::Result<&Node> {
        self.refuse_if_crashed()?;
        self.nodes.get(&id).ok_or_else(|| Errno::BADF.into())
    }

    pub(super) fn read(&mut self, id: FileId, name: &str, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = checked_end(offset, buffer.len() as u64)?;
        let content = self.node(id)?.current();
        if end > content.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        content.read(buffer, offset);
        self.faults.check(FaultOn::Read, name).map_or(Ok(()), Err)
    }

    pub(super) fn write(&mut self, id: FileId, name: &str, data: &[u8], offset: u64) -> io::Result<()> {
        checked_end(offset, data.len() as u64)?;
        let whole = Change::Write { offset, data: Arc::from(data) };
        let content = self.node(id)?.current();
        let free_blocks = self.total_bytes.saturating_sub(self.used_bytes) / BLOCK_BYTES as u64;
        let fitting = content.fitting_bytes(offset, data.len(), free_blocks);
        let (landed, outcome) = match self.step(FaultOn::Write, name, "write to")? {
            Step::Crash => return self.change_at_crash(id, whole),
            Step::Run if fitting == data.len() => (data.len(), Ok(())),
            Step::Run => (fitting, Err(Errno::NOSPC.into())),
            // Like a kernel that had written a part when it met the error.
            Step::Fail(error) => {
                (fitting.min((data.len() as u64 / 2 / SECTOR_BYTES * SECTOR_BYTES) as usize), Err(error))
            }
        };
        if landed == data.len() {
            self.change(id, whole);
        } else if landed > 0 {
            self.change(id, Change::Write { offset, data: Arc::from(&data[..landed]) });
        }
        outcome
    }

    pub(super) fn set_len(&mut self, id: FileId, name: &str, length: u64) -> io::Result<()> {
        checked_end(length, 0)?;
        self.change_length(id, name, "set the length of", Change::SetLen { length })
    }

    pub(super) fn allocate(&mut self, id: FileId, name: &str, offset: u64, length: u64) -> io::Result<()> {
        checked_end(offset, length)?;
        if length == 0 {
            return Ok(());
        }
        let missing = self.node(id)?.current().missing_blocks(offset, length) * BLOCK_BYTES as u64;
        if self.used_bytes + missing > self.total_bytes {
            return Err(Errno::NOSPC.into());
        }
        self.change_length(id, name, "allocate in", Change::Allocate { offset, length })
    }

    pub(super) fn punch(&mut self, id: FileId, name: &str, offset: u64, length: u64) -> io::Result<()> {
        checked_end(offset, length)?;
        if length == 0 {
            return Ok(());
        }
        self.change_length(id, name, "punch a hole in", Change::Punch { offset, length })
    }

    fn change_length(&mut self, id: FileId, name: &str, what: &str, change: Change) -> io::Result<()> {
        self.node(id)?;
        match self.step(FaultOn::Write, name, what)? {
            Step::Run => {
                self.change(id, change);
                Ok(())
            }
            Step::Crash => self.change_at_crash(id, change),
            Step::Fail(error) => Err(error),
        }
    }

    pub(super) fn sync(&mut self, id: FileId, name: &str) -> io::Result<()> {
        self.node(id)?;
        let step = self.step(FaultOn::Sync, name, "sync")?;
        let lying = self.lying_sync;
        let Some(node) = self.nodes.get_mut(&id) else { return Err(Errno::BADF.into()) };
        match step {
            Step::Run if lying => {}
            Step::Run => node.sync(),
            Step::Crash => return Err(crash_error()),
            Step::Fail(error) => {
                node.fail_sync();
                return Err(error);
            }
        }
        Ok(())
    }

    fn change(&mut self, id: FileId, change: Change) {
        self.with_node(id, |node| node.change(change));
    }

    fn change_at_crash(&mut self, id: FileId, change: Change) -> io::Result<()> {
        self.with_node(id, |node| node.change_at_crash(change));
        Err(crash_error())
    }

    /// Changes a file behind the back of its readers, as damage does.
    pub(super) fn change_durably(&mut self, name: &str, change: &Change) -> io::Result<()> {
        let id = self.find(name)?;
        self.with_node(id, |node| node.change_durably(change));
        Ok(())
    }

    pub(super) fn remove_durably(&mut self, name: &str) -> io::Result<()> {
        let id = self.find(name)?;
        self.names.remove_durably(name);
        self.forget_if_unused(id);
        Ok(())
    }

    /// Runs `change` on the file and keeps account of its space.
    fn with_node(&mut self, id: FileId, change: impl FnOnce(&mut Node)) {
        if let Some(node) = self.nodes.get_mut(&id) {
            let before = allocated_bytes(node);
            change(node);
            self.used_bytes = self.used_bytes + allocated_bytes(node) - before;
        }
    }

    pub(super) fn close(&mut self, id: FileId) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.handles -= 1;
            self.forget_if_unused(id);
        }
    }

    /// Gives back the space of a file without name and handle; its bytes stay while a crash could revive it.
    fn forget_if_unused(&mut self, id: FileId) {
        let named = self.names.current().files.values().any(|&of| of == id);
        let Some(node) = self.nodes.get(&id) else { return };
        if named || node.handles > 0 {
            return;
        }
        self.used_bytes -= allocated_bytes(node);
        if !self.names.mentions(id) {
            self.nodes.remove(&id);
        }
    }

    pub(super) fn files(&self) -> Vec<(String, u64)> {
        let files = self.names.current().files.iter();
        files
            .map(|(name, id)| (name.clone(), self.nodes.get(id).map_or(0, |node| node.current().len())))
            .collect()
    }
}

fn allocated_bytes(node: &Node) -> u64 {
    node.current().allocated_bytes()
}

fn crash_error() -> io::Error {
    io::Error::other("the simulated host has crashed")
}

fn checked_end(offset: u64, length: u64) -> io::Result<u64> {
    let end = offset.checked_add(length).filter(|&end| end <= FILE_BYTES_MAX);
    end.ok_or_else(|| Errno::FBIG.into())
}

/// Crashes in which nearly all landed or was lost show other bugs than even ones.
fn draw_odds(random: &dyn Random) -> Odds {
    match random.next_u64() % 4 {
        0 => Odds { keep: 14, tear: 1 },
        1 => Odds { keep: 1, tear: 2 },
        2 => Odds { keep: 0, tear: 16 },
        _ => Odds { keep: 6, tear: 4 },
    }
}
