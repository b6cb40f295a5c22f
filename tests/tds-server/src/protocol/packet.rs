//! Packets: the header of eight bytes before each piece of a message, in both directions. A reader puts the pieces of a
//! message together and sees an attention between them; a writer cuts a message into pieces of the agreed size.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::error::{PACKET_BYTES_DEFAULT, PACKET_BYTES_MAX, PACKET_BYTES_MIN, ProtocolError, Result};

pub(super) const HEADER_BYTES: usize = 8;

/// The first byte of a packet.
pub(super) mod kind {
    pub(in crate::protocol) const BATCH: u8 = 0x01;
    pub(in crate::protocol) const RPC: u8 = 0x03;
    pub(in crate::protocol) const ANSWER: u8 = 0x04;
    pub(in crate::protocol) const ATTENTION: u8 = 0x06;
    pub(in crate::protocol) const TRANSACTION: u8 = 0x0E;
    pub(in crate::protocol) const LOGIN: u8 = 0x10;
    pub(in crate::protocol) const PRELOGIN: u8 = 0x12;

    /// All that a client may send: also bulk loads, federated authentication and SSPI, which are refused as messages.
    pub(in crate::protocol) const OF_CLIENTS: [u8; 9] =
        [BATCH, RPC, ATTENTION, 0x07, 0x08, TRANSACTION, LOGIN, 0x11, PRELOGIN];
}

/// Bits of the second byte of a packet.
pub(super) mod status {
    pub(in crate::protocol) const END: u8 = 0x01;
    /// With `END`: the client took the message back before its end.
    pub(in crate::protocol) const IGNORE: u8 = 0x02;
    pub(in crate::protocol) const RESET_CONNECTION: u8 = 0x08;
    pub(in crate::protocol) const RESET_CONNECTION_KEEP_TRANSACTION: u8 = 0x10;
}

/// One packet of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(in crate::protocol) kind: u8,
    pub(in crate::protocol) status: u8,
    pub(in crate::protocol) payload: Vec<u8>,
}

/// A whole request, of one packet or many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(in crate::protocol) kind: u8,
    /// The bits of its first packet, which is where a reset is asked for.
    pub(in crate::protocol) status: u8,
    pub(in crate::protocol) payload: Vec<u8>,
}

/// The header of a packet with so long a payload. The session id is of no use to a client and always 51, the first that
/// SQL Server gives to users.
pub(super) fn header(kind: u8, last: bool, id: u8, payload_bytes: usize) -> Result<[u8; HEADER_BYTES]> {
    let length = payload_bytes + HEADER_BYTES;
    let over = ProtocolError::OverBound { object: "packet", value: length, max: PACKET_BYTES_MAX };
    let length = u16::try_from(length).map_err(|_| over)?.to_be_bytes();
    let status = if last { status::END } else { 0 };
    Ok([kind, status, length[0], length[1], 0, 51, id, 0])
}

/// Reads packets from a stream.
///
/// What was read of a packet stays here when a read is given up, so that a read may be raced against other work.
#[derive(Debug, Default)]
pub(super) struct PacketReader {
    buffer: Vec<u8>,
}

impl PacketReader {
    /// The next packet; `None` when the client ended the connection between two.
    pub(super) async fn packet(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Packet>> {
        loop {
            if let Some(packet) = self.buffered()? {
                return Ok(Some(packet));
            }
            self.buffer.reserve(PACKET_BYTES_DEFAULT);
            if stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(ProtocolError::Truncated) };
            }
        }
    }

    fn buffered(&mut self) -> Result<Option<Packet>> {
        // At its first byte, as what is no packet has no length to wait for.
        if let Some(&first) = self.buffer.first().filter(|first| !kind::OF_CLIENTS.contains(first)) {
            let found = u64::from(first);
            return Err(ProtocolError::Unexpected {
                object: "packet kind",
                found,
                expected: "one of a client",
            });
        }
        let Some(&[kind, status, high, low, ..]) = self.buffer.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length < HEADER_BYTES {
            let found = length as u64;
            return Err(ProtocolError::Unexpected { object: "packet length", found, expected: "8 or more" });
        }
        if length > PACKET_BYTES_MAX {
            return Err(ProtocolError::OverBound { object: "packet", value: length, max: PACKET_BYTES_MAX });
        }
        if self.buffer.len() < length {
            return Ok(None);
        }
        let rest = self.buffer.split_off(length);
        let whole = std::mem::replace(&mut self.buffer, rest);
        let payload = whole.get(HEADER_BYTES..).unwrap_or_default().to_vec();
        Ok(Some(Packet { kind, status, payload }))
    }

    /// The next message of at most `bytes_max`; `None` at an end between messages. An attention is a message of its own,
    /// and takes back what was sent of the message before it; so does the ignore bit, of which nothing is told.
    pub(super) async fn message(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        bytes_max: usize,
    ) -> Result<Option<Message>> {
        let mut message: Option<Message> = None;
        loop {
            let Some(packet) = self.packet(stream).await? else {
                return if message.is_none() { Ok(None) } else { Err(ProtocolError::Truncated) };
            };
            if packet.kind == kind::ATTENTION {
                let (kind, status) = (packet.kind, packet.status);
                return Ok(Some(Message { kind, status, payload: Vec::new() }));
            }
            let whole = message.get_or_insert_with(|| Message {
                kind: packet.kind,
                status: packet.status,
                payload: Vec::new(),
            });
            if whole.kind != packet.kind {
                let found = u64::from(packet.kind);
                let expected = "the kind of the packet before it";
                return Err(ProtocolError::Unexpected { object: "packet kind", found, expected });
            }
            whole.payload.extend_from_slice(&packet.payload);
            let value = whole.payload.len();
            if value > bytes_max {
                return Err(ProtocolError::OverBound { object: "message", value, max: bytes_max });
            }
            if packet.status & status::END != 0 {
                if packet.status & status::IGNORE == 0 {
                    return Ok(message);
                }
                message = None;
            }
        }
    }
}

