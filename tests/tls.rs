//! TLS listeners: versions, client certificates, and what goes wrong. Certificates are made in memory and written to a directory of the test.

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
use support::wire::{self, Connect};
use support::{DEADLINE, RawClient, TestBroker};
use ternmq::MetricsSnapshot;
use ternmq::config::{ClientCertificate, ListenerConfig, TlsConfig, Transport};

/// A CA with a server's and a client's certificate, and the server's files.
struct TestCa {
    directory: tempfile::TempDir,
    ca: CertificateDer<'static>,
    client: (CertificateDer<'static>, Vec<u8>),
}

impl TestCa {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let ca = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let issue = |names: Vec<String>, common_name: &str, usage| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(names).unwrap();
            params.distinguished_name.push(DnType::CommonName, common_name);
            params.extended_key_usages = vec![usage];
            (params.signed_by(&key, &issuer).unwrap(), key)
        };
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let (server, server_key) = issue(names, "server", ExtendedKeyUsagePurpose::ServerAuth);
        let (client, client_key) = issue(Vec::new(), "device-7", ExtendedKeyUsagePurpose::ClientAuth);
        let directory = tempfile::tempdir().unwrap();
        let write = |file: &str, pem: String| std::fs::write(directory.path().join(file), pem).unwrap();
        write("ca.pem", ca.pem());
        write("server.pem", server.pem());
        write("server.key", server_key.serialize_pem());
        Self { directory, ca: ca.der().clone(), client: (client.der().clone(), client_key.serialize_der()) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn listener(&self, client_certificate: ClientCertificate, allow_anonymous: bool) -> ListenerConfig {
        ListenerConfig {
            bind: (Ipv4Addr::LOCALHOST, 0).into(),
            transport: Transport::Tls(TlsConfig {
                certificate: self.file("server.pem"),
                private_key: self.file("server.key"),
                client_ca: (client_certificate != ClientCertificate::None).then(|| self.file("ca.pem")),
                client_certificate,
                ..TlsConfig::default()
            }),
            allow_anonymous,
            ..ListenerConfig::default()
        }
    }

    fn broker(&self, client_certificate: ClientCertificate, allow_anonymous: bool) -> TestBroker {
        TestBroker::with_config(|config| {
            config.listeners = vec![self.listener(client_certificate, allow_anonymous)]
        })
    }

    /// What a client says first.
    fn client_hello(&self) -> Vec<u8> {
        let mut connection = self.client(None, &rustls::version::TLS13);
        let mut hello = Vec::new();
        connection.write_tls(&mut hello).unwrap();
        hello
    }

    /// Connects with TLS, trusting this CA, showing `identity` if there is one.
    fn connect(
        &self,
        address: SocketAddr,
        identity: Option<&TestCa>,
        version: &'static SupportedProtocolVersion,
    ) -> StreamOwned<ClientConnection, TcpStream> {
        let connection = self.client(identity, version);
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        StreamOwned::new(connection, socket)
    }

    fn client(
        &self,
        identity: Option<&TestCa>,
        version: &'static SupportedProtocolVersion,
    ) -> ClientConnection {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
        let builder = builder.with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let (certificate, key) = ca.client.clone();
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key));
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        };
        ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap()
    }
}

/// CONNECT over an established stream; the return code, or `None` if the peer ended it.
fn mqtt_connect(stream: &mut impl ReadWrite, client_id: &str) -> Option<u8> {
    stream.write_all(&Connect::new(client_id).bytes()).ok()?;
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).ok()?;
    Some(connack[3])
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

#[test]
fn publishes_and_subscribes_over_tls_1_2_and_1_3() {
    let ca = TestCa::new("ca");
    let broker = ca.broker(ClientCertificate::None, true);
    for version in VERSIONS {
        let mut stream = ca.connect(broker.addr(), None, version);
        assert_eq!(mqtt_connect(&mut stream, "tls"), Some(0));
        assert_eq!(stream.conn.protocol_version(), Some(version.version));
        stream.write_all(&wire::subscribe(1, &[("t", 1)])).unwrap();
        let mut suback = [0; 5];
        stream.read_exact(&mut suback).unwrap();
        assert_eq!(suback, [0x90, 3, 0, 1, 1]);
        // Large enough to need many records, to fill the socket, and to be shared rather than copied.
        let payload: Vec<u8> = (0..3_000_000_u32).map(|n| n as u8).collect();
        let publish = wire::publish_qos1(9, "t", &payload);
        stream.write_all(&publish).unwrap();
        // Acknowledgement and delivery may come in either order.
        let mut rest = vec![0; publish.len() + 4];
        stream.read_exact(&mut rest).unwrap();
        let puback = wire::puback(9);
        let delivered =
            rest.strip_prefix(&puback[..]).or_else(|| rest.strip_suffix(&puback[..])).expect("PUBACK");
        assert_eq!(delivered.len(), publish.len());
        assert!(delivered.ends_with(&payload), "the payload is damaged");
    }
}

