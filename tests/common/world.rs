//! A store over simulated storage next to the model of what it must hold, and running operations on both.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use stillpoint::base::sim::SimStorage;
use stillpoint::base::{Error, ErrorKind, SeededRandom, SimClock, Storage};
use stillpoint::maintain::{CollectOptions, check, collect};
use stillpoint::volume::*;

use super::model::{Body, FileBody, Node, Outcome, Tree, check_seek, read_back, read_node};
use super::operations::{At, Kind, Operation, Pick, fill_bytes};

/// A volume and its snapshots, as they must be.
#[derive(Clone)]
pub struct VolumeModel {
    pub id: ViewId,
    pub tree: Tree,
    pub snapshots: BTreeMap<String, Tree>,
}

/// All volumes, by name.
#[derive(Clone, Default)]
pub struct Model {
    pub volumes: BTreeMap<String, VolumeModel>,
}

/// What an operation made durable when it returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    Nothing,
    /// The file, and all names of the volume.
    File(String, Ino),
    Volume(String),
    Everything,
}

/// At most so many volumes, and snapshots of each, to keep runs short.
const OBJECTS_MAX: usize = 4;

pub fn environment() -> Environment {
    Environment {
        clock: Arc::new(SimClock::new(Duration::from_secs(1_700_000_000), Duration::from_micros(10))),
        random: Arc::new(SeededRandom::new(1)),
    }
}

/// Small sizes, so that little work reaches every path; no threads.
pub fn options() -> OpenOptions {
    OpenOptions {
        background: false,
        dirty_bytes_soft: 1 << 20,
        dirty_bytes_max: 2 << 20,
        segment_bytes: 96 << 10,
        content_cache_bytes: 64 << 10,
        node_cache_bytes: 64 << 10,
        hint_bytes_max: 1 << 20,
        ..OpenOptions::default()
    }
}

pub fn create_store(storage: &Arc<dyn Storage>, journal_bytes: u64) -> Arc<Store> {
    Store::create(storage.clone(), &environment(), &CreateOptions { journal_bytes }).unwrap();
    Store::open(storage.clone(), &environment(), &options()).unwrap()
}

/// A store that is a file system's only one, of a size that keeps its reserve small.
pub fn new_sim() -> SimStorage {
    let sim = SimStorage::new();
    sim.set_total_bytes(Some(64 << 20));
    sim
}

pub struct World {
    pub storage: Arc<dyn Storage>,
    pub store: Arc<Store>,
    pub model: Model,
}

fn chosen<T>(from: &[T], pick: Pick) -> Option<&T> {
    if from.is_empty() { None } else { from.get(pick as usize % from.len()) }
}

fn volume_name(name: u8) -> String {
    format!("v{name}")
}

pub fn file_name(name: u8) -> Vec<u8> {
    if name == 8 { vec![b'n'; 255] } else { vec![b'a' + name] }
}

/// Errors that no operation of these may meet.
fn is_expected(kind: ErrorKind) -> bool {
    !matches!(
        kind,
        ErrorKind::Corrupt | ErrorKind::Io | ErrorKind::Poisoned | ErrorKind::Stale | ErrorKind::NoSpace
    )
}

/// Both did it, or neither. The error is what is wrong.
fn agree<T>(real: stillpoint::base::Result<T>, expected: Outcome<()>) -> Result<Option<T>, String> {
    match (real, expected) {
        (Ok(value), Ok(())) => Ok(Some(value)),
        (Err(error), Err(_)) if is_expected(error.kind()) => Ok(None),
        (Err(error), Err(kind)) => Err(format!("failed with {error:?} instead of {kind:?}")),
        (Err(error), Ok(())) => Err(format!("failed with {error:?}")),
        (Ok(_), Err(kind)) => Err(format!("succeeded instead of failing with {kind:?}")),
    }
}

fn failed(error: Error) -> String {
    format!("{error:?}")
}

