//! A server that runs: it listens on a free port of 127.0.0.1 on a thread of its own until it is stopped or dropped.

use std::io;
use std::net::{self, Ipv4Addr};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::connection::serve;
use super::error::CONNECTIONS_MAX;
use super::faults::Faults;
use super::handshake::Shared;
use super::prelogin::Encryption;
use super::tls::{self, TlsError};
use super::wire::Wire;
use super::worker::Worker;
use crate::reply::Server;

/// From the first byte of a connection to the answer to its login.
pub(super) const LOGIN_TIME_MAX: Duration = Duration::from_secs(60);
/// What the stop of a server waits for sessions that do not end.
const STOP_TIME_MAX: Duration = Duration::from_secs(30);

/// How a server presents itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub encryption: Encryption,
    /// The name in messages.
    pub server_name: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { encryption: Encryption::default(), server_name: "STILLPOINT".to_owned() }
    }
}

/// Why a server did not start.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("no port could be listened on: {0}")]
    Listen(#[from] io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A server that runs. Dropping it stops it.
#[derive(Debug)]
pub struct Running {
    port: u16,
    certificate: String,
    faults: Arc<Faults>,
    stop: watch::Sender<bool>,
    connections: watch::Receiver<usize>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Listens on 127.0.0.1 at a free port, with a new certificate.
    ///
    /// # Errors
    ///
    /// When there is no port, thread, or certificate to be had.
    pub fn start(server: Arc<dyn Server>, options: Options) -> Result<Self, StartError> {
        let tls = tls::start()?;
        let certificate = tls.pem.clone();
        let faults = Arc::new(Faults::default());
        let Options { encryption, server_name } = options;
        let shared = Arc::new(Shared { encryption, server_name, tls, faults: Arc::clone(&faults) });
        let listener = net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        // Entered and not blocked on: a test may be inside of a runtime of its own.
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let (stop, stopped) = watch::channel(false);
        let (counted, connections) = watch::channel(0);
        let listening = Listening { listener, server, shared, stopped, counted };
        let thread = thread::Builder::new().name("tds".to_owned()).spawn(move || run(&runtime, listening))?;
        Ok(Self { port, certificate, faults, stop, connections, thread: Some(thread) })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// PEM, for clients that verify.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// What a test breaks, and reads of what went wrong.
    pub fn faults(&self) -> &Arc<Faults> {
        &self.faults
    }

    /// Connections that are there, logged in or not.
    pub fn connections(&self) -> usize {
        *self.connections.borrow()
    }

    /// Ends all connections and waits for their sessions to end. Sessions that take longer than half a minute stay behind.
    pub fn stop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            self.faults.record(0, "the thread of the server panicked".to_owned());
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Listening {
    listener: TcpListener,
    server: Arc<dyn Server>,
    shared: Arc<Shared>,
    stopped: watch::Receiver<bool>,
    counted: watch::Sender<usize>,
}

fn run(runtime: &Runtime, listening: Listening) {
    let faults = Arc::clone(&listening.shared.faults);
    runtime.block_on(async {
        let mut tasks = accept(listening).await;
        let ended = tokio::time::timeout(STOP_TIME_MAX, async { while tasks.join_next().await.is_some() {} });
        if ended.await.is_err() {
            faults.record(0, format!("sessions did not end within {} s", STOP_TIME_MAX.as_secs()));
        }
    });
}

/// Takes connections until the stop; those that still end then.
async fn accept(listening: Listening) -> JoinSet<()> {
    let Listening { listener, server, shared, mut stopped, counted } = listening;
    let mut tasks = JoinSet::new();
    let mut last = 0;
    loop {
        let accepted = tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => return tasks,
            Some(ended) = tasks.join_next() => {
                if let Err(error) = ended {
                    shared.faults.record(0, format!("a connection was not served to its end: {error}"));
                }
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        last += 1;
        let tcp = match accepted {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                shared.faults.record(last, format!("no connection was taken: {error}"));
                continue;
            }
        };
        if shared.faults.refuses() {
            continue;
        }
        if tasks.len() >= CONNECTIONS_MAX {
            shared.faults.record(last, format!("refused: there are {CONNECTIONS_MAX} connections"));
            continue;
        }
        counted.send_modify(|count| *count += 1);
        let counts = Counted(counted.clone());
        tasks.spawn(connection(last, Arc::clone(&server), Arc::clone(&shared), tcp, stopped.clone(), counts));
    }
}

/// Holds one of the counted connections.
struct Counted(watch::Sender<usize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

async fn connection(
    id: u64,
    server: Arc<dyn Server>,
    shared: Arc<Shared>,
    tcp: TcpStream,
    mut stopped: watch::Receiver<bool>,
    counts: Counted,
) {
    let worker = match Worker::start(server) {
        Ok(worker) => worker,
        Err(error) => return shared.faults.record(id, format!("no thread for the session: {error}")),
    };
    // Answers are written whole, so waiting for more to send would only delay them.
    if let Err(error) = tcp.set_nodelay(true) {
        shared.faults.record(id, format!("the connection failed: {error}"));
    }
    let wire = Wire::new(tcp, Arc::clone(&shared.faults));
    let ended = tokio::select! {
        ended = serve(&shared, wire, &worker) => ended,
        _ = stopped.wait_for(|stopped| *stopped) => Ok(()),
    };
    if let Err(error) = ended {
        shared.faults.record(id, error.to_string());
    }
    // The client has seen the end of its connection; its session may take longer.
    worker.end().await;
    drop(counts);
}
