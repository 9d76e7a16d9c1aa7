//! TLS listeners with revocation lists, several certificates, resumption and ALPN, as clients see them.

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned, SupportedProtocolVersion,
};
use support::wire::Connect;
use support::{DEADLINE, TestBroker};
use ternmq::config::{
    CertificateFiles, CertificateName, ClientCertificate, ListenerConfig, TlsConfig, Transport,
};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

type Identity = (CertificateDer<'static>, Vec<u8>);

/// A CA and a directory for its files.
struct Ca {
    directory: tempfile::TempDir,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "ca");
        let ca = params.self_signed(&key).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), ca.pem()).unwrap();
        Ca { directory, certificate: ca.der().clone(), issuer: Issuer::new(params, key) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn server(&self, file: &str, names: &[&str]) -> CertificateFiles {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        let files = CertificateFiles {
            certificate: self.file(&format!("{file}.pem")),
            private_key: self.file(&format!("{file}.key")),
        };
        std::fs::write(&files.certificate, certificate.pem()).unwrap();
        std::fs::write(&files.private_key, key.serialize_pem()).unwrap();
        files
    }

    /// A client's certificate with this serial number, changed before it is signed.
    fn client(&self, serial: u64, change: impl Fn(&mut CertificateParams)) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "device");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from(serial));
        change(&mut params);
        (params.signed_by(&key, &self.issuer).unwrap().der().clone(), key.serialize_der())
    }

    /// A revocation list, in force until the end of the year before.
    fn crl(&self, file: &str, revoked: &[u64], year: i32) -> PathBuf {
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked
                .iter()
                .map(|serial| RevokedCertParams {
                    serial_number: SerialNumber::from(*serial),
                    revocation_time: date_time_ymd(2020, 1, 1),
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = self.file(file);
        std::fs::write(&path, params.signed_by(&self.issuer).unwrap().pem().unwrap()).unwrap();
        path
    }

    fn config(&self, change: impl Fn(&mut TlsConfig)) -> TlsConfig {
        let files = self.server("server", &["localhost"]);
        let mut config = TlsConfig {
            certificate: files.certificate,
            private_key: files.private_key,
            ..TlsConfig::default()
        };
        change(&mut config);
        config
    }

    /// Asks clients for certificates of this CA, and looks them up in these lists.
    fn config_with_crl(&self, crl: Vec<PathBuf>) -> TlsConfig {
        self.config(|config| {
            config.client_ca = Some(self.file("ca.pem"));
            config.client_certificate = ClientCertificate::Required;
            config.crl.clone_from(&crl);
        })
    }

    fn client_config(
        &self,
        identity: Option<&Identity>,
        version: &'static SupportedProtocolVersion,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        match identity.cloned() {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key));
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        }
    }
}

fn broker(tls: TlsConfig) -> TestBroker {
    TestBroker::with_config(|config| {
        config.listeners = vec![ListenerConfig {
            transport: Transport::Tls(tls),
            ..ListenerConfig::tcp((Ipv4Addr::LOCALHOST, 0).into())
        }];
    })
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Connects, over TLS and MQTT; `None` if the broker does not let one in.
fn connect(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> Option<Stream> {
    connect_as(address, config, name, &Connect::new("client"))
}

fn connect_as(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    name: &str,
    connect: &Connect,
) -> Option<Stream> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut stream = StreamOwned::new(connection, socket);
    stream.write_all(&connect.bytes()).ok()?;
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).ok()?;
    (connack[3] == 0).then_some(stream)
}

#[test]
fn a_revoked_or_expired_certificate_opens_nothing() {
    let ca = Ca::new();
    let broker = broker(ca.config_with_crl(vec![ca.crl("ca.crl", &[7], 2099)]));
    let good = ca.client(6, |_| {});
    let revoked = ca.client(7, |_| {});
    let expired = ca.client(8, |params| {
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    });
    let early = ca.client(9, |params| params.not_before = date_time_ymd(2090, 1, 1));
    for version in VERSIONS {
        let is_let_in = |identity: &Identity| {
            let config = Arc::new(ca.client_config(Some(identity), version));
            connect(broker.addr(), &config, "localhost").is_some()
        };
        assert!(is_let_in(&good));
        assert!(!is_let_in(&revoked), "revoked");
        assert!(!is_let_in(&expired), "expired");
        assert!(!is_let_in(&early), "not yet valid");
    }
}

#[test]
fn a_list_that_is_over_or_of_another_ca_does_not_vouch_for_anybody() {
    let (ca, other) = (Ca::new(), Ca::new());
    let over = ca.crl("over.crl", &[], 2021);
    // The other CA has the same name and another key.
    let foreign = other.crl("foreign.crl", &[], 2099);
    let identity = ca.client(6, |_| {});
    for crl in [over, foreign] {
        let broker = broker(ca.config_with_crl(vec![crl.clone()]));
        let config = Arc::new(ca.client_config(Some(&identity), &rustls::version::TLS13));
        assert!(connect(broker.addr(), &config, "localhost").is_none(), "{}", crl.display());
    }
}

