use std::future::poll_fn;
use std::io::{Read, Write};
use std::sync::mpsc;
use std::thread::JoinHandle;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use tokio::runtime::Runtime;

use super::*;

type Socket = std::net::TcpStream;

/// Both sides' configurations, for one certificate and one version of TLS.
fn configurations(version: &'static SupportedProtocolVersion) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.into())
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

/// A client in a thread of its own, and the server's stream.
fn connected(
    runtime: &Runtime,
    version: &'static SupportedProtocolVersion,
    client: impl FnOnce(ClientConnection, Socket) + Send + 'static,
) -> (io::Result<Box<TlsStream>>, JoinHandle<()>) {
    let (server, config) = configurations(version);
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let name = ServerName::try_from("localhost").unwrap();
            let socket = Socket::connect(address).unwrap();
            socket.set_nodelay(true).unwrap();
            client(ClientConnection::new(config, name).unwrap(), socket);
        });
        let (socket, _) = listener.accept().await.unwrap();
        (TlsStream::accept(server, socket).await, thread)
    })
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn read(stream: &mut TlsStream, buffer: &mut [u8]) -> io::Result<usize> {
    poll_fn(|cx| stream.poll_read(cx, buffer)).await
}

async fn write_all(stream: &mut TlsStream, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let n = poll_fn(|cx| stream.poll_write(cx, rest)).await.unwrap();
        rest = &rest[n..];
    }
    poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
}

/// Bytes of its own that a connection holds.
fn held(stream: &TlsStream) -> [usize; 3] {
    [stream.incoming.capacity(), stream.outgoing.capacity(), stream.plain.capacity()]
}

fn bytes(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 31 + n / 251 + seed) as u8).collect()
}

/// Sends what TLS wants sent in pieces of these lengths, in turn.
fn send_in_pieces(session: &mut ClientConnection, socket: &mut Socket, pieces: &[usize], next: &mut usize) {
    let mut sealed = Vec::new();
    while session.wants_write() {
        session.write_tls(&mut sealed).unwrap();
    }
    let mut rest = &sealed[..];
    while !rest.is_empty() {
        let (now, later) = rest.split_at(pieces[*next % pieces.len()].min(rest.len()));
        *next += 1;
        socket.write_all(now).unwrap();
        rest = later;
    }
}

#[test]
fn what_is_written_on_one_side_is_read_on_the_other_whatever_the_pieces() {
    let mut runner = TestRunner::new(Config::with_cases(24));
    let pieces = prop::collection::vec(prop_oneof![1usize..40, 100usize..20_000], 1..8);
    let texts = prop::collection::vec(prop_oneof![0usize..100, 1_000usize..100_000], 1..6);
    runner
        .run(
            &(pieces, texts, prop_oneof![1usize..50, 1_000usize..100_000], any::<bool>()),
            |(pieces, texts, room, is_new)| {
                // Keys are renewed with TLS 1.3 only.
                let version = if is_new { &TLS13 } else { &TLS12 };
                let runtime = runtime();
                let all: Vec<u8> = texts.iter().enumerate().flat_map(|(n, len)| bytes(*len, n)).collect();
                let sent = all.clone();
                let (stream, client) = connected(&runtime, version, move |mut session, mut socket| {
                    let (mut next, mut sent) = (0, &sent[..]);
                    while session.is_handshaking() {
                        send_in_pieces(&mut session, &mut socket, &pieces, &mut next);
                        if session.wants_read() && session.is_handshaking() {
                            session.read_tls(&mut socket).unwrap();
                            session.process_new_packets().unwrap();
                        }
                    }
                    // The whole text comes back while it is still being sent.
                    let mut reading = socket.try_clone().unwrap();
                    let expected = sent.to_vec();
                    let (to_reader, from_socket) = mpsc::channel::<Vec<u8>>();
                    let reader = std::thread::spawn(move || {
                        let mut buffer = vec![0; 64 * 1024];
                        while let Ok(n @ 1..) = reading.read(&mut buffer) {
                            if to_reader.send(buffer[..n].to_vec()).is_err() {
                                return;
                            }
                        }
                    });
                    for len in texts {
                        let (now, later) = sent.split_at(len);
                        let mut now = now;
                        while !now.is_empty() {
                            let n = session.writer().write(now).unwrap();
                            now = &now[n..];
                            send_in_pieces(&mut session, &mut socket, &pieces, &mut next);
                        }
                        if version == &TLS13 {
                            session.refresh_traffic_keys().unwrap();
                        }
                        sent = later;
                    }
                    let mut got = Vec::new();
                    while got.len() < expected.len() {
                        let sealed = from_socket.recv().unwrap();
                        let mut rest = &sealed[..];
                        while !rest.is_empty() {
                            session.read_tls(&mut rest).unwrap();
                            session.process_new_packets().unwrap();
                            let _ = session.reader().read_to_end(&mut got);
                        }
                    }
                    assert!(got == expected, "{} bytes came back of {}", got.len(), expected.len());
                    session.send_close_notify();
                    send_in_pieces(&mut session, &mut socket, &pieces, &mut next);
                    reader.join().unwrap();
                });
                let mut stream = stream.unwrap();
                let mut got = Vec::new();
                runtime.block_on(async {
                    let mut buffer = vec![0; room];
                    loop {
                        let n = read(&mut stream, &mut buffer).await.unwrap();
                        got.extend_from_slice(&buffer[..n]);
                        write_all(&mut stream, &buffer[..n]).await;
                        if n == 0 {
                            break;
                        }
                    }
                    assert_eq!(held(&stream), [0; 3]);
                    poll_fn(|cx| stream.poll_shutdown(cx)).await.unwrap();
                });
                drop(stream);
                client.join().unwrap();
                prop_assert_eq!(got.len(), all.len());
                prop_assert!(got == all);
                Ok(())
            },
        )
        .unwrap();
}