#[test]
fn a_required_client_certificate_must_come_from_the_configured_ca() {
    let ca = TestCa::new("ca");
    let other = TestCa::new("other");
    // Not open to anonymous clients: the certificate is what lets one in.
    let broker = ca.broker(ClientCertificate::Required, false);
    for version in VERSIONS {
        assert_eq!(mqtt_connect(&mut ca.connect(broker.addr(), None, version), "none"), None);
        assert_eq!(mqtt_connect(&mut ca.connect(broker.addr(), Some(&other), version), "other"), None);
        assert_eq!(mqtt_connect(&mut ca.connect(broker.addr(), Some(&ca), version), "good"), Some(0));
    }
}

#[test]
fn an_optional_client_certificate_is_judged_if_shown() {
    let ca = TestCa::new("ca");
    let other = TestCa::new("other");
    let open = ca.broker(ClientCertificate::Optional, true);
    let closed = ca.broker(ClientCertificate::Optional, false);
    let version = &rustls::version::TLS13;
    assert_eq!(mqtt_connect(&mut ca.connect(open.addr(), None, version), "none"), Some(0));
    assert_eq!(mqtt_connect(&mut ca.connect(open.addr(), Some(&other), version), "other"), None);
    assert_eq!(mqtt_connect(&mut ca.connect(closed.addr(), None, version), "none"), Some(5));
    assert_eq!(mqtt_connect(&mut ca.connect(closed.addr(), Some(&ca), version), "good"), Some(0));
}

#[test]
fn plain_bytes_on_a_tls_port_harm_nobody() {
    let ca = TestCa::new("ca");
    let broker = ca.broker(ClientCertificate::None, true);
    let mut plain = RawClient::connect(broker.addr());
    plain.send(&Connect::new("plain").bytes());
    // A TLS alert may come before the end.
    let mut stream = ca.connect(broker.addr(), None, &rustls::version::TLS13);
    assert_eq!(mqtt_connect(&mut stream, "healthy"), Some(0));
    let deadline = Instant::now() + DEADLINE;
    while broker.metrics().refused.get("tls") != Some(&1) {
        assert!(Instant::now() < deadline, "{:#?}", broker.metrics());
        std::thread::yield_now();
    }
}

#[test]
fn plain_and_tls_listeners_share_one_topic_space_on_ipv4_and_ipv6() {
    let ca = TestCa::new("ca");
    let broker = TestBroker::with_config(|config| {
        config.listeners = vec![
            ca.listener(ClientCertificate::None, true),
            ListenerConfig::tcp((Ipv4Addr::LOCALHOST, 0).into()),
            ListenerConfig::tcp("[::1]:0".parse().unwrap()),
        ];
    });
    let [tls, ipv4, ipv6] = broker.addrs()[..] else { panic!("three listeners") };
    let mut stream = ca.connect(tls, None, &rustls::version::TLS13);
    assert_eq!(mqtt_connect(&mut stream, "tls"), Some(0));
    stream.write_all(&wire::subscribe(1, &[("t/+", 0)])).unwrap();
    let mut suback = [0; 5];
    stream.read_exact(&mut suback).unwrap();
    for (address, topic) in [(ipv4, "t/4"), (ipv6, "t/6")] {
        RawClient::clean(address, topic).publish(topic, 1, "over plain TCP");
        let expected = wire::publish_qos0(topic, "over plain TCP");
        let mut publish = vec![0; expected.len()];
        stream.read_exact(&mut publish).unwrap();
        assert_eq!(publish, expected);
    }
}

#[test]
fn a_taken_over_tls_connection_is_closed() {
    let ca = TestCa::new("ca");
    let broker = ca.broker(ClientCertificate::None, true);
    let version = &rustls::version::TLS13;
    let mut first = ca.connect(broker.addr(), None, version);
    assert_eq!(mqtt_connect(&mut first, "same"), Some(0));
    let mut second = ca.connect(broker.addr(), None, version);
    assert_eq!(mqtt_connect(&mut second, "same"), Some(0));
    let mut rest = Vec::new();
    // rustls calls the missing close_notify an error; the end is what counts.
    let _ = first.read_to_end(&mut rest);
    assert!(rest.is_empty(), "the older connection got {rest:?}");
}

