//! DISCONNECT and AUTH: what the broker says before it closes, and what a client may say (section 3.14, 3.15, 4.12).

use crate::support::wire::{self, packet};
use crate::support::wire5::{self, id};
use crate::support::{Connect5, RawClient, RawClient5, ServerPacket5, TestBroker};
use std::time::{Duration, Instant};

#[test]
fn mqtt5_3_1_2_22_silence_ends_the_connection() {
    let broker = TestBroker::start();
    let mut watcher = RawClient5::clean(broker.addr(), "watcher");
    watcher.subscribe("will", 0);
    let since = Instant::now();
    let connect = Connect5::new("client").keep_alive(1).will("will", "gone", 0, false);
    let (mut client, ..) = RawClient5::open(broker.addr(), &connect);
    client.stays_silent_and_open(Duration::from_millis(900));
    client.send(&wire5::publish5(0, "t", None, &[], "x"));
    let heard = Instant::now();
    client.expect_disconnect(0x8D);
    let time = heard.elapsed();
    assert!(since.elapsed() >= Duration::from_millis(2_300));
    assert!((Duration::from_millis(1_450)..Duration::from_secs(8)).contains(&time), "dropped after {time:?}");
    watcher.expect_message("will", "gone");
}

#[test]
fn mqtt5_3_14_0_1_no_disconnect_comes_before_connack() {
    let broker = TestBroker::with(|settings| settings.connect_timeout = Duration::from_millis(300));
    // Not by the time running out, not by packets of another kind, not by a refusal.
    RawClient5::connect(broker.addr()).expect_closed();
    let mut client = RawClient5::connect(broker.addr());
    client.send(&wire5::disconnect5(0, &[]));
    client.expect_closed();
    RawClient5::refused(broker.addr(), &Connect5::new("c").with([0xFF]).bytes(), 0x81);
}

#[test]
fn mqtt5_3_14_1_1_disconnect_with_flag_bits_is_malformed() {
    let broker = TestBroker::start();
    for flags in 1..=15 {
        let mut client = RawClient5::clean(broker.addr(), "client");
        client.send(&packet(0xE0 | flags, &[]));
        client.expect_disconnect(0x81);
    }
}

#[test]
fn mqtt5_3_14_2_1_only_codes_of_the_table_are_used() {
    // Codes of the broker are judged by the parser of the tests. Those of a client: 0x04 and up are fine.
    let broker = TestBroker::start();
    for code in [0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99] {
        let mut client = RawClient5::clean(broker.addr(), "client");
        client.send(&wire5::disconnect5(code, &[]));
        client.expect_closed();
    }
    for code in [0x02, 0x8E, 0xFF] {
        let mut client = RawClient5::clean(broker.addr(), "client");
        client.send(&wire5::disconnect5(code, &[]));
        client.expect_disconnect(0x82);
    }
}

#[test]
fn mqtt5_3_14_2_2_the_broker_sends_no_session_expiry() {
    // The parser of the tests refuses one. Three ends of the broker's own, on sessions with an expiry.
    let broker = TestBroker::start();
    let mut old = RawClient5::persistent(broker.addr(), "client");
    let mut new = RawClient5::resume(broker.addr(), "client");
    old.expect_disconnect(0x8E);
    new.send(&[0xFF, 0x00]);
    new.expect_disconnect(0x81);
    let mut last = RawClient5::resume(broker.addr(), "client");
    drop(broker);
    last.expect_disconnect(0x8B);
}

#[test]
fn every_form_of_disconnect_is_understood() {
    let broker = TestBroker::start();
    let forms = [
        packet(0xE0, &[]),
        packet(0xE0, &[0]),
        packet(0xE0, &[0, 0]),
        wire5::disconnect5(0, &[wire5::text(id::REASON_STRING, "bye"), wire5::user("a", "b")].concat()),
    ];
    let mut watcher = RawClient5::clean(broker.addr(), "watcher");
    watcher.subscribe("will", 0);
    for bytes in forms {
        let connect = Connect5::new("client").will("will", "gone", 0, false);
        let (mut client, ..) = RawClient5::open(broker.addr(), &connect);
        client.send(&bytes);
        client.expect_closed();
    }
    watcher.expect_nothing();
}

#[test]
fn shutdown_is_told() {
    let broker = TestBroker::start();
    let mut five = RawClient5::clean(broker.addr(), "five");
    let mut persistent = RawClient5::persistent(broker.addr(), "persistent");
    let mut three = RawClient::clean(broker.addr(), "three");
    drop(broker);
    five.expect_disconnect(0x8B);
    persistent.expect_disconnect(0x8B);
    three.expect_closed();
}

