//! The bytes of one connection: TCP, with PRELOGIN packets around a TLS handshake while one is under way, and with the
//! faults that a test set. Everything that leaves the server passes `Wire::poll_write`, so a cut can be at any byte.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::error::PACKET_BYTES_DEFAULT;
use super::faults::Faults;
use super::packet::{HEADER_BYTES, header, kind};

/// Handshake bytes that wait for a flush at most; rustls asks for one after each flight, which is far smaller.
const HANDSHAKE_BYTES_MAX: usize = 64 << 10;

/// The first byte of a TLS record of the handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// What an error says whose cause is `Faults::cut_after`.
pub(super) const CUT: &str = "a test cut the connection";

#[derive(Debug)]
pub(super) struct Wire {
    tcp: TcpStream,
    faults: Arc<Faults>,
    is_cut: bool,
    /// Bytes to a cut of this connection alone.
    cut_after: Option<u64>,
    /// While TLS is negotiated, what it sends and receives is in the payload of PRELOGIN packets.
    handshake: Option<Handshake>,
}

#[derive(Debug, Default)]
struct Handshake {
    /// Of the packet that is read: its header as far as it came, then how much of its payload is left.
    header: Vec<u8>,
    payload_left: usize,
    /// What TLS wrote and has no packet yet.
    written: Vec<u8>,
    /// Packets on their way out.
    packets: Vec<u8>,
    next_id: u8,
}

impl Wire {
    pub(super) fn new(tcp: TcpStream, faults: Arc<Faults>) -> Self {
        Self { tcp, faults, is_cut: false, cut_after: None, handshake: None }
    }

    /// Whether the client begins with TLS, as it does with TDS 8.0.
    pub(super) async fn begins_with_tls(&self) -> io::Result<bool> {
        let mut first = [0];
        let count = self.tcp.peek(&mut first).await?;
        Ok(count == 1 && first[0] == TLS_HANDSHAKE)
    }

    pub(super) fn begin_handshake(&mut self) {
        self.handshake = Some(Handshake::default());
    }

    /// From here on TLS records stand on the connection as they are.
    pub(super) fn end_handshake(&mut self) {
        self.handshake = None;
    }

    fn cut_error() -> io::Error {
        io::Error::new(io::ErrorKind::ConnectionAborted, CUT)
    }

