//! Creating, opening, replaying and closing a store, and its threads.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};

use super::catalog::Catalog;
use super::reclaim::Replayed;
use super::roots::{Roots, RootsContent};
use super::shared::{Requests, Shared};
use super::store::{Serial, Store, StoreInner};
use super::trees::{Child, Trees, for_each_child};
use super::types::{CreateOptions, Environment, OpenOptions};
use super::unlogged::Unlogged;
use super::view::View;
use crate::base::{Error, ErrorKind, OpenMode, Result, Storage};
use crate::block::{BlockStore, BlockStoreOptions, RefTable};
use crate::format::Pointer;
use crate::format::catalog_records::{FORMAT_VERSION, Superblock};
use crate::format::inode::{Inode, MapRoot};
use crate::format::journal::Seq;
use crate::format::log::{LogRecord, TreeChange};
use crate::format::node::Node;
use crate::format::segment::BlockKind;
use crate::format::{PAGE_SIZE, key};
use crate::index::HintTable;
use crate::journal::{self, Journal, JournalOptions};

/// A text file that tells people and programs what the folder is.
const FORMAT_FILE: &str = "format";
/// Changes stay in memory no longer than this.
const IDLE: Duration = Duration::from_secs(10);
/// Damaged nodes named in the log at an open; the rest is counted.
const WARNINGS_MAX: u64 = 10;

fn format_text() -> String {
    format!("Stillpoint store, format version {FORMAT_VERSION}\n")
}

impl Store {
    /// Makes a store in an empty folder. Durable when it returns.
    pub fn create(
        storage: Arc<dyn Storage>,
        environment: &Environment,
        options: &CreateOptions,
    ) -> Result<()> {
        let names = storage.list("").map_err(|error| Error::io("list", "the store's folder", error))?;
        if let Some(name) = names.iter().find(|name| *name != "lock") {
            let message = format!("the folder is not empty: it has {name:?}; give a new or an empty one");
            return Err(Error::new(ErrorKind::Exists, message));
        }
        storage.create_dir("segments").map_err(|error| Error::io("create", "segments", error))?;
        let store_id = environment.random.next_id();
        let start = journal::create(storage.as_ref(), store_id, options.journal_bytes)?;
        let superblock = Superblock {
            store_id,
            commit: 0,
            checkpoint: 0,
            journal: start,
            next_view: 1,
            next_segment: 0,
            next_file: 0,
        };
        Roots::create(&storage, &superblock)?;
        write_format(storage.as_ref())
    }

    /// Whether a folder is a store, be it damaged.
    pub fn exists(storage: &dyn Storage) -> bool {
        storage.open(FORMAT_FILE, OpenMode::Read).is_ok() || super::roots::exist(storage)
    }

    /// Opens a store: reads the roots, counts references, replays the journal.
    pub fn open(
        storage: Arc<dyn Storage>,
        environment: &Environment,
        options: &OpenOptions,
    ) -> Result<Arc<Self>> {
        let options = &OpenOptions { read_only: options.read_only || options.rescue, ..*options };
        let whole = check_format(storage.as_ref())?;
        let (roots, content) = Roots::open(&storage, options.read_only)?;
        if !whole {
            tracing::warn!("file \"format\" is damaged or missing: making it anew");
        }
        if !whole && !options.read_only {
            let _ = storage.remove(FORMAT_FILE);
            write_format(storage.as_ref())?;
        }
        let RootsContent { superblock, volumes, snapshots, segments } = content;
        let block_options = BlockStoreOptions {
            content_cache_bytes: options.content_cache_bytes,
            segment_bytes: options.segment_bytes,
            allocate_step_bytes: (options.segment_bytes / 16).clamp(4096, 4 << 20),
            ..BlockStoreOptions::default()
        };
        let blocks = Arc::new(BlockStore::new(
            storage.clone(),
            block_options,
            segments,
            superblock.next_segment,
            superblock.next_file,
            options.read_only,
        ));
        if !options.read_only {
            blocks.remove_unnamed_files()?;
            blocks.resume_last()?;
        }
        let shared = Arc::new(new_shared(storage.clone(), environment, options, blocks));
        let catalog = Catalog::load(&shared, volumes, snapshots, superblock.next_view)?;
        let reserve = storage.open(super::space::RESERVE_FILE, OpenMode::Read).and_then(|file| file.len());
        let pool = options.background.then(checkpoint_pool).transpose()?;
        let inner = Arc::new(StoreInner {
            shared,
            catalog: Mutex::new(catalog),
            roots,
            serial: Mutex::new(Serial {
                superblock,
                condemned: Vec::new(),
                damaged: HashSet::new(),
                recounted: Duration::ZERO,
            }),
            pool,
            store_id: superblock.store_id,
            checkpoints: AtomicU64::new(superblock.checkpoint),
            reserve_bytes: AtomicU64::new(reserve.unwrap_or(0)),
            closed: AtomicBool::new(false),
            threads: Mutex::new(Vec::new()),
            unique: Mutex::new(HashMap::new()),
        });
        inner.rebuild_refs();
        inner.replay(&superblock)?;
        inner.refresh_space();
        if !options.read_only {
            inner.restore_reserve();
            inner.start_threads();
        }
        Ok(Arc::new(Self { inner }))
    }

