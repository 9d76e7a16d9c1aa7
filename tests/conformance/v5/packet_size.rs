//! The client's Maximum Packet Size, and ours (section 3.1.2.11.4).

use crate::support::wire5::{self, id};
use crate::support::{Connect5, RawClient5, ServerPacket5, TestBroker, broker};

fn taking(broker: &TestBroker, client_id: &str, size: u32) -> RawClient5 {
    let connect = Connect5::persistent(client_id).with(wire5::four(id::MAXIMUM_PACKET_SIZE, size));
    RawClient5::open(broker.addr(), &connect).0
}

/// A payload with which the PUBLISH on topic `t` has exactly this many bytes.
fn payload(bytes: usize, has_id: bool, properties: usize) -> Vec<u8> {
    vec![b'x'; bytes - 2 - 3 - 1 - properties - if has_id { 2 } else { 0 }]
}

#[test]
fn mqtt5_3_1_2_24_no_packet_is_above_the_clients_maximum() {
    let broker = TestBroker::start();
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    for qos in [0, 1, 2] {
        let mut client = taking(&broker, &format!("client{qos}"), 100);
        client.subscribe("t", qos);
        for bytes in [99, 100, 101, 127, 120] {
            publisher.publish("t", qos, payload(bytes, qos > 0, 0));
        }
        for bytes in [99, 100] {
            let publish = client.expect_and_ack("t", payload(bytes, qos > 0, 0));
            assert_eq!(publish.wire_len, bytes);
        }
        client.expect_nothing();
        client.disconnect();
    }
}

#[test]
fn mqtt5_3_1_2_24_properties_count() {
    let broker = TestBroker::start();
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    let mut client = taking(&broker, "client", 100);
    client.subscribe_with_id("t", 1, 5);
    let user = wire5::user("name", "value");
    // The subscription identifier is two bytes.
    for bytes in [101, 100] {
        publisher.publish_with("t", 0x02, &user, payload(bytes, true, user.len() + 2));
    }
    let publish = client.expect_and_ack("t", payload(100, true, user.len() + 2));
    assert_eq!(publish.wire_len, 100);
    client.expect_nothing();
}

#[test]
fn mqtt5_3_1_2_24_it_holds_on_every_way() {
    let broker = TestBroker::start();
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    let large = vec![b'l'; 20_000];
    let mut client = RawClient5::persistent(broker.addr(), "client");
    client.subscribe("t", 2);
    // In flight when the client comes back with a smaller maximum: QoS 1, QoS 2.
    publisher.publish("t", 1, &large);
    publisher.publish("t", 2, vec![b'm'; 200]);
    publisher.publish("t", 1, "in flight");
    assert_eq!(client.publishes_until_ping().len(), 3);
    client.vanish();
    // Queued, and retained.
    publisher.publish("t", 1, &large);
    publisher.publish("t", 1, "queued");
    publisher.publish_retained("t", 1, &large);
    let mut client = taking(&broker, "client", 100);
    assert!(client.expect_and_ack("t", "in flight").dup);
    client.expect_and_ack("t", "queued");
    client.expect_nothing();
    client.subscribe("t", 1);
    client.expect_nothing();
    // They are treated as delivered: a client without maximum does not get them later.
    client.disconnect();
    RawClient5::resume(broker.addr(), "client").expect_nothing();
}

#[test]
fn mqtt5_3_1_2_24_a_suback_or_unsuback_above_it_is_not_sent() {
    let broker = TestBroker::start();
    let filters: Vec<String> = (0..50).map(|number| format!("f/{number}")).collect();
    let with_options: Vec<(&str, u8)> = filters.iter().map(|filter| (filter.as_str(), 0)).collect();
    let packets = [wire5::subscribe5(1, &[], &with_options), wire5::unsubscribe5(1, &[], &filters)];
    for bytes in packets {
        let mut client = taking(&broker, "client", 40);
        client.send(&bytes);
        // The client of the tests refuses more than 40 bytes; without an answer the connection cannot go on.
        let packets = client.packets_until_closed();
        assert!(matches!(packets.as_slice(), [ServerPacket5::Disconnect(0x95, _)]), "{packets:?}");
    }
}

#[test]
fn mqtt5_3_1_2_25_what_is_too_large_is_dropped_and_counts_as_delivered() {
    let broker = TestBroker::start();
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    let connect = Connect5::persistent("client")
        .with(wire5::four(id::MAXIMUM_PACKET_SIZE, 100))
        .with(wire5::two(id::RECEIVE_MAXIMUM, 1));
    let (mut client, ..) = RawClient5::open(broker.addr(), &connect);
    client.subscribe("t", 2);
    let mut other = RawClient5::clean(broker.addr(), "other");
    other.subscribe("t", 2);
    // It takes no place of the quota, holds nothing up, and the publisher hears of success.
    for qos in [1, 2, 0] {
        assert_eq!(publisher.publish_with("t", qos << 1, &[], vec![b'x'; 1_000]), 0);
        other.expect_and_ack("t", vec![b'x'; 1_000]);
    }
    publisher.publish("t", 2, "small");
    client.expect_and_ack("t", "small");
    client.expect_nothing();
    if !broker::control_is_mosquitto() {
        assert_eq!(broker.metrics().dropped.get("client_packet_max"), Some(&3));
    }
}

