//! Database files on disk: pages with real headers and checksums, and in the primary file what the database is.
//!
//! A file is preallocated with zero pages. Page 0 is a file header page that carries who the file is; in the primary
//! file two runs of data pages carry the database's state as JSON in turns, so that a copy taken at any moment has one
//! whole state. The newest whole one counts. This file knows nothing of statements.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::value::{Guid, Lsn};

/// Bytes of a page.
pub const PAGE_BYTES: usize = 8192;
const HEADER_BYTES: usize = 96;
const BODY_BYTES: usize = PAGE_BYTES - HEADER_BYTES;
/// Before the first run of state pages.
const FIRST_STATE_PAGE: u64 = 16;
const STATE_PAGES_MAX: u64 = 448;
const CHECKSUM_FLAG: u16 = 0x200;
const FIRST_PFS_PAGE: u64 = 1;
const PFS_PAGES: u64 = 8088;
const PAGE_IN_USE: u8 = 0x40;

/// Who a file is, from its page 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileHead {
    pub file_id: i32,
    pub file_guid: Guid,
    pub family_guid: Guid,
    /// Whether the database's state is in this file.
    pub primary: bool,
    /// Pages of each run of state pages; 0 in other files.
    pub state_pages: u64,
    /// How far this file was written.
    pub lsn: Lsn,
}

/// Pages that a file of this many pages gives to one run of the state.
pub(crate) fn state_pages_of(pages: u64) -> u64 {
    (pages.saturating_sub(FIRST_STATE_PAGE) / 2).min(STATE_PAGES_MAX)
}

/// Makes a file of `pages` zero pages with its head, durably, and its folder's entry too.
pub(crate) fn create(path: &Path, pages: u64, head: &FileHead, durable: bool) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    let zeros = vec![0; PAGE_BYTES * 64];
    let bytes = pages * PAGE_BYTES as u64;
    let mut at = 0;
    while at < bytes {
        let part = zeros.len().min(usize::try_from(bytes - at).unwrap_or(zeros.len()));
        file.write_all_at(&zeros[..part], at)?;
        at += part as u64;
    }
    write_head(&file, head)?;
    if durable {
        file.sync_all()?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
    }
    Ok(file)
}

/// Writes the pages that say which others are in use: all of them, here. `pages` is the file's length.
pub(crate) fn write_allocation(file: &File, head: &FileHead, pages: u64) -> io::Result<()> {
    let body = vec![PAGE_IN_USE; BODY_BYTES];
    let places = [FIRST_PFS_PAGE].into_iter().chain((1..).map(|section| section * PFS_PAGES));
    for page in places.take_while(|page| *page < pages) {
        file.write_all_at(&page_of(11, head.file_id, page, head.lsn, &body), page * PAGE_BYTES as u64)?;
    }
    Ok(())
}

/// Opens a file as the server does, for reading and writing.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Adds zero pages until the file has `pages`.
pub(crate) fn grow(file: &File, pages: u64) -> io::Result<()> {
    let page = [0; PAGE_BYTES];
    let mut at = file.metadata()?.len() / PAGE_BYTES as u64;
    while at < pages {
        file.write_all_at(&page, at * PAGE_BYTES as u64)?;
        at += 1;
    }
    Ok(())
}

/// Writes page 0.
pub(crate) fn write_head(file: &File, head: &FileHead) -> io::Result<()> {
    let body = serde_json::to_vec(head).map_err(io::Error::other)?;
    let page = page_of(15, head.file_id, 0, head.lsn, &framed(&body));
    file.write_all_at(&page, 0)
}

/// Reads page 0; `None` where there is no file head.
pub(crate) fn read_head(file: &File) -> io::Result<Option<FileHead>> {
    let mut page = vec![0; PAGE_BYTES];
    if file.metadata()?.len() < PAGE_BYTES as u64 {
        return Ok(None);
    }
    file.read_exact_at(&mut page, 0)?;
    if !is_sound(&page) || page[1] != 15 {
        return Ok(None);
    }
    Ok(unframed(&page[HEADER_BYTES..]).and_then(|body| serde_json::from_slice(body).ok()))
}

/// Writes a data page that shows how far the file is.
pub(crate) fn write_data_page(file: &File, head: &FileHead, page: u64, text: &str) -> io::Result<()> {
    let bytes = page_of(1, head.file_id, page, head.lsn, &framed(text.as_bytes()));
    file.write_all_at(&bytes, page * PAGE_BYTES as u64)
}

