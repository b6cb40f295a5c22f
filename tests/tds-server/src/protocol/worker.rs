//! The thread that a connection's session lives on: batches block, so they run here while the connection goes on reading
//! for an attention. The thread ends, and the session with it, when its connection lets go of it.

use std::io;
use std::sync::Arc;
use std::sync::mpsc as thread_mpsc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{mpsc, oneshot};

use crate::reply::{Login, Message, Parameter, Part, Server, Session};

/// Parts that a session may be ahead of its connection.
const PARTS_WAITING_MAX: usize = 8;

/// Whether a client took its request back, for those who wait for something else.
#[derive(Debug, Default)]
pub(super) struct Cancel {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl Cancel {
    pub(super) fn set(&self) {
        *self.is_set.lock() = true;
        self.changed.notify_all();
    }

    fn is_set(&self) -> bool {
        *self.is_set.lock()
    }

    /// Waits for so long, or until it is set.
    fn wait(&self, duration: Duration) {
        let mut is_set = self.is_set.lock();
        self.changed.wait_while_for(&mut is_set, |is_set| !*is_set, duration);
    }
}

/// Sets its cancel when it goes, so that no batch outlives the one who asked for it.
#[derive(Debug)]
pub(super) struct CancelOnDrop(pub(super) Arc<Cancel>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// What comes from a batch that runs.
#[derive(Debug)]
pub(super) enum Event {
    Part(Part),
    /// The batch is over, in order. Without it the session is lost.
    End,
}

/// What a session says of itself at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) version: (u8, u8, u16),
    pub(super) database: String,
}

/// A batch to run.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) sql: String,
    pub(super) parameters: Vec<Parameter>,
    /// Before it begins.
    pub(super) delay: Duration,
    pub(super) cancel: Arc<Cancel>,
}

enum Order {
    Login(Login, oneshot::Sender<Result<Greeting, Message>>),
    Batch(Batch, mpsc::Sender<Event>),
}

/// The thread of one connection.
#[derive(Debug)]
pub(super) struct Worker {
    orders: thread_mpsc::Sender<Order>,
    ended: oneshot::Receiver<()>,
}

impl Worker {
    /// # Errors
    ///
    /// When the system gives no thread.
    pub(super) fn start(server: Arc<dyn Server>) -> io::Result<Self> {
        let (orders, received) = thread_mpsc::channel();
        let (end, ended) = oneshot::channel();
        thread::Builder::new().name("tds session".to_owned()).spawn(move || {
            let mut session = None;
            for order in received {
                match order {
                    Order::Login(login, answer) => {
                        // The old one lets go of what it holds before there is a new one.
                        session = None;
                        let opened = server.login(&login).map(|opened| {
                            let greeting =
                                Greeting { version: opened.version(), database: opened.database() };
                            session = Some(opened);
                            greeting
                        });
                        // A connection that is gone needs no answer.
                        let _ = answer.send(opened);
                    }
                    Order::Batch(batch, events) => {
                        if let Some(session) = &mut session {
                            run(session.as_mut(), batch, &events);
                        }
                    }
                }
            }
            drop(session);
            let _ = end.send(());
        })?;
        Ok(Self { orders, ended })
    }

    /// Opens a session, in place of the one that was there. `None` when the thread is gone.
    pub(super) async fn login(&self, login: Login) -> Option<Result<Greeting, Message>> {
        let (answer, received) = oneshot::channel();
        self.orders.send(Order::Login(login, answer)).ok()?;
        received.await.ok()
    }

    /// Starts a batch; its parts come out of what is returned, and nothing more when the thread is gone.
    pub(super) fn batch(&self, batch: Batch) -> mpsc::Receiver<Event> {
        let (events, received) = mpsc::channel(PARTS_WAITING_MAX);
        // When the thread is gone `events` is dropped, and the receiver sees an end without `End`.
        let _ = self.orders.send(Order::Batch(batch, events));
        received
    }

    /// Lets the session go and waits until it is gone.
    pub(super) async fn end(self) {
        drop(self.orders);
        // A thread that panicked has dropped its sender.
        let _ = self.ended.await;
    }
}

fn run(session: &mut dyn Session, batch: Batch, events: &mpsc::Sender<Event>) {
    let Batch { sql, parameters, delay, cancel } = batch;
    cancel.wait(delay);
    if !cancel.is_set() {
        session.batch(&sql, &parameters, &mut |part| {
            let wait = if let Part::Wait(duration) = part { duration } else { Duration::ZERO };
            let is_read = events.blocking_send(Event::Part(part)).is_ok();
            if is_read {
                cancel.wait(wait);
            }
            is_read && !cancel.is_set()
        });
    }
    // A connection that is gone needs no end.
    let _ = events.blocking_send(Event::End);
}
