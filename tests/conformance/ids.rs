//! Packet ids (section 2.3.1): never 0, never one that is in use, always that of the packet answered.

use crate::support::wire::{self, packet};
use crate::support::{RawClient, ServerPacket, TestBroker, broker};
use std::collections::HashSet;

#[test]
fn mqtt_2_3_1_1_packet_id_0_is_a_violation() {
    let broker = TestBroker::start();
    let packets = [
        wire::publish_qos1(0, "t", "x"),
        wire::publish_qos2(0, "t", "x"),
        wire::subscribe(0, &[("t", 0)]),
        wire::unsubscribe(0, &["t"]),
    ];
    for bytes in packets {
        let mut client = RawClient::clean(broker.addr(), "zero");
        client.send(&bytes);
        client.expect_closed();
    }
}

#[test]
fn mqtt_2_3_1_2_ids_in_use_are_not_given_out_again() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("t", 2);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    let mut in_use = HashSet::new();
    for number in 0..60 {
        publisher.publish("t", 1 + number % 2, number.to_string());
        let publish = subscriber.expect_message("t", number.to_string());
        assert!(in_use.insert(publish.id()), "id {} is in use: {in_use:?}", publish.id());
        // Half of the QoS 2 ones wait for PUBCOMP: their ids are in use as well.
        if number % 4 == 1 {
            subscriber.send(&wire::pubrec(publish.id()));
            subscriber.expect(&wire::pubrel(publish.id()));
        }
    }
}

#[test]
fn mqtt_2_3_1_4_no_id_is_0_or_in_use_while_they_wrap_round() {
    if broker::skipped_on_mosquitto("it gives out ids that are in use after 65,535") {
        return;
    }
    let broker = TestBroker::start();
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("t", 2);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    // Two messages stay open for the whole test: one for want of PUBACK, one for want of PUBCOMP.
    publisher.publish("t", 1, "stuck");
    let stuck = subscriber.expect_message("t", "stuck").id();
    publisher.publish("t", 2, "half");
    let half = subscriber.expect_message("t", "half").id();
    subscriber.send(&wire::pubrec(half));
    subscriber.expect(&wire::pubrel(half));
    let batch = 40u16;
    let publishes: Vec<u8> = (1..=batch).flat_map(|id| wire::publish_qos1(id, "t", "x")).collect();
    let pubacks: Vec<u8> = (1..=batch).flat_map(wire::puback).collect();
    for _ in 0..70_000 / u32::from(batch) {
        publisher.send(&publishes);
        let mut answer = Vec::new();
        let mut in_use = HashSet::from([stuck, half]);
        for _ in 0..batch {
            let publish = subscriber.expect_publish();
            // The parser of the test refuses id 0.
            assert!(in_use.insert(publish.id()), "id {} is in use", publish.id());
            answer.extend(wire::puback(publish.id()));
        }
        subscriber.send(&answer);
        publisher.expect(&pubacks);
    }
    subscriber.send(&wire::puback(stuck));
    subscriber.send(&wire::pubcomp(half));
    subscriber.expect_nothing();
}

#[test]
fn mqtt_2_3_1_6_acknowledgements_carry_the_id_of_their_publish() {
    let broker = TestBroker::start();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for id in [1, 2, 0x00FF, 0x0100, 0x7FFF, 0x8000, 0xFFFF] {
        let [high, low] = u16::to_be_bytes(id);
        publisher.send(&wire::publish_qos1(id, "t", "x"));
        publisher.expect(&[0x40, 0x02, high, low]);
        publisher.send(&wire::publish_qos2(id, "t", "x"));
        publisher.expect(&[0x50, 0x02, high, low]);
        publisher.send(&wire::pubrel(id));
        publisher.expect(&[0x70, 0x02, high, low]);
    }
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("t", 2);
    publisher.publish("t", 2, "x");
    let id = subscriber.expect_message("t", "x").id();
    subscriber.send(&wire::pubrec(id));
    assert_eq!(subscriber.expect_packet(), ServerPacket::PubRel(id));
}

#[test]
fn mqtt_2_3_1_7_suback_and_unsuback_carry_the_id_of_their_request() {
    let broker = TestBroker::start();
    let mut client = RawClient::clean(broker.addr(), "client");
    for id in [1, 0x00FF, 0x0100, 0x8000, 0xFFFF] {
        let [high, low] = u16::to_be_bytes(id);
        client.send(&wire::subscribe(id, &[("t", 1)]));
        client.expect(&[0x90, 0x03, high, low, 0x01]);
        client.send(&wire::unsubscribe(id, &["t"]));
        client.expect(&[0xB0, 0x02, high, low]);
    }
}

#[test]
fn both_ends_may_use_the_same_id_at_the_same_time() {
    let broker = TestBroker::start();
    let mut client = RawClient::clean(broker.addr(), "client");
    client.subscribe("t", 2);
    RawClient::clean(broker.addr(), "publisher").publish("t", 2, "from the broker");
    let id = client.expect_message("t", "from the broker").id();
    client.send(&wire::publish_qos2(id, "other", "from the client"));
    client.expect(&wire::pubrec(id));
    client.send(&wire::pubrec(id));
    client.expect(&wire::pubrel(id));
    client.send(&wire::pubrel(id));
    client.expect(&wire::pubcomp(id));
    client.send(&wire::pubcomp(id));
    client.send(&wire::subscribe(id, &[("more", 0)]));
    client.expect(&packet(0x90, &[id.to_be_bytes()[0], id.to_be_bytes()[1], 0]));
    client.expect_nothing();
}
