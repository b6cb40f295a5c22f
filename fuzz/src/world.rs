//! A store over simulated storage, and its model, driven by one sequence of operations.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use stillpoint::base::sim::Landing;
use stillpoint::base::{Result, SeededRandom, SimClock, SimStorage};
use stillpoint::maintain::{CollectOptions, ScrubOptions, check, collect, scrub};
use stillpoint::volume::{
    AllocateMode, CreateOptions, Environment, FileKind, Ino, NewNode, OpenOptions, Owner, ROOT_INO,
    RenameMode, SeekTarget, SetAttributes, Store, Timestamp, View, XattrMode,
};

use crate::model::{Node, Outcome, PAGE, Tree};
use crate::operation::{At, FileOperation, Named, Operation};

const VOLUMES: usize = 4;
const SNAPSHOTS: usize = 4;

#[derive(Clone, Default)]
struct Volume {
    tree: Tree,
    snapshots: BTreeMap<String, Tree>,
    held: BTreeSet<String>,
}

pub struct World {
    storage: SimStorage,
    environment: Environment,
    store: Arc<Store>,
    volumes: BTreeMap<String, Volume>,
}

fn options() -> OpenOptions {
    OpenOptions {
        background: false,
        dirty_bytes_soft: 512 << 10,
        dirty_bytes_max: 2 << 20,
        content_cache_bytes: 128 << 10,
        node_cache_bytes: 128 << 10,
        hint_bytes_max: 64 << 10,
        segment_bytes: 256 << 10,
        ..OpenOptions::default()
    }
}

fn volume_name(number: u8) -> String {
    format!("v{}", usize::from(number) % VOLUMES)
}

fn snapshot_name(number: u8) -> String {
    format!("s{}", usize::from(number) % SNAPSHOTS)
}

/// The store and the model agree on whether it works.
fn agree<T, U>(what: &dyn std::fmt::Debug, real: Result<T>, model: Outcome<U>) -> Option<(T, U)> {
    match (real, model) {
        (Ok(real), Ok(model)) => Some((real, model)),
        (Err(_), Err(_)) => None,
        (Ok(_), Err(_)) => panic!("{what:?} works and must not"),
        (Err(error), Ok(_)) => panic!("{what:?} fails: {error:?}"),
    }
}

impl Default for World {
    fn default() -> Self {
        let storage = SimStorage::new();
        let clock = SimClock::new(Duration::from_secs(1000), Duration::from_micros(1));
        let environment = Environment { clock: Arc::new(clock), random: Arc::new(SeededRandom::new(1)) };
        Store::create(Arc::new(storage.clone()), &environment, &CreateOptions { journal_bytes: 1 << 20 })
            .unwrap();
        let store = Store::open(Arc::new(storage.clone()), &environment, &options()).unwrap();
        let mut world = Self { storage, environment, store, volumes: BTreeMap::new() };
        world.create_volume(0);
        world
    }
}

impl World {
    pub fn run(&mut self, operation: &Operation) {
        match operation {
            Operation::Files(volume, operation) => {
                if let Some(name) = self.nth_volume(*volume) {
                    self.file_operation(&name, operation);
                }
            }
            Operation::Checkpoint => self.store.checkpoint().unwrap(),
            Operation::CreateVolume(volume) => self.create_volume(*volume),
            Operation::DestroyVolume(volume, snapshots) => self.destroy_volume(*volume, *snapshots),
            Operation::RenameVolume(from, to) => self.rename_volume(*from, *to),
            Operation::Snapshot(volume, name) => self.snapshot(*volume, *name),
            Operation::DestroySnapshot(volume, name) => self.destroy_snapshot(*volume, *name),
            Operation::Clone(volume, snapshot, new) => self.clone_snapshot(*volume, *snapshot, *new),
            Operation::Hold(volume, snapshot, hold) => self.hold(*volume, *snapshot, *hold),
            Operation::Collect(percent) => self.collect(*percent).unwrap(),
            Operation::Check => self.check(),
            Operation::Reopen => {
                self.store.close().unwrap();
                self.open();
                self.verify();
            }
            Operation::SyncAndCrash { checkpoint, seed } => {
                self.sync_all(*checkpoint).unwrap();
                self.restart(*seed);
                self.verify();
            }
            Operation::Crash { within, during, seed } => self.crash(*within, *during, *seed),
            Operation::Verify => self.verify(),
        }
    }

