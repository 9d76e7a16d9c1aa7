//! QoS 2 from the broker to a client, and what comes again after a reconnect (sections 4.3.3, 4.4).

use crate::support::wire;
use crate::support::{RawClient, ServerPacket, TestBroker};

fn subscribed(broker: &TestBroker) -> (RawClient, RawClient) {
    let mut subscriber = RawClient::persistent(broker.addr(), "subscriber");
    subscriber.subscribe("t", 2);
    (subscriber, RawClient::clean(broker.addr(), "publisher"))
}

#[test]
fn mqtt_4_3_3_1_publish_waits_for_pubrec_and_pubrel_for_pubcomp() {
    let broker = TestBroker::start();
    let (mut subscriber, mut publisher) = subscribed(&broker);
    publisher.publish("t", 2, "one");
    publisher.publish("t", 2, "two");
    let one = subscriber.expect_message("t", "one");
    let two = subscriber.expect_message("t", "two");
    assert!(one.qos == 2 && !one.dup && two.qos == 2 && !two.dup && one.id() != two.id());
    // No PUBREL before PUBREC.
    subscriber.expect_nothing();
    subscriber.send(&wire::pubrec(one.id()));
    subscriber.expect(&wire::pubrel(one.id()));
    subscriber.expect_nothing();
    subscriber.send(&wire::pubcomp(one.id()));
    subscriber.send(&wire::pubrec(two.id()));
    subscriber.expect(&wire::pubrel(two.id()));
    subscriber.send(&wire::pubcomp(two.id()));
    subscriber.vanish();
    RawClient::resume(broker.addr(), "subscriber").expect_nothing();
}

#[test]
fn mqtt_4_3_3_1_before_pubrec_the_publish_is_sent_again_with_dup() {
    let broker = TestBroker::start();
    let (mut subscriber, mut publisher) = subscribed(&broker);
    publisher.publish("t", 2, "x");
    let first = subscriber.expect_message("t", "x");
    for _ in 0..3 {
        subscriber.vanish();
        subscriber = RawClient::resume(broker.addr(), "subscriber");
        let again = subscriber.expect_message("t", "x");
        assert!(again.dup && again.qos == 2 && again.id() == first.id(), "{again:?}");
    }
    subscriber.complete_qos2(&first);
    subscriber.expect_nothing();
}

#[test]
fn mqtt_4_3_3_1_after_pubrec_only_the_pubrel_is_sent_again() {
    let broker = TestBroker::start();
    let (mut subscriber, mut publisher) = subscribed(&broker);
    publisher.publish("t", 2, "x");
    let publish = subscriber.expect_message("t", "x");
    subscriber.send(&wire::pubrec(publish.id()));
    subscriber.expect(&wire::pubrel(publish.id()));
    for _ in 0..3 {
        subscriber.vanish();
        subscriber = RawClient::resume(broker.addr(), "subscriber");
        subscriber.expect(&wire::pubrel(publish.id()));
        subscriber.expect_nothing();
    }
    subscriber.send(&wire::pubcomp(publish.id()));
    subscriber.vanish();
    RawClient::resume(broker.addr(), "subscriber").expect_nothing();
}

#[test]
fn a_pubrec_just_before_the_end_of_the_connection_counts() {
    let broker = TestBroker::start();
    let (mut subscriber, mut publisher) = subscribed(&broker);
    publisher.publish("t", 2, "x");
    let publish = subscriber.expect_message("t", "x");
    subscriber.send(&wire::pubrec(publish.id()));
    subscriber.vanish();
    let mut subscriber = RawClient::resume(broker.addr(), "subscriber");
    subscriber.expect(&wire::pubrel(publish.id()));
    subscriber.expect_nothing();
}

#[test]
fn a_repeated_pubrec_gets_its_pubrel_again() {
    let broker = TestBroker::start();
    let (mut subscriber, mut publisher) = subscribed(&broker);
    publisher.publish("t", 2, "x");
    let publish = subscriber.expect_message("t", "x");
    for _ in 0..3 {
        subscriber.send(&wire::pubrec(publish.id()));
        subscriber.expect(&wire::pubrel(publish.id()));
    }
    subscriber.send(&wire::pubcomp(publish.id()));
    subscriber.expect_nothing();
    publisher.publish("t", 2, "y");
    let publish = subscriber.expect_message("t", "y");
    subscriber.complete_qos2(&publish);
}

