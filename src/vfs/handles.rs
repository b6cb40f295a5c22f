//! Open files, and the inodes they keep alive.
//!
//! An inode without names lives until its last handle is released. The table decides under one lock whether an
//! unlinked inode is forgotten at once or at its last release, and bars opens of an inode that is being
//! forgotten: an open that came just before an unlink still finds its file, one just after finds none.

use crate::volume::{Ino, View, ViewId};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What a handle is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Read,
    Write,
    /// Pulls the kernel's dirty pages for a snapshot: its fsync needs no journal.
    Flush,
}

/// An open file.
pub(crate) struct OpenFile {
    pub(crate) view: Arc<View>,
    pub(crate) ino: Ino,
    pub(crate) purpose: Purpose,
    /// Opened past the kernel's cache: `O_DSYNC` is then ours to honour.
    pub(crate) direct: bool,
    inode: Arc<OpenInode>,
}

/// What all handles of one inode share.
#[derive(Debug, Default)]
struct OpenInode {
    /// The file has set-id bits or capabilities that a write takes away.
    privileged: AtomicBool,
}

#[derive(Debug)]
struct Counted {
    handles: u32,
    writers: u32,
    unlinked: bool,
    inode: Arc<OpenInode>,
}

/// The open files of one mount.
#[derive(Default)]
pub(crate) struct OpenFiles {
    next_handle: AtomicU64,
    files: RwLock<HashMap<u64, Arc<OpenFile>>>,
    inodes: Mutex<HashMap<(ViewId, Ino), Counted>>,
}

/// What is to be done with an inode whose last name is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Handles are open; it stays.
    Kept,
    /// Nobody has it open: forget it now, then call [`OpenFiles::forgotten`].
    Forget,
}

impl OpenFile {
    pub(crate) fn is_privileged(&self) -> bool {
        self.inode.privileged.load(Ordering::Relaxed)
    }
}

impl OpenFiles {
    /// Counts a handle before it is known whether the inode exists, so that it cannot go away in between.
    /// `None` when it is being forgotten right now. Pair it with [`Self::add`] or [`Self::release_inode`].
    pub(crate) fn reserve(&self, view: ViewId, ino: Ino, purpose: Purpose) -> Option<()> {
        let mut inodes = self.inodes.lock();
        let counted = inodes.entry((view, ino)).or_insert_with(|| Counted {
            handles: 0,
            writers: 0,
            unlinked: false,
            inode: Arc::default(),
        });
        if counted.unlinked && counted.handles == 0 {
            return None;
        }
        counted.handles += 1;
        counted.writers += u32::from(purpose == Purpose::Write);
        Some(())
    }