    /// Everything is as the model says; and when all is destroyed, nothing is left in use.
    pub fn finish(mut self) {
        self.verify();
        self.check();
        for (name, volume) in std::mem::take(&mut self.volumes) {
            for held in &volume.held {
                self.store.release(&name, held, "tag").unwrap();
            }
            self.store.destroy_volume_with_snapshots(&name).unwrap();
        }
        self.store.checkpoint().unwrap();
        self.store.checkpoint().unwrap();
        let stats = self.store.stats().unwrap();
        assert_eq!((stats.live_bytes, stats.logical_bytes, stats.dirty_bytes), (0, 0, 0), "{stats:?}");
        self.collect(1).unwrap();
        assert_eq!(self.store.stats().unwrap().segments, 0);
        self.store.close().unwrap();
    }

    fn open(&mut self) {
        self.store = Store::open(Arc::new(self.storage.clone()), &self.environment, &options()).unwrap();
        for volume in self.volumes.values_mut() {
            volume.tree.drop_orphans();
        }
    }

    fn restart(&mut self, seed: u64) {
        let after = self.storage.after_crash(Landing::Random(seed));
        self.storage.crash_at(self.storage.operations());
        self.storage = after;
        self.open();
    }

    fn sync_all(&self, checkpoint: bool) -> Result<()> {
        for name in self.volumes.keys() {
            self.store.volume(name)?.flush()?;
        }
        if checkpoint { self.store.checkpoint() } else { Ok(()) }
    }

    fn collect(&self, percent: u8) -> Result<()> {
        let options = CollectOptions { dead_percent: u64::from(percent % 100), ..CollectOptions::default() };
        collect(&self.store, &options, &mut ()).map(drop)
    }

    fn check(&self) {
        let report = check(&self.store, &mut |_| {}).unwrap();
        assert!(report.findings.is_empty(), "{report:?}");
        let options = ScrubOptions { bytes_per_second: None };
        let report = scrub(&self.store, &options, &mut ()).unwrap();
        assert!(report.findings.is_empty() && report.damaged == 0, "{report:?}");
    }

    /// A crash with changes not synced: what is found must be sound, snapshots and names of volumes unchanged.
    fn crash(&mut self, within: u8, during: u8, seed: u64) {
        self.storage.crash_at(self.storage.operations() + u64::from(within));
        let _ = match during % 3 {
            0 => self.sync_all(false),
            1 => self.store.checkpoint(),
            _ => self.collect(1),
        };
        self.restart(seed);
        self.check();
        self.verify_snapshots();
        for (name, volume) in &mut self.volumes {
            volume.tree = read_tree(&self.store.volume(name).unwrap(), name);
        }
    }

    fn nth_volume(&self, number: u8) -> Option<String> {
        let count = self.volumes.len().max(1);
        self.volumes.keys().nth(usize::from(number) % count).cloned()
    }

    fn create_volume(&mut self, number: u8) {
        let name = volume_name(number);
        let exists = self.volumes.contains_key(&name);
        let created = self.store.create_volume(&name);
        assert_eq!(created.is_ok(), !exists, "{:?}", created.err());
        if let Ok(view) = created {
            let tree = read_tree(&view, &name);
            self.volumes.insert(name, Volume { tree, ..Volume::default() });
        }
    }

    fn destroy_volume(&mut self, number: u8, snapshots: bool) {
        let Some(name) = self.nth_volume(number) else { return };
        let volume = &self.volumes[&name];
        let allowed = if snapshots { volume.held.is_empty() } else { volume.snapshots.is_empty() };
        let view = self.store.volume(&name).unwrap();
        let destroyed = if snapshots {
            self.store.destroy_volume_with_snapshots(&name)
        } else {
            self.store.destroy_volume(&name)
        };
        assert_eq!(destroyed.is_ok(), allowed, "{:?}", destroyed.err());
        if allowed {
            self.volumes.remove(&name);
            assert!(view.attributes(ROOT_INO).is_err() && self.store.volume(&name).is_err());
        }
    }

