//! The command line's side of the API: requests over the control socket, one after another.

use std::path::Path;

use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{self, HeaderMap};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;

use super::problem::Problem;
use super::types::{Job, JobLog};
use crate::base::{Error, ErrorKind, Result};
use crate::control::connect_socket;

/// The longest answer taken.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Seconds that one request waits for a job; the server ends it sooner.
const WAIT_SECONDS: u64 = 10;

/// A connection to a daemon.
pub struct ApiClient {
    runtime: Runtime,
    /// Requests take turns.
    sender: tokio::sync::Mutex<SendRequest<Full<Bytes>>>,
}

impl ApiClient {
    /// Connects to the daemon of a store. `Precondition` when none runs.
    pub fn connect(store: &Path) -> Result<Self> {
        let stream = connect_socket(store).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound
            | std::io::ErrorKind::ConnectionRefused
            | std::io::ErrorKind::NotADirectory => Error::new(
                ErrorKind::Precondition,
                format!(
                    "no daemon runs on {0}: start one with `stillpoint daemon --store {0} --mount DIR`",
                    store.display()
                ),
            ),
            std::io::ErrorKind::PermissionDenied => Error::new(
                ErrorKind::NotAllowed,
                format!("only root and the owner of {} may talk to its daemon", store.display()),
            )
            .with_hint("run as root, or as the store's owner"),
            _ => Error::io("connect to", &store.display().to_string(), e),
        })?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Error::io("start", "a runtime", e))?;
        stream.set_nonblocking(true).map_err(|e| Error::io("set up", "the control socket", e))?;
        let sender = runtime.block_on(async {
            let stream = tokio::net::UnixStream::from_std(stream)
                .map_err(|e| Error::io("set up", "the control socket", e))?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(broken)?;
            tokio::spawn(async move {
                // Its end is seen by the next request.
                let _ = connection.await;
            });
            Ok::<_, Error>(sender)
        })?;
        Ok(Self { runtime, sender: tokio::sync::Mutex::new(sender) })
    }

    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.send(Method::GET, path, &())
    }

    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.send(Method::POST, path, body)
    }

    pub fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.send(Method::DELETE, path, &())
    }

    pub fn put<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.send(Method::PUT, path, &())
    }

    /// Puts a body.
    pub fn put_body<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.send(Method::PUT, path, body)
    }

    /// A job, after waiting a while for its end.
    pub fn wait_for_job(&self, id: u64) -> Result<Job> {
        self.get(&format!("/v1/jobs/{id}?wait={WAIT_SECONDS}"))
    }

    pub fn job_log(&self, id: u64, from: u64) -> Result<JobLog> {
        self.get(&format!("/v1/jobs/{id}/log?from={from}"))
    }

    /// All pages of a list, one after the other.
    pub fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>> {
        let mut entries = Vec::new();
        let mut next = Some(path.to_owned());
        while let Some(path) = next.take() {
            let (status, headers, answer) = self.ask(Method::GET, &path, Vec::new())?;
            entries.append(&mut read::<Vec<T>>(status, &answer)?);
            next = headers.get(header::LINK).and_then(|links| next_page(links.to_str().ok()?));
        }
        Ok(entries)
    }

    /// Follows a stream of server-sent events. The connection serves nothing else until the stream is dropped.
    pub fn follow(&self, path: &str) -> Result<Frames<'_>> {
        let request = request(Method::GET, path, Vec::new())?;
        let response = self.runtime.block_on(async {
            let mut sender = self.sender.lock().await;
            sender.ready().await.map_err(broken)?;
            sender.send_request(request).await.map_err(broken)
        })?;
        if response.status().is_success() {
            return Ok(Frames { client: self, body: response.into_body(), read: Vec::new() });
        }
        let status = response.status();
        let answer = self.runtime.block_on(whole(response.into_body()))?;
        Err(read::<()>(status, &answer).err().unwrap_or_else(|| Error::invalid("no stream")))
    }

    fn send<T: DeserializeOwned>(&self, method: Method, path: &str, body: &impl Serialize) -> Result<T> {
        let bytes = match method {
            Method::POST | Method::PUT => {
                serde_json::to_vec(body).map_err(|e| Error::invalid(format!("the request: {e}")))?
            }
            _ => Vec::new(),
        };
        let (status, _, answer) = self.ask(method, path, bytes)?;
        read(status, &answer)
    }

    fn ask(&self, method: Method, path: &str, body: Vec<u8>) -> Result<(StatusCode, HeaderMap, Bytes)> {
        let request = request(method, path, body)?;
        self.runtime.block_on(async {
            let mut sender = self.sender.lock().await;
            sender.ready().await.map_err(broken)?;
            let response = sender.send_request(request).await.map_err(broken)?;
            let (status, headers) = (response.status(), response.headers().clone());
            Ok((status, headers, whole(response.into_body()).await?))
        })
    }
}

