//! CONNECT: when it may come, protocol name and level, client ids (sections 3.1, 3.1.2.1, 3.1.2.2, 3.1.3, 3.1.4).

use crate::support::wire::{self, PINGREQ, field, packet, raw_connect};
use crate::support::{Connect, RawClient, ServerPacket, Settings, TestBroker, broker};
use std::time::Duration;

const ACCEPTED: [u8; 4] = [0x20, 0x02, 0x00, 0x00];

#[test]
fn mqtt_3_1_0_1_any_first_packet_but_connect_closes_the_connection() {
    let broker = TestBroker::start();
    let first_packets: [Vec<u8>; 13] = [
        wire::publish_qos0("first", "x"),
        wire::publish_qos1(1, "first", "x"),
        wire::publish_qos2(1, "first", "x"),
        wire::puback(1),
        wire::pubrec(1),
        wire::pubrel(1),
        wire::pubcomp(1),
        wire::subscribe(1, &[("#", 0)]),
        wire::unsubscribe(1, &["#"]),
        PINGREQ.to_vec(),
        wire::DISCONNECT.to_vec(),
        vec![0x20, 0x02, 0x00, 0x00],
        vec![0xD0, 0x00],
    ];
    let mut watcher = RawClient::clean(broker.addr(), "watcher");
    watcher.subscribe("first", 0);
    for first in first_packets {
        let mut client = RawClient::connect(broker.addr());
        client.send(&first);
        client.expect_closed();
    }
    watcher.expect_nothing();
}

#[test]
fn mqtt_3_1_0_1_a_connect_behind_another_first_packet_is_not_looked_at() {
    let broker = TestBroker::start();
    let mut client = RawClient::connect(broker.addr());
    let mut bytes = PINGREQ.to_vec();
    bytes.extend(Connect::new("late").bytes());
    client.send(&bytes);
    client.expect_closed();
}

#[test]
fn mqtt_3_1_0_2_second_connect_closes_the_connection() {
    let broker = TestBroker::start();
    for second in [Connect::new("twice"), Connect::persistent("twice"), Connect::new("other")] {
        let mut client = RawClient::clean(broker.addr(), "twice");
        client.send(&second.bytes());
        client.expect_closed();
    }
}

#[test]
fn mqtt_3_1_0_2_second_connect_in_the_same_segment_closes_the_connection() {
    let broker = TestBroker::start();
    let mut client = RawClient::connect(broker.addr());
    client.send(&[Connect::new("twice").bytes(), Connect::new("twice").bytes()].concat());
    let answers = client.packets_until_closed();
    assert!(answers.iter().all(|answer| *answer == ServerPacket::ConnAck(false, 0)), "{answers:?}");
    assert!(answers.len() <= 1, "{answers:?}");
}

#[test]
fn mqtt_3_1_2_1_unknown_protocol_name_is_not_served() {
    let broker = TestBroker::start();
    for name in ["", "MQT", "mqtt", "MQTT ", "MQTTX", "mqisdp", "MQIsdp\0", "HTTP", "\u{FEFF}MQTT"] {
        let mut client = RawClient::connect(broker.addr());
        client.send(&raw_connect(name, 4, 0x02, 0, &[b"name"]));
        client.expect_closed();
    }
}

#[test]
fn mqtt_3_1_2_2_unknown_protocol_level_gets_return_code_1() {
    let broker = TestBroker::start();
    for level in [0, 1, 2, 6, 7, 0x7F, 0xFF] {
        let mut client = RawClient::connect(broker.addr());
        client.send(&raw_connect("MQTT", level, 0x02, 0, &[b"level"]));
        client.expect(&[0x20, 0x02, 0x00, 0x01]);
        client.expect_closed();
    }
}

#[test]
fn mqtt_3_1_2_2_level_of_the_other_version_under_a_name_gets_return_code_1() {
    if broker::skipped_on_mosquitto("it closes without CONNACK when name and level do not fit together") {
        return;
    }
    let broker = TestBroker::start();
    for (name, level) in [("MQTT", 3), ("MQIsdp", 4), ("MQIsdp", 2)] {
        let mut client = RawClient::connect(broker.addr());
        client.send(&raw_connect(name, level, 0x02, 0, &[b"level"]));
        client.expect(&[0x20, 0x02, 0x00, 0x01]);
        client.expect_closed();
    }
}

#[test]
fn clients_of_mqtt_3_1_are_served() {
    let broker = TestBroker::start();
    let mut client = RawClient::connect(broker.addr());
    client.send(&raw_connect("MQIsdp", 3, 0x02, 0, &[b"old"]));
    client.expect(&ACCEPTED);
    client.subscribe("old/topic", 2);
    let mut publisher = RawClient::clean(broker.addr(), "new");
    publisher.publish("old/topic", 2, "still here");
    let publish = client.expect_message("old/topic", "still here");
    client.complete_qos2(&publish);
    client.expect_nothing();
}

