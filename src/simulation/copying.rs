//! Few messages that nobody fetches among many that are over: their segments are copied forward and freed, and the power goes in the midst of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::broker::{Dead, Power, SMALL, TestBroker};
use super::support::raw_client::{DEADLINE, RawClient};
use super::support::server_packet::ServerPacket;
use super::support::wire::{self, Connect};
use super::wire_client::Wire;
use crate::config::Limits;
use crate::storage::simulated::{Fault, SimulatedFiles, Step, StepKind};

/// Acknowledged: messages for the session that stays away, and the value of each retained topic.
#[derive(Debug, Default)]
struct Promised {
    queued: Vec<String>,
    retained: Vec<String>,
}

const ROUNDS: usize = 3;

fn publish(wire: &mut Wire, topic: &str, payload: &str, retain: bool) -> Result<(), Dead> {
    wire.send(&wire::raw_publish(2 | u8::from(retain), topic, Some(1), payload))?;
    match wire.expect()? {
        ServerPacket::PubAck(1) => Ok(()),
        other => panic!("expected PUBACK, got {other:?}"),
    }
}

fn perform(broker: &mut TestBroker, power: &Power, promised: &mut Promised) -> Result<(), Dead> {
    let (mut away, _) = Wire::open(broker.addr, power, &Connect::persistent("away"))?;
    away.send(&wire::subscribe(1, &[("kept", 1)]))?;
    away.expect()?;
    away.leave(&wire::DISCONNECT)?;
    let (mut publisher, _) = Wire::open(broker.addr, power, &Connect::new("publisher"))?;
    for round in 0..ROUNDS {
        for n in 0..2 {
            let text = format!("{round} {n}");
            publish(&mut publisher, "kept", &text, false)?;
            promised.queued.push(text.clone());
            publish(&mut publisher, &format!("still/{text}"), &text, true)?;
            promised.retained.push(text);
            // These replace one another.
            for _ in 0..14 {
                publish(&mut publisher, "busy", &"x".repeat(200), true)?;
            }
        }
        if round + 1 < ROUNDS {
            broker.tend();
            broker.finish_tending();
        }
    }
    Ok(())
}

fn check(found: SimulatedFiles, promised: &Promised) {
    let broker = TestBroker::start(Arc::new(found), SMALL, Limits::default()).unwrap();
    if !promised.queued.is_empty() {
        let mut away = RawClient::resume(broker.addr, "away");
        for text in &promised.queued {
            away.expect_message_and_ack("kept", text);
        }
    }
    let mut anybody = RawClient::clean(broker.addr, "anybody");
    for text in &promised.retained {
        let topic = format!("still/{text}");
        anybody.subscribe(&topic, 0);
        anybody.expect_message(&topic, text);
    }
    broker.kill();
}

fn run(cut: Option<u64>) -> SimulatedFiles {
    let files = SimulatedFiles::new(1);
    let plan = move |step: &Step| (Some(step.number) == cut).then_some(Fault::PowerCut);
    let power = Power::with(&files, plan);
    let mut promised = Promised::default();
    if let Ok(mut broker) = TestBroker::start(Arc::new(files.clone()), SMALL, Limits::default()) {
        if perform(&mut broker, &power, &mut promised).is_ok() {
            broker.tend();
            broker.finish_tending();
        }
        power.cut(&files);
        for seed in 0..3 {
            check(files.after_power_cut(seed), &promised);
        }
        broker.kill();
    }
    files
}

#[test]
fn what_is_copied_forward_is_at_one_place_at_least() {
    let steps = run(None).steps();
    let removed = steps.iter().filter(|step| step.kind == StepKind::Remove && step.name.contains("segment"));
    assert!(removed.count() > 2, "nothing was freed");
    // From the first checkpoint on.
    let first = steps.iter().find(|step| step.name.contains("checkpoint")).map_or(1, |step| step.number);
    for cut in first..=steps.len() as u64 {
        let kind = steps[cut as usize - 1].kind;
        // The many writes and syncs in between are those of other tests.
        if cut % 5 == 0
            || matches!(kind, StepKind::Remove | StepKind::Rename | StepKind::SyncDir | StepKind::Create)
        {
            run(Some(cut));
        }
    }
}

/// The disk takes its time over the copies, and that long nothing leaves the old place.
#[test]
fn what_is_copied_forward_leaves_its_place_when_the_copy_is_safe() {
    let files = SimulatedFiles::new(1);
    let power = Power::with(&files, |_| None);
    let mut promised = Promised::default();
    let mut broker = TestBroker::start(Arc::new(files.clone()), SMALL, Limits::default()).unwrap();
    perform(&mut broker, &power, &mut promised).unwrap();
    let earlier = files.steps().len();
    files.hold_syncs();
    broker.tend();
    // All that the checkpoint needs is synced.
    let deadline = Instant::now() + DEADLINE;
    let is_checkpoint = |step: &Step| {
        step.number > earlier as u64 && step.kind == StepKind::Rename && step.name.contains("checkpoint")
    };
    while !files.let_sync_through_before(is_checkpoint) {
        assert!(Instant::now() < deadline, "no checkpoint");
        std::thread::yield_now();
    }
    // Then come the copies, whose sync does not end.
    files.wait_for_held_sync();
    // Time in which a broker that is rash frees the old segments: that it does nothing is no event to be awaited.
    std::thread::sleep(Duration::from_millis(100));
    let steps = files.steps();
    let freed = |step: &Step| step.kind == StepKind::Remove && step.name.contains("segment");
    assert!(!steps[earlier..].iter().any(freed), "a segment is gone whose copies are not safe");
    power.cut(&files);
    for seed in 0..8 {
        check(files.after_power_cut(seed), &promised);
    }
    files.release_syncs();
    broker.kill();
}
