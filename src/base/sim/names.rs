//! Names of a simulated directory tree: what readers see, what is durable, and the ordered changes between.
//!
//! Must not know the files' bytes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::base::random::Random;

/// A simulated inode number.
pub(super) type FileId = u64;

/// One tree of names. The root folder "" is always there.
#[derive(Clone, Default)]
pub(super) struct Tree {
    pub(super) files: BTreeMap<String, FileId>,
    pub(super) folders: BTreeSet<String>,
}

impl Tree {
    pub(super) fn has_folder(&self, folder: &str) -> bool {
        folder.is_empty() || self.folders.contains(folder)
    }

    fn apply(&mut self, change: &NameChange) {
        match change {
            NameChange::Create { name, id } => {
                self.files.insert(name.clone(), *id);
            }
            NameChange::Remove { name } => {
                self.files.remove(name);
            }
            NameChange::Rename { from, to, id } => {
                self.files.remove(from);
                self.files.insert(to.clone(), *id);
            }
            NameChange::CreateFolder { name } => {
                self.folders.insert(name.clone());
            }
        }
    }

    /// Forgets what lies in folders that are not there.
    fn prune(&mut self) {
        // Sorted, so a parent is judged before its children.
        for folder in std::mem::take(&mut self.folders) {
            if self.has_folder(parent(&folder)) {
                self.folders.insert(folder);
            }
        }
        let folders = std::mem::take(&mut self.folders);
        self.files.retain(|name, _| parent(name).is_empty() || folders.contains(parent(name)));
        self.folders = folders;
    }
}

#[derive(Clone)]
pub(super) enum NameChange {
    Create { name: String, id: FileId },
    Remove { name: String },
    Rename { from: String, to: String, id: FileId },
    CreateFolder { name: String },
}

impl NameChange {
    /// The folders whose sync makes the change durable.
    fn folders(&self) -> Vec<&str> {
        match self {
            Self::Create { name, .. } | Self::Remove { name } | Self::CreateFolder { name } => {
                vec![parent(name)]
            }
            Self::Rename { from, to, .. } if parent(from) == parent(to) => vec![parent(from)],
            Self::Rename { from, to, .. } => vec![parent(from), parent(to)],
        }
    }
}

/// The folder that holds `name`.
pub(super) fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// The names of one storage.
#[derive(Clone, Default)]
pub(super) struct Names {
    current: Tree,
    durable: Tree,
    pending: Vec<NameChange>,
}

impl Names {
    pub(super) fn current(&self) -> &Tree {
        &self.current
    }

    /// Whether a crash could bring the file back, or readers see it.
    pub(super) fn mentions(&self, id: FileId) -> bool {
        let pending = |change: &NameChange| match change {
            NameChange::Create { id: of, .. } | NameChange::Rename { id: of, .. } => *of == id,
            NameChange::Remove { .. } | NameChange::CreateFolder { .. } => false,
        };
        self.current.files.values().any(|&of| of == id)
            || self.durable.files.values().any(|&of| of == id)
            || self.pending.iter().any(pending)
    }

    pub(super) fn change(&mut self, change: NameChange) {
        self.current.apply(&change);
        self.pending.push(change);
    }

    /// Records a change in which the crash came: it may land, but nobody sees it before.
    pub(super) fn change_at_crash(&mut self, change: NameChange) {
        self.pending.push(change);
    }

    /// Removes a file so that no crash brings it back; makes all earlier changes durable too.
    pub(super) fn remove_durably(&mut self, name: &str) {
        for change in self.pending.drain(..) {
            self.durable.apply(&change);
        }
        let change = NameChange::Remove { name: name.to_owned() };
        self.current.apply(&change);
        self.durable.apply(&change);
    }

    /// Makes the changes in `folder` durable, and those in other folders that they build on.
    pub(super) fn sync(&mut self, folder: &str) {
        let mut folders: BTreeSet<String> = BTreeSet::from([folder.to_owned()]);
        let mut lands = vec![false; self.pending.len()];
        for (index, change) in self.pending.iter().enumerate().rev() {
            let touched = change.folders();
            if touched.iter().any(|&name| folders.contains(name)) {
                lands[index] = true;
                folders.extend(touched.into_iter().map(str::to_owned));
            }
        }
        let mut lands = lands.into_iter();
        let durable = &mut self.durable;
        self.pending.retain(|change| {
            let land = lands.next().unwrap_or(false);
            if land {
                durable.apply(change);
            }
            !land
        });
    }

    /// The tree with every pending change.
    pub(super) fn all(&self) -> Tree {
        let mut tree = self.durable.clone();
        self.pending.iter().for_each(|change| tree.apply(change));
        tree.prune();
        tree
    }

    /// The tree with no pending change.
    pub(super) fn none(&self) -> Tree {
        let mut tree = self.durable.clone();
        tree.prune();
        tree
    }

    /// The tree with a random start of the pending changes of each folder.
    pub(super) fn random(&self, random: &dyn Random) -> Tree {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for folder in self.pending.iter().flat_map(NameChange::folders) {
            *counts.entry(folder).or_default() += 1;
        }
        let mut left: HashMap<&str, u64> =
            counts.into_iter().map(|(folder, count)| (folder, random.next_u64() % (count + 1))).collect();
        let mut tree = self.durable.clone();
        for change in &self.pending {
            let folders = change.folders();
            let lands = folders.iter().all(|folder| left.get(folder).is_some_and(|&left| left > 0));
            for folder in folders {
                if let Some(left) = left.get_mut(folder) {
                    // A change between two folders that one of them loses stops the other too.
                    *left = if lands { *left - 1 } else { 0 };
                }
            }
            if lands {
                tree.apply(change);
            }
        }
        tree.prune();
        tree
    }

    /// Names as they are after a restart.
    pub(super) fn settled(tree: Tree) -> Self {
        Self { current: tree.clone(), durable: tree, pending: Vec::new() }
    }
}
