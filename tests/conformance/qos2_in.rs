//! QoS 2 from a client to the broker (sections 3.5 to 3.7, 4.3.3).
//!
//! A broker may hand the message on at PUBLISH or at PUBREL, so these tests count deliveries only behind PUBCOMP.

use crate::support::wire;
use crate::support::{Connect, RawClient, TestBroker, broker};

fn pair(broker: &TestBroker) -> (RawClient, RawClient) {
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("t", 2);
    (subscriber, RawClient::clean(broker.addr(), "publisher"))
}

/// One copy arrives, without DUP, and nothing else.
#[track_caller]
fn arrives_once(subscriber: &mut RawClient, payload: &str) {
    let publish = subscriber.expect_message("t", payload);
    assert!(publish.qos == 2 && !publish.dup, "{publish:?}");
    subscriber.complete_qos2(&publish);
    subscriber.expect_nothing();
}

fn repeated(packet_id: u16, payload: &str) -> Vec<u8> {
    wire::raw_publish(0x0C, "t", Some(packet_id), payload)
}

#[track_caller]
fn release(publisher: &mut RawClient, packet_id: u16) {
    publisher.send(&wire::pubrel(packet_id));
    publisher.expect(&wire::pubcomp(packet_id));
}

#[test]
fn mqtt_4_3_3_2_a_repeated_publish_is_answered_and_not_delivered_again() {
    if broker::skipped_on_mosquitto("it closes after a few repetitions") {
        return;
    }
    let broker = TestBroker::start();
    let (mut subscriber, mut publisher) = pair(&broker);
    publisher.send(&wire::publish_qos2(5, "t", "once"));
    publisher.expect(&wire::pubrec(5));
    for _ in 0..10 {
        publisher.send(&repeated(5, "once"));
        publisher.expect(&wire::pubrec(5));
    }
    release(&mut publisher, 5);
    arrives_once(&mut subscriber, "once");
}

#[test]
fn mqtt_4_3_3_2_the_id_decides_not_the_dup_flag() {
    let broker = TestBroker::start();
    let (mut subscriber, mut publisher) = pair(&broker);
    publisher.send(&repeated(6, "first seen with DUP"));
    publisher.expect(&wire::pubrec(6));
    publisher.send(&wire::publish_qos2(6, "t", "first seen with DUP"));
    publisher.expect(&wire::pubrec(6));
    release(&mut publisher, 6);
    arrives_once(&mut subscriber, "first seen with DUP");
}

#[test]
fn mqtt_4_3_3_2_after_pubcomp_the_same_id_is_a_new_message() {
    let broker = TestBroker::start();
    let (mut subscriber, mut publisher) = pair(&broker);
    for payload in ["one", "two", "three"] {
        publisher.send(&wire::publish_qos2(7, "t", payload));
        publisher.expect(&wire::pubrec(7));
        release(&mut publisher, 7);
        arrives_once(&mut subscriber, payload);
    }
    // Even when it says DUP.
    publisher.send(&repeated(7, "four"));
    publisher.expect(&wire::pubrec(7));
    release(&mut publisher, 7);
    arrives_once(&mut subscriber, "four");
}

#[test]
fn mqtt_3_6_1_1_pubrel_flag_bits_other_than_0010_close_the_connection() {
    let broker = TestBroker::start();
    for flags in (0..=15).filter(|flags| *flags != 2) {
        let mut publisher = RawClient::clean(broker.addr(), "publisher");
        publisher.send(&wire::publish_qos2(1, "t", "x"));
        publisher.expect(&wire::pubrec(1));
        publisher.send(&wire::packet(0x60 | flags, &[0x00, 0x01]));
        publisher.expect_closed();
    }
}

#[test]
fn pubrel_for_an_unknown_id_is_answered_with_pubcomp() {
    let broker = TestBroker::start();
    let (mut subscriber, mut publisher) = pair(&broker);
    for id in [1, 500, 65535, 1] {
        release(&mut publisher, id);
    }
    publisher.send(&wire::publish_qos2(1, "t", "x"));
    publisher.expect(&wire::pubrec(1));
    release(&mut publisher, 1);
    // A second PUBREL for the same message: the first PUBCOMP may have been lost.
    release(&mut publisher, 1);
    arrives_once(&mut subscriber, "x");
}

