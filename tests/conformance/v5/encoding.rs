//! Variable byte integers, user properties, property lengths (section 1.5, 2.2.2).

use crate::support::wire::{self, field, packet};
use crate::support::wire5::{self, id};
use crate::support::{RawClient5, ServerPacket5, TestBroker};

#[test]
fn mqtt5_1_5_5_1_variable_byte_integers_have_the_fewest_bytes() {
    let broker = TestBroker::start();
    let publish = |section: &[u8]| packet(0x30, &[field("t"), section.to_vec()].concat());
    let subscribe = |id: &[u8]| {
        let section = wire5::section(&[&[id::SUBSCRIPTION_ID][..], id].concat());
        packet(0x82, &[vec![0, 1], section, field("t"), vec![0]].concat())
    };
    let too_long = [
        publish(&[0x80, 0x00]),
        publish(&[0x80, 0x80, 0x00]),
        publish(&[0x80, 0x80, 0x80, 0x00]),
        subscribe(&[0x81, 0x00]),
        subscribe(&[0xFF, 0x80, 0x00]),
        subscribe(&[0x80, 0x80, 0x80, 0x80, 0x01]),
        // The remaining length is one as well.
        vec![0xC0, 0x80, 0x00],
        vec![0xC0, 0x80, 0x80, 0x80, 0x00],
    ];
    for bytes in too_long {
        let mut client = RawClient5::clean(broker.addr(), "client");
        client.send(&bytes);
        client.expect_disconnect(0x81);
    }
    // What the broker sends is judged by the parser of the tests; here at the borders of the lengths.
    let mut client = RawClient5::clean(broker.addr(), "client");
    client.subscribe("t", 0);
    for length in [100, 120, 121, 122, 123, 127, 128, 16_370, 16_378, 16_383, 16_384] {
        let property = wire5::user("n", vec![b'v'; length]);
        client.send(&wire5::publish5(0, "t", None, &property, "x"));
        assert_eq!(client.expect_message("t", "x").properties.raw, property);
    }
}

#[test]
fn mqtt5_1_5_7_1_user_properties_are_utf_8() {
    let broker = TestBroker::start();
    for bad in [&b"\xFF"[..], b"\xC0\x80", b"\xED\xA0\x80", b"\0"] {
        for property in [wire5::user(bad, "value"), wire5::user("name", bad)] {
            let packets = [
                wire5::publish5(0, "t", None, &property, "x"),
                wire5::subscribe5(1, &property, &[("t", 0)]),
                wire5::unsubscribe5(1, &property, &["t"]),
                wire5::ack5(0x40, 1, 0, &property),
                wire5::disconnect5(0, &property),
            ];
            for bytes in packets {
                let mut client = RawClient5::clean(broker.addr(), "client");
                client.send(&bytes);
                client.expect_disconnect(0x81);
            }
        }
    }
}

#[test]
fn mqtt5_2_2_2_1_a_packet_without_properties_says_so() {
    let broker = TestBroker::start();
    let mut client = RawClient5::clean(broker.addr(), "client");
    client.send(&wire5::subscribe5(1, &[], &[("t", 1)]));
    client.expect(&[0x90, 4, 0, 1, 0, 1]);
    client.send(&wire5::unsubscribe5(2, &[], &["other"]));
    client.expect(&[0xB0, 4, 0, 2, 0, 0x11]);
    client.send(&wire5::publish5(0, "t", None, &[], "x"));
    client.expect(&[0x30, 5, 0, 1, b't', 0, b'x']);
    // From a client of 3.1.1 as well.
    let mut three = crate::support::RawClient::clean(broker.addr(), "three");
    three.publish("t", 1, "x");
    client.expect(&[0x32, 7, 0, 1, b't', 0, 1, 0, b'x']);
    // And a packet without the length is malformed.
    client.send(&packet(0x82, &[vec![0, 3], field("t"), vec![0]].concat()));
    let packets = client.packets_until_closed();
    assert!(matches!(packets.as_slice(), [ServerPacket5::Disconnect(0x81 | 0x82, _)]), "{packets:?}");
    let mut client = RawClient5::clean(broker.addr(), "client");
    client.send(&wire::publish_qos0("t", ""));
    client.expect_disconnect(0x81);
}