#[test]
fn mqtt_3_1_3_2_the_client_id_names_the_session() {
    let broker = TestBroker::start();
    let mut first = RawClient::persistent(broker.addr(), "Device");
    first.subscribe("named", 1);
    first.disconnect();
    // Ids are compared byte by byte: neither case, nor spaces, nor a prefix make them equal.
    for other in ["device", "Devic", "Device1", " Device", "Device "] {
        RawClient::persistent(broker.addr(), other).expect_nothing();
    }
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    publisher.publish("named", 1, "for Device");
    let mut again = RawClient::resume(broker.addr(), "Device");
    again.expect_message_and_ack("named", "for Device");
}

#[test]
fn mqtt_3_1_3_3_a_connect_without_client_id_field_is_malformed() {
    let broker = TestBroker::start();
    let mut client = RawClient::connect(broker.addr());
    client.send(&raw_connect("MQTT", 4, 0x02, 0, &[]));
    client.expect_closed();
}

#[test]
fn mqtt_3_1_3_5_ids_of_1_to_23_letters_and_digits_are_accepted() {
    let broker = TestBroker::start();
    let alphabet = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for length in 1..=23 {
        for start in [0, 20, 39] {
            RawClient::clean(broker.addr(), &alphabet[start..start + length]);
        }
    }
}

#[test]
fn longer_and_stranger_ids_are_accepted_too() {
    let broker = TestBroker::start();
    let long = "x".repeat(1000);
    for client_id in ["sensor-7/äöü", "a b", "#", "+", "$SYS", "/", "__proto__", long.as_str()] {
        let mut client = RawClient::clean(broker.addr(), client_id);
        client.subscribe("strange", 1);
        client.expect_nothing();
    }
}

#[test]
fn mqtt_3_1_3_6_clients_with_an_empty_id_get_one_of_their_own_each() {
    let broker = TestBroker::start();
    let mut clients: Vec<RawClient> = (0..5).map(|_| RawClient::clean(broker.addr(), "")).collect();
    // The same id would have closed the ones before it.
    for client in &mut clients {
        client.subscribe("unnamed", 0);
    }
    RawClient::clean(broker.addr(), "publisher").publish("unnamed", 0, "to all");
    for client in &mut clients {
        client.expect_message("unnamed", "to all");
        client.expect_nothing();
    }
}

#[test]
fn mqtt_3_1_3_8_empty_id_with_clean_session_0_gets_return_code_2() {
    let broker = TestBroker::start();
    let mut client = RawClient::connect(broker.addr());
    client.send(&Connect::persistent("").bytes());
    client.expect(&[0x20, 0x02, 0x00, 0x02]);
    client.expect_closed();
}

#[test]
fn mqtt_3_1_3_9_after_the_refused_id_the_connection_is_closed_and_a_good_id_works() {
    let broker = TestBroker::start();
    let mut client = RawClient::connect(broker.addr());
    client.send(&[Connect::persistent("").bytes(), Connect::new("good").bytes()].concat());
    client.expect(&[0x20, 0x02, 0x00, 0x02]);
    client.expect_closed();
    RawClient::clean(broker.addr(), "good").expect_nothing();
}

#[test]
fn mqtt_3_1_4_1_malformed_connect_is_closed_without_connack() {
    let broker = TestBroker::start();
    let good = Connect::new("m").will("w", "x", 1, true).user_name("u").password("p").bytes();
    let body = &good[2..];
    // Every strict prefix of the body, with a remaining length that claims it is whole.
    for length in 0..body.len() {
        let mut client = RawClient::connect(broker.addr());
        client.send(&packet(0x10, &body[..length]));
        client.expect_closed();
    }
}

#[test]
fn mqtt_3_1_4_1_bytes_behind_the_last_field_are_malformed() {
    if broker::skipped_on_mosquitto("it takes a CONNECT with bytes behind the last field") {
        return;
    }
    let broker = TestBroker::start();
    for trailing in [vec![0], field(""), field("user name without flag")] {
        let mut body = Connect::new("m").bytes()[2..].to_vec();
        body.extend(trailing);
        let mut client = RawClient::connect(broker.addr());
        client.send(&packet(0x10, &body));
        client.expect_closed();
    }
}

#[test]
fn mqtt_3_1_4_4_a_good_connect_is_answered_with_return_code_0() {
    let broker = TestBroker::start();
    let variants = [
        Connect::new("good"),
        Connect::persistent("good"),
        Connect::new("good").keep_alive(65535),
        Connect::new("good").user_name("user"),
        Connect::new("good").user_name("user").password("secret"),
        Connect::new("good").will("will", "gone", 2, true).user_name("user").password("secret"),
    ];
    for connect in variants {
        let (client, _) = RawClient::open(broker.addr(), &connect);
        client.disconnect();
    }
}

