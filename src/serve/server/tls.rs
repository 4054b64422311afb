//! TLS from PEM files.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::{Error, Result};

fn wrong(path: &Path) -> impl Fn(&dyn std::fmt::Display) -> Error {
    let path = path.display().to_string();
    move |why| Error::File { path: path.clone(), why: why.to_string() }
}

/// TLS 1.2 and 1.3 with this certificate chain and key. Errors when a file cannot be read or the two do not belong together.
pub(super) fn acceptor(chain: &Path, key: &Path) -> Result<TlsAcceptor> {
    let (in_chain, in_key) = (wrong(chain), wrong(key));
    let certificates = CertificateDer::pem_file_iter(chain).and_then(Iterator::collect).map_err(|e| in_chain(&e))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| in_key(&e))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions();
    let config = config.map_err(|e| in_chain(&e))?.with_no_client_auth().with_single_cert(certificates, private);
    let mut config = config.map_err(|e| in_key(&e))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
