//! Why a connection ended, and the bounds that a client may not pass. Nothing here knows what a token means.

use std::io;

use thiserror::Error;

use super::wire::CUT;

/// The smallest packet that may be agreed upon, in bytes with its header.
pub const PACKET_BYTES_MIN: usize = 512;
/// Until a login has agreed upon another.
pub const PACKET_BYTES_DEFAULT: usize = 4096;
pub const PACKET_BYTES_MAX: usize = 32_767;
/// One request of a client, all its packets together.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// MS-TDS allows a LOGIN7 no more than this, and nothing sent before the login is longer.
pub const LOGIN_BYTES_MAX: usize = (128 << 10) - 1;
/// Clients beyond this are disconnected at once.
pub const CONNECTIONS_MAX: usize = 128;
/// Statements that one connection may have prepared.
pub const PREPARED_MAX: usize = 1024;
/// Parameters of one call, as SQL Server bounds them.
pub const PARAMETERS_MAX: usize = 2100;
/// Calls in one RPC message.
pub const CALLS_MAX: usize = 1024;
/// Columns of one result set, as SQL Server bounds them.
pub const COLUMNS_MAX: usize = 4096;

/// What ended a connection.
#[derive(Debug, Error)]
pub(super) enum ProtocolError {
    #[error("the connection failed: {0}")]
    Io(io::Error),
    #[error("the TLS handshake failed: {0}")]
    Tls(io::Error),
    #[error("{object}: ends after {have} bytes, {need} more are needed at offset {offset}")]
    Short { object: &'static str, offset: usize, need: usize, have: usize },
    #[error("{object}: {value} is over the bound of {max}")]
    OverBound { object: &'static str, value: usize, max: usize },
    #[error("{object}: {found:#x} is not understood, expected {expected}")]
    Unexpected { object: &'static str, found: u64, expected: &'static str },
    #[error("{object}: not UTF-16")]
    NotUtf16 { object: &'static str },
    #[error("the client ended the connection inside a message")]
    Truncated,
    #[error("the client ended the connection while its request ran")]
    Gone,
    #[error("the client sent nothing for the whole time that a login may take")]
    LoginTimeout,
    #[error("the client does not encrypt, and encryption is required")]
    NotEncrypted,
    #[error("login failed for {user:?}: error {number}")]
    LoginRefused { user: String, number: i32 },
    #[error("error {number} is of a class that ends the connection")]
    Fatal { number: i32 },
    #[error("a test cut the connection")]
    Cut,
    #[error("the session ended without finishing its batch: it panicked")]
    SessionLost,
    /// The instance behind the protocol gave something that has no form on the wire: a mistake in a test.
    #[error("the answer cannot be encoded: {0}")]
    Answer(String),
}

impl From<io::Error> for ProtocolError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::ConnectionAborted && error.to_string() == CUT {
            return Self::Cut;
        }
        Self::Io(error)
    }
}

pub(super) type Result<T> = std::result::Result<T, ProtocolError>;
