//! What a turn has in its hands while a checkpoint is written and segments are freed: turns that
//! are slow on purpose.
//!
//! Each case lost acknowledged messages once: a reference was freed before what replaces it was on
//! record, a checkpoint counted on turns being short, a session's end was on record before what it
//! handed over.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::asking::{retained_value, wait_until};
use super::broker::{Power, SMALL, TestBroker};
use super::support::raw_client::{DEADLINE, RawClient};
use super::support::server_packet::ServerPacket;
use super::support::wire::{self, Connect};
use super::wire_client::Wire;
use crate::broker::Turn;
use crate::config::{Limits, MemoryMax};
use crate::protocol::QoS;
use crate::session::Message;
use crate::storage::simulated::{Fault, SimulatedFiles, Step, StepKind};

struct Bench {
    files: SimulatedFiles,
    broker: TestBroker,
}

impl Bench {
    fn new() -> Self {
        let files = SimulatedFiles::new(1);
        let broker = TestBroker::start(Arc::new(files.clone()), SMALL, Limits::default()).unwrap();
        Self { files, broker }
    }

    /// Fills segments that nobody needs afterwards, so that those before them are sealed.
    fn fill(&self) {
        let mut anybody = RawClient::clean(self.broker.addr, "filler");
        for n in 0..20 {
            anybody.publish_retained("filler", 1, format!("{n}{}", "x".repeat(500)));
        }
    }

    fn freed(&self, from: usize) -> usize {
        let steps = self.files.steps();
        let is_freed = |step: &&Step| step.kind == StepKind::Remove && step.name.contains("segment");
        steps.iter().skip(from).filter(is_freed).count()
    }
}

/// Reported as A1: a large retained message is replaced at QoS 0, its segment was unlinked, and the
/// new value was not on record.
#[test]
fn a_segment_stays_while_a_turn_has_replaced_what_is_in_it_and_not_put_that_on_record() {
    for seed in 0..4 {
        let bench = Bench::new();
        let mut owner = RawClient::clean(bench.broker.addr, "owner");
        owner.publish_retained("r", 1, "V1".repeat(1_500));
        bench.fill();
        bench.broker.tend_now();
        let before = bench.files.steps().len();
        let core = Arc::clone(&bench.broker.core);
        let mut turn = Turn::new();
        turn.begin(&core);
        let message = Arc::new(Message::new("r", b"V2", QoS::AtMostOnce));
        assert!(core.publish_message(&mut turn, &message, true).is_none());
        // The old value is not needed in memory any more. Freeing has begun and waits for the turn.
        let mut broker = bench.broker;
        broker.tend();
        std::thread::sleep(Duration::from_millis(30));
        let bench = Bench { files: bench.files, broker };
        assert_eq!(bench.freed(before), 0, "freed while a turn has its successor in its hands");
        let found = bench.files.after_power_cut(seed);
        turn.finish(&core);
        drop((turn, core));
        bench.broker.kill();
        let broker = TestBroker::start(Arc::new(found), SMALL, Limits::default()).unwrap();
        let value = retained_value(&broker, "r");
        assert!(value.is_some_and(|value| value.starts_with(b"V")), "seed {seed}: r has no value");
        broker.kill();
    }
}

/// Reported as A2: a checkpoint trusted that a turn lasts less than 100 ms.
#[test]
fn a_checkpoint_does_not_count_before_the_turns_that_had_begun_have_ended() {
    let mut bench = Bench::new();
    bench.fill();
    let core = Arc::clone(&bench.broker.core);
    let guard = core.enter_turn();
    let before = bench.files.steps().len();
    bench.broker.tend();
    let is_named = |step: &Step| step.kind == StepKind::Rename && step.name.contains("checkpoint");
    std::thread::sleep(Duration::from_millis(250));
    assert!(!bench.files.steps()[before..].iter().any(is_named), "it counts while a turn is under way");
    drop(guard);
    let deadline = Instant::now() + DEADLINE;
    while !bench.files.steps()[before..].iter().any(is_named) {
        assert!(Instant::now() < deadline, "no checkpoint");
        std::thread::yield_now();
    }
    bench.broker.finish_tending();
    drop(core);
    bench.broker.kill();
}

const GIVEN: usize = 150;

/// Takes and acknowledges what a session has.
fn drain(broker: &TestBroker, id: &str, got: &mut BTreeSet<Vec<u8>>) {
    let (mut member, _) = RawClient::open(broker.addr, &Connect::persistent(id));
    let deadline = Instant::now() + DEADLINE;
    while broker.core.has_anything_for(id) {
        assert!(Instant::now() < deadline, "{id} is owed something and gets nothing");
        for packet in member.packets_until_ping() {
            if let ServerPacket::Publish(publish) = packet {
                member.send(&wire::puback(publish.id()));
                got.insert(publish.payload);
            }
        }
    }
    member.disconnect();
}

