//! Members that leave a group: what they had not acknowledged at QoS 1 goes to others, QoS 2 stays (section 4.8.2).

use crate::support::wire5::{self, id};
use crate::support::{Connect5, Publish5, RawClient5, TestBroker, broker};
use std::time::Duration;

const FILTER: &str = "$share/group/t";

fn member(broker: &TestBroker, connect: &Connect5) -> RawClient5 {
    let (mut client, ..) = RawClient5::open(broker.addr(), connect);
    client.subscribe(FILTER, 2);
    client
}

/// Takes `a` that holds ten unacknowledged messages of a QoS and lets it have company: `b`.
fn loaded(broker: &TestBroker, a: &Connect5, qos: u8) -> (RawClient5, Vec<Publish5>, RawClient5) {
    let mut a = member(broker, a);
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    for number in 0..10 {
        publisher.publish("t", qos, number.to_string());
    }
    let sent = a.publishes_until_ping();
    let b = member(broker, &Connect5::new("b"));
    (a, sent, b)
}

#[track_caller]
fn gets_all(client: &mut RawClient5, numbers: std::ops::Range<u32>) {
    let mut got: Vec<u32> = Vec::new();
    for _ in numbers.clone() {
        let publish = client.expect_any_and_ack();
        got.push(publish.text().parse().expect("a number"));
    }
    client.finish_pubrels();
    got.sort_unstable();
    assert!(got.iter().copied().eq(numbers.clone()), "expected {numbers:?}, got {got:?}");
}

/// The ways in which a member goes for good.
fn leave(client: RawClient5, way: usize, broker: &TestBroker) {
    match way {
        0 => client.disconnect(),
        1 => client.vanish(),
        2 => client.disconnect_with(0x04, &[]),
        _ => {
            let mut client = client;
            let _new = RawClient5::clean(broker.addr(), "a");
            client.expect_disconnect(0x8E);
        }
    }
}

#[test]
fn what_a_closing_member_has_not_acknowledged_goes_to_another() {
    if broker::skipped_on_mosquitto("it does not hand over") {
        return;
    }
    for way in 0..4 {
        let broker = TestBroker::start();
        let (mut a, sent, mut b) = loaded(&broker, &Connect5::new("a"), 1);
        assert_eq!(sent.len(), 10);
        // Three are acknowledged, seven are not.
        for publish in &sent[..3] {
            a.ack(publish);
        }
        a.expect_nothing();
        b.expect_nothing();
        leave(a, way, &broker);
        gets_all(&mut b, 3..10);
        b.expect_nothing();
    }
}

#[test]
fn what_waits_for_a_slow_member_goes_to_another_when_it_leaves() {
    if broker::skipped_on_mosquitto("it does not hand over") {
        return;
    }
    for qos in [1, 2] {
        for way in 0..4 {
            let broker = TestBroker::start();
            let connect = Connect5::new("a").with(wire5::two(id::RECEIVE_MAXIMUM, 2));
            let (a, sent, mut b) = loaded(&broker, &connect, qos);
            assert_eq!(sent.len(), 2);
            b.expect_nothing();
            leave(a, way, &broker);
            // At QoS 2 the two that had begun end with the session.
            gets_all(&mut b, if qos == 1 { 0..10 } else { 2..10 });
            b.expect_nothing();
        }
    }
}

#[test]
fn unsubscribing_leaves_what_has_begun_and_hands_over_what_waits() {
    if broker::skipped_on_mosquitto("it does not hand over") {
        return;
    }
    let broker = TestBroker::start();
    let connect = Connect5::new("a").with(wire5::two(id::RECEIVE_MAXIMUM, 2));
    let (mut a, sent, mut b) = loaded(&broker, &connect, 1);
    assert_eq!(a.unsubscribe(&[FILTER]), [0]);
    gets_all(&mut b, 2..10);
    // A delivery that has begun is completed by who has it.
    for publish in &sent {
        a.ack(publish);
    }
    a.expect_nothing();
    a.disconnect();
    b.expect_nothing();
}

#[test]
fn the_connection_alone_is_enough_if_another_member_is_there() {
    if broker::skipped_on_mosquitto("it does not hand over") {
        return;
    }
    let broker = TestBroker::start();
    let (a, _, mut b) = loaded(&broker, &Connect5::persistent("a"), 1);
    a.vanish();
    gets_all(&mut b, 0..10);
    // Not twice.
    RawClient5::resume(broker.addr(), "a").expect_nothing();
    b.expect_nothing();
}

#[test]
fn without_another_member_the_session_keeps_it() {
    let broker = TestBroker::start();
    let mut a = member(&broker, &Connect5::persistent("a"));
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    publisher.publish("t", 1, "0");
    a.expect_message("t", "0");
    a.vanish();
    publisher.publish("t", 1, "1");
    let mut a = RawClient5::resume(broker.addr(), "a");
    assert!(a.expect_and_ack("t", "0").dup);
    a.expect_and_ack("t", "1");
    a.expect_nothing();
}

#[test]
fn the_end_of_a_session_hands_over_what_it_kept() {
    if broker::skipped_on_mosquitto("it does not hand over") {
        return;
    }
    let broker = TestBroker::start();
    let mut a = member(&broker, &Connect5::new("a").session_expiry(1));
    let mut b = member(&broker, &Connect5::persistent("b"));
    assert_eq!(b.unsubscribe(&[FILTER]), [0]);
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    publisher.publish("t", 1, "0");
    a.expect_message("t", "0");
    a.vanish();
    publisher.publish("t", 1, "1");
    b.subscribe(FILTER, 1);
    b.expect_nothing();
    // The session of `a` expires after a second.
    gets_all(&mut b, 0..2);
    b.expect_nothing();
}

