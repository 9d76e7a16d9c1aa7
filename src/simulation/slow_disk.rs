//! A disk that takes its time: whatever waits for it goes when it is done, and nobody has to ask.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::asking::wait_until;
use super::broker::{Power, SMALL, TestBroker};
use super::support::raw_client::{DEADLINE, RawClient};
use super::support::raw_client5::RawClient5;
use super::support::server_packet::ServerPacket;
use super::support::server_packet5::ServerPacket5;
use super::support::wire::{self, Connect};
use super::support::wire5::{Connect5, four, id};
use crate::config::Limits;
use crate::storage::simulated::{SimulatedFiles, Step, StepKind};

fn start() -> (SimulatedFiles, TestBroker) {
    let files = SimulatedFiles::new(1);
    let broker = TestBroker::start(Arc::new(files.clone()), SMALL, Limits::default()).unwrap();
    (files, broker)
}

/// Else nobody would know after a crash that it was sent: it would come again without DUP, or go to
/// another member of a group.
#[test]
fn what_waited_for_a_client_is_sent_when_its_connection_is_on_record() {
    let (files, broker) = start();
    let mut subscriber = RawClient::persistent(broker.addr, "subscriber");
    subscriber.subscribe("kept/#", 2);
    subscriber.disconnect();
    let mut publisher = RawClient::clean(broker.addr, "publisher");
    publisher.publish("kept/1", 1, "at QoS 1");
    publisher.publish("kept/2", 2, "at QoS 2");
    files.hold_syncs();
    let mut subscriber = RawClient::resume(broker.addr, "subscriber");
    files.wait_for_held_sync();
    subscriber.expect_nothing();
    files.release_syncs();
    subscriber.expect_message_and_ack("kept/1", "at QoS 1");
    subscriber.expect_message("kept/2", "at QoS 2");
    broker.kill();
}

/// A message at QoS 2 goes when it is on disk. The connection that gets it has not been there when
/// it was queued.
#[test]
fn a_message_under_way_to_the_disk_goes_to_the_connection_of_that_moment() {
    let (files, broker) = start();
    let mut subscriber = RawClient::persistent(broker.addr, "subscriber");
    subscriber.subscribe("kept/#", 2);
    let mut publisher = RawClient::clean(broker.addr, "publisher");
    files.hold_syncs();
    publisher.send(&wire::publish_qos2(1, "kept/1", "first"));
    files.wait_for_held_sync();
    publisher.send(&wire::publish_qos2(2, "kept/2", "second"));
    publisher.expect_nothing();
    // It takes over while both wait.
    let mut successor = RawClient::resume(broker.addr, "subscriber");
    assert!(subscriber.packets_until_closed().is_empty());
    successor.expect_nothing();
    files.release_syncs();
    successor.expect_message("kept/1", "first");
    successor.expect_message("kept/2", "second");
    broker.kill();
}

/// The answers of a client that has gone on are sent when the disk is done; its successor does not
/// wait for that.
#[test]
fn a_client_that_has_left_is_answered_when_the_disk_is_done() {
    let (files, broker) = start();
    RawClient::persistent(broker.addr, "leaves").disconnect();
    files.hold_syncs();
    let mut ends = Vec::new();
    for is_fin in [false, true] {
        let mut client = RawClient::connect(broker.addr);
        client.send(&Connect::persistent("leaves").bytes());
        client.send(&wire::raw_publish(3, "t", Some(7), "m"));
        client.send(&wire::subscribe(8, &[("u", 0)]));
        if is_fin {
            client.finish_sending();
        } else {
            client.send(&wire::DISCONNECT);
        }
        assert_eq!(client.expect_packet(), ServerPacket::ConnAck(true, 0));
        client.stays_silent_and_open(Duration::from_millis(20));
        ends.push(client);
    }
    let mut successor = RawClient::resume(broker.addr, "leaves");
    successor.expect_nothing();
    files.release_syncs();
    for mut client in ends {
        let expected = [ServerPacket::PubAck(7), ServerPacket::SubAck(8, vec![0])];
        assert_eq!(client.packets_until_closed(), expected);
    }
    broker.kill();
}

