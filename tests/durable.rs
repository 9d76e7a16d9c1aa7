//! The durable log as a user of the broker sees it: what is kept over a restart, what costs no disk, what the directory grows to.

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use support::{Connect, RawClient, ServerPacket, TestBroker, wire};
use ternmq::QoS;
use ternmq::config::{Config, ListenerConfig, SyncMode};

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn start(directory: &Path) -> TestBroker {
    TestBroker::on_disk(directory, |_| {})
}

/// Everything a client is sent until it has nothing more to expect, as `topic=payload`, acknowledged.
fn drain(client: &mut RawClient) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let packets = client.packets_until_ping();
        let publishes: Vec<_> = packets
            .into_iter()
            .filter_map(|packet| match packet {
                ServerPacket::Publish(publish) => Some(publish),
                _ => None,
            })
            .collect();
        if publishes.is_empty() {
            return seen;
        }
        for publish in publishes {
            seen.push(format!("{}={}", publish.topic, String::from_utf8_lossy(&publish.payload)));
            if publish.qos == 1 {
                client.send(&wire::puback(publish.id()));
            }
        }
    }
}

#[test]
fn sessions_queues_and_retained_messages_are_there_after_a_restart() {
    let directory = directory();
    let broker = start(directory.path());
    let mut subscriber = RawClient::persistent(broker.addr(), "s");
    subscriber.subscribe("a/#", 1);
    subscriber.disconnect();
    let mut publisher = RawClient::clean(broker.addr(), "p");
    for n in 0..500 {
        publisher.publish(&format!("a/{n}"), 1, n.to_string());
    }
    publisher.publish_retained("r/kept", 1, "kept");
    publisher.publish_retained("r/gone", 1, "gone");
    publisher.publish_retained("r/gone", 1, "");
    drop(broker);

    let broker = start(directory.path());
    assert_eq!((broker.metrics().sessions_offline, broker.metrics().retained), (1, 1));
    let mut subscriber = RawClient::resume(broker.addr(), "s");
    let mut seen = Vec::new();
    while seen.len() < 500 {
        seen.extend(drain(&mut subscriber));
    }
    assert_eq!(seen, (0..500).map(|n| format!("a/{n}={n}")).collect::<Vec<_>>());
    let mut probe = RawClient::clean(broker.addr(), "probe");
    probe.subscribe("r/#", 1);
    assert_eq!(drain(&mut probe), ["r/kept=kept"]);
    subscriber.disconnect();
    drop(broker);

    // What was acknowledged is not sent again, and the subscription goes on.
    let broker = start(directory.path());
    let mut publisher = RawClient::clean(broker.addr(), "p");
    publisher.publish("a/new", 1, "new");
    let mut subscriber = RawClient::resume(broker.addr(), "s");
    let id = subscriber.expect_message("a/new", "new").id();
    subscriber.send(&wire::puback(id));
    assert_eq!(drain(&mut subscriber), [] as [String; 0]);
}

#[test]
fn a_session_begun_anew_does_not_come_back() {
    let directory = directory();
    let broker = start(directory.path());
    let mut client = RawClient::persistent(broker.addr(), "c");
    client.subscribe("t", 1);
    client.disconnect();
    RawClient::clean(broker.addr(), "c").disconnect();
    drop(broker);
    let broker = start(directory.path());
    assert_eq!((broker.metrics().sessions_offline, broker.metrics().subscriptions), (0, 0));
    let (_, present) = RawClient::open(broker.addr(), &Connect::persistent("c"));
    assert!(!present);
}

