//! The segment table in memory: reading blocks by pointer, appending new ones, dropping and rewriting segments.
//!
//! The table in memory runs ahead of the committed one by what the running checkpoint has appended;
//! `take_changes` hands those records to the committer, `abandon` forgets them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use rayon::prelude::*;

use super::codec::{Encoded, decode_body, decode_body_into};
use super::directory::{CompactDirectory, Location};
use super::writer::{Body, OpenSegment, SEGMENT_BYTES, file_name};
use crate::base::{Error, ErrorKind, OpenMode, Result, Storage, StorageFile};
use crate::format::segment::{BlockKind, Chunk, ENTRY_BYTES, Entry, SegmentRecord, decode_directory};
use crate::format::{BlockId, PAGE_SIZE, Place, Pointer, block_id, check_of};

/// Content of a node or page is at most this long, in bytes.
pub(super) const CONTENT_BYTES_MAX: usize = 1 << 20;
const FILES_OPEN_MAX: usize = 512;
/// Neighbouring bodies are read together up to this many bytes.
const RUN_BYTES_MAX: usize = 1 << 20;
/// Bytes between two blocks that are read along rather than sought over.
const RUN_GAP_BYTES_MAX: u32 = 16 << 10;
/// What a read of at most this many blocks finds on disk is kept in memory.
const CACHED_BLOCKS_MAX: usize = 32;
/// Fewer blocks than this are decoded sooner than handed out.
const PARALLEL_BLOCKS_MIN: usize = 16;

/// Sizes of a block store.
#[derive(Clone, Copy, Debug)]
pub struct BlockStoreOptions {
    /// Memory for decompressed pages.
    pub content_cache_bytes: u64,
    /// Memory for chunk directories.
    pub directory_cache_bytes: u64,
    pub segment_bytes: u64,
    /// Space of the host is taken in steps of this many bytes.
    pub allocate_step_bytes: u64,
}

impl Default for BlockStoreOptions {
    fn default() -> Self {
        Self {
            content_cache_bytes: 32 << 20,
            directory_cache_bytes: 24 << 20,
            segment_bytes: SEGMENT_BYTES,
            allocate_step_bytes: 4 << 20,
        }
    }
}

/// What the table says of one segment.
#[derive(Clone, Copy, Debug)]
pub struct SegmentInfo {
    pub id: u32,
    pub file: u64,
    pub entries: u64,
    pub bytes: u64,
}

#[derive(Clone)]
struct DirectoryWeight;
impl Weighter<(u64, u64), Arc<CompactDirectory>> for DirectoryWeight {
    fn weight(&self, _: &(u64, u64), value: &Arc<CompactDirectory>) -> u64 {
        value.memory_bytes() as u64
    }
}

/// With the check it was verified against.
type CachedContent = ([u8; 16], Arc<[u8]>);

#[derive(Clone)]
struct ContentWeight;
impl Weighter<Place, CachedContent> for ContentWeight {
    fn weight(&self, _: &Place, value: &CachedContent) -> u64 {
        value.1.len() as u64 + 80
    }
}

pub(super) struct Writer {
    open: Option<OpenSegment>,
    pub(super) next_segment: u32,
    pub(super) next_file: u64,
    /// Segments whose records differ from the committed ones.
    changed: BTreeSet<u32>,
    /// Committed records of the segments in `changed` that were committed before.
    committed: HashMap<u32, Arc<SegmentRecord>>,
    unsynced: Vec<Arc<dyn StorageFile>>,
    created: Vec<u64>,
}

/// All segments of a store.
pub struct BlockStore {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) options: BlockStoreOptions,
    pub(super) table: RwLock<HashMap<u32, Arc<SegmentRecord>>>,
    files: Cache<u64, Arc<dyn StorageFile>>,
    /// By file and offset: a rewritten segment keeps its number and gets a new file.
    directories: Cache<(u64, u64), Arc<CompactDirectory>, DirectoryWeight>,
    contents: Cache<Place, CachedContent, ContentWeight>,
    pub(super) writer: Mutex<Writer>,
    read_only: bool,
}

