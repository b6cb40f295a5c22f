//! The frame of a landed backup: everything of the file but its pages, and where those go.
//!
//! Little-endian. Header of 16 bytes: magic, version u32, bytes of a page u32. Then records, each with a head of 16 bytes: kind, seven zeros,
//! count u64. Kind 1 is so many bytes, which follow; 2 is so many pages, taken from the file of pages in its order; 3 ends
//! the frame: its count is the length of the whole, and behind it stand the BLAKE3 of the whole, the number of pages u64,
//! and the BLAKE3 of all bytes of the frame before it. Invariants: no record is empty, and no two of a kind follow each
//! other, so that one file has one frame; a reader gives nothing before the frame's hash was found right; memory is constant.
//! Must not know files' names and backups.

use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::adapter::sqlserver::page::PAGE_BYTES;
use crate::base::{Error, Result};

const MAGIC: [u8; 8] = *b"SPLANDED";
const VERSION: u32 = 1;
const HEADER_BYTES: u64 = 16;
const HEAD_BYTES: usize = 16;
const HASH_BYTES: usize = blake3::OUT_LEN;
/// The ending behind its head: hash of the whole, pages, hash of the frame.
const ENDING_BYTES: usize = HASH_BYTES + 8 + HASH_BYTES;
const BUFFER_BYTES: usize = 256 << 10;

const KIND_BYTES: u8 = 1;
const KIND_PAGES: u8 = 2;
const KIND_END: u8 = 3;

/// One part of the file, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// So many bytes, which are in the frame.
    Bytes(u64),
    /// So many pages, which are in the file of pages.
    Pages(u64),
}

/// What the whole is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Bytes.
    pub length: u64,
    pub pages: u64,
    pub hash: blake3::Hash,
}

/// Writes a frame. The caller hands on pieces in order, and after `Piece::Bytes` exactly those bytes.
pub struct FrameWriter<W> {
    out: W,
    hash: blake3::Hasher,
    /// Bytes written.
    bytes: u64,
    whole: (u64, u64),
}

impl<W: Write> FrameWriter<W> {
    pub fn new(out: W) -> io::Result<Self> {
        let mut writer = Self { out, hash: blake3::Hasher::new(), bytes: 0, whole: (0, 0) };
        writer.put(&MAGIC)?;
        writer.put(&VERSION.to_le_bytes())?;
        writer.put(&(PAGE_BYTES as u32).to_le_bytes())?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn head(&mut self, kind: u8, count: u64) -> io::Result<()> {
        self.put(&[kind, 0, 0, 0, 0, 0, 0, 0])?;
        self.put(&count.to_le_bytes())
    }

    /// Begins a piece; an empty one leaves no trace.
    pub fn piece(&mut self, piece: Piece) -> io::Result<()> {
        match piece {
            Piece::Bytes(0) | Piece::Pages(0) => Ok(()),
            Piece::Bytes(count) => {
                self.whole.0 += count;
                self.head(KIND_BYTES, count)
            }
            Piece::Pages(count) => {
                self.whole.0 += count * PAGE_BYTES as u64;
                self.whole.1 += count;
                self.head(KIND_PAGES, count)
            }
        }
    }

    /// Bytes of the piece that was begun last.
    pub fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.put(bytes)
    }

    /// Ends the frame. Gives what was written to, what the whole is, and the frame's bytes.
    pub fn end(mut self, hash: blake3::Hash) -> io::Result<(W, Whole, u64)> {
        let (length, pages) = self.whole;
        self.head(KIND_END, length)?;
        self.put(hash.as_bytes())?;
        self.put(&pages.to_le_bytes())?;
        let own = self.hash.finalize();
        self.put(own.as_bytes())?;
        self.out.flush()?;
        Ok((self.out, Whole { length, pages, hash }, self.bytes))
    }
}

/// Reads a frame whose hash holds.
pub struct FrameReader<R> {
    input: R,
    name: String,
    /// Where the next record is.
    at: u64,
    /// Where the ending is.
    end: u64,
    whole: Whole,
    /// What the pieces up to here come to: bytes, pages.
    seen: (u64, u64),
    last: u8,
    /// Bytes of the current piece that were not read yet.
    left: u64,
}

