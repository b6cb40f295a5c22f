//! Expressions on a row: values, conditions with NULL as a third answer, and the type each has.

use std::cmp::Ordering;

use super::ast::{Expr, Select};
use super::catalogue::{Outcome, fail};
use super::convert::{cast, column_type, compare, date_of, is_like, is_step};
use super::functions;
use super::query;
use super::run::Run;
use super::state::same_name;
use super::value::{text_of, whole};
use crate::reply::{Column, ColumnType, Value};

/// A column of a source in FROM.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    pub alias: String,
    pub column: Column,
}

/// A row that is looked at, within the row of the query around it.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub bound: &'a [Bound],
    pub row: &'a [Value],
    pub outer: Option<&'a Scope<'a>>,
}

/// An expression without columns.
pub(crate) fn constant(run: &Run<'_>, expr: &Expr) -> Outcome<Value> {
    value(run, expr, None)
}

/// The place of a column. Errors: 207, 209.
pub(crate) fn place(bound: &[Bound], qualifier: Option<&str>, name: &str) -> Outcome<usize> {
    let fits = |found: &Bound| {
        same_name(&found.column.name, name) && qualifier.is_none_or(|alias| same_name(&found.alias, alias))
    };
    let mut places = (0..bound.len()).filter(|at| fits(&bound[*at]));
    match (places.next(), places.next()) {
        (Some(place), None) => Ok(place),
        (Some(_), Some(_)) => Err(fail(209, &[&name])),
        (None, _) => Err(fail(207, &[&name])),
    }
}

fn column(scope: Option<&Scope<'_>>, qualifier: Option<&str>, name: &str) -> Outcome<Value> {
    let Some(scope) = scope else {
        return Err(fail(207, &[&name]));
    };
    match place(scope.bound, qualifier, name) {
        Ok(at) => Ok(scope.row.get(at).cloned().unwrap_or(Value::Null)),
        Err(_) if scope.outer.is_some() => column(scope.outer, qualifier, name),
        Err(stop) => Err(stop),
    }
}

/// A value on a row.
pub(crate) fn value(run: &Run<'_>, expr: &Expr, scope: Option<&Scope<'_>>) -> Outcome<Value> {
    match expr {
        Expr::Literal(value) => Ok(value.clone()),
        Expr::Column { qualifier, name } => column(scope, qualifier.as_deref(), name),
        Expr::Variable(name) => {
            run.variables.get(&name.to_lowercase()).cloned().ok_or_else(|| fail(137, &[name]))
        }
        Expr::Global(name) => functions::global(run, name).map(|(value, _)| value),
        Expr::Call { name, arguments } => functions::call(run, name, arguments, scope),
        Expr::CountAll => Err(fail(50_002, &[&"COUNT(*) in this place"])),
        Expr::Cast { value: inner, kind, style } => cast(&value(run, inner, scope)?, kind, *style),
        Expr::Binary { sign, left, right } if ["+", "-", "*", "/", "%"].contains(sign) => {
            arithmetic(sign, &value(run, left, scope)?, &value(run, right, scope)?)
        }
        Expr::Case { of, arms, otherwise } => {
            for (when, then) in arms {
                let chosen = match of {
                    Some(of) => {
                        let order = compare(&value(run, of, scope)?, &value(run, when, scope)?)?;
                        order == Some(Ordering::Equal)
                    }
                    None => condition(run, when, scope)? == Some(true),
                };
                if chosen {
                    return value(run, then, scope);
                }
            }
            otherwise.as_ref().map_or(Ok(Value::Null), |otherwise| value(run, otherwise, scope))
        }
        _ => Err(fail(50_002, &[&"a condition as a value"])),
    }
}

