//! What a member of a group gives away and nobody has yet: whom a crash leaves it to, and whether it
//! stays within the bound of memory.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::asking::{drain_qos2, wait_until};
use super::broker::{SMALL, TestBroker};
use super::support::raw_client::RawClient;
use super::support::server_packet::{Publish, ServerPacket};
use super::support::wire;
use crate::config::{Limits, MemoryMax};
use crate::storage::simulated::{Fault, SimulatedFiles};

/// More than a window.
const MESSAGES: usize = 150;

fn payloads(publishes: &[Publish]) -> BTreeSet<Vec<u8>> {
    publishes.iter().map(|publish| publish.payload.clone()).collect()
}

/// What happens after "A" has left the group, before the crash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Then {
    Ends,
    Detaches,
    StaysConnected,
}

/// "A" is sent a window of a group's messages at QoS 2 and unsubscribes; what it was not sent is for
/// "B", and is still with "A" at the crash. `is_sent_more`: after that it is sent a later message of
/// a subscription of its own. `has_checkpoint`: the records so far are in a checkpoint.
fn left_before_a_crash(is_sent_more: bool, has_checkpoint: bool, then: Then) {
    let case = format!("sent more: {is_sent_more}, checkpoint: {has_checkpoint}, {then:?}");
    let files = SimulatedFiles::new(7);
    let broker = TestBroker::start_without_hand_over(Arc::new(files.clone())).unwrap();
    let mut member = RawClient::persistent(broker.addr, "B");
    member.subscribe("$share/g/x", 2);
    member.disconnect();
    let mut first = RawClient::persistent(broker.addr, "A");
    first.subscribe_all(&[("$share/g/x", 2), ("own", 2)]);
    let mut publisher = RawClient::clean(broker.addr, "publisher");
    for n in 0..MESSAGES {
        publisher.publish("x", 2, n.to_string());
    }
    let publishes = first.packets_until_ping().into_iter().filter_map(|packet| match packet {
        ServerPacket::Publish(publish) => Some(publish),
        _ => None,
    });
    let sent: Vec<Publish> = publishes.collect();
    assert!((1..MESSAGES).contains(&sent.len()), "{} are sent", sent.len());
    first.unsubscribe("$share/g/x");
    if is_sent_more {
        publisher.publish("own", 2, "own");
        first.complete_qos2(&sent[0]);
        let own = first.expect_message("own", "own");
        first.complete_qos2(&own);
    }
    match then {
        Then::Ends => broker.core.expire_now("A"),
        Then::Detaches => first.disconnect(),
        Then::StaysConnected => {}
    }
    if has_checkpoint {
        broker.tend_now();
    }
    let log = broker.log();
    wait_until("it is on record", || log.committed() >= log.submitted());
    let found = files.after_power_cut(1);
    broker.kill();
    let again = TestBroker::start(Arc::new(found), SMALL, Limits::default()).unwrap();
    wait_until("the hand-over goes on", || again.core.is_leaving_nobody());
    let to_other = payloads(&drain_qos2(&again, "B"));
    let sent = payloads(&sent);
    assert!(to_other.is_disjoint(&sent), "{case}: what was sent goes to nobody else");
    assert_eq!(to_other.len(), MESSAGES - sent.len(), "{case}: another member gets the rest");
    if then != Then::Ends {
        let back = drain_qos2(&again, "A");
        let unfinished = sent.len() - usize::from(is_sent_more);
        assert_eq!(back.len(), unfinished, "{case}: only what was sent is sent again");
        assert!(back.iter().all(|publish| publish.dup && sent.contains(&publish.payload)), "{case}");
    }
    again.kill();
}

#[test]
fn what_a_member_left_before_it_was_sent_goes_to_others_also_after_a_crash() {
    for then in [Then::Ends, Then::Detaches, Then::StaysConnected] {
        for (is_sent_more, has_checkpoint) in [(false, false), (true, false), (true, true)] {
            left_before_a_crash(is_sent_more, has_checkpoint, then);
        }
    }
}

