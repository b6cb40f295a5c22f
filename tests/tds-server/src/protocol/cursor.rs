//! Reads what a client sent: every read is checked against the end first, so that no bytes can make it panic or allocate
//! more than they hold. Numbers are little-endian, as all of TDS is but packet headers and PRELOGIN.

use super::error::{ProtocolError, Result};

/// A position in a message; `object` names the message in errors.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    object: &'static str,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(object: &'static str, bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, object }
    }

    pub(super) fn object(&self) -> &'static str {
        self.object
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.rest().first().copied()
    }

    /// # Errors
    ///
    /// `Short` when fewer than `count` bytes are left; nothing is consumed then.
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let rest = self.rest();
        match rest.get(..count) {
            Some(taken) => {
                self.at += count;
                Ok(taken)
            }
            None => {
                let need = count - rest.len();
                Err(ProtocolError::Short { object: self.object, offset: self.at, need, have: rest.len() })
            }
        }
    }

    /// `count` bytes at `offset` from the start, without moving.
    pub(super) fn slice(&self, offset: usize, count: usize) -> Result<&'a [u8]> {
        Cursor { at: offset.min(self.bytes.len()), ..self.clone() }.take(count)
    }

    /// All from `offset` on, counted from the start, without moving.
    pub(super) fn after(&self, offset: usize) -> &'a [u8] {
        self.bytes.get(offset..).unwrap_or_default()
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u16_be(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A string of so many UTF-16 units.
    pub(super) fn utf16(&mut self, units: usize) -> Result<String> {
        utf16(self.object, self.take(units.saturating_mul(2))?)
    }

    /// `B_VARCHAR`: its length in units is in the byte before it.
    pub(super) fn short_utf16(&mut self) -> Result<String> {
        let units = self.u8()?;
        self.utf16(usize::from(units))
    }

    pub(super) fn unexpected(&self, found: impl Into<u64>, expected: &'static str) -> ProtocolError {
        ProtocolError::Unexpected { object: self.object, found: found.into(), expected }
    }
}

/// UTF-16LE as text.
///
/// # Errors
///
/// `NotUtf16` for half a unit or half a surrogate pair.
pub(super) fn utf16(object: &'static str, bytes: &[u8]) -> Result<String> {
    let units = bytes.chunks_exact(2);
    if !units.remainder().is_empty() {
        return Err(ProtocolError::NotUtf16 { object });
    }
    let units = units.map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    char::decode_utf16(units)
        .collect::<std::result::Result<String, _>>()
        .map_err(|_| ProtocolError::NotUtf16 { object })
}
