//! SELECT on views: join, filter, order, and the list; DECLARE and SET of variables.

use std::cmp::Ordering;

use super::aggregate::{fold, has_aggregate};
use super::ast::{Expr, Item, Select, Source, TypeName};
use super::catalogue::{Outcome, fail};
use super::convert::{cast, compare, is_step};
use super::evaluate::{Bound, Scope, condition, kind, value};
use super::run::Run;
use super::state::same_name;
use super::value::whole;
use super::views::{self, Table};
use crate::reply::{Column, ColumnType, Part, Value};

/// Rows of a join at most: a query of the adapter stays far below.
const ROWS_MAX: usize = 1_000_000;

/// Runs a query and sends its rows, or sets variables.
pub(crate) fn run(run: &mut Run<'_>, query: &Select) -> Outcome<()> {
    let assigns = query.items.iter().filter(|item| matches!(item, Item::Assign { .. })).count();
    if assigns > 0 && assigns < query.items.len() {
        return Err(fail(102, &[&"="]));
    }
    if assigns > 0 {
        let (bound, rows) = joined(run, query, None)?;
        let rows = ordered(run, query, &bound, rows, None)?;
        for row in rows {
            for item in &query.items {
                let Item::Assign { variable, value: expr } = item else {
                    continue;
                };
                let found = value(run, expr, Some(&Scope { bound: &bound, row: &row, outer: None }))?;
                set(run, variable, found)?;
            }
        }
        return Ok(());
    }
    let table = rows(run, query, None)?;
    run.send(Part::Rows { columns: table.columns, rows: table.rows })
}

/// SET of a variable, which keeps the type it was declared with. Error 137.
pub(crate) fn assign(run: &mut Run<'_>, variable: &str, expr: &Expr) -> Outcome<()> {
    let found = value(run, expr, None)?;
    set(run, variable, found)
}

fn set(run: &mut Run<'_>, variable: &str, value: Value) -> Outcome<()> {
    match run.variables.get_mut(&variable.to_lowercase()) {
        Some(known) => {
            *known = value;
            Ok(())
        }
        None => Err(fail(137, &[&variable])),
    }
}

/// DECLARE. Error 134.
pub(crate) fn declare(
    run: &mut Run<'_>,
    variable: &str,
    kind: &TypeName,
    expr: Option<&Expr>,
) -> Outcome<()> {
    if run.variables.contains_key(&variable.to_lowercase()) {
        return Err(fail(134, &[&variable]));
    }
    if !is_step(kind) {
        super::convert::column_type(kind)?;
    }
    let found = match expr {
        Some(expr) => cast(&value(run, expr, None)?, kind, Some(121))?,
        None => Value::Null,
    };
    run.variables.insert(variable.to_lowercase(), found);
    Ok(())
}

/// PRINT: an INFO token without a number.
pub(crate) fn print(run: &mut Run<'_>, expr: &Expr) -> Outcome<()> {
    let text = run.text(expr)?;
    run.send(Part::Message(crate::reply::Message { number: 0, class: 0, state: 1, text, line: run.line }))
}

/// The rows of a query; `outer` is the row of the query around it.
pub(crate) fn rows(run: &Run<'_>, query: &Select, outer: Option<&Scope<'_>>) -> Outcome<Table> {
    let (bound, found) = joined(run, query, outer)?;
    let items = expanded(query, &bound)?;
    let mut columns = Vec::new();
    for (expr, name) in &items {
        let kind = kind_within(run, expr, &bound, outer)?;
        columns.push(Column { name: name.clone(), kind });
    }
    let aggregates = items.iter().any(|(expr, _)| has_aggregate(expr));
    let mut list = Vec::new();
    if aggregates {
        let mut row = Vec::new();
        for (expr, _) in &items {
            let folded = fold(run, expr, &bound, &found, outer)?;
            row.push(value(run, &folded, None)?);
        }
        list.push(row);
    } else {
        for row in ordered(run, query, &bound, found, outer)? {
            let scope = Scope { bound: &bound, row: &row, outer };
            let mut values = Vec::new();
            for (expr, _) in &items {
                values.push(value(run, expr, Some(&scope))?);
            }
            if !(query.distinct && list.contains(&values)) {
                list.push(values);
            }
        }
    }
    if let Some(top) = &query.top {
        let count = whole(&value(run, top, outer)?).and_then(|count| usize::try_from(count).ok());
        list.truncate(count.ok_or_else(|| fail(102, &[&"TOP"]))?);
    }
    for row in &mut list {
        for (value, column) in row.iter_mut().zip(&columns) {
            fit(value, column.kind)?;
        }
    }
    Ok(Table { columns, rows: list })
}

