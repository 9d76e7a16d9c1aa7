//! `limits.memory_max`: what waits for all clients together.

use std::time::Instant;

use ternmq::MetricsSnapshot;
use ternmq::config::{MemoryMax, StorageKind};

use crate::support::wire::{self, Connect};
use crate::support::wire5::{self, Connect5};
use crate::support::{DEADLINE, RawClient, RawClient5, TestBroker};
use crate::{dropped, eventually, refused};

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

fn account(metrics: &MetricsSnapshot, name: &str) -> usize {
    metrics.memory[name] as usize
}

#[test]
fn a_body_counts_once_however_many_wait_for_it() {
    const SESSIONS: usize = 100;
    let broker = in_memory(5_000_000);
    for n in 0..SESSIONS {
        let mut sleeper = RawClient::persistent(broker.addr(), &format!("sleeper-{n}"));
        sleeper.subscribe("t", 1);
        sleeper.disconnect();
    }
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for n in 0..10 {
        publisher.publish("t", 1, vec![n; 200_000]);
    }
    let metrics = broker.metrics();
    assert_eq!((metrics.sheddings, metrics.dropped.len()), (0, 0), "{metrics:#?}");
    assert!((2_000_000..2_010_000).contains(&account(&metrics, "bodies")), "{metrics:#?}");
    assert!(account(&metrics, "waiting") <= SESSIONS * 10 * 128, "{metrics:#?}");
    assert_eq!(metrics.waiting_bytes, metrics.memory["bodies"] + metrics.memory["waiting"]);
    // What they hold in common is given up by all of them, and no more of it than is needed.
    for n in 10..40 {
        publisher.publish("t", 1, vec![n; 200_000]);
    }
    let metrics = broker.metrics();
    assert!((3_000_000..=5_000_000).contains(&metrics.memory_bytes), "{metrics:#?}");
    assert!(!metrics.closed.contains_key("memory_max"), "{metrics:#?}");
    for n in 0..SESSIONS {
        let mut sleeper = RawClient::resume(broker.addr(), &format!("sleeper-{n}"));
        let first = sleeper.expect_publish();
        assert!(first.payload[0] < 30, "{} is the oldest left", first.payload[0]);
        sleeper.send(&wire::puback(first.id()));
        for n in first.payload[0] + 1..40 {
            sleeper.expect_message_and_ack("t", vec![n; 200_000]);
        }
        sleeper.disconnect();
    }
    eventually(&broker, "nothing waits", |metrics| metrics.waiting_bytes == 0);
}

#[test]
fn a_body_counts_once_however_many_outputs_it_stands_in() {
    let broker = in_memory(8_000_000);
    let mut stalled: Vec<RawClient> = (0..20)
        .map(|n| {
            let mut client = RawClient::clean(broker.addr(), &format!("stalled-{n}"));
            client.subscribe("t", 0);
            client
        })
        .collect();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for n in 0..6 {
        publisher.publish("t", 0, vec![n; 1_000_000]);
        publisher.expect_nothing();
    }
    let metrics = broker.metrics();
    assert_eq!((metrics.sheddings, metrics.dropped.len()), (0, 0), "{metrics:#?}");
    assert!(metrics.waiting_bytes <= 7_000_000, "{metrics:#?}");
    for client in &mut stalled {
        for n in 0..6 {
            client.expect_message("t", vec![n; 1_000_000]);
        }
    }
    eventually(&broker, "nothing waits", |metrics| {
        metrics.memory_bytes == metrics.memory["subscriptions"] + metrics.memory["sessions"]
    });
}

#[test]
fn bodies_in_flight_close_the_window_and_leave_memory_with_the_connection() {
    const BODY: usize = 500_000;
    const SENT: u32 = 24;
    let directory = tempfile::tempdir().unwrap();
    let broker = TestBroker::on_disk(directory.path(), |config| {
        // A quarter of it for what is on its way.
        config.limits.queue_bytes_max = 16_000_000;
    });
    let body = |n: u32| n.to_be_bytes().repeat(BODY / 4);
    let mut receiver = RawClient::persistent(broker.addr(), "receiver");
    receiver.subscribe("t", 1);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for n in 0..SENT {
        publisher.publish("t", 1, body(n));
    }
    let first = receiver.packets_until_ping();
    assert_eq!(first.len(), 8, "four megabytes, and none begins above that");
    let held = account(&broker.metrics(), "bodies");
    // And as much at the front of its queue, and what came last.
    assert!(held <= (2 * 8 + 1) * (BODY + 200), "{held}: {:#?}", broker.metrics());
    receiver.vanish();
    eventually(&broker, "all is on disk only, but for entries", |metrics| {
        metrics.clients_connected == 1 && metrics.waiting_bytes < 2_000
    });
    // Sent again from there, then the rest.
    let mut receiver = RawClient::resume(broker.addr(), "receiver");
    for n in 0..SENT {
        let publish = receiver.expect_message("t", body(n));
        assert_eq!(publish.dup, n < 8, "{n}");
        receiver.send(&wire::puback(publish.id()));
    }
    receiver.expect_nothing();
    eventually(&broker, "nothing waits", |metrics| metrics.waiting_bytes == 0);
    assert_eq!(broker.metrics().dropped.len(), 0, "{:#?}", broker.metrics());
}

