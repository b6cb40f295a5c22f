//! Generated operations on mounted files and on a plain map of them, with snapshots, clones, destroys, collections and
//! remounts between, all through what the commands use.
//!
//! `STILLPOINT_MODEL_SEEDS` is how many seeds to try (default 20), `STILLPOINT_MODEL_FIRST` the first one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stillpoint::base::{RealStorage, SeededRandom};
use stillpoint::control::{Holder, Host, HostOptions, Operations, Request};
use stillpoint::volume::{CreateOptions, Environment, Store};

const OPERATIONS: usize = 250;
const OBJECTS_MAX: usize = 3;
const FILE_BYTES_MAX: u64 = 200_000;

/// Numbers of which each operation takes what it needs, modulo what there is.
type Step = [u32; 4];

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Directory,
    Symlink(PathBuf),
    /// Names of one file share a number.
    File(u64),
}

/// All of a volume by path.
#[derive(Clone, Debug, Default, PartialEq)]
struct Tree {
    nodes: BTreeMap<PathBuf, Node>,
    contents: BTreeMap<u64, Vec<u8>>,
}

impl Tree {
    fn links(&self, file: u64) -> u64 {
        self.nodes.values().filter(|node| **node == Node::File(file)).count() as u64
    }

    fn drop_unnamed(&mut self) {
        let named: BTreeSet<u64> = self.nodes.values().filter_map(file_number).collect();
        self.contents.retain(|file, _| named.contains(file));
    }

    fn has_children(&self, path: &Path) -> bool {
        self.nodes.keys().any(|other| other != path && other.starts_with(path))
    }
}

fn file_number(node: &Node) -> Option<u64> {
    if let Node::File(number) = node { Some(*number) } else { None }
}

