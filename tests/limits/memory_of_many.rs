//! `limits.memory_max`: what many small things take, none of which is much by itself.

use ternmq::config::{MemoryMax, StorageKind};

use crate::support::{Connect, RawClient, ServerPacket, TestBroker, wire};
use crate::{dropped, eventually};

#[test]
fn a_small_body_for_many_counts_once_and_its_receivers_with_an_entry() {
    const SESSIONS: u64 = 50;
    const MESSAGES: u64 = 64;
    let broker = TestBroker::with_config(|config| config.storage.kind = StorageKind::Memory);
    for n in 0..SESSIONS {
        let mut sleeper = RawClient::persistent(broker.addr(), &format!("sleeper-{n}"));
        sleeper.subscribe("t", 1);
        sleeper.disconnect();
    }
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for _ in 0..MESSAGES {
        publisher.publish("t", 1, [7; 300]);
    }
    let metrics = broker.metrics();
    assert_eq!(metrics.memory["bodies"], MESSAGES * (300 + 1 + 96), "{metrics:#?}");
    // An entry is 40 bytes.
    assert_eq!(metrics.memory["waiting"], SESSIONS * MESSAGES * 40, "{metrics:#?}");
    for n in 0..SESSIONS {
        RawClient::clean(broker.addr(), &format!("sleeper-{n}")).disconnect();
    }
    // The publisher keeps who had its message.
    eventually(&broker, "all is given back", |metrics| {
        metrics.memory_bytes == metrics.memory["sessions"] + metrics.memory["ended"]
    });
}

#[test]
fn entries_of_what_is_on_disk_stay_within_the_bound_and_the_oldest_go() {
    const SENT: u32 = 6_000;
    const MAX: usize = 200_000;
    let directory = tempfile::tempdir().unwrap();
    let broker = TestBroker::on_disk(directory.path(), |config| {
        config.limits.memory_max = MemoryMax::Bytes(MAX);
    });
    for name in ["long", "short"] {
        let mut sleeper = RawClient::persistent(broker.addr(), name);
        sleeper.subscribe(name, 1);
        sleeper.disconnect();
    }
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for n in 0..100_u32 {
        publisher.publish("short", 1, n.to_be_bytes());
    }
    for n in 0..SENT {
        publisher.publish("long", 1, n.to_be_bytes());
        if n % 100 == 0 {
            let metrics = broker.metrics();
            assert!(metrics.memory_bytes <= MAX as u64, "{metrics:#?}");
        }
    }
    let metrics = broker.metrics();
    let lost = dropped(&metrics, "memory_max") as u32;
    assert!((1..SENT - 1_000).contains(&lost), "{metrics:#?}");
    for (name, first, last) in [("short", 0, 100), ("long", lost, SENT)] {
        let mut sleeper = RawClient::resume(broker.addr(), name);
        for n in first..last {
            sleeper.expect_message_and_ack(name, n.to_be_bytes());
        }
        sleeper.expect_nothing();
    }
}

/// Strangers fill what is never given up for others, and begin packets that they do not end: those
/// go, and nothing that was acknowledged.
#[test]
fn entries_have_three_eighths_whatever_strangers_hold() {
    const MAX: usize = 1_000_000;
    const SLEEPERS: usize = 2;
    const SENT: u32 = 4_500;
    let directory = tempfile::tempdir().unwrap();
    let broker = TestBroker::on_disk(directory.path(), |config| {
        config.limits.memory_max = MemoryMax::Bytes(MAX);
        config.limits.packet_bytes_max = 200_000;
    });
    for n in 0..SLEEPERS {
        let mut sleeper = RawClient::persistent(broker.addr(), &format!("sleeper-{n}"));
        sleeper.subscribe("s", 1);
        sleeper.disconnect();
    }
    let account = |name: &str| broker.metrics().memory[name] as usize;
    let mut stranger = RawClient::clean(broker.addr(), "retained");
    for n in 0..4 {
        stranger.publish_retained(&format!("r/{n}"), 1, vec![b'r'; 60_000]);
    }
    let wills: Vec<RawClient> = (0..4)
        .map(|n| {
            let will = Connect::new(format!("will-{n}")).will("w", vec![b'w'; 55_000], 0, false);
            RawClient::open(broker.addr(), &will).0
        })
        .collect();
    let mut unfinished: Vec<RawClient> = Vec::new();
    for n in 0..3 {
        let mut client = RawClient::clean(broker.addr(), &format!("unfinished-{n}"));
        client.send(&wire::raw_publish(0, "u", None, vec![b'u'; 150_000])[..90_000]);
        unfinished.push(client);
        eventually(&broker, "it is counted", |metrics| {
            metrics.memory["unfinished"] as usize > (n + 1) * 70_000
        });
    }
    assert!(account("retained") + account("wills") + account("unfinished") > MAX * 2 / 3);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for n in 0..SENT {
        publisher.publish("s", 1, n.to_be_bytes());
    }
    assert_eq!(dropped(&broker.metrics(), "memory_max"), 0);
    eventually(&broker, "a packet that has not come as a whole has gone", |metrics| {
        metrics.memory["unfinished"] < 200_000
    });
    for n in 0..SLEEPERS {
        let mut sleeper = RawClient::resume(broker.addr(), &format!("sleeper-{n}"));
        for n in 0..SENT {
            sleeper.expect_message_and_ack("s", n.to_be_bytes());
        }
    }
    drop((wills, unfinished));
}

