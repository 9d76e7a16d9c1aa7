//! The fixed header: packet types, flag bits, remaining length (section 2.2).

use crate::support::wire::{self, packet};
use crate::support::{Connect, RawClient, TestBroker, broker};

#[track_caller]
fn closes(broker: &TestBroker, bytes: &[u8]) {
    let mut client = RawClient::clean(broker.addr(), "header");
    client.send(bytes);
    client.expect_closed();
}

#[test]
fn mqtt_2_2_2_1_packets_of_the_broker_have_the_reserved_flags() {
    let broker = TestBroker::start();
    let mut client = RawClient::connect(broker.addr());
    client.send(&Connect::new("flags").bytes());
    client.expect(&[0x20, 0x02, 0x00, 0x00]);
    client.send(&wire::subscribe(0x0102, &[("flags", 2)]));
    client.expect(&[0x90, 0x03, 0x01, 0x02, 0x02]);
    client.send(&wire::publish_qos1(0x0304, "other", "x"));
    client.expect(&[0x40, 0x02, 0x03, 0x04]);
    client.send(&wire::publish_qos2(0x0506, "other", "x"));
    client.expect(&[0x50, 0x02, 0x05, 0x06]);
    client.send(&wire::pubrel(0x0506));
    client.expect(&[0x70, 0x02, 0x05, 0x06]);
    RawClient::clean(broker.addr(), "publisher").publish("flags", 2, "x");
    let publish = client.expect_message("flags", "x");
    client.send(&wire::pubrec(publish.id()));
    let [high, low] = publish.id().to_be_bytes();
    client.expect(&[0x62, 0x02, high, low]);
    client.send(&wire::pubcomp(publish.id()));
    client.send(&wire::unsubscribe(0x0708, &["flags"]));
    client.expect(&[0xB0, 0x02, 0x07, 0x08]);
    client.send(&[0xC0, 0x00]);
    client.expect(&[0xD0, 0x00]);
}

#[test]
fn mqtt_2_2_2_2_wrong_flag_bits_close_the_connection() {
    let broker = TestBroker::start();
    let bodies: [(u8, u8, Vec<u8>); 8] = [
        (0x40, 0x00, vec![0, 1]),
        (0x50, 0x00, vec![0, 1]),
        (0x60, 0x02, vec![0, 1]),
        (0x70, 0x00, vec![0, 1]),
        (0x80, 0x02, wire::subscribe_body(1, &[("f", 0)])),
        (0xA0, 0x02, vec![0, 1, 0, 1, b'f']),
        (0xC0, 0x00, vec![]),
        (0xE0, 0x00, vec![]),
    ];
    for (kind, right, body) in bodies {
        for flags in (0..=15).filter(|flags| *flags != right) {
            if matches!((kind, flags), (0x40 | 0x50 | 0x70 | 0xC0, _))
                && broker::skipped_on_mosquitto("lenient")
            {
                continue;
            }
            closes(&broker, &packet(kind | flags, &body));
        }
    }
}

#[test]
fn mqtt_2_2_2_2_wrong_flag_bits_of_connect_close_the_connection() {
    let broker = TestBroker::start();
    for flags in 1..=15 {
        let mut bytes = Connect::new("flags").bytes();
        bytes[0] |= flags;
        let mut client = RawClient::connect(broker.addr());
        client.send(&bytes);
        client.expect_closed();
    }
}

#[test]
fn packet_types_that_only_a_server_sends_close_the_connection() {
    let broker = TestBroker::start();
    let packets: [&[u8]; 6] = [
        &[0x20, 0x02, 0x00, 0x00],
        &[0x90, 0x03, 0x00, 0x01, 0x00],
        &[0xB0, 0x02, 0x00, 0x01],
        &[0xD0, 0x00],
        &[0x00, 0x00],
        &[0xF0, 0x00],
    ];
    for bytes in packets {
        println!("{bytes:02X?}");
        if matches!(bytes[0], 0x90..=0xD0)
            && broker::skipped_on_mosquitto("it takes SUBACK, UNSUBACK and PINGRESP")
        {
            continue;
        }
        closes(&broker, bytes);
    }
}

#[test]
fn a_remaining_length_of_five_bytes_closes_the_connection() {
    let broker = TestBroker::start();
    closes(&broker, &[0x30, 0x80, 0x80, 0x80, 0x80, 0x01]);
    if !broker::skipped_on_mosquitto("it waits for the fifth byte") {
        closes(&broker, &[0x30, 0xFF, 0xFF, 0xFF, 0xFF]);
    }
    closes(&broker, &[0xC0, 0x80, 0x80, 0x80, 0x80, 0x00]);
    let mut client = RawClient::connect(broker.addr());
    client.send(&[0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]);
    client.expect_closed();
}

#[test]
fn a_remaining_length_in_more_bytes_than_needed_is_understood() {
    let broker = TestBroker::start();
    let mut client = RawClient::clean(broker.addr(), "padded");
    for padded in [&[0xC0, 0x80, 0x00][..], &[0xC0, 0x80, 0x80, 0x00], &[0xC0, 0x80, 0x80, 0x80, 0x00]] {
        client.send(padded);
        client.expect(&[0xD0, 0x00]);
    }
    client.send(&[0x82, 0x86, 0x80, 0x00, 0x00, 0x09, 0x00, 0x01, b'p', 0x00]);
    client.expect(&[0x90, 0x03, 0x00, 0x09, 0x00]);
}

#[test]
fn packets_on_both_sides_of_each_length_border_pass() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("b", 1);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for border in [127, 128, 16_383, 16_384, 2_097_151, 2_097_152] {
        for qos in [0, 1] {
            let header = if qos == 0 { 3 } else { 5 };
            let payload: Vec<u8> = (0..border - header).map(|at| (at % 251) as u8).collect();
            publisher.publish("b", qos, &payload);
            // The strict reader of the test wants the shortest form of the length.
            let publish = subscriber.expect_publish();
            assert_eq!(publish.qos, qos);
            assert!(publish.payload == payload, "payload of {border} bytes is not the same");
            if qos == 1 {
                subscriber.send(&wire::puback(publish.id()));
            }
        }
    }
}

#[test]
fn a_fixed_header_split_anywhere_is_understood() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("split", 0);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    let payload = vec![b's'; 300];
    let bytes = wire::publish_qos0("split", &payload);
    for at in [1, 2, 3, 4, 5, 8, 10, bytes.len() - 1] {
        publisher.send(&bytes[..at]);
        // A round trip of another connection lets the first part arrive by itself.
        subscriber.expect_nothing();
        publisher.send(&bytes[at..]);
        subscriber.expect_message("split", &payload);
    }
}
