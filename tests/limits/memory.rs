//! `limits.memory_max`: what waits for all clients together.

use std::time::Instant;

use ternmq::config::{MemoryMax, StorageKind};

use crate::support::wire;
use crate::support::{DEADLINE, RawClient, TestBroker};
use crate::{dropped, eventually};

fn in_memory(bytes: usize) -> TestBroker {
    TestBroker::with_config(|config| {
        config.storage.kind = StorageKind::Memory;
        config.limits.memory_max = MemoryMax::Bytes(bytes);
    })
}

#[test]
fn the_oldest_qos_0_messages_of_the_longest_output_go_first_and_others_get_everything() {
    // Small ones stand in the output as they are, large ones are referred to.
    for payload in [1_000, 20_000] {
        let broker = in_memory(4_000_000);
        let mut stalled = RawClient::clean(broker.addr(), "stalled");
        stalled.subscribe("flood", 0);
        let mut healthy = RawClient::clean(broker.addr(), "healthy");
        healthy.subscribe("flood", 0);
        let mut publisher = RawClient::clean(broker.addr(), "publisher");
        let (mut sent, started) = (0_usize, Instant::now());
        while dropped(&broker.metrics(), "memory_max") == 0 {
            assert!(started.elapsed() < DEADLINE, "nothing is dropped: {:#?}", broker.metrics());
            let mut body = vec![b'x'; payload];
            body[..8].copy_from_slice(&(sent as u64).to_be_bytes());
            publisher.publish("flood", 0, &body);
            healthy.expect_message("flood", &body);
            sent += 1;
        }
        let metrics = broker.metrics();
        assert!(metrics.waiting_bytes <= 4_000_000, "{metrics:#?}");
        assert_eq!(metrics.sheddings, 1);
        assert_eq!(metrics.dropped.len(), 1, "no other limit has bitten: {:?}", metrics.dropped);
        // What it gets is in order, and what is missing is counted. The newest are there.
        let numbers: Vec<u64> = stalled
            .packets_until_ping()
            .into_iter()
            .map(|packet| match packet {
                crate::support::ServerPacket::Publish(publish) => {
                    assert_eq!(publish.payload.len(), payload);
                    u64::from_be_bytes(publish.payload[..8].try_into().unwrap())
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(numbers.is_sorted());
        assert_eq!(numbers.last(), Some(&(sent as u64 - 1)));
        assert_eq!((sent - numbers.len()) as u64, dropped(&metrics, "memory_max"));
        // All is given back when it is read.
        eventually(&broker, "nothing waits", |metrics| metrics.waiting_bytes == 0);
    }
}

#[test]
fn the_longest_queue_is_shortened_and_the_others_are_left_alone() {
    let broker = in_memory(2_000_000);
    for name in ["large", "small"] {
        let mut sleeper = RawClient::persistent(broker.addr(), name);
        sleeper.subscribe(name, 1);
        sleeper.disconnect();
    }
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for n in 0..10_u8 {
        publisher.publish("small", 1, vec![n; 10_000]);
    }
    for n in 0..250_u8 {
        publisher.publish("large", 1, vec![n; 10_000]);
    }
    let metrics = broker.metrics();
    assert!(metrics.waiting_bytes <= 2_000_000 && metrics.sheddings >= 2, "{metrics:#?}");
    let lost = dropped(&metrics, "memory_max");
    assert!(lost >= 50, "{metrics:#?}");
    let mut sleeper = RawClient::resume(broker.addr(), "small");
    for n in 0..10 {
        sleeper.expect_message_and_ack("small", vec![n; 10_000]);
    }
    sleeper.expect_nothing();
    // The oldest are gone, the others are there in their order.
    let mut sleeper = RawClient::resume(broker.addr(), "large");
    for n in lost as u8..250 {
        sleeper.expect_message_and_ack("large", vec![n; 10_000]);
    }
    sleeper.expect_nothing();
    eventually(&broker, "nothing waits", |metrics| metrics.waiting_bytes == 0);
}

#[test]
fn a_session_that_ends_gives_its_memory_back() {
    let broker = in_memory(2_000_000);
    let mut sleeper = RawClient::persistent(broker.addr(), "sleeper");
    sleeper.subscribe("t", 1);
    sleeper.disconnect();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for _ in 0..10 {
        publisher.publish("t", 1, vec![0; 10_000]);
    }
    assert!(broker.metrics().waiting_bytes > 100_000);
    RawClient::clean(broker.addr(), "sleeper").disconnect();
    assert_eq!(broker.metrics().waiting_bytes, 0);
}

#[test]
fn what_is_on_disk_leaves_memory_and_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let broker = TestBroker::on_disk(directory.path(), |config| {
        config.limits.memory_max = MemoryMax::Bytes(2_000_000);
    });
    let mut stalled = RawClient::persistent(broker.addr(), "stalled");
    stalled.subscribe("t", 1);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    // Beyond its window, what waits for a client that reads is kept in memory at first.
    for n in 0..400_u32 {
        publisher.publish("t", 1, n.to_be_bytes().repeat(2_500));
    }
    let metrics = broker.metrics();
    assert!(metrics.sheddings > 0, "{metrics:#?}");
    assert_eq!(dropped(&metrics, "memory_max"), 0, "{metrics:#?}");
    for n in 0..400_u32 {
        let publish = stalled.expect_message("t", n.to_be_bytes().repeat(2_500));
        stalled.send(&wire::puback(publish.id()));
    }
    stalled.expect_nothing();
    eventually(&broker, "nothing waits", |metrics| metrics.waiting_bytes == 0);
}

#[test]
fn without_a_bound_nothing_is_shed() {
    let broker = TestBroker::with_config(|config| {
        config.storage.kind = StorageKind::Memory;
        config.limits.memory_max = MemoryMax::Unbounded;
    });
    let mut sleeper = RawClient::persistent(broker.addr(), "sleeper");
    sleeper.subscribe("t", 1);
    sleeper.disconnect();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for _ in 0..50 {
        publisher.publish("t", 1, vec![0; 1_000_000]);
    }
    let metrics = broker.metrics();
    assert!(metrics.waiting_bytes > 50_000_000 && metrics.sheddings == 0, "{metrics:#?}");
}
