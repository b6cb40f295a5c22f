//! Result sets: COLMETADATA, and rows as ROW or NBCROW tokens, for the column types of `reply`.
//!
//! A value must be of its column's type exactly. SQL Server would convert, but a test that mixes them up has a mistake.

use super::error::{COLUMNS_MAX, ProtocolError, Result};
use super::token::{COLLATION, short_text};
use crate::reply::{Column, ColumnType, Value};

const COLUMN_METADATA: u8 = 0x81;
const ROW: u8 = 0xD1;
const ROW_WITH_NULL_BITMAP: u8 = 0xD2;
/// Nullable, and whether it can be updated is not known.
const COLUMN_FLAGS: u16 = 0x0009;

const NVARCHAR_CHARACTERS_MAX: u16 = 4000;
const VARBINARY_BYTES_MAX: u16 = 8000;
/// The length that says that a type is `(max)`.
const MAX_LENGTH: u16 = 0xFFFF;
/// Values of `(max)` types are sent in pieces of this size.
const PIECE_BYTES: usize = 4000;
/// The length of a null in a type with two bytes of length.
const NULL_LENGTH: u16 = 0xFFFF;
/// The length of a null in a `(max)` type.
const NULL_MAX_LENGTH: u64 = u64::MAX;
const NUMERIC_PRECISION_MAX: u8 = 38;
const DAY_MILLISECONDS: i64 = 86_400_000;
/// Days from 1900-01-01 to 1753-01-01 and to 9999-12-31, the ends of `datetime`.
const DATETIME_DAYS: std::ops::RangeInclusive<i64> = -53_690..=2_958_463;

/// Tells the columns.
///
/// # Errors
///
/// `Answer` for more columns than SQL Server has, and for types that it has not.
pub(super) fn columns(out: &mut Vec<u8>, columns: &[Column]) -> Result<()> {
    if columns.is_empty() || columns.len() > COLUMNS_MAX {
        return Err(ProtocolError::Answer(format!("a result set of {} columns", columns.len())));
    }
    out.push(COLUMN_METADATA);
    out.extend_from_slice(&(columns.len() as u16).to_le_bytes());
    for column in columns {
        out.extend_from_slice(&0u32.to_le_bytes());
        out.extend_from_slice(&COLUMN_FLAGS.to_le_bytes());
        type_info(out, column)?;
        short_text(out, &column.name)?;
    }
    Ok(())
}

fn type_info(out: &mut Vec<u8>, column: &Column) -> Result<()> {
    let refused = |what: &str| Err(ProtocolError::Answer(format!("column {:?}: {what}", column.name)));
    match column.kind {
        ColumnType::Bit => out.extend_from_slice(&[0x68, 1]),
        ColumnType::TinyInt => out.extend_from_slice(&[0x26, 1]),
        ColumnType::SmallInt => out.extend_from_slice(&[0x26, 2]),
        ColumnType::Int => out.extend_from_slice(&[0x26, 4]),
        ColumnType::BigInt => out.extend_from_slice(&[0x26, 8]),
        ColumnType::Numeric { precision, scale } => {
            if !(1..=NUMERIC_PRECISION_MAX).contains(&precision) || scale > precision {
                return refused(&format!("numeric({precision}, {scale})"));
            }
            out.extend_from_slice(&[0x6C, numeric_bytes(precision) as u8 + 1, precision, scale]);
        }
        ColumnType::NVarChar(length) => {
            if length.is_some_and(|length| !(1..=NVARCHAR_CHARACTERS_MAX).contains(&length)) {
                return refused(&format!("nvarchar({length:?})"));
            }
            out.push(0xE7);
            out.extend_from_slice(&length.map_or(MAX_LENGTH, |length| length * 2).to_le_bytes());
            out.extend_from_slice(&COLLATION);
        }
        ColumnType::VarBinary(length) => {
            if length.is_some_and(|length| !(1..=VARBINARY_BYTES_MAX).contains(&length)) {
                return refused(&format!("varbinary({length:?})"));
            }
            out.push(0xA5);
            out.extend_from_slice(&length.unwrap_or(MAX_LENGTH).to_le_bytes());
        }
        ColumnType::Guid => out.extend_from_slice(&[0x24, 16]),
        ColumnType::DateTime => out.extend_from_slice(&[0x6F, 8]),
        ColumnType::Real => out.extend_from_slice(&[0x6D, 4]),
    }
    Ok(())
}

