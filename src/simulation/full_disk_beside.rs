//! A full disk, or one that fails: what a client ends, and its own end, goes ahead of what it has sent
//! before and what has to wait.

use std::sync::Arc;
use std::time::Duration;

use super::asking::{retained_value, wait_until};
use super::broker::{SMALL, TestBroker};
use super::full_disk::{DISK, comes_back, fill, persistent, start};
use super::support::raw_client::RawClient;
use super::support::server_packet::ServerPacket;
use super::support::wire::{self, Connect};
use crate::config::Limits;
use crate::storage::simulated::{Fault, SimulatedFiles, StepKind};

/// A broker on a full disk, all of which "big" has; how many messages that are.
fn full(files: &SimulatedFiles) -> (TestBroker, usize) {
    let broker = start(files);
    persistent(&broker, "big", "both/#");
    files.set_limit(Some(DISK));
    broker.log().tend_reserve();
    let (acknowledged, _publisher) = fill(&broker, 0);
    (broker, acknowledged)
}

/// Takes and acknowledges so many messages, without sending anything else.
fn take(client: &mut RawClient, messages: usize) {
    for _ in 0..messages {
        let publish = client.expect_publish();
        client.send(&wire::puback(publish.id()));
    }
}

fn dropped(broker: &TestBroker) -> u64 {
    broker.core.metrics().dropped.get("disk_full").copied().unwrap_or(0)
}

/// Reported: 64 of 328 messages came, and nothing after that.
#[test]
fn acknowledgements_go_ahead_of_a_publish_that_waits() {
    let files = SimulatedFiles::new(21);
    let (mut broker, all) = full(&files);
    let mut big = RawClient::resume(broker.addr, "big");
    big.send(&wire::raw_publish(3, "status", Some(9), "online"));
    big.send(&wire::subscribe(10, &[("other", 1)]));
    take(&mut big, all);
    big.expect_nothing();
    comes_back(&mut broker);
    // In their order.
    assert_eq!(big.expect_packet(), ServerPacket::PubAck(9));
    assert_eq!(big.expect_packet(), ServerPacket::SubAck(10, vec![1]));
    assert_eq!(retained_value(&broker, "status").as_deref(), Some(&b"online"[..]));
    assert_eq!(dropped(&broker), 0);
    broker.kill();
}

/// Reported: the message by which a device says that it is there, at QoS 0, was enough; also over
/// reconnects.
#[test]
fn what_is_acknowledged_behind_a_birth_message_is_not_sent_again() {
    let files = SimulatedFiles::new(22);
    let (mut broker, all) = full(&files);
    let mut left = all;
    for n in 1.. {
        let mut big = RawClient::resume(broker.addr, "big");
        big.send(&wire::raw_publish(1, "status", None, format!("online {n}")));
        let now = left.min(100);
        take(&mut big, now);
        left -= now;
        for packet in big.packets_until_ping() {
            // On its way already.
            assert!(left > 0 && matches!(packet, ServerPacket::Publish(_)), "{packet:?}");
        }
        if left == 0 {
            comes_back(&mut broker);
            wait_until("the birth message is taken", || {
                retained_value(&broker, "status") == Some(format!("online {n}").into_bytes())
            });
            break;
        }
        big.disconnect();
        wait_until("what waited is counted", || dropped(&broker) == n);
    }
    assert!(all > 200, "in several connections");
    broker.kill();
}

/// Reported: the end of such a connection was not seen, and its keep alive not judged.
#[test]
fn the_end_of_a_connection_is_seen_while_its_publish_waits() {
    let files = SimulatedFiles::new(23);
    let (broker, _) = full(&files);
    let mut listener = RawClient::clean(broker.addr, "listener");
    listener.subscribe("will", 0);
    let waits = |id: &str, seconds| {
        // For want of room it cannot be a new one with a will: it is known.
        let mut client = RawClient::clean(broker.addr, id);
        client.expect_nothing();
        let connect = Connect::new(id).keep_alive(seconds).will("will", id, 0, false);
        (client, _) = RawClient::open(broker.addr, &connect);
        client.send(&wire::raw_publish(3, "status", Some(1), "online"));
        client.expect_nothing();
        client
    };
    drop(waits("closes", 0));
    listener.expect_message("will", "closes");
    waits("resets", 0).reset();
    listener.expect_message("will", "resets");
    let mut says_goodbye = waits("says goodbye", 0);
    says_goodbye.send(&[0xe0, 0]);
    says_goodbye.expect_closed();
    let silent = waits("is silent", 1);
    listener.expect_message("will", "is silent");
    listener.expect_nothing();
    drop(silent);
    wait_until("what waited is counted", || dropped(&broker) == 4);
    broker.kill();
}

