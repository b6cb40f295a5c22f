//! Parameters of a call: TYPE_INFO and the value after it, as a value of `reply`.
//!
//! Clients choose types of their own for what they send, so more are read than `reply` can return: text of one byte per
//! character, dates, money. A type with no value in `reply` is refused by its number.

use super::cursor::{Cursor, utf16};
use super::error::{PACKET_BYTES_MAX, ProtocolError, Result};
use super::row::mixed_endian;
use crate::reply::Value;

const COLLATION_BYTES: usize = 5;
/// The length that says that a type is `(max)`, and that a value of another is null.
const MAX_LENGTH: u16 = 0xFFFF;
const NULL_LENGTH: u16 = 0xFFFF;
const NULL_LONG_LENGTH: u32 = u32::MAX;
const NULL_MAX_LENGTH: u64 = u64::MAX;
const UNKNOWN_MAX_LENGTH: u64 = u64::MAX - 1;
const DAY_MILLISECONDS: i64 = 86_400_000;
/// Days from 0001-01-01 to 1900-01-01.
const DAYS_TO_1900: i64 = 693_595;
/// More than a numeric of 38 digits has.
const NUMERIC_END: u128 = 10u128.pow(38);
/// Of the bytes 0x80 to 0x9F of code page 1252; the five that it leaves out stand for themselves.
const CODE_PAGE_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8D}', 'Ž', '\u{8F}', '\u{90}',
    '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9D}', 'ž', 'Ÿ',
];

/// The next type and value; the inner error is a type that is not modelled, after which nothing can be read.
///
/// # Errors
///
/// When the bytes end early, or a length is none of its type.
pub(super) fn value(cursor: &mut Cursor<'_>) -> Result<std::result::Result<Value, u8>> {
    let kind = cursor.u8()?;
    let value = match kind {
        0x1F => Some(Value::Null),
        0x30 | 0x32 | 0x34 | 0x38 | 0x3A | 0x3B | 0x3C | 0x3D | 0x3E | 0x7A | 0x7F => {
            let (nullable, length) = fixed(kind);
            short(cursor, nullable, length, (0, 0))?
        }
        0x24 | 0x26 | 0x68 | 0x6D | 0x6E | 0x6F => {
            cursor.u8()?;
            let length = cursor.u8()?;
            short(cursor, kind, usize::from(length), (0, 0))?
        }
        0x6A | 0x6C => {
            cursor.u8()?;
            let precision_and_scale = (cursor.u8()?, cursor.u8()?);
            let length = cursor.u8()?;
            short(cursor, kind, usize::from(length), precision_and_scale)?
        }
        0x28 => {
            let length = cursor.u8()?;
            short(cursor, kind, usize::from(length), (0, 0))?
        }
        0x2A => {
            let scale = cursor.u8()?;
            let length = cursor.u8()?;
            short(cursor, kind, usize::from(length), (0, scale))?
        }
        0xA7 | 0xAF | 0xE7 | 0xEF => {
            let max = cursor.u16()?;
            cursor.take(COLLATION_BYTES)?;
            text(kind, long(cursor, max)?)?
        }
        0xA5 | 0xAD => {
            let max = cursor.u16()?;
            Some(long(cursor, max)?.map_or(Value::Null, Value::VarBinary))
        }
        0x22 | 0x23 | 0x63 => {
            cursor.u32()?;
            if kind != 0x22 {
                cursor.take(COLLATION_BYTES)?;
            }
            let bytes = match cursor.u32()? {
                NULL_LONG_LENGTH => None,
                length => Some(cursor.take(length as usize)?.to_vec()),
            };
            match kind {
                0x22 => Some(bytes.map_or(Value::Null, Value::VarBinary)),
                _ => text(kind, bytes)?,
            }
        }
        _ => None,
    };
    Ok(value.ok_or(kind))
}