fn arithmetic(sign: &str, left: &Value, right: &Value) -> Outcome<Value> {
    match (left, right) {
        (Value::Null, _) | (_, Value::Null) => return Ok(Value::Null),
        (Value::NVarChar(one), Value::NVarChar(other)) if sign == "+" => {
            return Ok(Value::NVarChar(format!("{one}{other}")));
        }
        _ => {}
    }
    let (Some(one), Some(other)) = (whole(left), whole(right)) else {
        return Err(fail(402, &[&"these", &"these", &sign]));
    };
    let result = match sign {
        "+" => one.checked_add(other),
        "-" => one.checked_sub(other),
        "*" => one.checked_mul(other),
        _ if other == 0 => return Err(fail(8134, &[])),
        "/" => one.checked_div(other),
        _ => one.checked_rem(other),
    };
    let result = result.ok_or_else(|| fail(220, &[&"numeric", &"too much"]))?;
    let is_int = |value: &Value| {
        matches!(value, Value::Bit(_) | Value::TinyInt(_) | Value::SmallInt(_) | Value::Int(_))
    };
    if is_int(left) && is_int(right) {
        return i32::try_from(result).map(Value::Int).map_err(|_| fail(220, &[&"int", &result]));
    }
    if matches!(left, Value::Numeric { .. }) || matches!(right, Value::Numeric { .. }) {
        return Ok(Value::Numeric { digits: result, precision: 38, scale: 0 });
    }
    i64::try_from(result).map(Value::BigInt).map_err(|_| fail(220, &[&"bigint", &result]))
}

/// A condition on a row; `None` is UNKNOWN.
pub(crate) fn condition(run: &Run<'_>, expr: &Expr, scope: Option<&Scope<'_>>) -> Outcome<Option<bool>> {
    let negate = |answer: Option<bool>, not: bool| answer.map(|answer| answer != not);
    match expr {
        Expr::And(left, right) => {
            let (left, right) = (condition(run, left, scope)?, condition(run, right, scope)?);
            Ok(if left == Some(false) || right == Some(false) { Some(false) } else { left.and(right) })
        }
        Expr::Or(left, right) => {
            let (left, right) = (condition(run, left, scope)?, condition(run, right, scope)?);
            let either = left == Some(true) || right == Some(true);
            Ok(if either { Some(true) } else { left.and(right) })
        }
        Expr::Not(inner) => Ok(condition(run, inner, scope)?.map(|answer| !answer)),
        Expr::IsNull { value: inner, not } => Ok(Some((value(run, inner, scope)? == Value::Null) != *not)),
        Expr::Binary { sign, left, right } => {
            let order = compare(&value(run, left, scope)?, &value(run, right, scope)?)?;
            Ok(order.map(|order| match *sign {
                "=" => order == Ordering::Equal,
                "<>" => order != Ordering::Equal,
                "<" => order == Ordering::Less,
                ">" => order == Ordering::Greater,
                "<=" => order != Ordering::Greater,
                _ => order != Ordering::Less,
            }))
        }
        Expr::In { value: inner, list, not } => {
            let wanted = value(run, inner, scope)?;
            let mut items = Vec::new();
            for item in list {
                items.push(value(run, item, scope)?);
            }
            Ok(negate(is_in(&wanted, &items)?, *not))
        }
        Expr::InQuery { value: inner, query, not } => {
            let wanted = value(run, inner, scope)?;
            let items = subquery(run, query, scope)?;
            Ok(negate(is_in(&wanted, &items)?, *not))
        }
        Expr::Exists(query) => Ok(Some(!subquery(run, query, scope)?.is_empty())),
        Expr::Like { value: inner, pattern, not } => {
            let (text, pattern) = (value(run, inner, scope)?, value(run, pattern, scope)?);
            let answer =
                text_of(&text).zip(text_of(&pattern)).map(|(text, pattern)| is_like(&text, &pattern));
            Ok(negate(answer, *not))
        }
        Expr::Between { value: inner, low, high, not } => {
            let inner = value(run, inner, scope)?;
            let low = compare(&inner, &value(run, low, scope)?)?.map(|order| order != Ordering::Less);
            let high = compare(&inner, &value(run, high, scope)?)?.map(|order| order != Ordering::Greater);
            Ok(negate(low.zip(high).map(|(low, high)| low && high), *not))
        }
        _ => Err(fail(50_002, &[&"a value as a condition"])),
    }
}

fn is_in(wanted: &Value, items: &[Value]) -> Outcome<Option<bool>> {
    let mut answer = Some(false);
    for item in items {
        match compare(wanted, item)? {
            Some(Ordering::Equal) => return Ok(Some(true)),
            Some(_) => {}
            None => answer = None,
        }
    }
    Ok(answer)
}