/// Shakes hands, with whole reads and writes.
fn shake_hands(session: &mut ClientConnection, socket: &mut Socket) {
    while session.is_handshaking() {
        session.complete_io(socket).unwrap();
    }
}

#[test]
fn an_end_without_close_notify_is_told_from_one_with_it() {
    for polite in [true, false] {
        let runtime = runtime();
        let (stream, client) = connected(&runtime, &TLS13, move |mut session, mut socket| {
            shake_hands(&mut session, &mut socket);
            if polite {
                session.send_close_notify();
            }
            while session.wants_write() {
                session.write_tls(&mut socket).unwrap();
            }
            socket.shutdown(std::net::Shutdown::Write).unwrap();
            // A socket that is closed with unread input resets the connection.
            let _ = socket.read_to_end(&mut Vec::new());
        });
        let result = runtime.block_on(read(&mut stream.unwrap(), &mut [0; 100]));
        client.join().unwrap();
        match polite {
            true => assert_eq!(result.unwrap(), 0),
            false => assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof),
        }
    }
}

#[test]
fn a_record_that_is_not_genuine_ends_the_connection_with_an_alert() {
    let runtime = runtime();
    let (stream, client) = connected(&runtime, &TLS13, |mut session, mut socket| {
        shake_hands(&mut session, &mut socket);
        session.writer().write_all(b"genuine").unwrap();
        let mut sealed = Vec::new();
        session.write_tls(&mut sealed).unwrap();
        *sealed.last_mut().unwrap() ^= 1;
        socket.write_all(&sealed).unwrap();
        let error = session
            .complete_io(&mut socket)
            .map(|_| ())
            .and_then(|()| session.complete_io(&mut socket).map(|_| ()));
        assert!(format!("{error:?}").contains("BadRecordMac"), "{error:?}");
    });
    // Where it came together with the client's last words of the handshake, that fails.
    let errors = match stream {
        Err(error) => vec![error],
        Ok(mut stream) => {
            let mut read_once = || runtime.block_on(read(&mut stream, &mut [0; 100])).unwrap_err();
            vec![read_once(), read_once()]
        }
    };
    assert!(errors.iter().all(|error| error.kind() == io::ErrorKind::InvalidData), "{errors:?}");
    client.join().unwrap();
}

#[test]
fn a_handshake_that_breaks_off_or_is_none_is_an_error() {
    let cases: [(&[u8], io::ErrorKind); 3] = [
        (b"", io::ErrorKind::UnexpectedEof),
        (b"\x16\x03\x01\x00\x80\x01", io::ErrorKind::UnexpectedEof),
        (b"GET / HTTP/1.1\r\n\r\n", io::ErrorKind::InvalidData),
    ];
    for (first, kind) in cases {
        let runtime = runtime();
        let (stream, client) = connected(&runtime, &TLS13, move |_, mut socket| {
            socket.write_all(first).unwrap();
            socket.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            let _ = socket.read_to_end(&mut answer);
            // An alert, where there is something to complain of.
            assert_eq!(answer.first(), (kind == io::ErrorKind::InvalidData).then_some(&21));
        });
        assert_eq!(stream.map(|_| ()).unwrap_err().kind(), kind);
        client.join().unwrap();
    }
}

#[test]
fn what_a_slow_socket_does_not_take_at_once_comes_later_and_in_order() {
    const BYTES: usize = 8 * 1024 * 1024;
    let runtime = runtime();
    let (full, is_full) = mpsc::channel::<()>();
    let (stream, client) = connected(&runtime, &TLS13, move |mut session, mut socket| {
        shake_hands(&mut session, &mut socket);
        is_full.recv().unwrap();
        let mut got = Vec::new();
        while got.len() < BYTES {
            assert!(session.read_tls(&mut socket).unwrap() > 0);
            session.process_new_packets().unwrap();
            let _ = session.reader().read_to_end(&mut got);
        }
        assert!(got == bytes(BYTES, 0));
    });
    let mut stream = stream.unwrap();
    let all = bytes(BYTES, 0);
    let mut rest = &all[..];
    runtime.block_on(async {
        // As far as the socket takes it while nobody reads.
        while let Poll::Ready(n) = poll_fn(|cx| Poll::Ready(stream.poll_write(cx, rest))).await {
            rest = &rest[n.unwrap()..];
        }
        assert!(!rest.is_empty() && stream.outgoing.len() < 2 * SEALED_BYTES, "{}", stream.outgoing.len());
        full.send(()).unwrap();
        write_all(&mut stream, rest).await;
        assert_eq!(held(&stream), [0; 3]);
    });
    client.join().unwrap();
}

#[test]
fn what_waits_for_the_socket_goes_in_parts() {
    const BYTES: usize = 16 * 1024 * 1024;
    let runtime = runtime();
    let (stream, client) = connected(&runtime, &TLS12, move |mut session, mut socket| {
        shake_hands(&mut session, &mut socket);
        let mut raw = vec![0; BYTES];
        socket.read_exact(&mut raw).unwrap();
        assert!(raw == bytes(BYTES, 0));
    });
    let mut stream = stream.unwrap();
    stream.outgoing = bytes(BYTES, 0);
    runtime.block_on(poll_fn(|cx| stream.poll_flush(cx))).unwrap();
    assert_eq!(held(&stream), [0; 3]);
    client.join().unwrap();
}