    /// Makes everything durable and stops the store's threads. Idempotent. Views of it fail from then on.
    pub fn close(&self) -> Result<()> {
        self.inner.close()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(error) = self.inner.close() {
            tracing::error!("closing the store: {error}");
        }
    }
}

/// Whether the file `format` is whole. A store of another version is refused; where it is only damaged or missing, the
/// roots say what the folder is.
fn check_format(storage: &dyn Storage) -> Result<bool> {
    let read = || -> std::io::Result<Vec<u8>> {
        let file = storage.open(FORMAT_FILE, OpenMode::Read)?;
        let mut bytes = vec![0; file.len()?.min(4096) as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    };
    let has_roots = super::roots::exist(storage);
    match read() {
        Ok(bytes) if bytes == format_text().as_bytes() => Ok(true),
        Ok(bytes) if !has_roots => {
            let found = String::from_utf8_lossy(&bytes).into_owned();
            Err(Error::not_found(format!(
                "this folder is no Stillpoint store: file \"format\" says {found:?}"
            )))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !has_roots => {
            Err(Error::not_found("this folder is no Stillpoint store: no file \"format\""))
        }
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("read", FORMAT_FILE, error))
        }
        _ => Ok(false),
    }
}

fn write_format(storage: &dyn Storage) -> Result<()> {
    let text = format_text();
    let file = storage
        .open(FORMAT_FILE, OpenMode::CreateNew)
        .map_err(|error| Error::io("create", FORMAT_FILE, error))?;
    file.write_all_at(text.as_bytes(), 0)
        .and_then(|()| file.sync_data())
        .map_err(|error| Error::io("write", FORMAT_FILE, error))?;
    storage.sync_dir("").map_err(|error| Error::io("sync", "the store's folder", error))
}

fn checkpoint_pool() -> Result<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(std::thread::available_parallelism().map_or(2, usize::from).min(4))
        .thread_name(|index| format!("sp-pages-{index}"))
        .build()
        .map_err(|error| Error::with_source(ErrorKind::Io, "cannot start threads", error))
}

fn new_shared(
    storage: Arc<dyn Storage>,
    environment: &Environment,
    options: &OpenOptions,
    blocks: Arc<BlockStore>,
) -> Shared {
    Shared {
        storage,
        environment: environment.clone(),
        options: *options,
        trees: Trees::new(blocks, options.node_cache_bytes),
        hints: HintTable::new(options.hint_bytes_max),
        journal: OnceLock::new(),
        gate: RwLock::new(()),
        live_cost: AtomicU64::new(0),
        frozen_cost: AtomicU64::new(0),
        requests: Mutex::new(Requests::default()),
        request_arrived: Condvar::new(),
        room: Condvar::new(),
        room_lock: Mutex::new(()),
        free_bytes: AtomicU64::new(u64::MAX / 4),
        blocked: Mutex::new(None),
        last_share: AtomicU64::new(0),
        failed: OnceLock::new(),
        inline_checkpoint: OnceLock::new(),
        reserved: Mutex::new(HashMap::new()),
    }
}

impl StoreInner {
    /// Counts all references by walking from the durable roots, each node once. What lies below a node that cannot
    /// be read is not counted; until all is, nothing is reclaimed.
    pub(crate) fn rebuild_refs(&self) {
        let trees = &self.shared.trees;
        trees.forget_written();
        let roots = self.catalog.lock().durable_roots();
        let mut unreadable = 0;
        let table = count_references(trees, &roots, &mut |pointer, result| match result {
            Ok(()) => trees.figures.add(pointer),
            Err(error) => {
                unreadable += 1;
                if unreadable <= WARNINGS_MAX {
                    tracing::warn!("a tree node cannot be read: {error}");
                }
            }
        });
        if unreadable > 0 {
            tracing::warn!(
                "{unreadable} tree nodes cannot be read: no space is reclaimed until what they belong to is \
                 destroyed; `store scrub` names it"
            );
        }
        trees.incomplete.store(unreadable > 0, Ordering::Relaxed);
        *trees.refs.lock() = table;
    }