    fn rename_volume(&mut self, from: u8, to: u8) {
        let (from, to) = (volume_name(from), volume_name(to));
        let allowed = self.volumes.contains_key(&from) && !self.volumes.contains_key(&to);
        let renamed = self.store.rename_volume(&from, &to);
        assert_eq!(renamed.is_ok(), allowed, "{:?}", renamed.err());
        if allowed {
            let volume = self.volumes.remove(&from).unwrap();
            self.volumes.insert(to, volume);
        }
    }

    fn snapshot(&mut self, number: u8, name: u8) {
        let (Some(volume), name) = (self.nth_volume(number), snapshot_name(name)) else { return };
        let created = self.store.create_snapshot(&volume, &name);
        let model = self.volumes.get_mut(&volume).unwrap();
        assert_eq!(created.is_ok(), !model.snapshots.contains_key(&name), "{:?}", created.err());
        if created.is_ok() {
            let mut tree = model.tree.clone();
            tree.drop_orphans();
            model.snapshots.insert(name, tree);
        }
    }

    fn destroy_snapshot(&mut self, number: u8, name: u8) {
        let (Some(volume), name) = (self.nth_volume(number), snapshot_name(name)) else { return };
        let model = self.volumes.get_mut(&volume).unwrap();
        let allowed = model.snapshots.contains_key(&name) && !model.held.contains(&name);
        let destroyed = self.store.destroy_snapshot(&volume, &name);
        assert_eq!(destroyed.is_ok(), allowed, "{:?}", destroyed.err());
        if allowed {
            model.snapshots.remove(&name);
        }
    }

    fn clone_snapshot(&mut self, number: u8, snapshot: u8, new: u8) {
        let (Some(volume), new) = (self.nth_volume(number), volume_name(new)) else { return };
        let snapshot = snapshot_name(snapshot);
        let tree = self.volumes[&volume].snapshots.get(&snapshot).cloned();
        let allowed = tree.is_some() && !self.volumes.contains_key(&new);
        let cloned = self.store.create_clone(&volume, &snapshot, &new).map(drop);
        assert_eq!(cloned.is_ok(), allowed, "{:?}", cloned.err());
        if let (true, Some(tree)) = (allowed, tree) {
            self.volumes.insert(new, Volume { tree, ..Volume::default() });
        }
    }

    fn hold(&mut self, number: u8, snapshot: u8, hold: bool) {
        let (Some(volume), snapshot) = (self.nth_volume(number), snapshot_name(snapshot)) else { return };
        let model = self.volumes.get_mut(&volume).unwrap();
        let held = model.held.contains(&snapshot);
        let allowed = model.snapshots.contains_key(&snapshot) && held != hold;
        let done = if hold {
            self.store.hold(&volume, &snapshot, "tag")
        } else {
            self.store.release(&volume, &snapshot, "tag")
        };
        assert_eq!(done.is_ok(), allowed, "{:?}", done.err());
        if allowed && hold {
            model.held.insert(snapshot);
        } else if allowed {
            model.held.remove(&snapshot);
        }
    }

    fn verify(&mut self) {
        for (name, volume) in &self.volumes {
            let mut expected = volume.tree.clone();
            expected.drop_orphans();
            compare(name, &read_tree(&self.store.volume(name).unwrap(), name), &expected);
        }
        self.verify_snapshots();
    }

