//! Every limit bites where it says, is counted by its name, and harms nobody else.

#[path = "limits/abuse.rs"]
mod abuse;
#[path = "limits/memory.rs"]
mod memory;
#[path = "limits/memory_of_many.rs"]
mod memory_of_many;
#[path = "limits/proxy.rs"]
mod proxy;
#[path = "limits/sessions.rs"]
mod sessions;
mod support;
#[path = "limits/topics.rs"]
mod topics;
#[path = "limits/unfinished.rs"]
mod unfinished;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::broker::eventually;
use support::wire::{self, Connect};
use support::{DEADLINE, RawClient, ServerPacket, TestBroker};
use ternmq::MetricsSnapshot;
use ternmq::config::MemoryMax;

fn dropped(metrics: &MetricsSnapshot, reason: &str) -> u64 {
    metrics.dropped.get(reason).copied().unwrap_or_default()
}

fn held(metrics: &MetricsSnapshot, limit: &str) -> u64 {
    metrics.held.get(limit).copied().unwrap_or_default()
}

fn refused(metrics: &MetricsSnapshot, reason: &str) -> u64 {
    metrics.refused.get(reason).copied().unwrap_or_default()
}

#[test]
fn a_peer_without_complete_connect_is_closed_after_connect_timeout() {
    let broker = TestBroker::with(|settings| settings.connect_timeout = Duration::from_millis(300));
    let started = Instant::now();
    let mut silent = RawClient::connect(broker.addr());
    let mut half = RawClient::connect(broker.addr());
    half.send(&Connect::new("half").bytes()[..8]);
    silent.expect_closed();
    half.expect_closed();
    assert!(started.elapsed() >= Duration::from_millis(300), "closed before its time");
    eventually(&broker, "two timeouts", |metrics| refused(metrics, "connect_timeout") == 2);
}

#[test]
fn a_connect_as_large_as_the_standard_allows_is_taken() {
    let broker = TestBroker::start();
    let payload = vec![b'w'; 65_535];
    let connect = Connect::new("large")
        .will("will/large", &payload, 1, false)
        .user_name(vec![b'u'; 65_535])
        .password(vec![0xFF; 65_535]);
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("will/large", 0);
    let (client, _) = RawClient::open(broker.addr(), &connect);
    client.vanish();
    subscriber.expect_message("will/large", &payload);
}

#[test]
fn unfinished_connects_share_handshake_bytes_max() {
    let broker =
        TestBroker::with_config(|config| config.limits.handshake_bytes_max = MemoryMax::Bytes(200_000));
    let connect = Connect::new("big").will("w", vec![0; 65_535], 0, false).bytes();
    let unfinished = &connect[..connect.len() - 1];
    let mut held: Vec<RawClient> = (0..8)
        .map(|_| {
            let mut client = RawClient::connect(broker.addr());
            client.send(unfinished);
            client
        })
        .collect();
    // Three of 61 KB above the free 4 KB fit, the others do not.
    eventually(&broker, "five refusals", |metrics| refused(metrics, "handshake_bytes_max") == 5);
    // Those whose CONNECT is small are served all the while.
    RawClient::clean(broker.addr(), "small").disconnect();
    // What was held is given back.
    held.clear();
    let mut late = RawClient::connect(broker.addr());
    eventually(&broker, "all closed but one", |metrics| metrics.sockets == 1);
    late.send(unfinished);
    late.send(&connect[connect.len() - 1..]);
    late.expect(&[0x20, 2, 0, 0]);
}

#[test]
fn connections_max_turns_the_next_one_away_until_one_leaves() {
    let broker = TestBroker::with_config(|config| config.limits.connections_max = 2);
    let first = RawClient::clean(broker.addr(), "first");
    let mut second = RawClient::clean(broker.addr(), "second");
    let mut third = RawClient::connect(broker.addr());
    third.expect_closed();
    assert_eq!(refused(&broker.metrics(), "connections_max"), 1);
    second.expect_nothing();
    first.disconnect();
    eventually(&broker, "one socket left", |metrics| metrics.sockets == 1);
    RawClient::clean(broker.addr(), "third").disconnect();
}

/// Publishes QoS 0 messages of 64 KiB until the broker has dropped some for a receiver that does not read.
fn flood(broker: &TestBroker, topic: &str, reason: &str, qos: u8) -> u64 {
    let mut publisher = RawClient::clean(broker.addr(), "flood");
    let payload = vec![b'x'; 64 * 1_024];
    let deadline = Instant::now() + DEADLINE;
    let mut sent = 0;
    while dropped(&broker.metrics(), reason) == 0 {
        assert!(Instant::now() < deadline, "nothing is dropped: {:#?}", broker.metrics());
        publisher.publish(topic, qos, &payload);
        sent += 1;
    }
    sent
}

