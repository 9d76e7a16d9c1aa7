//! `limits.unfinished_bytes_max`: packets that have not come as a whole, of all clients together.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ternmq::MetricsSnapshot;
use ternmq::config::{MemoryMax, StorageKind};

use crate::support::wire::{self, Connect};
use crate::support::wire5::{self, Connect5};
use crate::support::{RawClient, RawClient5, TestBroker};
use crate::{dropped, eventually};

/// What each client may hold uncounted.
const FREE: usize = 16_384;

fn bounded(max: usize) -> TestBroker {
    TestBroker::with_config(|config| config.limits.unfinished_bytes_max = MemoryMax::Bytes(max))
}

fn closed(metrics: &MetricsSnapshot) -> u64 {
    metrics.closed.get("unfinished_bytes_max").copied().unwrap_or_default()
}

/// A PUBLISH of QoS 1 with so many bytes of payload.
fn publish(len: usize) -> Vec<u8> {
    wire::publish_qos1(1, "big", vec![b'x'; len])
}

fn holds(broker: &TestBroker, bytes: usize) {
    eventually(broker, "so many bytes held", |metrics| metrics.unfinished_bytes == bytes as u64);
}

/// Says that the test is over when it is dropped.
#[derive(Default)]
struct Over(Arc<AtomicBool>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn fifty_clients_that_withhold_the_last_byte_leave_room_for_others() {
    const MAX: usize = 8_000_000;
    const CLIENTS: usize = 50;
    let broker = bounded(MAX);
    let packet = publish(1_590_000);
    let withheld = &packet[..packet.len() - 1];
    let (broker, watched) = (Arc::new(broker), Over::default());
    let is_over = Arc::clone(&watched.0);
    let most = thread::scope(|scope| {
        // Dropped when this ends, also by a panic: the scope waits for who looks on.
        let watched = watched;
        let looked_at = Arc::clone(&broker);
        let most = scope.spawn(move || {
            let mut most = 0;
            while !is_over.load(Ordering::Acquire) {
                most = most.max(looked_at.metrics().unfinished_bytes);
                thread::yield_now();
            }
            most
        });
        let attackers: Vec<_> = (0..CLIENTS)
            .map(|n| {
                let stream = RawClient::clean(broker.addr(), &format!("attacker-{n}")).into_stream();
                scope.spawn(move || {
                    let mut stream: TcpStream = stream;
                    // Whoever is closed cannot send all of it.
                    let _ = stream.write_all(withheld);
                    stream
                })
            })
            .collect();
        let mut reader = RawClient::clean(broker.addr(), "reader");
        reader.subscribe("fine", 0);
        let mut healthy = RawClient::clean(broker.addr(), "healthy");
        let body = vec![b'h'; 1_000_000];
        let serve = |healthy: &mut RawClient, reader: &mut RawClient| {
            healthy.publish("fine", 1, &body);
            reader.expect_message("fine", &body);
        };
        // While they come, and when as many of them stay as may.
        serve(&mut healthy, &mut reader);
        let attackers: Vec<TcpStream> = attackers.into_iter().map(|one| one.join().expect("sent")).collect();
        let fit = MAX / (withheld.len() - FREE);
        eventually(&broker, "all closed that do not fit", |metrics| {
            closed(metrics) >= (CLIENTS - fit) as u64
        });
        for _ in 0..3 {
            serve(&mut healthy, &mut reader);
        }
        drop(attackers);
        eventually(&broker, "only the good ones left", |metrics| metrics.clients_connected == 2);
        serve(&mut healthy, &mut reader);
        drop(watched);
        most.join().expect("looked")
    });
    assert!(most <= (MAX / 8 * 9 + 2 * 65_536) as u64, "{most}");
    assert!(most > MAX as u64 / 2, "nobody looked while they held most: {most}");
    holds(&broker, 0);
}

#[test]
fn who_holds_most_is_closed_and_not_who_crosses_the_bound() {
    let broker = bounded(2_000_000);
    let (large, small) = (wire5::publish5(2, "big", Some(1), &[], vec![b'x'; 1_900_000]), publish(600_000));
    let (mut greedy, ..) = RawClient5::open(broker.addr(), &Connect5::new("greedy"));
    greedy.send(&large[..large.len() - 1]);
    let held = large.len() - 1 - FREE;
    holds(&broker, held);
    let mut modest = RawClient::clean(broker.addr(), "modest");
    modest.send(&small[..300_000]);
    greedy.expect_disconnect(0x97);
    holds(&broker, 300_000 - FREE);
    modest.send(&small[300_000..]);
    modest.expect(&wire::puback(1));
    holds(&broker, 0);
    assert_eq!(broker.metrics().closed.get("unfinished_bytes_max"), Some(&1));
    // Alone it may be the one that crosses, and the one that holds most.
    let mut alone = RawClient::clean(broker.addr(), "alone").into_stream();
    let _ = alone.write_all(&publish(3_000_000));
    eventually(&broker, "closed", |metrics| closed(metrics) == 2);
    holds(&broker, 0);
}

#[test]
fn small_packets_are_not_counted_and_large_ones_as_far_as_they_have_come() {
    let broker = bounded(0);
    let mut client = RawClient::clean(broker.addr(), "client");
    let packet = publish(FREE);
    client.send(&packet[..FREE]);
    eventually(&broker, "read", |metrics| metrics.bytes_received > FREE as u64);
    client.send(&packet[FREE..]);
    client.expect(&wire::puback(1));
    assert_eq!((broker.metrics().unfinished_bytes, closed(&broker.metrics())), (0, 0));
    // With no room at all one byte more is too much.
    client.send(&publish(2 * FREE)[..=FREE]);
    client.expect_closed();
    assert_eq!(closed(&broker.metrics()), 1);
}

#[test]
fn what_was_held_is_given_back_however_the_connection_ends() {
    let broker = bounded(1_000_000);
    let packet = publish(200_000);
    let ends: [fn(RawClient, &TestBroker); 5] = [
        |client, _| client.vanish(),
        |client, _| client.reset(),
        |mut client, broker| {
            drop(RawClient::clean(broker.addr(), "holder"));
            client.expect_closed();
        },
        |mut client, _| {
            client.send(&publish(200_000)[150_000..]);
            client.expect(&wire::puback(1));
            client.disconnect();
        },
        |mut client, _| {
            // The packet ends, and what follows is none.
            client.send(&[&publish(200_000)[150_000..], &[0xFF; 40_000]].concat());
            client.expect(&wire::puback(1));
            client.expect_closed();
        },
    ];
    for end in ends {
        let (mut client, _) = RawClient::open(broker.addr(), &Connect::new("holder"));
        client.send(&packet[..150_000]);
        holds(&broker, 150_000 - FREE);
        end(client, &broker);
        holds(&broker, 0);
    }
    assert_eq!(closed(&broker.metrics()), 0);
}

#[test]
fn without_a_bound_nobody_is_closed() {
    let broker = TestBroker::with_config(|config| config.limits.unfinished_bytes_max = MemoryMax::Unbounded);
    let packet = publish(15_900_000);
    let mut client = RawClient::clean(broker.addr(), "client");
    client.send(&packet[..packet.len() - 1]);
    holds(&broker, packet.len() - 1 - FREE);
    client.send(&packet[packet.len() - 1..]);
    client.expect(&wire::puback(1));
}

/// At `memory_max` QoS 0 messages go first, then who has not sent a packet as a whole, and what was
/// acknowledged after that, though it is in memory only and its client holds most.
#[test]
fn for_want_of_memory_unfinished_packets_go_after_qos_0_and_before_what_was_acknowledged() {
    const MAX: usize = 4_000_000;
    const ACKNOWLEDGED: u32 = 400;
    let body = |n: u32| n.to_be_bytes().repeat(1_125);
    let broker = TestBroker::with_config(|config| {
        config.storage.kind = StorageKind::Memory;
        config.limits.memory_max = MemoryMax::Bytes(MAX);
        config.limits.packet_bytes_max = 3_000_000;
    });
    let mut sleeper = RawClient::persistent(broker.addr(), "sleeper");
    sleeper.subscribe("s", 1);
    sleeper.disconnect();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for n in 0..ACKNOWLEDGED {
        publisher.publish("s", 1, body(n));
    }
    let mut stranger = RawClient::clean(broker.addr(), "stranger");
    stranger.send(&publish(2_900_000)[..1_200_000]);
    eventually(&broker, "the packet is counted", |metrics| {
        metrics.unfinished_bytes >= 1_200_000 - FREE as u64
    });
    let mut stalled = RawClient::clean(broker.addr(), "stalled");
    stalled.subscribe("flood", 0);
    while dropped(&broker.metrics(), "memory_max") == 0 {
        publisher.publish("flood", 0, vec![b'x'; 20_000]);
        publisher.expect_nothing();
    }
    let metrics = broker.metrics();
    assert!(!metrics.closed.contains_key("memory_max") && metrics.sheddings == 1, "{metrics:#?}");
    // When that has gone, somebody else has to: not those whose messages were acknowledged.
    let mut late = RawClient::clean(broker.addr(), "late");
    late.send(&publish(2_900_000)[..1_200_000]);
    eventually(&broker, "somebody is closed", |metrics| metrics.closed.get("memory_max") == Some(&1));
    publisher.publish("nobody", 1, "");
    eventually(&broker, "and that is enough", |metrics| {
        metrics.closed.get("memory_max") == Some(&1) && metrics.memory_bytes < MAX as u64
    });
    let mut sleeper = RawClient::resume(broker.addr(), "sleeper");
    for n in 0..ACKNOWLEDGED {
        sleeper.expect_message_and_ack("s", body(n));
    }
    sleeper.expect_nothing();
    drop((stranger, stalled, late));
}