#[test]
fn an_unusable_list_is_named() {
    let ca = Ca::new();
    std::fs::write(ca.file("empty.crl"), "").unwrap();
    let pem = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    std::fs::write(ca.file("bad.crl"), pem).unwrap();
    let good = ca.crl("good.crl", &[], 2099);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for name in ["empty.crl", "bad.crl"] {
        let tls = ca.config_with_crl(vec![good.clone(), ca.file(name)]);
        let listener = ListenerConfig {
            transport: Transport::Tls(tls),
            ..ListenerConfig::tcp((Ipv4Addr::LOCALHOST, 0).into())
        };
        let config = ternmq::config::Config { listeners: vec![listener], ..Default::default() };
        let error = runtime.block_on(ternmq::Broker::start(config)).err().expect("an error").to_string();
        assert!(error.contains(name) && error.contains("revocation list"), "{error}");
    }
}

#[test]
fn a_client_gets_the_certificate_of_the_name_it_asks_for() {
    let ca = Ca::new();
    let more = vec![ca.server("mqtt", &["mqtt.example"]), ca.server("wild", &["*.wild.example"])];
    let broker = broker(ca.config(|config| config.certificates.clone_from(&more)));
    for version in VERSIONS {
        let config = Arc::new(ca.client_config(None, version));
        // The client judges the name: it would not go on with another certificate.
        for name in ["localhost", "mqtt.example", "a.wild.example"] {
            assert!(connect(broker.addr(), &config, name).is_some(), "{name}");
        }
        // The default, which has not this name.
        assert!(connect(broker.addr(), &config, "unknown.example").is_none());
    }
}

#[test]
fn sessions_are_resumed_by_tickets() {
    let ca = Ca::new();
    let broker = broker(ca.config_with_crl(vec![ca.crl("ca.crl", &[], 2099)]));
    let second = self::broker(ca.config_with_crl(vec![ca.crl("ca.crl", &[], 2099)]));
    let identity = ca.client(6, |_| {});
    for version in VERSIONS {
        let config = Arc::new(ca.client_config(Some(&identity), version));
        let kind =
            |address| connect(address, &config, "localhost").expect("a connection").conn.handshake_kind();
        assert_eq!(kind(broker.addr()), Some(HandshakeKind::Full), "{version:?}");
        assert_eq!(kind(broker.addr()), Some(HandshakeKind::Resumed), "{version:?}");
        // The ticket of one listener opens no other: there a certificate may be asked for that this one does not know.
        assert_eq!(kind(second.addr()), Some(HandshakeKind::Full), "{version:?}");
    }
}

#[test]
fn alpn_is_agreed_upon_with_who_asks_for_it() {
    let ca = Ca::new();
    let broker = broker(ca.config(|_| {}));
    for version in VERSIONS {
        for (offered, agreed) in [
            (&[][..], Some(None)),
            (&["mqtt"][..], Some(Some(b"mqtt".to_vec()))),
            (&["http/1.1", "mqtt"], Some(Some(b"mqtt".to_vec()))),
            (&["http/1.1"], None),
        ] {
            let mut config = ca.client_config(None, version);
            config.alpn_protocols = offered.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
            let stream = connect(broker.addr(), &Arc::new(config), "localhost");
            let got = stream.map(|stream| stream.conn.alpn_protocol().map(<[u8]>::to_vec));
            assert_eq!(got, agreed, "{offered:?}");
        }
    }
}

#[test]
fn which_name_of_a_certificate_counts_can_change() {
    let ca = Ca::new();
    let mut config = TestBroker::config();
    config.listeners[0].allow_anonymous = false;
    config.listeners[0].transport = Transport::Tls(ca.config_with_crl(vec![ca.crl("ca.crl", &[], 2099)]));
    let broker = TestBroker::of(config.clone(), Default::default());
    let with_cn = Arc::new(ca.client_config(Some(&ca.client(6, |_| {})), &rustls::version::TLS13));
    let mut first = connect(broker.addr(), &with_cn, "localhost").expect("a certificate of the CA lets in");
    for (name, lets_in) in
        [(CertificateName::San, false), (CertificateName::Cn, true), (CertificateName::None, true)]
    {
        let Transport::Tls(tls) = &mut config.listeners[0].transport else { unreachable!() };
        tls.user_name = name;
        assert_eq!(broker.reload(&config), [] as [String; 0]);
        let second = Connect::new("second");
        assert_eq!(connect_as(broker.addr(), &with_cn, "localhost", &second).is_some(), lets_in, "{name:?}");
    }
    first.write_all(&[0xC0, 0]).unwrap();
    let mut answer = [0; 2];
    first.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0xD0, 0]);
}

#[test]
fn the_end_of_a_revocation_list_is_told() {
    let ca = Ca::new();
    let mut config = TestBroker::config();
    let long = ca.crl("long.crl", &[], 2099);
    let transport = |lists: &[PathBuf]| Transport::Tls(ca.config_with_crl(lists.to_vec()));
    config.listeners[0].transport = transport(std::slice::from_ref(&long));
    let broker = TestBroker::of(config.clone(), Default::default());
    let mut days_with = |lists: &[PathBuf]| {
        config.listeners[0].transport = transport(lists);
        assert_eq!(broker.reload(&config), [] as [String; 0]);
        broker.metrics().crl_days_left
    };
    let left = days_with(std::slice::from_ref(&long)).expect("there is a list");
    assert!((10_000..40_000).contains(&left), "{left}");
    // The first that is over counts, and none is none.
    let over = days_with(&[long, ca.crl("over.crl", &[], 2021)]).expect("there are lists");
    assert!(over < 0, "{over}");
    assert_eq!(days_with(&[]), None);
}