    fn replay(&self, superblock: &Superblock) -> Result<()> {
        let mut catalog = self.catalog.lock();
        let mut replayed = Replayed::default();
        let mut apply = |seq: Seq, payload: &[u8]| -> Result<()> {
            let record = LogRecord::decode(payload)?;
            match record {
                LogRecord::Catalog(change) => match replayed.applies(&mut catalog, &change) {
                    true => catalog.apply(&self.shared, &change, None),
                    false => Ok(()),
                },
                LogRecord::Tree { view, changes } => {
                    // A record of a volume that a later record destroyed.
                    let Some(entry) = catalog.volumes.get(&view) else { return Ok(()) };
                    if seq.0 < entry.applied_seq {
                        return Ok(());
                    }
                    if changes.iter().any(|change| matches!(change, TreeChange::Share { .. })) {
                        self.shared.last_share.fetch_max(seq.0, Ordering::Relaxed);
                    }
                    entry.view.replay(changes)
                }
            }
        };
        if self.shared.options.rescue {
            return self.replay_for_rescue(superblock, &mut apply);
        }
        if self.shared.options.read_only {
            journal::read_only_replay(self.shared.storage.as_ref(), superblock.journal, &mut apply)?;
            return replayed.finish();
        }
        let options = JournalOptions { threaded: self.shared.options.background };
        let journal = Journal::open(&self.shared.storage, superblock.journal, options, &mut apply);
        let journal = journal.map_err(|error| match error.kind() {
            ErrorKind::Corrupt => error.context(
                "changes that were acknowledged are damaged (`mount --rescue` shows the rest, read-only)",
            ),
            _ => error,
        })?;
        replayed.finish()?;
        if self.shared.options.background {
            let shared = Arc::downgrade(&self.shared);
            journal.on_pressure(Arc::new(move || {
                if let Some(shared) = Weak::upgrade(&shared) {
                    shared.request_checkpoint(None);
                }
            }));
        }
        let _ = self.shared.journal.set(journal);
        Ok(())
    }

    /// Replays what can be; what cannot is said and left out.
    fn replay_for_rescue(
        &self,
        superblock: &Superblock,
        apply: &mut dyn FnMut(Seq, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut apply = |seq: Seq, payload: &[u8]| {
            if let Err(error) = apply(seq, payload) {
                tracing::warn!("rescue: journal record {} is left out: {error}", seq.0);
            }
            Ok(())
        };
        let start = superblock.journal;
        if let Err(error) = journal::read_only_replay(self.shared.storage.as_ref(), start, &mut apply) {
            tracing::warn!(
                "rescue: what was acknowledged after the last checkpoint is not all there: {error}"
            );
        }
        Ok(())
    }

    fn start_threads(self: &Arc<Self>) {
        let weak = Arc::downgrade(self);
        let _ = self.shared.inline_checkpoint.set(Box::new(move || match weak.upgrade() {
            Some(inner) => inner.run_checkpoint(),
            None => Ok(()),
        }));
        if !self.shared.options.background {
            if let Err(error) = self.rebuild_hints() {
                tracing::warn!("deduplication hints are not complete: {error}");
            }
            return;
        }
        let mut threads = self.threads.lock();
        let inner = self.clone();
        let checkpoints = std::thread::Builder::new().name("sp-checkpoint".into());
        threads.extend(checkpoints.spawn(move || inner.checkpoint_loop()));
        let inner = self.clone();
        let hints = std::thread::Builder::new().name("sp-hints".into());
        threads.extend(hints.spawn(move || {
            if let Err(error) = inner.rebuild_hints() {
                tracing::warn!("deduplication hints are not complete: {error}");
            }
        }));
    }

    fn rebuild_hints(&self) -> Result<()> {
        let trees = &self.shared.trees;
        for info in trees.blocks.segments() {
            if self.closed.load(Ordering::Relaxed) {
                return Ok(());
            }
            let _gate = self.shared.gate.read_recursive();
            let result = trees.blocks.for_each_entry(info.id, &mut |entry| {
                if entry.kind == BlockKind::Page {
                    let place = crate::format::Place { segment: info.id, slot: entry.slot };
                    self.shared.hints.insert(&entry.id, place);
                }
            });
            if let Err(error) = result {
                tracing::warn!("segment {}: {error}", info.id);
            }
        }
        Ok(())
    }

    fn checkpoint_loop(&self) {
        loop {
            {
                let mut requests = self.shared.requests.lock();
                if !requests.wanted && !requests.stop {
                    self.shared.request_arrived.wait_for(&mut requests, IDLE);
                }
                if requests.stop && !requests.wanted {
                    return;
                }
                if !requests.wanted
                    && self.shared.dirty_bytes() == 0
                    && self.serial.lock().condemned.is_empty()
                {
                    continue;
                }
            }
            let result = self.run_checkpoint();
            if result.is_ok() {
                self.reclaim_some();
            }
            if let Err(error) = result {
                tracing::error!("checkpoint: {error}");
                // A full host or a dead disk does not get better by trying at once.
                let mut requests = self.shared.requests.lock();
                if !requests.stop {
                    self.shared.request_arrived.wait_for(&mut requests, Duration::from_millis(200));
                }
            }
        }
    }

    fn close(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) || self.shared.options.read_only {
            return Ok(());
        }
        let mut result = self.checkpoint_now();
        if let Err(error) = &result
            && super::checkpoint::blocks_only(error.kind())
        {
            // What cannot be stored in segments now may still fit the journal, where the next open finds it.
            tracing::warn!("closing without a checkpoint: {error}");
            result = self.flush_views();
        }
        {
            let mut requests = self.shared.requests.lock();
            requests.stop = true;
            self.shared.request_arrived.notify_all();
        }
        for thread in std::mem::take(&mut *self.threads.lock()) {
            let _ = thread.join();
        }
        if let Ok(journal) = self.shared.journal() {
            result = result.and(journal.shut_down());
        }
        self.roots.close();
        result
    }