impl BlockStore {
    /// A block store over committed segment records.
    pub fn new(
        storage: Arc<dyn Storage>,
        options: BlockStoreOptions,
        records: Vec<SegmentRecord>,
        next_segment: u32,
        next_file: u64,
        read_only: bool,
    ) -> Self {
        let table = records.into_iter().map(|record| (record.id, Arc::new(record))).collect();
        let writer = Writer {
            open: None,
            next_segment,
            next_file,
            changed: BTreeSet::new(),
            committed: HashMap::new(),
            unsynced: Vec::new(),
            created: Vec::new(),
        };
        let directories = (options.directory_cache_bytes / 32_768).max(16) as usize;
        let contents = (options.content_cache_bytes / PAGE_SIZE as u64).max(16) as usize;
        Self {
            storage,
            table: RwLock::new(table),
            files: Cache::new(FILES_OPEN_MAX),
            directories: Cache::with_weighter(directories, options.directory_cache_bytes, DirectoryWeight),
            contents: Cache::with_weighter(contents, options.content_cache_bytes, ContentWeight),
            writer: Mutex::new(writer),
            options,
            read_only,
        }
    }

    /// The content `pointer` names, verified.
    pub fn read(&self, pointer: &Pointer) -> Result<Arc<[u8]>> {
        if let Some(content) = self.cached(pointer) {
            return Ok(content);
        }
        let content = self.read_uncached(pointer)?;
        self.contents.insert(pointer.place, (pointer.check, content.clone()));
        Ok(content)
    }

    fn cached(&self, pointer: &Pointer) -> Option<Arc<[u8]>> {
        let (check, content) = self.contents.get(&pointer.place)?;
        (check == pointer.check).then_some(content)
    }

    /// As `read`, leaving the cache alone.
    pub fn read_uncached(&self, pointer: &Pointer) -> Result<Arc<[u8]>> {
        let (record, location) = self.locate(pointer)?;
        let mut body = vec![0; location.stored_bytes as usize];
        self.read_file(record.file, u64::from(location.offset), &mut body)?;
        self.verified(pointer, &record, &location, &body)
    }

    /// Fills each buffer with the content its pointer names, verified; a content of another length is damage.
    /// Neighbours on disk are read together, and several processors decode.
    pub fn read_into(&self, wanted: Vec<(Pointer, &mut [u8])>) -> Result<()> {
        let keep = wanted.len() <= CACHED_BLOCKS_MAX;
        let mut missing = Vec::with_capacity(wanted.len());
        for (pointer, out) in wanted {
            match self.cached(&pointer) {
                Some(content) if content.len() == out.len() => out.copy_from_slice(&content),
                Some(_) => return Err(wrong_length(&pointer)),
                None => {
                    let (record, location) = self.locate(&pointer)?;
                    missing.push(Missing { pointer, out, record, location });
                }
            }
        }
        missing.sort_by_key(|block| (block.record.file, block.location.offset));
        let mut runs = Vec::new();
        let mut from = 0;
        while from < missing.len() {
            let to = from + run_length(&missing[from..]);
            runs.push((self.read_run(&missing[from..to])?, to - from));
            from = to;
        }
        let mut bodies = Vec::with_capacity(missing.len());
        let mut blocks = missing.into_iter();
        for (run, count) in &runs {
            let mut start = None;
            for block in blocks.by_ref().take(*count) {
                let location = block.location;
                let at = (location.offset - *start.get_or_insert(location.offset)) as usize;
                bodies.push((block, &run[at..at + location.stored_bytes as usize]));
            }
        }
        let decode = |(block, body): (Missing<'_>, &[u8])| {
            self.decode_into(&block.pointer, &block.record, &block.location, body, block.out)?;
            // A long scan must not push everything else out.
            if keep {
                let content = Arc::from(&*block.out);
                self.contents.insert(block.pointer.place, (block.pointer.check, content));
            }
            Ok(())
        };
        if bodies.len() < PARALLEL_BLOCKS_MIN {
            return bodies.into_iter().try_for_each(decode);
        }
        bodies.into_par_iter().with_min_len(8).try_for_each(decode)
    }

