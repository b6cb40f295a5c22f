//! File data: reading, writing, sizes, holes, shared ranges.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::layer::{Page, PageEntry};
use super::types::{AllocateMode, FILE_BYTES_MAX, Ino, SeekTarget};
use super::version::{PageSource, map_root};
use super::view::{Change, View, ViewState};
use crate::base::{Error, ErrorKind, Result};
use crate::format::PAGE_SIZE;
use crate::format::inode::{FileKind, Inode};

const PAGE: u64 = PAGE_SIZE as u64;
/// Pages one step of a long operation handles under the lock.
const STEP_PAGES: u64 = 1024;

/// The parts of `offset..offset + length` by page: page, start within it, end within it.
fn parts(offset: u64, length: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = offset + length;
    let pages = if length == 0 { 0..0 } else { offset / PAGE..end.div_ceil(PAGE) };
    pages.map(move |page| {
        let start = offset.saturating_sub(page * PAGE).min(PAGE) as usize;
        let stop = (end - page * PAGE).min(PAGE) as usize;
        (page, start, stop)
    })
}

/// The range in which two slices of one length differ.
fn difference(old: &[u8], new: &[u8]) -> Option<(usize, usize)> {
    const STEP: usize = 64;
    let differ = |(a, b): (&[u8], &[u8])| a != b;
    let first = old.chunks(STEP).zip(new.chunks(STEP)).position(differ)? * STEP;
    let from = first + old[first..].iter().zip(&new[first..]).position(|(a, b)| a != b)?;
    let kept = old.rchunks(STEP).zip(new.rchunks(STEP)).position(differ)? * STEP;
    let end = old.len() - kept;
    let same = old[..end].iter().rev().zip(new[..end].iter().rev()).position(|(a, b)| a != b)?;
    Some((from, end - same))
}

fn check_range(offset: u64, length: u64) -> Result<u64> {
    match offset.checked_add(length) {
        Some(end) if end <= FILE_BYTES_MAX => Ok(end),
        _ => Err(Error::new(ErrorKind::FileTooLarge, "a file can have 16 TiB at most")),
    }
}

impl View {
    /// Where a page's bytes are, newest first.
    pub(crate) fn page_source(&self, state: &ViewState, ino: Ino, page: u64) -> Result<PageSource> {
        match state.live.page(ino, page) {
            super::layer::LayerPage::Entry(entry) => Ok(entry.into()),
            super::layer::LayerPage::Cleared => Ok(PageSource::Zero),
            super::layer::LayerPage::Unknown => state.base.page(&self.shared.trees, ino, page),
        }
    }

    pub(crate) fn page_content(&self, source: &PageSource) -> Result<Arc<Page>> {
        Ok(match source {
            PageSource::Zero => Arc::from(vec![0; PAGE_SIZE]),
            PageSource::Data(page) => page.clone(),
            PageSource::Stored(pointer) => {
                let content = self.shared.trees.blocks.read(pointer)?;
                if content.len() != PAGE_SIZE {
                    return Err(Error::corrupt("a page has a wrong length"));
                }
                content
            }
        })
    }