/// Server-sent events as they come.
pub struct Frames<'a> {
    client: &'a ApiClient,
    body: Incoming,
    read: Vec<u8>,
}

/// One server-sent event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: String,
    /// JSON.
    pub data: String,
}

impl Frames<'_> {
    /// The next one; `None` when the stream has ended.
    pub fn next_frame(&mut self) -> Result<Option<Frame>> {
        loop {
            if let Some(at) = self.read.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.read.drain(..at + 2).collect();
                match parse_frame(&String::from_utf8_lossy(&block)) {
                    Some(frame) => return Ok(Some(frame)),
                    // A sign of life.
                    None => continue,
                }
            }
            if self.read.len() > ANSWER_BYTES_MAX {
                return Err(Error::new(ErrorKind::Unsupported, "the daemon's stream is not understood"));
            }
            match self.client.runtime.block_on(self.body.frame()) {
                Some(piece) => {
                    if let Ok(bytes) = piece.map_err(broken)?.into_data() {
                        self.read.extend_from_slice(&bytes);
                    }
                }
                None => return Ok(None),
            }
        }
    }
}

fn parse_frame(block: &str) -> Option<Frame> {
    let field = |name: &str| {
        let lines = block.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        lines.map(|value| value.strip_prefix(' ').unwrap_or(value)).collect::<Vec<_>>().join("\n")
    };
    let frame = Frame { kind: field("event"), data: field("data") };
    (!frame.kind.is_empty()).then_some(frame)
}

fn request(method: Method, path: &str, body: Vec<u8>) -> Result<Request<Full<Bytes>>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| Error::invalid(format!("{path} is no address: {e}")))
}

async fn whole(body: Incoming) -> Result<Bytes> {
    let collected = http_body_util::Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let collected = collected.map_err(|e| Error::new(ErrorKind::Io, format!("the daemon's answer: {e}")))?;
    Ok(collected.to_bytes())
}

/// The address that a `Link` header calls the next page.
fn next_page(links: &str) -> Option<String> {
    let link = links.split(", ").find(|link| link.contains("rel=\"next\""))?;
    Some(link.split_once('<')?.1.split_once('>')?.0.to_owned())
}

fn read<T: DeserializeOwned>(status: StatusCode, answer: &[u8]) -> Result<T> {
    let text = if answer.is_empty() { b"null" } else { answer };
    if status.is_success() {
        return serde_json::from_slice(text).map_err(|e| {
            Error::new(
                ErrorKind::Unsupported,
                format!("the daemon's answer is not understood ({e}): is it of another version?"),
            )
        });
    }
    match serde_json::from_slice::<Problem>(text) {
        Ok(problem) => Err(problem.into()),
        Err(_) => Err(Error::new(ErrorKind::Io, format!("the daemon answered {status}"))),
    }
}

fn broken(error: hyper::Error) -> Error {
    Error::new(
        ErrorKind::Io,
        format!("the daemon ended before it answered ({error}): see daemon.log in the store"),
    )
}

/// A name as part of an address.
pub fn segment(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        assert_eq!(segment("shop-1.qa"), "shop-1.qa");
        assert_eq!(segment("a/b c"), "a%2Fb%20c");
    }

    #[test]
    fn links_and_frames_are_read() {
        let links = "</v1/a?before=3>; rel=\"prev\", </v1/a?limit=2&after=9>; rel=\"next\"";
        assert_eq!(next_page(links).as_deref(), Some("/v1/a?limit=2&after=9"));
        assert_eq!(next_page("</v1/a?before=3>; rel=\"prev\""), None);
        let frame = parse_frame("event: log\nid: 4\ndata: \"x\"\n\n").unwrap();
        assert_eq!((frame.kind.as_str(), frame.data.as_str()), ("log", "\"x\""));
        assert_eq!(parse_frame(":\n\n"), None);
    }
}
