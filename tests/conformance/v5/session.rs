//! Session expiry and what is kept (section 3.1.2.11.2, 4.1).

use crate::support::wire5::{self, id};
use crate::support::{Connect5, RawClient, RawClient5, TestBroker, broker};
use std::time::{Duration, Instant};

/// Waits until the broker has forgotten the session of this client, which must not be before `least`.
#[track_caller]
fn gone_after(broker: &TestBroker, since: Instant, least: Duration) {
    let mut waiter = RawClient5::clean(broker.addr(), "waiter");
    while broker.metrics().sessions_expired == 0 {
        assert!(since.elapsed() < Duration::from_secs(10), "the session does not expire");
        waiter.stays_silent_and_open(Duration::from_millis(50));
    }
    assert!(since.elapsed() >= least, "expired after {:?}", since.elapsed());
}

#[test]
fn mqtt5_3_1_2_23_a_session_with_expiry_is_stored() {
    let broker = TestBroker::start();
    let mut client = RawClient5::persistent(broker.addr(), "client");
    client.subscribe("t", 2);
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    publisher.publish("t", 2, "unfinished");
    let first = client.expect_message("t", "unfinished");
    client.vanish();
    publisher.publish("t", 1, "queued");
    publisher.publish("t", 0, "not kept");
    let mut client = RawClient5::resume(broker.addr(), "client");
    let again = client.expect_and_ack("t", "unfinished");
    assert!(again.dup && again.id() == first.id() && again.qos == 2, "{again:?}");
    client.expect_and_ack("t", "queued");
    client.expect_nothing();
}

#[test]
fn mqtt5_4_1_0_1_the_session_stays_while_connected() {
    // Expiry counts from the end of the connection: 1 s and 0 s must not matter before.
    let broker = TestBroker::start();
    for connect in [Connect5::new("a").session_expiry(1), Connect5::new("b")] {
        let (mut client, ..) = RawClient5::open(broker.addr(), &connect);
        client.subscribe("t", 1);
        client.stays_silent_and_open(Duration::from_millis(1_700));
        RawClient5::clean(broker.addr(), "publisher").publish("t", 1, "x");
        client.expect_and_ack("t", "x");
    }
}

#[test]
fn mqtt5_4_1_0_2_the_session_goes_when_its_expiry_has_passed() {
    if broker::skipped_on_mosquitto("waits for TernMQ's counter") {
        return;
    }
    let broker = TestBroker::start();
    let connect = Connect5::new("client").session_expiry(1);
    let (mut client, ..) = RawClient5::open(broker.addr(), &connect);
    client.subscribe("t", 1);
    let since = Instant::now();
    client.disconnect();
    gone_after(&broker, since, Duration::from_millis(990));
    let (mut client, session_present, _) = RawClient5::open(broker.addr(), &Connect5::resuming("client"));
    assert!(!session_present);
    RawClient5::clean(broker.addr(), "publisher").publish("t", 1, "x");
    client.expect_nothing();
}

#[test]
fn mqtt5_4_1_0_2_session_expiry_0_ends_with_the_connection() {
    let broker = TestBroker::start();
    for connect in [Connect5::resuming("client"), Connect5::resuming("client").session_expiry(0)] {
        for _ in 0..2 {
            let (mut client, session_present, _) = RawClient5::open(broker.addr(), &connect);
            assert!(!session_present);
            client.subscribe("t", 1);
            client.vanish();
            RawClient5::clean(broker.addr(), "publisher").publish("t", 1, "x");
        }
    }
}

#[test]
fn a_session_that_never_expires_is_stored() {
    let broker = TestBroker::with_config(|config| config.limits.session_expiry = None);
    let connect = Connect5::new("client").session_expiry(u32::MAX);
    RawClient5::open(broker.addr(), &connect).0.disconnect();
    RawClient5::resume(broker.addr(), "client");
}

#[test]
fn coming_back_stops_the_clock_and_sets_a_new_expiry() {
    let broker = TestBroker::start();
    RawClient5::open(broker.addr(), &Connect5::new("client").session_expiry(1)).0.disconnect();
    let mut client = RawClient5::resume(broker.addr(), "client");
    client.stays_silent_and_open(Duration::from_millis(1_700));
    client.disconnect();
    // Now it has an hour.
    let mut waiter = RawClient5::clean(broker.addr(), "waiter");
    waiter.stays_silent_and_open(Duration::from_millis(1_700));
    RawClient5::resume(broker.addr(), "client");
}

