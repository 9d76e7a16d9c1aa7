//! Subscription identifiers (section 3.8.2.1.2, 3.3.4).

use crate::support::wire5::{self, id};
use crate::support::{RawClient5, TestBroker};

const LARGEST: usize = 268_435_455;

#[test]
fn mqtt5_3_3_4_3_the_identifiers_of_matching_subscriptions_are_sent() {
    let broker = TestBroker::start();
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    for number in [1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, LARGEST] {
        let mut client = RawClient5::persistent(broker.addr(), "client");
        client.subscribe_with_id("t/a", 2, number);
        client.subscribe_with_id("other", 2, 77);
        for qos in [0, 1, 2] {
            publisher.publish_with("t/a", qos << 1, &wire5::user("u", "v"), "x");
            let publish = client.expect_and_ack("t/a", "x");
            assert_eq!(publish.subscription_ids(), [number as u32]);
        }
        // Queued, and sent again after a reconnect.
        publisher.publish("t/a", 1, "unacknowledged");
        client.expect_message("t/a", "unacknowledged");
        client.vanish();
        publisher.publish("t/a", 1, "queued");
        let mut client = RawClient5::resume(broker.addr(), "client");
        for payload in ["unacknowledged", "queued"] {
            assert_eq!(client.expect_and_ack("t/a", payload).subscription_ids(), [number as u32]);
        }
        client.disconnect_with(0, &wire5::four(id::SESSION_EXPIRY, 0));
    }
}

#[test]
fn mqtt5_3_3_4_4_one_copy_has_all_identifiers() {
    let broker = TestBroker::start();
    let mut client = RawClient5::clean(broker.addr(), "client");
    client.subscribe_with_id("a/b", 0, 1);
    client.subscribe_with_id("a/+", 1, 2_000);
    client.subscribe_with_id("a/#", 2, LARGEST);
    client.subscribe("#", 0);
    // Two subscriptions may have the same identifier: it may be there once or twice.
    client.subscribe_with_id("+/b", 0, 1);
    RawClient5::clean(broker.addr(), "publisher").publish("a/b", 2, "x");
    let publish = client.expect_and_ack("a/b", "x");
    let mut ids = publish.subscription_ids();
    ids.dedup();
    assert_eq!(ids, [1, 2_000, LARGEST as u32]);
    assert_eq!(publish.qos, 2);
    client.expect_nothing();
}

#[test]
fn mqtt5_3_3_4_5_several_copies_have_their_own_identifiers() {
    // TernMQ sends one copy for all plain subscriptions and one for each shared one: they are told apart by them.
    let broker = TestBroker::start();
    let mut client = RawClient5::clean(broker.addr(), "client");
    client.subscribe_with_id("t", 1, 1);
    client.subscribe_with_id("+", 1, 2);
    client.subscribe_with_id("$share/g/t", 1, 3);
    client.subscribe_with_id("$share/h/t", 1, 4);
    RawClient5::clean(broker.addr(), "publisher").publish("t", 1, "x");
    let mut copies: Vec<Vec<u32>> =
        client.publishes_until_ping().iter().map(|publish| publish.subscription_ids()).collect();
    copies.sort();
    assert_eq!(copies, [vec![1, 2], vec![3], vec![4]]);
}

#[test]
fn mqtt5_3_3_4_6_a_client_may_not_send_one_in_publish() {
    let broker = TestBroker::start();
    let mut watcher = RawClient5::clean(broker.addr(), "watcher");
    watcher.subscribe("#", 0);
    let mut client = RawClient5::clean(broker.addr(), "client");
    client.send(&wire5::publish5(0, "t", None, &wire5::variable(id::SUBSCRIPTION_ID, 1), "x"));
    client.expect_disconnect(0x82);
    watcher.expect_nothing();
}

#[test]
fn identifier_0_twice_or_too_long_is_an_error() {
    let broker = TestBroker::start();
    let one = wire5::variable(id::SUBSCRIPTION_ID, 1);
    let cases = [
        (wire5::variable(id::SUBSCRIPTION_ID, 0), 0x82),
        ([one.clone(), one].concat(), 0x82),
        (vec![id::SUBSCRIPTION_ID, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F], 0x81),
        (vec![id::SUBSCRIPTION_ID], 0x81),
    ];
    for (properties, code) in cases {
        let mut client = RawClient5::clean(broker.addr(), "client");
        client.send(&wire5::subscribe5(1, &properties, &[("t", 0)]));
        client.expect_disconnect(code);
    }
}

#[test]
fn one_identifier_holds_for_all_filters_of_its_packet() {
    let broker = TestBroker::start();
    let mut client = RawClient5::clean(broker.addr(), "client");
    client.subscribe_all(&wire5::variable(id::SUBSCRIPTION_ID, 9), &[("a", 0), ("b", 1), ("c/#", 2)]);
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    for topic in ["a", "b", "c/d"] {
        publisher.publish(topic, 0, "x");
        assert_eq!(client.expect_message(topic, "x").subscription_ids(), [9]);
    }
}

#[test]
fn a_retained_message_has_the_identifier_of_its_new_subscription() {
    let broker = TestBroker::start();
    RawClient5::clean(broker.addr(), "publisher").publish_retained("t", 1, "kept");
    let mut client = RawClient5::clean(broker.addr(), "client");
    client.subscribe_with_id("t", 1, 5);
    assert_eq!(client.expect_and_ack("t", "kept").subscription_ids(), [5]);
    client.subscribe_with_id("#", 1, 6);
    assert_eq!(client.expect_and_ack("t", "kept").subscription_ids(), [6]);
}
