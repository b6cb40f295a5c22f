//! How a connection begins: PRELOGIN, TLS, LOGIN7 and the answer to it. With TDS 8.0, which clients call strict encryption,
//! TLS comes first and all else is the same.

use std::sync::Arc;

use rustls::ServerConfig;
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsAcceptor;

use super::answer::Answer;
use super::error::{LOGIN_BYTES_MAX, PACKET_BYTES_DEFAULT, ProtocolError, Result};
use super::faults::Faults;
use super::login::Login7;
use super::packet::{Message, PacketReader, PacketWriter, kind};
use super::prelogin::{Encryption, Prelogin, Protection};
use super::tls::Tls;
use super::token::{self, Change};
use super::wire::{Stream, Wire};
use super::worker::{Greeting, Worker};
use crate::reply;

/// The language of all messages.
const LANGUAGE: &str = "us_english";
const PROGRAM: &str = "Microsoft SQL Server";
/// The version that PRELOGIN tells, when no session is there yet to ask: SQL Server 2022.
const PRELOGIN_VERSION: (u8, u8, u16) = (16, 0, 1000);

/// What all connections of a server have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) encryption: Encryption,
    pub(super) server_name: String,
    pub(super) tls: Tls,
    pub(super) faults: Arc<Faults>,
}

/// A connection that is logged in.
#[derive(Debug)]
pub(super) struct LoggedIn {
    pub(super) stream: Stream,
    pub(super) reader: PacketReader,
    pub(super) login: Login7,
    pub(super) database: String,
}

/// A message of the kind that must come now; anything else is an error.
async fn expect(
    reader: &mut PacketReader,
    stream: &mut Stream,
    expected: u8,
    name: &'static str,
) -> Result<Message> {
    let message = reader.message(stream, LOGIN_BYTES_MAX).await?.ok_or(ProtocolError::Truncated)?;
    if message.kind != expected {
        let found = u64::from(message.kind);
        return Err(ProtocolError::Unexpected { object: "packet kind", found, expected: name });
    }
    Ok(message)
}

/// The connection up to the answer to its login.
///
/// # Errors
///
/// Whatever ends it before; the client was told if there is a way to.
pub(super) async fn log_in(shared: &Shared, wire: Wire, worker: &Worker) -> Result<LoggedIn> {
    let mut reader = PacketReader::default();
    let is_strict = shared.encryption != Encryption::NotSupported && wire.begins_with_tls().await?;
    let mut stream =
        if is_strict { accept_tls(&shared.tls.strict, wire).await? } else { Stream::Plain(wire) };
    let message = expect(&mut reader, &mut stream, kind::PRELOGIN, "PRELOGIN").await?;
    if let Some(garbage) = shared.faults.take_garbage() {
        return Err(send_garbage(&mut stream, &garbage).await);
    }
    let prelogin = Prelogin::parse(&message.payload)?;
    let (encryption, protection) = prelogin.negotiate(shared.encryption, is_strict)?;
    // The answer alone is of another kind; what follows for TLS is PRELOGIN both ways.
    let mut packets = PacketWriter::new(kind::ANSWER, PACKET_BYTES_DEFAULT);
    packets.waiting = prelogin.answer(encryption, PRELOGIN_VERSION);
    packets.finish(&mut stream).await?;
    if protection == Protection::Session && prelogin.cannot_encrypt() {
        return Err(ProtocolError::NotEncrypted);
    }
    if protection != Protection::None {
        stream = accept_wrapped_tls(shared, stream).await?;
    }
    let message = expect(&mut reader, &mut stream, kind::LOGIN, "LOGIN7").await?;
    if protection == Protection::Login {
        stream = stream.into_plain();
    }
    if let Some(garbage) = shared.faults.take_garbage() {
        return Err(send_garbage(&mut stream, &garbage).await);
    }
    let login = Login7::parse(&message.payload)?;
    tokio::time::sleep(shared.faults.delay()).await;
    let database = open(shared, &mut stream, worker, &login).await?;
    Ok(LoggedIn { stream, reader, login, database })
}

async fn accept_tls(config: &Arc<ServerConfig>, wire: Wire) -> Result<Stream> {
    let acceptor = TlsAcceptor::from(Arc::clone(config));
    let tls = acceptor.accept(wire).await.map_err(|error| match ProtocolError::from(error) {
        ProtocolError::Io(error) => ProtocolError::Tls(error),
        other => other,
    })?;
    Ok(Stream::Tls(Box::new(tls)))
}

async fn accept_wrapped_tls(shared: &Shared, stream: Stream) -> Result<Stream> {
    let Stream::Plain(mut wire) = stream else {
        return Ok(stream);
    };
    wire.begin_handshake();
    let mut stream = accept_tls(&shared.tls.wrapped, wire).await?;
    if let Stream::Tls(tls) = &mut stream {
        tls.get_mut().0.end_handshake();
    }
    Ok(stream)
}

/// Sends bytes in place of an answer; the connection is over with them, in the way that a test asked for.
pub(super) async fn send_garbage(stream: &mut Stream, garbage: &[u8]) -> ProtocolError {
    let sent = async {
        stream.write_all(garbage).await?;
        stream.flush().await?;
        stream.shutdown().await
    };
    sent.await.map_or_else(ProtocolError::from, |()| ProtocolError::Cut)
}

/// Opens the session and answers; the database that it is in.
async fn open(shared: &Shared, stream: &mut Stream, worker: &Worker, login: &Login7) -> Result<String> {
    let opened = if login.is_integrated {
        Err(not_trusted())
    } else {
        worker.login(login.login.clone()).await.ok_or(ProtocolError::SessionLost)?
    };
    // Until the answer has told of the new size, packets have the old one.
    let mut answer = Answer::new(PACKET_BYTES_DEFAULT, &shared.server_name, login.version.has_null_bitmaps());
    match opened {
        Ok(greeting) => {
            accept(&mut answer, login, &greeting)?;
            answer.end().finish(stream).await?;
            Ok(greeting.database)
        }
        Err(message) => {
            answer.message(&message)?;
            answer.end().finish(stream).await?;
            stream.shutdown().await?;
            let (user, number) = (login.login.user.clone(), message.number);
            Err(ProtocolError::LoginRefused { user, number })
        }
    }
}

fn accept(answer: &mut Answer, login: &Login7, greeting: &Greeting) -> Result<()> {
    let info = |number, state, text| reply::Message { number, class: 0, state, text, line: 1 };
    let database = &greeting.database;
    answer.change(&Change::Database { new: database, old: "master" })?;
    answer.message(&info(5701, 2, format!("Changed database context to '{database}'.")))?;
    answer.change(&Change::Collation)?;
    answer.change(&Change::Language { new: LANGUAGE, old: "" })?;
    answer.message(&info(5703, 1, format!("Changed language setting to {LANGUAGE}.")))?;
    token::login_ack(&mut answer.packets.waiting, login.version, PROGRAM, greeting.version)?;
    answer.change(&Change::PacketSize { new: login.packet_bytes, old: PACKET_BYTES_DEFAULT })?;
    if login.features.is_some() {
        token::no_features(&mut answer.packets.waiting);
    }
    Ok(())
}

/// Error 18452: Windows authentication is not there.
fn not_trusted() -> reply::Message {
    let text = "Login failed. The login is from an untrusted domain and cannot be used with Integrated authentication.";
    reply::Message { number: 18_452, class: 14, state: 1, text: text.to_owned(), line: 1 }
}