#[test]
fn mqtt_4_4_0_1_everything_unfinished_is_sent_again_with_its_old_id() {
    let broker = TestBroker::start();
    let (mut subscriber, mut publisher) = subscribed(&broker);
    for payload in ["released", "half", "open"] {
        publisher.publish("t", 2, payload);
    }
    publisher.publish("t", 1, "qos 1");
    publisher.publish("t", 1, "acknowledged");
    let released = subscriber.expect_message("t", "released");
    let half = subscriber.expect_message("t", "half");
    let open = subscriber.expect_message("t", "open");
    let qos1 = subscriber.expect_message("t", "qos 1");
    subscriber.expect_message_and_ack("t", "acknowledged");
    subscriber.complete_qos2(&released);
    subscriber.send(&wire::pubrec(half.id()));
    subscriber.expect(&wire::pubrel(half.id()));
    subscriber.vanish();
    publisher.publish("t", 1, "newer");
    let mut subscriber = RawClient::resume(broker.addr(), "subscriber");
    let packets = subscriber.packets_until_ping();
    let mut pubrels = Vec::new();
    let mut publishes = Vec::new();
    for packet in packets {
        match packet {
            ServerPacket::PubRel(id) => pubrels.push(id),
            ServerPacket::Publish(publish) => publishes.push(publish),
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(pubrels, [half.id()]);
    let seen: Vec<(String, Option<u16>, bool)> =
        publishes.iter().map(|publish| (publish.text(), publish.packet_id, publish.dup)).collect();
    assert_eq!(seen[..2], [("open".into(), open.packet_id, true), ("qos 1".into(), qos1.packet_id, true)]);
    assert_eq!((seen[2].0.as_str(), seen[2].2, seen.len()), ("newer", false, 3));
    // Its id is not one of those in use.
    assert!(![half.id(), open.id(), qos1.id()].contains(&publishes[2].id()), "{publishes:?}");
}

#[test]
fn mqtt_3_3_1_1_a_repeated_delivery_has_dup_set() {
    let broker = TestBroker::start();
    let (mut subscriber, mut publisher) = subscribed(&broker);
    for qos in [1, 2] {
        publisher.publish("t", qos, "x");
        assert!(!subscriber.expect_message("t", "x").dup);
    }
    subscriber.vanish();
    let mut subscriber = RawClient::resume(broker.addr(), "subscriber");
    for _ in [1, 2] {
        assert!(subscriber.expect_message("t", "x").dup);
    }
}

#[test]
fn mqtt_2_3_1_3_a_repeated_packet_has_the_id_of_its_first_sending() {
    let broker = TestBroker::start();
    let (mut subscriber, mut publisher) = subscribed(&broker);
    let mut ids = Vec::new();
    for number in 0..20 {
        publisher.publish("t", 1 + number % 2, number.to_string());
        ids.push(subscriber.expect_message("t", number.to_string()).id());
    }
    // Holes in the sequence of ids: every third is finished.
    for number in (0..20).step_by(3) {
        if number % 2 == 0 {
            subscriber.send(&wire::puback(ids[number]));
        } else {
            subscriber.send(&wire::pubrec(ids[number]));
            subscriber.expect(&wire::pubrel(ids[number]));
            subscriber.send(&wire::pubcomp(ids[number]));
        }
    }
    subscriber.vanish();
    let mut subscriber = RawClient::resume(broker.addr(), "subscriber");
    for number in (0..20).filter(|number| number % 3 != 0) {
        let again = subscriber.expect_message("t", number.to_string());
        assert!(again.dup && again.id() == ids[number], "{again:?}");
    }
    subscriber.expect_nothing();
}

#[test]
fn mqtt_4_6_0_1_repeated_publishes_come_in_their_old_order() {
    let broker = TestBroker::start();
    for qos in [1, 2] {
        let client_id = format!("ordered-{qos}");
        let mut subscriber = RawClient::persistent(broker.addr(), &client_id);
        subscriber.subscribe("order", qos);
        let mut publisher = RawClient::clean(broker.addr(), "publisher");
        for number in 0..100 {
            publisher.publish("order", qos, number.to_string());
        }
        // Fewer than 100 go out at once: the window is smaller.
        subscriber.expect_message("order", "0");
        subscriber.vanish();
        let mut subscriber = RawClient::resume(broker.addr(), &client_id);
        for number in 0..100 {
            let publish = subscriber.expect_message("order", number.to_string());
            assert_eq!(publish.qos, qos);
            if qos == 1 {
                subscriber.send(&wire::puback(publish.id()));
            } else {
                subscriber.send(&wire::pubrec(publish.id()));
                // PUBREL stands behind the messages of the window that were on their way before it.
                subscriber.send(&wire::pubcomp(publish.id()));
            }
            if qos == 2 {
                skip_pubrels(&mut subscriber);
            }
        }
        subscriber.disconnect();
    }
}

/// Takes PUBREL off the stream up to a fence, and leaves the PUBLISH packets in it.
#[track_caller]
fn skip_pubrels(subscriber: &mut RawClient) {
    let publishes = subscriber
        .packets_until_ping()
        .into_iter()
        .filter(|packet| matches!(packet, ServerPacket::Publish(_)));
    let publishes = publishes.collect();
    subscriber.put_back(publishes);
}

#[test]
fn puback_for_a_qos_2_message_does_not_finish_it() {
    let broker = TestBroker::start();
    let (mut subscriber, mut publisher) = subscribed(&broker);
    publisher.publish("t", 2, "kept");
    let publish = subscriber.expect_message("t", "kept");
    subscriber.send(&wire::puback(publish.id()));
    subscriber.vanish();
    let mut subscriber = RawClient::resume(broker.addr(), "subscriber");
    let again = subscriber.expect_message("t", "kept");
    assert!(again.dup && again.id() == publish.id(), "{again:?}");
    subscriber.complete_qos2(&again);
    subscriber.expect_nothing();
}

#[test]
fn pubcomp_before_pubrec_does_not_finish_a_message() {
    let broker = TestBroker::start();
    let (mut subscriber, mut publisher) = subscribed(&broker);
    publisher.publish("t", 2, "kept");
    let publish = subscriber.expect_message("t", "kept");
    subscriber.send(&wire::pubcomp(publish.id()));
    subscriber.vanish();
    let mut subscriber = RawClient::resume(broker.addr(), "subscriber");
    let again = subscriber.expect_message("t", "kept");
    assert!(again.dup && again.id() == publish.id(), "{again:?}");
}
