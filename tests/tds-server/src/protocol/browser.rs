//! A SQL Server Browser: answers over UDP which TCP port an instance has, as MC-SQLR says.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// Requests: all instances (by broadcast, or of one computer), or one by its name.
const ALL_BY_BROADCAST: u8 = 0x02;
const ALL: u8 = 0x03;
const ONE: u8 = 0x04;
const RESPONSE: u8 = 0x05;
/// A request is one byte, a name of 32 at most, and a zero.
const REQUEST_BYTES_MAX: usize = 34;
const RESPONSE_BYTES_MAX: usize = 1024;

/// An instance that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrowserEntry {
    pub server: String,
    pub instance: String,
    /// Digits and dots, such as `16.0.1000.6`.
    pub version: String,
    pub port: u16,
}

/// A browser that runs. Dropping it stops it.
#[derive(Debug)]
pub struct Browser {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Browser {
    /// Listens on 127.0.0.1 at a free UDP port.
    ///
    /// # Errors
    ///
    /// When there is no port or thread to be had.
    pub fn start(entries: Vec<BrowserEntry>) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = socket.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name("sql browser".to_owned()).spawn(move || {
            let mut request = [0; REQUEST_BYTES_MAX];
            while let Ok((length, client)) = socket.recv_from(&mut request) {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                if let Some(response) = response(&entries, request.get(..length).unwrap_or_default()) {
                    // A client that is gone is none of a browser's concern.
                    let _ = socket.send_to(&response, client);
                }
            }
        })?;
        Ok(Self { address, stop, thread: Some(thread) })
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn stop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.stop.store(true, Ordering::Release);
        // The thread waits for a datagram. Without this one it would wait on, so it is left alone then.
        let woken =
            UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.send_to(&[0], self.address));
        if woken.is_ok() {
            // A panic in there has been printed, and nothing depends on it.
            let _ = thread.join();
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The answer to a request; none to what is not understood and to an instance that is not there.
fn response(entries: &[BrowserEntry], request: &[u8]) -> Option<Vec<u8>> {
    let (first, name) = request.split_first()?;
    let is_asked = |entry: &&BrowserEntry| match *first {
        ALL_BY_BROADCAST | ALL => true,
        ONE => {
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            name.eq_ignore_ascii_case(entry.instance.as_bytes())
        }
        _ => false,
    };
    let data: String = entries.iter().filter(is_asked).map(described).collect();
    if data.is_empty() || data.len() > RESPONSE_BYTES_MAX {
        return None;
    }
    let mut response = vec![RESPONSE];
    response.extend_from_slice(&(data.len() as u16).to_le_bytes());
    response.extend_from_slice(data.as_bytes());
    Some(response)
}

fn described(entry: &BrowserEntry) -> String {
    let BrowserEntry { server, instance, version, port } = entry;
    format!("ServerName;{server};InstanceName;{instance};IsClustered;No;Version;{version};tcp;{port};;")
}