#[test]
fn what_concerns_no_durable_session_and_is_not_retained_costs_no_disk() {
    let directory = directory();
    let broker = start(directory.path());
    // What the clock shows at the start is on record.
    let begun = broker.metrics().storage.expect("it is on disk").bytes_recorded;
    let mut subscriber = RawClient::clean(broker.addr(), "s");
    subscriber.subscribe("t", 1);
    let mut publisher = RawClient::clean(broker.addr(), "p");
    for n in 0..100 {
        for qos in [0, 1, 2] {
            publisher.publish("t", qos, n.to_string());
        }
    }
    drain(&mut subscriber);
    let storage = broker.metrics().storage.expect("it is on disk");
    assert_eq!(storage.bytes_recorded, begun);
    // And what does is written.
    RawClient::persistent(broker.addr(), "durable").subscribe("t", 1);
    publisher.publish("t", 1, "x");
    let later = broker.metrics().storage.expect("it is on disk");
    assert!(later.bytes_recorded > begun && later.syncs > storage.syncs, "{later:?}");
}

#[test]
fn a_retained_message_rewritten_all_day_does_not_fill_the_disk() {
    let directory = directory();
    let broker = TestBroker::on_disk(directory.path(), |config| config.storage.sync = SyncMode::Never);
    let mut publisher = RawClient::clean(broker.addr(), "p");
    for n in 0..864_u32 {
        // A hundred at once: a day has 86,400 seconds.
        let mut bytes = Vec::new();
        for _ in 0..99 {
            bytes.extend(wire::raw_publish(0x31, "plant/7/temperature", None, [b'x'; 180]));
        }
        publisher.send(&bytes);
        publisher.publish_retained("plant/7/temperature", 1, n.to_string());
    }
    let storage = broker.metrics().storage.expect("it is on disk");
    assert!(storage.bytes_recorded > 16_000_000, "{storage:?}");
    let deadline = Instant::now() + Duration::from_secs(60);
    // Checkpoint and freeing come within a second or two; the directory is asked, not the counter.
    loop {
        let files = std::fs::read_dir(directory.path()).expect("the directory");
        // Besides the log there is the reserve, which is as large with an empty one.
        let logs = files.flatten().filter(|file| file.file_name().to_string_lossy().ends_with(".log"));
        let bytes: u64 = logs.map(|file| file.metadata().map_or(0, |file| file.len())).sum();
        if bytes < 13_000_000 {
            break;
        }
        assert!(Instant::now() < deadline, "the data directory still has {bytes} bytes");
        publisher.packets_until_ping();
        std::thread::yield_now();
    }
    drop(broker);
    let broker = start(directory.path());
    let mut probe = RawClient::clean(broker.addr(), "probe");
    probe.subscribe("plant/#", 0);
    assert_eq!(drain(&mut probe), ["plant/7/temperature=863"]);
}

#[test]
fn without_a_data_directory_nothing_is_stored_and_everything_works() {
    let broker = TestBroker::start();
    assert!(broker.metrics().storage.is_none());
    let mut subscriber = RawClient::persistent(broker.addr(), "s");
    subscriber.subscribe("t", 2);
    subscriber.disconnect();
    RawClient::clean(broker.addr(), "p").publish("t", 2, "m");
    let mut subscriber = RawClient::resume(broker.addr(), "s");
    subscriber.expect_message("t", "m");
}

#[tokio::test]
async fn a_program_can_wait_until_what_it_published_is_stored() {
    let directory = directory();
    let config = || Config {
        listeners: vec![ListenerConfig::tcp(([127, 0, 0, 1], 0).into())],
        data_dir: Some(directory.path().to_owned()),
        sys_interval: None,
        ..Config::default()
    };
    let broker = ternmq::Broker::start(config()).await.expect("a broker");
    broker.publish("t", b"kept", QoS::AtLeastOnce, true).expect("valid");
    tokio::time::timeout(Duration::from_secs(20), broker.stored()).await.expect("in time").expect("it runs");
    assert!(broker.metrics().storage.is_some_and(|storage| storage.bytes_written > 0));
    broker.shutdown().await;
    drop(broker);
    let broker = ternmq::Broker::start(config()).await.expect("a broker");
    assert_eq!(broker.metrics().retained, 1);
    broker.shutdown().await;
}
