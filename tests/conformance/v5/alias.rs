//! Topic aliases both ways (section 3.3.2.3.4).

use crate::support::wire5::{self, id};
use crate::support::{Connect5, RawClient5, TestBroker, broker};
use std::collections::HashSet;

const OURS: u16 = 32;

fn alias(alias: u16) -> Vec<u8> {
    wire5::two(id::TOPIC_ALIAS, alias)
}

/// A subscriber that allows this many aliases.
fn allowing(broker: &TestBroker, maximum: u16) -> RawClient5 {
    let connect = Connect5::new("subscriber").with(wire5::two(id::TOPIC_ALIAS_MAXIMUM, maximum));
    let (mut client, ..) = RawClient5::open(broker.addr(), &connect);
    client.subscribe("t/#", 1);
    client
}

#[test]
fn mqtt5_3_1_2_26_no_alias_is_above_the_clients_maximum() {
    let broker = TestBroker::start();
    for maximum in [1, 2, 10, u16::MAX] {
        let mut subscriber = allowing(&broker, maximum);
        let mut publisher = RawClient5::clean(broker.addr(), "publisher");
        for round in 0..3 {
            for topic in 0..80 {
                let topic = format!("t/{topic}");
                publisher.send(&wire5::publish5(0, &topic, None, &[], format!("{round}")));
                // The client of the tests judges the alias and puts the name in its place.
                subscriber.expect_message(&topic, format!("{round}"));
            }
        }
        subscriber.disconnect();
    }
}

#[test]
fn mqtt5_3_1_2_27_without_maximum_or_with_0_there_are_no_aliases() {
    let broker = TestBroker::start();
    let connects = [
        Connect5::new("subscriber"),
        Connect5::new("subscriber").with(wire5::two(id::TOPIC_ALIAS_MAXIMUM, 0)),
    ];
    for connect in connects {
        let (mut subscriber, ..) = RawClient5::open(broker.addr(), &connect);
        subscriber.subscribe("t", 0);
        let mut publisher = RawClient5::clean(broker.addr(), "publisher");
        for _ in 0..5 {
            publisher.publish_with("t", 0, &alias(1), "x");
            let publish = subscriber.expect_message("t", "x");
            assert!(publish.named && publish.alias().is_none(), "{publish:?}");
        }
    }
}

#[test]
fn mqtt5_3_3_2_7_aliases_end_with_their_connection() {
    let broker = TestBroker::start();
    // The client's: a number of the old connection stands for nothing on the new one.
    let (mut publisher, ..) = RawClient5::open(broker.addr(), &Connect5::persistent("publisher"));
    publisher.publish_with("t/a", 0, &alias(1), "x");
    publisher.disconnect();
    let mut publisher = RawClient5::resume(broker.addr(), "publisher");
    publisher.send(&wire5::publish5(0, "", None, &alias(1), "x"));
    publisher.expect_disconnect(0x94);
    // The broker's: it introduces them anew, which the client of the tests watches, also for what it sends again.
    let connect = Connect5::persistent("subscriber").with(wire5::two(id::TOPIC_ALIAS_MAXIMUM, 5));
    let (mut subscriber, ..) = RawClient5::open(broker.addr(), &connect);
    subscriber.subscribe("t", 1);
    let mut publisher = RawClient5::clean(broker.addr(), "other");
    for payload in ["a", "b"] {
        publisher.publish("t", 1, payload);
        subscriber.expect_message("t", payload);
    }
    subscriber.vanish();
    let mut subscriber = RawClient5::resume_with(broker.addr(), &connect);
    for payload in ["a", "b"] {
        assert!(subscriber.expect_and_ack("t", payload).dup);
    }
    subscriber.disconnect();
    // A new connection without aliases gets names again.
    let mut subscriber = RawClient5::resume(broker.addr(), "subscriber");
    publisher.publish("t", 1, "c");
    assert!(subscriber.expect_and_ack("t", "c").named);
}

#[test]
fn mqtt5_3_3_2_8_alias_0_is_an_error() {
    let broker = TestBroker::start();
    for topic in ["t", ""] {
        let mut client = RawClient5::clean(broker.addr(), "client");
        client.send(&wire5::publish5(0, topic, None, &alias(0), "x"));
        client.expect_disconnect(0x94);
    }
}

