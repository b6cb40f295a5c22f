//! SELECT.

use super::cursor::{Cursor, is_keyword};
use super::expression::{expression, list};
use crate::instance::ast::{Expr, Item, Join, Select, Source};
use crate::instance::catalogue::{Outcome, fail};
use crate::instance::lex::Token;

/// A query from SELECT on.
pub(super) fn select(cursor: &mut Cursor<'_>) -> Outcome<Select> {
    cursor.expect("SELECT")?;
    let mut query = Select { distinct: cursor.word("DISTINCT"), ..Select::default() };
    if cursor.word("TOP") {
        query.top = Some(if cursor.sign("(") {
            let count = expression(cursor)?;
            cursor.expect_sign(")")?;
            count
        } else {
            match cursor.next() {
                Some(Token::Number(digits)) => {
                    Expr::Literal(crate::reply::Value::Int(digits.parse().map_err(|_| cursor.wrong())?))
                }
                _ => return Err(cursor.wrong()),
            }
        });
    }
    query.items.push(item(cursor)?);
    while cursor.sign(",") {
        query.items.push(item(cursor)?);
    }
    if cursor.word("FROM") {
        query.from = Some(source(cursor)?);
        joins(cursor, &mut query.joins)?;
    }
    if cursor.word("WHERE") {
        query.filter = Some(expression(cursor)?);
    }
    for clause in ["GROUP", "HAVING", "UNION", "EXCEPT", "INTERSECT", "FOR", "OPTION", "INTO"] {
        if cursor.is_word(clause) {
            return Err(fail(50_002, &[&format!("{clause} in a query")]));
        }
    }
    if cursor.word("ORDER") {
        cursor.expect("BY")?;
        loop {
            let key = expression(cursor)?;
            let descending = cursor.word("DESC");
            if !descending {
                cursor.word("ASC");
            }
            query.order.push((key, descending));
            if !cursor.sign(",") {
                break;
            }
        }
    }
    Ok(query)
}

fn item(cursor: &mut Cursor<'_>) -> Outcome<Item> {
    if cursor.sign("*") {
        return Ok(Item::All(None));
    }
    if matches!(cursor.peek_at(1), Some(Token::Sign(".")))
        && matches!(cursor.peek_at(2), Some(Token::Sign("*")))
    {
        let qualifier = cursor.name()?;
        cursor.at += 2;
        return Ok(Item::All(Some(qualifier)));
    }
    if let (Some(Token::Variable(variable)), Some(Token::Sign("="))) = (cursor.peek(), cursor.peek_at(1)) {
        cursor.at += 2;
        return Ok(Item::Assign { variable: variable.clone(), value: expression(cursor)? });
    }
    // `alias = value` is an older way to name a column.
    if matches!(cursor.peek(), Some(Token::Word(_) | Token::Name(_)))
        && matches!(cursor.peek_at(1), Some(Token::Sign("=")))
    {
        let alias = cursor.name()?;
        cursor.at += 1;
        return Ok(Item::One { value: expression(cursor)?, alias: Some(alias) });
    }
    let value = expression(cursor)?;
    let alias = if cursor.word("AS") {
        Some(match cursor.peek() {
            Some(Token::Text(_)) => cursor.text()?,
            _ => cursor.name()?,
        })
    } else {
        implied_alias(cursor)?
    };
    Ok(Item::One { value, alias })
}

/// A name right after an item or source that begins nothing else.
fn implied_alias(cursor: &mut Cursor<'_>) -> Outcome<Option<String>> {
    let is_alias = match cursor.peek() {
        Some(Token::Name(_)) => true,
        Some(Token::Word(word)) => !is_keyword(word) && !begins_more(word),
        _ => false,
    };
    if is_alias { cursor.name().map(Some) } else { Ok(None) }
}

fn begins_more(word: &str) -> bool {
    let more = [
        "UNION",
        "EXCEPT",
        "INTERSECT",
        "OPTION",
        "WAITFOR",
        "PRINT",
        "ROLLBACK",
        "RIGHT",
        "FULL",
        "REVOKE",
        "DENY",
        "SAVE",
        "RAISERROR",
        "THROW",
        "RETURN",
        "WHILE",
        "GOTO",
        "TRUNCATE",
        "MERGE",
        "CHECKPOINT",
        "APPLY",
    ];
    more.iter().any(|other| other.eq_ignore_ascii_case(word))
}

fn source(cursor: &mut Cursor<'_>) -> Outcome<Source> {
    if cursor.is_sign("(") {
        return Err(fail(50_002, &[&"a derived table"]));
    }
    let name = cursor.dotted()?;
    let arguments =
        if cursor.sign("(") { Some(if cursor.sign(")") { Vec::new() } else { list(cursor)? }) } else { None };
    let alias = if cursor.word("AS") { Some(cursor.name()?) } else { implied_alias(cursor)? };
    if cursor.words(&["WITH"]) {
        cursor.expect_sign("(")?;
        cursor.expect("NOLOCK")?;
        cursor.expect_sign(")")?;
    }
    let last = name.rsplit('.').next().unwrap_or("").to_owned();
    Ok(Source { alias: alias.unwrap_or(last), name, arguments })
}

fn joins(cursor: &mut Cursor<'_>, found: &mut Vec<Join>) -> Outcome<()> {
    loop {
        let (outer, applied) = if cursor.words(&["CROSS", "APPLY"]) {
            (false, true)
        } else if cursor.words(&["OUTER", "APPLY"]) {
            (true, true)
        } else if cursor.words(&["CROSS", "JOIN"]) || cursor.sign(",") {
            (false, true)
        } else if cursor.words(&["INNER", "JOIN"]) || cursor.word("JOIN") {
            (false, false)
        } else if cursor.words(&["LEFT", "OUTER", "JOIN"]) || cursor.words(&["LEFT", "JOIN"]) {
            (true, false)
        } else if cursor.is_word("RIGHT") || cursor.is_word("FULL") {
            return Err(fail(50_002, &[&"RIGHT and FULL joins"]));
        } else {
            return Ok(());
        };
        let source = source(cursor)?;
        let on = if applied {
            None
        } else {
            cursor.expect("ON")?;
            Some(expression(cursor)?)
        };
        found.push(Join { source, outer, on });
    }
}
