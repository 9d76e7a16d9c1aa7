//! QoS 1 both ways (sections 3.4, 4.3.2).

use crate::support::wire;
use crate::support::{RawClient, ServerPacket, Settings, TestBroker, broker};

#[test]
fn mqtt_4_3_2_1_sent_with_an_unused_id_and_no_dup_and_kept_until_puback() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient::persistent(broker.addr(), "subscriber");
    subscriber.subscribe("t", 1);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    publisher.publish("t", 1, "one");
    publisher.publish("t", 1, "two");
    let one = subscriber.expect_message("t", "one");
    let two = subscriber.expect_message("t", "two");
    assert!(one.qos == 1 && !one.dup && two.qos == 1 && !two.dup);
    assert_ne!(one.id(), two.id());
    subscriber.send(&wire::puback(one.id()));
    // Not sent again on the same connection.
    subscriber.expect_nothing();
    subscriber.vanish();
    let mut subscriber = RawClient::resume(broker.addr(), "subscriber");
    let again = subscriber.expect_message("t", "two");
    assert!(again.dup && again.id() == two.id() && again.qos == 1, "{again:?}");
    subscriber.expect_nothing();
    subscriber.send(&wire::puback(two.id()));
    subscriber.expect_nothing();
    subscriber.vanish();
    RawClient::resume(broker.addr(), "subscriber").expect_nothing();
}

#[test]
fn mqtt_4_3_2_2_puback_carries_the_id_and_frees_it() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("t", 1);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for number in 0..5 {
        // The same id five times, DUP or not: after PUBACK each is a new message.
        let flags = if number % 2 == 0 { 0x02 } else { 0x0A };
        publisher.send(&wire::raw_publish(flags, "t", Some(77), number.to_string()));
        publisher.expect(&wire::puback(77));
        assert!(!subscriber.expect_message_and_ack("t", number.to_string()).dup);
    }
    subscriber.expect_nothing();
}

#[test]
fn acknowledgements_for_unknown_ids_do_no_harm() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("t", 1);
    subscriber.send(&wire::puback(1));
    subscriber.send(&wire::puback(65535));
    subscriber.send(&wire::pubcomp(9));
    subscriber.expect_nothing();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    publisher.publish("t", 1, "x");
    let publish = subscriber.expect_message("t", "x");
    subscriber.send(&wire::puback(publish.id()));
    // The second one is late, or a repetition.
    subscriber.send(&wire::puback(publish.id()));
    subscriber.expect_nothing();
}

#[test]
fn unknown_pubacks_do_not_widen_the_window() {
    if broker::skipped_on_mosquitto("they do there") {
        return;
    }
    let narrow = |settings: &mut Settings| settings.inflight_max = 3;
    let broker = TestBroker::with(narrow);
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("t", 1);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for number in 0..10 {
        publisher.publish("t", 1, number.to_string());
    }
    let first: Vec<u16> =
        (0..3).map(|number| subscriber.expect_message("t", number.to_string()).id()).collect();
    subscriber.expect_nothing();
    for unknown in (1..=65535).filter(|id| !first.contains(id)).take(20) {
        subscriber.send(&wire::puback(unknown));
    }
    subscriber.expect_nothing();
    for (id, next) in first.iter().zip(3..) {
        subscriber.send(&wire::puback(*id));
        subscriber.expect_message("t", next.to_string());
        subscriber.expect_nothing();
    }
}

#[test]
fn the_window_is_usable_in_full_again_and_again() {
    if broker::skipped_on_mosquitto("its window grows when acknowledgements come in another order") {
        return;
    }
    let narrow = |settings: &mut Settings| settings.inflight_max = 5;
    let broker = TestBroker::with(narrow);
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("t", 1);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for number in 0..40 {
        publisher.publish("t", 1, number.to_string());
    }
    for round in 0..8 {
        let ids: Vec<u16> =
            (0..5).map(|at| subscriber.expect_message("t", (round * 5 + at).to_string()).id()).collect();
        subscriber.expect_nothing();
        // Acknowledged last to first.
        let acks: Vec<u8> = ids.iter().rev().flat_map(|id| wire::puback(*id)).collect();
        subscriber.send(&acks);
    }
    subscriber.expect_nothing();
}

#[test]
fn qos_0_passes_a_full_window() {
    let narrow = |settings: &mut Settings| settings.inflight_max = 1;
    let broker = TestBroker::with(narrow);
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("t", 1);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    publisher.publish("t", 1, "stuck");
    subscriber.expect_message("t", "stuck");
    publisher.publish("t", 0, "free");
    subscriber.expect_message("t", "free");
    subscriber.expect_nothing();
}

#[test]
fn pubrec_for_a_qos_1_message_does_not_acknowledge_it() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient::persistent(broker.addr(), "subscriber");
    subscriber.subscribe("t", 1);
    RawClient::clean(broker.addr(), "publisher").publish("t", 1, "kept");
    let publish = subscriber.expect_message("t", "kept");
    subscriber.send(&wire::pubrec(publish.id()));
    subscriber.send(&wire::pubcomp(publish.id()));
    subscriber.vanish();
    if broker::skipped_on_mosquitto("it takes the PUBREC and forgets the message") {
        return;
    }
    let again = RawClient::resume(broker.addr(), "subscriber").expect_message("t", "kept");
    assert!(again.dup && again.id() == publish.id(), "{again:?}");
}

#[test]
fn a_publisher_that_vanishes_before_its_puback_may_send_again() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("t", 1);
    let mut publisher = RawClient::persistent(broker.addr(), "publisher");
    publisher.send(&wire::publish_qos1(5, "t", "x"));
    publisher.vanish();
    subscriber.expect_message_and_ack("t", "x");
    let mut publisher = RawClient::resume(broker.addr(), "publisher");
    publisher.send(&wire::raw_publish(0x0A, "t", Some(5), "x"));
    assert_eq!(publisher.expect_packet(), ServerPacket::PubAck(5));
    // At least once: the repetition is a message of its own, and no repetition of a delivery.
    assert!(!subscriber.expect_message_and_ack("t", "x").dup);
}
