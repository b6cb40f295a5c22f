//! PRELOGIN: what client and server tell each other before the login, and what follows for encryption.

use super::cursor::Cursor;
use super::error::{ProtocolError, Result};

/// Options of a PRELOGIN message; there are no more than this many tokens, so a longer list is refused.
const OPTIONS_MAX: usize = 16;

mod option {
    pub(super) const VERSION: u8 = 0x00;
    pub(super) const ENCRYPTION: u8 = 0x01;
    pub(super) const INSTANCE: u8 = 0x02;
    pub(super) const THREAD_ID: u8 = 0x03;
    pub(super) const MARS: u8 = 0x04;
    pub(super) const FEDAUTH_REQUIRED: u8 = 0x06;
    pub(super) const END: u8 = 0xFF;
}

/// The byte of the encryption option.
mod encrypt {
    pub(super) const OFF: u8 = 0x00;
    pub(super) const ON: u8 = 0x01;
    pub(super) const NOT_SUPPORTED: u8 = 0x02;
    pub(super) const REQUIRED: u8 = 0x03;
    /// The client would show a certificate of its own; not asked for here.
    pub(super) const CLIENT_CERTIFICATE: u8 = 0x80;
}

/// What a server asks of its clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    /// There is TLS for those who ask; logins are encrypted unless a client cannot.
    #[default]
    Offered,
    /// Everything is encrypted, and who cannot is not let in.
    Required,
    /// There is no TLS.
    NotSupported,
}

/// What a connection does after PRELOGIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protection {
    None,
    /// TLS until the LOGIN7 has come.
    Login,
    Session,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Prelogin {
    encryption: u8,
    asks_fedauth: bool,
}

impl Prelogin {
    /// # Errors
    ///
    /// When an option lies outside of the message, or the encryption is none that MS-TDS knows.
    pub(super) fn parse(payload: &[u8]) -> Result<Self> {
        let mut cursor = Cursor::new("PRELOGIN", payload);
        let mut prelogin = Self { encryption: encrypt::NOT_SUPPORTED, asks_fedauth: false };
        for _ in 0..OPTIONS_MAX {
            let token = cursor.u8()?;
            if token == option::END {
                return Ok(prelogin);
            }
            let offset = cursor.u16_be()?;
            let length = cursor.u16_be()?;
            let data = cursor.slice(usize::from(offset), usize::from(length))?;
            match (token, data) {
                (option::ENCRYPTION, [value, ..]) => {
                    prelogin.encryption = *value & !encrypt::CLIENT_CERTIFICATE
                }
                (option::ENCRYPTION, []) => return Err(cursor.unexpected(0u8, "a byte of encryption")),
                (option::FEDAUTH_REQUIRED, _) => prelogin.asks_fedauth = true,
                _ => {}
            }
        }
        Err(ProtocolError::OverBound { object: "PRELOGIN options", value: OPTIONS_MAX + 1, max: OPTIONS_MAX })
    }

    /// The encryption option to answer with, and what to do. Strict is who came with TLS.
    ///
    /// # Errors
    ///
    /// `Unexpected` for a byte that no client sends.
    pub(super) fn negotiate(&self, server: Encryption, is_strict: bool) -> Result<(u8, Protection)> {
        use encrypt::{NOT_SUPPORTED, OFF, ON, REQUIRED};
        if is_strict {
            // All is encrypted already, and neither side looks at the option.
            return Ok((ON, Protection::None));
        }
        Ok(match (server, self.encryption) {
            (_, encryption) if encryption > REQUIRED => {
                return Err(Cursor::new("PRELOGIN", &[]).unexpected(encryption, "an encryption of 0 to 3"));
            }
            (Encryption::NotSupported, _) | (Encryption::Offered, NOT_SUPPORTED) => {
                (NOT_SUPPORTED, Protection::None)
            }
            (Encryption::Offered, OFF) => (OFF, Protection::Login),
            (Encryption::Offered, _) => (ON, Protection::Session),
            // Who cannot encrypt is told so, and is disconnected by what comes instead of a handshake.
            (Encryption::Required, OFF | NOT_SUPPORTED) => (REQUIRED, Protection::Session),
            (Encryption::Required, _) => (ON, Protection::Session),
        })
    }

    /// Whether the client said that it has no TLS.
    pub(super) fn cannot_encrypt(&self) -> bool {
        self.encryption == encrypt::NOT_SUPPORTED
    }

    /// The message to answer with; a version is `major.minor.build`.
    pub(super) fn answer(&self, encryption: u8, version: (u8, u8, u16)) -> Vec<u8> {
        let (major, minor, build) = version;
        let build = build.to_be_bytes();
        let mut options: Vec<(u8, Vec<u8>)> = vec![
            (option::VERSION, vec![major, minor, build[0], build[1], 0, 0]),
            (option::ENCRYPTION, vec![encryption]),
            // Zero: the instance is the one that was asked for.
            (option::INSTANCE, vec![0]),
            (option::THREAD_ID, vec![]),
            (option::MARS, vec![0]),
        ];
        if self.asks_fedauth {
            options.push((option::FEDAUTH_REQUIRED, vec![0]));
        }
        let mut offset = options.len() * 5 + 1;
        let mut answer = Vec::new();
        for (token, data) in &options {
            answer.push(*token);
            answer.extend_from_slice(&(offset as u16).to_be_bytes());
            answer.extend_from_slice(&(data.len() as u16).to_be_bytes());
            offset += data.len();
        }
        answer.push(option::END);
        answer.extend(options.into_iter().flat_map(|(_, data)| data));
        answer
    }
}