/// The nullable type that a fixed one is read as, and its length.
fn fixed(kind: u8) -> (u8, usize) {
    match kind {
        0x30 => (0x26, 1),
        0x34 => (0x26, 2),
        0x38 => (0x26, 4),
        0x7F => (0x26, 8),
        0x32 => (0x68, 1),
        0x3B => (0x6D, 4),
        0x3E => (0x6D, 8),
        0x3A => (0x6F, 4),
        0x3D => (0x6F, 8),
        0x7A => (0x6E, 4),
        _ => (0x6E, 8),
    }
}

/// A value of a type with one byte of length. `None` when `reply` has no value for it.
fn short(
    cursor: &mut Cursor<'_>,
    kind: u8,
    length: usize,
    (precision, scale): (u8, u8),
) -> Result<Option<Value>> {
    let bytes = cursor.take(length)?;
    let value = match (kind, bytes) {
        (_, []) => Value::Null,
        (0x26, [byte]) => Value::TinyInt(*byte),
        (0x26, &[a, b]) => Value::SmallInt(i16::from_le_bytes([a, b])),
        (0x26, &[a, b, c, d]) => Value::Int(i32::from_le_bytes([a, b, c, d])),
        (0x26, bytes) if bytes.len() == 8 => Value::BigInt(unsigned(bytes) as i64),
        (0x68, [byte]) => Value::Bit(*byte != 0),
        (0x24, bytes) if bytes.len() == 16 => {
            let mut guid = [0; 16];
            guid.copy_from_slice(bytes);
            Value::Guid(mixed_endian(guid))
        }
        (0x6D, &[a, b, c, d]) => Value::Real(f32::from_le_bytes([a, b, c, d])),
        (0x6D, bytes) if bytes.len() == 8 => {
            let double = f64::from_bits(unsigned(bytes) as u64);
            let single = double as f32;
            // A `float` that is no `real` has no value here.
            if f64::from(single) != double && !double.is_nan() {
                return Ok(None);
            }
            Value::Real(single)
        }
        (0x6A | 0x6C, [sign, digits @ ..]) if [4, 8, 12, 16].contains(&digits.len()) => {
            let digits = unsigned(digits);
            if digits >= NUMERIC_END {
                return Err(cursor.unexpected(length as u64, "a numeric of at most 38 digits"));
            }
            let digits = if *sign == 0 { -(digits as i128) } else { digits as i128 };
            Value::Numeric { digits, precision, scale }
        }
        (0x6E, &[a, b, c, d]) => money(i64::from(i32::from_le_bytes([a, b, c, d])), 10),
        // The high half comes first.
        (0x6E, &[e, f, g, h, a, b, c, d]) => money(i64::from_le_bytes([a, b, c, d, e, f, g, h]), 19),
        (0x6F, &[a, b, c, d]) => {
            let (days, minutes) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
            Value::DateTime(i64::from(days) * DAY_MILLISECONDS + i64::from(minutes) * 60_000)
        }
        (0x6F, &[a, b, c, d, e, f, g, h]) => {
            let (days, ticks) = (i32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
            Value::DateTime(i64::from(days) * DAY_MILLISECONDS + (i64::from(ticks) * 10 + 1) / 3)
        }
        (0x28, bytes) if bytes.len() == 3 => Value::DateTime(days(bytes)),
        (0x2A, bytes) if (6..=8).contains(&bytes.len()) && scale <= 7 => {
            let (time, date) = bytes.split_at(bytes.len() - 3);
            let milliseconds = unsigned(time) * 1000 / 10u128.pow(u32::from(scale));
            Value::DateTime(days(date) + milliseconds as i64)
        }
        (kind, _) => return Err(cursor.unexpected(kind, "a type whose values may have that length")),
    };
    Ok(Some(value))
}

fn money(digits: i64, precision: u8) -> Value {
    Value::Numeric { digits: i128::from(digits), precision, scale: 4 }
}

/// At most 16 bytes, little-endian.
fn unsigned(bytes: &[u8]) -> u128 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u128::from(*byte))
}

/// Three bytes of days since 0001-01-01, as milliseconds since 1900.
fn days(bytes: &[u8]) -> i64 {
    (unsigned(bytes) as i64 - DAYS_TO_1900) * DAY_MILLISECONDS
}

