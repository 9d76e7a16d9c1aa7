//! Sessions: what is kept, what ends with the connection (sections 3.1.2.4, 4.1, 4.4, 4.5).

use crate::support::wire;
use crate::support::{Connect, RawClient, ServerPacket, TestBroker};

#[test]
fn mqtt_3_1_2_4_clean_session_0_goes_on_with_the_stored_session() {
    let broker = TestBroker::start();
    let mut client = RawClient::persistent(broker.addr(), "client");
    client.subscribe("exact", 1);
    client.subscribe("wild/+", 2);
    client.subscribe("zero", 0);
    client.disconnect();
    let mut client = RawClient::resume(broker.addr(), "client");
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for (topic, qos) in [("exact", 1), ("wild/x", 2), ("zero", 0)] {
        publisher.publish(topic, 2, topic);
        assert_eq!(client.expect_message(topic, topic).qos, qos);
    }
    // The same after a loss of the connection.
    client.reset();
    let mut client = RawClient::resume(broker.addr(), "client");
    client.packets_until_ping();
    publisher.publish("exact", 1, "again");
    client.expect_message_and_ack("exact", "again");
}

#[test]
fn mqtt_3_1_2_5_messages_for_an_absent_client_are_kept() {
    let broker = TestBroker::start();
    let mut client = RawClient::persistent(broker.addr(), "client");
    client.subscribe("kept/#", 2);
    client.disconnect();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for number in 0..200 {
        publisher.publish("kept/x", 1 + number % 2, number.to_string());
        publisher.publish("other", 1, "not subscribed");
    }
    let mut client = RawClient::resume(broker.addr(), "client");
    let mut next = 0;
    while next < 200 {
        match client.expect_packet() {
            ServerPacket::Publish(publish) => {
                assert_eq!((publish.text(), publish.qos), (next.to_string(), 1 + next % 2));
                assert!(!publish.dup && !publish.retain && publish.topic == "kept/x", "{publish:?}");
                let answer = if publish.qos == 1 { wire::puback } else { wire::pubrec };
                client.send(&answer(publish.id()));
                next += 1;
            }
            ServerPacket::PubRel(id) => client.send(&wire::pubcomp(id)),
            other => panic!("unexpected {other:?}"),
        }
    }
}

#[test]
fn qos_0_messages_are_not_kept_for_an_absent_client() {
    let broker = TestBroker::start();
    let mut client = RawClient::persistent(broker.addr(), "client");
    client.subscribe("a", 2);
    client.subscribe("b", 0);
    client.disconnect();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    publisher.publish("a", 0, "published at QoS 0");
    publisher.publish("b", 2, "granted QoS 0");
    publisher.publish("a", 1, "kept");
    let mut client = RawClient::resume(broker.addr(), "client");
    client.expect_message_and_ack("a", "kept");
    client.expect_nothing();
}

#[test]
fn mqtt_3_1_2_6_clean_session_1_starts_from_nothing_and_leaves_nothing() {
    let broker = TestBroker::start();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    let mut client = RawClient::persistent(broker.addr(), "client");
    client.subscribe("t", 1);
    publisher.publish("t", 1, "in flight");
    client.expect_message("t", "in flight");
    client.vanish();
    publisher.publish("t", 1, "queued");
    let mut client = RawClient::clean(broker.addr(), "client");
    publisher.publish("t", 1, "subscription is gone");
    client.expect_nothing();
    client.subscribe("t", 1);
    publisher.publish("t", 1, "new");
    client.expect_message("t", "new");
    client.vanish();
    publisher.publish("t", 1, "nobody");
    // Neither the stored session nor the clean one is there.
    let mut client = RawClient::persistent(broker.addr(), "client");
    client.expect_nothing();
}

#[test]
fn mqtt_3_1_2_7_retained_messages_outlive_the_session() {
    let broker = TestBroker::start();
    for (connect, topic) in [(Connect::new("c"), "clean"), (Connect::persistent("p"), "persistent")] {
        let (mut publisher, _) = RawClient::open(broker.addr(), &connect);
        publisher.publish_retained(topic, 1, "kept");
        publisher.disconnect();
    }
    RawClient::clean(broker.addr(), "p").disconnect();
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("clean", 1);
    subscriber.expect_message_and_ack("clean", "kept");
    subscriber.subscribe("persistent", 1);
    subscriber.expect_message_and_ack("persistent", "kept");
}

#[test]
fn mqtt_3_1_4_3_each_connect_decides_anew_about_the_session() {
    let broker = TestBroker::start();
    // CleanSession of one connection after the other, and the session present that has to come back.
    let history = [
        (false, false),
        (false, true),
        (true, false),
        (false, false),
        (false, true),
        (true, false),
        (true, false),
    ];
    for (clean_session, session_present) in history {
        let connect = if clean_session { Connect::new("c") } else { Connect::persistent("c") };
        let (client, present) = RawClient::open(broker.addr(), &connect);
        assert_eq!(present, session_present, "CleanSession {clean_session}");
        client.disconnect();
    }
}

