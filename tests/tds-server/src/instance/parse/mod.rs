//! From a batch's text to its statements. What is not modelled is refused here, by name.

mod alter;
mod backup;
mod create;
mod cursor;
mod expression;
mod query;
mod security;

use cursor::{Cursor, at_line, is_keyword};

use super::ast::Statement;
use super::catalogue::{Outcome, Stop, fail};
use super::lex::{Token, lex};

/// A statement with its place in the batch.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub statement: Statement,
    pub line: i32,
    pub text: String,
}

/// Parses a batch. Errors: 102, 105, 113, 156, 155 as SQL Server; 50001 and 50002 for what is not modelled.
pub(crate) fn batch(sql: &str) -> Outcome<Vec<Placed>> {
    let lexemes = lex(sql)?;
    let mut cursor = Cursor::new(&lexemes);
    let mut statements = Vec::new();
    loop {
        while cursor.sign(";") {}
        if cursor.at_end() {
            return Ok(statements);
        }
        let (from, line) = (cursor.at, cursor.line());
        let statement = statement(&mut cursor).map_err(|stop| with_line(stop, line))?;
        let (start, end) = cursor.range(from);
        statements.push(Placed { statement, line, text: sql[start..end].to_owned() });
    }
}

/// Keeps a line that the error has already.
fn with_line(stop: Stop, line: i32) -> Stop {
    match &stop {
        Stop::Errors(messages) if messages.iter().all(|message| message.line == 1) => at_line(stop, line),
        _ => stop,
    }
}

fn statement(cursor: &mut Cursor<'_>) -> Outcome<Statement> {
    let Some(Token::Word(first)) = cursor.peek() else {
        return Err(cursor.wrong());
    };
    let first = first.to_uppercase();
    if first == "SELECT" {
        return query::select(cursor).map(Statement::Select);
    }
    cursor.at += 1;
    match first.as_str() {
        "USE" => cursor.name().map(Statement::Use),
        "SET" => set(cursor),
        "DECLARE" => declare(cursor),
        "PRINT" => expression::expression(cursor).map(Statement::Print),
        "IF" => choice(cursor),
        "CREATE" => create::create(cursor),
        "ALTER" => alter::alter(cursor),
        "DROP" => create::drop(cursor),
        "BACKUP" => backup::backup(cursor),
        "RESTORE" => backup::restore(cursor),
        "DBCC" => dbcc(cursor),
        "KILL" => expression::expression(cursor).map(Statement::Kill),
        "WAITFOR" => {
            cursor.expect("DELAY")?;
            expression::expression(cursor).map(|delay| Statement::WaitFor { delay })
        }
        "EXEC" | "EXECUTE" => execute(cursor),
        "INSERT" => insert(cursor),
        "BEGIN" => begin(cursor),
        "COMMIT" | "ROLLBACK" => {
            let _word = cursor.word("TRANSACTION") || cursor.word("TRAN") || cursor.word("WORK");
            if matches!(cursor.peek(), Some(Token::Name(_))) || is_plain_name(cursor) {
                cursor.at += 1;
            }
            Ok(if first == "COMMIT" { Statement::Commit } else { Statement::Rollback })
        }
        "GRANT" | "REVOKE" | "DENY" => security::grant(cursor, &first).map(Statement::Security),
        _ => Err(not_modelled(cursor, &first)),
    }
}

/// IF of one statement, with ELSE or without. The statements stay on the stack of the parser, so it counts as depth.
fn choice(cursor: &mut Cursor<'_>) -> Outcome<Statement> {
    cursor.depth += 1;
    if cursor.depth > cursor::DEPTH_MAX {
        return Err(fail(50_002, &[&"IF this deep"]));
    }
    let condition = expression::expression(cursor)?;
    let then = Box::new(statement(cursor)?);
    let otherwise = if cursor.word("ELSE") { Some(Box::new(statement(cursor)?)) } else { None };
    cursor.depth -= 1;
    Ok(Statement::If { condition, then, otherwise })
}

/// A name after COMMIT that is no beginning of the next statement.
fn is_plain_name(cursor: &Cursor<'_>) -> bool {
    matches!(cursor.peek(), Some(Token::Word(word)) if !is_keyword(word) && !word.eq_ignore_ascii_case("WAITFOR"))
}

/// 102 where SQL Server knows no such statement either, 50001 where it does.
fn not_modelled(cursor: &mut Cursor<'_>, first: &str) -> Stop {
    let known = [
        "WHILE",
        "UPDATE",
        "DELETE",
        "MERGE",
        "TRUNCATE",
        "WITH",
        "RETURN",
        "THROW",
        "RAISERROR",
        "GOTO",
        "SAVE",
        "CHECKPOINT",
        "SHUTDOWN",
        "RECONFIGURE",
        "ENABLE",
        "DISABLE",
        "OPEN",
        "CLOSE",
        "FETCH",
        "DEALLOCATE",
        "BULK",
    ];
    cursor.at -= 1;
    if known.contains(&first) { fail(50_001, &[&first]) } else { cursor.wrong() }
}

