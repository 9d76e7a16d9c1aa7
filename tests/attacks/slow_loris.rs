//! Bytes that drip: each of them is progress, and none of it buys time.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ternmq::config::Transport;

use crate::house::eventually;
use crate::pki::Ca;
use crate::support::wire::{self, Connect};
use crate::support::wire5::{self, Connect5};
use crate::support::{DEADLINE, RawClient, RawClient5, TestBroker};

/// Sends a byte now and then until the broker ends the connection, which it must do before all is sent; what it says before that.
#[track_caller]
fn drip(stream: &mut TcpStream, bytes: &[u8], pause: Duration) -> Vec<u8> {
    let deadline = Instant::now() + DEADLINE;
    stream.set_read_timeout(Some(pause)).expect("a timeout");
    let mut answer = Vec::new();
    let mut buffer = [0; 256];
    for byte in bytes {
        // A broker that has closed says so when it is read.
        let _ = stream.write_all(&[*byte]);
        match stream.read(&mut buffer) {
            Ok(0) => return answer,
            Ok(n) => answer.extend_from_slice(&buffer[..n]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                return answer;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(Instant::now() < deadline, "still open, and it answered {answer:?}");
    }
    panic!("all of it was taken");
}

const PAUSE: Duration = Duration::from_millis(20);

/// Has `connect_timeout` be short.
fn impatient() -> TestBroker {
    TestBroker::with_config(|config| config.limits.connect_timeout = Duration::from_millis(500))
}

#[test]
fn connect_that_drips() {
    let broker = impatient();
    let connect = Connect::new("slow").will("w", vec![0; 10_000], 0, false).bytes();
    let mut stream = TcpStream::connect(broker.addr()).expect("a connection");
    assert_eq!(drip(&mut stream, &connect, PAUSE), b"");
    eventually(&broker, "a timeout", |metrics| metrics.refused.get("connect_timeout") == Some(&1));
    RawClient::clean(broker.addr(), "healthy").disconnect();
}

#[test]
fn client_hello_that_drips() {
    let ca = Ca::new();
    let broker = TestBroker::with_config(|config| {
        config.limits.connect_timeout = Duration::from_millis(500);
        config.limits.tls_handshakes_max = 1;
        config.listeners[0].transport = Transport::Tls(ca.server());
    });
    let mut stream = TcpStream::connect(broker.addr()).expect("a connection");
    let dripping = std::thread::spawn({
        let hello = ca.client_hello();
        move || drip(&mut stream, &hello, PAUSE)
    });
    // Meanwhile it takes no place among the handshakes under way, of which there is one.
    while !dripping.is_finished() {
        assert_eq!(ca.connect(broker.addr(), None).code, Some(0));
    }
    assert_eq!(dripping.join().expect("closed"), b"");
    eventually(&broker, "a timeout", |metrics| metrics.refused.get("connect_timeout") == Some(&1));
}

#[test]
fn connect_that_drips_behind_tls() {
    let ca = Ca::new();
    let broker = TestBroker::with_config(|config| {
        config.limits.connect_timeout = Duration::from_secs(1);
        config.listeners[0].transport = Transport::Tls(ca.server());
    });
    let mut stream = ca.handshake(broker.addr(), None);
    let deadline = Instant::now() + DEADLINE;
    let bytes = Connect::new("slow").will("w", vec![0; 10_000], 0, false).bytes();
    stream.sock.set_read_timeout(Some(PAUSE)).expect("a timeout");
    let sent = bytes.iter().take_while(|byte| {
        assert!(Instant::now() < deadline, "still open");
        let is_open = stream.write_all(&[**byte]).and_then(|()| stream.flush()).is_ok();
        is_open && matches!(stream.read(&mut [0; 16]), Err(error) if error.kind() == ErrorKind::WouldBlock)
    });
    assert!(sent.count() < bytes.len());
    eventually(&broker, "a timeout", |metrics| metrics.refused.get("connect_timeout") == Some(&1));
}

#[test]
fn publish_that_drips_is_silence_to_keep_alive() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("#", 0);
    let publish = wire::publish_qos0("t", vec![0; 15_000_000]);
    let (client, _) = RawClient::open(broker.addr(), &Connect::new("slow").keep_alive(1));
    assert_eq!(drip(&mut client.into_stream(), &publish[..10_000], PAUSE), b"");
    let mut client = RawClient5::connect(broker.addr());
    client.send_connect(&Connect5::new("slow-5").keep_alive(1));
    client.expect_packet();
    // Nor do many bytes at once: only a packet is a sign of life.
    for part in wire5::publish5(0, "t", None, &[], vec![0; 15_000_000]).chunks(100_000).take(20) {
        client.send(part);
    }
    client.expect_disconnect(0x8D);
    eventually(&broker, "both ends", |metrics| metrics.closed.get("keep_alive") == Some(&2));
    subscriber.expect_nothing();
}