/// A column of an outer query has its type from there; it is not a result column of the modelled queries.
fn kind_within(
    run: &Run<'_>,
    expr: &Expr,
    bound: &[Bound],
    outer: Option<&Scope<'_>>,
) -> Outcome<ColumnType> {
    match (kind(run, expr, bound), outer) {
        (Err(_), Some(outer)) => kind(run, expr, outer.bound),
        (found, _) => found,
    }
}

/// Makes a value one of its column's type, as mixed numbers in a CASE or COALESCE are not.
fn fit(value: &mut Value, kind: ColumnType) -> Outcome<()> {
    let name = match kind {
        _ if *value == Value::Null => return Ok(()),
        ColumnType::TinyInt => "tinyint",
        ColumnType::SmallInt => "smallint",
        ColumnType::Int => "int",
        ColumnType::BigInt => "bigint",
        ColumnType::Bit => "bit",
        ColumnType::Numeric { precision, scale } => {
            let numbers = vec![i64::from(precision), i64::from(scale)];
            *value = cast(value, &TypeName { name: "numeric".to_owned(), numbers }, None)?;
            return Ok(());
        }
        ColumnType::NVarChar(_) => {
            let kind = TypeName { name: "nvarchar".to_owned(), numbers: vec![-1] };
            *value = cast(value, &kind, Some(121))?;
            return Ok(());
        }
        _ => return Ok(()),
    };
    *value = cast(value, &TypeName { name: name.to_owned(), numbers: Vec::new() }, None)?;
    Ok(())
}

fn expanded(query: &Select, bound: &[Bound]) -> Outcome<Vec<(Expr, String)>> {
    let mut items = Vec::new();
    for item in &query.items {
        match item {
            Item::All(wanted) => {
                let of = bound
                    .iter()
                    .filter(|found| wanted.as_ref().is_none_or(|alias| same_name(alias, &found.alias)));
                let before = items.len();
                items.extend(of.map(|found| {
                    let qualifier = Some(found.alias.clone());
                    (Expr::Column { qualifier, name: found.column.name.clone() }, found.column.name.clone())
                }));
                if items.len() == before {
                    return Err(fail(102, &[&"*"]));
                }
            }
            Item::One { value, alias } => {
                let own = match value {
                    Expr::Column { name, .. } => name.clone(),
                    _ => String::new(),
                };
                items.push((value.clone(), alias.clone().unwrap_or(own)));
            }
            Item::Assign { .. } => return Err(fail(102, &[&"="])),
        }
    }
    Ok(items)
}

type Joined = (Vec<Bound>, Vec<Vec<Value>>);

/// FROM, its joins, and WHERE.
fn joined(run: &Run<'_>, query: &Select, outer: Option<&Scope<'_>>) -> Outcome<Joined> {
    let mut bound: Vec<Bound> = Vec::new();
    let mut rows: Vec<Vec<Value>> = vec![Vec::new()];
    if let Some(from) = &query.from {
        let table = source(run, from, outer)?;
        bind(&mut bound, from, &table.columns);
        rows = table.rows;
    }
    for join in &query.joins {
        let mut next = Vec::new();
        let mut width = None;
        let fixed =
            if join.source.arguments.is_none() { Some(source(run, &join.source, outer)?) } else { None };
        let mut wider = bound.clone();
        if let Some(table) = &fixed {
            bind(&mut wider, &join.source, &table.columns);
            width = Some(table.columns.len());
        }
        for row in &rows {
            let scope = Scope { bound: &bound, row, outer };
            let applied;
            let table = match &fixed {
                Some(table) => table,
                None => {
                    applied = source(run, &join.source, Some(&scope))?;
                    if width.is_none() {
                        bind(&mut wider, &join.source, &applied.columns);
                        width = Some(applied.columns.len());
                    }
                    &applied
                }
            };
            let before = next.len();
            for right in &table.rows {
                let whole: Vec<Value> = row.iter().chain(right).cloned().collect();
                let scope = Scope { bound: &wider, row: &whole, outer };
                let fits = join.on.as_ref().map_or(Ok(Some(true)), |on| condition(run, on, Some(&scope)))?;
                if fits == Some(true) {
                    next.push(whole);
                }
            }
            if join.outer && next.len() == before {
                next.push(row.iter().cloned().chain(vec![Value::Null; table.columns.len()]).collect());
            }
            if next.len() > ROWS_MAX {
                return Err(fail(50_002, &[&"a join this large"]));
            }
        }
        if width.is_none() {
            // No row to apply the function to: its columns are known from an empty call.
            let table = source(run, &join.source, None).or_else(|_| empty(run, &join.source))?;
            bind(&mut wider, &join.source, &table.columns);
        }
        (bound, rows) = (wider, next);
    }
    if let Some(filter) = &query.filter {
        let mut kept = Vec::new();
        for row in rows {
            let scope = Scope { bound: &bound, row: &row, outer };
            if condition(run, filter, Some(&scope))? == Some(true) {
                kept.push(row);
            }
        }
        rows = kept;
    }
    Ok((bound, rows))
}