/// But not for ever.
#[test]
fn a_client_that_has_left_is_not_kept_for_a_disk_that_hangs() {
    let (files, broker) = start();
    files.hold_syncs();
    let mut client = RawClient::clean(broker.addr, "leaves");
    client.send(&wire::raw_publish(3, "t", Some(7), "m"));
    client.send(&wire::DISCONNECT);
    client.expect_closed();
    files.release_syncs();
    broker.kill();
}

/// CONNACK waits for the disk. A checkpoint is gathered meanwhile: what it tells of the new session
/// replaces the record that CONNACK waits for.
#[test]
fn a_checkpoint_gathered_while_connack_waits_has_the_new_session() {
    let (files, mut broker) = start();
    let power = Power::with(&files, |_| None);
    files.hold_syncs_of("segment");
    let mut client = RawClient::connect(broker.addr);
    client.send(&Connect::persistent("new").bytes());
    files.wait_for_held_sync();
    broker.tend();
    let wait_for_checkpoint = |kind: StepKind| {
        let deadline = Instant::now() + DEADLINE;
        let is_it = |step: &Step| step.kind == kind && step.name.contains("checkpoint");
        while !files.steps().iter().any(is_it) {
            assert!(Instant::now() < deadline, "no {kind:?} of a checkpoint");
            std::thread::yield_now();
        }
    };
    wait_for_checkpoint(StepKind::Write);
    // Of the session's record; that of the connection stays held.
    files.let_one_sync_through();
    assert_eq!(client.expect_packet(), ServerPacket::ConnAck(false, 0));
    wait_for_checkpoint(StepKind::Rename);
    power.cut(&files);
    files.release_syncs();
    for seed in 0..64 {
        let again =
            TestBroker::start(Arc::new(files.after_power_cut(seed)), SMALL, Limits::default()).unwrap();
        let (_, is_present) = RawClient::open(again.addr, &Connect::persistent("new"));
        assert!(is_present, "seed {seed}: CONNACK came, and the session is gone");
        again.kill();
    }
    broker.kill();
}

/// What waits for a busy disk is at its bound: a newcomer waits as publishers do, and is not refused.
#[test]
fn a_newcomer_waits_for_a_busy_disk() {
    let (files, broker) = start();
    files.hold_syncs();
    let with_will = |n: usize| Connect::new(format!("with will {n}")).will("w", vec![b'w'; 20_000], 0, false);
    let mut let_in = Vec::new();
    while !broker.log().is_full() {
        assert!(let_in.len() < 10, "what waits for the disk has no bound");
        let_in.push(RawClient::open(broker.addr, &with_will(let_in.len())).0);
    }
    let mut newcomer = RawClient::connect(broker.addr);
    newcomer.send(&with_will(10).bytes());
    newcomer.stays_silent_and_open(Duration::from_millis(20));
    files.release_syncs();
    assert_eq!(newcomer.expect_packet(), ServerPacket::ConnAck(false, 0));
    drop(let_in);
    broker.kill();
}

/// A client is back before its will is due, or takes over from itself: it is told so when that is on
/// record, and after a crash the will is not sent.
#[test]
fn a_will_that_is_called_off_is_off_the_record_before_connack() {
    for vanishes in [true, false] {
        let (files, broker) = start();
        let power = Power::with(&files, |_| None);
        let connect = Connect5::resuming("A").session_expiry(3_600);
        let with_will = Connect5::resuming("A")
            .session_expiry(3_600)
            .will("w", "gone", 1, false)
            .will_with(four(id::WILL_DELAY, 600));
        let (first, ..) = RawClient5::open(broker.addr, &with_will);
        if vanishes {
            drop(first);
            let deadline = Instant::now() + DEADLINE;
            while !broker.core.has_delayed_will("A") {
                assert!(Instant::now() < deadline, "its end is not seen");
                std::thread::yield_now();
            }
        }
        broker.wait_for_log(broker.log().submitted());
        files.hold_syncs();
        let mut second = RawClient5::connect(broker.addr);
        second.send_connect(&connect);
        files.wait_for_held_sync();
        second.stays_silent_and_open(Duration::from_millis(20));
        files.let_one_sync_through();
        assert!(matches!(second.expect_packet(), ServerPacket5::ConnAck(true, 0, _)));
        power.cut(&files);
        files.release_syncs();
        for seed in 0..16 {
            let found = files.after_power_cut(seed);
            let again = TestBroker::start(Arc::new(found), SMALL, Limits::default()).unwrap();
            assert!(!again.core.has_delayed_will("A"), "seed {seed}, vanishes: {vanishes}");
            again.kill();
        }
        broker.kill();
    }
}

