//! One logged-in connection: requests in, answers out, one at a time, with an eye on the client while a batch runs.

use std::sync::Arc;

use tokio::io::AsyncWriteExt;

use super::answer::{Answer, FATAL_CLASS};
use super::error::{MESSAGE_BYTES_MAX, ProtocolError, Result};
use super::faults::Fault;
use super::handshake::{LoggedIn, Shared, log_in, send_garbage};
use super::packet::{Message, kind, status};
use super::procedure::{Prepared, Statement};
use super::request::{self, CallsError, Transaction};
use super::token::Change;
use super::wire::Wire;
use super::worker::{Batch, Cancel, CancelOnDrop, Event, Worker};
use crate::reply::{self, Part};

/// How an answer went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    /// An attention came: it is acknowledged in place of the rest.
    Cancelled,
}

/// A connection from its first byte to its last.
///
/// # Errors
///
/// Whatever ended it out of order; a client that disconnects between requests is in order.
pub(super) async fn serve(shared: &Shared, wire: Wire, worker: &Worker) -> Result<()> {
    let client = tokio::time::timeout(super::listener::LOGIN_TIME_MAX, log_in(shared, wire, worker))
        .await
        .map_err(|_| ProtocolError::LoginTimeout)??;
    Connection {
        shared,
        worker,
        client,
        prepared: Prepared::default(),
        transaction: None,
        last_transaction: 0,
    }
    .run()
    .await
}

struct Connection<'a> {
    shared: &'a Shared,
    worker: &'a Worker,
    client: LoggedIn,
    prepared: Prepared,
    transaction: Option<u64>,
    last_transaction: u64,
}

