//! From the landed form back to the backup file, byte for byte.
//!
//! Invariant: the file gets its name only when length and hash of the whole are those of the frame. Must not know what it holds.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{Advice, fadvise};

use super::frame::{Piece, Whole};
use super::{CHUNK_BYTES, FRAME_FILE, Landed, PAGES_FILE, open, place};
use crate::adapter::Task;
use crate::adapter::sqlserver::page::PAGE_BYTES;
use crate::base::{Error, ErrorKind, Result};

/// Puts the landed backup in `folder` together as the new file `to`, with mode, owner and time of the file that was landed. Blocking.
/// `Corrupt` when something of it is damaged, `Exists` when there is a file of that name; then nothing is left.
pub fn put_together(folder: &Path, to: &Path, task: &mut dyn Task) -> Result<Landed> {
    if fs::symlink_metadata(to).is_ok() {
        return Err(Error::new(ErrorKind::Exists, format!("{} exists", to.display()))
            .with_hint("name another file, or remove it"));
    }
    let partial = place::partial(to)?;
    place::clear(&partial)?;
    let made = write(folder, &partial, task).and_then(|landed| {
        place::commit(&partial, to)?;
        Ok(landed)
    });
    if made.is_err()
        && let Err(e) = place::clear(&partial)
    {
        task.warn(&format!("{} is left: {e}", partial.display()));
    }
    made
}

fn write(folder: &Path, partial: &Path, task: &mut dyn Task) -> Result<Landed> {
    task.step("put the backup file together")?;
    let shown = partial.display().to_string();
    let mut file = place::create(partial)?;
    let mut out = |bytes: &[u8]| file.write_all(bytes).map_err(|e| Error::io("write", &shown, e));
    let whole = read_all(folder, Gone::Stay, task, &mut out)?;
    let frame = folder.join(FRAME_FILE);
    let like = fs::metadata(&frame).map_err(|e| Error::io("look at", &frame.display().to_string(), e))?;
    place::finish(&file, &like, &shown)?;
    Ok(Landed::new(folder, whole, like.len()))
}

/// Whether what the host has in memory of a landed backup is let go first, so that it is read from where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    Stay,
    FromCaches,
}

/// Hands on all bytes of a landed backup in order. `Corrupt` at the end when they are not those that were landed.
pub(super) fn read_all(
    folder: &Path,
    gone: Gone,
    task: &mut dyn Task,
    out: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<Whole> {
    let pages_name = folder.join(PAGES_FILE).display().to_string();
    if gone == Gone::FromCaches {
        let_go(&folder.join(FRAME_FILE));
        let_go(&folder.join(PAGES_FILE));
    }
    let (mut frame, pages) = open(folder)?;
    let whole = frame.whole();
    let mut hash = blake3::Hasher::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    let (mut done, mut place) = (0u64, 0u64);
    while let Some(piece) = frame.next_piece()? {
        let mut left = match piece {
            Piece::Bytes(count) => count,
            Piece::Pages(count) => count * PAGE_BYTES as u64,
        };
        while left > 0 {
            task.check()?;
            let some = left.min(CHUNK_BYTES as u64) as usize;
            let bytes = &mut buffer[..some];
            if let Piece::Pages(_) = piece {
                let object = || format!("{pages_name} at byte {place}");
                pages.read_exact_at(bytes, place).map_err(|e| Error::read(&object(), e))?;
                place += some as u64;
            } else {
                frame.read(bytes)?;
            }
            hash.update(bytes);
            out(bytes)?;
            left -= some as u64;
            done += some as u64;
            task.bytes(done, Some(whole.length));
        }
    }
    match hash.finalize() == whole.hash {
        true => Ok(whole),
        false => Err(Error::corrupt(format!(
            "{pages_name} is damaged: with it the backup has another hash, and its frame is sound"
        ))
        .with_hint("take it from another snapshot, or the backup from where it was copied")),
    }
}

/// Advice only: what cannot be let go is read from memory.
fn let_go(path: &Path) {
    if let Ok(file) = File::open(path)
        && let Err(e) = fadvise(&file, 0, None, Advice::DontNeed)
    {
        tracing::debug!("{} stays in memory: {e}", path.display());
    }
}