/// First column of each row of a query within a condition.
fn subquery(run: &Run<'_>, query: &Select, scope: Option<&Scope<'_>>) -> Outcome<Vec<Value>> {
    let table = query::rows(run, query, scope)?;
    Ok(table.rows.into_iter().filter_map(|row| row.into_iter().next()).collect())
}

/// The type of an expression. Error 50002 for values that have none on the modelled wire.
pub(crate) fn kind(run: &Run<'_>, expr: &Expr, bound: &[Bound]) -> Outcome<ColumnType> {
    match expr {
        Expr::Literal(value) => Ok(kind_of(value)),
        Expr::Column { qualifier, name } => {
            place(bound, qualifier.as_deref(), name).map(|at| bound[at].column.kind)
        }
        Expr::Variable(name) => {
            let found = run.variables.get(&name.to_lowercase());
            found.map(kind_of).ok_or_else(|| fail(137, &[name]))
        }
        Expr::Global(name) => functions::global(run, name).map(|(_, kind)| kind),
        Expr::Call { name, arguments } => functions::kind(run, name, arguments, bound),
        Expr::CountAll => Ok(ColumnType::Int),
        Expr::Cast { kind, .. } if is_step(kind) => {
            Err(fail(50_002, &[&format!("{} as a column", kind.name)]))
        }
        Expr::Cast { kind, .. } => column_type(kind),
        Expr::Binary { left, right, .. } => {
            let (left, right) = (kind(run, left, bound)?, kind(run, right, bound)?);
            Ok(wider(left, right))
        }
        Expr::Case { arms, otherwise, .. } => {
            let mut found = None;
            let results = arms.iter().map(|(_, then)| then).chain(otherwise.as_deref());
            for then in results.filter(|then| **then != Expr::Literal(Value::Null)) {
                let own = kind(run, then, bound)?;
                found = Some(found.map_or(own, |other| wider(other, own)));
            }
            Ok(found.unwrap_or(ColumnType::Int))
        }
        _ => Err(fail(102, &[&"condition"])),
    }
}

/// What an arithmetic result or a CASE of two types is.
fn wider(left: ColumnType, right: ColumnType) -> ColumnType {
    let rank = |kind: ColumnType| match kind {
        ColumnType::VarBinary(_) => 0,
        ColumnType::NVarChar(_) => 1,
        ColumnType::Guid => 2,
        ColumnType::Bit => 3,
        ColumnType::TinyInt => 4,
        ColumnType::SmallInt => 5,
        ColumnType::Int => 6,
        ColumnType::BigInt => 7,
        ColumnType::Numeric { .. } => 8,
        ColumnType::Real => 9,
        ColumnType::DateTime => 10,
    };
    match (left, right) {
        (ColumnType::NVarChar(Some(one)), ColumnType::NVarChar(Some(other))) => {
            ColumnType::NVarChar(Some(one.saturating_add(other).min(4000)))
        }
        (ColumnType::NVarChar(_), ColumnType::NVarChar(_)) => ColumnType::NVarChar(None),
        _ if rank(left) >= rank(right) => left,
        _ => right,
    }
}

/// The type of a literal or a parameter.
pub(crate) fn kind_of(value: &Value) -> ColumnType {
    match value {
        Value::Null | Value::Int(_) => ColumnType::Int,
        Value::Bit(_) => ColumnType::Bit,
        Value::TinyInt(_) => ColumnType::TinyInt,
        Value::SmallInt(_) => ColumnType::SmallInt,
        Value::BigInt(_) => ColumnType::BigInt,
        Value::Numeric { precision, scale, .. } => {
            ColumnType::Numeric { precision: *precision, scale: *scale }
        }
        Value::NVarChar(text) => {
            let length =
                u16::try_from(text.encode_utf16().count().max(1)).ok().filter(|length| *length <= 4000);
            ColumnType::NVarChar(length)
        }
        Value::VarBinary(bytes) => ColumnType::VarBinary(u16::try_from(bytes.len().max(1)).ok()),
        Value::Guid(_) => ColumnType::Guid,
        Value::DateTime(_) => ColumnType::DateTime,
        Value::Real(_) => ColumnType::Real,
    }
}

/// A date from a value, for functions on dates.
pub(crate) fn date(value: &Value) -> Outcome<Option<i64>> {
    if *value == Value::Null { Ok(None) } else { date_of(value).map(Some) }
}
