//! CAST, CONVERT and comparison.

use std::cmp::Ordering;

use super::ast::TypeName;
use super::catalogue::{Outcome, fail};
use super::value::{Guid, date_text, parse_date, text_of, whole, whole_of_text};
use crate::reply::{ColumnType, Value};

/// What a type is on the wire. Error 243-like 50002 for types that are not modelled.
pub(crate) fn column_type(kind: &TypeName) -> Outcome<ColumnType> {
    let number = |at: usize, otherwise: i64| kind.numbers.get(at).copied().unwrap_or(otherwise);
    let length = |otherwise: i64| u16::try_from(number(0, otherwise)).ok();
    Ok(match kind.name.as_str() {
        "bit" => ColumnType::Bit,
        "tinyint" => ColumnType::TinyInt,
        "smallint" => ColumnType::SmallInt,
        "int" | "integer" => ColumnType::Int,
        "bigint" => ColumnType::BigInt,
        "decimal" | "numeric" => {
            let precision = u8::try_from(number(0, 18)).unwrap_or(38).clamp(1, 38);
            let scale = u8::try_from(number(1, 0)).unwrap_or(0).min(precision);
            ColumnType::Numeric { precision, scale }
        }
        "nvarchar" | "varchar" | "nchar" | "char" => ColumnType::NVarChar(length(30)),
        "sysname" => ColumnType::NVarChar(Some(128)),
        "varbinary" | "binary" => ColumnType::VarBinary(length(30)),
        "uniqueidentifier" => ColumnType::Guid,
        "datetime" => ColumnType::DateTime,
        "real" => ColumnType::Real,
        other => return Err(fail(50_002, &[&format!("the type {other}")])),
    })
}

/// Whether values of a type are only an intermediate step: they have no type on the modelled wire.
pub(crate) fn is_step(kind: &TypeName) -> bool {
    matches!(kind.name.as_str(), "datetime2" | "datetimeoffset" | "date" | "smalldatetime")
}

/// CAST, or CONVERT with a style. Errors: 241, 245, 8169, 220.
pub(crate) fn cast(value: &Value, kind: &TypeName, style: Option<i128>) -> Outcome<Value> {
    if *value == Value::Null {
        return Ok(Value::Null);
    }
    if is_step(kind) {
        return date_of(value).map(Value::DateTime);
    }
    match column_type(kind)? {
        ColumnType::NVarChar(length) => {
            let text = styled(value, style)?;
            let length = length.map_or(usize::MAX, usize::from);
            Ok(Value::NVarChar(text.chars().take(length).collect()))
        }
        ColumnType::VarBinary(_) => match value {
            Value::VarBinary(_) => Ok(value.clone()),
            _ => Err(fail(50_002, &[&"a conversion to varbinary"])),
        },
        ColumnType::Guid => guid_of(value).map(Guid::value),
        ColumnType::DateTime => date_of(value).map(Value::DateTime),
        ColumnType::Real => {
            let number = text_of(value).and_then(|text| text.parse().ok());
            number.map(Value::Real).ok_or_else(|| fail(245, &[&"nvarchar", &"", &"real"]))
        }
        ColumnType::Numeric { precision, scale } => numeric(value, precision, scale),
        whole_kind => integer(value, whole_kind, &kind.name),
    }
}

fn integer(value: &Value, kind: ColumnType, name: &str) -> Outcome<Value> {
    let number = match (whole(value), value) {
        (Some(number), _) => number,
        (None, Value::NVarChar(text)) => whole_of_text(text)?,
        _ => return Err(fail(402, &[&"datetime", &name, &"convert"])),
    };
    let overflow = || fail(220, &[&name, &number]);
    Ok(match kind {
        ColumnType::Bit => Value::Bit(number != 0),
        ColumnType::TinyInt => Value::TinyInt(u8::try_from(number).map_err(|_| overflow())?),
        ColumnType::SmallInt => Value::SmallInt(i16::try_from(number).map_err(|_| overflow())?),
        ColumnType::BigInt => Value::BigInt(i64::try_from(number).map_err(|_| overflow())?),
        _ => Value::Int(i32::try_from(number).map_err(|_| overflow())?),
    })
}

fn numeric(value: &Value, precision: u8, scale: u8) -> Outcome<Value> {
    let (digits, own) = scaled(value).map_or_else(
        || {
            let text = text_of(value).unwrap_or_default();
            whole_of_text(&text).map(|number| (number, 0))
        },
        Ok,
    )?;
    let overflow = || fail(220, &[&"numeric", &digits]);
    let power = |count: u8| 10_i128.checked_pow(u32::from(count)).ok_or_else(overflow);
    let digits = if scale >= own {
        digits.checked_mul(power(scale - own)?).ok_or_else(overflow)?
    } else {
        digits / power(own - scale)?
    };
    if digits.unsigned_abs() >= power(precision)?.unsigned_abs() {
        return Err(overflow());
    }
    Ok(Value::Numeric { digits, precision, scale })
}