#[test]
fn aliases_make_no_packet_too_large_and_no_message_lost() {
    let broker = TestBroker::start();
    let connect = Connect5::new("client")
        .with(wire5::four(id::MAXIMUM_PACKET_SIZE, 100))
        .with(wire5::two(id::TOPIC_ALIAS_MAXIMUM, 10));
    let (mut client, ..) = RawClient5::open(broker.addr(), &connect);
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    client.subscribe("t", 1);
    // What fits with its name alone must arrive, whatever an alias would add.
    for qos in [0, 1] {
        for bytes in 95..=100 {
            let payload = payload(bytes, qos > 0, 0);
            publisher.publish("t", qos, &payload);
            client.expect_and_ack("t", &payload);
        }
        publisher.publish("t", qos, payload(104, qos > 0, 0));
        client.expect_nothing();
    }
}

#[test]
fn mqtt5_3_4_2_2_acknowledgements_keep_within_the_clients_maximum() {
    let broker = TestBroker::start();
    // CONNACK needs some bytes; below them no connection comes about. All others of ours are smaller.
    let mut client = taking(&broker, "client", 30);
    client.subscribe("t", 2);
    client.publish("none", 1, "x");
    client.publish("none", 2, "x");
    assert_eq!(client.unsubscribe(&["nothing"]), [0x11]);
    client.send(&wire5::ack5(0x62, 999, 0, &[]));
    assert_eq!(client.expect_packet(), ServerPacket5::PubComp(999, 0x92));
    client.send(&wire5::ack5(0x50, 999, 0, &[]));
    assert_eq!(client.expect_packet(), ServerPacket5::PubRel(999, 0x92));
    client.send(&[0xF0, 0x00]);
    client.expect_disconnect(0x82);
}

#[test]
fn a_packet_above_our_maximum_is_refused() {
    let broker = TestBroker::with(|settings| settings.packet_bytes_max = 1_000);
    let mut bystander = RawClient5::clean(broker.addr(), "bystander");
    let mut client = RawClient5::clean(broker.addr(), "client");
    let fits = wire5::publish5(0, "t", None, &[], vec![b'x'; 1_000 - 3 - 3 - 1]);
    assert_eq!(fits.len(), 1_000);
    client.send(&fits);
    client.expect_nothing();
    client.send(&wire5::publish5(0, "t", None, &[], vec![b'x'; 1_000 - 3 - 3]));
    client.expect_disconnect(0x95);
    // Judged by its length, before it has come.
    let mut client = RawClient5::clean(broker.addr(), "client");
    client.send(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]);
    client.expect_disconnect(0x95);
    bystander.expect_nothing();
}

#[test]
fn a_maximum_too_small_for_connack_gets_no_connection() {
    let broker = TestBroker::start();
    for size in [1, 2, 3, 4] {
        let mut client = RawClient5::connect(broker.addr());
        // The client of the tests refuses every packet above the size.
        client.send_connect(&Connect5::new("client").with(wire5::four(id::MAXIMUM_PACKET_SIZE, size)));
        client.expect_closed();
    }
}

/// Whether CONNACK fits is known before anybody loses anything: the connection that the session has
/// stays, and so does its will.
#[test]
fn a_maximum_too_small_for_connack_takes_nothing_over() {
    let broker = TestBroker::start();
    let mut bystander = RawClient5::clean(broker.addr(), "bystander");
    bystander.subscribe("will", 1);
    for successor in [Connect5::resuming, Connect5::new] {
        let connect = Connect5::resuming("client").session_expiry(100).will("will", "gone", 1, false);
        let mut first = RawClient5::open(broker.addr(), &connect).0;
        for size in [4, 5] {
            let mut second = RawClient5::connect(broker.addr());
            let too_small = wire5::four(id::MAXIMUM_PACKET_SIZE, size);
            second.send_connect(&successor("client").session_expiry(100).with(too_small));
            if size < 5 {
                second.expect_closed();
            } else {
                second.expect_refused(0x95);
            }
            first.expect_nothing();
        }
        bystander.expect_nothing();
        first.vanish();
        bystander.expect_message("will", "gone");
    }
    RawClient5::resume(broker.addr(), "client").disconnect();
}
