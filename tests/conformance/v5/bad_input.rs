//! Packets after CONNECT that cannot be: each gets the reason code the standard names in DISCONNECT, then the end of
//! that connection only (section 4.13).

use crate::support::wire::{self, field, packet};
use crate::support::wire5::{self, id};
use crate::support::{Connect5, RawClient5, ServerPacket5, TestBroker};

const MALFORMED: u8 = 0x81;
const PROTOCOL_ERROR: u8 = 0x82;

/// Sends each on a connection of its own that also has a will; a bystander lives on.
#[track_caller]
fn close_all(cases: impl IntoIterator<Item = (String, Vec<u8>, u8)>) {
    let broker = TestBroker::start();
    let mut bystander = RawClient5::clean(broker.addr(), "bystander");
    bystander.subscribe("will", 1);
    bystander.subscribe("t", 1);
    for (what, bytes, code) in cases {
        println!("{what}");
        let connect = Connect5::new("client").will("will", "gone", 1, false);
        let (mut client, ..) = RawClient5::open(broker.addr(), &connect);
        // What comes before is handled, what comes behind is not.
        client.send(&wire5::publish5(0x02, "t", Some(500), &[], "before"));
        assert_eq!(client.expect_packet(), ServerPacket5::PubAck(500, 0));
        bystander.expect_and_ack("t", "before");
        client.send(&[bytes, wire5::publish5(0x02, "t", Some(501), &[], "behind")].concat());
        client.expect_disconnect(code);
        bystander.expect_and_ack("will", "gone");
        bystander.expect_nothing();
    }
}

fn named(what: &str, cases: Vec<(Vec<u8>, u8)>) -> Vec<(String, Vec<u8>, u8)> {
    let numbered = cases.into_iter().enumerate();
    numbered.map(|(number, (bytes, code))| (format!("{what} {number}"), bytes, code)).collect()
}

fn publish(properties: &[u8]) -> Vec<u8> {
    wire5::publish5(0x02, "t", Some(1), properties, "x")
}

#[test]
fn mqtt5_4_13_1_1_malformed_packets_and_protocol_errors_close_the_connection() {
    close_all(named(
        "packet",
        vec![
            (vec![0x00, 0x00], MALFORMED),
            (wire5::publish5(0x06, "t", Some(1), &[], "x"), MALFORMED),
            (wire5::publish5(0x08, "t", None, &[], "x"), MALFORMED),
            (vec![0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01], MALFORMED),
            (packet(0x30, &[0, 5, b't']), MALFORMED),
            (packet(0x32, &[0, 1, b't', 0]), MALFORMED),
            (packet(0x32, &[0, 1, b't', 0, 1]), MALFORMED),
            (wire5::publish5(0, [0xFF], None, &[], "x"), MALFORMED),
            (wire5::publish5(0, "a\0b", None, &[], "x"), MALFORMED),
            (wire5::publish5(0, "a/+", None, &[], "x"), 0x90),
            (wire5::publish5(0, "#", None, &[], "x"), 0x90),
            (packet(0xC0, &[0]), MALFORMED),
            (packet(0xC1, &[]), MALFORMED),
            (packet(0x40, &[0]), MALFORMED),
            (packet(0x41, &[0, 1]), MALFORMED),
            (packet(0x60, &[0, 1]), MALFORMED),
            (packet(0x80, &[0, 1, 0, 0, 1, b't', 0]), MALFORMED),
            (packet(0xA0, &[0, 1, 0, 0, 1, b't']), MALFORMED),
            (packet(0x40, &[0, 1, 0, 0, 0]), MALFORMED),
        ],
    ));
}

#[test]
fn mqtt5_4_13_2_1_an_error_code_always_closes_the_connection() {
    // Each code for which there is a DISCONNECT is followed by the end: `expect_disconnect` waits for it.
    close_all(named(
        "code",
        vec![
            (publish(&[0xFF]), MALFORMED),
            (publish(&wire5::variable(id::SUBSCRIPTION_ID, 1)), PROTOCOL_ERROR),
            (wire5::subscribe5(1, &[], &[("a#", 0)]), 0x8F),
            (wire5::publish5(0, "+", None, &[], "x"), 0x90),
            (publish(&wire5::two(id::TOPIC_ALIAS, 0)), 0x94),
            (vec![0x30, 0xFF, 0xFF, 0xFF, 0x7F], 0x95),
        ],
    ));
}

