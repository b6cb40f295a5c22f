//! Steps through the words of a batch, and says where the syntax is wrong as SQL Server does.

use crate::instance::catalogue::{Outcome, Stop, fail};
use crate::instance::lex::{Lexeme, Token};

/// Deeper expressions are refused.
pub(super) const DEPTH_MAX: usize = 60;

/// Where in a batch the parser is.
pub(super) struct Cursor<'a> {
    lexemes: &'a [Lexeme],
    pub at: usize,
    pub depth: usize,
}

/// Words that error 156 is for; 102 is for others.
const KEYWORDS: [&str; 56] = [
    "ADD",
    "ALTER",
    "AND",
    "AS",
    "AUTHORIZATION",
    "BACKUP",
    "BEGIN",
    "BETWEEN",
    "BY",
    "CASE",
    "COLLATE",
    "COMMIT",
    "CREATE",
    "CROSS",
    "DATABASE",
    "DBCC",
    "DECLARE",
    "DELETE",
    "DROP",
    "ELSE",
    "END",
    "EXEC",
    "EXECUTE",
    "EXISTS",
    "FOR",
    "FROM",
    "GRANT",
    "GROUP",
    "HAVING",
    "IF",
    "IN",
    "INNER",
    "INSERT",
    "INTO",
    "IS",
    "JOIN",
    "KILL",
    "LEFT",
    "LIKE",
    "NOT",
    "NULL",
    "ON",
    "OR",
    "ORDER",
    "OUTER",
    "RESTORE",
    "SELECT",
    "SET",
    "THEN",
    "TO",
    "TOP",
    "UPDATE",
    "USE",
    "VALUES",
    "WHERE",
    "WITH",
];

impl<'a> Cursor<'a> {
    pub(super) fn new(lexemes: &'a [Lexeme]) -> Self {
        Self { lexemes, at: 0, depth: 0 }
    }

    pub(super) fn peek(&self) -> Option<&'a Token> {
        self.lexemes.get(self.at).map(|lexeme| &lexeme.token)
    }

    pub(super) fn peek_at(&self, ahead: usize) -> Option<&'a Token> {
        self.lexemes.get(self.at + ahead).map(|lexeme| &lexeme.token)
    }

    pub(super) fn next(&mut self) -> Option<&'a Token> {
        let token = self.peek();
        self.at += 1;
        token
    }

    /// Error 102 or 156 at the word that is next.
    pub(super) fn wrong(&self) -> Stop {
        let place = self.at.min(self.lexemes.len().saturating_sub(1));
        let Some(lexeme) = self.lexemes.get(place) else {
            return fail(102, &[&""]);
        };
        let stop = match &lexeme.token {
            Token::Word(word) if is_keyword(word) => fail(156, &[word]),
            Token::Word(text) | Token::Name(text) | Token::Text(text) | Token::Number(text) => {
                fail(102, &[text])
            }
            Token::Variable(text) | Token::Global(text) => fail(102, &[text]),
            Token::Binary(_) => fail(102, &[&"0x"]),
            Token::Sign(sign) => fail(102, &[sign]),
        };
        at_line(stop, lexeme.line)
    }

    pub(super) fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(found)) if found.eq_ignore_ascii_case(word))
    }

    pub(super) fn is_word_at(&self, ahead: usize, word: &str) -> bool {
        matches!(self.peek_at(ahead), Some(Token::Word(found)) if found.eq_ignore_ascii_case(word))
    }

    /// Steps over the word if it is next.
    pub(super) fn word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.at += usize::from(found);
        found
    }

    /// Steps over all of the words if they are next.
    pub(super) fn words(&mut self, words: &[&str]) -> bool {
        let found = words.iter().enumerate().all(|(ahead, word)| self.is_word_at(ahead, word));
        self.at += if found { words.len() } else { 0 };
        found
    }

    pub(super) fn expect(&mut self, word: &str) -> Outcome<()> {
        if self.word(word) { Ok(()) } else { Err(self.wrong()) }
    }

    pub(super) fn is_sign(&self, sign: &str) -> bool {
        matches!(self.peek(), Some(Token::Sign(found)) if *found == sign)
    }

    pub(super) fn sign(&mut self, sign: &str) -> bool {
        let found = self.is_sign(sign);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect_sign(&mut self, sign: &str) -> Outcome<()> {
        if self.sign(sign) { Ok(()) } else { Err(self.wrong()) }
    }

    /// A name, bracketed or not; a keyword that is not bracketed is none.
    pub(super) fn name(&mut self) -> Outcome<String> {
        let name = match self.peek() {
            Some(Token::Name(name)) => name.clone(),
            Some(Token::Word(word)) if !is_keyword(word) => word.clone(),
            _ => return Err(self.wrong()),
        };
        self.at += 1;
        Ok(name)
    }

    /// A word of an option, in upper case.
    pub(super) fn option(&mut self) -> Outcome<String> {
        match self.peek() {
            Some(Token::Word(word)) => {
                self.at += 1;
                Ok(word.to_uppercase())
            }
            _ => Err(self.wrong()),
        }
    }

    pub(super) fn text(&mut self) -> Outcome<String> {
        match self.peek() {
            Some(Token::Text(text)) => {
                self.at += 1;
                Ok(text.clone())
            }
            _ => Err(self.wrong()),
        }
    }

    /// Names with dots between, in lower case.
    pub(super) fn dotted(&mut self) -> Outcome<String> {
        let mut name = self.name()?.to_lowercase();
        while self.sign(".") {
            name.push('.');
            if !self.is_sign(".") {
                name.push_str(&self.name()?.to_lowercase());
            }
        }
        Ok(name)
    }

    pub(super) fn at_end(&self) -> bool {
        self.at >= self.lexemes.len()
    }

    /// The line of the word that is next.
    pub(super) fn line(&self) -> i32 {
        self.lexemes.get(self.at).map_or(1, |lexeme| lexeme.line)
    }

    /// Bytes of the batch from the word at `from` up to where the parser is.
    pub(super) fn range(&self, from: usize) -> (usize, usize) {
        let start = self.lexemes.get(from).map_or(0, |lexeme| lexeme.start);
        let last = self.at.min(self.lexemes.len()).saturating_sub(1);
        (start, self.lexemes.get(last).map_or(start, |lexeme| lexeme.end))
    }
}

pub(super) fn is_keyword(word: &str) -> bool {
    KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(word))
}

/// The messages with their line.
pub(super) fn at_line(stop: Stop, line: i32) -> Stop {
    match stop {
        Stop::Errors(mut messages) => {
            messages.iter_mut().for_each(|message| message.line = line);
            Stop::Errors(messages)
        }
        Stop::Cancelled => Stop::Cancelled,
    }
}