#[test]
fn disconnect_changes_the_expiry() {
    let broker = TestBroker::start();
    let client = RawClient5::persistent(broker.addr(), "client");
    client.disconnect_with(0, &wire5::four(id::SESSION_EXPIRY, 0));
    let client = RawClient5::persistent(broker.addr(), "client");
    client.disconnect_with(0, &wire5::four(id::SESSION_EXPIRY, u32::MAX));
    let client = RawClient5::resume(broker.addr(), "client");
    client.disconnect_with(0x04, &wire5::four(id::SESSION_EXPIRY, 3_600));
    RawClient5::resume(broker.addr(), "client");
}

#[test]
fn a_session_expiry_of_1_s_in_disconnect_ends_the_session_after_it() {
    if broker::skipped_on_mosquitto("waits for TernMQ's counter") {
        return;
    }
    let broker = TestBroker::start();
    let client = RawClient5::persistent(broker.addr(), "client");
    let since = Instant::now();
    client.disconnect_with(0, &wire5::four(id::SESSION_EXPIRY, 1));
    gone_after(&broker, since, Duration::from_millis(990));
    RawClient5::persistent(broker.addr(), "client");
}

#[test]
fn a_session_expiry_in_disconnect_after_0_is_a_protocol_error() {
    let broker = TestBroker::start();
    for connect in [Connect5::new("client"), Connect5::new("client").session_expiry(0)] {
        let mut watcher = RawClient5::clean(broker.addr(), "watcher");
        watcher.subscribe("will", 0);
        let (mut client, ..) = RawClient5::open(broker.addr(), &connect.will("will", "gone", 0, false));
        client.send(&wire5::disconnect5(0, &wire5::four(id::SESSION_EXPIRY, 1)));
        client.expect_disconnect(0x82);
        // Not a normal end: the will stands, the session does not.
        watcher.expect_message("will", "gone");
        let (_, session_present, _) = RawClient5::open(broker.addr(), &Connect5::resuming("client"));
        assert!(!session_present);
    }
    // 0 again is no change.
    let mut client = RawClient5::clean(broker.addr(), "client");
    client.send(&wire5::disconnect5(0, &wire5::four(id::SESSION_EXPIRY, 0)));
    client.expect_closed();
}

#[test]
fn the_configured_limit_cuts_the_expiry() {
    let broker =
        TestBroker::with_config(|config| config.limits.session_expiry = Some(Duration::from_secs(1)));
    let (client, _, properties) = RawClient5::open(broker.addr(), &Connect5::persistent("client"));
    assert_eq!(properties.number(id::SESSION_EXPIRY), Some(1));
    let since = Instant::now();
    client.disconnect();
    gone_after(&broker, since, Duration::from_millis(990));
    // DISCONNECT cannot get round it.
    let (client, ..) = RawClient5::open(broker.addr(), &Connect5::persistent("client"));
    client.disconnect_with(0, &wire5::four(id::SESSION_EXPIRY, u32::MAX));
    let since = Instant::now();
    let mut waiter = RawClient5::clean(broker.addr(), "waiter");
    while broker.metrics().sessions_expired < 2 {
        assert!(since.elapsed() < Duration::from_secs(10), "the session does not expire");
        waiter.stays_silent_and_open(Duration::from_millis(50));
    }
}

#[test]
fn a_session_moves_between_the_versions() {
    let broker = TestBroker::start();
    let mut three = RawClient::persistent(broker.addr(), "client");
    three.subscribe("t", 1);
    three.disconnect();
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    publisher.publish_with("t", 0x02, &wire5::user("a", "b"), "one");
    let mut five = RawClient5::resume(broker.addr(), "client");
    let publish = five.expect_and_ack("t", "one");
    assert_eq!(publish.properties.raw, wire5::user("a", "b"));
    five.subscribe_with_id("t", 1, 7);
    five.disconnect();
    publisher.publish_with("t", 0x02, &wire5::user("a", "b"), "two");
    let mut three = RawClient::resume(broker.addr(), "client");
    three.expect_message_and_ack("t", "two");
}
