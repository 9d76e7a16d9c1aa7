//! Server-side TLS 1.2 and 1.3 with rustls on aws-lc-rs: `TlsServer`, what a listener needs, read from PEM files.
//!
//! - `names`: the user name in a client's certificate, the DNS names and the end of a server's.
//! - `resolver`: which certificate a client gets (SNI).
//!
//! Versions and suites are rustls's defaults: TLS 1.3 with AES-256-GCM, AES-128-GCM and ChaCha20-Poly1305, TLS 1.2 with the same behind
//! ECDHE, no others. ALPN: a client that offers protocols must have `mqtt` among them (RFC 7301); one that offers none is served.
//!
//! Sessions are resumed by tickets, under keys that the listener makes anew every few hours and with each reload: a ticket of before a
//! reload, which no list of revoked certificates has judged, opens nothing.

mod names;
mod resolver;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::RwLock;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};

pub(crate) use self::names::certificate_user;
use self::resolver::Resolver;
use crate::config::{CertificateFiles, ClientCertificate, TlsConfig};

/// The protocol that is agreed upon with clients that ask for one.
const ALPN: &[u8] = b"mqtt";

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
    /// A revocation list cannot be used.
    #[error("{path}: revocation list: {why}", path = path.display())]
    Crl {
        /// The file.
        path: PathBuf,
        /// The verifier's words.
        why: String,
    },
    /// A further certificate has no DNS name, so that no client could ask for it.
    #[error("{path}: the certificate has no DNS name that a client could ask for", path = path.display())]
    NoNames {
        /// The certificate's file.
        path: PathBuf,
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

/// What a TLS listener needs. Connections take what is current when they come; a reload does not touch those that are there.
pub(super) struct TlsServer {
    current: RwLock<Loaded>,
}

/// What the files of a listener come to.
struct Loaded {
    config: Arc<ServerConfig>,
    /// When the first of the listener's certificates, intermediates included, ends: seconds since 1970.
    not_after: i64,
    /// When the first of its lists of revoked certificates is over; `None`: it has none.
    crl_end: Option<i64>,
}

impl TlsServer {
    /// Reads the files.
    pub(super) fn load(config: &TlsConfig) -> Result<Self, TlsError> {
        Ok(TlsServer { current: RwLock::new(Loaded::new(config)?) })
    }

    /// Reads the files again, or those that the settings name now. With an error everything stays as it was.
    pub(super) fn reload(&self, config: &TlsConfig) -> Result<(), TlsError> {
        let loaded = Loaded::new(config)?;
        *self.current.write() = loaded;
        Ok(())
    }

    /// For one connection.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().config)
    }

    /// Whole days until the first certificate of the listener's chains ends; negative when it is over.
    pub(super) fn days_left(&self, now: SystemTime) -> i64 {
        days(self.current.read().not_after, now)
    }

    /// The same for its lists of revoked certificates, if it has any.
    pub(super) fn crl_days_left(&self, now: SystemTime) -> Option<i64> {
        self.current.read().crl_end.map(|end| days(end, now))
    }
}

/// Whole days from `now` to a moment in seconds since 1970.
fn days(end: i64, now: SystemTime) -> i64 {
    let seconds = |time: std::time::Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let now = match now.duration_since(UNIX_EPOCH) {
        Ok(since) => seconds(since),
        Err(before) => -seconds(before.duration()),
    };
    end.saturating_sub(now).div_euclid(86_400)
}

impl Loaded {
    fn new(config: &TlsConfig) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let first = CertificateFiles {
            certificate: config.certificate.clone(),
            private_key: config.private_key.clone(),
        };
        let default = certified_key(&first, &provider)?;
        let mut not_after = names::first_end(&default.cert);
        let mut resolver = Resolver::new(default);
        for files in &config.certificates {
            let key = certified_key(files, &provider)?;
            not_after = not_after.min(names::first_end(&key.cert));
            if !resolver.add(key) {
                return Err(TlsError::NoNames { path: files.certificate.clone() });
            }
        }
        let rustls_error = |source| rustls_error(&first, source);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(rustls_error)?;
        let (builder, crl_end) = match client_verifier(config, provider)? {
            None => (builder.with_no_client_auth(), None),
            Some((verifier, crl_end)) => (builder.with_client_cert_verifier(verifier), crl_end),
        };
        let mut server = builder.with_cert_resolver(Arc::new(resolver));
        server.alpn_protocols = vec![ALPN.to_vec()];
        // What a client needs to resume is with the client, encrypted: nothing is held for those that are away.
        server.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(rustls_error)?;
        Ok(Loaded { config: Arc::new(server), not_after, crl_end })
    }
}

fn rustls_error(files: &CertificateFiles, source: rustls::Error) -> TlsError {
    TlsError::Rustls { certificate: files.certificate.clone(), key: files.private_key.clone(), source }
}

fn certified_key(files: &CertificateFiles, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(&files.certificate, "certificate")?;
    let key = PrivateKeyDer::from_pem_file(&files.private_key)
        .map_err(|error| pem_error(&files.private_key, "private key", error))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|source| rustls_error(files, source))
}

/// Who judges the certificates of clients.
type Verifier = Arc<dyn ClientCertVerifier>;

/// Who judges the certificates of clients, and when the first of the lists that it has is over; `None` if clients are not asked for one.
fn client_verifier(
    config: &TlsConfig,
    provider: Arc<CryptoProvider>,
) -> Result<Option<(Verifier, Option<i64>)>, TlsError> {
    if config.client_certificate == ClientCertificate::None {
        return Ok(None);
    }
    let path = config.client_ca.as_deref().ok_or(TlsError::NoClientCa)?;
    let ca_error = |why: String| TlsError::ClientCa { path: path.to_owned(), why };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, "CA certificate")? {
        roots.add(certificate).map_err(|error| ca_error(error.to_string()))?;
    }
    let roots = Arc::new(roots);
    let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
    if config.client_certificate == ClientCertificate::Optional {
        verifier = verifier.allow_unauthenticated();
    }
    let mut crl_end = None;
    if !config.crl.is_empty() {
        let mut lists = Vec::new();
        for path in &config.crl {
            let of_file = revocation_lists(path)?;
            // By itself, to name the file that is no good.
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .with_crls(of_file.iter().cloned())
                .build()
                .map_err(|error| TlsError::Crl { path: path.clone(), why: error.to_string() })?;
            lists.extend(of_file);
        }
        crl_end = names::first_list_end(&lists);
        // A list that is no longer in force may leave out whoever was revoked since. That a certificate is on none because its
        // issuer has none is refused by default.
        verifier = verifier.with_crls(lists).enforce_revocation_expiration();
    }
    verifier.build().map(|verifier| Some((verifier, crl_end))).map_err(|error| ca_error(error.to_string()))
}

fn revocation_lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let lists = CertificateRevocationListDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| pem_error(path, "revocation list", error))?;
    if lists.is_empty() {
        return Err(TlsError::Pem {
            path: path.to_owned(),
            what: "revocation list",
            why: "none found".to_owned(),
        });
    }
    Ok(lists)
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
