//! Sessions: faults of other brokers in what they keep of a client, hand over, and give back. `tests/FAULTS.md` names them.

use crate::eventually;
use crate::support::{
    Connect, Connect5, RawClient, RawClient5, ServerPacket, ServerPacket5, TestBroker, wire, wire5,
};

/// Every order of these.
fn orders<T: Copy>(of: &[T]) -> Vec<Vec<T>> {
    if of.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (n, first) in of.iter().enumerate() {
        let rest: Vec<T> = [&of[..n], &of[n + 1..]].concat();
        all.extend(orders(&rest).into_iter().map(|mut order| {
            order.insert(0, *first);
            order
        }));
    }
    all
}

/// One client subscribes to one root as itself and in groups, and gives up in every order; after each step it gets what its
/// subscriptions say, and in the end nothing is left.
#[test]
fn plain_and_shared_subscriptions_on_one_root_come_and_go_in_any_order() {
    let broker = TestBroker::start();
    let filters = ["r/a", "$share/g/r/a", "$share/h/r/a", "r/#"];
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    for (n, order) in orders(&filters).into_iter().enumerate() {
        let mut client = RawClient5::clean(broker.addr(), &format!("client-{n}"));
        let mut expect = |client: &mut RawClient5, subscribed: &[&str]| {
            publisher.publish("r/a", 1, "x");
            // The plain ones give one copy together, each group one of its own.
            let copies = usize::from(subscribed.iter().any(|filter| !filter.starts_with('$')))
                + subscribed.iter().filter(|filter| filter.starts_with('$')).count();
            assert_eq!(client.publishes_until_ping().len(), copies, "{order:?}: {subscribed:?}");
        };
        for subscribed in 1..=order.len() {
            client.subscribe(order[subscribed - 1], 0);
            expect(&mut client, &order[..subscribed]);
        }
        for gone in 1..=order.len() {
            assert_eq!(client.unsubscribe(&[order[gone - 1]]), [0], "{order:?}");
            // Once more: it is gone, and takes nothing along.
            assert_eq!(client.unsubscribe(&[order[gone - 1]]), [0x11], "{order:?}");
            expect(&mut client, &order[gone..]);
        }
        assert_eq!(broker.metrics().subscriptions, 0, "{order:?}");
        client.disconnect();
    }
}

/// The place of a message under way is given back when it is acknowledged, whatever has become of its subscription.
#[test]
fn subscribing_again_at_another_qos_gives_the_window_back() {
    const WINDOW: u16 = 4;
    let broker = TestBroker::with_config(|config| config.limits.inflight_max = WINDOW);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    let mut client = RawClient::clean(broker.addr(), "client");
    for qos in [1, 2, 1, 2] {
        client.subscribe("t", qos);
        for n in 0..WINDOW {
            publisher.publish("t", 2, n.to_string());
        }
        let begun: Vec<_> = (0..WINDOW).map(|n| client.expect_message("t", n.to_string())).collect();
        // The window is closed; from here on the subscription asks for less, and then is gone.
        client.subscribe("t", 0);
        publisher.publish("t", 2, "passes a closed window");
        client.expect_message("t", "passes a closed window");
        client.unsubscribe("t");
        for publish in &begun {
            assert_eq!(publish.qos, qos);
            if qos == 1 {
                client.send(&wire::puback(publish.id()));
            } else {
                client.complete_qos2(publish);
            }
        }
        client.expect_nothing();
    }
    // All of it can be used.
    client.subscribe("t", 1);
    for n in 0..WINDOW {
        publisher.publish("t", 1, n.to_string());
    }
    for n in 0..WINDOW {
        client.expect_message("t", n.to_string());
    }
}

/// QoS 2 into a full queue of a client that is away, before and after a restart: each message is counted as dropped, and neither memory
/// nor the disk grows with them.
#[test]
fn qos_2_into_a_full_queue_leaves_nothing_behind_over_a_restart() {
    const QUEUE: usize = 5;
    const SENT: u64 = 300;
    let directory = tempfile::tempdir().expect("a directory");
    let start = || TestBroker::on_disk(directory.path(), |config| config.limits.queue_messages_max = QUEUE);
    let broker = start();
    let mut away = RawClient::persistent(broker.addr(), "away");
    away.subscribe("t", 2);
    away.disconnect();
    let mut waiting = None;
    let mut broker = Some(broker);
    for round in 0..3 {
        let running = broker.take().unwrap_or_else(&start);
        // A persistent publisher, whose ids are on record.
        let (mut publisher, present) = RawClient::open(running.addr(), &Connect::persistent("publisher"));
        assert_eq!(present, round > 0);
        for n in 0..SENT {
            publisher.publish("t", 2, format!("{round}/{n}"));
        }
        let metrics = running.metrics();
        let taken = if round == 0 { QUEUE as u64 } else { 0 };
        assert_eq!(metrics.dropped.values().sum::<u64>(), SENT - taken, "{metrics:#?}");
        let now = metrics.waiting_bytes;
        assert!(waiting.is_none_or(|before| now <= before), "{now} bytes wait, {waiting:?} before");
        waiting = Some(now);
    }
    let broker = start();
    let mut client = RawClient::resume(broker.addr(), "away");
    let waited: Vec<_> = (0..QUEUE).map(|n| client.expect_message("t", format!("0/{n}"))).collect();
    waited.iter().for_each(|publish| client.complete_qos2(publish));
    client.expect_nothing();
}