/// One row, in the form that is shorter; without bitmaps only as ROW.
///
/// # Errors
///
/// `Answer` when a value does not fit its column.
pub(super) fn row(out: &mut Vec<u8>, columns: &[Column], row: &[Value], bitmaps: bool) -> Result<()> {
    if columns.len() != row.len() {
        return Err(ProtocolError::Answer(format!(
            "a row of {} values for {} columns",
            row.len(),
            columns.len()
        )));
    }
    let cells = || columns.iter().zip(row);
    let bitmap_bytes = columns.len().div_ceil(8);
    let nulls_bytes: usize =
        cells().filter(|(_, value)| is_null(value)).map(|(column, _)| null_bytes(column)).sum();
    let with_bitmap = bitmaps && nulls_bytes > bitmap_bytes;
    out.push(if with_bitmap { ROW_WITH_NULL_BITMAP } else { ROW });
    if with_bitmap {
        let mut bitmap = vec![0u8; bitmap_bytes];
        for (index, _) in row.iter().enumerate().filter(|(_, value)| is_null(value)) {
            bitmap[index / 8] |= 1 << (index % 8);
        }
        out.extend_from_slice(&bitmap);
    }
    for (column, value) in cells().filter(|(_, value)| !(with_bitmap && is_null(value))) {
        self::value(out, column, value)?;
    }
    Ok(())
}

fn is_null(value: &Value) -> bool {
    *value == Value::Null
}

fn null_bytes(column: &Column) -> usize {
    match column.kind {
        ColumnType::NVarChar(None) | ColumnType::VarBinary(None) => 8,
        ColumnType::NVarChar(Some(_)) | ColumnType::VarBinary(Some(_)) => 2,
        _ => 1,
    }
}

fn value(out: &mut Vec<u8>, column: &Column, value: &Value) -> Result<()> {
    let refused = || {
        let text = format!("{value:?} in column {:?} of type {:?}", column.name, column.kind);
        Err(ProtocolError::Answer(text))
    };
    match (column.kind, value) {
        (ColumnType::NVarChar(None) | ColumnType::VarBinary(None), Value::Null) => {
            out.extend_from_slice(&NULL_MAX_LENGTH.to_le_bytes());
        }
        (ColumnType::NVarChar(_) | ColumnType::VarBinary(_), Value::Null) => {
            out.extend_from_slice(&NULL_LENGTH.to_le_bytes());
        }
        (_, Value::Null) => out.push(0),
        (ColumnType::Bit, Value::Bit(value)) => short(out, &[u8::from(*value)]),
        (ColumnType::TinyInt, Value::TinyInt(value)) => short(out, &[*value]),
        (ColumnType::SmallInt, Value::SmallInt(value)) => short(out, &value.to_le_bytes()),
        (ColumnType::Int, Value::Int(value)) => short(out, &value.to_le_bytes()),
        (ColumnType::BigInt, Value::BigInt(value)) => short(out, &value.to_le_bytes()),
        (ColumnType::Real, Value::Real(value)) => short(out, &value.to_le_bytes()),
        (ColumnType::Guid, Value::Guid(value)) => short(out, &mixed_endian(*value)),
        (ColumnType::Numeric { precision, scale }, Value::Numeric { digits, scale: own, .. }) => {
            let bound = 10u128.pow(u32::from(precision));
            if scale != *own || digits.unsigned_abs() >= bound {
                return refused();
            }
            let mut bytes = vec![u8::from(*digits >= 0)];
            bytes.extend(digits.unsigned_abs().to_le_bytes().iter().take(numeric_bytes(precision)));
            short(out, &bytes);
        }
        (ColumnType::DateTime, Value::DateTime(milliseconds)) => match datetime(*milliseconds) {
            Some(bytes) => short(out, &bytes),
            None => return refused(),
        },
        (ColumnType::NVarChar(length), Value::NVarChar(text)) => {
            let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            if !long(out, length.map(|length| usize::from(length) * 2), &bytes) {
                return refused();
            }
        }
        (ColumnType::VarBinary(length), Value::VarBinary(bytes)) => {
            if !long(out, length.map(usize::from), bytes) {
                return refused();
            }
        }
        _ => return refused(),
    }
    Ok(())
}

