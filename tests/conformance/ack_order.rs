//! Order of acknowledgements and of messages (section 4.6).

use crate::support::wire;
use crate::support::{RawClient, TestBroker};

/// 500 packet ids in an order that is neither rising nor falling.
fn shuffled_ids() -> Vec<u16> {
    (0..500u32).map(|at| (at * 7919 % 60_000 + 1) as u16).collect()
}

#[test]
fn mqtt_4_6_0_2_pubacks_come_in_the_order_of_the_publishes() {
    let broker = TestBroker::start();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    let ids = shuffled_ids();
    publisher.send(&ids.iter().flat_map(|id| wire::publish_qos1(*id, "t", "x")).collect::<Vec<u8>>());
    publisher.expect(&ids.iter().flat_map(|id| wire::puback(*id)).collect::<Vec<u8>>());
}

#[test]
fn mqtt_4_6_0_3_pubrecs_come_in_the_order_of_the_publishes() {
    let broker = TestBroker::start();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    // Few enough for any limit on open exchanges of one client.
    let ids = &shuffled_ids()[..15];
    publisher.send(&ids.iter().flat_map(|id| wire::publish_qos2(*id, "t", "x")).collect::<Vec<u8>>());
    publisher.expect(&ids.iter().flat_map(|id| wire::pubrec(*id)).collect::<Vec<u8>>());
    publisher.send(&ids.iter().rev().flat_map(|id| wire::pubrel(*id)).collect::<Vec<u8>>());
    publisher.expect(&ids.iter().rev().flat_map(|id| wire::pubcomp(*id)).collect::<Vec<u8>>());
}

#[test]
fn mqtt_4_6_0_4_pubrels_come_in_the_order_of_the_pubrecs() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("t", 2);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    let mut ids = Vec::new();
    for number in 0..10 {
        publisher.publish("t", 2, number.to_string());
        ids.push(subscriber.expect_message("t", number.to_string()).id());
    }
    let order = [3, 0, 9, 1, 8, 2, 7, 6, 5, 4].map(|at| ids[at]);
    subscriber.send(&order.iter().flat_map(|id| wire::pubrec(*id)).collect::<Vec<u8>>());
    subscriber.expect(&order.iter().flat_map(|id| wire::pubrel(*id)).collect::<Vec<u8>>());
    subscriber.send(&order.iter().flat_map(|id| wire::pubcomp(*id)).collect::<Vec<u8>>());
    subscriber.expect_nothing();
}

#[test]
fn mqtt_4_6_0_5_every_topic_is_ordered_by_default() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("#", 1);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    let topics = ["a", "a/b", "c/d/e", "/", "$none"];
    let mut burst = Vec::new();
    for number in 0..200u16 {
        burst.extend(wire::publish_qos1(number + 1, topics[usize::from(number) % 4], number.to_string()));
    }
    publisher.send(&burst);
    let mut next = [0u16, 1, 2, 3];
    for _ in 0..200 {
        let publish = subscriber.expect_publish();
        subscriber.send(&wire::puback(publish.id()));
        let at = topics.iter().position(|topic| *topic == publish.topic).expect("a topic of this test");
        assert_eq!(publish.text(), next[at].to_string(), "on {}", publish.topic);
        next[at] += 4;
    }
}

#[test]
fn mqtt_4_6_0_6_messages_of_one_publisher_stay_in_order_at_each_qos() {
    let broker = TestBroker::start();
    let mut subscribers: Vec<RawClient> = (0..=2)
        .map(|qos| {
            let mut subscriber = RawClient::clean(broker.addr(), &format!("subscriber-{qos}"));
            subscriber.subscribe("order", qos);
            subscriber
        })
        .collect();
    let count = 300u16;
    // Two publishers at once: each one's messages stay in order, whatever comes of the mixture.
    let mut publishers = ["a", "b"].map(|name| RawClient::clean(broker.addr(), name));
    for number in 0..count {
        for (publisher, name) in publishers.iter_mut().zip(["a", "b"]) {
            publisher.send(&wire::publish_qos2(number + 1, "order", format!("{name}{number}")));
        }
        for publisher in &mut publishers {
            publisher.expect(&wire::pubrec(number + 1));
            publisher.send(&wire::pubrel(number + 1));
        }
        for publisher in &mut publishers {
            publisher.expect(&wire::pubcomp(number + 1));
        }
        for (subscriber, qos) in subscribers.iter_mut().zip(0..) {
            for _ in ["a", "b"] {
                let publish = subscriber.expect_publish();
                assert_eq!(publish.qos, qos);
                assert_eq!(publish.text()[1..], number.to_string());
                match qos {
                    0 => {}
                    1 => subscriber.send(&wire::puback(publish.id())),
                    _ => subscriber.send(&wire::pubrec(publish.id())),
                }
            }
            if qos == 2 {
                for _ in ["a", "b"] {
                    let crate::support::ServerPacket::PubRel(id) = subscriber.expect_packet() else {
                        panic!("expected PUBREL")
                    };
                    subscriber.send(&wire::pubcomp(id));
                }
            }
        }
    }
}

#[test]
fn order_holds_across_the_border_of_the_window_and_an_absence() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient::persistent(broker.addr(), "subscriber");
    subscriber.subscribe("order", 1);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for number in 0..150 {
        publisher.publish("order", 1, number.to_string());
    }
    // 10 acknowledged, then away while 50 more come.
    for number in 0..10 {
        subscriber.expect_message_and_ack("order", number.to_string());
    }
    subscriber.expect_message("order", "10");
    subscriber.vanish();
    for number in 150..200 {
        publisher.publish("order", 1, number.to_string());
    }
    let mut subscriber = RawClient::resume(broker.addr(), "subscriber");
    for number in 200..210 {
        publisher.publish("order", 1, number.to_string());
    }
    for number in 10..210 {
        subscriber.expect_message_and_ack("order", number.to_string());
    }
    subscriber.expect_nothing();
}
