//! Certificates of all sorts, made in memory, and clients that show them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use ternmq::config::{CertificateName, ClientCertificate, TlsConfig};

use crate::support::DEADLINE;
use crate::support::wire::{self, Connect};

pub(crate) type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A certificate and its key.
#[derive(Clone)]
pub(crate) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

impl Identity {
    /// `key` is PKCS #8.
    pub(crate) fn new(chain: Vec<CertificateDer<'static>>, key: Vec<u8>) -> Self {
        Identity { chain, key }
    }
}

/// What came of CONNECT.
pub(crate) struct Answer {
    pub(crate) stream: Stream,
    /// The code of CONNACK; `None`: it ended before.
    pub(crate) code: Option<u8>,
}

/// A CA, and a directory for files.
pub(crate) struct Ca {
    directory: tempfile::TempDir,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // The same for all: another CA of the same name is one of the attacks.
        params.distinguished_name = named("ca");
        let ca = params.self_signed(&key).expect("a certificate");
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("ca.pem"), ca.pem()).expect("a file");
        Ca { directory, certificate: ca.der().clone(), issuer: Issuer::new(params, key) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A listener that asks for no certificate.
    pub(crate) fn server(&self) -> TlsConfig {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        std::fs::write(self.file("server.pem"), certificate.pem()).expect("a file");
        std::fs::write(self.file("server.key"), key.serialize_pem()).expect("a file");
        TlsConfig {
            certificate: self.file("server.pem"),
            private_key: self.file("server.key"),
            ..TlsConfig::default()
        }
    }

    /// A listener that lets nobody in without a certificate of this CA, and takes the user from its common name.
    pub(crate) fn strict_server(&self) -> TlsConfig {
        TlsConfig {
            client_ca: Some(self.file("ca.pem")),
            client_certificate: ClientCertificate::Required,
            user_name: CertificateName::Cn,
            crl: vec![self.revoke(&[])],
            ..self.server()
        }
    }

    /// Where the list of what is revoked is.
    pub(crate) fn crl(&self) -> PathBuf {
        self.file("ca.crl")
    }

    /// Writes the list of what is revoked anew.
    pub(crate) fn revoke(&self, serials: &[u64]) -> PathBuf {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2099, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = self.crl();
        let list = list.signed_by(&self.issuer).expect("a list");
        std::fs::write(&path, list.pem().expect("PEM")).expect("a file");
        path
    }

    /// A client's certificate with this common name, changed before it is signed.
    pub(crate) fn client(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from(1_u64));
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity { chain: vec![certificate.der().clone()], key: key.serialize_der() }
    }

    /// A certificate with this common name that a client's certificate has signed, followed by that one.
    pub(crate) fn client_of_client(&self, name: &str) -> Identity {
        let (key, own_key) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
        let mut params = CertificateParams::default();
        params.distinguished_name = named("device");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let device = params.signed_by(&key, &self.issuer).expect("a certificate");
        let device_issuer = Issuer::new(params, key);
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let forged = params.signed_by(&own_key, &device_issuer).expect("a certificate");
        let chain = vec![forged.der().clone(), device.der().clone()];
        Identity { chain, key: own_key.serialize_der() }
    }

    pub(crate) fn client_config(&self, identity: Option<&Identity>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a CA");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        Arc::new(match identity.cloned() {
            None => builder.with_no_client_auth(),
            Some(Identity { chain, key }) => {
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key));
                builder.with_client_auth_cert(chain, key).expect("a key")
            }
        })
    }

    /// What a client says first.
    pub(crate) fn client_hello(&self) -> Vec<u8> {
        let mut hello = Vec::new();
        connection(&self.client_config(None)).write_tls(&mut hello).expect("written");
        hello
    }

    /// TLS with whatever follows.
    pub(crate) fn handshake(&self, addr: SocketAddr, identity: Option<&Identity>) -> Stream {
        let mut stream = open(addr, &self.client_config(identity));
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).expect("a handshake");
        }
        stream
    }

    /// TLS and CONNECT.
    pub(crate) fn connect(&self, addr: SocketAddr, identity: Option<&Identity>) -> Answer {
        connect(addr, &self.client_config(identity), &Connect::new("tls"))
    }
}

/// A name with this common name.
pub(crate) fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn connection(config: &Arc<ClientConfig>) -> ClientConnection {
    let name = ServerName::try_from("localhost").expect("a name");
    ClientConnection::new(Arc::clone(config), name).expect("a connection")
}

fn open(addr: SocketAddr, config: &Arc<ClientConfig>) -> Stream {
    let socket = TcpStream::connect(addr).expect("a connection");
    socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    StreamOwned::new(connection(config), socket)
}

pub(crate) fn connect(addr: SocketAddr, config: &Arc<ClientConfig>, connect: &Connect) -> Answer {
    let mut stream = open(addr, config);
    let mut connack = [0; 4];
    let answered = stream.write_all(&connect.bytes()).and_then(|()| stream.read_exact(&mut connack));
    Answer { stream, code: answered.ok().map(|()| connack[3]) }
}

/// Publishes at QoS 0, and waits until that has been handled.
#[track_caller]
pub(crate) fn publish(stream: &mut Stream, topic: &str) {
    stream.write_all(&wire::publish_qos0(topic, "m")).expect("sent");
    stream.write_all(&wire::PINGREQ).expect("sent");
    let mut pingresp = [0; 2];
    stream.read_exact(&mut pingresp).expect("an answer");
    assert_eq!(pingresp, [0xD0, 0]);
}