    fn verify_snapshots(&self) {
        let names: Vec<_> = self.store.volume_names().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, self.volumes.keys().cloned().collect::<Vec<_>>());
        for (name, volume) in &self.volumes {
            let view = self.store.volume(name).unwrap();
            let snapshots: Vec<_> =
                self.store.snapshot_names(view.id()).unwrap().into_iter().map(|(name, _)| name).collect();
            assert_eq!(snapshots, volume.snapshots.keys().cloned().collect::<Vec<_>>(), "of {name}");
            for (snapshot, tree) in &volume.snapshots {
                let full = format!("{name}@{snapshot}");
                let view = self.store.snapshot(name, snapshot).unwrap();
                assert!(view.write(ROOT_INO, 0, b"x").is_err());
                compare(&full, &read_tree(&view, &full), tree);
            }
        }
    }
}

fn compare(what: &str, found: &Tree, expected: &Tree) {
    let inos: BTreeSet<Ino> = found.nodes.keys().chain(expected.nodes.keys()).copied().collect();
    for ino in inos {
        let (found, expected) = (found.nodes.get(&ino), expected.nodes.get(&ino));
        assert!(found == expected, "{what} inode {ino}\nfound    {found:?}\nexpected {expected:?}");
    }
}

/// All that names lead to in a view; panics when it is not sound.
fn read_tree(view: &View, what: &str) -> Tree {
    let mut tree = Tree::default();
    let mut names: BTreeMap<Ino, u32> = BTreeMap::new();
    let mut waiting = vec![(ROOT_INO, ROOT_INO)];
    while let Some((ino, parent)) = waiting.pop() {
        *names.entry(ino).or_default() += 1;
        if tree.nodes.contains_key(&ino) {
            continue;
        }
        let mut node = read_node(view, ino);
        if node.is_directory() {
            assert_eq!(view.parent(ino).unwrap(), parent, "{what} parent of {ino}");
            node.parent = parent;
            let mut cookie = 0;
            loop {
                let listed = view.list_directory(ino, cookie, 3).unwrap();
                let Some(last) = listed.last() else { break };
                cookie = last.cookie;
                for entry in listed {
                    assert_eq!(view.lookup(ino, &entry.name).unwrap().ino, entry.ino);
                    assert_eq!(view.attributes(entry.ino).unwrap().kind, entry.kind);
                    waiting.push((entry.ino, ino));
                    assert!(
                        node.entries.insert(entry.name, entry.ino).is_none(),
                        "{what} lists a name twice"
                    );
                }
            }
        }
        tree.nodes.insert(ino, node);
    }
    for (ino, node) in &tree.nodes {
        let below = node.entries.values().filter(|ino| tree.nodes[*ino].is_directory()).count() as u32;
        let links = if node.is_directory() { 2 + below } else { names[ino] };
        assert_eq!(node.links, links, "{what} links of {ino}");
    }
    tree
}

fn read_node(view: &View, ino: Ino) -> Node {
    let mut node = Node::of(&view.attributes(ino).unwrap());
    if node.kind == FileKind::Symlink {
        node.target = view.read_link(ino).unwrap();
        assert_eq!(node.target.len() as u64, node.size);
    }
    for name in view.list_xattrs(ino).unwrap() {
        let value = view.xattr(ino, &name).unwrap();
        node.xattrs.insert(name, value);
    }
    let mut at = 0;
    while node.kind == FileKind::File
        && let Ok(data) = view.seek(ino, at, SeekTarget::Data)
    {
        assert!(data >= at && data < node.size, "data at {data} of {}", node.size);
        let hole = view.seek(ino, data, SeekTarget::Hole).unwrap();
        assert!(hole > data && hole <= node.size, "hole at {hole} behind {data} of {}", node.size);
        let bytes = view.read(ino, data, (hole - data) as usize).unwrap();
        assert_eq!(bytes.len() as u64, hole - data);
        let size = node.size;
        node.write(data, &bytes);
        assert_eq!(node.size, size);
        at = hole;
    }
    node
}