#[test]
fn unusable_files_are_named_in_the_error() {
    let ca = TestCa::new("ca");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let start = |listener: ListenerConfig| {
        let config = ternmq::config::Config { listeners: vec![listener], ..Default::default() };
        runtime.block_on(async { ternmq::Broker::start(config).await.err().expect("an error").to_string() })
    };
    std::fs::write(ca.file("empty.pem"), "").unwrap();
    let mut listener = ca.listener(ClientCertificate::None, true);
    if let Transport::Tls(tls) = &mut listener.transport {
        tls.certificate = ca.file("empty.pem");
    }
    let error = start(listener);
    assert!(error.contains("empty.pem") && error.contains("certificate"), "{error}");
    let mut listener = ca.listener(ClientCertificate::None, true);
    if let Transport::Tls(tls) = &mut listener.transport {
        // The key of another certificate.
        let other = TestCa::new("other");
        std::fs::copy(other.file("server.key"), ca.file("other.key")).unwrap();
        tls.private_key = ca.file("other.key");
    }
    let error = start(listener);
    assert!(error.contains("other.key"), "{error}");
    // A CA file without a certificate would vouch for nobody, or for everybody.
    let mut listener = ca.listener(ClientCertificate::Required, true);
    if let Transport::Tls(tls) = &mut listener.transport {
        tls.client_ca = Some(ca.file("empty.pem"));
    }
    let error = start(listener);
    assert!(error.contains("empty.pem"), "{error}");
}

/// The end of a connection by TLS is told by an alert; it is an error of the peer, and nothing that breaks in the broker.
#[test]
fn a_fault_in_tls_is_told_by_an_alert() {
    let (ca, stranger) = (TestCa::new("ca"), TestCa::new("stranger"));
    let broker = ca.broker(ClientCertificate::Required, false);
    let versions = [&rustls::version::TLS12, &rustls::version::TLS13];
    let alert = |stream: &mut StreamOwned<ClientConnection, TcpStream>| {
        let mut rest = Vec::new();
        let error = stream.read_to_end(&mut rest).expect_err("an alert");
        assert!(rest.is_empty(), "{rest:?}");
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        assert!(matches!(inner, Some(rustls::Error::AlertReceived(_))), "{error:?}");
    };
    for version in versions {
        for identity in [None, Some(&stranger)] {
            alert(&mut ca.connect(broker.addr(), identity, version));
        }
        // A record that nobody has sealed.
        let mut stream = ca.connect(broker.addr(), Some(&ca), version);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).unwrap();
        }
        stream.sock.write_all(&[&[0x17, 3, 3, 0, 48], [7_u8; 48].as_slice()].concat()).unwrap();
        alert(&mut stream);
    }
    eventually(&broker, "all closed", |metrics| metrics.sockets == 0);
}

/// New keys without end cost work and, if each is answered, memory: nobody gets them, neither before CONNECT nor after.
#[test]
fn a_client_that_changes_its_keys_without_end_is_closed() {
    let ca = TestCa::new("ca");
    let broker = TestBroker::with_config(|config| {
        config.listeners = vec![ca.listener(ClientCertificate::None, true)];
        config.limits.connect_timeout = DEADLINE * 2;
    });
    let flood = |stream: &mut StreamOwned<ClientConnection, TcpStream>| {
        // Nothing is read meanwhile. Ends with an error of the socket.
        let mut updates = 0;
        while stream.conn.refresh_traffic_keys().is_ok() && stream.flush().is_ok() {
            updates += 1;
            assert!(updates < 1_000_000, "a million updates are taken");
        }
    };
    let mut stranger = ca.connect(broker.addr(), None, &rustls::version::TLS13);
    while stranger.conn.is_handshaking() {
        stranger.conn.complete_io(&mut stranger.sock).unwrap();
    }
    flood(&mut stranger);
    let mut client = ca.connect(broker.addr(), None, &rustls::version::TLS13);
    assert_eq!(mqtt_connect(&mut client, "client"), Some(0));
    flood(&mut client);
    eventually(&broker, "both are closed", |metrics| metrics.sockets == 0);
    let mut healthy = ca.connect(broker.addr(), None, &rustls::version::TLS13);
    assert_eq!(mqtt_connect(&mut healthy, "healthy"), Some(0));
}

/// Waits until the broker's counters say what the test waits for.
#[track_caller]
fn eventually(broker: &TestBroker, what: &str, holds: impl Fn(&MetricsSnapshot) -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds(&broker.metrics()) {
        assert!(Instant::now() < deadline, "{what} did not come about: {:#?}", broker.metrics());
        std::thread::yield_now();
    }
}

