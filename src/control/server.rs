//! The mounting process's side of the control socket: a thread that accepts, and one per connection.
//!
//! The socket has mode 0600, and a peer's user id is checked on top: root and the owner of the store may talk.
//! Knows what a request looks like, not what it does.

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::io::{self, BufReader};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

use super::SOCKET_NAME;
use super::operations::Operations;
use super::wire::{CALL_BYTES_MAX, Call, Message, PROTOCOL_VERSION, read_line, write_line};
use crate::base::{Error, ErrorKind, Result};

/// Connections served at a time; the next one is closed at once.
const CONNECTIONS_MAX: usize = 64;

/// Serves one connection that speaks HTTP, until it ends.
pub type HttpHandler = Arc<dyn Fn(UnixStream) -> Result<()> + Send + Sync>;

/// The listening socket and its threads; `stop` ends them.
pub struct Server {
    shared: Arc<Shared>,
    listener: Arc<UnixListener>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    operations: Arc<dyn Operations>,
    http: Option<HttpHandler>,
    owner: u32,
    /// The socket's own path.
    socket: PathBuf,
    stopping: AtomicBool,
    connections: Mutex<HashMap<u64, Connection>>,
}

struct Connection {
    stream: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens at a socket of that name in the store's directory. The caller holds the store's lock, so a socket that is there was left by
    /// a process that was killed: it is replaced.
    ///
    /// A connection whose first byte is no `{` goes to `http`, if there is one: the API's requests come by the same
    /// socket.
    pub fn start(
        store: &Path,
        name: &str,
        operations: Arc<dyn Operations>,
        http: Option<HttpHandler>,
    ) -> Result<Self> {
        let socket = store.join(name);
        let shown = socket.display().to_string();
        let owner = fs::metadata(store).map_err(|e| Error::io("look at", &shown, e))?.uid();
        match fs::remove_file(&socket) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("remove the stale", &shown, e)),
        }
        let listener = with_short_path(store, name, |path| UnixListener::bind(path))
            .map_err(|e| Error::io("listen at", &shown, e))?;
        fs::set_permissions(&socket, Permissions::from_mode(0o600))
            .map_err(|e| Error::io("restrict", &shown, e))?;
        let shared = Arc::new(Shared {
            operations,
            http,
            owner,
            socket,
            stopping: AtomicBool::new(false),
            connections: Mutex::new(HashMap::new()),
        });
        let listener = Arc::new(listener);
        let (accepting, listening) = (Arc::clone(&shared), Arc::clone(&listener));
        let acceptor = thread::Builder::new()
            .name("control".into())
            .spawn(move || accept(&listening, &accepting))
            .map_err(|e| Error::io("start", "the control thread", e))?;
        Ok(Self { shared, listener, acceptor: Some(acceptor) })
    }

    /// Removes the socket, lets every request that runs finish and be answered, and ends the threads.
    pub fn stop(mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptor, which sees the flag, even if the socket's name is gone.
        if let Err(e) = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both) {
            tracing::error!("cannot wake the control thread: {e}");
            return;
        }
        if let Some(acceptor) = self.acceptor.take()
            && acceptor.join().is_err()
        {
            tracing::error!("the control thread had failed");
        }
        // The process ends next: what keeps the name is no loss, a later start replaces it.
        let _ = fs::remove_file(&self.shared.socket);
        let connections: Vec<Connection> =
            self.shared.connections.lock().drain().map(|(_, connection)| connection).collect();
        for mut connection in connections {
            // Ends the wait for a next request; an answer on its way still goes out.
            let _ = connection.stream.shutdown(Shutdown::Read);
            if let Some(thread) = connection.thread.take()
                && thread.join().is_err()
            {
                tracing::error!("a control connection had failed");
            }
        }
    }
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    for (id, stream) in (0_u64..).zip(listener.incoming()) {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let accepted = stream
            .map_err(|e| Error::io("accept at", SOCKET_NAME, e))
            .and_then(|stream| admit(id, stream, shared));
        if let Err(e) = accepted {
            tracing::warn!("control connection refused: {e}");
        }
    }
}

/// Checks who calls and starts the connection's thread.
fn admit(id: u64, stream: UnixStream, shared: &Arc<Shared>) -> Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(&stream)
        .map_err(|e| Error::io("identify the caller at", SOCKET_NAME, e.into()))?;
    let user = peer.uid.as_raw();
    if user != 0 && user != shared.owner {
        return Err(Error::new(ErrorKind::NotAllowed, format!("user {user} is not the store's owner")));
    }
    let kept = stream.try_clone().map_err(|e| Error::io("duplicate", "a control connection", e))?;
    let mut connections = shared.connections.lock();
    if connections.len() >= CONNECTIONS_MAX {
        return Err(Error::new(ErrorKind::InUse, format!("{CONNECTIONS_MAX} connections are open")));
    }
    let serving = Arc::clone(shared);
    // The lock is held until the entry is in: the thread removes it when it ends.
    let thread = thread::Builder::new()
        .name(format!("control-{id}"))
        .spawn(move || {
            let served = match &serving.http {
                Some(http) if !speaks_control(&stream) => http(stream),
                _ => serve(&stream, &*serving.operations),
            };
            if let Err(e) = served {
                tracing::debug!("control connection {id}: {e}");
            }
            serving.connections.lock().remove(&id);
        })
        .map_err(|e| Error::io("start", "a control thread", e))?;
    connections.insert(id, Connection { stream: kept, thread: Some(thread) });
    Ok(())
}

