//! COUNT, MAX and MIN over all rows of a query. There is no GROUP BY.

use std::cmp::Ordering;

use super::ast::Expr;
use super::catalogue::{Outcome, fail};
use super::convert::compare;
use super::evaluate::{Bound, Scope, value};
use super::run::Run;
use crate::reply::Value;

fn is_aggregate(expr: &Expr) -> bool {
    let named = |name: &str| ["COUNT", "COUNT_BIG", "MAX", "MIN"].contains(&name);
    matches!(expr, Expr::CountAll) || matches!(expr, Expr::Call { name, .. } if named(name))
}

/// Whether an item of a select list is over all rows.
pub(crate) fn has_aggregate(expr: &Expr) -> bool {
    match expr {
        _ if is_aggregate(expr) => true,
        Expr::Call { arguments, .. } => arguments.iter().any(has_aggregate),
        Expr::Cast { value, .. } => has_aggregate(value),
        Expr::Binary { left, right, .. } => has_aggregate(left) || has_aggregate(right),
        _ => false,
    }
}

/// The expression with its aggregates over all rows in place.
pub(crate) fn fold(
    run: &Run<'_>,
    expr: &Expr,
    bound: &[Bound],
    rows: &[Vec<Value>],
    outer: Option<&Scope<'_>>,
) -> Outcome<Expr> {
    let again = |inner: &Expr| fold(run, inner, bound, rows, outer);
    Ok(match expr {
        Expr::CountAll => Expr::Literal(Value::Int(i32::try_from(rows.len()).unwrap_or(i32::MAX))),
        Expr::Call { name, arguments } if is_aggregate(expr) => {
            let [argument] = &arguments[..] else {
                return Err(fail(174, &[name, &1]));
            };
            let mut values = Vec::new();
            for row in rows {
                let found = value(run, argument, Some(&Scope { bound, row, outer }))?;
                if found != Value::Null {
                    values.push(found);
                }
            }
            Expr::Literal(aggregate(name, values)?)
        }
        Expr::Call { name, arguments } => {
            let arguments = arguments.iter().map(again).collect::<Outcome<_>>()?;
            Expr::Call { name: name.clone(), arguments }
        }
        Expr::Cast { value, kind, style } => {
            Expr::Cast { value: Box::new(again(value)?), kind: kind.clone(), style: *style }
        }
        Expr::Binary { sign, left, right } => {
            Expr::Binary { sign, left: Box::new(again(left)?), right: Box::new(again(right)?) }
        }
        Expr::Column { name, .. } => return Err(fail(50_002, &[&format!("{name} beside an aggregate")])),
        other => other.clone(),
    })
}

fn aggregate(name: &str, values: Vec<Value>) -> Outcome<Value> {
    let count = values.len();
    match name {
        "COUNT" => return Ok(Value::Int(i32::try_from(count).unwrap_or(i32::MAX))),
        "COUNT_BIG" => return Ok(Value::BigInt(i64::try_from(count).unwrap_or(i64::MAX))),
        _ => {}
    }
    let wanted = if name == "MAX" { Ordering::Greater } else { Ordering::Less };
    let mut best = Value::Null;
    for found in values {
        if best == Value::Null || compare(&found, &best)? == Some(wanted) {
            best = found;
        }
    }
    Ok(best)
}
