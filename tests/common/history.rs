//! What a crash may leave: every state a run went through, what each operation made durable, and judging what a
//! store shows after it was opened again.
//!
//! Catalog operations are durable when they return. Names and attributes of a volume are those after some
//! operation not older than the last one that was acknowledged; each page of a file is what it was after one of
//! the operations since the file was last acknowledged.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::sync::Arc;

use stillpoint::volume::{Ino, Store, ViewId};

use super::model::{Body, FileBody, Node, PAGE, Tree, read_back};
use super::operations::Operation;
use super::world::{Acknowledged, Model, VolumeModel, World, verify_view};

/// As `Acknowledged`, by numbers, which renames do not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durable {
    Nothing,
    File(ViewId, Ino),
    Volume(ViewId),
    Everything,
}

/// One run: `states[n]` is before operation `n`, `states[n + 1]` after it.
pub struct History {
    pub operations: Vec<Operation>,
    pub states: Vec<Model>,
    pub durable: Vec<Durable>,
}

/// What of a history a crash may have left.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// The operation in which it came.
    pub during: usize,
    /// Only what operations before this one acknowledged must be there; `usize::MAX` for all.
    pub honest: usize,
}

impl History {
    /// Runs `operations`, telling `before` the number of each.
    pub fn record(
        world: &mut World,
        operations: Vec<Operation>,
        before: &mut dyn FnMut(usize),
    ) -> Result<Self, String> {
        let mut history = Self { operations, states: vec![world.model.clone()], durable: Vec::new() };
        for (number, operation) in history.operations.iter().enumerate() {
            before(number);
            let acknowledged = world
                .run(operation)
                .map_err(|error| format!("operation {number}, {operation:?}: {error}"))?;
            history.durable.push(by_number(&world.model, &acknowledged));
            history.states.push(world.model.clone());
        }
        before(history.operations.len());
        Ok(history)
    }

    fn last_state(&self, window: Window) -> usize {
        (window.during + 1).min(self.states.len() - 1)
    }

    /// The first state that `covers` lets be lost nothing of.
    fn floor(&self, window: Window, volume: ViewId, covers: impl Fn(Durable) -> bool) -> usize {
        let returned = window.during.min(window.honest).min(self.durable.len());
        let acknowledged = self.durable[..returned].iter().rposition(|durable| covers(*durable));
        let born = self.states.iter().position(|state| find(state, volume).is_some()).unwrap_or(0);
        acknowledged.map_or(0, |number| number + 1).max(born)
    }

    /// The catalogs a crash may have left.
    fn catalogs(&self, window: Window) -> std::ops::RangeInclusive<usize> {
        let first = if window.honest < window.during {
            let returned = window.honest.min(self.durable.len());
            let all = |durable: &Durable| *durable == Durable::Everything;
            self.durable[..returned].iter().rposition(all).map_or(0, |number| number + 1)
        } else {
            window.during.min(self.states.len() - 1)
        };
        first..=self.last_state(window)
    }

    /// Whether the store may look like this after the crash; what it looks like as a model, to go on with.
    pub fn judge(&self, store: &Store, window: Window) -> Result<Model, String> {
        let found = catalog_of(store)?;
        // A snapshot that was destroyed and taken again under its name gives several states the same names.
        let states = self.catalogs(window).rev().filter(|state| shape(&self.states[*state]) == found);
        let mut wrong = format!("the volumes and snapshots are {found:?}");
        for state in states {
            match self.judge_state(store, window, &self.states[state]) {
                Ok(model) => return Ok(model),
                Err(error) => wrong = error,
            }
        }
        Err(wrong)
    }

    fn judge_state(&self, store: &Store, window: Window, state: &Model) -> Result<Model, String> {
        let mut model = state.clone();
        for (name, volume) in &mut model.volumes {
            let view = store.volume(name).map_err(|error| format!("{name}: {error:?}"))?;
            if view.id() != volume.id {
                return Err(format!("{name} has number {:?} instead of {:?}", view.id(), volume.id));
            }
            let tree = read_back(&view).map_err(|error| format!("{name}: {error:?}"))?;
            self.judge_volume(&tree, volume.id, window).map_err(|error| format!("{name}: {error}"))?;
            volume.tree = tree;
            for (snapshot, tree) in &volume.snapshots {
                let view = store.snapshot(name, snapshot).map_err(|error| format!("{error:?}"))?;
                verify_view(&view, tree, &format!("{name}@{snapshot}"))?;
            }
        }
        Ok(model)
    }

