//! PUBLISH: flags, topic name, what comes out for what goes in (sections 3.3, 4.3.1).

use crate::support::wire::{self, packet};
use crate::support::{RawClient, ServerPacket, TestBroker, broker};

#[track_caller]
fn closes(broker: &TestBroker, bytes: &[u8]) {
    let mut client = RawClient::clean(broker.addr(), "wrong");
    client.send(bytes);
    client.expect_closed();
}

#[test]
fn mqtt_2_3_1_5_a_qos_0_publish_has_no_packet_id() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("t", 2);
    // What looks like a packet id is the beginning of the payload, in and out.
    RawClient::clean(broker.addr(), "publisher").send(&wire::publish_qos0("t", [0x00, 0x07, b'x']));
    subscriber.expect(&[0x30, 0x06, 0x00, 0x01, b't', 0x00, 0x07, b'x']);
}

#[test]
fn mqtt_3_3_1_2_dup_with_qos_0_is_never_sent_and_not_taken() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("t", 0);
    if !broker::skipped_on_mosquitto("it takes DUP at QoS 0") {
        closes(&broker, &wire::raw_publish(0x08, "t", None, "x"));
        closes(&broker, &wire::raw_publish(0x09, "t", None, "x"));
    }
    subscriber.expect_nothing();
    // A repeated QoS 1 PUBLISH that goes on at QoS 0 loses the flag.
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    publisher.send(&wire::raw_publish(0x0A, "t", Some(1), "x"));
    publisher.expect(&wire::puback(1));
    subscriber.expect(&[0x30, 0x04, 0x00, 0x01, b't', b'x']);
}

#[test]
fn mqtt_3_3_1_3_dup_of_the_incoming_packet_is_not_passed_on() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("t", 2);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    // The broker has never seen these: DUP or not, they are new.
    publisher.send(&wire::raw_publish(0x0A, "t", Some(1), "one"));
    publisher.expect(&wire::puback(1));
    let publish = subscriber.expect_message_and_ack("t", "one");
    assert!(!publish.dup);
    publisher.send(&wire::raw_publish(0x0C, "t", Some(2), "two"));
    publisher.expect(&wire::pubrec(2));
    publisher.send(&wire::pubrel(2));
    publisher.expect(&wire::pubcomp(2));
    let publish = subscriber.expect_message("t", "two");
    assert!(!publish.dup && publish.qos == 2);
    subscriber.complete_qos2(&publish);
}

#[test]
fn mqtt_3_3_1_4_qos_3_closes_the_connection() {
    let broker = TestBroker::start();
    for flags in [0x06, 0x07, 0x0E, 0x0F] {
        closes(&broker, &wire::raw_publish(flags, "t", Some(1), "x"));
    }
    // Byte 1 is enough for the verdict.
    if !broker::skipped_on_mosquitto("it waits for the body") {
        closes(&broker, &[0x36, 0xFF, 0x01]);
    }
}

#[test]
fn mqtt_3_3_2_1_the_topic_name_comes_first_and_is_valid_utf_8() {
    let broker = TestBroker::start();
    closes(&broker, &packet(0x30, &[]));
    closes(&broker, &packet(0x30, &[0x00]));
    closes(&broker, &packet(0x30, &[0x00, 0x02, b't']));
    closes(&broker, &packet(0x30, &[0x00, 0x02, 0xC3, 0x28, b'x']));
    closes(&broker, &packet(0x30, &[0x00, 0x03, 0xED, 0xA0, 0x80, b'x']));
    closes(&broker, &packet(0x32, &[0xFF, 0xFF, b't', 0x00, 0x01]));
}

#[test]
fn mqtt_3_3_2_2_wildcards_in_a_topic_name_close_the_connection() {
    let broker = TestBroker::start();
    let mut watcher = RawClient::clean(broker.addr(), "watcher");
    watcher.subscribe("#", 0);
    for topic in [
        "#",
        "+",
        "a/#",
        "a/+",
        "+/b",
        "a+",
        "a#",
        "a/+/b",
        "/+",
        "a long topic name with its fault at the end #",
    ] {
        closes(&broker, &wire::publish_qos0(topic, "x"));
        closes(&broker, &wire::publish_qos1(1, topic, "x"));
        closes(&broker, &wire::publish_qos2(1, topic, "x"));
    }
    watcher.expect_nothing();
}

