//! Overlapping subscriptions of one client (section 3.3.5). TernMQ delivers one copy, at the highest granted QoS.

use crate::support::wire;
use crate::support::{RawClient, TestBroker, broker};

#[test]
fn mqtt_3_3_5_1_one_copy_at_the_highest_granted_qos() {
    if broker::skipped_on_mosquitto("its one copy is not always at the highest QoS") {
        return;
    }
    let broker = TestBroker::start();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    let sets: [&[(&str, u8)]; 6] = [
        &[("a/b", 0), ("a/+", 2), ("#", 1)],
        &[("a/b", 2), ("a/+", 1), ("#", 0)],
        &[("a/#", 1), ("+/b", 2)],
        &[("+/+", 0), ("a/+", 0), ("+/b", 0), ("a/b/#", 1)],
        &[("#", 2), ("a/b", 0)],
        &[("a/b", 1), ("a/#", 1), ("a/b/#", 1)],
    ];
    for filters in sets {
        let highest = filters.iter().map(|(_, qos)| *qos).max().unwrap_or(0);
        for separately in [false, true] {
            let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
            if separately {
                filters.iter().for_each(|(filter, qos)| subscriber.subscribe(filter, *qos));
            } else {
                subscriber.subscribe_all(filters);
            }
            for published in 0..=2 {
                publisher.publish("a/b", published, "x");
                let publish = subscriber.expect_message("a/b", "x");
                assert_eq!(publish.qos, published.min(highest), "{filters:?} published at {published}");
                match publish.qos {
                    0 => {}
                    1 => subscriber.send(&wire::puback(publish.id())),
                    _ => subscriber.complete_qos2(&publish),
                }
                subscriber.expect_nothing();
            }
            subscriber.disconnect();
        }
    }
}

#[test]
fn without_the_highest_filter_the_next_one_decides() {
    if broker::skipped_on_mosquitto("its one copy is not always at the highest QoS") {
        return;
    }
    let broker = TestBroker::start();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe_all(&[("a", 2), ("+", 1), ("#", 0)]);
    for (removed, qos) in [("none", 2), ("a", 1), ("+", 0)] {
        subscriber.unsubscribe(removed);
        publisher.publish("a", 2, "x");
        let publish = subscriber.expect_message("a", "x");
        assert_eq!(publish.qos, qos);
        match qos {
            0 => {}
            1 => subscriber.send(&wire::puback(publish.id())),
            _ => subscriber.complete_qos2(&publish),
        }
    }
    subscriber.unsubscribe("#");
    publisher.publish("a", 2, "x");
    subscriber.expect_nothing();
}

#[test]
fn one_copy_is_queued_for_an_absent_client() {
    if broker::skipped_on_mosquitto("its one copy is not always at the highest QoS") {
        return;
    }
    let broker = TestBroker::start();
    let mut subscriber = RawClient::persistent(broker.addr(), "subscriber");
    subscriber.subscribe_all(&[("a/b", 0), ("a/+", 1), ("#", 2)]);
    subscriber.disconnect();
    RawClient::clean(broker.addr(), "publisher").publish("a/b", 2, "x");
    let mut subscriber = RawClient::resume(broker.addr(), "subscriber");
    let publish = subscriber.expect_message("a/b", "x");
    subscriber.complete_qos2(&publish);
    subscriber.expect_nothing();
}

#[test]
fn overlapping_filters_of_different_clients_get_a_copy_each() {
    let broker = TestBroker::start();
    let mut clients: Vec<RawClient> = ["a/b", "a/+", "a/#", "#"]
        .into_iter()
        .map(|filter| {
            let mut client = RawClient::clean(broker.addr(), filter);
            client.subscribe(filter, 0);
            client
        })
        .collect();
    RawClient::clean(broker.addr(), "publisher").publish("a/b", 0, "x");
    for client in &mut clients {
        client.expect_message("a/b", "x");
        client.expect_nothing();
    }
}