/// Two absent members of a group hold acknowledged messages; one of them ends. The power goes at
/// every step of that: each message is with one of them, or goes on to the other at the next start.
fn end_of_a_member(cut: Option<u64>, end: impl Fn(&TestBroker, &Power)) -> u64 {
    let files = SimulatedFiles::new(7);
    let broker = TestBroker::start(Arc::new(files.clone()), SMALL, Limits::default()).unwrap();
    for id in ["A", "B"] {
        let mut member = RawClient::persistent(broker.addr, id);
        member.send(&wire::subscribe(1, &[("$share/g/x", 1)]));
        member.expect_packet();
        member.disconnect();
    }
    let mut publisher = RawClient::clean(broker.addr, "publisher");
    for n in 0..GIVEN {
        publisher.publish("x", 1, format!("{n}"));
    }
    let begin = files.steps().len() as u64;
    let power = Power::with(&files, move |step: &Step| {
        (cut.map(|cut| begin + cut) == Some(step.number)).then_some(Fault::PowerCut)
    });
    end(&broker, &power);
    // Until everything is with the other one, or the power is gone.
    let deadline = Instant::now() + DEADLINE;
    let is_over = || broker.core.is_leaving_nobody();
    while power.is_on() && !is_over() && Instant::now() < deadline {
        std::thread::yield_now();
    }
    let log = broker.log();
    while power.is_on() && log.committed() < log.submitted() && Instant::now() < deadline {
        std::thread::yield_now();
    }
    drop(log);
    let steps = files.steps().len() as u64 - begin;
    power.cut(&files);
    for seed in 0..2 {
        let found = files.after_power_cut(seed);
        let again = TestBroker::start(Arc::new(found), SMALL, Limits::default()).unwrap();
        let deadline = Instant::now() + DEADLINE;
        while !again.core.is_leaving_nobody() {
            assert!(Instant::now() < deadline, "the end of a session does not go on");
            std::thread::yield_now();
        }
        let mut got = BTreeSet::new();
        for id in ["A", "B"] {
            drain(&again, id, &mut got);
        }
        let lost: Vec<usize> = (0..GIVEN).filter(|n| !got.contains(n.to_string().as_bytes())).collect();
        assert!(lost.is_empty(), "cut {cut:?}, seed {seed}: {} of {GIVEN} are lost: {lost:?}", lost.len());
        again.kill();
    }
    broker.kill();
    steps
}

fn at_every_step(end: impl Fn(&TestBroker, &Power) + Copy) {
    let steps = end_of_a_member(None, end);
    assert!(steps > 3, "{steps}");
    for cut in 1..=steps {
        end_of_a_member(Some(cut), end);
    }
}

/// Reported as A3: 4,000 of 8,000 lost, 8 of 8.
#[test]
fn a_clean_start_of_a_member_loses_nothing_of_its_group() {
    at_every_step(|broker, power| {
        let _ = Wire::open(broker.addr, power, &Connect::new("A"));
    });
}

#[test]
fn the_expiry_of_a_member_loses_nothing_of_its_group() {
    at_every_step(|broker, _| broker.core.expire_now("A"));
}

/// What a session is sent until nothing waits for it, acknowledged.
fn deliveries(broker: &TestBroker, id: &str) -> Vec<Vec<u8>> {
    let (mut member, _) = RawClient::open(broker.addr, &Connect::persistent(id));
    let deadline = Instant::now() + DEADLINE;
    let mut all = Vec::new();
    while broker.core.has_anything_for(id) {
        assert!(Instant::now() < deadline, "{id} is owed something and gets nothing");
        for packet in member.packets_until_ping() {
            if let ServerPacket::Publish(publish) = packet {
                member.send(&wire::puback(publish.id()));
                all.push(publish.payload);
            }
        }
    }
    all
}

fn away(broker: &TestBroker, id: &str, filter: &str) {
    let mut member = RawClient::persistent(broker.addr, id);
    member.send(&wire::subscribe(1, &[(filter, 1)]));
    member.expect_packet();
    member.disconnect();
}

