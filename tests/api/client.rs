//! A daemon with its API on TCP, and a small HTTP client that speaks TLS when a certificate is given.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;

use crate::common::{Fixture, Run};

/// A running daemon; ended in order when it is dropped.
pub(crate) struct Daemon {
    pub(crate) fixture: Fixture,
    pub(crate) url: String,
    pub(crate) certificate: Option<PathBuf>,
}

impl Daemon {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut daemon = Self { fixture: Fixture::new(), url: String::new(), certificate: None };
        daemon.launch(arguments);
        daemon
    }

    /// The same with a certificate of its own for `localhost` and 127.0.0.1.
    pub(crate) fn with_tls(arguments: &[&str]) -> Self {
        let mut daemon = Self { fixture: Fixture::new(), url: String::new(), certificate: None };
        let (certificate, key) = daemon.make_certificate();
        let files = ["--tls-certificate", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
        daemon.certificate = Some(certificate.clone());
        daemon.launch(&[arguments, &files].concat());
        daemon
    }

    fn make_certificate(&self) -> (PathBuf, PathBuf) {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let (certificate, key) = (self.fixture.path("api.pem"), self.fixture.path("api.key"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        (certificate, key)
    }

    fn launch(&mut self, arguments: &[&str]) {
        let started = self.try_launch(arguments).json();
        self.url = started["api"].as_str().unwrap_or_default().to_owned();
    }

    pub(crate) fn try_launch(&self, arguments: &[&str]) -> Run {
        let (mount, state) = (self.fixture.mount_path(), self.fixture.path("state"));
        let mut command = self.fixture.command(["daemon", "--background", "-o", "json"]);
        command.arg("--mount").arg(mount).arg("--state").arg(state);
        Run::of(command.args(arguments))
    }

    /// Ends the daemon in order, and waits for its end.
    pub(crate) fn stop(&self) {
        if self.fixture.mounting_process().is_some() {
            self.fixture.end();
        }
    }

    /// Makes a token and returns its text.
    pub(crate) fn token(&self, name: &str, role: &str, groups: &[&str]) -> String {
        let mut command = self.fixture.command(["token", "create", name, "--role", role, "-o", "json"]);
        for group in groups {
            command.args(["--group", group]);
        }
        Run::of(&mut command).json()["token"].as_str().unwrap().to_owned()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.fixture.store_path().join("daemon.log")).unwrap_or_default()
    }

    /// One request over TCP.
    pub(crate) fn ask(&self, token: Option<&str>, method: &str, path: &str, body: &str) -> Answer {
        self.begin(token, method, path, body, &[]).whole()
    }

    /// A request whose answer is read bit by bit.
    pub(crate) fn begin(
        &self,
        token: Option<&str>,
        method: &str,
        path: &str,
        body: &str,
        headers: &[(&str, &str)],
    ) -> Reading {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n",
            body.len()
        );
        if let Some(token) = token {
            request += &format!("authorization: Bearer {token}\r\n");
        }
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        let mut stream = self.connect().unwrap();
        stream.write_all(format!("{request}\r\n{body}").as_bytes()).unwrap();
        stream.flush().unwrap();
        Reading::new(stream)
    }

    pub(crate) fn connect(&self) -> std::io::Result<Box<dyn ReadWrite>> {
        let address = self.url.split_once("://").unwrap().1;
        let tcp = TcpStream::connect(address)?;
        tcp.set_read_timeout(Some(Duration::from_secs(30)))?;
        let Some(certificate) = &self.certificate else { return Ok(Box::new(tcp)) };
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        Ok(Box::new(rustls::StreamOwned::new(connection, tcp)))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// An answer whose head was read.
pub(crate) struct Reading {
    pub(crate) status: u16,
    pub(crate) head: String,
    chunked: bool,
    stream: BufReader<Box<dyn ReadWrite>>,
}

impl Reading {
    fn new(stream: Box<dyn ReadWrite>) -> Self {
        let mut stream = BufReader::new(stream);
        let mut head = String::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            if line.trim().is_empty() {
                break;
            }
            head += &line.to_lowercase();
        }
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        let chunked = head.contains("transfer-encoding: chunked");
        Self { status, head, chunked, stream }
    }

    /// The next chunk; `None` at the end.
    pub(crate) fn chunk(&mut self) -> Option<String> {
        let mut size = String::new();
        self.stream.read_line(&mut size).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let mut bytes = vec![0; size + 2];
        self.stream.read_exact(&mut bytes).ok()?;
        bytes.truncate(size);
        (size > 0).then(|| String::from_utf8(bytes).unwrap())
    }

    pub(crate) fn whole(mut self) -> Answer {
        let mut body = String::new();
        if self.chunked {
            while let Some(chunk) = self.chunk() {
                body += &chunk;
            }
        } else {
            let mut bytes = Vec::new();
            // A TLS peer that closes without saying so is no matter for an answer of known length.
            let _ = self.stream.read_to_end(&mut bytes);
            body = String::from_utf8(bytes).unwrap();
        }
        Answer { status: self.status, head: self.head, body }
    }
}