#[test]
fn who_does_not_read_gets_nothing_back_into_memory_that_has_left_it() {
    const STALLED: usize = 10;
    const MESSAGES: usize = 300;
    const MAX: u64 = 1_000_000;
    let directory = tempfile::tempdir().unwrap();
    let broker = TestBroker::on_disk(directory.path(), |config| {
        config.limits.memory_max = MemoryMax::Bytes(MAX as usize);
    });
    let mut stalled: Vec<RawClient> = (0..STALLED)
        .map(|n| {
            let mut client = RawClient::persistent(broker.addr(), &format!("stalled-{n}"));
            client.subscribe("t", 1);
            client
        })
        .collect();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for n in 0..MESSAGES {
        publisher.publish("t", 1, [n as u8; 900]);
        let metrics = broker.metrics();
        assert!(metrics.memory_bytes <= MAX + MAX / 8, "{metrics:#?}");
    }
    // Whoever acknowledges goes on, and has everything.
    for client in &mut stalled {
        for n in 0..MESSAGES {
            client.expect_message_and_ack("t", [n as u8; 900]);
        }
        client.expect_nothing();
    }
    assert_eq!(dropped(&broker.metrics(), "memory_max"), 0);
}

/// Each stands in the output of a client that reads nothing, below the size of a piece of output:
/// a single one that is written in part must not keep the others.
#[test]
fn small_qos_0_messages_of_many_outputs_are_left_out_and_nobody_is_closed() {
    const STALLED: usize = 60;
    const MAX: usize = 3_000_000;
    let broker = TestBroker::with_config(|config| {
        config.storage.kind = StorageKind::Memory;
        config.limits.memory_max = MemoryMax::Bytes(MAX);
    });
    let stalled: Vec<RawClient> = (0..STALLED)
        .map(|n| {
            let mut client = RawClient::clean(broker.addr(), &format!("stalled-{n}"));
            client.subscribe("t", 0);
            client
        })
        .collect();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    let mut sent = 0_u64;
    // First the sockets are filled.
    while dropped(&broker.metrics(), "memory_max") < 100_000 {
        for _ in 0..100 {
            publisher.send(&wire::raw_publish(0, "t", None, [sent.to_be_bytes(); 125].concat()));
            sent += 1;
        }
        publisher.expect_nothing();
    }
    let metrics = broker.metrics();
    assert!(!metrics.closed.contains_key("memory_max"), "{metrics:#?}");
    for mut client in stalled {
        let packets = client.packets_until_ping();
        let numbers = packets.into_iter().map(|packet| match packet {
            ServerPacket::Publish(publish) => {
                assert!(publish.payload.chunks(8).all(|chunk| *chunk == publish.payload[..8]));
                u64::from_be_bytes(publish.payload[..8].try_into().unwrap())
            }
            other => panic!("{other:?}"),
        });
        let numbers: Vec<u64> = numbers.collect();
        assert!(numbers.is_sorted(), "{numbers:?}");
        assert_eq!(numbers.last(), Some(&(sent - 1)), "{numbers:?}");
    }
}
