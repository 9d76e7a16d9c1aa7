//! CONNECT: versions, clean start, client ids, take-over, what follows a refusal (section 3.1).

use crate::support::wire::{self, field, packet};
use crate::support::wire5::{self, id};
use crate::support::{Connect5, RawClient, RawClient5, ServerPacket, ServerPacket5, TestBroker};

#[test]
fn mqtt5_3_1_2_2_an_unsupported_version_is_refused() {
    let broker = TestBroker::start();
    for level in [0, 1, 2, 6, 7, 127, 255] {
        let mut body = field("MQTT");
        body.extend([level, 0x02, 0, 0, 0]);
        body.extend(field("client"));
        let mut client = RawClient5::connect(broker.addr());
        client.send(&packet(0x10, &body));
        // Which version the client would understand is not known: 0x84, or what 3.1.1 says for it, or nothing.
        client.expect_closed_or_refusal();
    }
}

#[test]
fn mqtt5_3_1_2_4_clean_start_forgets_the_old_session() {
    let broker = TestBroker::start();
    let mut client = RawClient5::persistent(broker.addr(), "client");
    client.subscribe("t", 1);
    client.disconnect();
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    publisher.publish("t", 1, "queued");
    let connect = Connect5::new("client").session_expiry(3_600);
    let (mut client, session_present, _) = RawClient5::open(broker.addr(), &connect);
    assert!(!session_present);
    client.expect_nothing();
    publisher.publish("t", 1, "later");
    client.expect_nothing();
}

#[test]
fn mqtt5_3_1_2_4_a_session_begun_clean_stays_for_its_expiry() {
    let broker = TestBroker::start();
    let connect = Connect5::new("client").session_expiry(3_600);
    let (mut client, ..) = RawClient5::open(broker.addr(), &connect);
    client.subscribe("t", 1);
    client.disconnect();
    RawClient5::clean(broker.addr(), "publisher").publish("t", 1, "queued");
    RawClient5::resume(broker.addr(), "client").expect_and_ack("t", "queued");
}

#[test]
fn mqtt5_3_1_2_5_without_clean_start_the_stored_session_goes_on() {
    let broker = TestBroker::start();
    let mut client = RawClient5::persistent(broker.addr(), "client");
    client.subscribe("t", 2);
    client.disconnect();
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    publisher.publish("t", 1, "one");
    publisher.publish("t", 2, "two");
    let mut client = RawClient5::resume(broker.addr(), "client");
    client.expect_and_ack("t", "one");
    client.expect_and_ack("t", "two");
    publisher.publish("t", 0, "three");
    client.expect_message("t", "three");
}

#[test]
fn mqtt5_3_1_3_6_an_empty_client_id_is_replaced_and_told() {
    let broker = TestBroker::start();
    for connect in [Connect5::new(""), Connect5::resuming(""), Connect5::persistent("")] {
        let (client, session_present, properties) = RawClient5::open(broker.addr(), &connect);
        assert!(!session_present);
        let assigned = properties.text(id::ASSIGNED_CLIENT_ID).expect("an assigned client identifier");
        assert!(!assigned.is_empty());
        client.disconnect();
    }
}

#[test]
fn mqtt5_3_1_3_6_a_session_can_be_resumed_by_the_assigned_id() {
    let broker = TestBroker::start();
    let (mut client, _, properties) = RawClient5::open(broker.addr(), &Connect5::persistent(""));
    let assigned = properties.text(id::ASSIGNED_CLIENT_ID).expect("an assigned client identifier").to_owned();
    client.subscribe("t", 1);
    client.disconnect();
    RawClient5::clean(broker.addr(), "publisher").publish("t", 1, "x");
    let (mut client, session_present, properties) =
        RawClient5::open(broker.addr(), &Connect5::persistent(&assigned));
    assert!(session_present);
    assert!(!properties.has(id::ASSIGNED_CLIENT_ID), "it named itself");
    client.expect_and_ack("t", "x");
}

#[test]
fn mqtt5_3_1_3_8_a_refused_client_id_gets_no_connection() {
    // TernMQ takes every well-formed id; what it refuses is one that is not UTF-8, which is malformed.
    let broker = TestBroker::start();
    for client_id in [&b"\xFF"[..], b"\xC0\x80", b"\xED\xA0\x80", b"a\0b"] {
        RawClient5::refused(broker.addr(), &Connect5::new(client_id).bytes(), 0x81);
    }
    for client_id in ["x", "0123456789abcdefghijklm", "with space/#+$é", &"long".repeat(1_000)] {
        RawClient5::clean(broker.addr(), client_id).disconnect();
    }
}

