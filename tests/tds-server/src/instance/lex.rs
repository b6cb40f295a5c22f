//! The words of a batch: names, literals, variables and signs, with the line that each is on.

use super::catalogue::{Outcome, fail};

/// One word of a batch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    /// As written, without brackets: a keyword or a name.
    Word(String),
    /// `[name]` or `"name"`.
    Name(String),
    /// `'text'` or `N'text'`.
    Text(String),
    /// Digits, perhaps with a point.
    Number(String),
    /// `0x…`.
    Binary(Vec<u8>),
    /// `@name`.
    Variable(String),
    /// `@@name`.
    Global(String),
    Sign(&'static str),
}

/// A token and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Lexeme {
    pub token: Token,
    pub line: i32,
    /// Byte range in the batch.
    pub start: usize,
    pub end: usize,
}

const SIGNS: [&str; 22] = [
    "<>", "!=", "<=", ">=", "+=", "-=", "(", ")", ",", ".", ";", "=", "<", ">", "*", "+", "-", "/", "%", ":",
    "{", "}",
];

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '#' | '$' | '@')
}

/// Splits a batch. Errors: 102 for a sign that SQL has none of, 105 and 113 for what is not closed.
pub(crate) fn lex(sql: &str) -> Outcome<Vec<Lexeme>> {
    let mut lexemes = Vec::new();
    let mut at = 0;
    let mut line = 1;
    while let Some(first) = sql[at..].chars().next() {
        let rest = &sql[at..];
        let (token, length) = if first.is_whitespace() {
            (None, first.len_utf8())
        } else if rest.starts_with("--") {
            (None, rest.find('\n').unwrap_or(rest.len()))
        } else if rest.starts_with("/*") {
            (None, comment(rest)?)
        } else {
            let (token, length) = one(rest, first)?;
            (Some(token), length)
        };
        let end = at + length;
        if let Some(token) = token {
            lexemes.push(Lexeme { token, line, start: at, end });
        }
        line += i32::try_from(sql[at..end].matches('\n').count()).unwrap_or(0);
        at = end;
    }
    Ok(lexemes)
}

fn one(rest: &str, first: char) -> Outcome<(Token, usize)> {
    if first == '\'' {
        let (text, length) = quoted(rest, '\'')?;
        return Ok((Token::Text(text), length));
    }
    if rest.starts_with("N'") || rest.starts_with("n'") {
        let (text, length) = quoted(&rest[1..], '\'')?;
        return Ok((Token::Text(text), length + 1));
    }
    if first == '[' || first == '"' {
        let (name, length) = quoted(rest, if first == '[' { ']' } else { '"' })?;
        return Ok((Token::Name(name), length));
    }
    if first.is_ascii_digit() {
        return Ok(number(rest));
    }
    if is_word(first) {
        let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let word = &rest[..length];
        let token = if word.starts_with("@@") {
            Token::Global(word.to_uppercase())
        } else if word.starts_with('@') {
            Token::Variable(word.to_owned())
        } else {
            Token::Word(word.to_owned())
        };
        return Ok((token, length));
    }
    let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign));
    sign.map(|sign| (Token::Sign(sign), sign.len())).ok_or_else(|| fail(102, &[&first]))
}

fn number(rest: &str) -> (Token, usize) {
    if rest.starts_with("0x") || rest.starts_with("0X") {
        let digits: String = rest[2..].chars().take_while(char::is_ascii_hexdigit).collect();
        let even = if digits.len() % 2 == 1 { format!("0{digits}") } else { digits.clone() };
        let pairs = even.as_bytes().chunks(2);
        let bytes = pairs.filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        return (Token::Binary(bytes.collect()), 2 + digits.len());
    }
    let length = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    (Token::Number(rest[..length].to_owned()), length)
}

/// A quoted text from its opening sign on: doubled closing signs are one of them.
fn quoted(rest: &str, close: char) -> Outcome<(String, usize)> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != close {
            text.push(c);
        } else if chars.peek().is_some_and(|(_, next)| *next == close) {
            text.push(close);
            chars.next();
        } else {
            return Ok((text, at + close.len_utf8()));
        }
    }
    Err(fail(105, &[&text]))
}

fn comment(rest: &str) -> Outcome<usize> {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return Ok(at);
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    Err(fail(113, &[]))
}