#[test]
fn what_stands_before_the_end_is_still_sent() {
    let broker = TestBroker::start();
    let mut client = RawClient5::clean(broker.addr(), "client");
    client.subscribe("t", 0);
    let mut bytes = Vec::new();
    for packet_id in 1..=20 {
        bytes.extend(wire5::publish5(0x02, "nobody", Some(packet_id), &[], "x"));
    }
    bytes.extend(wire5::publish5(0x00, "t", None, &[], "own"));
    bytes.extend([0x00, 0x00]);
    client.send(&bytes);
    let packets = client.packets_until_closed();
    for packet_id in 1..=20 {
        assert!(packets.contains(&ServerPacket5::PubAck(packet_id, 0x10)), "{packet_id} of {packets:?}");
    }
    assert!(matches!(packets.last(), Some(ServerPacket5::Disconnect(0x81, _))), "{packets:?}");
    assert_eq!(packets.len(), 22);
}

#[test]
fn mqtt5_3_15_1_1_auth_with_flag_bits_is_malformed() {
    let broker = TestBroker::start();
    for flags in 1..=15 {
        let mut bytes = wire5::auth5(0x18, &wire5::text(id::AUTH_METHOD, "m"));
        bytes[0] |= flags;
        let mut client = RawClient5::clean(broker.addr(), "client");
        client.send(&bytes);
        client.expect_disconnect(0x81);
    }
}

#[test]
fn mqtt5_4_12_0_6_without_a_method_the_broker_sends_no_auth() {
    // The parser of the tests refuses AUTH. CONNACK names no method either.
    let broker = TestBroker::start();
    let (mut client, _, properties) =
        RawClient5::open(broker.addr(), &Connect5::new("client").user_name("u").password("p"));
    assert!(!properties.has(id::AUTH_METHOD) && !properties.has(id::AUTH_DATA), "{properties:?}");
    client.expect_nothing();
}

#[test]
fn auth_without_a_method_in_use_is_a_protocol_error() {
    let broker = TestBroker::start();
    let method = wire5::text(id::AUTH_METHOD, "m");
    let packets = [
        wire5::auth5(0x18, &method),
        wire5::auth5(0x19, &method),
        wire5::auth5(0x19, &[method.clone(), wire5::text(id::AUTH_DATA, "d")].concat()),
        wire5::auth5(0x00, &method),
        wire5::auth5(0x18, &[]),
        wire5::auth5(0x7F, &method),
        vec![0xF0, 0x00],
    ];
    for bytes in packets {
        let mut client = RawClient5::clean(broker.addr(), "client");
        client.send(&bytes);
        client.expect_disconnect(0x82);
    }
    // 3.1.1 does not know AUTH.
    let mut three = RawClient::clean(broker.addr(), "three");
    three.send(&[0xF0, 0x00]);
    three.expect_closed();
}

#[test]
fn mqtt5_3_1_2_29_without_problem_information_there_are_no_reason_strings() {
    let broker = TestBroker::start();
    let connect = Connect5::new("client").with(wire5::byte(id::REQUEST_PROBLEM_INFO, 0));
    let (mut client, ..) = RawClient5::open(broker.addr(), &connect);
    // Byte for byte: nothing but codes.
    client.send(&wire5::subscribe5(1, &[], &[("t", 1), ("+", 1)]));
    client.expect(&[0x90, 5, 0, 1, 0, 1, 1]);
    client.send(&wire5::unsubscribe5(2, &[], &["nothing"]));
    client.expect(&[0xB0, 4, 0, 2, 0, 0x11]);
    client.send(&wire5::publish5(0x02, "a/b", Some(3), &[], "x"));
    let puback = client.expect_packet();
    assert_eq!(puback, ServerPacket5::PubAck(3, 0x10));
    client.send(&wire::pubrel(4));
    assert_eq!(client.expect_packet(), ServerPacket5::PubComp(4, 0x92));
    client.send(&wire::pubrec(4));
    assert_eq!(client.expect_packet(), ServerPacket5::PubRel(4, 0x92));
    // User properties of others in PUBLISH stay.
    let user = wire5::user("a", "b");
    RawClient5::clean(broker.addr(), "publisher").publish_with("t", 0, &user, "x");
    assert_eq!(client.expect_message("t", "x").properties.raw, user);
}