#[test]
fn mqtt5_3_1_4_3_the_old_connection_is_told_and_closed() {
    let broker = TestBroker::start();
    let kinds = [Connect5::new, Connect5::persistent];
    for old in kinds {
        for new in kinds {
            let (mut old, ..) = RawClient5::open(broker.addr(), &old("client"));
            let (mut new, ..) = RawClient5::open(broker.addr(), &new("client"));
            old.expect_disconnect(0x8E);
            new.expect_nothing();
            new.disconnect_with(0, &wire5::four(id::SESSION_EXPIRY, 0));
        }
    }
}

#[test]
fn mqtt5_3_1_4_3_versions_take_each_other_over() {
    let broker = TestBroker::start();
    let mut five = RawClient5::clean(broker.addr(), "client");
    let mut three = RawClient::clean(broker.addr(), "client");
    five.expect_disconnect(0x8E);
    let mut five = RawClient5::clean(broker.addr(), "client");
    // 3.1.1 has no packet for it.
    three.expect_closed();
    five.expect_nothing();
}

#[test]
fn mqtt5_3_1_4_5_a_good_connect_is_answered_with_success() {
    let broker = TestBroker::start();
    let connect = Connect5::new("client")
        .keep_alive(60)
        .session_expiry(10)
        .with(wire5::two(id::RECEIVE_MAXIMUM, 10))
        .with(wire5::four(id::MAXIMUM_PACKET_SIZE, 100_000))
        .with(wire5::two(id::TOPIC_ALIAS_MAXIMUM, 10))
        .with(wire5::byte(id::REQUEST_RESPONSE_INFO, 1))
        .with(wire5::byte(id::REQUEST_PROBLEM_INFO, 1))
        .with(wire5::user("a", "b"))
        .with(wire5::user("a", "b"))
        .will("will", "payload", 1, true)
        .will_with(wire5::four(id::WILL_DELAY, 10))
        .will_with(wire5::user("a", "b"))
        .user_name("user")
        .password([0xFF, 0x00]);
    let (mut client, session_present, _) = RawClient5::open(broker.addr(), &connect);
    assert!(!session_present);
    client.expect_nothing();
    // Unlike 3.1.1: a password without a user name.
    RawClient5::open(broker.addr(), &Connect5::new("other").password("secret"));
}

#[test]
fn mqtt5_3_1_4_6_what_follows_a_refused_connect_is_ignored() {
    let broker = TestBroker::start();
    let mut watcher = RawClient5::clean(broker.addr(), "watcher");
    watcher.subscribe("#", 0);
    let mut bytes = Connect5::new("client").with(wire5::text(id::AUTH_METHOD, "unknown")).bytes();
    bytes.extend(wire5::publish5(0x01, "refused", None, &[], "x"));
    bytes.extend(wire::PINGREQ);
    RawClient5::refused(broker.addr(), &bytes, 0x8C);
    watcher.expect_nothing();
    RawClient::clean(broker.addr(), "late").subscribe("refused", 0);
}

#[test]
fn packets_right_behind_connect_are_handled() {
    let broker = TestBroker::start();
    let mut bytes = Connect5::new("client").bytes();
    bytes.extend(wire5::subscribe5(1, &[], &[("t", 1)]));
    bytes.extend(wire5::publish5(0x02, "t", Some(2), &[], "x"));
    let mut client = RawClient5::connect(broker.addr());
    client.send(&bytes);
    assert!(matches!(client.expect_packet(), ServerPacket5::ConnAck(false, 0, _)));
    assert_eq!(client.expect_packet(), ServerPacket5::SubAck(1, vec![1]));
    let mut packets = client.packets_until_ping();
    packets.retain(|packet| *packet != ServerPacket5::PubAck(2, 0));
    assert!(matches!(packets.as_slice(), [ServerPacket5::Publish(publish)] if publish.topic == "t"));
}

#[test]
fn a_connect_in_single_bytes_is_taken() {
    let broker = TestBroker::start();
    let mut client = RawClient5::connect(broker.addr());
    for byte in Connect5::new("client").with(wire5::user("name", "value")).bytes() {
        client.send(&[byte]);
    }
    assert!(matches!(client.expect_packet(), ServerPacket5::ConnAck(false, 0, _)));
    client.expect_nothing();
}

#[test]
fn a_take_over_keeps_what_is_unfinished() {
    let broker = TestBroker::start();
    let mut old = RawClient5::persistent(broker.addr(), "client");
    old.subscribe("t", 1);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    publisher.publish("t", 1, "x");
    let first = old.expect_message("t", "x");
    let mut new = RawClient5::resume(broker.addr(), "client");
    old.expect_disconnect(0x8E);
    let again = new.expect_and_ack("t", "x");
    assert!(again.dup && again.id() == first.id(), "{again:?}");
    publisher.send(&wire::PINGREQ);
    assert_eq!(publisher.expect_packet(), ServerPacket::PingResp);
}
