//! Retained messages (section 3.3.1.3).

use crate::support::wire;
use crate::support::{RawClient, ServerPacket, TestBroker};

fn publisher(broker: &TestBroker) -> RawClient {
    RawClient::clean(broker.addr(), "publisher")
}

/// What a new subscriber of `#` at QoS 2 gets: topic, payload, QoS, RETAIN, sorted by topic.
#[track_caller]
fn kept(broker: &TestBroker) -> Vec<(String, String, u8, bool)> {
    let mut fresh = RawClient::clean(broker.addr(), "fresh");
    fresh.subscribe("#", 2);
    let mut kept: Vec<_> = fresh
        .packets_until_ping()
        .into_iter()
        .map(|packet| match packet {
            ServerPacket::Publish(publish) => {
                (publish.topic.clone(), publish.text(), publish.qos, publish.retain)
            }
            other => panic!("expected PUBLISH, got {other:?}"),
        })
        .collect();
    kept.sort();
    kept
}

fn entry(topic: &str, payload: &str, qos: u8) -> (String, String, u8, bool) {
    (topic.to_owned(), payload.to_owned(), qos, true)
}

#[test]
fn mqtt_3_3_1_5_kept_with_its_qos_and_replaced_by_the_next() {
    let broker = TestBroker::start();
    let mut publisher = publisher(&broker);
    for qos in 0..=2 {
        publisher.publish_retained("a", qos, format!("first {qos}"));
        assert_eq!(kept(&broker), [entry("a", &format!("first {qos}"), qos)]);
    }
    publisher.publish_retained("a", 1, "last");
    publisher.publish_retained("b", 2, "other");
    assert_eq!(kept(&broker), [entry("a", "last", 1), entry("b", "other", 2)]);
}

#[test]
fn mqtt_3_3_1_6_a_new_subscription_gets_the_last_message_of_each_matching_topic() {
    let broker = TestBroker::start();
    let mut publisher = publisher(&broker);
    for topic in ["s/1/t", "s/2/t", "s/3/h", "s//t", "s/1/t/x", "t"] {
        publisher.publish_retained(topic, 1, format!("old {topic}"));
        publisher.publish_retained(topic, 1, topic);
    }
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("s/+/t", 1);
    let mut topics: Vec<String> = (0..3)
        .map(|_| {
            let publish = subscriber.expect_publish();
            assert_eq!(publish.text(), publish.topic);
            subscriber.send(&wire::puback(publish.id()));
            publish.topic
        })
        .collect();
    topics.sort();
    assert_eq!(topics, ["s//t", "s/1/t", "s/2/t"]);
    subscriber.expect_nothing();
    subscriber.subscribe("t", 0);
    subscriber.expect_message("t", "t");
    subscriber.expect_nothing();
}

#[test]
fn mqtt_3_3_1_7_qos_0_replaces_what_was_kept() {
    let broker = TestBroker::start();
    let mut publisher = publisher(&broker);
    for qos in 0..=2 {
        publisher.publish_retained("a", qos, "old");
        publisher.publish_retained("a", 0, "new");
        // TernMQ keeps QoS 0 messages, as the standard recommends.
        assert_eq!(kept(&broker), [entry("a", "new", 0)]);
    }
}

#[test]
fn mqtt_3_3_1_8_sent_for_a_new_subscription_with_retain_1() {
    let broker = TestBroker::start();
    publisher(&broker).publish_retained("a", 2, "kept");
    for granted in 0..=2 {
        let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
        subscriber.subscribe("a", granted);
        let publish = subscriber.expect_message("a", "kept");
        assert_eq!((publish.retain, publish.qos, publish.dup), (true, granted, false));
        subscriber.disconnect();
    }
}

#[test]
fn mqtt_3_3_1_9_sent_to_an_existing_subscription_with_retain_0() {
    let broker = TestBroker::start();
    let mut exact = RawClient::clean(broker.addr(), "exact");
    exact.subscribe("a", 1);
    let mut wildcard = RawClient::clean(broker.addr(), "wildcard");
    wildcard.subscribe("+", 0);
    let mut publisher = publisher(&broker);
    for qos in 0..=1 {
        publisher.publish_retained("a", qos, "live");
        let publish = exact.expect_message("a", "live");
        assert!(!publish.retain && publish.qos == qos, "{publish:?}");
        if qos == 1 {
            exact.send(&wire::puback(publish.id()));
        }
        assert!(!wildcard.expect_message("a", "live").retain);
    }
}

