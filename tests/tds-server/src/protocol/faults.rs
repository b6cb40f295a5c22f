//! What a test can break in a running server, and the log in which it reads what went wrong. Shared by all connections
//! of a server; each fault but the delay of all and the refusal happens once.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;

/// Entries that the log keeps; the oldest go first.
pub const LOG_ENTRIES_MAX: usize = 1024;

/// One connection's end that was not in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Counted from 1 in the order in which clients connected.
    pub connection: u64,
    pub text: String,
}

/// What befalls the answer to one statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its connection ends after it has sent so many bytes more, those on the wire; what other connections send is
    /// not counted.
    CutAfter(u64),
    /// It waits so long before the session sees the statement. An attention ends the wait.
    Delay(Duration),
    /// These bytes come in its place, and the connection ends.
    Garbage(Vec<u8>),
}

#[derive(Debug, Default)]
struct State {
    at_statements: Vec<(String, Fault)>,
    cut_after: Option<u64>,
    sent_bytes: u64,
    delay: Duration,
    refuse: bool,
    garbage: Option<Vec<u8>>,
    log: VecDeque<LogEntry>,
}

/// Thread-safe; set through `Running::faults`.
#[derive(Debug, Default)]
pub struct Faults {
    state: Mutex<State>,
}

impl Faults {
    /// The connection that sends the `bytes`th byte from now on ends right after it, whichever it is; with 0 the first
    /// to send anything ends before it. Bytes are those on the wire, with TLS and packet headers.
    pub fn cut_after(&self, bytes: u64) {
        self.state.lock().cut_after = Some(bytes);
    }

    /// How much was sent on all connections since the start.
    pub fn sent_bytes(&self) -> u64 {
        self.state.lock().sent_bytes
    }

    /// The next statement whose text contains this, on whichever connection, has this fault, once. Several may wait for the
    /// same text: the first that was set comes first.
    pub fn at_statement(&self, containing: &str, fault: Fault) {
        self.state.lock().at_statements.push((containing.to_owned(), fault));
    }

    /// Each login and each statement from now on waits so long before it is looked at. An attention ends the wait.
    pub fn delay_answers(&self, delay: Duration) {
        self.state.lock().delay = delay;
    }

    /// Whether clients are disconnected as they connect. Those that are there stay.
    pub fn refuse_connections(&self, refuse: bool) {
        self.state.lock().refuse = refuse;
    }

    /// The next request is answered by these bytes, as they are, and never reaches its session; the connection ends
    /// after them.
    pub fn answer_garbage(&self, bytes: Vec<u8>) {
        self.state.lock().garbage = Some(bytes);
    }

    /// No fault is set any more. The log and the count of bytes stay.
    pub fn clear(&self) {
        let mut state = self.state.lock();
        *state =
            State { sent_bytes: state.sent_bytes, log: std::mem::take(&mut state.log), ..State::default() };
    }

    /// What ended out of order, oldest first.
    pub fn log(&self) -> Vec<LogEntry> {
        self.state.lock().log.iter().cloned().collect()
    }

    pub(super) fn record(&self, connection: u64, text: String) {
        let mut state = self.state.lock();
        if state.log.len() >= LOG_ENTRIES_MAX {
            state.log.pop_front();
        }
        state.log.push_back(LogEntry { connection, text });
    }

    pub(super) fn delay(&self) -> Duration {
        self.state.lock().delay
    }

    pub(super) fn refuses(&self) -> bool {
        self.state.lock().refuse
    }

    /// The fault of this statement, if there is one.
    pub(super) fn take_at(&self, sql: &str) -> Option<Fault> {
        let mut state = self.state.lock();
        let at = state.at_statements.iter().position(|(containing, _)| sql.contains(containing.as_str()))?;
        Some(state.at_statements.remove(at).1)
    }

    pub(super) fn take_garbage(&self) -> Option<Vec<u8>> {
        self.state.lock().garbage.take()
    }

    /// Counts up to `bytes` as sent, as far as they may be before the cut. They count before they leave, as a client that
    /// has seen them may look at the count or set the next fault.
    pub(super) fn take(&self, bytes: usize) -> Allowance {
        let mut state = self.state.lock();
        let left = state.cut_after.map(|left| usize::try_from(left).unwrap_or(usize::MAX));
        let count = left.unwrap_or(usize::MAX).min(bytes);
        let is_last = left == Some(count);
        state.cut_after = state.cut_after.map(|left| left - count as u64).filter(|_| !is_last);
        state.sent_bytes += count as u64;
        Allowance { count, is_last }
    }

    /// Takes back the count of what could not be sent yet.
    pub(super) fn give_back(&self, allowance: &Allowance, unsent: usize) {
        let mut state = self.state.lock();
        let unsent = unsent as u64;
        state.sent_bytes = state.sent_bytes.saturating_sub(unsent);
        let left = if allowance.is_last { Some(0) } else { state.cut_after };
        state.cut_after = left.map(|left| left.saturating_add(unsent));
    }
}

/// What may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allowance {
    pub(super) count: usize,
    /// The connection ends after it.
    pub(super) is_last: bool,
}
