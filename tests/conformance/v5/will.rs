//! The will of MQTT 5: its delay, its properties, and which ends publish it (section 3.1.2.5, 3.1.3.2).

use crate::support::wire5::{self, id};
use crate::support::{Connect5, Publish5, RawClient5, TestBroker};
use std::time::{Duration, Instant};

fn with_will(client_id: &str, delay: u32) -> Connect5 {
    Connect5::resuming(client_id)
        .session_expiry(3_600)
        .will("will", "gone", 0, false)
        .will_with(wire5::four(id::WILL_DELAY, delay))
}

fn watcher(broker: &TestBroker) -> RawClient5 {
    let mut watcher = RawClient5::clean(broker.addr(), "watcher");
    watcher.subscribe("will", 2);
    watcher
}

/// Waits for the will and says how long that took.
#[track_caller]
fn wait(watcher: &mut RawClient5, since: Instant) -> (Publish5, Duration) {
    let publish = watcher.expect_message("will", "gone");
    (publish, since.elapsed())
}

#[test]
fn mqtt5_3_1_2_8_without_delay_the_will_is_published_at_once() {
    let broker = TestBroker::start();
    let mut watcher = watcher(&broker);
    for delay in [None, Some(0)] {
        let mut connect = Connect5::persistent("client").will("will", "gone", 0, false);
        if let Some(delay) = delay {
            connect = connect.will_with(wire5::four(id::WILL_DELAY, delay));
        }
        let (client, ..) = RawClient5::open(broker.addr(), &connect);
        client.vanish();
        watcher.expect_message("will", "gone");
        watcher.expect_nothing();
    }
}

#[test]
fn mqtt5_3_1_2_8_the_will_waits_for_its_delay() {
    let broker = TestBroker::start();
    let mut watcher = watcher(&broker);
    let (client, ..) = RawClient5::open(broker.addr(), &with_will("client", 1));
    let since = Instant::now();
    client.vanish();
    watcher.expect_nothing();
    let (_, time) = wait(&mut watcher, since);
    assert!((Duration::from_millis(990)..Duration::from_secs(6)).contains(&time), "published after {time:?}");
    watcher.expect_nothing();
}

#[test]
fn mqtt5_3_1_2_8_the_end_of_the_session_ends_the_delay() {
    let broker = TestBroker::start();
    let mut watcher = watcher(&broker);
    let connect = Connect5::new("client")
        .session_expiry(1)
        .will("will", "gone", 0, false)
        .will_with(wire5::four(id::WILL_DELAY, 600));
    let (client, ..) = RawClient5::open(broker.addr(), &connect);
    let since = Instant::now();
    client.vanish();
    let (_, time) = wait(&mut watcher, since);
    assert!(time >= Duration::from_millis(990), "published after {time:?}");
    // A session that ends with its connection.
    let connect =
        Connect5::new("other").will("will", "gone", 0, false).will_with(wire5::four(id::WILL_DELAY, 600));
    RawClient5::open(broker.addr(), &connect).0.vanish();
    watcher.expect_message("will", "gone");
    // A clean start ends the session that waits.
    RawClient5::open(broker.addr(), &with_will("third", 600)).0.vanish();
    watcher.expect_nothing();
    RawClient5::clean(broker.addr(), "third");
    watcher.expect_message("will", "gone");
    watcher.expect_nothing();
}

#[test]
fn mqtt5_3_1_2_8_session_expiry_0_in_disconnect_ends_the_delay() {
    let broker = TestBroker::start();
    let mut watcher = watcher(&broker);
    let (client, ..) = RawClient5::open(broker.addr(), &with_will("client", 600));
    client.disconnect_with(0x04, &wire5::four(id::SESSION_EXPIRY, 0));
    watcher.expect_message("will", "gone");
    watcher.expect_nothing();
}

#[test]
fn mqtt5_3_1_3_9_coming_back_in_time_cancels_the_will() {
    let broker = TestBroker::start();
    let mut watcher = watcher(&broker);
    let (client, ..) = RawClient5::open(broker.addr(), &with_will("client", 1));
    client.vanish();
    let mut client = RawClient5::resume(broker.addr(), "client");
    watcher.stays_silent_and_open(Duration::from_millis(1_800));
    client.expect_nothing();
    // The new connection has no will, and nothing of the old one is left for when it ends.
    client.vanish();
    watcher.stays_silent_and_open(Duration::from_millis(500));
    RawClient5::clean(broker.addr(), "client");
    watcher.expect_nothing();
}

