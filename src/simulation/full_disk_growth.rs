//! A full disk: what is not for ends is not used up by what clients ask for, so that whoever has
//! something to fetch can acknowledge it, and that makes room.

use std::time::Duration;

use super::asking::wait_until;
use super::broker::TestBroker;
use super::full_disk::{DISK, comes_back, drain, fill, keep, persistent, start};
use super::support::raw_client::RawClient;
use super::support::server_packet::ServerPacket;
use super::support::wire::{self, Connect};
use crate::storage::simulated::SimulatedFiles;

/// Long enough for what is forbidden to happen, if it does.
const A_MOMENT: Duration = Duration::from_millis(50);

/// A broker on a full disk: "big" has all that is on it, "dash" is kept and subscribed to "ret/#".
/// `before`: what happens while there is room.
fn full(files: &SimulatedFiles, before: impl FnOnce(&TestBroker)) -> (TestBroker, usize) {
    let broker = start(files);
    persistent(&broker, "big", "both/#");
    persistent(&broker, "dash", "ret/#");
    before(&broker);
    files.set_limit(Some(DISK));
    broker.log().tend_reserve();
    let (acknowledged, _publisher) = fill(&broker, 0);
    (broker, acknowledged)
}

fn submitted(broker: &TestBroker) -> u64 {
    broker.log().status().bytes_submitted
}

const RETAINED: usize = 25;

/// 100 KB of retained messages before the disk is full. A replay puts a copy of each on record; the
/// disk has room for one replay besides the reserve.
fn retain(broker: &TestBroker) {
    let mut publisher = RawClient::clean(broker.addr, "publisher");
    for n in 0..RETAINED {
        publisher.publish_retained(&format!("ret/{n}"), 1, vec![b'r'; 4_000]);
    }
    assert_eq!(drain(broker, "dash"), RETAINED);
}

fn take(client: &mut RawClient, messages: usize) {
    for _ in 0..messages {
        let publish = client.expect_publish();
        client.send(&wire::puback(publish.id()));
    }
}

/// Reported: one SUBSCRIBE put 161,565 bytes on record against a reserve of 96 KB, and the disk never
/// came back.
#[test]
fn retained_messages_for_a_kept_session_wait_for_room() {
    let files = SimulatedFiles::new(11);
    let (mut broker, acknowledged) = full(&files, retain);
    let mut dash = RawClient::resume(broker.addr, "dash");
    let before = submitted(&broker);
    // It has that already: only its retained messages wait.
    dash.subscribe("ret/#", 1);
    dash.expect_nothing();
    // What is not stored need not wait.
    let mut reader = RawClient::clean(broker.addr, "reader");
    reader.subscribe("ret/1", 1);
    reader.expect_message_and_ack("ret/1", vec![b'r'; 4_000]);
    dash.stays_silent_and_open(A_MOMENT);
    assert_eq!(submitted(&broker), before);
    assert_eq!(drain(&broker, "big"), acknowledged);
    comes_back(&mut broker);
    // By themselves.
    take(&mut dash, RETAINED);
    broker.kill();
}

/// Reported: other options for a hundred filters, 22 times, and the reserve was gone.
#[test]
fn new_and_changed_subscriptions_wait_for_room() {
    let files = SimulatedFiles::new(12);
    let (mut broker, acknowledged) = full(&files, |broker| {
        let mut publisher = RawClient::clean(broker.addr, "publisher");
        publisher.publish_retained("new", 1, "retained");
    });
    let mut dash = RawClient::resume(broker.addr, "dash");
    dash.subscribe("ret/#", 1);
    let before = submitted(&broker);
    let filters: Vec<(String, u8)> = (0..100).map(|n| (format!("filter/of/mine/{n}"), 1)).collect();
    dash.send(&wire::subscribe(3, &[("ret/#", 0)]));
    // More than fits into one turn.
    dash.send(&wire::subscribe(4, &filters));
    dash.send(&wire::subscribe(5, &[("new", 1)]));
    let mut other = RawClient::clean(broker.addr, "other");
    other.subscribe("of nobody who is kept", 1);
    dash.stays_silent_and_open(A_MOMENT);
    assert_eq!(submitted(&broker), before);
    assert_eq!(drain(&broker, "big"), acknowledged);
    comes_back(&mut broker);
    assert_eq!(dash.expect_packet(), ServerPacket::SubAck(3, vec![0]));
    assert_eq!(dash.expect_packet(), ServerPacket::SubAck(4, vec![1; 100]));
    assert_eq!(dash.expect_packet(), ServerPacket::SubAck(5, vec![1]));
    dash.expect_message_and_ack("new", "retained");
    broker.kill();
}