impl World {
    fn file_operation(&mut self, name: &str, operation: &FileOperation) {
        let view = self.store.volume(name).unwrap();
        let mut model = std::mem::take(&mut self.volumes.get_mut(name).unwrap().tree);
        if let FileOperation::Copy { from, from_at, volume, to, to_at, length } = operation {
            let target = self.nth_volume(*volume).filter(|target| target != name);
            let ranges = (from_at.offset(), to_at.offset(), length.offset() % (40 * PAGE));
            match target {
                Some(target) => {
                    let target_view = self.store.volume(&target).unwrap();
                    let target_model = &mut self.volumes.get_mut(&target).unwrap().tree;
                    let inos = (nth(&model, *from), nth(target_model, *to));
                    copy_between(&view, &mut model, &target_view, target_model, inos, ranges);
                }
                None => {
                    let inos = (nth(&model, *from), nth(&model, *to));
                    copy_within(&view, &mut model, inos, ranges);
                }
            }
        } else {
            apply(&view, &mut model, operation);
        }
        self.volumes.get_mut(name).unwrap().tree = model;
    }
}

fn nth(tree: &Tree, number: u8) -> Ino {
    // One in sixteen is a number that is not there.
    let known =
        if number % 16 == 15 { None } else { tree.nodes.keys().nth(usize::from(number) % tree.nodes.len()) };
    known.copied().unwrap_or(12_345)
}

fn place(tree: &Tree, named: Named) -> (Ino, Vec<u8>) {
    let directories: Vec<_> =
        tree.nodes.iter().filter(|(_, node)| node.is_directory()).map(|(ino, _)| *ino).collect();
    let dir = directories[usize::from(named.dir) % directories.len()];
    let dir = if named.dir == 255 { nth(tree, named.name) } else { dir };
    (dir, vec![b'a' + named.name % 6; 1 + usize::from(named.name / 6) % 2 * 200])
}

fn copy_within(view: &View, model: &mut Tree, inos: (Ino, Ino), (from, to, length): (u64, u64, u64)) {
    let real = view.copy_range(inos.0, from, view, inos.1, to, length);
    let expected = model.file(inos.0).map(|node| node.read(from, length)).and_then(|bytes| {
        let target = model.file(inos.1)?;
        let count = bytes.len() as u64;
        let overlaps = inos.0 == inos.1 && from < to + count && to < from + count;
        if overlaps { Err(crate::model::Refused) } else { Ok(write_copied(target, to, &bytes)) }
    });
    settle_copy(real, expected, (from, to, length));
}

fn copy_between(
    view: &View,
    model: &mut Tree,
    target_view: &View,
    target_model: &mut Tree,
    inos: (Ino, Ino),
    (from, to, length): (u64, u64, u64),
) {
    let real = view.copy_range(inos.0, from, target_view, inos.1, to, length);
    let bytes = model.file(inos.0).map(|node| node.read(from, length));
    let expected = bytes.and_then(|bytes| Ok(write_copied(target_model.file(inos.1)?, to, &bytes)));
    settle_copy(real, expected, (from, to, length));
}

fn write_copied(target: &mut Node, to: u64, bytes: &[u8]) -> u64 {
    if !bytes.is_empty() {
        target.write(to, bytes);
    }
    bytes.len() as u64
}

fn settle_copy(real: Result<u64>, expected: Outcome<u64>, ranges: (u64, u64, u64)) {
    // Copying no bytes may not look at the target at all.
    if matches!((&real, &expected), (Ok(0), Err(_))) {
        return;
    }
    if let Some((real, expected)) = agree(&("copy", ranges), real, expected) {
        assert_eq!(real, expected, "{ranges:?}");
    }
}

