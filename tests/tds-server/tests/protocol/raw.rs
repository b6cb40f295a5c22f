//! A client that sends packets as they are given, and reads the tokens of the answers: for what drivers do not do.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use stillpoint_tds_server::protocol::Running;

use super::scripted::{PASSWORD, USER};

pub(crate) const END: u8 = 0x01;
pub(crate) const BATCH: u8 = 0x01;
pub(crate) const RPC: u8 = 0x03;
pub(crate) const ATTENTION: u8 = 0x06;
pub(crate) const TRANSACTION: u8 = 0x0E;

/// Tokens that an answer without result sets has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// The token's own byte, status, count.
    Done(u8, u16, u64),
    /// Number, state, class, text.
    Message(i32, u8, u8, String),
    Change(u8, Vec<u8>),
    Status(i32),
    Returned(String, i32),
    Other(u8),
}

pub(crate) fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

pub(crate) fn packet(kind: u8, status: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u16 + 8).to_be_bytes();
    [&[kind, status, length[0], length[1], 0, 0, 1, 0], payload].concat()
}

/// With one header, of a transaction.
pub(crate) fn with_headers(payload: &[u8]) -> Vec<u8> {
    [&[22, 0, 0, 0, 18, 0, 0, 0, 2, 0][..], &[0; 8], &[1, 0, 0, 0], payload].concat()
}

pub(crate) fn batch(sql: &str) -> Vec<u8> {
    packet(BATCH, END, &with_headers(&utf16(sql)))
}

/// Without TLS.
pub(crate) fn prelogin() -> Vec<u8> {
    packet(0x12, END, &[0, 0, 11, 0, 6, 1, 0, 17, 0, 1, 0xFF, 11, 0, 0, 0, 0, 0, 2])
}

pub(crate) fn login(user: &str, password: &str) -> Vec<u8> {
    let password: Vec<u8> = utf16(password).iter().map(|byte| byte.rotate_left(4) ^ 0xA5).collect();
    let mut fields = vec![utf16("raw"), utf16(user), password, utf16("test"), utf16("localhost")];
    fields.extend([vec![], utf16("tests"), vec![], utf16("sales")]);
    let (mut offsets, mut data) = (Vec::new(), Vec::new());
    for (place, field) in fields.iter().enumerate() {
        let extends = place == 5;
        let length = if extends { 4 } else { field.len() / 2 };
        offsets.extend_from_slice(&(94 + data.len() as u16).to_le_bytes());
        offsets.extend_from_slice(&(length as u16).to_le_bytes());
        if extends {
            // Where the features are is known below.
            data.extend_from_slice(&[0; 4]);
        }
        data.extend_from_slice(field);
    }
    offsets.extend_from_slice(&[0; 94 - 36 - 36]);
    let extension = usize::from(u16::from_le_bytes([offsets[20], offsets[21]])) - 94;
    let features = (94 + data.len() as u32).to_le_bytes();
    data[extension..extension + 4].copy_from_slice(&features);
    data.extend_from_slice(&[0x0A, 1, 0, 0, 0, 1, 0x09, 1, 0, 0, 0, 2, 0xFF]);
    let mut login = ((94 + data.len()) as u32).to_le_bytes().to_vec();
    login.extend_from_slice(&0x7400_0004u32.to_le_bytes());
    login.extend_from_slice(&4096u32.to_le_bytes());
    login.extend_from_slice(&[0; 12]);
    login.extend_from_slice(&[0xE0, 0x03, 0, 0x10]);
    login.extend_from_slice(&[0; 8]);
    login.extend_from_slice(&offsets);
    login.extend_from_slice(&data);
    packet(0x10, END, &login)
}

pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    /// Connected and no more.
    pub(crate) fn open(running: &Running) -> Self {
        let tcp = TcpStream::connect(("127.0.0.1", running.port())).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        tcp.set_nodelay(true).unwrap();
        Self(tcp)
    }

    pub(crate) fn log_in(running: &Running) -> Self {
        let mut raw = Self::open(running);
        raw.send(&prelogin());
        raw.payload();
        raw.send(&login(USER, PASSWORD));
        let tokens = raw.tokens();
        assert!(tokens.contains(&Token::Other(0xAD)), "{tokens:?}");
        raw
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// The next whole message, without its headers.
    pub(crate) fn payload(&mut self) -> Vec<u8> {
        let mut payload = Vec::new();
        loop {
            let mut header = [0; 8];
            self.0.read_exact(&mut header).unwrap();
            assert_eq!(header[0], 0x04);
            let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
            let mut piece = vec![0; length - 8];
            self.0.read_exact(&mut piece).unwrap();
            payload.extend(piece);
            if header[1] & END != 0 {
                return payload;
            }
        }
    }

    /// The tokens of the next message.
    pub(crate) fn tokens(&mut self) -> Vec<Token> {
        let payload = self.payload();
        let mut rest = payload.as_slice();
        let mut tokens = Vec::new();
        while !rest.is_empty() {
            tokens.push(token(&mut rest));
        }
        tokens
    }

    pub(crate) fn ask(&mut self, bytes: &[u8]) -> Vec<Token> {
        self.send(bytes);
        self.tokens()
    }

    /// Reads to the end of the connection, whatever comes; fails after ten seconds without an end.
    pub(crate) fn read_to_end(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.0.read_to_end(&mut bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("the server does not end"),
            _ => bytes,
        }
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, left) = rest.split_at(count);
    *rest = left;
    taken
}

fn u16_of(bytes: &[u8]) -> u16 {
    u16::from_le_bytes(bytes.try_into().unwrap())
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf16(&bytes.chunks(2).map(u16_of).collect::<Vec<_>>()).unwrap()
}

fn token(rest: &mut &[u8]) -> Token {
    let kind = take(rest, 1)[0];
    match kind {
        0xFD..=0xFF => {
            let status = u16_of(take(rest, 2));
            take(rest, 2);
            Token::Done(kind, status, u64::from_le_bytes(take(rest, 8).try_into().unwrap()))
        }
        0xAA | 0xAB => {
            let length = usize::from(u16_of(take(rest, 2)));
            let body = take(rest, length);
            let units = usize::from(u16_of(&body[6..8]));
            let number = i32::from_le_bytes(body[..4].try_into().unwrap());
            assert_eq!(kind == 0xAA, body[5] > 10, "ERROR or INFO by class");
            Token::Message(number, body[4], body[5], text_of(&body[8..8 + 2 * units]))
        }
        0xE3 => {
            let length = usize::from(u16_of(take(rest, 2)));
            let body = take(rest, length);
            Token::Change(body[0], body[1..].to_vec())
        }
        0xAD => {
            let length = usize::from(u16_of(take(rest, 2)));
            assert_eq!(take(rest, length)[1..5], [0x74, 0, 0, 4]);
            Token::Other(kind)
        }
        0xAE => {
            assert_eq!(take(rest, 1), [0xFF]);
            Token::Other(kind)
        }
        0x79 => Token::Status(i32::from_le_bytes(take(rest, 4).try_into().unwrap())),
        0xAC => {
            take(rest, 2);
            let units = usize::from(take(rest, 1)[0]);
            let name = text_of(take(rest, 2 * units));
            assert_eq!(take(rest, 10), [1, 0, 0, 0, 0, 0, 0, 0x26, 4, 4]);
            Token::Returned(name, i32::from_le_bytes(take(rest, 4).try_into().unwrap()))
        }
        other => panic!("token {other:#x} before {rest:x?}"),
    }
}
