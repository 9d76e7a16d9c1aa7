//! The client's side of TLS 1.3, between a socket and the bytes of MQTT.
//!
//! Sessions are never resumed: each handshake is a whole one, as after a long absence. Versions, ciphers and key
//! exchanges are those of rustls with the broker's features.

use std::io::{self, BufRead, ErrorKind, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::error::{Error, Result, fault};

/// The name that the broker's certificate must have.
const SERVER_NAME: &str = "localhost";

/// What all connections of a run share; `ca` is a PEM file with the certificates to trust.
///
/// # Errors
/// A file that cannot be read, or holds no certificate.
pub fn client_config(ca: &Path) -> Result<Arc<ClientConfig>> {
    let words = |why: String| Error(format!("{}: {why}", ca.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(|error| words(error.to_string()))? {
        let certificate = certificate.map_err(|error| words(error.to_string()))?;
        roots.add(certificate).map_err(|error| words(error.to_string()))?;
    }
    if roots.is_empty() {
        return fault(format!("{}: no certificate in it", ca.display()));
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| Error(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// One connection's keys and state.
pub struct Tls(ClientConnection);

impl Tls {
    /// A handshake that has not begun.
    pub fn new(config: &Arc<ClientConfig>) -> Result<Self> {
        let name = ServerName::try_from(SERVER_NAME).map_err(|error| Error(error.to_string()))?;
        let made = ClientConnection::new(Arc::clone(config), name);
        let mut connection = made.map_err(|error| Error(error.to_string()))?;
        // What waits here is bounded by the windows of the publishers.
        connection.set_buffer_limit(None);
        Ok(Self(connection))
    }

    /// Whether there is something for the socket.
    pub fn has_output(&self) -> bool {
        self.0.wants_write()
    }

    /// Takes bytes of MQTT; before the end of the handshake they wait.
    pub fn encrypt(&mut self, plain: &[u8]) -> io::Result<()> {
        self.0.writer().write_all(plain)
    }

    /// One write to the socket.
    pub fn write(&mut self, socket: &mut TcpStream) -> io::Result<usize> {
        self.0.write_tls(socket)
    }

    /// Appends the bytes of MQTT in what was read from the socket. There may be an answer to write afterwards.
    pub fn decrypt(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> Result<()> {
        while !bytes.is_empty() {
            self.0.read_tls(&mut bytes)?;
            self.0.process_new_packets().map_err(|error| Error(format!("TLS: {error}")))?;
            let mut reader = self.0.reader();
            loop {
                match reader.fill_buf() {
                    // The broker said that it will send no more; the end of the stream follows.
                    Ok([]) => break,
                    Ok(part) => {
                        let length = part.len();
                        plain.extend_from_slice(part);
                        reader.consume(length);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}
