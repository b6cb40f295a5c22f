//! The order of tokens in one answer: parts of a session come in, tokens go out, and every DONE says whether more follows.
//! So the last DONE is held back until it is known what comes after it.

use super::error::Result;
use super::packet::{PacketWriter, kind};
use super::row;
use super::token::{self, Change, Command, DoneKind, done};
use crate::reply::{Column, Message, Value};

/// An error of this class or over it ends the connection.
pub(super) const FATAL_CLASS: u8 = 20;

/// One answer to one request.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) packets: PacketWriter,
    server: String,
    bitmaps: bool,
    /// Of the statements: another inside of a procedure.
    statement: DoneKind,
    held: Option<Done>,
    /// There was an error that no DONE has told yet.
    failed: bool,
    /// The number of the first error since the last procedure began, for its status.
    first_error: Option<i32>,
    /// The number of an error that ends the connection.
    fatal: Option<i32>,
    rows: u64,
}

#[derive(Clone, Copy, Debug)]
struct Done {
    kind: DoneKind,
    status: u16,
    command: Command,
    count: u64,
}

/// What a procedure gives back in its first parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Returned {
    pub(super) name: String,
    pub(super) value: i32,
}

impl Answer {
    pub(super) fn new(packet_bytes: usize, server: &str, bitmaps: bool) -> Self {
        Self {
            packets: PacketWriter::new(kind::ANSWER, packet_bytes),
            server: server.to_owned(),
            bitmaps,
            statement: DoneKind::Statement,
            held: None,
            failed: false,
            first_error: None,
            fatal: None,
            rows: 0,
        }
    }

    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.packets.waiting
    }

    /// Lets go of the held DONE, as something follows it.
    fn go_on(&mut self) {
        if let Some(held) = self.held.take() {
            token::done(self.out(), held.kind, held.status | done::MORE, held.command, held.count);
        }
    }

    fn hold(&mut self, kind: DoneKind, status: u16, command: Command, count: u64) {
        self.go_on();
        self.held = Some(Done { kind, status, command, count });
    }

    /// Ends a statement that failed, before the next one's result.
    fn end_failed(&mut self) {
        if std::mem::take(&mut self.failed) {
            self.hold(self.statement, done::ERROR, Command::None, 0);
        }
    }

    /// The error after which the server ends the connection, if there was one.
    pub(super) fn fatal(&self) -> Option<i32> {
        self.fatal
    }

    pub(super) fn begin_rows(&mut self, columns: &[Column]) -> Result<()> {
        self.end_failed();
        self.go_on();
        self.rows = 0;
        row::columns(self.out(), columns)
    }

    pub(super) fn row(&mut self, columns: &[Column], values: &[Value]) -> Result<()> {
        self.rows += 1;
        let bitmaps = self.bitmaps;
        row::row(self.out(), columns, values, bitmaps)
    }

    pub(super) fn end_rows(&mut self) {
        self.hold(self.statement, done::COUNT, Command::Select, self.rows);
    }

    pub(super) fn count(&mut self, count: u64) {
        self.end_failed();
        self.hold(self.statement, done::COUNT, Command::Update, count);
    }

    pub(super) fn message(&mut self, message: &Message) -> Result<()> {
        self.go_on();
        if token::is_error(message) {
            self.failed = true;
            self.first_error.get_or_insert(message.number);
        }
        if message.class >= FATAL_CLASS {
            self.fatal.get_or_insert(message.number);
        }
        let server = self.server.clone();
        token::message(self.out(), message, &server)
    }

    pub(super) fn change(&mut self, change: &Change<'_>) -> Result<()> {
        self.go_on();
        token::env_change(self.out(), change)
    }

    pub(super) fn begin_procedure(&mut self) {
        self.statement = DoneKind::InProcedure;
        self.first_error = None;
    }

    /// The status of a procedure is 0, or the number of its error.
    pub(super) fn end_procedure(&mut self, returned: Option<&Returned>) -> Result<()> {
        self.end_failed();
        self.go_on();
        let status = self.first_error.unwrap_or(0);
        token::return_status(self.out(), status);
        if let Some(returned) = returned {
            token::return_int(self.out(), 0, &returned.name, returned.value)?;
        }
        let bits = if status == 0 { 0 } else { done::ERROR };
        self.hold(DoneKind::Procedure, bits, Command::Execute, 0);
        Ok(())
    }

    /// The end of what the client asked for; with nothing said so far, that alone.
    pub(super) fn end(mut self) -> PacketWriter {
        let failed = self.failed;
        match self.held.take() {
            Some(held) => token::done(self.out(), held.kind, held.status, held.command, held.count),
            None => {
                let bits = if failed { done::ERROR } else { 0 };
                let kind = self.statement;
                token::done(self.out(), kind, bits, Command::None, 0);
            }
        }
        self.packets
    }

    /// The end when the client cancelled: whatever was under way, this is its acknowledgement.
    pub(super) fn end_cancelled(mut self) -> PacketWriter {
        self.go_on();
        token::done(self.out(), DoneKind::Statement, done::ATTENTION, Command::None, 0);
        self.packets
    }
}