/// A new file of the model.
pub fn plain_node(kind: FileKind, links: u32, body: Body) -> Node {
    Node { kind, mode: 0o640, uid: 7, rdev: 0, links, xattrs: BTreeMap::new(), body }
}

impl World {
    pub fn new(storage: Arc<dyn Storage>, journal_bytes: u64) -> Self {
        let store = create_store(&storage, journal_bytes);
        Self { storage, store, model: Model::default() }
    }

    fn volume(&self, pick: Pick) -> Option<String> {
        let names: Vec<&String> = self.model.volumes.keys().collect();
        chosen(&names, pick).map(|name| (*name).clone())
    }

    fn tree(&self, name: &str) -> &Tree {
        &self.model.volumes[name].tree
    }

    fn change(&mut self, name: &str) -> &mut Tree {
        &mut self.model.volumes.get_mut(name).unwrap().tree
    }

    fn snapshot(&self, volume: &str, pick: Pick) -> Option<String> {
        let names: Vec<&String> = self.model.volumes[volume].snapshots.keys().collect();
        chosen(&names, pick).map(|name| (*name).clone())
    }

    fn inode(&self, at: At, wanted: impl Fn(&Node) -> bool) -> Option<(String, Arc<View>, Ino)> {
        let name = self.volume(at.volume)?;
        let ino = *chosen(&self.tree(&name).inos(wanted), at.inode)?;
        let view = self.store.volume(&name).unwrap();
        Some((name, view, ino))
    }

    fn any_file(&self, at: At) -> Option<(String, Arc<View>, Ino)> {
        self.inode(at, |node| matches!(node.body, Body::File(_)))
    }

    fn directory(&self, volume: &str, pick: Pick) -> Ino {
        let inos = self.tree(volume).inos(|node| matches!(node.body, Body::Directory(..)));
        *chosen(&inos, pick).unwrap()
    }

    fn entry(&self, at: At) -> Option<(String, Arc<View>, Ino, Vec<u8>)> {
        let volume = self.volume(at.volume)?;
        let (directory, name) = chosen(&self.tree(&volume).names(), at.inode)?.clone();
        let view = self.store.volume(&volume).unwrap();
        Some((volume, view, directory, name))
    }

    /// Runs one operation on the store and on the model. The error says how they differ.
    pub fn run(&mut self, operation: &Operation) -> Result<Acknowledged, String> {
        match operation {
            Operation::SyncFile { at } => {
                let Some((name, view, ino)) = self.inode(*at, |_| true) else {
                    return Ok(Acknowledged::Nothing);
                };
                sync_file(&view, ino).map_err(failed)?;
                return Ok(Acknowledged::File(name, ino));
            }
            Operation::Flush { volume } => {
                let Some(name) = self.volume(*volume) else { return Ok(Acknowledged::Nothing) };
                self.store.volume(&name).and_then(|view| view.flush()).map_err(failed)?;
                return Ok(Acknowledged::Volume(name));
            }
            Operation::Checkpoint => self.store.checkpoint().map_err(failed)?,
            Operation::Collect => {
                collect(&self.store, &CollectOptions::default(), &mut ()).map_err(failed)?;
            }
            Operation::Reopen => self.reopen()?,
            Operation::Write { .. }
            | Operation::Append { .. }
            | Operation::Truncate { .. }
            | Operation::Allocate { .. }
            | Operation::Copy { .. } => {
                self.run_data(operation)?;
                return Ok(Acknowledged::Nothing);
            }
            Operation::CreateVolume { .. }
            | Operation::RenameVolume { .. }
            | Operation::DestroyVolume { .. }
            | Operation::Snapshot { .. }
            | Operation::Clone { .. }
            | Operation::DestroySnapshot { .. } => return self.run_catalog(operation),
            _ => {
                self.run_names(operation)?;
                return Ok(Acknowledged::Nothing);
            }
        }
        Ok(Acknowledged::Everything)
    }

