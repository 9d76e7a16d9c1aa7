//! Shared subscriptions: who of a group gets a message (section 4.8.2).

use crate::support::wire5::{self, id};
use crate::support::{Connect5, RawClient, RawClient5, TestBroker, broker};

const FILTER: &str = "$share/group/t/#";

fn member(broker: &TestBroker, name: &str, qos: u8) -> RawClient5 {
    let mut client = RawClient5::clean(broker.addr(), name);
    client.subscribe(FILTER, qos);
    client
}

/// Payloads each member got, acknowledged.
#[track_caller]
fn collect(members: &mut [RawClient5]) -> Vec<Vec<String>> {
    let take = |client: &mut RawClient5| {
        let publishes = client.publishes_until_ping();
        publishes
            .iter()
            .map(|publish| {
                client.ack(publish);
                publish.text()
            })
            .collect()
    };
    members.iter_mut().map(take).collect()
}

/// Each of the numbers went to exactly one member.
#[track_caller]
fn each_once(got: &[Vec<String>], numbers: std::ops::Range<u32>) {
    let mut all: Vec<u32> = got.iter().flatten().map(|text| text.parse().expect("a number")).collect();
    all.sort_unstable();
    assert!(all.iter().copied().eq(numbers.clone()), "expected {numbers:?}, got {got:?}");
}

#[test]
fn mqtt5_4_8_2_3_a_message_goes_to_one_member_within_its_qos() {
    let broker = TestBroker::start();
    let mut members = [member(&broker, "a", 0), member(&broker, "b", 1), member(&broker, "c", 2)];
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    for published in 0..=2 {
        for number in 0..30 {
            publisher.publish("t/x", published, number.to_string());
        }
        let mut count = 0;
        for (granted, client) in members.iter_mut().enumerate() {
            for publish in client.publishes_until_ping() {
                assert_eq!(publish.qos, published.min(granted as u8), "{publish:?}");
                client.ack(&publish);
                count += 1;
            }
        }
        assert_eq!(count, 30);
    }
}

#[test]
fn messages_are_shared_out_fairly() {
    if broker::skipped_on_mosquitto("its choice may differ") {
        return;
    }
    let broker = TestBroker::start();
    for qos in [0, 1] {
        let mut members: Vec<_> = (0..4).map(|number| member(&broker, &format!("m{number}"), qos)).collect();
        let mut publisher = RawClient5::clean(broker.addr(), "publisher");
        for number in 0..40 {
            publisher.publish(&format!("t/{}", number % 7), qos, number.to_string());
        }
        let got = collect(&mut members);
        each_once(&got, 0..40);
        for (number, texts) in got.iter().enumerate() {
            assert!((8..=12).contains(&texts.len()), "member {number} got {} of 40", texts.len());
        }
    }
}

#[test]
fn several_publishers_are_shared_out_fairly() {
    let broker = TestBroker::start();
    let mut members: Vec<_> = (0..2).map(|number| member(&broker, &format!("m{number}"), 0)).collect();
    // Each publishes once: fairness must not hang on a publisher's own count.
    for number in 0..20 {
        RawClient5::clean(broker.addr(), &format!("p{number}")).publish("t/x", 0, number.to_string());
    }
    let got = collect(&mut members);
    each_once(&got, 0..20);
    assert!(got.iter().all(|texts| texts.len() >= 5), "{got:?}");
}

#[test]
fn groups_and_filters_get_a_copy_each() {
    let broker = TestBroker::start();
    let mut members = Vec::new();
    for filter in
        ["$share/one/t/a", "$share/one/t/a", "$share/two/t/a", "$share/two/t/a", "$share/one/t/+", "t/a"]
    {
        let mut client = RawClient5::clean(broker.addr(), &format!("m{}", members.len()));
        client.subscribe(filter, 1);
        members.push(client);
    }
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    for number in 0..10 {
        publisher.publish("t/a", 1, number.to_string());
    }
    let got = collect(&mut members);
    each_once(&got[0..2], 0..10);
    each_once(&got[2..4], 0..10);
    each_once(&got[4..5], 0..10);
    each_once(&got[5..6], 0..10);
}

#[test]
fn plain_and_shared_subscriptions_of_one_client_get_a_copy_each() {
    let broker = TestBroker::start();
    let mut client = RawClient5::clean(broker.addr(), "client");
    client.subscribe("t/#", 2);
    client.subscribe(FILTER, 1);
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    publisher.publish("t/x", 2, "x");
    let mut qos: Vec<u8> = Vec::new();
    for _ in 0..2 {
        let publish = client.expect_any_and_ack();
        assert_eq!(publish.text(), "x");
        qos.push(publish.qos);
    }
    qos.sort_unstable();
    assert_eq!(qos, [1, 2]);
}

#[test]
fn connected_members_come_first() {
    if broker::skipped_on_mosquitto("it may queue for members that are away") {
        return;
    }
    let broker = TestBroker::start();
    for name in ["away1", "away2"] {
        let mut away = RawClient5::persistent(broker.addr(), name);
        away.subscribe(FILTER, 1);
        away.disconnect();
    }
    let mut here = [member(&broker, "here", 1)];
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    for number in 0..20 {
        publisher.publish("t/x", 1, number.to_string());
    }
    each_once(&collect(&mut here), 0..20);
    RawClient5::resume(broker.addr(), "away1").expect_nothing();
    RawClient5::resume(broker.addr(), "away2").expect_nothing();
}