#[test]
fn a_stalled_subscriber_is_bounded_and_others_get_everything() {
    let broker = TestBroker::with_config(|config| config.limits.queue_bytes_max = 1_000_000);
    let mut stalled = RawClient::clean(broker.addr(), "stalled");
    stalled.subscribe("flood", 0);
    let address = broker.addr();
    let (started, start) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut healthy = RawClient::clean(address, "healthy");
        healthy.subscribe("flood", 0);
        healthy.subscribe("end", 0);
        started.send(()).unwrap();
        let mut received = 0_u64;
        while healthy.expect_publish().topic != "end" {
            received += 1;
        }
        received
    });
    start.recv().unwrap();
    let sent = flood(&broker, "flood", "queue_full_qos0", 0);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    publisher.publish("end", 0, "");
    assert_eq!(reader.join().unwrap(), sent, "the healthy subscriber missed messages");
    // The stalled one has lost the newest only: what it gets is a run from the beginning, and it is connected still.
    let received = stalled.packets_until_ping().len() as u64;
    assert!(received < sent, "something was dropped");
    assert_eq!(
        received + dropped(&broker.metrics(), "queue_full_qos0"),
        sent,
        "each message is delivered or counted"
    );
}

#[test]
fn qos_1_beyond_queue_bytes_max_is_counted_as_queue_full_bytes() {
    let broker = TestBroker::with_config(|config| config.limits.queue_bytes_max = 1_000_000);
    let mut stalled = RawClient::clean(broker.addr(), "stalled");
    stalled.subscribe("flood", 1);
    let sent = flood(&broker, "flood", "queue_full_bytes", 1);
    let dropped = dropped(&broker.metrics(), "queue_full_bytes");
    // In-flight and queued ones all arrive.
    for _ in 0..sent - dropped {
        let publish = stalled.expect_publish();
        stalled.send(&wire::puback(publish.id()));
    }
    stalled.expect_nothing();
}

#[test]
fn an_offline_queue_keeps_the_oldest_queue_messages_max() {
    let broker = TestBroker::with_config(|config| config.limits.queue_messages_max = 10);
    let mut sleeper = RawClient::persistent(broker.addr(), "sleeper");
    sleeper.subscribe("queue/#", 1);
    sleeper.disconnect();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for n in 0..15 {
        publisher.publish("queue/a", 1, n.to_string());
    }
    publisher.publish("queue/a", 0, "not kept");
    let metrics = broker.metrics();
    assert_eq!((dropped(&metrics, "queue_full"), dropped(&metrics, "offline_qos0")), (5, 1));
    let mut sleeper = RawClient::resume(broker.addr(), "sleeper");
    for n in 0..10 {
        sleeper.expect_message_and_ack("queue/a", n.to_string());
    }
    sleeper.expect_nothing();
}

#[test]
fn a_message_larger_than_queue_bytes_max_is_too_large_for_every_subscriber() {
    let broker = TestBroker::with_config(|config| config.limits.queue_bytes_max = 20_000);
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("size", 0);
    let mut sleeper = RawClient::persistent(broker.addr(), "sleeper");
    sleeper.subscribe("size", 1);
    sleeper.disconnect();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    publisher.publish("size", 1, vec![0; 30_000]);
    assert_eq!(dropped(&broker.metrics(), "too_large"), 2);
    publisher.publish("size", 1, vec![1; 10_000]);
    subscriber.expect_message("size", vec![1; 10_000]);
}

#[test]
fn packet_bytes_max_closes_only_the_connection_that_exceeds_it() {
    let broker = TestBroker::with(|settings| settings.packet_bytes_max = 1_000);
    let mut bystander = RawClient::clean(broker.addr(), "bystander");
    bystander.subscribe("t", 0);
    let mut large = RawClient::clean(broker.addr(), "large");
    large.send(&wire::publish_qos0("t", vec![0; 1_000]));
    large.expect_closed();
    eventually(&broker, "the count", |metrics| metrics.closed.get("packet_too_large") == Some(&1));
    bystander.expect_nothing();
}