/// SET of a variable, or of an option that clients send.
fn set(cursor: &mut Cursor<'_>) -> Outcome<Statement> {
    if let Some(Token::Variable(variable)) = cursor.peek() {
        cursor.at += 1;
        cursor.expect_sign("=")?;
        return Ok(Statement::Assign { variable: variable.clone(), value: expression::expression(cursor)? });
    }
    let option = cursor.option()?;
    let switches = [
        "NOCOUNT",
        "ANSI_NULLS",
        "ANSI_PADDING",
        "ANSI_WARNINGS",
        "ANSI_NULL_DFLT_ON",
        "ARITHABORT",
        "XACT_ABORT",
        "QUOTED_IDENTIFIER",
        "CONCAT_NULL_YIELDS_NULL",
        "IMPLICIT_TRANSACTIONS",
        "CURSOR_CLOSE_ON_COMMIT",
        "NUMERIC_ROUNDABORT",
    ];
    if switches.contains(&option.as_str()) {
        while cursor.sign(",") {
            cursor.option()?;
        }
        return if cursor.word("ON") || cursor.word("OFF") {
            Ok(Statement::Nothing)
        } else {
            Err(cursor.wrong())
        };
    }
    match option.as_str() {
        "LOCK_TIMEOUT" | "TEXTSIZE" | "ROWCOUNT" | "DATEFIRST" | "DEADLOCK_PRIORITY" => {
            expression::expression(cursor)?;
        }
        "LANGUAGE" | "DATEFORMAT" => {
            cursor.next();
        }
        "TRANSACTION" => {
            cursor.expect("ISOLATION")?;
            cursor.expect("LEVEL")?;
            cursor.option()?;
            let _second = cursor.word("COMMITTED") || cursor.word("UNCOMMITTED");
        }
        _ => return Err(fail(50_001, &[&format!("SET {option}")])),
    }
    Ok(Statement::Nothing)
}

fn declare(cursor: &mut Cursor<'_>) -> Outcome<Statement> {
    let Some(Token::Variable(variable)) = cursor.next() else {
        return Err(cursor.wrong());
    };
    cursor.word("AS");
    let kind = expression::type_name(cursor)?;
    let value = if cursor.sign("=") { Some(expression::expression(cursor)?) } else { None };
    Ok(Statement::Declare { variable: variable.clone(), kind, value })
}

fn dbcc(cursor: &mut Cursor<'_>) -> Outcome<Statement> {
    let command = cursor.option()?;
    if command != "CHECKDB" {
        return Err(fail(50_001, &[&format!("DBCC {command}")]));
    }
    cursor.expect_sign("(")?;
    let name = if matches!(cursor.peek(), Some(Token::Text(_))) { cursor.text()? } else { cursor.name()? };
    cursor.expect_sign(")")?;
    let mut no_infomsgs = false;
    if cursor.word("WITH") {
        loop {
            match cursor.option()?.as_str() {
                "NO_INFOMSGS" => no_infomsgs = true,
                "ALL_ERRORMSGS" | "PHYSICAL_ONLY" | "DATA_PURITY" | "TABLOCK" | "EXTENDED_LOGICAL_CHECKS" => {
                }
                other => return Err(fail(155, &[&other, &"DBCC"])),
            }
            if !cursor.sign(",") {
                break;
            }
        }
    }
    Ok(Statement::CheckDb { name, no_infomsgs })
}

/// EXEC of the one procedure that is modelled.
fn execute(cursor: &mut Cursor<'_>) -> Outcome<Statement> {
    let name = cursor.dotted()?;
    if name.rsplit('.').next() != Some("sp_detach_db") {
        return Err(fail(50_001, &[&format!("EXEC {name}")]));
    }
    let mut database = None;
    loop {
        let parameter = match (cursor.peek(), cursor.peek_at(1)) {
            (Some(Token::Variable(name)), Some(Token::Sign("="))) => {
                cursor.at += 2;
                name.to_lowercase()
            }
            _ if database.is_none() => "@dbname".to_owned(),
            _ => "@skipchecks".to_owned(),
        };
        let value = expression::expression(cursor)?;
        match parameter.as_str() {
            "@dbname" => database = Some(value),
            "@skipchecks" | "@keepfulltextindexfile" => {}
            other => return Err(fail(50_002, &[&format!("{other} of sp_detach_db")])),
        }
        if !cursor.sign(",") {
            break;
        }
    }
    database.map(|name| Statement::Detach { name }).ok_or_else(|| cursor.wrong())
}

fn insert(cursor: &mut Cursor<'_>) -> Outcome<Statement> {
    cursor.word("INTO");
    let table = cursor.dotted()?;
    let parts: Vec<&str> = table.split('.').collect();
    let database = match parts[..] {
        ["transactions"] | ["dbo", "transactions"] => None,
        [database, "dbo" | "", "transactions"] => Some(database.to_owned()),
        _ => return Err(fail(208, &[&table])),
    };
    if cursor.sign("(") {
        let column = cursor.name()?;
        if !column.eq_ignore_ascii_case("name") {
            return Err(fail(207, &[&column]));
        }
        cursor.expect_sign(")")?;
    }
    cursor.expect("VALUES")?;
    let mut names = Vec::new();
    loop {
        cursor.expect_sign("(")?;
        let values = expression::list(cursor)?;
        let [value] = <[_; 1]>::try_from(values).map_err(|_| fail(213, &[]))?;
        names.push(value);
        if !cursor.sign(",") {
            return Ok(Statement::Insert { database, names });
        }
    }
}

fn begin(cursor: &mut Cursor<'_>) -> Outcome<Statement> {
    if !cursor.word("TRANSACTION") && !cursor.word("TRAN") {
        return Err(fail(50_001, &[&"BEGIN … END"]));
    }
    let named = matches!(cursor.peek(), Some(Token::Name(_))) || is_plain_name(cursor);
    let name = if named { cursor.name()? } else { String::new() };
    let mut mark = None;
    if cursor.words(&["WITH", "MARK"]) {
        let described = matches!(cursor.peek(), Some(Token::Text(_)));
        mark = Some((name, if described { cursor.text()? } else { String::new() }));
    }
    Ok(Statement::Begin { mark })
}
