//! Going through whole segments: for compaction, scrub and the rebuild of hints.

use std::collections::HashSet;
use std::sync::Arc;

use super::segments::{BlockStore, CONTENT_BYTES_MAX};
use super::writer::{Body, OpenSegment, file_name};
use crate::base::{Error, Result};
use crate::format::segment::{Entry, SegmentRecord};
use crate::format::{Place, block_id};

/// A damaged stretch of a segment.
#[derive(Clone, Debug)]
pub struct Damage {
    /// Blocks that cannot be read; all of a chunk when its directory is damaged.
    pub places: Vec<Place>,
    pub message: String,
}

/// A segment rewritten into a new file, not committed yet.
pub struct Rewritten {
    pub record: SegmentRecord,
    pub bytes: u64,
}

impl BlockStore {
    /// Calls `visit` with every entry of `segment`.
    pub fn for_each_entry(&self, segment: u32, visit: &mut dyn FnMut(&Entry)) -> Result<()> {
        let record = self.record(segment)?;
        for chunk in &record.chunks {
            self.chunk_entries(&record, chunk)?.iter().for_each(&mut *visit);
        }
        Ok(())
    }

    /// Reads and verifies every block of `segment`, a chunk at a time; `pace` is called with the bytes read.
    pub fn verify_segment(&self, segment: u32, pace: &mut dyn FnMut(u64)) -> Result<Vec<Damage>> {
        let record = self.record(segment)?;
        let name = file_name(record.file);
        let mut damages = Vec::new();
        for chunk in &record.chunks {
            let entries = match self.chunk_entries(&record, chunk) {
                Ok(entries) => entries,
                Err(error) => {
                    let last = record.chunks.iter().map(|other| other.first_slot);
                    let next = last.filter(|slot| *slot > chunk.first_slot).min().unwrap_or(record.slots);
                    let places = (chunk.first_slot..next).map(|slot| Place { segment, slot }).collect();
                    damages.push(Damage { places, message: error.to_string() });
                    continue;
                }
            };
            for entry in &entries {
                if let Err(error) = self.verify_entry(&record, entry) {
                    let place = Place { segment, slot: entry.slot };
                    let message = format!("{name} at byte {}: {error}", entry.offset);
                    damages.push(Damage { places: vec![place], message });
                }
                pace(u64::from(entry.stored_bytes));
            }
        }
        Ok(damages)
    }

    fn verify_entry(&self, record: &SegmentRecord, entry: &Entry) -> Result<Vec<u8>> {
        let mut body = vec![0; entry.stored_bytes as usize];
        self.read_file(record.file, u64::from(entry.offset), &mut body)?;
        let content = super::codec::decode_body(entry.codec, &body, CONTENT_BYTES_MAX)?;
        if block_id(&content) != entry.id {
            return Err(Error::corrupt("block does not match its BLAKE3"));
        }
        Ok(body)
    }

    /// Copies the blocks of `segment` for which `live` holds into a new file, verified on the way, and makes it
    /// durable. Nothing changes before `install`. `pace` is called with the bytes copied.
    pub fn rewrite(
        &self,
        segment: u32,
        live: &dyn Fn(Place) -> bool,
        pace: &mut dyn FnMut(u64),
    ) -> Result<Rewritten> {
        let (file, step) = {
            let mut writer = self.writer.lock();
            let file = writer.next_file;
            writer.next_file += 1;
            (file, self.options.allocate_step_bytes.min(64 << 10))
        };
        let result = self.rewrite_into(file, step, segment, live, pace);
        if result.is_err() {
            let _ = self.storage.remove(&file_name(file));
        }
        result
    }

    fn rewrite_into(
        &self,
        file: u64,
        step: u64,
        segment: u32,
        live: &dyn Fn(Place) -> bool,
        pace: &mut dyn FnMut(u64),
    ) -> Result<Rewritten> {
        let mut out = OpenSegment::create(self.storage.as_ref(), segment, file, step)?;
        let record = self.record(segment)?;
        out.record.slots = record.slots;
        for chunk in &record.chunks {
            for entry in self.chunk_entries(&record, chunk)? {
                if !live(Place { segment, slot: entry.slot }) {
                    continue;
                }
                let bytes = self.verify_entry(&record, &entry).map_err(|error| {
                    error.context(format!("{} at byte {}", file_name(record.file), entry.offset))
                })?;
                let body = Body {
                    id: &entry.id,
                    kind: entry.kind,
                    codec: entry.codec,
                    content_bytes: entry.content_bytes,
                    bytes: &bytes,
                };
                out.append(&body, Some(entry.slot))?;
                pace(u64::from(entry.stored_bytes));
                if out.chunk_is_full() {
                    out.finish_chunk()?;
                }
            }
        }
        out.finish_chunk()?;
        out.trim()?;
        out.sync()?;
        self.storage.sync_dir("segments").map_err(|error| Error::io("sync", "segments", error))?;
        Ok(Rewritten { bytes: out.end(), record: out.record })
    }

    /// Replaces records by rewritten ones, after their commit. Answers the files that no record names any more.
    pub fn install(&self, records: Vec<SegmentRecord>) -> Vec<u64> {
        let mut table = self.table.write();
        let mut candidates = HashSet::new();
        for record in records {
            if let Some(before) = table.insert(record.id, Arc::new(record)) {
                candidates.insert(before.file);
            }
        }
        unnamed(&table, candidates)
    }

    /// Takes segments out of the table, after the commit that dropped them. Answers the files that no record
    /// names any more.
    pub fn drop_segments(&self, segments: &[u32]) -> Vec<u64> {
        let mut table = self.table.write();
        let candidates =
            segments.iter().filter_map(|id| table.remove(id)).map(|record| record.file).collect();
        unnamed(&table, candidates)
    }

    /// Removes segment files. A file that cannot be removed is tried again at the next open.
    pub fn remove_files(&self, files: &[u64]) -> Result<()> {
        for file in files {
            self.forget_file(*file);
            let name = file_name(*file);
            match self.storage.remove(&name) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", &name, error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes files of the segment folder that no record names: leftovers of a crash.
    pub fn remove_unnamed_files(&self) -> Result<()> {
        let names = self.storage.list("segments").map_err(|error| Error::io("list", "segments", error))?;
        let named: HashSet<String> =
            self.table.read().values().map(|record| file_name(record.file)).collect();
        for name in names {
            let path = format!("segments/{name}");
            if !named.contains(&path) {
                self.storage.remove(&path).map_err(|error| Error::io("remove", &path, error))?;
            }
        }
        Ok(())
    }

    /// Host bytes of all segment files.
    pub fn physical_bytes(&self) -> Result<u64> {
        let files: HashSet<u64> = self.table.read().values().map(|record| record.file).collect();
        let mut total = 0;
        for file in files {
            // A missing file takes no space; whoever reads from it hears of it.
            let Ok(handle) = self.file(file) else { continue };
            total += handle.allocated_bytes().map_err(|error| Error::io("stat", &file_name(file), error))?;
        }
        Ok(total)
    }
}

fn unnamed(table: &std::collections::HashMap<u32, Arc<SegmentRecord>>, candidates: HashSet<u64>) -> Vec<u64> {
    let named: HashSet<u64> = table.values().map(|record| record.file).collect();
    candidates.into_iter().filter(|file| !named.contains(file)).collect()
}
