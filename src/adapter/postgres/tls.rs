//! TLS to a source, in libpq's words: what its programs are told, and the same for connections of our own.
//!
//! Knows no server and no catalog. A source's certificate is checked only with `verify-full`, as libpq does it.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde::{Deserialize, Serialize};
use tokio_postgres::config::SslMode;

use super::config::SourceAddress;
use crate::base::{Error, Result};

/// Whether a connection is encrypted, and whether the other side must prove who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum TlsMode {
    Disable,
    /// When the source can; without proof.
    #[default]
    Prefer,
    /// Without proof.
    Require,
    /// The certificate must be of an authority in the file, and for the host's name.
    VerifyFull,
}

impl TlsMode {
    fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyFull => "verify-full",
        }
    }

    pub(super) fn ssl_mode(self) -> SslMode {
        match self {
            Self::Disable => SslMode::Disable,
            Self::Prefer => SslMode::Prefer,
            Self::Require | Self::VerifyFull => SslMode::Require,
        }
    }
}

/// Refuses what cannot work, before anything connects.
pub(super) fn check(address: &SourceAddress) -> Result<()> {
    match (address.tls, &address.ca) {
        (TlsMode::VerifyFull, None) => Err(Error::invalid(
            "verify-full needs the authority's certificate: name its file with --source-ca",
        )),
        (TlsMode::VerifyFull, Some(file)) => roots(file).map(drop),
        (mode, Some(_)) => Err(Error::invalid(format!(
            "a certificate is named, and with {} nothing is checked by it: say --source-tls verify-full",
            mode.name()
        ))),
        (_, None) => Ok(()),
    }
}

/// What is shown of it to a person.
pub(super) fn shown(address: &SourceAddress) -> String {
    match &address.ca {
        Some(file) => format!("{}, authorities in {}", address.tls.name(), file.display()),
        None => address.tls.name().to_owned(),
    }
}

/// libpq's settings of a connection string; `quote` makes a value of it.
pub(super) fn words(address: &SourceAddress, quote: impl Fn(&str) -> String) -> String {
    let ca = address.ca.as_ref().map(|file| format!(" sslrootcert={}", quote(&file.display().to_string())));
    format!("sslmode={}{}", address.tls.name(), ca.unwrap_or_default())
}

/// The same for a connection of our own.
pub(super) fn client_config(address: &SourceAddress) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::invalid(format!("TLS: {e}")))?;
    Ok(match &address.ca {
        Some(file) => builder.with_root_certificates(roots(file)?).with_no_client_auth(),
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unproved(provider)))
            .with_no_client_auth(),
    })
}

fn roots(file: &Path) -> Result<RootCertStore> {
    let shown = file.display();
    let unreadable =
        |e: rustls::pki_types::pem::Error| Error::invalid(format!("{shown} is no PEM file: {e}"));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(unreadable)? {
        let certificate = certificate.map_err(unreadable)?;
        roots.add(certificate).map_err(|e| Error::invalid(format!("{shown}: {e}")))?;
    }
    match roots.is_empty() {
        true => Err(Error::invalid(format!("{shown} holds no certificate"))),
        false => Ok(roots),
    }
}

/// Takes any certificate, as libpq's `require` does; the handshake itself is checked.
#[derive(Debug)]
struct Unproved(Arc<CryptoProvider>);

impl ServerCertVerifier for Unproved {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(tls: TlsMode, ca: Option<&Path>) -> SourceAddress {
        let (host, user, database) = ("h".into(), "u".into(), "postgres".into());
        SourceAddress { host, port: 1, user, tls, ca: ca.map(Path::to_owned), database }
    }

    #[test]
    fn what_cannot_be_checked_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let asked = address(TlsMode::VerifyFull, Some(&file));
        assert!(check(&asked).unwrap_err().message().contains("ca.pem"));
        std::fs::write(&file, "no certificate").unwrap();
        assert!(check(&asked).unwrap_err().message().contains("holds no certificate"));
        let made = rcgen::generate_simple_self_signed(vec!["h".to_owned()]).unwrap();
        std::fs::write(&file, made.cert.pem()).unwrap();
        check(&asked).unwrap();
        assert!(client_config(&asked).is_ok());
        let quote = |text: &str| format!("'{text}'");
        assert_eq!(words(&asked, quote), format!("sslmode=verify-full sslrootcert='{}'", file.display()));
        assert!(check(&address(TlsMode::Require, Some(&file))).is_err());
        assert!(check(&address(TlsMode::VerifyFull, None)).is_err());
        check(&address(TlsMode::Prefer, None)).unwrap();
        assert_eq!(words(&address(TlsMode::Disable, None), quote), "sslmode=disable");
    }
}
