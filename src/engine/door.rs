//! A door to a server for the time of one hook: a socket at which the hook's user is let in, relayed to the socket at
//! which the server takes this process for its administrator.
//!
//! So a hook needs no password, and nothing of the server's own access rules changes. Only the hook's user may
//! enter, and only from this process's mount namespace: servers run as that user too, but in namespaces of their own.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::make_folder;
use crate::base::{Error, ErrorKind, OsUser, Result};

/// Folders of doors begin with it.
const PREFIX: &str = "door-";
/// Connections at a time through one door.
const CONNECTIONS_MAX: usize = 64;
const PIECE_BYTES: usize = 64 << 10;
/// Between a refused connection and the next look.
const REFUSED_WAIT: Duration = Duration::from_millis(10);

/// The folder of a door, made for one user. Removed with all in it when dropped.
pub(super) struct Door {
    folder: PathBuf,
    user: OsUser,
    relay: Option<Relay>,
}

/// The thread that takes callers, and what ends it.
struct Relay {
    ending: Arc<AtomicBool>,
    path: PathBuf,
    listener: UnixListener,
    thread: JoinHandle<()>,
}

impl Door {
    /// An empty folder that only `user` can enter.
    pub(super) fn new(scratch: &Path, number: u32, user: OsUser) -> Result<Self> {
        let folder = scratch.join(format!("{PREFIX}{number:08x}"));
        make_folder(&folder, 0o700)?;
        let door = Self { folder, user, relay: None };
        if door.user.is_another() {
            door.user.own(&door.folder)?;
        }
        Ok(door)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Lets the user in to what listens at `socket`, under the name it has there.
    pub(super) fn open(&mut self, socket: &Path) -> Result<()> {
        let name = socket.file_name().ok_or_else(|| Error::invalid("a socket has a name"))?;
        let path = self.folder.join(name);
        let shown = path.display().to_string();
        let listener = UnixListener::bind(&path).map_err(|e| Error::io("make the socket", &shown, e))?;
        if self.user.is_another() {
            self.user.own(&path)?;
        }
        let kept = listener.try_clone().map_err(|e| Error::io("duplicate", &shown, e))?;
        let ending = Arc::new(AtomicBool::new(false));
        let (seen, target, uid) = (Arc::clone(&ending), socket.to_owned(), self.user.uid);
        let thread = std::thread::Builder::new()
            .name("hook-door".into())
            .spawn(move || serve(&listener, &target, uid, &seen))
            .map_err(|e| Error::io("start", "a thread", e))?;
        self.relay = Some(Relay { ending, path, listener: kept, thread });
        Ok(())
    }

    /// Removes the folders of doors that a killed process left.
    pub(super) fn clear(scratch: &Path) -> Result<()> {
        let shown = scratch.display().to_string();
        for entry in std::fs::read_dir(scratch).map_err(|e| Error::io("list", &shown, e))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                remove(&entry.path());
            }
        }
        Ok(())
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(Relay { ending, path, listener, thread }) = self.relay.take() {
            ending.store(true, Ordering::SeqCst);
            // Wakes the one who waits for a caller; the path is the hook's to change.
            let woken = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
            if woken.is_ok() && thread.join().is_err() {
                tracing::error!("the door at {} had failed", path.display());
            }
        }
        remove(&self.folder);
    }
}

fn remove(folder: &Path) {
    if let Err(e) = std::fs::remove_dir_all(folder) {
        tracing::warn!("the folder {} stays: {e}", folder.display());
    }
}

/// A caller and the server, with the thread that copies between them.
struct Connection {
    caller: UnixStream,
    server: UnixStream,
    thread: JoinHandle<()>,
}

/// Takes callers until the door is closed, then ends their connections.
fn serve(listener: &UnixListener, target: &Path, uid: u32, ending: &AtomicBool) {
    let mut open: Vec<Connection> = Vec::new();
    for caller in listener.incoming() {
        if ending.load(Ordering::SeqCst) {
            break;
        }
        open.retain(|connection| !connection.thread.is_finished());
        let accepted = caller
            .map_err(|e| Error::io("accept", "a hook's connection", e))
            .and_then(|caller| admit(&caller, uid, open.len()).map(|()| caller))
            .and_then(|caller| relay(caller, target));
        match accepted {
            Ok(connection) => open.push(connection),
            Err(e) => {
                tracing::warn!("a hook's connection was refused: {e}");
                // A process without free descriptors would be told so again at once.
                std::thread::sleep(REFUSED_WAIT);
            }
        }
    }
    for Connection { caller, server, thread } in open {
        // Both ends, so that nobody stays in the server whose hook is over, and nobody waits for the other.
        let _ = caller.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
        let _ = thread.join();
    }
}

