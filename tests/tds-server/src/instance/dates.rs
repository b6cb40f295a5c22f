//! DATEPART, DATEDIFF and DATEADD.

use super::ast::Expr;
use super::catalogue::{Outcome, fail};
use super::evaluate::{Scope, date, value};
use super::run::Run;
use super::value::whole;
use crate::reply::Value;

/// DATEPART, DATEDIFF, DATEADD: their first argument is a word.
pub(crate) fn on_dates(
    run: &Run<'_>,
    name: &str,
    arguments: &[Expr],
    scope: Option<&Scope<'_>>,
) -> Outcome<Value> {
    let Some((Expr::Column { qualifier: None, name: part }, rest)) = arguments.split_first() else {
        return Err(fail(174, &[&name, &if name == "DATEPART" { 2 } else { 3 }]));
    };
    let part = part.to_lowercase();
    let mut values = Vec::new();
    for argument in rest {
        values.push(value(run, argument, scope)?);
    }
    let unit = match part.as_str() {
        "ms" | "millisecond" => 1,
        "s" | "ss" | "second" => 1_000,
        "n" | "mi" | "minute" => 60_000,
        "hh" | "hour" => 3_600_000,
        "d" | "dd" | "day" => 86_400_000,
        "tz" | "tzoffset" if name == "DATEPART" => return time_zone(&values),
        _ => return Err(fail(50_002, &[&format!("{part} of {name}")])),
    };
    match (name, &values[..]) {
        ("DATEDIFF", [from, to]) => {
            let (Some(from), Some(to)) = (date(from)?, date(to)?) else {
                return Ok(Value::Null);
            };
            let difference = to.div_euclid(unit) - from.div_euclid(unit);
            i32::try_from(difference).map(Value::Int).map_err(|_| fail(220, &[&"int", &difference]))
        }
        ("DATEADD", [count, from]) => {
            let (Some(count), Some(from)) = (whole(count), date(from)?) else {
                return Ok(Value::Null);
            };
            let moved = i64::try_from(count)
                .ok()
                .and_then(|count| count.checked_mul(unit))
                .and_then(|by| from.checked_add(by));
            moved.map(Value::DateTime).ok_or_else(|| fail(220, &[&"datetime", &count]))
        }
        _ => Err(fail(50_002, &[&format!("{part} of {name}")])),
    }
}

/// Minutes east of UTC of a datetimeoffset.
fn time_zone(values: &[Value]) -> Outcome<Value> {
    let [Value::NVarChar(moment)] = values else {
        return Err(fail(50_002, &[&"DATEPART(tz, …) of what is no datetimeoffset"]));
    };
    let offset = moment.rsplit(' ').next().unwrap_or("");
    let parsed = offset
        .get(1..)
        .and_then(|digits| digits.split_once(':'))
        .and_then(|(hours, minutes)| Some(hours.parse::<i32>().ok()? * 60 + minutes.parse::<i32>().ok()?));
    let minutes = parsed.ok_or_else(|| fail(241, &[]))?;
    Ok(Value::Int(if offset.starts_with('-') { -minutes } else { minutes }))
}