impl Connection<'_> {
    async fn run(&mut self) -> Result<()> {
        while let Some(message) =
            self.client.reader.message(&mut self.client.stream, MESSAGE_BYTES_MAX).await?
        {
            if message.kind == kind::ATTENTION {
                // Its request is answered already, or was never whole.
                self.answer().end_cancelled().finish(&mut self.client.stream).await?;
                continue;
            }
            if let Some(garbage) = self.shared.faults.take_garbage() {
                return Err(send_garbage(&mut self.client.stream, &garbage).await);
            }
            let mut answer = self.answer();
            let resets = status::RESET_CONNECTION | status::RESET_CONNECTION_KEEP_TRANSACTION;
            if message.status & resets != 0 {
                self.reset(&mut answer).await?;
            }
            let outcome = match answer.fatal() {
                None => self.request(&mut answer, &message).await?,
                Some(_) => Outcome::Done,
            };
            let fatal = answer.fatal();
            let packets = if outcome == Outcome::Cancelled { answer.end_cancelled() } else { answer.end() };
            packets.finish(&mut self.client.stream).await?;
            if let Some(number) = fatal {
                self.client.stream.shutdown().await?;
                return Err(ProtocolError::Fatal { number });
            }
        }
        Ok(())
    }

    fn answer(&self) -> Answer {
        let login = &self.client.login;
        Answer::new(login.packet_bytes, &self.shared.server_name, login.version.has_null_bitmaps())
    }

    async fn request(&mut self, answer: &mut Answer, message: &Message) -> Result<Outcome> {
        match message.kind {
            kind::BATCH => {
                let sql = request::batch(&message.payload)?;
                if request::is_of_driver(&sql) {
                    return Ok(Outcome::Done);
                }
                self.statement(answer, Statement { sql, parameters: Vec::new() }).await
            }
            kind::RPC => self.calls(answer, &message.payload).await,
            kind::TRANSACTION => {
                self.transaction(answer, request::transaction(&message.payload)?)?;
                Ok(Outcome::Done)
            }
            other => Err(ProtocolError::Unexpected {
                object: "packet kind",
                found: u64::from(other),
                expected: "a batch, a call or a transaction request",
            }),
        }
    }

    /// A session as after the login, in place of the one that a pool had used.
    async fn reset(&mut self, answer: &mut Answer) -> Result<()> {
        self.prepared = Prepared::default();
        self.transaction = None;
        answer.change(&Change::Reset)?;
        let login = self.client.login.login.clone();
        let opened = self.worker.login(login).await.ok_or(ProtocolError::SessionLost)?;
        match opened {
            Ok(greeting) => {
                let old = std::mem::replace(&mut self.client.database, greeting.database);
                if old != self.client.database {
                    answer.change(&Change::Database { new: &self.client.database, old: &old })?;
                }
                Ok(())
            }
            // There is no session any more, whatever the class of this error is.
            Err(message) => {
                answer.message(&reply::Message { class: message.class.max(FATAL_CLASS), ..message })
            }
        }
    }

    async fn calls(&mut self, answer: &mut Answer, payload: &[u8]) -> Result<Outcome> {
        let calls = match request::calls(payload) {
            Ok(calls) => calls,
            Err(CallsError::Protocol(error)) => return Err(error),
            Err(CallsError::Refused(message)) => {
                answer.begin_procedure();
                answer.message(&message)?;
                answer.end_procedure(None)?;
                return Ok(Outcome::Done);
            }
        };
        for call in calls {
            answer.begin_procedure();
            let returned = match self.prepared.plan(call) {
                Ok(plan) => {
                    if let Some(statement) = plan.statement
                        && self.statement(answer, statement).await? == Outcome::Cancelled
                    {
                        return Ok(Outcome::Cancelled);
                    }
                    plan.returned
                }
                Err(message) => {
                    answer.message(&message)?;
                    None
                }
            };
            answer.end_procedure(returned.as_ref())?;
        }
        Ok(Outcome::Done)
    }

    /// Runs a statement on the session's thread, and answers with its parts as they come.
    async fn statement(&mut self, answer: &mut Answer, statement: Statement) -> Result<Outcome> {
        let Statement { sql, parameters } = statement;
        let cancel = Arc::new(Cancel::default());
        let _until_answered = CancelOnDrop(Arc::clone(&cancel));
        let mut delay = self.shared.faults.delay();
        match self.shared.faults.take_at(&sql) {
            None => {}
            Some(Fault::CutAfter(bytes)) => self.client.stream.cut_after(bytes),
            Some(Fault::Delay(more)) => delay += more,
            Some(Fault::Garbage(garbage)) => {
                return Err(send_garbage(&mut self.client.stream, &garbage).await);
            }
        }
        let mut events = self.worker.batch(Batch { sql, parameters, delay, cancel: Arc::clone(&cancel) });
        let mut outcome = Outcome::Done;
        loop {
            let event = tokio::select! {
                biased;
                packet = self.client.reader.packet(&mut self.client.stream) => {
                    attention(packet)?;
                    outcome = Outcome::Cancelled;
                    cancel.set();
                    continue;
                }
                event = events.recv() => event,
            };
            match event {
                None => return Err(ProtocolError::SessionLost),
                Some(Event::End) => return Ok(outcome),
                // What a cancelled session still says is not told.
                Some(Event::Part(_)) if outcome == Outcome::Cancelled => {}
                Some(Event::Part(part)) => {
                    outcome = self.part(answer, part).await?;
                    if outcome == Outcome::Cancelled {
                        cancel.set();
                    }
                }
            }
        }
    }

    async fn part(&mut self, answer: &mut Answer, part: Part) -> Result<Outcome> {
        match part {
            Part::Rows { columns, rows } => {
                answer.begin_rows(&columns)?;
                for row in rows {
                    answer.row(&columns, &row)?;
                    if answer.packets.send_full(&mut self.client.stream).await? && self.is_cancelled().await?
                    {
                        return Ok(Outcome::Cancelled);
                    }
                }
                answer.end_rows();
            }
            Part::Count(count) => answer.count(count),
            Part::Message(message) => answer.message(&message)?,
            Part::Database(new) => {
                answer.change(&Change::Database { new: &new, old: &self.client.database })?;
                self.client.database = new;
            }
            // What was said before it is seen before it.
            Part::Wait(_) => answer.packets.flush(&mut self.client.stream).await?,
        }
        Ok(Outcome::Done)
    }

    /// Whether an attention has come by now.
    async fn is_cancelled(&mut self) -> Result<bool> {
        tokio::select! {
            biased;
            packet = self.client.reader.packet(&mut self.client.stream) => attention(packet).map(|()| true),
            () = std::future::ready(()) => Ok(false),
        }
    }

    fn transaction(&mut self, answer: &mut Answer, request: Transaction) -> Result<()> {
        let refused = |number, text: &str| {
            let text = text.to_owned();
            reply::Message { number, class: 16, state: 1, text, line: 1 }
        };
        match (request, self.transaction) {
            (Transaction::Begin, _) => self.begin(answer),
            (Transaction::Save, _) => Ok(()),
            (Transaction::Commit { and_begin }, Some(transaction)) => {
                self.transaction = None;
                answer.change(&Change::Commit(transaction))?;
                if and_begin { self.begin(answer) } else { Ok(()) }
            }
            (Transaction::Rollback { and_begin }, Some(transaction)) => {
                self.transaction = None;
                answer.change(&Change::Rollback(transaction))?;
                if and_begin { self.begin(answer) } else { Ok(()) }
            }
            (Transaction::Commit { .. }, None) => answer.message(&refused(
                3902,
                "The COMMIT TRANSACTION request has no corresponding BEGIN TRANSACTION.",
            )),
            (Transaction::Rollback { .. }, None) => answer.message(&refused(
                3903,
                "The ROLLBACK TRANSACTION request has no corresponding BEGIN TRANSACTION.",
            )),
            (Transaction::Distributed(_), _) => {
                let text = format!("MSDTC on server '{}' is unavailable.", self.shared.server_name);
                answer.message(&refused(8501, &text))
            }
        }
    }

    fn begin(&mut self, answer: &mut Answer) -> Result<()> {
        self.last_transaction += 1;
        self.transaction = Some(self.last_transaction);
        answer.change(&Change::Begin(self.last_transaction))
    }
}

/// While a request runs, only an attention may come.
fn attention(packet: Result<Option<super::packet::Packet>>) -> Result<()> {
    match packet? {
        None => Err(ProtocolError::Gone),
        Some(packet) if packet.kind == kind::ATTENTION => Ok(()),
        Some(packet) => Err(ProtocolError::Unexpected {
            object: "packet kind",
            found: u64::from(packet.kind),
            expected: "an attention, as a request runs",
        }),
    }
}
