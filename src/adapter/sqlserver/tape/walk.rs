//! The way through a backup file: from block to block, from stream to stream.
//!
//! Measured order: TAPE, SFMB (a filemark), then for each set SSET, VOLB, MSCI, MSDA for data, MSTL for log, MSLS, SFMB, ESET with the
//! tape's catalogue, ESET, SFMB. Invariant: each step goes forward by 22 bytes at least, so the way ends. Data is stepped over, not
//! read. Must not know the fields of blocks.

use std::io::{Read, Seek};

use super::BackupFile;
use super::block::{BLOCK_ALIGN, Block, Input, Stream, is_block_type, printable};
use super::error::{Fault, TapeError};
use super::media::{Media, RAID_BYTES_MAX};
use super::pages::PageRun;
use super::set::{BackupSet, SSET_ENCRYPTED};

/// What compressed backups begin with.
const COMPRESSED_MAGIC: &[u8] = b"MSSQLBAK";
/// How far the next block is looked for behind a filemark: the largest block size of BACKUP.
const SKIP_BYTES_MAX: u64 = 65_536;
/// More backup sets than these in one file are taken for damage.
const SETS_MAX: usize = 65_535;
/// The longest `MQCI` stream that is read: 32,767 files with paths of full length.
const CONFIG_BYTES_MAX: u64 = 128 << 20;

/// `on_run` takes each run of pages in the order of the file, also those that are not remembered; the walk ends when it answers
/// false.
pub(super) fn walk<R: Read + Seek>(
    inner: R,
    on_run: &mut dyn FnMut(PageRun) -> bool,
) -> Result<BackupFile, TapeError> {
    let mut input = Input::new(inner)?;
    let label = label(&mut input)?;
    let mut walker = Walker { media: Media::decode(&label), sets: Vec::new(), open: None, on_run };
    let problem = walker.run(&mut input, &label).err();
    if let Some(set) = walker.open.take() {
        walker.sets.push(set);
    }
    let incomplete = walker.sets.last().is_none_or(|set| !set.complete);
    let problem = problem.or_else(|| {
        incomplete.then(|| TapeError::truncated(input.length(), "the file ends before its backup set does"))
    });
    Ok(BackupFile { media: walker.media, sets: walker.sets, length: input.length(), problem })
}

/// The first block, once it is clear that the file is a backup of SQL Server.
fn label<R: Read + Seek>(input: &mut Input<R>) -> Result<Block, TapeError> {
    let head = input.bytes(0, input.length().min(8) as usize)?;
    let foreign = |what: String| TapeError::new(Fault::Foreign, 0, what);
    if head == COMPRESSED_MAGIC {
        return Err(TapeError::new(Fault::Compressed, 0, "it begins with MSSQLBAK".to_owned()));
    }
    if head.is_empty() {
        return Err(TapeError::truncated(0, "the file is empty"));
    }
    if !head.starts_with(b"TAPE") {
        return Err(foreign("it does not begin with a tape header".to_owned()));
    }
    let label = input.block(0)?;
    let software = label.text(80);
    if !software.starts_with("Microsoft SQL Server") {
        return Err(foreign(format!("its tape header is of '{software}'")));
    }
    Ok(label)
}

struct Walker<'a> {
    media: Media,
    sets: Vec<BackupSet>,
    /// The set whose end has not come yet.
    open: Option<BackupSet>,
    on_run: &'a mut dyn FnMut(PageRun) -> bool,
}

