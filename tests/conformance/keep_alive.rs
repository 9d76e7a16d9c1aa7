//! Keep alive (section 3.1.2.10). These tests take real time: the shortest keep alive is one second.

use crate::support::wire;
use crate::support::{Connect, RawClient, TestBroker, broker};
use std::time::{Duration, Instant};

/// Not before 1.5 × 1 s. Above it the broker has a second, and the machine another one.
const DROPPED_AFTER: std::ops::Range<Duration> = Duration::from_millis(1490)..Duration::from_millis(3500);

/// mosquitto looks every five seconds and counts in whole ones.
const DROPPED_BY_MOSQUITTO_AFTER: std::ops::Range<Duration> =
    Duration::from_millis(500)..Duration::from_millis(8500);

/// `since`: a moment before the last packet of the client was sent.
#[track_caller]
fn dropped_in_time(client: &mut RawClient, since: Instant) {
    client.packets_until_closed();
    let time = since.elapsed();
    let range = if broker::control_is_mosquitto() { DROPPED_BY_MOSQUITTO_AFTER } else { DROPPED_AFTER };
    assert!(range.contains(&time), "dropped after {time:?}");
}

fn one_second(client_id: &str) -> Connect {
    Connect::new(client_id).keep_alive(1)
}

#[test]
fn mqtt_3_1_2_24_silent_client_is_dropped_after_one_and_a_half_keep_alive() {
    let broker = TestBroker::start();
    let mut watcher = RawClient::clean(broker.addr(), "watcher");
    watcher.subscribe("will", 0);
    let since = Instant::now();
    let (mut client, _) =
        RawClient::open(broker.addr(), &one_second("silent").will("will", "gone", 0, false));
    dropped_in_time(&mut client, since);
    watcher.expect_message("will", "gone");
}

#[test]
fn mqtt_3_1_2_24_every_kind_of_packet_counts_as_a_sign_of_life() {
    let broker = TestBroker::start();
    let (mut client, _) = RawClient::open(broker.addr(), &one_second("lively"));
    let packets: [(Vec<u8>, Vec<u8>); 4] = [
        (wire::PINGREQ.to_vec(), vec![0xD0, 0x00]),
        (wire::publish_qos0("t", "x"), vec![]),
        (wire::subscribe(1, &[("f", 0)]), vec![0x90, 0x03, 0x00, 0x01, 0x00]),
        (wire::publish_qos1(2, "t", "x"), vec![0x40, 0x02, 0x00, 0x02]),
    ];
    let mut since = Instant::now();
    for (packet, answer) in packets {
        client.stays_silent_and_open(Duration::from_millis(900));
        since = Instant::now();
        client.send(&packet);
        client.expect(&answer);
    }
    dropped_in_time(&mut client, since);
}

#[test]
fn mqtt_3_1_2_24_what_the_broker_sends_is_no_sign_of_life_of_the_client() {
    let broker = TestBroker::start();
    let (mut client, _) = RawClient::open(broker.addr(), &one_second("listener"));
    let since = Instant::now();
    client.subscribe("stream", 0);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    while since.elapsed() < Duration::from_millis(1200) {
        publisher.stays_silent_and_open(Duration::from_millis(100));
        publisher.publish("stream", 0, "x");
    }
    dropped_in_time(&mut client, since);
}

#[test]
fn a_keep_alive_of_0_never_ends() {
    let broker = TestBroker::start();
    let (mut client, _) = RawClient::open(broker.addr(), &Connect::new("patient").keep_alive(0));
    client.stays_silent_and_open(Duration::from_millis(2500));
    client.expect_nothing();
}

#[test]
fn the_session_outlives_the_end_by_keep_alive() {
    let broker = TestBroker::start();
    let connect = Connect::persistent("stored").keep_alive(1);
    let (mut client, _) = RawClient::open(broker.addr(), &connect);
    client.subscribe("queued", 1);
    client.expect_closed();
    RawClient::clean(broker.addr(), "publisher").publish("queued", 1, "later");
    let mut client = RawClient::resume(broker.addr(), "stored");
    client.expect_message_and_ack("queued", "later");
}
