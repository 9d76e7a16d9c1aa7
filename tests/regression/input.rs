//! What peers send: faults of other brokers in reading it, keeping it and passing it on. `tests/FAULTS.md` names them.

use std::ffi::OsStr;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::eventually;
use crate::support::{
    Connect, Connect5, DEADLINE, Publish, RawClient, RawClient5, ServerPacket, TestBroker, wire, wire5,
};

/// Client ids that mean something to file systems, patterns, queries or languages that keep tables in objects.
const STRANGE_NAMES: [&str; 14] = [
    "../../etc/passwd",
    "/dev/null",
    "..",
    "a/b",
    "#",
    "+",
    "$SYS",
    "%u",
    "*",
    ".*",
    "__proto__",
    "constructor",
    "' OR 1=1 --",
    "$(reboot)",
];

/// The first five bytes settle it: a length is no reason to wait or to make room, and what is no CONNECT has no length that matters.
#[test]
fn a_first_packet_is_judged_by_its_header() {
    let broker = TestBroker::with_config(|config| config.limits.connect_timeout = DEADLINE * 2);
    let mut refused = 0;
    for first_byte in [0x10, 0x20, 0x30, 0x32, 0x82, 0xA2, 0xE0, 0xF0] {
        for length in [&[0xFF, 0xFF, 0xFF, 0x7F], &[0xFF, 0xFF, 0xFF, 0xFF], &[0x80, 0x80, 0x80, 0x80]] {
            let mut client = RawClient::connect(broker.addr());
            client.send(&[&[first_byte], length.as_slice()].concat());
            client.expect_closed();
            refused += 1;
        }
    }
    let metrics = eventually(&broker, "all closed", |metrics| metrics.sockets == 0);
    assert_eq!(metrics.refused.values().sum::<u64>(), refused, "{metrics:#?}");
    assert_eq!(metrics.refused.get("connect_timeout"), None, "{metrics:#?}");
}

/// A PUBLISH that is refused leaves nothing behind that would be sent to those who subscribe later.
#[test]
fn what_is_refused_is_never_kept() {
    let broker = TestBroker::start();
    let id = Some(7);
    let refused: [Vec<u8>; 9] = [
        wire::raw_publish(1, b"bad/\xC3\x28", None, "not UTF-8"),
        wire::raw_publish(1, "bad/\0", None, "NUL"),
        wire::raw_publish(1, "bad/+", None, "a wildcard"),
        wire::raw_publish(1, "", None, "no topic"),
        wire::raw_publish(7, "bad/qos", id, "QoS 3"),
        wire::raw_publish(3, "bad/id", Some(0), "packet id 0"),
        // The topic is longer than the packet; the packet ends in the packet id.
        wire::packet(0x31, b"\x00\x20bad/topic"),
        wire::packet(0x33, b"\x00\x06bad/id\x01"),
        // A topic and nothing else where a packet id belongs.
        wire::packet(0x35, b"\x00\x06bad/id"),
    ];
    for packet in refused {
        let mut publisher = RawClient::clean(broker.addr(), "publisher");
        publisher.send(&packet);
        publisher.expect_closed();
    }
    let publish = |properties: &[u8]| wire5::publish5(1, "bad/property", None, properties, "x");
    for packet in [
        // Properties of other packets, a value out of range, one twice, a section longer than the packet, a wildcard to answer to.
        publish(&wire5::byte(0x25, 1)),
        publish(&wire5::text(0x1F, "reason")),
        publish(&wire5::byte(0x01, 2)),
        publish(&wire5::two(0x23, 0)),
        publish(&[wire5::four(0x02, 1), wire5::four(0x02, 1)].concat()),
        publish(&wire5::text(0x08, "answer/#")),
        publish(&wire5::variable(0x0B, 1)),
        wire::packet(0x31, b"\x00\x0Cbad/property\x7F\x01"),
    ] {
        let mut publisher = RawClient5::clean(broker.addr(), "publisher");
        publisher.send(&packet);
        publisher.packets_until_closed();
    }
    assert_eq!(broker.metrics().retained, 0);
    let mut late = RawClient::clean(broker.addr(), "late");
    late.subscribe("#", 2);
    late.expect_nothing();
}

