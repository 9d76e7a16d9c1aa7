//! What a message carries goes to the subscribers unchanged and in order (section 3.3.2.3).

use crate::support::wire5::{self, id};
use crate::support::{RawClient5, TestBroker, broker};

fn pair(broker: &TestBroker) -> (RawClient5, RawClient5) {
    let mut subscriber = RawClient5::clean(broker.addr(), "subscriber");
    subscriber.subscribe("t", 2);
    (subscriber, RawClient5::clean(broker.addr(), "publisher"))
}

/// Every way a message can take: at once, at each QoS; queued for a session that is away; retained.
#[track_caller]
fn forwarded_on_every_way(properties: &[u8]) {
    let broker = TestBroker::start();
    let (mut subscriber, mut publisher) = pair(&broker);
    for flags in [0x00, 0x02, 0x04] {
        publisher.publish_with("t", flags, properties, "x");
        assert_eq!(subscriber.expect_and_ack("t", "x").properties.raw, properties, "flags {flags}");
    }
    let mut away = RawClient5::persistent(broker.addr(), "away");
    away.subscribe("t", 1);
    away.disconnect();
    // A payload that is shared between receivers takes another way than a small one.
    let large = vec![b'l'; 20_000];
    publisher.publish_with("t", 0x03, properties, "kept");
    publisher.publish_with("t", 0x02, properties, &large);
    assert_eq!(subscriber.expect_and_ack("t", "kept").properties.raw, properties);
    assert_eq!(subscriber.expect_and_ack("t", &large).properties.raw, properties);
    let mut away = RawClient5::resume(broker.addr(), "away");
    assert_eq!(away.expect_and_ack("t", "kept").properties.raw, properties);
    assert_eq!(away.expect_and_ack("t", &large).properties.raw, properties);
    let mut late = RawClient5::clean(broker.addr(), "late");
    late.subscribe("t", 1);
    assert_eq!(late.expect_and_ack("t", "kept").properties.raw, properties, "retained");
}

#[test]
fn mqtt5_3_3_2_4_the_payload_format_indicator_is_forwarded() {
    forwarded_on_every_way(&wire5::byte(id::PAYLOAD_FORMAT, 0));
    forwarded_on_every_way(&wire5::byte(id::PAYLOAD_FORMAT, 1));
}

#[test]
fn mqtt5_3_3_2_15_the_response_topic_is_forwarded() {
    forwarded_on_every_way(&wire5::text(id::RESPONSE_TOPIC, "answers/é/to"));
}

#[test]
fn mqtt5_3_3_2_16_correlation_data_is_forwarded() {
    forwarded_on_every_way(&wire5::text(id::CORRELATION_DATA, [0, 1, 255, 0]));
    forwarded_on_every_way(&wire5::text(id::CORRELATION_DATA, []));
}

#[test]
fn mqtt5_3_3_2_17_user_properties_are_forwarded() {
    forwarded_on_every_way(&wire5::user("name", "value"));
    forwarded_on_every_way(&wire5::user("", ""));
}

#[test]
fn mqtt5_3_3_2_18_user_properties_keep_their_order() {
    let users = [("b", "1"), ("a", "2"), ("b", "1"), ("a", "1"), ("", "x"), ("\u{FEFF}é", "\u{10FFFF}")];
    forwarded_on_every_way(&users.map(|(name, value)| wire5::user(name, value)).concat());
}

#[test]
fn mqtt5_3_3_2_18_the_order_holds_around_what_is_not_forwarded() {
    let broker = TestBroker::start();
    let (mut subscriber, mut publisher) = pair(&broker);
    let sent = [
        wire5::user("b", "1"),
        wire5::two(id::TOPIC_ALIAS, 3),
        wire5::user("a", "2"),
        wire5::four(id::MESSAGE_EXPIRY, 1_000),
        wire5::text(id::CONTENT_TYPE, "c"),
        wire5::user("b", "0"),
    ];
    publisher.publish_with("t", 0x02, &sent.concat(), "x");
    let publish = subscriber.expect_and_ack("t", "x");
    let users = [&sent[0][..], &sent[2], &sent[5]].concat();
    let mut got = Vec::new();
    for (_, value) in publish.properties.list.iter().filter(|(known, _)| *known == id::USER_PROPERTY) {
        if let crate::support::server_packet5::Value::Pair(name, value) = value {
            got.extend(wire5::user(name, value));
        }
    }
    assert_eq!(got, users);
    assert_eq!(publish.alias(), None, "the alias is the publisher's own");
    assert_eq!(publish.expiry(), Some(1_000));
    assert_eq!(publish.properties.text(id::CONTENT_TYPE), Some("c"));
}

#[test]
fn mqtt5_3_3_2_20_the_content_type_is_forwarded() {
    forwarded_on_every_way(&wire5::text(id::CONTENT_TYPE, "application/json; charset=utf-8"));
    forwarded_on_every_way(&wire5::text(id::CONTENT_TYPE, ""));
}

