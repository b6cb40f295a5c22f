//! TLS of the API: certificate and key from PEM files, read when the daemon starts.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::Tls;
use crate::base::{Error, ErrorKind, Result};

/// Anybody's right to read.
const READABLE_BY_OTHERS: u32 = 0o004;

/// What speaks TLS 1.2 and 1.3 with this certificate.
pub(super) fn acceptor(tls: &Tls) -> Result<TlsAcceptor> {
    let chain = certificates(&tls.certificate)?;
    let key = key(&tls.key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let bad = |e: rustls::Error| {
        Error::invalid(format!(
            "certificate {} and key {} cannot be used: {e}",
            tls.certificate.display(),
            tls.key.display()
        ))
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(bad)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(bad)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bytes = read(path)?;
    let chain: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(Error::invalid(format!("{} holds no certificate in PEM form", path.display()))),
        Err(e) => Err(Error::invalid(format!("{} is no PEM file: {e}", path.display()))),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    let shown = path.display().to_string();
    let metadata = std::fs::metadata(path).map_err(|e| Error::io("read", &shown, e))?;
    if metadata.permissions().mode() & READABLE_BY_OTHERS != 0 {
        return Err(Error::new(
            ErrorKind::Precondition,
            format!("the key {shown} can be read by everybody on this host"),
        )
        .with_hint(format!("chmod 600 {shown}, and think of another key")));
    }
    // Without the error's text, which may repeat what it read.
    PrivateKeyDer::from_pem_slice(&read(path)?)
        .map_err(|_| Error::invalid(format!("{shown} holds no private key in PEM form")))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::io("read", &path.display().to_string(), e))
}