fn styled(value: &Value, style: Option<i128>) -> Outcome<String> {
    let Value::DateTime(millis) = value else {
        return Ok(text_of(value).unwrap_or_default());
    };
    let text = |separator| date_text(*millis, separator);
    Ok(match style {
        Some(120) => text(' ').chars().take(19).collect(),
        Some(121) => text(' '),
        Some(126) => text('T'),
        Some(127) => format!("{}Z", text('T')),
        Some(23) => text(' ').chars().take(10).collect(),
        Some(112) => text(' ').chars().take(10).filter(|c| *c != '-').collect(),
        _ => {
            return Err(fail(
                50_002,
                &[&"a date as text without one of the styles 23, 112, 120, 121, 126, 127"],
            ));
        }
    })
}

/// A date's milliseconds. Error 241.
pub(crate) fn date_of(value: &Value) -> Outcome<i64> {
    match value {
        Value::DateTime(millis) => Ok(*millis),
        Value::NVarChar(text) => {
            // The offset of a datetimeoffset does not change what its clock shows.
            let clock = text.rsplit_once([' ']).filter(|(_, last)| last.starts_with(['+', '-']));
            let clock = clock.map_or(text.as_str(), |(clock, _)| clock);
            parse_date(clock).ok_or_else(|| fail(241, &[]))
        }
        _ => Err(fail(241, &[])),
    }
}

fn guid_of(value: &Value) -> Outcome<Guid> {
    match value {
        Value::Guid(bytes) => Ok(Guid(*bytes)),
        Value::NVarChar(text) => Guid::parse(text).ok_or_else(|| fail(8169, &[])),
        _ => Err(fail(8169, &[])),
    }
}

/// Digits and scale of a number.
fn scaled(value: &Value) -> Option<(i128, u8)> {
    match value {
        Value::Numeric { digits, scale, .. } => Some((*digits, *scale)),
        other => whole(other).map(|number| (number, 0)),
    }
}

/// Order of two values, `None` where one is NULL. Errors: 241, 245, 402, 8169.
pub(crate) fn compare(left: &Value, right: &Value) -> Outcome<Option<Ordering>> {
    if *left == Value::Null || *right == Value::Null {
        return Ok(None);
    }
    let order = match (left, right) {
        (Value::NVarChar(one), Value::NVarChar(other)) => {
            one.trim_end().to_lowercase().cmp(&other.trim_end().to_lowercase())
        }
        (Value::Guid(_), _) | (_, Value::Guid(_)) => guid_of(left)?.cmp(&guid_of(right)?),
        (Value::DateTime(_), _) | (_, Value::DateTime(_)) => date_of(left)?.cmp(&date_of(right)?),
        (Value::VarBinary(one), Value::VarBinary(other)) => one.cmp(other),
        (Value::VarBinary(_), _) | (_, Value::VarBinary(_)) => {
            return Err(fail(402, &[&"varbinary", &"nvarchar", &"equal to"]));
        }
        (Value::Real(_), _) | (_, Value::Real(_)) => {
            let number =
                |value: &Value| text_of(value).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
            number(left).total_cmp(&number(right))
        }
        _ => {
            let number = |value: &Value| match scaled(value) {
                Some(number) => Ok(number),
                None => whole_of_text(&text_of(value).unwrap_or_default()).map(|number| (number, 0)),
            };
            let ((one, one_scale), (other, other_scale)) = (number(left)?, number(right)?);
            let scale = one_scale.max(other_scale);
            let raise = |digits: i128, own: u8| {
                let power = 10_i128.checked_pow(u32::from(scale - own)).unwrap_or(i128::MAX);
                digits.saturating_mul(power)
            };
            raise(one, one_scale).cmp(&raise(other, other_scale))
        }
    };
    Ok(Some(order))
}

/// LIKE: `%`, `_`, `[set]` and `[^set]`, letter case not counting.
pub(crate) fn is_like(text: &str, pattern: &str) -> bool {
    let text: Vec<char> = text.to_lowercase().chars().collect();
    let pattern: Vec<char> = pattern.to_lowercase().chars().collect();
    // Row by row: which ends of the text the pattern so far can reach.
    let mut reach = vec![false; text.len() + 1];
    reach[0] = true;
    let mut at = 0;
    while at < pattern.len() {
        let mut next = vec![false; text.len() + 1];
        if pattern[at] == '%' {
            let first = reach.iter().position(|reached| *reached).unwrap_or(usize::MAX);
            next.iter_mut().enumerate().for_each(|(end, reached)| *reached = end >= first);
            at += 1;
        } else {
            let (matches, length) = one_sign(&pattern[at..]);
            for end in (0..text.len()).filter(|end| reach[*end]) {
                next[end + 1] = matches(text[end]);
            }
            at += length;
        }
        reach = next;
    }
    reach[text.len()]
}

/// What the first sign of a pattern matches, and its length.
fn one_sign(pattern: &[char]) -> (Box<dyn Fn(char) -> bool>, usize) {
    match pattern[0] {
        '_' => (Box::new(|_| true), 1),
        '[' => {
            let Some(close) = pattern.iter().position(|sign| *sign == ']') else {
                return (Box::new(|_| false), 1);
            };
            let inner = pattern[1..close].to_vec();
            let not = inner.first() == Some(&'^');
            let set = inner[usize::from(not)..].to_vec();
            let within = move |c: char| {
                let ranged =
                    set.windows(3).any(|range| range[1] == '-' && (range[0]..=range[2]).contains(&c));
                ranged || set.contains(&c)
            };
            (Box::new(move |c| within(c) != not), close + 1)
        }
        sign => (Box::new(move |c| c == sign), 1),
    }
}