struct World {
    directory: tempfile::TempDir,
    host: Option<Arc<Host>>,
    writethrough: bool,
    volumes: BTreeMap<String, Tree>,
    snapshots: BTreeMap<(String, String), Tree>,
    next_file: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let directory = tempfile::Builder::new().prefix("fuse-model-").tempdir().unwrap();
        fs::create_dir(directory.path().join("mnt")).unwrap();
        fs::create_dir(directory.path().join("store")).unwrap();
        let storage = Arc::new(RealStorage::open(&directory.path().join("store")).unwrap());
        Store::create(storage, &Environment::system(), &CreateOptions { journal_bytes: 8 << 20 }).unwrap();
        let mut world = Self {
            directory,
            host: None,
            writethrough: seed.is_multiple_of(2),
            volumes: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            next_file: 0,
        };
        world.mount();
        world.ask(&Request::VolumeCreate { name: "v0".into() });
        world.volumes.insert("v0".into(), Tree::default());
        world
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("mnt")
    }

    fn mount(&mut self) {
        let options = HostOptions { writethrough: self.writethrough, ..HostOptions::default() };
        let store = self.directory.path().join("store");
        self.host = Some(Host::start(&store, &self.root(), None, &Environment::system(), &options).unwrap());
    }

    fn ask(&self, request: &Request) {
        self.host.as_ref().unwrap().perform(request, &mut |_| {}).unwrap();
    }

    fn volume(&self, pick: u32) -> String {
        self.volumes.keys().nth(pick as usize % self.volumes.len()).unwrap().clone()
    }

    /// One step on the mount and on the map. The error says how they differ.
    fn run(&mut self, step: Step) -> Result<(), String> {
        let name = self.volume(step[1]);
        match step[0] % 40 {
            0 => self.snapshot(&name, step[2]),
            1 => self.clone_of(step[2], step[3]),
            2 => self.destroy(step[2]),
            3 => self.ask(&Request::StoreGc { rate: Some(0) }),
            4 => {
                self.host.take().unwrap().end().map_err(|error| error.to_string())?;
                self.mount();
            }
            5 => self.verify()?,
            _ => {
                let root = self.root().join(&name);
                let tree = self.volumes.get_mut(&name).unwrap();
                change(tree, &root, step, &mut self.next_file)?;
                tree.drop_unnamed();
            }
        }
        Ok(())
    }

    fn snapshot(&mut self, volume: &str, pick: u32) {
        let name = format!("s{}", pick % 4);
        let count = self.snapshots.keys().filter(|(of, _)| of == volume).count();
        let key = (volume.to_owned(), name.clone());
        if count >= OBJECTS_MAX || self.snapshots.contains_key(&key) {
            return;
        }
        self.ask(&Request::SnapshotCreate { volume: volume.into(), name });
        self.snapshots.insert(key, self.volumes[volume].clone());
    }

    fn clone_of(&mut self, pick: u32, number: u32) {
        let new = format!("v{}", number % 4);
        let Some(key) = self.snapshots.keys().nth(pick as usize % self.snapshots.len().max(1)) else {
            return;
        };
        if self.volumes.len() >= OBJECTS_MAX || self.volumes.contains_key(&new) {
            return;
        }
        let (volume, snapshot) = key.clone();
        let tree = self.snapshots[key].clone();
        self.ask(&Request::CloneCreate { volume, snapshot, name: new.clone() });
        self.volumes.insert(new, tree);
    }

    fn destroy(&mut self, pick: u32) {
        if pick.is_multiple_of(3) && self.volumes.len() > 1 {
            let name = self.volume(pick / 3);
            self.ask(&Request::VolumeDestroy { name: name.clone(), with_snapshots: true });
            self.volumes.remove(&name);
            self.snapshots.retain(|(volume, _), _| *volume != name);
            return;
        }
        let key = self.snapshots.keys().nth(pick as usize % self.snapshots.len().max(1)).cloned();
        let Some((volume, name)) = key else { return };
        self.ask(&Request::SnapshotDestroy { volume: volume.clone(), name: name.clone() });
        self.snapshots.remove(&(volume, name));
    }

    fn verify(&self) -> Result<(), String> {
        let shown: Vec<String> =
            names_in(&self.root())?.into_iter().filter(|name| name != ".snapshots").collect();
        if shown != self.volumes.keys().cloned().collect::<Vec<_>>() {
            return Err(format!("the mount shows {shown:?}"));
        }
        for (name, tree) in &self.volumes {
            compare(tree, &self.root().join(name)).map_err(|what| format!("{name}: {what}"))?;
        }
        for ((volume, name), tree) in &self.snapshots {
            let root = self.root().join(volume).join(".snapshots").join(name);
            compare(tree, &root).map_err(|what| format!("{volume}@{name}: {what}"))?;
        }
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(host) = self.host.take() {
            let _ = host.end();
        }
    }
}

fn names_in(directory: &Path) -> Result<Vec<String>, String> {
    let entries = fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    Ok(names)
}

fn fill(step: Step) -> Vec<u8> {
    let length = [0, 1, 100, 4096, 8192, 20_000, 65_536][step[3] as usize % 7];
    // Zeros, one byte over and over, or something of its own.
    match step[2] % 3 {
        0 => vec![0; length],
        1 => vec![step[3] as u8; length],
        _ => {
            (0..length).map(|at| (at as u32).wrapping_mul(step[3] | 1).wrapping_add(step[2]) as u8).collect()
        }
    }
}

