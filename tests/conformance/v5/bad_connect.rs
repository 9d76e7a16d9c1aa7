//! CONNECT that cannot be taken: each fault gets its reason code in CONNACK and the end of that connection only.

use crate::support::wire::{field, packet};
use crate::support::wire5::{self, id, raw_connect5, section};
use crate::support::{Connect5, RawClient5, TestBroker};

const MALFORMED: u8 = 0x81;
const PROTOCOL_ERROR: u8 = 0x82;

#[track_caller]
fn refuse_all(cases: Vec<(&str, Vec<u8>, u8)>) {
    let broker = TestBroker::start();
    let mut bystander = RawClient5::clean(broker.addr(), "bystander");
    for (what, bytes, code) in cases {
        println!("{what}");
        RawClient5::refused(broker.addr(), &bytes, code);
        bystander.expect_nothing();
    }
}

fn with(property: Vec<u8>) -> Vec<u8> {
    Connect5::new("client").with(property).bytes()
}

fn will_with(property: Vec<u8>) -> Vec<u8> {
    Connect5::new("client").will("will", "payload", 0, false).will_with(property).bytes()
}

#[test]
fn mqtt5_3_1_2_11_will_qos_or_retain_without_a_will_is_malformed() {
    let bad = |flags| raw_connect5(flags, 0, &[0], &field("client"));
    refuse_all(vec![
        ("will QoS 1 without will", bad(0x0A), MALFORMED),
        ("will QoS 2 without will", bad(0x12), MALFORMED),
        ("will QoS 3 without will", bad(0x1A), MALFORMED),
        ("will retain without will", bad(0x22), MALFORMED),
    ]);
}

#[test]
fn connect_flags_that_cannot_be_are_malformed() {
    let will: Vec<u8> = [field("client"), vec![0], field("will"), field("payload")].concat();
    refuse_all(vec![
        ("reserved flag", raw_connect5(0x03, 0, &[0], &field("client")), MALFORMED),
        ("will QoS 3", raw_connect5(0x1E, 0, &[0], &will), MALFORMED),
        ("will flag and no will", raw_connect5(0x06, 0, &[0], &field("client")), MALFORMED),
        ("user name flag and no user name", raw_connect5(0x82, 0, &[0], &field("client")), MALFORMED),
        ("password flag and no password", raw_connect5(0x42, 0, &[0], &field("client")), MALFORMED),
        (
            "bytes behind the payload",
            raw_connect5(0x02, 0, &[0], &[field("client"), vec![0]].concat()),
            MALFORMED,
        ),
    ]);
}

#[test]
fn properties_twice_are_a_protocol_error() {
    let twice = |property: Vec<u8>| [property.clone(), property].concat();
    let numbers = vec![
        wire5::four(id::SESSION_EXPIRY, 1),
        wire5::two(id::RECEIVE_MAXIMUM, 1),
        wire5::four(id::MAXIMUM_PACKET_SIZE, 1_000),
        wire5::two(id::TOPIC_ALIAS_MAXIMUM, 1),
        wire5::byte(id::REQUEST_RESPONSE_INFO, 1),
        wire5::byte(id::REQUEST_PROBLEM_INFO, 1),
        wire5::text(id::AUTH_METHOD, "m"),
    ];
    let cases = numbers.into_iter().map(|property| ("twice", with(twice(property)), PROTOCOL_ERROR));
    let wills = vec![
        wire5::byte(id::PAYLOAD_FORMAT, 1),
        wire5::four(id::MESSAGE_EXPIRY, 1),
        wire5::text(id::CONTENT_TYPE, "c"),
        wire5::text(id::RESPONSE_TOPIC, "r"),
        wire5::text(id::CORRELATION_DATA, "d"),
        wire5::four(id::WILL_DELAY, 1),
    ];
    let wills =
        wills.into_iter().map(|property| ("twice in the will", will_with(twice(property)), PROTOCOL_ERROR));
    refuse_all(cases.chain(wills).collect());
}

#[test]
fn properties_of_other_packets_are_malformed() {
    let misplaced = [
        wire5::byte(id::PAYLOAD_FORMAT, 1),
        wire5::four(id::MESSAGE_EXPIRY, 1),
        wire5::text(id::CONTENT_TYPE, "c"),
        wire5::text(id::RESPONSE_TOPIC, "r"),
        wire5::variable(id::SUBSCRIPTION_ID, 1),
        wire5::text(id::ASSIGNED_CLIENT_ID, "i"),
        wire5::two(id::SERVER_KEEP_ALIVE, 1),
        wire5::four(id::WILL_DELAY, 1),
        wire5::text(id::RESPONSE_INFO, "i"),
        wire5::text(id::SERVER_REFERENCE, "s"),
        wire5::text(id::REASON_STRING, "r"),
        wire5::two(id::TOPIC_ALIAS, 1),
        wire5::byte(id::MAXIMUM_QOS, 1),
        wire5::byte(id::RETAIN_AVAILABLE, 1),
        wire5::byte(id::WILDCARD_AVAILABLE, 1),
        wire5::byte(id::SUBSCRIPTION_ID_AVAILABLE, 1),
        wire5::byte(id::SHARED_AVAILABLE, 1),
        wire5::byte(0x00, 1),
        wire5::byte(0x7F, 1),
        vec![0xFF, 0x01, 1],
    ];
    let cases = misplaced.into_iter().map(|property| ("misplaced", with(property), MALFORMED));
    let in_will = [
        wire5::four(id::SESSION_EXPIRY, 1),
        wire5::two(id::TOPIC_ALIAS, 1),
        wire5::variable(id::SUBSCRIPTION_ID, 1),
        wire5::two(id::RECEIVE_MAXIMUM, 1),
    ];
    let in_will =
        in_will.into_iter().map(|property| ("misplaced in the will", will_with(property), MALFORMED));
    refuse_all(cases.chain(in_will).collect());
}

