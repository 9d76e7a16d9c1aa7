//! A disk that is full: what was kept in reserve lets the broker end things, write checkpoints and
//! free segments, until there is room again.

use std::sync::Arc;
use std::time::Instant;

use super::broker::{SMALL, TestBroker};
use super::support::raw_client::{DEADLINE, RawClient};
use super::support::server_packet::ServerPacket;
use super::support::wire::{self, Connect};
use crate::config::Limits;
use crate::storage::LogOptions;
use crate::storage::simulated::SimulatedFiles;

pub(super) const DISK: usize = 400 * 1024;
const WITH_RESERVE: LogOptions = LogOptions { reserve_bytes: 96 * 1024, ..SMALL };

pub(super) fn start(files: &SimulatedFiles) -> TestBroker {
    start_with(files, WITH_RESERVE)
}

/// On a disk so small that the reserve is a quarter of it.
pub(super) fn start_on_small_disk(files: &SimulatedFiles) -> TestBroker {
    files.set_limit(Some(DISK));
    start_with(files, LogOptions { reserve_bytes: DISK as u64 / 2, ..SMALL })
}

fn start_with(files: &SimulatedFiles, options: LogOptions) -> TestBroker {
    let limits = Limits { queue_messages_max: 100_000, ..Limits::default() };
    let broker = TestBroker::start(Arc::new(files.clone()), options, limits).unwrap();
    broker.log().tend_reserve();
    broker
}

/// What the housekeeper does every second.
pub(super) fn keep(broker: &mut TestBroker) {
    broker.log().tend_reserve();
    broker.tend();
    broker.finish_tending();
    broker.log().tend_reserve();
}

pub(super) fn persistent(broker: &TestBroker, id: &str, filter: &str) {
    let mut client = RawClient::persistent(broker.addr, id);
    client.subscribe(filter, 1);
    client.disconnect();
}

/// Publishes until the disk is full; how many messages were acknowledged, and the publisher with
/// `waiting` more on their way.
pub(super) fn fill(broker: &TestBroker, waiting: u16) -> (usize, RawClient) {
    let mut publisher = RawClient::clean(broker.addr, "publisher");
    let body = vec![b'x'; 900];
    let mut acknowledged = 0;
    while !broker.log().is_short_of_room() {
        // Every hundredth is for the one who has little.
        let topic = if acknowledged % 100 == 0 { "both/rare" } else { "both" };
        publisher.send(&wire::raw_publish(2, topic, Some(7), &body));
        assert_eq!(publisher.expect_packet(), ServerPacket::PubAck(7));
        acknowledged += 1;
        assert!(acknowledged < 2_000, "the disk is never full");
    }
    for id in 0..waiting {
        publisher.send(&wire::raw_publish(2, "both", Some(100 + id), &body));
    }
    (acknowledged, publisher)
}

/// The housekeeper makes room, of which there must be some.
pub(super) fn comes_back(broker: &mut TestBroker) {
    let deadline = Instant::now() + DEADLINE;
    while broker.log().is_short_of_room() {
        assert!(Instant::now() < deadline, "no room: {:?}", broker.log().status());
        keep(broker);
    }
    assert!(!broker.log().status().failing);
}

/// Takes and acknowledges everything a session has.
pub(super) fn drain(broker: &TestBroker, id: &str) -> usize {
    let (mut client, _) = RawClient::open(broker.addr, &Connect::persistent(id));
    let (mut got, deadline) = (0, Instant::now() + DEADLINE);
    while broker.core.has_anything_for(id) {
        assert!(Instant::now() < deadline, "{id} is owed something and gets nothing");
        for packet in client.packets_until_ping() {
            if let ServerPacket::Publish(publish) = packet {
                client.send(&wire::puback(publish.id()));
                got += 1;
            }
        }
    }
    client.disconnect();
    got
}

/// Reported: a subscriber drained everything but 10 messages of another one, and nothing came back,
/// for no checkpoint and no copying is possible on a full disk.
#[test]
fn a_full_disk_comes_back_by_draining() {
    let files = SimulatedFiles::new(1);
    let mut broker = start(&files);
    persistent(&broker, "big", "both/#");
    persistent(&broker, "small", "both/rare");
    files.set_limit(Some(DISK));
    broker.log().tend_reserve();
    let (acknowledged, mut publisher) = fill(&broker, 10);
    publisher.stays_silent_and_open(std::time::Duration::from_millis(30));
    assert_eq!(drain(&broker, "big"), acknowledged, "what was acknowledged is there");
    comes_back(&mut broker);
    // Those that waited are taken now, though "small" has fetched nothing.
    for id in 0..10 {
        assert_eq!(publisher.expect_packet(), ServerPacket::PubAck(100 + id));
    }
    assert_eq!(drain(&broker, "small"), acknowledged.div_ceil(100));
    assert_eq!(drain(&broker, "big"), 10);
    broker.kill();
}