/// `$` has a meaning in front of `SYS/` and `share/` only; below `$SYS/` nobody writes but the broker, not by a will either.
#[test]
fn topics_below_other_dollar_names_are_topics() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    let topics = [
        "$",
        "$/",
        "$x/y",
        "$SYSTEM",
        "$SY",
        "$CONTROL/dynamic-security/v1",
        "$queue/a",
        "$MQTT/sub",
        "$share",
    ];
    for topic in topics {
        subscriber.subscribe(topic, 1);
        publisher.publish_retained(topic, 1, topic);
        subscriber.expect_message_and_ack(topic, topic);
        let (client, _) =
            RawClient::open(broker.addr(), &Connect::new("mortal").will(topic, "died", 1, false));
        client.vanish();
        subscriber.expect_message_and_ack(topic, "died");
    }
    let kept = broker.metrics().retained;
    assert_eq!(kept, topics.len() as u64);
    subscriber.subscribe("$SYS/#", 1);
    for topic in ["$SYS/broker/version", "$SYS/", "$SYS/x"] {
        publisher.publish_retained(topic, 1, "forged");
        publisher.publish_retained(topic, 2, "forged");
        let (client, _) =
            RawClient::open(broker.addr(), &Connect::new("mortal").will(topic, "forged", 1, true));
        client.vanish();
    }
    subscriber.expect_nothing();
    assert_eq!(broker.metrics().retained, kept);
    assert_eq!(broker.metrics().dropped.get("sys_topic"), Some(&9));
}

/// Ids are keys and nothing else: each has a session of its own, on the disk too.
#[test]
fn client_ids_that_mean_something_elsewhere_are_ids_like_others() {
    let directory = tempfile::tempdir().expect("a directory");
    let long = "x".repeat(65_535);
    let longer_by_a_bit = format!("{}y", &long[1..]);
    let ids: Vec<&str> = STRANGE_NAMES.into_iter().chain([long.as_str(), longer_by_a_bit.as_str()]).collect();
    let broker = TestBroker::on_disk(directory.path(), |_| {});
    for (n, id) in ids.iter().enumerate() {
        let connect = Connect::persistent(id).user_name(id);
        let (mut client, present) = RawClient::open(broker.addr(), &connect);
        assert!(!present, "{id:.20} has the session of another");
        client.subscribe(&format!("to/{n}"), 1);
        client.disconnect();
    }
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for n in 0..ids.len() {
        publisher.publish(&format!("to/{n}"), 1, n.to_string());
    }
    drop(broker);
    let broker = TestBroker::on_disk(directory.path(), |_| {});
    for (n, id) in ids.iter().enumerate() {
        let (mut client, present) = RawClient::open(broker.addr(), &Connect::persistent(id).user_name(id));
        assert!(present, "{id:.20} has lost its session");
        client.expect_message_and_ack(&format!("to/{n}"), n.to_string());
        client.expect_nothing();
    }
}

/// The bytes of a retained message are its own, whatever comes through the buffers it came through.
#[test]
fn a_retained_message_keeps_its_bytes_while_its_publisher_goes_on() {
    let broker = TestBroker::start();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    let sizes = [0_usize, 1, 63, 64, 65, 1_000, 5_000, 70_000];
    let payload = |n: usize, size: usize| vec![b'A' + n as u8; size + 1];
    for (n, size) in sizes.into_iter().enumerate() {
        publisher.publish_retained(&format!("kept/{n}"), 1, payload(n, size));
        for _ in 0..20 {
            publisher.publish("live/0", 1, vec![b'z'; size + 1]);
        }
    }
    let mut late = RawClient::clean(broker.addr(), "late");
    for (n, size) in sizes.into_iter().enumerate() {
        let topic = format!("kept/{n}");
        late.subscribe(&topic, 0);
        let Publish { retain, qos, .. } = late.expect_message(&topic, payload(n, size));
        // The lower of both QoS, and told to be an old one.
        assert_eq!((retain, qos), (true, 0));
    }
}