#[test]
fn properties_twice() {
    let twice = |property: Vec<u8>| (publish(&[property.clone(), property].concat()), PROTOCOL_ERROR);
    close_all(named(
        "twice in PUBLISH",
        vec![
            twice(wire5::byte(id::PAYLOAD_FORMAT, 0)),
            twice(wire5::four(id::MESSAGE_EXPIRY, 1)),
            twice(wire5::text(id::CONTENT_TYPE, "c")),
            twice(wire5::text(id::RESPONSE_TOPIC, "r")),
            twice(wire5::text(id::CORRELATION_DATA, "d")),
            twice(wire5::two(id::TOPIC_ALIAS, 1)),
        ],
    ));
    let reason = [wire5::text(id::REASON_STRING, "a"), wire5::text(id::REASON_STRING, "b")].concat();
    let expiry = [wire5::four(id::SESSION_EXPIRY, 0), wire5::four(id::SESSION_EXPIRY, 0)].concat();
    close_all(named(
        "twice elsewhere",
        vec![
            (wire5::ack5(0x40, 1, 0, &reason), PROTOCOL_ERROR),
            (wire5::ack5(0x50, 1, 0, &reason), PROTOCOL_ERROR),
            (wire5::ack5(0x62, 1, 0, &reason), PROTOCOL_ERROR),
            (wire5::ack5(0x70, 1, 0, &reason), PROTOCOL_ERROR),
            (wire5::disconnect5(0, &reason), PROTOCOL_ERROR),
            (wire5::disconnect5(0, &expiry), PROTOCOL_ERROR),
        ],
    ));
}

#[test]
fn properties_in_the_wrong_packet() {
    let reason = wire5::text(id::REASON_STRING, "r");
    let alias = wire5::two(id::TOPIC_ALIAS, 1);
    let expiry = wire5::four(id::SESSION_EXPIRY, 1);
    let will_delay = wire5::four(id::WILL_DELAY, 1);
    let cases = vec![
        publish(&reason),
        publish(&expiry),
        publish(&will_delay),
        publish(&wire5::two(id::RECEIVE_MAXIMUM, 1)),
        publish(&wire5::text(id::AUTH_METHOD, "m")),
        publish(&[0x00, 0x00]),
        publish(&[0x2B, 0x00]),
        publish(&[0x80, 0x01, 0x00]),
        wire5::subscribe5(1, &reason, &[("t", 0)]),
        wire5::subscribe5(1, &alias, &[("t", 0)]),
        wire5::unsubscribe5(1, &wire5::variable(id::SUBSCRIPTION_ID, 1), &["t"]),
        wire5::ack5(0x40, 1, 0, &alias),
        wire5::ack5(0x50, 1, 0, &expiry),
        wire5::ack5(0x62, 1, 0, &wire5::text(id::SERVER_REFERENCE, "s")),
        wire5::ack5(0x70, 1, 0, &wire5::byte(id::PAYLOAD_FORMAT, 0)),
        wire5::disconnect5(0, &alias),
    ];
    close_all(named("misplaced", cases.into_iter().map(|bytes| (bytes, MALFORMED)).collect()));
}

#[test]
fn mqtt5_3_3_2_14_a_response_topic_has_no_wildcards() {
    let bad = |topic: &str| (publish(&wire5::text(id::RESPONSE_TOPIC, topic)), PROTOCOL_ERROR);
    close_all(named("response topic", vec![bad("+"), bad("#"), bad("a/+/b"), bad("a/#"), bad("a+")]));
}

#[test]
fn values_out_of_range() {
    close_all(named(
        "value",
        vec![
            (publish(&wire5::byte(id::PAYLOAD_FORMAT, 2)), PROTOCOL_ERROR),
            (publish(&wire5::byte(id::PAYLOAD_FORMAT, 255)), PROTOCOL_ERROR),
            (publish(&wire5::text(id::CONTENT_TYPE, [0xFF])), MALFORMED),
            (publish(&wire5::text(id::RESPONSE_TOPIC, [0xFF])), MALFORMED),
            (publish(&wire5::text(id::CONTENT_TYPE, "a\0")), MALFORMED),
        ],
    ));
}

#[test]
fn property_lengths_that_do_not_fit() {
    let publish = |rest: &[u8]| (packet(0x32, &[field("t"), vec![0, 1], rest.to_vec()].concat()), MALFORMED);
    let ack = |rest: &[u8]| (packet(0x40, &[&[0, 1, 0][..], rest].concat()), MALFORMED);
    close_all(named(
        "length",
        vec![
            publish(&[5, id::PAYLOAD_FORMAT, 1]),
            publish(&[0xFF, 0xFF, 0xFF, 0x7F]),
            publish(&[0xFF, 0xFF, 0xFF, 0xFF, 0x7F]),
            publish(&[0x80]),
            publish(&[0x80, 0x80, 0x80, 0x80, 0x00]),
            publish(&[1, id::PAYLOAD_FORMAT, 1]),
            publish(&[2, id::MESSAGE_EXPIRY, 0, 0, 0, 1]),
            publish(&[4, id::CONTENT_TYPE, 0, 9, b'c']),
            publish(&[6, id::USER_PROPERTY, 0, 1, b'n', 0, 5]),
            ack(&[9]),
            ack(&[0, 0]),
            ack(&[2, id::REASON_STRING, 0]),
            (packet(0xE0, &[0, 3, id::SESSION_EXPIRY, 0]), MALFORMED),
            (packet(0x82, &[0, 1, 0x7F, 0, 1, b't', 0]), MALFORMED),
        ],
    ));
}