    fn run_data(&mut self, operation: &Operation) -> Result<(), String> {
        match *operation {
            Operation::Write { at, offset, length, fill } => {
                let Some((name, view, ino)) = self.any_file(at) else { return Ok(()) };
                let data = fill_bytes(fill, offset, length);
                view.write(ino, offset, &data).map_err(failed)?;
                self.change(&name).file_mut(ino).unwrap().write(offset, &data);
            }
            Operation::Append { at, length, fill } => {
                let Some((name, view, ino)) = self.any_file(at) else { return Ok(()) };
                let file = self.change(&name).file_mut(ino).unwrap();
                let data = fill_bytes(fill, file.size, length);
                let offset = view.append(ino, &data).map_err(failed)?;
                if offset != file.size {
                    return Err(format!("appended at {offset} instead of {}", file.size));
                }
                file.write(offset, &data);
            }
            Operation::Truncate { at, size } => {
                let Some((name, view, ino)) = self.any_file(at) else { return Ok(()) };
                let set = SetAttributes { size: Some(size), ..SetAttributes::default() };
                view.set_attributes(ino, &set).map_err(failed)?;
                self.change(&name).file_mut(ino).unwrap().resize(size);
            }
            Operation::Allocate { at, mode, offset, length } => {
                let Some((name, view, ino)) = self.any_file(at) else { return Ok(()) };
                view.allocate(ino, mode, offset, length).map_err(failed)?;
                let file = self.change(&name).file_mut(ino).unwrap();
                if !matches!(mode, AllocateMode::Allocate | AllocateMode::KeepSize) {
                    file.zero(offset, offset + length);
                }
                if matches!(mode, AllocateMode::Allocate | AllocateMode::ZeroRange) {
                    file.size = file.size.max(offset + length);
                }
            }
            _ => return self.run_copy(operation),
        }
        Ok(())
    }

    fn run_copy(&mut self, operation: &Operation) -> Result<(), String> {
        let Operation::Copy { from, snapshot, to, source, target, length } = *operation else {
            return Ok(());
        };
        let Some((name, view, ino)) = self.any_file(to) else { return Ok(()) };
        let Some(from_name) = self.volume(from.volume) else { return Ok(()) };
        let snapshot = snapshot.and_then(|pick| self.snapshot(&from_name, pick));
        let (from_view, tree) = match &snapshot {
            Some(snapshot) => {
                let view = self.store.snapshot(&from_name, snapshot).unwrap();
                (view, &self.model.volumes[&from_name].snapshots[snapshot])
            }
            None => (self.store.volume(&from_name).unwrap(), self.tree(&from_name)),
        };
        let files = tree.inos(|node| matches!(node.body, Body::File(_)));
        let Some(from_ino) = chosen(&files, from.inode).copied() else { return Ok(()) };
        let data = tree.file(from_ino).unwrap().read(source, length);
        let copied = data.len() as u64;
        let same = from_view.id() == view.id() && from_ino == ino;
        let overlap = same && source < target + copied && target < source + copied;
        let expected = if overlap { Err(ErrorKind::Invalid) } else { Ok(()) };
        let real = from_view.copy_range(from_ino, source, &view, ino, target, length);
        if let Some(real) = agree(real, expected)? {
            if real != copied {
                return Err(format!("copied {real} bytes instead of {copied}"));
            }
            self.change(&name).file_mut(ino).unwrap().write(target, &data);
        }
        Ok(())
    }