#[test]
fn members_with_room_come_before_busy_ones() {
    if broker::skipped_on_mosquitto("its choice may differ") {
        return;
    }
    let broker = TestBroker::start();
    let connect = Connect5::new("slow").with(wire5::two(id::RECEIVE_MAXIMUM, 2));
    let (mut slow, ..) = RawClient5::open(broker.addr(), &connect);
    slow.subscribe(FILTER, 1);
    let mut quick = member(&broker, "quick", 1);
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    for number in 0..20 {
        publisher.publish("t/x", 1, number.to_string());
        // The slow one acknowledges nothing, the quick one all.
        for publish in quick.publishes_until_ping() {
            quick.ack(&publish);
        }
        quick.expect_nothing();
    }
    assert_eq!(slow.publishes_until_ping().len(), 2);
}

#[test]
fn when_all_are_away_their_sessions_keep_it() {
    let broker = TestBroker::start();
    for name in ["a", "b"] {
        let mut client = RawClient5::persistent(broker.addr(), name);
        client.subscribe(FILTER, 1);
        client.disconnect();
    }
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    for number in 0..10 {
        publisher.publish("t/x", 1, number.to_string());
    }
    let mut members = [RawClient5::resume(broker.addr(), "a"), RawClient5::resume(broker.addr(), "b")];
    each_once(&collect(&mut members), 0..10);
}

#[test]
fn a_member_gets_no_retained_messages() {
    let broker = TestBroker::start();
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    publisher.publish_retained("t/x", 1, "kept");
    let mut client = member(&broker, "client", 1);
    client.expect_nothing();
    client.subscribe(FILTER, 1);
    client.expect_nothing();
    client.subscribe("t/x", 1 | wire5::RETAIN_AS_PUBLISHED);
    client.expect_and_ack("t/x", "kept");
}

#[test]
fn a_member_has_its_own_identifier_and_options() {
    let broker = TestBroker::start();
    let mut a = RawClient5::clean(broker.addr(), "a");
    a.subscribe_with_id(FILTER, 1 | wire5::RETAIN_AS_PUBLISHED, 11);
    let mut b = RawClient5::clean(broker.addr(), "b");
    b.subscribe_with_id(FILTER, 2, 22);
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    let user = wire5::user("a", "b");
    for number in 0..10 {
        publisher.publish_with("t/x", 0x05, &user, number.to_string());
    }
    let (mut of_a, mut of_b) = (0, 0);
    for publish in a.publishes_until_ping() {
        assert_eq!((publish.qos, publish.retain, publish.subscription_ids()), (1, true, vec![11]));
        of_a += 1;
    }
    for publish in b.publishes_until_ping() {
        assert_eq!((publish.qos, publish.retain, publish.subscription_ids()), (2, false, vec![22]));
        assert!(publish.properties.raw.windows(user.len()).any(|bytes| bytes == user));
        of_b += 1;
    }
    assert!(of_a > 0 && of_b > 0 && of_a + of_b == 10, "{of_a} and {of_b}");
    // Subscribing again replaces them, for the one who did.
    a.subscribe(FILTER, 0);
    assert_eq!(a.unsubscribe(&[FILTER]), [0]);
    publisher.publish("t/x", 0, "x");
    assert_eq!(b.expect_message("t/x", "x").subscription_ids(), [22]);
}

#[test]
fn clients_of_3_1_1_and_5_share() {
    let broker = TestBroker::start();
    let mut three = RawClient::clean(broker.addr(), "three");
    three.subscribe(FILTER, 1);
    let mut five = member(&broker, "five", 1);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for number in 0..20 {
        publisher.publish("t/x", 1, number.to_string());
    }
    let of_three: Vec<String> = three
        .packets_until_ping()
        .into_iter()
        .map(|packet| match packet {
            crate::support::ServerPacket::Publish(publish) => publish.text(),
            other => panic!("expected PUBLISH, got {other:?}"),
        })
        .collect();
    assert!((5..=15).contains(&of_three.len()), "{of_three:?}");
    let of_five = collect(std::slice::from_mut(&mut five)).remove(0);
    each_once(&[of_three, of_five], 0..20);
    three.unsubscribe(FILTER);
    publisher.publish("t/x", 1, "last");
    five.expect_and_ack("t/x", "last");
}

#[test]
fn the_publisher_may_be_a_member() {
    let broker = TestBroker::start();
    let mut client = member(&broker, "client", 1);
    client.send(&wire5::publish5(0x02, "t/x", Some(1_001), &[], "own"));
    let mut packets = client.packets_until_ping();
    packets.retain(|packet| *packet != crate::support::ServerPacket5::PubAck(1_001, 0));
    assert_eq!(packets.len(), 1, "{packets:?}");
}

#[test]
fn mqtt5_4_8_2_6_what_a_member_refuses_is_not_given_to_another() {
    let broker = TestBroker::start();
    for (qos, first_byte) in [(1, 0x40), (2, 0x50)] {
        let mut members = [member(&broker, "a", qos), member(&broker, "b", qos)];
        let mut publisher = RawClient5::clean(broker.addr(), "publisher");
        for number in 0..6 {
            publisher.publish("t/x", qos, number.to_string());
        }
        let mut count = 0;
        for client in &mut members {
            for publish in client.publishes_until_ping() {
                client.answer(first_byte, publish.id(), 0x83);
                count += 1;
            }
        }
        assert_eq!(count, 6);
        let [a, mut b] = members;
        b.expect_nothing();
        a.disconnect();
        b.expect_nothing();
        b.disconnect();
    }
}
