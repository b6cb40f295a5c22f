//! The caller's side of the control socket.

use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::path::Path;

use parking_lot::Mutex;
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags};

use super::SOCKET_NAME;
use super::operations::{Operations, ProgressSink};
use super::wire::{
    Call, MESSAGE_BYTES_MAX, Message, PROTOCOL_VERSION, Reply, Request, read_line, write_line,
};
use crate::base::{Error, ErrorKind, Result, kind_of_name};

/// A connection to the process that has a store mounted. Requests on one connection run one after another.
pub struct Client {
    stream: Mutex<BufReader<UnixStream>>,
    peer: Pid,
    /// Open since the connection, so that waiting for the end cannot meet a reused pid.
    peer_handle: OwnedFd,
}

impl Client {
    /// Connects to the process that mounts `store`; `None` when nobody listens there, which also is the case
    /// for the socket a killed process left behind.
    pub fn connect(store: &Path) -> Result<Option<Self>> {
        let stream = match connect_socket(store) {
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
                return Err(Error::io("connect to", &store.join(SOCKET_NAME).display().to_string(), e));
            }
        };
        let credentials = rustix::net::sockopt::socket_peercred(&stream)
            .map_err(|e| Error::io("identify the process behind", SOCKET_NAME, e.into()))?;
        let Ok(peer_handle) = rustix::process::pidfd_open(credentials.pid, PidfdFlags::empty()) else {
            return Ok(None);
        };
        Ok(Some(Self { stream: Mutex::new(BufReader::new(stream)), peer: credentials.pid, peer_handle }))
    }

    /// The mounting process.
    pub fn peer(&self) -> Pid {
        self.peer
    }

    /// Waits until the mounting process has ended.
    pub fn wait_for_end(&self) -> Result<()> {
        let mut waiting = [rustix::event::PollFd::new(&self.peer_handle, rustix::event::PollFlags::IN)];
        loop {
            match rustix::event::poll(&mut waiting, None) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(Error::io("wait for", "the mounting process", e.into())),
            }
        }
    }
}

/// Connects to `STORE/control.sock`. A socket's address holds 107 bytes: a longer path goes by way of the open
/// directory.
pub fn connect_socket(store: &Path) -> io::Result<UnixStream> {
    super::server::with_short_path(store, |path| UnixStream::connect(path))
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
                Some(Message::Failed { kind, message }) => {
                    return Err(Error::new(kind_of_name(&kind), message));
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
