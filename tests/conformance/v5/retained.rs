//! Retain handling and retain as published (section 3.3.1.3, 3.8.3.1).

use crate::support::wire5::{NO_LOCAL, RETAIN_AS_PUBLISHED, RETAIN_IF_NEW, RETAIN_NEVER};
use crate::support::{RawClient, RawClient5, TestBroker};

fn with_retained() -> (TestBroker, RawClient5) {
    let broker = TestBroker::start();
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    publisher.publish_retained("t", 1, "kept");
    (broker, publisher)
}

#[test]
fn mqtt5_3_3_1_9_handling_0_sends_retained_messages_at_each_subscribe() {
    let (broker, _) = with_retained();
    let mut client = RawClient5::clean(broker.addr(), "client");
    for _ in 0..3 {
        client.subscribe("t", 1);
        assert!(client.expect_and_ack("t", "kept").retain);
        client.expect_nothing();
    }
}

#[test]
fn mqtt5_3_3_1_10_handling_1_sends_them_for_a_new_subscription_only() {
    let (broker, _) = with_retained();
    let mut client = RawClient5::persistent(broker.addr(), "client");
    client.subscribe("t", 1 | RETAIN_IF_NEW);
    assert!(client.expect_and_ack("t", "kept").retain);
    client.subscribe("t", 1 | RETAIN_IF_NEW);
    client.subscribe("t", 2 | RETAIN_IF_NEW);
    client.expect_nothing();
    // Another filter is another subscription.
    client.subscribe("+", 1 | RETAIN_IF_NEW);
    client.expect_and_ack("t", "kept");
    client.disconnect();
    let mut client = RawClient5::resume(broker.addr(), "client");
    client.subscribe("t", 1 | RETAIN_IF_NEW);
    client.expect_nothing();
    client.unsubscribe(&["t"]);
    client.subscribe("t", 1 | RETAIN_IF_NEW);
    client.expect_and_ack("t", "kept");
}

#[test]
fn mqtt5_3_3_1_11_handling_2_sends_none() {
    let (broker, mut publisher) = with_retained();
    let mut client = RawClient5::clean(broker.addr(), "client");
    client.subscribe("t", 1 | RETAIN_NEVER);
    client.subscribe("#", 1 | RETAIN_NEVER);
    client.expect_nothing();
    publisher.publish_retained("t", 1, "new");
    assert!(!client.expect_and_ack("t", "new").retain);
}

#[test]
fn mqtt5_3_3_1_12_without_retain_as_published_the_flag_is_cleared() {
    let (broker, mut publisher) = with_retained();
    let mut client = RawClient5::clean(broker.addr(), "client");
    client.subscribe("t", 1 | RETAIN_NEVER);
    for flags in [0x00, 0x01, 0x02, 0x03] {
        publisher.publish_with("t", flags, &[], "x");
        assert!(!client.expect_and_ack("t", "x").retain);
    }
}

#[test]
fn mqtt5_3_3_1_13_with_retain_as_published_the_flag_is_kept() {
    let (broker, mut publisher) = with_retained();
    let mut client = RawClient5::persistent(broker.addr(), "client");
    client.subscribe("t", 1 | RETAIN_AS_PUBLISHED | RETAIN_NEVER);
    let large = vec![b'l'; 20_000];
    for payload in [b"x", large.as_slice()] {
        for flags in [0x00, 0x01, 0x02, 0x03, 0x05] {
            publisher.publish_with("t", flags, &[], payload);
            assert_eq!(client.expect_and_ack("t", payload).retain, flags & 1 != 0, "flags {flags}");
        }
    }
    // Also for what waited, and for 3.1.1 publishers.
    client.disconnect();
    publisher.publish_with("t", 0x03, &[], "retained");
    publisher.publish_with("t", 0x02, &[], "not retained");
    let mut client = RawClient5::resume(broker.addr(), "client");
    assert!(client.expect_and_ack("t", "retained").retain);
    assert!(!client.expect_and_ack("t", "not retained").retain);
    RawClient::clean(broker.addr(), "three").publish_retained("t", 1, "three");
    assert!(client.expect_and_ack("t", "three").retain);
}

#[test]
fn a_will_is_forwarded_as_published() {
    let broker = TestBroker::start();
    let mut client = RawClient5::clean(broker.addr(), "client");
    client.subscribe("will", RETAIN_AS_PUBLISHED);
    for retain in [true, false] {
        let connect = crate::support::Connect5::new("goes").will("will", "gone", 0, retain);
        RawClient5::open(broker.addr(), &connect).0.vanish();
        assert_eq!(client.expect_message("will", "gone").retain, retain);
    }
}

#[test]
fn an_empty_retained_message_removes_what_was_kept() {
    let (broker, mut publisher) = with_retained();
    publisher.publish_retained("t", 1, "");
    let mut client = RawClient5::clean(broker.addr(), "client");
    client.subscribe("t", 1);
    client.expect_nothing();
}

#[test]
fn several_filters_in_one_packet_have_their_own_handling() {
    let broker = TestBroker::start();
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    for topic in ["a", "b", "c"] {
        publisher.publish_retained(topic, 0, topic);
    }
    let mut client = RawClient5::clean(broker.addr(), "client");
    let filters = [("a", 0), ("b", RETAIN_NEVER), ("c", RETAIN_IF_NEW), ("a", RETAIN_IF_NEW)];
    assert_eq!(client.subscribe_all(&[], &filters), [0, 0, 0, 0]);
    let topics: Vec<String> =
        client.publishes_until_ping().into_iter().map(|publish| publish.topic).collect();
    assert_eq!(topics, ["a", "c"]);
}

#[test]
fn retained_messages_of_many_topics_are_all_sent() {
    let broker = TestBroker::start();
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    for number in 0..300 {
        publisher.send(&crate::support::wire5::publish5(1, format!("t/{number}"), None, &[], "x"));
    }
    publisher.expect_nothing();
    let connect = crate::support::Connect5::new("client")
        .with(crate::support::wire5::two(crate::support::wire5::id::RECEIVE_MAXIMUM, 3))
        .with(crate::support::wire5::two(crate::support::wire5::id::TOPIC_ALIAS_MAXIMUM, 3));
    let (mut client, ..) = RawClient5::open(broker.addr(), &connect);
    client.subscribe_with_id("t/#", 1 | NO_LOCAL, 9);
    let mut topics = std::collections::HashSet::new();
    for _ in 0..300 {
        let publish = client.expect_publish();
        assert!(publish.retain && publish.subscription_ids() == [9], "{publish:?}");
        assert!(topics.insert(publish.topic.clone()), "{} came twice", publish.topic);
        client.ack(&publish);
    }
    client.expect_nothing();
}
