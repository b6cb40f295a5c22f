//! zstd at level 1, or the bytes as they are when that does not make them smaller.

use std::cell::RefCell;

use crate::base::{Error, ErrorKind, Result};
use crate::format::segment::Codec;

/// Level 1: on database pages levels 1 to 9 differ by a few percent in size and by multiples in time.
const LEVEL: i32 = 1;

/// A body ready to be stored.
#[derive(Debug)]
pub struct Encoded {
    pub codec: Codec,
    pub body: Vec<u8>,
}

thread_local! {
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Compresses `content`, or keeps it when less than 1/16 would be saved.
pub fn encode_content(content: &[u8]) -> Encoded {
    let bound = content.len() - content.len() / 16;
    let compressed = COMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = zstd::bulk::Compressor::new(LEVEL).ok();
        }
        let mut body = Vec::with_capacity(zstd::zstd_safe::compress_bound(content.len()));
        let length = slot.as_mut()?.compress_to_buffer(content, &mut body).ok()?;
        (length < bound).then_some(body)
    });
    match compressed {
        Some(body) => Encoded { codec: Codec::Zstd, body },
        None => Encoded { codec: Codec::Raw, body: content.to_vec() },
    }
}

/// The content of a stored body of at most `content_max` bytes.
pub(super) fn decode_body(codec: Codec, body: &[u8], content_max: usize) -> Result<Vec<u8>> {
    if codec == Codec::Raw {
        return Ok(body.to_vec());
    }
    let length = zstd::zstd_safe::get_frame_content_size(body)
        .ok()
        .flatten()
        .filter(|length| *length <= content_max as u64)
        .ok_or_else(|| Error::corrupt("compressed block has a damaged head"))?;
    with_decompressor(|decompressor| decompressor.decompress(body, length as usize))
}

/// Decodes a stored body into `out` and returns the content's length; a content longer than `out` is damage.
pub(super) fn decode_body_into(codec: Codec, body: &[u8], out: &mut [u8]) -> Result<usize> {
    if codec == Codec::Raw {
        let there =
            out.get_mut(..body.len()).ok_or_else(|| Error::corrupt("a block is longer than its page"))?;
        there.copy_from_slice(body);
        return Ok(body.len());
    }
    with_decompressor(|decompressor| decompressor.decompress_to_buffer(body, out))
}

fn with_decompressor<T>(
    body: impl FnOnce(&mut zstd::bulk::Decompressor<'static>) -> std::io::Result<T>,
) -> Result<T> {
    DECOMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = zstd::bulk::Decompressor::new().ok();
        }
        let Some(decompressor) = slot.as_mut() else {
            return Err(Error::new(ErrorKind::Io, "no memory for a zstd decompressor"));
        };
        body(decompressor)
            .map_err(|error| Error::corrupt(format!("compressed block does not decompress: {error}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_survives() {
        let text = b"stillpoint ".repeat(700);
        let encoded = encode_content(&text);
        assert_eq!(encoded.codec, Codec::Zstd);
        assert!(encoded.body.len() < text.len() / 4);
        assert_eq!(decode_body(encoded.codec, &encoded.body, text.len()).unwrap(), text);
        assert!(decode_body(encoded.codec, &encoded.body, text.len() - 1).is_err());
        let mut out = vec![0; text.len()];
        assert_eq!(decode_body_into(encoded.codec, &encoded.body, &mut out).unwrap(), text.len());
        assert_eq!(out, text);
        assert!(decode_body_into(encoded.codec, &encoded.body, &mut out[1..]).is_err());
        assert_eq!(decode_body_into(Codec::Raw, &text, &mut out).unwrap(), text.len());
        assert!(decode_body_into(Codec::Raw, &text, &mut out[1..]).is_err());
    }

    #[test]
    fn what_does_not_shrink_is_kept() {
        let mut noise = Vec::new();
        for n in 0..256u32 {
            noise.extend_from_slice(blake3::hash(&n.to_le_bytes()).as_bytes());
        }
        assert_eq!(encode_content(&noise).codec, Codec::Raw);
    }
}