    /// Up to `length` bytes from `offset`; fewer at the end of the file.
    pub fn read(&self, ino: Ino, offset: u64, length: usize) -> Result<Vec<u8>> {
        let _gate = self.shared.gate.read_recursive();
        let (mut sources, pages, base, length) = {
            let state = self.state.read();
            self.check_alive()?;
            let inode = self.file(&state, ino)?;
            let length = (length as u64).min(inode.size.saturating_sub(offset));
            let pages: Vec<(u64, usize, usize)> = parts(offset, length).collect();
            let sources: Vec<Option<PageSource>> = pages
                .iter()
                .map(|(page, ..)| match state.live.page(ino, *page) {
                    super::layer::LayerPage::Entry(entry) => Some(entry.into()),
                    super::layer::LayerPage::Cleared => Some(PageSource::Zero),
                    super::layer::LayerPage::Unknown => None,
                })
                .collect();
            (sources, pages, state.base.clone(), length)
        };
        let unknown: Vec<usize> = (0..pages.len()).filter(|index| sources[*index].is_none()).collect();
        if !unknown.is_empty() {
            let numbers: Vec<u64> = unknown.iter().map(|index| pages[*index].0).collect();
            let found = base.pages(&self.shared.trees, ino, &numbers)?;
            for (index, source) in unknown.into_iter().zip(found) {
                sources[index] = Some(source);
            }
        }
        // Whole pages, cut to what was asked for at the end.
        let mut out = vec![0; pages.len() * PAGE_SIZE];
        let mut stored = Vec::new();
        for (source, buffer) in sources.into_iter().zip(out.chunks_exact_mut(PAGE_SIZE)) {
            match source {
                Some(PageSource::Data(page)) => buffer.copy_from_slice(&page),
                Some(PageSource::Stored(pointer)) => stored.push((pointer, buffer)),
                Some(PageSource::Zero) | None => {}
            }
        }
        self.shared
            .trees
            .blocks
            .read_into(stored)
            .map_err(|error| error.context(format!("{} inode {ino}", self.name())))?;
        let start = pages.first().map_or(0, |(_, start, _)| *start);
        out.truncate(start + length as usize);
        out.drain(..start);
        Ok(out)
    }

    /// Writes `data` at `offset`. In memory only: `sync_file` makes it durable.
    pub fn write(&self, ino: Ino, offset: u64, data: &[u8]) -> Result<()> {
        check_range(offset, data.len() as u64)?;
        self.writing(ino, data.len() as u64, |change, inode| {
            if data.is_empty() {
                // The file does not grow to the offset.
                return Ok(());
            }
            change.write_pages(ino, offset, data)?;
            inode.size = inode.size.max(offset + data.len() as u64);
            Ok(())
        })
    }

    /// Writes `data` at the end of the file, wherever that is by then. Answers the offset.
    pub fn append(&self, ino: Ino, data: &[u8]) -> Result<u64> {
        self.writing(ino, data.len() as u64, |change, inode| {
            let offset = inode.size;
            inode.size = check_range(offset, data.len() as u64)?;
            change.write_pages(ino, offset, data)?;
            Ok(offset)
        })
    }

    fn writing<T>(
        &self,
        ino: Ino,
        bytes: u64,
        body: impl FnOnce(&mut Change<'_>, &mut Inode) -> Result<T>,
    ) -> Result<T> {
        self.make_room(bytes)?;
        self.check_quota(bytes)?;
        self.changing(|change| {
            let mut inode = self.file(change.state, ino)?;
            let out = body(change, &mut inode)?;
            let now = self.shared.now();
            inode.modified = now;
            inode.changed = now;
            change.set_inode(ino, inode);
            Ok(out)
        })
    }

    /// Waits for memory and refuses what the host has no space for. Without locks.
    pub(crate) fn make_room(&self, bytes: u64) -> Result<()> {
        self.shared.wait_for_room(bytes)?;
        // What is promised is counted before compression and deduplication: a checkpoint gives the real figure. The
        // one after it gives back the segments that the first found dead.
        for _ in 0..2 {
            if self.shared.has_space(self.id, bytes) {
                return Ok(());
            }
            self.shared.checkpoint_now()?;
        }
        if self.shared.has_space(self.id, bytes) { Ok(()) } else { Err(super::shared::no_space()) }
    }

    fn check_quota(&self, bytes: u64) -> Result<()> {
        let quota = self.quota_bytes.load(Ordering::Relaxed);
        if quota == 0 {
            return Ok(());
        }
        let used = || {
            let state = self.state.read();
            let (layers, _) = state.base.chain();
            let waiting: u64 =
                layers.iter().map(|layer| layer.cost).sum::<u64>() + state.live.cost + bytes.max(PAGE);
            self.stored_pages.load(Ordering::Relaxed) * PAGE + waiting
        };
        if used() > quota {
            // Overwritten pages are counted twice until a checkpoint: look again after one.
            self.shared.checkpoint_now()?;
            let used = used();
            if used > quota {
                let message = format!("{} has used {used} of its quota of {quota} bytes", self.name());
                return Err(Error::new(ErrorKind::QuotaExceeded, message));
            }
        }
        Ok(())
    }

    /// fallocate: sizes and holes. Space is not set aside: a copy-on-write store needs new space for each write.
    pub fn allocate(&self, ino: Ino, mode: AllocateMode, offset: u64, length: u64) -> Result<()> {
        let end = check_range(offset, length)?;
        if length == 0 {
            return Err(Error::invalid("a range of no bytes"));
        }
        let body = |change: &mut Change<'_>| {
            let mut inode = self.file(change.state, ino)?;
            match mode {
                AllocateMode::Allocate => inode.size = inode.size.max(end),
                AllocateMode::KeepSize => {}
                AllocateMode::PunchHole | AllocateMode::ZeroRangeKeepSize => {
                    change.zero(ino, offset, end)?;
                }
                AllocateMode::ZeroRange => {
                    change.zero(ino, offset, end)?;
                    inode.size = inode.size.max(end);
                }
            }
            let now = self.shared.now();
            inode.modified = now;
            inode.changed = now;
            change.set_inode(ino, inode);
            Ok(())
        };
        // A hole gives space back.
        if mode == AllocateMode::PunchHole { self.removing(body) } else { self.changing(body) }
    }