    /// The bytes of a segment file from the first of these blocks to the end of the last.
    fn read_run(&self, blocks: &[Missing<'_>]) -> Result<Vec<u8>> {
        let Some(first) = blocks.first() else { return Ok(Vec::new()) };
        let start = first.location.offset;
        let ends = blocks.iter().map(|block| block.location.offset + block.location.stored_bytes);
        let mut run = vec![0; (ends.max().unwrap_or(start) - start) as usize];
        self.read_file(first.record.file, u64::from(start), &mut run)?;
        Ok(run)
    }

    fn decode_into(
        &self,
        pointer: &Pointer,
        record: &SegmentRecord,
        location: &Location,
        body: &[u8],
        out: &mut [u8],
    ) -> Result<()> {
        let name = || format!("{} at byte {}", file_name(record.file), location.offset);
        let length = decode_body_into(location.codec, body, out)
            .map_err(|error| error.context(format!("block in {}", name())))?;
        if length != out.len() {
            return Err(wrong_length(pointer));
        }
        if check_of(&block_id(out)) != pointer.check {
            return Err(Error::corrupt(format!("block in {} does not match its BLAKE3", name())));
        }
        Ok(())
    }

    fn verified(
        &self,
        pointer: &Pointer,
        record: &SegmentRecord,
        location: &Location,
        body: &[u8],
    ) -> Result<Arc<[u8]>> {
        let name = || format!("{} at byte {}", file_name(record.file), location.offset);
        let content = decode_body(location.codec, body, CONTENT_BYTES_MAX)
            .map_err(|error| error.context(format!("block in {}", name())))?;
        if check_of(&block_id(&content)) != pointer.check {
            return Err(Error::corrupt(format!("block in {} does not match its BLAKE3", name())));
        }
        Ok(Arc::from(content))
    }

    fn locate(&self, pointer: &Pointer) -> Result<(Arc<SegmentRecord>, Location)> {
        let place = pointer.place;
        let record = self.record(place.segment)?;
        let chunk = record.chunk_of(place).ok_or_else(|| missing_block(place))?;
        let directory = self.directory(&record, chunk)?;
        let location = directory.find(place.slot).ok_or_else(|| missing_block(place))?;
        if location.stored_bytes != pointer.stored_bytes {
            let message =
                format!("block {}:{} has another length than its pointer", place.segment, place.slot);
            return Err(Error::corrupt(message));
        }
        Ok((record, location))
    }

    pub(super) fn record(&self, segment: u32) -> Result<Arc<SegmentRecord>> {
        let record = self.table.read().get(&segment).cloned();
        record.ok_or_else(|| Error::corrupt(format!("segment {segment} is not in the segment table")))
    }

    fn directory(&self, record: &SegmentRecord, chunk: &Chunk) -> Result<Arc<CompactDirectory>> {
        let key = (record.file, chunk.directory_offset);
        if let Some(directory) = self.directories.get(&key) {
            return Ok(directory);
        }
        let entries = self.chunk_entries(record, chunk)?;
        let directory = Arc::new(CompactDirectory::new(&entries));
        self.directories.insert(key, directory.clone());
        Ok(directory)
    }

    /// Entries of a chunk, through a mapping that is let go at once.
    pub(super) fn chunk_entries(&self, record: &SegmentRecord, chunk: &Chunk) -> Result<Vec<Entry>> {
        let name = file_name(record.file);
        let file = self.file(record.file)?;
        let bytes = file
            .map(chunk.directory_offset, chunk.directory_bytes())
            .map_err(|error| Error::read(&format!("a directory of {name}"), error))?;
        decode_directory(&bytes, record.id, &chunk.directory_check).map_err(|error| error.context(name))
    }

    /// The full identity of the block at `place`, for whoever must be sure.
    pub fn full_id(&self, place: Place) -> Result<BlockId> {
        let record = self.record(place.segment)?;
        let chunk = record.chunk_of(place).ok_or_else(|| missing_block(place))?;
        let directory = self.directory(&record, chunk)?;
        let location = directory.find(place.slot).ok_or_else(|| missing_block(place))?;
        let mut bytes = [0; ENTRY_BYTES];
        let head = crate::format::segment::DIRECTORY_HEAD;
        let offset = chunk.directory_offset + (head + location.index * ENTRY_BYTES) as u64;
        self.read_file(record.file, offset, &mut bytes)?;
        let entry = Entry::decode(&bytes)?;
        if entry.slot != place.slot {
            return Err(missing_block(place));
        }
        Ok(entry.id)
    }

    /// The pointer to the page at `place` if it is the block `id`.
    pub fn pointer_if(&self, place: Place, id: &BlockId) -> Option<Pointer> {
        let record = self.record(place.segment).ok()?;
        let directory = self.directory(&record, record.chunk_of(place)?).ok()?;
        let location = directory.find(place.slot)?;
        if location.kind != BlockKind::Page || self.full_id(place).ok()? != *id {
            return None;
        }
        Some(Pointer { place, stored_bytes: location.stored_bytes, check: check_of(id) })
    }

    pub(super) fn file(&self, file: u64) -> Result<Arc<dyn StorageFile>> {
        if let Some(handle) = self.files.get(&file) {
            return Ok(handle);
        }
        let name = file_name(file);
        let mode = if self.read_only { OpenMode::Read } else { OpenMode::ReadWrite };
        let handle = self.storage.open(&name, mode).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::corrupt(format!("segment file {name} is missing")),
            _ => Error::read(&name, error),
        })?;
        self.files.insert(file, handle.clone());
        Ok(handle)
    }

    pub(super) fn read_file(&self, file: u64, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.file(file)?
            .read_exact_at(buffer, offset)
            .map_err(|error| Error::read(&format!("{} at byte {offset}", file_name(file)), error))
    }

    /// Appends a block. It can be read after `finish`, and is durable after `sync` and the commit of
    /// `take_changes`.
    pub fn append(
        &self,
        kind: BlockKind,
        id: &BlockId,
        encoded: &Encoded,
        content_bytes: usize,
    ) -> Result<Pointer> {
        let mut writer = self.writer.lock();
        self.roll(&mut writer)?;
        let Some(open) = writer.open.as_mut() else {
            return Err(Error::new(ErrorKind::Io, "no open segment"));
        };
        let body = Body {
            id,
            kind,
            codec: encoded.codec,
            content_bytes: content_bytes as u32,
            bytes: &encoded.body,
        };
        let pointer = open.append(&body, None)?;
        if open.chunk_is_full() {
            open.finish_chunk()?;
            self.publish(&mut writer);
        }
        Ok(pointer)
    }

    /// Makes sure that a segment with room is open.
    fn roll(&self, writer: &mut Writer) -> Result<()> {
        let full = writer.open.as_ref().is_some_and(|open| open.is_full(self.options.segment_bytes));
        if full {
            if let Some(open) = writer.open.as_mut() {
                open.finish_chunk()?;
                open.trim()?;
            }
            self.publish(writer);
            if let Some(open) = writer.open.take() {
                writer.unsynced.push(open.file);
            }
        }
        if writer.open.is_none() {
            let (id, file) = (writer.next_segment, writer.next_file);
            if id >= Place::SEGMENTS_MAX {
                return Err(Error::new(ErrorKind::NoSpace, "all segment numbers are used up"));
            }
            let step = self.options.allocate_step_bytes;
            let open = OpenSegment::create(self.storage.as_ref(), id, file, step)?;
            writer.next_segment += 1;
            writer.next_file += 1;
            writer.created.push(file);
            writer.open = Some(open);
        }
        Ok(())
    }

    fn publish(&self, writer: &mut Writer) {
        let Some(open) = writer.open.as_ref() else { return };
        let id = open.record.id;
        let record = Arc::new(open.record.clone());
        let before = self.table.write().insert(id, record);
        if writer.changed.insert(id)
            && let Some(before) = before
        {
            writer.committed.insert(id, before);
        }
    }

    /// Ends the open chunk: all that was appended can be read.
    pub fn finish(&self) -> Result<()> {
        let mut writer = self.writer.lock();
        if let Some(open) = writer.open.as_mut() {
            open.finish_chunk()?;
        }
        if writer.open.is_some() {
            self.publish(&mut writer);
        }
        Ok(())
    }

    /// Makes all finished chunks durable.
    pub fn sync(&self) -> Result<()> {
        let mut writer = self.writer.lock();
        for file in writer.unsynced.drain(..) {
            file.sync_data().map_err(|error| Error::io("sync", "a segment", error))?;
        }
        if let Some(open) = writer.open.as_ref() {
            open.sync()?;
        }
        if !writer.created.is_empty() {
            self.storage.sync_dir("segments").map_err(|error| Error::io("sync", "segments", error))?;
        }
        Ok(())
    }

    /// Records that differ from the committed ones, and the next free segment and file numbers.
    pub fn changes(&self) -> (Vec<Arc<SegmentRecord>>, u32, u64) {
        let writer = self.writer.lock();
        let table = self.table.read();
        let records = writer.changed.iter().filter_map(|id| table.get(id).cloned()).collect();
        (records, writer.next_segment, writer.next_file)
    }

    /// What `changes` answered is committed.
    pub fn committed(&self) {
        let mut writer = self.writer.lock();
        writer.changed.clear();
        writer.committed.clear();
        writer.created.clear();
    }

    /// Forgets what was appended since the last commit; slots used are not used again in this process. New files
    /// are removed only if `remove_files` says that no commit can have named them.
    pub fn abandon(&self, remove_files: bool) {
        let mut writer = self.writer.lock();
        let mut table = self.table.write();
        for id in std::mem::take(&mut writer.changed) {
            match writer.committed.remove(&id) {
                Some(record) => table.insert(id, record),
                None => table.remove(&id),
            };
        }
        writer.unsynced.clear();
        if let (Some(open), true) = (writer.open.take(), remove_files)
            && let Some(record) = table.get(&open.record.id)
        {
            // Its tail is space that a full host needs; an open would overwrite it.
            let _ = open.file.set_len(record.chunks.last().map_or(0, Chunk::end_offset));
        }
        for file in std::mem::take(&mut writer.created) {
            self.files.remove(&file);
            // A file that stays and that no record names is removed at the next open.
            if remove_files {
                let _ = self.storage.remove(&file_name(file));
            }
        }
    }

    /// The segment that is being appended to.
    pub fn open_segment(&self) -> Option<u32> {
        self.writer.lock().open.as_ref().map(|open| open.record.id)
    }

    /// Ends the segment that is being appended to, so that it can be rewritten. Only between commits.
    pub fn end_open_segment(&self) {
        let mut writer = self.writer.lock();
        if writer.unsynced.is_empty() && writer.changed.is_empty() {
            writer.open = None;
        }
    }

    /// Goes on appending to a committed segment that is not full, if its file is as it was left.
    pub fn resume_last(&self) -> Result<()> {
        let last = self.table.read().values().max_by_key(|record| record.id).cloned();
        let Some(record) = last else { return Ok(()) };
        let shared = self.table.read().values().filter(|other| other.file == record.file).count() > 1;
        if shared || record.chunks.len() > 256 {
            return Ok(());
        }
        let Ok(file) = self.file(record.file) else { return Ok(()) };
        let end = record.chunks.last().map_or(0, Chunk::end_offset);
        if file.len().map_err(|error| Error::io("stat", &file_name(record.file), error))? < end {
            return Ok(());
        }
        let open = OpenSegment::resume((*record).clone(), file, self.options.allocate_step_bytes);
        if !open.is_full(self.options.segment_bytes) {
            self.writer.lock().open = Some(open);
        }
        Ok(())
    }

    pub fn segments(&self) -> Vec<SegmentInfo> {
        let table = self.table.read();
        let mut infos: Vec<SegmentInfo> = table
            .values()
            .map(|record| SegmentInfo {
                id: record.id,
                file: record.file,
                entries: record.chunks.iter().map(|chunk| u64::from(chunk.entries)).sum(),
                bytes: record.chunks.iter().map(|chunk| chunk.end_offset() - chunk.bodies_offset).sum(),
            })
            .collect();
        infos.sort_by_key(|info| info.id);
        infos
    }

    pub(super) fn forget_file(&self, file: u64) {
        self.files.remove(&file);
    }
}

/// A block that is not in memory, and where it goes.
struct Missing<'a> {
    pointer: Pointer,
    out: &'a mut [u8],
    record: Arc<SegmentRecord>,
    location: Location,
}

/// How many of these blocks, which are in the order of their places, one read fetches; at least one.
fn run_length(blocks: &[Missing<'_>]) -> usize {
    let Some(first) = blocks.first() else { return 0 };
    let start = first.location.offset;
    let mut end = start.saturating_add(first.location.stored_bytes);
    let more = blocks[1..].iter().take_while(|block| {
        let near = block.location.offset <= end.saturating_add(RUN_GAP_BYTES_MAX);
        let block_end = block.location.offset.saturating_add(block.location.stored_bytes);
        end = end.max(block_end);
        block.record.file == first.record.file && near && (end - start) as usize <= RUN_BYTES_MAX
    });
    1 + more.count()
}

fn wrong_length(pointer: &Pointer) -> Error {
    let place = pointer.place;
    Error::corrupt(format!("block {}:{} has a wrong length", place.segment, place.slot))
}

fn missing_block(place: Place) -> Error {
    Error::corrupt(format!("block {}:{} is not in its segment's directory", place.segment, place.slot))
}