/// Whether a connection begins as a control message does. Waits for its first byte.
fn speaks_control(stream: &UnixStream) -> bool {
    let mut first = [0; 1];
    match rustix::net::recv(stream, &mut first[..], rustix::net::RecvFlags::PEEK) {
        Ok((1, _)) => first == *b"{",
        // Closed already: nothing will be asked.
        _ => true,
    }
}

/// Answers one connection's requests until it closes.
fn serve(stream: &UnixStream, operations: &dyn Operations) -> Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some(call) = read_line::<Call>(&mut reader, CALL_BYTES_MAX)? {
        let mut writer = stream;
        let result = if call.version == PROTOCOL_VERSION {
            // A caller that left no longer sees progress; the operation goes on.
            operations.perform(&call.request, &mut |step| {
                let _ = write_line(&mut writer, &Message::Progress(step));
            })
        } else {
            Err(Error::new(
                ErrorKind::Precondition,
                format!(
                    "the mounting process speaks version {PROTOCOL_VERSION} of the control protocol, this \
                     command version {}: mount again with this program",
                    call.version
                ),
            ))
        };
        let message = match result {
            Ok(reply) => Message::Done(reply),
            Err(e) => Message::failed(&e),
        };
        write_line(&mut &*stream, &message)?;
    }
    Ok(())
}

/// Calls `action` with a path of the store's socket that fits a socket address (107 bytes): a longer one goes by
/// way of the open directory.
pub(super) fn with_short_path<T>(
    store: &Path,
    name: &str,
    action: impl FnOnce(&Path) -> io::Result<T>,
) -> io::Result<T> {
    const ADDRESS_BYTES_MAX: usize = 107;
    let socket = store.join(name);
    if socket.as_os_str().len() <= ADDRESS_BYTES_MAX {
        return action(&socket);
    }
    let directory = fs::File::open(store)?;
    action(&PathBuf::from(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::operations::ProgressSink;
    use crate::control::wire::{Progress, Reply, Request};
    use crate::control::{Client, SOCKET_NAME};

    struct Fake;

    impl Operations for Fake {
        fn perform(&self, request: &Request, progress: &mut ProgressSink<'_>) -> Result<Reply> {
            match request {
                Request::StoreCheck => {
                    for done in 0..3 {
                        progress(Progress { step: "walking".into(), done, total: Some(3) });
                    }
                    Ok(Reply::Done)
                }
                Request::VolumeShow { name } => Err(Error::not_found(format!("volume {name} is not there"))),
                _ => Ok(Reply::Done),
            }
        }
    }

    #[test]
    fn requests_progress_and_errors_cross_the_socket() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("a long name".repeat(12));
        fs::create_dir(&store).unwrap();
        assert!(Client::connect(&store).unwrap().is_none());
        let server = Server::start(&store, SOCKET_NAME, Arc::new(Fake), None).unwrap();
        let mode = fs::metadata(store.join(SOCKET_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let client = Client::connect(&store).unwrap().unwrap();
        let mut steps = Vec::new();
        let reply = client.perform(&Request::StoreCheck, &mut |step| steps.push(step.done)).unwrap();
        assert_eq!(reply, Reply::Done);
        assert_eq!(steps, [0, 1, 2]);
        let missing = Request::VolumeShow { name: "x".into() };
        let error = client.perform(&missing, &mut |_| {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.message(), "volume x is not there");

        server.stop();
        assert!(Client::connect(&store).unwrap().is_none());
        assert!(client.perform(&Request::Status, &mut |_| {}).is_err());
    }

    #[test]
    fn it_stops_when_its_folder_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(folder.path(), SOCKET_NAME, Arc::new(Fake), None).unwrap();
        drop(folder);
        server.stop();
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        drop(UnixListener::bind(folder.path().join(SOCKET_NAME)).unwrap());
        assert!(Client::connect(folder.path()).unwrap().is_none());
        let server = Server::start(folder.path(), SOCKET_NAME, Arc::new(Fake), None).unwrap();
        assert!(Client::connect(folder.path()).unwrap().is_some());
        server.stop();
    }

    #[test]
    fn another_version_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(folder.path(), SOCKET_NAME, Arc::new(Fake), None).unwrap();
        let stream = UnixStream::connect(folder.path().join(SOCKET_NAME)).unwrap();
        write_line(&mut &stream, &Call { version: 999, request: Request::Status }).unwrap();
        let answer: Message = read_line(&mut BufReader::new(&stream), 1 << 16).unwrap().unwrap();
        assert!(matches!(answer, Message::Failed { kind, .. } if kind == "precondition"));
        server.stop();
    }
}