#[test]
fn without_a_disk_bodies_in_flight_are_given_up_last_and_are_not_sent_again() {
    let broker = in_memory(4_000_000);
    let mut receivers: Vec<RawClient> = (0..4)
        .map(|n| {
            let mut receiver = RawClient::persistent(broker.addr(), &format!("r{n}"));
            receiver.subscribe(&format!("t/{n}"), 1);
            receiver
        })
        .collect();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    let mut ids: Vec<Vec<u16>> = vec![Vec::new(); 4];
    for round in 0..3 {
        for (n, receiver) in receivers.iter_mut().enumerate() {
            publisher.publish(&format!("t/{n}"), 1, vec![round; 1_000_000]);
            ids[n].push(receiver.expect_message(&format!("t/{n}"), vec![round; 1_000_000]).id());
        }
    }
    // Twelve megabytes are on their way and have arrived.
    publisher.publish("nobody", 1, "");
    let metrics = broker.metrics();
    assert!(metrics.memory_bytes <= 4_000_000, "{metrics:#?}");
    assert!(metrics.closed.is_empty(), "{metrics:#?}");
    // An acknowledgement still ends a delivery.
    receivers[0].send(&ids[0].iter().flat_map(|id| wire::puback(*id)).collect::<Vec<u8>>());
    receivers[0].expect_nothing();
    publisher.publish("t/0", 1, "small");
    receivers[0].expect_message_and_ack("t/0", "small");
    // Who comes back gets what is still there.
    receivers.pop().unwrap().vanish();
    eventually(&broker, "it is gone", |metrics| metrics.clients_connected == 4);
    let mut receiver = RawClient::resume(broker.addr(), "r3");
    let again = receiver.packets_until_ping().len();
    assert!(again < 3, "{again}");
    publisher.publish("t/3", 1, "next");
    receiver.put_back(Vec::new());
    receiver.expect_message("t/3", "next");
}

#[test]
fn wills_have_a_part_of_their_own_and_one_that_does_not_fit_is_refused() {
    let broker = in_memory(4_000_000);
    let with_will = |n: usize| Connect5::new(format!("c{n}")).will("w", vec![0; 60_000], 0, false);
    let mut held: Vec<RawClient5> =
        (0..16).map(|n| RawClient5::open(broker.addr(), &with_will(n)).0).collect();
    RawClient5::refused(broker.addr(), &with_will(16).bytes(), 0x97);
    let mut older = RawClient::connect(broker.addr());
    older.send(&Connect::new("older").will("w", vec![0; 60_000], 0, false).bytes());
    older.expect(&[0x20, 2, 0, 3]);
    older.expect_closed();
    let metrics = broker.metrics();
    assert_eq!(refused(&metrics, "memory_max"), 2, "{metrics:#?}");
    assert!((960_000..1_000_000).contains(&account(&metrics, "wills")), "{metrics:#?}");
    // Without a will, and with a small one, others get in.
    RawClient::clean(broker.addr(), "without").disconnect();
    // One that leaves makes room, be its will published or not.
    held.pop().unwrap().disconnect();
    eventually(&broker, "room", |metrics| account(metrics, "wills") < 950_000);
    held.push(RawClient5::open(broker.addr(), &with_will(16)).0);
    held.pop().unwrap().vanish();
    drop(held);
    eventually(&broker, "all is given back", |metrics| metrics.memory_bytes == 0);
}

#[test]
fn topic_aliases_have_the_same_part_and_who_wants_more_is_closed() {
    let broker = in_memory(4_000_000);
    let mut greedy = RawClient5::clean(broker.addr(), "greedy");
    let topic = |n: u16| format!("{n:05}{}", "x".repeat(59_995));
    let introduce = |n: u16| wire5::publish5(0, topic(n), None, &wire5::two(wire5::id::TOPIC_ALIAS, n), "");
    for n in 1..=16 {
        greedy.send(&introduce(n));
    }
    // The same number for another topic takes the place of the one before.
    for _ in 0..3 {
        greedy.send(&wire5::publish5(0, topic(77), None, &wire5::two(wire5::id::TOPIC_ALIAS, 1), ""));
        greedy.send(&introduce(1));
    }
    greedy.expect_nothing();
    let metrics = broker.metrics();
    assert!((960_000..1_000_000).contains(&account(&metrics, "aliases")), "{metrics:#?}");
    greedy.send(&introduce(17));
    greedy.expect_disconnect(0x97);
    eventually(&broker, "all is given back", |metrics| metrics.memory_bytes == 0);
    assert_eq!(broker.metrics().closed.get("memory_max"), Some(&1));
}