#[test]
fn queued_while_away_a_retained_message_is_an_ordinary_one() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient::persistent(broker.addr(), "subscriber");
    subscriber.subscribe("a", 1);
    subscriber.disconnect();
    publisher(&broker).publish_retained("a", 1, "queued");
    let mut subscriber = RawClient::resume(broker.addr(), "subscriber");
    assert!(!subscriber.expect_message_and_ack("a", "queued").retain);
    // Resuming a session makes no new subscription.
    subscriber.expect_nothing();
}

#[test]
fn mqtt_3_3_1_10_an_empty_payload_is_delivered_and_removes_what_was_kept() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("a", 0);
    let mut publisher = publisher(&broker);
    for qos in 0..=2 {
        publisher.publish_retained("a", 1, "kept");
        publisher.publish_retained("ab", 1, "neighbour");
        publisher.publish_retained("a", qos, "");
        subscriber.expect_message("a", "kept");
        assert!(!subscriber.expect_message("a", "").retain);
        assert_eq!(kept(&broker), [entry("ab", "neighbour", 1)]);
    }
    // Removing what is not there is no error, and the topic can be used again.
    publisher.publish_retained("a", 1, "");
    publisher.publish_retained("a", 1, "again");
    assert_eq!(kept(&broker), [entry("a", "again", 1), entry("ab", "neighbour", 1)]);
}

#[test]
fn mqtt_3_3_1_11_an_empty_message_is_never_kept() {
    let broker = TestBroker::start();
    let mut publisher = publisher(&broker);
    for qos in 0..=2 {
        publisher.publish_retained("never/kept", qos, "");
    }
    assert_eq!(kept(&broker), []);
}

#[test]
fn mqtt_3_3_1_12_retain_0_neither_keeps_nor_removes() {
    let broker = TestBroker::start();
    let mut publisher = publisher(&broker);
    publisher.publish_retained("a", 1, "kept");
    for qos in 0..=2 {
        publisher.publish("a", qos, "passing");
        publisher.publish("a", qos, "");
        publisher.publish("b", qos, "passing");
    }
    assert_eq!(kept(&broker), [entry("a", "kept", 1)]);
}

#[test]
fn a_repeated_qos_2_publish_replaces_nothing_newer() {
    let broker = TestBroker::start();
    let mut publisher = publisher(&broker);
    publisher.send(&wire::raw_publish(0x05, "a", Some(2001), "older"));
    publisher.expect(&wire::pubrec(2001));
    publisher.send(&wire::pubrel(2001));
    publisher.expect(&wire::pubcomp(2001));
    publisher.publish_retained("a", 1, "newer");
    publisher.send(&wire::pubrel(2001));
    publisher.expect(&wire::pubcomp(2001));
    assert_eq!(kept(&broker), [entry("a", "newer", 1)]);
}

#[test]
fn several_filters_of_one_subscribe_each_get_their_retained_messages() {
    let broker = TestBroker::start();
    let mut publisher = publisher(&broker);
    for topic in ["x", "y", "z"] {
        publisher.publish_retained(topic, 1, topic);
    }
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    assert_eq!(subscriber.subscribe_all(&[("x", 0), ("y", 1), ("none", 2)]), [0, 1, 2]);
    let mut got: Vec<(String, u8)> =
        (0..2).map(|_| subscriber.expect_publish()).map(|publish| (publish.topic, publish.qos)).collect();
    got.sort();
    assert_eq!(got, [("x".to_owned(), 0), ("y".to_owned(), 1)]);
    subscriber.expect_nothing();
}

#[test]
fn more_retained_messages_than_the_window_all_arrive() {
    let broker = TestBroker::start();
    let mut publisher = publisher(&broker);
    let count = 500;
    for number in 0..count {
        publisher.send(&wire::raw_publish(0x01, format!("many/{number}"), None, number.to_string()));
        publisher.send(&wire::raw_publish(
            0x03,
            format!("more/{number}"),
            Some(number + 1),
            number.to_string(),
        ));
        publisher.expect(&wire::puback(number + 1));
    }
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("more/#", 1);
    let mut topics: Vec<String> = (0..count)
        .map(|_| {
            let publish = subscriber.expect_publish();
            subscriber.send(&wire::puback(publish.id()));
            assert!(publish.retain, "{publish:?}");
            publish.topic
        })
        .collect();
    topics.sort();
    topics.dedup();
    assert_eq!(topics.len(), usize::from(count));
    subscriber.expect_nothing();
}