#[test]
fn handshakes_wait_for_one_another_at_tls_handshakes_max() {
    let ca = TestCa::new("ca");
    let broker = TestBroker::with_config(|config| {
        config.listeners = vec![ca.listener(ClientCertificate::None, true)];
        config.limits.tls_handshakes_max = 1;
    });
    // Those who say nothing hold nobody up.
    let hello = ca.client_hello();
    let silent: Vec<RawClient> = (0..20)
        .map(|n| {
            let mut peer = RawClient::connect(broker.addr());
            // Nor do those who do not come to the end of their first words.
            peer.send(&hello[..n % 4 * 30]);
            peer
        })
        .collect();
    let mut stream = ca.connect(broker.addr(), None, &rustls::version::TLS13);
    assert_eq!(mqtt_connect(&mut stream, "first"), Some(0));
    assert!(broker.metrics().held.is_empty(), "{:?}", broker.metrics().held);
    // One that has begun takes the only place until it ends; another one that has begun waits for it.
    let begun: Vec<RawClient> = (0..2)
        .map(|_| {
            let mut begun = RawClient::connect(broker.addr());
            begun.send(&ca.client_hello());
            begun
        })
        .collect();
    let held = |metrics: &MetricsSnapshot| metrics.held.get("tls_handshakes_max").copied().unwrap_or(0);
    eventually(&broker, "one that waits", |metrics| held(metrics) == 1);
    let second = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mut stream = ca.connect(broker.addr(), None, &rustls::version::TLS13);
            mqtt_connect(&mut stream, "second")
        });
        eventually(&broker, "two that wait", |metrics| held(metrics) == 2);
        assert!(!waiting.is_finished());
        drop(begun);
        waiting.join().unwrap()
    });
    assert_eq!(second, Some(0));
    drop(silent);
}

#[test]
fn a_handshake_that_never_gets_its_turn_is_counted_by_the_limit() {
    let ca = TestCa::new("ca");
    let broker = TestBroker::with_config(|config| {
        config.listeners = vec![ca.listener(ClientCertificate::None, true)];
        config.limits.tls_handshakes_max = 1;
        config.limits.connect_timeout = Duration::from_millis(500);
    });
    // The first has its turn until its time is over; of those behind it, which come a moment later, some have none.
    let _peers: Vec<RawClient> = (0..30)
        .map(|_| {
            let mut peer = RawClient::connect(broker.addr());
            peer.send(&ca.client_hello());
            peer
        })
        .collect();
    eventually(&broker, "thirty ends", |metrics| metrics.refused.values().sum::<u64>() == 30);
    let refused = broker.metrics().refused;
    assert!(refused.get("tls_handshakes_max").is_some_and(|count| *count >= 1), "{refused:?}");
    assert!(refused.get("connect_timeout").is_some_and(|count| *count >= 1), "{refused:?}");
}

#[test]
fn a_proxys_header_comes_before_tls() {
    let ca = TestCa::new("ca");
    let broker = TestBroker::with_config(|config| {
        let mut listener = ca.listener(ClientCertificate::None, true);
        listener.proxy_protocol_from = vec!["127.0.0.0/8".parse().unwrap()];
        config.listeners = vec![listener];
        config.limits.connections_per_address_max = Some(1);
    });
    let through_proxy = |source: &str, id: &str| {
        let mut stream = ca.connect(broker.addr(), None, &rustls::version::TLS13);
        write!(stream.sock, "PROXY TCP4 {source} 127.0.0.1 40000 8883\r\n").unwrap();
        let answer = mqtt_connect(&mut stream, id);
        (stream, answer)
    };
    let (_first, answer) = through_proxy("10.0.0.1", "first");
    assert_eq!(answer, Some(0));
    let (_second, answer) = through_proxy("10.0.0.2", "second");
    assert_eq!(answer, Some(0));
    assert_eq!(through_proxy("10.0.0.1", "third").1, None);
    let counted = |metrics: &MetricsSnapshot| metrics.refused.get("connections_per_address_max") == Some(&1);
    eventually(&broker, "a refusal", counted);
}

#[test]
fn a_client_hello_in_pieces_is_taken() {
    let ca = TestCa::new("ca");
    let broker = ca.broker(ClientCertificate::None, true);
    let mut stream = ca.connect(broker.addr(), None, &rustls::version::TLS13);
    let mut hello = Vec::new();
    stream.conn.write_tls(&mut hello).unwrap();
    for piece in hello.chunks(hello.len() / 5) {
        stream.sock.write_all(piece).unwrap();
        std::thread::yield_now();
    }
    assert_eq!(mqtt_connect(&mut stream, "pieces"), Some(0));
    // One that ends in the midst of it is gone at once.
    let mut broken = RawClient::connect(broker.addr());
    broken.send(&hello[..hello.len() / 2]);
    broken.finish_sending();
    broken.expect_closed();
    eventually(&broker, "its end", |metrics| metrics.refused.get("peer_closed") == Some(&1));
}
