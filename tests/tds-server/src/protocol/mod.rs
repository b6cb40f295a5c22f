//! TDS 7.4 as bytes: packets, TLS, logins, requests and tokens, between clients on TCP and the `Server` of `reply`.
//!
//! `listener` runs a server, `connection` speaks with one client after `handshake` has let it in, `worker` is the thread
//! on which the client's session blocks. `request` and `parameter` read what comes, `answer` puts tokens of `token` and
//! `row` in order. Nothing here knows a statement or a database. What a client sends never makes it panic: the connection
//! ends with an error in the log of `Faults`.

mod answer;
mod browser;
mod connection;
mod cursor;
mod error;
mod faults;
mod handshake;
mod listener;
mod login;
mod packet;
mod parameter;
mod prelogin;
mod procedure;
mod request;
mod row;
mod tls;
mod token;
mod wire;
mod worker;

pub use browser::{Browser, BrowserEntry};
pub use error::{
    CALLS_MAX, COLUMNS_MAX, CONNECTIONS_MAX, LOGIN_BYTES_MAX, MESSAGE_BYTES_MAX, PACKET_BYTES_DEFAULT,
    PACKET_BYTES_MAX, PACKET_BYTES_MIN, PARAMETERS_MAX, PREPARED_MAX,
};
pub use faults::{Fault, Faults, LOG_ENTRIES_MAX, LogEntry};
pub use listener::{Options, Running, StartError};
pub use prelogin::Encryption;
pub use tls::TlsError;