/// Cuts one message into packets. What is pushed waits here until it fills one.
#[derive(Debug)]
pub(super) struct PacketWriter {
    kind: u8,
    payload_bytes: usize,
    next_id: u8,
    /// Tokens that have no packet yet.
    pub(in crate::protocol) waiting: Vec<u8>,
}

impl PacketWriter {
    pub(super) fn new(kind: u8, packet_bytes: usize) -> Self {
        let payload_bytes = packet_bytes.clamp(PACKET_BYTES_MIN, PACKET_BYTES_MAX) - HEADER_BYTES;
        Self { kind, payload_bytes, next_id: 1, waiting: Vec::new() }
    }

    /// Sends all packets that are full and cannot be the last; says whether there was one.
    pub(super) async fn send_full(&mut self, stream: &mut (impl AsyncWrite + Unpin)) -> Result<bool> {
        let count = self.waiting.len().saturating_sub(1) / self.payload_bytes;
        if count == 0 {
            return Ok(false);
        }
        let rest = self.waiting.split_off(count * self.payload_bytes);
        let full = std::mem::replace(&mut self.waiting, rest);
        let mut bytes = Vec::with_capacity(full.len() + count * HEADER_BYTES);
        for payload in full.chunks(self.payload_bytes) {
            self.frame(&mut bytes, false, payload)?;
        }
        stream.write_all(&bytes).await?;
        Ok(true)
    }

    /// Sends all that waits, in a packet that is not the last: the client sees it before the server goes on.
    pub(super) async fn flush(&mut self, stream: &mut (impl AsyncWrite + Unpin)) -> Result<()> {
        self.send_full(stream).await?;
        if !self.waiting.is_empty() {
            self.send(stream, false).await?;
        }
        Ok(())
    }

    /// Sends the rest, and with it the end of the message.
    pub(super) async fn finish(mut self, stream: &mut (impl AsyncWrite + Unpin)) -> Result<()> {
        self.send_full(stream).await?;
        self.send(stream, true).await
    }

    async fn send(&mut self, stream: &mut (impl AsyncWrite + Unpin), last: bool) -> Result<()> {
        let payload = std::mem::take(&mut self.waiting);
        let mut bytes = Vec::with_capacity(payload.len() + HEADER_BYTES);
        self.frame(&mut bytes, last, &payload)?;
        stream.write_all(&bytes).await?;
        stream.flush().await?;
        Ok(())
    }

    fn frame(&mut self, out: &mut Vec<u8>, last: bool, payload: &[u8]) -> Result<()> {
        out.extend_from_slice(&header(self.kind, last, self.next_id, payload.len())?);
        out.extend_from_slice(payload);
        self.next_id = self.next_id.wrapping_add(1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Packets of a message that is pushed in pieces, with a flush where the flags say so.
    async fn written(packet_bytes: usize, pieces: &[(Vec<u8>, bool)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = PacketWriter::new(kind::BATCH, packet_bytes);
        for (piece, flushes) in pieces {
            writer.waiting.extend_from_slice(piece);
            if *flushes {
                writer.flush(&mut bytes).await.unwrap();
            } else {
                writer.send_full(&mut bytes).await.unwrap();
            }
        }
        writer.finish(&mut bytes).await.unwrap();
        bytes
    }

    #[tokio::test]
    async fn a_message_that_fills_its_packets_has_no_empty_one() {
        for count in 1..4 {
            let payload = vec![7; count * (PACKET_BYTES_MIN - HEADER_BYTES)];
            let bytes = written(PACKET_BYTES_MIN, &[(payload.clone(), false)]).await;
            assert_eq!(bytes.len(), count * PACKET_BYTES_MIN);
            let mut reader = PacketReader::default();
            for at in 1..=count {
                let packet =
                    reader.packet(&mut bytes[(at - 1) * PACKET_BYTES_MIN..].as_ref()).await.unwrap().unwrap();
                assert_eq!(
                    (packet.status, packet.payload.len()),
                    (u8::from(at == count), payload.len() / count)
                );
                reader = PacketReader::default();
            }
        }
    }

    proptest! {
        #[test]
        fn a_message_is_read_as_it_was_written(
            pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..3000), any::<bool>()), 0..5),
            packet_bytes in 0usize..40_000,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let bytes = runtime.block_on(written(packet_bytes, &pieces));
            let payload: Vec<u8> = pieces.into_iter().flat_map(|(piece, _)| piece).collect();
            let mut stream = bytes.as_slice();
            let mut reader = PacketReader::default();
            let message = runtime.block_on(reader.message(&mut stream, payload.len())).unwrap().unwrap();
            prop_assert_eq!(&message.payload, &payload);
            prop_assert!(runtime.block_on(reader.message(&mut stream, 0)).unwrap().is_none());
            if !payload.is_empty() {
                let bounded = runtime.block_on(PacketReader::default().message(&mut bytes.as_slice(), payload.len() - 1));
                prop_assert!(bounded.is_err());
            }
        }
    }
}