    /// The first byte of data, or of a hole, at or behind `offset`. `Range` when there is none.
    pub fn seek(&self, ino: Ino, offset: u64, target: SeekTarget) -> Result<u64> {
        self.reading(|state| {
            let inode = self.file(state, ino)?;
            let beyond = || Error::new(ErrorKind::Range, "no data behind the offset");
            if offset >= inode.size {
                return Err(beyond());
            }
            let mut page = offset / PAGE;
            match target {
                SeekTarget::Data => {
                    let page = self.next_data(state, ino, page)?.ok_or_else(beyond)?;
                    let at = (page * PAGE).max(offset);
                    if at < inode.size { Ok(at) } else { Err(beyond()) }
                }
                SeekTarget::Hole => {
                    while page * PAGE < inode.size
                        && !matches!(self.page_source(state, ino, page)?, PageSource::Zero)
                    {
                        page += 1;
                    }
                    Ok((page * PAGE).max(offset).min(inode.size))
                }
            }
        })
    }

    /// The first page with data at or behind `page`.
    fn next_data(&self, state: &ViewState, ino: Ino, mut page: u64) -> Result<Option<u64>> {
        let (layers, root) = state.base.chain();
        let map = map_root(&self.shared.trees, &root, ino)?;
        loop {
            let mut next = None;
            super::radix::scan(&self.shared.trees, &map, page, &mut |found, _| {
                next = Some(found);
                false
            })?;
            for layer in layers.iter().map(AsRef::as_ref).chain([&state.live]) {
                if let Some(file) = layer.files.get(&ino)
                    && let Some((found, _)) = file.pages.range(page..).next()
                {
                    next = Some(next.map_or(*found, |next: u64| next.min(*found)));
                }
            }
            let Some(found) = next else { return Ok(None) };
            if !matches!(self.page_source(state, ino, found)?, PageSource::Zero) {
                return Ok(Some(found));
            }
            // Cleared in some layer: go on behind it, or behind the cleared range if nothing lies above it.
            let only_live = state.live.files.get(&ino);
            let skip =
                only_live.filter(|file| file.pages.is_empty()).and_then(|file| file.cleared.end_of(found));
            page = skip.unwrap_or(found + 1);
        }
    }

