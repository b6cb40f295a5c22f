//! The API's connections: those that come by the control socket, and those by TCP, with TLS or without.
//!
//! All are served by one small runtime; a connection holds no thread. What a request may do is the API's to decide:
//! here it is only said by which way the request came.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::tls;
use super::{Listen, Tls};
use crate::api::{Via, router};
use crate::base::{Error, ErrorKind, Result};
use crate::control::HttpHandler;
use crate::engine::Engine;

/// Connections served at a time over TCP; the next one is closed at once.
const CONNECTIONS_MAX: usize = 256;
/// A peer that takes nothing of what was sent for so long is gone.
const USER_TIMEOUT_MILLISECONDS: u32 = 30_000;
/// How long a client may take for its TLS handshake, and for the head of a request.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long answers may take at the end.
const END_TIME: Duration = Duration::from_secs(5);
/// A host that is out of descriptors gets better by waiting only.
const ACCEPT_WAIT: Duration = Duration::from_millis(100);

/// The API's runtime, with its listener.
pub(super) struct Http {
    runtime: Runtime,
    router: Router,
    ending: Ending,
    listening: Option<(String, JoinHandle<()>)>,
}

/// Tells every connection of the end; nothing is left of it when that has been told.
type Ending = Arc<Mutex<Option<GracefulShutdown>>>;

impl Http {
    pub(super) fn new(engine: &Arc<Engine>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("api")
            .enable_all()
            .build()
            .map_err(|e| Error::io("start", "the API's runtime", e))?;
        let router = router(Arc::clone(engine));
        let ending = Arc::new(Mutex::new(Some(GracefulShutdown::new())));
        Ok(Self { runtime, router, ending, listening: None })
    }

    /// What takes a connection of the control socket.
    pub(super) fn handler(&self) -> HttpHandler {
        let runtime = self.runtime.handle().clone();
        let router = self.router.clone().layer(Extension(Via::ControlSocket));
        let ending = Arc::clone(&self.ending);
        Arc::new(move |stream| {
            stream.set_nonblocking(true).map_err(|e| Error::io("set up", "an API connection", e))?;
            let _inside = runtime.enter();
            let stream =
                UnixStream::from_std(stream).map_err(|e| Error::io("set up", "an API connection", e))?;
            runtime.spawn(serve(stream, router.clone(), Arc::clone(&ending)));
            Ok(())
        })
    }

    /// Listens on TCP. The address of the result has the port that was chosen for 0.
    pub(super) fn listen(&mut self, listen: &Listen) -> Result<()> {
        let tls = listen.tls.as_ref().map(tls::acceptor).transpose()?;
        let address = listen.address;
        let listener =
            self.runtime.block_on(TcpListener::bind(address)).map_err(|e| cannot_listen(address, e))?;
        let bound = listener.local_addr().map_err(|e| cannot_listen(address, e))?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let router = self.router.clone().layer(Extension(Via::Network));
        let accepting = self.runtime.spawn(accept(listener, tls, router, Arc::clone(&self.ending)));
        self.listening = Some((format!("{scheme}://{bound}"), accepting));
        Ok(())
    }

    /// Where the API is, as an address for clients.
    pub(super) fn url(&self) -> Option<&str> {
        self.listening.as_ref().map(|(url, _)| url.as_str())
    }

    /// Takes no more connections over TCP.
    pub(super) fn close(&self) {
        if let Some((_, accepting)) = &self.listening {
            accepting.abort();
        }
    }

    /// Lets the requests that run be answered, for a while, and ends.
    pub(super) fn stop(self) {
        let Some(graceful) = self.ending.lock().take() else { return };
        let ended =
            self.runtime.block_on(async { tokio::time::timeout(END_TIME, graceful.shutdown()).await });
        if ended.is_err() {
            tracing::warn!("API requests that took too long were not answered");
        }
        self.runtime.shutdown_timeout(END_TIME);
    }
}

/// Refuses what would let passwords and tokens pass the network in clear.
pub(super) fn check_listen(address: SocketAddr, tls: Option<&Tls>) -> Result<()> {
    if tls.is_some() || address.ip().is_loopback() {
        return Ok(());
    }
    Err(Error::invalid(format!("listening at {address} without TLS would show tokens to the network"))
        .with_hint("name --tls-certificate and --tls-key, or listen at 127.0.0.1 and forward from there"))
}

fn cannot_listen(address: SocketAddr, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::AddrInUse => ErrorKind::InUse,
        _ => ErrorKind::Io,
    };
    Error::with_source(kind, format!("cannot listen at {address}: {error}"), error)
        .with_hint("name another address with --listen; port 0 takes a free one")
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, router: Router, ending: Ending) {
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::warn!("the API cannot accept a connection: {e}");
                tokio::time::sleep(ACCEPT_WAIT).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&free).try_acquire_owned() else {
            tracing::warn!("the API refused {peer}: {CONNECTIONS_MAX} connections are open");
            continue;
        };
        tokio::spawn(serve_tcp(stream, peer, tls.clone(), router.clone(), Arc::clone(&ending), permit));
    }
}

async fn serve_tcp(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    router: Router,
    ending: Ending,
    permit: OwnedSemaphorePermit,
) {
    // Who takes nothing must not keep a connection from others.
    if let Err(e) = rustix::net::sockopt::set_tcp_user_timeout(&stream, USER_TIMEOUT_MILLISECONDS) {
        tracing::debug!("the API's connection from {peer}: {e}");
    }
    // Streams are many small pieces; without it each one waits for the answer to the one before.
    if let Err(e) = stream.set_nodelay(true) {
        tracing::debug!("the API's connection from {peer}: {e}");
    }
    match tls {
        None => serve(stream, router, ending).await,
        Some(tls) => match tokio::time::timeout(HEAD_TIME, tls.accept(stream)).await {
            Ok(Ok(stream)) => serve(stream, router, ending).await,
            Ok(Err(e)) => tracing::debug!("no TLS with {peer}: {e}"),
            Err(_) => tracing::debug!("no TLS with {peer}: too slow"),
        },
    }
    drop(permit);
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router, ending: Ending) {
    let Some(watcher) = ending.lock().as_ref().map(GracefulShutdown::watcher) else { return };
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(e) = watcher.watch(connection).await {
        tracing::debug!("an API connection: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_does_without_tls() {
        for good in ["127.0.0.1:0", "127.8.8.8:7000", "[::1]:7000"] {
            check_listen(good.parse().unwrap(), None).unwrap();
        }
        for bad in ["0.0.0.0:7000", "[::]:7000", "192.0.2.1:7000"] {
            let error = check_listen(bad.parse().unwrap(), None).unwrap_err();
            assert!(error.hint().unwrap().contains("--tls-certificate"), "{error}");
            let tls = Tls { certificate: "c".into(), key: "k".into() };
            check_listen(bad.parse().unwrap(), Some(&tls)).unwrap();
        }
    }
}