#[test]
fn mqtt5_3_1_3_9_a_take_over_that_resumes_cancels_a_delayed_will() {
    let broker = TestBroker::start();
    let mut watcher = watcher(&broker);
    let (mut old, ..) = RawClient5::open(broker.addr(), &with_will("client", 1));
    let mut new = RawClient5::resume(broker.addr(), "client");
    old.expect_disconnect(0x8E);
    watcher.stays_silent_and_open(Duration::from_millis(1_800));
    new.expect_nothing();
}

#[test]
fn a_take_over_publishes_a_will_without_delay_or_without_session() {
    let broker = TestBroker::start();
    let mut watcher = watcher(&broker);
    let (mut old, ..) = RawClient5::open(broker.addr(), &with_will("client", 0));
    let (mut next, ..) = RawClient5::open(broker.addr(), &with_will("client", 600));
    old.expect_disconnect(0x8E);
    watcher.expect_message("will", "gone");
    // A clean start ends the session, and with it the delay.
    let _new = RawClient5::clean(broker.addr(), "client");
    next.expect_disconnect(0x8E);
    watcher.expect_message("will", "gone");
    watcher.expect_nothing();
}

#[test]
fn mqtt5_3_1_3_10_properties_of_the_will_are_forwarded_in_order() {
    let broker = TestBroker::start();
    let mut watcher = watcher(&broker);
    let properties = [
        wire5::user("b", "2"),
        wire5::text(id::CONTENT_TYPE, "text/plain"),
        wire5::user("a", "1"),
        wire5::byte(id::PAYLOAD_FORMAT, 1),
        wire5::text(id::RESPONSE_TOPIC, "answers"),
        wire5::user("b", "2"),
        wire5::text(id::CORRELATION_DATA, [0, 255]),
        wire5::user("", ""),
    ];
    let mut connect =
        Connect5::new("client").will("will", "gone", 1, false).will_with(wire5::four(id::WILL_DELAY, 0));
    for property in &properties {
        connect = connect.will_with(property);
    }
    RawClient5::open(broker.addr(), &connect).0.vanish();
    let publish = watcher.expect_and_ack("will", "gone");
    assert_eq!(publish.qos, 1);
    let users = |raw: &[u8]| raw.to_vec();
    assert_eq!(users(&publish.properties.raw), properties.concat(), "{publish:?}");
}

#[test]
fn the_expiry_of_a_will_begins_when_it_is_published() {
    let broker = TestBroker::start();
    let mut watcher = watcher(&broker);
    let connect = with_will("client", 1).will_with(wire5::four(id::MESSAGE_EXPIRY, 100));
    RawClient5::open(broker.addr(), &connect).0.vanish();
    let publish = watcher.expect_message("will", "gone");
    assert_eq!(publish.expiry(), Some(100));
    assert!(!publish.properties.has(id::WILL_DELAY));
}

#[test]
fn a_retained_will_is_kept_with_its_properties() {
    let broker = TestBroker::start();
    let connect =
        Connect5::new("client").will("will", "gone", 1, true).will_with(wire5::user("name", "value"));
    RawClient5::open(broker.addr(), &connect).0.vanish();
    let mut watcher = watcher(&broker);
    let publish = watcher.expect_and_ack("will", "gone");
    assert!(publish.retain);
    assert_eq!(publish.properties.raw, wire5::user("name", "value"));
}

#[test]
fn mqtt5_3_14_4_3_disconnect_0_drops_the_will_and_others_publish_it() {
    let broker = TestBroker::start();
    let mut watcher = watcher(&broker);
    RawClient5::open(broker.addr(), &with_will("client", 0)).0.disconnect();
    watcher.expect_nothing();
    // The short form says the same.
    let (mut client, ..) = RawClient5::open(broker.addr(), &with_will("client", 0));
    client.send(&crate::support::wire::DISCONNECT);
    client.expect_closed();
    watcher.expect_nothing();
    // A dropped will stays dropped when the session ends.
    RawClient5::clean(broker.addr(), "client").disconnect();
    watcher.expect_nothing();
    for code in [0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99] {
        RawClient5::open(broker.addr(), &with_will("client", 0)).0.disconnect_with(code, &[]);
        watcher.expect_message("will", "gone");
        watcher.expect_nothing();
    }
}

#[test]
fn no_local_keeps_a_client_from_its_own_will() {
    let broker = TestBroker::start();
    let connect = Connect5::persistent("client").will("will", "gone", 1, false);
    let (mut client, ..) = RawClient5::open(broker.addr(), &connect);
    client.subscribe("will", 1 | wire5::NO_LOCAL);
    let mut watcher = watcher(&broker);
    client.vanish();
    let publish = watcher.expect_message("will", "gone");
    watcher.ack(&publish);
    RawClient5::resume(broker.addr(), "client").expect_nothing();
}
