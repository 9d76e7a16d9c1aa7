//! The same bytes over TCP and over TLS, against a broker that keeps its state in memory or on
//! disk.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use ternmq::config::{Config, ListenerConfig, TlsConfig, Transport};

use crate::support::{DEADLINE, TestBroker};

/// Where the broker keeps what it must not forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    Memory,
    Disk,
}

/// How a client comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    Tcp,
    Tls,
}

pub(crate) const STORAGES: [Storage; 2] = [Storage::Memory, Storage::Disk];
pub(crate) const CARRIERS: [Carrier; 2] = [Carrier::Tcp, Carrier::Tls];

/// A broker with a listener for each carrier.
pub(crate) struct Rig {
    pub(crate) broker: TestBroker,
    client: Arc<ClientConfig>,
    _files: tempfile::TempDir,
}

impl Rig {
    pub(crate) fn new(storage: Storage) -> Self {
        Self::with(storage, |_| {})
    }

    pub(crate) fn with(storage: Storage, change: impl FnOnce(&mut Config)) -> Self {
        let files = tempfile::tempdir().expect("a directory");
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let (certificate, private_key) = (files.path().join("server.pem"), files.path().join("server.key"));
        std::fs::write(&certificate, made.cert.pem()).expect("a file");
        std::fs::write(&private_key, made.signing_key.serialize_pem()).expect("a file");
        let tls = TlsConfig { certificate, private_key, ..TlsConfig::default() };
        let data = files.path().join("data");
        let broker = TestBroker::with_config(|config| {
            config.listeners.push(ListenerConfig {
                transport: Transport::Tls(tls),
                ..ListenerConfig::tcp((Ipv4Addr::LOCALHOST, 0).into())
            });
            config.data_dir = (storage == Storage::Disk).then_some(data);
            change(config);
        });
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { broker, client: Arc::new(client), _files: files }
    }

    pub(crate) fn open(&self, carrier: Carrier) -> Wire {
        match carrier {
            Carrier::Tcp => {
                Wire { carried: Carried::Tcp(socket(self.broker.addrs()[0])), received: Vec::new() }
            }
            Carrier::Tls => {
                let name = ServerName::try_from("localhost").expect("a name");
                let session = ClientConnection::new(Arc::clone(&self.client), name).expect("a session");
                let mut stream = StreamOwned::new(session, socket(self.broker.addrs()[1]));
                // The handshake first: what is sent afterwards is in one record, and one segment.
                while stream.conn.is_handshaking() {
                    stream.conn.complete_io(&mut stream.sock).expect("a handshake");
                }
                Wire { carried: Carried::Tls(Box::new(stream)), received: Vec::new() }
            }
        }
    }
}

fn socket(addr: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(addr).expect("TCP connection");
    socket.set_nodelay(true).expect("TCP_NODELAY");
    socket.set_read_timeout(Some(DEADLINE)).expect("read timeout");
    socket.set_write_timeout(Some(DEADLINE)).expect("write timeout");
    socket
}

enum Carried {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A client's end of a connection.
pub(crate) struct Wire {
    carried: Carried,
    received: Vec<u8>,
}

impl Wire {
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        match &mut self.carried {
            Carried::Tcp(socket) => socket.write_all(bytes).expect("sent"),
            Carried::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()).expect("sent"),
        }
    }

    /// Ends our direction.
    pub(crate) fn finish_sending(&mut self) {
        let socket = match &mut self.carried {
            Carried::Tcp(socket) => socket,
            Carried::Tls(stream) => {
                stream.conn.send_close_notify();
                stream.conn.write_tls(&mut stream.sock).expect("sent");
                &mut stream.sock
            }
        };
        socket.shutdown(Shutdown::Write).expect("open");
    }

    pub(crate) fn patience(&mut self, time: Duration) {
        let socket = match &mut self.carried {
            Carried::Tcp(socket) => socket,
            Carried::Tls(stream) => &mut stream.sock,
        };
        socket.set_read_timeout(Some(time)).expect("read timeout");
    }

    /// The next packet: its first byte and its body. `None` at the end of the input, in order.
    pub(crate) fn packet(&mut self) -> Result<Option<(u8, Vec<u8>)>, String> {
        loop {
            if let Some(packet) = take(&mut self.received) {
                return Ok(Some(packet));
            }
            let mut chunk = [0; 65_536];
            let read = match &mut self.carried {
                Carried::Tcp(socket) => socket.read(&mut chunk),
                Carried::Tls(stream) => stream.read(&mut chunk),
            };
            match read {
                Ok(0) if self.received.is_empty() => return Ok(None),
                Ok(0) => return Err(format!("ended in the midst of a packet: {:x?}", self.received)),
                Ok(n) => self.received.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// The next packet is of this type.
    #[track_caller]
    pub(crate) fn expect(&mut self, kind: u8) -> (u8, Vec<u8>) {
        match self.packet() {
            Ok(Some(packet)) if packet.0 & 0xf0 == kind => packet,
            other => panic!("expected {kind:#x}, got {other:?}"),
        }
    }

    /// The types of all packets up to the end.
    pub(crate) fn kinds_until_closed(mut self) -> Result<Vec<u8>, String> {
        let mut kinds = Vec::new();
        loop {
            match self.packet() {
                Ok(Some((first, _))) => kinds.push(first & 0xf0),
                Ok(None) => return Ok(kinds),
                Err(error) => return Err(format!("after {kinds:x?}: {error}")),
            }
        }
    }
}

fn take(received: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let mut length = 0;
    for (n, byte) in received.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            let end = 2 + n + length;
            if received.len() < end {
                return None;
            }
            let packet: Vec<u8> = received.drain(..end).collect();
            return Some((packet[0], packet[2 + n..].to_vec()));
        }
    }
    None
}