fn apply(view: &Arc<View>, model: &mut Tree, operation: &FileOperation) {
    match operation {
        FileOperation::Create(named, kind) => create(view, model, *named, *kind),
        FileOperation::Link(ino, named) => {
            let (ino, (dir, name)) = (nth(model, *ino), place(model, *named));
            agree(operation, view.link(ino, dir, &name), model.link(ino, dir, &name));
        }
        FileOperation::Unlink(named) => {
            let (dir, name) = place(model, *named);
            let both = agree(operation, view.unlink(dir, &name), model.unlink(dir, &name));
            check_gone(model, both.map(|(real, ino)| (real.ino, real.links, ino)));
        }
        FileOperation::RemoveDirectory(named) => {
            let (dir, name) = place(model, *named);
            let both =
                agree(operation, view.remove_directory(dir, &name), model.remove_directory(dir, &name));
            check_gone(model, both.map(|(real, ino)| (real.ino, real.links, ino)));
        }
        FileOperation::Rename(from, to, mode) => {
            let ((from, name), (to, new_name)) = (place(model, *from), place(model, *to));
            let modes = [RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange];
            let mode = modes[usize::from(*mode) % modes.len()];
            let real = view.rename(from, &name, to, &new_name, mode);
            if let Some((real, ino)) =
                agree(operation, real, model.rename((from, &name), (to, &new_name), mode))
            {
                assert_eq!(real.map(|real| real.ino), ino);
                check_gone(model, real.zip(ino).map(|(real, ino)| (real.ino, real.links, ino)));
            }
        }
        FileOperation::SetXattr { .. } | FileOperation::RemoveXattr(..) => xattrs(view, model, operation),
        FileOperation::SetMode(ino, mode, uid) => {
            let ino = nth(model, *ino);
            let (mode, uid) = (u32::from(*mode) & 0o7777, uid.map(u32::from));
            let set = SetAttributes { mode: Some(mode), uid, ..SetAttributes::default() };
            if let Some((real, node)) = agree(operation, view.set_attributes(ino, &set), model.node(ino)) {
                node.mode = mode;
                node.uid = uid.unwrap_or(node.uid);
                assert_eq!((real.mode, real.uid, real.size), (node.mode, node.uid, node.size));
            }
        }
        FileOperation::SetTimes(ino) => {
            let ino = nth(model, *ino);
            let modified = Some(Timestamp { seconds: 5, nanos: 6 });
            let set = SetAttributes { modified, ..SetAttributes::default() };
            if let Some((real, _)) = agree(operation, view.set_attributes(ino, &set), model.node(ino)) {
                assert_eq!(Some(real.modified), modified);
            }
        }
        FileOperation::Forget(ino) => {
            let ino = nth(model, *ino);
            view.forget_orphan(ino).unwrap();
            if model.node(ino).is_ok_and(|node| node.links == 0) {
                model.nodes.remove(&ino);
                assert!(view.attributes(ino).is_err());
            }
        }
        FileOperation::SyncFile(ino) => view.sync_file(nth(model, *ino), Box::new(|done| done.unwrap())),
        FileOperation::SyncAll => view.flush().unwrap(),
        _ => data(view, model, operation),
    }
}

fn check_gone(model: &Tree, gone: Option<(Ino, u32, Ino)>) {
    if let Some((real, links, ino)) = gone {
        assert_eq!((real, links), (ino, model.nodes[&ino].links));
    }
}

fn create(view: &View, model: &mut Tree, named: Named, kind: u8) {
    let (dir, name) = place(model, named);
    let target = vec![b'/'; 1 + usize::from(kind) * 16 % 4095];
    let node = match kind % 8 {
        0..3 => NewNode::File,
        3..5 => NewNode::Directory,
        5 => NewNode::Symlink(&target),
        6 => NewNode::Fifo,
        _ => NewNode::CharDevice(u32::from(kind)),
    };
    let real = view.create(dir, &name, node, u32::from(kind), Owner { uid: 3, gid: 4 });
    if let Some((real, ())) = agree(&("create", dir, &name), real, model.may_create(dir, &name)) {
        let mut node = Node::of(&real);
        assert_eq!((node.mode, node.uid), (u32::from(kind), 3));
        if node.kind == FileKind::Symlink {
            node.target = target;
        }
        model.create(dir, &name, real.ino, node).unwrap();
    }
}