/// The disk fails and nothing changes its owner. Members come, are sent much, and go: what they had
/// is held for the others of the group, and given up like what waits in a queue.
#[test]
fn what_ended_sessions_give_away_is_given_up_like_what_waits_for_others() {
    const MAX: usize = 8 * 1024 * 1024;
    const ROUNDS: usize = 15;
    let files = SimulatedFiles::new(1);
    let limits = Limits { memory_max: MemoryMax::Bytes(MAX), ..Limits::default() };
    let broker = TestBroker::start(Arc::new(files.clone()), SMALL, limits).unwrap();
    let mut stored = RawClient::persistent(broker.addr, "stored");
    stored.subscribe("kept", 1);
    let mut other = RawClient::clean(broker.addr, "other");
    other.subscribe("$share/g/t", 1);
    files.on_step(|_| Some(Fault::Broken));
    let mut filler = RawClient::clean(broker.addr, "filler");
    for n in 1..40 {
        filler.send(&wire::publish_qos1(n, "kept", vec![b'x'; 4096]));
    }
    wait_until("the log takes no more", || broker.log().is_full());
    let mut publisher = RawClient::clean(broker.addr, "publisher");
    for round in 0..ROUNDS {
        let mut member = RawClient::clean(broker.addr, &format!("member{round}"));
        member.subscribe("$share/g/t", 1);
        for _ in 0..200 {
            publisher.publish("t", 1, vec![b'x'; 8_000]);
        }
        member.vanish();
        let id = format!("member{round}");
        wait_until("its session ends", || !broker.core.has_anything_for(&id));
        let total = broker.core.accounts.total();
        assert!(total < MAX / 8 * 9, "round {round}: {total} of {MAX}");
    }
    // Others do not pay for it: what waits for one of them, a window and a little, is less than what
    // each of those who are gone holds.
    const OWED: usize = 100;
    let mut bystander = RawClient::clean(broker.addr, "bystander");
    bystander.subscribe("bystander", 1);
    for n in 0..OWED {
        publisher.publish("bystander", 1, format!("{n:08000}"));
    }
    let (mut got, mut quiet) = (BTreeSet::new(), 0);
    while got.len() < OWED && quiet < 10 {
        let packets = bystander.packets_until_ping();
        quiet = if packets.is_empty() { quiet + 1 } else { 0 };
        for packet in packets {
            if let ServerPacket::Publish(publish) = packet {
                bystander.send(&wire::puback(publish.id()));
                got.insert(publish.payload);
            }
        }
    }
    let dropped = broker.core.metrics.snapshot().dropped;
    broker.kill();
    assert_eq!(got.len(), OWED, "an uninvolved client loses messages: {dropped:?}");
}

/// Reported: what a member had left was put on record again each time that it connected.
#[test]
fn what_is_given_up_is_put_on_record_once() {
    let files = SimulatedFiles::new(8);
    let broker = TestBroker::start_without_hand_over(Arc::new(files)).unwrap();
    let mut first = RawClient::persistent(broker.addr, "A");
    first.subscribe_all(&[("$share/g/x", 1), ("own", 1)]);
    let mut other = RawClient::persistent(broker.addr, "B");
    other.subscribe("$share/g/x", 1);
    other.disconnect();
    let mut publisher = RawClient::clean(broker.addr, "publisher");
    for n in 0..5 * MESSAGES {
        // In turn, so that nothing that is left stands behind another.
        publisher.publish("x", 1, n.to_string());
        publisher.publish("own", 1, n.to_string());
    }
    first.packets_until_ping();
    first.unsubscribe("$share/g/x");
    first.disconnect();
    let come_and_go = || {
        let before = broker.log().status().bytes_submitted;
        RawClient::resume(broker.addr, "A").disconnect();
        broker.log().status().bytes_submitted - before
    };
    let taken = come_and_go();
    assert!(taken < 400, "{taken} bytes of {} messages", 5 * MESSAGES);
    broker.kill();
}