/// A value behind one byte of length; none is longer than 17.
fn short(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(bytes.len() as u8);
    out.extend_from_slice(bytes);
}

/// A value of at most `max` bytes behind two bytes of length, or of any length in pieces. Says whether it fits.
fn long(out: &mut Vec<u8>, max: Option<usize>, bytes: &[u8]) -> bool {
    match max {
        Some(max) if bytes.len() > max => return false,
        Some(_) => {
            out.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
            out.extend_from_slice(bytes);
        }
        None => {
            out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            for piece in bytes.chunks(PIECE_BYTES) {
                out.extend_from_slice(&(piece.len() as u32).to_le_bytes());
                out.extend_from_slice(piece);
            }
            out.extend_from_slice(&0u32.to_le_bytes());
        }
    }
    true
}

/// Bytes of the digits of a numeric, as MS-TDS gives them by precision.
pub(super) fn numeric_bytes(precision: u8) -> usize {
    match precision {
        0..=9 => 4,
        10..=19 => 8,
        20..=28 => 12,
        _ => 16,
    }
}

/// Between the order in which a GUID is written and that on the wire, either way: its first three groups are
/// little-endian there.
pub(super) fn mixed_endian(mut guid: [u8; 16]) -> [u8; 16] {
    guid[..4].reverse();
    guid[4..6].reverse();
    guid[6..8].reverse();
    guid
}