impl<R: Read + Seek> FrameReader<R> {
    /// Reads all of the frame once, to see that it is as it was written. `Corrupt` when it is not; `name` is for messages.
    pub fn open(mut input: R, name: &str) -> Result<Self> {
        let object = format!("frame {name}");
        let io = |e| Error::read(&object, e);
        let length = input.seek(SeekFrom::End(0)).map_err(io)?;
        let ending = (HEAD_BYTES + ENDING_BYTES) as u64;
        let end = length.checked_sub(ending).filter(|end| *end >= HEADER_BYTES);
        let end = end.ok_or_else(|| damaged(name, 0, "it is too short"))?;
        input.seek(SeekFrom::Start(0)).map_err(io)?;
        let mut header = [0; HEADER_BYTES as usize];
        input.read_exact(&mut header).map_err(io)?;
        check_header(&header, name)?;
        let mut hash = blake3::Hasher::new();
        hash.update(&header);
        let mut left = length - HEADER_BYTES - HASH_BYTES as u64;
        let mut buffer = vec![0; BUFFER_BYTES];
        while left > 0 {
            let count = left.min(BUFFER_BYTES as u64) as usize;
            input.read_exact(&mut buffer[..count]).map_err(io)?;
            hash.update(&buffer[..count]);
            left -= count as u64;
        }
        let mut own = [0; HASH_BYTES];
        input.read_exact(&mut own).map_err(io)?;
        if hash.finalize() != blake3::Hash::from_bytes(own) {
            return Err(damaged(name, 0, "its hash is another"));
        }
        input.seek(SeekFrom::Start(end)).map_err(io)?;
        let mut bytes = [0; HEAD_BYTES + ENDING_BYTES];
        input.read_exact(&mut bytes).map_err(io)?;
        let (kind, count) =
            decode_head(&bytes).ok_or_else(|| damaged(name, end, "no record begins there"))?;
        if kind != KIND_END {
            return Err(damaged(name, end, "it does not end there"));
        }
        let mut whole_hash = [0; HASH_BYTES];
        whole_hash.copy_from_slice(&bytes[HEAD_BYTES..HEAD_BYTES + HASH_BYTES]);
        let whole = Whole {
            length: count,
            pages: u64_at(&bytes, HEAD_BYTES + HASH_BYTES),
            hash: blake3::Hash::from_bytes(whole_hash),
        };
        let name = name.to_owned();
        Ok(Self { input, name, at: HEADER_BYTES, end, whole, seen: (0, 0), last: 0, left: 0 })
    }

    pub fn whole(&self) -> Whole {
        self.whole
    }

    /// Bytes of the frame.
    pub fn frame_bytes(&self) -> u64 {
        self.end + (HEAD_BYTES + ENDING_BYTES) as u64
    }

    /// The next piece; nothing behind the last. What was not read of the one before is skipped.
    pub fn next_piece(&mut self) -> Result<Option<Piece>> {
        let at = self.at;
        if at == self.end {
            return match self.seen == (self.whole.length, self.whole.pages) {
                true => Ok(None),
                false => Err(damaged(&self.name, at, "its pieces are not as long as the whole")),
            };
        }
        if self.end - at < HEAD_BYTES as u64 {
            return Err(damaged(&self.name, at, "a record reaches into its ending"));
        }
        let mut head = [0; HEAD_BYTES];
        self.input.seek(SeekFrom::Start(at)).map_err(|e| self.io(e))?;
        self.input.read_exact(&mut head).map_err(|e| self.io(e))?;
        let (kind, count) = decode_head(&head)
            .filter(|(kind, count)| *kind != KIND_END && *kind != self.last && *count > 0)
            .ok_or_else(|| damaged(&self.name, at, "no piece begins there"))?;
        let too_long = || damaged(&self.name, at, "a piece is longer than the whole");
        let (piece, bytes, inside) = match kind {
            KIND_BYTES => (Piece::Bytes(count), count, count),
            _ => (Piece::Pages(count), count.checked_mul(PAGE_BYTES as u64).ok_or_else(too_long)?, 0),
        };
        let next = (at + HEAD_BYTES as u64).checked_add(inside).filter(|next| *next <= self.end);
        let seen = self.seen.0.checked_add(bytes).filter(|seen| *seen <= self.whole.length);
        let (Some(next), Some(seen)) = (next, seen) else { return Err(too_long()) };
        let pages = if kind == KIND_PAGES { count } else { 0 };
        self.seen = (seen, self.seen.1 + pages);
        (self.at, self.last, self.left) = (next, kind, inside);
        Ok(Some(piece))
    }

    /// Where in the frame the bytes of the current piece begin that were not read yet.
    pub fn bytes_at(&self) -> u64 {
        self.at - self.left
    }

    /// The next bytes of the current piece: as many as there are, and the buffer holds.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let count = (buffer.len() as u64).min(self.left) as usize;
        self.input.read_exact(&mut buffer[..count]).map_err(|e| self.io(e))?;
        self.left -= count as u64;
        Ok(count)
    }

    fn io(&self, source: io::Error) -> Error {
        Error::read(&format!("frame {}", self.name), source)
    }
}

fn check_header(header: &[u8; HEADER_BYTES as usize], name: &str) -> Result<()> {
    let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if header[..8] != MAGIC {
        return Err(Error::invalid(format!("{name} is no frame of a landed backup")));
    }
    if number(8) != VERSION {
        return Err(Error::new(
            crate::base::ErrorKind::Unsupported,
            format!("frame {name} is of version {}; this program knows version {VERSION}", number(8)),
        ));
    }
    if number(12) as usize != PAGE_BYTES {
        return Err(damaged(name, 12, "its pages have another size"));
    }
    Ok(())
}

