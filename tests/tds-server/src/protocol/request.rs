//! Requests of a client, as bytes: batches, calls of procedures, transaction requests. What they do is for others.

use super::cursor::{Cursor, utf16};
use super::error::{CALLS_MAX, PARAMETERS_MAX, ProtocolError, Result};
use super::parameter;
use crate::reply::{Message, Value};

/// In place of the length of a procedure's name: a number follows.
const PROCEDURE_BY_ID: u16 = 0xFFFF;
/// Between two calls: 0xFF since 7.2, 0x80 before, 0xFE when the call is not to be run.
const CALL_SEPARATORS: [u8; 3] = [0xFF, 0x80, 0xFE];
const FLAG_OUTPUT: u8 = 0x01;

/// Batches that a driver sends of itself, which change nothing here: before Microsoft's ODBC driver gives a connection of
/// its pool out again, it sets the isolation level that a session begins with.
const DRIVER_BATCHES: [&str; 1] = ["SET TRANSACTION ISOLATION LEVEL READ COMMITTED"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Procedure {
    Id(u16),
    Name(String),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Argument {
    /// Empty when it is known by its place.
    pub(super) name: String,
    pub(super) is_output: bool,
    pub(super) value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    pub(super) procedure: Procedure,
    pub(super) arguments: Vec<Argument>,
}

/// Why calls could not be read.
#[derive(Debug)]
pub(super) enum CallsError {
    /// The connection is out of step.
    Protocol(ProtocolError),
    /// The client is told, and may go on.
    Refused(Message),
}

impl From<ProtocolError> for CallsError {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

/// The text of a batch.
pub(super) fn batch(payload: &[u8]) -> Result<String> {
    let mut cursor = Cursor::new("SQL batch", payload);
    skip_headers(&mut cursor)?;
    utf16(cursor.object(), cursor.rest())
}

/// Whether no user has written this batch.
pub(super) fn is_of_driver(sql: &str) -> bool {
    DRIVER_BATCHES.iter().any(|batch| sql.trim().eq_ignore_ascii_case(batch))
}

/// The calls of an RPC message, at least one.
pub(super) fn calls(payload: &[u8]) -> std::result::Result<Vec<Call>, CallsError> {
    let mut cursor = Cursor::new("RPC", payload);
    skip_headers(&mut cursor)?;
    let mut calls = Vec::new();
    loop {
        if calls.len() >= CALLS_MAX {
            let over =
                ProtocolError::OverBound { object: "RPC calls", value: calls.len() + 1, max: CALLS_MAX };
            return Err(over.into());
        }
        calls.push(call(&mut cursor)?);
        // A separator may also stand after the last call.
        match cursor.peek() {
            Some(_) => cursor.take(1)?,
            None => return Ok(calls),
        };
        if cursor.is_empty() {
            return Ok(calls);
        }
    }
}

fn call(cursor: &mut Cursor<'_>) -> std::result::Result<Call, CallsError> {
    let procedure = match cursor.u16()? {
        PROCEDURE_BY_ID => Procedure::Id(cursor.u16()?),
        units => Procedure::Name(cursor.utf16(usize::from(units))?),
    };
    // Recompile, no metadata, reuse metadata: hints.
    cursor.u16()?;
    let mut arguments = Vec::new();
    while cursor.peek().is_some_and(|next| !CALL_SEPARATORS.contains(&next)) {
        if arguments.len() >= PARAMETERS_MAX {
            let value = arguments.len() + 1;
            return Err(
                ProtocolError::OverBound { object: "RPC parameters", value, max: PARAMETERS_MAX }.into()
            );
        }
        let name = cursor.short_utf16()?;
        let flags = cursor.u8()?;
        let value = match parameter::value(cursor)? {
            Ok(value) => value,
            Err(kind) => return Err(CallsError::Refused(unknown_type(arguments.len() + 1, &name, kind))),
        };
        arguments.push(Argument { name, is_output: flags & FLAG_OUTPUT != 0, value });
    }
    Ok(Call { procedure, arguments })
}

/// Error 8009, as SQL Server words it.
fn unknown_type(place: usize, name: &str, kind: u8) -> Message {
    let text = format!(
        "The incoming tabular data stream (TDS) remote procedure call (RPC) protocol stream is incorrect. \
         Parameter {place} (\"{name}\"): Data type 0x{kind:02X} is unknown."
    );
    Message { number: 8009, class: 16, state: 1, text, line: 1 }
}

/// `ALL_HEADERS`: their lengths are checked, what they say is of no use here.
pub(super) fn skip_headers(cursor: &mut Cursor<'_>) -> Result<()> {
    let total = cursor.u32()? as usize;
    let length =
        total.checked_sub(4).ok_or_else(|| cursor.unexpected(total as u64, "4 or more bytes of headers"))?;
    let mut headers = Cursor::new("ALL_HEADERS", cursor.take(length)?);
    while !headers.is_empty() {
        let length = headers.u32()?;
        match length.checked_sub(4) {
            // Two bytes say what kind of header it is.
            Some(rest) if rest >= 2 => headers.take(rest as usize)?,
            _ => return Err(headers.unexpected(length, "a header of 6 bytes or more")),
        };
    }
    Ok(())
}

/// What a client asks of its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transaction {
    Begin,
    Commit {
        and_begin: bool,
    },
    Rollback {
        and_begin: bool,
    },
    Save,
    /// Distributed transactions.
    Distributed(u16),
}

pub(super) fn transaction(payload: &[u8]) -> Result<Transaction> {
    let mut cursor = Cursor::new("transaction request", payload);
    skip_headers(&mut cursor)?;
    let request = cursor.u16()?;
    let and_begin = |cursor: &mut Cursor<'_>| -> Result<bool> {
        cursor.short_utf16()?;
        Ok(cursor.u8()? & 1 != 0)
    };
    match request {
        0 | 1 | 6 => Ok(Transaction::Distributed(request)),
        5 => Ok(Transaction::Begin),
        7 => Ok(Transaction::Commit { and_begin: and_begin(&mut cursor)? }),
        8 => Ok(Transaction::Rollback { and_begin: and_begin(&mut cursor)? }),
        9 => Ok(Transaction::Save),
        other => Err(cursor.unexpected(other, "a transaction request of MS-TDS")),
    }
}