/// Days and three-hundredths of a second; `None` outside of the years 1753 to 9999.
fn datetime(milliseconds: i64) -> Option<[u8; 8]> {
    let mut days = milliseconds.div_euclid(DAY_MILLISECONDS);
    let mut ticks = (milliseconds.rem_euclid(DAY_MILLISECONDS) * 3 + 5) / 10;
    // 23:59:59.999 is midnight.
    if ticks == DAY_MILLISECONDS * 3 / 10 {
        days += 1;
        ticks = 0;
    }
    if !DATETIME_DAYS.contains(&days) {
        return None;
    }
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&(days as i32).to_le_bytes());
    bytes[4..].copy_from_slice(&(ticks as u32).to_le_bytes());
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(kind: ColumnType, given: Value) -> Result<Vec<u8>> {
        let column = Column { name: "c".into(), kind };
        let mut out = Vec::new();
        value(&mut out, &column, &given).map(|()| out)
    }

    #[test]
    fn times_are_rounded_to_ticks() {
        let moment = |days: i32, ticks: u32| [&days.to_le_bytes()[..], &ticks.to_le_bytes()].concat();
        for (milliseconds, days, ticks) in [
            (0, 0, 0),
            (1, 0, 0),
            (2, 0, 1),
            (3, 0, 1),
            (7, 0, 2),
            (997, 0, 299),
            (999, 0, 300),
            (-3, -1, 25_919_999),
            (DAY_MILLISECONDS - 1, 1, 0),
            (DAY_MILLISECONDS * 2_958_463, 2_958_463, 0),
            (DAY_MILLISECONDS * -53_690, -53_690, 0),
        ] {
            let bytes = encoded(ColumnType::DateTime, Value::DateTime(milliseconds)).unwrap();
            assert_eq!(bytes[1..], moment(days, ticks), "{milliseconds}");
        }
        for outside in [DAY_MILLISECONDS * 2_958_464 - 1, DAY_MILLISECONDS * -53_690 - 10, i64::MAX, i64::MIN]
        {
            assert!(encoded(ColumnType::DateTime, Value::DateTime(outside)).is_err(), "{outside}");
        }
    }

    #[test]
    fn a_guid_has_its_first_groups_reversed() {
        let bytes = encoded(ColumnType::Guid, Value::Guid(*b"0123456789abcdef")).unwrap();
        assert_eq!(bytes[1..], *b"3210547689abcdef");
    }

    #[test]
    fn a_numeric_is_as_long_as_its_precision_says() {
        for (precision, length) in [(1, 5), (9, 5), (10, 9), (19, 9), (20, 13), (28, 13), (29, 17), (38, 17)]
        {
            let digits = -(10i128.pow(u32::from(precision)) - 1);
            let kind = ColumnType::Numeric { precision, scale: 0 };
            let bytes = encoded(kind, Value::Numeric { digits, precision, scale: 0 }).unwrap();
            assert_eq!((bytes.len(), bytes[0], bytes[1]), (length + 1, length as u8, 0));
            assert!(encoded(kind, Value::Numeric { digits: digits - 1, precision, scale: 0 }).is_err());
        }
    }

    #[test]
    fn what_does_not_fit_its_column_is_refused() {
        let numeric = |scale| Value::Numeric { digits: 1, precision: 5, scale };
        for (kind, value) in [
            (ColumnType::Int, Value::BigInt(1)),
            (ColumnType::BigInt, Value::Int(1)),
            (ColumnType::Bit, Value::TinyInt(1)),
            (ColumnType::NVarChar(Some(3)), Value::NVarChar("four".into())),
            // Two units.
            (ColumnType::NVarChar(Some(1)), Value::NVarChar("𝄞".into())),
            (ColumnType::VarBinary(Some(1)), Value::VarBinary(vec![1, 2])),
            (ColumnType::VarBinary(None), Value::NVarChar(String::new())),
            (ColumnType::Numeric { precision: 5, scale: 1 }, numeric(2)),
        ] {
            assert!(matches!(encoded(kind, value), Err(ProtocolError::Answer(_))), "{kind:?}");
        }
        for kind in [
            ColumnType::Numeric { precision: 0, scale: 0 },
            ColumnType::Numeric { precision: 39, scale: 0 },
            ColumnType::Numeric { precision: 4, scale: 5 },
            ColumnType::NVarChar(Some(0)),
            ColumnType::NVarChar(Some(4001)),
            ColumnType::VarBinary(Some(8001)),
        ] {
            let column = Column { name: "c".into(), kind };
            assert!(columns(&mut Vec::new(), &[column]).is_err(), "{kind:?}");
        }
        let column = Column { name: "c".into(), kind: ColumnType::Int };
        assert!(columns(&mut Vec::new(), &[]).is_err());
        assert!(row(&mut Vec::new(), &[column], &[], true).is_err());
    }

    #[test]
    fn the_shorter_form_of_a_row_is_taken() {
        let form = |nulls: usize, bitmaps| {
            let columns = vec![Column { name: "c".into(), kind: ColumnType::Int }; 9];
            let values: Vec<Value> =
                (0..9).map(|at| if at < nulls { Value::Null } else { Value::Int(0) }).collect();
            let mut out = Vec::new();
            row(&mut out, &columns, &values, bitmaps).unwrap();
            (out[0], out.len())
        };
        // Two bytes of bitmap against one for each null.
        assert_eq!(form(2, true), (ROW, 1 + 2 + 7 * 5));
        assert_eq!(form(3, true), (ROW_WITH_NULL_BITMAP, 1 + 2 + 6 * 5));
        assert_eq!(form(3, false), (ROW, 1 + 3 + 6 * 5));
    }
}
