//! Clients of 3.1.1 and 5 in one topic space.

use crate::support::wire5::{self, id};
use crate::support::{Connect, Connect5, RawClient, RawClient5, TestBroker};

fn all_properties() -> Vec<u8> {
    [
        wire5::byte(id::PAYLOAD_FORMAT, 1),
        wire5::text(id::CONTENT_TYPE, "c"),
        wire5::text(id::RESPONSE_TOPIC, "r"),
        wire5::text(id::CORRELATION_DATA, "d"),
        wire5::user("a", "b"),
    ]
    .concat()
}

#[test]
fn messages_of_5_reach_3_1_1_without_properties() {
    let broker = TestBroker::start();
    let mut three = RawClient::persistent(broker.addr(), "three");
    three.subscribe("t", 2);
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    let large = vec![b'l'; 20_000];
    for payload in [b"x", large.as_slice()] {
        for qos in [0, 1, 2] {
            publisher.publish_with("t", qos << 1, &all_properties(), payload);
            let publish = three.expect_message("t", payload);
            assert_eq!(publish.qos, qos);
            match qos {
                0 => {}
                1 => three.send(&crate::support::wire::puback(publish.id())),
                _ => three.complete_qos2(&publish),
            }
        }
    }
    three.disconnect();
    publisher.publish_with("t", 0x03, &all_properties(), "queued");
    let mut three = RawClient::resume(broker.addr(), "three");
    three.expect_message_and_ack("t", "queued");
    three.subscribe("t", 1);
    assert!(three.expect_message_and_ack("t", "queued").retain);
}

#[test]
fn messages_of_3_1_1_reach_5() {
    let broker = TestBroker::start();
    let mut five = RawClient5::persistent(broker.addr(), "five");
    five.subscribe_with_id("t", 2, 7);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for qos in [0, 1, 2] {
        publisher.publish("t", qos, "x");
        let publish = five.expect_and_ack("t", "x");
        assert_eq!((publish.qos, publish.subscription_ids()), (qos, vec![7]));
        assert_eq!(publish.properties.list.len(), 1, "{publish:?}");
    }
    five.disconnect();
    publisher.publish_retained("t", 1, "queued");
    let mut five = RawClient5::resume(broker.addr(), "five");
    five.expect_and_ack("t", "queued");
    five.subscribe("t", 1);
    assert!(five.expect_and_ack("t", "queued").retain);
}

#[test]
fn one_message_reaches_all_kinds_of_subscribers() {
    let broker = TestBroker::start();
    let mut threes: Vec<RawClient> = (0..6)
        .map(|number| {
            let mut client = RawClient::clean(broker.addr(), &format!("three{number}"));
            client.subscribe("t", number % 3);
            client
        })
        .collect();
    let mut fives: Vec<RawClient5> = (0..12)
        .map(|number| {
            // Every second one allows aliases: its PUBLISH has a layout of its own.
            let connect = Connect5::new(format!("five{number}"))
                .with(wire5::two(id::TOPIC_ALIAS_MAXIMUM, u16::from(number > 5)));
            let (mut client, ..) = RawClient5::open(broker.addr(), &connect);
            client.subscribe("t", number % 3);
            client
        })
        .collect();
    let mut from_three = RawClient::clean(broker.addr(), "from three");
    let mut from_five = RawClient5::clean(broker.addr(), "from five");
    for round in 0..3 {
        for published in 0..=2 {
            let text = format!("{round} {published}");
            let properties = if round == 1 { all_properties() } else { Vec::new() };
            if round == 0 {
                from_three.publish("t", published, &text);
            } else {
                from_five.publish_with("t", published << 1, &properties, &text);
            }
            for (number, client) in threes.iter_mut().enumerate() {
                assert_eq!(client.expect_message("t", &text).qos, published.min((number % 3) as u8));
            }
            for (number, client) in fives.iter_mut().enumerate() {
                let publish = client.expect_and_ack("t", &text);
                assert_eq!(publish.qos, published.min((number % 3) as u8));
                let mut forwarded = publish.properties.raw.clone();
                if let Some(alias) = publish.alias() {
                    let alias = wire5::two(id::TOPIC_ALIAS, alias as u16);
                    let place = forwarded.windows(3).position(|bytes| bytes == alias).expect("the alias");
                    forwarded.drain(place..place + 3);
                }
                assert_eq!(forwarded, properties);
            }
        }
    }
}

#[test]
fn wills_cross_the_versions() {
    let broker = TestBroker::start();
    let mut three = RawClient::clean(broker.addr(), "three");
    three.subscribe("will", 1);
    let mut five = RawClient5::clean(broker.addr(), "five");
    five.subscribe("will", 1);
    let connect = Connect5::new("goes").will("will", "five", 1, false).will_with(wire5::user("a", "b"));
    RawClient5::open(broker.addr(), &connect).0.vanish();
    three.expect_message_and_ack("will", "five");
    assert_eq!(five.expect_and_ack("will", "five").properties.raw, wire5::user("a", "b"));
    RawClient::open(broker.addr(), &Connect::new("goes").will("will", "three", 1, false)).0.vanish();
    three.expect_message_and_ack("will", "three");
    assert!(five.expect_and_ack("will", "three").properties.list.is_empty());
}

#[test]
fn a_padded_length_of_3_1_1_is_not_passed_on() {
    let broker = TestBroker::start();
    let mut five = RawClient5::clean(broker.addr(), "five");
    five.subscribe("t", 0);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    publisher.send(&[0x30, 0x84, 0x00, 0, 1, b't', b'x']);
    five.expect(&[0x30, 5, 0, 1, b't', 0, b'x']);
}
