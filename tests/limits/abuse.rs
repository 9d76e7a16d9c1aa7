//! Bounds for each address, client and client id.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use crate::support::wire::{self, Connect};
use crate::support::{DEADLINE, RawClient, ServerPacket, TestBroker};
use crate::{eventually, held, refused};

const ANOTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Connects from an address that is not bounded by what others did.
fn serves_another_address(broker: &TestBroker) {
    let mut another = RawClient::connect_from(ANOTHER, broker.addr());
    another.send(&Connect::new("another").bytes());
    another.expect(&[0x20, 2, 0, 0]);
    another.expect_nothing();
}

#[test]
fn connections_per_address_max_turns_the_next_one_of_an_address_away_until_one_leaves() {
    let broker = TestBroker::with_config(|config| config.limits.connections_per_address_max = Some(2));
    let first = RawClient::clean(broker.addr(), "first");
    // What is not past CONNECT counts as well.
    let second = RawClient::connect(broker.addr());
    RawClient::connect(broker.addr()).expect_closed();
    assert_eq!(refused(&broker.metrics(), "connections_per_address_max"), 1);
    serves_another_address(&broker);
    // However a connection ends, its place is free.
    second.reset();
    eventually(&broker, "one socket left", |metrics| metrics.sockets == 1);
    let third = RawClient::clean(broker.addr(), "third");
    first.disconnect();
    third.vanish();
    eventually(&broker, "no socket left", |metrics| metrics.sockets == 0);
    let _both = [RawClient::clean(broker.addr(), "a"), RawClient::clean(broker.addr(), "b")];
    RawClient::connect(broker.addr()).expect_closed();
}

#[test]
fn connect_rate_max_turns_away_who_comes_too_often() {
    let broker = TestBroker::with_config(|config| config.limits.connect_rate_max = Some(5));
    let started = Instant::now();
    let mut served = 0;
    while is_served(RawClient::connect(broker.addr())) {
        served += 1;
        assert!(started.elapsed() < DEADLINE, "{served} connections within {:?}", started.elapsed());
    }
    // Twice the rate at once, and what was allowed meanwhile.
    let allowed = 10 + 5 * (started.elapsed().as_secs() + 1);
    assert!((10..=allowed).contains(&served), "{served} of {allowed}");
    eventually(&broker, "a refusal", |metrics| refused(metrics, "connect_rate_max") == 1);
    serves_another_address(&broker);
    // One that waits comes in again.
    while !is_served(RawClient::connect(broker.addr())) {
        assert!(started.elapsed() < DEADLINE);
    }
}

#[test]
fn without_limits_one_address_may_have_any_number_of_connections() {
    let broker = TestBroker::start();
    let clients: Vec<RawClient> =
        (0..300).map(|n| RawClient::clean(broker.addr(), &format!("device-{n}"))).collect();
    assert_eq!(broker.metrics().clients_connected, 300);
    assert!(broker.metrics().refused.is_empty());
    drop(clients);
}

#[test]
fn publish_rate_max_reads_a_client_more_slowly_and_loses_nothing() {
    let broker = TestBroker::with_config(|config| config.limits.publish_rate_max = Some(100));
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("fast", 0);
    let mut fast = RawClient::clean(broker.addr(), "fast");
    let started = Instant::now();
    let all: Vec<u8> = (1..=250).flat_map(|id| wire::publish_qos1(id, "fast", id.to_string())).collect();
    fast.send(&all);
    // Who keeps to it is not held up by others.
    let mut slow = RawClient::clean(broker.addr(), "slow");
    for _ in 0..10 {
        slow.publish("slow", 1, "m");
    }
    assert!(started.elapsed() < Duration::from_millis(1_400), "{:?}", started.elapsed());
    for id in 1..=250 {
        fast.expect(&wire::puback(id));
    }
    // A hundred at once, the others at a hundred a second; what one read brings may be early.
    assert!(started.elapsed() >= Duration::from_millis(1_000), "{:?}", started.elapsed());
    for id in 1..=250_u16 {
        subscriber.expect_message("fast", id.to_string());
    }
    assert!(held(&broker.metrics(), "publish_rate_max") > 0);
    assert_eq!(held(&broker.metrics(), "publish_bytes_rate_max"), 0);
}

#[test]
fn publish_bytes_rate_max_reads_a_client_more_slowly_and_loses_nothing() {
    let broker = TestBroker::with_config(|config| config.limits.publish_bytes_rate_max = Some(100_000));
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("large", 0);
    let mut large = RawClient::clean(broker.addr(), "large");
    let started = Instant::now();
    large.publish("large", 1, vec![7; 250_000]);
    // A second's worth at once; the last read may have brought 64 KiB before its time.
    assert!(started.elapsed() >= Duration::from_millis(800), "{:?}", started.elapsed());
    subscriber.expect_message("large", vec![7; 250_000]);
    assert!(held(&broker.metrics(), "publish_bytes_rate_max") > 0);
}

#[test]
fn a_client_that_is_held_by_its_rate_is_not_taken_for_dead() {
    let broker = TestBroker::with_config(|config| config.limits.publish_rate_max = Some(10));
    let (mut client, _) = RawClient::open(broker.addr(), &Connect::new("held").keep_alive(1));
    let all: Vec<u8> = (1..=40).flat_map(|id| wire::publish_qos1(id, "t", [0; 200])).collect();
    client.send(&all);
    // Three seconds: twice the time after which silence would end the connection.
    for id in 1..=40 {
        client.expect(&wire::puback(id));
    }
    client.expect_nothing();
}

#[test]
fn two_devices_with_one_client_id_are_counted() {
    let broker = TestBroker::start();
    let mut twins: Vec<RawClient> = Vec::new();
    for _ in 0..6 {
        twins.push(RawClient::clean(broker.addr(), "twin"));
    }
    // Five take-overs are nothing unusual.
    assert_eq!(broker.metrics().quick_take_overs, 0);
    twins.push(RawClient::clean(broker.addr(), "twin"));
    twins.push(RawClient::clean(broker.addr(), "twin"));
    assert_eq!(broker.metrics().quick_take_overs, 2);
    for n in 0..10 {
        RawClient::clean(broker.addr(), &format!("other-{n}")).disconnect();
    }
    assert_eq!(broker.metrics().quick_take_overs, 2);
}

/// Whether CONNACK comes, or the end.
fn is_served(mut peer: RawClient) -> bool {
    peer.send(&Connect::new("peer").bytes());
    match peer.packet_or_end() {
        Some(ServerPacket::ConnAck(_, 0)) => true,
        None => false,
        other => panic!("{other:?}"),
    }
}
