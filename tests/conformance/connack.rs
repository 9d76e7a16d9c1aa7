//! CONNACK: first packet of the server, session present, return codes (section 3.2).

use crate::support::wire::{self, raw_connect};
use crate::support::{Connect, RawClient, TestBroker};

#[test]
fn mqtt_3_2_0_1_connack_comes_before_the_messages_of_a_resumed_session() {
    let broker = TestBroker::start();
    let mut client = RawClient::persistent(broker.addr(), "resumed");
    client.subscribe("queued", 1);
    client.disconnect();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for number in 0..20 {
        publisher.publish("queued", 1, number.to_string());
    }
    // `resume` fails unless CONNACK is the first packet, although 20 others wait.
    let mut client = RawClient::resume(broker.addr(), "resumed");
    for number in 0..20 {
        client.expect_message_and_ack("queued", number.to_string());
    }
}

#[test]
fn mqtt_3_2_0_1_connack_comes_before_answers_to_pipelined_packets() {
    let broker = TestBroker::start();
    let mut client = RawClient::connect(broker.addr());
    client.send(&[Connect::new("pipelined").bytes(), wire::PINGREQ.to_vec()].concat());
    client.expect(&[0x20, 0x02, 0x00, 0x00, 0xD0, 0x00]);
}

#[test]
fn mqtt_3_2_2_1_clean_session_1_has_no_session_present() {
    let broker = TestBroker::start();
    RawClient::persistent(broker.addr(), "stored").disconnect();
    let mut client = RawClient::connect(broker.addr());
    client.send(&Connect::new("stored").bytes());
    client.expect(&[0x20, 0x02, 0x00, 0x00]);
}

#[test]
fn mqtt_3_2_2_2_stored_session_is_reported_as_present() {
    let broker = TestBroker::start();
    RawClient::persistent(broker.addr(), "stored").disconnect();
    for _ in 0..3 {
        let mut client = RawClient::connect(broker.addr());
        client.send(&Connect::persistent("stored").bytes());
        client.expect(&[0x20, 0x02, 0x01, 0x00]);
    }
}

#[test]
fn mqtt_3_2_2_3_without_stored_session_none_is_present() {
    let broker = TestBroker::start();
    let mut client = RawClient::connect(broker.addr());
    client.send(&Connect::persistent("new").bytes());
    client.expect(&[0x20, 0x02, 0x00, 0x00]);
    // A session that ended with its connection is not a stored one.
    RawClient::clean(broker.addr(), "clean").disconnect();
    let mut client = RawClient::connect(broker.addr());
    client.send(&Connect::persistent("clean").bytes());
    client.expect(&[0x20, 0x02, 0x00, 0x00]);
}

#[test]
fn mqtt_3_2_2_4_refused_connection_has_no_session_present() {
    let broker = TestBroker::start();
    RawClient::persistent(broker.addr(), "stored").disconnect();
    let mut client = RawClient::connect(broker.addr());
    client.send(&raw_connect("MQTT", 6, 0x00, 0, &[b"stored"]));
    client.expect(&[0x20, 0x02, 0x00, 0x01]);
    client.expect_closed();
    // And the refusal did nothing to the session.
    RawClient::resume(broker.addr(), "stored");
}

#[test]
fn mqtt_3_2_2_5_connection_is_closed_after_each_refusal() {
    let broker = TestBroker::start();
    let refusals = [(raw_connect("MQTT", 6, 0x02, 0, &[b"id"]), 1), (Connect::persistent("").bytes(), 2)];
    for (connect, code) in refusals {
        let mut client = RawClient::connect(broker.addr());
        client.send(&connect);
        client.expect(&[0x20, 0x02, 0x00, code]);
        client.expect_closed();
    }
}

#[test]
fn mqtt_3_2_2_6_without_fitting_return_code_there_is_no_connack() {
    let broker = TestBroker::start();
    // Reserved flag, will QoS 3, password without user name: none of the codes 1 to 5 says that.
    for flags in [0x03, 0x1E, 0x42] {
        let mut client = RawClient::connect(broker.addr());
        client.send(&raw_connect("MQTT", 4, flags, 0, &[b"id", b"a", b"b"]));
        client.expect_closed();
    }
}

#[test]
fn a_refused_connect_does_not_take_over_a_live_client() {
    let broker = TestBroker::start();
    let mut client = RawClient::clean(broker.addr(), "live");
    for flags in [0x03, 0x1E, 0x42] {
        let mut intruder = RawClient::connect(broker.addr());
        intruder.send(&raw_connect("MQTT", 4, flags, 0, &[b"live", b"a", b"b"]));
        intruder.expect_closed();
    }
    client.expect_nothing();
}
