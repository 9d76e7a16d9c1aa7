//! Flow control: the Receive Maximum both ways (section 3.3.4, 4.9).

use crate::support::wire::{self, DISCONNECT};
use crate::support::wire5::{self, id};
use crate::support::{Connect5, RawClient5, ServerPacket5, TestBroker};

fn taking(broker: &TestBroker, receive_maximum: u16) -> RawClient5 {
    let connect = Connect5::persistent("client").with(wire5::two(id::RECEIVE_MAXIMUM, receive_maximum));
    let (mut client, ..) = RawClient5::open(broker.addr(), &connect);
    client.subscribe("t", 2);
    client
}

fn publish_numbers(broker: &TestBroker, numbers: std::ops::Range<u32>, qos: u8) {
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    for number in numbers {
        publisher.publish("t", qos, number.to_string());
    }
}

#[test]
fn mqtt5_3_3_4_7_more_than_our_receive_maximum_is_an_error() {
    let broker = TestBroker::with_config(|config| config.limits.receive_maximum = 3);
    let mut client = RawClient5::clean(broker.addr(), "client");
    for packet_id in 1..=3 {
        client.send(&wire5::publish5(0x04, "t", Some(packet_id), &[], "x"));
        assert!(matches!(client.expect_packet(), ServerPacket5::PubRec(id, 0 | 0x10) if id == packet_id));
    }
    // A repetition and QoS 0 do not count; what is released makes room.
    client.send(&wire5::publish5(0x0C, "t", Some(2), &[], "x"));
    assert!(matches!(client.expect_packet(), ServerPacket5::PubRec(2, 0 | 0x10)));
    client.publish("t", 0, "x");
    client.send(&wire::pubrel(2));
    assert_eq!(client.expect_packet(), ServerPacket5::PubComp(2, 0));
    client.send(&wire5::publish5(0x04, "t", Some(4), &[], "x"));
    assert!(matches!(client.expect_packet(), ServerPacket5::PubRec(4, 0 | 0x10)));
    client.send(&wire5::publish5(0x04, "t", Some(5), &[], "x"));
    client.expect_disconnect(0x93);
}

#[test]
fn mqtt5_3_3_4_7_all_of_our_receive_maximum_can_be_used() {
    let broker = TestBroker::start();
    let mut client = RawClient5::clean(broker.addr(), "client");
    let publishes = |ids: std::ops::RangeInclusive<u16>| -> Vec<u8> {
        ids.flat_map(|id| wire5::publish5(0x04, "t", Some(id), &[], "x")).collect()
    };
    client.send(&publishes(1..=1_024));
    for packet_id in 1..=1_024 {
        assert!(matches!(client.expect_packet(), ServerPacket5::PubRec(id, 0 | 0x10) if id == packet_id));
    }
    client.expect_nothing();
    client.send(&publishes(1_025..=1_025));
    client.expect_disconnect(0x93);
}

#[test]
fn clients_of_3_1_1_are_not_held_to_a_maximum_they_cannot_know() {
    let broker = TestBroker::with_config(|config| config.limits.receive_maximum = 1);
    let mut client = crate::support::RawClient::clean(broker.addr(), "client");
    for packet_id in 1..=10 {
        client.send(&wire::publish_qos2(packet_id, "t", "x"));
        client.expect(&wire::pubrec(packet_id));
    }
}

#[test]
fn mqtt5_3_3_4_9_the_broker_keeps_within_the_clients_receive_maximum() {
    for receive_maximum in [1, 2, 7] {
        for qos in [1, 2] {
            let broker = TestBroker::start();
            let mut client = taking(&broker, receive_maximum);
            publish_numbers(&broker, 0..30, qos);
            // So many and no more, whatever is acknowledged; all arrive in order.
            let mut open = std::collections::VecDeque::from(client.publishes_until_ping());
            let mut next = 0;
            while let Some(publish) = open.pop_front() {
                assert!(open.len() < usize::from(receive_maximum), "{} are open", open.len() + 1);
                assert_eq!(publish.text(), next.to_string());
                next += 1;
                client.ack(&publish);
                open.extend(client.publishes_until_ping());
            }
            assert_eq!(next, 30);
        }
    }
}