/// Writes the state number `turn` into the run of pages whose turn it is.
///
/// Errors with `StorageFull` when the state has outgrown its pages.
pub(crate) fn write_state(file: &File, head: &FileHead, turn: u64, state: &[u8]) -> io::Result<()> {
    let mut body = turn.to_le_bytes().to_vec();
    body.extend_from_slice(state);
    let framed = framed(&body);
    let pages = framed.len().div_ceil(BODY_BYTES) as u64;
    if pages > head.state_pages {
        return Err(io::Error::from(io::ErrorKind::StorageFull));
    }
    let first = FIRST_STATE_PAGE + turn % 2 * head.state_pages;
    let mut bytes = Vec::with_capacity(framed.len() + PAGE_BYTES);
    for (number, part) in (first..).zip(framed.chunks(BODY_BYTES)) {
        bytes.extend_from_slice(&page_of(1, head.file_id, number, head.lsn, part));
    }
    file.write_all_at(&bytes, first * PAGE_BYTES as u64)
}

/// The newest whole state and its turn.
pub(crate) fn read_state(file: &File, head: &FileHead) -> io::Result<Option<(u64, Vec<u8>)>> {
    let mut newest = None;
    for run in 0..2 {
        let first = FIRST_STATE_PAGE + run * head.state_pages;
        let Some(body) = read_run(file, first, head.state_pages.min(STATE_PAGES_MAX))? else {
            continue;
        };
        let Some((turn, state)) = body.split_first_chunk::<8>() else {
            continue;
        };
        let turn = u64::from_le_bytes(*turn);
        if newest.as_ref().is_none_or(|(other, _)| *other < turn) {
            newest = Some((turn, state.to_vec()));
        }
    }
    Ok(newest)
}

fn read_run(file: &File, first: u64, pages: u64) -> io::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    let mut page = vec![0; PAGE_BYTES];
    let mut wanted = usize::MAX;
    for number in first..first + pages {
        if (number + 1) * PAGE_BYTES as u64 > file.metadata()?.len() {
            return Ok(None);
        }
        file.read_exact_at(&mut page, number * PAGE_BYTES as u64)?;
        if !is_sound(&page) || page[1] != 1 {
            return Ok(None);
        }
        body.extend_from_slice(&page[HEADER_BYTES..]);
        if wanted == usize::MAX {
            wanted = length_of(&body).map_or(0, |length| length + 12);
        }
        if body.len() >= wanted {
            return Ok(unframed(&body).map(<[u8]>::to_vec));
        }
    }
    Ok(None)
}

/// Length, body, and a hash of the body.
fn framed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend_from_slice(&hash(body).to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn length_of(bytes: &[u8]) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(*bytes.first_chunk()?)).ok()
}

fn unframed(bytes: &[u8]) -> Option<&[u8]> {
    let length = length_of(bytes)?;
    let sum = u64::from_le_bytes(*bytes.get(4..12)?.first_chunk()?);
    let body = bytes.get(12..length.checked_add(12)?)?;
    (hash(body) == sum).then_some(body)
}

/// FNV-1a of 64 bits.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn page_of(kind: u8, file_id: i32, number: u64, lsn: Lsn, body: &[u8]) -> Vec<u8> {
    let mut page = vec![0; PAGE_BYTES];
    page[0] = 1;
    page[1] = kind;
    page[4..6].copy_from_slice(&CHECKSUM_FLAG.to_le_bytes());
    page[32..36].copy_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
    page[36..38].copy_from_slice(&u16::try_from(file_id).unwrap_or(u16::MAX).to_le_bytes());
    let (vlf, block, slot) = lsn.parts();
    page[40..44].copy_from_slice(&vlf.to_le_bytes());
    page[44..48].copy_from_slice(&block.to_le_bytes());
    page[48..50].copy_from_slice(&slot.to_le_bytes());
    page[HEADER_BYTES..HEADER_BYTES + body.len()].copy_from_slice(body);
    let sum = checksum(&page);
    page[60..64].copy_from_slice(&sum.to_le_bytes());
    page
}

fn is_sound(page: &[u8]) -> bool {
    page[0] == 1 && page[60..64] == checksum(page).to_le_bytes()
}

/// SQL Server's page checksum: the XOR of each sector's words, turned left by 15 less the sector's number.
pub(crate) fn checksum(page: &[u8]) -> u32 {
    let mut sum = 0;
    for (sector, bytes) in (0_u32..16).zip(page.chunks(512)) {
        let mut of_sector = 0;
        for (index, word) in bytes.chunks(4).enumerate() {
            let is_the_sum = sector == 0 && index == 15;
            let word = word.first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
            of_sector ^= if is_the_sum { 0 } else { word };
        }
        sum ^= of_sector.rotate_left(15 - sector);
    }
    sum
}