/// Refuses who is not the hook's user, or lives in another mount namespace as servers do.
fn admit(caller: &UnixStream, uid: u32, open: usize) -> Result<()> {
    let refused = |why: String| Err(Error::new(ErrorKind::NotAllowed, why));
    let peer = rustix::net::sockopt::socket_peercred(caller)
        .map_err(|e| Error::io("identify", "who calls", e.into()))?;
    if peer.uid.as_raw() != uid && !peer.uid.is_root() {
        return refused(format!("user {} is not the hook's", peer.uid.as_raw()));
    }
    let namespace = |process: &str| {
        let path = format!("/proc/{process}/ns/mnt");
        let found = std::fs::metadata(&path).map_err(|e| Error::io("look at", &path, e))?;
        Ok::<_, Error>((found.dev(), found.ino()))
    };
    if namespace(&peer.pid.as_raw_nonzero().to_string())? != namespace("self")? {
        return refused(format!("process {} lives in another mount namespace", peer.pid.as_raw_nonzero()));
    }
    if open >= CONNECTIONS_MAX {
        return refused(format!("{CONNECTIONS_MAX} connections are open"));
    }
    Ok(())
}

/// Copies between a caller and the server, both ways, until either ends.
fn relay(caller: UnixStream, target: &Path) -> Result<Connection> {
    let shown = target.display().to_string();
    let failed = |e| Error::io("connect to", &shown, e);
    let server = UnixStream::connect(target).map_err(failed)?;
    let kept = (caller.try_clone().map_err(failed)?, server.try_clone().map_err(failed)?);
    let (from_server, to_caller) = (server.try_clone().map_err(failed)?, caller.try_clone().map_err(failed)?);
    let thread = std::thread::Builder::new().name("hook-relay".into()).spawn(move || {
        std::thread::scope(|scope| {
            scope.spawn(|| copy(&caller, &server));
            copy(&from_server, &to_caller);
        });
    });
    let thread = thread.map_err(|e| Error::io("start", "a thread", e))?;
    Ok(Connection { caller: kept.0, server: kept.1, thread })
}

/// Until the end of `from`, or until nobody takes it: then the connection is over for both.
fn copy(mut from: &UnixStream, mut to: &UnixStream) {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match from.read(&mut piece) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(count) if count > 0 && to.write_all(&piece[..count]).is_ok() => {}
            _ => break,
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says everything back, and who asked.
    fn echo(path: &Path) -> JoinHandle<()> {
        let listener = UnixListener::bind(path).unwrap();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            copy(&stream, &stream);
        })
    }

    #[test]
    fn a_door_leads_to_the_server_and_closes_with_the_hook() {
        let folder = tempfile::tempdir().unwrap();
        let server = folder.path().join(".s.PGSQL.1");
        let thread = echo(&server);
        let mut door = Door::new(folder.path(), 7, OsUser::current()).unwrap();
        door.open(&server).unwrap();
        let mut caller = UnixStream::connect(door.folder().join(".s.PGSQL.1")).unwrap();
        caller.write_all(b"hello").unwrap();
        let mut answer = [0; 5];
        caller.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");
        let place = door.folder().to_owned();
        drop(door);
        assert_eq!(caller.read(&mut answer).unwrap_or(0), 0);
        assert!(!place.exists());
        thread.join().unwrap();
    }

    #[test]
    fn another_user_is_not_let_in() {
        let (caller, _other) = UnixStream::pair().unwrap();
        let own = rustix::process::geteuid().as_raw();
        assert!(admit(&caller, own, 0).is_ok());
        assert!(admit(&caller, own, CONNECTIONS_MAX).is_err());
        if own != 0 {
            assert_eq!(admit(&caller, own + 1, 0).unwrap_err().kind(), ErrorKind::NotAllowed);
        }
    }

    #[test]
    fn what_a_killed_process_left_is_cleared() {
        let folder = tempfile::tempdir().unwrap();
        std::mem::forget(Door::new(folder.path(), 7, OsUser::current()).unwrap());
        std::fs::write(folder.path().join("hook-1"), "").unwrap();
        Door::clear(folder.path()).unwrap();
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1);
    }
}
