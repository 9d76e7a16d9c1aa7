//! Server-side TLS 1.2 and 1.3 with rustls on aws-lc-rs: certificate, key and client CAs from PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::config::{ClientCertificate, TlsConfig};

/// Why a TLS listener cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file does not hold what it should, in PEM.
    #[error("{path}: no usable {what} in PEM: {why}", path = path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// The reader's words.
        why: String,
    },
    /// The client CA certificates cannot be used for verification.
    #[error("{path}: client CA: {why}", path = path.display())]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// The verifier's words.
        why: String,
    },
    /// `client_certificate` asks for certificates and no CA is given to judge them.
    #[error("client_certificate needs client_ca")]
    NoClientCa,
    /// Certificate and key do not fit together, or rustls refuses them.
    #[error("{certificate} and {key}: {source}", certificate = certificate.display(), key = key.display())]
    Rustls {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
}

/// The rustls configuration of a listener.
pub(super) fn server_config(config: &TlsConfig) -> Result<Arc<ServerConfig>, TlsError> {
    let certificates = certificates(&config.certificate, "certificate")?;
    let key = PrivateKeyDer::from_pem_file(&config.private_key)
        .map_err(|error| pem_error(&config.private_key, "private key", error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let rustls_error = |source| TlsError::Rustls {
        certificate: config.certificate.clone(),
        key: config.private_key.clone(),
        source,
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(rustls_error)?;
    let builder = match config.client_certificate {
        ClientCertificate::None => builder.with_no_client_auth(),
        wanted => {
            let path = config.client_ca.as_deref().ok_or(TlsError::NoClientCa)?;
            let ca_error = |why: String| TlsError::ClientCa { path: path.to_owned(), why };
            let mut roots = RootCertStore::empty();
            for certificate in self::certificates(path, "CA certificate")? {
                roots.add(certificate).map_err(|error| ca_error(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if wanted == ClientCertificate::Optional {
                verifier.allow_unauthenticated()
            } else {
                verifier
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| ca_error(error.to_string()))?)
        }
    };
    let config = builder.with_single_cert(certificates, key).map_err(rustls_error)?;
    Ok(Arc::new(config))
}

fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| pem_error(path, what, error))?;
    if certificates.is_empty() {
        return Err(TlsError::Pem { path: path.to_owned(), what, why: "none found".to_owned() });
    }
    Ok(certificates)
}

fn pem_error(path: &Path, what: &'static str, error: rustls::pki_types::pem::Error) -> TlsError {
    TlsError::Pem { path: path.to_owned(), what, why: error.to_string() }
}
