//! Tokens of an answer, each as its bytes. Which come when is for `answer` and `connection` to know.

use super::error::{ProtocolError, Result};
use super::login::Version;
use crate::reply::Message;

/// The collation that is told for every text: SQL_Latin1_General_CP1_CI_AS.
pub(super) const COLLATION: [u8; 5] = [0x09, 0x04, 0xD0, 0x00, 0x34];

/// A message whose class is over this is an ERROR token.
const INFO_CLASS_MAX: u8 = 10;
/// Text of one message in UTF-16 units; SQL Server's own are shorter.
const MESSAGE_UNITS_MAX: usize = 8000;

/// Bits of the status of DONE, DONEPROC and DONEINPROC.
pub(super) mod done {
    pub(in crate::protocol) const MORE: u16 = 0x0001;
    pub(in crate::protocol) const ERROR: u16 = 0x0002;
    pub(in crate::protocol) const COUNT: u16 = 0x0010;
    pub(in crate::protocol) const ATTENTION: u16 = 0x0020;
}

/// Which of the three ends of a statement it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DoneKind {
    /// Of a statement of a batch.
    Statement = 0xFD,
    /// Of a procedure, after its status.
    Procedure = 0xFE,
    /// Of a statement inside a procedure.
    InProcedure = 0xFF,
}

/// The command that a DONE ends, where clients look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    None = 0x00,
    Select = 0xC1,
    Update = 0xC5,
    Execute = 0xE0,
}

pub(super) fn done(out: &mut Vec<u8>, kind: DoneKind, status: u16, command: Command, count: u64) {
    out.push(kind as u8);
    out.extend_from_slice(&status.to_le_bytes());
    out.extend_from_slice(&(command as u16).to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
}

pub(super) fn is_error(message: &Message) -> bool {
    message.class > INFO_CLASS_MAX
}

/// An ERROR or an INFO token, as its class says.
pub(super) fn message(out: &mut Vec<u8>, message: &Message, server: &str) -> Result<()> {
    let mut body = Vec::new();
    body.extend_from_slice(&message.number.to_le_bytes());
    body.extend_from_slice(&[message.state, message.class]);
    long_text(&mut body, &message.text)?;
    short_text(&mut body, server)?;
    // The procedure: none.
    short_text(&mut body, "")?;
    body.extend_from_slice(&message.line.to_le_bytes());
    out.push(if is_error(message) { 0xAA } else { 0xAB });
    sized(out, &body)
}

/// What an ENVCHANGE tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change<'a> {
    Database {
        new: &'a str,
        old: &'a str,
    },
    Language {
        new: &'a str,
        old: &'a str,
    },
    PacketSize {
        new: usize,
        old: usize,
    },
    Collation,
    Begin(u64),
    Commit(u64),
    Rollback(u64),
    /// The connection was reset as the request asked.
    Reset,
}

pub(super) fn env_change(out: &mut Vec<u8>, change: &Change<'_>) -> Result<()> {
    let mut body = Vec::new();
    match change {
        Change::Database { new, old } => texts(&mut body, 1, new, old)?,
        Change::Language { new, old } => texts(&mut body, 2, new, old)?,
        Change::PacketSize { new, old } => texts(&mut body, 4, &new.to_string(), &old.to_string())?,
        Change::Collation => {
            body.extend_from_slice(&[7, 5]);
            body.extend_from_slice(&COLLATION);
            body.push(0);
        }
        Change::Begin(transaction) => {
            body.extend_from_slice(&[8, 8]);
            body.extend_from_slice(&transaction.to_le_bytes());
            body.push(0);
        }
        Change::Commit(transaction) => ended(&mut body, 9, *transaction),
        Change::Rollback(transaction) => ended(&mut body, 10, *transaction),
        Change::Reset => body.extend_from_slice(&[18, 0, 0]),
    }
    out.push(0xE3);
    sized(out, &body)
}

fn texts(body: &mut Vec<u8>, kind: u8, new: &str, old: &str) -> Result<()> {
    body.push(kind);
    short_text(body, new)?;
    short_text(body, old)
}

/// The transaction is the old value; there is none after it.
fn ended(body: &mut Vec<u8>, kind: u8, transaction: u64) {
    body.extend_from_slice(&[kind, 0, 8]);
    body.extend_from_slice(&transaction.to_le_bytes());
}

pub(super) fn login_ack(
    out: &mut Vec<u8>,
    tds: Version,
    program: &str,
    version: (u8, u8, u16),
) -> Result<()> {
    let (major, minor, build) = version;
    // 1: the interface is T-SQL.
    let mut body = vec![1];
    // Unlike all else in a login, the version is big-endian here.
    body.extend_from_slice(&tds.0.to_be_bytes());
    short_text(&mut body, program)?;
    body.extend_from_slice(&[major, minor]);
    body.extend_from_slice(&build.to_be_bytes());
    out.push(0xAD);
    sized(out, &body)
}

/// Acknowledges no feature: only the end of the list.
pub(super) fn no_features(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xAE, 0xFF]);
}

pub(super) fn return_status(out: &mut Vec<u8>, status: i32) {
    out.push(0x79);
    out.extend_from_slice(&status.to_le_bytes());
}

/// RETURNVALUE of an output parameter that is a nullable `int`.
pub(super) fn return_int(out: &mut Vec<u8>, ordinal: u16, name: &str, value: i32) -> Result<()> {
    out.push(0xAC);
    out.extend_from_slice(&ordinal.to_le_bytes());
    short_text(out, name)?;
    // An output parameter; no user type, no flags.
    out.push(0x01);
    out.extend_from_slice(&[0; 6]);
    out.extend_from_slice(&[0x26, 4, 4]);
    out.extend_from_slice(&value.to_le_bytes());
    Ok(())
}

/// A body behind its length of two bytes.
fn sized(out: &mut Vec<u8>, body: &[u8]) -> Result<()> {
    let length = u16::try_from(body.len()).map_err(|_| {
        ProtocolError::Answer(format!("a token of {} bytes has no two-byte length", body.len()))
    })?;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(body);
    Ok(())
}

/// `B_VARCHAR`: up to 255 units behind a byte that counts them.
pub(super) fn short_text(out: &mut Vec<u8>, text: &str) -> Result<()> {
    let units: Vec<u16> = text.encode_utf16().collect();
    let count = u8::try_from(units.len())
        .map_err(|_| ProtocolError::Answer(format!("{text:?} is longer than 255 units")))?;
    out.push(count);
    out.extend(units.into_iter().flat_map(u16::to_le_bytes));
    Ok(())
}

/// `US_VARCHAR`, cut at the bound of a message's text.
fn long_text(out: &mut Vec<u8>, text: &str) -> Result<()> {
    let units: Vec<u16> = text.encode_utf16().take(MESSAGE_UNITS_MAX).collect();
    let count = u16::try_from(units.len()).map_err(|_| {
        ProtocolError::Answer(format!("a text of {} units has no two-byte length", units.len()))
    })?;
    out.extend_from_slice(&count.to_le_bytes());
    out.extend(units.into_iter().flat_map(u16::to_le_bytes));
    Ok(())
}