#[test]
fn everything_at_once_is_forwarded() {
    let user = wire5::user("n".repeat(300), "v".repeat(20_000));
    let all = [
        wire5::text(id::CORRELATION_DATA, vec![0xAA; 1_000]),
        user.clone(),
        wire5::byte(id::PAYLOAD_FORMAT, 1),
        user,
        wire5::text(id::RESPONSE_TOPIC, "r"),
        wire5::text(id::CONTENT_TYPE, "c"),
    ];
    forwarded_on_every_way(&all.concat());
}

#[test]
fn request_and_response_find_each_other() {
    let broker = TestBroker::start();
    let mut responder = RawClient5::clean(broker.addr(), "responder");
    responder.subscribe("requests", 1);
    let mut requesters: Vec<_> = (0..3)
        .map(|number| {
            let mut client = RawClient5::clean(broker.addr(), &format!("requester{number}"));
            client.subscribe(&format!("answers/{number}"), 1);
            client
        })
        .collect();
    for (number, client) in requesters.iter_mut().enumerate() {
        let correlation = wire5::text(id::CORRELATION_DATA, [number as u8, 0xFF]);
        let to = wire5::text(id::RESPONSE_TOPIC, format!("answers/{number}"));
        client.publish_with("requests", 0x02, &[to, correlation].concat(), "ask");
        let request = responder.expect_and_ack("requests", "ask");
        let to = request.properties.text(id::RESPONSE_TOPIC).expect("a response topic").to_owned();
        let correlation = wire5::text(id::CORRELATION_DATA, [number as u8, 0xFF]);
        responder.publish_with(&to, 0x02, &correlation, "answer");
        let answer = client.expect_and_ack(&to, "answer");
        assert_eq!(answer.properties.raw, correlation);
    }
}

#[test]
fn payload_format_is_not_checked_by_default() {
    let broker = TestBroker::start();
    let (mut subscriber, mut publisher) = pair(&broker);
    let code = publisher.publish_with("t", 0x02, &wire5::byte(id::PAYLOAD_FORMAT, 1), [0xFF]);
    assert_eq!(code, 0);
    subscriber.expect_and_ack("t", [0xFF]);
}

#[test]
fn payload_format_is_checked_where_configured() {
    let broker =
        TestBroker::with_config(|config| config.limits.payload_format = ternmq::config::PayloadFormat::Check);
    let (mut subscriber, mut publisher) = pair(&broker);
    let utf8 = wire5::byte(id::PAYLOAD_FORMAT, 1);
    for flags in [0x02, 0x03, 0x04, 0x05] {
        assert_eq!(publisher.publish_with("t", flags, &utf8, [0xFF]), 0x99);
    }
    publisher.publish_with("t", 0x00, &utf8, [0xFF]);
    subscriber.expect_nothing();
    // The id of a refused QoS 2 message is free at once: the same id is a new message.
    for (payload, code) in [(&[0xFF][..], 0x99), (b"good", 0)] {
        publisher.send(&wire5::publish5(0x04, "t", Some(5_000), &utf8, payload));
        assert_eq!(publisher.expect_packet(), crate::support::ServerPacket5::PubRec(5_000, code));
    }
    subscriber.expect_and_ack("t", "good");
    // Other payloads and other indicators are as before.
    for (property, payload) in
        [(utf8, &b"\xC3\xA9"[..]), (wire5::byte(id::PAYLOAD_FORMAT, 0), b"\xFF"), (vec![], b"\xFF")]
    {
        assert_eq!(publisher.publish_with("t", 0x02, &property, payload), 0);
        subscriber.expect_and_ack("t", payload);
    }
    let mut late = RawClient5::clean(broker.addr(), "late");
    late.subscribe("t", 0);
    late.expect_nothing();
}

#[test]
fn the_payload_format_of_a_will_is_checked_where_configured() {
    let broker =
        TestBroker::with_config(|config| config.limits.payload_format = ternmq::config::PayloadFormat::Check);
    let connect = crate::support::Connect5::new("client")
        .will("will", [0xFF], 0, false)
        .will_with(wire5::byte(id::PAYLOAD_FORMAT, 1));
    RawClient5::refused(broker.addr(), &connect.bytes(), 0x99);
}

#[test]
fn a_fan_out_gives_everybody_the_same() {
    let broker = TestBroker::start();
    let mut subscribers: Vec<_> = (0..20)
        .map(|number| {
            let mut client = RawClient5::clean(broker.addr(), &format!("s{number}"));
            client.subscribe("t", number % 3);
            client
        })
        .collect();
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    let properties = [wire5::user("a", "b"), wire5::text(id::CONTENT_TYPE, "c")].concat();
    publisher.publish_with("t", 0x04, &properties, "x");
    for (number, subscriber) in subscribers.iter_mut().enumerate() {
        let publish = subscriber.expect_and_ack("t", "x");
        assert_eq!((publish.qos, &publish.properties.raw), ((number % 3) as u8, &properties));
    }
    assert!(!broker::control_is_mosquitto() || publisher.publish_with("u", 2, &[], "") <= 0x10);
}