#[test]
fn subscriptions_max_and_topic_levels_max_answer_0x80() {
    let broker = TestBroker::with_config(|config| {
        config.limits.subscriptions_max = 2;
        config.limits.topic_levels_max = 3;
    });
    let mut client = RawClient::clean(broker.addr(), "client");
    let codes = client.subscribe_all(&[("a/b/c/#", 0), ("a/b/#", 1), ("x", 2), ("y", 0), ("x", 1)]);
    assert_eq!(codes, [0x80, 1, 2, 0x80, 1]);
    let metrics = broker.metrics();
    assert_eq!((dropped(&metrics, "topic_levels_max"), dropped(&metrics, "subscriptions_max")), (1, 1));
    client.unsubscribe("x");
    assert_eq!(client.subscribe_all(&[("a/b/c/d", 0), ("a/b/c", 0)]), [0x80, 0]);
}

#[test]
fn session_expiry_ends_a_session_and_counts_what_it_held() {
    let broker =
        TestBroker::with_config(|config| config.limits.session_expiry = Some(Duration::from_millis(300)));
    let mut sleeper = RawClient::persistent(broker.addr(), "sleeper");
    sleeper.subscribe("t", 1);
    sleeper.disconnect();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    publisher.publish("t", 1, "lost with the session");
    let metrics = eventually(&broker, "expiry", |metrics| metrics.sessions_expired == 1);
    assert_eq!(
        (dropped(&metrics, "session_expired"), metrics.subscriptions, metrics.sessions_offline),
        (1, 0, 0)
    );
    let mut sleeper = RawClient::persistent(broker.addr(), "sleeper");
    sleeper.expect_nothing();
}

#[test]
fn a_session_that_comes_back_in_time_does_not_expire() {
    let broker =
        TestBroker::with_config(|config| config.limits.session_expiry = Some(Duration::from_millis(500)));
    RawClient::persistent(broker.addr(), "sleeper").disconnect();
    let mut sleeper = RawClient::resume(broker.addr(), "sleeper");
    sleeper.stays_silent_and_open(Duration::from_millis(1_200));
    sleeper.expect_nothing();
    assert_eq!(broker.metrics().sessions_expired, 0);
}

#[test]
fn a_peer_that_does_not_read_its_answers_is_not_read_any_more() {
    let broker = TestBroker::with_config(|config| config.limits.queue_bytes_max = 100_000);
    let mut stream = TcpStream::connect(broker.addr()).unwrap();
    stream.write_all(&Connect::new("greedy").bytes()).unwrap();
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let pings = wire::PINGREQ.repeat(32 * 1_024);
    // What both kernels buffer is some megabytes; a broker that went on reading would take this for ever.
    let mut sent = 0_usize;
    let stopped = loop {
        // A write may end in the middle of a packet.
        match stream.write(&pings[sent % 2..]) {
            Ok(n) => sent += n,
            Err(error) => break error.kind(),
        }
        assert!(sent < 1 << 30, "the broker takes requests without end");
    };
    assert!(matches!(stopped, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{stopped}");
    // It is held, not cut: once it reads, every ping is answered.
    let mut answers = 0_usize;
    let mut buffer = vec![0; 1 << 20];
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    while answers < sent / 2 * 2 {
        let n = stream.read(&mut buffer).unwrap();
        assert!(n > 0, "cut after {answers} of {sent} bytes: {:#?}", broker.metrics());
        answers += n;
    }
}

#[test]
fn unfinished_qos_2_ids_are_bounded_and_told_by_id() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("t", 0);
    let mut client = RawClient::clean(broker.addr(), "client");
    // The same id again and again, never released: one message, an answer each.
    for _ in 0..5_000 {
        client.send(&wire::publish_qos2(7, "t", "once"));
    }
    for _ in 0..5_000 {
        client.expect(&wire::pubrec(7));
    }
    subscriber.expect_message("t", "once");
    subscriber.expect_nothing();
}

#[test]
fn shutdown_publishes_wills_and_flushes_before_it_closes() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("will/#", 1);
    let (mut device, _) =
        RawClient::open(broker.addr(), &Connect::new("device").will("will/device", "gone", 1, false));
    device.expect_nothing();
    drop(broker);
    subscriber.expect_message("will/device", "gone");
    subscriber.expect_closed();
    device.expect_closed();
}

#[test]
fn faults_of_peers_are_counted_by_reason() {
    let broker = TestBroker::start();
    let cases: [(&[u8], &str); 4] = [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "not_connect"),
        (&[0x16, 0x03, 0x01, 0x02, 0x00], "not_connect"),
        (&[0x11, 0x00], "reserved_flags"),
        (&[0x10, 0xFF, 0xFF, 0xFF, 0xFF], "bad_remaining_length"),
    ];
    for (bytes, reason) in cases {
        let before = refused(&broker.metrics(), reason);
        let mut peer = RawClient::connect(broker.addr());
        peer.send(bytes);
        peer.expect_closed();
        eventually(&broker, reason, |metrics| refused(metrics, reason) == before + 1);
    }
}