    /// Makes a reserved handle usable and gives its number.
    pub(crate) fn add(
        &self,
        view: Arc<View>,
        ino: Ino,
        purpose: Purpose,
        direct: bool,
        privileged: bool,
    ) -> u64 {
        let inode = {
            let inodes = self.inodes.lock();
            inodes.get(&(view.id(), ino)).map(|counted| Arc::clone(&counted.inode)).unwrap_or_default()
        };
        inode.privileged.store(privileged, Ordering::Relaxed);
        // Handle 0 is what directories have.
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed) + 1;
        let file = OpenFile { view, ino, purpose, direct, inode };
        self.files.write().insert(handle, Arc::new(file));
        handle
    }

    pub(crate) fn get(&self, handle: u64) -> Option<Arc<OpenFile>> {
        self.files.read().get(&handle).cloned()
    }

    /// Takes a handle out of the table; its inode stays counted until [`Self::release_inode`].
    pub(crate) fn remove(&self, handle: u64) -> Option<Arc<OpenFile>> {
        self.files.write().remove(&handle)
    }

    /// Uncounts a handle.
    pub(crate) fn release_inode(&self, view: ViewId, ino: Ino, purpose: Purpose) -> Fate {
        let mut inodes = self.inodes.lock();
        let Some(counted) = inodes.get_mut(&(view, ino)) else { return Fate::Kept };
        counted.handles = counted.handles.saturating_sub(1);
        counted.writers = counted.writers.saturating_sub(u32::from(purpose == Purpose::Write));
        match (counted.handles, counted.unlinked) {
            // The entry stays and bars opens until `forgotten`.
            (0, true) => Fate::Forget,
            (0, false) => {
                inodes.remove(&(view, ino));
                Fate::Kept
            }
            _ => Fate::Kept,
        }
    }

    /// The inode's last name is gone.
    pub(crate) fn unlinked(&self, view: ViewId, ino: Ino) -> Fate {
        let mut inodes = self.inodes.lock();
        let counted = inodes.entry((view, ino)).or_insert_with(|| Counted {
            handles: 0,
            writers: 0,
            unlinked: true,
            inode: Arc::default(),
        });
        counted.unlinked = true;
        if counted.handles == 0 { Fate::Forget } else { Fate::Kept }
    }

    /// The inode was forgotten by the volume.
    pub(crate) fn forgotten(&self, view: ViewId, ino: Ino) {
        self.inodes.lock().remove(&(view, ino));
    }

    /// Remembers for writers whether the inode now has set-id bits or capabilities.
    pub(crate) fn set_privileged(&self, view: ViewId, ino: Ino, privileged: bool) {
        if let Some(counted) = self.inodes.lock().get(&(view, ino)) {
            counted.inode.privileged.store(privileged, Ordering::Relaxed);
        }
    }

    pub(crate) fn has_writers(&self, view: ViewId, ino: Ino) -> bool {
        self.inodes.lock().get(&(view, ino)).is_some_and(|counted| counted.writers > 0)
    }

    /// Inodes of a view that are open for writing: the only ones the kernel may have dirty pages of, for it
    /// writes back at each close.
    pub(crate) fn written_inodes(&self, view: ViewId) -> Vec<Ino> {
        let inodes = self.inodes.lock();
        inodes
            .iter()
            .filter(|((of, _), counted)| *of == view && counted.writers > 0)
            .map(|((_, ino), _)| *ino)
            .collect()
    }

    /// How many handles are open in a view.
    pub(crate) fn count(&self, view: ViewId) -> u64 {
        let inodes = self.inodes.lock();
        inodes.iter().filter(|((of, _), _)| *of == view).map(|(_, counted)| u64::from(counted.handles)).sum()
    }

    /// How many handles are open.
    pub(crate) fn total(&self) -> u64 {
        self.inodes.lock().values().map(|counted| u64::from(counted.handles)).sum()
    }

    /// Empties the table and gives the unlinked inodes that were still open.
    pub(crate) fn drain(&self) -> Vec<(Arc<View>, Ino)> {
        let files: Vec<Arc<OpenFile>> = self.files.write().drain().map(|(_, file)| file).collect();
        let mut inodes = self.inodes.lock();
        let mut left = Vec::new();
        for file in files {
            if inodes.remove(&(file.view.id(), file.ino)).is_some_and(|counted| counted.unlinked) {
                left.push((Arc::clone(&file.view), file.ino));
            }
        }
        inodes.clear();
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: (ViewId, Ino) = (ViewId(3), 20);

    #[test]
    fn an_unlinked_inode_is_forgotten_at_its_last_release() {
        let open = OpenFiles::default();
        assert!(open.reserve(FILE.0, FILE.1, Purpose::Write).is_some());
        assert!(open.reserve(FILE.0, FILE.1, Purpose::Read).is_some());
        assert_eq!(open.unlinked(FILE.0, FILE.1), Fate::Kept);
        assert_eq!(open.release_inode(FILE.0, FILE.1, Purpose::Write), Fate::Kept);
        assert_eq!(open.release_inode(FILE.0, FILE.1, Purpose::Read), Fate::Forget);
        assert!(open.reserve(FILE.0, FILE.1, Purpose::Read).is_none(), "it is being forgotten");
        open.forgotten(FILE.0, FILE.1);
        assert_eq!(open.count(FILE.0), 0);
    }

    #[test]
    fn an_inode_nobody_has_open_is_forgotten_at_once() {
        let open = OpenFiles::default();
        assert_eq!(open.unlinked(FILE.0, FILE.1), Fate::Forget);
        assert!(open.reserve(FILE.0, FILE.1, Purpose::Read).is_none());
        open.forgotten(FILE.0, FILE.1);
        assert!(open.reserve(FILE.0, FILE.1, Purpose::Read).is_some());
    }

    #[test]
    fn only_inodes_with_writers_may_be_dirty() {
        let open = OpenFiles::default();
        open.reserve(FILE.0, FILE.1, Purpose::Write).unwrap();
        open.reserve(FILE.0, 21, Purpose::Read).unwrap();
        open.reserve(ViewId(4), 22, Purpose::Write).unwrap();
        assert_eq!(open.written_inodes(FILE.0), vec![FILE.1]);
        open.release_inode(FILE.0, FILE.1, Purpose::Write);
        assert!(open.written_inodes(FILE.0).is_empty());
    }
}
