//! Reason codes of acknowledgements, and what they do (section 3.4 to 3.7, 4.3, 4.4).

use crate::support::wire;
use crate::support::wire5;
use crate::support::{RawClient5, ServerPacket5, TestBroker};
use std::time::Duration;

fn pair(broker: &TestBroker) -> (RawClient5, RawClient5) {
    let mut subscriber = RawClient5::persistent(broker.addr(), "subscriber");
    subscriber.subscribe("t", 2);
    (subscriber, RawClient5::clean(broker.addr(), "publisher"))
}

#[test]
fn mqtt5_3_4_2_1_puback_says_whether_anybody_subscribes() {
    let broker = TestBroker::start();
    let (_subscriber, mut publisher) = pair(&broker);
    assert_eq!(publisher.publish_with("t", 0x02, &[], "x"), 0x00);
    assert_eq!(publisher.publish_with("nobody", 0x02, &[], "x"), 0x10);
    // In the shortest form for success.
    publisher.send(&wire5::publish5(0x02, "t", Some(0x1234), &[], "x"));
    publisher.expect(&[0x40, 0x02, 0x12, 0x34]);
}

#[test]
fn mqtt5_3_5_2_1_pubrec_says_whether_anybody_subscribes() {
    let broker = TestBroker::start();
    let (_subscriber, mut publisher) = pair(&broker);
    assert_eq!(publisher.publish_with("t", 0x04, &[], "x"), 0x00);
    assert_eq!(publisher.publish_with("nobody", 0x04, &[], "x"), 0x10);
}

#[test]
fn mqtt5_3_6_2_1_pubrel_says_whether_the_id_is_known() {
    let broker = TestBroker::start();
    let (mut subscriber, mut publisher) = pair(&broker);
    publisher.publish("t", 2, "x");
    let publish = subscriber.expect_message("t", "x");
    subscriber.answer(0x50, publish.id(), 0x10);
    assert_eq!(subscriber.expect_packet(), ServerPacket5::PubRel(publish.id(), 0x00));
    subscriber.send(&wire::pubrec(4_321));
    assert_eq!(subscriber.expect_packet(), ServerPacket5::PubRel(4_321, 0x92));
    subscriber.answer(0x70, publish.id(), 0);
    subscriber.expect_nothing();
}

#[test]
fn mqtt5_3_7_2_1_pubcomp_says_whether_the_id_is_known() {
    let broker = TestBroker::start();
    let (_subscriber, mut publisher) = pair(&broker);
    publisher.send(&wire5::publish5(0x04, "t", Some(7), &[], "x"));
    assert_eq!(publisher.expect_packet(), ServerPacket5::PubRec(7, 0));
    for code in [0x00, 0x92] {
        publisher.send(&wire::pubrel(7));
        assert_eq!(publisher.expect_packet(), ServerPacket5::PubComp(7, code));
    }
    // A client may say 0x92 as well.
    publisher.send(&wire5::publish5(0x04, "t", Some(7), &[], "x"));
    assert_eq!(publisher.expect_packet(), ServerPacket5::PubRec(7, 0));
    publisher.send(&wire5::ack5(0x62, 7, 0x92, &[]));
    assert_eq!(publisher.expect_packet(), ServerPacket5::PubComp(7, 0));
}

#[test]
fn mqtt5_4_3_2_5_after_puback_the_id_is_free() {
    let broker = TestBroker::start();
    let (mut subscriber, mut publisher) = pair(&broker);
    for (number, code) in [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99].into_iter().enumerate() {
        // From the publisher: the same id again is a new message.
        publisher.send(&wire5::publish5(0x02, "t", Some(9), &[], number.to_string()));
        assert_eq!(publisher.expect_packet(), ServerPacket5::PubAck(9, 0));
        // To the subscriber: success and error alike end the delivery.
        let publish = subscriber.expect_message("t", number.to_string());
        subscriber.answer(0x40, publish.id(), code);
        subscriber.expect_nothing();
    }
    subscriber.vanish();
    RawClient5::resume(broker.addr(), "subscriber").expect_nothing();
}

#[test]
fn mqtt5_4_3_3_4_pubrec_below_0x80_is_answered_with_pubrel() {
    let broker = TestBroker::start();
    let (mut subscriber, mut publisher) = pair(&broker);
    for code in [0x00, 0x10] {
        publisher.publish("t", 2, "x");
        let publish = subscriber.expect_message("t", "x");
        subscriber.send(&wire5::ack5(0x50, publish.id(), code, &[]));
        subscriber.expect_pubrel(publish.id());
        subscriber.answer(0x70, publish.id(), 0);
        subscriber.expect_nothing();
    }
}

#[test]
fn mqtt5_4_3_3_9_an_error_in_pubrec_ends_the_exchange() {
    let broker = TestBroker::start();
    let (mut subscriber, mut publisher) = pair(&broker);
    for code in [0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99] {
        publisher.publish("t", 2, "x");
        let publish = subscriber.expect_message("t", "x");
        subscriber.answer(0x50, publish.id(), code);
        // No PUBREL.
        subscriber.expect_nothing();
    }
    subscriber.vanish();
    RawClient5::resume(broker.addr(), "subscriber").expect_nothing();
}