fn xattrs(view: &View, model: &mut Tree, operation: &FileOperation) {
    let named = |number: u8| vec![b'x'; 1 + usize::from(number) % 3];
    match operation {
        FileOperation::SetXattr { ino, name, value, mode } => {
            let modes = [XattrMode::Set, XattrMode::Create, XattrMode::Replace];
            let mode = modes[usize::from(*mode) % modes.len()];
            let (ino, name, value) = (nth(model, *ino), named(*name), value.bytes());
            agree(
                operation,
                view.set_xattr(ino, &name, &value, mode),
                model.set_xattr(ino, &name, value, mode),
            );
        }
        FileOperation::RemoveXattr(ino, name) => {
            let (ino, name) = (nth(model, *ino), named(*name));
            let removed =
                model.node(ino).and_then(|node| node.xattrs.remove(&name).ok_or(crate::model::Refused));
            agree(operation, view.remove_xattr(ino, &name), removed);
        }
        _ => {}
    }
}

fn data(view: &View, model: &mut Tree, operation: &FileOperation) {
    match operation {
        FileOperation::Write(ino, at, fill) => {
            let (ino, bytes) = (nth(model, *ino), fill.bytes());
            if let Some(((), node)) = agree(operation, view.write(ino, at.offset(), &bytes), model.file(ino))
            {
                node.write(at.offset(), &bytes);
            }
        }
        FileOperation::Append(ino, fill) => {
            let (ino, bytes) = (nth(model, *ino), fill.bytes());
            if let Some((offset, node)) = agree(operation, view.append(ino, &bytes), model.file(ino)) {
                assert_eq!(offset, node.size);
                node.write(offset, &bytes);
            }
        }
        FileOperation::Truncate(ino, at) => {
            let ino = nth(model, *ino);
            let set = SetAttributes { size: Some(at.offset()), ..SetAttributes::default() };
            if let Some((real, node)) = agree(operation, view.set_attributes(ino, &set), model.file(ino)) {
                node.resize(at.offset());
                assert_eq!(real.size, node.size);
            }
        }
        FileOperation::Allocate(ino, mode, at, length) => allocate(view, model, *ino, *mode, (*at, *length)),
        FileOperation::Read(ino, at, length) => {
            let ino = nth(model, *ino);
            let real = view.read(ino, at.offset(), usize::from(*length));
            if let Some((real, node)) = agree(operation, real, model.file(ino)) {
                assert!(real == node.read(at.offset(), u64::from(*length)), "{operation:?} of inode {ino}");
            }
        }
        FileOperation::Seek(ino, at, hole) => seek(view, model, nth(model, *ino), at.offset(), *hole),
        _ => {}
    }
}

fn allocate(view: &View, model: &mut Tree, ino: u8, mode: u8, (at, length): (At, At)) {
    let modes = [
        AllocateMode::Allocate,
        AllocateMode::KeepSize,
        AllocateMode::PunchHole,
        AllocateMode::ZeroRange,
        AllocateMode::ZeroRangeKeepSize,
    ];
    let mode = modes[usize::from(mode) % modes.len()];
    let (ino, offset, length) = (nth(model, ino), at.offset(), length.offset().max(1));
    let real = view.allocate(ino, mode, offset, length);
    if let Some(((), node)) = agree(&("allocate", mode, offset, length), real, model.file(ino)) {
        node.allocate(mode, offset, offset + length);
    }
}

/// What a seek passes over must be zeros; a hole it stops at may only be one.
fn seek(view: &View, model: &mut Tree, ino: Ino, from: u64, hole: bool) {
    let target = if hole { SeekTarget::Hole } else { SeekTarget::Data };
    let found = view.seek(ino, from, target);
    let Ok(node) = model.file(ino) else {
        assert!(found.is_err());
        return;
    };
    let has_data = |from: u64, to: u64| {
        let (first, end) = (from.div_ceil(PAGE), to / PAGE);
        first < end && node.pages.range(first..end).next().is_some()
    };
    match (found, hole) {
        (Ok(at), false) => assert!(at >= from && at < node.size && !has_data(from, at)),
        (Ok(at), true) => assert!(
            at >= from && at <= node.size && !node.pages.contains_key(&(at / PAGE)) || at == node.size
        ),
        (Err(_), false) => assert!(from >= node.size || !has_data(from, node.size)),
        (Err(_), true) => assert!(from >= node.size),
    }
}
