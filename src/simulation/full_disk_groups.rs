//! Shared subscriptions on a full disk: what a member that is away is to give to others waits for
//! room, and stays its own until there is some.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::broker::TestBroker;
use super::full_disk::{DISK, keep, start, start_on_small_disk};
use super::support::raw_client::{DEADLINE, RawClient};
use super::support::raw_client5::RawClient5;
use super::support::server_packet::{Publish, ServerPacket};
use super::support::wire::{self, Connect};
use super::support::wire5::{Connect5, id, two};
use crate::config::Limits;
use crate::storage::simulated::SimulatedFiles;

const BODY_BYTES: usize = 900;
/// Others use the disk as well: what the reserve had is not enough to give anything away.
const TAKEN_BY_OTHERS: usize = 56 * 1024;

fn body(n: usize) -> Vec<u8> {
    format!("{n:0BODY_BYTES$}").into_bytes()
}

/// Publishes at QoS 1 until the disk is full; how many messages were acknowledged.
fn fill(broker: &TestBroker) -> usize {
    let mut publisher = RawClient::clean(broker.addr, "publisher");
    let mut acknowledged = 0;
    while !broker.log().is_short_of_room() {
        publisher.publish("t", 1, body(acknowledged));
        acknowledged += 1;
        assert!(acknowledged < 2_000, "the disk is never full");
    }
    acknowledged
}

/// A group of two, one of whom has got everything and acknowledged nothing, on a disk that is full.
struct Bench {
    files: SimulatedFiles,
    broker: TestBroker,
    /// It holds what was acknowledged to the publisher.
    first: RawClient,
    second: RawClient,
    /// What the first one was sent, and how many messages there are.
    sent: Vec<Publish>,
    all: usize,
}

impl Bench {
    /// With nothing left for a hand-over.
    fn new() -> Self {
        let bench = Self::with_room_of_reserve();
        bench.files.set_limit(Some(DISK - TAKEN_BY_OTHERS));
        bench
    }

    fn with_room_of_reserve() -> Self {
        Self::started(start)
    }

    fn started(start: impl FnOnce(&SimulatedFiles) -> TestBroker) -> Self {
        let files = SimulatedFiles::new(4);
        let broker = start(&files);
        let mut first = RawClient::persistent(broker.addr, "first");
        first.subscribe("$share/g/t", 1);
        let mut second = RawClient::persistent(broker.addr, "second");
        second.subscribe("$share/g/t", 1);
        second.disconnect();
        files.set_limit(Some(DISK));
        broker.log().tend_reserve();
        let all = fill(&broker);
        let sent = publishes(&mut first);
        assert!((1..all).contains(&sent.len()), "some are sent, some wait: {} of {all}", sent.len());
        let second = RawClient::resume(broker.addr, "second");
        Self { files, broker, first, second, sent, all }
    }

    fn first_leaves(self) -> (SimulatedFiles, TestBroker, RawClient, Vec<Publish>, usize) {
        let Self { files, broker, first, mut second, sent, all } = self;
        first.disconnect();
        let deadline = Instant::now() + DEADLINE;
        while broker.core.has_anything_for("first") {
            assert!(Instant::now() < deadline, "it gives nothing away");
            std::thread::yield_now();
        }
        assert!(broker.log().is_short_of_room());
        second.expect_nothing();
        (files, broker, second, sent, all)
    }
}

fn publishes(client: &mut RawClient) -> Vec<Publish> {
    let packets = client.packets_until_ping().into_iter();
    let publishes = packets.filter_map(|packet| match packet {
        ServerPacket::Publish(publish) => Some(publish),
        _ => None,
    });
    publishes.collect()
}

/// Takes the messages up to `all` in the same way, on a full disk that is looked after: again and
/// again, for an acknowledgement makes room when it is on record, which may be in the next round.
fn take_as_room_comes(
    broker: &mut TestBroker,
    client: &mut RawClient,
    mut taken: Vec<Publish>,
    all: usize,
) -> Vec<Publish> {
    let deadline = Instant::now() + DEADLINE;
    while taken.len() < all {
        assert!(Instant::now() < deadline, "{} of {all} came: {:?}", taken.len(), broker.log().status());
        let came = publishes(client);
        came.iter().for_each(|publish| client.send(&wire::puback(publish.id())));
        taken.extend(came);
        keep(broker);
    }
    taken
}

/// Takes so many messages, each of which it acknowledges at once.
fn take(client: &mut RawClient, count: usize) -> Vec<Publish> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let publish = client.expect_publish();
        client.send(&wire::puback(publish.id()));
        taken.push(publish);
    }
    taken
}