    fn judge_volume(&self, tree: &Tree, volume: ViewId, window: Window) -> Result<(), String> {
        let last = self.last_state(window);
        let named = |durable| match durable {
            Durable::File(id, _) | Durable::Volume(id) => id == volume,
            Durable::Everything => true,
            Durable::Nothing => false,
        };
        let floor = self.floor(window, volume, named);
        let names = names_of(tree);
        let states = (floor..=last).filter_map(|state| find(&self.states[state], volume));
        if !states.clone().any(|state| names_of(&state.tree) == names) {
            let first = states.clone().next().map(|state| names_of(&state.tree));
            let difference = first.and_then(|first| first.difference(&names));
            return Err(format!(
                "names are those of no state from {floor} to {last}; to the first of them: {difference:?}"
            ));
        }
        for (ino, node) in &tree.nodes {
            if let Body::File(file) = &node.body {
                self.judge_file(file, volume, *ino, window)
                    .map_err(|error| format!("inode {ino} {error}"))?;
            }
        }
        Ok(())
    }

    fn judge_file(&self, file: &FileBody, volume: ViewId, ino: Ino, window: Window) -> Result<(), String> {
        let covers = |durable| match durable {
            Durable::File(id, synced) => id == volume && synced == ino,
            Durable::Volume(id) => id == volume,
            Durable::Everything => true,
            Durable::Nothing => false,
        };
        let (floor, last) = (self.floor(window, volume, covers), self.last_state(window));
        let versions: Vec<&FileBody> = (floor..=last)
            .filter_map(|state| find(&self.states[state], volume)?.tree.file(ino).ok())
            .collect();
        if !versions.iter().any(|version| version.size == file.size) {
            let sizes: BTreeSet<u64> = versions.iter().map(|version| version.size).collect();
            return Err(format!("has size {}, in states {floor} to {last} it had {sizes:?}", file.size));
        }
        // A shorter size is a change of attributes, and may be durable before the data it cuts.
        let was_cut = versions.windows(2).any(|pair| pair[1].size < pair[0].size);
        let zeros: Arc<[u8]> = vec![0; PAGE as usize].into();
        let pages: BTreeSet<u64> = versions
            .iter()
            .copied()
            .chain([file])
            .flat_map(|version| version.pages.keys().copied())
            .collect();
        for page in pages.into_iter().filter(|page| page * PAGE < file.size) {
            let within = (file.size - page * PAGE).min(PAGE) as usize;
            let of = |version: &FileBody| version.pages.get(&page).unwrap_or(&zeros).clone();
            let found = of(file);
            let known: Vec<Arc<[u8]>> = versions.iter().map(|version| of(version)).collect();
            if known.iter().any(|version| version[..within] == found[..within]) {
                continue;
            }
            let known_byte =
                |at: &usize| found[*at] == 0 || known.iter().any(|version| version[*at] == found[*at]);
            match (0..within).find(|at| !(was_cut && known_byte(at))) {
                None => {}
                Some(at) => {
                    return Err(format!(
                        "is in page {page}, byte {at} ({}) as in no state from {floor} to {last}",
                        found[at]
                    ));
                }
            }
        }
        Ok(())
    }
}

fn by_number(model: &Model, acknowledged: &Acknowledged) -> Durable {
    let id = |name: &String| model.volumes[name].id;
    match acknowledged {
        Acknowledged::Nothing => Durable::Nothing,
        Acknowledged::File(name, ino) => Durable::File(id(name), *ino),
        Acknowledged::Volume(name) => Durable::Volume(id(name)),
        Acknowledged::Everything => Durable::Everything,
    }
}

fn find(model: &Model, volume: ViewId) -> Option<&VolumeModel> {
    model.volumes.values().find(|model| model.id == volume)
}

type Shape = Vec<(String, Vec<String>)>;

fn shape(model: &Model) -> Shape {
    let of = |volume: &VolumeModel| volume.snapshots.keys().cloned().collect();
    model.volumes.iter().map(|(name, volume)| (name.clone(), of(volume))).collect()
}

fn catalog_of(store: &Store) -> Result<Shape, String> {
    let mut out = Vec::new();
    for (name, id) in store.volume_names() {
        let snapshots = store.snapshot_names(id).map_err(|error| format!("{name}: {error:?}"))?;
        out.push((name, snapshots.into_iter().map(|(name, _)| name).collect()));
    }
    Ok(out)
}

/// The tree without what files hold and without inodes that have no name.
fn names_of(tree: &Tree) -> Tree {
    let without_data = |node: &Arc<Node>| match &node.body {
        Body::File(_) => Arc::new(Node { body: Body::File(FileBody::default()), ..(**node).clone() }),
        _ => node.clone(),
    };
    let named = tree.nodes.iter().filter(|(_, node)| node.links > 0);
    Tree { nodes: named.map(|(ino, node)| (*ino, without_data(node))).collect() }
}
