//! PINGREQ, DISCONNECT, and what closes a connection (sections 3.12, 3.14, 4.8).

use crate::support::wire::{self, DISCONNECT, PINGREQ, packet};
use crate::support::{Connect, RawClient, ServerPacket, Settings, TestBroker, broker};

#[test]
fn mqtt_3_12_4_1_pingreq_is_answered_with_pingresp() {
    let broker = TestBroker::start();
    let mut client = RawClient::clean(broker.addr(), "pinger");
    client.send(&PINGREQ);
    client.expect(&[0xD0, 0x00]);
    client.send(&PINGREQ.repeat(1000));
    client.expect(&[0xD0, 0x00].repeat(1000));
}

#[test]
fn mqtt_3_14_1_1_disconnect_with_flag_bits_is_a_violation() {
    let broker = TestBroker::start();
    let mut watcher = RawClient::clean(broker.addr(), "watcher");
    watcher.subscribe("will", 0);
    for flags in 1..=15u8 {
        let name = format!("flags {flags}");
        let connect = Connect::new("bad").will("will", &name, 0, false);
        let (mut client, _) = RawClient::open(broker.addr(), &connect);
        client.send(&[0xE0 | flags, 0x00]);
        client.expect_closed();
        // It was no DISCONNECT: the will stands.
        watcher.expect_message("will", name);
    }
}

#[test]
fn mqtt_3_14_4_3_disconnect_throws_the_will_away() {
    let broker = TestBroker::start();
    let mut watcher = RawClient::clean(broker.addr(), "watcher");
    watcher.subscribe("#", 1);
    for retain in [false, true] {
        let connect = Connect::new("polite").will("will", "not to be seen", 1, retain);
        RawClient::open(broker.addr(), &connect).0.disconnect();
    }
    // The same client dies on its next connection: that will comes, and it is the first one.
    RawClient::open(broker.addr(), &Connect::new("polite").will("will", "seen", 1, false)).0.vanish();
    watcher.expect_message_and_ack("will", "seen");
    watcher.expect_nothing();
    let mut late = RawClient::clean(broker.addr(), "late");
    late.subscribe("#", 1);
    late.expect_nothing();
}

#[test]
fn the_broker_closes_after_disconnect() {
    let broker = TestBroker::start();
    let mut client = RawClient::clean(broker.addr(), "polite");
    client.send(&DISCONNECT);
    client.expect_closed();
}

#[test]
fn what_follows_disconnect_is_ignored() {
    let broker = TestBroker::start();
    let mut watcher = RawClient::clean(broker.addr(), "watcher");
    watcher.subscribe("#", 0);
    let mut client = RawClient::clean(broker.addr(), "talker");
    let segment = [
        DISCONNECT.to_vec(),
        wire::publish_qos0("behind", "x"),
        PINGREQ.to_vec(),
        wire::publish_qos1(1, "b", "x"),
    ];
    client.send(&segment.concat());
    client.expect_closed();
    RawClient::clean(broker.addr(), "marker").publish("marker", 0, "x");
    watcher.expect_message("marker", "x");
}

#[test]
fn answers_to_what_came_before_disconnect_are_sent() {
    let broker = TestBroker::start();
    let mut client = RawClient::clean(broker.addr(), "hasty");
    let segment = [wire::publish_qos1(5, "t", "x"), PINGREQ.to_vec(), DISCONNECT.to_vec()];
    client.send(&segment.concat());
    // PUBACK may wait for the disk while PINGRESP does not: their order is free.
    let answers = client.packets_until_closed();
    assert!(answers.len() == 2 && answers.contains(&ServerPacket::PubAck(5)), "{answers:?}");
    assert!(answers.contains(&ServerPacket::PingResp), "{answers:?}");
}

#[test]
fn mqtt_4_8_0_1_a_violation_closes_its_own_connection_only() {
    let broker = TestBroker::start();
    let mut bystander = RawClient::clean(broker.addr(), "bystander");
    bystander.subscribe("calm", 1);
    let violations: [Vec<u8>; 8] = [
        vec![0x00, 0x00],
        vec![0xF0, 0x00],
        wire::raw_publish(0x06, "t", Some(1), "x"),
        wire::publish_qos0("wild/#", "x"),
        wire::subscribe(0, &[("t", 0)]),
        wire::subscribe(1, &[("t", 3)]),
        packet(0x82, &[0x00, 0x01]),
        Connect::new("again").bytes(),
    ];
    for (number, violation) in violations.iter().enumerate() {
        let mut client = RawClient::clean(broker.addr(), "violator");
        client.send(violation);
        client.expect_closed();
        RawClient::clean(broker.addr(), "publisher").publish("calm", 1, number.to_string());
        bystander.expect_message_and_ack("calm", number.to_string());
    }
}

#[test]
fn what_came_before_a_violation_counts_and_what_follows_does_not() {
    let broker = TestBroker::start();
    let mut watcher = RawClient::clean(broker.addr(), "watcher");
    watcher.subscribe("#", 0);
    let mut client = RawClient::clean(broker.addr(), "violator");
    let segment = [wire::publish_qos0("before", "x"), vec![0xF0, 0x00], wire::publish_qos0("after", "x")];
    client.send(&segment.concat());
    client.expect_closed();
    watcher.expect_message("before", "x");
    RawClient::clean(broker.addr(), "marker").publish("marker", 0, "x");
    watcher.expect_message("marker", "x");
}

#[test]
fn a_packet_above_the_maximum_closes_the_connection_before_its_body_comes() {
    if broker::skipped_on_mosquitto("it waits for the body") {
        return;
    }
    let small = |settings: &mut Settings| settings.packet_bytes_max = 1024;
    let broker = TestBroker::with(small);
    let mut client = RawClient::clean(broker.addr(), "large");
    client.publish("size", 0, vec![b'x'; 1024 - 3 - 2 - 4]);
    // Only the fixed header is sent: 1,022 bytes to follow make 1,025.
    client.send(&[0x30, 0xFE, 0x07]);
    client.expect_closed();
    let mut first = RawClient::connect(broker.addr());
    first.send(&[0x10, 0xFF, 0xFF, 0xFF, 0x7F]);
    first.expect_closed();
}
