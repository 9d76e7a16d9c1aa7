//! Message expiry (section 3.3.2.3.3): counted down while a message waits, and not delivered when it is over.

use crate::support::wire5::{self, id};
use crate::support::{Connect5, RawClient, RawClient5, TestBroker, broker};
use std::time::Duration;

fn expiry(seconds: u32) -> Vec<u8> {
    wire5::four(id::MESSAGE_EXPIRY, seconds)
}

/// Lets time pass on a connection of its own.
fn pass(broker: &TestBroker, time: Duration) {
    RawClient5::clean(broker.addr(), "clock").stays_silent_and_open(time);
}

#[test]
fn mqtt5_3_3_2_5_what_has_expired_in_the_queue_is_not_delivered() {
    let broker = TestBroker::start();
    let mut client = RawClient5::persistent(broker.addr(), "client");
    client.subscribe("t", 2);
    client.disconnect();
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    publisher.publish_with("t", 0x02, &expiry(1), "short");
    publisher.publish_with("t", 0x04, &expiry(1), "short");
    publisher.publish_with("t", 0x02, &expiry(100), "long");
    publisher.publish_with("t", 0x02, &[], "for ever");
    pass(&broker, Duration::from_millis(1_300));
    let mut client = RawClient5::resume(broker.addr(), "client");
    let long = client.expect_and_ack("t", "long");
    assert!((97..=99).contains(&long.expiry().expect("an expiry")), "{long:?}");
    assert_eq!(client.expect_and_ack("t", "for ever").expiry(), None);
    client.expect_nothing();
    if !broker::control_is_mosquitto() {
        assert_eq!(broker.metrics().dropped.get("expired"), Some(&2));
    }
}

#[test]
fn mqtt5_3_3_2_5_an_expired_retained_message_is_not_sent() {
    let broker = TestBroker::start();
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    publisher.publish_with("short", 0x01, &expiry(1), "x");
    publisher.publish_with("long", 0x01, &expiry(100), "x");
    publisher.publish_with("zero", 0x01, &expiry(0), "x");
    pass(&broker, Duration::from_millis(1_300));
    let mut client = RawClient5::clean(broker.addr(), "client");
    client.subscribe("+", 0);
    let left = client.expect_message("long", "x").expiry().expect("an expiry");
    assert!((97..=99).contains(&left), "{left}");
    client.expect_nothing();
    client.subscribe("short", 0);
    client.expect_nothing();
}

#[test]
fn mqtt5_3_3_2_5_it_expires_behind_the_receive_maximum() {
    let broker = TestBroker::start();
    let connect = Connect5::new("client").with(wire5::two(id::RECEIVE_MAXIMUM, 1));
    let (mut client, ..) = RawClient5::open(broker.addr(), &connect);
    client.subscribe("t", 1);
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    publisher.publish_with("t", 0x02, &[], "first");
    publisher.publish_with("t", 0x02, &expiry(1), "short");
    publisher.publish_with("t", 0x02, &[], "last");
    let first = client.expect_message("t", "first");
    pass(&broker, Duration::from_millis(1_300));
    client.ack(&first);
    client.expect_and_ack("t", "last");
    client.expect_nothing();
}

#[test]
fn mqtt5_3_3_2_6_the_remaining_interval_is_forwarded() {
    let broker = TestBroker::start();
    let mut away = RawClient5::persistent(broker.addr(), "away");
    away.subscribe("t", 1);
    away.disconnect();
    let mut here = RawClient5::clean(broker.addr(), "here");
    here.subscribe("t", 1);
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    for (seconds, payload) in [(100, "hundred"), (u32::MAX, "max"), (0x01_00_00, "bytes")] {
        publisher.publish_with("t", 0x03, &expiry(seconds), payload);
        assert_eq!(here.expect_and_ack("t", payload).expiry(), Some(seconds), "at once");
    }
    pass(&broker, Duration::from_millis(2_000));
    let mut away = RawClient5::resume(broker.addr(), "away");
    for (seconds, payload) in [(100, "hundred"), (u32::MAX, "max"), (0x01_00_00, "bytes")] {
        let left = away.expect_and_ack("t", payload).expiry().expect("an expiry");
        assert!((seconds - 4..seconds).contains(&left), "{left} of {seconds} are left");
    }
    let mut late = RawClient5::clean(broker.addr(), "late");
    late.subscribe("t", 1);
    let left = late.expect_and_ack("t", "bytes").expiry().expect("an expiry");
    assert!((0x01_00_00 - 4..0x01_00_00).contains(&left), "retained: {left}");
}

#[test]
fn mqtt5_4_3_3_7_what_was_sent_does_not_expire() {
    let broker = TestBroker::start();
    let mut client = RawClient5::persistent(broker.addr(), "client");
    client.subscribe("t", 2);
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    publisher.publish_with("t", 0x04, &expiry(1), "two");
    publisher.publish_with("t", 0x02, &expiry(1), "one");
    client.expect_message("t", "two");
    client.expect_message("t", "one");
    client.vanish();
    pass(&broker, Duration::from_millis(1_300));
    let mut client = RawClient5::resume(broker.addr(), "client");
    let two = client.expect_and_ack("t", "two");
    assert!(two.dup && two.qos == 2, "{two:?}");
    let one = client.expect_and_ack("t", "one");
    assert!(one.dup, "{one:?}");
}

#[test]
fn an_expired_retained_message_is_replaced_by_a_new_one() {
    let broker = TestBroker::start();
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    publisher.publish_with("t", 0x01, &expiry(1), "old");
    pass(&broker, Duration::from_millis(1_300));
    RawClient5::clean(broker.addr(), "client").subscribe("t", 0);
    publisher.publish_with("t", 0x01, &[], "new");
    let mut client = RawClient5::clean(broker.addr(), "client");
    client.subscribe("t", 0);
    client.expect_message("t", "new");
}

#[test]
fn expiry_holds_for_subscribers_of_3_1_1() {
    let broker = TestBroker::start();
    let mut client = RawClient::persistent(broker.addr(), "client");
    client.subscribe("t", 1);
    client.disconnect();
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    publisher.publish_with("t", 0x03, &expiry(1), "short");
    publisher.publish_with("t", 0x02, &expiry(100), "long");
    pass(&broker, Duration::from_millis(1_300));
    let mut client = RawClient::resume(broker.addr(), "client");
    client.expect_message_and_ack("t", "long");
    client.subscribe("t", 1);
    client.expect_nothing();
}
