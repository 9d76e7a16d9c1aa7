//! UNSUBSCRIBE and UNSUBACK (sections 3.10, 3.11).

use crate::support::wire::{self, field, packet};
use crate::support::{RawClient, ServerPacket, TestBroker};

#[track_caller]
fn closes(broker: &TestBroker, bytes: &[u8]) {
    let mut client = RawClient::clean(broker.addr(), "wrong");
    client.send(bytes);
    client.expect_closed();
}

#[test]
fn mqtt_3_10_1_1_flag_bits_other_than_0010_close_the_connection() {
    let broker = TestBroker::start();
    let body = [&[0, 1][..], &field("t")].concat();
    for flags in (0..=15).filter(|flags| *flags != 2) {
        closes(&broker, &packet(0xA0 | flags, &body));
    }
}

#[test]
fn mqtt_3_10_3_1_filters_are_valid_utf_8() {
    let broker = TestBroker::start();
    for filter in [&b"a\xFF"[..], b"\xC0\x80", b"a/\xED\xA0\x80", b"a/\xE2\x82"] {
        closes(&broker, &wire::unsubscribe(1, &[filter]));
    }
}

#[test]
fn filters_that_could_never_be_subscribed_close_the_connection() {
    let broker = TestBroker::start();
    for filter in ["", "a/#/b", "#/a", "a+", "+a/b", "a#"] {
        closes(&broker, &wire::unsubscribe(1, &[filter]));
    }
}

#[test]
fn mqtt_3_10_3_2_an_unsubscribe_without_filter_is_a_violation() {
    let broker = TestBroker::start();
    closes(&broker, &packet(0xA2, &[0x00, 0x01]));
    closes(&broker, &packet(0xA2, &[]));
}

#[test]
fn mqtt_3_10_4_1_filters_are_compared_byte_by_byte() {
    let broker = TestBroker::start();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for (filter, topic) in [("a/b", "a/b"), ("a/+", "a/b"), ("a/#", "a/b"), ("A/é", "A/é")] {
        let mut client = RawClient::clean(broker.addr(), "client");
        client.subscribe(filter, 0);
        let others =
            ["a/b", "a/+", "a/#", "+/b", "#", "a", "a/b/", "/a/b", "A/b", "a/B", "A/e\u{301}", "a/é"];
        for other in others.into_iter().filter(|other| *other != filter) {
            client.unsubscribe(other);
        }
        publisher.publish(topic, 0, "still");
        client.expect_message(topic, "still");
        client.unsubscribe(filter);
        publisher.publish(topic, 0, "gone");
        client.expect_nothing();
        client.disconnect();
    }
}

#[test]
fn mqtt_3_10_4_2_after_unsuback_nothing_new_is_sent_or_queued() {
    let broker = TestBroker::start();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for (filter, topic) in [("plain", "plain"), ("wild/+", "wild/x"), ("deep/a/b/#", "deep/a/b/c")] {
        let mut client = RawClient::persistent(broker.addr(), filter);
        client.subscribe(filter, 1);
        publisher.publish(topic, 1, "before");
        client.expect_message_and_ack(topic, "before");
        client.unsubscribe(filter);
        // The publisher has just sent on this topic: a remembered route would show here.
        publisher.publish(topic, 1, "after");
        publisher.publish(topic, 0, "after");
        client.expect_nothing();
        client.disconnect();
        publisher.publish(topic, 1, "away");
        RawClient::resume(broker.addr(), filter).expect_nothing();
    }
}

#[test]
fn mqtt_3_10_4_3_deliveries_that_have_begun_are_completed() {
    let broker = TestBroker::start();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    let mut client = RawClient::persistent(broker.addr(), "client");
    client.subscribe("t", 2);
    for (qos, payload) in [(1, "one"), (2, "open"), (2, "half")] {
        publisher.publish("t", qos, payload);
    }
    let one = client.expect_message("t", "one");
    let open = client.expect_message("t", "open");
    let half = client.expect_message("t", "half");
    client.send(&wire::pubrec(half.id()));
    client.expect(&wire::pubrel(half.id()));
    client.unsubscribe("t");
    client.vanish();
    let mut client = RawClient::resume(broker.addr(), "client");
    let mut packets = client.packets_until_ping();
    packets.retain(|packet| *packet != ServerPacket::PubRel(half.id()));
    let again: Vec<(String, u16, bool)> = packets
        .into_iter()
        .map(|packet| match packet {
            ServerPacket::Publish(publish) => (publish.text(), publish.id(), publish.dup),
            other => panic!("expected PUBLISH, got {other:?}"),
        })
        .collect();
    assert_eq!(again, [("one".to_owned(), one.id(), true), ("open".to_owned(), open.id(), true)]);
    client.send(&wire::puback(one.id()));
    client.complete_qos2(&open);
    client.send(&wire::pubcomp(half.id()));
    client.vanish();
    RawClient::resume(broker.addr(), "client").expect_nothing();
}

#[test]
fn mqtt_3_10_4_4_unsuback_has_the_id_of_the_request() {
    let broker = TestBroker::start();
    let mut client = RawClient::clean(broker.addr(), "client");
    client.subscribe("t", 0);
    client.send(&wire::unsubscribe(0xABCD, &["t"]));
    client.expect(&[0xB0, 0x02, 0xAB, 0xCD]);
    client.expect_nothing();
}

#[test]
fn mqtt_3_10_4_5_unsuback_comes_also_when_nothing_matched() {
    let broker = TestBroker::start();
    let mut client = RawClient::clean(broker.addr(), "client");
    for (id, filter) in [(1, "never"), (2, "#"), (3, "never/+"), (4, "never")] {
        client.send(&wire::unsubscribe(id, &[filter]));
        client.expect(&[0xB0, 0x02, 0x00, id as u8]);
    }
}

#[test]
fn mqtt_3_10_4_6_several_filters_get_one_unsuback() {
    let broker = TestBroker::start();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    let mut client = RawClient::clean(broker.addr(), "client");
    client.subscribe_all(&[("a", 0), ("b/+", 0), ("c/#", 0), ("stays", 0)]);
    client.send(&wire::unsubscribe(7, &["a", "never", "b/+", "a", "c/#"]));
    client.expect(&[0xB0, 0x02, 0x00, 0x07]);
    for topic in ["a", "b/x", "c/x", "stays"] {
        publisher.publish(topic, 0, topic);
    }
    client.expect_message("stays", "stays");
    client.expect_nothing();
}

#[test]
fn the_subscription_of_another_client_stays() {
    let broker = TestBroker::start();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    let mut clients: Vec<RawClient> = (0..10)
        .map(|number| {
            let mut client = RawClient::clean(broker.addr(), &format!("client-{number}"));
            client.subscribe_all(&[("t", 0), ("w/+", 0)]);
            client
        })
        .collect();
    for at in [0, 9, 4, 5, 1, 8, 2, 7, 3] {
        clients[at].unsubscribe("t");
        clients[at].unsubscribe("w/+");
    }
    publisher.publish("t", 0, "x");
    publisher.publish("w/x", 0, "y");
    for (at, client) in clients.iter_mut().enumerate() {
        if at == 6 {
            client.expect_message("t", "x");
            client.expect_message("w/x", "y");
        }
        client.expect_nothing();
    }
}
