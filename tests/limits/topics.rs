//! `limits.topic_levels_max` and `limits.topic_bytes_max`, in both versions.

use crate::dropped;
use crate::support::wire::{self, Connect};
use crate::support::{Connect5, RawClient, RawClient5, TestBroker};

fn broker() -> TestBroker {
    TestBroker::with_config(|config| {
        config.limits.topic_levels_max = 3;
        config.limits.topic_bytes_max = 20;
    })
}

const DEEP: &str = "a/b/c/d";
const LONG: &str = "a/23456789012345678901";

#[test]
fn a_publish_of_3_1_1_beyond_is_acknowledged_and_goes_nowhere() {
    let broker = broker();
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("#", 2);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for qos in 0..3 {
        publisher.publish(DEEP, qos, "m");
        publisher.publish_retained(LONG, qos, "m");
    }
    let metrics = broker.metrics();
    assert_eq!((dropped(&metrics, "topic_levels_max"), dropped(&metrics, "topic_bytes_max")), (3, 3));
    assert_eq!(metrics.retained, 0);
    subscriber.expect_nothing();
    // As many levels as there can be in so few bytes.
    publisher.publish("///", 0, "m");
    assert_eq!(dropped(&broker.metrics(), "topic_levels_max"), 4);
    subscriber.expect_nothing();
    // What is just within goes its way.
    publisher.publish("//", 0, "m");
    subscriber.expect_message("//", "m");
    publisher.publish("a/b/c", 0, "m");
    subscriber.expect_message("a/b/c", "m");
    publisher.publish(&LONG[..20], 0, "m");
    subscriber.expect_message(&LONG[..20], "m");
}

#[test]
fn a_publish_of_5_beyond_gets_0x90() {
    let broker = broker();
    let mut subscriber = RawClient5::clean(broker.addr(), "subscriber");
    subscriber.subscribe("#", 0);
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    for topic in [DEEP, LONG] {
        for qos in [1, 2] {
            assert_eq!(publisher.publish_with(topic, qos << 1, &[], "m"), 0x90, "{topic} {qos}");
            assert_eq!(publisher.publish_with(topic, qos << 1 | 1, &[], "m"), 0x90, "{topic} {qos}");
        }
        publisher.publish(topic, 0, "m");
    }
    let metrics = broker.metrics();
    assert_eq!((dropped(&metrics, "topic_levels_max"), dropped(&metrics, "topic_bytes_max")), (5, 5));
    assert_eq!(metrics.retained, 0);
    subscriber.expect_nothing();
    // The id of a refused QoS 2 message is free.
    assert_eq!(publisher.publish_with("a", 4, &[], "m"), 0);
    subscriber.expect_message("a", "m");
}

#[test]
fn filters_beyond_are_refused() {
    let broker = broker();
    let mut client = RawClient::clean(broker.addr(), "client");
    assert_eq!(
        client.subscribe_all(&[(DEEP, 0), (LONG, 1), ("a/b/#", 2), ("+/+/+/#", 0)]),
        [0x80, 0x80, 2, 0x80]
    );
    let mut client = RawClient5::clean(broker.addr(), "client5");
    let codes = client.subscribe_all(&[], &[(DEEP, 0), (LONG, 1), ("a/b/#", 2), ("$share/group/a/b", 0)]);
    assert_eq!(codes, [0x8F, 0x8F, 2, 0x8F]);
    let metrics = broker.metrics();
    assert_eq!((dropped(&metrics, "topic_levels_max"), dropped(&metrics, "topic_bytes_max")), (4, 2));
    assert_eq!(metrics.subscriptions, 2);
}

#[test]
fn a_will_beyond_refuses_connect() {
    let broker = broker();
    for (n, topic) in [DEEP, LONG].into_iter().enumerate() {
        let mut client = RawClient::connect(broker.addr());
        client.send(&Connect::new("client").will(topic, "w", 0, false).bytes());
        client.expect(&[0x20, 2, 0, 5]);
        client.expect_closed();
        let connect = Connect5::new("client").will(topic, "w", 0, false);
        RawClient5::refused(broker.addr(), &connect.bytes(), 0x90);
        let refused = broker.metrics().refused;
        assert_eq!(refused.get(["topic_levels_max", "topic_bytes_max"][n]), Some(&2), "{refused:?}");
    }
    let (_, _) = RawClient::open(broker.addr(), &Connect::new("client").will("a/b/c", "w", 0, false));
}

#[test]
fn by_default_the_longest_topic_of_mqtt_is_taken() {
    let broker = TestBroker::start();
    let topic = "t".repeat(65_535);
    let mut client = RawClient::clean(broker.addr(), "client");
    client.subscribe(&topic, 0);
    client.send(&wire::publish_qos0(&topic, "m"));
    client.expect_message(&topic, "m");
    // Two hundred levels, and one more.
    let deep = vec!["l"; 200].join("/");
    client.subscribe(&deep, 0);
    client.send(&wire::publish_qos0(&deep, "m"));
    client.expect_message(&deep, "m");
    client.publish(&format!("{deep}/l"), 1, "m");
    assert_eq!(dropped(&broker.metrics(), "topic_levels_max"), 1);
}
