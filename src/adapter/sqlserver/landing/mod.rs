//! Landed backups: a native backup file as a file of pages on the store's block grid, and a small frame with all the rest.
//!
//! In a backup file the pages of a database begin at multiples of 512 bytes, so that they share no block with the same pages in other
//! backups or in data files. A landed backup is a folder of two files: `pages`, the pages one after another from byte 0
//! on, each a block of the store; and `frame`, everything else, and where the pages go. Invariants: put together, the bytes are those of the
//! file, which length and BLAKE3 of the whole show; a folder of the final name is whole and durable; memory does not
//! grow with the file, but for `LandedFile`. Compressed, encrypted, foreign and damaged files are left as they are. Must not
//! know stores and volumes: it gets paths.

pub mod frame;
mod join;
mod place;
mod reader;
mod split;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use frame::{FrameReader, Whole};
pub use join::put_together;
pub use reader::LandedFile;
pub use split::{Original, land};

use super::page::PAGE_BYTES;
use crate::base::{Error, Result};

/// What the name of a landed backup's folder ends in, by custom.
pub const FOLDER_ENDING: &str = ".landed";
const PAGES_FILE: &str = "pages";
const FRAME_FILE: &str = "frame";
/// What is read or written at once.
const CHUNK_BYTES: usize = 1 << 20;

/// A landed backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Landed {
    pub folder: PathBuf,
    /// Bytes of the backup file.
    pub length: u64,
    /// Pages in the file of pages.
    pub pages: u64,
    /// Bytes of the frame.
    pub frame_bytes: u64,
    /// BLAKE3 of the backup file.
    pub hash: String,
}

impl Landed {
    fn new(folder: &Path, whole: Whole, frame_bytes: u64) -> Self {
        Self {
            folder: folder.to_owned(),
            length: whole.length,
            pages: whole.pages,
            frame_bytes,
            hash: whole.hash.to_hex().to_string(),
        }
    }
}

/// What became of a backup file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Landing {
    Landed(Landed),
    /// It stays as it is, and why: compressed, encrypted, foreign, damaged, or without pages.
    Kept(String),
}

/// Whether a folder is to be taken for a landed backup.
pub fn is_landed(folder: &Path) -> bool {
    folder.join(FRAME_FILE).is_file()
}

/// What a landed backup is. Its frame is read and checked, the file of pages only looked at. `NotFound` when it is none.
pub fn look(folder: &Path) -> Result<Landed> {
    let (frame, _) = open(folder)?;
    Ok(Landed::new(folder, frame.whole(), frame.frame_bytes()))
}

/// Frame and pages of a landed backup, the frame checked, and the pages as many as it says.
fn open(folder: &Path) -> Result<(FrameReader<File>, File)> {
    let (frame, pages) = (folder.join(FRAME_FILE), folder.join(PAGES_FILE));
    let opened = |path: &Path| {
        File::open(path).map_err(|e| Error::io("open", &format!("landed backup {}", path.display()), e))
    };
    let frame = FrameReader::open(opened(&frame)?, &frame.display().to_string())?;
    let file = opened(&pages)?;
    let shown = pages.display().to_string();
    let length = file.metadata().map_err(|e| Error::io("look at", &shown, e))?.len();
    let expected = frame.whole().pages.checked_mul(PAGE_BYTES as u64);
    if expected != Some(length) {
        return Err(Error::corrupt(format!(
            "{shown} has {length} bytes, and not the {} pages of its frame",
            frame.whole().pages
        )));
    }
    Ok((frame, file))
}