    fn run_names(&mut self, operation: &Operation) -> Result<(), String> {
        match *operation {
            Operation::Create { at, name, kind } => return self.run_create(at, &file_name(name), kind),
            Operation::Link { at, directory, name } => {
                let Some((volume, view, ino)) = self.inode(at, |_| true) else { return Ok(()) };
                let directory = self.directory(&volume, directory);
                let expected = self.change(&volume).link(ino, directory, &file_name(name));
                agree(view.link(ino, directory, &file_name(name)), expected)?;
            }
            Operation::Unlink { at } => {
                let Some((volume, view, directory, name)) = self.entry(at) else { return Ok(()) };
                let expected = self.change(&volume).unlink(directory, &name);
                agree(view.unlink(directory, &name), expected)?;
            }
            Operation::RemoveDirectory { at } => {
                let Some((volume, view, directory, name)) = self.entry(at) else { return Ok(()) };
                let expected = self.change(&volume).remove_directory(directory, &name);
                agree(view.remove_directory(directory, &name), expected)?;
            }
            Operation::Rename { at, directory, name: new_name, mode } => {
                let Some((volume, view, old, name)) = self.entry(at) else { return Ok(()) };
                let new = self.directory(&volume, directory);
                let new_name = file_name(new_name);
                let expected = self.change(&volume).rename((old, &name), (new, &new_name), mode);
                agree(view.rename(old, &name, new, &new_name, mode), expected)?;
            }
            Operation::ForgetOrphan { at } => {
                let Some((volume, view, ino)) = self.inode(at, |node| node.links == 0) else { return Ok(()) };
                view.forget_orphan(ino).map_err(failed)?;
                self.change(&volume).forget_orphan(ino);
            }
            _ => return self.run_attributes(operation),
        }
        Ok(())
    }

    fn run_create(&mut self, at: At, name: &[u8], kind: Kind) -> Result<(), String> {
        let Some(volume) = self.volume(at.volume) else { return Ok(()) };
        let view = self.store.volume(&volume).unwrap();
        let directory = self.directory(&volume, at.inode);
        let target = [b't'; 300];
        let (new, mut node) = match kind {
            Kind::File => (NewNode::File, plain_node(FileKind::File, 1, Body::File(FileBody::default()))),
            Kind::Directory => {
                let body = Body::Directory(BTreeMap::new(), directory);
                (NewNode::Directory, plain_node(FileKind::Directory, 2, body))
            }
            Kind::Symlink => {
                let body = Body::Symlink(target.to_vec());
                (NewNode::Symlink(&target), plain_node(FileKind::Symlink, 1, body))
            }
            Kind::Fifo => (NewNode::Fifo, plain_node(FileKind::Fifo, 1, Body::Other)),
            Kind::Device => (NewNode::CharDevice(259), plain_node(FileKind::CharDevice, 1, Body::Other)),
        };
        if matches!(kind, Kind::Device) {
            node.rdev = 259;
        }
        let expected = self.tree(&volume).check_free(directory, name);
        let owner = Owner { uid: 7, gid: 7 };
        if let Some(made) = agree(view.create(directory, name, new, 0o640, owner), expected)? {
            if self.tree(&volume).node(made.ino).is_ok() {
                return Err(format!("inode number {} is in use", made.ino));
            }
            self.change(&volume).create(directory, name, made.ino, node).unwrap();
        }
        Ok(())
    }