#[test]
fn mqtt5_4_8_2_4_qos_2_is_completed_when_the_member_comes_back() {
    let broker = TestBroker::start();
    let mut a = member(&broker, &Connect5::persistent("a"));
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    publisher.publish("t", 2, "open");
    publisher.publish("t", 2, "half");
    let open = a.expect_message("t", "open");
    let half = a.expect_message("t", "half");
    a.answer(0x50, half.id(), 0);
    a.expect_pubrel(half.id());
    let mut b = member(&broker, &Connect5::new("b"));
    a.vanish();
    b.expect_nothing();
    let mut a = RawClient5::resume(broker.addr(), "a");
    let again = a.expect_message("t", "open");
    assert!(again.dup && again.id() == open.id(), "{again:?}");
    a.expect_pubrel(half.id());
    a.answer(0x70, half.id(), 0);
    a.ack(&again);
    a.expect_nothing();
    b.expect_nothing();
}

#[test]
fn mqtt5_4_8_2_5_qos_2_ends_with_the_session_of_the_member() {
    let broker = TestBroker::start();
    let mut a = member(&broker, &Connect5::persistent("a"));
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    publisher.publish("t", 2, "open");
    a.expect_message("t", "open");
    let mut b = member(&broker, &Connect5::new("b"));
    a.vanish();
    b.expect_nothing();
    // A clean start ends the session.
    let mut a = RawClient5::clean(broker.addr(), "a");
    a.expect_nothing();
    b.expect_nothing();
}

#[test]
fn a_handed_over_message_keeps_its_properties_and_has_the_new_members_qos_and_identifier() {
    if broker::skipped_on_mosquitto("it does not hand over") {
        return;
    }
    let broker = TestBroker::start();
    let (mut a, ..) = RawClient5::open(broker.addr(), &Connect5::new("a"));
    a.subscribe_with_id(FILTER, 1, 11);
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    let user = wire5::user("a", "b");
    publisher.publish_with("t", 0x02, &user, "x");
    assert_eq!(a.expect_message("t", "x").subscription_ids(), [11]);
    let (mut b, ..) = RawClient5::open(broker.addr(), &Connect5::new("b"));
    b.subscribe_with_id(FILTER, 1, 22);
    a.vanish();
    let publish = b.expect_and_ack("t", "x");
    assert_eq!(publish.subscription_ids(), [22]);
    assert!(!publish.dup, "{publish:?}");
    assert!(publish.properties.raw.windows(user.len()).any(|bytes| bytes == user), "{publish:?}");
}

#[test]
fn an_expired_message_is_not_handed_over() {
    if broker::skipped_on_mosquitto("it does not hand over") {
        return;
    }
    let broker = TestBroker::start();
    let connect = Connect5::new("a").with(wire5::two(id::RECEIVE_MAXIMUM, 1));
    let mut a = member(&broker, &connect);
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    let expiry = wire5::four(id::MESSAGE_EXPIRY, 1);
    publisher.publish_with("t", 0x02, &[], "first");
    publisher.publish_with("t", 0x02, &expiry, "waiting");
    a.expect_message("t", "first");
    let mut b = member(&broker, &Connect5::new("b"));
    b.stays_silent_and_open(Duration::from_millis(1_300));
    a.vanish();
    b.expect_and_ack("t", "first");
    b.expect_nothing();
}

#[test]
fn a_group_without_members_is_gone() {
    let broker = TestBroker::start();
    let mut a = member(&broker, &Connect5::new("a"));
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    publisher.publish("t", 1, "x");
    a.expect_message("t", "x");
    a.vanish();
    assert_eq!(publisher.publish_with("t", 0x02, &[], "nobody"), 0x10);
    // And comes back with its next member, without what was lost.
    let mut b = member(&broker, &Connect5::new("b"));
    b.expect_nothing();
    publisher.publish("t", 1, "new");
    b.expect_and_ack("t", "new");
}

#[test]
fn members_come_and_go_while_messages_flow() {
    if broker::skipped_on_mosquitto("it does not hand over") {
        return;
    }
    let broker = TestBroker::start();
    let addr = broker.addr();
    let mut steady = member(&broker, &Connect5::new("steady"));
    let count = 400_u32;
    let sender = std::thread::spawn(move || {
        let mut publisher = RawClient5::clean(addr, "publisher");
        for number in 0..count {
            publisher.publish("t", 1, number.to_string());
        }
    });
    let comers = std::thread::spawn(move || {
        for _ in 0..20 {
            // Takes some, acknowledges nothing, and goes.
            let (mut client, ..) = RawClient5::open(addr, &Connect5::new("comer"));
            client.send(&wire5::subscribe5(1, &[], &[(FILTER, 1)]));
            client.packets_until_ping();
            client.vanish();
        }
    });
    let mut got = vec![false; count as usize];
    let mut left = count;
    while left > 0 {
        let publish = steady.expect_any_and_ack();
        let number: usize = publish.text().parse().expect("a number");
        assert!(!std::mem::replace(&mut got[number], true), "{number} came twice");
        left -= 1;
    }
    sender.join().expect("the publisher");
    comers.join().expect("the comers");
    steady.expect_nothing();
}
