//! `limits.memory_max`: what sessions take by themselves, with their client ids.

use ternmq::MetricsSnapshot;
use ternmq::config::{MemoryMax, StorageKind};

use crate::support::wire::Connect;
use crate::support::wire5::{self, Connect5};
use crate::support::{RawClient, RawClient5, TestBroker};
use crate::{dropped, eventually, refused};

fn in_memory(bytes: usize) -> TestBroker {
    TestBroker::with_config(|config| {
        config.storage.kind = StorageKind::Memory;
        config.limits.memory_max = MemoryMax::Bytes(bytes);
    })
}

fn long(n: usize) -> String {
    format!("{n:04}{}", "x".repeat(59_996))
}

fn sessions(metrics: &MetricsSnapshot) -> usize {
    metrics.memory["sessions"] as usize
}

/// Comes back to a session and ends it.
fn end(broker: &TestBroker, client_id: &str) {
    RawClient5::resume(broker.addr(), client_id)
        .disconnect_with(0, &wire5::four(wire5::id::SESSION_EXPIRY, 0));
}

#[test]
fn long_client_ids_are_refused_at_the_bound_and_who_has_a_session_comes_back() {
    let broker = in_memory(4_000_000);
    RawClient::persistent(broker.addr(), "known").disconnect();
    for n in 0..16 {
        RawClient::persistent(broker.addr(), &long(n)).disconnect();
    }
    RawClient5::refused(broker.addr(), &Connect5::persistent(long(16)).bytes(), 0x97);
    let mut older = RawClient::connect(broker.addr());
    older.send(&Connect::new(long(17)).bytes());
    older.expect(&[0x20, 2, 0, 3]);
    older.expect_closed();
    let metrics = eventually(&broker, "nothing but sessions is held", |metrics| {
        metrics.memory_bytes == metrics.memory["sessions"]
    });
    assert_eq!((refused(&metrics, "memory_max"), refused(&metrics, "sessions_max")), (2, 0), "{metrics:#?}");
    assert!((960_000..=1_000_000).contains(&sessions(&metrics)), "{metrics:#?}");
    assert_eq!(metrics.sessions_offline, 17);
    // A clean start has the room of the session that it replaces.
    let (anew, present, _) = RawClient5::open(broker.addr(), &Connect5::new(long(0)).session_expiry(3_600));
    assert!(!present);
    anew.disconnect();
    // Others are served while that lasts.
    for known in ["known".to_owned(), long(0), long(15)] {
        RawClient::resume(broker.addr(), &known).disconnect();
    }
    RawClient::clean(broker.addr(), "short").disconnect();
    end(&broker, &long(0));
    eventually(&broker, "room", |metrics| sessions(metrics) < 950_000);
    RawClient::persistent(broker.addr(), &long(16)).disconnect();
    (1..17).for_each(|n| end(&broker, &long(n)));
    end(&broker, "known");
    eventually(&broker, "all is given back", |metrics| metrics.memory_bytes == 0);
}

#[test]
fn many_sessions_with_short_client_ids_are_bounded_as_well() {
    let broker = in_memory(1_000_000);
    let connected: Vec<RawClient> =
        (0..100).map(|n| RawClient::persistent(broker.addr(), &format!("{n}"))).collect();
    let each = sessions(&broker.metrics()) / connected.len();
    assert!((1_000..1_500).contains(&each), "{each}");
    drop(connected);
    for n in 100..250_000 / (each + 4) {
        RawClient::persistent(broker.addr(), &format!("{n}")).disconnect();
    }
    let mut last = RawClient::connect(broker.addr());
    last.send(&Connect::persistent("a client id of two hundred bytes".repeat(40)).bytes());
    last.expect(&[0x20, 2, 0, 3]);
    assert_eq!(refused(&broker.metrics(), "memory_max"), 1);
}