/// A PUBREL goes ahead, but not of its own PUBLISH.
#[test]
fn a_release_does_not_overtake_its_publish() {
    let files = SimulatedFiles::new(24);
    let broker = start(&files);
    persistent(&broker, "big", "both/#");
    let mut sender = RawClient::persistent(broker.addr, "sender");
    sender.send(&wire::publish_qos2(6, "both", "m"));
    assert_eq!(sender.expect_packet(), ServerPacket::PubRec(6));
    files.set_limit(Some(DISK));
    broker.log().tend_reserve();
    let mut broker = broker;
    let (acknowledged, _publisher) = fill(&broker, 0);
    sender.send(&wire::publish_qos2(5, "both", "m"));
    sender.send(&wire::pubrel(5));
    sender.send(&wire::pubrel(6));
    assert_eq!(sender.expect_packet(), ServerPacket::PubComp(6));
    sender.expect_nothing();
    let mut big = RawClient::resume(broker.addr, "big");
    take(&mut big, acknowledged + 1);
    comes_back(&mut broker);
    assert_eq!(sender.expect_packet(), ServerPacket::PubRec(5));
    assert_eq!(sender.expect_packet(), ServerPacket::PubComp(5));
    broker.kill();
}

/// What waits has a bound, at which QoS 0 is dropped: its sender is read for ever.
#[test]
fn a_sender_of_much_at_qos_0_is_still_read_behind_a_publish_that_waits() {
    let files = SimulatedFiles::new(25);
    let (mut broker, all) = full(&files);
    let mut big = RawClient::resume(broker.addr, "big");
    big.send(&wire::raw_publish(1, "status", None, "online"));
    let telemetry = wire::publish_qos0("telemetry", vec![b't'; 1_000]);
    for _ in 0..400 {
        big.send(&telemetry);
    }
    take(&mut big, all);
    big.expect_nothing();
    let dropped_at_bound = dropped(&broker);
    assert!((300..400).contains(&dropped_at_bound), "{dropped_at_bound} dropped");
    let held = broker.core.metrics().unfinished_bytes;
    assert!((40_000..130_000).contains(&held), "{held} bytes are charged");
    let mut listener = RawClient::clean(broker.addr, "listener");
    listener.subscribe("telemetry", 0);
    comes_back(&mut broker);
    for _ in 0..400 - dropped_at_bound {
        assert_eq!(listener.expect_publish().topic, "telemetry");
    }
    listener.expect_nothing();
    wait_until("all is given back", || broker.core.metrics().unfinished_bytes == 0);
    broker.kill();
}

/// A sender of much at QoS 1 is not read any more at the bound, and nothing is lost.
#[test]
fn what_waits_is_bounded_and_comes_in_its_order() {
    let files = SimulatedFiles::new(26);
    let (mut broker, all) = full(&files);
    let mut sender = RawClient::clean(broker.addr, "sender");
    let mut sent = 0;
    for id in 1..=100_u16 {
        sender.send(&wire::publish_qos1(id, "both", vec![b'm'; 3_000]));
        sent += 1;
    }
    wait_until("it waits", || broker.core.metrics().unfinished_bytes > 0);
    sender.stays_silent_and_open(Duration::from_millis(50));
    let held = broker.core.metrics().unfinished_bytes;
    assert!(held < 210_000, "{held} bytes are held");
    let mut big = RawClient::resume(broker.addr, "big");
    take(&mut big, all);
    comes_back(&mut broker);
    for id in 1..=sent {
        assert_eq!(sender.expect_packet(), ServerPacket::PubAck(id));
        take(&mut big, 1);
    }
    broker.kill();
}

/// The same on a disk that fails, when no more may wait in memory.
#[test]
fn a_failing_disk_does_not_keep_the_end_of_a_connection_from_being_seen() {
    let files = SimulatedFiles::new(27);
    let broker = TestBroker::start(Arc::new(files.clone()), SMALL, Limits::default()).unwrap();
    persistent(&broker, "big", "both/#");
    let mut listener = RawClient::clean(broker.addr, "listener");
    listener.subscribe("will", 0);
    let connect = Connect::new("sender").will("will", "gone", 0, false);
    let (mut sender, _) = RawClient::open(broker.addr, &connect);
    broker.wait_for_log(broker.log().submitted());
    files.on_step(|step| (step.kind == StepKind::Write).then_some(Fault::Broken));
    for id in 1..=100 {
        sender.send(&wire::publish_qos1(id, "both", vec![b'm'; 1_000]));
    }
    wait_until("no more may wait", || broker.log().is_full() && broker.log().status().failing);
    sender.expect_nothing();
    drop(sender);
    listener.expect_message("will", "gone");
    broker.kill();
}