#[test]
fn mqtt5_3_3_2_9_an_alias_above_our_maximum_is_an_error() {
    let broker = TestBroker::start();
    for (topic, number) in [("t", OURS + 1), ("t", u16::MAX), ("", OURS + 1), ("", 1), ("", OURS)] {
        let mut watcher = RawClient5::clean(broker.addr(), "watcher");
        watcher.subscribe("#", 0);
        let mut client = RawClient5::clean(broker.addr(), "client");
        client.send(&wire5::publish5(0, topic, None, &alias(number), "x"));
        client.expect_disconnect(0x94);
        watcher.expect_nothing();
    }
    let broker = TestBroker::with_config(|config| config.limits.topic_alias_max = 0);
    let mut client = RawClient5::clean(broker.addr(), "client");
    client.send(&wire5::publish5(0, "t", None, &alias(1), "x"));
    client.expect_disconnect(0x94);
}

#[test]
fn mqtt5_3_3_2_11_the_broker_uses_aliases_within_the_maximum() {
    if broker::skipped_on_mosquitto("it sends few or none") {
        return;
    }
    let broker = TestBroker::start();
    let mut subscriber = allowing(&broker, 2);
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    let mut used = HashSet::new();
    for round in 0..3 {
        for (number, topic) in ["t/a", "t/b", "t/c"].iter().enumerate() {
            publisher.publish(topic, (number % 2) as u8, "x");
            let publish = subscriber.expect_and_ack(topic, "x");
            let has_alias = publish.alias().is_some();
            assert_eq!(has_alias, number < 2, "{publish:?}");
            assert_eq!(publish.named, round == 0 || number == 2, "{publish:?}");
            used.extend(publish.alias());
        }
    }
    assert_eq!(used, HashSet::from([1, 2]));
}

#[test]
fn mqtt5_3_3_2_12_every_alias_up_to_our_maximum_is_accepted() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient5::clean(broker.addr(), "subscriber");
    subscriber.subscribe("t/#", 2);
    let (mut publisher, _, told) = RawClient5::open(broker.addr(), &Connect5::new("publisher"));
    let maximum = told.number(id::TOPIC_ALIAS_MAXIMUM).expect("a maximum") as u16;
    // From the highest on, at each QoS, with the same text for two numbers.
    for number in (1..=maximum).rev() {
        let topic = format!("t/{}", number / 2);
        publisher.publish_with(&topic, (number % 3) as u8 * 2, &alias(number), "named");
        subscriber.expect_and_ack(&topic, "named");
    }
    for number in 1..=maximum {
        publisher.publish_with("", (number % 3) as u8 * 2, &alias(number), "number");
        let publish = subscriber.expect_and_ack(&format!("t/{}", number / 2), "number");
        assert!(publish.alias().is_none(), "{publish:?}");
    }
}

#[test]
fn an_alias_can_be_given_to_another_topic() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient5::clean(broker.addr(), "subscriber");
    subscriber.subscribe("t/#", 0);
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    for (topic, is) in [("t/a", "t/a"), ("", "t/a"), ("t/b", "t/b"), ("", "t/b"), ("t/a", "t/a"), ("", "t/a")]
    {
        publisher.publish_with(topic, 0, &alias(1), "x");
        subscriber.expect_message(is, "x");
    }
    // Each client has its own.
    let mut other = RawClient5::clean(broker.addr(), "other");
    other.send(&wire5::publish5(0, "", None, &alias(1), "x"));
    other.expect_disconnect(0x94);
}

#[test]
fn an_alias_serves_retained_messages() {
    let broker = TestBroker::start();
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    publisher.publish_with("t", 0, &alias(1), "x");
    publisher.publish_with("", 0x03, &alias(1), "kept");
    let mut subscriber = allowing(&broker, 5);
    subscriber.subscribe("t", 1);
    let publish = subscriber.expect_and_ack("t", "kept");
    assert!(publish.retain && publish.named, "{publish:?}");
    publisher.publish_with("", 0x03, &alias(1), "");
    let mut late = RawClient5::clean(broker.addr(), "late");
    late.subscribe("t", 1);
    late.expect_nothing();
}

#[test]
fn neither_topic_nor_alias_is_a_protocol_error() {
    let broker = TestBroker::start();
    let mut client = RawClient5::clean(broker.addr(), "client");
    client.send(&wire5::publish5(0, "", None, &[], "x"));
    client.expect_disconnect(0x82);
}