#[test]
fn numbers_are_not_given_out_towards_clients_when_there_is_no_room() {
    let broker = in_memory(1_000_000);
    let topic = |n: usize| format!("{n:05}{}", "x".repeat(49_995));
    let (mut reader, ..) = RawClient5::open(
        broker.addr(),
        &Connect5::new("reader").with(wire5::two(wire5::id::TOPIC_ALIAS_MAXIMUM, 60)),
    );
    reader.subscribe("#", 0);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for round in 0..2 {
        for n in 0..10 {
            publisher.publish(&topic(n), 0, format!("{round}"));
            reader.expect_message(&topic(n), format!("{round}"));
        }
    }
    let metrics = broker.metrics();
    assert!((190_000..=250_000).contains(&account(&metrics, "aliases")), "{metrics:#?}");
    reader.disconnect();
    eventually(&broker, "given back", |metrics| account(metrics, "aliases") == 0);
}

#[test]
fn subscriptions_of_all_clients_have_the_same_part() {
    let directory = tempfile::tempdir().unwrap();
    let start = |max| {
        TestBroker::on_disk(directory.path(), |config| config.limits.memory_max = MemoryMax::Bytes(max))
    };
    let broker = start(4_000_000);
    let filters: Vec<String> = (0..400).map(|n| format!("{n:04}/{}", "f".repeat(995))).collect();
    let filters: Vec<(&str, u8)> = filters.iter().map(|filter| (filter.as_str(), 1)).collect();
    let mut first = RawClient::persistent(broker.addr(), "first");
    let codes = first.subscribe_all(&filters);
    let granted = codes.iter().take_while(|code| **code == 1).count();
    assert!((300..350).contains(&granted) && codes[granted..].iter().all(|code| *code == 0x80), "{codes:?}");
    let mut second = RawClient5::clean(broker.addr(), "second");
    assert_eq!(second.subscribe_all(&[], &filters[..2]), [0x97, 0x97]);
    let metrics = broker.metrics();
    assert!(account(&metrics, "subscriptions") <= 1_000_000, "{metrics:#?}");
    assert_eq!(dropped(&metrics, "memory_max"), (400 - granted + 2) as u64);
    // What it has it may change; what it gives up is free for others.
    assert_eq!(first.subscribe_all(&filters[..1]), [1]);
    first.unsubscribe(filters[0].0);
    assert_eq!(second.subscribe_all(&[], &filters[..1]), [1]);
    drop((first, second, broker));
    // What was granted is there after a restart, whatever the bound is then.
    let broker = start(1_000_000);
    assert_eq!(broker.metrics().subscriptions as usize, granted - 1);
    RawClient::clean(broker.addr(), "first").disconnect();
    eventually(&broker, "all is given back", |metrics| metrics.memory_bytes == 0);
}

#[test]
fn who_holds_most_of_what_cannot_be_dropped_is_closed() {
    let broker = TestBroker::with_config(|config| {
        config.storage.kind = StorageKind::Memory;
        config.limits.memory_max = MemoryMax::Bytes(8_000_000);
        config.limits.unfinished_bytes_max = MemoryMax::Unbounded;
    });
    // Messages of QoS 1 that are in the output are under way.
    let mut stalled: Vec<RawClient> = (0..3)
        .map(|n| {
            let mut client = RawClient::clean(broker.addr(), &format!("stalled-{n}"));
            client.subscribe(&format!("t/{n}"), 1);
            client
        })
        .collect();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for (n, size) in [(0, 11_000_000), (1, 7_000_000), (2, 7_500_000)] {
        publisher.publish(&format!("t/{n}"), 1, vec![7; size]);
    }
    let metrics = eventually(&broker, "room", |metrics| {
        metrics.memory_bytes <= 8_000_000 && metrics.closed.contains_key("memory_max")
    });
    assert!(metrics.closed["memory_max"] <= 2, "{metrics:#?}");
    publisher.publish("nobody", 1, "goes on");
    drop(stalled.drain(..));
}

#[test]
fn shedding_that_gives_nothing_back_is_left_alone_for_a_while() {
    let mut config = TestBroker::config();
    config.storage.kind = StorageKind::Memory;
    config.limits.memory_max = MemoryMax::Bytes(20_000_000);
    config.limits.retained_bytes_max = MemoryMax::Unbounded;
    let broker = TestBroker::of(config.clone(), ternmq::Extensions::default());
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for n in 0..5 {
        publisher.publish_retained(&format!("r/{n}"), 1, vec![0; 1_000_000]);
    }
    // Retained messages are never given up for others.
    config.limits.memory_max = MemoryMax::Bytes(1_000_000);
    assert_eq!(broker.reload(&config), Vec::<String>::new());
    let started = Instant::now();
    for _ in 0..2_000 {
        publisher.publish("unrelated", 1, "x");
    }
    let rounds = broker.metrics().sheddings;
    // After 100 ms, then 200, 400, ..., 5 s.
    let most = 3 + (started.elapsed().as_millis() / 100 + 1).ilog2() as u64 + started.elapsed().as_secs() / 5;
    assert!((1..=most).contains(&rounds), "{rounds} rounds in {:?}", started.elapsed());
    assert_eq!(broker.metrics().retained, 5);
}