fn numbers(publishes: &[Publish]) -> Vec<usize> {
    publishes.iter().map(|publish| publish.text().parse().unwrap()).collect()
}

/// Reported: nothing came, so nothing could be acknowledged, and no room was made.
#[test]
fn a_member_that_is_back_before_there_is_room_has_its_messages_and_makes_room() {
    let (_files, mut broker, mut second, sent, all) = Bench::new().first_leaves();
    let mut first = RawClient::resume(broker.addr, "first");
    let taken = take(&mut first, all);
    assert_eq!(numbers(&taken), (0..all).collect::<Vec<_>>(), "all of them, in their order");
    let (again, new) = taken.split_at(sent.len());
    for (before, again) in sent.iter().zip(again) {
        assert_eq!((again.id(), again.dup, &again.payload), (before.id(), true, &before.payload));
    }
    let ids: BTreeSet<u16> = sent.iter().map(Publish::id).collect();
    assert!(new.iter().all(|publish| !publish.dup), "sent for the first time");
    assert!(new.iter().all(|publish| !ids.contains(&publish.id())), "ids of their own");
    first.expect_nothing();
    let deadline = Instant::now() + DEADLINE;
    while broker.log().is_short_of_room() {
        assert!(Instant::now() < deadline, "no room: {:?}", broker.log().status());
        keep(&mut broker);
    }
    second.expect_nothing();
    RawClient::clean(broker.addr, "publisher").publish("t", 1, body(all));
    broker.kill();
}

/// A message to many holds a turn open. Were it to wait for a hand-over, and that for room in the
/// log, the checkpoint that makes the room would wait for the turn.
#[test]
fn a_message_to_many_goes_while_a_hand_over_waits_for_room() {
    let bench = Bench::new();
    let mut subscribers: Vec<RawClient> = ["s1", "s2", "s3"]
        .iter()
        .map(|id| {
            let mut subscriber = RawClient::clean(bench.broker.addr, id);
            subscriber.subscribe("own", 0);
            subscriber
        })
        .collect();
    let (files, mut broker, mut second, _, all) = bench.first_leaves();
    broker.core.publish_later("own", "m");
    let before = broker.log().checkpoint_position();
    broker.tend();
    broker.finish_tending();
    assert!(broker.log().checkpoint_position() > before, "the checkpoint waits for a message to many");
    for subscriber in &mut subscribers {
        subscriber.expect_message("own", "m");
    }
    assert!(broker.log().is_short_of_room() && !broker.core.has_anything_for("first"));
    files.set_limit(Some(10 * DISK));
    broker.log().tend_reserve();
    take(&mut second, all);
    broker.kill();
}

/// What a member has taken back and what it has not is on record as its own, and so is what it was
/// sent: after a crash none is lost, and what was sent before says so.
#[test]
fn what_a_member_gives_away_and_takes_back_survives_a_crash() {
    for (is_back, seed) in [(false, 0), (false, 1), (true, 0), (true, 1)] {
        let (files, mut broker, _second, sent, all) = Bench::new().first_leaves();
        // Also in a checkpoint.
        keep(&mut broker);
        let mut got = BTreeSet::new();
        // It is there until the power is gone: else the other one has what is left.
        let mut back = is_back.then(|| RawClient::resume(broker.addr, "first"));
        if let Some(first) = &mut back {
            got.extend(numbers(&take(first, all / 2)));
            keep(&mut broker);
        }
        let found = files.after_power_cut(seed);
        broker.kill();
        let limits = Limits { queue_messages_max: 100_000, ..Limits::default() };
        let broker = TestBroker::start(Arc::new(found), super::broker::SMALL, limits).unwrap();
        let (mut first, is_present) = RawClient::open(broker.addr, &Connect::persistent("first"));
        assert!(is_present);
        let deadline = Instant::now() + DEADLINE;
        while broker.core.has_anything_for("first") {
            assert!(Instant::now() < deadline, "it is owed something and gets nothing");
            for publish in publishes(&mut first) {
                first.send(&wire::puback(publish.id()));
                let before = sent.iter().find(|before| before.payload == publish.payload);
                if let Some(before) = before {
                    assert_eq!((publish.id(), publish.dup), (before.id(), true), "sent before: {is_back}");
                }
                got.insert(numbers(&[publish])[0]);
            }
        }
        assert_eq!(got.len(), all, "back: {is_back}, seed {seed}");
        broker.kill();
    }
}