    /// Copies a range; whole pages share their blocks. Answers the bytes copied: fewer at the end of the source.
    pub fn copy_range(
        &self,
        source_ino: Ino,
        source_offset: u64,
        target: &Self,
        target_ino: Ino,
        target_offset: u64,
        length: u64,
    ) -> Result<u64> {
        let size = self.reading(|state| Ok(self.file(state, source_ino)?.size))?;
        let length = length.min(size.saturating_sub(source_offset));
        check_range(target_offset, length)?;
        let same = self.id == target.id && source_ino == target_ino;
        if same && source_offset < target_offset + length && target_offset < source_offset + length {
            return Err(Error::invalid("the ranges overlap"));
        }
        let mut done = 0;
        while done < length {
            let (from, to) = (source_offset + done, target_offset + done);
            let aligned = from.is_multiple_of(PAGE) && to.is_multiple_of(PAGE);
            let left = length - done;
            // The last page of the source may be shared as a whole: what lies behind its end is zeros.
            let whole_tail = from + left == size && to + left >= target.size_of(target_ino)?;
            let step = if aligned && left >= PAGE {
                left.min(STEP_PAGES * PAGE) / PAGE * PAGE
            } else if aligned && whole_tail {
                left
            } else {
                left.min(PAGE - from % PAGE).min(PAGE - to % PAGE)
            };
            if aligned && (step >= PAGE || whole_tail) {
                self.share_pages(source_ino, from / PAGE, target, target_ino, to / PAGE, step)?;
            } else {
                let bytes = self.read(source_ino, from, step as usize)?;
                if bytes.len() as u64 != step {
                    return Ok(done);
                }
                target.write(target_ino, to, &bytes)?;
            }
            done += step;
        }
        Ok(done)
    }

    /// Bytes of one page as a journal record has them.
    pub(crate) fn replay_data(
        &self,
        state: &mut ViewState,
        ino: Ino,
        offset: u64,
        bytes: &[u8],
    ) -> Result<()> {
        let mut change = Change::replaying(self, state);
        change.write_page(ino, offset / PAGE, (offset % PAGE) as usize, bytes)
    }

    /// A journal record makes `ino` what `new` says. A shorter size may be durable before the data it cuts off was
    /// logged, with the fsync of another file: what lies behind it must be zeros all the same.
    pub(crate) fn replay_cut(&self, state: &mut ViewState, ino: Ino, new: &Inode) -> Result<()> {
        match self.find_inode(state, ino)? {
            Some(old) if new.size < old.size && old.kind == FileKind::File => {
                Change::replaying(self, state).resize(ino, old, new.size).map(|_| ())
            }
            _ => Ok(()),
        }
    }

    fn size_of(&self, ino: Ino) -> Result<u64> {
        self.reading(|state| Ok(self.file(state, ino)?.size))
    }

    fn share_pages(
        &self,
        from_ino: Ino,
        from: u64,
        target: &Self,
        ino: Ino,
        to: u64,
        bytes: u64,
    ) -> Result<()> {
        let count = bytes.div_ceil(PAGE);
        target.make_room(count * super::layer::SHARE_COST)?;
        target.check_quota(0)?;
        // The gate keeps the shared blocks in place until the target's layer names them.
        let _gate = self.shared.gate.read_recursive();
        let sources = {
            let state = self.state.read();
            self.check_alive()?;
            let numbers: Vec<u64> = (from..from + count).collect();
            let base = state.base.pages(&self.shared.trees, from_ino, &numbers)?;
            let live = numbers.iter().map(|page| state.live.page(from_ino, *page));
            live.zip(base)
                .map(|(live, base)| match live {
                    super::layer::LayerPage::Entry(entry) => entry.into(),
                    super::layer::LayerPage::Cleared => PageSource::Zero,
                    super::layer::LayerPage::Unknown => base,
                })
                .collect::<Vec<_>>()
        };
        target.changing_now(|change| {
            let mut inode = target.file(change.state, ino)?;
            for (page, source) in (to..).zip(sources) {
                match source {
                    PageSource::Zero => change.clear(ino, page, page + 1),
                    PageSource::Data(data) => change.set_page(ino, page, PageEntry::Data(data)),
                    PageSource::Stored(pointer) => change.set_page(ino, page, PageEntry::Stored(pointer)),
                }
                change.state.unlogged.note(ino, page, 0, PAGE_SIZE);
            }
            inode.size = inode.size.max(to * PAGE + bytes);
            let now = target.shared.now();
            inode.modified = now;
            inode.changed = now;
            change.set_inode(ino, inode);
            Ok(())
        })
    }
}