/// Kind and count; nothing when it is no record.
fn decode_head(bytes: &[u8]) -> Option<(u8, u64)> {
    let plain = (KIND_BYTES..=KIND_END).contains(&bytes[0]) && bytes[1..8] == [0; 7];
    plain.then(|| (bytes[0], u64_at(bytes, 8)))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

fn damaged(name: &str, at: u64, what: &str) -> Error {
    Error::corrupt(format!("frame {name} is damaged at byte {at}: {what}"))
        .with_hint("take it from another snapshot, or the backup from where it was copied")
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn write(pieces: &[Piece]) -> Vec<u8> {
        let mut frame = FrameWriter::new(Vec::new()).unwrap();
        for piece in pieces {
            frame.piece(*piece).unwrap();
            if let Piece::Bytes(count) = piece {
                frame.bytes(&vec![7; *count as usize]).unwrap();
            }
        }
        frame.end(blake3::hash(b"whole")).unwrap().0
    }

    fn read(frame: &[u8]) -> Result<Vec<Piece>> {
        let mut reader = FrameReader::open(Cursor::new(frame), "f")?;
        let mut pieces = Vec::new();
        while let Some(piece) = reader.next_piece()? {
            pieces.push(piece);
        }
        Ok(pieces)
    }

    /// Puts the hash of a frame right, to reach what lies behind that check.
    fn seal(frame: &mut [u8]) {
        let end = frame.len() - HASH_BYTES;
        let hash = blake3::hash(&frame[..end]);
        frame[end..].copy_from_slice(hash.as_bytes());
    }

    const PIECES: [Piece; 4] = [Piece::Bytes(700), Piece::Pages(9), Piece::Bytes(3), Piece::Pages(1)];

    #[test]
    fn what_was_written_is_read() {
        let frame = write(&PIECES);
        let mut reader = FrameReader::open(Cursor::new(&frame), "f").unwrap();
        assert_eq!(reader.whole().length, 703 + 10 * 8192);
        assert_eq!((reader.whole().pages, reader.whole().hash), (10, blake3::hash(b"whole")));
        assert_eq!(reader.frame_bytes(), frame.len() as u64);
        assert_eq!(reader.next_piece().unwrap(), Some(Piece::Bytes(700)));
        let mut bytes = [0; 512];
        assert_eq!((reader.read(&mut bytes).unwrap(), reader.read(&mut bytes).unwrap()), (512, 188));
        assert_eq!((reader.read(&mut bytes).unwrap(), bytes[0]), (0, 7));
        assert_eq!(read(&frame).unwrap(), PIECES);
        assert_eq!(read(&write(&[])).unwrap(), []);
    }

    #[test]
    fn the_layout_stays() {
        let frame = write(&[Piece::Bytes(1), Piece::Pages(2)]);
        assert_eq!(&frame[..16], b"SPLANDED\x01\0\0\0\0\x20\0\0");
        assert_eq!(&frame[16..33], b"\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x07");
        assert_eq!(&frame[33..49], b"\x02\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0");
        assert_eq!(&frame[49..65], b"\x03\0\0\0\0\0\0\0\x01\x40\0\0\0\0\0\0");
        assert_eq!(&frame[65..97], blake3::hash(b"whole").as_bytes());
        assert_eq!(&frame[97..105], 2u64.to_le_bytes());
        assert_eq!(frame.len(), 137);
    }

    /// Right hashes, wrong records.
    #[test]
    fn records_that_cannot_be_are_refused() {
        let good = write(&[Piece::Bytes(8), Piece::Pages(2)]);
        for (at, value) in [
            (16, 3),    // the end, too early
            (16, 2),    // pages, whose count is another
            (16, 9),    // unknown
            (17, 1),    // not zero
            (24, 9),    // one byte more than there are
            (24, 0),    // nothing
            (31, 0x80), // beyond any file
            (40, 1),    // a second one of bytes
            (55, 0xff), // more pages than can be
            (48, 3),    // more than the whole
            (56, 1),    // no end where it must be
            (64, 1),    // another length of the whole
            (105, 1),   // another number of pages
        ] {
            let mut frame = good.clone();
            frame[at] = value;
            seal(&mut frame);
            assert!(read(&frame).is_err(), "byte {at} as {value}");
        }
        assert!(read(&good).is_ok());
    }

    #[test]
    fn another_version_is_said() {
        let mut frame = write(&PIECES);
        frame[8] = 2;
        let error = read(&frame).unwrap_err();
        assert_eq!(error.kind(), crate::base::ErrorKind::Unsupported);
        assert_eq!(read(b"no frame at all, but long enough to hold the ending of one, which is a hundred and four bytes long, and a header").unwrap_err().kind(), crate::base::ErrorKind::Invalid);
    }

    proptest! {
        #[test]
        fn a_changed_or_cut_frame_is_refused(at in any::<prop::sample::Index>(), mask in 1..=255u8, cut in any::<bool>()) {
            let mut frame = write(&PIECES);
            let at = at.index(frame.len());
            if cut {
                frame.truncate(at);
            } else {
                frame[at] ^= mask;
            }
            prop_assert!(read(&frame).is_err());
        }
    }
}
