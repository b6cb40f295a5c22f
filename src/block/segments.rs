//! The segment table in memory: reading blocks by pointer, appending new ones, dropping and rewriting segments.
//!
//! The table in memory runs ahead of the committed one by what the running checkpoint has appended;
//! `take_changes` hands those records to the committer, `abandon` forgets them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::codec::{Encoded, decode_body};
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

    /// The contents of `pointers`, in their order; neighbours on disk are read together. `workers` decode.
    pub fn read_many(&self, pointers: &[Pointer], parallel: bool) -> Result<Vec<Arc<[u8]>>> {
        let mut out: Vec<Option<Arc<[u8]>>> = pointers.iter().map(|pointer| self.cached(pointer)).collect();
        let mut wanted = Vec::new();
        for (index, pointer) in pointers.iter().enumerate() {
            if out[index].is_none() {
                let (record, location) = self.locate(pointer)?;
                wanted.push((record.file, location.offset, index, record, location));
            }
        }
        wanted.sort_by_key(|(file, offset, ..)| (*file, *offset));
        let mut bodies: Vec<(usize, Vec<u8>)> = Vec::with_capacity(wanted.len());
        let mut from = 0;
        while from < wanted.len() {
            let (file, start) = (wanted[from].0, wanted[from].1);
            let mut to = from;
            let mut end = start;
            while let Some((next_file, offset, _, _, location)) = wanted.get(to) {
                let next_end = offset + location.stored_bytes;
                let near = *offset <= end.saturating_add(16 << 10);
                if *next_file != file || !near || (next_end - start) as usize > RUN_BYTES_MAX {
                    break;
                }
                end = end.max(next_end);
                to += 1;
            }
            to = to.max(from + 1);
            end = end.max(start + wanted[from].4.stored_bytes);
            let mut run = vec![0; (end - start) as usize];
            self.read_file(file, u64::from(start), &mut run)?;
            for (_, offset, index, _, location) in &wanted[from..to] {
                let at = (offset - start) as usize;
                bodies.push((*index, run[at..at + location.stored_bytes as usize].to_vec()));
            }
            from = to;
        }
        let decode = |position: usize| -> Result<(usize, Arc<[u8]>)> {
            let (index, body) = &bodies[position];
            let (_, _, _, record, location) = &wanted[position];
            Ok((*index, self.verified(&pointers[*index], record, location, body)?))
        };
        let decoded: Vec<Result<(usize, Arc<[u8]>)>> = if parallel && bodies.len() >= 16 {
            use rayon::prelude::*;
            (0..bodies.len()).into_par_iter().with_min_len(8).map(decode).collect()
        } else {
            (0..bodies.len()).map(decode).collect()
        };
        for result in decoded {
            let (index, content) = result?;
            // A long scan must not push everything else out.
            if pointers.len() <= 32 {
                self.contents.insert(pointers[index].place, (pointers[index].check, content.clone()));
            }
            out[index] = Some(content);
        }
        Ok(out.into_iter().flatten().collect())
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

fn missing_block(place: Place) -> Error {
    Error::corrupt(format!("block {}:{} is not in its segment's directory", place.segment, place.slot))
}
