//! A landed backup read as the file that it was, without putting it together: for the readers of headers.
//!
//! Holds 24 bytes of memory for each piece of the frame. The frame was checked when it was opened; of the pages nothing is, as only
//! the whole has a hash. Must not know backups.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::frame::Piece;
use super::{FRAME_FILE, open};
use crate::adapter::sqlserver::page::PAGE_BYTES;
use crate::base::{Error, Result};

/// A landed backup, to be read as a file.
pub struct LandedFile {
    frame: File,
    pages: File,
    pieces: Vec<Place>,
    length: u64,
    at: u64,
}

/// Where a piece lies.
struct Place {
    /// Its first byte in the whole.
    at: u64,
    /// The same in the frame, or in the file of pages.
    inside: u64,
    is_pages: bool,
}

impl LandedFile {
    /// Opens a landed backup. Errors as `look` has them.
    pub fn open(folder: &Path) -> Result<Self> {
        let (mut frame, pages) = open(folder)?;
        let (mut at, mut pages_at, mut pieces) = (0, 0, Vec::new());
        while let Some(piece) = frame.next_piece()? {
            match piece {
                Piece::Bytes(count) => {
                    pieces.push(Place { at, inside: frame.bytes_at(), is_pages: false });
                    at += count;
                }
                Piece::Pages(count) => {
                    pieces.push(Place { at, inside: pages_at, is_pages: true });
                    pages_at += count * PAGE_BYTES as u64;
                    at += count * PAGE_BYTES as u64;
                }
            }
        }
        let path = folder.join(FRAME_FILE);
        let file = File::open(&path).map_err(|e| Error::io("open", &path.display().to_string(), e))?;
        Ok(Self { frame: file, pages, pieces, length: at, at: 0 })
    }
}

impl Read for LandedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let next = self.pieces.partition_point(|piece| piece.at <= self.at);
        let Some(piece) = next.checked_sub(1).and_then(|at| self.pieces.get(at)) else { return Ok(0) };
        let end = self.pieces.get(next).map_or(self.length, |piece| piece.at);
        let count = (buffer.len() as u64).min(end.saturating_sub(self.at)) as usize;
        let file = if piece.is_pages { &self.pages } else { &self.frame };
        let read = file.read_at(&mut buffer[..count], piece.inside + (self.at - piece.at))?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for LandedFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = place.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