/// What is given up makes room in the end, and is no more than there is.
#[test]
fn who_unsubscribes_does_not_wait() {
    let files = SimulatedFiles::new(13);
    let (mut broker, acknowledged) = full(&files, |_| {});
    let mut dash = RawClient::resume(broker.addr, "dash");
    dash.unsubscribe("ret/#");
    let before = submitted(&broker);
    for _ in 0..100 {
        dash.unsubscribe("ret/#");
    }
    assert_eq!(submitted(&broker), before, "what is not there is not ended on record");
    assert_eq!(drain(&broker, "big"), acknowledged);
    comes_back(&mut broker);
    broker.kill();
}

/// Whether this CONNECT is answered with 0; 3 is the other answer.
fn is_let_in(broker: &TestBroker, connect: &Connect) -> Option<RawClient> {
    let mut client = RawClient::connect(broker.addr);
    client.send(&connect.bytes());
    match client.expect_packet() {
        ServerPacket::ConnAck(_, 0) => Some(client),
        ServerPacket::ConnAck(_, 3) => None,
        other => panic!("{other:?}"),
    }
}

/// Reported: five wills of 20 KB each of a client id that is known, and the reserve was gone.
#[test]
fn wills_of_known_clients_wait_when_their_part_of_the_reserve_is_used_up() {
    let files = SimulatedFiles::new(14);
    let (mut broker, acknowledged) = full(&files, |_| {});
    let with_will = Connect::persistent("dash").will("both/will", vec![b'w'; 20_000], 1, false);
    let mut wills = 0;
    for _ in 0..10 {
        let Some(client) = is_let_in(&broker, &with_will) else { break };
        // It is published, and stored for "big".
        client.reset();
        wills += 1;
        wait_until("the will is published", || broker.core.metrics().wills_published == wills);
    }
    assert!(wills < 3, "{wills} wills of 20 KB");
    assert!(is_let_in(&broker, &with_will).is_none());
    assert!(!broker.log().status().failing);
    // Who makes room comes in, with a will as such clients have it.
    let big = Connect::persistent("big").will("gone", "gone", 1, true);
    is_let_in(&broker, &big).expect("it makes room").disconnect();
    assert_eq!(drain(&broker, "big"), acknowledged + usize::try_from(wills).unwrap());
    comes_back(&mut broker);
    is_let_in(&broker, &with_will).expect("there is room");
    broker.kill();
}

/// Who comes and goes again and again uses nothing up for good: what is out of date is freed.
#[test]
fn who_comes_and_goes_does_not_use_up_the_reserve() {
    let files = SimulatedFiles::new(15);
    let (mut broker, acknowledged) = full(&files, |_| {});
    let dash = Connect::persistent("dash").will("gone", vec![b'w'; 1_000], 1, true);
    let mut comes = 0;
    while comes < 200 {
        match is_let_in(&broker, &dash) {
            Some(client) => client.reset(),
            None => keep(&mut broker),
        }
        comes += 1;
        assert!(!broker.log().status().failing, "after {comes}");
        RawClient::resume(broker.addr, "big").disconnect();
    }
    assert_eq!(drain(&broker, "big"), acknowledged);
    comes_back(&mut broker);
    broker.kill();
}

/// PUBREL for an id that is not known is answered, and nothing of it goes on record.
#[test]
fn what_has_ended_is_not_ended_on_record_again() {
    let files = SimulatedFiles::new(16);
    let (mut broker, acknowledged) = full(&files, |_| {});
    let mut dash = RawClient::resume(broker.addr, "dash");
    dash.expect_nothing();
    let before = submitted(&broker);
    for id in 1..=1_000 {
        dash.send(&wire::pubrel(id));
    }
    for id in 1..=1_000 {
        assert_eq!(dash.expect_packet(), ServerPacket::PubComp(id));
    }
    assert_eq!(submitted(&broker), before);
    assert_eq!(drain(&broker, "big"), acknowledged);
    comes_back(&mut broker);
    broker.kill();
}