    fn run_attributes(&mut self, operation: &Operation) -> Result<(), String> {
        let (Operation::SetMode { at, .. }
        | Operation::SetXattr { at, .. }
        | Operation::RemoveXattr { at, .. }) = operation
        else {
            return Ok(());
        };
        let Some((volume, view, ino)) = self.inode(*at, |_| true) else { return Ok(()) };
        let node = self.change(&volume).node_mut(ino).unwrap();
        match *operation {
            Operation::SetMode { mode, uid, .. } => {
                let set = SetAttributes { mode: Some(mode), uid: Some(uid), ..SetAttributes::default() };
                view.set_attributes(ino, &set).map_err(failed)?;
                (node.mode, node.uid) = (mode, uid);
            }
            Operation::SetXattr { name, length, mode, .. } => {
                let key = file_name(name);
                let exists = node.xattrs.contains_key(&key);
                let expected = match mode {
                    XattrMode::Create if exists => Err(ErrorKind::Exists),
                    XattrMode::Replace if !exists => Err(ErrorKind::NoAttribute),
                    _ => Ok(()),
                };
                let value = fill_bytes(3 + length as u32 % 7, 0, length);
                if agree(view.set_xattr(ino, &key, &value, mode), expected)?.is_some() {
                    node.xattrs.insert(key, value);
                }
            }
            Operation::RemoveXattr { name, .. } => {
                let removed = node.xattrs.remove(&file_name(name));
                let expected = removed.map(|_| ()).ok_or(ErrorKind::NoAttribute);
                agree(view.remove_xattr(ino, &file_name(name)), expected)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn run_catalog(&mut self, operation: &Operation) -> Result<Acknowledged, String> {
        let named = |name: u8| volume_name(name);
        match *operation {
            Operation::CreateVolume { name } => {
                let expected = self.check_new(&named(name));
                if expected == Err(ErrorKind::Unsupported) {
                    return Ok(Acknowledged::Nothing);
                }
                if let Some(view) = agree(self.store.create_volume(&named(name)), expected)? {
                    let new = VolumeModel { id: view.id(), tree: Tree::new(), snapshots: BTreeMap::new() };
                    self.model.volumes.insert(named(name), new);
                    return Ok(Acknowledged::Volume(named(name)));
                }
            }
            Operation::RenameVolume { volume, name } => {
                let Some(old) = self.volume(volume) else { return Ok(Acknowledged::Nothing) };
                let taken = self.model.volumes.contains_key(&named(name));
                let expected = if taken { Err(ErrorKind::Exists) } else { Ok(()) };
                if agree(self.store.rename_volume(&old, &named(name)), expected)?.is_some() {
                    let moved = self.model.volumes.remove(&old).unwrap();
                    self.model.volumes.insert(named(name), moved);
                }
            }
            Operation::DestroyVolume { volume } => {
                let Some(name) = self.volume(volume) else { return Ok(Acknowledged::Nothing) };
                // One commit, so that a crash leaves all of it or nothing.
                let has_snapshots = !self.model.volumes[&name].snapshots.is_empty();
                let expected = if has_snapshots { Err(ErrorKind::InUse) } else { Ok(()) };
                if agree(self.store.destroy_volume(&name), expected)?.is_some() {
                    self.model.volumes.remove(&name);
                }
            }
            _ => return self.run_snapshots(operation),
        }
        Ok(Acknowledged::Nothing)
    }

    fn run_snapshots(&mut self, operation: &Operation) -> Result<Acknowledged, String> {
        let (Operation::Snapshot { volume, .. }
        | Operation::Clone { volume, .. }
        | Operation::DestroySnapshot { volume, .. }) = *operation
        else {
            return Ok(Acknowledged::Nothing);
        };
        let Some(volume) = self.volume(volume) else { return Ok(Acknowledged::Nothing) };
        match *operation {
            Operation::Snapshot { name, .. } => {
                let model = &self.model.volumes[&volume];
                let name = format!("s{name}");
                if model.snapshots.len() >= OBJECTS_MAX {
                    return Ok(Acknowledged::Nothing);
                }
                let taken = model.snapshots.contains_key(&name);
                let expected = if taken { Err(ErrorKind::Exists) } else { Ok(()) };
                if agree(self.store.create_snapshot(&volume, &name), expected)?.is_some() {
                    let model = self.model.volumes.get_mut(&volume).unwrap();
                    model.snapshots.insert(name, model.tree.clone());
                    return Ok(Acknowledged::Volume(volume));
                }
            }
            Operation::Clone { snapshot, name, .. } => {
                let Some(snapshot) = self.snapshot(&volume, snapshot) else {
                    return Ok(Acknowledged::Nothing);
                };
                let new = volume_name(name);
                let expected = self.check_new(&new);
                if expected == Err(ErrorKind::Unsupported) {
                    return Ok(Acknowledged::Nothing);
                }
                if let Some(view) = agree(self.store.create_clone(&volume, &snapshot, &new), expected)? {
                    let mut tree = self.model.volumes[&volume].snapshots[&snapshot].clone();
                    tree.forget_all_orphans();
                    let clone = VolumeModel { id: view.id(), tree, snapshots: BTreeMap::new() };
                    self.model.volumes.insert(new.clone(), clone);
                    return Ok(Acknowledged::Volume(new));
                }
            }
            Operation::DestroySnapshot { snapshot, .. } => {
                let Some(snapshot) = self.snapshot(&volume, snapshot) else {
                    return Ok(Acknowledged::Nothing);
                };
                self.store.destroy_snapshot(&volume, &snapshot).map_err(failed)?;
                self.model.volumes.get_mut(&volume).unwrap().snapshots.remove(&snapshot);
            }
            _ => {}
        }
        Ok(Acknowledged::Nothing)
    }

    /// `Unsupported` when there are enough volumes for a test.
    fn check_new(&self, name: &str) -> Outcome<()> {
        if self.model.volumes.contains_key(name) {
            return Err(ErrorKind::Exists);
        }
        if self.model.volumes.len() >= OBJECTS_MAX { Err(ErrorKind::Unsupported) } else { Ok(()) }
    }

    pub fn reopen(&mut self) -> Result<(), String> {
        self.store.close().map_err(failed)?;
        self.store = Store::open(self.storage.clone(), &environment(), &options()).map_err(failed)?;
        for volume in self.model.volumes.values_mut() {
            volume.tree.forget_all_orphans();
        }
        Ok(())
    }

    /// Compares everything the store shows with the model.
    pub fn verify(&self) -> Result<(), String> {
        let names: Vec<String> = self.store.volume_names().into_iter().map(|(name, _)| name).collect();
        let expected: Vec<String> = self.model.volumes.keys().cloned().collect();
        if names != expected {
            return Err(format!("there are the volumes {names:?} instead of {expected:?}"));
        }
        for (name, volume) in &self.model.volumes {
            let view = self.store.volume(name).map_err(failed)?;
            verify_view(&view, &volume.tree, name)?;
            let snapshots: Vec<String> = self
                .store
                .snapshot_names(view.id())
                .map_err(failed)?
                .into_iter()
                .map(|(name, _)| name)
                .collect();
            let expected: Vec<String> = volume.snapshots.keys().cloned().collect();
            if snapshots != expected {
                return Err(format!("{name} has the snapshots {snapshots:?} instead of {expected:?}"));
            }
            for (snapshot, tree) in &volume.snapshots {
                let view = self.store.snapshot(name, snapshot).map_err(failed)?;
                verify_view(&view, tree, &format!("{name}@{snapshot}"))?;
            }
        }
        Ok(())
    }

    /// Recounts references and figures.
    pub fn verify_counts(&self) -> Result<(), String> {
        let report = check(&self.store, &mut |_| {}).map_err(failed)?;
        if report.findings.is_empty() { Ok(()) } else { Err(format!("check found {:?}", report.findings)) }
    }
}

/// Compares a view with a tree, inodes without a name too.
pub fn verify_view(view: &View, tree: &Tree, name: &str) -> Result<(), String> {
    let found = read_back(view).map_err(|error| format!("{name}: {error:?}"))?;
    if let Some(difference) = tree.difference(&found) {
        return Err(format!("{name}: {difference}"));
    }
    for (ino, node) in &tree.nodes {
        if node.links == 0 {
            let orphan = read_node(view, *ino).map_err(|error| format!("{name}: orphan {ino}: {error:?}"))?;
            if let Some(difference) = super::model::node_difference(node, &orphan) {
                return Err(format!("{name}: orphan {ino} {difference}"));
            }
        }
        if let Body::File(file) = &node.body {
            check_seek(view, *ino, file).map_err(|error| format!("{name}: {error}"))?;
        }
    }
    Ok(())
}

/// Waits for the fsync of one file.
pub fn sync_file(view: &View, ino: Ino) -> stillpoint::base::Result<()> {
    let (sender, receiver) = std::sync::mpsc::channel();
    view.sync_file(
        ino,
        Box::new(move |result| {
            let _ = sender.send(result);
        }),
    );
    receiver.recv().unwrap()
}