#[test]
fn mqtt5_4_3_3_10_a_repeated_qos_2_publish_is_delivered_once() {
    let broker = TestBroker::start();
    let (mut subscriber, publisher) = pair(&broker);
    publisher.disconnect();
    let mut publisher = RawClient5::persistent(broker.addr(), "publisher");
    for flags in [0x04, 0x0C, 0x04, 0x0C] {
        publisher.send(&wire5::publish5(flags, "t", Some(3), &[], "x"));
        assert!(matches!(publisher.expect_packet(), ServerPacket5::PubRec(3, 0 | 0x10)));
    }
    publisher.vanish();
    let mut publisher = RawClient5::resume(broker.addr(), "publisher");
    publisher.send(&wire5::publish5(0x0C, "t", Some(3), &[], "x"));
    assert!(matches!(publisher.expect_packet(), ServerPacket5::PubRec(3, 0 | 0x10)));
    subscriber.expect_and_ack("t", "x");
    subscriber.expect_nothing();
    publisher.send(&wire::pubrel(3));
    assert_eq!(publisher.expect_packet(), ServerPacket5::PubComp(3, 0));
    publisher.send(&wire5::publish5(0x04, "t", Some(3), &[], "new"));
    assert_eq!(publisher.expect_packet(), ServerPacket5::PubRec(3, 0));
    subscriber.expect_and_ack("t", "new");
}

#[test]
fn mqtt5_4_4_0_1_nothing_is_sent_again_on_a_live_connection() {
    let broker = TestBroker::start();
    let (mut subscriber, mut publisher) = pair(&broker);
    publisher.publish("t", 1, "one");
    publisher.publish("t", 2, "two");
    publisher.publish("t", 2, "half");
    let one = subscriber.expect_message("t", "one");
    let two = subscriber.expect_message("t", "two");
    let half = subscriber.expect_message("t", "half");
    subscriber.answer(0x50, half.id(), 0);
    subscriber.expect_pubrel(half.id());
    subscriber.stays_silent_and_open(Duration::from_millis(1_500));
    subscriber.expect_nothing();
    // After a reconnect all three, with their ids, in their order.
    subscriber.vanish();
    let mut subscriber = RawClient5::resume(broker.addr(), "subscriber");
    let again = subscriber.expect_message("t", "one");
    assert!(again.dup && again.id() == one.id(), "{again:?}");
    let again = subscriber.expect_message("t", "two");
    assert!(again.dup && again.id() == two.id(), "{again:?}");
    subscriber.expect_pubrel(half.id());
    subscriber.expect_nothing();
    // With Clean Start 1 nothing.
    subscriber.vanish();
    RawClient5::clean(broker.addr(), "subscriber").expect_nothing();
}

#[test]
fn mqtt5_4_4_0_2_what_was_refused_is_not_sent_again() {
    let broker = TestBroker::start();
    let (mut subscriber, mut publisher) = pair(&broker);
    publisher.publish("t", 1, "one");
    publisher.publish("t", 2, "two");
    publisher.publish("t", 1, "open");
    let one = subscriber.expect_message("t", "one");
    let two = subscriber.expect_message("t", "two");
    subscriber.expect_message("t", "open");
    subscriber.answer(0x40, one.id(), 0x83);
    subscriber.answer(0x50, two.id(), 0x97);
    subscriber.expect_nothing();
    subscriber.vanish();
    let mut subscriber = RawClient5::resume(broker.addr(), "subscriber");
    subscriber.expect_and_ack("t", "open");
    subscriber.expect_nothing();
}

#[test]
fn mqtt5_4_6_0_5_messages_of_a_client_keep_their_order() {
    let broker = TestBroker::start();
    for qos in [0, 1, 2] {
        let mut subscriber = RawClient5::clean(broker.addr(), "ordered");
        subscriber.subscribe("ordered", 2);
        let mut publisher = RawClient5::clean(broker.addr(), "publisher");
        let mut bytes = Vec::new();
        for number in 0..200u16 {
            let packet_id = (qos > 0).then_some(number + 1);
            bytes.extend(wire5::publish5(qos << 1, "ordered", packet_id, &[], number.to_string()));
        }
        publisher.send(&bytes);
        for number in 0..200 {
            assert_eq!(subscriber.expect_any_and_ack().text(), number.to_string());
        }
    }
}

#[test]
fn long_and_short_forms_are_understood() {
    let broker = TestBroker::start();
    let (mut subscriber, mut publisher) = pair(&broker);
    let forms: [&dyn Fn(u8, u16) -> Vec<u8>; 4] = [
        &|first, id| wire::packet(first, &id.to_be_bytes()),
        &|first, id| wire::packet(first, &[&id.to_be_bytes()[..], &[0]].concat()),
        &|first, id| wire5::ack5(first, id, 0, &[]),
        &|first, id| {
            let properties =
                [wire5::text(wire5::id::REASON_STRING, "fine"), wire5::user("a", "b"), wire5::user("a", "b")];
            wire5::ack5(first, id, 0, &properties.concat())
        },
    ];
    for form in forms {
        publisher.publish("t", 1, "one");
        let one = subscriber.expect_message("t", "one");
        subscriber.send(&form(0x40, one.id()));
        publisher.publish("t", 2, "two");
        let two = subscriber.expect_message("t", "two");
        subscriber.send(&form(0x50, two.id()));
        subscriber.expect_pubrel(two.id());
        subscriber.send(&form(0x70, two.id()));
        publisher.send(&wire5::publish5(0x04, "u", Some(100), &[], "x"));
        assert_eq!(publisher.expect_packet(), ServerPacket5::PubRec(100, 0x10));
        publisher.send(&form(0x62, 100));
        assert_eq!(publisher.expect_packet(), ServerPacket5::PubComp(100, 0));
    }
    subscriber.expect_nothing();
    subscriber.vanish();
    RawClient5::resume(broker.addr(), "subscriber").expect_nothing();
}