/// Bounds at their least divide nothing by zero and let the broker serve whoever keeps within them.
#[test]
fn a_broker_with_every_bound_at_its_least_serves() {
    let broker = TestBroker::with_config(|config| {
        let limits = &mut config.limits;
        limits.packet_bytes_max = 64;
        limits.connections_max = 1;
        limits.connections_per_address_max = Some(1);
        limits.connections_per_user_max = Some(1);
        limits.publish_rate_max = Some(1);
        limits.publish_bytes_rate_max = Some(64);
        limits.memory_max = ternmq::config::MemoryMax::Bytes(1_000_000);
        limits.tls_handshakes_max = 1;
        (limits.inflight_max, limits.receive_maximum, limits.topic_alias_max) = (1, 1, 0);
        (limits.queue_messages_max, limits.queue_bytes_max) = (1, 1);
        limits.session_expiry = Some(Duration::ZERO);
        limits.sessions_max = 1;
        (limits.retained_messages_max, limits.retained_bytes_max) = (0, ternmq::config::MemoryMax::Bytes(0));
        (limits.subscription_bytes_max, limits.subscriptions_max) = (1, 1);
        (limits.topic_levels_max, limits.topic_bytes_max) = (1, 1);
        limits.handshake_bytes_max = ternmq::config::MemoryMax::Bytes(0);
        config.sys_interval = Some(Duration::from_millis(100));
    });
    let mut client = RawClient::persistent(broker.addr(), "c");
    client.subscribe("t", 2);
    client.send(&wire::raw_publish(3, "t", Some(1), "x"));
    let (mut acknowledged, mut answered) = (false, false);
    client.send(&wire::PINGREQ);
    while !acknowledged || !answered {
        match client.expect_packet() {
            ServerPacket::PubAck(1) => acknowledged = true,
            ServerPacket::PingResp => answered = true,
            ServerPacket::Publish(publish) => assert_eq!(publish.topic, "t"),
            other => panic!("{other:?}"),
        }
    }
    client.vanish();
    eventually(&broker, "room again", |metrics| metrics.sockets == 0 && metrics.sessions_offline == 0);
    let (mut client, _, _) = RawClient5::open(broker.addr(), &Connect5::new("d"));
    client.subscribe("t", 1);
    client.unsubscribe(&["t"]);
    client.expect_nothing();
    client.disconnect();
}

/// Filters that overlap in every way a topic allows are found once each, and their client has one copy.
#[test]
fn filters_that_overlap_in_every_way_are_one_copy() {
    const LEVELS: u32 = 11;
    let broker = TestBroker::start();
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    let filters: Vec<String> = (0..1 << LEVELS)
        .map(|n| {
            (0..LEVELS).map(|level| if n >> level & 1 == 0 { "a/" } else { "+/" }).collect::<String>() + "+"
        })
        .collect();
    for some in filters.chunks(256) {
        let some: Vec<(&str, u8)> = some.iter().map(|filter| (filter.as_str(), 0)).collect();
        subscriber.subscribe_all(&some);
    }
    assert_eq!(broker.metrics().subscriptions, 1 << LEVELS);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    // No two alike: none is found in a cache.
    for n in 0..100 {
        let topic = format!("{}{n}", "a/".repeat(LEVELS as usize));
        publisher.publish(&topic, 0, "x");
        subscriber.expect_message(&topic, "x");
    }
    subscriber.expect_nothing();
}

/// Seeds of the fuzz target `decode` that are no faults: behind them the connection goes on.
const HARMLESS_SEEDS: [&str; 8] = [
    "a03-plain-and-shared",
    "a06-dollar-topics",
    "a30-puback-first",
    "b01-publish-to-slashes",
    "b01-subscribe-to-slashes",
    "e01-many-user-properties",
    "i01-user-name-without-password",
    "l05-pubrel-of-no-message",
];

/// The inputs that felled others, which the fuzzers begin with (`tests/fuzz/seeds`), each on a connection of its own: a fault ends it, and
/// nobody else notices.
#[test]
fn the_seeds_of_the_fuzzers_end_their_own_connection_at_most() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds/decode");
    let mut seeds: Vec<_> =
        fs::read_dir(seeds).expect("seeds").map(|seed| seed.expect("a seed").path()).collect();
    seeds.sort();
    assert!(seeds.len() >= 42, "{} seeds", seeds.len());
    let broker = TestBroker::start();
    let mut bystander = RawClient5::clean(broker.addr(), "bystander");
    let mut harmless = Vec::new();
    for seed in &seeds {
        let bytes = fs::read(seed).expect("a seed");
        let (version, packets) = bytes.split_first().expect("a version in front");
        let mut stream = TcpStream::connect(broker.addr()).expect("a connection");
        stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        if packets[0] != 0x10 {
            let connect = if *version < 2 { Connect::new("").bytes() } else { Connect5::new("").bytes() };
            stream.write_all(&connect).expect("CONNECT");
        }
        stream.write_all(&[packets, &wire::PINGREQ].concat()).expect("the packets");
        // The broker may have closed already.
        let _ = stream.shutdown(Shutdown::Write);
        let mut answers = Vec::new();
        match stream.read_to_end(&mut answers) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{}: {error}", seed.display()),
            _ => {}
        }
        if answers.ends_with(&[0xD0, 0]) {
            harmless.push(seed.file_name().and_then(OsStr::to_str).expect("a name").to_owned());
        }
        bystander.expect_nothing();
    }
    assert_eq!(harmless, HARMLESS_SEEDS);
    let metrics = eventually(&broker, "the bystander only", |metrics| metrics.sockets == 1);
    assert_eq!((metrics.closed.get("internal_error"), metrics.retained), (None, 0), "{metrics:#?}");
}