#[test]
fn values_out_of_range_are_a_protocol_error() {
    refuse_all(vec![
        ("receive maximum 0", with(wire5::two(id::RECEIVE_MAXIMUM, 0)), PROTOCOL_ERROR),
        ("maximum packet size 0", with(wire5::four(id::MAXIMUM_PACKET_SIZE, 0)), PROTOCOL_ERROR),
        ("request response information 2", with(wire5::byte(id::REQUEST_RESPONSE_INFO, 2)), PROTOCOL_ERROR),
        ("request problem information 255", with(wire5::byte(id::REQUEST_PROBLEM_INFO, 255)), PROTOCOL_ERROR),
        ("authentication data without method", with(wire5::text(id::AUTH_DATA, "x")), PROTOCOL_ERROR),
        ("will with payload format 2", will_with(wire5::byte(id::PAYLOAD_FORMAT, 2)), PROTOCOL_ERROR),
        (
            "will with wildcard in response topic",
            will_with(wire5::text(id::RESPONSE_TOPIC, "a/#")),
            PROTOCOL_ERROR,
        ),
    ]);
}

#[test]
fn lengths_that_do_not_fit_are_malformed() {
    let client = field("client");
    let raw = |section: &[u8]| raw_connect5(0x02, 0, section, &client);
    refuse_all(vec![
        ("no property length", packet(0x10, &[field("MQTT"), vec![5, 2, 0, 0]].concat()), MALFORMED),
        ("properties longer than the packet", raw(&[0x7F]), MALFORMED),
        ("properties of 268,435,455 bytes", raw(&[0xFF, 0xFF, 0xFF, 0x7F]), MALFORMED),
        ("property length of five bytes", raw(&[0xFF, 0xFF, 0xFF, 0xFF, 0x01]), MALFORMED),
        ("property length that does not end", raw(&[0x80, 0x80, 0x80, 0x80]), MALFORMED),
        ("property cut by the length", raw(&[0x03, id::SESSION_EXPIRY, 0, 0]), MALFORMED),
        ("identifier without value", raw(&[0x01, id::RECEIVE_MAXIMUM]), MALFORMED),
        ("string longer than the section", raw(&section(&[id::AUTH_METHOD, 0xFF, 0xFF, b'x'])), MALFORMED),
        ("property length 0 in two bytes", raw(&[0x80, 0x00]), MALFORMED),
    ]);
}

#[test]
fn bad_strings_are_malformed_and_bad_topics_have_their_code() {
    let will = |topic: &[u8]| Connect5::new("client").will(topic, "x", 0, false).bytes();
    refuse_all(vec![
        ("user name not UTF-8", Connect5::new("c").user_name([0xFF]).bytes(), MALFORMED),
        ("U+0000 in user name", Connect5::new("c").user_name("a\0").bytes(), MALFORMED),
        ("will topic not UTF-8", will(b"\xFF"), MALFORMED),
        ("method not UTF-8", with(wire5::text(id::AUTH_METHOD, [0xFF])), MALFORMED),
        ("wildcard in will topic", will(b"a/+"), 0x90),
        ("empty will topic", will(b""), 0x90),
    ]);
}

#[test]
fn mqtt5_4_12_0_1_an_unknown_authentication_method_is_refused() {
    refuse_all(vec![
        ("method", with(wire5::text(id::AUTH_METHOD, "SCRAM-SHA-256")), 0x8C),
        (
            "method and data",
            Connect5::new("client")
                .with(wire5::text(id::AUTH_METHOD, "SCRAM-SHA-256"))
                .with(wire5::text(id::AUTH_DATA, [0, 1, 2]))
                .bytes(),
            0x8C,
        ),
        ("empty method", with(wire5::text(id::AUTH_METHOD, "")), 0x8C),
    ]);
}

#[test]
fn fixed_header_flags_of_connect_are_malformed() {
    let broker = TestBroker::start();
    for flags in 1..=15 {
        let mut bytes = Connect5::new("client").bytes();
        bytes[0] |= flags;
        let mut client = RawClient5::connect(broker.addr());
        client.send(&bytes);
        // The version stands behind the fault: an answer may come, a connection may not.
        for packet in client.packets_until_closed() {
            assert!(
                matches!(packet, crate::support::ServerPacket5::ConnAck(false, MALFORMED, _)),
                "flags {flags}: {packet:?}"
            );
        }
    }
}