impl Change<'_> {
    pub(crate) fn set_page(&mut self, ino: Ino, page: u64, entry: PageEntry) {
        self.state.live.set_page(ino, page, entry);
    }

    pub(crate) fn clear(&mut self, ino: Ino, from: u64, to: u64) {
        if from < to {
            self.state.live.clear_pages(ino, from, to);
            self.state.unlogged.note_clear(ino, from, to);
        }
    }

    pub(crate) fn write_pages(&mut self, ino: Ino, offset: u64, data: &[u8]) -> Result<()> {
        for (page, start, stop) in parts(offset, data.len() as u64) {
            let at = (page * PAGE + start as u64 - offset) as usize;
            self.write_page(ino, page, start, &data[at..at + stop - start])?;
        }
        Ok(())
    }

    fn write_page(&mut self, ino: Ino, page: u64, start: usize, bytes: &[u8]) -> Result<()> {
        let (mut start, mut stop) = (start, start + bytes.len());
        let file = self.state.live.files.entry(ino).or_default();
        if let Some(PageEntry::Data(existing)) = file.pages.get_mut(&page) {
            // The journal needs only what changed: the end of a log is written again and again, page by page.
            let Some((from, to)) = difference(&existing[start..stop], bytes) else { return Ok(()) };
            (start, stop) = (start + from, start + to);
            // A reader that still holds the page keeps what it saw.
            Arc::make_mut(existing)[start..stop].copy_from_slice(&bytes[from..to]);
        } else {
            let new = if bytes.len() == PAGE_SIZE {
                Arc::from(bytes)
            } else {
                let source = self.view.page_source(self.state, ino, page)?;
                let mut new = match self.view.page_content(&source) {
                    Ok(content) => content,
                    Err(error) => return self.lose_page(ino, page, &source, error),
                };
                Arc::make_mut(&mut new)[start..stop].copy_from_slice(bytes);
                new
            };
            self.state.live.set_page(ino, page, PageEntry::Data(new));
        }
        self.state.unlogged.note(ino, page, start, stop);
        Ok(())
    }

    /// Makes `offset..end` read as zeros: whole pages become holes.
    pub(crate) fn zero(&mut self, ino: Ino, offset: u64, end: u64) -> Result<()> {
        let (first, last) = (offset.div_ceil(PAGE), end / PAGE);
        if first >= last {
            // Both ends in one page, or in two neighbours.
            for (page, start, stop) in parts(offset, end - offset).collect::<Vec<_>>() {
                self.zero_part(ino, page, start, stop)?;
            }
            return Ok(());
        }
        if !offset.is_multiple_of(PAGE) {
            self.zero_part(ino, offset / PAGE, (offset % PAGE) as usize, PAGE_SIZE)?;
        }
        self.clear(ino, first, last);
        if !end.is_multiple_of(PAGE) {
            self.zero_part(ino, last, 0, (end % PAGE) as usize)?;
        }
        Ok(())
    }

    fn zero_part(&mut self, ino: Ino, page: u64, start: usize, stop: usize) -> Result<()> {
        if matches!(self.view.page_source(self.state, ino, page)?, PageSource::Zero) {
            return Ok(());
        }
        self.write_page(ino, page, start, &vec![0; stop - start])
    }

    /// Sets the size. What is cut off reads as zeros if the file grows again.
    pub(crate) fn resize(&mut self, ino: Ino, mut inode: Inode, size: u64) -> Result<Inode> {
        check_range(size, 0)?;
        if size < inode.size {
            if !size.is_multiple_of(PAGE) {
                self.zero_part(ino, size / PAGE, (size % PAGE) as usize, PAGE_SIZE)?;
            }
            self.clear(ino, size.div_ceil(PAGE), u64::MAX / PAGE);
        }
        inode.size = size;
        Ok(inode)
    }
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn the_difference_is_as_short_as_it_can_be() {
        let old = vec![7u8; 300];
        assert_eq!(difference(&old, &old), None);
        assert_eq!(difference(&[], &[]), None);
        for (from, to) in [(0, 1), (0, 300), (63, 65), (64, 128), (299, 300), (130, 131), (1, 299)] {
            let mut new = old.clone();
            (new[from], new[to - 1]) = (8, 8);
            assert_eq!(difference(&old, &new), Some((from, to)));
        }
    }
}