/// The bytes of a value with two bytes of length, or of a `(max)` type in pieces; `None` for null.
fn long(cursor: &mut Cursor<'_>, max: u16) -> Result<Option<Vec<u8>>> {
    if max != MAX_LENGTH {
        return match cursor.u16()? {
            NULL_LENGTH => Ok(None),
            length => Ok(Some(cursor.take(usize::from(length))?.to_vec())),
        };
    }
    let told = cursor.u64()?;
    if told == NULL_MAX_LENGTH {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(told).unwrap_or(0).min(PACKET_BYTES_MAX));
    loop {
        match cursor.u32()? as usize {
            0 => break,
            piece => bytes.extend_from_slice(cursor.take(piece)?),
        }
    }
    if told != UNKNOWN_MAX_LENGTH && told != bytes.len() as u64 {
        let (value, max) = (bytes.len(), usize::try_from(told).unwrap_or(usize::MAX));
        return Err(ProtocolError::OverBound { object: "pieces of a (max) value", value, max });
    }
    Ok(Some(bytes))
}

/// Text of either kind. Code page 1252 is taken for all that is not UTF-16, as the server's collation says.
fn text(kind: u8, bytes: Option<Vec<u8>>) -> Result<Option<Value>> {
    let Some(bytes) = bytes else {
        return Ok(Some(Value::Null));
    };
    let text = match kind {
        0xE7 | 0xEF | 0x63 => utf16("text parameter", &bytes)?,
        _ => bytes.iter().map(|byte| character(*byte)).collect(),
    };
    Ok(Some(Value::NVarChar(text)))
}

fn character(byte: u8) -> char {
    match byte {
        0x80..=0x9F => CODE_PAGE_1252[usize::from(byte - 0x80)],
        other => char::from(other),
    }
}

#[cfg(test)]
mod tests {
    //! Types that the drivers of the tests do not send.

    use super::*;

    fn read(bytes: &[u8]) -> Value {
        let mut cursor = Cursor::new("test", bytes);
        let value = value(&mut cursor).unwrap().unwrap();
        assert!(cursor.is_empty());
        value
    }

    fn numeric(digits: i128, precision: u8, scale: u8) -> Value {
        Value::Numeric { digits, precision, scale }
    }

    #[test]
    fn fixed_types_are_read() {
        assert_eq!(read(&[0x1F]), Value::Null);
        assert_eq!(read(&[0x30, 200]), Value::TinyInt(200));
        assert_eq!(read(&[0x32, 1]), Value::Bit(true));
        assert_eq!(read(&[0x34, 0xFF, 0xFF]), Value::SmallInt(-1));
        assert_eq!(read(&[0x38, 1, 0, 0, 0]), Value::Int(1));
        assert_eq!(read(&[0x7F, 1, 0, 0, 0, 0, 0, 0, 0x80]), Value::BigInt(i64::MIN + 1));
        assert_eq!(read(&[&[0x3B][..], &1.5f32.to_le_bytes()].concat()), Value::Real(1.5));
        assert_eq!(read(&[&[0x3E][..], &(-2.25f64).to_le_bytes()].concat()), Value::Real(-2.25));
        assert_eq!(read(&[0x7A, 1, 0, 0, 0]), numeric(1, 10, 4));
    }

    #[test]
    fn money_has_its_high_half_first() {
        assert_eq!(read(&[0x3C, 1, 0, 0, 0, 2, 0, 0, 0]), numeric((1 << 32) + 2, 19, 4));
        assert_eq!(read(&[0x6E, 8, 8, 0xFF, 0xFF, 0xFF, 0xFF, 0xFE, 0xFF, 0xFF, 0xFF]), numeric(-2, 19, 4));
        assert_eq!(read(&[0x6E, 4, 4, 0xFE, 0xFF, 0xFF, 0xFF]), numeric(-2, 10, 4));
        assert_eq!(read(&[0x6E, 8, 0]), Value::Null);
    }