#[test]
fn mqtt_3_1_4_5_what_follows_a_refused_connect_is_ignored() {
    let broker = TestBroker::start();
    let mut watcher = RawClient::clean(broker.addr(), "watcher");
    watcher.subscribe("#", 0);
    let refused = [Connect::persistent("").bytes(), raw_connect("MQTT", 6, 0x02, 0, &[b"level"])];
    for connect in refused {
        let mut client = RawClient::connect(broker.addr());
        client.send(&[connect, wire::publish_qos0("behind", "x"), PINGREQ.to_vec()].concat());
        let answers = client.packets_until_closed();
        assert!(matches!(answers[..], [ServerPacket::ConnAck(false, 1 | 2)]), "{answers:?}");
    }
    RawClient::clean(broker.addr(), "marker").publish("marker", 0, "x");
    watcher.expect_message("marker", "x");
}

#[test]
fn the_will_of_a_refused_connect_is_not_published() {
    let broker = TestBroker::start();
    let mut watcher = RawClient::clean(broker.addr(), "watcher");
    watcher.subscribe("#", 0);
    let mut client = RawClient::connect(broker.addr());
    client.send(&Connect::persistent("").will("will", "refused", 0, false).bytes());
    client.expect(&[0x20, 0x02, 0x00, 0x02]);
    client.expect_closed();
    let (doomed, _) = RawClient::open(broker.addr(), &Connect::new("d").will("will", "accepted", 0, false));
    doomed.vanish();
    watcher.expect_message("will", "accepted");
}

#[test]
fn a_client_may_send_before_it_has_the_connack() {
    let broker = TestBroker::start();
    let mut client = RawClient::connect(broker.addr());
    let segment = [
        Connect::new("eager").bytes(),
        wire::subscribe(7, &[("eager/topic", 1)]),
        wire::publish_qos1(9, "eager/topic", "to myself"),
        PINGREQ.to_vec(),
    ];
    client.send(&segment.concat());
    assert_eq!(client.expect_packet(), ServerPacket::ConnAck(false, 0));
    let mut rest: Vec<ServerPacket> = (0..4).map(|_| client.expect_packet()).collect();
    let mine =
        rest.iter().position(|packet| matches!(packet, ServerPacket::Publish(_))).expect("own message");
    let ServerPacket::Publish(publish) = rest.remove(mine) else { unreachable!() };
    assert_eq!(
        (publish.topic.as_str(), publish.text().as_str(), publish.qos),
        ("eager/topic", "to myself", 1)
    );
    // The standard orders answers of the same kind only.
    for answer in [ServerPacket::SubAck(7, vec![1]), ServerPacket::PubAck(9), ServerPacket::PingResp] {
        assert!(rest.contains(&answer), "no {answer:?} in {rest:?}");
    }
}

#[test]
fn connect_publish_disconnect_in_one_segment_delivers_the_message() {
    let broker = TestBroker::start();
    let mut watcher = RawClient::clean(broker.addr(), "watcher");
    watcher.subscribe("one/segment", 1);
    let mut client = RawClient::connect(broker.addr());
    let segment = [
        Connect::new("hasty").bytes(),
        wire::publish_qos0("one/segment", "first"),
        wire::publish_qos1(3, "one/segment", "second"),
        wire::DISCONNECT.to_vec(),
    ];
    client.send(&segment.concat());
    watcher.expect_message("one/segment", "first");
    watcher.expect_message_and_ack("one/segment", "second");
    client.packets_until_closed();
}

#[test]
fn a_connect_that_comes_byte_by_byte_is_served() {
    let broker = TestBroker::start();
    let mut client = RawClient::connect(broker.addr());
    for byte in Connect::new("slow").will("w", "x", 1, false).user_name("u").bytes() {
        client.send(&[byte]);
    }
    client.expect(&ACCEPTED);
    for byte in [wire::subscribe(1, &[("slow", 0)]), wire::publish_qos0("slow", "m")].concat() {
        client.send(&[byte]);
    }
    client.expect(&[0x90, 0x03, 0x00, 0x01, 0x00]);
    client.expect_message("slow", "m");
}

#[test]
fn a_connection_without_complete_connect_is_closed_in_time() {
    if broker::skipped_on_mosquitto("it has no such setting") {
        return;
    }
    let quick = |settings: &mut Settings| settings.connect_timeout = Duration::from_millis(300);
    let broker = TestBroker::with(quick);
    let mut silent = RawClient::connect(broker.addr());
    let mut half = RawClient::connect(broker.addr());
    half.send(&Connect::new("half").bytes()[..10]);
    let mut served = RawClient::clean(broker.addr(), "served");
    silent.expect_closed();
    half.expect_closed();
    served.expect_nothing();
}