impl Walker<'_> {
    fn run<R: Read + Seek>(&mut self, input: &mut Input<R>, label: &Block) -> Result<(), TapeError> {
        let mut next = Some(self.streams(input, label)?);
        while let Some(at) = next {
            let Some(at) = find_block(input, at)? else { break };
            let block = input.block(at)?;
            next = self.block(input, &block)?;
        }
        Ok(())
    }

    /// Takes up a block and says where the next one is looked for.
    fn block<R: Read + Seek>(
        &mut self,
        input: &mut Input<R>,
        block: &Block,
    ) -> Result<Option<u64>, TapeError> {
        match &block.kind {
            b"SFMB" => return Ok(block.at.checked_add(self.media.filemark_bytes)),
            b"EOTM" => return Ok(None),
            b"SSET" => self.begin(block)?,
            b"ESET" => self.end(),
            b"TAPE" => {
                return Err(TapeError::new(Fault::Damaged, block.at, "a second tape header".to_owned()));
            }
            _ => {}
        }
        self.streams(input, block).map(Some)
    }

    fn begin(&mut self, block: &Block) -> Result<(), TapeError> {
        if let Some(open) = self.open.take() {
            let what =
                format!("backup set {} begins before set {} has ended", self.sets.len() + 2, open.position);
            self.sets.push(open);
            return Err(TapeError::new(Fault::Damaged, block.at, what));
        }
        if self.sets.len() >= SETS_MAX {
            return Err(TapeError::new(
                Fault::Damaged,
                block.at,
                format!("more than {SETS_MAX} backup sets"),
            ));
        }
        if block.attributes & SSET_ENCRYPTED != 0 {
            return Err(TapeError::new(Fault::Encrypted, block.at, "its backup set is encrypted".to_owned()));
        }
        self.open = Some(BackupSet::begin(block));
        Ok(())
    }

    /// The second ESET of a set finds none open.
    fn end(&mut self) {
        if let Some(mut set) = self.open.take() {
            set.complete = true;
            self.sets.push(set);
        }
    }

    /// Steps over the streams of a block and says where they end.
    fn streams<R: Read + Seek>(&mut self, input: &mut Input<R>, block: &Block) -> Result<u64, TapeError> {
        let mut at = block.streams_at();
        loop {
            let stream = input.stream(at)?;
            self.stream(input, block, &stream)?;
            at = stream.next_at().ok_or_else(|| beyond(&stream))?;
            if &stream.kind == b"SPAD" {
                return at.checked_next_multiple_of(BLOCK_ALIGN).ok_or_else(|| beyond(&stream));
            }
        }
    }

    fn stream<R: Read + Seek>(
        &mut self,
        input: &mut Input<R>,
        block: &Block,
        stream: &Stream,
    ) -> Result<(), TapeError> {
        let refuse = |fault, how: &str| {
            let what = format!("stream {} of block {} is {how}", stream.name(), printable(block.kind));
            Err(TapeError::new(fault, stream.at, what))
        };
        if stream.is_encrypted() {
            return refuse(Fault::Encrypted, "encrypted");
        }
        if stream.is_compressed() {
            return refuse(Fault::Compressed, "compressed");
        }
        match (&stream.kind, self.open.as_mut()) {
            (b"RAID", _) if &block.kind == b"TAPE" => {
                let count = stream.length.min(RAID_BYTES_MAX) as usize;
                self.media.add_raid(&input.bytes(stream.data_at(), count)?);
            }
            (b"MQCI", Some(set)) => {
                let config = if stream.length <= CONFIG_BYTES_MAX {
                    input.bytes(stream.data_at(), stream.length as usize)?
                } else {
                    Vec::new()
                };
                if !set.configure(&config) {
                    return refuse(Fault::Damaged, "no description of a backup set");
                }
            }
            (b"MQDA", Some(set)) => {
                if let Some(run) = set.data.add_data(stream)
                    && !(self.on_run)(run)
                {
                    return Err(TapeError::new(Fault::Io, run.at, "the reading was ended".to_owned()));
                }
            }
            (b"MQTL", Some(set)) => set.data.add_log(stream),
            _ => {}
        }
        Ok(())
    }
}

fn beyond(stream: &Stream) -> TapeError {
    TapeError::new(Fault::Damaged, stream.at, format!("stream {} is longer than any file", stream.name()))
}

/// The next block at `at` or a little later, for a larger block size leaves room behind a filemark. Nothing at the
/// end of the file, and where only zeros follow.
fn find_block<R: Read + Seek>(input: &mut Input<R>, at: u64) -> Result<Option<u64>, TapeError> {
    let mut place = at;
    while input.left(place) >= BLOCK_ALIGN && place - at < SKIP_BYTES_MAX {
        let head = input.bytes(place, 4)?;
        if is_block_type(&head) {
            return Ok(Some(place));
        }
        if head != [0; 4] {
            return Err(TapeError::new(
                Fault::Damaged,
                place,
                "neither a descriptor block nor padding".to_owned(),
            ));
        }
        place += BLOCK_ALIGN;
    }
    Ok(None)
}