    #[test]
    fn dates_count_from_1900() {
        assert_eq!(read(&[0x3A, 1, 0, 2, 0]), Value::DateTime(86_400_000 + 120_000));
        assert_eq!(read(&[0x6F, 8, 8, 0xFF, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0]), Value::DateTime(3 - 86_400_000));
        // 1900-01-01 and 1899-12-31 as days since the year 1.
        assert_eq!(read(&[0x28, 3, 0x5B, 0x95, 0x0A]), Value::DateTime(0));
        assert_eq!(read(&[0x28, 3, 0x5A, 0x95, 0x0A]), Value::DateTime(-86_400_000));
        // One second of a datetime2(7), and a tenth of one of a datetime2(1).
        assert_eq!(read(&[0x2A, 7, 8, 0x80, 0x96, 0x98, 0, 0, 0x5B, 0x95, 0x0A]), Value::DateTime(1000));
        assert_eq!(read(&[0x2A, 1, 6, 1, 0, 0, 0x5B, 0x95, 0x0A]), Value::DateTime(100));
    }

    #[test]
    fn text_of_code_page_1252_is_read() {
        let collation = [9, 4, 0xD0, 0, 0x34];
        let text = |kind: u8, bytes: &[u8]| [&[kind, 0x40, 0x1F][..], &collation, &[2, 0], bytes].concat();
        assert_eq!(read(&text(0xA7, &[0x80, b'a'])), Value::NVarChar("€a".into()));
        assert_eq!(read(&text(0xAF, &[0xE4, 0x9F])), Value::NVarChar("äŸ".into()));
        let long = [&[0x23, 0, 0, 0, 0][..], &collation, &[1, 0, 0, 0, b'x']].concat();
        assert_eq!(read(&long), Value::NVarChar("x".into()));
        let unicode = [&[0x63, 0, 0, 0, 0][..], &collation, &[2, 0, 0, 0, b'x', 0]].concat();
        assert_eq!(read(&unicode), Value::NVarChar("x".into()));
        assert_eq!(read(&[0x22, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]), Value::Null);
        assert_eq!(read(&[0x22, 0, 0, 0, 0, 1, 0, 0, 0, 7]), Value::VarBinary(vec![7]));
    }

    #[test]
    fn pieces_of_a_max_value_are_put_together() {
        let unknown = UNKNOWN_MAX_LENGTH.to_le_bytes();
        let pieces =
            [&[0xA5, 0xFF, 0xFF][..], &unknown, &[1, 0, 0, 0, 5, 2, 0, 0, 0, 6, 7, 0, 0, 0, 0]].concat();
        assert_eq!(read(&pieces), Value::VarBinary(vec![5, 6, 7]));
        assert_eq!(read(&[&[0xA5, 0xFF, 0xFF][..], &NULL_MAX_LENGTH.to_le_bytes()].concat()), Value::Null);
        let wrong = [&[0xA5, 0xFF, 0xFF][..], &9u64.to_le_bytes(), &[1, 0, 0, 0, 5, 0, 0, 0, 0]].concat();
        assert!(value(&mut Cursor::new("test", &wrong)).is_err());
    }

    #[test]
    fn what_has_no_value_is_refused_by_its_type() {
        let double = [&[0x6D, 8, 8][..], &0.1f64.to_le_bytes()].concat();
        for bytes in
            [&double[..], &[0x29, 7, 0], &[0x2B, 7, 0], &[0x62, 0, 0], &[0xF1, 0], &[0xF3, 0], &[0xF0, 0]]
        {
            assert_eq!(value(&mut Cursor::new("test", bytes)).unwrap(), Err(bytes[0]), "{bytes:x?}");
        }
        for bytes in [&[0x26, 4, 3, 0, 0, 0][..], &[0x68, 1, 2, 0, 0], &[0x24, 16, 4, 0, 0, 0, 0], &[0x26, 4]]
        {
            assert!(value(&mut Cursor::new("test", bytes)).is_err(), "{bytes:x?}");
        }
        let wide = [&[0x6C, 17, 38, 0, 17, 1][..], &[0xFF; 16]].concat();
        assert!(value(&mut Cursor::new("test", &wide)).is_err());
    }
}