/// Its own connection ends a session while a successor does not want it: the second end must not
/// forget what the first gives away.
#[test]
fn a_session_that_two_end_is_over_once() {
    let files = SimulatedFiles::new(7);
    let broker = TestBroker::start(Arc::new(files.clone()), SMALL, Limits::default()).unwrap();
    for id in ["A", "B"] {
        away(&broker, id, "$share/g/x");
    }
    let mut publisher = RawClient::clean(broker.addr, "publisher");
    for n in 0..GIVEN {
        publisher.publish("x", 1, format!("{n}"));
    }
    broker.core.expire_twice("A");
    wait_until("the end goes on", || broker.core.is_leaving_nobody());
    let log = broker.log();
    wait_until("it is on record", || log.committed() >= log.submitted());
    drop(log);
    broker.kill();
    let again = TestBroker::start(Arc::new(files), SMALL, Limits::default()).unwrap();
    assert!(again.core.is_leaving_nobody(), "A is over");
    assert_eq!(deliveries(&again, "B").len(), GIVEN, "each once");
    again.kill();
}

/// A member ends while the message it has is not on record yet, for its turn goes on. Nobody else's
/// copy may be lost by that.
#[test]
fn a_message_that_changes_hands_before_it_is_on_record_stays_everybodys() {
    let files = SimulatedFiles::new(7);
    let broker = TestBroker::start(Arc::new(files.clone()), SMALL, Limits::default()).unwrap();
    for (id, filter) in [("A", "$share/g/x"), ("B", "$share/g/x"), ("P", "x")] {
        away(&broker, id, filter);
    }
    let core = Arc::clone(&broker.core);
    let mut turn = Turn::new();
    turn.begin(&core);
    let message = Arc::new(Message::new("x", b"m", QoS::AtLeastOnce));
    assert!(core.publish_message(&mut turn, &message, true).is_none());
    drop(message);
    let (has, other) = if core.has_anything_for("A") { ("A", "B") } else { ("B", "A") };
    core.expire_now(has);
    std::thread::sleep(Duration::from_millis(100));
    turn.finish(&core);
    wait_until("the end goes on", || core.is_leaving_nobody());
    drop((turn, core));
    let bench = Bench { files, broker };
    let mut broker = bench.broker;
    for _ in 0..3 {
        let bench = Bench { files: bench.files.clone(), broker };
        bench.fill();
        bench.broker.tend_now();
        broker = bench.broker;
    }
    broker.kill();
    let again = TestBroker::start(Arc::new(bench.files), SMALL, Limits::default()).unwrap();
    assert_eq!(deliveries(&again, other), [b"m"], "{other} has it from {has}");
    assert_eq!(deliveries(&again, "P"), [b"m"]);
    assert_eq!(retained_value(&again, "x").as_deref(), Some(&b"m"[..]));
    again.kill();
}

/// Its next connection sends the packet again: an answer must not come before the first has been
/// put on record.
#[test]
fn nobody_attaches_while_a_message_of_the_session_is_on_its_way() {
    let bench = Bench::new();
    let first = RawClient::persistent(bench.broker.addr, "P");
    let publishing = bench.broker.core.publishing("P");
    let addr = bench.broker.addr;
    let successor = std::thread::spawn(move || RawClient::open(addr, &Connect::persistent("P")));
    // Longer than a successor waits for a connection that does not close.
    std::thread::sleep(Duration::from_millis(2_500));
    assert!(!successor.is_finished(), "its message is still on its way");
    drop(publishing);
    successor.join().unwrap();
    drop(first);
    bench.broker.kill();
}

/// A fan-out has given a session a message, and its turn goes on. What stands behind that message is
/// on disk: for want of memory it leaves memory, and is not dropped.
#[test]
fn what_is_on_disk_behind_a_message_on_its_way_is_not_dropped_for_want_of_memory() {
    const SENT: usize = 1_500;
    let files = SimulatedFiles::new(1);
    let limits = Limits { memory_max: MemoryMax::Bytes(4 * 1024 * 1024), ..Limits::default() };
    let broker = TestBroker::start(Arc::new(files), SMALL, limits).unwrap();
    away(&broker, "S", "x");
    let core = Arc::clone(&broker.core);
    let mut turn = Turn::new();
    turn.begin(&core);
    let message = Arc::new(Message::new("x", b"first", QoS::AtLeastOnce));
    assert!(core.publish_message(&mut turn, &message, false).is_none());
    drop(message);
    let mut publisher = RawClient::clean(broker.addr, "publisher");
    let payload = |n: usize| format!("{n:04096}").into_bytes();
    for n in 0..SENT {
        publisher.publish("x", 1, payload(n));
    }
    turn.finish(&core);
    drop((turn, core));
    let got = deliveries(&broker, "S");
    let expected: Vec<Vec<u8>> = std::iter::once(b"first".to_vec()).chain((0..SENT).map(payload)).collect();
    assert_eq!(got.len(), expected.len());
    assert!(got == expected, "not in order");
    broker.kill();
}