    /// Writes to TCP as far as the faults allow; the last allowed byte ends the connection.
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_cut {
            return Poll::Ready(Err(Self::cut_error()));
        }
        let own = self.cut_after.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let allowance = self.faults.take(bytes.len().min(own));
        let mut sent = 0;
        if allowance.count > 0 {
            let piece = bytes.get(..allowance.count).unwrap_or_default();
            let polled = Pin::new(&mut self.tcp).poll_write(cx, piece);
            sent = if let Poll::Ready(Ok(sent)) = &polled { *sent } else { 0 };
            if sent < allowance.count {
                self.faults.give_back(&allowance, allowance.count - sent);
            }
            ready!(polled)?;
        }
        self.cut_after = self.cut_after.map(|left| left.saturating_sub(sent as u64));
        if (allowance.is_last && sent == allowance.count) || self.cut_after == Some(0) {
            self.is_cut = true;
            // The bytes before the cut still arrive: only the sending side is closed here.
            if let Poll::Ready(Err(error)) = Pin::new(&mut self.tcp).poll_shutdown(cx) {
                return Poll::Ready(Err(error));
            }
            if sent == 0 {
                return Poll::Ready(Err(Self::cut_error()));
            }
        }
        Poll::Ready(Ok(sent))
    }

    /// Sends what TLS wrote so far, in packets of its own.
    fn poll_packets(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(handshake) = &mut self.handshake {
            handshake.wrap()?;
        }
        while let Some(packets) =
            self.handshake.as_mut().map(|handshake| std::mem::take(&mut handshake.packets))
        {
            if packets.is_empty() {
                break;
            }
            let sent = self.poll_send(cx, &packets);
            let done = if let Poll::Ready(Ok(done)) = &sent { *done } else { 0 };
            if let Some(handshake) = &mut self.handshake {
                handshake.packets = packets.get(done..).unwrap_or_default().to_vec();
            }
            ready!(sent)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Handshake {
    fn wrap(&mut self) -> io::Result<()> {
        let written = std::mem::take(&mut self.written);
        let mut pieces = written.chunks(PACKET_BYTES_DEFAULT - HEADER_BYTES).peekable();
        while let Some(piece) = pieces.next() {
            let last = pieces.peek().is_none();
            let header = header(kind::PRELOGIN, last, self.next_id, piece.len()).map_err(io::Error::other)?;
            self.next_id = self.next_id.wrapping_add(1);
            self.packets.extend_from_slice(&header);
            self.packets.extend_from_slice(piece);
        }
        Ok(())
    }

    /// How many bytes to read next: of a header, or of a payload. Takes a whole header apart.
    fn expect(&mut self) -> io::Result<usize> {
        if let Some(&[packet_kind, _, high, low, ..]) = self.header.first_chunk::<HEADER_BYTES>() {
            let length = usize::from(u16::from_be_bytes([high, low]));
            if packet_kind != kind::PRELOGIN || length < HEADER_BYTES {
                let text = format!(
                    "a packet of kind {packet_kind:#04x} and {length} bytes inside the TLS handshake"
                );
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            self.payload_left = length - HEADER_BYTES;
            self.header.clear();
        }
        Ok(if self.payload_left > 0 { self.payload_left } else { HEADER_BYTES - self.header.len() })
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = &mut *self;
        if wire.is_cut {
            return Poll::Ready(Err(Self::cut_error()));
        }
        loop {
            let Some(handshake) = &mut wire.handshake else {
                return Pin::new(&mut wire.tcp).poll_read(cx, buf);
            };
            let want = handshake.expect()?;
            let in_payload = handshake.payload_left > 0;
            let mut space = vec![0; if in_payload { want.min(buf.remaining()) } else { want }];
            if space.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let mut piece = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut wire.tcp).poll_read(cx, &mut piece))?;
            let read = piece.filled();
            if read.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if in_payload {
                handshake.payload_left -= read.len();
                buf.put_slice(read);
                return Poll::Ready(Ok(()));
            }
            handshake.header.extend_from_slice(read);
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Some(handshake) = &mut self.handshake else {
            return self.poll_send(cx, bytes);
        };
        if handshake.written.len() + bytes.len() > HANDSHAKE_BYTES_MAX {
            ready!(self.poll_packets(cx))?;
        }
        if let Some(handshake) = &mut self.handshake {
            handshake.written.extend_from_slice(bytes);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_packets(cx))?;
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// A connection with TLS or without.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(Wire),
    Tls(Box<TlsStream<Wire>>),
}

impl Stream {
    /// The connection ends after so many bytes more.
    pub(super) fn cut_after(&mut self, bytes: u64) {
        let wire = match self {
            Self::Plain(wire) => wire,
            Self::Tls(tls) => tls.get_mut().0,
        };
        wire.cut_after = Some(bytes);
    }

    /// Ends TLS without a word, as it is when only the login was encrypted.
    pub(super) fn into_plain(self) -> Self {
        match self {
            Self::Plain(wire) => Self::Plain(wire),
            Self::Tls(tls) => Self::Plain(tls.into_inner().0),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(wire) => Pin::new(wire).poll_read(cx, buf),
            // Clients end TCP without ending TLS first; whether a message was under way is seen by its packets.
            Self::Tls(tls) => match Pin::new(tls).poll_read(cx, buf) {
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    Poll::Ready(Ok(()))
                }
                polled => polled,
            },
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(wire) => Pin::new(wire).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(wire) => Pin::new(wire).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(wire) => Pin::new(wire).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