/// What was sent before a restart says so after the next one, though in between it was only given
/// away and put into a checkpoint.
#[test]
fn what_was_sent_before_a_restart_and_is_given_away_is_not_new_after_the_next() {
    let Bench { files, broker, first, second, sent, all } = Bench::new();
    let found = files.after_power_cut(1);
    broker.kill();
    drop((first, second));
    found.set_limit(Some(DISK - TAKEN_BY_OTHERS));
    let mut broker = start(&found);
    assert!(broker.log().is_short_of_room());
    let _second = RawClient::resume(broker.addr, "second");
    // It takes one at a time, and leaves the others where they are.
    let connect = Connect5::resuming("first").session_expiry(1_000).with(two(id::RECEIVE_MAXIMUM, 1));
    let mut first = RawClient5::resume_with(broker.addr, &connect);
    assert_eq!(first.expect_publish().payload, sent[0].payload);
    first.expect_nothing();
    first.disconnect();
    let deadline = Instant::now() + DEADLINE;
    while broker.core.has_anything_for("first") {
        assert!(Instant::now() < deadline, "it gives nothing away");
        std::thread::yield_now();
    }
    broker.tend();
    broker.finish_tending();
    let found = found.after_power_cut(2);
    broker.kill();
    let limits = Limits { queue_messages_max: 100_000, ..Limits::default() };
    let broker = TestBroker::start(Arc::new(found), super::broker::SMALL, limits).unwrap();
    let mut first = RawClient::resume(broker.addr, "first");
    let taken = take(&mut first, all);
    for before in &sent {
        let again = taken.iter().find(|again| again.payload == before.payload).unwrap();
        assert_eq!((again.id(), again.dup), (before.id(), true));
    }
    broker.kill();
}

/// Reported: what was not given away because the disk was full stayed where it was until its member
/// came and left once more.
#[test]
fn what_an_absent_member_has_goes_to_others_as_soon_as_there_is_room() {
    let (files, broker, mut second, _, all) = Bench::new().first_leaves();
    files.set_limit(Some(10 * DISK));
    broker.log().tend_reserve();
    let taken = take(&mut second, all);
    assert_eq!(numbers(&taken), (0..all).collect::<Vec<_>>(), "all of them, in their order");
    let mut first = RawClient::resume(broker.addr, "first");
    first.expect_nothing();
    broker.kill();
}

/// Reported: what a session that had ended held of a group never came to another member on a full
/// disk, for it waited for the room that only its delivery could make.
#[test]
fn what_a_session_leaves_makes_room_as_it_is_taken() {
    for (is_small, has_ended) in [(false, false), (false, true), (true, false), (true, true)] {
        let start = if is_small { start_on_small_disk } else { start };
        let Bench { files: _files, mut broker, first, mut second, sent: _, all } = Bench::started(start);
        drop(first);
        if has_ended {
            drop(RawClient::clean(broker.addr, "first"));
        }
        let taken = take_as_room_comes(&mut broker, &mut second, Vec::new(), all);
        assert_eq!(numbers(&taken), (0..all).collect::<Vec<_>>(), "all of them, in their order");
        let deadline = Instant::now() + DEADLINE;
        while broker.log().is_short_of_room() {
            assert!(Instant::now() < deadline, "no room: {:?}", broker.log().status());
            keep(&mut broker);
        }
        broker.kill();
    }
}

/// One slice of a hand-over was more than the room that was left for it: it could not be written, nor
/// could anything behind it, the acknowledgements that make room neither.
#[test]
fn a_hand_over_takes_no_more_than_the_room_that_is_left_for_it() {
    let Bench { files, mut broker, first, mut second, all, .. } = Bench::with_room_of_reserve();
    let room = broker.log().room_to_hand_over().bytes;
    let little = 10 * BODY_BYTES;
    files.set_limit(Some(DISK - (room - little)));
    let room = broker.log().room_to_hand_over().bytes;
    assert!((BODY_BYTES..2 * little).contains(&room), "{room} bytes");
    let before = broker.log().status().bytes_submitted;
    first.disconnect();
    let publish = second.expect_publish();
    second.send(&wire::puback(publish.id()));
    let mut taken = vec![publish];
    taken.extend(publishes(&mut second));
    let submitted = broker.log().status().bytes_submitted - before;
    assert!(submitted < (room + BODY_BYTES) as u64, "{submitted} bytes where {room} have room");
    taken[1..].iter().for_each(|publish| second.send(&wire::puback(publish.id())));
    let taken = take_as_room_comes(&mut broker, &mut second, taken, all);
    assert_eq!(numbers(&taken), (0..all).collect::<Vec<_>>(), "all of them, in their order");
    broker.kill();
}
