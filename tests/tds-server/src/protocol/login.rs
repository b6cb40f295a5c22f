//! LOGIN7: who a client is and what it wants of the connection.

use super::cursor::{Cursor, utf16};
use super::error::{PACKET_BYTES_DEFAULT, PACKET_BYTES_MAX, PACKET_BYTES_MIN, ProtocolError, Result};
use crate::reply::Login;

/// Bytes of the fields that stand at fixed places, up to the variable part.
const FIXED_BYTES: usize = 36;
/// SQL Server's bound on each name, in UTF-16 units.
const NAME_UNITS_MAX: usize = 128;
const FEATURES_MAX: usize = 32;
const FEATURE_END: u8 = 0xFF;
/// In the third flags: a feature extension block is there.
const FLAG_EXTENSION: u8 = 0x10;
/// In the second flags: Windows authentication.
const FLAG_INTEGRATED: u8 = 0x80;

/// A version of TDS, as its number in LOGIN7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u32);

impl Version {
    pub(super) const V7_2: Self = Self(0x7209_0002);
    pub(super) const V7_3_B: Self = Self(0x730B_0003);
    pub(super) const V7_4: Self = Self(0x7400_0004);
    /// A lower number than those before it.
    pub(super) const V8_0: Self = Self(0x0800_0000);

    /// NBCROW came with 7.3 revision B.
    pub(super) fn has_null_bitmaps(self) -> bool {
        self >= Self::V7_3_B || self == Self::V8_0
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Login7 {
    pub(super) login: Login,
    pub(super) version: Version,
    pub(super) packet_bytes: usize,
    /// Features that the client offers, none of which this server has.
    pub(super) features: Option<Vec<u8>>,
    pub(super) is_integrated: bool,
}

impl Login7 {
    /// # Errors
    ///
    /// When a field lies outside of the message or over its bound, when a text is not UTF-16, and for versions before 7.2.
    pub(super) fn parse(payload: &[u8]) -> Result<Self> {
        let mut cursor = Cursor::new("LOGIN7", payload);
        let length = cursor.u32()?;
        if length as usize != payload.len() {
            return Err(cursor.unexpected(length, "the length of the message"));
        }
        let version = Version(cursor.u32()?).min(Version::V7_4);
        if version < Version::V7_2 && version != Version::V8_0 {
            return Err(cursor.unexpected(version.0, "TDS 7.2 or later"));
        }
        let packet_bytes = cursor.u32()?;
        cursor.take(12)?;
        let flags = [cursor.u8()?, cursor.u8()?, cursor.u8()?, cursor.u8()?];
        cursor.take(8)?;
        debug_assert_eq!(payload.len() - cursor.rest().len(), FIXED_BYTES);

        let host = name(&mut cursor, false)?;
        let user = name(&mut cursor, false)?;
        let password = name(&mut cursor, true)?;
        let application = name(&mut cursor, false)?;
        name(&mut cursor, false)?;
        let extension = (cursor.u16()?, cursor.u16()?);
        name(&mut cursor, false)?;
        name(&mut cursor, false)?;
        let database = name(&mut cursor, false)?;
        let has_features = flags[3] & FLAG_EXTENSION != 0;
        Ok(Self {
            login: Login { user, password, database, application, host },
            version,
            packet_bytes: packet_size(packet_bytes),
            features: if has_features { Some(features(&cursor, extension)?) } else { None },
            is_integrated: flags[1] & FLAG_INTEGRATED != 0,
        })
    }
}

/// What a client asks for, within the bounds; 0 leaves it to the server.
fn packet_size(asked: u32) -> usize {
    match usize::try_from(asked).unwrap_or(PACKET_BYTES_MAX) {
        0 => PACKET_BYTES_DEFAULT,
        asked => asked.clamp(PACKET_BYTES_MIN, PACKET_BYTES_MAX),
    }
}

/// The text that the next offset and length point at.
fn name(cursor: &mut Cursor<'_>, is_password: bool) -> Result<String> {
    let offset = usize::from(cursor.u16()?);
    let units = usize::from(cursor.u16()?);
    if units > NAME_UNITS_MAX {
        return Err(ProtocolError::OverBound { object: "LOGIN7 name", value: units, max: NAME_UNITS_MAX });
    }
    let bytes = cursor.slice(offset, units * 2)?;
    if !is_password {
        return utf16(cursor.object(), bytes);
    }
    let clear: Vec<u8> = bytes.iter().map(|byte| (byte ^ 0xA5).rotate_left(4)).collect();
    utf16(cursor.object(), &clear)
}

/// The ids of the feature block, to which the extension holds an offset.
fn features(cursor: &Cursor<'_>, (offset, length): (u16, u16)) -> Result<Vec<u8>> {
    let mut pointer =
        Cursor::new("LOGIN7 extension", cursor.slice(usize::from(offset), usize::from(length))?);
    let block = pointer.u32()? as usize;
    let mut features = Vec::new();
    // How long the block is stands nowhere: it is read from a copy that ends with the message.
    let mut rest = Cursor::new("LOGIN7 features", cursor.after(block));
    loop {
        let id = rest.u8()?;
        if id == FEATURE_END {
            return Ok(features);
        }
        if features.len() >= FEATURES_MAX {
            let value = features.len() + 1;
            return Err(ProtocolError::OverBound { object: "LOGIN7 features", value, max: FEATURES_MAX });
        }
        let length = rest.u32()? as usize;
        rest.take(length)?;
        features.push(id);
    }
}