/// Changes one thing below `root`, and in the map when it worked; both must agree whether it does.
fn change(tree: &mut Tree, root: &Path, step: Step, next_file: &mut u64) -> Result<(), String> {
    let paths: Vec<PathBuf> = tree.nodes.keys().cloned().collect();
    let old = paths.get(step[2] as usize % paths.len().max(1)).cloned().unwrap_or_default();
    let directories =
        tree.nodes.iter().filter(|(_, node)| **node == Node::Directory).map(|(path, _)| path.clone());
    let directories: Vec<PathBuf> = directories.chain([PathBuf::new()]).collect();
    let new = directories[step[3] as usize % directories.len()].join(format!("n{}", step[2] % 7));
    let (here, there) = (root.join(&old), root.join(&new));
    let taken = tree.nodes.contains_key(&new);
    let node = tree.nodes.get(&old).cloned();
    let (worked, expected) = match step[0] % 40 {
        6..=11 => {
            let worked = File::create_new(&there).is_ok();
            if !taken {
                tree.nodes.insert(new.clone(), Node::File(*next_file));
                tree.contents.insert(*next_file, Vec::new());
                *next_file += 1;
            }
            (worked, !taken)
        }
        12 | 13 => {
            let worked = fs::create_dir(&there).is_ok();
            tree.nodes.entry(new.clone()).or_insert(Node::Directory);
            (worked, !taken)
        }
        14 => {
            let worked = std::os::unix::fs::symlink("some/where", &there).is_ok();
            tree.nodes.entry(new.clone()).or_insert(Node::Symlink("some/where".into()));
            (worked, !taken)
        }
        15 => {
            let Some(Node::File(file)) = node else { return Ok(()) };
            let worked = fs::hard_link(&here, &there).is_ok();
            tree.nodes.entry(new.clone()).or_insert(Node::File(file));
            (worked, !taken)
        }
        16 | 17 => {
            let Some(node) = node else { return Ok(()) };
            let empty = !tree.has_children(&old);
            let is_directory = node == Node::Directory;
            let worked = if is_directory { fs::remove_dir(&here) } else { fs::remove_file(&here) }.is_ok();
            if empty {
                tree.nodes.remove(&old);
            }
            (worked, empty)
        }
        18 | 19 => return rename(tree, (&old, &here), (&new, &there)),
        _ => {
            let Some(Node::File(file)) = node else { return Ok(()) };
            let content = tree.contents.get_mut(&file).unwrap();
            write(content, &here, step).map_err(|error| format!("{}: {error}", old.display()))?;
            (true, true)
        }
    };
    if worked == expected {
        return Ok(());
    }
    Err(format!("{} to {}: worked {worked}, expected {expected}", old.display(), new.display()))
}

fn write(content: &mut Vec<u8>, path: &Path, step: Step) -> std::io::Result<()> {
    let offset = u64::from(step[2]) * 37 % FILE_BYTES_MAX;
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    match step[0] % 40 {
        20..=29 => {
            let data = fill(step);
            file.write_all_at(&data, offset)?;
            if !data.is_empty() {
                let end = offset as usize + data.len();
                content.resize(content.len().max(end), 0);
                content[offset as usize..end].copy_from_slice(&data);
            }
        }
        30..=33 => {
            let data = fill(step);
            OpenOptions::new().append(true).open(path)?.write_all(&data)?;
            content.extend_from_slice(&data);
        }
        34 | 35 => {
            file.set_len(offset)?;
            content.resize(offset as usize, 0);
        }
        36 => file.sync_all()?,
        37 => file.sync_data()?,
        _ => {
            let mut found = vec![0; 30_000.min(content.len())];
            let at = (content.len() - found.len()) / 2;
            file.read_exact_at(&mut found, at as u64)?;
            if found != content[at..at + found.len()] {
                return Err(std::io::Error::other("reads something else"));
            }
        }
    }
    Ok(())
}

fn rename(tree: &mut Tree, old: (&Path, &Path), new: (&Path, &Path)) -> Result<(), String> {
    let Some(node) = tree.nodes.get(old.0).cloned() else { return Ok(()) };
    let target = tree.nodes.get(new.0).cloned();
    let is_directory = node == Node::Directory;
    let same = match (file_number(&node), target.as_ref().and_then(file_number)) {
        (Some(one), Some(other)) => one == other,
        _ => old.0 == new.0,
    };
    let fits = match &target {
        None => true,
        Some(Node::Directory) => is_directory && !tree.has_children(new.0),
        Some(_) => !is_directory,
    };
    let expected = same || (fits && !(is_directory && new.0.starts_with(old.0)));
    let worked = fs::rename(old.1, new.1).is_ok();
    if worked != expected {
        let (old, new) = (old.0.display(), new.0.display());
        return Err(format!("rename {old} to {new}: worked {worked}, expected {expected}"));
    }
    if !worked || same {
        return Ok(());
    }
    let moved: Vec<PathBuf> = tree.nodes.keys().filter(|path| path.starts_with(old.0)).cloned().collect();
    tree.nodes.remove(new.0);
    for path in moved {
        let below = path.strip_prefix(old.0).unwrap();
        let to = if below.as_os_str().is_empty() { new.0.to_owned() } else { new.0.join(below) };
        let node = tree.nodes.remove(&path).unwrap();
        tree.nodes.insert(to, node);
    }
    Ok(())
}

