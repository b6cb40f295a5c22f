//! The certificate of a server and the TLS configurations with it. A new key at each start; nothing is kept.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum TlsError {
    #[error("no certificate could be made: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("TLS could not be configured: {0}")]
    Config(#[from] rustls::Error),
}

/// What TDS 8.0 is called in TLS.
const ALPN_TDS_8: &[u8] = b"tds/8.0";

/// The two ways in which TLS is spoken, with one certificate.
#[derive(Debug)]
pub(super) struct Tls {
    /// Inside of PRELOGIN packets, TLS 1.2, the last that TDS 7 can carry: with 1.3 a client's handshake ends in records that
    /// stand between PRELOGIN packets and the login, and clients lose them there.
    pub(super) wrapped: Arc<ServerConfig>,
    /// Before all else, as TDS 8.0 has it: TLS 1.2 or 1.3.
    pub(super) strict: Arc<ServerConfig>,
    /// The certificate, for clients that verify.
    pub(super) pem: String,
}

/// A self-signed certificate for `localhost` and 127.0.0.1, and the configurations with it.
///
/// # Errors
///
/// `TlsError` when ring cannot make a key or rustls refuses what was made.
pub(super) fn start() -> Result<Tls, TlsError> {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(names)?.self_signed(&key)?;
    let der: CertificateDer<'static> = certificate.der().clone();
    let pem = pem(&der);
    // The provider is named, because a test program may have linked two.
    let config = |versions: &[&'static SupportedProtocolVersion]| {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_single_cert(vec![der.clone()], key)
    };
    let wrapped = config(&[&TLS12])?;
    let mut strict = config(&[&TLS12, &TLS13])?;
    strict.alpn_protocols = vec![ALPN_TDS_8.to_vec()];
    Ok(Tls { wrapped: Arc::new(wrapped), strict: Arc::new(strict), pem })
}

fn pem(der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in der.chunks(3) {
        let group =
            three.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let digit = (group >> (18 - 6 * place) & 63) as usize;
            text.push(if place > three.len() { '=' } else { char::from(ALPHABET[digit]) });
        }
    }
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, next) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = next;
    }
    pem + "-----END CERTIFICATE-----\n"
}