#[test]
fn mqtt_4_1_0_1_every_part_of_the_state_is_kept_for_the_length_of_the_session() {
    let broker = TestBroker::start();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    let mut client = RawClient::persistent(broker.addr(), "client");
    client.subscribe("t", 2);
    // Sent and not finished, both kinds; received at QoS 2 and not released; queued while away.
    publisher.publish("t", 1, "unacknowledged");
    let unacknowledged = client.expect_message("t", "unacknowledged").id();
    publisher.publish("t", 2, "half");
    let half = client.expect_message("t", "half").id();
    client.send(&wire::pubrec(half));
    client.expect(&wire::pubrel(half));
    client.send(&wire::publish_qos2(400, "elsewhere", "x"));
    client.expect(&wire::pubrec(400));
    client.vanish();
    publisher.publish("t", 1, "queued");
    for _ in 0..2 {
        let mut client = RawClient::resume(broker.addr(), "client");
        let packets = client.packets_until_ping();
        assert!(packets.contains(&ServerPacket::PubRel(half)), "{packets:?}");
        let publishes: Vec<(String, u16)> = packets
            .iter()
            .filter_map(|packet| match packet {
                ServerPacket::Publish(publish) => Some((publish.text(), publish.id())),
                _ => None,
            })
            .collect();
        assert_eq!(publishes[0], ("unacknowledged".to_owned(), unacknowledged));
        assert_eq!((publishes[1].0.as_str(), publishes.len(), packets.len()), ("queued", 2, 3));
        client.vanish();
    }
    let mut watcher = RawClient::clean(broker.addr(), "watcher");
    watcher.subscribe("elsewhere", 0);
    let mut client = RawClient::resume(broker.addr(), "client");
    client.packets_until_ping();
    client.send(&wire::raw_publish(0x0C, "elsewhere", Some(400), "x"));
    client.expect(&wire::pubrec(400));
    client.send(&wire::pubrel(400));
    client.expect(&wire::pubcomp(400));
    // It was handed on before the watcher came, or is now; but not twice.
    assert!(watcher.packets_until_ping().len() <= 1);
}

#[test]
fn mqtt_4_1_0_2_a_session_lasts_as_long_as_its_connection() {
    let broker = TestBroker::start();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    let mut client = RawClient::clean(broker.addr(), "client");
    client.subscribe("t", 2);
    publisher.publish("t", 2, "open");
    let open = client.expect_message("t", "open");
    // Other clients come and go.
    for number in 0..50 {
        RawClient::clean(broker.addr(), &format!("other-{number}")).disconnect();
    }
    client.complete_qos2(&open);
    publisher.publish("t", 2, "still subscribed");
    let publish = client.expect_message("t", "still subscribed");
    client.complete_qos2(&publish);
}

#[test]
fn mqtt_4_5_0_1_every_matching_session_gets_the_message() {
    let broker = TestBroker::start();
    let filters = ["t/x", "t/+", "t/#", "#", "+/x"];
    let mut present = Vec::new();
    for (number, filter) in filters.into_iter().cycle().take(20).enumerate() {
        let mut online = RawClient::clean(broker.addr(), &format!("online-{number}"));
        online.subscribe(filter, 1);
        present.push(online);
        let mut absent = RawClient::persistent(broker.addr(), &format!("absent-{number}"));
        absent.subscribe(filter, 1);
        absent.disconnect();
    }
    let mut unconcerned = RawClient::clean(broker.addr(), "unconcerned");
    unconcerned.subscribe("t", 1);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    publisher.publish("t/x", 1, "one");
    publisher.publish("t/x", 2, "two");
    let absent = (0..20).map(|number| RawClient::resume(broker.addr(), &format!("absent-{number}")));
    for mut client in present.into_iter().chain(absent) {
        client.expect_message_and_ack("t/x", "one");
        client.expect_message_and_ack("t/x", "two");
        client.expect_nothing();
    }
    unconcerned.expect_nothing();
}

#[test]
fn changes_of_subscriptions_are_part_of_the_stored_session() {
    let broker = TestBroker::start();
    let mut client = RawClient::persistent(broker.addr(), "client");
    client.subscribe_all(&[("a", 1), ("b", 1), ("c", 2)]);
    client.unsubscribe("a");
    client.subscribe("c", 1);
    client.reset();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    // Take over the old connection, should the broker not have noticed yet that it is gone.
    RawClient::resume(broker.addr(), "client").disconnect();
    for topic in ["a", "b", "c"] {
        publisher.publish(topic, 2, topic);
    }
    let mut client = RawClient::resume(broker.addr(), "client");
    client.expect_message_and_ack("b", "b");
    client.expect_message_and_ack("c", "c");
    client.expect_nothing();
}