/// How what lies below `root` differs from the map.
fn compare(tree: &Tree, root: &Path) -> Result<(), String> {
    let mut found: BTreeSet<PathBuf> = BTreeSet::new();
    let mut inodes: HashMap<u64, u64> = HashMap::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(directory) = waiting.pop() {
        for name in names_in(&root.join(&directory))? {
            let path = directory.join(&name);
            let shown = path.display();
            let real = root.join(&path);
            let meta = fs::symlink_metadata(&real).map_err(|error| format!("{shown}: {error}"))?;
            let node = tree.nodes.get(&path).ok_or_else(|| format!("{shown} should not be there"))?;
            match node {
                Node::Directory if meta.is_dir() => waiting.push(path.clone()),
                Node::Symlink(target) if fs::read_link(&real).ok().as_ref() == Some(target) => {}
                Node::File(file) if meta.is_file() => {
                    let content = fs::read(&real).map_err(|error| format!("{shown}: {error}"))?;
                    if content != tree.contents[file] {
                        let expected = &tree.contents[file];
                        let at = content.iter().zip(expected).position(|(a, b)| a != b);
                        let (has, should) = (content.len(), expected.len());
                        return Err(format!("{shown} has {has} bytes for {should}, differs at {at:?}"));
                    }
                    if meta.nlink() != tree.links(*file)
                        || *inodes.entry(*file).or_insert(meta.ino()) != meta.ino()
                    {
                        return Err(format!("{shown} has {} names, inode {}", meta.nlink(), meta.ino()));
                    }
                }
                _ => return Err(format!("{shown} is no {node:?}")),
            }
            found.insert(path);
        }
    }
    let missing = tree.nodes.keys().find(|path| !found.contains(*path));
    missing.map_or(Ok(()), |path| Err(format!("{} is missing", path.display())))
}

fn outcome(seed: u64, steps: &[Step]) -> Option<String> {
    let mut world = World::new(seed);
    for (number, step) in steps.iter().enumerate() {
        if let Err(what) = world.run(*step) {
            return Some(format!("step {number}, {step:?}: {what}"));
        }
    }
    world.verify().err()
}

/// Leaves out what the failure does not need, in ever smaller pieces.
fn shrink(seed: u64, mut steps: Vec<Step>, mut message: String) -> (Vec<Step>, String) {
    let mut piece = steps.len() / 2;
    while piece > 0 {
        let mut from = 0;
        while from < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(from..(from + piece).min(steps.len()));
            match outcome(seed, &fewer) {
                Some(failure) => (steps, message) = (fewer, failure),
                None => from += piece,
            }
        }
        piece /= 2;
    }
    (steps, message)
}

#[test]
fn mounted_volumes_do_what_a_map_does() {
    use stillpoint::base::Random;
    let number =
        |name: &str, default| std::env::var(name).map_or(default, |text| text.parse::<u64>().unwrap());
    let first = number("STILLPOINT_MODEL_FIRST", 1);
    for seed in first..first + number("STILLPOINT_MODEL_SEEDS", 20) {
        let random = SeededRandom::new(seed);
        let next = || random.next_u64() as u32 >> 4;
        let steps: Vec<Step> = (0..OPERATIONS).map(|_| [next(), next(), next(), next()]).collect();
        if let Some(message) = outcome(seed, &steps) {
            let (steps, message) = shrink(seed, steps, message);
            panic!("seed {seed}: {message}\n{steps:?}");
        }
    }
}
