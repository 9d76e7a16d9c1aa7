//! A second connection with the client id of a live one (section 3.1.4).

use crate::support::wire;
use crate::support::{Connect, RawClient, TestBroker};

#[test]
fn mqtt_3_1_4_2_the_old_connection_is_closed() {
    let broker = TestBroker::start();
    for (old, new) in [
        (Connect::new("a"), Connect::new("a")),
        (Connect::new("b"), Connect::persistent("b")),
        (Connect::persistent("c"), Connect::new("c")),
        (Connect::persistent("d"), Connect::persistent("d")),
    ] {
        let (mut old, _) = RawClient::open(broker.addr(), &old);
        let (mut new, _) = RawClient::open(broker.addr(), &new);
        old.expect_closed();
        new.expect_nothing();
    }
}

#[test]
fn a_chain_of_take_overs_leaves_one_connection() {
    let broker = TestBroker::start();
    let mut clients: Vec<RawClient> =
        (0..50).map(|_| RawClient::open(broker.addr(), &Connect::persistent("same")).0).collect();
    let mut last = clients.pop().expect("the last one");
    for client in &mut clients {
        client.expect_closed();
    }
    last.subscribe("t", 1);
    RawClient::clean(broker.addr(), "publisher").publish("t", 1, "x");
    last.expect_message_and_ack("t", "x");
    last.expect_nothing();
}

#[test]
fn take_overs_at_the_same_time_leave_one_connection() {
    let broker = TestBroker::start();
    let addr = broker.addr();
    let threads: Vec<_> = (0..16)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = RawClient::connect(addr);
                client.send(&Connect::persistent("same").bytes());
                client
            })
        })
        .collect();
    let clients: Vec<RawClient> =
        threads.into_iter().map(|thread| thread.join().expect("a client")).collect();
    // The next one pushes out whichever has won, and works.
    let mut last = RawClient::connect(addr);
    let mut accepted = 0;
    for mut client in clients {
        client.finish_sending();
        accepted += client.packets_until_closed().len();
    }
    assert!(accepted >= 1);
    last.send(&Connect::persistent("same").bytes());
    last.expect(&[0x20, 0x02, 0x01, 0x00]);
    last.expect_nothing();
}

#[test]
fn in_flight_messages_move_to_the_new_connection() {
    let broker = TestBroker::start();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    let mut old = RawClient::persistent(broker.addr(), "client");
    old.subscribe("t", 2);
    publisher.publish("t", 1, "one");
    publisher.publish("t", 2, "two");
    publisher.publish("t", 2, "half");
    let one = old.expect_message("t", "one");
    let two = old.expect_message("t", "two");
    let half = old.expect_message("t", "half");
    old.send(&wire::pubrec(half.id()));
    old.expect(&wire::pubrel(half.id()));
    let mut new = RawClient::resume(broker.addr(), "client");
    old.expect_closed();
    let mut packets = new.packets_until_ping();
    packets.retain(|packet| *packet != crate::support::ServerPacket::PubRel(half.id()));
    let repeated = [one, two]
        .map(|first| crate::support::ServerPacket::Publish(crate::support::Publish { dup: true, ..first }));
    assert_eq!(packets, repeated);
}

#[test]
fn messages_published_around_a_take_over_arrive() {
    let broker = TestBroker::start();
    let addr = broker.addr();
    let mut client = RawClient::persistent(addr, "client");
    client.subscribe("t", 1);
    let count = 300u16;
    let sender = std::thread::spawn(move || {
        let mut publisher = RawClient::clean(addr, "publisher");
        for number in 0..count {
            publisher.send(&wire::publish_qos1(number + 1, "t", number.to_string()));
            publisher.expect(&wire::puback(number + 1));
        }
    });
    let mut next = 0;
    while next < count {
        // Up to 20 messages per connection, then somebody else comes with the same id.
        for _ in 0..20 {
            if next == count {
                break;
            }
            let publish = client.expect_publish();
            client.send(&wire::puback(publish.id()));
            let number: u16 = publish.text().parse().expect("a number");
            // An acknowledgement that was on its way at the take-over may be lost: then the message comes again.
            assert!(number == next || (number < next && publish.dup), "expected {next}, got {publish:?}");
            next = next.max(number + 1);
        }
        client = RawClient::resume(addr, "client");
    }
    sender.join().expect("the publisher");
}

#[test]
fn a_clean_take_over_takes_nothing_from_the_old_session() {
    let broker = TestBroker::start();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    let mut old = RawClient::persistent(broker.addr(), "client");
    old.subscribe("t", 1);
    publisher.publish("t", 1, "unacknowledged");
    old.expect_message("t", "unacknowledged");
    let mut new = RawClient::clean(broker.addr(), "client");
    old.expect_closed();
    publisher.publish("t", 1, "later");
    new.expect_nothing();
    new.disconnect();
    RawClient::persistent(broker.addr(), "client").expect_nothing();
}

#[test]
fn the_end_of_the_old_connection_does_not_harm_the_new_session() {
    let broker = TestBroker::start();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for _ in 0..20 {
        let (mut old, _) = RawClient::open(broker.addr(), &Connect::new("client"));
        old.subscribe("t", 0);
        let mut new = RawClient::clean(broker.addr(), "client");
        new.subscribe("t", 0);
        old.expect_closed();
        publisher.publish("t", 0, "x");
        new.expect_message("t", "x");
        new.expect_nothing();
        new.disconnect();
    }
}