#[test]
fn counters_add_up() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("t/#", 2);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for qos in 0..3 {
        publisher.publish("t/x", qos, "m");
        match subscriber.expect_publish() {
            publish if qos == 0 => assert_eq!(publish.packet_id, None),
            publish if qos == 1 => subscriber.send(&wire::puback(publish.id())),
            publish => subscriber.complete_qos2(&publish),
        }
    }
    publisher.publish("$SYS/broker/uptime", 1, "forged");
    subscriber.send(&wire::PINGREQ);
    assert_eq!(subscriber.expect_packet(), ServerPacket::PingResp);
    let metrics = broker.metrics();
    assert_eq!((metrics.publish_received, metrics.publish_sent, metrics.publish_queued), (4, 3, 0));
    assert_eq!(dropped(&metrics, "sys_topic"), 1);
    assert_eq!((metrics.clients_connected, metrics.sockets, metrics.subscriptions), (2, 2, 1));
    subscriber.disconnect();
    publisher.vanish();
    let metrics = eventually(&broker, "both gone", |metrics| metrics.sockets == 0);
    assert_eq!((metrics.clients_connected, metrics.sessions_offline, metrics.subscriptions), (0, 0, 0));
    assert_eq!((metrics.closed.get("disconnect"), metrics.closed.get("peer_closed")), (Some(&1), Some(&1)));
}

#[test]
fn sessions_max_refuses_who_would_need_one_more() {
    let broker = TestBroker::with_config(|config| config.limits.sessions_max = 2);
    RawClient::persistent(broker.addr(), "one").disconnect();
    RawClient::persistent(broker.addr(), "two").disconnect();
    let mut third = RawClient::connect(broker.addr());
    third.send(&Connect::new("three").bytes());
    third.expect(&[0x20, 2, 0, 3]);
    third.expect_closed();
    assert_eq!(refused(&broker.metrics(), "sessions_max"), 1);
    // Those who have a session come in, and a session that ends makes room.
    RawClient::resume(broker.addr(), "one").disconnect();
    RawClient::clean(broker.addr(), "two").disconnect();
    eventually(&broker, "one session left", |metrics| metrics.sessions_offline == 1);
    RawClient::clean(broker.addr(), "three").disconnect();
}

#[test]
fn retained_messages_are_bounded_in_number_and_bytes() {
    let broker = TestBroker::with_config(|config| {
        config.limits.retained_messages_max = 2;
        config.limits.retained_bytes_max = MemoryMax::Bytes(10_000);
    });
    let mut client = RawClient::clean(broker.addr(), "client");
    client.subscribe("r/#", 0);
    for topic in ["r/1", "r/2", "r/3"] {
        client.publish_retained_and_receive(topic, "kept?");
    }
    assert_eq!((dropped(&broker.metrics(), "retained_messages_max"), broker.metrics().retained), (1, 2));
    // One that does not fit takes the one it would have replaced with it: nothing is better than what is out of date.
    client.publish_retained_and_receive("r/1", vec![0; 11_000]);
    assert_eq!((dropped(&broker.metrics(), "retained_bytes_max"), broker.metrics().retained), (1, 1));
    // Bytes are given back: by replacement, and by removal.
    for n in 0..50 {
        client.publish_retained_and_receive("r/2", vec![n; 5_000]);
    }
    client.publish_retained_and_receive("r/2", "");
    client.publish_retained_and_receive("r/4", vec![0; 9_000]);
    assert_eq!((dropped(&broker.metrics(), "retained_bytes_max"), broker.metrics().retained), (1, 1));
}

#[test]
fn subscription_bytes_max_refuses_further_filters_until_some_are_given_up() {
    let broker = TestBroker::with_config(|config| config.limits.subscription_bytes_max = 10);
    let mut client = RawClient::clean(broker.addr(), "client");
    assert_eq!(
        client.subscribe_all(&[("12345", 0), ("123456", 0), ("12345", 1), ("67890", 2)]),
        [0, 0x80, 1, 2]
    );
    assert_eq!(dropped(&broker.metrics(), "subscription_bytes_max"), 1);
    client.unsubscribe("12345");
    assert_eq!(client.subscribe_all(&[("54321", 0)]), [0]);
}