/// QoS 2 ids that a publisher never releases are its own affair: they end with its session, and then the whole Receive Maximum is free.
#[test]
fn ids_that_are_never_released_end_with_their_session() {
    const MAXIMUM: u16 = 4;
    let broker = TestBroker::with_config(|config| config.limits.receive_maximum = MAXIMUM);
    let publish = |id| wire5::publish5(4, "t", Some(id), &[], "x");
    let (mut client, _, _) = RawClient5::open(broker.addr(), &Connect5::persistent("careless"));
    for id in 1..=MAXIMUM {
        client.send(&publish(id));
        assert_eq!(client.expect_packet(), ServerPacket5::PubRec(id, 0x10));
    }
    client.vanish();
    // The session is there: its ids are taken, can be repeated, and released one by one.
    let mut client = RawClient5::resume_with(broker.addr(), &Connect5::persistent("careless"));
    client.send(&publish(1));
    assert!(matches!(client.expect_packet(), ServerPacket5::PubRec(1, _)));
    client.send(&wire::pubrel(1));
    assert_eq!(client.expect_packet(), ServerPacket5::PubComp(1, 0));
    client.send(&publish(MAXIMUM + 1));
    assert_eq!(client.expect_packet(), ServerPacket5::PubRec(MAXIMUM + 1, 0x10));
    client.vanish();
    // A new session knows none of them.
    let (mut client, present, _) = RawClient5::open(broker.addr(), &Connect5::new("careless"));
    assert!(!present);
    for id in 1..=MAXIMUM {
        client.send(&publish(id));
        assert_eq!(client.expect_packet(), ServerPacket5::PubRec(id, 0x10));
    }
}

/// DUP says that the publisher has sent it before, not that it came: a message seen for the first time is kept like any other, on the disk
/// too.
#[test]
fn a_message_that_comes_first_with_dup_is_kept_over_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let broker = TestBroker::on_disk(directory.path(), |_| {});
    let mut away = RawClient::persistent(broker.addr(), "away");
    away.subscribe("t/#", 2);
    away.disconnect();
    let mut publisher = RawClient::persistent(broker.addr(), "publisher");
    publisher.send(&wire::raw_publish(0x0A, "t/one", Some(1), "x"));
    publisher.expect(&wire::puback(1));
    publisher.send(&wire::raw_publish(0x0C, "t/two", Some(2), "x"));
    publisher.expect(&wire::pubrec(2));
    publisher.send(&wire::raw_publish(0x0D, "t/kept", Some(3), "x"));
    publisher.expect(&wire::pubrec(3));
    drop(broker);

    let broker = TestBroker::on_disk(directory.path(), |_| {});
    let mut away = RawClient::resume(broker.addr(), "away");
    away.expect_message_and_ack("t/one", "x");
    let begun = ["t/two", "t/kept"].map(|topic| away.expect_message(topic, "x"));
    begun.iter().for_each(|publish| away.complete_qos2(publish));
    let mut late = RawClient::clean(broker.addr(), "late");
    late.subscribe("t/kept", 0);
    late.expect_message("t/kept", "x");
    // What was received is known: the same id once more is the same message.
    let mut publisher = RawClient::resume(broker.addr(), "publisher");
    publisher.send(&wire::raw_publish(0x0C, "t/two", Some(2), "x"));
    publisher.expect(&wire::pubrec(2));
    away.expect_nothing();
}

/// After a restart the subscriptions of a session count at once, at every QoS: before its client is back, and when it is.
#[test]
fn subscriptions_of_every_qos_are_live_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let broker = TestBroker::on_disk(directory.path(), |_| {});
    let mut client = RawClient::persistent(broker.addr(), "client");
    for qos in 0..=2 {
        client.subscribe(&format!("qos/{qos}"), qos);
    }
    drop(broker);
    let broker = TestBroker::on_disk(directory.path(), |_| {});
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for qos in 1..=2 {
        publisher.publish(&format!("qos/{qos}"), 2, "away");
    }
    let mut client = RawClient::resume(broker.addr(), "client");
    for (qos, said) in [(1, "away"), (2, "away"), (0, "back"), (1, "back"), (2, "back")] {
        if said == "back" {
            publisher.publish(&format!("qos/{qos}"), 2, said);
        }
        let publish = client.expect_message(&format!("qos/{qos}"), said);
        assert_eq!(publish.qos, qos);
        match qos {
            1 => client.send(&wire::puback(publish.id())),
            2 => client.complete_qos2(&publish),
            _ => {}
        }
    }
    client.expect_nothing();
}

/// What a client has acknowledged counts, even if the acknowledgement is the last that is read of a connection which a newer one puts out.
#[test]
fn acknowledgements_in_front_of_the_end_are_not_thrown_away() {
    let broker = TestBroker::start();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    let mut client = RawClient::persistent(broker.addr(), "client");
    client.subscribe("t", 2);
    for round in 0..50 {
        publisher.publish("t", 1, format!("{round}/one"));
        publisher.publish("t", 2, format!("{round}/two"));
        let one = client.expect_message("t", format!("{round}/one"));
        let two = client.expect_message("t", format!("{round}/two"));
        // The last bytes before a fault of the protocol, or before the end.
        client.send(&[wire::puback(one.id()), wire::pubrec(two.id()), [0xFF; 5].to_vec()].concat());
        client.packets_until_closed();
        client = RawClient::resume(broker.addr(), "client");
        assert_eq!(client.expect_packet(), ServerPacket::PubRel(two.id()));
        client.send(&wire::pubcomp(two.id()));
        client.finish_sending();
        client.packets_until_closed();
        client = RawClient::resume(broker.addr(), "client");
        client.expect_nothing();
    }
    eventually(&broker, "two clients", |metrics| metrics.clients_connected == 2);
}