/// Newcomers have stored nothing yet, but what many of them store once is much: they wait for room
/// as well, and what stores nothing is taken from them.
#[test]
fn newcomers_wait_for_room_like_everybody_else() {
    let files = SimulatedFiles::new(5);
    let mut broker = start(&files);
    persistent(&broker, "big", "both/#");
    files.set_limit(Some(DISK));
    broker.log().tend_reserve();
    let (acknowledged, _publisher) = fill(&broker, 0);
    let log = broker.log();
    let before = log.status().bytes_submitted;
    let mut newcomers: Vec<RawClient> =
        (0..20).map(|n| RawClient::clean(broker.addr, &format!("newcomer {n}"))).collect();
    let mut listener = RawClient::clean(broker.addr, "listener");
    listener.subscribe("free", 0);
    for newcomer in &mut newcomers {
        newcomer.send(&wire::raw_publish(0, "free", None, "stores nothing"));
        newcomer.send(&wire::raw_publish(2, "both", Some(7), "stored"));
        listener.expect_message("free", "stores nothing");
    }
    newcomers[0].stays_silent_and_open(std::time::Duration::from_millis(50));
    assert_eq!(log.status().bytes_submitted, before, "nothing of them is taken");
    drop(log);
    assert_eq!(drain(&broker, "big"), acknowledged);
    comes_back(&mut broker);
    for newcomer in &mut newcomers {
        assert_eq!(newcomer.expect_packet(), ServerPacket::PubAck(7));
    }
    assert_eq!(drain(&broker, "big"), 20);
    broker.kill();
}

/// The first one to come after a restart gets its queue, and makes room.
#[test]
fn a_restart_on_a_full_disk_serves_who_drains_it() {
    let files = SimulatedFiles::new(2);
    let mut broker = start(&files);
    persistent(&broker, "big", "both/#");
    files.set_limit(Some(DISK));
    broker.log().tend_reserve();
    let (acknowledged, publisher) = fill(&broker, 0);
    drop(publisher);
    broker.kill();
    let found = files.after_power_cut(5);
    found.set_limit(Some(DISK));
    broker = start(&found);
    assert!(broker.log().is_short_of_room(), "there is no room for a reserve");
    assert_eq!(drain(&broker, "big"), acknowledged);
    comes_back(&mut broker);
    let mut publisher = RawClient::clean(broker.addr, "publisher");
    publisher.publish("both", 1, "again");
    broker.kill();
}

/// Reported: the disk is full while a checkpoint is under way, and the housekeeper waited without end.
#[test]
fn a_disk_that_is_full_during_a_checkpoint_holds_up_nothing_for_ever() {
    let files = SimulatedFiles::new(3);
    let mut broker = start(&files);
    persistent(&broker, "big", "both/#");
    files.set_limit(Some(DISK));
    broker.log().tend_reserve();
    broker.tend();
    let (acknowledged, mut publisher) = fill(&broker, 5);
    assert_eq!(drain(&broker, "big"), acknowledged);
    comes_back(&mut broker);
    for id in 0..5 {
        assert_eq!(publisher.expect_packet(), ServerPacket::PubAck(100 + id));
    }
    broker.kill();
}

/// Whoever needs no disk goes on: QoS 1 and 2 for those whose sessions end with their connections, or
/// for nobody. Also a publisher whose earlier messages had to be stored.
#[test]
fn what_concerns_no_kept_session_goes_on_while_the_disk_is_full() {
    let files = SimulatedFiles::new(4);
    let broker = start(&files);
    persistent(&broker, "away", "both/#");
    files.set_limit(Some(DISK));
    broker.log().tend_reserve();
    let (_, mut publisher) = fill(&broker, 0);
    let mut reader = RawClient::clean(broker.addr, "reader");
    reader.subscribe("live", 1);
    publisher.publish("live", 1, "at QoS 1");
    reader.expect_message_and_ack("live", "at QoS 1");
    publisher.publish("live", 2, "at QoS 2");
    reader.expect_message_and_ack("live", "at QoS 2");
    publisher.publish("nobody", 1, "is here");
    assert_eq!(broker.core.metrics().storage.map(|storage| storage.full), Some(1));
    // These have to be stored.
    for (topic, flags) in [("both", 2), ("live", 3), ("live", 1)] {
        let mut waits = RawClient::clean(broker.addr, &format!("{topic} {flags}"));
        waits.send(&wire::raw_publish(flags, topic, (flags > 1).then_some(1), "m"));
        // It is read on, and has no answer but to this.
        waits.expect_nothing();
    }
    broker.kill();
}
