//! The caller's side of the control socket.

use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::operations::{Operations, ProgressSink};
use super::wire::{
    Call, MESSAGE_BYTES_MAX, Message, PROTOCOL_VERSION, Reply, Request, read_line, told_error, write_line,
};
use super::{MOUNT_SOCKET_NAME, SOCKET_NAME};
use crate::base::{Error, ErrorKind, Result};

/// A connection to the process that has a store mounted. Requests on one connection run one after another.
pub struct Client {
    stream: Mutex<BufReader<UnixStream>>,
    peer: Pid,
    /// Open since the connection, so that waiting for the end cannot meet a reused pid.
    peer_handle: OwnedFd,
}

impl Client {
    /// Connects to the daemon of `store`, or to the process that mounts it; `None` when nobody listens there, which also
    /// is the case for the socket a killed process left behind.
    pub fn connect(store: &Path) -> Result<Option<Self>> {
        match Self::connect_to(store, SOCKET_NAME)? {
            Some(client) => Ok(Some(client)),
            None => Self::connect_to(store, MOUNT_SOCKET_NAME),
        }
    }

    /// The same with the one that listens at this socket of the store.
    pub fn connect_to(store: &Path, socket: &str) -> Result<Option<Self>> {
        let stream = match connect_named(store, socket) {
            Ok(stream) => stream,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                return Err(Error::with_source(
                    ErrorKind::NotAllowed,
                    format!(
                        "cannot talk to the process that mounts {}: only root and the store's owner may",
                        store.display()
                    ),
                    e,
                )
                .with_hint("run as root, or as the store's owner"));
            }
            Err(e) => {
                return Err(Error::io("connect to", &store.join(socket).display().to_string(), e));
            }
        };
        let credentials = rustix::net::sockopt::socket_peercred(&stream)
            .map_err(|e| Error::io("identify the process behind", socket, e.into()))?;
        let Ok(peer_handle) = rustix::process::pidfd_open(credentials.pid, PidfdFlags::empty()) else {
            return Ok(None);
        };
        Ok(Some(Self { stream: Mutex::new(BufReader::new(stream)), peer: credentials.pid, peer_handle }))
    }

    /// The mounting process.
    pub fn peer(&self) -> Pid {
        self.peer
    }

    /// Sends it a signal, unless it has ended.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = rustix::process::pidfd_send_signal(&self.peer_handle, signal);
    }

    /// Waits until the mounting process has ended.
    pub fn wait_for_end(&self) -> Result<()> {
        self.ends_within(None).map(drop)
    }

    /// Waits until the mounting process has ended; false when the time is over, of which none is without end.
    pub fn ends_within(&self, limit: Option<Duration>) -> Result<bool> {
        let limit = limit.map(|limit| rustix::event::Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(limit.subsec_nanos()),
        });
        let mut waiting = [rustix::event::PollFd::new(&self.peer_handle, rustix::event::PollFlags::IN)];
        loop {
            match rustix::event::poll(&mut waiting, limit.as_ref()) {
                Ok(count) => return Ok(count > 0),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(Error::io("wait for", "the mounting process", e.into())),
            }
        }
    }
}

/// Connects to `STORE/control.sock`. A socket's address holds 107 bytes: a longer path goes by way of the open
/// directory.
pub fn connect_socket(store: &Path) -> io::Result<UnixStream> {
    connect_named(store, SOCKET_NAME)
}

fn connect_named(store: &Path, socket: &str) -> io::Result<UnixStream> {
    super::server::with_short_path(store, socket, |path| UnixStream::connect(path))
}

impl Operations for Client {
    fn perform(&self, request: &Request, progress: &mut ProgressSink<'_>) -> Result<Reply> {
        let mut stream = self.stream.lock();
        let call = Call { version: PROTOCOL_VERSION, request: request.clone() };
        write_line(stream.get_mut(), &call)?;
        loop {
            match read_line(&mut *stream, MESSAGE_BYTES_MAX)? {
                Some(Message::Progress(step)) => progress(step),
                Some(Message::Done(reply)) => return Ok(reply),
                Some(Message::Failed { kind, message, hint }) => {
                    return Err(told_error(&kind, message, hint));
                }
                None => {
                    return Err(Error::new(
                        ErrorKind::Io,
                        format!(
                            "the mounting process (pid {}) ended before it answered; see daemon.log in the store",
                            self.peer.as_raw_nonzero()
                        ),
                    ));
                }
            }
        }
    }
}