#[test]
fn reason_codes_that_a_packet_cannot_have() {
    let mut cases = Vec::new();
    for code in [0x01, 0x02, 0x04, 0x11, 0x18, 0x7F, 0x81, 0x82, 0x92, 0x9A, 0xFF] {
        cases.push((wire5::ack5(0x40, 1, code, &[]), PROTOCOL_ERROR));
        cases.push((wire5::ack5(0x50, 1, code, &[]), PROTOCOL_ERROR));
    }
    for code in [0x01, 0x10, 0x80, 0x91, 0xFF] {
        cases.push((wire5::ack5(0x62, 1, code, &[]), PROTOCOL_ERROR));
        cases.push((wire5::ack5(0x70, 1, code, &[]), PROTOCOL_ERROR));
    }
    // Codes of a server, and of nobody.
    for code in [0x01, 0x10, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x9C, 0x9D, 0xA2, 0xFF] {
        cases.push((wire5::disconnect5(code, &[]), PROTOCOL_ERROR));
    }
    close_all(named("reason code", cases));
}

#[test]
fn packets_at_the_wrong_time() {
    close_all(named(
        "wrong time",
        vec![
            (Connect5::new("client").bytes(), PROTOCOL_ERROR),
            (Connect5::new("other").bytes(), PROTOCOL_ERROR),
            (wire5::raw_connect5(0x02, 0, &[0], &field("x")), PROTOCOL_ERROR),
            (packet(0x20, &[0, 0, 0]), PROTOCOL_ERROR),
            (packet(0x90, &[0, 1, 0, 0]), PROTOCOL_ERROR),
            (packet(0xB0, &[0, 1, 0, 0]), PROTOCOL_ERROR),
            (packet(0xD0, &[]), PROTOCOL_ERROR),
        ],
    ));
}

#[test]
fn packet_id_0() {
    close_all(named(
        "id 0",
        vec![
            (wire5::publish5(0x02, "t", Some(0), &[], "x"), PROTOCOL_ERROR),
            (wire5::publish5(0x04, "t", Some(0), &[], "x"), PROTOCOL_ERROR),
            (wire5::subscribe5(0, &[], &[("t", 0)]), PROTOCOL_ERROR),
            (wire5::unsubscribe5(0, &[], &["t"]), PROTOCOL_ERROR),
            (wire::puback(0), PROTOCOL_ERROR),
        ],
    ));
}

#[test]
fn nothing_but_connect_is_taken_first() {
    let broker = TestBroker::start();
    let firsts = [
        wire::PINGREQ.to_vec(),
        wire5::publish5(0, "t", None, &[], "x"),
        wire5::auth5(0x18, &wire5::text(id::AUTH_METHOD, "m")),
        wire5::disconnect5(0, &[]),
    ];
    for bytes in firsts {
        let mut client = RawClient5::connect(broker.addr());
        client.send(&bytes);
        client.expect_closed();
    }
}

#[test]
fn mutated_packets_close_their_own_connection_only() {
    let broker = TestBroker::start();
    let mut bystander = RawClient5::clean(broker.addr(), "bystander");
    let properties =
        [wire5::text(id::CONTENT_TYPE, "c"), wire5::user("n", "v"), wire5::four(id::MESSAGE_EXPIRY, 9)];
    let whole = [
        wire5::publish5(0x02, "t", Some(1), &properties.concat(), "x"),
        wire5::subscribe5(2, &wire5::variable(id::SUBSCRIPTION_ID, 300), &[("a/+", 1), ("$share/g/b", 2)]),
        wire5::disconnect5(0x04, &wire5::text(id::REASON_STRING, "bye")),
    ];
    for packet in &whole {
        for place in 0..packet.len() {
            for bit in [0, 3, 7] {
                let mut bytes = packet.clone();
                bytes[place] ^= 1 << bit;
                let mut client = RawClient5::clean(broker.addr(), "client");
                client.send(&bytes);
                client.finish_sending();
                // Whatever comes is well-formed, and the end comes.
                client.packets_until_closed();
            }
        }
        bystander.expect_nothing();
    }
}
