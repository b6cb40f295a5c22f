//! Expressions and conditions.

use super::cursor::{Cursor, DEPTH_MAX, is_keyword};
use super::query;
use crate::instance::ast::{Expr, TypeName};
use crate::instance::catalogue::{Outcome, fail};
use crate::instance::lex::Token;
use crate::reply::Value;

/// A condition or a value: OR binds least.
pub(super) fn expression(cursor: &mut Cursor<'_>) -> Outcome<Expr> {
    cursor.depth += 1;
    if cursor.depth > DEPTH_MAX {
        return Err(fail(50_002, &[&"an expression this deep"]));
    }
    let mut left = conjunction(cursor)?;
    while cursor.word("OR") {
        left = Expr::Or(Box::new(left), Box::new(conjunction(cursor)?));
    }
    cursor.depth -= 1;
    Ok(left)
}

fn conjunction(cursor: &mut Cursor<'_>) -> Outcome<Expr> {
    let mut left = negation(cursor)?;
    while cursor.word("AND") {
        left = Expr::And(Box::new(left), Box::new(negation(cursor)?));
    }
    Ok(left)
}

fn negation(cursor: &mut Cursor<'_>) -> Outcome<Expr> {
    let mut count = 0;
    while cursor.word("NOT") {
        count += 1;
    }
    let inner = comparison(cursor)?;
    if count == 0 {
        return Ok(inner);
    }
    let inner = if count % 2 == 0 { Expr::Not(Box::new(inner)) } else { inner };
    Ok(Expr::Not(Box::new(inner)))
}

fn comparison(cursor: &mut Cursor<'_>) -> Outcome<Expr> {
    if cursor.is_word("EXISTS") {
        cursor.at += 1;
        cursor.expect_sign("(")?;
        let query = query::select(cursor)?;
        cursor.expect_sign(")")?;
        return Ok(Expr::Exists(Box::new(query)));
    }
    let left = sum(cursor)?;
    for sign in ["<>", "!=", "<=", ">=", "=", "<", ">"] {
        if cursor.sign(sign) {
            let sign = if sign == "!=" { "<>" } else { sign };
            return Ok(Expr::Binary { sign, left: Box::new(left), right: Box::new(sum(cursor)?) });
        }
    }
    if cursor.word("IS") {
        let not = cursor.word("NOT");
        cursor.expect("NULL")?;
        return Ok(Expr::IsNull { value: Box::new(left), not });
    }
    let not = cursor.word("NOT");
    let value = Box::new(left);
    if cursor.word("IN") {
        cursor.expect_sign("(")?;
        if cursor.is_word("SELECT") {
            let query = Box::new(query::select(cursor)?);
            cursor.expect_sign(")")?;
            return Ok(Expr::InQuery { value, query, not });
        }
        return Ok(Expr::In { value, list: list(cursor)?, not });
    }
    if cursor.word("LIKE") {
        return Ok(Expr::Like { value, pattern: Box::new(sum(cursor)?), not });
    }
    if cursor.word("BETWEEN") {
        let low = Box::new(sum(cursor)?);
        cursor.expect("AND")?;
        return Ok(Expr::Between { value, low, high: Box::new(sum(cursor)?), not });
    }
    if not { Err(cursor.wrong()) } else { Ok(*value) }
}

fn sum(cursor: &mut Cursor<'_>) -> Outcome<Expr> {
    let mut left = product(cursor)?;
    loop {
        let Some(sign) = ["+", "-"].into_iter().find(|sign| cursor.sign(sign)) else {
            return Ok(left);
        };
        left = Expr::Binary { sign, left: Box::new(left), right: Box::new(product(cursor)?) };
    }
}

fn product(cursor: &mut Cursor<'_>) -> Outcome<Expr> {
    let mut left = unary(cursor)?;
    loop {
        let Some(sign) = ["*", "/", "%"].into_iter().find(|sign| cursor.sign(sign)) else {
            return Ok(left);
        };
        left = Expr::Binary { sign, left: Box::new(left), right: Box::new(unary(cursor)?) };
    }
}

fn unary(cursor: &mut Cursor<'_>) -> Outcome<Expr> {
    let mut negative = false;
    while cursor.is_sign("-") || cursor.is_sign("+") {
        negative ^= cursor.is_sign("-");
        cursor.at += 1;
    }
    let value = primary(cursor)?;
    if !negative {
        return Ok(value);
    }
    Ok(match value {
        Expr::Literal(Value::Int(number)) => Expr::Literal(Value::Int(-number)),
        other => {
            Expr::Binary { sign: "-", left: Box::new(Expr::Literal(Value::Int(0))), right: Box::new(other) }
        }
    })
}

fn primary(cursor: &mut Cursor<'_>) -> Outcome<Expr> {
    if cursor.sign("(") {
        let inner = expression(cursor)?;
        cursor.expect_sign(")")?;
        return Ok(inner);
    }
    let literal = match cursor.peek() {
        Some(Token::Text(text)) => Value::NVarChar(text.clone()),
        Some(Token::Binary(bytes)) => Value::VarBinary(bytes.clone()),
        Some(Token::Number(digits)) => number(digits).ok_or_else(|| cursor.wrong())?,
        Some(Token::Word(word)) if word.eq_ignore_ascii_case("NULL") => Value::Null,
        _ => return named(cursor),
    };
    cursor.at += 1;
    Ok(Expr::Literal(literal))
}