/// Reported: it was sent when the broker shut down before the client that had called it off was
/// answered.
#[test]
fn a_will_that_is_called_off_is_not_sent_at_a_shutdown() {
    let (files, broker) = start();
    let mut anybody = RawClient::clean(broker.addr, "anybody");
    anybody.subscribe("w", 1);
    let with_will = Connect5::resuming("A")
        .session_expiry(3_600)
        .will("w", "gone", 1, false)
        .will_with(four(id::WILL_DELAY, 600));
    drop(RawClient5::open(broker.addr, &with_will));
    wait_until("its end is not seen", || broker.core.has_delayed_will("A"));
    broker.wait_for_log(broker.log().submitted());
    files.hold_syncs();
    let mut second = RawClient5::connect(broker.addr);
    second.send_connect(&Connect5::resuming("A").session_expiry(3_600));
    files.wait_for_held_sync();
    broker.core.begin_shutdown();
    assert_eq!(anybody.packets_until_closed(), []);
    files.release_syncs();
    broker.kill();
}

/// The disk takes longer than CONNACK may wait: the session is what it was, without a connection. It
/// ends in its time and its will is on record.
#[test]
fn a_session_whose_client_is_refused_for_a_slow_disk_stays_as_it_was() {
    let files = SimulatedFiles::new(1);
    let limits = Limits { connect_timeout: Duration::from_millis(200), ..Limits::default() };
    let broker = TestBroker::start(Arc::new(files.clone()), SMALL, limits).unwrap();
    let connect = Connect5::resuming("A")
        .session_expiry(60)
        .will("w", "gone", 1, false)
        .will_with(four(id::WILL_DELAY, 30));
    let (first, ..) = RawClient5::open(broker.addr, &connect);
    broker.wait_for_log(broker.log().submitted());
    files.hold_syncs();
    RawClient5::refused(broker.addr, &connect.bytes(), 0x88);
    assert!(!broker.core.stays_for("A", Duration::from_secs(70)), "it would never end");
    files.release_syncs();
    broker.wait_for_log(broker.log().submitted());
    let found = files.after_power_cut(0);
    drop(first);
    broker.kill();
    let again = TestBroker::start(Arc::new(found), SMALL, Limits::default()).unwrap();
    assert!(again.core.has_delayed_will("A"), "its will is lost");
    again.kill();
}

/// It has messages of a group that another member can have: they go to that one when CONNACK has
/// waited in vain.
#[test]
fn a_member_that_is_refused_for_a_slow_disk_gives_its_messages_away() {
    const SENT: usize = 200;
    let files = SimulatedFiles::new(1);
    let limits = Limits { connect_timeout: Duration::from_millis(200), ..Limits::default() };
    let broker = TestBroker::start(Arc::new(files.clone()), SMALL, limits).unwrap();
    let connect = |seconds| Connect5::resuming("A").session_expiry(seconds);
    let (mut member, ..) = RawClient5::open(broker.addr, &connect(60));
    member.subscribe("$share/g/t", 1);
    member.disconnect();
    let mut publisher = RawClient::clean(broker.addr, "publisher");
    for n in 0..SENT {
        publisher.publish("t", 1, n.to_string());
    }
    let mut other = RawClient::persistent(broker.addr, "other");
    other.subscribe("$share/g/t", 1);
    broker.wait_for_log(broker.log().submitted());
    files.hold_syncs();
    RawClient5::refused(broker.addr, &connect(6_000).bytes(), 0x88);
    files.release_syncs();
    for n in 0..SENT {
        other.expect_message_and_ack("t", n.to_string());
    }
    broker.kill();
}