#[test]
fn a_start_takes_up_all_sessions_whatever_the_bound() {
    let directory = tempfile::tempdir().unwrap();
    let start = |max| {
        TestBroker::on_disk(directory.path(), |config| config.limits.memory_max = MemoryMax::Bytes(max))
    };
    let broker = start(4_000_000);
    for n in 0..16 {
        RawClient::persistent(broker.addr(), &long(n)).disconnect();
    }
    let before = sessions(&broker.metrics());
    drop(broker);
    let broker = start(1_000_000);
    let metrics = broker.metrics();
    assert_eq!((metrics.sessions_offline, sessions(&metrics)), (16, before));
    RawClient5::refused(broker.addr(), &Connect5::new("new").bytes(), 0x97);
    (0..16).for_each(|n| end(&broker, &long(n)));
    eventually(&broker, "all is given back", |metrics| metrics.memory_bytes == 0);
    RawClient::clean(broker.addr(), "new").disconnect();
}

/// Each group stands in the router like a session.
#[test]
fn groups_of_shared_subscriptions_are_bounded_with_the_subscriptions() {
    let broker = in_memory(1_000_000);
    let filters: Vec<String> = (0..300).map(|n| format!("$share/g{n:03}/t")).collect();
    let filters: Vec<(&str, u8)> = filters.iter().map(|filter| (filter.as_str(), 1)).collect();
    let mut first = RawClient5::clean(broker.addr(), "first");
    let mut second = RawClient5::clean(broker.addr(), "second");
    let codes = first.subscribe_all(&[], &filters);
    let granted = codes.iter().take_while(|code| **code == 1).count();
    assert!((150..220).contains(&granted), "{granted}");
    assert!(codes[granted..].iter().all(|code| *code == 0x97), "{codes:?}");
    let metrics = broker.metrics();
    assert_eq!(dropped(&metrics, "memory_max"), (300 - granted) as u64);
    assert_eq!(metrics.subscriptions, granted as u64, "what was refused is nowhere: {metrics:#?}");
    // Another member of a group costs no more than any subscription, nor do other options.
    first.unsubscribe(&["$share/g001/t"]);
    second.subscribe("$share/g000/t", 0);
    first.subscribe("$share/g000/t", 2);
    // The group goes with its last member.
    let taken = |metrics: &MetricsSnapshot| metrics.memory["subscriptions"];
    let full = taken(&broker.metrics());
    first.unsubscribe(&["$share/g000/t"]);
    assert!(taken(&broker.metrics()) + 1_000 > full);
    second.unsubscribe(&["$share/g000/t"]);
    assert!(taken(&broker.metrics()) + 1_000 < full);
    first.disconnect();
    second.disconnect();
    eventually(&broker, "all is given back", |metrics| metrics.memory_bytes == 0);
}

/// A publisher that does not come back to a topic keeps its receivers, and so does the thread of one
/// of many topics: that takes no room from newcomers, and is let go of after a while.
#[test]
fn sessions_that_have_ended_make_room_whoever_keeps_them_among_the_receivers_of_a_topic() {
    const WAVES: usize = 20;
    const IN_WAVE: usize = 20;
    for topics in [0, 40] {
        // A quarter of it has room for some 200 sessions.
        let broker = in_memory(1_000_000);
        let mut publisher = RawClient::clean(broker.addr(), "publisher");
        for n in 0..topics {
            publisher.publish(&format!("of many/{n}"), 1, "");
        }
        for wave in 0..WAVES {
            let topic = format!("wave/{wave}");
            let mut clients: Vec<RawClient> =
                (0..IN_WAVE).map(|n| RawClient::clean(broker.addr(), &format!("c-{wave}-{n}"))).collect();
            clients.iter_mut().for_each(|client| client.subscribe(&topic, 0));
            // A thread keeps what it is asked for again.
            for _ in 0..3 {
                publisher.publish(&topic, 1, "");
            }
            clients.into_iter().for_each(RawClient::disconnect);
            eventually(&broker, "the wave is over", |metrics| metrics.clients_connected == 1);
        }
        eventually(&broker, "nobody holds them any more", |metrics| {
            metrics.memory["ended"] < 64 * 1024 && sessions(metrics) < 2_000
        });
    }
}