fn number(digits: &str) -> Option<Value> {
    let Some((whole, fraction)) = digits.split_once('.') else {
        if let Ok(number) = digits.parse() {
            return Some(Value::Int(number));
        }
        let number: i128 = digits.parse().ok()?;
        return Some(Value::Numeric { digits: number, precision: 38, scale: 0 })
            .filter(|_| digits.len() <= 38);
    };
    if fraction.contains('.') || whole.len() + fraction.len() > 38 {
        return None;
    }
    let scale = u8::try_from(fraction.len()).ok()?;
    let digits = format!("{whole}{fraction}").parse().ok()?;
    Some(Value::Numeric { digits, precision: 38, scale })
}

fn named(cursor: &mut Cursor<'_>) -> Outcome<Expr> {
    match cursor.peek() {
        Some(Token::Variable(name)) => {
            cursor.at += 1;
            return Ok(Expr::Variable(name.clone()));
        }
        Some(Token::Global(name)) => {
            cursor.at += 1;
            return Ok(Expr::Global(name.clone()));
        }
        _ => {}
    }
    if cursor.word("CASE") {
        return case(cursor);
    }
    if let Some(Token::Word(word)) = cursor.peek()
        && matches!(cursor.peek_at(1), Some(Token::Sign("(")))
        && (!is_keyword(word) || word.eq_ignore_ascii_case("LEFT"))
    {
        cursor.at += 2;
        return call(cursor, &word.to_uppercase());
    }
    let first = cursor.name()?;
    if !cursor.sign(".") {
        return Ok(Expr::Column { qualifier: None, name: first });
    }
    let mut qualifier = first;
    let mut name = cursor.name()?;
    while cursor.sign(".") {
        qualifier = name;
        name = cursor.name()?;
    }
    Ok(Expr::Column { qualifier: Some(qualifier), name })
}

fn call(cursor: &mut Cursor<'_>, name: &str) -> Outcome<Expr> {
    match name {
        "CAST" | "TRY_CAST" => {
            let value = Box::new(expression(cursor)?);
            cursor.expect("AS")?;
            let kind = type_name(cursor)?;
            cursor.expect_sign(")")?;
            Ok(Expr::Cast { value, kind, style: None })
        }
        "CONVERT" | "TRY_CONVERT" => {
            let kind = type_name(cursor)?;
            cursor.expect_sign(",")?;
            let value = Box::new(expression(cursor)?);
            let mut style = None;
            if cursor.sign(",") {
                let Some(Token::Number(digits)) = cursor.next() else {
                    return Err(cursor.wrong());
                };
                style = digits.parse().ok();
            }
            cursor.expect_sign(")")?;
            Ok(Expr::Cast { value, kind, style })
        }
        "COUNT" | "COUNT_BIG" if cursor.is_sign("*") => {
            cursor.at += 1;
            cursor.expect_sign(")")?;
            Ok(Expr::CountAll)
        }
        _ => {
            let arguments = if cursor.sign(")") { Vec::new() } else { list(cursor)? };
            Ok(Expr::Call { name: name.to_owned(), arguments })
        }
    }
}

/// Expressions up to the closing parenthesis.
pub(super) fn list(cursor: &mut Cursor<'_>) -> Outcome<Vec<Expr>> {
    let mut items = vec![expression(cursor)?];
    while cursor.sign(",") {
        items.push(expression(cursor)?);
    }
    cursor.expect_sign(")")?;
    Ok(items)
}

fn case(cursor: &mut Cursor<'_>) -> Outcome<Expr> {
    let of = if cursor.is_word("WHEN") { None } else { Some(Box::new(expression(cursor)?)) };
    let mut arms = Vec::new();
    while cursor.word("WHEN") {
        let when = expression(cursor)?;
        cursor.expect("THEN")?;
        arms.push((when, expression(cursor)?));
    }
    let otherwise = if cursor.word("ELSE") { Some(Box::new(expression(cursor)?)) } else { None };
    cursor.expect("END")?;
    if arms.is_empty() { Err(cursor.wrong()) } else { Ok(Expr::Case { of, arms, otherwise }) }
}

/// A type's name with its numbers in parentheses.
pub(super) fn type_name(cursor: &mut Cursor<'_>) -> Outcome<TypeName> {
    let name = cursor.name()?.to_lowercase();
    let mut numbers = Vec::new();
    if cursor.sign("(") {
        loop {
            match cursor.next() {
                Some(Token::Number(digits)) => numbers.push(digits.parse().map_err(|_| cursor.wrong())?),
                Some(Token::Word(word)) if word.eq_ignore_ascii_case("MAX") => numbers.push(-1),
                _ => return Err(cursor.wrong()),
            }
            if !cursor.sign(",") {
                break;
            }
        }
        cursor.expect_sign(")")?;
    }
    Ok(TypeName { name, numbers })
}