#[test]
fn messages_released_in_another_order_are_matched_by_id() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("t", 0);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for id in [1, 2, 3] {
        publisher.send(&wire::publish_qos2(id, "t", id.to_string()));
        publisher.expect(&wire::pubrec(id));
    }
    release(&mut publisher, 2);
    // Id 2 is free, 1 and 3 are not.
    for (id, payload) in [(2, "new"), (1, "1"), (3, "3")] {
        publisher.send(&wire::publish_qos2(id, "t", payload));
        publisher.expect(&wire::pubrec(id));
    }
    for id in [3, 1, 2] {
        release(&mut publisher, id);
    }
    let mut payloads: Vec<String> = (0..4).map(|_| subscriber.expect_publish().text()).collect();
    payloads.sort();
    assert_eq!(payloads, ["1", "2", "3", "new"]);
    subscriber.expect_nothing();
}

#[test]
fn qos_1_and_qos_2_ids_of_one_client_do_not_disturb_each_other() {
    let broker = TestBroker::start();
    let (mut subscriber, mut publisher) = pair(&broker);
    publisher.send(&wire::publish_qos2(9, "t", "two"));
    publisher.expect(&wire::pubrec(9));
    // The client breaks the rule that an id in use is not taken again; the open exchange must not suffer.
    publisher.send(&wire::publish_qos1(9, "other", "one"));
    publisher.expect(&wire::puback(9));
    publisher.send(&repeated(9, "two"));
    publisher.expect(&wire::pubrec(9));
    release(&mut publisher, 9);
    arrives_once(&mut subscriber, "two");
}

#[test]
fn mqtt_4_3_3_2_ids_that_wait_for_pubrel_survive_a_reconnect() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("t", 2);
    let mut publisher = RawClient::persistent(broker.addr(), "publisher");
    publisher.send(&wire::publish_qos2(8, "t", "once"));
    publisher.expect(&wire::pubrec(8));
    publisher.vanish();
    let mut publisher = RawClient::resume(broker.addr(), "publisher");
    publisher.send(&repeated(8, "once"));
    publisher.expect(&wire::pubrec(8));
    release(&mut publisher, 8);
    arrives_once(&mut subscriber, "once");
    publisher.send(&wire::publish_qos2(8, "t", "new"));
    publisher.expect(&wire::pubrec(8));
    release(&mut publisher, 8);
    arrives_once(&mut subscriber, "new");
}

#[test]
fn a_release_after_the_reconnect_is_enough() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("t", 2);
    let mut publisher = RawClient::persistent(broker.addr(), "publisher");
    publisher.send(&wire::publish_qos2(8, "t", "once"));
    publisher.expect(&wire::pubrec(8));
    publisher.vanish();
    let mut publisher = RawClient::resume(broker.addr(), "publisher");
    release(&mut publisher, 8);
    arrives_once(&mut subscriber, "once");
}

#[test]
fn ids_that_wait_for_pubrel_survive_a_take_over() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("t", 2);
    let mut old = RawClient::persistent(broker.addr(), "publisher");
    old.send(&wire::publish_qos2(8, "t", "once"));
    old.expect(&wire::pubrec(8));
    let mut new = RawClient::resume(broker.addr(), "publisher");
    old.expect_closed();
    new.send(&repeated(8, "once"));
    new.expect(&wire::pubrec(8));
    release(&mut new, 8);
    arrives_once(&mut subscriber, "once");
}

#[test]
fn clean_session_1_forgets_the_ids_that_wait_for_pubrel() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("t", 0);
    let mut publisher = RawClient::persistent(broker.addr(), "publisher");
    publisher.send(&wire::publish_qos2(8, "t", "old"));
    publisher.expect(&wire::pubrec(8));
    publisher.vanish();
    let (mut publisher, _) = RawClient::open(broker.addr(), &Connect::new("publisher"));
    publisher.send(&wire::publish_qos2(8, "t", "new"));
    publisher.expect(&wire::pubrec(8));
    release(&mut publisher, 8);
    // The old message may or may not have gone on; the new one must.
    let mut payloads = Vec::new();
    loop {
        payloads.push(subscriber.expect_publish().text());
        if payloads.last().is_some_and(|payload| payload == "new") {
            break;
        }
    }
    assert!(payloads.len() <= 2, "{payloads:?}");
    subscriber.expect_nothing();
}

#[test]
fn one_id_repeated_without_end_costs_one_message() {
    if broker::skipped_on_mosquitto("it closes after a few repetitions") {
        return;
    }
    let broker = TestBroker::start();
    let (mut subscriber, mut publisher) = pair(&broker);
    let burst: Vec<u8> = (0..1000).flat_map(|_| wire::publish_qos2(3, "t", "again")).collect();
    publisher.send(&burst);
    publisher.expect(&wire::pubrec(3).repeat(1000));
    release(&mut publisher, 3);
    arrives_once(&mut subscriber, "again");
}