#[test]
fn mqtt_3_3_2_3_the_topic_of_a_delivered_message_matches_the_filter() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("room/+/temp", 0);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for topic in
        ["room/1/temp", "room/2/hum", "room/temp", "room//temp", "room/1/temp/x", "room/2/temp", "other"]
    {
        publisher.publish(topic, 0, topic);
    }
    for topic in ["room/1/temp", "room//temp", "room/2/temp"] {
        subscriber.expect_message(topic, topic);
    }
    subscriber.expect_nothing();
}

#[test]
fn mqtt_3_3_4_1_each_qos_gets_its_answer() {
    let broker = TestBroker::start();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    publisher.send(&wire::publish_qos0("t", "x"));
    publisher.expect_nothing();
    publisher.send(&wire::publish_qos1(0x1234, "t", "x"));
    publisher.expect(&[0x40, 0x02, 0x12, 0x34]);
    publisher.send(&wire::publish_qos2(0xFFFF, "t", "x"));
    publisher.expect(&[0x50, 0x02, 0xFF, 0xFF]);
    publisher.send(&wire::pubrel(0xFFFF));
    publisher.expect(&[0x70, 0x02, 0xFF, 0xFF]);
    publisher.expect_nothing();
}

#[test]
fn mqtt_3_8_4_6_delivered_at_the_lower_of_published_and_granted_qos() {
    let broker = TestBroker::start();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for granted in 0..=2 {
        let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
        subscriber.subscribe("t", granted);
        for published in 0..=2 {
            publisher.publish("t", published, "x");
            let publish = subscriber.expect_message("t", "x");
            assert_eq!(publish.qos, granted.min(published), "published {published}, granted {granted}");
            match publish.qos {
                0 => {}
                1 => subscriber.send(&wire::puback(publish.id())),
                _ => subscriber.complete_qos2(&publish),
            }
        }
        subscriber.expect_nothing();
        subscriber.disconnect();
    }
}

#[test]
fn mqtt_4_3_1_1_qos_0_goes_out_once_with_qos_0_and_no_dup() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient::persistent(broker.addr(), "subscriber");
    subscriber.subscribe("t", 0);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for qos in 0..=2 {
        publisher.publish("t", qos, "x");
        subscriber.expect(&[0x30, 0x04, 0x00, 0x01, b't', b'x']);
    }
    subscriber.vanish();
    RawClient::resume(broker.addr(), "subscriber").expect_nothing();
}

#[test]
fn payloads_of_any_bytes_and_of_none_pass_unchanged() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("t", 1);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    let every_byte: Vec<u8> = (0..=255).collect();
    for qos in 0..=1 {
        for payload in [&b""[..], b"\0", &every_byte, b"\xC0\x80", b"+/#"] {
            publisher.publish("t", qos, payload);
            let publish = subscriber.expect_message("t", payload);
            if qos == 1 {
                subscriber.send(&wire::puback(publish.id()));
            }
        }
    }
}

#[test]
fn a_publisher_gets_its_own_message_when_it_subscribes() {
    let broker = TestBroker::start();
    let mut client = RawClient::clean(broker.addr(), "both");
    client.subscribe("mine", 0);
    client.send(&wire::publish_qos0("mine", "echo"));
    client.expect_message("mine", "echo");
}

#[test]
fn packet_id_0_closes_the_connection() {
    let broker = TestBroker::start();
    let mut watcher = RawClient::clean(broker.addr(), "watcher");
    watcher.subscribe("t", 0);
    closes(&broker, &wire::publish_qos1(0, "t", "x"));
    closes(&broker, &wire::publish_qos2(0, "t", "x"));
    watcher.expect_nothing();
}

#[test]
fn many_publishes_in_one_segment_are_all_delivered_in_order() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("burst", 0);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    let burst: Vec<u8> =
        (0..2000).flat_map(|number: i32| wire::publish_qos0("burst", number.to_string())).collect();
    publisher.send(&burst);
    for number in 0..2000 {
        let ServerPacket::Publish(publish) = subscriber.expect_packet() else { panic!("expected PUBLISH") };
        assert_eq!(publish.text(), number.to_string());
    }
}
