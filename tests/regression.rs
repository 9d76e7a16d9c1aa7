//! Faults that were found once, each with the sequence of events that showed it: here those of TernMQ, in the modules those of other brokers.

#[path = "regression/entry.rs"]
mod entry;
#[path = "regression/input.rs"]
mod input;
#[path = "regression/sessions.rs"]
mod sessions;
mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use support::broker::eventually;
use support::wire::{self, Connect};
use support::{DEADLINE, RawClient, TestBroker};
use ternmq::config::{Config, ListenerConfig};
use ternmq::{Broker, MetricsSnapshot, QoS};
use tokio::runtime::Runtime;

fn quiet() -> Config {
    Config {
        listeners: vec![ListenerConfig::tcp((Ipv4Addr::LOCALHOST, 0).into())],
        sys_interval: None,
        ..Config::default()
    }
}

/// The broker's tasks run only while the test lets them: so the order of events is the test's.
fn run_until(runtime: &Runtime, broker: &Broker, holds: &dyn Fn(&MetricsSnapshot) -> bool) {
    let deadline = Instant::now() + DEADLINE;
    runtime.block_on(async {
        while !holds(&broker.metrics()) {
            assert!(Instant::now() < deadline, "{:#?}", broker.metrics());
            tokio::task::yield_now().await;
        }
    });
}

/// A client that says DISCONNECT and closes with messages unread resets its connection. The publisher's thread may see that first, when it
/// writes; the DISCONNECT that came before it counts all the same ([MQTT-3.1.2-10]).
#[test]
fn a_disconnect_counts_that_was_read_after_a_failed_write() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let broker = runtime.block_on(Broker::start(quiet())).expect("the broker starts");
    let mut stream = TcpStream::connect(broker.local_addrs()[0]).expect("TCP connection");
    let connect = Connect::new("leaves").will("will", "should not be seen", 0, false).bytes();
    stream.write_all(&connect).expect("CONNECT");
    stream.write_all(&wire::subscribe(1, &[("t", 0)])).expect("SUBSCRIBE");
    run_until(&runtime, &broker, &|metrics| metrics.bytes_sent >= 9);
    let mut answers = [0; 9];
    stream.read_exact(&mut answers).expect("CONNACK and SUBACK");

    // From here on the broker's tasks stand still.
    stream.write_all(&wire::DISCONNECT).expect("DISCONNECT");
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    drop(stream);
    broker.publish("t", b"finds the socket reset", QoS::AtMostOnce, false).expect("a topic");
    run_until(&runtime, &broker, &|metrics| metrics.sockets == 0);
    let metrics = broker.metrics();
    assert_eq!((metrics.wills_published, metrics.closed.get("disconnect")), (0, Some(&1)), "{metrics:#?}");
    runtime.block_on(broker.shutdown());
}

/// A client that says DISCONNECT and connects anew at once comes by two sockets, and the broker may look at the newer one first. The
/// DISCONNECT was sent before: it is no take-over, and no will is published.
#[test]
fn a_disconnect_counts_that_a_successor_overtook() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let broker = runtime.block_on(Broker::start(quiet())).expect("the broker starts");
    let addr = broker.local_addrs()[0];
    let connect = Connect::new("hasty").will("will", "should not be seen", 0, false).bytes();
    let mut old = TcpStream::connect(addr).expect("TCP connection");
    old.write_all(&connect).expect("CONNECT");
    run_until(&runtime, &broker, &|metrics| metrics.clients_connected == 1);
    let mut new = TcpStream::connect(addr).expect("TCP connection");
    run_until(&runtime, &broker, &|metrics| metrics.sockets == 2);
    // The broker's tasks stand still: both are there when they go on, and they are woken for CONNECT first.
    new.write_all(&connect).expect("CONNECT");
    old.write_all(&wire::DISCONNECT).expect("DISCONNECT");
    run_until(&runtime, &broker, &|metrics| metrics.connections == 2 && metrics.sockets == 1);
    let metrics = broker.metrics();
    assert_eq!((metrics.wills_published, metrics.closed.get("disconnect")), (0, Some(&1)), "{metrics:#?}");
    runtime.block_on(broker.shutdown());
}

/// A client that asks for more than it reads is not read any further; when it then falls silent for good, its keep alive must still end it
/// ([MQTT-3.1.2-24]).
#[test]
fn keep_alive_ends_a_client_whose_output_is_full() {
    let broker = TestBroker::with_config(|config| config.limits.queue_bytes_max = 1_000);
    let (client, _) = RawClient::open(broker.addr(), &Connect::new("silent").keep_alive(1));
    let mut stream = client.into_stream();
    stream.set_nonblocking(true).expect("non-blocking");
    let pings = wire::PINGREQ.repeat(32 * 1_024);
    // Until neither side takes anything any more.
    let mut stuck_since = Instant::now();
    let deadline = Instant::now() + DEADLINE;
    let mut from = 0;
    while stuck_since.elapsed() < Duration::from_millis(400) {
        assert!(
            Instant::now() < deadline,
            "the broker reads on and on without being read: {:#?}",
            broker.metrics()
        );
        match stream.write(&pings[from..]) {
            Ok(n) => {
                from = (from + n) % pings.len();
                stuck_since = Instant::now();
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
    while broker.metrics().closed.get("keep_alive") != Some(&1) {
        assert!(Instant::now() < deadline, "it is kept for ever: {:#?}", broker.metrics());
        std::thread::yield_now();
    }
}