    fn flush_views(&self) -> Result<()> {
        let views: Vec<_> = self.catalog.lock().volumes.values().map(|entry| entry.view.clone()).collect();
        views.iter().try_for_each(|view| view.flush())
    }
}

/// References of everything below `roots`; `visit` hears of each node once, and whether it could be read.
pub(crate) fn count_references(
    trees: &Trees,
    roots: &[Pointer],
    visit: &mut dyn FnMut(&Pointer, Result<()>),
) -> RefTable {
    let mut table = RefTable::default();
    let mut stack: Vec<Pointer> = Vec::new();
    for root in roots {
        if table.add(root) == 1 {
            stack.push(*root);
        }
    }
    while let Some(pointer) = stack.pop() {
        // All children or none: an item that cannot be understood leaves no half-counted node.
        let mut children: Vec<(Pointer, Child)> = Vec::new();
        let read = trees
            .node_uncached(&pointer)
            .and_then(|node: Node| for_each_child(&node, &mut |child, kind| children.push((*child, kind))));
        if read.is_err() {
            children.clear();
        }
        visit(&pointer, read);
        for (child, kind) in children {
            if table.add(&child) == 1 && kind == Child::Node {
                stack.push(child);
            }
        }
    }
    table
}

impl View {
    fn replay(&self, changes: Vec<TreeChange<'_>>) -> Result<()> {
        let mut state = self.state.write();
        let before = state.live.cost;
        for change in changes {
            match change {
                TreeChange::Metadata(batch) => {
                    for (item, value) in batch {
                        let (ino, kind, _) = key::split(&item)?;
                        state.next_ino = state.next_ino.max(ino + 1).max(super::types::FIRST_INO);
                        if kind == key::kind::INODE {
                            match &value {
                                None => state.live.forget_file(ino),
                                Some(value) => self.replay_cut(&mut state, ino, &Inode::decode(value)?)?,
                            }
                        }
                        if kind == key::kind::MAP
                            && let Some(value) = &value
                        {
                            MapRoot::decode(value)?;
                        }
                        state.live.put(item, value);
                    }
                }
                TreeChange::Clear { ino, from, to } => state.live.clear_pages(ino, from, to),
                TreeChange::Share { ino, page, pointer } => {
                    state.live.set_page(ino, page, super::layer::PageEntry::Stored(pointer));
                }
                TreeChange::Data { ino, offset, bytes } => {
                    let within = (offset % PAGE_SIZE as u64) as usize;
                    if within + bytes.len() > PAGE_SIZE {
                        return Err(Error::corrupt("a journal record writes beyond its page"));
                    }
                    self.replay_data(&mut state, ino, offset, bytes)?;
                }
            }
        }
        // All of it is in the journal.
        state.unlogged = Unlogged::default();
        self.account(before, state.live.cost);
        Ok(())
    }
}
