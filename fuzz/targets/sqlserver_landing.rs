//! Frames of landed backups of any bytes, and with their hash put right, so that the records behind it are reached: they are read or
//! refused, what is read comes to the whole, and has one encoding.

#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use stillpoint::adapter::sqlserver::landing::frame::{FrameReader, FrameWriter, Piece};

fuzz_target!(|input: (bool, bool, Vec<u8>)| {
    let (headed, sealed, mut bytes) = input;
    if headed {
        bytes.splice(0..0, *b"SPLANDED\x01\0\0\0\0\x20\0\0");
    }
    if sealed && let Some(end) = bytes.len().checked_sub(blake3::OUT_LEN) {
        let hash = blake3::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(hash.as_bytes());
    }
    if let Some(again) = read(&bytes) {
        assert!(again == bytes, "another frame of the same pieces");
    }
});

/// Writes again what is read; nothing when it is refused.
fn read(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut frame = FrameReader::open(Cursor::new(bytes), "f").ok()?;
    let whole = frame.whole();
    let mut again = FrameWriter::new(Vec::new()).unwrap();
    let (mut length, mut pages) = (0u64, 0);
    let mut buffer = [0; 500];
    while let Some(piece) = frame.next_piece().ok()? {
        again.piece(piece).unwrap();
        match piece {
            Piece::Bytes(count) => {
                length += count;
                let mut left = count;
                while left > 0 {
                    let some = frame.read(&mut buffer).unwrap();
                    again.bytes(&buffer[..some]).unwrap();
                    left -= some as u64;
                }
            }
            Piece::Pages(count) => {
                length += count * 8192;
                pages += count;
            }
        }
    }
    assert_eq!((length, pages), (whole.length, whole.pages));
    let (again, written, bytes) = again.end(whole.hash).unwrap();
    assert_eq!((written, bytes), (whole, again.len() as u64));
    Some(again)
}