#[test]
fn mqtt5_4_9_0_1_the_quota_begins_at_the_receive_maximum() {
    let broker = TestBroker::start();
    let mut client = taking(&broker, 5);
    publish_numbers(&broker, 0..8, 1);
    assert_eq!(client.publishes_until_ping().len(), 5);
    client.vanish();
    // Anew on each connection, with what is sent again counted.
    let connect = Connect5::persistent("client").with(wire5::two(id::RECEIVE_MAXIMUM, 6));
    let mut client = RawClient5::resume_with(broker.addr(), &connect);
    let publishes = client.publishes_until_ping();
    assert_eq!(publishes.iter().filter(|publish| publish.dup).count(), 5);
    assert_eq!(publishes.len(), 6);
    for publish in &publishes {
        client.ack(publish);
    }
    client.expect_and_ack("t", "6");
    client.expect_and_ack("t", "7");
}

#[test]
fn a_smaller_receive_maximum_holds_for_what_is_sent_again() {
    let broker = TestBroker::start();
    let mut client = taking(&broker, 10);
    publish_numbers(&broker, 0..6, 1);
    assert_eq!(client.publishes_until_ping().len(), 6);
    client.vanish();
    // The client of the tests refuses a third open delivery.
    let connect = Connect5::persistent("client").with(wire5::two(id::RECEIVE_MAXIMUM, 2));
    let mut client = RawClient5::resume_with(broker.addr(), &connect);
    let mut open = std::collections::VecDeque::from(client.publishes_until_ping());
    assert_eq!(open.len(), 2);
    for number in 0..6 {
        let publish = open.pop_front().expect("more to come");
        assert!(publish.dup && publish.text() == number.to_string(), "{publish:?}");
        client.ack(&publish);
        open.extend(client.publishes_until_ping());
        assert_eq!(open.len(), 2.min(5 - number), "after {number}");
    }
}

#[test]
fn mqtt5_4_9_0_2_at_quota_0_no_publish_above_qos_0_is_sent() {
    let broker = TestBroker::start();
    let mut client = taking(&broker, 1);
    publish_numbers(&broker, 0..3, 2);
    let first = client.expect_message("t", "0");
    client.expect_nothing();
    // PUBREC does not give the quota back, PUBCOMP does.
    client.answer(0x50, first.id(), 0);
    client.expect_pubrel(first.id());
    client.expect_nothing();
    client.answer(0x70, first.id(), 0);
    let second = client.expect_message("t", "1");
    // An error in PUBREC gives it back.
    client.answer(0x50, second.id(), 0x80);
    client.expect_and_ack("t", "2");
}

#[test]
fn mqtt5_3_3_4_10_a_used_up_quota_holds_back_publish_only() {
    let broker = TestBroker::start();
    let mut client = taking(&broker, 1);
    publish_numbers(&broker, 0..2, 1);
    let first = client.expect_message("t", "0");
    client.subscribe("other", 1);
    client.publish("elsewhere", 1, "x");
    client.publish("elsewhere", 2, "x");
    assert_eq!(client.unsubscribe(&["other"]), [0]);
    client.expect_nothing();
    client.ack(&first);
    client.expect_and_ack("t", "1");
}

#[test]
fn mqtt5_4_9_0_3_at_quota_0_other_packets_and_qos_0_go_on() {
    let broker = TestBroker::start();
    let mut client = taking(&broker, 1);
    publish_numbers(&broker, 0..2, 1);
    let first = client.expect_message("t", "0");
    publish_numbers(&broker, 5..6, 0);
    assert_eq!(client.expect_message("t", "5").qos, 0);
    client.expect_nothing();
    client.ack(&first);
    client.expect_and_ack("t", "1");
    client.send(&DISCONNECT);
    client.expect_closed();
}

#[test]
fn nothing_is_lost_behind_a_small_receive_maximum() {
    let broker = TestBroker::start();
    let mut client = taking(&broker, 2);
    publish_numbers(&broker, 0..500, 1);
    for number in 0..250 {
        client.expect_and_ack("t", number.to_string());
    }
    client.vanish();
    let connect = Connect5::persistent("client").with(wire5::two(id::RECEIVE_MAXIMUM, 3));
    let mut client = RawClient5::resume_with(broker.addr(), &connect);
    let mut next = 250;
    while next < 500 {
        let publish = client.expect_publish();
        let number: u32 = publish.text().parse().expect("a number");
        assert!(number == next || (publish.dup && number < next), "expected {next}, got {publish:?}");
        next = next.max(number + 1);
        client.ack(&publish);
    }
    client.expect_nothing();
}