fn empty(run: &Run<'_>, source: &Source) -> Outcome<Table> {
    let count = source.arguments.as_ref().map_or(0, Vec::len);
    let table = views::view(run, &source.name, Some(&vec![Value::Null; count]))?;
    Ok(Table { rows: Vec::new(), ..table })
}

fn bind(bound: &mut Vec<Bound>, source: &Source, columns: &[Column]) {
    bound.extend(columns.iter().map(|column| Bound { alias: source.alias.clone(), column: column.clone() }));
}

fn source(run: &Run<'_>, source: &Source, scope: Option<&Scope<'_>>) -> Outcome<Table> {
    let Some(arguments) = &source.arguments else {
        return views::view(run, &source.name, None);
    };
    let mut values = Vec::new();
    for argument in arguments {
        values.push(value(run, argument, scope)?);
    }
    views::view(run, &source.name, Some(&values))
}

/// Sorted by ORDER BY: by expressions, or aliases and numbers of the list.
fn ordered(
    run: &Run<'_>,
    query: &Select,
    bound: &[Bound],
    rows: Vec<Vec<Value>>,
    outer: Option<&Scope<'_>>,
) -> Outcome<Vec<Vec<Value>>> {
    if query.order.is_empty() {
        return Ok(rows);
    }
    let mut keyed = Vec::new();
    for row in rows {
        let scope = Scope { bound, row: &row, outer };
        let mut keys = Vec::new();
        for (expr, _) in &query.order {
            keys.push(value(run, key(query, expr)?, Some(&scope))?);
        }
        keyed.push((keys, row));
    }
    let mut failed = None;
    keyed.sort_by(|(left, _), (right, _)| {
        for ((one, other), (_, descending)) in left.iter().zip(right).zip(&query.order) {
            let order = match (one == &Value::Null, other == &Value::Null) {
                (true, true) => Ordering::Equal,
                (true, false) => Ordering::Less,
                (false, true) => Ordering::Greater,
                (false, false) => compare(one, other)
                    .unwrap_or_else(|stop| {
                        failed = Some(stop);
                        None
                    })
                    .unwrap_or(Ordering::Equal),
            };
            if order != Ordering::Equal {
                return if *descending { order.reverse() } else { order };
            }
        }
        Ordering::Equal
    });
    match failed {
        Some(stop) => Err(stop),
        None => Ok(keyed.into_iter().map(|(_, row)| row).collect()),
    }
}

/// What a key of ORDER BY stands for.
fn key<'a>(query: &'a Select, expr: &'a Expr) -> Outcome<&'a Expr> {
    let of_alias = |name: &str| {
        query.items.iter().find_map(|item| match item {
            Item::One { value, alias: Some(alias) } if same_name(alias, name) => Some(value),
            _ => None,
        })
    };
    match expr {
        Expr::Column { qualifier: None, name } => Ok(of_alias(name).unwrap_or(expr)),
        Expr::Literal(Value::Int(number)) => {
            let at = usize::try_from(*number).ok().and_then(|number| number.checked_sub(1));
            match at.and_then(|at| query.items.get(at)) {
                Some(Item::One { value, .. }) => Ok(value),
                _ => Err(fail(102, &[number])),
            }
        }
        _ => Ok(expr),
    }
}
